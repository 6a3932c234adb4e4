"""Agents on problems that they were not trained on: shifted parameters, the same weights, certified bounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semcom_gym import baselines
from semcom_gym.benchmarks import certificates, leaderboard, protocol, stats, store, table
from semcom_gym.benchmarks.competitors import Competitor, solver
from semcom_gym.benchmarks.summary import PUBLISHED

NONE = "none"
"""Name of the shift that changes nothing: what the agents were trained on."""

_CRRA: dict[str, dict[str, Any]] = {
    "5 users": {"num_users": 5},
    "20 users": {"num_users": 20},
    "50 users": {"num_users": 50},
    "bandwidth x 0.5": {"max_bandwidth_hz": 2.5e6},
    "bandwidth x 2": {"max_bandwidth_hz": 10e6},
    "power -3 dB": {"max_power_w": 5e-3},
    "power +3 dB": {"max_power_w": 20e-3},
    "12 users, 7 MHz, 14 mW": {"num_users": 12, "max_bandwidth_hz": 7e6, "max_power_w": 14e-3},
    "60 users, 12 MHz, 25 mW": {"num_users": 60, "max_bandwidth_hz": 12e6, "max_power_w": 25e-3},
    "shadowing 0 dB": {"shadowing_db": 0.0},
    "shadowing 12 dB": {"shadowing_db": 12.0},
    "curve of VGG": {"curves": ("measured_vgg_0db",)},
    "curve at 5 dB": {"curves": ("measured_resnet_5db",)},
    "published curve": {"curves": ("resnet_0db",)},
}
_SFMA: dict[str, dict[str, Any]] = {
    "6 users": {"num_users": 6},
    "16 users": {"num_users": 16},
    "bandwidth x 0.5": {"max_bandwidth_hz": 5e6},
    "bandwidth x 2": {"max_bandwidth_hz": 20e6},
    "power -3 dB": {"max_power_w": 0.5},
    "power +3 dB": {"max_power_w": 2.0},
    "8 users, 14 MHz, 1.4 W": {"num_users": 8, "max_bandwidth_hz": 14e6, "max_power_w": 1.4},
    "18 users, 25 MHz, 2.5 W": {"num_users": 18, "max_bandwidth_hz": 25e6, "max_power_w": 2.5},
    "shadowing 0 dB": {"shadowing_db": 0.0},
    "shadowing 12 dB": {"shadowing_db": 12.0},
    "loss -6 dB": {"extra_loss_db": 8.0},
    "loss +6 dB": {"extra_loss_db": 20.0},
    "gentle curve": {"curve": "synthetic_gentle"},
    "measured curve": {"curve": "measured_sc_sfma_small"},
}
SHIFTS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "SemCom/CRRA-v0": _CRRA,
    "SemCom/CRRAUS-v0": _CRRA,
    "SemCom/SFMA-v0": _SFMA,
    "SemCom/SFMAPairing-v0": _SFMA,
    "SemCom/ASCC-v0": {
        "2 users": {"num_users": 2},
        "3 users": {"num_users": 3},
        "6 users": {"num_users": 6},
        "power -3 dB": {"max_power_w": 3.0},
        "power +3 dB": {"max_power_w": 12.0},
        "channel uses x 0.5": {"channel_uses": 7000.0},
        "channel uses x 2": {"channel_uses": 28000.0},
        "5 users, 4 W, 20000 uses": {"num_users": 5, "max_power_w": 4.0, "channel_uses": 20000.0},
        "7 users, 15 W, 35000 uses": {"num_users": 7, "max_power_w": 15.0, "channel_uses": 35000.0},
        "correlation 0": {"channel_correlation": 0.0},
        "correlation 0.6": {"channel_correlation": 0.6},
        "measured tables": {
            "data_table": "measured_hyperprior_data",
            "semantic_table": "measured_hyperprior_semantic",
        },
    },
    "SemCom/Training-v0": {
        "5 devices": {"num_users": 5},
        "20 devices": {"num_users": 20},
        "50 devices": {"num_users": 50},
        "bandwidth x 0.5": {"total_bandwidth_hz": 5e6},
        "bandwidth x 2": {"total_bandwidth_hz": 20e6},
        "power -3 dB": {"max_power_w": 0.005},
        "power +3 dB": {"max_power_w": 0.02},
        "12 devices, 7 MHz, 14 mW": {"num_users": 12, "total_bandwidth_hz": 7e6, "max_power_w": 0.014},
        "60 devices, 25 MHz, 25 mW": {"num_users": 60, "total_bandwidth_hz": 25e6, "max_power_w": 0.025},
        "shadowing 0 dB": {"shadowing_db": 0.0},
        "shadowing 12 dB": {"shadowing_db": 12.0},
        "time weighs 0.8": {"time_weight": 0.8},
        "measured curve": {"psnr_curve": "deepjscc_small", "psnr_range_db": (33.5, 35.0), "max_power_w": 0.02},
    },
}
"""Id -> name of a shift -> what it changes of the id's own preset."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A competitor on a shifted task. loss and feasible are shares; n scores: instances times training seeds.

    left_out: share of the instances without a score. certified_gap: the part of a loss that may be the bound's own.
    """

    env: str
    preset: str
    shift: str
    method: str
    kind: str
    loss: float
    score: stats.Estimate
    mean_score: stats.Estimate
    feasible: float
    n: int
    left_out: float
    certified_gap: float


@dataclasses.dataclass(frozen=True)
class Entry:
    """A shift of a task, who is scored on all of it, and who on its first ``slow`` instances only."""

    shift: str
    task: protocol.Task
    competitors: list[Competitor]
    published: Competitor
    slow: int

    @property
    def few(self) -> protocol.Task:
        """What the published algorithm decides, which may take a second each time."""
        return dataclasses.replace(self.task, instance=self.task.instance[: self.slow])


def tasks(env_id: str, shifts: Sequence[str] | None, n: int, split: str) -> dict[str, protocol.Task]:
    """Name of a shift -> its task; the task without a shift is always the first. shifts: all if None."""
    chosen = {name: SHIFTS[env_id][name] for name in SHIFTS[env_id] if shifts is None or name in shifts}
    return {name: protocol.task(env_id, n=n, split=split, **changes) for name, changes in ({NONE: {}} | chosen).items()}


def entry(shift: str, task: protocol.Task, agents: list[Competitor], slow: int) -> Entry:
    """Anchor, fast solver and agents on all instances of a task, the published algorithm on the first ``slow``."""
    problem = task.problem.name
    solvers = [solver(problem, name) for name in (baselines.anchor(problem), "fast")]
    return Entry(shift, task, [*solvers, *agents], solver(problem, PUBLISHED[task.env_id]), slow)


def needed(found: Entry) -> list[store.Work]:
    """Everything that :func:`rows` computes."""
    decisions = leaderboard.works(found.few, [found.published])
    return [*decisions, *leaderboard.needed(found.task, found.competitors, single=0)]


def rows(found: Entry, cells: store.Store) -> list[Row]:
    """A row per competitor, the published algorithm second. Raises protocol.BoundBrokenError."""
    all_of_it = leaderboard.decide(found.task, found.competitors, cells)
    [few] = leaderboard.decide(found.few, [found.published], cells)
    proven = certificates.certificate(found.task, cells)
    anchor, first = all_of_it[0][0], slice(found.slow)
    begins = protocol.Decisions(anchor.objective[first], anchor.feasible[first], anchor.seconds[first])
    maximise = found.task.problem.maximise
    scored = [
        (competitor, protocol.score(decisions, anchor, proven.bound, maximise=maximise), proven)
        for competitor, decisions in zip(found.competitors, all_of_it, strict=True)
    ]
    score = protocol.score(few, begins, proven.bound[first], maximise=maximise)
    scored.insert(1, (found.published, score, proven[first]))
    return [_row(found, *entry) for entry in scored]


def _row(found: Entry, competitor: Competitor, scores: protocol.Scores, proven: certificates.Certificate) -> Row:
    return Row(
        found.task.env_id, found.task.preset, found.shift, competitor.name, competitor.kind,
        loss=leaderboard.mean_loss(scores),
        score=stats.estimate(scores.score),
        mean_score=stats.estimate(scores.score, stats.mean),
        feasible=scores.feasible,
        n=scores.score.size,
        left_out=float(1.0 - scores.kept.mean()),
        certified_gap=leaderboard.mean_gap(proven),
    )  # fmt: skip


# --- tables --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Page:
    """The table of an id: a line per shift, two columns per method."""

    title: str
    header: list[str]
    cells: list[list[str]]
    notes: str


def text(found: Sequence[Row]) -> str:
    """As aligned plain text, for a terminal."""
    return "\n\n".join(
        f"{page.title}\n\n{table.aligned(page.header, page.cells)}\n\n{page.notes}" for page in pages(found)
    )


def markdown(found: Sequence[Row]) -> str:
    """As Markdown sections, one per id."""
    return "\n".join(
        f"## {page.title}\n\n{table.markdown_table(page.header, page.cells)}\n\n{page.notes}\n" for page in pages(found)
    )


def csv_text(found: Sequence[Row]) -> str:
    """A line per shift and method, in plain numbers: shares as fractions."""
    estimates = [name for name, kind in Row.__annotations__.items() if kind == "stats.Estimate"]
    header = [
        column
        for name in Row.__annotations__
        for column in ([f"{name}{end}" for end in ("", "_low", "_high")] if name in estimates else [name])
    ]
    lines = []
    for row in found:
        values = [getattr(row, name) for name in Row.__annotations__]
        lines.append([x for v in values for x in ((v.value, v.low, v.high) if isinstance(v, stats.Estimate) else (v,))])
    return table.csv_table(header, lines)


def by_id(found: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each id, in order."""
    groups: dict[str, list[Row]] = {}
    for row in found:
        groups.setdefault(row.env, []).append(row)
    return groups


