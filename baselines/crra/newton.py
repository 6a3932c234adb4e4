"""Newton's method on the optimality conditions of a whole batch: the users share two budgets and nothing else.

In the logarithms s of its shares of what is spare, user i is worth V_i(s_b, s_p), its ratio following. At prices
lam, mu per share its step is d_i = M_i^-1 (g_i - (lam b_i, mu p_i)), where g_i is the gradient and -M_i the 2 x 2 block
of second derivatives. That shares sum to one, sum b_i d_bi = 0 = sum p_i d_pi, leaves 2 x 2 equations for the prices.
V is S-shaped, so blocks are kept away from singular, and steps within a radius that shrinks when the value fell.

A user who leaves frees cost = lam b_i + mu p_i at the going prices, which fall as the others take it. With their
response S = sum_j (b_j, p_j)' M_j^-1 (b_j, p_j) the cost falls by f = (b_i, p_i) S^-1 (b_i, p_i)' / 2 to first order;
what is left is taken as cost / (1 + f / cost), exact for values that fall as 1 / share. Who is worth less is dropped.
"""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

from semcom_gym.baselines.crra.normal import Slopes, Users
from semcom_gym.envs.arrays import (
    Array,
    at_least,
    at_most,
    at_rows,
    copied,
    in_order,
    largest,
    namespace,
    rows_where,
    turned,
)
from semcom_gym.envs.crra import actions
from semcom_gym.envs.crra.instance import Instance, Params

LEAST_BEND = 0.5  # least curvature of a block over its gradient: a share moves by twice what it is off at most
CROSS = 0.7  # largest off-diagonal entry of a block over the geometric mean of its diagonal
RADIUS, GROW, SHRINK = 0.5, 1.5, 0.25  # of a step: the largest, and its factors after the value rose and fell
RATIO_STEPS = (-0.2, 0.5)  # of a ratio: down, and up as a share of what is left
SETTLING = 1  # steps before anybody is dropped
CALM = 0.02  # users are judged where no share of a budget moves by more
POOR = 0.5  # or if they are worth less than this part of their cost
CRUMB = 0.05  # shares this small, over an equal one, may go several at once
NEAR = 5e-4  # a least surplus this close to zero, over the value, is no proof
SPARED = 3e-3  # what a user may lack, over the value, as long as floors are not yet held
DONE = 5e-5  # an instance leaves when no share and no ratio moves by more
TINY = 1e-30
FLAT = 1e-300  # of a determinant: nobody is served


class Cells:
    """A batch with the users first, (U, n), so that sums over users add whole rows; and its floors.

    What belongs to bandwidth and power is stacked, in this order, on an axis before.
    """

    def __init__(self, params: Params, instance: Instance, floors: tuple[float, float] | None = None) -> None:
        """floors: to begin selection with, instead of those of ``params``; everybody holds them, served or not."""
        own = params.min_bandwidth_hz, params.min_power_w
        budgets = instance.bandwidth_hz, instance.power_w
        self.users = Users(params, instance).map(lambda x: in_order(turned(x)))
        self.budgets = namespace(budgets[0]).stack(budgets)[:, None]  # (2, 1, n)
        self.floors = _each(self.budgets, floors or own)
        self.selection = params.selection and floors is None
        self.freed: Array = _each(self.budgets, own) if params.selection else None  # by who leaves
        self.most = None if floors is None else actions.capacity(params, instance)  # users, (n,)

    def __len__(self) -> int:
        return int(self.budgets.shape[-1])

    def take(self, rows: Array) -> Cells:
        """Some of the instances."""
        part = copy.copy(self)
        part.users = self.users.map(lambda x: at_rows(x, rows))
        for name in ("budgets", "floors", "freed", "most"):
            x = getattr(self, name)
            setattr(part, name, None if x is None else at_rows(x, rows))
        return part

    def spare(self, served: Array) -> Array:
        """What is left of each budget above the floors, (2, 1, n)."""
        held = served.sum(0) if self.selection else served.shape[0]
        return at_least(self.budgets - self.floors * held, 0.0)

    def amounts(self, point: Point) -> Array:
        """Bandwidth [Hz] and power [W], (2, U, n)."""
        return self.floors + self.spare(point.served) * point.share

    def total(self, value: Array, served: Array) -> Array:
        """The objective (n,) of the users' values."""
        return (value * served if self.selection else value).sum(0)


def _each(budgets: Array, pair: tuple[float, float]) -> Array:
    """A number for bandwidth and one for power, like ``budgets``."""
    xp = namespace(budgets)
    return xp.stack([xp.full_like(budgets[0], pair[0]), xp.full_like(budgets[1], pair[1])])


