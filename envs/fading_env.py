"""The Gymnasium shells, scalar and vector, of the ``Fading`` ids."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from semcom_gym.envs import fading
from semcom_gym.envs.arrays import Array, frozen
from semcom_gym.envs.core import AllocationEnv
from semcom_gym.envs.fading_setup import FadingSetup
from semcom_gym.envs.vector import AllocationVectorEnv, repeated


class FadingEnv(FadingSetup, AllocationEnv):
    """T blocks of one cell, a decision in each. Subclasses name the problem.

    A step scores its decision on the true channel of the block; the observation is of the next block. ``truncated``
    at the horizon. ``options`` of reset: ``instance`` (one) is the state that the episode starts from, ``episode`` (one
    of ``episodes(split, n)``) decides all of it, ``bound`` (on the sum over the blocks) is drawn by render.
    """

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Start an episode."""
        super(AllocationEnv, self).reset(seed=seed)
        pinned = self._pinned(options, 1)
        self.bound = (options or {}).get("bound")
        self.outcome, self.met = None, None
        self._reached: list[float] = []
        if not isinstance(pinned, fading.Episode):
            pinned = self._build(self.np_random.random((1, self._uniforms())), pinned)
        return self._begin(None, pinned)[0], {}

    def step(self, action: Any) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        """Score the decision of a block. info: objective, feasible, cost, violation/<name>, terms."""
        self._check_going()
        return self._finish(self._decide(self._check_action(action)[None]))

    def step_allocation(self, allocation: Any) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        """Step with an allocation (one row), as a solver hands it over, in place of an action."""
        self._check_going()
        self._check_allocation(allocation)
        return self._finish(allocation)

    def _check_going(self) -> None:
        if self.instance is None or self._t[0] >= self.fading.horizon:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")

    def _finish(self, allocation: Any) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        outcome, reward = self._settle(allocation)
        self._reached.append(float(outcome.objective[0]))
        observation = self._look()[0]
        last = bool(self._t[0] == self.fading.horizon)
        return observation, float(reward[0]), last and self.completes, last and not self.completes, self._info(outcome)

    def _frame(self) -> np.ndarray[Any, Any]:
        from semcom_gym.envs import render

        shown = self.instance if self.met is None else self.met
        story = render.Story({"objective": self._reached}, self.fading.horizon, self.bound)
        return render.frame(self.problem, self.params, shown, self.outcome, story=story)

    def _place_field(self, x: Array) -> Array:
        return x

    def _place_array(self, x: Array) -> Array:
        return x


class FadingVectorEnv(FadingSetup, AllocationVectorEnv):
    """The batch of the scalar environment, on NumPy or torch, resetting in the same step.

    Every step's info has the arrays ``objective``, ``feasible``, ``cost``, ``violation/<name>`` and ``terms`` of the
    blocks decided; in the last block of an episode they are in ``final_info`` as well. With ``backend="torch"`` the
    reward is differentiable in the actions so far, through the energy that they left; ``cut_gradient`` ends that.
    """

    poolable = False

    def alike(self, num_envs: int) -> FadingVectorEnv:
        """The same environment with ``num_envs``, on NumPy in float64: to measure on."""
        return type(self)(num_envs, dtype="float64", **self._made_with)

    def cut_gradient(self) -> None:
        """Cut what the current state owes to earlier actions out of the gradient graph."""
        if self.episode is not None:
            self._left = frozen(self._left)

    def compare(self, actions: Array) -> Array:
        """(k, num_envs) what each of k batches of actions (k, num_envs, d) would earn in this block; nothing changes.

        What a block spends is missing later, which this leaves out.
        """
        k, _, size = actions.shape
        limits = tuple(repeated(x, k) for x in self.spending_limits()) if self._has_budget else None
        expected, true = (part.map(lambda x: repeated(x, k)) for part in (self._expected, self.true_instance))
        allocation = self._decode(expected, limits, actions.reshape(-1, size))
        outcome = self.problem.evaluate_unchecked(self.params, true, allocation)
        return self.problem.reward(outcome, self.penalty).reshape(k, -1)

    def _fresh(self, rows: np.ndarray[Any, Any], start: Any = None) -> fading.Episode:
        """New episodes of some sub-environments, from pinned instances if there are any."""
        uniform = np.empty((len(rows), self._uniforms()))
        for row, index in enumerate(rows):
            self._rngs[index].random(out=uniform[row])
        return self._build(uniform, start)

    def _draw(self, which: np.ndarray[Any, Any] | None = None) -> Array:
        everyone = which is None or self.episode is None or len(which) == self.num_envs
        rows = np.arange(self.num_envs) if everyone or which is None else which
        return self._begin(None if everyone else rows, self._fresh(rows))

    def _pin(self, instance: Any) -> Array:
        if not isinstance(instance, fading.Episode):
            instance = self._fresh(np.arange(self.num_envs), instance)
        return self._begin(None, instance)

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Score a decision each; the episodes that end start again in the same step."""
        if self.instance is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        return self._finish(self._decide(self._check_actions(actions)))

    def step_allocation(self, allocation: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Step with allocations (num_envs rows, NumPy), as a solver hands them over, in place of actions."""
        if self.instance is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        self._check_allocation(allocation)
        return self._finish(self._place(allocation))

    def _finish(self, allocation: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        outcome, reward = self._settle(allocation)
        info = self._final(outcome)
        observation = self._look()
        done = self._t == self.fading.horizon
        ended = self._place_array(done)
        if done.any():
            info |= {"final_obs": observation, "_final_obs": ended, "final_info": self._final(outcome)}
            info["_final_info"] = ended
            observation = self._draw(None if done.all() else np.flatnonzero(done))
        never = ~self._ones()
        return observation, reward, *((ended, never) if self.completes else (never, ended)), info

    def _place_field(self, x: Array) -> Array:
        if self.backend == "torch":
            import torch

            tensor = torch.as_tensor(x, device=self.device)
            return tensor.to(getattr(torch, self.dtype.name)) if tensor.is_floating_point() else tensor
        return x.astype(self.dtype) if x.dtype.kind == "f" else x
