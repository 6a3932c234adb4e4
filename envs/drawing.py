"""What pictures are made of: users in their cell or their channels, bars of a decision, its objective, an episode.

What is drawn depends on what the problem offers: users are placed where the instance has ``distance_m`` and
``angle_rad`` and sized by its ``weight``; a term ``pair`` links the users of each group, in the colour of their
interference ``rho``. Where users have channels instead of places, a matrix shows what each hears of whose signal.
Every term that is listed in ``PANELS`` gets a row of bars, one for each user or group, or two for the users of a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semcom_gym.envs.arrays import to_numpy
from semcom_gym.envs.outcome import Outcome

INK, FAINT, PAPER = "#22313f", "#c8d0d8", "#ffffff"
GOOD, BAD = "#2a9d8f", "#c0392b"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # of decisions that are compared (Okabe and Ito)
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


def shares(params: Any, instance: Any, name: str, values: Any) -> Any:
    """``values`` as shares of the budget of that name, the instance's or the parameters', if there is one."""
    if PANELS[name][2] != "share":
        return values
    budget = getattr(params, f"max_{name}", None) or getattr(params, f"total_{name}", None)
    return values / (getattr(instance, name)[0] if hasattr(instance, name) else budget)


def draw_cell(axes: Any, params: Any, instance: Any, terms: dict[str, Any]) -> None:
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


def draw_channels(axes: Any, params: Any, instance: Any, terms: dict[str, Any]) -> None:
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
    box = axes.get_position()
    axes.set_position((box.x0 + 0.18 * box.width, box.y0 + 0.06 * box.height, 0.8 * box.width, 0.78 * box.height))
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


def draw_bars(axes: Any, name: str, values: Any, terms: dict[str, Any], *, last: bool) -> None:
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


def objective_end(outcomes: Sequence[Outcome], instance: Any, bound: float | None) -> float:
    """Where the scale of the objective ends: at the sum of weights where there is one, else past all that is shown."""
    if "success" in outcomes[0].terms and hasattr(instance, "weight"):
        return float(instance.weight[0].sum())
    values = [float(to_numpy(outcome.objective)[0]) for outcome in outcomes] + ([] if bound is None else [bound])
    return 1.1 * max(max(map(abs, values)), 1e-12)


def draw_objective(axes: Any, outcome: Outcome, bound: float | None, end: float) -> None:
    """The objective as a bar on a scale up to ``end``, the bound as a mark."""
    objective = float(to_numpy(outcome.objective)[0])
    feasible = bool(to_numpy(outcome.feasible)[0])
    text = f"objective {objective:.4g}"
    if bound is not None:
        text += f", bound {bound:.4g}"
    if "success" in outcome.terms:
        text += f", sum of weights {end:.4g}"
    if not feasible:
        text += f" - infeasible, violation {float(to_numpy(outcome.cost)[0]):.3g}"
    axes.barh([0.0], [end], color="#e8edf2", height=0.8)
    axes.barh([0.0], [abs(objective)], color=GOOD if feasible else BAD, height=0.8)
    if bound is not None:
        axes.plot([abs(bound)] * 2, [-0.55, 0.55], color=INK, linewidth=2.0)
    axes.set_title(text, loc="left", fontsize=9, color=INK, pad=3)
    axes.set_xlim(0.0, end)
    axes.set_ylim(-0.6, 0.6)
    axes.set_yticks([])
    axes.tick_params(labelsize=8, colors=INK, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_episode(axes: Any, objectives: Mapping[str, Sequence[float]], horizon: int, bound: float | None) -> None:
    """The sum of the objectives so far, a line per name, over the blocks of an episode.

    bound: on the sum over all blocks, drawn as the line that would reach it at an even pace.
    """
    for (name, values), color in zip(objectives.items(), LINES, strict=False):
        axes.plot(range(len(values) + 1), np.cumsum([0.0, *values]), color=color, linewidth=1.8, label=name)
    if bound is not None:
        axes.plot([0, horizon], [0.0, bound], color=INK, linewidth=1.0, linestyle="--", label="bound, at an even pace")
    elif objectives:  # the scale stays while the lines grow
        means = [np.mean(values) for values in objectives.values() if values]
        axes.plot([0, horizon], [0.0, max(means, key=abs, default=0.0) * horizon], alpha=0.0)
    if bound is not None or any(objectives):
        axes.legend(fontsize=7, frameon=False, labelcolor=INK, loc="best")
    axes.set_xlim(0, horizon)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("sum of the objective over the blocks so far", loc="left", fontsize=9, color=INK, pad=3)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.grid(color=FAINT, linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
