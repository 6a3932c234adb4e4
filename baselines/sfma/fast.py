"""A batched solver: prices from a table of every pair, a matching at those prices, and a climb for the best few.

Groups are interchangeable, so at prices of power, bandwidth and energy every pair has one value, and the relaxed
problem is a perfect matching of largest total value. The prices are searched by an ellipsoid method on a coarse table;
the matchings that are best at the final prices then compete with their true sum rates.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, chunk, concatenate, copied, like, namespace, total
from semcom_gym.envs.sfma import pairs, physics, prices, resources
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import Allocation

TABLES, CHUNK = 8, 64  # instances whose tables are held at once, and that compete at once, at 45 pairs
ELSEWHERE = 4096  # both off the CPU, at 45 pairs: 4 GB
FORBIDDEN = 1e3  # off the value of a pair outside (21)


def solve(params: Params, instance: Instance, *, candidates: int | None = None, rounds: int | None = None) -> Solution:
    """Solve a batch. candidates: matchings that compete, by default 3, and 7 up to 6 users, whose local optima lie
    further apart; rounds: of exchanging partners around the best one, by default 0 up to 12 users and 2 above.
    """
    candidates = (7 if params.num_users <= 6 else 3) if candidates is None else candidates
    validate.integer("candidates", candidates)
    rounds = (0 if params.num_users <= 12 else 2) if rounds is None else rounds
    validate.integer("rounds", rounds, low=0)
    started = time.perf_counter()
    size = max(1, chunk(instance.gain, CHUNK, ELSEWHERE) * 45 // params.num_pairs)
    parts = [_solve(params, instance[k : k + size], candidates, rounds) for k in range(0, len(instance), size)]
    done = np.full(len(instance), prices.STEPS)
    return package("sfma", params, instance, concatenate(parts), started, iterations=done)


def at_prices(params: Params, instance: Instance) -> Solution:
    """The matching at the prices alone, without competitors, and the resources found for it."""
    return solve(params, instance, candidates=1, rounds=0)


def _priced(params: Params, instance: Instance) -> tuple[Array, Array]:
    """The value (n, M) of every pair at the final prices, and what it holds if it is modest, (n, M, 4)."""
    xp = namespace(instance.gain)
    size = max(1, chunk(instance.gain, TABLES, ELSEWHERE) * 45 // params.num_pairs)
    parts = []
    for k in range(0, len(instance), size):
        part = instance[k : k + size]
        allowed = physics.feasible_pairs(params, part)
        forbidden = FORBIDDEN * (xp.astype(allowed, part.gain.dtype) - 1.0)
        table = prices.tabulate(params, physics.links(params, part))

        def match(net: Array, forbidden: Array = forbidden) -> Array:
            return pairs.best_matching(net + forbidden, params.num_users)

        price, _ = prices.search(table, match)
        parts.append((table.best(price)[0] + forbidden, table.modest(price)))
    net, modest = (xp.concat(found) for found in zip(*parts, strict=True))
    return net, modest


def _solve(params: Params, instance: Instance, candidates: int, rounds: int) -> Allocation:
    users = params.num_users
    net, modest = _priced(params, instance)

    def compete(matchings: Array) -> Allocation:
        rows = namespace(net).arange(len(instance), device=net.device)
        return resources.best_of(params, instance, matchings, modest[rows[:, None, None], matchings])

    found = compete(_nearest(net, users, pairs.best_matching(net, users), candidates))
    for _ in range(rounds):
        other = compete(_nearest(net, users, found.pair, candidates + 1)[:, 1:])
        better = _rate(params, instance, other) > _rate(params, instance, found)
        found = found.replaced(better, other[better])
    return found


def _nearest(net: Array, users: int, centre: Array, count: int) -> Array:
    """(n, count, K) a matching and, of those an exchange away, the ones of largest total value."""
    xp, near = namespace(net), swaps(users, centre)
    every = xp.broadcast_to(net[:, None], (*near.shape[:2], net.shape[-1]))
    value = total(xp.take_along_axis(every, near, axis=-1))
    order = xp.argsort(-value, axis=-1, stable=True)[:, : count - 1]
    return xp.concat([centre[:, None], xp.take_along_axis(near, order[..., None], axis=1)], axis=1)


def _rate(params: Params, instance: Instance, allocation: Allocation) -> Array:
    outcome = physics.evaluate(params, instance, allocation)
    return namespace(outcome.objective).where(outcome.feasible, outcome.objective, -1.0)


def swaps(users: int, chosen: Array) -> Array:
    """(n, S, K) all matchings that exchange partners between two groups of the matching (n, K)."""
    xp = namespace(chosen)
    both = like(pairs.members(users), chosen)[chosen]  # (n, K, 2)
    first, second = (like(table, chosen) for table in _two_groups(chosen.shape[-1]))
    table = like(pairs.index(users), chosen)
    found = copied(xp.broadcast_to(chosen[:, None, :], (len(chosen), 2 * len(first), chosen.shape[-1])))
    row = xp.arange(len(first), device=chosen.device)
    for kind in range(2):
        a, b, c, d = both[:, first, 0], both[:, first, 1], both[:, second, kind], both[:, second, 1 - kind]
        found[:, 2 * row + kind, first] = table[a, c]
        found[:, 2 * row + kind, second] = table[b, d]
    return found


@functools.cache
def _two_groups(groups: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The first and the second group of every two."""
    first, second = np.triu_indices(groups, 1)
    return first, second
