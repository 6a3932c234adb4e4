"""Budgets as points of a simplex: shares of what is left above every user's guaranteed minimum.

The map from an action entry a in [-1, 1] to a share is ``((a + 1) / 2) ** 4`` over its sum. It reaches
a share of exactly zero at a = -1, which a softmax of a bounded action cannot, and has an exact inverse.
"""

from __future__ import annotations

from semcom_gym.envs.arrays import Array, at_least, namespace, total

POWER = 4
TINY = 1e-30  # keeps the sum positive when every entry is -1; below the rounding of both float types otherwise


def action_to_weight(action: Array) -> Array:
    """Unnormalised share of each entry of ``action`` in [-1, 1]."""
    half = 0.5 * (action + 1.0)
    square = half * half
    return square * square + TINY


def weight_to_action(weight: Array) -> Array:
    """Inverse of :func:`action_to_weight` up to the common factor that makes the largest entry 1. Last axis: users."""
    xp = namespace(weight)
    largest = xp.max(weight, axis=-1, keepdims=True)
    scaled = xp.where(largest > 0, weight / xp.where(largest > 0, largest, xp.ones_like(largest)), 1.0)
    return 2.0 * scaled ** (1.0 / POWER) - 1.0


def split_budget(weight: Array, budget: Array, floor: float, active: Array) -> Array:
    """Share a budget out: every active user gets ``floor`` and its share of the rest by ``weight``.

    weight (n, U) non-negative; budget (n,); active (n, U) in {0, 1}. The amounts of the active users sum to the
    budget; an inactive user's amount is what it would get beside them (it costs nothing). Where the floors alone
    exceed the budget, every user gets its floor and the excess is left to be reported.
    """
    spare = budget - floor * total(active)
    spare = at_least(spare, 0.0)
    beside = total(weight * active)[..., None] + weight * (1.0 - active)  # the weights of the active, and its own
    return floor + spare[..., None] * (weight / at_least(beside, TINY))


def _reach(entries: int) -> float:
    """Weight of an action entry of 1, so that entries of 0 just use the budget up and one alone can take it all."""
    return max(2.0**POWER / entries, 1.0)


def action_to_share(action: Array) -> Array:
    """Shares of a budget that need not be used up, last axis: weights over their sum, or over 1 if that is more."""
    weight = _reach(action.shape[-1]) * action_to_weight(action)
    return weight / at_least(total(weight), 1.0)[..., None]


def share_to_action(share: Array) -> Array:
    """Inverse of :func:`action_to_share`, for shares that sum to at most 1."""
    return 2.0 * (share / _reach(share.shape[-1])) ** (1.0 / POWER) - 1.0
