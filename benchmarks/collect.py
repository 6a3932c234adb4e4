"""Episodes that an expert plays: a solver, or an agent, in a batch of environments, with a proven bound beside each.

Decisions are rounded to the action space's float32 before they are taken, so that an episode that is stepped again with
the actions kept of it gives the same rewards.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.baselines import fading
from semcom_gym.benchmarks import competitors, protocol, store
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array

Act = Callable[[Any, Array], tuple[Array, Array]]
"""(env, observations) -> actions of all sub-environments, and (n,) bool where the expert has one."""
STEP_INFO = ("objective", "feasible", "cost")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where episodes come from. task: of the environment; its instances are not used. seed: episode i is that of
    ``reset(seed=seed + i)``; None: the first ``n`` of the task's split. noise: standard deviation of what is added to
    every entry of an action. certified: how many of the first episodes get a bound."""

    task: protocol.Task
    n: int
    seed: int | None
    noise: float
    certified: int

    @property
    def fading(self) -> bool:
        """Whether an episode is blocks of a fading channel."""
        return self.task.env_id in envs.FADING_IDS

    @functools.cached_property
    def _split(self) -> Any:
        """All instances, or fading episodes, of the split."""
        if self.fading:
            return self.task.make(1).unwrapped.episodes(self.task.split, self.n)
        return self.task.problem.sample_split(self.task.params, self.task.split, self.n)

    def begin(self, start: int, stop: int) -> tuple[Any, Array, Any]:
        """Environments at the start of some episodes, the observations, and their instances or fading episodes."""
        env = self.task.make(stop - start).unwrapped
        if self.seed is not None:
            observation, _ = env.reset(seed=self.seed + start)
            return env, observation, env.episode if self.fading else env.instance
        drawn = self._split[start:stop]
        observation, _ = env.reset(options={"episode" if self.fading else "instance": drawn})
        return env, observation, drawn


def source(
    env_id: str, preset: str | None, n: int, *, split: str = "train", seed: int | None = None, noise: float = 0.0,
    certified: int = 20, **overrides: Any,
) -> Source:  # fmt: skip
    """Check what is asked for. Raises ValueError or TypeError in one line."""
    protocol.check_made(env_id, preset, **overrides)
    preset = envs.default_preset(env_id) if preset is None else preset
    env = protocol.make_vector(env_id, 1, preset=preset, **overrides).unwrapped
    validate.integer("n", n)
    validate.choice("split", split, envs.problems.SPLITS)
    validate.integer("certified", certified, low=0)
    if seed is not None:
        validate.integer("seed", seed, low=0)
    validate.number("noise", noise, open_low=False)
    if noise and protocol.is_stepwise(env):
        raise ValueError(f"noise is for actions with entries; those of {env_id} are choices")
    task = protocol.Task(env_id, preset, env.problem, env.params, None, split, overrides)
    return Source(task, n, seed, noise, min(certified, n))


# --- experts ---------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Player:
    """An expert. name: for people; key: what decides its actions; act: what it does."""

    name: str
    key: dict[str, Any]
    act: Act


def player(task: protocol.Task, expert: str, margin: float = 1.0) -> Player:
    """The expert by its name: a registered solver, the algorithm of a shipped agent, or the folder of a training run.

    margin: of a solver on a fading id, as in ``baselines.fading.SolverPolicy``.
    Raises ValueError for a name that is none of them, and for a solver of another transceiver.
    """
    code = store.code_version("envs", "baselines")
    name = task.problem.name
    if expert not in baselines.methods(name):
        try:
            [(model, weights, _)] = competitors.models(task, expert, "cpu")[1]
        except ValueError as error:
            raise ValueError(
                f"{expert!r} is no {name} method ({', '.join(baselines.methods(name))}); {error}"
            ) from None
        return Player(expert, {"agent": weights, "code": store.code_version("envs", "agents")}, _by_agent(task, model))
    other = baselines.solution.transceiver(name, expert)
    if other is not None:
        raise ValueError(f"{name} method {expert!r} is no expert: it stands for another transceiver, {other}")
    key: dict[str, Any] = {"method": expert, "code": code}
    if task.env_id in envs.FADING_IDS:
        return Player(expert, key | {"margin": margin}, _on_belief(fading.SolverPolicy(expert, margin)))
    if margin != 1.0:
        raise ValueError(f"margin is for solvers on a fading id, not on {task.env_id}")
    return Player(expert, key, _by_choices(task, expert) if task.stepwise else _by_solver(expert))


def _by_solver(method: str) -> Act:
    def act(env: Any, observation: Array) -> tuple[Array, Array]:
        found = baselines.solve(env.problem.name, env.params, env.instance, method)
        return encoded(env.problem, env.params, env.instance, found)

    return act


def _by_choices(task: protocol.Task, method: str) -> Act:
    """A pairing is solved for at the first step, and then handed out pair by pair."""
    plan: dict[str, Any] = {}

    def act(env: Any, observation: Array) -> tuple[Array, Array]:
        step = int(env.progress.steps[0])
        if step == 0:
            found = baselines.solve(env.problem.name, env.params, env.instance, method)
            plan.update(choice=env.encode(found.allocation), known=np.asarray(found.feasible))
        return plan["choice"][:, step], plan["known"]

    return act


def _on_belief(policy: fading.SolverPolicy) -> Act:
    def act(env: Any, observation: Array) -> tuple[Array, Array]:
        allocation = policy(env)
        if env.fading.energy_share is not None:
            return env.encode(allocation), np.ones(env.num_envs, bool)
        found = baselines.solution.package(env.problem.name, env.params, env.instance, allocation, time.perf_counter())
        return encoded(env.problem, env.params, env.instance, found)

    return act


