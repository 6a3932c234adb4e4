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
import scipy.sparse

from semcom_gym.envs.arrays import Array

CONVERGED = 1e-6  # relative


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
    """The least dual bound (n,) found in at most ``rounds`` price updates, the last evaluation at tolerance ``fine``.

    budget (n, m); prices (n, m) to start from; known: columns that make the programme feasible from the start. An
    instance is done when its bound is within ``CONVERGED`` of its programme, the least that any prices can reach over
    the columns so far.
    """
    n = len(budget)
    columns = list(known)
    best, best_prices, prices = np.full(n, np.inf), prices.copy(), prices.copy()
    active = np.arange(n)
    for _ in range(rounds):
        upper, found = oracle(prices[active], active, coarse)
        value = upper.sum(-1) + (prices[active] * budget[active]).sum(-1)
        better = value < best[active]
        best[active[better]] = value[better]
        best_prices[active[better]] = prices[active[better]]
        attained = (found.reward - (found.use * prices[active, None]).sum(-1)).sum(-1) + value - upper.sum(-1)
        columns.append(_spread(found, active, columns[0]))
        new, reachable = _masters(columns, budget, active)
        found_some = np.isfinite(reachable)  # elsewhere the best prices stand: any give a bound, these a looser one
        prices[active[found_some]] = new[found_some]
        active = active[found_some & (attained - reachable > CONVERGED * np.abs(best[active]))]
        if not len(active):
            break
    upper, _ = oracle(best_prices, np.arange(n), fine)
    return np.minimum(best, upper.sum(-1) + (best_prices * budget).sum(-1))


def _spread(found: Columns, rows: Array, template: Columns) -> Columns:
    """Columns of some instances as columns of all; the others repeat those they have."""
    reward, use = template.reward.copy(), template.use.copy()
    reward[rows], use[rows] = found.reward, found.use
    return Columns(reward, use)


def _masters(columns: list[Columns], budget: Array, rows: Array) -> tuple[Array, Array]:
    """:func:`_master` of instances together, or of each alone if the solver gives up; NaN where it still does."""
    try:
        return _master(columns, budget, rows)
    except ArithmeticError:
        if len(rows) == 1:
            return np.full((1, budget.shape[1]), np.nan), np.full(1, np.nan)
        alone = [_masters(columns, budget, rows[k : k + 1]) for k in range(len(rows))]
        return np.concat([prices for prices, _ in alone]), np.concat([reachable for _, reachable in alone])


def _master(columns: list[Columns], budget: Array, rows: Array) -> tuple[Array, Array]:
    """Prices (n, m) of the instances ``rows``, the multipliers of the budgets in the programmes over their columns, and
    the optima (n,). The programmes are solved as one, as they share nothing: most of the time is the call.

    Raises ArithmeticError if the solver gives up on them.
    """
    reward = np.stack([c.reward[rows] for c in columns], axis=2)  # (n, U, k)
    use = np.stack([c.use[rows] for c in columns], axis=2) / budget[rows, None, None]  # (n, U, k, m)
    n, users, k, m = use.shape
    size = users * k
    column = np.arange(n * size).reshape(n, 1, size)
    used = use.reshape(n, size, m).swapaxes(1, 2).ravel(), np.repeat(column, m, axis=1).ravel()
    budgets: Array = scipy.sparse.csr_array((*used, np.arange(0, n * m * size + 1, size)))
    one_each: Array = scipy.sparse.csr_array((np.ones(n * size), column.ravel(), np.arange(0, n * size + 1, k)))
    result = scipy.optimize.linprog(
        -reward.ravel(),
        A_ub=budgets,
        b_ub=np.ones(n * m),
        A_eq=one_each,
        b_eq=np.ones(n * users),
        method="highs",
    )
    if not result.success:
        raise ArithmeticError(f"linear programme of the dual bound failed: {result.message}")
    # a price of exactly zero would make free goods of unbounded use; the bound is valid at any price
    least = 1e-9 * np.max(np.abs(reward), axis=(1, 2)) + 1e-30
    prices = np.maximum(-result.ineqlin.marginals.reshape(n, m), least[:, None]) / budget[rows]
    return prices, np.sum((reward.ravel() * result.x).reshape(n, size), axis=1)


def concave_top(y1: Array, y2: Array, f1: Array, f2: Array, s1: Array, s2: Array) -> Array:
    """An upper bound of a concave function on [y1, y2] by its values and slopes at the ends; exact where y1 = y2."""
    width = y2 - y1
    bend = np.where(s1 > s2, s1 - s2, 1.0)
    # where the two tangents meet
    t = np.clip((f2 - f1 - s2 * width) / bend, 0.0, width)
    meet = np.maximum(np.minimum(f1 + s1 * t, f2 + s2 * (t - width)), np.maximum(f1, f2))
    return np.where(s1 <= 0, f1, np.where(s2 >= 0, f2, meet))
