"""A proven upper bound on the sum rate: the Lagrangian dual of the three budgets, pairs bounded by branch and bound.

docs/sfma.md ("The certificate") derives every step. At prices of power, bandwidth and energy a pair is worth the
largest V = R - lam p - mu b - nu E over its power, bandwidth and ratio. With y = b / p and x = a p + beta delta + d,
the argument of the logistic function (10), V is concave in delta for fixed (y, x), with a maximum in closed form; and
every quantity is monotone in y and x, so that a cell of the (y, x) plane has an upper bound in closed form too.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from semcom_gym.baselines import dual
from semcom_gym.baselines.sfma import fast
from semcom_gym.baselines.solution import Bound, Solution, package
from semcom_gym.envs.arrays import Array, Batch, concatenate, falling
from semcom_gym.envs.sfma import pairs, physics, prices, resources
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import LN2, MBIT

GRID = 12  # cells along each axis at first
MAX_LEVELS = 16  # of splitting; what is still open then counts with its upper bound
COARSE, FINE = 3e-4, 5e-5  # of the bound: how closely pairs are bounded while prices move, and at last
PRICE_ROUNDS = 14
TRIALS = 60  # random starts for the best known allocation
OUTSIDE = -1e9  # value of a pair that cannot be served
FORCED = 1e7


def prove(params: Params, instance: Instance) -> Bound:
    """The bound of every instance, and its gap to the best allocation known."""
    started = time.perf_counter()
    best = _best_known(params, instance)
    values, seconds = [], []
    for i in range(len(instance)):
        begun = time.perf_counter()
        values.append(_prove(params, instance[i], np.where(best.feasible, best.objective, 0.0)[i], best.allocation[i]))
        seconds.append(time.perf_counter() - begun)
    value = np.array(values)
    share = (time.perf_counter() - started - sum(seconds)) / len(instance)
    known = best.feasible & np.isfinite(value)
    gap = np.where(known, (value - best.objective) / np.where(known, value, 1.0), np.nan)
    return Bound(value=value, gap=gap, best=best, seconds=np.array(seconds) + share)


def _best_known(params: Params, instance: Instance) -> Solution:
    """The fast solver with more matchings, and climbs from random starts on the one it chose."""
    started = time.perf_counter()
    found = fast.solve(params, instance, candidates=8, rounds=1)
    best = found.allocation
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(len(instance)), TRIALS)
    spread = rng.choice((0.4, 1.0), (len(rows), 1, 1))
    entries = spread * rng.uniform(-1.0, 1.0, (len(rows), 3, params.num_groups))
    tried = resources.from_entries(params, instance[rows], best.pair[rows], entries)
    outcome = physics.evaluate(params, instance[rows], tried)
    score = np.where(outcome.feasible, outcome.objective, -np.inf).reshape(-1, TRIALS)
    top = tried[np.argmax(score, axis=-1) + TRIALS * np.arange(len(instance))]
    better = np.max(score, axis=-1) > np.where(found.feasible, found.objective, -1.0)
    return package("sfma", params, instance, best.replaced(better, top[better]), started)


def _prove(params: Params, instance: Instance, known: float, allocation: physics.Allocation) -> float:
    """The bound of one instance; -inf where it proves that nothing is feasible."""
    pricing = _Pricing(params, instance)
    if not pricing.matchable:
        return -np.inf
    table = prices.tabulate(params, physics.links(params, instance))
    forbidden = np.where(pricing.allowed, 0.0, OUTSIDE)
    first, met = prices.search(table, lambda net: pairs.best_matching(net + forbidden, params.num_users))
    columns = [dual.Columns(prices.SCALE * value[:, None], used[:, None, :] * pricing.budget) for value, used in met]
    columns += [_column(params, instance, known, allocation)] if known > 0 else []
    found = dual.minimise(
        pricing.answer, pricing.budget[None], prices.SCALE * first / pricing.budget, columns,
        rounds=PRICE_ROUNDS, coarse=COARSE, fine=FINE,
    )  # fmt: skip
    return float(found[0]) if found[0] >= pricing.least else -np.inf  # a feasible allocation sends at least that


def _column(params: Params, instance: Instance, objective: float, allocation: physics.Allocation) -> dual.Columns:
    spent = physics.evaluate(params, instance, allocation).terms["energy_j"]
    use = [allocation.power_w.sum(), MBIT * allocation.bandwidth_hz.sum(), spent.sum()]
    return dual.Columns(np.array([[objective]]), np.array([[use]]))


class _Pricing:
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
        link = physics.Links(*(x[0] for x in vars(links).values()))
        self.a, self.beta, self.d = link.power_slope, link.ratio_slope, link.offset
        self.rho_min, self.span = link.rho_min, link.rho_max - link.rho_min
        self.snr, self.source = MBIT * link.snr, MBIT * link.source_bit
        self.spare = np.where(self.allowed[:, None], link.spare_s, 1.0)
        self.floor = self.source * self.low[:, None] / self.spare  # rate [Mbit/s] at the distortion floor
        self.least = float(self.users * self.floor[self.allowed].min(initial=np.inf))

    def answer(self, price: Array, which: Array, tolerance: float) -> tuple[Array, dual.Columns]:
        """The :data:`dual.Oracle` of the instance: its best matching as the one choice of one user."""
        state = _Values(len(self.low))
        cells = self._first_cells()
        for level in range(MAX_LEVELS):
            upper = self._best(price[0], cells).net
            state.learn(cells.pair, self._best(price[0], cells.middle()))
            state.upper = state.closed.copy()
            np.maximum.at(state.upper, cells.pair, upper)
            total = pairs.best_matching(state.lower[None], self.users)[0]
            least = state.lower[total].sum()
            slack = tolerance * (float(price[0] @ self.budget) + max(least, 0.0))
            limit = np.where(self._contends(state.upper, least + 0.5 * slack), state.lower + slack / self.users, np.inf)
            still = (upper > limit[cells.pair]) & (level < MAX_LEVELS - 1)
            np.maximum.at(state.closed, cells.pair[~still], upper[~still])
            cells = cells[still].split()
            if not len(cells):
                break
        state.upper = np.maximum(state.closed, state.lower)
        top = pairs.best_matching(state.upper[None], self.users)[0]
        best = pairs.best_matching(state.lower[None], self.users)[0]
        column = dual.Columns(state.reward[best].sum()[None, None], state.use[best].sum(axis=0)[None, None])
        return state.upper[top].sum()[None, None], column

    def _contends(self, upper: Array, least: float) -> Array:
        """(M,) whether a pair can be in a matching of total value above ``least``."""
        forced = upper + np.diag(np.full(len(upper), FORCED))
        best = pairs.best_matching(forced, self.users)
        return np.take_along_axis(np.broadcast_to(upper, forced.shape), best, -1).sum(axis=-1) > least

    def _first_cells(self) -> _Cells:
        """A grid over all (y, x) where power and bandwidth within the budgets can meet a pair's latency limits."""
        power, bandwidth, _ = self.budget
        least = np.max(self.floor * LN2 / np.log1p(1.0 / np.maximum(self.rho_min, 1e-9))[:, None], -1) / power
        most = np.min(self.snr / np.expm1(np.minimum(LN2 * self.floor / bandwidth, 500.0)), axis=-1)
        pair = np.flatnonzero(self.allowed & (least < most))
        edges = np.linspace(0.0, 1.0, GRID + 1)
        y = least[pair, None] * (most[pair] / least[pair])[:, None] ** edges
        x_low = (self.beta * self.low + self.d)[pair, None]
        x = x_low + (self.a * power + self.beta * (1.0 - self.low))[pair, None] * edges
        shape = (len(pair), GRID, GRID)
        parts = (pair[:, None, None], y[:, :-1, None], y[:, 1:, None], x[:, None, :-1], x[:, None, 1:])
        return _Cells(*(np.broadcast_to(part, shape).ravel() for part in parts))

    def _best(self, price: Array, cells: _Cells) -> _Choice:
        """An upper bound of V on each cell, -inf where it holds nothing feasible; exact on a cell of one point."""
        lam, mu, nu = price
        i, y1, y2, x1, x2 = cells.pair, cells.y1, cells.y2, cells.x1, cells.x2
        power, bandwidth, _ = self.budget
        a, beta, snr = self.a[i], self.beta[i], self.snr[i]
        rho = (self.rho_min[i] + self.span[i] * falling(x2))[:, None]
        rate, slope = _per_watt(y1, rho, snr)  # of the pair, Mbit/s per W
        rate2, slope2 = _per_watt(y2, rho, snr)
        gain = dual.concave_top(y1, y2, rate.sum(-1) - mu * y1, rate2.sum(-1) - mu * y2, slope.sum(-1) - mu,
                            slope2.sum(-1) - mu) - lam  # fmt: skip
        joule = np.max(self.source[i] / rate2, axis=-1)  # energy per unit of the ratio
        need = np.max(self.source[i] / (self.spare[i] * rate2), axis=-1)  # power per unit of the ratio
        cap = np.minimum(power, bandwidth / y1)
        start, reach = (x1 - self.d[i]) / beta, (x2 - self.d[i]) / beta  # the ratio where p would be 0
        low = np.maximum(self.low[i], start - a * cap / beta)
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
        ratio = np.clip(np.where(gain >= 0, rising, lowest), np.minimum(low, high), high)
        most = np.minimum((reach - ratio) * beta / a, cap)
        least = np.maximum((start - ratio) * beta / a, need * ratio)
        p = np.where(gain >= 0, most, least)
        energy = joule * ratio - self.zeta * np.log(ratio)
        inside = low <= high * (1.0 + 1e-12)
        net = np.where(inside, p * gain - nu * energy, -np.inf)
        use = np.stack([p, y1 * p, energy], axis=-1)
        return _Choice(net, p * rate.sum(-1), use)


