"""Bounds and choices of the users of CRRA at prices, starting from the choices at the prices before."""

from __future__ import annotations

from typing import Any

import numpy as np

from semcom_gym.baselines import dual
from semcom_gym.baselines.crra import tangents
from semcom_gym.baselines.crra.normal import Users
from semcom_gym.baselines.crra.tangents import Choices, Point
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.crra.instance import Instance, Params

ROUNDS = 10  # of further lines, for users whom a few do not pin down
SHARE = 0.25  # of the tolerance that may be lost where ln eta is not concave
LOSSES = 4.0  # cost over value up to which a choice is looked for that loses less than the floors do
LEAST = 1e-6  # of theta: as good as flat
PIECES = 256  # at most, that a range of ratios in which ln eta is convex is cut into


class Pricing:
    """The oracle. known: an allocation to start from; equal shares if None."""

    def __init__(self, params: Params, instance: Instance, known: Any = None) -> None:
        self.params = params
        self.users = Users(params, instance)
        self.shape = instance.gain.shape
        self.choices = Choices(params, self.users.noise.ravel(), instance.weight.ravel(), instance.curve.ravel())
        self.start = self._start(instance, known)
        self.floor = None if params.selection else self._at_floors()

    def _start(self, instance: Instance, known: Any) -> list[Array]:
        """b, p, c of who is served; of others at equal shares."""
        b, p = (
            np.log(x / self.shape[1])[:, None] + np.zeros(self.shape) for x in (instance.bandwidth_hz, instance.power_w)
        )
        c = np.full(self.shape, np.log1p(-0.9 * self.params.max_ratio))
        if known is not None:
            on = known.selected > 0
            b[on], p[on] = np.log(known.bandwidth_hz[on]), np.log(known.power_w[on])
            c[on] = np.log1p(-known.ratio[on])
        return [b.ravel(), p.ravel(), c.ravel()]

    def _at_floors(self) -> Array:
        """c of the best ratio of every user with no more than it is guaranteed."""
        b, p = (np.full(self.shape, x) for x in (self.params.min_bandwidth_hz, self.params.min_power_w))
        return np.log1p(-self.users.best_ratio(b, p)).ravel()

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
        of = self.choices.at_prices(flat, np.repeat(prices[:, 0], users), np.repeat(prices[:, 1], users))
        first = of.climb(*(x[flat] for x in self.start))
        for kept, found in zip(self.start, (first.b, first.p, first.c), strict=True):
            kept[flat] = found
        best = _Best(of, first, None if self.floor is None else self.floor[flat])
        best.cut_curves(tolerance)
        best.add_lines(tolerance)
        reward, bandwidth, power = best.chosen()
        use = np.stack([bandwidth, power], -1)
        shape = (len(which), users)
        upper = best.upper + tangents.FLAT * np.exp(of.weight)  # for ratios at which eta is next to nothing
        return upper.reshape(shape), dual.Columns(reward.reshape(shape), use.reshape(*shape, 2))


