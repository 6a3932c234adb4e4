"""How decisions are scored: the same test instances for every method, against a certified bound.

score = (x - anchor) / (bound - anchor): 1 is provably optimal, 0 as good as the anchor method, below 0 worse; a
decision that is not feasible scores -1. Solvers and agents share one path: their decisions are actions that the
environment scores; of an id that decides in several steps, and of methods that hand out less than an action can,
allocations that the problem evaluates. Left out by rule
are instances where the anchor is infeasible or nearer than 0.1 % to the bound.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import store
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, to_numpy
from semcom_gym.envs.outcome import UnreachableError

AGREEMENT = 1e-9  # relative; between a solver's claim and the environment's score of its decision
BROKEN = 1e-6  # a score above 1 by more than this is a bound that is not one
NEAR = 1e-3  # |bound - anchor| / |bound| below which an instance says nothing
INFEASIBLE_SCORE = -1.0


class BoundBrokenError(RuntimeError):
    """A decision is better than a bound that claims to be proven."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What every method is scored on: the first n instances of a split, for the parameters of an environment."""

    env_id: str
    preset: str
    problem: envs.Problem
    params: Any
    instance: Any
    split: str
    overrides: dict[str, Any]

    @property
    def sign(self) -> float:
        """1 where more of the objective is better, -1 where less is."""
        return 1.0 if self.problem.maximise else -1.0

    @property
    def label(self) -> str:
        """Name for people: ``CRRA-v0 default num_users=4``."""
        extra = [f"{name}={value}" for name, value in self.overrides.items()]
        return " ".join([self.env_id.removeprefix("SemCom/"), self.preset, *extra])

    @property
    def stepwise(self) -> bool:
        """Whether a decision takes several steps of the environment, so that an action is a part of it only."""
        return is_stepwise(self.make(1))

    def make(self, num_envs: int) -> gym.vector.VectorEnv[Any, Any, Any]:
        """The vector environment, in float64."""
        kwargs = {"preset": self.preset, "dtype": "float64", **self.overrides}
        return make_vector(self.env_id, num_envs, **kwargs)

    def parts(self, size: int | None) -> list[Task]:
        """The task in pieces of at most ``size`` instances; whole if None."""
        if size is None:
            return [self]
        starts = range(0, len(self.instance), size)
        return [dataclasses.replace(self, instance=self.instance[start : start + size]) for start in starts]

    def key(self) -> dict[str, Any]:
        """What decides the instances and their physics."""
        return {"env": self.env_id, "preset": self.preset, "split": self.split, "n": len(self.instance),
                "data": fingerprint(self.params, self.instance)}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Decisions:
    """The environment's verdict on n decisions: objective (NaN where infeasible), feasible, seconds; (n,) each.

    jobs: how many computations ran at once while the seconds were measured.
    """

    objective: Array
    feasible: Array
    seconds: Array
    jobs: int = 1

    @classmethod
    def from_cells(cls, cells: Sequence[dict[str, Any]]) -> Decisions:
        """Decisions out of stored cells, one behind the other."""
        objective, seconds = (np.concat([store.numbers(c[name]) for c in cells]) for name in ("objective", "seconds"))
        feasible = np.concat([np.array(cell["feasible"], bool) for cell in cells])
        return cls(objective, feasible, seconds, max(cell.get("jobs", 1) for cell in cells))


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of one competitor, on the instances that count. score, loss (seeds, kept); loss is NaN if infeasible.

    feasible: share of all decisions. seconds: mean wall time per decision, with up to ``jobs`` computations at once.
    kept (n,): the instances that count.
    """

    score: Array
    loss: Array
    feasible: float
    seconds: float
    kept: Array
    jobs: int = 1


def make_vector(env_id: str, num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
    """The batched form of an id. Raises ValueError for an id that is not of this package."""
    validate.choice("environment id", env_id, envs.IDS | envs.FADING_IDS)
    return gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs)


def is_stepwise(env: gym.vector.VectorEnv[Any, Any, Any]) -> bool:
    """Whether a decision takes several steps of an environment: its actions are choices."""
    return isinstance(env.single_action_space, gym.spaces.Discrete)


def check_made(env_id: str, preset: str | None = None, **overrides: Any) -> None:
    """Raise ValueError or TypeError, in one line, for an id that cannot be made so."""
    if env_id not in envs.FADING_IDS:
        task(env_id, preset, n=1, **overrides)
        return
    make_vector(env_id, 1, preset=envs.default_preset(env_id) if preset is None else preset, **overrides)


def check_one_decision(env_id: str) -> None:
    """Raise ValueError for an id whose episodes are blocks of a fading channel: its instances are no tasks."""
    if env_id in envs.FADING_IDS:
        raise ValueError(f"{env_id} has a decision in every block; this needs one of {', '.join(envs.IDS)}")


def task(env_id: str, preset: str | None = None, *, n: int = 100, split: str = "test", **overrides: Any) -> Task:
    """The first ``n`` instances of ``split`` for an id, a preset and overridden fields of Params.

    Raises ValueError for an id whose episodes are blocks of a fading channel.
    """
    check_one_decision(env_id)
    preset = envs.default_preset(env_id) if preset is None else preset
    fields = [field.name for field in dataclasses.fields(make_vector(env_id, 1).unwrapped.problem.Params)]
    validate.keywords("parameters", overrides, fields)
    env = make_vector(env_id, 1, preset=preset, **overrides).unwrapped
    instance = env.problem.sample_split(env.params, split, n)
    return Task(env_id, preset, env.problem, env.params, instance, split, overrides)


def fingerprint(params: Any, instance: Any) -> str:
    """SHA-256 of parameters, curves and instances.

    Instances enter in float32, so that the last bit of another machine's logarithm does not matter.
    """
    fields = {f.name: np.asarray(getattr(instance, f.name), np.float32) for f in dataclasses.fields(instance)}
    return store.digest({"params": params, "curves": params.curve_numbers, "instance": fields})


def play(task: Task, rows: Array, act: Callable[[Any, Any], Array]) -> tuple[Array, Array, float]:
    """Objective, feasibility and decision time [s] per instance of ``act(env, observation)`` on some instances."""
    env = task.make(len(rows)).unwrapped
    observation, _ = env.reset(options={"instance": task.instance[rows]})
    started = time.perf_counter()
    actions = act(env, observation)
    seconds = (time.perf_counter() - started) / len(rows)
    final = env.step(actions)[-1]["final_info"]
    return to_numpy(final["objective"]), to_numpy(final["feasible"]), seconds


def decide_by_method(task: Task, method: str, **options: Any) -> Decisions:
    """Score a solver. An instance that it calls infeasible counts as an infeasible decision.

    Raises RuntimeError where the environment credits a decision with less than the solver claims.
    """
    found = baselines.solve(task.problem.name, task.params, task.instance, method, **options)
    feasible = np.asarray(found.feasible, bool)
    objective = np.full(len(feasible), np.nan)
    rows = np.flatnonzero(feasible)
    if len(rows):
        allocation = found.allocation[rows]
        objective[rows], valid = _credit(task, rows, allocation)
        claim = np.asarray(found.objective)[rows]
        _check_claim(task, method, claim, objective[rows], valid)
    return Decisions(objective, feasible, np.asarray(found.seconds, float))


def _credit(task: Task, rows: Array, allocation: Any) -> tuple[Array, Array]:
    """Objective and feasibility of allocations as actions; of those that no action stands for, by the problem."""
    if not task.stepwise:
        exact = dataclasses.replace(task, overrides=task.overrides | dict(task.problem.exact_actions))
        try:
            return play(exact, rows, lambda env, _: env.encode(allocation))[:2]
        except UnreachableError:  # by a weak method, below the least that the action map hands out
            pass
    outcome = task.problem.evaluate(task.params, task.instance[rows], allocation)
    return np.asarray(outcome.objective), np.asarray(outcome.feasible)


def totals(
    problem: envs.Problem, params: Any, instance: Any, method: str, found: baselines.Solution
) -> dict[str, Array]:
    """The terms of a solution that are one number per instance, (n,) each; none of another transceiver's."""
    if baselines.solution.transceiver(problem.name, method) is not None:
        return {}
    terms = problem.evaluate(params, instance, found.allocation).terms
    return {name: value for name, value in terms.items() if value.ndim == 1}


