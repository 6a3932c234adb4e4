"""Leaderboards as aligned text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from semcom_gym.benchmarks import store

if TYPE_CHECKING:  # `semcom-gym envs` prints a table without SciPy's statistics
    from semcom_gym.benchmarks.leaderboard import Leaderboard, Row
    from semcom_gym.benchmarks.stats import Estimate

HEADER = (
    "method", "score (IQM)", "95 % interval", "mean score", "loss %", "feasible %", "ms/decision", "ms single",
    "training s", "training decisions", "n",
)  # fmt: skip


def text(board: Leaderboard) -> str:
    """The leaderboard as aligned plain text, for a terminal."""
    return f"{_title(board)}\n\n{aligned(HEADER, _cells(board))}\n\n{_notes(board)}"


def markdown(board: Leaderboard) -> str:
    """The leaderboard as a Markdown section."""
    return f"## {_title(board)}\n\n{markdown_table(HEADER, _cells(board))}\n\n{_notes(board)}\n"


def csv_text(boards: Sequence[Leaderboard]) -> str:
    """All leaderboards as one CSV table with plain numbers: shares as fractions, times in seconds."""
    rows = []
    for board in boards:
        for row in board.rows:
            estimates = (row.score, row.mean_score, row.behind_first)
            spread = [number for e in estimates for number in (e.value, e.low, e.high)]
            rows.append(
                [board.env, board.preset, board.task, board.split, row.method, row.kind, *spread, row.loss,
                 row.feasible, row.seconds, row.single, row.training_s, row.training_decisions, row.n, board.left_out,
                 board.certified_gap]
            )  # fmt: skip
    names = [f"{name}{end}" for name in ("score_iqm", "score_mean", "behind_first") for end in ("", "_low", "_high")]
    header = ["env", "preset", "task", "split", "method", "kind", *names, "loss", "feasible", "seconds",
              "seconds_single", "training_seconds", "training_decisions", "n", "left_out", "certified_gap"]  # fmt: skip
    return csv_table(header, rows)


def json_text(boards: Sequence[Leaderboard], made: dict[str, Any] | None = None) -> str:
    """All leaderboards, without the losses of single decisions, as JSON; what is not a number is null.

    made: the command and the machine, None where nobody knows.
    """
    plain = store.plain(boards)
    for board in plain:
        for row in board["rows"]:
            del row["losses"]
    return store.dumps({"made": made, "leaderboards": plain}, indent=1) + "\n"


LOSSES = ("task", "method", "seed")
"""How a table of losses begins; a column per instance follows."""


def losses_csv(boards: Sequence[Leaderboard]) -> str:
    """The loss of every decision, a line per method and training seed: "inf" where infeasible, empty where the
    instance does not count.
    """
    rows = [
        [board.task, row.method, seed, *("" if math.isnan(loss) else f"{loss:.5g}" for loss in losses)]
        for board in boards
        for row in board.rows
        for seed, losses in enumerate(row.losses if row.losses is not None else ())
    ]
    most = max((board.n for board in boards), default=0)
    return csv_table([*LOSSES, *map(str, range(most))], rows)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Columns of equal width; those in ``left`` flush left, the others, which hold numbers, right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column left, the others right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def csv_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """CSV text with a header line."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def number(value: float, digits: int) -> str:
    """A fixed number of digits; ``-`` where there is no number."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds with three significant digits; ``-`` where there is none."""
    return f"{1e3 * seconds:.3g}" if math.isfinite(seconds) else "-"


def _cells(board: Leaderboard) -> list[list[str]]:
    return [_row(row) for row in board.rows]


def _row(row: Row) -> list[str]:
    return [
        row.method,
        number(row.score.value, 4),
        _interval(row.score),
        number(row.mean_score.value, 4),
        number(100 * row.loss, 3),
        number(100 * row.feasible, 1),
        milliseconds(row.seconds),
        milliseconds(row.single),
        number(row.training_s, 0),
        f"{row.training_decisions:,.0f}" if math.isfinite(row.training_decisions) else "-",
        str(row.n),
    ]


def _interval(e: Estimate) -> str:
    return f"[{number(e.low, 4)}, {number(e.high, 4)}]"


def _title(board: Leaderboard) -> str:
    return f"{board.task}, {board.n} {board.split} {instances(board)}"


def instances(board: Leaderboard) -> str:
    """What a task has many of: episodes where a rule of its own scores them."""
    return "episodes" if board.rule else "instances"


def _notes(board: Leaderboard) -> str:
    rule = board.rule or (
        f"score: 1 = certified optimum, 0 = `{board.anchor}`, -1 = infeasible. loss: to the bound, feasible decisions. "
    )
    known = f"Bound and best decision known are {number(100 * board.certified_gap, 3)} % apart in the mean. "
    return (
        f"{rule}Left out by rule: {100 * board.left_out:.1f} % of the {instances(board)}. "
        f"{'' if board.rule else known}{timing(board)}Code {board.code}."
    )


def timing(board: Leaderboard) -> str:
    """What decision times mean: those of single calls, and those not measured alone and on the whole batch."""
    alone = "one episode" if board.rule else f"one instance per call, the median of up to {board.singles} calls"
    single = f"ms single: {alone}. " if board.singles else ""
    beside = f"Times were measured with up to {board.jobs} computations at once: upper limits. "
    batch = f"Solvers decided {board.chunk} instances in a call. "
    return single + (beside if board.jobs > 1 else "") + (batch if board.chunk else "")
