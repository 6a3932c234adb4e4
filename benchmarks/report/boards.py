"""Leaderboards: an overview, and of each a table, a performance profile and loss against decision time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from semcom_gym import envs
from semcom_gym.benchmarks.leaderboard import Leaderboard, Row, profiles
from semcom_gym.benchmarks.report.files import Board
from semcom_gym.benchmarks.report.markup import DASH, MINUS, Markup, code, facts, join, number, slug, table, tag
from semcom_gym.benchmarks.report.plot import Axis, Chart, axis, figure, style, swatch
from semcom_gym.benchmarks.table import instances, timing

FLOOR = -1.0  # left end of the small score axis: what an infeasible decision scores
LEAST_LOSS = 1e-4  # percent; what is less is drawn here
HEADER = (
    "#", "method", "kind", "score (IQM)", f"{MINUS}1 to 1", "95 % interval", "mean score", "loss", "feasible", "time",
    "alone", "training", "n",
)  # fmt: skip
SHAPES = {"solver": "circle", "agent": "diamond"}


def anchor(entry: Board) -> str:
    """The name of a leaderboard's place on the page."""
    return slug(f"board {entry.file} {entry.board.task}")


def groups(boards: Sequence[Board]) -> dict[str, list[Board]]:
    """The leaderboards of each environment id, those of unchanged presets first, the id's own before others."""
    found: dict[str, list[Board]] = {}
    for entry in sorted(boards, key=_order):
        found.setdefault(entry.board.env, []).append(entry)
    return found


def _order(entry: Board) -> tuple[int, bool, bool, str]:
    board = entry.board
    ids = [*envs.IDS, *envs.FADING_IDS]
    place = ids.index(board.env) if board.env in ids else len(ids)
    own = board.env in ids and board.preset == envs.default_preset(board.env)
    return place, "=" in board.task, not own, board.task


def overview(boards: Sequence[Board]) -> Markup:
    """A line per leaderboard: the best solver and the best agent."""
    rows = []
    for entry in sorted(boards, key=_order):
        board = entry.board
        best = [next((row for row in board.rows if row.kind == kind), None) for kind in ("solver", "agent")]
        cells: list[object] = [tag("a", board.task, href=f"#{anchor(entry)}")]
        for row in best:
            if row:
                name = tag("span", row.method, class_="method")
                cells += [name, number(row.score.value), percent(row.loss), time(row.seconds), time(row.single)]
            else:
                cells += [DASH] * 5
        rows.append([*cells, percent(board.certified_gap)])
    each = ("score", "loss", "time", "alone")
    header = ("task", "best solver", *each, "best agent", *each, "bound's own gap")
    return table(header, rows, left=(0, 1, 6), caption="The best solver and the best agent of every leaderboard")


def section(boards: Sequence[Board]) -> Markup:
    """All leaderboards; the first of each id is open."""
    parts = []
    for env_id, entries in groups(boards).items():
        parts.append(tag("h3", env_id, id=slug(env_id)))
        parts += [_board(entry, is_open=place == 0) for place, entry in enumerate(entries)]
    return join(parts, "\n")


def percent(share: float) -> str:
    """A share with three significant digits."""
    if not math.isfinite(share):
        return DASH
    value = 100.0 * share
    return f"{value:.2g} %" if 0 < abs(value) < 0.01 else f"{value:.3f} %" if abs(value) < 1 else f"{value:.1f} %"


def time(seconds: float) -> str:
    """A time in the unit that suits it; a dash where there is none."""
    if not math.isfinite(seconds):
        return DASH
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def training(row: Row) -> str:
    """How long an agent was trained, and on how many decisions; a dash of a solver."""
    if not math.isfinite(row.training_s):
        return DASH
    return f"{row.training_s:,.0f} s, {row.training_decisions:,.0f}"


def _board(entry: Board, *, is_open: bool) -> Markup:
    board = entry.board
    first = board.rows[0] if board.rows else None
    best = f"best: {first.method}, {number(first.score.value)}" if first else "no rows"
    summary = tag("summary", tag("h4", board.task), tag("span", f"{board.n} {board.split} {instances(board)}; {best}"))
    charts = tag("div", _profile(board), _time(board), class_="charts two")
    return tag(
        "details",
        summary,
        tag("div", _table(board), charts, _notes(entry), class_="body"),
        id=anchor(entry),
        open=is_open,
    )


def _table(board: Leaderboard) -> Markup:
    rows = []
    for place, row in enumerate(board.rows):
        name = tag("span", swatch(style(place)), row.method, class_="method")
        e = row.score
        rows.append([
            place + 1, name, row.kind, number(e.value), _interval(row), f"{number(e.low)} to {number(e.high)}",
            number(row.mean_score.value), percent(row.loss), f"{100 * row.feasible:.0f} %", time(row.seconds),
            time(row.single), training(row), row.n,
        ])  # fmt: skip
    return table(
        HEADER, rows, left=(1, 2, 4), caption=f"{board.task}: {board.n} {board.split} {instances(board)}, best first"
    )