def decide_by_agent(task: Task, act: Callable[[Any, Any], Array]) -> Decisions:
    """Score a policy, ``act(env, observations) -> actions``, on the whole batch at once, after one warm-up call."""
    everyone = np.arange(len(task.instance))
    play(task, everyone, act)
    objective, feasible, seconds = play(task, everyone, act)
    return Decisions(np.where(feasible, objective, np.nan), feasible, np.full(len(everyone), seconds))


def decide_by_allocation(task: Task, allocate: Callable[[], Any]) -> Decisions:
    """Score a policy that takes several steps by the allocations it makes of the whole batch, after one warm-up call.

    allocate: () -> allocations of the task's instances.
    """
    allocate()
    started = time.perf_counter()
    allocation = allocate()
    seconds = np.full(len(task.instance), (time.perf_counter() - started) / len(task.instance))
    outcome = task.problem.evaluate(task.params, task.instance, allocation)
    feasible = np.asarray(outcome.feasible)
    return Decisions(np.where(feasible, outcome.objective, np.nan), feasible, seconds)


def check_method(task: Task, method: str) -> None:
    """Solve one training instance, so that a method that is not for this task says so before long work begins."""
    one = task.problem.sample_split(task.params, "train", 1)
    baselines.solve(task.problem.name, task.params, one, method)


