"""Agents for drawn problems: training that goes from one setting of the parameters to the next.

A policy's weights serve any number of users, but what it has learnt on one preset it knows of that preset only. Here
every step of the environment is a batch of instances of another setting: of other numbers of users, other budgets.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from semcom_gym import baselines
from semcom_gym.agents.callbacks import Reference, Validation
from semcom_gym.agents.vec_env import SB3VecEnv, make_vec_env
from semcom_gym.envs import FADING_IDS, validate
from semcom_gym.envs.arrays import Array, frozen, namespace, to_numpy

MOST = 256  # settings: each has an environment, a place in every validation, and must come round in training
LEAST = 10  # validation instances of every setting
SOLVER = "fast"  # says how large the rewards of a setting are, and is what validation compares with
TO_SOLVER = ("score_to_solver", "gap_to_solver", "worst_gap_to_solver")
SCALED_BY = 16  # train instances for the former


class VariedVecEnv(SB3VecEnv):
    """Vector environments of one decision, one per setting, that take turns: a step plays one, and shows the next.

    parts: torch environments of as many instances each, of the same problem, blocks and features. The first is that of
    the parameters without variation, whose spaces stand for all; the others are played, each once in an order drawn
    anew, and so on. The seed of the first environment decides order and instances.

    Objectives of unlike settings differ in size. So rewards are divided by the size of the solver's mean objective on
    train instances of their setting, relative to that of the first part: in units of the first part's reward, a
    percent lost is worth the same everywhere, and so is a violation. Raises ValueError for settings that do not go
    together, or where the solver finds nothing feasible.
    """

    def __init__(self, parts: Sequence[SB3VecEnv]) -> None:
        super().__init__(parts[0].venv)
        self.base, self.parts = parts[0], list(parts[1:])
        self._check()
        sizes = np.array([_size(part.venv.unwrapped) for part in parts])
        self.scale = (sizes[1:] / sizes[0]).tolist()
        for part, size in zip(self.parts, self.scale, strict=True):
            part.venv.unwrapped.penalty *= size
        self._rng = np.random.default_rng()
        self._turn, self._order = 0, []

    def _check(self) -> None:
        blocks = self.base.venv.unwrapped.action_layout.blocks
        for part in self.parts:
            other = part.venv.unwrapped.action_layout.blocks
            if other != blocks:
                raise ValueError(f"vary changes what an action holds: {', '.join(blocks)} or {', '.join(other)}")

    def reset(self) -> np.ndarray[Any, Any]:
        """Begin a new order; the observations (n, d) of its first setting."""
        if self._seeds[0] is not None:
            self._rng = np.random.default_rng(self._seeds[0])
        self._reset_seeds()
        self._order = []
        return to_numpy(self._next())

    def _next(self) -> Array:
        """Draw instances of the setting whose turn it is; their observations."""
        if not self._order:
            self._order = self._rng.permutation(len(self.parts)).tolist()
        self._turn = self._order.pop()
        self.venv = self.parts[self._turn].venv
        venv = self.venv.unwrapped
        instance = venv.problem.sample(venv.params, self._rng, self.num_envs)
        return venv.reset(options={"instance": instance})[0]

    def step_batch(self, actions: Any) -> tuple[Array, Array, Array]:
        """Observations (n, d) of the next setting, rewards (n,) of this one, in the units above, and dones (n,)."""
        venv = self.venv.unwrapped
        outcome, reward = venv.problem.play(venv.params, venv.instance, actions, venv.penalty)
        reward = reward / self.scale[self._turn]
        self.final_info = {"feasible": outcome.feasible, "cost": frozen(outcome.cost)}
        self._returns, self._lengths = frozen(reward), np.ones(self.num_envs, int)
        self._done = np.ones(self.num_envs, bool)
        done = namespace(reward).ones_like(outcome.feasible)
        return self._next(), reward, done

    def compare(self, actions: Array) -> Array:
        """(k, num_envs) what k batches of actions would earn now, in the units above; nothing changes."""
        return super().compare(actions) / self.scale[self._turn]


def _size(venv: Any) -> float:
    """Mean size of the solver's objective over the train instances that it decides feasibly."""
    problem, params = venv.problem, venv.params
    instance = problem.sample_split(params, "train", SCALED_BY)
    found = baselines.solve(problem.name, params, instance, SOLVER)
    if not found.feasible.any():
        raise ValueError(f"{SOLVER} finds nothing feasible with {_short(params)}")
    return float(np.abs(found.objective[found.feasible]).mean())


def _short(params: Any) -> str:
    """The parameters that are not the defaults."""
    fields = dataclasses.fields(params)
    changed = {f.name: getattr(params, f.name) for f in fields if getattr(params, f.name) != f.default}
    return ", ".join(f"{name}={value!r}" for name, value in changed.items()) or "the defaults"


