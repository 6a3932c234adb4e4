"""The vector environment: the batch of the scalar one, on NumPy or torch, with its instances drawn ahead."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from semcom_gym.envs import problems, validate
from semcom_gym.envs.arrays import Array, concatenate, copied, namespace, usable_device
from semcom_gym.envs.core import Setup
from semcom_gym.envs.outcome import Outcome

CHUNK = 1 << 15  # uniform variates turned into instances at a time: where NumPy's temporaries still fit the cache
POOL = 1 << 21  # uniform variates drawn ahead, over all sub-environments: more memory costs more than it saves


class AllocationVectorEnv(Setup, gym.vector.VectorEnv[Any, Any, Any]):
    """The batch of the scalar environment, on NumPy or torch, resetting in the same step.

    Same seeds, same trajectories as ``num_envs`` scalar environments, up to ``dtype``. With ``backend="torch"``
    observations, rewards and infos are tensors on ``device`` and the reward is differentiable in the action.

    With ``pool=N`` all instances are among the first N of the train stream, drawn once: a sub-environment's seed
    decides which of them it meets. They and their observations lie on ``device``, so that a step draws, builds and
    copies none.
    """

    poolable: ClassVar[bool] = True  # an episode is one instance
    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(
        self,
        num_envs: int = 1,
        preset: str = "default",
        *,
        penalty: float = 1.0,
        backend: str = "numpy",
        device: str = "cpu",
        dtype: str = "float32",
        pool: int | None = None,
        render_mode: str | None = None,
        **overrides: Any,
    ) -> None:
        """backend: numpy or torch; device: of torch; dtype: float32 or float64 of instances, actions and rewards.

        pool: how many instances to draw once and then pick from, None for new ones all the time.
        """
        validate.integer("num_envs", num_envs)
        validate.choice("backend", backend, ("numpy", "torch"))
        validate.choice("dtype", dtype, ("float32", "float64"))
        if pool is not None:
            validate.integer("pool", pool)
            if not self.poolable:
                raise ValueError(f"{type(self).__name__} draws whole episodes: it takes no pool of instances")
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
        self._instance: Any = None
        self._at: Any = None  # the rows of the pool that the current instances are: gathered when asked for
        self.pool = pool
        self._prepared: Any = None
        self._pool: Any = None
        self._observations: Any = None
        self._everywhere: Any = None
        self._lent = False
        self._rngs: list[np.random.Generator] = []
        each = 1 if pool else self.problem.uniforms_per_instance(self.params)
        self._depth = max(1, min(256, POOL // (num_envs * each)))

    @property
    def instance(self) -> Any:
        """The current instances, one per sub-environment; None before the first reset."""
        if self._instance is None and self._at is not None:
            self._instance = self._pool.map(lambda x: _rows(x, self._at))
        return self._instance

    @instance.setter
    def instance(self, value: Any) -> None:
        self._instance, self._at = value, None

    # --- instances of a pool ---------------------------------------------------------------------------------------
    # ``picks`` holds the rows of the pool that the next ``depth`` instances of every sub-environment are.
    def _fill_pool(self) -> None:
        """Draw the instances of the pool and look at them, a part that fits the cache at a time."""
        assert self.pool is not None
        rng = problems.split_stream("train")
        rows = max(1, CHUNK // self.problem.uniforms_per_instance(self.params))
        parts = [self.problem.sample(self.params, rng, min(rows, self.pool - k)) for k in range(0, self.pool, rows)]
        self._observations = self._place_array(np.concatenate([self._observe(part) for part in parts]))
        self._pool = self._place(concatenate(parts))
        if self.problem.prepare is not None:
            self._prepared = concatenate([self.problem.prepare(self.params, self._place(part)) for part in parts])
        self._picks = np.empty((self._depth, self.num_envs), np.int64)

    def _pick(self, which: np.ndarray[Any, Any]) -> None:
        """Pick the next ``depth`` instances of some sub-environments."""
        if self._pool is None:
            self._fill_pool()
        for index in which:
            self._picks[:, index] = self._rngs[index].integers(self.pool, size=self._depth)
        self._cursor[which] = 0
        self._placed_picks = self._place_array(self._picks.ravel())

    # --- instances that are always new -----------------------------------------------------------------------------
    # The pool holds the next ``depth`` instances of every sub-environment, row ``slot * num_envs + index``. While all
    # are at the same slot, as one-decision episodes are, a step's instances are a slice of it and nothing is copied.
    def _refill(self, which: np.ndarray[Any, Any]) -> None:
        """Draw the next ``depth`` instances of some sub-environments."""
        k = self.problem.uniforms_per_instance(self.params)
        uniform = np.empty((len(which), self._depth, k))
        for row, index in enumerate(which):
            self._rngs[index].random(out=uniform[row])
        self._cursor[which] = 0
        everyone = len(which) == self.num_envs
        if self._lent and not everyone:  # slices of this pool are in a caller's hands
            self._pool, self._observations = self._pool.map(copied), copied(self._observations)
        self._lent = False
        rows = max(1, CHUNK // k)
        slots = max(1, rows // len(which))
        for slot, first in itertools.product(range(0, self._depth, slots), range(0, len(which), rows)):
            drawn = uniform[first : first + rows, slot : slot + slots].swapaxes(0, 1)
            block = self.problem.build(self.params, drawn.reshape(-1, k))
            seen, block = self._place_array(self._observe(block)), self._place(block)
            if everyone and slot == first == 0:
                self._pool, self._observations = block.map(self._room), self._room(seen)
            at = np.arange(slot, slot + drawn.shape[0])[:, None] * self.num_envs + which[first : first + rows]
            place: Any = slice(int(at[0, 0]), int(at[-1, -1]) + 1) if everyone else at.ravel()
            self._observations[place] = seen
            for name, value in vars(block).items():
                getattr(self._pool, name)[place] = value

    def _room(self, x: Array) -> Array:
        """Room for the arrays like ``x`` of all instances drawn ahead."""
        return namespace(x).empty((self._depth * self.num_envs, *x.shape[1:]), dtype=x.dtype, device=x.device)

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
        everyone = which is None or self.instance is None
        which = np.arange(self.num_envs) if which is None else which
        spent = np.arange(self.num_envs) if self._pool is None else which[self._cursor[which] >= self._depth]
        if len(spent):
            (self._refill if self.pool is None else self._pick)(spent)
        slots = self._cursor[which]
        self._cursor[which] += 1
        if everyone and bool((slots == slots[0]).all()):
            rows: Any = slice(int(slots[0]) * self.num_envs, (int(slots[0]) + 1) * self.num_envs)
            self._lent = True
        else:
            rows = slots * self.num_envs + which
        if self.pool is not None:
            rows = self._placed_picks[rows]
        if everyone:
            self._instance, self._at, self._observation = None, rows, _rows(self._observations, rows)
        else:
            self.instance, self._observation = self.instance.map(copied), copied(self._observation)
            for name, value in vars(self.instance).items():
                value[which] = getattr(self._pool, name)[rows]
            self._observation[which] = self._observations[rows]
        return self._observation

    def _pin(self, instance: Any) -> Array:
        """Make ``instance``, one per sub-environment, the current ones; the observations."""
        self.instance = self._place(instance)
        self._observation = self._place_array(self._observe(instance))
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
        seeds: list[int | None] | None
        seeds = [int(seed) + i for i in range(self.num_envs)] if isinstance(seed, (int, np.integer)) else seed
        if seeds is not None and len(seeds) != self.num_envs:
            raise ValueError(f"seed must be an integer or a list of {self.num_envs}, got a list of {len(seeds)}")
        pinned = self._pinned(options, self.num_envs)
        self._seed(seeds)
        if pinned is not None:
            return self._pin(pinned), {}
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
        if self._instance is None and self._at is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        actions = self._check_actions(actions)
        if self._at is None or self._prepared is None or self.problem.outcome_at is None:
            outcome, reward = self.problem.play(self.params, self.instance, actions, self.penalty)
        else:
            outcome = self.problem.outcome_at(self.params, self._prepared, self._at, actions)
            reward = self.problem.reward(outcome, self.penalty)
        ended, final = self._ones(), self._final(outcome)
        info = {"final_obs": self._observation, "_final_obs": ended, "final_info": final, "_final_info": ended}
        observation = self._draw()
        return observation, reward, ended, ~ended, info

    def cut_gradient(self) -> None:
        """Cut what the current state owes to earlier actions out of the gradient graph; here it owes them nothing."""

    def compare(self, actions: Array) -> Array:
        """(k, num_envs) what each of k batches of actions (k, num_envs, d) would earn now; nothing changes."""
        k, _, size = actions.shape
        instance = self.instance.map(lambda x: repeated(x, k))
        _, reward = self.problem.play(self.params, instance, actions.reshape(-1, size), self.penalty)
        return reward.reshape(k, -1)

    def _final(self, outcome: Outcome) -> dict[str, Any]:
        """``final_info``: what the scalar environment's info holds, batched."""
        final = {"objective": outcome.objective, "feasible": outcome.feasible, "cost": outcome.cost}
        final |= {f"violation/{name}": value for name, value in outcome.violation.items()}
        return final | {"terms": outcome.terms}

    def _ones(self) -> Array:
        if self._everywhere is None:
            self._everywhere = self._place_array(np.ones(self.num_envs, bool))
        return copied(self._everywhere)

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


def repeated(x: Array, k: int) -> Array:
    """The rows of ``x``, k times over."""
    return namespace(x).tile(x, (k, *[1] * (x.ndim - 1)))


def _rows(x: Array, rows: Any) -> Array:
    """``x[rows]``: a view for a slice, else a copy (``take`` copies rows two to three times faster than indexing)."""
    return x[rows] if isinstance(rows, slice) or not isinstance(x, np.ndarray) else x.take(rows, 0)


def _torch_device(backend: str, device: str) -> Any:
    if backend == "numpy":
        if device != "cpu":
            raise ValueError(f"device {device!r} needs backend='torch'")
        return "cpu"
    try:
        return usable_device(device)
    except ModuleNotFoundError:
        raise ModuleNotFoundError("backend='torch' needs torch: pip install 'semcom-gym[agents]'") from None
