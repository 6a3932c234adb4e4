"""Leaderboards of the ``Fading`` ids: solvers on what they are shown, and agents, against the genie, per episode.

An episode is what an instance is elsewhere. Its score is (x - anchor) / (genie - anchor), with x the sum of its
rewards: the objective of a block, less the penalty where its decision turns out infeasible on the true channel.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.baselines import fading
from semcom_gym.benchmarks import competitors, leaderboard, protocol, store
from semcom_gym.benchmarks.competitors import Competitor, Run
from semcom_gym.envs.arrays import Array, to_numpy

KNOWN = 20  # episodes of the validation split that margins are chosen on
BLOCKS = 20  # in a cell of proofs: an episode at least
RULE = (
    "score of an episode: 1 = the genie's bound, which sees all of it in advance, 0 = `{anchor}`; of the sum of "
    "rewards, which an infeasible decision lowers. loss: of the same sum to the genie. feasible: share of the blocks. "
    "Margins chosen on {known} validation episodes: {margins}. "
)


@dataclasses.dataclass(frozen=True)
class Task:
    """What every method plays: the first n episodes of a split, for the parameters of an environment."""

    env_id: str
    preset: str
    split: str
    n: int
    overrides: dict[str, Any]

    stepwise = False

    @property
    def label(self) -> str:
        """Name for people: ``CRRAFading-v0 default scenario=drive``."""
        extra = [f"{name}={value}" for name, value in self.overrides.items()]
        return " ".join([self.env_id.removeprefix("SemCom/"), self.preset, *extra])

    def make(self, num_envs: int) -> Any:
        """The vector environment, in float64."""
        return protocol.make_vector(self.env_id, num_envs, preset=self.preset, dtype="float64", **self.overrides)

    @functools.cached_property
    def env(self) -> Any:
        """n of them, without wrappers."""
        return self.make(self.n).unwrapped

    @property
    def problem(self) -> envs.Problem:
        """The problem of every block."""
        problem: envs.Problem = self.env.problem
        return problem

    @property
    def params(self) -> Any:
        """Its parameters."""
        return self.env.params

    @functools.cached_property
    def episode(self) -> Any:
        """The episodes."""
        return self.env.episodes(self.split, self.n)

    def key(self) -> dict[str, Any]:
        """What decides the episodes, their physics and their price."""
        made = {"params": self.params, "curves": self.params.curve_numbers, "fading": self.env.fading,
                "penalty": self.env.penalty, "episode": self.episode.map(_rounded)}  # fmt: skip
        return {"env": self.env_id, "preset": self.preset, "split": self.split, "n": self.n,
                "data": store.digest(made)}  # fmt: skip


def _rounded(x: Array) -> Array:
    return np.asarray(x, np.float32)  # the last bit of another machine's logarithm does not matter


def task(env_id: str, preset: str | None = None, *, n: int = 20, split: str = "test", **overrides: Any) -> Task:
    """The first ``n`` episodes of ``split``. Raises ValueError or TypeError, in one line, for what cannot be made."""
    preset = envs.default_preset(env_id) if preset is None else preset
    found = Task(env_id, preset, split, n, overrides)
    _ = found.episode
    return found


# --- who plays -----------------------------------------------------------------------------------------------------


def solver(task: Task, method: str, sees: str) -> Competitor:
    """A solver on what it is shown, with the margin that is best on the validation split.

    Raises ValueError for a method that the problem lacks, or that stands for another transceiver.
    """
    competitors.solver(task.problem.name, method)
    key = {"method": method, "sees": sees, "margins": list(fading.MARGINS), "known": KNOWN}
    key["code"] = store.code_version("envs", "baselines")
    return Competitor(f"{method} on {sees}", "solver", (Run(key, functools.partial(_by_solver, method, sees)),))


def _by_solver(method: str, sees: str, task: Task) -> fading.SolverPolicy:
    known = task.env.alike(KNOWN)
    return fading.choose_margin(known, known.episodes("validation", KNOWN), method, sees=sees)


def agent(task: Task, spec: str, device: str = "cpu") -> Competitor:
    """An agent by ``spec``, see :func:`competitors.agent`."""
    name, models = competitors.models(task, spec, device)
    return Competitor(name, "agent", tuple(_run(*model, device) for model in models))


def _run(model: Any, weights: str, record: dict[str, Any], device: str) -> Run:
    from semcom_gym.agents.fading import Player

    key = {"agent": weights, "device": device, "code": store.code_version("envs", "agents")}
    return Run(key, lambda _: Player(model), float(record["seconds"]), float(record["timesteps"]))


def rivals(task: Task, methods: Sequence[str] | None, specs: Sequence[str], device: str) -> list[Competitor]:
    """Who plays: methods on all that a solver may see, the anchor and ``fast`` if None; then agents."""
    names = ["fast"] if methods is None else methods
    found = [solver(task, name, sees) for name in names for sees in fading.SEES]
    if methods is None:
        found.append(_anchor(task))
    return found + [agent(task, spec, device) for spec in specs]


def shipped_ids() -> list[str]:
    """The Fading ids whose own preset has a shipped agent; none where agents cannot be loaded."""
    try:
        from semcom_gym import agents
    except ModuleNotFoundError:
        return []
    known = {(card["env_id"], card["preset"]) for card in agents.shipped()}
    return [env_id for env_id in envs.FADING_IDS if (env_id, envs.default_preset(env_id)) in known]


# --- what they reach -----------------------------------------------------------------------------------------------


def needed(task: Task, rivals: list[Competitor], single: int) -> list[store.Work]:
    """Everything that :func:`board` computes."""
    return [*_plays(task, [_anchor(task), *rivals], single), *_proofs(task)]


def board(task: Task, rivals: list[Competitor], cells: store.Store, single: int) -> leaderboard.Leaderboard:
    """Play, score and rank competitors. Raises protocol.BoundBrokenError.

    single: whether the time of a decision alone is measured too, on the first episode; 0 for not.
    """
    first = _anchor(task)
    found = iter(cells.cells(_plays(task, [first, *rivals], single), task.label))
    [[anchor], *played] = [[next(found) for _ in each.runs] for each in (first, *rivals)]
    genie = np.concat([store.numbers(cell["genie"]) for cell in cells.cells(_proofs(task), f"genie: {task.label}")])
    scores = [_score(task, cells_of, anchor, genie) for cells_of in played]
    jobs = max(cell.get("jobs", 1) for each in played for cell in each)
    ranked = sorted(zip(rivals, scores, played, strict=True), key=lambda entry: -leaderboard.rank(entry[1]))
    top = ranked[0][1].score
    return leaderboard.Leaderboard(
        task=task.label, env=task.env_id, preset=task.preset, split=task.split, n=task.n,
        left_out=float(1.0 - scores[0].kept.mean()),
        anchor=first.name,
        certified_gap=math.nan,
        code=store.code_version("envs", "baselines"),
        rows=tuple(
            leaderboard.row(rival, each, _alone(timed) if single else math.nan, top) for rival, each, timed in ranked
        ),
        jobs=jobs,
        singles=1 if single else 0,
        rule=RULE.format(anchor=first.name, known=KNOWN, margins=_margins([first, *rivals], [[anchor], *played])),
    )  # fmt: skip


def _alone(played: list[dict[str, Any]]) -> float:
    return float(np.mean([cell["single"] for cell in played]))


def _margins(rivals: list[Competitor], played: list[list[dict[str, Any]]]) -> str:
    found = {
        rival.name: cells[0]["margin"] for rival, cells in zip(rivals, played, strict=True) if "margin" in cells[0]
    }
    return ", ".join(f"{name} {margin:g}" for name, margin in found.items())


def _anchor(task: Task) -> Competitor:
    return solver(task, baselines.anchor(task.problem.name), "belief")


def _plays(task: Task, rivals: list[Competitor], single: int) -> list[store.Work]:
    return [
        store.Work(
            f"{task.label} {rival.name} {number}",
            {"what": "episodes", **task.key(), **run.key, "single": bool(single)},
            functools.partial(_play, task, run, bool(single)),
        )
        for rival in rivals
        for number, run in enumerate(rival.runs)
    ]


def _play(task: Task, run: Run, single: bool) -> dict[str, Any]:
    """Sum of rewards, share of feasible blocks and seconds of a decision, per episode."""
    policy = run.decide(task)
    solves = isinstance(policy, fading.SolverPolicy)

    def fresh() -> Any:
        return policy if solves else run.decide(task)  # an agent may remember what it played before

    alone = task.env.alike(1)
    fading.play(alone, alone.episodes("train", 1), fresh())  # for nothing: a first call imports packages
    played = fading.play(task.env, task.episode, fresh())
    found = {"reward": played.reward.sum(axis=1), "feasible": played.feasible.mean(axis=1),
             "seconds": np.full(task.n, played.seconds)}  # fmt: skip
    if single:
        found["single"] = fading.play(alone, task.episode[0], fresh()).seconds
    return found | ({"margin": policy.margin} if solves else {})


def _proofs(task: Task) -> list[store.Work]:
    """The genie's bound, some episodes in a cell."""
    size = max(1, BLOCKS // task.episode.horizon)
    return [
        store.Work(
            f"genie {task.label} {start}",
            {"what": "genie", "code": store.code_version("envs", "baselines"), "first": start, "size": size,
             **task.key()},
            functools.partial(_prove, task, slice(start, min(start + size, task.n))),
        )
        for start in range(0, task.n, size)
    ]  # fmt: skip


def _prove(task: Task, rows: slice) -> dict[str, Any]:
    episode = task.episode[rows]
    return {"genie": to_numpy(fading.genie(task.env.alike(len(episode)), episode))}


def _score(task: Task, played: list[dict[str, Any]], anchor: dict[str, Any], genie: Array) -> protocol.Scores:
    """Scores of a competitor, a cell per training seed. Raises protocol.BoundBrokenError."""
    sign = 1.0 if task.problem.maximise else -1.0
    base = store.numbers(anchor["reward"])
    top = sign * genie
    x = np.stack([store.numbers(cell["reward"]) for cell in played])
    feasible = np.stack([store.numbers(cell["feasible"]) for cell in played])
    protocol.check_bound(np.where(feasible == 1.0, x, np.nan), top, base)  # the genie bounds feasible episodes only
    kept = np.isfinite(top) & (top - base >= protocol.NEAR * np.abs(np.where(np.isfinite(top), top, 1.0)))
    return protocol.Scores(
        score=(x - base)[:, kept] / (top - base)[kept],
        loss=(top - x)[:, kept] / np.abs(top[kept]),
        feasible=float(feasible.mean()),
        seconds=float(np.mean([store.numbers(cell["seconds"]).mean() for cell in played])),
        kept=kept,
        jobs=max(cell.get("jobs", 1) for cell in played),
    )
