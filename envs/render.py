"""Pictures of instances and decisions, drawn by matplotlib without a display and only when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semcom_gym.envs import drawing
from semcom_gym.envs.arrays import to_numpy
from semcom_gym.envs.drawing import INK, PANELS, PAPER
from semcom_gym.envs.outcome import Outcome

SIZE_INCHES = (9.6, 5.4)
COLUMN_INCHES, COLUMNS = (4.8, 9.0), 4
DPI = 100
Image = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Story:
    """An episode so far. objectives: name of whoever decides -> objective of every block decided; horizon: blocks of
    an episode; bound: proven, on the sum over all of them."""

    objectives: Mapping[str, Sequence[float]]
    horizon: int
    bound: float | None = None


def frame(
    problem: Any,
    params: Any,
    instance: Any,
    outcome: Outcome | None = None,
    bound: float | None = None,
    story: Story | None = None,
) -> Image:
    """The cell, the decision and its objective as an image (540, 960, 3) of uint8.

    instance: one instance (of a batch, the first is drawn). outcome: of a decision for it, or None before one.
    bound: a proven bound on the objective, drawn beside it. story: of the episode that it is a block of.
    Raises ModuleNotFoundError without matplotlib.
    """
    figure = _figure(SIZE_INCHES)
    instance = instance.map(to_numpy)
    figure.text(0.03, 0.945, _headline(problem), color=INK, fontsize=12, weight="bold", va="center")
    low = 0.08 if story is None else 0.33
    left = 0.28 if outcome is None else 0.01
    terms = _terms(outcome)
    _draw_users(figure, (left, low, 0.45, 0.9 - low), params, instance, terms)
    if outcome is None:
        figure.text(0.975, 0.945, "no decision yet", color=INK, alpha=0.7, fontsize=10, ha="right", va="center")
    else:
        _draw_rows(figure, (0.53, 0.18, 0.445, 0.72), params, instance, terms)
        end = drawing.objective_end([outcome], instance, bound)
        drawing.draw_objective(figure.add_axes((0.53, 0.06, 0.445, 0.045)), outcome, bound, end)
    if story is not None:
        box = (left + 0.06, 0.07, 0.37, 0.2)
        drawing.draw_episode(figure.add_axes(box), story.objectives, story.horizon, story.bound)
    return _pixels(figure)


def side_by_side(
    problem: Any,
    params: Any,
    instance: Any,
    outcomes: Mapping[str, Outcome],
    bound: float | None = None,
    story: Story | None = None,
) -> Image:
    """What several do on one instance, a column each, on common scales: an image (900, 480 n, 3) of uint8.

    instance: one instance (of a batch, the first is drawn). outcomes: name -> outcome of its decision, at most four;
    bound and story as in :func:`frame`. Raises ValueError for no name or too many, ModuleNotFoundError without
    matplotlib.
    """
    count = len(outcomes)
    if not 1 <= count <= COLUMNS:
        raise ValueError(f"side by side are 1 to {COLUMNS} decisions, got {count}")
    figure = _figure((count * COLUMN_INCHES[0], COLUMN_INCHES[1]))
    instance = instance.map(to_numpy)
    figure.text(0.06 / count, 0.972, _headline(problem), color=INK, fontsize=11, weight="bold", va="center")
    end = drawing.objective_end(list(outcomes.values()), instance, bound)
    low = 0.1 if story is None else 0.25
    drawn = []
    for column, (name, outcome) in enumerate(outcomes.items()):
        x, width, terms = column / count, 1.0 / count, _terms(outcome)
        figure.text(x + 0.5 * width, 0.935, name, color=drawing.LINES[column], fontsize=12, weight="bold", ha="center")
        _draw_users(figure, (x + 0.03 * width, 0.57, 0.94 * width, 0.36), params, instance, terms)
        box = (x + 0.13 * width, low, 0.84 * width, 0.545 - low)
        drawn.append(_draw_rows(figure, box, params, instance, terms))
        objective = figure.add_axes((x + 0.13 * width, low - 0.055, 0.84 * width, 0.02))
        drawing.draw_objective(objective, outcome, bound, end)
    for name in drawn[0]:
        top = max(axes[name].get_ylim()[1] for axes in drawn if name in axes)
        for axes in drawn:
            if name in axes:
                axes[name].set_ylim(top=top)
    if story is not None:
        box = (0.13 / count, 0.035, 1.0 - 0.16 / count, 0.1)
        drawing.draw_episode(figure.add_axes(box), story.objectives, story.horizon, story.bound)
    return _pixels(figure)


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError("rendering needs matplotlib: pip install 'semcom-gym[report]'") from None
    figure = Figure(figsize=size, dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def _pixels(figure: Any) -> Image:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _headline(problem: Any) -> str:
    return f"{problem.name}: {problem.objective}"


def _terms(outcome: Outcome | None) -> dict[str, Any]:
    return {} if outcome is None else {name: to_numpy(value)[0] for name, value in outcome.terms.items()}


def _draw_users(figure: Any, box: tuple[float, ...], params: Any, instance: Any, terms: dict[str, Any]) -> None:
    draw = drawing.draw_cell if hasattr(instance, "distance_m") else drawing.draw_channels
    draw(figure.add_axes(box), params, instance, terms)


def _draw_rows(
    figure: Any, box: tuple[float, float, float, float], params: Any, instance: Any, terms: dict[str, Any]
) -> dict[str, Any]:
    """Rows of bars in a box of the figure; the axes by term."""
    names = [name for name in PANELS if name in terms]
    x, y, width, whole = box
    height = whole / max(len(names), 1)
    caption, ticks = (inches / figure.get_size_inches()[1] for inches in (0.14, 0.16))
    made = {}
    for row, name in enumerate(names):
        made[name] = figure.add_axes((x, y + whole - height * (row + 1) + ticks, width, height - ticks - caption))
        values = drawing.shares(params, instance, name, terms[name])
        drawing.draw_bars(made[name], name, values, terms, last=row == len(names) - 1)
    return made
