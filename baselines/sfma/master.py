"""The linear programme of the bound's prices: which attained points to use, as a mixture of perfect matchings."""

from __future__ import annotations

import numpy as np

from semcom_gym.baselines.sfma import matching
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.sfma import pairs

LACKING = 1e4  # times the largest reward: what a mixture pays for the share that it has no matching for
PIVOTS = 200  # far more than it takes; any prices give a valid bound
OPTIMAL = 1e-9  # of the largest reward
LEAST_STEP = 1e-12


class Master:
    """Dantzig-Wolfe: the best mixture of matchings, of points that their pairs attained, within the budgets. The
    multipliers of the budgets are the next prices.

    A revised simplex method. Its rows are the three budgets and the sum of the mixture, so a basis has four columns;
    the column that comes in is the best matching at the multipliers. The basis stays when points are added.
    """

    def __init__(self, users: int, budget: Array) -> None:
        self.users, self.budget, count = users, budget, pairs.count(users)
        self.reward, self.use = np.empty((0, count)), np.empty((0, count, 3))
        self.largest = 0.0
        self.columns, self.worth = np.eye(4), np.zeros(4)  # what is left of each budget, and lacking all
        self.lacking = np.array([False, False, False, True])

    def add(self, pair: Array, reward: Array, use: Array) -> None:
        """Points (k,) of different pairs: rewards [Mbit/s], and use (k, 3) of the budgets."""
        count = self.reward.shape[1]
        row, used = np.full((1, count), -np.inf), np.zeros((1, count, 3))
        row[0, pair], used[0, pair] = reward, use / self.budget
        self.reward, self.use = np.concatenate([self.reward, row]), np.concatenate([self.use, used])
        self.largest = max(self.largest, float(np.max(np.abs(reward), initial=0.0)))

    def solve(self) -> tuple[Array, float]:
        """Prices (3,) and optimum. Raises ArithmeticError if no mixture keeps to the budgets."""
        self.worth[self.lacking] = -LACKING * self.largest
        for _ in range(PIVOTS):
            inverse = np.linalg.inv(self.columns)
            price, share = self.worth @ inverse, inverse.sum(axis=-1)
            column, worth = self._entering(price)
            if worth - price @ column <= OPTIMAL * self.largest:
                break
            step = inverse @ column
            ratio = np.where(step > LEAST_STEP, np.maximum(share, 0.0) / np.maximum(step, LEAST_STEP), np.inf)
            out = int(np.argmin(ratio))
            self.columns[:, out], self.worth[out], self.lacking[out] = column, worth, False
        if share[self.lacking].sum() > OPTIMAL:
            raise ArithmeticError("no mixture of matchings of the points keeps to the budgets")
        # a price of exactly zero would make free goods of unbounded use
        return np.maximum(price[:3], OPTIMAL * self.largest) / self.budget, float(self.worth @ share)

    def _entering(self, price: Array) -> tuple[Array, float]:
        """The column of largest value at the multipliers (4,), and what it is worth."""
        cheapest = int(np.argmin(price[:3]))
        if price[cheapest] < -OPTIMAL * self.largest:
            return np.eye(4)[cheapest], 0.0
        net = self.reward - self.use @ price[:3]
        point, best = np.argmax(net, axis=0), np.max(net, axis=0)
        pair = matching.chosen(best[None], self.users)[0]
        if not np.isfinite(best[pair]).all():
            return np.zeros(4), -np.inf
        point = point[pair]
        return np.append(self.use[point, pair].sum(axis=0), 1.0), float(self.reward[point, pair].sum())
