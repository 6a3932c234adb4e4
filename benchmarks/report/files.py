"""The result files that a page is made of, read and checked; a damaged one stops the report with its name.

A leaderboard is a ``leaderboard.json`` (with ``losses.csv`` beside it), generalisation a ``generalise.json``, a
training run a ``run.json``, speed a
``speed.json``, a paper's figures a folder with ``claims.md``; other JSON files are curves if they have the keys of
one. Everything else is left alone.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semcom_gym import envs
from semcom_gym.benchmarks import table
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.benchmarks.generalise import Row as Shifted
from semcom_gym.benchmarks.leaderboard import Leaderboard, Row
from semcom_gym.benchmarks.report import curves
from semcom_gym.benchmarks.stats import Estimate
from semcom_gym.envs import curve, validate

T = TypeVar("T")
RUN = (
    "env_id", "preset", "overrides", "algo", "seed", "command", "versions", "seconds", "timesteps", "finished", "best",
    "curve",
)  # fmt: skip
SPEED = ("machine", "repeats", "seconds", "rows")
FIGURE = ("low", "high", "instances", "infeasible")


@dataclasses.dataclass(frozen=True)
class Board:
    """A leaderboard. file: where it stands. made: command and machine, None where the file does not say."""

    file: str
    board: Leaderboard
    made: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a figure, a list per column; printed: the numbers of a paper, NaN where there is none."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]
    instances: list[float]
    printed: list[float]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of a paper, from its CSV file."""

    file: str
    x_label: str
    y_label: str
    lines: list[Line]


@dataclasses.dataclass(frozen=True)
class Paper:
    """The figures of a paper, and what its claims came to, in Markdown."""

    name: str
    file: str
    claims: str
    figures: list[Figure]


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything that a page shows. digests: file -> the start of its SHA-256, in the order they were read."""

    boards: list[Board]
    curves: list[tuple[str, curve.Curve]]
    runs: list[tuple[str, dict[str, Any]]]
    shifts: list[tuple[str, list[Shifted]]]
    papers: list[Paper]
    speed: tuple[str, dict[str, Any]] | None
    readme: tuple[str, str] | None
    digests: dict[str, str]


class _Reader:
    """Reads files below folders and keeps their digests; names in the page start at the folder's own name."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    def text(self, path: Path, name: str) -> str:
        try:
            raw = path.read_bytes()
            self.digests[name] = hashlib.sha256(raw).hexdigest()[:12]
            return raw.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"result file {str(path)!r} cannot be read: {error}") from None

    def parsed(self, path: Path, name: str, parse: Callable[[str], T]) -> T:
        """What ``parse`` makes of a file. Raises UserError, in one line, where it cannot."""
        try:
            return parse(self.text(path, name))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"result file {str(path)!r} is damaged or not what its name says ({reason})") from None


def read(folder: Path, runs: list[Path]) -> Results:
    """Everything in a folder of results, and the training runs in other folders. Raises UserError."""
    for place in (folder, *runs):
        if not place.is_dir():
            raise UserError(f"there is no folder {str(place)!r}")
    reader = _Reader()
    found: dict[str, list[Any]] = {"board": [], "curve": [], "run": [], "shifts": []}
    speed = None
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        if path.name == "leaderboard.json":
            found["board"] += reader.parsed(
                path, name, lambda text, path=path, name=name: _boards(text, path, name, reader)
            )
        elif path.name == "run.json":
            found["run"].append((name, reader.parsed(path, name, _run)))
        elif path.name == "generalise.json":
            found["shifts"].append((name, reader.parsed(path, name, _shifts)))
        elif name == "speed.json":
            speed = (name, reader.parsed(path, name, _speed))
        else:
            found["curve"] += [(name, value) for value in reader.parsed(path, name, _curve)]
    for place in runs:
        for path in sorted(place.rglob("run.json")):
            name = f"{place.name}/{path.relative_to(place).as_posix()}"
            found["run"].append((name, reader.parsed(path, name, _run)))
    papers = [_paper(path.parent, folder, reader) for path in sorted(folder.rglob("claims.md"))]
    readme = ("README.md", reader.text(folder / "README.md", "README.md")) if (folder / "README.md").exists() else None
    shipped = _shipped_curves(reader)
    known = [value for _, value in shipped]
    own = [entry for entry in found["curve"] if entry[1] not in known]  # a profile may ship since
    return Results(
        found["board"], [*shipped, *own], found["run"], found["shifts"], papers, speed, readme, reader.digests
    )