def _per_watt(y: Array, rho: Array, snr: Array) -> tuple[Array, Array]:
    """y log2(1 + 1 / (rho + y / snr)) of both users (..., 2), concave and increasing in y, and its slope."""
    z = rho + y[:, None] / snr
    log = np.log1p(1.0 / z)
    return y[:, None] * log / LN2, (log - (y[:, None] / snr) / (z * (1.0 + z))) / LN2


@dataclasses.dataclass(frozen=True)
class _Choice:
    """Per cell: net value, reward [Mbit/s], and use (.., 3) of power [W], bandwidth [MHz], energy [J]."""

    net: Array
    reward: Array
    use: Array


@dataclasses.dataclass(frozen=True)
class _Cells(Batch):
    """Rectangles [y1, y2] x [x1, x2] and the pair that each belongs to."""

    pair: Array
    y1: Array
    y2: Array
    x1: Array
    x2: Array

    def middle(self) -> _Cells:
        """Their middle points, as cells of one point."""
        y, x = np.sqrt(self.y1 * self.y2), 0.5 * (self.x1 + self.x2)
        return _Cells(self.pair, y, y, x, x)

    def split(self) -> _Cells:
        """Each in four."""
        m = self.middle()
        return concatenate([
            _Cells(self.pair, self.y1, m.y1, self.x1, m.x1), _Cells(self.pair, m.y1, self.y2, self.x1, m.x1),
            _Cells(self.pair, self.y1, m.y1, m.x1, self.x2), _Cells(self.pair, m.y1, self.y2, m.x1, self.x2),
        ])  # fmt: skip


class _Values:
    """Per pair: the largest bound of the closed cells, and the best point met."""

    def __init__(self, count: int) -> None:
        self.closed, self.lower, self.upper = (np.full(count, OUTSIDE) for _ in range(3))
        self.reward, self.use = np.zeros(count), np.zeros((count, 3))

    def learn(self, pair: Array, choice: _Choice) -> None:
        """Take in points: the best of each pair is kept."""
        order = np.lexsort((choice.net, pair))
        top = order[np.append(pair[order][1:] != pair[order][:-1], True)]
        top = top[choice.net[top] > self.lower[pair[top]]]
        row = pair[top]
        self.lower[row], self.reward[row], self.use[row] = choice.net[top], choice.reward[top], choice.use[top]