class _Best:
    """The best choices found of flat users (N,), and bounds of their net values.

    first: where the net value is largest, or the value per cost where nothing is worth its cost. floor: c of who must
    be served, with the least there is.
    """

    def __init__(self, of: Choices, first: Point, floor: Array | None) -> None:
        self.of, self.first = of, first
        self.must = floor is not None
        a, theta = of.line(first, of.peak(first))
        self.floors = of.floors()
        self.a, self.theta = np.column_stack([a, self.floors]), np.column_stack([theta, 0.0 * theta])
        self.choice, self.net = first, of.net(first)
        self.idle = np.zeros_like(first.b)  # the net value of who is not served, or whose value is nothing
        if floor is not None:
            self.idle = -np.exp(self.floors)
            least = of.point(np.full_like(floor, of.floor_b), np.full_like(floor, of.floor_p), floor)
            self._add(*of.line(least, of.peak(least)))
            self._consider(np.arange(len(floor)), least)
            poor = np.flatnonzero(self.net < 0.0)
            if len(poor):
                part, at = of.take(poor), first[poor]
                found = part.climb(at.b, at.p, at.c, most=LOSSES)
                self._consider(poor, found)
                self._add_for(poor, *part.line(found, part.peak(found)))
        self.upper = np.maximum(of.most(self.a, self.theta)[0], self.idle)
        self.cut = np.zeros(len(self.net), bool)

    def _add(self, a: Array, theta: Array) -> None:
        self.a, self.theta = np.column_stack([self.a, a]), np.column_stack([self.theta, theta])

    def _add_for(self, rows: Array, a: Array, theta: Array) -> None:
        """Lines of some users; those of the others are their floors."""
        every = self.floors.copy(), np.zeros_like(self.floors)
        every[0][rows], every[1][rows] = a, theta
        self._add(*every)

    def _consider(self, rows: Array, point: Point) -> None:
        """Choose ``point`` where it is better."""
        net = self.of.take(rows).net(point)
        better = np.flatnonzero(net > self.net[rows])
        if len(better):
            self.choice = self.choice.replaced(rows[better], point[better])
            self.net[rows[better]] = net[better]

    def _open(self, tolerance: float) -> Array:
        return self.upper > np.maximum(self.net, self.idle) + tolerance

    def cut_curves(self, tolerance: float) -> None:
        """Pieces of ln eta one by one, for users whose bound is loose because it is not concave."""
        of, first = self.of, self.first
        own = of.task(first.c)[0] - first.fall * first.bend * first.c
        lost = np.exp(of.weight + first.value) * np.expm1(np.minimum(of.peak(first) - own, 1.0))
        self.cut = self._open(tolerance) & (lost > SHARE * tolerance)
        rows = np.flatnonzero(self.cut)
        if not len(rows):
            return
        upper = self.idle[rows]
        # what is lost falls with the square of their number
        parts = min(PIECES, int(np.ceil(np.sqrt(np.max(lost[rows]) / (SHARE * tolerance)))))
        for convex in (False, True):
            owner, low, high = of.take(rows).pieces(convex, parts)
            bound = self._of_pieces(rows[owner], low, high, convex, tolerance)
            np.maximum.at(upper, owner, bound)
        self.upper[rows] = upper

    def _of_pieces(self, rows: Array, low: Array, high: Array, convex: bool, tolerance: float) -> Array:
        """Bounds of users ``rows`` with c within ends; takes in what is found."""
        of, at = self.of.take(rows), self.first[rows]
        bound = self._under(rows, of, of.line(at, of.peak_within(at, low, high, convex)))
        open_ = np.flatnonzero(bound > np.maximum(self.net, self.idle)[rows] + tolerance)
        if len(open_):
            of, at, low, high, part = of.take(open_), at[open_], low[open_], high[open_], rows[open_]
            slope = (of.task(high)[0] - of.task(low)[0]) / (high - low) if convex else None
            found = of.climb(at.b, at.p, np.clip(at.c, low, high), slope=slope, ends=(low, high))
            order = np.argsort(of.net(found))  # of a user's pieces the best comes last
            self._consider(part[order], found[order])
            lines = [of.line(found, of.peak_within(found, low, high, convex))]
            if self.must and np.min(of.net(found)) < 0.0:
                found = of.climb(found.b, found.p, found.c, most=LOSSES, slope=slope, ends=(low, high))
                lines.append(of.line(found, of.peak_within(found, low, high, convex)))
            bound[open_] = np.minimum(bound[open_], self._under(part, of, *lines))
        return bound

    def _under(self, rows: Array, of: Choices, *lines: tuple[Array, Array]) -> Array:
        """The bound by a few lines, and by the floors."""
        every = [*lines, (self.floors[rows], np.zeros(len(rows)))]
        return of.most(*(np.column_stack(x) for x in zip(*every, strict=True)))[0]

    def add_lines(self, tolerance: float) -> None:
        """Further lines, where those at hand meet, for users who must be served although they are not worth it."""
        for _ in range(ROUNDS if self.must else 0):
            rows = np.flatnonzero(self._open(tolerance) & ~self.cut)
            if not len(rows):
                return
            of, at = self.of.take(rows), self.first[rows]
            where = of.most(self.a[rows], self.theta[rows])[1]
            order = np.argsort(self.a[rows] + self.theta[rows] * where[:, None], axis=1)[:, -2:]
            theta = np.sort(np.take_along_axis(self.theta[rows], order, 1), axis=1)
            theta = np.maximum(theta, LEAST)
            share = 1.0 / np.sqrt(theta[:, 1] * np.maximum(theta[:, 0], theta[:, 1] / 16.0))
            found = of.climb(at.b, at.p, at.c, share=share)
            self._add_for(rows, *of.line(found, of.peak(found)))
            self.upper[rows] = np.maximum(of.most(self.a[rows], self.theta[rows])[0], self.idle[rows])

    def chosen(self) -> tuple[Array, Array, Array]:
        """Reward, bandwidth and power of the best choices; nothing where that is best."""
        served = (self.net > self.idle) | self.must
        at = self.choice
        return tuple(served * np.exp(x) for x in (self.of.weight + at.value, at.b, at.p))
