"""The Gymnasium shells, scalar and vector, around a problem: no physics; n scalar steps are one batch step."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from semcom_gym.envs import problems, validate
from semcom_gym.envs.arrays import Array, to_numpy
from semcom_gym.envs.outcome import Outcome

OPTIONS = ("instance", "bound")
OBSERVATION_LIMIT = 1e3  # far outside what a preset reaches; keeps the space finite, as the checkers ask


class Setup:
    """What both shells share: parameters, spaces, reward."""

    problem_name: ClassVar[str]
    fixed: ClassVar[dict[str, Any]] = {}  # fields of Params that the id decides

    def _set_up(self, preset: str, penalty: float, overrides: dict[str, Any]) -> None:
        self.problem = problems.problem(self.problem_name)
        for name in self.fixed:
            if name in overrides:
                raise TypeError(f"{type(self).__name__} fixes {name}={self.fixed[name]!r}; use the other id")
        validate.number("penalty", penalty, open_low=False)
        self.penalty = float(penalty)
        self.params = self.problem.preset(preset, **overrides, **self.fixed)
        self.observation_layout = self.problem.observation_layout(self.params)
        self.action_layout = self.problem.action_layout(self.params)

    def _observation_space(self) -> gym.spaces.Box:
        return gym.spaces.Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (self.observation_layout.size,), np.float32)

    def _action_space(self) -> gym.spaces.Box:
        return gym.spaces.Box(-1.0, 1.0, (self.action_layout.size,), np.float32)

    def _observe(self, instance: Any) -> np.ndarray[Any, Any]:
        observation = np.asarray(self.problem.observe(self.params, instance), np.float32)
        return np.clip(observation, -OBSERVATION_LIMIT, OBSERVATION_LIMIT)

    def encode(self, allocation: Any) -> Array:
        """The float64 action that decodes to a solver's allocation for the current instance.

        Shape (size,) for the scalar environment, (num_envs, size) for a vector one. ``step`` takes float64 as well
        as the space's float32 and then scores the allocation to 1e-9 of the solver's objective.
        """
        instance = self.instance.map(to_numpy)  # type: ignore[attr-defined]
        action = self.problem.encode(self.params, instance, allocation)
        return action[0] if isinstance(self, gym.Env) else action

    def _pinned(self, options: dict[str, Any] | None, n: int) -> Any:
        """The instance that reset(options={"instance": ...}) asks for, or None."""
        options = options or {}
        validate.keywords("reset options", options, OPTIONS)
        instance = options.get("instance")
        if instance is not None:
            self.problem.check(self.params, instance)
            if len(instance) != n:
                raise ValueError(f"options['instance'] must hold {n} instance(s), got {len(instance)}")
        return instance


class AllocationEnv(Setup, gym.Env[Any, Any]):
    """One instance, one decision, one reward. Subclasses name the problem."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}

    def __init__(
        self, preset: str = "default", *, penalty: float = 1.0, render_mode: str | None = None, **overrides: Any
    ) -> None:
        """preset, and any field of Params; penalty: reward lost per unit of relative violation."""
        self._set_up(preset, penalty, overrides)
        if render_mode is not None:
            validate.choice("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.observation_space = self._observation_space()
        self.action_space = self._action_space()
        self.instance: Any = None
        self.outcome: Outcome | None = None
        self.bound: float | None = None
        self._pool: Any = None
        self._next = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Draw the next instance. options: ``instance`` (one) pins it; ``bound`` is drawn by render."""
        super().reset(seed=seed)
        pinned = self._pinned(options, 1)
        self.bound = (options or {}).get("bound")
        self.outcome = None
        if seed is not None:
            self._pool = None
        if pinned is not None:
            self.instance = pinned
            self._observation = self._observe(pinned)[0]
            return self._observation.copy(), {}
        if self._pool is None or self._next == len(self._pool):
            self._refill()
        self.instance = self._pool[self._next]
        self._observation = self._observations[self._next]
        self._next += 1
        return self._observation.copy(), {}

    def _refill(self) -> None:
        n = 1 if self._pool is None else 256  # a prefix of one stream, so the sizes decide nothing but speed
        self._pool = self.problem.sample(self.params, self.np_random, n)
        self._observations = self._observe(self._pool)
        self._next = 0

    def step(self, action: Any) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        """Score one decision; the episode ends. info: objective, feasible, cost, violation/<name>, terms."""
        if self.instance is None or self.outcome is not None:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        action = self._check_action(action)
        outcome, reward = self.problem.play(self.params, self.instance, action[None], self.penalty)
        self.outcome = outcome
        return self._observation.copy(), float(reward[0]), True, False, self._info(outcome)

    def _check_action(self, action: Any) -> np.ndarray[Any, Any]:
        checked: np.ndarray[Any, Any] = np.asarray(action, np.float64)
        if checked.shape != self.action_space.shape:
            raise ValueError(f"action must have shape {self.action_space.shape}, got {checked.shape}")
        if not np.isfinite(checked).all():
            raise ValueError("action has a value that is not finite")
        return checked

    def _info(self, outcome: Outcome) -> dict[str, Any]:
        """The info of a decision from its outcome (n = 1)."""
        info: dict[str, Any] = {
            "objective": float(outcome.objective[0]),
            "feasible": bool(outcome.feasible[0]),
            "cost": float(outcome.cost[0]),
            "terms": {name: value[0] for name, value in outcome.terms.items()},
        }
        info.update((f"violation/{name}", float(value[0])) for name, value in outcome.violation.items())
        return info

    def render(self) -> np.ndarray[Any, Any] | None:
        """The cell and, after a step, the shares of each budget: an RGB array (H, W, 3)."""
        if self.render_mode is None:
            gym.logger.warn("render() needs gym.make(..., render_mode='rgb_array')")
            return None
        if self.instance is None:
            raise gym.error.ResetNeeded("call reset() before render()")
        return self._frame()

    def _frame(self) -> np.ndarray[Any, Any]:
        from semcom_gym.envs import render

        return render.frame(self.problem, self.params, self.instance, self.outcome, self.bound)
