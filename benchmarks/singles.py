"""Decision times of one instance at a time: what somebody waits for who has one cell to decide, not a batch."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from semcom_gym.benchmarks import protocol, store
from semcom_gym.benchmarks.competitors import Competitor, Run
from semcom_gym.envs.arrays import Array

INSTANCES = 20
PATIENCE_S = 5.0  # of measuring, after which the instances met so far suffice


def works(task: protocol.Task, competitor: Competitor, n: int) -> list[store.Work]:
    """A cell per run of a competitor, apart from those of its decisions, which need not be computed again.

    n: instances, the first of the task.
    """
    first = dataclasses.replace(task, instance=task.instance[: min(n, len(task.instance))])
    return [
        store.Work(
            f"single {task.label} {competitor.name} {number}",
            {"what": "single decisions", **first.key(), **run.key},
            functools.partial(_measure, run, first),
        )
        for number, run in enumerate(competitor.runs)
    ]


def median(cells: Sequence[dict[str, Any]]) -> float:
    """Seconds of a single decision: the median over the calls of all runs."""
    return float(np.median(np.concat([store.numbers(cell["seconds"]) for cell in cells])))


def _measure(run: Run, task: protocol.Task) -> dict[str, Any]:
    return {"seconds": seconds(run, task)}


def seconds(run: Run, task: protocol.Task, patience_s: float = PATIENCE_S) -> Array:
    """Seconds of every decision (calls,), an instance per call, after one call for nothing.

    At least one instance; no more of them once ``patience_s`` have passed, so that a slow solver does not decide all.
    """
    run.decide(dataclasses.replace(task, instance=task.problem.sample_split(task.params, "train", 1)))
    started = time.perf_counter()
    found: list[float] = []
    for one in task.parts(1):
        found.append(float(run.decide(one).seconds[0]))
        if time.perf_counter() - started > patience_s:
            break
    return np.array(found)