def _by_agent(task: protocol.Task, model: Any) -> Act:
    from semcom_gym import agents

    if task.env_id in envs.FADING_IDS:
        from semcom_gym.agents.fading import Player

        player = Player(model)
    stepwise = task.stepwise

    def act(env: Any, observation: Array) -> tuple[Array, Array]:
        everyone = np.ones(env.num_envs, bool)
        if task.env_id in envs.FADING_IDS:
            return player(env, observation), everyone
        if stepwise:
            return model.predict(observation, deterministic=True, action_masks=env.action_masks())[0], everyone
        return agents.decide(model, env.problem, env.params, env.instance, observation=observation), everyone

    return act


def encoded(problem: Any, params: Any, instance: Any, solution: Any) -> tuple[Array, Array]:
    """Actions (n, d) for a solution, and where there is one (n,): see ``agents.experts.encoded``."""
    from semcom_gym.agents import experts

    return experts.encoded(problem, params, instance, solution)


# --- episodes --------------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Episodes:
    """n episodes of T steps. observation (n, T + 1, d) float32, action (n, T, ...), reward (n, T);
    objective, feasible, cost (n, T): of the step's info, 0, true and 0 where a step settles nothing.
    terminated, truncated: how all of them end. known (n,): the expert had an answer at every step.
    bound, anchor, score (n,): of the sum of objectives, NaN where there is none."""

    observation: Array
    action: Array
    reward: Array
    objective: Array
    feasible: Array
    cost: Array
    terminated: Array
    truncated: Array
    known: Array
    bound: Array
    anchor: Array
    score: Array

    def __len__(self) -> int:
        return len(self.known)

    @classmethod
    def joined(cls, parts: list[Episodes]) -> Episodes:
        """The episodes of all parts, one behind the other."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def collect(where: Source, expert: Player, start: int, stop: int) -> Episodes:
    """Play the episodes ``start`` to ``stop`` of a source, all at once, and prove their bounds."""
    env, observation, drawn = where.begin(start, stop)
    rng = np.random.default_rng(np.random.SeedSequence([start, 0 if where.seed is None else where.seed]))
    seen, rows, known = [observation], [], np.ones(stop - start, bool)
    while True:
        action, answered = expert.act(env, observation)
        known &= answered
        action = _settled(env, action, where.noise, rng)
        observation, reward, terminated, truncated, info = env.step(action)
        done = terminated | truncated
        last = info.get("final_info", info)
        rows.append([action, reward, *(_said(last, name, len(known)) for name in STEP_INFO), terminated, truncated])
        if done.any():
            seen.append(info["final_obs"])
            break
        seen.append(observation)
    if not done.all():
        raise RuntimeError(f"episodes of {where.task.env_id} that began together did not end together")
    action, reward, objective, feasible, cost, terminated, truncated = (
        np.stack(column, axis=1) for column in zip(*rows, strict=True)
    )
    scored = _certify(where, drawn, objective, feasible & known[:, None], min(stop, where.certified) - start)
    return Episodes(np.stack(seen, axis=1), action, reward, objective, feasible, cost, terminated, truncated, known,
                    *scored)  # fmt: skip


def _settled(env: Any, action: Array, noise: float, rng: np.random.Generator) -> Array:
    """The action as it is kept: with noise, inside the space and of its type."""
    space = env.action_space
    if isinstance(space, gym.spaces.MultiDiscrete):
        return np.asarray(action, space.dtype)
    if noise:
        action = action + noise * rng.standard_normal(action.shape)
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def _said(info: dict[str, Any], name: str, n: int) -> Array:
    """An entry of a step's info, of a step that settles nothing what it stands for."""
    nothing = np.ones(n, bool) if name == "feasible" else np.zeros(n)
    return np.asarray(info.get(name, nothing))


def _certify(where: Source, drawn: Any, objective: Array, feasible: Array, count: int) -> list[Array]:
    """Bound, anchor and score (n,) of the sums of objectives; of the first ``count`` episodes, NaN of the others."""
    found = [np.full(len(objective), np.nan) for _ in range(3)]
    if count <= 0:
        return found
    rows = slice(0, count)
    bound, anchor = (_fading_reference if where.fading else _reference)(where.task, drawn[rows])
    x = np.where(feasible[rows].all(axis=1), objective[rows].sum(axis=1), np.nan)
    own = protocol.Decisions(x, np.isfinite(x), np.zeros(count))
    scores = protocol.score([own], anchor, bound, maximise=where.task.problem.maximise)
    found[0][rows] = np.where(np.isfinite(bound), bound, np.nan)
    found[1][rows] = anchor.objective
    found[2][np.flatnonzero(scores.kept)] = scores.score[0]
    return found


def _reference(task: protocol.Task, instance: Any) -> tuple[Array, protocol.Decisions]:
    name = task.problem.name
    bound = np.asarray(baselines.bound(name, task.params, instance).value)
    return bound, protocol.decide_by_method(dataclasses.replace(task, instance=instance), baselines.anchor(name))


def _fading_reference(task: protocol.Task, episode: Any) -> tuple[Array, protocol.Decisions]:
    """The genie's bound, and the anchor played on what the agent sees."""
    judge = task.make(len(episode)).unwrapped
    played = fading.play(judge, episode, fading.SolverPolicy(baselines.anchor(task.problem.name)))
    feasible = played.feasible.all(axis=1)
    anchor = protocol.Decisions(
        np.where(feasible, played.objective.sum(axis=1), np.nan), feasible, np.zeros(len(episode))
    )
    return fading.genie(judge, episode), anchor