@dataclasses.dataclass
class Point:
    """Shares of what is spare (2, U, n), the served set in {0, 1} and the ratio, both (U, n)."""

    share: Array
    served: Array
    ratio: Array

    def take(self, rows: Array) -> Point:
        """Some of the instances."""
        return Point(*(at_rows(x, rows) for x in vars(self).values()))

    def put(self, rows: Array, other: Point) -> None:
        """Replace some instances' entries."""
        for name, x in vars(self).items():
            x[..., rows] = getattr(other, name)

    def without(self, leaving: Array) -> Point:
        """The point when the users of a mask (U, n) are served no more."""
        served = namespace(leaving).where(leaving, 0.0, self.served)
        return Point(shares(self.share * served), served, self.ratio)


@dataclasses.dataclass
class Verdict:
    """The value that Newton's method saw last, the user served of least surplus, and whether that is in doubt; (n,)."""

    value: Array
    who: Array
    doubt: Array


def shares(weight: Array) -> Array:
    """Weights (2, U, n) over their sums, all zero where nobody is served."""
    return weight / at_least(weight.sum(1), TINY)[:, None]


def is_user(who: Array, users: int) -> Array:
    """The mask (U, n) of one user (n,) of every instance."""
    return namespace(who).arange(users, device=who.device)[:, None] == who


def refine(cells: Cells, point: Point, steps: int, drop: bool = True) -> tuple[Point, Verdict]:
    """Newton steps from a point; users who do not pay are dropped if ``drop``. Instances leave as they converge."""
    xp, everyone = namespace(point.share), cells.budgets[0, 0]
    found = Point(*(copied(x) for x in vars(point).values()))
    before, radius = xp.full_like(everyone, -1.0), xp.full_like(everyone, RADIUS)
    verdict = Verdict(copied(before), xp.zeros_like(everyone, dtype=xp.int64), xp.zeros_like(everyone, dtype=xp.bool))
    rows = xp.arange(everyone.shape[0], device=everyone.device)
    for k in range(steps):
        last, judged = k == steps - 1, drop and k >= SETTLING
        local = Local(cells, point)
        radius = xp.where(local.total < before, SHRINK * radius, at_most(GROW * radius, RADIUS))
        before = local.total
        point, moved = local.step(radius)
        settled = (moved < DONE) if judged or not drop else (moved < 0.0)
        if judged:
            leaving, who, doubt = local.judge(moved)
        if judged and not last:
            point = point.without(leaving)
            changed = leaving.any(0)
            before = xp.where(changed, -1.0, before)
            settled = settled & ~changed
        elif last:
            settled = moved >= 0.0
        leave = rows_where(settled)
        if not len(leave):
            continue
        found.put(rows[leave], point.take(leave))
        verdict.value[rows[leave]] = local.total[leave]
        if judged:
            verdict.who[rows[leave]], verdict.doubt[rows[leave]] = who[leave], doubt[leave]
        stay = rows_where(~settled)
        if not len(stay):
            break
        cells, point, rows, before, radius = cells.take(stay), point.take(stay), rows[stay], before[stay], radius[stay]
    return found, verdict


