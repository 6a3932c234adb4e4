"""Pictures of an instance and a decision, drawn by matplotlib without a display and only when asked for.

What is drawn depends on what the problem offers: users are placed where the instance has ``distance_m`` and
``angle_rad`` and sized by its ``weight``; a term ``pair`` links the users of each group, in the colour of their
interference ``rho``. Where users have channels instead of places, a matrix shows what each hears of whose signal.
Every term that is listed in ``PANELS`` gets a row of bars, one for each user or group, or two for the users of a group.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from semcom_gym.envs.arrays import to_numpy
from semcom_gym.envs.outcome import Outcome

SIZE_INCHES = (9.6, 5.4)
DPI = 100
INK, FAINT, PAPER = "#22313f", "#c8d0d8", "#ffffff"
SUCCESS_COLORS = ("#b5342c", "#efc15b", "#2a9d8f")  # from 0 to 1
# term of the outcome -> caption, colour and scale: shares of a budget, of one, part of a whole, numbers, or logarithmic
PANELS = {
    "bandwidth_hz": ("bandwidth share (dotted: equal)", "#3b78b5", "share"),
    "power_w": ("power share (dotted: equal)", "#d9822b", "share"),
    "power_of_cap": ("power, of the device's cap", "#d9822b", "unit"),
    "device_frequency_of_cap": ("clock of the device, of its cap", "#8064a2", "unit"),
    "ratio": ("compression ratio", "#7d8a97", "unit"),
    "success": ("success probability", None, "unit"),  # in the colours of the users
    "rate_mbit_s": ("rate of both users [Mbit/s]", "#5b8c85", "log"),
    "source_distortion": ("distortion (dark: of the source)", "#b5342c", "part"),
    "rate_index": ("codec, from the lowest rate (0) up", "#7d8a97", "count"),
    "time_s": ("time of the round [s]", "#5b8c85", "log"),
}
LOG_FLOOR = 1e-2  # where a logarithmic axis ends
WHOLE = {"source_distortion": "distortion"}  # the term that another is a part of
LEAST_DB, MOST_DB = -10.0, 30.0  # ends of the colours of received powers
LABELLED_USERS = 24  # above it, numbers and links of users overlap


def frame(
    problem: Any, params: Any, instance: Any, outcome: Outcome | None = None, bound: float | None = None
) -> np.ndarray[Any, Any]:
    """The cell, the decision and its objective as an image (540, 960, 3) of uint8.

    instance: one instance (of a batch, the first is drawn). outcome: of a decision for it, or None before one.
    bound: a proven bound on the objective, drawn beside it. Raises ModuleNotFoundError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError("rendering needs matplotlib: pip install 'semcom-gym[report]'") from None

    instance = instance.map(to_numpy)
    draw_users = _draw_cell if hasattr(instance, "distance_m") else _draw_channels
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, facecolor=PAPER)
    canvas: Any = FigureCanvasAgg(figure)
    figure.text(0.03, 0.945, f"{problem.name}: {problem.objective}", color=INK, fontsize=12, weight="bold", va="center")
    if outcome is None:
        draw_users(figure.add_axes((0.28, 0.08, 0.44, 0.82)), params, instance, {})
        figure.text(0.975, 0.945, "no decision yet", color=INK, alpha=0.7, fontsize=10, ha="right", va="center")
    else:
        terms = {name: to_numpy(value)[0] for name, value in outcome.terms.items()}
        draw_users(figure.add_axes((0.01, 0.08, 0.45, 0.82)), params, instance, terms)
        rows = [name for name in PANELS if name in terms]
        height = 0.72 / max(len(rows), 1)
        for row, name in enumerate(rows):
            axes = figure.add_axes((0.53, 0.90 - height * (row + 1) + 0.03, 0.445, height - 0.055))
            _draw_bars(axes, name, _shares(params, instance, name, terms[name]), terms, last=row == len(rows) - 1)
        _draw_objective(figure.add_axes((0.53, 0.06, 0.445, 0.045)), instance, outcome, terms, bound)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _colors(terms: dict[str, Any], users: int) -> Any:
    """One colour per user: its success where there is one."""
    return _scale(terms["success"]) if "success" in terms else [FAINT] * users


