"""How far a batch has to move, from 0 to 1, for a limit to be met."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semcom_gym.envs.arrays import Array, at_least, at_most, at_rows, few, is_torch, like, namespace, with_rows
from semcom_gym.envs.sfma.fixed_point import FEW

Function = Callable[[Array], Array]
LADDER = np.array((0.0, 0.25, 0.5, 0.75, 1.0))
SECANTS = 2


def least_move(start: Array, excess: Callable[[Array | None], Function], hopeless: Array | None = None) -> Array:
    """(n,) about the least t in [0, 1] with excess(t) <= 0, 0 where ``start`` already is, 1 where none is found.

    excess: of all (None) or some rows, the function that gives the relative excess (R, n) after moves t (R, n).
    hopeless (n,): where no move is known to help. The first rung of a ladder that meets the limit, then secant steps
    below it; the end of the bracket that meets the limit is returned.
    """
    xp = namespace(start)
    over = start > 0
    open_ = over if hopeless is None else over & ~hopeless
    values = _ladder(start, open_, excess)
    meets = values <= 0
    found = xp.any(meets, axis=0) & open_
    rows, whole = few(found), xp.astype(over, start.dtype)
    if rows is not None and len(rows) == 0:
        return whole
    ends = like(LADDER, start)
    rung = at_rows(at_least(xp.argmax(xp.astype(meets, xp.int8), axis=0), 1), rows)
    at = xp.arange(start.shape[0], device=start.device) if rows is None else rows
    end = _secants((ends[rung - 1], values[rung - 1, at]), (ends[rung], values[rung, at]), excess(rows))
    return with_rows(whole, found, rows, end)


def _ladder(start: Array, left: Array, excess: Callable[[Array | None], Function]) -> Array:
    """(5, n) the excess at the rungs for the rows ``left``: one after another while they are many (NumPy), where
    ``start`` stands for those beyond the first that meets the limit.
    """
    xp, ends = namespace(start), like(LADDER, start)[:, None]
    values = xp.tile(at_least(start, 0.0), (len(LADDER), 1))
    n = start.shape[0]
    first, step = 1, len(LADDER) if is_torch(start) or n <= FEW else 1
    while first < len(LADDER):
        rows = few(left)
        if rows is not None and 2 * len(rows) <= n:
            step = len(LADDER)
        if rows is not None and len(rows) == 0:
            break
        tried = excess(rows)(ends[first : first + step] + xp.zeros_like(at_rows(start, rows)))
        values[first : first + step, slice(None) if rows is None else rows] = tried
        left, first = left & (values[first] > 0), first + step
    return values


def _secants(left: tuple[Array, Array], right: tuple[Array, Array], excess: Function) -> Array:
    """Where an excess is met, close to where it begins to be. left, right: a place where it is not and one where it is,
    with the excess there.
    """
    (low, at_low), (high, at_high) = left, right
    xp = namespace(low)
    for _ in range(SECANTS):
        share = at_low / at_least(at_low - at_high, 1e-30)
        # a little beyond the root, so that the end that meets the limit comes close
        t = low + (high - low) * at_most(1.05 * share + 1e-3, 1.0)
        value = excess(t[None])[0]
        better = value <= 0
        low, at_low = xp.where(better, low, t), xp.where(better, at_low, value)
        high, at_high = xp.where(better, t, high), xp.where(better, value, at_high)
    return high
