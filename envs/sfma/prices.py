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
    low = np.minimum(physics.distortion_floor(params, link), 1.0).astype(np.float32)
    link = link.map(lambda x: x.astype(np.float32))
    powers = np.geomspace(LEAST_POWER, params.num_groups, POWERS)
    multiples = np.geomspace(1.0, MOST_BANDWIDTH, BANDWIDTHS)
    p, b, ratio = grid(params, link, low, powers, np.linspace(1.0, 0.0, RATIOS), multiples)
    fits = np.repeat(b[..., ::BANDWIDTHS] <= params.max_bandwidth_hz, BANDWIDTHS, axis=-1)  # the floor does
    b = np.minimum(b, params.max_bandwidth_hz)
    rate, energy = outcome(params, link, p, b, ratio)
    value = np.where(fits, rate * (physics.MBIT / SCALE), NEVER)
    use = (p / params.max_power_w, b / params.max_bandwidth_hz, energy / params.max_energy_j)
    return Table(np.stack([value, *use], axis=-1), ratio)


def grid(
    params: Params, link: Links, low: Array, powers: Array, exponents: Array, multiples: Array
) -> tuple[Array, Array, Array]:
    """Power [W], bandwidth [Hz], ratio of every combination for pairs (n, P), each (n, P, G) in the dtype of ``low``.

    powers: over an equal share. exponents: of the ratios over ``low`` (n, P), the distortion floor. multiples: of the
    least bandwidth that meets the latency limit; they vary fastest.
    """
    n, count = low.shape
    shape = (n * count, len(powers), len(exponents))
    watt = (params.max_power_w / params.num_groups * powers).astype(low.dtype)
    p = np.broadcast_to(watt[:, None], shape).reshape(n * count, -1)
    ratio = np.broadcast_to((low.reshape(-1, 1) ** exponents.astype(low.dtype))[:, None], shape).reshape(n * count, -1)
    floor = limits.bandwidth_floor(params, _flat(link), p, ratio)
    b = floor[..., None] * multiples.astype(low.dtype)
    p, ratio = (np.repeat(x, len(multiples), axis=-1) for x in (p, ratio))
    return p.reshape(n, count, -1), b.reshape(n, count, -1), ratio.reshape(n, count, -1)


def outcome(params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array) -> tuple[Array, Array]:
    """Sum rate [bit/s] and energy [J] of the points (n, P, G) of pairs."""
    flat = _flat(link)
    p, b, delta = (x.reshape(-1, x.shape[-1]) for x in (power_w, bandwidth_hz, ratio))
    rate = physics.rates(flat, p, b, delta)
    energy = physics.energy(params, p, physics.delays(flat, rate, delta), delta)
    return rate.sum(-1).reshape(power_w.shape), energy.reshape(power_w.shape)


def _flat(link: Links) -> Links:
    """The pairs (n, P) as rows of one column, so that their points can be the second axis."""
    return link.map(lambda x: x.reshape(-1, 1, *x.shape[2:]))


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
