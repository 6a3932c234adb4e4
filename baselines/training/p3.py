"""P3 of the training paper (18): frequencies, ratios and makespan for given powers and bandwidths, by KKT, (22)-(32).

(30) has no solution for a device with both frequencies at their caps: its multiplier is then free, and the bisection
ends at the least makespan that this device can keep.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from semcom_gym.envs.arrays import Array, Batch
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params
from semcom_gym.envs.training.physics import Allocation

BISECTIONS = 60


@dataclasses.dataclass(frozen=True)
class Compute(Batch):
    """The solution (32)."""

    # (n,) makespan T [s]
    makespan_s: Array
    # (n, N) f, h [Hz]
    device_hz: Array
    bs_hz: Array


def solve(params: Params, instance: Instance, upload_s: Array) -> Compute:
    """P5 (21) at upload times (n, N) [s]: bisection on T for sum_n beta_n(T) = omega_1 (31), between two bounds of T.

    Below: every frequency at its cap. Above: the pace (26) of every device at beta_n = omega_1 / N.
    """
    device, bs = _cycles(params, instance)
    caps = instance.max_frequency_hz, np.full_like(device, params.max_bs_frequency_hz)

    def beta(makespan: Array) -> Array:
        pace = _pace(makespan[:, None] - upload_s, (device, bs), caps)
        return (2.0 * params.energy_weight * params.capacitance * pace**3).sum(-1)

    def latest(pace: Array) -> Array:
        return (upload_s + device / np.minimum(pace, caps[0]) + bs / np.minimum(pace, caps[1])).max(-1)

    even = params.time_weight / (2.0 * params.energy_weight * params.capacitance * params.num_users)
    low, high = latest(np.inf), latest(np.cbrt(even))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        more = beta(middle) > params.time_weight
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    pace = _pace(high[:, None] - upload_s, (device, bs), caps)
    return Compute(high, np.minimum(pace, caps[0]), np.minimum(pace, caps[1]))


def allocate(params: Params, instance: Instance, power: Array, bandwidth: Array) -> Allocation:
    """P3 at powers [W] and bandwidths [Hz] (n, N): ratios of (20), at most max_ratio, and frequencies of (32)."""
    snr = physics.snr(params, instance.gain, power, bandwidth)
    ratio = physics.least_ratio(params, instance.min_psnr_db, snr)
    found = solve(params, instance, physics.upload_time(params, ratio, physics.rate(bandwidth, snr)))
    return Allocation(power, bandwidth, found.device_hz, found.bs_hz, ratio)


def _cycles(params: Params, instance: Instance) -> tuple[Array, Array]:
    """(n, N) c1 D and c2 D."""
    return instance.device_cycles * params.samples, instance.bs_cycles * params.samples


def _pace(seconds: Array, cycles: tuple[Array, Array], caps: tuple[Array, Array]) -> Array:
    """(n, N) the x with c1 D / min(x, fmax) + c2 D / min(x, hmax) = ``seconds``, (28)-(30); the larger cap at most."""
    first = caps[0] <= caps[1]
    tight, wide = np.minimum(*caps), np.maximum(*caps)
    slow, other = np.where(first, cycles[0], cycles[1]), np.where(first, cycles[1], cycles[0])
    free = (slow + other) / np.maximum(seconds, 1e-300)
    rest = np.maximum(seconds - slow / tight, other / wide)
    return np.where(free <= tight, free, other / rest)
