"""Multiplier search shared by the bounds: the Lagrangian dual of a problem that only budgets couple.

max sum_i f_i(u_i) subject to sum_i use_i(u_i) <= budget has, for any prices p >= 0, the upper bound
``sum_i max_u [f_i(u) - p use_i(u)] + p budget``. An oracle bounds each user's maximum from above and names a point
that comes close; the points are the columns of a linear programme whose multipliers are the next prices
(Dantzig-Wolfe). Only the oracle's upper bounds enter the result, so any prices give a valid bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.optimize

from semcom_gym.envs.arrays import Array


@dataclasses.dataclass(frozen=True)
class Columns:
    """One choice of each user: reward (n, U) and what it uses of the m budgets, (n, U, m)."""

    reward: Array
    use: Array


Oracle = Callable[[Array, Array, float], tuple[Array, Columns]]
"""(prices (k, m), which (k,), tolerance) -> upper bounds (k, U) of each user's net maximum, and choices near it."""


def minimise(
    oracle: Oracle, budget: Array, prices: Array, known: list[Columns], *, rounds: int, coarse: float, fine: float
) -> Array:
    """The least dual bound (n,) found in ``rounds`` price updates, the last evaluation at tolerance ``fine``.

    budget (n, m); prices (n, m) to start from; known: columns that make the programme feasible from the start.
    """
    n = len(budget)
    everyone = np.arange(n)
    columns = list(known)
    best, best_prices = np.full(n, np.inf), prices.copy()
    for _ in range(rounds):
        upper, found = oracle(prices, everyone, coarse)
        value = upper.sum(-1) + (prices * budget).sum(-1)
        better = value < best
        best, best_prices = np.where(better, value, best), np.where(better[:, None], prices, best_prices)
        columns.append(found)
        prices = np.stack([_master(columns, budget, i) for i in range(n)])
    upper, _ = oracle(best_prices, everyone, fine)
    return np.minimum(best, upper.sum(-1) + (best_prices * budget).sum(-1))


def _master(columns: list[Columns], budget: Array, i: int) -> Array:
    """Prices (m,) of instance i: multipliers of the budgets in the programme over its columns."""
    reward = np.stack([c.reward[i] for c in columns], axis=1)  # (U, k)
    use = np.stack([c.use[i] for c in columns], axis=1) / budget[i]  # (U, k, m)
    users, k = reward.shape
    one_each = np.kron(np.eye(users), np.ones((1, k)))
    result = scipy.optimize.linprog(
        -reward.ravel(),
        A_ub=use.reshape(users * k, -1).T,
        b_ub=np.ones(budget.shape[1]),
        A_eq=one_each,
        b_eq=np.ones(users),
        method="highs",
    )
    if not result.success:
        raise RuntimeError(f"linear programme of the dual bound failed: {result.message}")
    # a price of exactly zero would make free goods of unbounded use; the bound is valid at any price
    return np.maximum(-result.ineqlin.marginals, 1e-9 * np.max(np.abs(reward)) + 1e-30) / budget[i]
