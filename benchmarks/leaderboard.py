"""A leaderboard: competitors on one task, scored, with intervals; every finished run is kept on disk."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from semcom_gym import baselines
from semcom_gym.benchmarks import protocol, stats, store
from semcom_gym.benchmarks.certificates import certificate
from semcom_gym.benchmarks.competitors import Competitor, solver
from semcom_gym.benchmarks.progress import bar
from semcom_gym.envs.arrays import Array


@dataclasses.dataclass(frozen=True)
class Row:
    """A competitor's result. loss and feasible are shares; seconds per decision; n scores: instances times seeds.

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


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """The rows of one task, best first, and what the scores stand on."""

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


def decide(task: protocol.Task, competitors: list[Competitor], cells: store.Store) -> list[list[protocol.Decisions]]:
    """The decisions of every competitor, one list entry per run; finished runs come from ``cells``."""
    total = sum(len(competitor.runs) for competitor in competitors)
    results = []
    with bar(total, task.label) as progress:
        for competitor in competitors:
            progress.set_postfix_str(competitor.name)
            found = []
            for number, run in enumerate(competitor.runs):
                name = f"{task.label} {competitor.name} {number}"
                cell = cells.cell(name, {**task.key(), **run.key}, lambda run=run: vars(run.decide(task)))
                found.append(protocol.Decisions.from_cell(cell))
                progress.update()
            results.append(found)
    return results


def leaderboard(task: protocol.Task, competitors: list[Competitor], cells: store.Store) -> Leaderboard:
    """Run, score and rank competitors on a task. Raises protocol.BoundBrokenError."""
    name = baselines.anchor(task.problem.name)
    anchor = decide(task, [solver(task.problem.name, name)], cells)[0][0]
    decisions = decide(task, competitors, cells)
    proven = certificate(task, cells)
    maximise = task.problem.maximise
    scores = [protocol.score(found, anchor, proven.bound, maximise=maximise) for found in decisions]
    ranked = sorted(zip(competitors, scores, strict=True), key=lambda pair: -_rank(pair[1]))
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
        certified_gap=float(np.nanmean(proven.gap)) if np.isfinite(proven.gap).any() else float("nan"),
        code=store.code_version("envs", "baselines"),
        rows=tuple(_row(competitor, found, first) for competitor, found in ranked),
    )


def _rank(scores: protocol.Scores) -> float:
    return float(stats.iqm(scores.score.reshape(-1))) if scores.score.size else -np.inf


def _row(competitor: Competitor, scores: protocol.Scores, first: Any) -> Row:
    loss = scores.loss[np.isfinite(scores.loss)]
    return Row(
        method=competitor.name,
        kind=competitor.kind,
        score=stats.estimate(scores.score),
        mean_score=stats.estimate(scores.score, stats.mean),
        loss=float(loss.mean()) if loss.size else float("nan"),
        feasible=scores.feasible,
        seconds=scores.seconds,
        n=scores.score.size,
        behind_first=stats.difference(scores.score, first),
        losses=_losses(scores),
    )


def _losses(scores: protocol.Scores) -> Array:
    """(seeds, instances) the loss of every decision, see :class:`Row`."""
    losses = np.full((len(scores.loss), len(scores.kept)), np.nan)
    losses[:, scores.kept] = np.where(np.isnan(scores.loss), np.inf, scores.loss)
    return losses
