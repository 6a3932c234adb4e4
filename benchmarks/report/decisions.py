"""One test instance decided by a solver and by the shipped agent, bars per user; computed when the page is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from semcom_gym import baselines
from semcom_gym.benchmarks import certificates, protocol
from semcom_gym.benchmarks.report.boards import percent
from semcom_gym.benchmarks.report.markup import DASH, Markup, join, slug, table, tag
from semcom_gym.benchmarks.report.plot import Axis, Chart, figure, legend
from semcom_gym.envs.sfma.pairs import members

SOLVER = "fast"
HOW = {"solver": "c0", "agent": "c1"}
# term of the outcome -> what its bars are called and the unit they are in
TERMS = {
    "bandwidth_hz": ("bandwidth [MHz]", 1e6),
    "power_w": ("power [W]", 1.0),
    "power_of_cap": ("power, of the device's cap", 1.0),
    "device_frequency_of_cap": ("clock of the device, of its cap", 1.0),
    "ratio": ("compression ratio", 1.0),
    "success": ("success probability", 1.0),
    "rate_mbit_s": ("rate [Mbit/s]", 1.0),
    "distortion": ("distortion", 1.0),
    "rate_index": ("codec, from the lowest rate (0) up", 1.0),
    "time_s": ("time of the round [s]", 1.0),
}
HEIGHT = 150


@dataclasses.dataclass(frozen=True)
class Decision:
    """What a method does on one instance. terms: name -> (users,); pairs (groups, 2), where users are paired."""

    name: str
    objective: float
    feasible: bool
    terms: dict[str, np.ndarray[Any, Any]]
    pairs: np.ndarray[Any, Any] | None


def name(card: dict[str, Any]) -> str:
    """What a part is called; its slug is its anchor."""
    return f"{card['env_id'].removeprefix('SemCom/')} {card['preset']}, {card['algo']}"


def section(cards: Sequence[dict[str, Any]]) -> Markup:
    """A part per shipped agent."""
    return join(map(_part, cards), "\n")


def _part(card: dict[str, Any]) -> Markup:
    from semcom_gym import agents

    task = protocol.task(card["env_id"], card["preset"], n=1)
    solved = baselines.solve(task.problem.name, task.params, task.instance, SOLVER).allocation
    model = agents.load(card["env_id"], card["algo"], card["preset"])
    played = agents.allocate(model, task.problem, task.params, task.instance)
    decisions = {
        "solver": _decision(task, SOLVER, solved),
        "agent": _decision(task, f"{card['algo']}, shipped", played),
    }
    certificate = certificates.shipped(task)
    bound = float(certificate.bound[0]) if certificate is not None else None
    heading = tag("h3", name(card), id=slug(name(card)))
    charts = tag("div", *_charts(task, decisions), class_="charts")
    return join([heading, _table(name(card), task, decisions, bound), _pairing(decisions), charts])


def _decision(task: protocol.Task, name: str, allocation: Any) -> Decision:
    outcome = task.problem.evaluate(task.params, task.instance, allocation)
    terms = {key: np.asarray(value[0], float) for key, value in outcome.terms.items()}
    pairs = None
    if "pair" in terms:
        pairs = members(task.params.num_users)[terms["pair"].astype(int)]
    users = {key: _by_user(terms[key], pairs, task.params.num_users) for key in TERMS if key in terms}
    return Decision(name, float(outcome.objective[0]), bool(outcome.feasible[0]), users, pairs)


def _by_user(values: np.ndarray[Any, Any], pairs: np.ndarray[Any, Any] | None, users: int) -> np.ndarray[Any, Any]:
    """A term as one value per user; what a pair shares stands at both of its users."""
    if pairs is None:
        return values
    found = np.empty(users)
    found[pairs] = values if values.ndim == 2 else values[:, None]
    return found


def _table(title: str, task: protocol.Task, decisions: dict[str, Decision], bound: float | None) -> Markup:
    rows = []
    for kind, decision in decisions.items():
        loss = DASH if bound is None else percent(abs(bound - decision.objective) / abs(bound))
        feasible = "yes" if decision.feasible else "no"
        rows.append([f"{kind}: {decision.name}", f"{decision.objective:.6g}", loss, feasible])
    rows.append(["certified bound", DASH if bound is None else f"{bound:.6g}", "", ""])
    caption = f"{title}, the first test instance: {task.problem.objective}"
    return table(("decision", "objective", "loss to the bound", "feasible"), rows, caption=caption)


def _pairing(decisions: dict[str, Decision]) -> Markup:
    lines = []
    for kind, decision in decisions.items():
        if decision.pairs is not None:
            shown = ", ".join(f"{i + 1}{DASH}{j + 1}" for i, j in sorted(decision.pairs.tolist()))
            lines.append(tag("li", f"{kind}: {shown}"))
    if not lines:
        return Markup("")
    note = tag("p", "Pairs of users; bandwidth, power and ratio are of the pair and stand at both of its users.")
    return join([note, tag("ul", *lines)])


def _charts(task: protocol.Task, decisions: dict[str, Decision]) -> list[Markup]:
    users = task.params.num_users
    made = []
    for key in decisions["solver"].terms:
        label, unit = TERMS[key]
        values = {kind: decision.terms[key] / unit for kind, decision in decisions.items()}
        high = max(float(max(value.max() for value in values.values())), 1e-12)
        chart = Chart(
            Axis("user", -0.6, users - 0.4, names=tuple(str(user + 1) for user in range(users))),
            Axis("", 0.0, 1.08 * high),
            f"{task.label}: {label} of each of {users} users, by the solver and by the agent.",
            height=HEIGHT,
        )
        for side, (kind, value) in zip((-0.2, 0.2), values.items(), strict=True):
            for user in range(users):
                title = f"user {user + 1}, {kind}: {value[user]:.4g}"
                chart.bar(user + side, 0.38, float(value[user]), HOW[kind], title)
        made.append(figure(chart, label))
    entries = [(f"{kind}: {decision.name}", HOW[kind], "bar") for kind, decision in decisions.items()]
    return [tag("div", legend(entries), class_="wide"), *made]