def pages(found: Sequence[Row]) -> list[Page]:
    """The table of each id."""
    made = []
    for env_id, rows in by_id(found).items():
        methods = list(dict.fromkeys(row.method for row in rows))
        header = ["shift", *(f"{name}: {what}" for name in methods for what in ("loss %", "score")), "bound's own %"]
        lines = []
        for shift in dict.fromkeys(row.shift for row in rows):
            each = {row.method: row for row in rows if row.shift == shift}
            cells = [cell for name in methods for cell in (_cells(each[name]) if name in each else ["-", "-"])]
            own = next(iter(each.values())).certified_gap
            lines.append([shift, *cells, table.number(100 * own, 3)])
        made.append(Page(f"{env_id.removeprefix('SemCom/')} {rows[0].preset}", header, lines, _notes(rows)))
    return made


def _cells(row: Row) -> list[str]:
    loss = table.number(100 * row.loss, 3)
    broken = f" ({100 * (1 - row.feasible):.0f} % infeasible)" if row.feasible < 1 else ""
    return [loss + broken, table.number(row.score.value, 3)]


def _notes(rows: Sequence[Row]) -> str:
    counts = {row.method: max(r.n for r in rows if r.method == row.method) for row in rows}
    sizes = ", ".join(f"{name} {n}" for name, n in counts.items())
    left_out = {row.shift: row.left_out for row in rows if row.left_out > 0}
    without = ", ".join(f"{shift} {100 * share:.0f} %" for shift, share in left_out.items()) or "none"
    return (
        f"The agents were trained on `{NONE}`, or as said at the top, and nothing was trained again. loss: to the "
        "bound, mean over feasible decisions. score: interquartile mean, 1 = certified optimum, 0 = the first method, "
        f"-1 = infeasible. Scores (instances times seeds): {sizes}. Left out by rule: {without}."
    )


