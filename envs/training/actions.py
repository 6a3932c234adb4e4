"""From a flat action in [-1, 1] to an allocation that meets every constraint, back, and what a policy observes."""

from __future__ import annotations

import math

import numpy as np

from semcom_gym.envs import simplex
from semcom_gym.envs.arrays import Array, at_least, at_most, flat, namespace, total
from semcom_gym.envs.outcome import UnreachableError
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params
from semcom_gym.envs.training.physics import Allocation

BLOCKS = ("bandwidth", "power", "device_frequency", "bs_frequency", "ratio")
USER_FEATURES = ("gain", "snr", "least_snr", "device_frequency", "device_cycles", "bs_cycles")
GLOBAL_FEATURES = (
    "bandwidth",
    "power",
    "bs_frequency",
    "payload",
    "ratio_range",
    "ratio_worth",
    "time_weight",
    "users",
)
# What an action reaches at least; the optimum stays well above each (docs/training.md, "Action").
LEAST_SHARE = 0.05  # of an equal share of the bandwidth
LEAST_SNR = 0.01  # -20 dB
LEAST_POWER = 0.01  # of the cap, where the cap itself does not reach LEAST_SNR by 20 dB
LEAST_CLOCKS = (1e-3, 1e-4)  # of the caps of the clock frequencies, device's and base station's
SLACK = 1e-6  # relative: an allocation this far below what an action reaches is moved up to it


def action_blocks(params: Params) -> tuple[str, ...]:
    """Names of the blocks of an action; each block has one entry per device."""
    return BLOCKS


def bandwidth_ceiling(params: Params, instance: Instance) -> Array:
    """(n, N) the bandwidth [Hz] above which a device misses its PSNR even at full power and max_ratio."""
    needed = physics.needed_snr(params, instance.min_psnr_db, params.max_ratio)
    return instance.gain * (params.max_power_w / params.noise_psd_w_hz) / needed


def _least_power(params: Params, instance: Instance, bandwidth_hz: Array, ceiling_hz: Array) -> Array:
    """(n, N) share of the power cap where an action's scale starts: the power that PSNR needs at max_ratio (S falls
    with B, so it is B over its ceiling), but not below LEAST_SNR or LEAST_POWER, whichever is less.
    """
    xp = namespace(bandwidth_hz)
    noise = bandwidth_hz * (LEAST_SNR * params.noise_psd_w_hz / params.max_power_w) / instance.gain
    return at_most(xp.maximum(bandwidth_hz / ceiling_hz, at_most(noise, LEAST_POWER)), 1.0)


def _bandwidth_floor(params: Params, ceiling_hz: Array) -> Array:
    return at_most(ceiling_hz, LEAST_SHARE * params.total_bandwidth_hz / params.num_users)


def decode(params: Params, instance: Instance, action: Array) -> Allocation:
    """The allocation that an action (n, 5 N) stands for; entries outside [-1, 1] are clipped.

    bandwidth: a floor and a share of the rest (:func:`simplex.action_to_share`), at most what PSNR allows at full
    power and max_ratio. power, device_frequency, bs_frequency: the cap times least^(u^2), u = (1 - a) / 2, where
    ``least`` is what PSNR needs at max_ratio, or LEAST_CLOCKS.
    ratio: rho = low + (max_ratio - low) u^2, u = (1 + a) / 2, with low the least ratio that meets PSNR at the SNR
    reached.
    """
    xp = namespace(action)
    a = xp.reshape(at_most(at_least(action, -1.0), 1.0), (action.shape[0], len(BLOCKS), -1))
    ceiling = bandwidth_ceiling(params, instance)
    floor = _bandwidth_floor(params, ceiling)
    spare = params.total_bandwidth_hz - total(floor)
    bandwidth = xp.minimum(floor + spare[:, None] * simplex.action_to_share(a[:, 0]), ceiling)
    down = 0.5 - 0.5 * a[:, 1:4]  # 0 at the cap
    down = down * down
    least = _least_power(params, instance, bandwidth, ceiling)
    power = params.max_power_w * xp.exp(xp.log(least) * down[:, 0])
    device_clock, bs_clock = (xp.exp(math.log(x) * down[:, k]) for k, x in enumerate(LEAST_CLOCKS, start=1))
    low = physics.least_ratio(params, instance.min_psnr_db, physics.snr(params, instance.gain, power, bandwidth))
    up = 0.5 + 0.5 * a[:, 4]
    return Allocation(
        power_w=power,
        bandwidth_hz=bandwidth,
        device_frequency_hz=instance.max_frequency_hz * device_clock,
        bs_frequency_hz=params.max_bs_frequency_hz * bs_clock,
        ratio=low + (params.max_ratio - low) * (up * up),
    )


