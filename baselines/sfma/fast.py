"""A batched solver: prices from a table of every pair, a matching at those prices, and a climb for the best few.

Groups are interchangeable, so at prices of power, bandwidth and energy every pair has one value, and the relaxed
problem is a perfect matching of largest total value. The prices are searched by an ellipsoid method on a coarse table;
the matchings that are best at the final prices then compete with their true sum rates.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.sfma import limits, pairs, physics, resources
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import Allocation, Links

POWERS, RATIOS, BANDWIDTHS = 12, 5, 8  # points of the table along each axis
LEAST_POWER = 0.1  # of an equal share
MOST_BANDWIDTH = 60.0  # times the floor
CHUNK = 8  # instances whose tables are held at once, at 45 pairs
SCALE = 100.0  # Mbit/s, so that prices are shares of about one
CENTRE, RADIUS = (0.2, 0.8, 0.1), (0.25, 0.4, 0.2)  # of the first ellipsoid: value of each whole budget over SCALE
STEPS = 50
FORBIDDEN = 1e3  # off the value of a pair outside (21)


def solve(params: Params, instance: Instance, *, candidates: int = 3, rounds: int | None = None) -> Solution:
    """Solve a batch. candidates: matchings that compete; rounds: of exchanging partners around the best one, by
    default 0 up to 12 users and 2 above.
    """
    validate.integer("candidates", candidates)
    rounds = (0 if params.num_users <= 12 else 2) if rounds is None else rounds
    validate.integer("rounds", rounds, low=0)
    started = time.perf_counter()
    size = max(1, CHUNK * 45 // params.num_pairs)
    parts = [_solve(params, instance[k : k + size], candidates, rounds) for k in range(0, len(instance), size)]
    done = np.full(len(instance), STEPS)
    return package("sfma", params, instance, concatenate(parts), started, iterations=done)


def _solve(params: Params, instance: Instance, candidates: int, rounds: int) -> Allocation:
    users, link = params.num_users, physics.links(params, instance)
    allowed = physics.feasible_pairs(params, instance)
    table = tabulate(params, link)
    prices = price(table, users, allowed)
    net = np.where(allowed, 0.0, -FORBIDDEN) + table.best(np.maximum(prices, 0.0))[0]
    centre = pairs.best_matching(net, users)
    found = resources.best_of(params, instance, _nearest(net, users, centre, candidates))
    for _ in range(rounds):
        other = resources.best_of(params, instance, _nearest(net, users, found.pair, candidates + 1)[:, 1:])
        better = _rate(params, instance, other) > _rate(params, instance, found)
        found = resources.choose(better, other, found)
    return found


def _nearest(net: Array, users: int, centre: Array, count: int) -> Array:
    """(n, count, K) a matching and, of those an exchange away, the ones of largest total value."""
    near = swaps(users, centre)
    total = np.take_along_axis(np.broadcast_to(net[:, None], (*near.shape[:2], net.shape[-1])), near, -1).sum(-1)
    order = np.argsort(-total, axis=-1, kind="stable")[:, : count - 1]
    return np.concatenate([centre[:, None], np.take_along_axis(near, order[..., None], 1)], axis=1)


def _rate(params: Params, instance: Instance, allocation: Allocation) -> Array:
    outcome = physics.evaluate(params, instance, allocation)
    return np.where(outcome.feasible, outcome.objective, -1.0)


@dataclasses.dataclass(frozen=True)
class Table:
    """What pairs (n, M, G) may hold: (rate over SCALE, and the shares of power, bandwidth, energy), float32 (..., 4)."""

    points: Array

    def best(self, prices: Array) -> tuple[Array, Array]:
        """Net value (n, M) of every pair at prices (n, 3), and the index of its point."""
        n, count = self.points.shape[:2]
        weights = np.concatenate([np.ones((n, 1)), -prices], axis=-1).astype(np.float32)
        net = np.matmul(self.points.reshape(n, -1, 4), weights[:, :, None]).reshape(n, count, -1)
        index = np.argmax(net, axis=-1)
        return np.take_along_axis(net, index[..., None], -1)[..., 0], index


def tabulate(params: Params, link: Links) -> Table:
    """The table of pairs (n, P): powers from a tenth of an equal share to all, ratios from the distortion floor to 1,
    bandwidths from the latency floor up. A point beyond a budget has rate -1e9."""
    n, count = link.rho_min.shape
    low = np.minimum(physics.distortion_floor(params, link), 1.0).astype(np.float32)
    flat = link.map(lambda x: x.astype(np.float32).reshape(n * count, 1, *x.shape[2:]))
    powers = params.max_power_w / params.num_groups * np.geomspace(LEAST_POWER, params.num_groups, POWERS)
    ratios = low.reshape(-1, 1) ** np.linspace(1.0, 0.0, RATIOS, dtype=np.float32)
    shape = (n * count, POWERS, RATIOS)
    p = np.broadcast_to(powers.astype(np.float32)[:, None], shape).reshape(n * count, -1)
    ratio = np.broadcast_to(ratios[:, None, :], shape).reshape(n * count, -1)
    floor = limits.bandwidth_floor(params, flat, p, ratio)
    multiples = np.geomspace(1.0, MOST_BANDWIDTH, BANDWIDTHS, dtype=np.float32)
    b = (floor[..., None] * multiples).reshape(n * count, -1)
    p, ratio = np.repeat(p, BANDWIDTHS, axis=-1), np.repeat(ratio, BANDWIDTHS, axis=-1)
    fits = np.repeat(floor <= params.max_bandwidth_hz, BANDWIDTHS, axis=-1)
    b = np.minimum(b, params.max_bandwidth_hz)
    rate = physics.rates(flat, p, b, ratio)
    energy = physics.energy(params, p, physics.delays(flat, rate, ratio), ratio)
    value = np.where(fits, rate.sum(-1) * (physics.MBIT / SCALE), -1e9)
    points = np.stack([value, p / params.max_power_w, b / params.max_bandwidth_hz, energy / params.max_energy_j], axis=-1)
    return Table(points.reshape(n, count, -1, 4))


def price(table: Table, users: int, allowed: Array, steps: int = STEPS) -> Array:
    """Prices (n, 3) near the least of the dual function over the table: the ellipsoid method with deep cuts."""
    n = len(table.points)
    centre = np.tile(np.array(CENTRE), (n, 1))
    shape = np.tile(np.diag(np.array(RADIUS) ** 2), (n, 1, 1))
    best, best_price = np.full(n, np.inf), centre
    for _ in range(steps):
        inside = np.min(centre, axis=-1) >= 0
        net, index = table.best(np.maximum(centre, 0.0))
        chosen = pairs.best_matching(np.where(allowed, net, net - FORBIDDEN), users)
        used = _points(table, index, chosen)[..., 1:].sum(axis=1)
        dual = np.take_along_axis(net, chosen, -1).sum(-1) + centre.sum(-1)
        better = inside & (dual < best)
        best, best_price = np.where(better, dual, best), np.where(better[:, None], centre, best_price)
        slope = np.where(inside[:, None], 1.0 - used, -np.eye(3)[np.argmin(centre, axis=-1)])
        centre, shape = _cut(centre, shape, slope, np.where(inside, dual - best, 0.0))
    return best_price


def _cut(centre: Array, shape: Array, slope: Array, above: Array) -> tuple[Array, Array]:
    """The least ellipsoid around the half of an ellipsoid where slope (x - centre) <= -above."""
    along = np.einsum("nij,nj->ni", shape, slope)
    length = np.sqrt(np.maximum(np.sum(slope * along, axis=-1), 1e-30))
    depth = np.clip(above / length, 0.0, 0.9)
    centre = centre - ((1.0 + 3.0 * depth) / (4.0 * length))[:, None] * along
    shrink = (2.0 * (1.0 + 3.0 * depth) / (4.0 * (1.0 + depth)) / length**2)[:, None, None]
    factor = (9.0 / 8.0 * (1.0 - depth**2))[:, None, None]
    return centre, factor * (shape - shrink * along[:, :, None] * along[:, None, :])


def _points(table: Table, index: Array, chosen: Array) -> Array:
    """(n, K, 4) the points of the chosen pairs."""
    return table.points[np.arange(len(chosen))[:, None], chosen, np.take_along_axis(index, chosen, -1)]


def swaps(users: int, chosen: Array) -> Array:
    """(n, S, K) all matchings that exchange partners between two groups of the matching (n, K)."""
    both = pairs.members(users)[chosen]  # (n, K, 2)
    groups = chosen.shape[-1]
    first, second = np.triu_indices(groups, 1)
    table = pairs.index(users)
    found = np.repeat(chosen[:, None, :], 2 * len(first), axis=1)
    row = np.arange(len(first))
    for kind in range(2):
        a, b, c, d = both[:, first, 0], both[:, first, 1], both[:, second, kind], both[:, second, 1 - kind]
        found[:, 2 * row + kind, first] = table[a, c]
        found[:, 2 * row + kind, second] = table[b, d]
    return found
