"""What pairs are worth at prices of power, bandwidth and energy: points they attain, and bounds by branch and bound.

Many instances at once: the cells and points of all their pairs are worked on together, see :mod:`cells`.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.baselines.sfma import centred, matching
from semcom_gym.baselines.sfma.cells import Cells, Choice, Plane, Points
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.sfma.instance import Instance, Params

GRID = 8  # cells along each axis at first
CENTRED = 2  # times cells are split before they are small enough for the bound of second order
MAX_LEVELS = 16  # of splitting; what is still open then counts with its upper bound
STAGES = 8  # of the pattern search: steps half as large where none was better
AROUND = np.array([(i, j) for i in (-1.0, 0.0, 1.0) for j in (-1.0, 0.0, 1.0) if i or j])  # steps in y and x


class Pricing:
    """The oracle of n instances at prices (n, 3) in Mbit/s per W, MHz and J."""

    def __init__(self, params: Params, instance: Instance) -> None:
        self.users, self.plane = params.num_users, Plane(params, instance)
        self.grid = self.plane.grid(GRID)
        self.known = Points(np.zeros(0, int), np.zeros(0), np.zeros(0))
        self.size = np.ones((2, len(self.plane.low)))  # half of a cell: factor of y, step of x
        self.size[0, self.grid.pair] = np.sqrt(self.grid.y2 / self.grid.y1)
        self.size[1, self.grid.pair] = 0.5 * (self.grid.x2 - self.grid.x1)

    def meet(self, points: Points) -> None:
        """Take in points that will be tried at every price."""
        self.known = concatenate([self.known, points])

    def attain(self, price: Array, active: Array) -> Values:
        """Good points of the pairs of the ``active`` instances (n,) at prices, by pattern search; nothing is proven."""
        state = Values(self.plane)
        known, grid = self._starts(active)
        for points in (known, grid.middle()):
            state.learn(points, self.plane.value(price, points))
        factor, step = self.size
        for _ in range(STAGES):
            centre = state.points()
            pair, before = np.tile(centre.pair, len(AROUND)), state.lower.copy()
            y = centre.y * factor[centre.pair] ** AROUND[:, :1]
            x = centre.x + step[centre.pair] * AROUND[:, 1:]
            around = Points(pair, y.ravel(), x.ravel())
            state.learn(around, self.plane.value(price, around))
            stuck = state.lower == before
            factor, step = np.where(stuck, np.sqrt(factor), factor), np.where(stuck, 0.5 * step, step)
        self.meet(state.points())
        return state

    def answer(self, price: Array, active: Array, tolerance: float) -> Values:
        """Bounds of the pairs of the ``active`` instances (n,) at prices, and points that they attain.

        tolerance: how far the best matching of bounds may be from that of points, relative to the bound of the problem.
        """
        state = Values(self.plane)
        known, cells = self._starts(active)
        state.learn(known, self.plane.value(price, known))
        for level in range(MAX_LEVELS):
            cells, upper = self._bounded(price, cells, state, level >= CENTRED)
            if not len(cells):
                break
            state.upper = np.maximum(state.closed, state.lower)
            np.maximum.at(state.upper, cells.pair, upper)
            lower, top = state.matrix(state.lower), state.matrix(state.upper)
            opened = np.zeros(lower.size, bool)
            opened[cells.pair] = True
            least = matching.total(lower, self.users)
            slack = tolerance * (price @ self.plane.budget + np.maximum(least, 0.0))[:, None]
            contends = matching.through(top, self.users, state.matrix(opened)) > least[:, None] + 0.5 * slack
            limit = np.where(contends, lower + slack / self.users, np.inf).ravel()
            still = (upper > limit[cells.pair]) & (level < MAX_LEVELS - 1)
            np.maximum.at(state.closed, cells.pair[~still], upper[~still])
            cells = cells[still].split()
        state.upper = np.maximum(state.closed, state.lower)
        self.meet(state.points())
        return state

    def _starts(self, active: Array) -> tuple[Points, Cells]:
        """The points met and the first cells of the ``active`` instances."""
        met, first = (active[part.pair // self.plane.each] for part in (self.known, self.grid))
        return self.known[met], self.grid[first]

    def _bounded(self, price: Array, cells: Cells, state: Values, small: bool) -> tuple[Cells, Array]:
        """The cells that may hold more than the points met, and their bounds. Their middles are met on the way."""
        cells, upper, _ = _above(state, cells, self.plane.bound(price, cells))
        middle = cells.middle()
        choice = self.plane.value(price, middle)
        state.learn(middle, choice)
        if small:
            cells, upper, rows = _above(state, cells, upper)
            second = centred.bound(self.plane, price, cells, choice.ratio[rows])
            cells, upper, _ = _above(state, cells, np.fmin(upper, second))
        return cells, upper


def _above(state: Values, cells: Cells, upper: Array) -> tuple[Cells, Array, Array]:
    """The cells whose bounds are above the best points of their pairs, their bounds, and which they are."""
    rows = np.flatnonzero(~(upper <= state.lower[cells.pair]))
    return cells[rows], upper[rows], rows


class Values:
    """Per pair (n M,): the largest bound of the closed cells, and the best point met."""

    def __init__(self, plane: Plane) -> None:
        count = len(plane.low)
        self.shape = plane.count, plane.each
        self.closed, self.lower, self.upper = (np.full(count, -np.inf) for _ in range(3))
        self.reward, self.use = np.zeros(count), np.zeros((count, 3))
        self.y, self.x = np.zeros(count), np.zeros(count)

    def matrix(self, value: Array) -> Array:
        """(n, M) of (n M,)."""
        return value.reshape(self.shape)

    def learn(self, points: Points, choice: Choice) -> None:
        """Take in points: the best of each pair is kept."""
        pair, highest = points.pair, self.lower.copy()
        np.maximum.at(highest, pair, choice.net)
        top = np.flatnonzero((choice.net > self.lower[pair]) & (choice.net == highest[pair]))
        row, points, choice = pair[top], points[top], choice[top]
        self.lower[row], self.y[row], self.x[row] = choice.net, points.y, points.x
        self.reward[row] = choice.reward
        self.use[row] = np.stack([choice.power, choice.bandwidth, choice.energy], axis=-1)

    def points(self) -> Points:
        """The best point of every pair that has one."""
        pair = np.flatnonzero(np.isfinite(self.lower))
        return Points(pair, self.y[pair], self.x[pair])
