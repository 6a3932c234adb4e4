"""The simple pairings: equal shares (scheme 6), the classical NOMA pairing (scheme 5) and a random one (Section IV).

``equal`` is batched and is the anchor of the scores. The other two optimise power, bandwidth and ratio of their
pairing by Algorithms 1 and 2, one instance at a time.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from semcom_gym.baselines.sfma import compression
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.sfma import actions, frugal, pairs, physics, resources
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import Allocation, Links

CHUNK = 1024
NEVER = 1e4  # off a pair without a feasible ratio: more than all scores together can make up for


def equal(params: Params, instance: Instance) -> Solution:
    """Scheme 6: p = Pmax / K and b = Bmax / K, the best pairing for them, ratios by Algorithm 1.

    With equal shares the groups are alike, so (38) without its energy budget is one matching of all users: the one
    with the largest sum of the pairs' best rates. Where Algorithm 1 finds no feasible ratios for it, the pairing of
    least energy is taken; where that has none either, equal shares are infeasible and the solution says so.
    iterations: of Algorithm 1's multiplier.
    """
    started = time.perf_counter()
    parts = [_equal(params, instance[low : low + CHUNK]) for low in range(0, len(instance), CHUNK)]
    iterations = np.concatenate([done for _, done in parts])
    chosen = concatenate([allocation for allocation, _ in parts])
    return package("sfma", params, instance, chosen, started, iterations=iterations)


def channel_pairing(params: Params, instance: Instance, *, solver: str = "paper", **options: Any) -> Solution:
    """Scheme 5: the strongest channel with the weakest, the next with the next, then Algorithms 1 and 2 in turn.

    solver: "fast" shares the resources by the interior-point climb of :func:`fast.solve` instead.
    options: of :func:`paper.solve`.
    """
    return _solve_pairing(params, instance, strongest_with_weakest(params, instance), solver, options)


def random_pairing(
    params: Params, instance: Instance, *, seed: int = 0, solver: str = "paper", **options: Any
) -> Solution:
    """A random pairing, drawn from ``seed``, then as :func:`channel_pairing`."""
    validate.integer("seed", seed, low=0)
    draw = np.random.default_rng(seed).random((len(instance), params.num_users))
    pair = _by_rank(np.argsort(draw, axis=-1), params.num_users)
    return _solve_pairing(params, instance, pair, solver, options)


def _solve_pairing(params: Params, instance: Instance, pair: Array, solver: str, options: dict[str, Any]) -> Solution:
    """The resources of pairs (n, K) by Algorithms 1 and 2 ("paper") or by the climb ("fast")."""
    from semcom_gym.baselines.sfma import paper  # it stands on this file

    validate.choice("solver of a pairing", solver, ("paper", "fast"))
    if solver == "paper":
        return paper.solve_pairing(params, instance, pair, **options)
    validate.keywords("options of solver 'fast'", options, ())
    started = time.perf_counter()
    return package("sfma", params, instance, resources.allocate(params, instance, pair), started)


def best_pairing(params: Params, instance: Instance) -> Array:
    """(n, K) the perfect matching of largest sum rate at equal shares, each pair at its best ratio by itself."""
    return _match(params, instance, 1.0, 0.0)


def strongest_with_weakest(params: Params, instance: Instance) -> Array:
    """(n, K) the classical NOMA pairing [27]: in order of gain, user k with user N + 1 - k."""
    return _by_rank(np.argsort(instance.gain, axis=-1, kind="stable"), params.num_users)


def equal_shares(params: Params, n: int) -> tuple[Array, Array]:
    """Power [W] and bandwidth [Hz] of every group, (n, K)."""
    ones = np.ones((n, params.num_groups))
    return ones * (params.max_power_w / params.num_groups), ones * (params.max_bandwidth_hz / params.num_groups)


def start(params: Params, instance: Instance, pair: Array) -> Allocation:
    """A first allocation of the pairs (n, K), with the ratios of Algorithm 1: the first of these that is feasible.

    1. Equal shares. 2. Equal power; what bandwidth each group needs at its distortion floor delta^D, and an equal share
    of the rest. 3. The shares of little energy of :mod:`frugal`. Where none is, the third, and ``evaluate`` says why.
    """
    link = physics.links(params, instance, pair)
    power, bandwidth = equal_shares(params, len(pair))
    ratio, feasible, _ = compression.optimise(params, link, power, bandwidth)
    for other in (_equal_rest, frugal.shares):
        rows = np.flatnonzero(~feasible)
        if len(rows):
            power[rows], bandwidth[rows] = other(params, link[rows])
            ratio[rows], feasible[rows], _ = compression.optimise(params, link[rows], power[rows], bandwidth[rows])
    return Allocation(pair, power, bandwidth, ratio)


def _equal_rest(params: Params, link: Links) -> tuple[Array, Array]:
    shape = link.rho_min.shape
    other = actions.allot(params, link, np.zeros(shape, int), np.zeros((shape[0], 3, shape[1])))
    return other.power_w, other.bandwidth_hz


def _equal(params: Params, instance: Instance) -> tuple[Allocation, Array]:
    power, bandwidth = equal_shares(params, len(instance))
    pair = best_pairing(params, instance)
    ratio, feasible, done = compression.optimise(params, physics.links(params, instance, pair), power, bandwidth)
    rows = np.flatnonzero(~feasible)
    if len(rows):
        thrifty = _match(params, instance[rows], 0.0, 1.0)
        link = physics.links(params, instance[rows], thrifty)
        other, cured, more = compression.optimise(params, link, power[rows], bandwidth[rows])
        pair[rows[cured]], ratio[rows[cured]] = thrifty[cured], other[cured]
        done[rows] += more
    return Allocation(pair, power, bandwidth, ratio), done


def _match(params: Params, instance: Instance, worth: float, cost: float) -> Array:
    """(n, K) the matching of largest total of worth times rate [Mbit/s] - cost times energy [J] at equal shares."""
    link = physics.links(params, instance)
    shape = link.rho_min.shape
    power, bandwidth = (np.broadcast_to(x[:, :1], shape) for x in equal_shares(params, len(instance)))
    _, rate, energy = compression.respond(params, link, power, bandwidth, worth, cost)
    possible = np.isfinite(rate)
    score = worth * np.where(possible, rate, 0.0) - cost * np.where(possible, energy, 0.0)
    return pairs.best_matching(np.where(possible, score, -NEVER), params.num_users)


def _by_rank(order: Array, users: int) -> Array:
    """(n, K) the first user of each row of ``order`` (n, N) with the last, the second with the last but one."""
    return pairs.index(users)[order[:, : users // 2], order[:, : users // 2 - 1 : -1]]
