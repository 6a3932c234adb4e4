"""What is fast and what bounds it, from the result of ``semcom-gym speed``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semcom_gym.benchmarks.limits import amount
from semcom_gym.benchmarks.report.boards import machine, percent, time
from semcom_gym.benchmarks.report.markup import DASH, Markup, code, join, table, tag
from semcom_gym.benchmarks.report.plot import Chart, axis, figure, legend, style

GROUPS = {
    "scalar": "One environment, step by step", "vector": "Vector environments", "solver": "Solvers",
    "agent": "Shipped agents, in a batch",
}  # fmt: skip
Row = dict[str, Any]


def section(name: str, found: dict[str, Any]) -> Markup:
    """What was measured, a table per group, steps against the batch beside their bounds, and on what machine."""
    threads = found["machine"].get("torch_threads")
    note = (
        f"{machine(found['machine'])}; torch threads: {threads}. Medians of {found['repeats']} measurements of "
        f"{found['seconds']:g} s each, taken in turn. "
    )
    parts = [tag("p", note, "File: ", code(name), ".")]
    batched = [row for row in found["rows"] if row["group"] == "vector"]
    if batched:
        parts += [_charts(batched), _by_batch(batched)]
    if found.get("limits"):
        parts.append(_limits(found["limits"], found["rows"]))
    for group in dict.fromkeys(row["group"] for row in found["rows"]):
        rows = [
            [row["name"], row["batch"] or DASH, amount(row["per_second"]),
             f"{amount(row['slowest'])} to {amount(row['fastest'])}", row["unit"], time(1.0 / row["per_second"])]
            for row in found["rows"] if row["group"] == group and group != "vector"
        ]  # fmt: skip
        header = ("what", "at once", "per second", "slowest to fastest", "of", "each")
        if rows:
            parts.append(table(header, rows, left=(0, 4), caption=GROUPS.get(group, group)))
    if found.get("hotspots"):
        parts.append(_hotspots(found["hotspots"]))
    return join(parts, "\n")


def _hotspots(found: Sequence[Row]) -> Markup:
    """The functions that solvers and bounds spend most of their time in."""
    rows = [
        [row["name"], ", ".join(f"{percent(part['share'])} {part['function']}" for part in row["parts"])]
        for row in found
    ]
    return table(("what", "share of the time, function"), rows, left=(0, 1), caption="Where the time goes")


def _series(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Steps per second by batch, of every environment and way to run it."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        name = row["name"].removeprefix("vector ").removesuffix(f" x{row['batch']}")
        found.setdefault(name, {})[row["batch"]] = row["per_second"]
    return found


def _charts(rows: Sequence[Row]) -> Markup:
    """A chart per way to run the environments, CartPole in each."""
    series = _series(rows)
    ways: dict[str, list[str]] = {}
    for name in series:
        ways.setdefault(name.partition(" ")[2], []).append(name)
    beside = ways.pop("", [])
    steps = [value for line in series.values() for value in line.values()]
    batches = [float(batch) for line in series.values() for batch in line]
    ids = list(dict.fromkeys(name.partition(" ")[0] for name in series))
    drawn = []
    for way, names in ways.items():
        chart = Chart(
            axis("environments in the batch", batches, log=True, room=0.02),
            axis("steps per second", steps, log=True),
            f"Steps per second against the batch of vector environments on {way}, and of CartPole.",
        )
        shown = [*beside, *names]
        for name in shown:
            kind = style(ids.index(name.partition(" ")[0]))
            chart.line(sorted(series[name].items()), kind, name)
            for point in series[name].items():
                chart.dot(point, kind, f"{name}, {point[0]} at once: {amount(point[1])} steps/s")
        entries = [(name.partition(" ")[0], style(ids.index(name.partition(" ")[0])), "line") for name in shown]
        drawn.append(figure(chart, f"Steps per second, {way}", legend(entries)))
    return tag("div", *drawn, class_="charts two")


def _by_batch(rows: Sequence[Row]) -> Markup:
    series = _series(rows)
    batches = sorted({batch for line in series.values() for batch in line})
    lines = [
        [name, *(amount(line[batch]) if batch in line else DASH for batch in batches)] for name, line in series.items()
    ]
    header = ("vector environments", *(f"{batch:,} at once" for batch in batches))
    return table(header, lines, left=(0,), caption="Steps per second against the batch")


def _limits(found: dict[str, Any], rows: Sequence[Row]) -> Markup:
    """What a step takes, the bounds that follow on one core, and how near the environments come."""
    speeds = {row["name"]: row["per_second"] for row in rows}
    lines = []
    for row in found["rows"]:
        pool = speeds.get(f"vector {row['name']} numpy pool x{found['batch']}")
        alone = speeds.get(f"gym.make {row['name']}")
        counts = (row[key] for key in ("operations", "bytes", "least_bytes", "functions"))
        lines.append([
            row["name"], *map(amount, counts), amount(row["as_written"]), _share(pool, row["as_written"]),
            amount(row["fused"]), amount(row["single"]), _share(alone, row["single"]),
        ])  # fmt: skip
    header = (
        "a step of", "operations", "bytes", "in and out", "exp, log, ...", "as written", "reached", "fused", "single",
        "reached",
    )  # fmt: skip
    core = found["rates"]
    note = (
        f"Most steps per second that one core leaves in batches of {found['batch']:,}: as written, every operation "
        "costs a call and moves its bytes as fast as a copy within the cache (reached: with a pool); fused, only what "
        "must come in and go out is moved; single, one environment alone, where only calls count. This core copies "
        f"{core['copy_bytes_per_second'] / 1e9:.3g} GB/s, within the cache {core['cached_bytes_per_second'] / 1e9:.3g} "
        f"GB/s, makes {core['exp_per_second'] / 1e9:.3g} billion exp/s and a call in "
        f"{core['call_seconds'] * 1e6:.2f} \u00b5s."
    )
    return join([tag("p", note), table(header, lines, left=(0,), caption="What a step asks of the machine")])


def _share(value: float | None, bound: float) -> str | Markup:
    return DASH if value is None else percent(value / bound)
