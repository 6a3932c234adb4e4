"""Perfect matchings of pairs of which some have no value at all."""

from __future__ import annotations

import numpy as np

from semcom_gym.envs.arrays import Array
from semcom_gym.envs.sfma import pairs


def chosen(value: Array, users: int) -> Array:
    """(n, K) the perfect matching of largest total value (n, M); a pair of -inf is in it only if it must."""
    return pairs.best_matching(_finite(value), users)


def total(value: Array, users: int) -> Array:
    """(n,) its total value; -inf where a pair of -inf is in it."""
    return np.take_along_axis(value, chosen(value, users), -1).sum(axis=-1)


def through(value: Array, users: int, wanted: Array) -> Array:
    """(n, M) the largest total of a perfect matching that has each ``wanted`` pair (n, M).

    Anything for the other pairs, and too large a number where all such matchings have a pair of -inf.
    """
    finite = _finite(value)
    if users <= pairs.LISTED_USERS:
        return pairs.best_totals(finite, users)
    row, pair = np.nonzero(wanted)
    each = finite[row]
    forced = each.copy()
    forced[np.arange(len(row)), pair] += (users + 2.0) * (np.ptp(each, axis=-1) + 1.0)
    best = np.full_like(finite, np.inf)
    best[row, pair] = np.take_along_axis(each, pairs.best_matching(forced, users), -1).sum(axis=-1)
    return best


def _finite(value: Array) -> Array:
    """Values (n, M) with -inf replaced by so little that the other pairs of a matching cannot make up for it."""
    there = np.isfinite(value)
    if there.all():
        return value
    least = np.min(value, axis=-1, keepdims=True, where=there, initial=np.inf)
    most = np.max(value, axis=-1, keepdims=True, where=there, initial=-np.inf)
    some = there.any(axis=-1, keepdims=True)
    spread = np.where(some, most, 0.0) - np.where(some, least, 0.0)
    return np.where(there, value, np.where(some, least, 0.0) - value.shape[-1] * spread - 1.0)
