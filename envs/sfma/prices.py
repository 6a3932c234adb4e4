"""What power, bandwidth and energy are worth: pairs tabulated on a coarse grid, prices by the ellipsoid method.

At prices of the three budgets every pair has one value, whatever group it is in, and what is left of the problem is a
choice of pairs of largest total value. That relaxation is nearly tight; its prices tell which pairs belong together
and what each should hold.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from semcom_gym.envs.arrays import Array, at_least, at_most, in_order, largest, like, namespace, smallest, total
from semcom_gym.envs.sfma import limits, physics
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import LN2, Links

POWERS, RATIOS, BANDWIDTHS = 12, 5, 8  # points of the table along each axis
LEAST_POWER = 0.1  # of an equal share
MOST_BANDWIDTH = 60.0  # times the floor
SCALE = 100.0  # Mbit/s, so that prices are shares of about one
# of the first ellipsoid: value of each whole budget over SCALE, and the squares of its axes
CENTRE, SHAPE = np.array((0.2, 0.8, 0.1)), np.diag(np.array((0.25, 0.4, 0.2)) ** 2)
INWARDS = -np.eye(3)  # where a price is negative
EXPONENTS = np.linspace(1.0, 0.0, RATIOS)
MULTIPLES = np.geomspace(1.0, MOST_BANDWIDTH, BANDWIDTHS)
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
        xp = namespace(prices)
        n, _, count, points = self.points.shape
        weights = xp.astype(xp.concat([xp.ones_like(prices[:, :1]), -prices], axis=-1), self.points.dtype)
        net = xp.matmul(weights[:, None], self.points.reshape(n, 4, -1), out=out).reshape(n, count, points)
        if most_bandwidth < 1.0:
            net = xp.where(self.points[:, 2] <= most_bandwidth, net, NEVER)
        index = xp.argmax(net, axis=-1)
        each = xp.arange(n * count, device=prices.device).reshape(n, count)
        return net.reshape(-1).take(index + points * each), index

    def at(self, pair: Array, index: Array) -> Array:
        """(n, K, 4) rate over SCALE and shares of power, bandwidth and energy of the pairs (n, K) at points (n, K)."""
        xp = namespace(pair)
        each = xp.arange(len(pair), device=pair.device)[:, None]
        return xp.astype(self.points[each, :, pair, index], xp.float64)

    def modest(self, prices: Array) -> Array:
        """(n, P, 4) rate over SCALE, shares of power and bandwidth, and ratio of pairs that do not take the lot."""
        xp = namespace(prices)
        _, index = self.best(prices, MODEST)
        found = self.at(xp.broadcast_to(xp.arange(index.shape[1], device=prices.device), index.shape), index)
        found[..., 3] = xp.take_along_axis(self.ratio, index[..., None], axis=-1)[..., 0]
        return found


def tabulate(params: Params, link: Links) -> Table:
    """The table of pairs (n, P): powers from a tenth of an equal share to all, ratios from the distortion floor to 1,
    bandwidths from the latency floor up.
    """
    xp = namespace(link.snr)
    low = at_most(physics.distortion_floor(params, link), 1.0)
    low, link = _single(low), link.map(_single)
    powers = _powers(params.max_power_w / params.num_groups, params.num_groups)
    p, b, ratio = grid(params, link, low, powers, EXPONENTS, MULTIPLES)
    points = xp.empty((len(low), 4, low.shape[1], *b.shape[2:]), dtype=low.dtype, device=low.device)
    fits = b[..., :1, :] <= params.max_bandwidth_hz  # the floor does
    xp.clip(b, None, params.max_bandwidth_hz, out=b)
    rate, energy = outcome(params, link, p, b, ratio)
    points[:, 0] = xp.where(fits, rate * (physics.MBIT / SCALE), NEVER)
    points[:, 1] = p / params.max_power_w
    points[:, 2] = b / params.max_bandwidth_hz
    points[:, 3] = energy / params.max_energy_j
    return Table(points.reshape(*points.shape[:3], -1), xp.tile(ratio[:, :, 0], (1, 1, BANDWIDTHS)))


def _single(x: Array) -> Array:
    xp = namespace(x)
    return in_order(xp.astype(x, xp.float32))


@functools.lru_cache(64)
def _powers(share_w: float, groups: int) -> Array:
    """(Q,) the powers of the table [W] in float64, where an equal share is ``share_w``."""
    return np.repeat(share_w * np.geomspace(LEAST_POWER, groups, POWERS), RATIOS)


def grid(
    params: Params, link: Links, low: Array, power_w: Array, exponents: Array, multiples: Array
) -> tuple[Array, Array, Array]:
    """Power [W] (Q,), bandwidth [Hz] (n, P, B, Q) and ratio (n, P, 1, Q) of every combination for pairs (n, P), in the
    dtype of ``low``; Q are those of power and ratio.

    power_w (Q,), exponents and multiples are constants in NumPy. exponents: of the ratios over ``low`` (n, P), the
    distortion floor, one after another at each power. multiples: of the least bandwidth that meets the latency limit.
    """
    xp, p = namespace(low), like(power_w, low)
    ratio = xp.tile(low[..., None] ** like(exponents, low), (1, 1, len(power_w) // len(exponents)))
    rows = link.map(lambda x: x.reshape(-1, 1, *x.shape[2:]))
    each = ratio.reshape(-1, len(power_w))
    floor = limits.bandwidth_floor(params, rows, xp.broadcast_to(p, each.shape), each).reshape(ratio.shape)
    return p, floor[..., None, :] * like(multiples, low)[:, None], ratio[..., None, :]


def outcome(params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array) -> tuple[Array, Array]:
    """Sum rate [bit/s] and energy [J] of the points of :func:`grid`, (n, P, B, Q), by (10)-(16)."""
    xp = namespace(ratio)
    wide = link.map(lambda x: x.reshape(*x.shape[:2], 1, 1, *x.shape[2:]))
    rho = physics.interference(wide, power_w, ratio)
    both, longest = xp.zeros_like(bandwidth_hz), xp.zeros_like(bandwidth_hz)
    for user in range(2):
        rate = bandwidth_hz / (power_w * wide.snr[..., user])
        rate += rho
        xp.log1p(xp.reciprocal(rate, out=rate), out=rate)
        rate *= bandwidth_hz / LN2
        both += rate
        xp.maximum(longest, wide.source_bit[..., user] / rate, out=longest)
    longest *= power_w * ratio
    longest -= params.energy_coefficient_j * xp.log(ratio)
    return both, longest


def search(table: Table, match: Callable[[Array], Array]) -> tuple[Array, list[tuple[Array, Array]]]:
    """Prices (n, 3) near the least of the dual function over the table: the ellipsoid method with deep cuts.

    match: from values (n, P) to the pairs chosen (n, K). The second part of the answer is what the choices met on the
    way are worth, (n,), and their use of the budgets, (n, 3), step by step.
    """
    xp, device = namespace(table.points), table.points.device
    n, _, count, points = table.points.shape
    nought = xp.zeros((n, 3), dtype=xp.float64, device=device)
    centre, shape = nought + like(CENTRE, nought), nought[..., None] + like(SHAPE, nought)
    best, best_price = xp.full((n,), np.inf, dtype=xp.float64, device=device), centre
    each, met = xp.arange(n, device=device)[:, None], []
    work = xp.empty((n, 1, count * points), dtype=table.points.dtype, device=device)
    for _ in range(STEPS):
        inside = smallest(centre) >= 0
        net, index = table.best(xp.clip(centre, 0.0, DEAREST), out=work)
        chosen = match(net)
        point = table.at(chosen, index[each, chosen]).sum(1)
        value, used = point[:, 0], point[:, 1:]
        met.append((value, used))
        dual = value + total(centre * (1.0 - used))
        better = inside & (dual < best)
        best, best_price = xp.where(better, dual, best), xp.where(better[:, None], centre, best_price)
        slope = xp.where(inside[:, None], 1.0 - used, like(INWARDS, centre)[xp.argmin(centre, axis=-1)])
        going = largest(xp.abs(centre))[:, None] < DEAREST
        moved, cut = _cut(centre, shape, slope, xp.where(inside, dual - best, 0.0))
        centre, shape = xp.where(going, moved, centre), xp.where(going[..., None], cut, shape)
    return xp.clip(best_price, 0.0, DEAREST), met


def _cut(centre: Array, shape: Array, slope: Array, above: Array) -> tuple[Array, Array]:
    """The least ellipsoid around the part of an ellipsoid where slope (x - centre) <= -above."""
    xp = namespace(centre)
    along = xp.einsum("nij,nj->ni", shape, slope)
    length = xp.sqrt(at_least(total(slope * along), 1e-30))
    depth = xp.clip(above / length, 0.0, 0.9)
    centre = centre - ((1.0 + 3.0 * depth) / (4.0 * length))[:, None] * along
    shrink = (2.0 * (1.0 + 3.0 * depth) / (4.0 * (1.0 + depth)) / length**2)[:, None, None]
    factor = (9.0 / 8.0 * (1.0 - depth**2))[:, None, None]
    return centre, factor * (shape - shrink * along[:, :, None] * along[:, None, :])
