"""The largest net value of a user at prices, bounded by tangents (docs/crra.md, "The certificate").

In b = ln B, p = ln P and c = ln(1 - o) the logarithm of success, ln G(x), is concave: ln x is convex in them, and ln G
is concave and falling in ln x. So a tangent plane bounds it everywhere, the best ratio included, and with it from
below what a value costs: ln cost >= a + theta ln V, a line. The net value under a few such lines has its maximum
where two of them meet or where its slope is zero. A line at the choice that is best at the prices is exact there.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

from semcom_gym.baselines.crra import hazard
from semcom_gym.envs.arrays import Array, Batch
from semcom_gym.envs.crra import physics
from semcom_gym.envs.crra.instance import Params

STEPS = 100  # of Newton's method, which takes a few from one set of prices to the next
CLOSE = 1e-5  # a step this small leaves its square to go
MODEST = 2.0  # of the logarithm of an efficiency [nat/s/Hz] that is not high
RANGE = 60.0  # of ln B and ln P above their floors
MOST = 4.0  # change of ln B, ln P or ln(1 - o) in a step
RIDGE = 1e-12  # relative, that keeps a curvature of one direction alone solvable
FARTHEST = 100.0  # of ln x and of the logarithm of the efficiency: success is zero in every arithmetic long before
LOST = -1e80  # of ln G: beyond it ln x may have met that limit
GRID = 8193  # over which the curvature of ln eta is known
MARGIN = 1e-8  # of ln V: more than that grid can miss
FLAT = 1e-12  # a value of eta below which nothing is worth having


@dataclasses.dataclass(frozen=True)
class Point(Batch):
    """Choices (N,) b, p, c, and there ln V, ln G, D (how fast ln x falls in b, plus 1) and H (how fast ln G falls)."""

    b: Array
    p: Array
    c: Array
    value: Array
    success: Array
    bend: Array
    fall: Array


class Choices:
    """Flat users (N,) at their prices.

    low, high, convex (N, R): ranges of c in each of which ln eta is either concave or convex, from the largest ratio
    down, the last repeated. least (N,): c from which eta is more than next to nothing. top (N,): the largest ln eta.
    """

    def __init__(self, params: Params, noise: Array, weight: Array, curve: Array) -> None:
        self.exact = params.success == "exact"
        self.floor_b, self.floor_p = np.log(params.min_bandwidth_hz), np.log(params.min_power_w)
        self.log_rate = np.log(physics.LN2 * params.payload_bit / params.deadline_s)
        self.noise, self.weight = np.log(noise), np.log(weight)
        self.zeta = params.curve_table[curve].T
        self.low, self.high, self.convex, self.least, self.top = (x[curve] for x in _ranges(params))
        self.lam = self.mu = np.ones_like(noise)

    def at_prices(self, rows: Array, lam: Array, mu: Array) -> Choices:
        """The users ``rows``, at prices (N,)."""
        part = self.take(rows)
        part.lam, part.mu = lam, mu
        return part

    def take(self, rows: Array) -> Choices:
        """Some of the users."""
        part = copy.copy(self)
        for name in ("noise", "weight", "low", "high", "convex", "least", "top", "lam", "mu"):
            setattr(part, name, getattr(self, name)[rows])
        part.zeta = self.zeta[:, rows]
        return part

    def task(self, c: Array) -> tuple[Array, Array, Array]:
        """ln eta at o = 1 - exp(c), and its first two derivatives by c."""
        return _log_task(self.zeta, c)

    def log_argument(self, b: Array, p: Array, c: Array) -> Array:
        """ln x."""
        return np.log(self._success(b, p, c)[1])

    def point(self, b: Array, p: Array, c: Array) -> Point:
        """All of a choice."""
        success, _, bend, fall, _, _ = self._success(b, p, c)
        return Point(b, p, c, self.task(c)[0] + success, success, bend, fall)

    def _success(self, b: Array, p: Array, c: Array) -> tuple[Array, ...]:
        """ln G, x, D, H, and the second derivatives of ln G by ln x and of ln x by c."""
        log_efficiency = np.minimum(c + self.log_rate - b, FARTHEST)
        e = np.exp(log_efficiency)
        less = -np.expm1(-e)
        bend = e / less
        x = np.exp(np.minimum(self.noise + b - p + e + np.log(less), FARTHEST))
        square = x * x
        if not self.exact:
            return -0.5 * square, x, bend, square, -2.0 * square, bend * (1.0 + e - bend)
        rate = hazard.hazard(x)
        fall = x * rate
        success = np.log(hazard.SQRT_2_OVER_PI / rate) - 0.5 * square
        return success, x, bend, fall, -fall * (1.0 + np.clip(x * (rate - x), 0.0, 1.0)), bend * (1.0 + e - bend)

    def costs(self, b: Array, p: Array) -> tuple[Array, Array]:
        """lam B and mu P."""
        return self.lam * np.exp(b), self.mu * np.exp(p)

    def floors(self) -> Array:
        """ln of what the floors cost."""
        return np.log(sum(self.costs(np.full_like(self.lam, self.floor_b), np.full_like(self.lam, self.floor_p))))

    def net(self, at: Point) -> Array:
        """The net value w V - lam B - mu P."""
        of_b, of_p = self.costs(at.b, at.p)
        return np.exp(self.weight + at.value) - of_b - of_p

    def climb(
        self, b: Array, p: Array, c: Array, share: Array | None = None, most: float = 1.0, slope: Array | None = None,
        ends: tuple[Array, Array] | None = None,
    ) -> Point:  # fmt: skip
        """The choices at which a gain in ln V is worth ``share`` of one in ln cost, by Newton's method.

        share: None for cost over value, so that the net value is largest, and ``most`` at most: at 1 the value per
        cost is largest. ends: of c, all of the curve if None. slope: of ln eta, if it is to be taken as straight.
        """
        low = np.stack([np.full_like(b, self.floor_b), np.full_like(b, self.floor_p), self.least], axis=-1)
        high = low + RANGE
        high[:, 2] = 0.0
        if ends is not None:
            low[:, 2], high[:, 2] = np.maximum(ends[0], self.least), ends[1]
        rare = self.log_argument(b, p, c) > 0.0  # where success is next to nothing steps are slow
        b = np.where(rare, np.maximum(b, c + self.log_rate - MODEST), b)
        p = p + np.maximum(self.log_argument(b, p, c), 0.0)
        at, last, radius = np.stack([b, p, c], axis=-1), np.zeros_like(low), np.ones_like(b)
        for _ in range(STEPS):
            step = _step(*self._slopes(at, share, most, slope), low - at, high - at, radius)
            back = np.sum(step * last, axis=-1) < -0.2 * np.sum(last * last, axis=-1)
            radius = np.where(back, 0.5 * np.max(np.abs(last), axis=-1), np.minimum(2.0 * radius, MOST))
            last = step = np.where(back, 0.5, 1.0)[:, None] * step  # less of it from one side to the other
            at = np.minimum(np.maximum(at + step, low), high)
            if np.max(np.abs(step)) < CLOSE:
                break
        return self.point(at[:, 0], at[:, 1], at[:, 2])

    def _slopes(self, at: Array, share: Array | None, most: float, slope: Array | None) -> tuple[Array, Array, Array]:
        """What a step is to bring to zero (N, 3), and how it changes (N, 3, 3): symmetric and negative definite.

        Third, how ln x changes (N, 3).
        """
        b, p, c = at.T
        success, _, bend, fall, sharp, twist = self._success(b, p, c)
        task, rising, curved = self.task(c)
        of_b, of_p = self.costs(b, p)
        cost = of_b + of_p
        of_b, of_p = of_b / cost, of_p / cost
        nu = share
        if nu is None:
            nu = np.exp(np.minimum(np.log(cost) - self.weight - task - success, np.log(most)))
        square = nu * np.minimum(nu, 1.0) if share is None else nu
        if slope is not None:
            rising, curved = slope, 0.0 * slope
        less, twisted = 1.0 - bend, fall * twist
        first = np.stack([-fall * less - nu * of_b, fall - nu * of_p, rising - fall * bend], axis=-1)
        second = np.empty((len(b), 3, 3))
        second[:, 0, 0] = sharp * less * less - twisted - nu * of_b + square * of_b * of_b
        second[:, 1, 1] = sharp - nu * of_p + square * of_p * of_p
        second[:, 2, 2] = sharp * bend * bend - twisted + np.minimum(curved, 0.0)
        second[:, 0, 1] = second[:, 1, 0] = -sharp * less + square * of_b * of_p
        second[:, 0, 2] = second[:, 2, 0] = sharp * less * bend + twisted
        second[:, 1, 2] = second[:, 2, 1] = -sharp * bend
        second[:, range(3), range(3)] *= 1.0 + RIDGE
        second[:, range(3), range(3)] -= 1e-30
        return first, second, np.stack([less, -np.ones_like(less), bend], axis=-1)

    def peak(self, at: Point) -> Array:
        """(N,) the most that ln eta - gamma c can be, gamma = H D."""
        of_runs = [
            np.where(
                self.convex[:, k], *(self.peak_within(at, self.low[:, k], self.high[:, k], x) for x in (True, False))
            )
            for k in range(self.low.shape[1])
        ]
        return np.max(of_runs, axis=0)

    def peak_within(self, at: Point, low: Array, high: Array, convex: bool) -> Array:
        """The same over c from ``low`` to ``high``, within which ln eta is convex or concave."""
        gamma = at.fall * at.bend
        if convex:
            return np.maximum(*(self.task(end)[0] - gamma * end for end in (low, high)))
        c = np.minimum(np.maximum(at.c, low), high)
        task, rising, _ = self.task(c)
        tilt = rising - gamma
        return task - gamma * c + np.maximum(tilt * (low - c), tilt * (high - c))

    def pieces(self, convex: bool, parts: int) -> tuple[Array, Array, Array]:
        """Whose, and from which c to which: the runs in which ln eta is concave, or ``parts`` parts of the others."""
        apart = np.column_stack([np.ones(len(self.low), bool), self.low[:, 1:] != self.low[:, :-1]])
        owner, run = np.nonzero(apart & (self.convex == convex))
        low, high = self.low[owner, run], self.high[owner, run]
        if not convex:
            return owner, low, high
        edges = low[:, None] + (high - low)[:, None] * (np.arange(parts + 1) / parts)
        return np.repeat(owner, parts), edges[:, :-1].ravel(), edges[:, 1:].ravel()

    def line(self, at: Point, peak: Array) -> tuple[Array, Array]:
        """a and theta with ln cost >= a + theta ln V, for all choices over whose c ``peak`` (:meth:`peak`) is taken."""
        of_b, of_p = self.costs(at.b, at.p)
        cost = of_b + of_p
        by_b, by_p = at.fall * (at.bend - 1.0), at.fall
        of_b, of_p = of_b / cost, of_p / cost
        theta = np.minimum(of_b / by_b, of_p / by_p)
        level = at.success + at.fall * at.bend * at.c + peak + MARGIN
        spare = (of_b - theta * by_b) * (self.floor_b - at.b) + (of_p - theta * by_p) * (self.floor_p - at.p)
        lost = at.success < LOST  # there only the floors are sure
        return np.where(lost, self.floors(), np.log(cost) + spare - theta * level), np.where(lost, 0.0, theta)

    def most(self, a: Array, theta: Array) -> tuple[Array, Array]:
        """The most that the net value can be under lines (N, J), and ln V there; of those that are not nothing."""
        weight, top = self.weight[:, None], self.top[:, None]
        steep = theta > 1.0
        still = np.where(steep, (weight - a - np.log(np.maximum(theta, 1.0))) / np.where(steep, theta - 1.0, 1.0), top)
        first, second = np.triu_indices(a.shape[1], 1)
        apart = theta[:, second] - theta[:, first]
        meet = (a[:, first] - a[:, second]) / np.where(apart != 0, apart, 1e-300)
        at = np.minimum(np.concat([still, top, meet], axis=1), top)
        cost = np.exp(np.minimum(np.max(a[:, None] + theta[:, None] * at[..., None], axis=-1), 300.0))
        net = np.exp(weight + at) - cost
        best = np.argmax(net, axis=1)[:, None]
        return np.take_along_axis(net, best, 1)[:, 0], np.take_along_axis(at, best, 1)[:, 0]


def _step(first: Array, second: Array, worse: Array, low: Array, high: Array, radius: Array) -> Array:
    """A Newton step (N, 3) between ``low`` and ``high``: what would leave them goes to the end, the rest follows.

    radius (N,): of the largest of the three changes. ``worse`` rises by 1 at most.
    """
    held = ((low >= 0) & (first < 0)) | ((high <= 0) & (first > 0))
    goal = np.zeros_like(first)
    for _ in range(3):
        system = np.where(held[:, :, None], np.eye(3), second)
        step = np.linalg.solve(system, np.where(held, goal, -first)[..., None])[..., 0]
        far = np.maximum(np.max(np.abs(step), axis=-1) / radius, np.sum(worse * step, axis=-1))
        step /= np.maximum(far, 1.0)[:, None]
        beyond = ~held & ((step < low) | (step > high))
        if not beyond.any():
            break
        goal = np.where(beyond, np.minimum(np.maximum(step, low), high), goal)
        held |= beyond
    return step


def _log_task(zeta: Array, c: Array) -> tuple[Array, Array, Array]:
    """ln eta at o = 1 - exp(c), eta kept from ``FLAT`` to 1, and its first two derivatives by c."""
    z1, z2, z3, z4 = zeta
    left = np.exp(c)
    bend, base = z1 * np.exp(z2 * (1.0 - left)), z3 * np.exp(z4 * (1.0 - left))
    raw = np.maximum(bend + base, FLAT)
    bend, base = z2 * bend, z4 * base
    slope = (bend + base) / raw
    curved = (z2 * bend + z4 * base) / raw - slope * slope
    below = raw < 1.0
    first = -left * slope
    return np.log(np.minimum(raw, 1.0)), below * first, below * (first + left * left * curved)


def _ranges(params: Params) -> tuple[Array, ...]:
    """Per curve ``low``, ``high``, ``convex`` (C, R), ``least`` and ``top`` (C,) of :class:`Choices`."""
    found = []
    for zeta in params.curve_table:
        c = np.linspace(np.log1p(-params.max_ratio), 0.0, GRID)
        value, _, curved = _log_task(zeta, c)
        least = int(np.argmax(value > np.log(FLAT)))
        first = max(least - 1, 0)
        convex = (curved[first:-1] > 0) & (curved[first + 1 :] > 0)  # of cells; where eta reaches 1 it bends down
        change = first + 1 + np.flatnonzero(np.diff(convex))
        starts = np.array([first, *change])
        top = min(value.max() + 1e-6, 0.0)  # more than lies between two points of the grid
        found.append((c[starts], c[np.append(change, GRID - 1)], convex[starts - first], c[least], top))
    most = max(len(low) for low, *_ in found)
    tables = ([np.pad(x[k], (0, most - len(x[k])), mode="edge") for x in found] for k in range(3))
    low, high, convex = (np.array(table) for table in tables)
    return low, high, convex, *(np.array([x[k] for x in found]) for k in (3, 4))
