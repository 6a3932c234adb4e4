"""What an expert, any registered solver, does in the states that an agent meets: the labels of imitation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces

from semcom_gym import baselines
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.outcome import UnreachableError
from semcom_gym.envs.sfma import pairs, physics

NUDGE = 0.1  # how far an action entry is moved to see what it matters: about the error that imitation leaves
ROUNDING = 1e-12  # of the reward
OUT_OF_REACH = 1e3  # times the distortion limit, of pairs with a user that is taken


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the expert does in n states; rows count where ``known`` (n,) says so.

    target: actions (n, d) in [-1, 1], or for choices (n, M): 1 for a pair that the expert could choose now, 0 for
    another that may be chosen, -1 for the rest. weight (n, d): of the squared error of an entry, 0 where it
    decides nothing; ones for choices.
    """

    target: Array
    weight: Array
    known: Array


class Expert:
    """A solver beside a NumPy float64 vector environment, asked at its current states.

    Raises ValueError for an unknown method and for one that stands for another transceiver, TypeError for an
    environment that a solver cannot answer.
    """

    def __init__(self, venv: Any, method: str, weighted: bool = False) -> None:
        problem = venv.problem
        other = baselines.solution.transceiver(problem.name, method)
        if other is not None:
            raise ValueError(
                f"{problem.name} method {method!r} is no expert: it stands for another transceiver, {other}"
            )
        if venv.backend != "numpy" or venv.dtype != np.float64:
            raise TypeError("a solver works in float64: env must come from make_vec_env(..., dtype='float64')")
        self.choices = isinstance(venv.single_action_space, spaces.Discrete)
        if not self.choices and venv.action_layout.pair_blocks:
            raise TypeError("an action that holds a matching has no error to lower: imitate on SemCom/SFMAPairing-v0")
        self.venv, self.method, self.weighted = venv, method, weighted
        # (n, M) the pairs of the expert's pairing
        self._own = np.zeros((venv.num_envs, venv.params.num_pairs if self.choices else 0), bool)
        self._known = np.zeros(venv.num_envs, bool)

    def labels(self) -> Labels:
        """What the expert does now."""
        return self._choices() if self.choices else self._actions()

    def _actions(self) -> Labels:
        venv = self.venv
        problem, params, instance = venv.problem, venv.params, venv.instance
        solution = baselines.solve(problem.name, params, instance, self.method)
        target, known = encoded(problem, params, instance, solution)
        weight = np.ones_like(target)
        rows = np.flatnonzero(known)
        if len(rows):
            cost = stakes(problem, params, instance[rows], target[rows], venv.penalty)
            weight[rows] = cost if self.weighted else cost > 0
        return Labels(target, weight, known)

    def _choices(self) -> Labels:
        """The pairs of the expert's pairing that are not chosen yet.

        Where the choices so far are not the expert's, it solves what is left anew: see :func:`with_taken`.
        """
        progress, params = self.venv.progress, self.venv.params
        chosen = _mask(params.num_pairs, progress.pair, progress.steps)
        fresh = progress.steps == 0
        rows = np.flatnonzero(fresh | (self._known & (chosen & ~self._own).any(axis=1)))
        if len(rows):
            instance = with_taken(params, self.venv.instance[rows], chosen[rows])
            solution = baselines.solve("sfma", params, instance, self.method)
            self._own[rows] = _mask(params.num_pairs, solution.allocation.pair)
            kept = ~(chosen[rows] & ~self._own[rows]).any(axis=1)  # not every solver heeds (21)
            self._known[rows] = np.asarray(solution.feasible) & kept
        target = np.where(progress.allowed, 0.0, -1.0)
        target[self._own & progress.allowed] = 1.0
        known = self._known & (target > 0).any(axis=1)
        return Labels(target, np.ones_like(target), known)


def encoded(problem: Any, params: Any, instance: Any, solution: Any) -> tuple[Array, Array]:
    """Actions (n, d) that stand for a solution's allocations, zero where there is none, and where there is one (n,).

    There is none for an allocation that breaks a constraint, or lies below what an action reaches.
    """
    known = np.asarray(solution.feasible).copy()
    actions = np.zeros((len(known), problem.action_layout(params).size))
    try:
        rows = np.flatnonzero(known)
        if len(rows):
            actions[rows] = problem.encode(params, instance[rows], solution.allocation[rows])
    except UnreachableError:  # names one instance only: one by one
        for row in rows:
            try:
                actions[row] = problem.encode(params, instance[int(row)], solution.allocation[int(row)])[0]
            except UnreachableError:
                known[row] = False
    return actions, known


def stakes(problem: Any, params: Any, instance: Any, actions: Array, penalty: float) -> Array:
    """(n, d) what an error in each entry of ``actions`` (n, d) costs: the reward lost per squared step, at least 0.

    Every entry is moved by NUDGE to either side, all else equal, and the dearer move counts. Where neither costs
    anything the entry may be a switch, and is moved to the ends of the box instead. An entry that decides nothing, such
    as the share of a user that is not selected, costs 0.
    """
    best = problem.play(params, instance, actions, penalty)[1]

    def cost(entry: int, step: float) -> Array:
        moved = actions.copy()
        moved[:, entry] = np.clip(moved[:, entry] + step, -1.0, 1.0)
        way = np.maximum(np.abs(moved[:, entry] - actions[:, entry]), 0.5 * NUDGE)  # no more to say at an end
        lost = best - problem.play(params, instance, moved, penalty)[1]
        return np.where(lost > ROUNDING * np.abs(best), lost, 0.0) / way**2

    found = np.zeros_like(actions)
    for entry in range(actions.shape[1]):
        found[:, entry] = np.maximum(cost(entry, NUDGE), cost(entry, -NUDGE))
        if not found[:, entry].all():
            ends = np.maximum(cost(entry, 2.0), cost(entry, -2.0))
            found[:, entry] = np.where(found[:, entry] > 0, found[:, entry], ends)
    return found


def with_taken(params: Any, instance: Any, chosen: Array) -> Any:
    """The instances in which the pairs in ``chosen`` (n, M) bool are the only ones of their users inside E_f (21).

    So any solver that heeds (21) answers with the best completion of the choices so far.
    """
    user = pairs.members(params.num_users)
    taken = np.zeros((len(chosen), params.num_users), bool)
    row, pair = np.nonzero(chosen)
    taken[row[:, None], user[pair]] = True
    barred = taken[:, user].any(axis=-1) & ~chosen
    least = physics.least_distortion(params, instance)
    level = instance.distortion_level
    far = level * (OUT_OF_REACH * params.max_distortion / least)
    return dataclasses.replace(instance, distortion_level=np.where(barred[..., None], far, level))


def _mask(count: int, pair: Array, steps: Array | None = None) -> Array:
    """(n, count) bool: the first ``steps`` (n,) of the pairs (n, K), all by default."""
    mask = np.zeros((len(pair), count), bool)
    first = np.ones(pair.shape, bool) if steps is None else np.arange(pair.shape[1]) < steps[:, None]
    row, column = np.nonzero(first)
    mask[row, pair[row, column]] = True
    return mask