def encode(params: Params, instance: Instance, allocation: Allocation) -> Array:
    """The float64 action (n, 5 N) that decodes to ``allocation``.

    Raises ValueError, naming the device, for an allocation that breaks a constraint, UnreachableError (a ValueError)
    for one that lies below what an action reaches (LEAST_SHARE, LEAST_SNR, LEAST_POWER, LEAST_CLOCKS).
    """
    broken = [line for line in physics.diagnose(params, instance, allocation) if line]
    if broken:
        raise ValueError(f"cannot encode an infeasible allocation: {broken[0]}")
    ceiling = bandwidth_ceiling(params, instance)
    floor = _bandwidth_floor(params, ceiling)
    power, bandwidth = allocation.power_w, np.minimum(allocation.bandwidth_hz, ceiling)
    least = _least_power(params, instance, bandwidth, ceiling)
    device_clock = allocation.device_frequency_hz / instance.max_frequency_hz
    bs_clock = allocation.bs_frequency_hz / params.max_bs_frequency_hz
    _require_reach("bandwidth", bandwidth, floor)
    _require_reach("power", power, least * params.max_power_w)
    _require_reach("device_frequency", device_clock, LEAST_CLOCKS[0])
    _require_reach("bs_frequency", bs_clock, LEAST_CLOCKS[1])
    spare = params.total_bandwidth_hz - floor.sum(-1, keepdims=True)
    share = np.maximum(bandwidth - floor, 0.0) / np.maximum(spare, simplex.TINY)
    low = physics.least_ratio(params, instance.min_psnr_db, physics.snr(params, instance.gain, power, bandwidth))
    room = np.where(params.max_ratio > low, params.max_ratio - low, 1.0)
    blocks = [
        simplex.share_to_action(share),
        _level_to_action(power / params.max_power_w, least),
        _level_to_action(device_clock, np.full_like(power, LEAST_CLOCKS[0])),
        _level_to_action(bs_clock, np.full_like(power, LEAST_CLOCKS[1])),
        2.0 * np.sqrt(np.clip((allocation.ratio - low) / room, 0.0, 1.0)) - 1.0,
    ]
    return np.concat(blocks, axis=-1)


def _require_reach(name: str, amount: Array, floor: Array | float) -> None:
    below = amount < floor * (1.0 - SLACK)
    if bool(below.any()):
        row, device = np.argwhere(below)[0]
        raise UnreachableError(
            f"cannot encode: {name} of device {device} (instance {row}) is below what an action reaches"
        )


def _level_to_action(share: Array, least: Array) -> Array:
    """The entry in [-1, 1] that stands for a share of a cap, on the scale that starts at ``least``."""
    span = np.where(least < 1.0, np.log(least), -1.0)
    return 1.0 - 2.0 * np.sqrt(np.clip(np.log(share) / span, 0.0, 1.0))


def observe(params: Params, instance: Instance) -> Array:
    """The observation (n, 6 N + 8): a row of USER_FEATURES for every device, then the cell's own features.

    gain: (10 log10 g + 110) / 20. snr: at full power on an equal share of the bandwidth. least_snr: what PSNR asks
    for at the largest ratio. Both in dB / 20.
    device_frequency: log10 of f^max / 1 GHz. device_cycles, bs_cycles: c1, c2 over their largest.
    bandwidth: log10 of B_total / (N 1 MHz). power: p^max in dBm / 20. bs_frequency: log10 of h^max / 1 GHz.
    payload: log10 of rho^min d D / (B_total / N), the seconds that a rate of 1 bit/s/Hz takes.
    ratio_range: log10 of rho^max / rho^min. ratio_worth: the SNR that this range can stand for in PSNR, in dB / 20.
    time_weight: omega_1. users: 10 / N.
    """
    xp = namespace(instance.gain)
    share_hz = params.total_bandwidth_hz / params.num_users
    gain_db = physics.DB * xp.log(instance.gain)
    _, ratio_slope, snr_slope, _ = params.psnr_parameters
    full_db = 10.0 * math.log10(params.max_power_w / (params.noise_psd_w_hz * share_hz))
    rows = xp.stack(
        [
            (gain_db + 110.0) * 0.05,
            (gain_db + full_db) * 0.05,
            physics.needed_snr_db(params, instance.min_psnr_db, params.max_ratio) * 0.05,
            (physics.DB * 0.1) * xp.log(instance.max_frequency_hz * 1e-9),
            instance.device_cycles * (1.0 / params.device_cycles_range[1]),
            instance.bs_cycles * (1.0 / params.bs_cycles_range[1]),
        ],
        axis=-1,
    )
    cell = [
        math.log10(share_hz * 1e-6),
        (10.0 * math.log10(params.max_power_w) + 30.0) / 20.0,
        math.log10(params.max_bs_frequency_hz * 1e-9),
        math.log10(params.min_ratio * params.round_bit / share_hz),
        math.log10(params.max_ratio / params.min_ratio),
        0.05 * (params.max_ratio - params.min_ratio) * ratio_slope / snr_slope,
        params.time_weight,
        10.0 / params.num_users,
    ]
    return flat([rows], cell)
