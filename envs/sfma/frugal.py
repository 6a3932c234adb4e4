"""Power and bandwidth of little energy for fixed pairings: a feasible start where equal shares have none.

At prices of power and bandwidth the groups separate; each then takes the point of a table that is cheapest with its
energy. The prices follow subgradient steps, and the iterate that comes closest to meeting all budgets is kept.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.envs.arrays import Array, total
from semcom_gym.envs.sfma import limits, physics
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import Links

POWERS = np.geomspace(0.1, 3.0, 20)  # of an equal share
RATIOS = np.array([1.0, 0.75, 0.5])  # exponents of the distortion floor
MULTIPLES = np.geomspace(1.0, 30.0, 12)  # of the least bandwidth that meets the latency limit
STEPS, STEP = 60, 2.0


def shares(params: Params, link: Links, steps: int = STEPS) -> tuple[Array, Array]:
    """Power [W] and bandwidth [Hz], (n, K), of the pairs of ``link``. They meet both budgets if any iterate does."""
    power, bandwidth, energy = _table(params, link)
    used = np.stack([power / params.max_power_w, bandwidth / params.max_bandwidth_hz, energy / params.max_energy_j])
    n = used.shape[1]
    prices = np.tile((0.1, 0.5), (n, 1))
    best, excess = np.zeros(used.shape[1:3], int), np.full(n, np.inf)
    for step in range(1, steps + 1):
        cost = used[2] + prices[:, :1, None] * used[0] + prices[:, 1:, None] * used[1]
        chosen = np.argmin(cost, axis=-1)
        spent = total(np.take_along_axis(used, chosen[None, ..., None], -1)[..., 0])  # (3, n)
        worst = spent.max(0)
        better = worst < excess
        best[better], excess[better] = chosen[better], worst[better]
        prices = np.maximum(prices + STEP * step**-0.5 * (spent[:2].T - 1.0), 0.0)
    power, bandwidth = (np.take_along_axis(x, best[..., None], -1)[..., 0] for x in (power, bandwidth))
    # more bandwidth only shortens delays
    return power, bandwidth * (params.max_bandwidth_hz / total(bandwidth))[:, None]


def _table(params: Params, link: Links) -> tuple[Array, Array, Array]:
    """Power [W], bandwidth [Hz] and energy [J] of the points of every group, (n, K, points)."""
    n, groups = link.rho_min.shape
    floor = np.minimum(physics.distortion_floor(params, link), 1.0)
    flat = link.map(lambda x: x.reshape(n * groups, 1, *x.shape[2:]))
    shape = (n * groups, len(POWERS), len(RATIOS))
    power = np.broadcast_to((params.max_power_w / groups * POWERS)[:, None], shape).reshape(n * groups, -1)
    ratio = np.broadcast_to((floor.reshape(-1, 1) ** RATIOS)[:, None], shape).reshape(n * groups, -1)
    least = limits.bandwidth_floor(params, flat, power, ratio)
    bandwidth = (least[..., None] * MULTIPLES).reshape(n * groups, -1)
    power, ratio = np.repeat(power, len(MULTIPLES), -1), np.repeat(ratio, len(MULTIPLES), -1)
    delay = physics.delays(flat, physics.rates(flat, power, bandwidth, ratio), ratio)
    energy = physics.energy(params, power, delay, ratio)
    return tuple(x.reshape(n, groups, -1) for x in (power, bandwidth, energy))  # type: ignore[return-value]
