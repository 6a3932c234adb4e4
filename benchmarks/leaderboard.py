"""A leaderboard: competitors on one task, scored, with intervals; every finished run is kept on disk."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from semcom_gym import baselines
from semcom_gym.benchmarks import protocol, singles, stats, store
from semcom_gym.benchmarks.certificates import Certificate, certificate, lacking
from semcom_gym.benchmarks.competitors import Competitor, Run, solver
from semcom_gym.envs.arrays import Array


@dataclasses.dataclass(frozen=True)
class Row:
    """A competitor's result. loss and feasible are shares; seconds per decision; n scores: instances times seeds.

    single: seconds of a decision where there is one instance in a call, the median. training_s, training_decisions:
    means over training seeds. NaN where they were not measured, and of solvers, which are not trained.

    behind_first: paired difference of mean score to the first row. losses (seeds, instances): of every decision,
    infinite where it is infeasible, NaN on instances that do not count; None where a file does not hold them.
    """

    method: str
    kind: str
    score: stats.Estimate
    mean_score: stats.Estimate
    loss: float
    feasible: float
    seconds: float
    n: int
    behind_first: stats.Estimate
    losses: Array | None = dataclasses.field(default=None, compare=False, repr=False)
    single: float = math.nan
    training_s: float = math.nan
    training_decisions: float = math.nan

    @property
    def counted(self) -> Array:
        """The losses of the decisions that count, all seeds together, least first. Raises ValueError without losses."""
        if self.losses is None:
            raise ValueError(f"the losses of {self.method} are not known")
        flat = np.asarray(self.losses, float).reshape(-1)
        return np.sort(flat[~np.isnan(flat)])


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """The rows of one task, best first, and what the scores stand on.

    jobs: the most computations that ran at once while a decision time was measured. chunk: instances that solvers
    decided in a call, 0 for all. singles: instances that were decided one at a time to measure ``single``. rule: how
    scores are made, in words, where it is another way than that of one decision.
    """

    task: str
    env: str
    preset: str
    split: str
    n: int
    left_out: float
    anchor: str
    certified_gap: float
    code: str
    rows: tuple[Row, ...]
    jobs: int = 1
    chunk: int = 0
    singles: int = 0
    rule: str = ""


def needed(
    task: protocol.Task, competitors: list[Competitor], chunk: int | None = None, single: int = singles.INSTANCES
) -> list[store.Work]:
    """Everything that :func:`leaderboard` computes: decisions of the anchor and of every run, times, and proofs."""
    times = [work for each in competitors for work in singles.works(task, each, single)] if single else []
    return [*works(task, [_anchor(task), *competitors], chunk), *times, *lacking(task)]


def works(task: protocol.Task, competitors: list[Competitor], chunk: int | None = None) -> list[store.Work]:
    """What :func:`decide` computes: the decisions of every run."""
    return [work for each in competitors for run in _runs(task, each, chunk) for work in run]


def decide(
    task: protocol.Task, competitors: list[Competitor], cells: store.Store, chunk: int | None = None
) -> list[list[protocol.Decisions]]:
    """The decisions of every competitor, one list entry per run; finished runs come from ``cells``."""
    runs = [_runs(task, competitor, chunk) for competitor in competitors]
    found = iter(cells.cells([work for each in runs for run in each for work in run], task.label))
    return [[protocol.Decisions.from_cells([next(found) for _ in run]) for run in each] for each in runs]


def _anchor(task: protocol.Task) -> Competitor:
    return solver(task.problem.name, baselines.anchor(task.problem.name))


def _runs(task: protocol.Task, competitor: Competitor, chunk: int | None) -> list[list[store.Work]]:
    """The work of every run. Solvers, which may be slow, take ``chunk`` instances in a call; agents all."""
    parts = task.parts(chunk if competitor.kind == "solver" else None)
    return [[_work(task, competitor, number, part) for part in parts] for number in range(len(competitor.runs))]


def _work(task: protocol.Task, competitor: Competitor, number: int, part: protocol.Task) -> store.Work:
    run = competitor.runs[number]
    key = {**part.key(), **run.key}
    compute = functools.partial(_decide, run, part, os.getpid())
    return store.Work(f"{task.label} {competitor.name} {number}", key, compute)


def _decide(run: Run, task: protocol.Task, home: int) -> dict[str, Any]:
    """A cell. home: the process that asked for it; another one has not called the run's method before."""
    if os.getpid() != home:
        _warm_up(run, task)
    found = run.decide(task)
    return {"objective": found.objective, "feasible": found.feasible, "seconds": found.seconds}


_ready: set[str] = set()


