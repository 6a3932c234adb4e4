"""Learning curves, from the records of training runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from semcom_gym import envs
from semcom_gym.benchmarks.report.boards import percent
from semcom_gym.benchmarks.report.markup import DASH, Markup, code, join, number, slug, table, tag
from semcom_gym.benchmarks.report.plot import Chart, axis, figure, legend, spreads, style

Run = tuple[str, dict[str, Any]]
MEASURES = (("gap", "mean gap to the bound [%]", 100.0), ("reward", "mean reward", 1.0))
"""What is drawn: the gap to the certified bound if validation measured it, else the reward."""


def tasks(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of every task, by its name."""
    found: dict[str, list[Run]] = {}
    for name, run in runs:
        changed = [f"{key}={value}" for key, value in run["overrides"].items()]
        changed += ["drawn"] if run.get("vary") else []  # of what, its command says
        label = " ".join([run["env_id"].removeprefix("SemCom/"), run["preset"], *changed])
        found.setdefault(label, []).append((name, run))
    ids = [env_id.removeprefix("SemCom/") for env_id in envs.IDS | envs.FADING_IDS]
    return dict(sorted(found.items(), key=lambda item: (ids.index(item[0].split()[0]), item[0])))


def section(runs: Sequence[Run]) -> Markup:
    """A chart and a table per task."""
    return join((_task(label, found) for label, found in tasks(runs).items()), "\n")


def _task(label: str, runs: Sequence[Run]) -> Markup:
    charts = tag("div", *(_chart(label, runs, column) for column in ("timesteps", "seconds")), class_="charts two")
    return join([tag("h3", label, id=slug(f"learning {label}")), charts, _table(label, runs)])


def _chart(label: str, runs: Sequence[Run], column: str) -> Markup:
    measured = all(point.get("gap") is not None for _, run in runs for point in run["curve"])
    key, y_label, factor = MEASURES[0] if measured else MEASURES[1]
    lines = [[(point[column], factor * point[key]) for point in run["curve"]] for _, run in runs]
    values = [y for line in lines for _, y in line]
    x_label = "decisions seen" if column == "timesteps" else "seconds of training"
    xs = [x for line in lines for x, _ in line]
    chart = Chart(
        axis(x_label, xs, room=0.02), axis(y_label, values, log=spreads(values, 0.7)),
        f"Learning curves of {len(runs)} runs on {label}: {y_label} on the validation split against {x_label}.",
    )  # fmt: skip
    algos = sorted({run["algo"] for _, run in runs})
    for (_, run), line in zip(runs, lines, strict=True):
        chart.line(line, style(algos.index(run["algo"])), f"{run['algo']}, seed {run['seed']}")
    entries = [(algo, style(place), "line") for place, algo in enumerate(algos)]
    return figure(chart, f"Validation against {x_label}, a line per training seed", legend(entries))


def _table(label: str, runs: Sequence[Run]) -> Markup:
    rows = []
    for file, run in runs:
        best, gap = run["best"], run["best"].get("gap")
        name = f"{run['algo']}, seed {run['seed']}{'' if run['finished'] else ' (not finished)'}"
        rows.append([
            tag("span", name, class_="method"), f"{run['timesteps']:,}", f"{run['seconds']:.0f} s",
            number(best.get("score")), DASH if gap is None else percent(gap), code(run["command"]),
            code(file),
        ])  # fmt: skip
    header = ("run", "decisions", "time", "best score", "its gap", "command", "file")
    return table(header, rows, left=(0, 5, 6), caption=f"Training runs on {label}; scores on the validation split")