def _scale(good: Any) -> Any:
    """Colours from bad (0) to good (1)."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("success", SUCCESS_COLORS)(np.clip(good, 0.0, 1.0))


def _pairs(terms: dict[str, Any]) -> np.ndarray[Any, Any] | None:
    """(K, 2) the users of each group, if the decision pairs users."""
    if "pair" not in terms:
        return None
    members = np.stack(np.triu_indices(2 * len(terms["pair"]), 1), axis=-1)
    return np.asarray(members[terms["pair"]])


def _served(terms: dict[str, Any], users: int) -> np.ndarray[Any, Any]:
    return np.asarray(terms.get("selected", np.ones(users))) > 0.5


def _shares(params: Any, instance: Any, name: str, values: Any) -> Any:
    """``values`` as shares of the budget of that name, the instance's or the parameters', if there is one."""
    if PANELS[name][2] != "share":
        return values
    budget = getattr(params, f"max_{name}", None) or getattr(params, f"total_{name}", None)
    return values / (getattr(instance, name)[0] if hasattr(instance, name) else budget)


def _draw_cell(axes: Any, params: Any, instance: Any, terms: dict[str, Any]) -> None:
    """The ring of the cell, the base station and the users: colour is success, size is weight, hollow is unserved.

    Users of a pair are linked with each other, others with the base station.
    """
    axes.set_axis_off()
    axes.set_aspect("equal")
    distance, angle = instance.distance_m[0], instance.angle_rad[0]
    x, y = distance * np.cos(angle), distance * np.sin(angle)
    users = len(x)
    radius = float(getattr(params, "cell_radius_m", distance.max()))
    turn = np.linspace(0.0, 2.0 * np.pi, 181)
    axes.fill(radius * np.cos(turn), radius * np.sin(turn), facecolor="#f4f7fa", edgecolor=FAINT, linewidth=1.2)
    for part in (1 / 3, 2 / 3):
        axes.plot(part * radius * np.cos(turn), part * radius * np.sin(turn), color=FAINT, linewidth=0.7, linestyle=":")

    served, colors = _served(terms, users), _colors(terms, users)
    weight = instance.weight[0] if hasattr(instance, "weight") else np.ones(users)
    size = 170.0 * weight / weight.max()
    pairs = _pairs(terms)
    if pairs is not None:
        for (i, j), color in zip(pairs, _scale(1.0 - terms["rho"]), strict=True):
            axes.plot(x[[i, j]], y[[i, j]], color=color, linewidth=2.2, alpha=0.85, zorder=1)
    else:
        for i in range(users):
            if served[i] and users <= LABELLED_USERS:
                axes.plot([0.0, x[i]], [0.0, y[i]], color=colors[i], linewidth=1.0, alpha=0.45, zorder=1)
    face = [colors[i] if served[i] else PAPER for i in range(users)]
    axes.scatter(x, y, s=size, c=face, edgecolors=INK, linewidths=1.1, zorder=3)
    axes.scatter([0.0], [0.0], s=150, marker="^", color=INK, zorder=4)
    if users <= LABELLED_USERS:
        for i in range(users):
            offset = (0.5 * np.sqrt(size[i]) + 2.0) * 0.75
            place = {"xytext": (offset, offset), "textcoords": "offset points"}
            axes.annotate(str(i + 1), (x[i], y[i]), fontsize=8, color=INK, zorder=5, **place)
    axes.set_xlim(-1.05 * radius, 1.05 * radius)
    axes.set_ylim(-1.16 * radius, 1.05 * radius)
    caption = [f"cell radius {radius:g} m"]
    caption += ["size: weight"] if hasattr(instance, "weight") else []
    caption += ["colour: success"] if "success" in terms else []
    caption += [] if pairs is None else ["link: pair", "colour: interference (green 0, red 1)"]
    caption += [] if served.all() else ["hollow: not served"]
    axes.text(0.0, -1.05 * radius, "  |  ".join(caption), color=INK, alpha=0.75, fontsize=8, ha="center", va="top")


def _draw_channels(axes: Any, params: Any, instance: Any, terms: dict[str, Any]) -> None:
    """Received powers over the noise in dB, a row per user that hears, a column per user whose signal it is.

    Before a decision: of matched beams that each have all of the power.
    """
    if terms:
        heard, caption = terms["received"], "received power over the noise [dB]"
    else:
        h = (instance.channel_re + 1j * instance.channel_im)[0]
        heard = params.max_power_w * np.abs(h.conj() @ h.T) ** 2 / (np.abs(h) ** 2).sum(axis=1)
        caption = "received power over the noise [dB], if a matched beam had all the power"
    level = 10.0 * np.log10(np.maximum(heard, 1e-12))
    users = len(level)
    axes.set_position((axes.get_position().x0 + 0.08, 0.13, 0.36, 0.64))
    axes.imshow(level, cmap="Blues", vmin=LEAST_DB, vmax=MOST_DB)
    if users <= LABELLED_USERS:
        for (k, j), value in np.ndenumerate(level):
            color = PAPER if value > 0.6 * MOST_DB else INK
            axes.text(j, k, f"{value:.0f}", ha="center", va="center", fontsize=9 if users <= 8 else 5, color=color)
        names = [f"{i + 1} {'semantic' if kind else 'data'}" for i, kind in enumerate(params.semantic)]
        axes.set_xticks(range(users), [str(i + 1) for i in range(users)])
        axes.set_yticks(range(users), names)
    axes.tick_params(labelsize=8 if users <= 8 else 5, colors=INK, length=0)
    axes.set_xlabel("signal of user", fontsize=9, color=INK)
    axes.set_title(caption, fontsize=9, color=INK)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def _draw_bars(axes: Any, name: str, values: Any, terms: dict[str, Any], *, last: bool) -> None:
    """One row of bars: one for each user or group, or two for the users of each group."""
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

    caption, color, scale = PANELS[name]
    bars = len(values)
    served = _served(terms, bars)
    place = np.arange(1, bars + 1)
    if values.ndim == 2:
        for user, alpha in enumerate((1.0, 0.6)):
            axes.bar(place + 0.37 * user - 0.185, values[:, user], width=0.34, color=color, alpha=alpha, zorder=2)
    else:
        if name in WHOLE:
            axes.bar(place, terms[WHOLE[name]], width=0.72, color=color, alpha=0.35, zorder=2)
        axes.bar(place, np.where(served, values, 0.0), width=0.72, color=color or _colors(terms, bars), zorder=2)
    if scale == "share":
        axes.set_ylim(0.0, 1.2 * float(max(values[served].max(initial=0.0), 1.0 / bars)))
        axes.axhline(1.0 / bars, color=INK, linewidth=0.8, linestyle=":", zorder=3)
        axes.yaxis.set_major_formatter(lambda y, _: f"{100.0 * y:.3g} %")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    elif scale == "count":
        axes.set_ylim(0.0, 1.2 * max(float(values.max()), 1.0))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    elif scale in ("unit", "part"):
        axes.set_ylim(0.0, 1.0)
        axes.yaxis.set_major_locator(FixedLocator([0.0, 0.5, 1.0]))
    else:
        axes.set_yscale("log")
        axes.set_ylim(LOG_FLOOR, 2.0 * max(float(values.max()), 1.0))
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.set_title(caption, loc="left", fontsize=9, color=INK, pad=3)
    axes.set_xlim(0.4, bars + 0.6)
    axes.set_xticks(place if bars <= LABELLED_USERS else [1, bars])
    pairs = _pairs(terms)
    if pairs is not None:
        labelled = pairs if 2 * bars <= LABELLED_USERS else pairs[:0]
        axes.set_xticks(place[: len(labelled)], [f"{i + 1}-{j + 1}" for i, j in labelled])
    axes.tick_params(labelsize=8, colors=INK, length=0, labelbottom=last)
    axes.grid(axis="y", color=FAINT, linewidth=0.5, zorder=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _draw_objective(axes: Any, instance: Any, outcome: Outcome, terms: dict[str, Any], bound: float | None) -> None:
    """The objective as a bar, the bound as a mark, and the sum of weights as the end of the scale where it is one."""
    objective = float(to_numpy(outcome.objective)[0])
    feasible = bool(to_numpy(outcome.feasible)[0])
    ceiling = float(instance.weight[0].sum()) if "success" in terms and hasattr(instance, "weight") else None
    text = f"objective {objective:.4g}"
    if bound is not None:
        text += f", bound {bound:.4g}"
    if ceiling is not None:
        text += f", sum of weights {ceiling:.4g}"
    if not feasible:
        text += f" - infeasible, violation {float(to_numpy(outcome.cost)[0]):.3g}"
    end = ceiling if ceiling is not None else 1.1 * max(abs(objective), abs(bound or 0.0), 1e-12)
    axes.barh([0.0], [end], color="#e8edf2", height=0.8)
    axes.barh([0.0], [abs(objective)], color="#2a9d8f" if feasible else "#c0392b", height=0.8)
    if bound is not None:
        axes.plot([abs(bound)] * 2, [-0.55, 0.55], color=INK, linewidth=2.0)
    axes.set_title(text, loc="left", fontsize=9, color=INK, pad=3)
    axes.set_xlim(0.0, end)
    axes.set_ylim(-0.6, 0.6)
    axes.set_yticks([])
    axes.tick_params(labelsize=8, colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
