"""A paper's figure as data: methods swept over a parameter, on the same instances, every finished point on disk."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import pictures, protocol, stats, store, table
from semcom_gym.envs.arrays import Array

BOUND = "bound"
"""As a method: the certified bound instead of a decision."""
SOLVED = 0.9
"""Share of the instances that a scheme must solve for its mean to be drawn among panels; the others are hard ones."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One method at one abscissa.

    options: of the method. most: instances at most, for a method that is slow. measure: (point, instance, solution) ->
    what else a decision has one number of, name -> (n,), instead of the problem's own terms. inputs: what decides the
    result beside all that, such as the numbers in a curve file that an option names.
    """

    x: float
    params: Any
    method: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    most: int | None = None
    measure: Callable[[Point, Any, Any], dict[str, Array]] | None = None
    inputs: Any = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure to make. lines: label -> points. value: (params, objective (n,)) -> the quantity shown (n,).

    printed: label -> {x: the paper's number}. bars: one group of bars per x, with the standard deviation.
    term: which of a point's numbers ``value`` gets. against: a term to draw the lines against in the picture instead
    of x, and its label. focus: lines whose range sets the vertical axis, which the others may leave. ready: lines that
    take no solving, label -> line. panels: (term, its label) of the quantities that are shown before it, on axes of
    their own.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: dict[str, tuple[Point, ...]]
    value: Callable[[Any, Array], Array]
    log_x: bool = False
    printed: Mapping[str, Mapping[float, float]] = dataclasses.field(default_factory=dict)
    bars: bool = False
    term: str = "objective"
    against: tuple[str, str] | None = None
    focus: tuple[str, ...] = ()
    ready: Mapping[str, Line] = dataclasses.field(default_factory=dict)
    panels: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a finished figure: x (k,), value (k, n) per instance, NaN where the method found nothing feasible.

    terms: name -> (k, n) of what else a decision has one number of, NaN as in ``value``.
    """

    x: Array
    value: Array
    terms: dict[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def mean(self) -> Array:
        """(k,) mean over the instances that have a value; NaN where none has."""
        return np.array([mean(values) for values in self.value])

    def of(self, term: str) -> Line:
        """The line of a term instead of the value."""
        return Line(self.x, self.terms[term])

    @property
    def std(self) -> Array:
        """(k,) standard deviation over the instances that have a value; NaN where fewer than two have."""
        return np.array([np.std(row, ddof=1) if len(row) > 1 else np.nan for row in map(_known, self.value)])

    @property
    def infeasible(self) -> Array:
        """(k,) share of the instances that have no value."""
        return np.asarray(np.isnan(self.value).mean(axis=-1))

    def at(self, x: float) -> float:
        """The mean at one abscissa."""
        return float(self.mean[self.index(x)])

    def index(self, x: float) -> int:
        """The place of an abscissa."""
        return int(np.flatnonzero(np.isclose(self.x, x))[0])


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def mean(values: Array) -> float:
    """Mean of the numbers in an array; NaN where there are none."""
    known = _known(values)
    return float(known.mean()) if len(known) else np.nan


def number(name: str) -> str:
    """``figure_05`` -> ``5``, ``figure_07a_L256`` -> ``7a``."""
    return name.removeprefix("figure_").lstrip("0").partition("_")[0]


def gain(line: Line, other: Line, x: float) -> float:
    """Relative gain of a line's mean over another's on the instances that both have; NaN where there is none."""
    ours, theirs = line.value[line.index(x)], other.value[other.index(x)]
    n = min(len(ours), len(theirs))
    both = np.isfinite(ours[:n]) & np.isfinite(theirs[:n])
    return mean(ours[:n][both]) / mean(theirs[:n][both]) - 1.0


Finished = dict[str, dict[str, Line]]
"""Figure name -> line label -> line."""


def compute(problem: str, figures: Sequence[Figure], n: int, cells: store.Store) -> Finished:
    """Every point of every figure on the first ``n`` test instances; finished points come from ``cells``."""
    points = [point for figure in figures for line in figure.lines.values() for point in line]
    work = [_work(problem, point, n if point.most is None else min(n, point.most)) for point in points]
    cases = iter(cells.cells(work, f"{problem} figures"))
    return {
        figure.name: dict(figure.ready)
        | {label: _line(figure, line, [_arrays(next(cases)) for _ in line]) for label, line in figure.lines.items()}
        for figure in figures
    }


def _line(figure: Figure, points: Sequence[Point], cases: list[dict[str, Array]]) -> Line:
    values = [figure.value(point.params, case[figure.term]) for point, case in zip(points, cases, strict=True)]
    terms = {name: np.stack([case[name] for case in cases]) for name in cases[0] if name != "objective"}
    return Line(np.array([point.x for point in points]), np.stack(values), terms)


def _arrays(cell: dict[str, Any]) -> dict[str, Array]:
    """The objective and the terms of a point, (n,) each, NaN where infeasible."""
    return {name: store.numbers(values) for name, values in cell.items()}


def _work(problem: str, point: Point, n: int) -> store.Work:
    """A point on the first ``n`` test instances."""
    instance = envs.problem(problem).sample_split(point.params, "test", n)
    key = {
        "what": "figure point",
        "problem": problem,
        "method": point.method,
        "options": point.options,
        "data": protocol.fingerprint(point.params, instance),
        "code": store.code_version("envs", "baselines"),
    }
    if point.measure is not None:
        key |= {"measure": store.digest(inspect.getsource(point.measure)), "inputs": point.inputs}
    solve = functools.partial(_solve, problem, point, instance)
    return store.Work(f"point {problem} {point.method}", key, solve)


def _solve(problem: str, point: Point, instance: Any) -> dict[str, Array]:
    if point.method == BOUND:
        return {"objective": baselines.bound(problem, point.params, instance).value}
    found = baselines.solve(problem, point.params, instance, point.method, **point.options)
    if point.measure is not None:
        terms = point.measure(point, instance, found)
    else:
        terms = protocol.totals(envs.problem(problem), point.params, instance, point.method, found)
    return {
        name: np.where(found.feasible, value, np.nan) for name, value in {"objective": found.objective, **terms}.items()
    }


def write(figures: Sequence[Figure], found: Finished, folder: Path) -> list[Path]:
    """Each finished figure as CSV and as picture, the latter of panels without points that SOLVED rules out.

    Columns: mean, 95 % interval, instances, infeasible ones; then the same three of every panel; of a figure with
    printed numbers also the standard deviation, the paper's number, and the means of the terms; of one drawn against a
    term, the means of the terms.
    """
    written = []
    for figure in figures:
        header, rows = _rows(figure, found[figure.name])
        path = folder / f"{figure.name}.csv"
        store.write_atomically(path, table.csv_table(header, rows))
        written += [path, _picture(figure, found[figure.name], folder / f"{figure.name}.png")]
    return written


def _rows(figure: Figure, lines: dict[str, Line]) -> tuple[list[str], list[list[object]]]:
    header = ["line", figure.x_label, figure.y_label, "low", "high", "instances", "infeasible"]
    header += [f"{label}{end}" for _, label in figure.panels for end in ("", " low", " high")]
    terms = list(dict.fromkeys(name for line in lines.values() for name in line.terms if name != figure.term))
    if figure.printed:
        header += ["standard deviation", "printed"]
    if figure.printed or figure.against:
        header += terms
    rows = []
    for label, line in lines.items():
        shown = [_estimates(line.of(term)) if term in line.terms else None for term, _ in figure.panels]
        for k, (x, e) in enumerate(zip(line.x, _estimates(line), strict=True)):
            row = [label, x, e.value, e.low, e.high, line.value.shape[1], np.isnan(line.value[k]).sum()]
            for panel in shown:
                row += ["", "", ""] if panel is None else [panel[k].value, panel[k].low, panel[k].high]
            if figure.printed:
                row += [line.std[k], figure.printed.get(label, {}).get(float(x), "")]
            if figure.printed or figure.against:
                row += [mean(line.terms[name][k]) if name in line.terms else "" for name in terms]
            rows.append(row)
    return header, rows


def _estimates(line: Line) -> list[stats.Estimate]:
    return [stats.estimate(_known(value), stats.mean) for value in line.value]


def _picture(figure: Figure, lines: dict[str, Line], path: Path) -> Path:
    if figure.bars:
        bars = [(label, line.x, line.mean, line.std) for label, line in lines.items()]
        return pictures.bars(path, figure.title, figure.x_label, figure.y_label, bars, figure.printed)
    if figure.panels:
        shown = []
        for term, label in figure.panels:
            having = {name: line.of(term) for name, line in lines.items() if term in line.terms}
            shown.append((label, _series(having, SOLVED)))
        shown.append((figure.y_label, _series(lines, SOLVED)))
        return pictures.panels(path, figure.title, figure.x_label, shown, figure.log_x)
    term, x_label = figure.against or (None, figure.x_label)
    series, limits = _series(lines, against=term), _limits(figure, lines)
    return pictures.lines(path, figure.title, x_label, figure.y_label, series, figure.log_x, figure.printed, limits)


def _series(lines: dict[str, Line], solved: float = 0.0, against: str | None = None) -> pictures.Series:
    """The curves, against x or the mean of a term; a point that fewer than the share ``solved`` of the instances enter
    is left out.
    """
    series = []
    for label, line in lines.items():
        few = line.infeasible > 1.0 - solved + 1e-9
        known = [(e.value, e.low, e.high) for e in _estimates(line)]
        shown = [(np.nan,) * 3 if skip else row for row, skip in zip(known, few, strict=True)]
        x = line.x if against is None else np.array([mean(values) for values in line.terms[against]])
        series.append((label, x, [row[0] for row in shown], [row[1:] for row in shown]))
    return series


def _limits(figure: Figure, lines: dict[str, Line]) -> tuple[float, float] | None:
    """The ends of the vertical axis, where some lines set them."""
    if not figure.focus:
        return None
    shown = np.concatenate([lines[label].mean for label in figure.focus])
    low, high = np.nanmin(shown), np.nanmax(shown)
    return (low - 0.1 * (high - low), high + 0.1 * (high - low)) if high > low else None


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the paper beside what our data say. verdict: yes, partly or no."""

    figure: str
    paper: str
    verdict: str
    ours: str


def verdict(holds: Sequence[bool]) -> str:
    """yes if a claim holds at every place it speaks of, no if nowhere or if it speaks of none, else partly."""
    return "no" if not any(holds) else "yes" if all(holds) else "partly"


def claims_markdown(title: str, claims: Sequence[Claim], notes: str, appendix: str = "") -> str:
    """The claims as a Markdown page, with an appendix behind them."""
    lines = [f"# {title}", "", notes, "", "| figure | the paper | here | what our data say |"]
    lines.append("| --- | --- | --- | --- |")
    lines += [f"| {claim.figure} | {claim.paper} | {claim.verdict} | {claim.ours} |" for claim in claims]
    return "\n".join(lines) + "\n" + appendix