def _check_claim(task: Task, method: str, claim: Array, credited: Array, valid: Array) -> None:
    """A budget left over is handed out by ``encode``, so that the environment may credit more, never less."""
    short = task.sign * (claim - credited) > AGREEMENT * np.abs(claim)
    wrong = np.flatnonzero(short | ~valid)
    if len(wrong):
        i = wrong[0]
        raise RuntimeError(
            f"{method!r} on {task.label}: claims {claim[i]!r} for a decision that the environment scores "
            f"{credited[i]!r} (feasible: {bool(valid[i])}), on {len(wrong)} instance(s)"
        )


def score(decisions: list[Decisions], anchor: Decisions, bound: Array, *, maximise: bool = True) -> Scores:
    """Scores of one competitor (one entry of ``decisions`` per training seed).

    bound (n,): proven, in natural units; not finite where no decision is feasible. Raises BoundBrokenError.
    """
    sign = 1.0 if maximise else -1.0
    top, base = sign * np.asarray(bound, float), sign * anchor.objective
    kept = anchor.feasible & np.isfinite(top)
    kept &= np.where(kept, top - base, 0.0) >= NEAR * np.where(kept, np.abs(top), 1.0)
    feasible = np.stack([d.feasible for d in decisions])
    x = sign * np.stack([d.objective for d in decisions])
    check_bound(x, top, base)
    x, top, base = x[:, kept], top[kept], base[kept]
    value = np.where(feasible[:, kept], (x - base) / (top - base), INFEASIBLE_SCORE)
    return Scores(
        score=value,
        loss=(top - x) / np.abs(top),
        feasible=float(feasible.mean()),
        seconds=float(np.mean([d.seconds.mean() for d in decisions])),
        kept=kept,
        jobs=max(d.jobs for d in decisions),
    )


def check_bound(x: Array, top: Array, base: Array) -> None:
    """Raise BoundBrokenError if a decision beats its bound, or if there is one where the bound says there is none."""
    with np.errstate(invalid="ignore"):
        slack = np.fmax(BROKEN * np.abs(top - base), AGREEMENT * np.abs(top))
        over = np.argwhere(np.isfinite(x) & ~(x <= top + slack))
    if len(over):
        seed, i = over[0]
        raise BoundBrokenError(
            f"the bound is broken: instance {i} has a decision of {x[seed, i]!r}, above its bound {top[i]!r} "
            f"({len(over)} such decision(s))"
        )