def _interval(row: Row) -> Markup:
    """The score and its interval on an axis from -1 to 1; an arrow where it lies below."""
    e = row.score

    def place(value: float) -> float:
        return 4 + 92 * (min(max(value, FLOOR), 1.0) - FLOOR) / (1.0 - FLOOR)

    parts = [tag("path", d="M4 8H96M50 5V11M96 3V13", class_="axis")]
    if e.value < FLOOR:
        parts.append(tag("path", d="M9 3L3 8L9 13z", class_="dot ink"))
    elif math.isfinite(e.value):
        if math.isfinite(e.low) and math.isfinite(e.high):
            parts.append(tag("path", d=f"M{place(e.low):.1f} 8H{place(e.high):.1f}", class_="interval"))
        parts.append(tag("circle", cx=f"{place(e.value):.1f}", cy=8, r=3.5, class_="dot ink"))
    return tag("svg", *parts, viewBox="0 0 100 16", class_="interval", aria_hidden="true")


def _notes(entry: Board) -> Markup:
    board = entry.board
    made = entry.made
    pairs: list[tuple[object, object]] = [
        ("score", board.rule.strip() or f"1 = certified optimum, 0 = {board.anchor}, {MINUS}1 = infeasible"),
        ("left out by rule", f"{100 * board.left_out:.1f} % of the {instances(board)}"),
        *(
            []
            if board.rule
            else [("bound and best decision known", f"{percent(board.certified_gap)} apart in the mean")]
        ),
        *([("times", timing(board).strip())] if timing(board) else []),
        ("file", code(entry.file)),
        ("code", code(board.code)),
        ("command", code(made["command"]) if made else "not in the file; see Commands and machine"),
        ("machine", machine(made["machine"]) if made else "not in the file; see Commands and machine"),
    ]
    return facts(pairs)


def machine(found: dict[str, object]) -> str:
    """What a machine is, in one line."""
    versions = found.get("versions")
    shown = versions.items() if isinstance(versions, dict) else ()
    names = [f"{found.get('processor')}, {found.get('cores')} cores", str(found.get("system"))]
    names += [f"GPU {found['gpu']}"] if found.get("gpu") else []
    names += [f"Python {found.get('python')}", *(f"{name} {version}" for name, version in shown if version)]
    return ", ".join(names)


def _profile(board: Leaderboard) -> Markup:
    """Share of the decisions that lose at most x, per method."""
    rows = [(place, row) for place, row in enumerate(board.rows) if row.losses is not None]
    caption = "Performance profile: share of decisions that lose at most so much"
    if not rows:
        note = tag("p", "Not shown: there is no losses.csv with the losses of single decisions.", class_="missing")
        return tag("figure", tag("figcaption", caption), note, class_="chart")
    losses, shares = profiles([row for _, row in rows])
    grid = (100.0 * losses).tolist()
    chart = Chart(
        Axis("loss to the certified bound [%]", grid[0], grid[-1], log=True),
        Axis("share of decisions [%]", 0.0, 102.0),
        f"Performance profiles of {len(rows)} methods on {board.task}: the share of decisions whose loss to the bound "
        "is at most the value on the axis. Higher is better.",
    )  # fmt: skip
    for (place, row), share in reversed(list(zip(rows, shares, strict=True))):
        chart.line(list(zip(grid, (100.0 * share).tolist(), strict=True)), style(place), row.method)
    return figure(chart, caption)


def _time(board: Leaderboard) -> Markup:
    """Mean loss against decision time, both on log axes."""
    rows = [(place, row) for place, row in enumerate(board.rows) if math.isfinite(row.loss) and row.seconds > 0]
    at = [(1e3 * row.seconds, max(100.0 * row.loss, LEAST_LOSS)) for _, row in rows]
    chart = Chart(
        axis("decision time [ms per instance]", [x for x, _ in at], log=True, room=0.1),
        axis("mean loss to the bound [%]", [y for _, y in at], log=True, room=0.08),
        f"Mean loss against decision time of {len(rows)} methods on {board.task}; both axes are logarithmic, lower "
        "left is better.",
    )
    gap = 100.0 * board.certified_gap
    if math.isfinite(gap) and chart.y.low < gap < chart.y.high:
        chart.rule(gap, "rule", "distance between the bound and the best decision known")
    for (place, row), point in zip(rows, at, strict=True):
        alone = f", {time(row.single)} alone" if math.isfinite(row.single) else ""
        title = f"{row.method}: {percent(row.loss)}, {time(row.seconds)}{alone}"
        chart.dot(point, style(place), title, shape=SHAPES[row.kind])
    for (place, row), point in zip(rows, at, strict=True):
        chart.label(point, row.method, str(place + 1))
    ending = ", dashed: what the bound may lose itself" if math.isfinite(gap) and gap >= chart.y.low else ""
    return figure(chart, f"Loss against decision time; circles are solvers, diamonds agents{ending}")
