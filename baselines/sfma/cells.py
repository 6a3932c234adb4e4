"""Points and cells of the (y, x) plane of every pair: what a point is worth at prices, and a bound of a cell.

docs/sfma.md ("The certificate") derives every step. At prices a pair is worth the largest V = R - lam p - mu b - nu E
over its power, bandwidth and ratio. With y = b / p and x = a p + beta delta + d, the argument of the logistic function
(10), V is concave in delta for fixed (y, x), with a maximum in closed form; and every quantity is monotone in y and x,
so that a cell of the (y, x) plane has an upper bound in closed form too.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from semcom_gym.baselines import dual
from semcom_gym.envs.arrays import Array, Batch, concatenate, falling
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import LN2, MBIT


@dataclasses.dataclass(frozen=True)
class Points(Batch):
    """Points of the plane, and the pair that each belongs to."""

    pair: Array
    y: Array
    x: Array


@dataclasses.dataclass(frozen=True)
class Choice(Batch):
    """Per point: net value, reward [Mbit/s], use of power [W], bandwidth [MHz] and energy [J], and the ratio."""

    net: Array
    reward: Array
    power: Array
    bandwidth: Array
    energy: Array
    ratio: Array


@dataclasses.dataclass(frozen=True)
class Cells(Batch):
    """Rectangles [y1, y2] x [x1, x2] and the pair that each belongs to."""

    pair: Array
    y1: Array
    y2: Array
    x1: Array
    x2: Array

    def middle(self) -> Points:
        """Their middle points."""
        return Points(self.pair, np.sqrt(self.y1 * self.y2), 0.5 * (self.x1 + self.x2))

    def split(self) -> Cells:
        """Each in four."""
        m = self.middle()
        return concatenate([
            Cells(self.pair, self.y1, m.y, self.x1, m.x), Cells(self.pair, m.y, self.y2, self.x1, m.x),
            Cells(self.pair, self.y1, m.y, m.x, self.x2), Cells(self.pair, m.y, self.y2, m.x, self.x2),
        ])  # fmt: skip


class Plane:
    """All pairs of n instances, those of an instance after those of the one before: index i M + m.

    Units: W, MHz, J, Mbit/s, so y is in MHz/W and prices (n, 3) are in Mbit/s per unit.
    """

    def __init__(self, params: Params, instance: Instance) -> None:
        self.count, self.each = len(instance), params.num_pairs
        self.allowed = physics.feasible_pairs(params, instance).ravel()
        self.budget = np.array([params.max_power_w, MBIT * params.max_bandwidth_hz, params.max_energy_j])
        self.zeta = params.energy_coefficient_j
        links = physics.links(params, instance)
        self.low = np.minimum(physics.distortion_floor(params, links), 1.0).ravel()
        link = physics.Links(*(x.reshape(-1, *x.shape[2:]).T for x in vars(links).values()))  # users (2, n M)
        self.a, self.beta, self.d = link.power_slope, link.ratio_slope, link.offset
        self.rho_min = link.rho_min
        self.snr, source = MBIT * link.snr, MBIT * link.source_bit
        urgent = source / np.where(self.allowed, link.spare_s, 1.0)  # rate [Mbit/s] per unit of the ratio
        self.floor = urgent * self.low
        self.of_pair = np.stack([self.a, self.beta, self.d, self.low, link.rho_min, link.rho_max - link.rho_min])
        self.of_user = np.stack([self.snr, source, urgent])

    def of(self, price: Array, pair: Array) -> tuple[Array, Array, Array]:
        """The prices (3, k) of the instances that pairs (k,) are of, what the pairs are, and what their users are."""
        return price.T.take(pair // self.each, -1), self.of_pair.take(pair, -1), self.of_user.take(pair, -1)

    def grid(self, size: int) -> Cells:
        """All (y, x) where power and bandwidth within the budgets can meet a pair's latency limits."""
        power, bandwidth, _ = self.budget
        least = np.max(self.floor * LN2 / np.log1p(1.0 / np.maximum(self.rho_min, 1e-9)), axis=0) / power
        most = np.min(self.snr / np.expm1(np.minimum(LN2 * self.floor / bandwidth, 500.0)), axis=0)
        pair = np.flatnonzero(self.allowed & (least < most))
        edges = np.linspace(0.0, 1.0, size + 1)
        y = least[pair, None] * (most[pair] / least[pair])[:, None] ** edges
        x_low = (self.beta * self.low + self.d)[pair, None]
        x = x_low + (self.a * power + self.beta * (1.0 - self.low))[pair, None] * edges
        shape = (len(pair), size, size)
        parts = (pair[:, None, None], y[:, :-1, None], y[:, 1:, None], x[:, None, :-1], x[:, None, 1:])
        return Cells(*(np.broadcast_to(part, shape).ravel() for part in parts))

    def placed(self, pair: Array, power: Array, bandwidth: Array, ratio: Array) -> Points:
        """The points of powers [W], bandwidths [MHz] and ratios."""
        return Points(pair, bandwidth / power, self.a[pair] * power + self.beta[pair] * ratio + self.d[pair])

    def value(self, price: Array, points: Points) -> Choice:
        """V at points, with the best ratio; -inf where none is feasible."""
        (lam, mu, nu), (a, beta, offset, floor, rho_min, span), (snr, source, urgent) = self.of(price, points.pair)
        power, bandwidth, _ = self.budget
        y, x = points.y, points.x
        rate = _log2(y, rho_min + span * falling(x), snr) * y  # of each user, Mbit/s per W
        both = rate[0] + rate[1]
        gain = both - lam - mu * y
        joule = np.maximum(*(source / rate))  # energy per unit of the ratio
        need = np.maximum(*(urgent / rate))  # power per unit of the ratio
        shift = beta / a
        reach = (x - offset) / beta  # the ratio where p would be 0
        low = np.maximum(floor, reach - np.minimum(power, bandwidth / y) / shift)
        high = np.minimum(1.0, reach * shift / (shift + need))
        ratio = np.minimum(np.maximum(best_ratio(nu * self.zeta, nu * joule + shift * gain), low), high)
        ratio = np.maximum(ratio, floor)
        p = (reach - ratio) * shift
        energy = joule * ratio - self.zeta * np.log(ratio)
        net = np.where(low <= high * (1.0 + 1e-12), p * gain - nu * energy, -np.inf)
        return Choice(net, p * both, p, y * p, energy, ratio)

    def bound(self, price: Array, cells: Cells) -> Array:
        """An upper bound of V on each cell, -inf where it holds nothing feasible; exact on a cell of one point."""
        (lam, mu, nu), (a, beta, offset, floor, rho_min, span), (snr, source, urgent) = self.of(price, cells.pair)
        power, bandwidth, _ = self.budget
        y1, y2, x1, x2 = cells.y1, cells.y2, cells.x1, cells.x2
        zeta = nu * self.zeta
        rho = rho_min + span * falling(x2)
        (rate, slope), (rate2, slope2) = _per_watt(y1, rho, snr), _per_watt(y2, rho, snr)
        worth, worth2 = rate[0] + rate[1] - mu * y1, rate2[0] + rate2[1] - mu * y2
        bent, bent2 = slope[0] + slope[1] - mu, slope2[0] + slope2[1] - mu
        gain = dual.concave_top(y1, y2, worth, worth2, bent, bent2) - lam
        joule, need = np.maximum(*(source / rate2)), np.maximum(*(urgent / rate2))
        shift = beta / a
        cap = np.minimum(power, bandwidth / y1)
        start, reach = (x1 - offset) / beta, (x2 - offset) / beta  # the ratio where p would be 0
        low = np.maximum(floor, start - cap / shift)
        high = np.minimum(1.0, reach * shift / (shift + need))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            # gain >= 0: p = min((x2 - d - beta delta) / a, cap), the more the better
            calm = self.zeta / joule  # the ratio of least energy
            rising = np.maximum(zeta / (gain * shift + nu * joule), np.minimum(calm, reach - cap / shift))
            # gain < 0: p = max((x1 - d - beta delta) / a, need delta), the less the better
            first = best_ratio(zeta, nu * joule + gain * shift)
            knee = start * shift / (shift + need)
            lowest = np.maximum(zeta / (nu * joule - gain * need), np.minimum(first, knee))
        ratio = np.minimum(np.maximum(np.where(gain >= 0, rising, lowest), np.minimum(low, high)), high)
        most = np.minimum((reach - ratio) * shift, cap)
        least = np.maximum((start - ratio) * shift, need * ratio)
        inside = low <= high * (1.0 + 1e-12)
        ratio = np.where(inside, ratio, 1.0)
        energy = nu * joule * ratio - zeta * np.log(ratio)
        return np.where(inside, np.where(gain >= 0, most, least) * gain - energy, -np.inf)


def best_ratio(zeta: Array, slope: Array) -> Array:
    """The largest of zeta ln(delta) - slope delta: zeta / slope, infinity where more is always better."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(slope > 0, zeta / slope, np.inf)


def _log2(y: Array, rho: Array, snr: Array) -> Array:
    """log2(1 + 1 / (rho + y / snr)) of both users (2, ...): bit/s/Hz."""
    return np.log1p(1.0 / (rho + y / snr)) * (1.0 / LN2)


def _per_watt(y: Array, rho: Array, snr: Array) -> tuple[Array, Array]:
    """y log2(1 + 1 / (rho + y / snr)) of both users (2, ...), concave and increasing in y, and its slope."""
    wait = y / snr
    z = rho + wait
    log = np.log1p(1.0 / z)
    return y * log * (1.0 / LN2), (log - wait / (z * (1.0 + z))) * (1.0 / LN2)
