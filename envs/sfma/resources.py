"""Power, bandwidth and ratios for a pairing that is already decided."""

from __future__ import annotations

import numpy as np

from semcom_gym.envs.arrays import Array
from semcom_gym.envs.sfma import actions, physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import Allocation


def allocate(params: Params, instance: Instance, pair: Array) -> Allocation:
    """A good allocation for the pairs (n, K)."""
    entries = np.zeros((len(instance), 3, params.num_groups))
    entries[:, 2] = 1.0
    return actions.allot(params, physics.links(params, instance, pair), pair, entries)
