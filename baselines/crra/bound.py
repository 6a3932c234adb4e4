"""A proven upper bound on CRRA and CRRAUS: the Lagrangian dual over both budgets (docs/crra.md, "The certificate").

For prices lam [1/Hz] and mu [1/W] the users decouple. Each one's net value is maximised over the argument x of the
Q function (success G(x)), the ratio o, B >= Bmin and P >= Pmin. On a cell x1 <= x <= x2 it is at most
``max_o [w G(x1) eta(o) - C(o, x2)]``: G falls in x, and so does C, the least cost of sending (1 - o) d0 in time at
argument x. C is convex in o, eta lies under its concave envelope, so the maximum over o is a concave one. Cells
are split until the bound of every user is within a tolerance of a point that attains it.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import scipy.special

from semcom_gym.baselines import dual
from semcom_gym.baselines.crra import fast
from semcom_gym.baselines.crra.normal import Users
from semcom_gym.baselines.solution import Bound
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.crra import actions, physics
from semcom_gym.envs.crra.instance import Instance, Params

LN2 = physics.LN2
X_MAX = 6.5  # success beyond it is below 1e-9 in both models
EDGES = np.concatenate([[0.0], np.geomspace(1e-3, X_MAX, 40)])
SPLIT = 4
MAX_ROUNDS = 12  # of splitting; a cell left open then counts with its upper bound
WIDE = 0.25  # of the tolerance: a cell on which success differs by less is not worth a split
RATIO_STEPS = 60  # of the search for the best ratio of a cell, which takes a few
RATIO_CLOSE = 1e-3  # of the tolerance: how close the ratio's share of a bound comes
COARSE = 40.0  # tolerance while prices are searched, over that of the last evaluation
CHUNK = 64


def prove(params: Params, instance: Instance, *, rounds: int = 30, swaps: int = 2, tolerance: float = 5e-6) -> Bound:
    """A bound for every instance. rounds: price updates at most; swaps: local search of the best known allocation.

    tolerance: slack per user, as a share of the largest weight, at which splitting stops.
    """
    validate.integer("rounds", rounds, low=0)
    validate.number("tolerance", tolerance)
    started = time.perf_counter()
    n = len(instance)
    best = fast.solve(params, instance, iterations=150, swaps=swaps)
    # no room for a single user: with selection the optimum is to serve nobody, without it there is no allocation,
    # and that is the only way for an instance to be infeasible
    room = actions.capacity(params, instance) >= (1 if params.selection else params.num_users)
    value = np.full(n, 0.0 if params.selection else -np.inf)
    possible = np.flatnonzero(room)
    for low in range(0, len(possible), CHUNK):
        rows = possible[low : low + CHUNK]
        value[rows] = _prove(params, instance[rows], best.allocation[rows], rounds, tolerance)
    with np.errstate(invalid="ignore"):
        gap = np.where(np.isfinite(value), (value - best.objective) / np.maximum(np.abs(value), 1e-300), np.nan)
    return Bound(value=value, gap=gap, best=best, seconds=np.full(n, (time.perf_counter() - started) / n))


def _prove(params: Params, instance: Instance, known: Any, rounds: int, tolerance: float) -> Array:
    users = _Pricing(params, instance)
    idle = np.zeros_like(instance.gain) if params.selection else np.ones_like(instance.gain)
    nothing = dual.Columns(
        np.zeros_like(instance.gain),
        np.stack([idle * params.min_bandwidth_hz, idle * params.min_power_w], -1),
    )
    reward = known.selected * users.users.value(known.bandwidth_hz, known.power_w, known.ratio)
    start = dual.Columns(reward, np.stack([known.bandwidth_hz, known.power_w], -1))
    scale = tolerance * float(np.max(instance.weight))
    return dual.minimise(
        users.answer,
        np.stack([instance.bandwidth_hz, instance.power_w], -1),
        users.prices_at(known),
        [nothing, start],
        rounds=rounds,
        coarse=COARSE * scale,
        fine=scale,
    )


class _Envelope:
    """The concave envelope of eta on [0, max_ratio], per user: a chord from 0 to a tangent point, then eta itself."""

    def __init__(self, params: Params, instance: Instance) -> None:
        grid = np.linspace(0.0, params.max_ratio, 20001)[1:]
        rows = []
        for z1, z2, z3, z4 in params.curve_table:
            start = min(z1 + z3, 1.0)
            secant = (np.minimum(z1 * np.exp(z2 * grid) + z3 * np.exp(z4 * grid), 1.0) - start) / grid
            top = int(np.argmax(secant))
            rows.append((start, secant[top] + 1e-7, grid[top]))  # margin: more than the grid can miss
        table = np.array(rows)
        self.start, self.slope, self.tangent = (table[instance.curve, k].ravel() for k in range(3))
        zeta = params.curve_table[instance.curve]
        self.zeta = [zeta[..., k].ravel() for k in range(4)]

    def at(self, user: Array, ratio: Array) -> tuple[Array, Array]:
        """Value and slope at ``ratio`` of the flat users ``user``."""
        z1, z2, z3, z4 = (z[user] for z in self.zeta)
        bend, base = z1 * np.exp(z2 * ratio), z3 * np.exp(z4 * ratio)
        chord = ratio < self.tangent[user]
        slope = self.slope[user]
        value = np.where(chord, self.start[user] + slope * ratio, np.minimum(bend + base, 1.0))
        return value, np.where(chord, slope, np.where(bend + base < 1.0, z2 * bend + z4 * base, 0.0))


class _Cost:
    """C(o) for flat cells: least lam B + mu P that sends (1 - o) d0 in t0 at argument x2; convex and falling in o."""

    def __init__(self, params: Params, lam: Array, mu: Array, noise: Array, x2: Array) -> None:
        self.lam = lam
        self.rate = params.payload_bit / params.deadline_s
        self.min_b, self.min_p = params.min_bandwidth_hz, params.min_power_w
        self.need = noise / x2  # P = need B (2**E - 1)
        self.q = mu * self.need
        # the spectral efficiency of least cost per bit: 2**E (E ln2 - 1) = lam / q - 1
        self.efficiency = (1.0 + scipy.special.lambertw((lam / self.q - 1.0) / np.e).real) / LN2

    def take(self, rows: Array) -> _Cost:
        """Those of some cells."""
        part = copy.copy(self)
        for name in ("lam", "need", "q", "efficiency"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def choose(self, ratio: Array) -> tuple[Array, Array, Array]:
        """Bandwidth, power and dC/do at ``ratio``."""
        bits = (1.0 - ratio) * self.rate
        limit = bits / self.min_b  # the efficiency at B = Bmin
        at_floor = limit <= self.efficiency
        e = np.minimum(self.efficiency, limit)
        bandwidth = np.where(at_floor, self.min_b, bits / np.maximum(e, 1e-12))
        grown = np.exp2(e)
        power = self.need * bandwidth * np.expm1(LN2 * e)
        slope = -self.q * self.rate * LN2 * grown  # in both cases, by the choice of the efficiency
        cheap = np.flatnonzero(power < self.min_p)
        if len(cheap):  # power at its floor: the least bandwidth that suffices with it
            b, by_bits = _least_bandwidth(bits[cheap] * LN2, self.min_p / self.need[cheap])
            free = b > self.min_b
            bandwidth[cheap] = np.where(free, b, self.min_b)
            power[cheap] = self.min_p
            slope[cheap] = np.where(free, -self.lam[cheap] * by_bits * self.rate * LN2, 0.0)
        return bandwidth, power, slope


def _least_bandwidth(a: Array, reach: Array) -> tuple[Array, Array]:
    """B with B (exp(a / B) - 1) = reach, and dB/da; a < reach."""
    c = np.minimum(a / reach, 1.0 - 1e-12)
    y = np.maximum(-c - scipy.special.lambertw(-c * np.exp(-c), -1).real, 1e-12)
    grown = np.exp(np.minimum(y, 600.0))
    return a / y, grown / (y * grown - grown + 1.0)


class _Pricing:
    """The oracle: bounds and choices of users at given prices."""

    def __init__(self, params: Params, instance: Instance) -> None:
        self.params = params
        self.users = Users(params, instance)
        self.shape = instance.gain.shape
        self.weight, self.noise = instance.weight.ravel(), self.users.noise.ravel()
        self.envelope = _Envelope(params, instance)

    def prices_at(self, known: Any) -> Array:
        """Prices (n, 2) at an allocation: the mean marginal values of what users hold above their floors."""
        b, p = np.maximum(known.bandwidth_hz, 1.0), np.maximum(known.power_w, 1e-12)
        _, by_b, by_p = self.users.marginals(b, p, known.ratio)
        spare_b = known.selected * np.maximum(b - self.params.min_bandwidth_hz, 1e-6)
        spare_p = known.selected * np.maximum(p - self.params.min_power_w, 1e-15)
        served = np.maximum(spare_b.sum(-1), 1e-9), np.maximum(spare_p.sum(-1), 1e-18)
        prices = np.stack([(spare_b * by_b).sum(-1) / served[0], (spare_p * by_p).sum(-1) / served[1]], -1)
        return np.maximum(prices, 1e-15)

    def answer(self, prices: Array, which: Array, tolerance: float) -> tuple[Array, dual.Columns]:
        """The :data:`dual.Oracle` of the problem."""
        users = self.shape[1]
        flat = (which[:, None] * users + np.arange(users)).ravel()
        lam, mu = np.repeat(prices[:, 0], users), np.repeat(prices[:, 1], users)
        idle = lam * self.params.min_bandwidth_hz + mu * self.params.min_power_w
        state = _Best(self.params, len(flat), idle, self.weight[flat])
        cells = len(EDGES) - 1
        owner = np.repeat(np.arange(len(flat)), cells)
        x1, x2 = np.tile(EDGES[:-1], len(flat)), np.tile(EDGES[1:], len(flat))
        for last in [*[False] * (MAX_ROUNDS - 1), True]:
            upper, excess, choice = self._cells(
                flat[owner], lam[owner], mu[owner], x1, x2, state.net[owner], RATIO_CLOSE * tolerance
            )
            wide = (excess > WIDE * tolerance) & (not last)  # else what is left is due to the envelope of eta
            still = state.update(owner, upper, choice, tolerance, wide)
            if not still.any():
                break
            owner, x1, x2 = np.repeat(owner[still], SPLIT), *_split(x1[still], x2[still])
        shape = (len(which), users)
        return np.maximum(state.upper, state.net).reshape(shape), dual.Columns(
            state.reward.reshape(shape), np.stack([state.bandwidth, state.power], -1).reshape(*shape, 2)
        )

    def _cells(
        self, user: Array, lam: Array, mu: Array, x1: Array, x2: Array, floor: Array, close: float
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        """Upper bound of each cell, what splitting may take off it, and (net, reward, bandwidth, power) of a point.

        The bound is where the tangents at two ratios meet; the ratios close in on the best one until it is within
        ``close`` of a value, or below ``floor``, what the user is known to reach.
        """
        cost = _Cost(self.params, lam, mu, self.noise[user], x2)
        weighted, sure = (self.weight[user] * self.users.success(x) for x in (x1, x2))
        terms = [user, lam, mu, weighted]

        def net(ratio: Array) -> tuple[Array, Array]:
            user, lam, mu, top = terms
            eta, rising = self.envelope.at(user, ratio)
            b, p, slope = cost.choose(ratio)
            return top * eta - lam * b - mu * p, top * rising - slope

        upper, best = np.empty_like(x2), np.empty_like(x2)
        rows, ends = np.arange(len(x2)), [np.zeros_like(x2), np.full_like(x2, self.params.max_ratio)]
        value, slope = (list(pair) for pair in zip(*(net(end) for end in ends), strict=True))
        weight = [*slope]  # of the false position: halved at an end that stays (Illinois)
        whole = cost
        for step in range(RATIO_STEPS):
            bound = dual.concave_top(*ends, *value, *slope)
            reached = np.maximum(*value)
            upper[rows], best[rows] = bound, np.where(value[0] > value[1], *ends)
            open_ = np.flatnonzero((bound > reached + close) & (bound > floor) & (ends[1] - ends[0] > 1e-14))
            if not len(open_):
                break
            if len(open_) < len(rows):
                rows, floor, cost = rows[open_], floor[open_], cost.take(open_)
                terms, ends, value, slope, weight = ([x[open_] for x in y] for y in (terms, ends, value, slope, weight))
            share = 0.5 if step % 3 == 2 else weight[0] / (weight[0] - weight[1])
            middle = ends[0] + (ends[1] - ends[0]) * np.clip(share, 0.01, 0.99)
            new, tilt = net(middle)
            left = tilt > 0  # the maximum is to the right: the left end moves
            weight = [np.where(left, tilt, 0.5 * weight[0]), np.where(left, 0.5 * weight[1], tilt)]
            ends, value, slope = (
                [np.where(left, x, old[0]), np.where(left, old[1], x)]
                for x, old in ((middle, ends), (new, value), (tilt, slope))
            )
        bandwidth, power, _ = whole.choose(best)
        z1, z2, z3, z4 = (z[user] for z in self.envelope.zeta)
        eta = np.clip(z1 * np.exp(z2 * best) + z3 * np.exp(z4 * best), 0.0, 1.0)
        reward = sure * eta
        return upper, weighted - sure, (reward - lam * bandwidth - mu * power, reward, bandwidth, power)


class _Best:
    """Per user: the largest bound of the closed cells, and the best choice seen so far (at first: to send nothing)."""

    def __init__(self, params: Params, count: int, idle: Array, weight: Array) -> None:
        served = 0.0 if params.selection else 1.0
        self.net = -served * idle
        self.reward = np.zeros(count)
        self.bandwidth = np.full(count, served * params.min_bandwidth_hz)
        self.power = np.full(count, served * params.min_power_w)
        self.upper = np.maximum(self.net, weight * 1e-9 - idle)  # beyond X_MAX

    def update(self, owner: Array, upper: Array, choice: tuple[Array, ...], tolerance: float, wide: Array) -> Array:
        """Take in a round of cells with the net value, reward, bandwidth and power of each; which must be split."""
        net, reward, bandwidth, power = choice
        order = np.lexsort((net, owner))
        last_of_owner = np.append(owner[order][1:] != owner[order][:-1], True)
        top: Array = order[last_of_owner]
        top = top[net[top] > self.net[owner[top]]]
        row = owner[top]
        self.net[row], self.reward[row] = net[top], reward[top]
        self.bandwidth[row], self.power[row] = bandwidth[top], power[top]
        still: Array = (upper > self.net[owner] + tolerance) & wide
        np.maximum.at(self.upper, owner[~still], upper[~still])
        return still


def _split(x1: Array, x2: Array) -> tuple[Array, Array]:
    """Each cell in SPLIT: geometrically, or quadratically where it starts at 0."""
    t: Array = np.arange(SPLIT + 1) / SPLIT
    low, high = x1[:, None], x2[:, None]
    edges = np.where(low > 0, low ** (1 - t) * high**t, high * t**2)
    return edges[:, :-1].ravel(), edges[:, 1:].ravel()
