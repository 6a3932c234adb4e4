"""What pairs are worth at prices of power, bandwidth and energy: points they attain, and bounds by branch and bound.

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
from semcom_gym.envs.sfma import pairs, physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import LN2, MBIT

GRID = 12  # cells along each axis at first
MAX_LEVELS = 16  # of splitting; what is still open then counts with its upper bound
OUTSIDE = -1e9  # value of a pair that cannot be served
FORCED = 1e7


class Pricing:
    """The oracle of one instance. Units: W, MHz, J, Mbit/s, so y is in MHz/W and prices in Mbit/s per unit."""

    def __init__(self, params: Params, instance: Instance) -> None:
        self.users = params.num_users
        self.allowed = physics.feasible_pairs(params, instance)[0]
        matched = pairs.best_matching(self.allowed[None].astype(float), self.users)[0]
        self.matchable = bool(self.allowed[matched].all())
        self.budget = np.array([params.max_power_w, MBIT * params.max_bandwidth_hz, params.max_energy_j])
        self.zeta = params.energy_coefficient_j
        links = physics.links(params, instance)
        self.low = np.minimum(physics.distortion_floor(params, links)[0], 1.0)
        link = physics.Links(*(x[0].T for x in vars(links).values()))  # users (2, M)
        self.a, self.beta, self.d = link.power_slope, link.ratio_slope, link.offset
        self.rho_min, self.span = link.rho_min, link.rho_max - link.rho_min
        self.snr, self.source = MBIT * link.snr, MBIT * link.source_bit
        self.spare = np.where(self.allowed, link.spare_s, 1.0)
        self.floor = self.source * self.low / self.spare  # rate [Mbit/s] at the distortion floor
        self.of_pair = np.stack([self.a, self.beta, self.d, self.low, self.rho_min, self.span])
        self.of_user = np.stack([self.snr, self.source, self.source / self.spare])
        self.least = float(self.users * self.floor[:, self.allowed].min(initial=np.inf))

    def answer(self, price: Array, tolerance: float) -> tuple[float, Values]:
        """An upper bound of the best matching at prices (3,), and the points it comes from.

        tolerance: how far from the best matching of points it may be, relative to the bound.
        """
        state = Values(len(self.low))
        cells = self._first_cells()
        for level in range(MAX_LEVELS):
            upper = self._best(price, cells).net
            middle = cells[upper > state.lower[cells.pair]].middle()  # the others cannot raise what is known
            state.learn(middle.pair, self._best(price, middle))
            state.upper = state.closed.copy()
            np.maximum.at(state.upper, cells.pair, upper)
            total = pairs.best_matching(state.lower[None], self.users)[0]
            least = state.lower[total].sum()
            slack = tolerance * (float(price @ self.budget) + max(least, 0.0))
            limit = np.where(self._contends(state.upper, least + 0.5 * slack), state.lower + slack / self.users, np.inf)
            still = (upper > limit[cells.pair]) & (level < MAX_LEVELS - 1)
            np.maximum.at(state.closed, cells.pair[~still], upper[~still])
            cells = cells[still].split()
            if not len(cells):
                break
        state.upper = np.maximum(state.closed, state.lower)
        top = pairs.best_matching(state.upper[None], self.users)[0]
        state.attained = float(least)
        return float(state.upper[top].sum()), state

    def _contends(self, upper: Array, least: float) -> Array:
        """(M,) whether a pair can be in a matching of total value above ``least``."""
        forced = upper + np.diag(np.full(len(upper), FORCED))
        best = pairs.best_matching(forced, self.users)
        return np.take_along_axis(np.broadcast_to(upper, forced.shape), best, -1).sum(axis=-1) > least

    def _first_cells(self) -> Cells:
        """A grid over all (y, x) where power and bandwidth within the budgets can meet a pair's latency limits."""
        power, bandwidth, _ = self.budget
        least = np.max(self.floor * LN2 / np.log1p(1.0 / np.maximum(self.rho_min, 1e-9)), axis=0) / power
        most = np.min(self.snr / np.expm1(np.minimum(LN2 * self.floor / bandwidth, 500.0)), axis=0)
        pair = np.flatnonzero(self.allowed & (least < most))
        edges = np.linspace(0.0, 1.0, GRID + 1)
        y = least[pair, None] * (most[pair] / least[pair])[:, None] ** edges
        x_low = (self.beta * self.low + self.d)[pair, None]
        x = x_low + (self.a * power + self.beta * (1.0 - self.low))[pair, None] * edges
        shape = (len(pair), GRID, GRID)
        parts = (pair[:, None, None], y[:, :-1, None], y[:, 1:, None], x[:, None, :-1], x[:, None, 1:])
        return Cells(*(np.broadcast_to(part, shape).ravel() for part in parts))

    def _best(self, price: Array, cells: Cells) -> Choice:
        """An upper bound of V on each cell, -inf where it holds nothing feasible; exact on a cell of one point."""
        lam, mu, nu = price
        y1, y2, x1, x2 = cells.y1, cells.y2, cells.x1, cells.x2
        power, bandwidth, _ = self.budget
        a, beta, offset, floor, rho_min, span = self.of_pair.take(cells.pair, -1)
        snr, source, urgent = self.of_user.take(cells.pair, -1)
        rho = rho_min + span * falling(x2)
        rate, slope = _per_watt(y1, rho, snr)  # of the pair, Mbit/s per W
        rate2, slope2 = (rate, slope) if y2 is y1 else _per_watt(y2, rho, snr)
        both, bent = rate[0] + rate[1], slope[0] + slope[1] - mu
        both2, bent2 = rate2[0] + rate2[1], slope2[0] + slope2[1] - mu
        gain = dual.concave_top(y1, y2, both - mu * y1, both2 - mu * y2, bent, bent2) - lam
        joule = np.maximum(*(source / rate2))  # energy per unit of the ratio
        need = np.maximum(*(urgent / rate2))  # power per unit of the ratio
        cap = np.minimum(power, bandwidth / y1)
        start, reach = (x1 - offset) / beta, (x2 - offset) / beta  # the ratio where p would be 0
        low = np.maximum(floor, start - a * cap / beta)
        high = np.minimum(1.0, reach * beta / (beta + a * need))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            calm = self.zeta / joule  # the ratio of least energy
            # gain >= 0: p = min((x2 - d - beta delta) / a, cap), the more the better
            capped = reach - a * cap / beta
            rising = np.maximum(nu * self.zeta / (gain * beta / a + nu * joule), np.minimum(calm, capped))
            # gain < 0: p = max((x1 - d - beta delta) / a, need delta), the less the better
            easing = nu * joule + gain * beta / a
            first = np.where(easing > 0, nu * self.zeta / easing, np.inf)
            knee = start * beta / (beta + a * need)
            lowest = np.maximum(nu * self.zeta / (nu * joule - gain * need), np.minimum(first, knee))
        ratio = np.minimum(np.maximum(np.where(gain >= 0, rising, lowest), np.minimum(low, high)), high)
        most = np.minimum((reach - ratio) * beta / a, cap)
        least = np.maximum((start - ratio) * beta / a, need * ratio)
        p = np.where(gain >= 0, most, least)
        energy = joule * ratio - self.zeta * np.log(ratio)
        inside = low <= high * (1.0 + 1e-12)
        net = np.where(inside, p * gain - nu * energy, -np.inf)
        return Choice(net, p * both, p, y1 * p, energy)