def _object(value: Any, keys: tuple[str, ...] | list[str], what: str) -> dict[str, Any]:
    """``value`` if it is an object with these keys. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"{what} lacks {', '.join(missing)}")
    return value


def _build(cls: type[T], value: Any) -> T:
    """A dataclass from an object of numbers, text and further dataclasses; null stands for a missing number."""
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    names = [field.name for field in fields if field.default is dataclasses.MISSING]
    value = _object(value, names, cls.__name__)
    optional = [field.name for field in fields if field.type in ("int", "float", "str") and field.name not in names]
    names += [name for name in optional if name in value]  # files of older versions lack some
    numbers = {f.name for f in dataclasses.fields(cls) if f.type in ("float", "int")}  # type: ignore
    built: dict[str, Any] = {}
    for name in names:
        entry = value[name]
        if name in numbers:
            entry = math.nan if entry is None else entry
            if isinstance(entry, bool) or not isinstance(entry, (int, float)):
                raise ValueError(f"{name} must be a number, got {entry!r}")
        elif name in ("score", "mean_score", "behind_first"):
            entry = _build(Estimate, entry)
        elif name == "rows":
            entry = tuple(_build(Row, row) for row in entry)
        elif not isinstance(entry, str):
            raise ValueError(f"{name} must be text, got {entry!r}")
        built[name] = entry
    return cls(**built)


def _boards(text: str, path: Path, name: str, reader: _Reader) -> list[Board]:
    data = _object(json.loads(text), ["leaderboards"], "the file")
    boards = [_build(Leaderboard, board) for board in data["leaderboards"]]
    for board in boards:
        for row in board.rows:
            if row.kind not in ("solver", "agent"):
                raise ValueError(f"kind must be solver or agent, got {row.kind!r}")
    beside = path.with_name("losses.csv")
    if beside.exists():
        at = f"{name.removesuffix(path.name)}{beside.name}"
        boards = reader.parsed(beside, at, lambda text: _with_losses(boards, text))
    made = data.get("made")
    if made is not None:
        _object(_object(made, ["command", "machine"], "made")["machine"], ["processor", "versions"], "machine")
    return [Board(name, board, made) for board in boards]


def _with_losses(boards: list[Leaderboard], text: str) -> list[Leaderboard]:
    """The leaderboards with the losses of single decisions."""
    header, *lines = csv.reader(text.splitlines())
    if tuple(header[: len(table.LOSSES)]) != table.LOSSES:
        raise ValueError(f"its columns must begin with {', '.join(table.LOSSES)}")
    seeds: dict[tuple[str, str], list[list[float]]] = {}
    for task, method, _, *values in lines:
        seeds.setdefault((task, method), []).append([float(value) if value else math.nan for value in values])
    known = {(board.task, row.method) for board in boards for row in board.rows}
    if set(seeds) != known:
        other = sorted(set(seeds) ^ known)[0]
        raise ValueError(f"its methods are not those of the leaderboard: {' '.join(other)}")
    return [
        dataclasses.replace(
            board,
            rows=tuple(
                dataclasses.replace(row, losses=np.array(seeds[board.task, row.method])[:, : board.n])
                for row in board.rows
            ),
        )
        for board in boards
    ]


def _shifts(text: str) -> list[Shifted]:
    rows = [_build(Shifted, row) for row in _object(json.loads(text), ["rows"], "the file")["rows"]]
    if not rows:
        raise ValueError("it has no rows")
    return rows


def _run(text: str) -> dict[str, Any]:
    run = _object(json.loads(text), RUN, "the run")
    validate.choice("environment id", run["env_id"], envs.IDS | envs.FADING_IDS)
    _object(run["overrides"], [], "overrides")
    for point in (run["best"], *run["curve"]):
        _object(point, ["timesteps", "seconds", "reward"], "a validation")
    return run


def _speed(text: str) -> dict[str, Any]:
    found = _object(json.loads(text), SPEED, "the file")
    _object(found["machine"], ["processor", "versions"], "machine")
    for row in found["rows"]:
        _object(row, ["group", "name", "unit", "per_second", "slowest", "fastest"], "a row")
        validate.number("per_second", row["per_second"])
    return found


def _curve(text: str) -> list[curve.Curve]:
    """The curve in a file, or nothing where it holds something else."""
    data = json.loads(text)
    names = {field.name for field in dataclasses.fields(curve.Curve)}
    if not isinstance(data, dict) or set(data) != names:
        return []
    return [_known(curve.Curve(**data))]


def _known(found: curve.Curve) -> curve.Curve:
    if found.problem not in envs.NAMES:
        raise ValueError(f"unknown problem {found.problem!r}")
    for point in found.points:
        if len(point) not in (2, 3, 4) or not all(isinstance(x, (int, float)) for x in point):
            raise ValueError(f"a point must be two to four numbers, got {point!r}")
    curves.PANELS[found.problem](found)  # raises where parameters are missing or do not fit together
    return found


def _shipped_curves(reader: _Reader) -> list[tuple[str, curve.Curve]]:
    found = []
    for problem in envs.NAMES:
        for name in curve.shipped(problem):
            path = Path(curve.__file__).parent / problem / "curves" / f"{name}.json"
            at = f"envs/{problem}/curves/{name}.json"
            found += [(at, value) for value in reader.parsed(path, at, _curve)]
    return found


def _paper(folder: Path, root: Path, reader: _Reader) -> Paper:
    name = folder.relative_to(root).as_posix()
    claims = reader.text(folder / "claims.md", f"{name}/claims.md")
    figures = []
    for path in sorted(folder.glob("figure_*.csv")):
        at = f"{name}/{path.name}"
        figures.append(reader.parsed(path, at, lambda text, at=at: _figure(text, at)))
    return Paper(folder.name, f"{name}/claims.md", claims, figures)


def _figure(text: str, name: str) -> Figure:
    rows = list(csv.reader(text.splitlines()))
    header = rows[0]
    if header[0] != "line" or not set(FIGURE) <= set(header):
        raise ValueError(f"its columns must be line, x, y, {', '.join(FIGURE)}")
    if not rows[1:]:
        raise ValueError("it has no rows")
    columns = {key: header.index(key) for key in ("low", "high", "instances")} | {"x": 1, "y": 2}
    printed = header.index("printed") if "printed" in header else None
    lines: dict[str, Line] = {}
    for row in rows[1:]:
        line = lines.setdefault(row[0], Line(row[0], [], [], [], [], [], []))
        for key, column in columns.items():
            getattr(line, key).append(float(row[column]))
        line.printed.append(float(row[printed]) if printed is not None and row[printed] else math.nan)
    return Figure(name, header[1], header[2], list(lines.values()))
