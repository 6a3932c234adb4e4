"""What power, bandwidth and energy are worth: pairs tabulated on a coarse grid, prices by the ellipsoid method.

At prices of the three budgets every pair has one value, whatever group it is in, and what is left of the problem is a
choice of pairs of largest total value. That relaxation is nearly tight; its prices tell which pairs belong together
and what each should hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from semcom_gym.envs.arrays import Array
from semcom_gym.envs.sfma import limits, physics
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import Links

POWERS, RATIOS, BANDWIDTHS = 12, 5, 8  # points of the table along each axis
LEAST_POWER = 0.1  # of an equal share
MOST_BANDWIDTH = 60.0  # times the floor
SCALE = 100.0  # Mbit/s, so that prices are shares of about one
CENTRE, RADIUS = (0.2, 0.8, 0.1), (0.25, 0.4, 0.2)  # of the first ellipsoid: value of each whole budget over SCALE
STEPS = 40
MODEST = 0.5  # of the bandwidth: at the prices that clear the budgets one group could as well hold nearly all
NEVER = -1e9
DEAREST = 1e6  # where nothing fits, prices would rise without end


@dataclasses.dataclass(frozen=True)
class Table:
    """What pairs (n, P) may hold: G points of (rate over SCALE, shares of power, bandwidth, energy), and the ratio.

    points (n, P, G, 4), ratio (n, P, G), float32. A point beyond a budget has rate -1e9.
    """

    points: Array
    ratio: Array

    def best(self, prices: Array, most_bandwidth: float = np.inf) -> tuple[Array, Array]:
        """Net value (n, P) of every pair at prices (n, 3), and the index of its point."""
        n, count = self.points.shape[:2]
        weights = np.concatenate([np.ones((n, 1)), -prices], axis=-1).astype(np.float32)
        net = np.matmul(self.points.reshape(n, -1, 4), weights[:, :, None]).reshape(n, count, -1)
        if most_bandwidth < 1.0:
            net = np.where(self.points[..., 2] <= most_bandwidth, net, NEVER)
        index = np.argmax(net, axis=-1)
        return np.take_along_axis(net, index[..., None], -1)[..., 0], index

    def modest(self, prices: Array) -> Array:
        """(n, P, 4) rate over SCALE, shares of power and bandwidth, and ratio of pairs that do not take the lot."""
        _, index = self.best(prices, MODEST)
        index = index[..., None]
        point = np.take_along_axis(self.points, index[..., None], 2)[:, :, 0, :3]
        return np.concatenate([point, np.take_along_axis(self.ratio, index, -1)], axis=-1).astype(float)


def tabulate(params: Params, link: Links) -> Table:
    """The table of pairs (n, P): powers from a tenth of an equal share to all, ratios from the distortion floor to 1,
    bandwidths from the latency floor up.
    """
    n, count = link.rho_min.shape
    low = np.minimum(physics.distortion_floor(params, link), 1.0).astype(np.float32)
    flat = link.map(lambda x: x.astype(np.float32).reshape(n * count, 1, *x.shape[2:]))
    powers = params.max_power_w / params.num_groups * np.geomspace(LEAST_POWER, params.num_groups, POWERS)
    ratios = low.reshape(-1, 1) ** np.linspace(1.0, 0.0, RATIOS, dtype=np.float32)
    shape = (n * count, POWERS, RATIOS)
    p = np.broadcast_to(powers.astype(np.float32)[:, None], shape).reshape(n * count, -1)
    ratio = np.broadcast_to(ratios[:, None, :], shape).reshape(n * count, -1)
    floor = limits.bandwidth_floor(params, flat, p, ratio)
    fits = np.repeat(floor <= params.max_bandwidth_hz, BANDWIDTHS, axis=-1)
    multiples = np.geomspace(1.0, MOST_BANDWIDTH, BANDWIDTHS, dtype=np.float32)
    b = np.minimum((floor[..., None] * multiples).reshape(n * count, -1), params.max_bandwidth_hz)
    p, ratio = np.repeat(p, BANDWIDTHS, axis=-1), np.repeat(ratio, BANDWIDTHS, axis=-1)
    rate = physics.rates(flat, p, b, ratio)
    energy = physics.energy(params, p, physics.delays(flat, rate, ratio), ratio)
    value = np.where(fits, rate.sum(-1) * (physics.MBIT / SCALE), NEVER)
    use = (p / params.max_power_w, b / params.max_bandwidth_hz, energy / params.max_energy_j)
    points = np.stack([value, *use], axis=-1)
    return Table(points.reshape(n, count, -1, 4), ratio.reshape(n, count, -1))


def search(table: Table, match: Callable[[Array], Array]) -> tuple[Array, list[tuple[Array, Array]]]:
    """Prices (n, 3) near the least of the dual function over the table: the ellipsoid method with deep cuts.

    match: from values (n, P) to the pairs chosen (n, K). The second part of the answer is what the choices met on the
    way are worth, (n,), and their use of the budgets, (n, 3), step by step.
    """
    n = len(table.points)
    centre = np.tile(np.array(CENTRE), (n, 1))
    shape = np.tile(np.diag(np.array(RADIUS) ** 2), (n, 1, 1))
    best, best_price = np.full(n, np.inf), centre
    met = []
    for _ in range(STEPS):
        inside = np.min(centre, axis=-1) >= 0
        net, index = table.best(np.clip(centre, 0.0, DEAREST))
        chosen = match(net)
        point = table.points[np.arange(n)[:, None], chosen, np.take_along_axis(index, chosen, -1)]
        value, used = np.split(point.astype(float).sum(axis=1), [1], axis=-1)
        met.append((value[:, 0], used))
        dual = np.take_along_axis(net, chosen, -1).sum(-1) + centre.sum(-1)
        better = inside & (dual < best)
        best, best_price = np.where(better, dual, best), np.where(better[:, None], centre, best_price)
        slope = np.where(inside[:, None], 1.0 - used, -np.eye(3)[np.argmin(centre, axis=-1)])
        going = np.max(centre, axis=-1, keepdims=True) < DEAREST
        moved, cut = _cut(centre, shape, slope, np.where(inside, dual - best, 0.0))
        centre, shape = np.where(going, moved, centre), np.where(going[..., None], cut, shape)
    return np.clip(best_price, 0.0, DEAREST), met


def _cut(centre: Array, shape: Array, slope: Array, above: Array) -> tuple[Array, Array]:
    """The least ellipsoid around the part of an ellipsoid where slope (x - centre) <= -above."""
    along = np.einsum("nij,nj->ni", shape, slope)
    length = np.sqrt(np.maximum(np.sum(slope * along, axis=-1), 1e-30))
    depth = np.clip(above / length, 0.0, 0.9)
    centre = centre - ((1.0 + 3.0 * depth) / (4.0 * length))[:, None] * along
    shrink = (2.0 * (1.0 + 3.0 * depth) / (4.0 * (1.0 + depth)) / length**2)[:, None, None]
    factor = (9.0 / 8.0 * (1.0 - depth**2))[:, None, None]
    return centre, factor * (shape - shrink * along[:, :, None] * along[:, None, :])
