"""One energy budget for all blocks of an episode: what a block may use, and the action entry that says it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from semcom_gym.envs.arrays import Array, namespace

LEAST_SHARE = 1e-6  # of full power, that a block uses at least


@dataclasses.dataclass(frozen=True)
class Energy:
    """How a problem spends the energy of an episode: the total power of a block, times a time that all blocks share.

    budget: field of Instance that holds the power there is [W], which an allocation may use in part.
    used (params, allocation) -> (n,) power [W]. floor_w (params) -> power [W] that no allocation stays below.
    least_w (params) -> the least power [W] that an instance may have.
    """

    budget: str
    used: Callable[[Any, Any], Array]
    floor_w: Callable[[Any], float]
    least_w: Callable[[Any], float]


def spending_limits(left: Array, blocks_left: Array, floor: Array) -> tuple[Array, Array]:
    """The even pace and the cap of a block's power, (n,) each, as shares of full power.

    left: energy left, in blocks of full power. floor: share that no block stays below; that of the blocks to come is
    kept back.
    """
    xp = namespace(left)
    cap = xp.maximum(xp.minimum(left - floor * (blocks_left - 1.0), xp.ones_like(left)), floor)
    return xp.minimum(xp.maximum(left / blocks_left, floor), cap), cap


def spend(entry: Array, floor: Array, pace: Array, cap: Array) -> Array:
    """Share of full power (n,) for an action entry in [-1, 1]: the floor at -1, the even pace at 0, the cap at 1."""
    return pace + entry * namespace(entry).where(entry < 0, pace - floor, cap - pace)


def spend_entry(share: Array, floor: Array, pace: Array, cap: Array) -> Array:
    """Inverse of :func:`spend` (NumPy); 0 where the pace is the only choice on that side."""
    width = np.where(share < pace, pace - floor, cap - pace)
    wide = width > 1e-12
    return np.clip(np.where(wide, (share - pace) / np.where(wide, width, 1.0), 0.0), -1.0, 1.0)
