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
from semcom_gym.envs.sfma.physics import LN2, Links

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

    points (n, 4, P, G), ratio (n, P, G), float32. A point beyond a budget has rate -1e9.
    """

    points: Array
    ratio: Array

    def best(self, prices: Array, most_bandwidth: float = np.inf, out: Array | None = None) -> tuple[Array, Array]:
        """Net value (n, P) of every pair at prices (n, 3), and the index of its point.

        out (n, 1, P G): memory to work in, which saves asking for it again and again.
        """
        n, _, count, points = self.points.shape
        weights = np.concatenate([np.ones((n, 1)), -prices], axis=-1).astype(np.float32)
        net = np.matmul(weights[:, None], self.points.reshape(n, 4, -1), out=out).reshape(n, count, points)
        if most_bandwidth < 1.0:
            net = np.where(self.points[:, 2] <= most_bandwidth, net, NEVER)
        index = np.argmax(net, axis=-1)
        return net.reshape(-1).take(index + points * np.arange(n * count).reshape(n, count)), index

    def at(self, pair: Array, index: Array) -> Array:
        """(n, K, 4) rate over SCALE and shares of power, bandwidth and energy of the pairs (n, K) at points (n, K)."""
        return self.points[np.arange(len(pair))[:, None], :, pair, index].astype(float)

    def modest(self, prices: Array) -> Array:
        """(n, P, 4) rate over SCALE, shares of power and bandwidth, and ratio of pairs that do not take the lot."""
        _, index = self.best(prices, MODEST)
        found = self.at(np.broadcast_to(np.arange(index.shape[1]), index.shape), index)
        found[..., 3] = np.take_along_axis(self.ratio, index[..., None], -1)[..., 0]
        return found


def tabulate(params: Params, link: Links) -> Table:
    """The table of pairs (n, P): powers from a tenth of an equal share to all, ratios from the distortion floor to 1,
    bandwidths from the latency floor up.
    """
    low = np.minimum(physics.distortion_floor(params, link), 1.0).astype(np.float32, order="C")
    link = link.map(lambda x: x.astype(np.float32, order="C"))
    powers = np.geomspace(LEAST_POWER, params.num_groups, POWERS)
    multiples = np.geomspace(1.0, MOST_BANDWIDTH, BANDWIDTHS)
    p, b, ratio = grid(params, link, low, powers, np.linspace(1.0, 0.0, RATIOS), multiples)
    points = np.empty((len(low), 4, low.shape[1], *b.shape[2:]), np.float32)
    fits = b[..., :1, :] <= params.max_bandwidth_hz  # the floor does
    np.minimum(b, params.max_bandwidth_hz, out=b)
    rate, energy = outcome(params, link, p, b, ratio)
    points[:, 0] = np.where(fits, rate * (physics.MBIT / SCALE), NEVER)
    points[:, 1] = p / params.max_power_w
    points[:, 2] = b / params.max_bandwidth_hz
    points[:, 3] = energy / params.max_energy_j
    return Table(points.reshape(*points.shape[:3], -1), np.tile(ratio[:, :, 0], BANDWIDTHS))


def grid(
    params: Params, link: Links, low: Array, powers: Array, exponents: Array, multiples: Array
) -> tuple[Array, Array, Array]:
    """Power [W] (Q,), bandwidth [Hz] (n, P, B, Q) and ratio (n, P, 1, Q) of every combination for pairs (n, P), in the
    dtype of ``low``; Q are those of power and ratio.

    powers: over an equal share. exponents: of the ratios over ``low`` (n, P), the distortion floor. multiples: of the
    least bandwidth that meets the latency limit.
    """
    p = np.repeat(params.max_power_w / params.num_groups * powers, len(exponents)).astype(low.dtype)
    ratio = np.tile((low[..., None] ** exponents.astype(low.dtype)), len(powers))
    rows = link.map(lambda x: x.reshape(-1, 1, *x.shape[2:]))
    each = ratio.reshape(low.size, -1)
    floor = limits.bandwidth_floor(params, rows, np.broadcast_to(p, each.shape), each).reshape(ratio.shape)
    return p, floor[..., None, :] * multiples.astype(low.dtype)[:, None], ratio[..., None, :]


def outcome(params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array) -> tuple[Array, Array]:
    """Sum rate [bit/s] and energy [J] of the points of :func:`grid`, (n, P, B, Q), by (10)-(16)."""
    wide = link.map(lambda x: x.reshape(*x.shape[:2], 1, 1, *x.shape[2:]))
    rho = physics.interference(wide, power_w, ratio)
    both, longest = np.zeros_like(bandwidth_hz), np.zeros_like(bandwidth_hz)
    for user in range(2):
        rate = bandwidth_hz / (power_w * wide.snr[..., user])
        rate += rho
        np.log1p(np.divide(1.0, rate, out=rate), out=rate)
        rate *= bandwidth_hz / LN2
        both += rate
        np.maximum(longest, wide.source_bit[..., user] / rate, out=longest)
    longest *= power_w * ratio
    longest -= params.energy_coefficient_j * np.log(ratio)
    return both, longest


def search(table: Table, match: Callable[[Array], Array]) -> tuple[Array, list[tuple[Array, Array]]]:
    """Prices (n, 3) near the least of the dual function over the table: the ellipsoid method with deep cuts.

    match: from values (n, P) to the pairs chosen (n, K). The second part of the answer is what the choices met on the
    way are worth, (n,), and their use of the budgets, (n, 3), step by step.
    """
    n = len(table.points)
    centre = np.tile(np.array(CENTRE), (n, 1))
    shape = np.tile(np.diag(np.array(RADIUS) ** 2), (n, 1, 1))
    best, best_price = np.full(n, np.inf), centre
    each, met = np.arange(n)[:, None], []
    work = np.empty((n, 1, table.ratio[0].size), np.float32)
    for _ in range(STEPS):
        inside = np.min(centre, axis=-1) >= 0
        net, index = table.best(np.clip(centre, 0.0, DEAREST), out=work)
        chosen = match(net)
        point = table.at(chosen, index[each, chosen])
        value, used = np.split(point.sum(axis=1), [1], axis=-1)
        met.append((value[:, 0], used))
        dual = value[:, 0] + np.sum(centre * (1.0 - used), axis=-1)
        better = inside & (dual < best)
        best, best_price = np.where(better, dual, best), np.where(better[:, None], centre, best_price)
        slope = np.where(inside[:, None], 1.0 - used, -np.eye(3)[np.argmin(centre, axis=-1)])
        going = np.max(np.abs(centre), axis=-1, keepdims=True) < DEAREST
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