def check(vary: Mapping[str, Sequence[Any]], env_id: str, algo: str, overrides: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError, in one line, unless ``algo`` can be trained so on an id; see ``agents.train``."""
    if not isinstance(vary, Mapping):
        raise TypeError(f"vary must be a dict of lists, such as {{'num_users': [4, 8]}}, got {validate.text(vary)}")
    if algo != "apg":
        raise ValueError(f"vary is for apg: {algo} holds to the spaces of one number of users")
    if env_id in FADING_IDS:
        raise ValueError(f"vary is for ids of one decision, not for the blocks of {env_id}")
    for name, values in vary.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise TypeError(f"vary {name} must be a list of values, got {validate.text(values)}")
        if name in overrides:
            raise ValueError(f"{name} is varied and set: leave one of them out")
        if any(value in values[:i] for i, value in enumerate(values)):
            raise ValueError(f"vary {name} names a value twice: {validate.text(values)}")
    count = math.prod(len(values) for values in vary.values())
    if count > MOST:
        raise ValueError(f"vary makes {count} settings, above {MOST}: name fewer values")


def settings(vary: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values."""
    return [dict(zip(vary, values, strict=True)) for values in itertools.product(*vary.values())]


def make_varied_env(env: SB3VecEnv, env_id: str, vary: Mapping[str, Sequence[Any]], **options: Any) -> VariedVecEnv:
    """``env``, made by ``make_vec_env(env_id, ..., **options)``, with its settings.

    Raises TypeError for a name that is no field of Params, and what :class:`VariedVecEnv` raises.
    """
    fields = [field.name for field in dataclasses.fields(env.venv.unwrapped.params)]
    validate.keywords("vary", vary, fields)
    return VariedVecEnv([env, *(make_vec_env(env_id, env.num_envs, **options, **one) for one in settings(vary))])


class VariedValidation:
    """Measures a model on fixed validation instances of every setting: ``n`` shared out, at least LEAST of each.

    The reward is the mean over settings in the units of :class:`VariedVecEnv`. With ``scored``, score and gap are to
    the solver in place of a proven bound, as far as it (and for the score the anchor) decides feasibly; both are means
    over settings of the means over their instances, the worst gap is the largest of the latter. A gap below zero is
    better than the solver.
    """

    def __init__(self, env: VariedVecEnv, n: int = 100, scored: bool = True) -> None:
        self.scale = env.scale
        each = max(LEAST, n // len(env.parts))
        venvs = [part.venv.unwrapped for part in env.parts]
        self.parts = [Validation(venv.problem, venv.params, each, penalty=venv.penalty) for venv in venvs]
        self.references = [_to_solver(part) for part in self.parts] if scored else []

    def measure(self, model: BaseAlgorithm) -> tuple[dict[str, float], Any]:
        """Means by TensorBoard tag, and the outcome of the first setting's decisions."""
        started = time.perf_counter()
        found = [part.measure(model) for part in self.parts]
        seconds = time.perf_counter() - started
        rewards = [result["validation/reward"] / size for (result, _), size in zip(found, self.scale, strict=True)]
        result = {"validation/reward": float(np.mean(rewards))}
        result["validation/decision_ms"] = 1e3 * seconds / (len(found) * len(self.parts[0].instance))
        names = ["validation/feasible", *(name for name in found[0][0] if name.startswith("validation/violation/"))]
        result |= {name: float(np.mean([part[name] for part, _ in found])) for name in names}
        return result | self._scores([outcome for _, outcome in found]), found[0][1]

    def _scores(self, outcomes: Sequence[Any]) -> dict[str, float]:
        if not self.references:
            return {}
        pairs = list(zip(self.references, outcomes, strict=True))
        scores = [reference.score(x.objective, x.feasible) for reference, x in pairs]
        sign = 1.0 if self.parts[0].problem.maximise else -1.0
        gaps = _means([sign * (reference.bound - x.objective) / np.abs(reference.bound) for reference, x in pairs])
        values = {"score": np.mean(_means(scores)), "gap": np.mean(gaps), "worst_gap": np.max(gaps)}
        return {f"validation/{name}_to_solver": float(value) for name, value in values.items()}

    def picture(self, outcome: Any) -> Array:
        """The first instance of the first setting and its decision as an image (H, W, 3)."""
        return self.parts[0].picture(outcome)


def _means(rows: Sequence[Array]) -> list[Any]:
    """The mean of what is known in every row, of the rows where anything is."""
    known = [row[np.isfinite(row)] for row in rows]
    return [row.mean() for row in known if len(row)]


def _to_solver(part: Validation) -> Reference:
    """Anchor and solver on the instances of a setting; NaN where they decide nothing feasible."""
    name = part.problem.name
    found = [baselines.solve(name, part.params, part.instance, method) for method in (baselines.anchor(name), SOLVER)]
    return Reference(*(np.where(each.feasible, each.objective, np.nan) for each in found))
