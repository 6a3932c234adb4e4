"""A batched solver: a lattice over all dual uplink powers, then random moves around the best points.

By duality the problem is min F(q) over q >= 0 that sum to P_max, F the weighted sum of every user's distortion at its
best codec. F falls in stairs, a stair per codec, so gradients lead nowhere; but it costs 0.2 microseconds.
"""

from __future__ import annotations

import functools
import itertools
import math
import time

import numpy as np

from semcom_gym.baselines.ascc import minors
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, chunk, namespace, where_smallest
from semcom_gym.envs.ascc import actions, physics
from semcom_gym.envs.ascc.instance import Instance, Params
from semcom_gym.envs.ascc.physics import Allocation

CHUNK = 64  # instances at a time: where the temporaries still fit the cache
GPU_CHUNK = 1024  # fills a GPU within some GiB of its memory
LATTICE, FINEST = 1000, 40  # points at most, and steps
BENDS = (1, 2, 3)  # the lattice as it is, and drawn towards the corners, where near users live beside far ones
MOST_SEEDS = 8  # points kept
WIDEST, SHRINK = 0.35, 0.7  # spread of the first moves in log power, and of each round relative to the one before


def solve(params: Params, instance: Instance, *, rounds: int = 12, moves: int | None = None) -> Solution:
    """Dual uplink powers, beams and codecs for every instance.

    rounds: of random moves around the best points, of ever smaller spread; moves: per point and round, 8 (K - 1) if
    None.
    """
    moves = 8 * max(params.num_users - 1, 1) if moves is None else moves
    validate.integer("rounds", rounds, low=0)
    validate.integer("moves", moves)
    started = time.perf_counter()
    minors_fit = params.num_users <= minors.MOST_USERS  # else a point takes several matrices
    size = chunk(instance.channel_re, CHUNK, GPU_CHUNK if minors_fit else CHUNK)
    dual = namespace(instance.channel_re).concat([
        search(params, minors.Gains(instance[start : start + size]), rounds, moves)
        for start in range(0, len(instance), size)
    ])  # fmt: skip
    return package("ascc", params, instance, at(params, instance, dual), started, iterations=np.full(len(dual), rounds))


def at(params: Params, instance: Instance, dual: Array) -> Allocation:
    """The best allocation at dual uplink powers (n, K): MMSE beams and the codecs of least distortion."""
    power, beam, sinr = actions.realise(instance, dual)
    xp = namespace(beam)
    return Allocation(power, xp.real(beam), xp.imag(beam), physics.best_index(params, sinr))


def search(params: Params, gains: minors.Gains, rounds: int, moves: int) -> Array:
    """Dual uplink powers (n, K) for the instances of ``gains``."""
    n, users = len(gains), params.num_users
    xp, values = namespace(gains.gram), minors.values(params)
    points = params.max_power_w * gains.constant(lattice(users))
    found = values.near(points * gains.at(points)).sum(1)
    kept = min(MOST_SEEDS, max(users * (users - 1) // 2, 1))
    first = where_smallest(found, kept)
    power, value = points[0].T[first], xp.take_along_axis(found, first, axis=1)  # (n, kept, K), (n, kept)
    spreads = (WIDEST * SHRINK ** np.arange(rounds)).tolist()
    for spread, move in zip(spreads, gains.constant(directions(users, moves, rounds)), strict=True):
        trial = (power.swapaxes(1, 2)[..., None] * xp.exp(spread * move)[:, None]).reshape(n, users, -1)
        trial *= params.max_power_w / trial.sum(1)[:, None]
        result = values.near(trial * gains.at(trial)).sum(1).reshape(n, kept, -1)
        best = result.argmin(-1)[..., None]
        found = xp.take_along_axis(result, best, axis=-1)[..., 0]
        moved = xp.take_along_axis(trial.reshape(n, users, kept, -1), best[:, None], axis=-1)[..., 0].swapaxes(1, 2)
        power = xp.where((found < value)[..., None], moved, power)
        value = xp.minimum(found, value)
    return xp.take_along_axis(power, value.argmin(-1)[:, None, None], axis=1)[:, 0]


@functools.cache
def lattice(users: int) -> Array:
    """(1, K, m) points of the simplex: all multiples of a step, the finest that makes at most ``LATTICE`` of them, once
    for each of ``BENDS``; and its middle.
    """
    steps = 1
    while users > 1 and steps < FINEST and math.comb(steps + users, users - 1) <= LATTICE:
        steps += 1
    bars = list(itertools.combinations(range(steps + users - 1), users - 1))  # that part the steps among the users
    ends = np.array([(-1, *bar, steps + users - 1) for bar in bars])
    even = (np.diff(ends, axis=1) - 1).T[None] / steps
    points = np.concat([*(even**bend for bend in BENDS), np.ones((1, users, 1))], axis=-1)
    return points / points.sum(1, keepdims=True)


@functools.cache
def directions(users: int, moves: int, rounds: int) -> Array:
    """(rounds, K, moves) standard normal moves in log power, the same for all instances."""
    return np.random.default_rng(0).standard_normal((rounds, users, moves))