class Local:
    """Value, gradient and inverse block of every user at a point, in logarithms of shares."""

    def __init__(self, cells: Cells, point: Point) -> None:
        self.cells, self.point = cells, point
        users, share, xp = cells.users, point.share, namespace(point.share)
        self.spare = cells.spare(point.served)
        self.amounts = cells.floors + self.spare * share
        at = users.slopes(self.amounts, point.ratio)
        diagonal, cross, mixed = bends(at)
        self.value, self.total, self.turn = at.value, cells.total(at.value, point.served), at.step
        rise = self.spare * share / self.amounts  # d ln amount / d ln share
        part = at.value * rise
        self.by = part * at.by
        even = self.by.sum(1)[:, None] * share + TINY  # what the mean price asks for
        # a ratio at its end stays there if it, or the move to come, presses against it
        follow = mixed / -at.ratio_bend
        push = follow * (at_most(0.5 * self.by / even, 1.0) - 0.5)
        near = point.ratio + self.turn
        far = near + push[0] + push[1]
        free = (xp.minimum(near, far) > 0.0) & (xp.maximum(near, far) < users.params.max_ratio)
        follow = follow * free
        diagonal = xp.minimum(part * rise * (diagonal + mixed * follow), -LEAST_BEND * xp.maximum(self.by, even))
        product = diagonal[0] * diagonal[1]
        most = CROSS * xp.sqrt(product)
        cross = xp.minimum(xp.maximum(part[0] * rise[1] * (cross + mixed[0] * follow[1]), -most), most)
        scale = -1.0 / (product - cross * cross)
        self.inverse, self.across = _swapped(diagonal) * scale, cross * -scale
        self.follow = rise * follow
        self._price()

    def _price(self) -> None:
        """The prices (2, n) at which the steps leave the budgets as they are, and everybody's response to them."""
        share = self.point.share
        self.to = self.inverse * self.by + self.across * _swapped(self.by)
        self.response, self.crossed = self.inverse * share * share, self.across * share[0] * share[1]
        self.all, self.all_crossed = self.response.sum(1), self.crossed.sum(0)
        due = (share * self.to).sum(1)
        scale = 1.0 / at_least(self.all[0] * self.all[1] - self.all_crossed * self.all_crossed, FLAT)
        self.prices = (_swapped(self.all) * due - self.all_crossed * _swapped(due)) * scale

    def step(self, radius: Array) -> tuple[Point, Array]:
        """The next point, and the largest share of a budget, or of a ratio, that would move without the radius (n,)."""
        share, served, ratio, xp = self.point.share, self.point.served, self.point.ratio, namespace(radius)
        fee = self.prices[:, None] * share
        move = self.to - self.inverse * fee - self.across * _swapped(fee)
        moved = share * abs(move)
        move = xp.minimum(xp.maximum(move, -radius), radius)
        turn = self.follow * move
        turn = xp.minimum(at_least(self.turn + turn[0] + turn[1], RATIO_STEPS[0]), RATIO_STEPS[1] * (1.0 - ratio))
        new = at_most(at_least(ratio + turn, 0.0), self.cells.users.params.max_ratio)
        moved = xp.maximum(xp.maximum(moved[0], moved[1]), share[0] * abs(new - ratio))
        return Point(shares(share * xp.exp(move) * served), served, new), largest(moved, 0)

    def judge(self, moved: Array) -> tuple[Array, Array, Array]:
        """Who leaves, a mask (U, n); the user of the least surplus (n,), and whether that is in doubt (n,)."""
        cells, served, value, xp = self.cells, self.point.served, self.value, namespace(moved)
        cost, left = self._cost()
        surplus = xp.where(served > 0, value - left, xp.inf)
        who = surplus.argmin(0)
        worst, count = is_user(who, len(surplus)), served.sum(0)
        leaving = surplus < (0.0 if cells.most is None else -SPARED * self.total)
        crumb = xp.maximum(self.point.share[0], self.point.share[1]) < CRUMB / len(served)
        leaving = leaving & (crumb | worst & ((moved < CALM) | (value < POOR * cost)) & (count > 1))
        if cells.most is not None:
            leaving = leaving | worst & (count > cells.most)
        if not cells.selection:
            return leaving, who, abs(largest(-surplus, 0)) < NEAR * self.total
        first = xp.where(served > 0, value - cost, xp.inf)  # where floors bind the others' response is no model
        return leaving, first.argmin(0), largest(-first, 0) > 0.0

    def _cost(self) -> tuple[Array, Array]:
        """The cost of every user's resources at the going prices, and what is left of it when the others take them."""
        held = self.point.share
        if self.cells.freed is not None:
            held = namespace(held).maximum(self.amounts, self.cells.freed) / at_least(self.spare, TINY)
        others = (1 + 1e-9) * self.all[:, None] - self.response  # never zero
        crossed = self.all_crossed - self.crossed
        fall = _swapped(others) * held * held
        fall = 0.5 * (fall[0] + fall[1]) - crossed * held[0] * held[1]
        fall = fall / at_least(others[0] * others[1] - crossed * crossed, FLAT)
        cost = self.prices[:, None] * held
        cost = cost[0] + cost[1]
        return cost, cost * cost / (cost + fall + TINY)


def _swapped(pair: Array) -> Array:
    """Power before bandwidth."""
    return pair[::-1] if isinstance(pair, np.ndarray) else pair.flip(0)


def bends(at: Slopes) -> tuple[Array, Array, Array]:
    """Second derivatives of the value over the value.

    Returns B^2 V_BB / V and P^2 V_PP / V (2, U, n), and BP V_BP / V, all at a fixed ratio; and the mixed derivatives of
    ln V by the ratio and ln B, ln P (2, U, n).
    """
    mixed = at.bend * at.falls
    diagonal = at.by * at.by - at.falls * mixed
    diagonal[0] -= at.reach * at.load
    diagonal[1] -= 2.0 * at.by[1]
    mixed[0] += at.load
    mixed[1] += at.rate
    cross = at.by[0] * at.by[1] - at.falls[0] * mixed[1]
    mixed *= -at.steep
    return diagonal, cross, mixed