def _per_watt(y: Array, rho: Array, snr: Array) -> tuple[Array, Array]:
    """y log2(1 + 1 / (rho + y / snr)) of both users (2, ...), concave and increasing in y, and its slope."""
    wait = y / snr
    z = rho + wait
    log = np.log1p(1.0 / z)
    return y * log * (1.0 / LN2), (log - wait / (z * (1.0 + z))) * (1.0 / LN2)


@dataclasses.dataclass(frozen=True)
class Choice(Batch):
    """Per cell: net value, reward [Mbit/s], and use of power [W], bandwidth [MHz], energy [J]."""

    net: Array
    reward: Array
    power: Array
    bandwidth: Array
    energy: Array


@dataclasses.dataclass(frozen=True)
class Cells(Batch):
    """Rectangles [y1, y2] x [x1, x2] and the pair that each belongs to."""

    pair: Array
    y1: Array
    y2: Array
    x1: Array
    x2: Array

    def middle(self) -> Cells:
        """Their middle points, as cells of one point."""
        y, x = np.sqrt(self.y1 * self.y2), 0.5 * (self.x1 + self.x2)
        return Cells(self.pair, y, y, x, x)

    def split(self) -> Cells:
        """Each in four."""
        m = self.middle()
        return concatenate([
            Cells(self.pair, self.y1, m.y1, self.x1, m.x1), Cells(self.pair, m.y1, self.y2, self.x1, m.x1),
            Cells(self.pair, self.y1, m.y1, m.x1, self.x2), Cells(self.pair, m.y1, self.y2, m.x1, self.x2),
        ])  # fmt: skip


class Values:
    """Per pair: the largest bound of the closed cells, and the best point met."""

    def __init__(self, count: int) -> None:
        self.closed, self.lower, self.upper = (np.full(count, OUTSIDE) for _ in range(3))
        self.reward, self.use = np.zeros(count), np.zeros((count, 3))
        self.attained = -np.inf  # by the best matching of points

    def learn(self, pair: Array, choice: Choice) -> None:
        """Take in points: the best of each pair is kept."""
        highest = self.lower.copy()
        np.maximum.at(highest, pair, choice.net)
        top = np.flatnonzero((choice.net > self.lower[pair]) & (choice.net == highest[pair]))
        row, choice = pair[top], choice[top]
        self.lower[row], self.reward[row] = choice.net, choice.reward
        self.use[row] = np.stack([choice.power, choice.bandwidth, choice.energy], axis=-1)
