"""Power and bandwidth of little energy for fixed pairings: a feasible start where equal shares have none.

At prices of power and bandwidth the groups separate; each then takes the point of a table that is cheapest with its
energy. The prices follow subgradient steps, and the iterate that comes closest to meeting all budgets is kept.
"""

from __future__ import annotations

import functools

import numpy as np

from semcom_gym.envs.arrays import Array, at_least, at_most, largest, like, namespace, total, turned
from semcom_gym.envs.sfma import physics, prices
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import Links

POWERS = np.geomspace(0.1, 3.0, 20)  # of an equal share
RATIOS = np.array([1.0, 0.75, 0.5])  # exponents of the distortion floor
MULTIPLES = np.geomspace(1.0, 30.0, 12)  # of the least bandwidth that meets the latency limit
PRICES = np.array([0.1, 0.5])  # of power and bandwidth at first
STEPS, STEP = 60, 2.0


def shares(params: Params, link: Links, steps: int = STEPS) -> tuple[Array, Array]:
    """Power [W] and bandwidth [Hz], (n, K), of the pairs of ``link``. They meet both budgets if any iterate does."""
    xp = namespace(link.snr)
    low = at_most(physics.distortion_floor(params, link), 1.0)
    share_w = params.max_power_w / params.num_groups
    power, bandwidth, ratio = prices.grid(params, link, low, _powers(share_w), RATIOS, MULTIPLES)
    _, energy = prices.outcome(params, link, power, bandwidth, ratio)
    power, bandwidth, energy = (
        xp.broadcast_to(x, energy.shape).reshape(*low.shape, -1) for x in (power, bandwidth, energy)
    )
    used = xp.stack([power / params.max_power_w, bandwidth / params.max_bandwidth_hz, energy / params.max_energy_j])
    price = xp.zeros_like(low[:, :2]) + like(PRICES, low)
    best, excess = xp.zeros_like(low, dtype=xp.int64), xp.full_like(low[:, 0], np.inf)
    for step in range(1, steps + 1):
        cost = used[2] + price[:, :1, None] * used[0] + price[:, 1:, None] * used[1]
        chosen = xp.argmin(cost, axis=-1)
        spent = total(xp.take_along_axis(used, chosen[None, ..., None], axis=-1)[..., 0])  # (3, n)
        worst = largest(spent, 0)
        better = worst < excess
        best, excess = xp.where(better[:, None], chosen, best), xp.minimum(worst, excess)
        price = at_least(price + STEP * step**-0.5 * (turned(spent[:2]) - 1.0), 0.0)
    power, bandwidth = (xp.take_along_axis(x, best[..., None], axis=-1)[..., 0] for x in (power, bandwidth))
    # more bandwidth only shortens delays
    return power, bandwidth * (params.max_bandwidth_hz / total(bandwidth))[:, None]


@functools.lru_cache(64)
def _powers(share_w: float) -> Array:
    """(Q,) the powers of the table [W], where an equal share is ``share_w``."""
    return np.repeat(share_w * POWERS, len(RATIOS))
