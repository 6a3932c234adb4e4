"""The published algorithm beside the best agent, a line per task, out of finished leaderboards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from semcom_gym.benchmarks import table

if TYPE_CHECKING:  # `semcom-gym envs` runs without SciPy's statistics
    from semcom_gym.benchmarks.leaderboard import Leaderboard, Row

PUBLISHED = {
    "SemCom/CRRA-v0": "crra",
    "SemCom/CRRAUS-v0": "crraus",
    "SemCom/SFMA-v0": "paper",
    "SemCom/SFMAPairing-v0": "paper",
    "SemCom/ASCC-v0": "jrpb",
    "SemCom/Training-v0": "paper",
}
"""Id -> the published algorithm of its problem."""

HEADER = (
    "task", "published", "loss %", "feasible %", "ms/decision", "ms single", "agent", "loss %", "feasible %",
    "ms/decision", "ms single", "training s", "times faster", "single",
)  # fmt: skip
TITLE = "The published algorithm and the best agent of each task"


@dataclasses.dataclass(frozen=True)
class Line:
    """A task: the row of its published algorithm and of its best agent, None where it was not run.

    faster, faster_single: the agent's decisions in the time of one of the published algorithm, in batches and one at
    a time; NaN where one of them is missing.
    """

    task: str
    published: Row | None
    agent: Row | None
    faster: float
    faster_single: float


def summary(boards: Sequence[Leaderboard]) -> list[Line]:
    """A line per board, in order. The rows of a board are best first."""
    return [_line(board) for board in boards]


def text(lines: Sequence[Line]) -> str:
    """As aligned plain text, for a terminal."""
    return f"{TITLE}\n\n{table.aligned(HEADER, list(map(_cells, lines)), left=(0, 1, 6))}"


def markdown(lines: Sequence[Line]) -> str:
    """As a Markdown section."""
    return f"## {TITLE}\n\n{table.markdown_table(HEADER, list(map(_cells, lines)))}\n"


def _line(board: Leaderboard) -> Line:
    method = PUBLISHED[board.env]
    published = _first(row for row in board.rows if row.kind == "solver" and row.method == method)
    agent = _first(row for row in board.rows if row.kind == "agent")
    if published is None or agent is None:
        return Line(board.task, published, agent, math.nan, math.nan)
    ratios = (published.seconds / agent.seconds, published.single / agent.single)
    return Line(board.task, published, agent, *ratios)


def _first(rows: Iterable[Row]) -> Row | None:
    row = next(iter(rows), None)
    return None if row is None else dataclasses.replace(row, losses=None)


def _cells(line: Line) -> list[str]:
    training = table.number(line.agent.training_s if line.agent else math.nan, 0)
    faster = (table.number(ratio, 1) for ratio in (line.faster, line.faster_single))
    return [line.task, *_row(line.published), *_row(line.agent), training, *faster]


def _row(row: Row | None) -> list[str]:
    if row is None:
        return ["-"] * 5
    return [
        row.method,
        table.number(100 * row.loss, 3),
        table.number(100 * row.feasible, 1),
        table.milliseconds(row.seconds),
        table.milliseconds(row.single),
    ]
