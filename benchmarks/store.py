"""Finished work on disk: each cell is one JSON file, written at once or not at all, and found again by its key."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym import __version__
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.benchmarks.progress import bar
from semcom_gym.envs import files

if TYPE_CHECKING:
    from semcom_gym.benchmarks.machines import Workers


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it.

    Arrays become lists, dataclasses dictionaries, complex numbers pairs, NaN and infinities null.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON text of :func:`plain`."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def numbers(values: list[Any]) -> np.ndarray[Any, Any]:
    """The float64 array that :func:`plain` turned into ``values``; null is NaN."""
    return np.array([math.nan if value is None else value for value in values], float)


def digest(value: Any) -> str:
    """SHA-256 of the JSON text of ``value``, keys sorted."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True, allow_nan=False).encode()).hexdigest()


@functools.cache
def code_version(*packages: str) -> str:
    """The version and a hash of the sources of some packages of semcom_gym, so that no result outlives its code."""
    total = hashlib.sha256()
    for package in packages:
        folder = Path(importlib.util.find_spec(f"semcom_gym.{package}").origin).parent  # without importing it
        for path in sorted(folder.rglob("*.py")):
            total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{total.hexdigest()[:10]}"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write text or bytes so that a crash leaves the old file or the whole new one. Raises UserError."""
    try:
        files.write_atomically(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise UserError(f"cannot write {str(path)!r}: {error.strerror}") from None


def make_folder(folder: str | Path) -> Path:
    """The folder, made if it is missing. Raises UserError if it cannot be."""
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {str(path)!r}: {error.strerror}") from None
    return path


@dataclasses.dataclass(frozen=True)
class Work:
    """A cell to be. name: for people; key: what decides its result; compute: makes it, in any process."""

    name: str
    key: dict[str, Any]
    compute: Callable[[], dict[str, Any]]


class Store:
    """A folder of finished cells, and who computes those that are missing: ``workers``, or this process if None."""

    def __init__(self, folder: str | Path, workers: Workers | None = None) -> None:
        self.folder = make_folder(folder)
        self.workers = workers
        self.computed = 0
        self.reused = 0
        self._finished: set[Path] = set()

    def cell(self, name: str, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The stored result of ``key``, or that of ``compute()``, which is stored before it is returned.

        name: what the file is called, for people; ``key`` decides. Raises UserError for a file that is corrupt.
        """
        path, work = self.path(name, key), Work(name, key, compute)
        return self._read(path, work) if path.exists() else self._keep(path, work, compute())

    def cells(self, work: Sequence[Work], what: str) -> list[dict[str, Any]]:
        """The results of some work, in its order; what is missing is computed and stored as it finishes.

        what: the work in a word, for the progress bar. A cell with ``seconds`` that workers computed has ``jobs``, how
        many of them ran at once. Raises UserError as :meth:`cell` and :meth:`Workers.run` do.
        """
        paths = [self.path(item.name, item.key) for item in work]
        distinct = dict(zip(paths, work, strict=True))
        found = {path: self._read(path, item) for path, item in distinct.items() if path.exists()}
        missing = {path: item for path, item in distinct.items() if path not in found}
        with bar(len(distinct), what) as progress, contextlib.closing(self._compute(missing, progress)) as results:
            progress.update(len(found))
            for path, value in results:
                found[path] = self._keep(path, missing[path], value)
                progress.update()
        return [found[path] for path in paths]

    def path(self, name: str, key: dict[str, Any]) -> Path:
        """The file of a cell."""
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.=_-]+', '-', name)}-{digest(key)[:12]}.json"

    def kept(self) -> str:
        """One line on what an interruption leaves."""
        return f"{len(self._finished)} finished cell(s) are kept in {self.folder}; the same command goes on from there"

    def _compute(self, missing: dict[Path, Work], progress: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Results as they finish."""
        if self.workers is None:
            for path, item in missing.items():
                progress.set_postfix_str(item.name)
                yield path, item.compute()
            return
        progress.set_postfix_str(f"{self.workers.backend}, {self.workers.jobs} at once")
        calls = {path: item.compute for path, item in missing.items()}
        with contextlib.closing(self.workers.run(calls)) as results:
            for path, value in results:
                yield path, value | ({"jobs": self.workers.jobs} if "seconds" in value else {})

    def _keep(self, path: Path, work: Work, value: dict[str, Any]) -> dict[str, Any]:
        value = plain(value)
        write_atomically(path, dumps({"key": work.key, "value": value}) + "\n")
        self.computed += 1
        self._finished.add(path)
        return dict(value)

    def _read(self, path: Path, work: Work) -> dict[str, Any]:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["key"] != plain(work.key):
                raise ValueError("its key is another")
            self.reused += 1
            self._finished.add(path)
            return dict(stored["value"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error) or type(error).__name__
            raise UserError(f"result file {str(path)!r} is corrupt ({reason}): delete it and run again") from None
