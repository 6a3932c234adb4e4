"""Power and bandwidth of little energy for fixed pairings: a feasible start where equal shares have none.

At prices of power and bandwidth the groups separate; each then takes the point of a table that is cheapest with its
energy. The prices follow subgradient steps, and the iterate that comes closest to meeting all budgets is kept.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.envs.arrays import Array, total
from semcom_gym.envs.sfma import physics, prices
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import Links

POWERS = np.geomspace(0.1, 3.0, 20)  # of an equal share
RATIOS = np.array([1.0, 0.75, 0.5])  # exponents of the distortion floor
MULTIPLES = np.geomspace(1.0, 30.0, 12)  # of the least bandwidth that meets the latency limit
STEPS, STEP = 60, 2.0


def shares(params: Params, link: Links, steps: int = STEPS) -> tuple[Array, Array]:
    """Power [W] and bandwidth [Hz], (n, K), of the pairs of ``link``. They meet both budgets if any iterate does."""
    low = np.minimum(physics.distortion_floor(params, link), 1.0)
    power, bandwidth, ratio = prices.grid(params, link, low, POWERS, RATIOS, MULTIPLES)
    _, energy = prices.outcome(params, link, power, bandwidth, ratio)
    power, bandwidth, energy = (
        np.broadcast_to(x, energy.shape).reshape(*low.shape, -1) for x in (power, bandwidth, energy)
    )
    used = np.stack([power / params.max_power_w, bandwidth / params.max_bandwidth_hz, energy / params.max_energy_j])
    n = used.shape[1]
    price = np.tile((0.1, 0.5), (n, 1))
    best, excess = np.zeros(used.shape[1:3], int), np.full(n, np.inf)
    for step in range(1, steps + 1):
        cost = used[2] + price[:, :1, None] * used[0] + price[:, 1:, None] * used[1]
        chosen = np.argmin(cost, axis=-1)
        spent = total(np.take_along_axis(used, chosen[None, ..., None], -1)[..., 0])  # (3, n)
        worst = spent.max(0)
        better = worst < excess
        best[better], excess[better] = chosen[better], worst[better]
        price = np.maximum(price + STEP * step**-0.5 * (spent[:2].T - 1.0), 0.0)
    power, bandwidth = (np.take_along_axis(x, best[..., None], -1)[..., 0] for x in (power, bandwidth))
    # more bandwidth only shortens delays
    return power, bandwidth * (params.max_bandwidth_hz / total(bandwidth))[:, None]
