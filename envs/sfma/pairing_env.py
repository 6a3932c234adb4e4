"""The Gymnasium id that pairs users one step at a time; power, bandwidth and ratios are then solved for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np

from semcom_gym.envs.arrays import Array
from semcom_gym.envs.core import AllocationEnv, Setup
from semcom_gym.envs.outcome import Outcome
from semcom_gym.envs.problems import ActionLayout
from semcom_gym.envs.sfma import actions, pairs, physics, resources
from semcom_gym.envs.sfma.env import PENALTY
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.vector import AllocationVectorEnv


def choices(edges: Array, free: Array) -> Array:
    """(n, M) the pairs that may be chosen next, given E_f (21) as ``edges`` (n, M) and the ``free`` users (n, N).

    Those in some perfect matching of the free users inside E_f; where there is none, every pair of free users.
    """
    left, right = pairs.members(free.shape[1]).T
    allowed = free[:, left] & free[:, right]
    rows = np.flatnonzero((allowed & ~edges).any(axis=1))
    if len(rows):
        kept = extendable(edges[rows], free[rows])
        some = kept.any(axis=1)
        allowed[rows[some]] = kept[some]
    return allowed


def extendable(edges: Array, free: Array) -> Array:
    """(n, M) the pairs that are in some perfect matching of the ``free`` users (n, N) inside ``edges`` (n, M).

    Each round looks for the perfect matching with the most pairs that no round has found yet.
    """
    users = free.shape[1]
    left, right = pairs.members(users).T
    unknown = edges & free[:, left] & free[:, right]
    # users that are taken match among themselves: their pairs count nothing
    barred = ~unknown & (free[:, left] | free[:, right])
    found = np.zeros_like(unknown)
    rows = np.arange(len(free))
    while len(rows):
        # one barred pair costs more than all others can bring
        score = np.where(barred[rows], -float(users), unknown[rows])
        matched = np.zeros_like(unknown[rows])
        np.put_along_axis(matched, pairs.best_matching(score, users), True, -1)
        new = matched & unknown[rows]
        useful = new.any(axis=1) & ~(matched & barred[rows]).any(axis=1)
        rows, new = rows[useful], new[useful]
        found[rows] |= new
        unknown[rows] &= ~new
    return found


class Progress:
    """How far n episodes are: ``free`` users (n, N), pairs ``allowed`` next (n, M), ``pair`` (n, K) chosen so far."""

    def __init__(self, params: Params, instance: Instance) -> None:
        n, users = len(instance), params.num_users
        self.params = params
        self.free = np.empty((n, users), bool)
        self.edges = np.empty((n, params.num_pairs), bool)
        self.allowed = np.empty_like(self.edges)
        self.pair = np.zeros((n, params.num_groups), np.int64)
        self.steps = np.zeros(n, np.int64)
        self.restart(np.arange(n), instance)

    def restart(self, rows: Array, instance: Instance) -> None:
        """Begin the episodes ``rows`` anew, with the instances given for them."""
        self.free[rows] = True
        self.steps[rows] = 0
        self.edges[rows] = physics.feasible_pairs(self.params, instance)
        self.allowed[rows] = choices(self.edges[rows], self.free[rows])

    def choose(self, pair: Array) -> Array:
        """Add one pair (n,) to each episode, except where a user of it is taken; whether it was added, (n,) bool."""
        user = pairs.members(self.params.num_users)[pair]
        legal = np.take_along_axis(self.free, user, 1).all(axis=1)
        rows = np.flatnonzero(legal)
        self.pair[rows, self.steps[rows]] = pair[rows]
        self.free[rows[:, None], user[rows]] = False
        self.steps[rows] += 1
        self.allowed = choices(self.edges, self.free)
        return legal

    @property
    def complete(self) -> Array:
        """(n,) bool: every user is in a pair."""
        return self.steps == self.params.num_groups

    def observation(self, plain: Array) -> Array:
        """The observation, float32, from that of SFMA-v0 (n, d): ``free`` ends a user's row, ``allowed`` a pair's."""
        n, users = self.free.shape
        cuts = np.cumsum([users * len(actions.USER_FEATURES), self.params.num_pairs * len(actions.PAIR_FEATURES)])
        of_users, of_pairs, cell = np.split(np.asarray(plain, np.float32), cuts, axis=1)
        rows = [
            np.concatenate([block.reshape(n, flag.shape[1], -1), flag[..., None]], axis=-1, dtype=np.float32)
            for block, flag in ((of_users, self.free), (of_pairs, self.allowed))
        ]
        return np.concatenate([*(block.reshape(n, -1) for block in rows), cell], axis=1)


class PairingSetup(Setup):
    """What the scalar and the vector environment share."""

    problem_name = "sfma"
    allocation: physics.Allocation | None = None
    """What the last complete pairings were given, one row each, in the order of the environments."""

    def _set_up(self, preset: str, penalty: float, overrides: dict[str, Any]) -> None:
        super()._set_up(preset, penalty, overrides)
        self.observation_layout = dataclasses.replace(
            self.observation_layout,
            user_features=(*actions.USER_FEATURES, "free"),
            pair_features=(*actions.PAIR_FEATURES, "allowed"),
        )
        self.action_layout = ActionLayout(self.params.num_users, (), ("pair",))

    def _action_space(self) -> gym.spaces.Discrete:  # type: ignore[override]
        return gym.spaces.Discrete(self.params.num_pairs)

    def _solve(self, instance: Instance, pair: Array) -> Outcome:
        """What complete pairings (n, K) achieve once their resources are solved for."""
        self.allocation = resources.allocate(self.params, instance, np.sort(pair, axis=-1))
        return self.problem.evaluate_unchecked(self.params, instance, self.allocation)

    def encode(self, allocation: physics.Allocation) -> Array:
        """The choices that lead to an allocation's pairing: (K,), or (num_envs, K) for the vector environment.

        The resources are solved for again. Raises ValueError for pairs that leave a user out.
        """
        physics.check(self.params, allocation)
        if not (pairs.uses(allocation.pair, self.params.num_users) == 1).all():
            raise ValueError("allocation.pair must hold every user once")
        return allocation.pair[0] if isinstance(self, gym.Env) else allocation.pair


class SFMAPairingEnv(PairingSetup, AllocationEnv):
    """Pairs of N users, one pair per step; the resources of the K = N / 2 groups are solved for at the end (SC-SFMA).

    ## Description
    The combinatorial half of :class:`~semcom_gym.envs.sfma.env.SFMAEnv`. After the last pair,
    ``resources.allocate`` finds power, bandwidth and compression ratios for the pairing.
    ## Action space
    ``Discrete(M)``, M = N (N - 1) / 2: a pair i < j, in lexicographic order (``pairs.members``). ``action_masks()``,
    (M,) bool, has the pairs that are in some perfect matching of the free users inside E_f (21), or where there is
    none, the pairs of free users.
    ## Observation space
    ``Box(-1000, 1000, (5 N + 10 M + 5,), float32)``: that of SFMA-v0 with the feature ``free`` at the end of a user's
    row and ``allowed`` at the end of a pair's, see ``observation_layout``.
    ## Rewards
    0, and at the last step the sum rate (20) in Mbit/s minus ``penalty`` times the relative violation. A pair with a
    user that is taken ends the episode with ``-penalty``; info: objective 0, cost and violation/pairing 1, no terms.
    ## Starting state
    A random cell of the preset, all users free. ## Episode end: after K steps, ``terminated=True``.
    ## Arguments
    ``preset`` (default, paper, loose, tight, pruned, figures, measured), ``penalty``, ``render_mode``, any field of
    ``Params``.
    """

    def __init__(self, preset: str = "default", *, penalty: float = PENALTY, **kwargs: Any) -> None:
        super().__init__(preset, penalty=penalty, **kwargs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        """Draw the next instance, with all users free. options: as in SFMA-v0."""
        _, info = super().reset(seed=seed, options=options)
        self.progress = Progress(self.params, self.instance)
        return self._seen(), info

    def action_masks(self) -> Array:
        """(M,) bool: the pairs that may be chosen now."""
        if self.instance is None:
            raise gym.error.ResetNeeded("call reset() before action_masks()")
        return self.progress.allowed[0].copy()

    def step(self, action: Any) -> tuple[np.ndarray[Any, Any], float, bool, bool, dict[str, Any]]:
        """Choose a pair. info of the last step: objective, feasible, cost, violation/<name>, terms."""
        if self.instance is None or self.outcome is not None:
            raise gym.error.ResetNeeded("the episode is over: call reset() before step()")
        if not self.action_space.contains(action):
            raise ValueError(f"action must be a pair, an integer from 0 to {self.params.num_pairs - 1}, got {action!r}")
        legal = bool(self.progress.choose(np.array([action]))[0])
        if legal and not self.progress.complete[0]:
            return self._seen(), 0.0, False, False, {}
        self.outcome = self._solve(self.instance, self.progress.pair) if legal else _illegal(np.ones(1, bool))
        reward = self.problem.reward(self.outcome, self.penalty)
        return self._seen(), float(reward[0]), True, False, self._info(self.outcome)

    def _seen(self) -> np.ndarray[Any, Any]:
        return np.asarray(self.progress.observation(self._observation[None])[0])


class SFMAPairingVectorEnv(PairingSetup, AllocationVectorEnv):
    """The vector form of :class:`SFMAPairingEnv`, on NumPy in float64.

    ``action_masks()`` is (num_envs, M). ``final_obs`` and ``final_info`` are there in a step that ends an episode;
    their rows count where ``_final_obs`` and ``_final_info`` say so.
    """

    def __init__(
        self, num_envs: int = 1, preset: str = "default", *, penalty: float = PENALTY, backend: str = "numpy",
        dtype: str = "float64", **kwargs: Any,
    ) -> None:  # fmt: skip
        if (backend, dtype) != ("numpy", "float64"):
            raise ValueError(f"SFMAPairing solves on backend 'numpy' in 'float64', got {backend!r} and {dtype!r}")
        super().__init__(num_envs, preset, penalty=penalty, backend=backend, dtype=dtype, **kwargs)

    def action_masks(self) -> Array:
        """(num_envs, M) bool: the pairs that may be chosen now."""
        if self.instance is None:
            raise gym.error.ResetNeeded("call reset() before action_masks()")
        return self.progress.allowed.copy()

    def _draw(self, which: np.ndarray[Any, Any] | None = None) -> Array:
        everyone = which is None or self.instance is None
        super()._draw(which)
        if everyone:
            self.progress = Progress(self.params, self.instance)
        else:
            self.progress.restart(which, self.instance[which])
        return self._seen()

    def _pin(self, instance: Instance) -> Array:
        super()._pin(instance)
        self.progress = Progress(self.params, self.instance)
        return self._seen()

    def _seen(self) -> Array:
        return self.progress.observation(self._observation)

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Choose a pair in each sub-environment; the episodes that end start again in the same step."""
        if self.instance is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        legal = self.progress.choose(self._check_actions(actions))
        ended = ~legal | self.progress.complete
        nothing = np.zeros(self.num_envs, bool)
        last = self._seen()
        if not ended.any():
            return last, np.zeros(self.num_envs), ended, nothing, {}
        outcome = self._settle(~legal)
        reward = np.where(ended, self.problem.reward(outcome, self.penalty), 0.0)
        info = {"final_obs": last, "_final_obs": ended, "final_info": self._final(outcome), "_final_info": ended}
        observation = self._draw(None if ended.all() else np.flatnonzero(ended))
        return observation, reward, ended, nothing, info

    def _settle(self, illegal: Array) -> Outcome:
        """The outcome of the episodes that end, zero in the rows of the others."""
        rows = np.flatnonzero(self.progress.complete)
        if not len(rows):
            return _illegal(illegal)
        found = self._solve(self.instance[rows], self.progress.pair[rows])

        def spread(x: Array) -> Array:
            full = np.zeros((self.num_envs, *x.shape[1:]), x.dtype)
            full[rows] = x
            return full

        violation = {name: spread(value) for name, value in found.violation.items()}
        violation["pairing"][illegal] = 1.0
        terms = {name: spread(value) for name, value in found.terms.items()}
        return Outcome(spread(found.objective), violation, terms)

    def _check_actions(self, actions: Any) -> Array:
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), got {actions.shape}")
        if actions.dtype.kind not in "iu":
            raise TypeError(f"actions must be integers, got {actions.dtype}")
        for value in actions[(actions < 0) | (actions >= self.params.num_pairs)]:
            raise ValueError(f"actions must be pairs, from 0 to {self.params.num_pairs - 1}, got {value}")
        return actions


def _illegal(where: Array) -> Outcome:
    """The outcome of episodes that end by a pair with a user that is taken."""
    return Outcome(np.zeros(len(where)), {"pairing": where.astype(float)}, {})