def picture(found: Sequence[Row], path: Path) -> Path:
    """Loss to the bound of every method on every shift, an axis per id. A loss of 0 is drawn at 1e-4 %."""
    from semcom_gym.benchmarks import pictures

    groups = by_id(found)
    figure, made = pictures.grid(12.0, 3.4 * len(groups), len(groups), 1)
    for axes, (env_id, rows) in zip(made, groups.items(), strict=True):
        _draw(axes, rows, pictures.COLOURS, {kind: marker for kind, (_, marker) in pictures.KINDS.items()})
        axes.set_title(f"{env_id.removeprefix('SemCom/')} {rows[0].preset}", fontsize=10)
    figure.supxlabel("what differs from training; a cross: some decisions break a constraint", fontsize=9)
    return pictures.save(figure, path)


def _draw(axes: Any, rows: Sequence[Row], colours: Sequence[str], markers: Mapping[str, str]) -> None:
    """The methods side by side at every shift."""
    shifts = list(dict.fromkeys(row.shift for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    for place, name in enumerate(methods):
        mine = [row for row in rows if row.method == name and math.isfinite(row.loss)]
        aside = 0.6 * ((place + 0.5) / len(methods) - 0.5)
        for row in mine:
            at = (shifts.index(row.shift) + aside, max(100 * row.loss, 1e-4))
            axes.plot(*at, markers[row.kind], color=colours[place % len(colours)], markersize=5.5)
            if row.feasible < 1:
                axes.plot(*at, "x", color="black", markersize=5)
        kind = next(row.kind for row in rows if row.method == name)
        axes.plot([], [], markers[kind], color=colours[place % len(colours)], label=name)
    axes.set_yscale("log")
    axes.set_xlim(-0.5, len(shifts) - 0.5)
    axes.set_xticks(range(len(shifts)), shifts, rotation=25, ha="right", fontsize=8)
    axes.set_ylabel("loss to the bound [%]")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
