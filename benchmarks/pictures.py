"""Pictures of leaderboards and figures (matplotlib, without a display; colours of Okabe and Ito)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semcom_gym.baselines.solution import require
from semcom_gym.benchmarks import store
from semcom_gym.benchmarks.leaderboard import Leaderboard, Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
FLOOR = -1.0  # left end of the score axis: what an infeasible decision scores
MEASURED = "measured "
"""How the label of a line starts that holds the measured points behind another line."""
PRINTED = {"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.2}
KINDS = {"solver": (COLOURS[0], "o"), "agent": (COLOURS[1], "D")}


def new(width: float, height: float) -> tuple[Any, Any]:
    """A figure and its axes, off any display and outside pyplot's global state."""
    require("matplotlib", "a picture")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


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
    axes.set_title(f"{board.task}: {board.n} {board.split} instances", fontsize=10)
    _legend(axes, rows, "lower center")
    return save(figure, path)


def loss_against_time(board: Leaderboard, path: Path) -> Path:
    """Scatter: mean loss to the bound against decision time, both on log axes. A loss of 0 is drawn at 1e-4 %."""
    figure, axes = new(7.0, 4.5)
    rows = [row for row in board.rows if math.isfinite(row.loss)]
    for row in rows:
        colour, marker = KINDS[row.kind]
        x, y = 1e3 * max(row.seconds, 1e-7), max(100 * row.loss, 1e-4)
        axes.plot([x], [y], marker=marker, color=colour, markersize=8, linestyle="none")
        axes.annotate(row.method, (x, y), (6, 5), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    if math.isfinite(board.certified_gap) and board.certified_gap > 0:
        label = "best known decision to bound"
        axes.axhline(100 * board.certified_gap, color="black", linewidth=1.0, linestyle="--", label=label)
    axes.margins(x=0.15, y=0.1)
    axes.set_xlabel("decision time [ms per instance]")
    axes.set_ylabel("mean loss to the certified bound [%]")
    axes.set_title(f"{board.task}: {board.n} {board.split} instances", fontsize=10)
    _legend(axes, rows, "best")
    return save(figure, path)


def lines(
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    series: Sequence[tuple[str, Sequence[float], Sequence[float], Sequence[tuple[float, float]]]],
    log_x: bool = False,
    printed: Mapping[str, Mapping[float, float]] | None = None,
    y_limits: tuple[float, float] | None = None,
) -> Path:
    """Curves with intervals: (label, x, y, intervals) each. A bound is a thin dashed line on top.

    printed: label -> {x: a paper's number}, as open markers, like measured points (``MEASURED``). y_limits: of the
    axis; a line that leaves it is cut off.
    """
    printed = printed or {}
    figure, axes = new(6.5, 4.5)
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
        axes.plot(x, y, color=colour, marker=marker, markersize=5, linewidth=1.5, label=label)
        low, high = zip(*intervals, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        for place, value in printed.get(label, {}).items():
            axes.plot([place], [value], color=colour, **PRINTED | {"marker": marker})
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