def _warm_up(run: Run, task: protocol.Task) -> None:
    """Decide once for nothing: that the first call in a process imports packages is no decision time."""
    name = store.digest([run.key, task.env_id])
    if name not in _ready:
        run.decide(dataclasses.replace(task, instance=task.problem.sample_split(task.params, "train", 1)))
        _ready.add(name)


def leaderboard(
    task: protocol.Task,
    competitors: list[Competitor],
    cells: store.Store,
    chunk: int | None = None,
    single: int = singles.INSTANCES,
) -> Leaderboard:
    """Run, score and rank competitors on a task. Raises protocol.BoundBrokenError.

    chunk: instances that a solver decides in one call, a cell each; all if None. single: instances at most that
    everyone decides one at a time, for the time of that; 0 for no such time.
    """
    name = baselines.anchor(task.problem.name)
    [anchor], *decisions = decide(task, [_anchor(task), *competitors], cells, chunk)
    proven = certificate(task, cells)
    maximise = task.problem.maximise
    scores = [protocol.score(found, anchor, proven.bound, maximise=maximise) for found in decisions]
    times = [_times(task, competitor, cells, single) for competitor in competitors]
    ranked = sorted(zip(competitors, scores, times, strict=True), key=lambda entry: -rank(entry[1]))
    first = ranked[0][1].score
    kept = scores[0].kept
    return Leaderboard(
        task=task.label,
        env=task.env_id,
        preset=task.preset,
        split=task.split,
        n=len(kept),
        left_out=float(1.0 - kept.mean()),
        anchor=name,
        certified_gap=mean_gap(proven),
        code=store.code_version("envs", "baselines"),
        rows=tuple(
            row(competitor, found, singles.median(timed) if timed else math.nan, first)
            for competitor, found, timed in ranked
        ),
        jobs=max([found.jobs for found in scores] + [cell.get("jobs", 1) for timed in times for cell in timed]),
        chunk=chunk or 0,
        singles=min(single, len(kept)),
    )


def _times(task: protocol.Task, competitor: Competitor, cells: store.Store, single: int) -> list[dict[str, Any]]:
    return cells.cells(singles.works(task, competitor, single), f"{task.label}, one at a time") if single else []


def mean_loss(scores: protocol.Scores) -> float:
    """Mean loss of the feasible decisions; NaN where there is none."""
    loss = scores.loss[np.isfinite(scores.loss)]
    return float(loss.mean()) if loss.size else math.nan


def mean_gap(proven: Certificate) -> float:
    """Mean distance between a bound and the best decision known; NaN where nothing is feasible."""
    return float(np.nanmean(proven.gap)) if np.isfinite(proven.gap).any() else math.nan


def rank(scores: protocol.Scores) -> float:
    """What rows are ordered by."""
    return float(stats.iqm(scores.score.reshape(-1))) if scores.score.size else -np.inf


def row(competitor: Competitor, scores: protocol.Scores, single: float, first: Array) -> Row:
    """A competitor's row. single: see :class:`Row`. first: scores of the row that leads."""
    return Row(
        method=competitor.name,
        kind=competitor.kind,
        score=stats.estimate(scores.score),
        mean_score=stats.estimate(scores.score, stats.mean),
        loss=mean_loss(scores),
        feasible=scores.feasible,
        seconds=scores.seconds,
        n=scores.score.size,
        behind_first=stats.difference(scores.score, first),
        losses=_losses(scores),
        single=single,
        training_s=_mean([run.training_s for run in competitor.runs]),
        training_decisions=_mean([run.training_decisions for run in competitor.runs]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if np.isfinite(values).all() else math.nan


LEAST_LOSS = 1e-6
"""Where a performance profile begins at least: what loses less is optimal for all purposes."""


def profiles(rows: Sequence[Row]) -> tuple[Array, list[Array]]:
    """Performance profiles of rows with losses: losses (120,), log-spaced, and per row the share of its decisions that
    lose at most so much, (120,). An infeasible decision loses more than any of them.
    """
    counted = [row.counted for row in rows]
    finite = np.concat([losses[np.isfinite(losses)] for losses in counted]) if counted else np.empty(0)
    high = max(float(finite.max(initial=0.01)), 0.01)
    medians = [float(np.median(losses)) for losses in counted if losses.size]
    low = max(LEAST_LOSS, min(medians, default=high) / 30.0)
    low = 10.0 ** math.floor(math.log10(min(low, high / 10.0)))
    x = np.geomspace(low, high, 120)
    return x, [np.searchsorted(losses, x, side="right") / max(len(losses), 1) for losses in counted]


def _losses(scores: protocol.Scores) -> Array:
    """(seeds, instances) the loss of every decision, see :class:`Row`."""
    losses = np.full((len(scores.loss), len(scores.kept)), np.nan)
    losses[:, scores.kept] = np.where(np.isnan(scores.loss), np.inf, scores.loss)
    return losses
