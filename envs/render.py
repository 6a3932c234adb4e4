"""Pictures of an instance and a decision, drawn by matplotlib without a display and only when asked for.

What is drawn depends on what the problem offers: users are placed where the instance has ``distance_m`` and
``angle_rad`` and sized by its ``weight``; every term of the outcome that is listed in ``PANELS`` gets a row of bars.
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
# term of the outcome -> caption and colour; a term named as a budget of the instance is drawn as shares of it
PANELS = {
    "bandwidth_hz": ("bandwidth share (dotted: equal)", "#3b78b5"),
    "power_w": ("power share (dotted: equal)", "#d9822b"),
    "ratio": ("compression ratio", "#7d8a97"),
    "success": ("success probability", None),  # in the colours of the users
}
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
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, facecolor=PAPER)
    canvas: Any = FigureCanvasAgg(figure)
    figure.text(0.03, 0.945, f"{problem.name}: {problem.objective}", color=INK, fontsize=12, weight="bold", va="center")
    if outcome is None:
        _draw_cell(figure.add_axes((0.28, 0.08, 0.44, 0.82)), params, instance, {})
        figure.text(0.975, 0.945, "no decision yet", color=INK, alpha=0.7, fontsize=10, ha="right", va="center")
    else:
        terms = {name: to_numpy(value)[0] for name, value in outcome.terms.items()}
        _draw_cell(figure.add_axes((0.01, 0.08, 0.45, 0.82)), params, instance, terms)
        rows = [name for name in PANELS if name in terms]
        height = 0.72 / max(len(rows), 1)
        for row, name in enumerate(rows):
            axes = figure.add_axes((0.53, 0.90 - height * (row + 1) + 0.03, 0.445, height - 0.055))
            _draw_bars(axes, name, _shares(instance, name, terms[name]), terms, last=row == len(rows) - 1)
        _draw_objective(figure.add_axes((0.53, 0.06, 0.445, 0.045)), instance, outcome, terms, bound)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _colors(terms: dict[str, Any], users: int) -> Any:
    """One colour per user: its success where there is one."""
    if "success" not in terms:
        return [FAINT] * users
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("success", SUCCESS_COLORS)(np.clip(terms["success"], 0.0, 1.0))


def _served(terms: dict[str, Any], users: int) -> np.ndarray[Any, Any]:
    return np.asarray(terms.get("selected", np.ones(users))) > 0.5


def _shares(instance: Any, name: str, values: Any) -> Any:
    """``values`` as shares of the instance's budget of that name, if it has one."""
    budget = getattr(instance, name, None)
    return values if budget is None else values / budget[0]


def _draw_cell(axes: Any, params: Any, instance: Any, terms: dict[str, Any]) -> None:
    """The ring of the cell, the base station and the users: colour is success, size is weight, hollow is unserved."""
    axes.set_axis_off()
    axes.set_aspect("equal")
    if not hasattr(instance, "distance_m"):
        return
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
    caption = [f"cell radius {radius:g} m", "size: weight", *(["colour: success"] if "success" in terms else [])]
    caption += [] if served.all() else ["hollow: not served"]
    axes.text(0.0, -1.05 * radius, "  |  ".join(caption), color=INK, alpha=0.75, fontsize=8, ha="center", va="top")


def _draw_bars(axes: Any, name: str, values: Any, terms: dict[str, Any], *, last: bool) -> None:
    """One row of bars, a user each."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    caption, color = PANELS[name]
    users = len(values)
    served = _served(terms, users)
    place = np.arange(1, users + 1)
    axes.bar(place, np.where(served, values, 0.0), width=0.72, color=color or _colors(terms, users), zorder=2)
    share = name not in ("ratio", "success")
    axes.set_ylim(0.0, 1.2 * float(max(values[served].max(initial=0.0), 1.0 / users)) if share else 1.0)
    if share:
        axes.axhline(1.0 / users, color=INK, linewidth=0.8, linestyle=":", zorder=3)
        axes.yaxis.set_major_formatter(lambda y, _: f"{100.0 * y:.3g} %")
    axes.set_title(caption, loc="left", fontsize=9, color=INK, pad=3)
    axes.set_xlim(0.4, users + 0.6)
    axes.set_xticks(place if users <= LABELLED_USERS else [1, users])
    axes.tick_params(labelsize=8, colors=INK, length=0, labelbottom=last)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3) if share else FixedLocator([0.0, 0.5, 1.0]))
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
