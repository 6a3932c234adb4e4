"""A paper's figure as data: methods swept over a parameter, on the same instances, every finished point on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import pictures, protocol, stats, store, table
from semcom_gym.benchmarks.progress import bar
from semcom_gym.envs.arrays import Array

BOUND = "bound"
"""As a method: the certified bound instead of a decision."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One method at one abscissa. options: of the method. value: from objectives (n,) to what the figure shows."""

    x: float
    params: Any
    method: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure to make. lines: label -> points. value: (params, objective (n,)) -> the quantity shown (n,)."""

    name: str
    title: str
    x_label: str
    y_label: str
    lines: dict[str, tuple[Point, ...]]
    value: Callable[[Any, Array], Array]
    log_x: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a finished figure: x (k,), value (k, n) per instance, NaN where the method found nothing feasible."""

    x: Array
    value: Array

    @property
    def mean(self) -> Array:
        """(k,) mean over the instances that have a value."""
        return np.nanmean(self.value, axis=-1)

    def at(self, x: float) -> float:
        """The mean at one abscissa."""
        return float(self.mean[np.flatnonzero(np.isclose(self.x, x))[0]])


Finished = dict[str, dict[str, Line]]
"""Figure name -> line label -> line."""


def compute(problem: str, figures: Sequence[Figure], n: int, cells: store.Store) -> Finished:
    """Every point of every figure on the first ``n`` test instances; finished points come from ``cells``."""
    points = [point for figure in figures for line in figure.lines.values() for point in line]
    found: Finished = {}
    with bar(len(points), f"{problem} figures") as progress:
        for figure in figures:
            found[figure.name] = {}
            for label, line in figure.lines.items():
                progress.set_postfix_str(f"{figure.name} {label}")
                values = []
                for point in line:
                    values.append(figure.value(point.params, _point(problem, point, n, cells)))
                    progress.update()
                found[figure.name][label] = Line(np.array([point.x for point in line]), np.stack(values))
    return found


def _point(problem: str, point: Point, n: int, cells: store.Store) -> Array:
    instance = envs.problem(problem).sample_split(point.params, "test", n)
    key = {
        "what": "figure point",
        "problem": problem,
        "method": point.method,
        "options": point.options,
        "data": protocol.fingerprint(point.params, instance),
        "code": store.code_version("envs", "baselines"),
    }
    cell = cells.cell(f"point {problem} {point.method}", key, lambda: {"objective": _solve(problem, point, instance)})
    return store.numbers(cell["objective"])


def _solve(problem: str, point: Point, instance: Any) -> Array:
    if point.method == BOUND:
        return baselines.bound(problem, point.params, instance).value
    found = baselines.solve(problem, point.params, instance, point.method, **point.options)
    return np.where(found.feasible, found.objective, np.nan)


def write(figures: Sequence[Figure], found: Finished, folder: Path) -> list[Path]:
    """Each finished figure as CSV (mean, 95 % interval, instances, infeasible ones) and as picture."""
    written = []
    for figure in figures:
        rows, series = [], []
        for label, line in found[figure.name].items():
            estimates = [stats.estimate(value[np.isfinite(value)], stats.mean) for value in line.value]
            infeasible = np.isnan(line.value).sum(axis=-1)
            for x, e, missing in zip(line.x, estimates, infeasible, strict=True):
                rows.append([label, x, e.value, e.low, e.high, line.value.shape[1], missing])
            series.append((label, line.x, [e.value for e in estimates], [(e.low, e.high) for e in estimates]))
        header = ["line", figure.x_label, figure.y_label, "low", "high", "instances", "infeasible"]
        path = folder / f"{figure.name}.csv"
        store.write_atomically(path, table.csv_table(header, rows))
        picture = folder / f"{figure.name}.png"
        pictures.lines(picture, figure.title, figure.x_label, figure.y_label, series, figure.log_x)
        written += [path, picture]
    return written


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of the paper beside what our data say. verdict: yes, partly or no."""

    figure: str
    paper: str
    verdict: str
    ours: str


def verdict(holds: Sequence[bool]) -> str:
    """yes if a claim holds at every place it speaks of, no if nowhere, else partly."""
    return "yes" if all(holds) else "partly" if any(holds) else "no"


def claims_markdown(title: str, claims: Sequence[Claim], notes: str) -> str:
    """The claims as a Markdown page."""
    lines = [f"# {title}", "", notes, "", "| figure | the paper | here | what our data say |"]
    lines.append("| --- | --- | --- | --- |")
    lines += [f"| {claim.figure} | {claim.paper} | {claim.verdict} | {claim.ours} |" for claim in claims]
    return "\n".join(lines) + "\n"
