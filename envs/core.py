"""The Gymnasium shells, scalar and vector, around a problem: no physics; n scalar steps are one batch step."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from semcom_gym.envs import problems, validate
from semcom_gym.envs.arrays import Array, to_numpy
from semcom_gym.envs.outcome import Outcome

OPTIONS = ("instance", "bound")
POOL = 65536  # instances drawn ahead by a vector environment, over all its sub-environments


class _Setup:
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
        return gym.spaces.Box(-np.inf, np.inf, (self.observation_layout.size,), np.float32)

    def _action_space(self) -> gym.spaces.Box:
        return gym.spaces.Box(-1.0, 1.0, (self.action_layout.size,), np.float32)

    def _score(self, instance: Any, action: Array) -> tuple[Outcome, Array]:
        allocation = self.problem.decode(self.params, instance, action)
        outcome = self.problem.evaluate_unchecked(self.params, instance, allocation)
        sign = 1.0 if self.problem.maximise else -1.0
        return outcome, sign * outcome.objective - self.penalty * outcome.cost

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


class AllocationEnv(_Setup, gym.Env[Any, Any]):
    """One instance, one decision, one reward. Subclasses name the problem."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 1}

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
            return self.problem.observe(self.params, pinned)[0].astype(np.float32), {}
        if self._pool is None or self._next == len(self._pool):
            self._refill()
        self.instance = self._pool[self._next]
        observation = self._observations[self._next].copy()
        self._next += 1
        return observation, {}

    def _refill(self) -> None:
        n = 1 if self._pool is None else 256  # a prefix of one stream, so the sizes decide nothing but speed
        self._pool = self.problem.sample(self.params, self.np_random, n)
        self._observations = self.problem.observe(self.params, self._pool).astype(np.float32)
        self._next = 0

    def step(self, action: Any) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        """Score one decision; the episode ends. info: objective, feasible, cost, violation/<name>, terms."""
        if self.instance is None or self.outcome is not None:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape:
            raise ValueError(f"action must have shape {self.action_space.shape}, got {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError("action has a value that is not finite")
        outcome, reward = self._score(self.instance, action[None])
        self.outcome = outcome
        info: dict[str, Any] = {
            "objective": float(outcome.objective[0]),
            "feasible": bool(outcome.feasible[0]),
            "cost": float(outcome.cost[0]),
            "terms": {name: value[0] for name, value in outcome.terms.items()},
        }
        info.update((f"violation/{name}", float(value[0])) for name, value in outcome.violation.items())
        observation = self.problem.observe(self.params, self.instance)[0].astype(np.float32)
        return observation, float(reward[0]), True, False, info

    def render(self) -> np.ndarray[Any, Any] | None:  # type: ignore[override]
        """The cell and, after a step, the shares of each budget: an RGB array (H, W, 3)."""
        if self.render_mode is None:
            gym.logger.warn("render() needs gym.make(..., render_mode='rgb_array')")
            return None
        if self.instance is None:
            raise gym.error.ResetNeeded("call reset() before render()")
        from semcom_gym.envs import render

        return render.frame(self.problem, self.params, self.instance, self.outcome, self.bound)


class AllocationVectorEnv(_Setup, gym.vector.VectorEnv[Any, Any, Any]):
    """The batch of the scalar environment, on NumPy or torch, resetting in the same step.

    Same seeds, same trajectories as ``num_envs`` scalar environments, up to ``dtype``. With ``backend="torch"``
    observations, rewards and infos are tensors on ``device`` and the reward is differentiable in the action.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(
        self,
        num_envs: int = 1,
        preset: str = "default",
        *,
        penalty: float = 1.0,
        backend: str = "numpy",
        device: str = "cpu",
        dtype: str = "float32",
        render_mode: str | None = None,
        **overrides: Any,
    ) -> None:
        """backend: numpy or torch; device: of torch; dtype: float32 or float64 of instances, actions and rewards."""
        validate.integer("num_envs", num_envs)
        validate.choice("backend", backend, ("numpy", "torch"))
        validate.choice("dtype", dtype, ("float32", "float64"))
        if render_mode is not None:
            raise ValueError("a vector environment does not render; render one made by gym.make")
        self._set_up(preset, penalty, overrides)
        self.num_envs = num_envs
        self.render_mode = None
        self.single_observation_space = self._observation_space()
        self.single_action_space = self._action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.backend, self.dtype = backend, np.dtype(dtype)
        self.device = _torch_device(backend, device)
        self.instance: Any = None
        self._rngs: list[np.random.Generator] = []
        self._depth = max(4, min(256, POOL // num_envs))

    # --- instances -----------------------------------------------------------------------------------------------
    def _refill(self, which: np.ndarray[Any, Any]) -> None:
        """Draw the next ``depth`` instances of some sub-environments."""
        k = self.problem.uniforms_per_instance(self.params)
        uniform = np.empty((len(which), self._depth, k))
        for row, index in enumerate(which):
            self._rngs[index].random(out=uniform[row])
        fresh = self.problem.build(self.params, uniform.reshape(-1, k))
        observations = self.problem.observe(self.params, fresh).astype(np.float32)
        fresh = self._place(fresh)
        observations = self._place_array(observations)
        if len(which) == self.num_envs:
            self._pool, self._observations = fresh, observations
        else:
            rows = (which[:, None] * self._depth + np.arange(self._depth)).ravel()
            _assign(self._observations, rows, observations)
            for name in vars(fresh):
                _assign(getattr(self._pool, name), rows, getattr(fresh, name))
        self._cursor[which] = 0

    def _place(self, instance: Any) -> Any:
        """The instances in this environment's dtype, library and device."""
        if self.backend == "torch":
            import torch

            return instance.to_torch(self.device, getattr(torch, self.dtype.name))
        return instance.map(lambda x: x.astype(self.dtype) if x.dtype.kind == "f" else x)

    def _place_array(self, x: Array) -> Array:
        if self.backend == "numpy":
            return x
        import torch

        return torch.as_tensor(x, device=self.device)

    def _draw(self, which: np.ndarray[Any, Any] | None = None) -> Array:
        """Advance some sub-environments (all by default) to their next instance; the observations of all."""
        everyone = which is None
        which = np.arange(self.num_envs) if which is None else which
        spent = which[self._cursor[which] >= self._depth]
        if len(spent):
            self._refill(spent)
        rows = which * self._depth + self._cursor[which]
        self._cursor[which] += 1
        if everyone:
            self.instance = self._pool[rows]
            self._observation = self._observations[rows]
        else:
            self.instance = self.instance.map(lambda x: x.clone() if self.backend == "torch" else x.copy())
            for name in vars(self.instance):
                _assign(getattr(self.instance, name), which, getattr(self._pool, name)[rows])
            self._observation = self._observation.clone() if self.backend == "torch" else self._observation.copy()
            _assign(self._observation, which, self._observations[rows])
        return self._observation

    # --- Gymnasium -----------------------------------------------------------------------------------------------
    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start all sub-environments; an integer ``seed`` gives sub-environment i the seed ``seed + i``.

        options: ``instance`` (a batch of num_envs) pins the instances; ``reset_mask`` (num_envs,) resets some only.
        """
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"seed must be an integer or a list of {self.num_envs}, got a list of {len(seeds)}")
        pinned = self._pinned(options, self.num_envs)
        self._seed(seeds)
        if pinned is not None:
            self.instance = self._place(pinned)
            observation = self.problem.observe(self.params, pinned).astype(np.float32)
            self._observation = self._place_array(observation)
            return self._observation, {}
        if mask is None or self.instance is None:
            return self._draw(), {}
        validate.array("options['reset_mask']", mask, (self.num_envs,))
        return self._draw(np.flatnonzero(mask)), {}

    def _seed(self, seeds: list[int | None] | None) -> None:
        if not self._rngs:
            self._rngs = [np.random.default_rng() for _ in range(self.num_envs)]
            self._cursor = np.full(self.num_envs, self._depth)
        for index, value in enumerate(seeds or []):
            if value is not None:
                self._rngs[index] = np.random.default_rng(value)
                self._cursor[index] = self._depth

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Score one decision each. Every episode ends, so the step's info is ``final_info`` (SAME_STEP autoreset)."""
        if self.instance is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        actions = self._check_actions(actions)
        outcome, reward = self._score(self.instance, actions)
        ended = self._ones()
        final = {"objective": outcome.objective, "feasible": outcome.feasible, "cost": outcome.cost}
        final |= {f"violation/{name}": value for name, value in outcome.violation.items()}
        final["terms"] = outcome.terms
        info = {"final_obs": self._observation, "_final_obs": ended, "final_info": final, "_final_info": ended}
        observation = self._draw()
        return observation, reward, ended, ~ended, info

    def _ones(self) -> Array:
        return self._place_array(np.ones(self.num_envs, bool))

    def _check_actions(self, actions: Any) -> Array:
        if self.backend == "torch":
            import torch

            actions = torch.as_tensor(actions, device=self.device).to(getattr(torch, self.dtype.name))
            finite = bool(torch.isfinite(actions).all())
        else:
            actions = np.asarray(actions, self.dtype)
            finite = bool(np.isfinite(actions).all())
        if tuple(actions.shape) != self.action_space.shape:
            raise ValueError(f"actions must have shape {self.action_space.shape}, got {tuple(actions.shape)}")
        if not finite:
            raise ValueError("actions hold a value that is not finite")
        return actions


def _assign(target: Array, rows: np.ndarray[Any, Any], value: Array) -> None:
    target[rows] = value


def _torch_device(backend: str, device: str) -> Any:
    if backend == "numpy":
        if device != "cpu":
            raise ValueError(f"device {device!r} needs backend='torch'")
        return "cpu"
    try:
        import torch
    except ModuleNotFoundError:
        raise ModuleNotFoundError("backend='torch' needs torch: pip install 'semcom-gym[agents]'") from None
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return found
