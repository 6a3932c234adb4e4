"""Proven bounds of the test split, shipped as data; proven on the fly for everything else."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym import baselines
from semcom_gym.benchmarks import protocol, store
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.envs.arrays import Array

FOLDER = Path(__file__).parent / "bounds"
CHUNK = 20  # instances proven between two writes to disk
COLUMNS = ("bound", "best", "seconds")
KEYS = ("problem", "preset", "split", "n", "data", "code", "command", *COLUMNS)


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Bound and best known objective of n instances, (n,), in natural units; NaN where no decision is feasible.

    seconds (n,): what the proof took, with up to ``jobs`` computations at once.
    """

    bound: Array
    best: Array
    seconds: Array
    jobs: int = 1

    def __getitem__(self, rows: slice) -> Certificate:
        return Certificate(self.bound[rows], self.best[rows], self.seconds[rows], self.jobs)

    @property
    def gap(self) -> Array:
        """(n,) |bound - best| / |bound|: how much of a loss may be the bound's own."""
        return np.abs(self.bound - self.best) / np.abs(self.bound)


def certificate(task: protocol.Task, cells: store.Store) -> Certificate:
    """The bounds of a task: from the shipped file as far as it reaches, the rest proven now and kept in ``cells``."""
    n = len(task.instance)
    known = shipped(task)
    if known is None:
        return prove(task, cells)
    if len(known.bound) >= n:
        return known[:n]
    fresh = prove(task, cells, first=len(known.bound))
    columns = (np.concat([getattr(known, name), getattr(fresh, name)]) for name in COLUMNS)
    return Certificate(*columns, max(known.jobs, fresh.jobs))


def prove(task: protocol.Task, cells: store.Store, first: int = 0) -> Certificate:
    """Prove bounds for the instances from ``first`` on, in chunks that survive an interruption."""
    parts = cells.cells(proofs(task, first), f"proving bounds: {task.label}")
    columns = (np.concat([store.numbers(part[name]) for part in parts]) for name in COLUMNS)
    return Certificate(*columns, max(part.get("jobs", 1) for part in parts))


def lacking(task: protocol.Task) -> list[store.Work]:
    """The proofs that :func:`certificate` needs beside the shipped ones."""
    known = shipped(task)
    return proofs(task, 0 if known is None else len(known.bound))


def proofs(task: protocol.Task, first: int = 0) -> list[store.Work]:
    """The proofs of the instances from ``first`` on, a chunk each."""
    n = len(task.instance)
    work = []
    for start in range(first, n, CHUNK):
        part = task.instance[start : min(start + CHUNK, n)]
        key = {"what": "bound", "code": store.code_version("envs", "baselines"), "problem": task.problem.name,
               "data": protocol.fingerprint(task.params, part)}  # fmt: skip
        work.append(store.Work(f"bound {task.label} {start}", key, functools.partial(_prove, task, part)))
    return work


def _prove(task: protocol.Task, instance: Any) -> dict[str, Any]:
    started = time.perf_counter()
    found = baselines.bound(task.problem.name, task.params, instance)
    best = np.where(found.best.feasible, found.best.objective, np.nan)
    seconds = np.full(len(instance), (time.perf_counter() - started) / len(instance))
    return {"bound": found.value, "best": best, "seconds": seconds}


def path(problem: str, preset: str) -> Path:
    """The shipped file of a preset."""
    return FOLDER / f"{problem}_{preset}.json"


def shipped(task: protocol.Task) -> Certificate | None:
    """The shipped bounds of a task, or None if it is not the test split of a preset that has a file.

    Raises UserError, in one line, for a file that is corrupt or was proven for other parameters or instances.
    """
    file = path(task.problem.name, task.preset)
    if task.split != "test" or task.params != task.problem.preset(task.preset) or not file.exists():
        return None
    data = _read(file)
    instance = task.problem.sample_split(task.params, "test", data["n"])
    if data["data"] != protocol.fingerprint(task.params, instance):
        raise UserError(
            f"bounds file {str(file)!r} is for other parameters or instances than preset {task.preset!r} has now: "
            f"prove them again with: {command(task, data['n'])}"
        )
    return Certificate(*(store.numbers(data[name]) for name in COLUMNS), data.get("jobs", 1))


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if set(data) - {"jobs"} != set(KEYS) or any(len(store.numbers(data[name])) != data["n"] for name in COLUMNS):
            raise ValueError("it lacks keys or numbers")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"bounds file {str(file)!r} is corrupt ({error}): reinstall, or prove it again") from None
    return dict(data)


def ship(task: protocol.Task, cells: store.Store) -> Path:
    """Prove the bounds of a preset's test split and write the file that ships with the package."""
    found = prove(task, cells)
    data = {
        "problem": task.problem.name,
        "preset": task.preset,
        "split": task.split,
        "n": len(task.instance),
        "data": protocol.fingerprint(task.params, task.instance),
        "code": store.code_version("envs", "baselines"),
        "command": command(task, len(task.instance)),
        **{name: value for name, value in vars(found).items() if name != "jobs" or value > 1},
    }
    file = path(task.problem.name, task.preset)
    store.write_atomically(file, store.dumps(data, indent=1) + "\n")
    return file


def command(task: protocol.Task, n: int) -> str:
    """The command that makes a shipped file."""
    return f"semcom-gym benchmark --prove --env {task.env_id} --preset {task.preset} -n {n}"
