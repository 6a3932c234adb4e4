"""Pictures of leaderboards and figures (matplotlib, without a display; colours of Okabe and Ito)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semcom_gym.baselines.solution import require
from semcom_gym.benchmarks import store
from semcom_gym.benchmarks.leaderboard import Leaderboard, Row, profiles
from semcom_gym.benchmarks.table import instances

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FLOOR = -1.0  # left end of the score axis: what an infeasible decision scores
MEASURED = "measured "
"""How the label of a line starts that holds the measured points behind another line."""
PRINTED = {"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.2}
KINDS = {"solver": (COLOURS[0], "o"), "agent": (COLOURS[1], "D")}


def new(width: float, height: float) -> tuple[Any, Any]:
    """A figure and its axes, off any display and outside pyplot's global state."""
    figure, axes = grid(width, height, 1, 1)
    return figure, axes[0]


def grid(width: float, height: float, rows: int, columns: int) -> tuple[Any, list[Any]]:
    """As :func:`new`, with several axes, row by row."""
    require("matplotlib", "a picture")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    made = [figure.add_subplot(rows, columns, place + 1) for place in range(rows * columns)]
    for axes in made:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, made


def save(figure: Any, path: Path) -> Path:
    """Write a picture as PNG, at once or not at all; without a date, so that the same data give the same file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    store.write_atomically(path, stream.getvalue())
    return path


def scores(board: Leaderboard, path: Path) -> Path:
    """Forest plot: the score of every row (IQM) with its interval; below -1, an arrow and the number."""
    rows = board.rows[::-1]
    figure, axes = new(7.0, 1.4 + 0.32 * len(rows))
    for place, row in enumerate(rows):
        colour, marker = KINDS[row.kind]
        e = row.score
        if e.value < FLOOR:
            axes.plot([FLOOR], [place], marker="<", color=colour, markersize=7, clip_on=False)
            axes.annotate(f"{e.value:.2f}", (FLOOR, place), (8, -3), textcoords="offset points", fontsize=8)
            continue
        if math.isfinite(e.low):
            axes.plot([max(e.low, FLOOR), e.high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
        axes.plot([e.value], [place], marker=marker, color=colour, markersize=7)
        axes.annotate(f"{e.value:.3f}", (e.value, place), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.axvline(1.0, color="black", linewidth=1.0)
    axes.axvline(0.0, color="black", linewidth=1.0, linestyle=":")
    axes.set_yticks(range(len(rows)), [row.method for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlim(FLOOR, 1.1)
    axes.set_xlabel(f"score: interquartile mean, 95 % interval (0 = {board.anchor}, 1 = certified optimum)")
    axes.set_title(f"{board.task}: {board.n} {board.split} {instances(board)}", fontsize=10)
    _legend(axes, rows, "lower center")
    return save(figure, path)


def loss_against_time(board: Leaderboard, path: Path) -> Path:
    """Scatter: mean loss to the bound against decision time, both on log axes. A loss of 0 is drawn at 1e-4 %.

    Filled where all instances are decided in a batch, open where they come one at a time.
    """
    figure, axes = new(7.0, 4.5)
    rows = [row for row in board.rows if math.isfinite(row.loss)]
    for row in rows:
        colour, marker = KINDS[row.kind]
        x, y = 1e3 * max(row.seconds, 1e-7), max(100 * row.loss, 1e-4)
        axes.plot([x], [y], marker=marker, color=colour, markersize=8, linestyle="none")
        if math.isfinite(row.single):
            alone = 1e3 * row.single
            axes.plot([x, alone], [y, y], color=colour, linewidth=0.8, alpha=0.5, zorder=1)
            axes.plot([alone], [y], marker=marker, color=colour, markersize=8, markerfacecolor="white")
        axes.annotate(row.method, (x, y), (6, 5), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    if math.isfinite(board.certified_gap) and board.certified_gap > 0:
        label = "best known decision to bound"
        axes.axhline(100 * board.certified_gap, color="black", linewidth=1.0, linestyle="--", label=label)
    axes.margins(x=0.15, y=0.1)
    axes.set_xlabel("decision time [ms per instance]: filled in a batch, open one at a time")
    axes.set_ylabel("mean loss to the certified bound [%]")
    axes.set_title(f"{board.task}: {board.n} {board.split} {instances(board)}", fontsize=10)
    _legend(axes, rows, "best")
    return save(figure, path)


def profile(board: Leaderboard, path: Path) -> Path:
    """Performance profile: the share of the decisions, over instances and seeds, that lose at most x to the bound."""
    figure, axes = new(7.0, 4.5)
    rows = [row for row in board.rows if row.losses is not None]
    x, shares = profiles(rows)
    for place, (row, share) in enumerate(zip(rows, shares, strict=True)):
        dash = "-" if row.kind == "agent" else "--"
        axes.plot(100 * x, 100 * share, dash, color=COLOURS[place % len(COLOURS)], linewidth=1.5, label=row.method)
    axes.set_xscale("log")
    axes.set_ylim(0, 102)
    axes.set_xlabel("loss to the certified bound [%]; solid lines are agents")
    axes.set_ylabel("share of decisions that lose at most so much [%]")
    axes.set_title(f"{board.task}: {board.n} {board.split} {instances(board)}", fontsize=10)
    axes.legend(fontsize=7, frameon=False, loc="upper left", ncols=2)
    return save(figure, path)


Series = Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[tuple[float, float]]]]
"""Curves with intervals: (label, x, y, intervals) each. A bound is a thin dashed line on top."""


def lines(
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    series: Series,
    log_x: bool = False,
    printed: Mapping[str, Mapping[float, float]] | None = None,
    y_limits: tuple[float, float] | None = None,
) -> Path:
    """Curves on one pair of axes.

    printed: label -> {x: a paper's number}, as open markers, like measured points (``MEASURED``). y_limits: of the
    axis; a line that leaves it is cut off.
    """
    printed = printed or {}
    figure, axes = new(6.5, 4.5)
    _curves(axes, series, printed)
    if printed:
        axes.plot([], [], color="black", label="printed in the paper", **PRINTED)
    if log_x:
        axes.set_xscale("log")
    if y_limits is not None:
        axes.set_ylim(y_limits)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    return save(figure, path)


def panels(path: Path, title: str, x_label: str, shown: Sequence[tuple[str, Series]], log_x: bool = False) -> Path:
    """Curves on several axes in rows of three, (label of y, curves) each, with one legend below; log scale where a
    quantity spreads over more than a decade.
    """
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure, made = grid(4.0 * columns, 3.3 * rows + 0.6, rows, columns)
    for axes, (y_label, series) in zip(made, shown, strict=False):
        _curves(axes, series, {}, nested=True)
        values = [value for _, _, y, _ in series for value in y if math.isfinite(value)]
        if values and 0.0 < 10.0 * min(values) < max(values):
            axes.set_yscale("log")
        if log_x:
            axes.set_xscale("log")
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    for axes in made[len(shown) :]:
        axes.remove()
    figure.suptitle(title, fontsize=10)
    handles, labels = made[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, ncols=5, loc="outside lower center")
    return save(figure, path)


def _curves(axes: Any, series: Series, printed: Mapping[str, Mapping[float, float]], nested: bool = False) -> None:
    """nested: later curves thinner, so that those that coincide all show."""
    places = {label: index for index, (label, *_) in enumerate(series)}
    for index, (label, x, y, intervals) in enumerate(series):
        if label.startswith(MEASURED):
            place = places[label.removeprefix(MEASURED)]
            style = PRINTED | {"marker": MARKERS[place % len(MARKERS)], "color": COLOURS[place % len(COLOURS)]}
            axes.plot(x, y, label=label, **style)
            continue
        if label == "bound":
            axes.plot(x, y, color="black", linestyle="--", linewidth=1.0, label=label, zorder=3)
            continue
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        size, width = (max(9.0 - 0.8 * index, 3.0), max(3.0 - 0.3 * index, 0.8)) if nested else (5.0, 1.5)
        axes.plot(x, y, color=colour, marker=marker, markersize=size, linewidth=width, label=label)
        low, high = zip(*intervals, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        for place, value in printed.get(label, {}).items():
            axes.plot([place], [value], color=colour, **PRINTED | {"marker": marker})


def bars(
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[float]]],
    printed: Mapping[str, Mapping[float, float]],
) -> Path:
    """A group of bars at every x, each with one standard deviation: (label, x, y, deviation) each.

    printed: label -> {x: a paper's number}, as open markers.
    """
    figure, axes = new(7.5, 4.5)
    groups = sorted({float(x) for _, places, _, _ in series for x in places})
    width = 0.84 / len(series)
    for index, (label, x, y, deviation) in enumerate(series):
        shift = (index - (len(series) - 1) / 2) * width
        places = [groups.index(float(value)) + shift for value in x]
        colour = "black" if label == "bound" else COLOURS[index % len(COLOURS)]
        axes.bar(places, y, 0.9 * width, color=colour, label=label)
        axes.errorbar(places, y, deviation, fmt="none", ecolor="#444444", elinewidth=1.0, capsize=2.5)
        for place, value in printed.get(label, {}).items():
            axes.plot([groups.index(float(place)) + shift], [value], color="black", **PRINTED)
    axes.plot([], [], color="black", label="printed in the paper", **PRINTED)
    axes.set_xticks(range(len(groups)), [f"{x:g}" for x in groups])
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return save(figure, path)


def _legend(axes: Any, rows: Sequence[Row], place: str) -> None:
    for kind in sorted({row.kind for row in rows}):
        colour, marker = KINDS[kind]
        axes.plot([], [], color=colour, marker=marker, linestyle="none", label=kind)
    axes.legend(fontsize=8, frameon=False, loc=place)
