"""Algorithm 3: which pair each group serves, at fixed power, bandwidth and ratio of the groups (37)-(46).

Prices of users nu and of energy theta turn (38) into one choice per group (42). The prices are moved by subgradient
steps (43a)-(43b); then conflicts are resolved, the users left over are matched (44) and assigned (45), or repaired
together (46), and groups swap pairs while that helps.

The paper also prices distortion, lambda^D (43c). Those prices would stay zero: every edge of (37) has a ratio of at
least delta^D, so its users meet their distortion limits and no choice can break (38d). They are left out.
In the paper (38b) is an inequality with nu >= 0. As K groups choose K pairs of N = 2 K users, it holds with equality;
adding the same number to all prices changes no choice, so nu >= 0 costs nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.optimize
import scipy.sparse

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, total
from semcom_gym.envs.sfma import pairs, physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import MBIT, Allocation

DUAL_STEPS = 60
NEVER = 1e6  # [Mbit/s] off a forbidden edge in a matching, and per unit of relative energy excess in a swap


@dataclasses.dataclass(frozen=True)
class Prices:
    """The dual variables: nu (N,) of the users [Mbit/s] and theta of energy [Mbit/s per J]."""

    user: Array
    energy: float = 0.0


@dataclasses.dataclass(frozen=True)
class Edges:
    """Every pair in every group, (K, M): sum rate [Mbit/s] (13), energy [J] (16), and whether it is in (37)."""

    rate: Array
    energy: Array
    allowed: Array

    def utility(self, price: float) -> Array:
        """Phi (39), (K, M); -inf outside (37)."""
        return np.where(self.allowed, self.rate - price * self.energy, -np.inf)


def optimise(
    params: Params,
    instance: Instance,
    allocation: Allocation,
    *,
    prices: Prices | None = None,
    steps: int = DUAL_STEPS,
) -> tuple[Array | None, Prices, int]:
    """Algorithm 3 for one instance: the pairs (1, K) of the groups of ``allocation``, the new prices, the dual steps.

    instance, allocation: batches of one; the allocation's own pairs play no part. prices: to start from, zero by
    default. steps: at most; fewer when a choice meets every relaxed constraint and spends no price in vain, which
    makes it optimal for (38). The pairs are None where the residual problem has no solution or the energy budget
    (38c) is still broken after the swaps.
    """
    validate.integer("steps", steps)
    found = edges(params, instance, allocation)
    prices = Prices(np.zeros(params.num_users)) if prices is None else prices
    if not found.allowed.any(-1).all():
        return None, prices, 0
    prices, done = price(params, found, prices, steps)
    reduced = reduced_utility(params, found, prices)
    pair = complete(params, reduced, resolve(params, reduced))
    if pair is None:
        return None, prices, done
    pair = swap(params, found, pair)
    if total(_at(found.energy, pair)) > params.max_energy_j * (1.0 + 1e-9):
        return None, prices, done
    return pair[None], prices, done


def edges(params: Params, instance: Instance, allocation: Allocation) -> Edges:
    """The tables of one instance, with the dynamic feasible edge sets (37) of the groups."""
    link = physics.links(params, instance)
    power, bandwidth, ratio = (
        np.broadcast_to(x[0][:, None], (params.num_groups, params.num_pairs))
        for x in (allocation.power_w, allocation.bandwidth_hz, allocation.ratio)
    )
    rate = physics.rates(link, power, bandwidth, ratio)
    delay = physics.delays(link, rate, ratio)
    # rounding must not drop the pair that a group serves at a limit
    in_time = (rate * (1.0 + 1e-9) >= physics.rate_floor(link, ratio)).all(-1)
    sharp = ratio * (1.0 + 1e-9) >= physics.distortion_floor(params, link)
    allowed = physics.feasible_pairs(params, instance) & in_time & sharp
    return Edges(MBIT * total(rate), physics.energy(params, power, delay, ratio), allowed)


def reduced_utility(params: Params, edge: Edges, prices: Prices) -> Array:
    """(40), (K, M): utility at the price of energy minus the prices of both users."""
    return edge.utility(prices.energy) - total(prices.user[pairs.members(params.num_users)])


def price(params: Params, edge: Edges, prices: Prices, steps: int) -> tuple[Prices, int]:
    """The subgradient loop of Algorithm 3, (42) and (43a)-(43b); returns the prices and the steps taken.

    The step sizes fall as 1 / sqrt(t), from 0.3 of the spread of the utilities per user too many, and from the
    price at which the whole energy budget is worth the best group's rate, per unit of relative excess.
    """
    member = pairs.members(params.num_users)
    group = np.arange(params.num_groups)
    rate = edge.rate[edge.allowed]
    by_user = 0.3 * float(np.ptp(rate)) + 1e-3
    by_energy = float(rate.max()) / params.max_energy_j
    for step in range(1, steps + 1):
        chosen = np.argmax(reduced_utility(params, edge, prices), axis=-1)  # (42)
        uses = np.bincount(member[chosen].ravel(), minlength=params.num_users)
        excess = float(edge.energy[group, chosen].sum()) / params.max_energy_j - 1.0
        wasted = prices.energy * -excess * params.max_energy_j
        if (uses == 1).all() and excess <= 0 and wasted <= 1e-6 * float(rate.max()):
            return prices, step
        size = step**-0.5
        user = np.maximum(prices.user + size * by_user * (uses - 1), 0.0)
        prices = Prices(user, max(prices.energy + size * by_energy * excess, 0.0))
    return prices, steps


def resolve(params: Params, reduced: Array) -> Array:
    """Stage 1: (K,) the pair of each group that keeps its choice (42), -1 of the others.

    A user keeps only its choice of largest reduced utility; a group keeps its choice if both users do.
    """
    chosen = np.argmax(reduced, axis=-1)
    value = reduced[np.arange(len(chosen)), chosen]
    user = pairs.members(params.num_users)[chosen]  # (K, 2)
    kept = np.full(len(chosen), -1)
    shared = (user[:, None, :, None] == user[None, :, None, :]).any((-1, -2))  # groups that meet in a user
    rank = np.argsort(np.argsort(-value, kind="stable"), kind="stable")
    rival = np.where(shared, rank[None], len(chosen)).min(-1)
    kept[rival == rank] = chosen[rival == rank]
    return kept


def complete(params: Params, reduced: Array, kept: Array) -> Array | None:
    """Stage 2: (K,) a pair of every group, by (44) and (45), or by (46) where one of them fails; None where all do."""
    group = np.flatnonzero(kept < 0)
    if not len(group):
        return kept
    used = pairs.members(params.num_users)[kept[kept >= 0]].ravel()
    user = np.setdiff1d(np.arange(params.num_users), used)
    left = pairs.index(params.num_users)[user[pairs.members(len(user))].T[0], user[pairs.members(len(user))].T[1]]
    utility = reduced[np.ix_(group, left)]
    found = _match_and_assign(utility, len(user))
    if found is None:
        found = _repair(utility, len(user))
    if found is None:
        return None
    pair = kept.copy()
    pair[group] = left[found]
    return pair


def _match_and_assign(utility: Array, users: int) -> Array | None:
    """(44), then (45): the pair of every free group, of the pairs of the free users (groups, pairs); None if none."""
    best = utility.max(0)
    if np.isneginf(best).all():
        return None
    score = np.where(np.isneginf(best), best[np.isfinite(best)].min() - NEVER, best)
    matched = pairs.best_matching(score[None], users)[0]  # (44)
    if np.isneginf(best[matched]).any():
        return None
    try:
        row, column = scipy.optimize.linear_sum_assignment(utility[:, matched], maximize=True)  # (45)
    except ValueError:  # no assignment avoids the edges at -inf
        return None
    return matched[column[np.argsort(row)]]


def _repair(utility: Array, users: int) -> Array | None:
    """(46): pairs of all free groups at once, as an integer program; None where it has no solution."""
    group, pair = np.nonzero(np.isfinite(utility))
    if not len(group):
        return None
    column = np.arange(len(group))
    member = pairs.members(users)[pair]
    once = scipy.sparse.coo_matrix(
        (np.ones(3 * len(group)), (np.r_[group, len(utility) + member.T.ravel()], np.tile(column, 3))),
        shape=(len(utility) + users, len(group)),
    )
    result = scipy.optimize.milp(
        -utility[group, pair],
        integrality=np.ones(len(group), int),
        bounds=scipy.optimize.Bounds(0, 1),
        constraints=scipy.optimize.LinearConstraint(once.tocsr(), 1, 1),
    )
    if result.x is None:
        return None
    taken = np.flatnonzero(result.x > 0.5)
    chosen = np.empty(len(utility), int)
    chosen[group[taken]] = pair[taken]
    return chosen


def swap(params: Params, edge: Edges, pair: Array) -> Array:
    """Pairs (K,) after the best swap of two groups' pairs, again and again until none raises the sum rate.

    A swap must keep both edges in (37), and the energy budget where it was met; where it was not, less energy first.
    """
    pair = pair.copy()
    rate, energy = np.where(edge.allowed, edge.rate, -np.inf), edge.energy
    limit = params.max_energy_j

    def worth(rates: Array, spent: Array) -> Array:
        return rates - NEVER * np.maximum(spent / limit - 1.0, 0.0)

    while True:
        by_rate, by_energy = _change(rate[:, pair]), _change(energy[:, pair])
        now = float(_at(edge.rate, pair).sum()), float(_at(energy, pair).sum())
        gain = worth(now[0] + by_rate, now[1] + by_energy) - worth(*now)
        k, other = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[k, other] <= 1e-9 * max(now[0], 1.0):
            return pair
        pair[[k, other]] = pair[[other, k]]


def _change(table: Array) -> Array:
    """(K, K) what swapping the pairs of two groups adds, of a table (group, group whose pair it has)."""
    own = np.diagonal(table)
    return table + table.T - own[:, None] - own[None]


def _at(table: Array, pair: Array) -> Array:
    return table[np.arange(len(pair)), pair]
