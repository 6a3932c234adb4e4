"""The equations of the training paper, in its order, on NumPy arrays or torch tensors (n, N).

Symbols: p_n power, B_n bandwidth, f_n and h_n clock frequency of the device and of the base station for it, rho_n
share of the data that is sent, g_n gain, S_n = p_n g_n / (N0 B_n) SNR (linear here; in dB only inside (57)).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from semcom_gym.envs.arrays import Array, Batch, at_least, at_most, largest, namespace, to_numpy, total
from semcom_gym.envs.outcome import FEASIBILITY_TOLERANCE, Outcome
from semcom_gym.envs.training.instance import Instance, Params

PER_LN2 = 1.4426950408889634
DB = 4.342944819032518  # 10 / ln 10
NEVER_S = 1e6  # a device that needs longer than this counts as one that never finishes
TINY_HZ = 1e-3
TINY_SNR = 1e-30


@dataclasses.dataclass(frozen=True)
class Allocation(Batch):
    """A decision for the N devices."""

    # (n, N) transmit power p_n [W] and bandwidth B_n [Hz]
    power_w: Array
    bandwidth_hz: Array
    # (n, N) clock frequency of the device f_n and of the base station for it h_n [Hz]
    device_frequency_hz: Array
    bs_frequency_hz: Array
    # (n, N) share of the data that is sent, rho_n
    ratio: Array


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shape of every field of an Allocation behind its first axis."""
    return {field.name: (params.num_users,) for field in dataclasses.fields(Allocation)}


def device_time(params: Params, instance: Instance, device_frequency_hz: Array) -> Array:
    """T^cmp = c1 D / f (5), in s."""
    return params.samples * instance.device_cycles / at_least(device_frequency_hz, TINY_HZ)


def snr(params: Params, gain: Array, power_w: Array, bandwidth_hz: Array) -> Array:
    """S = p g / (N0 B), linear."""
    return power_w * (gain * (1.0 / params.noise_psd_w_hz)) / at_least(bandwidth_hz, TINY_HZ)


def rate(bandwidth_hz: Array, linear_snr: Array) -> Array:
    """r = B log2(1 + S) (6), in bit/s."""
    return PER_LN2 * bandwidth_hz * namespace(linear_snr).log1p(linear_snr)


def upload_time(params: Params, ratio: Array, rate_bit_s: Array) -> Array:
    """T^up = rho d D / r (7), in s, at most NEVER_S."""
    return at_most(params.round_bit * ratio / at_least(rate_bit_s, TINY_HZ), NEVER_S)


def bs_time(params: Params, instance: Instance, bs_frequency_hz: Array) -> Array:
    """T^S = c2 D / h (9), in s."""
    return params.samples * instance.bs_cycles / at_least(bs_frequency_hz, TINY_HZ)


def device_energy(params: Params, instance: Instance, device_frequency_hz: Array) -> Array:
    """E^cmp = kappa c1 D f^2 (10), in J."""
    return params.capacitance * params.samples * instance.device_cycles * device_frequency_hz * device_frequency_hz


def upload_energy(power_w: Array, upload_s: Array) -> Array:
    """E^up = p T^up (11), in J."""
    return power_w * upload_s


def bs_energy(params: Params, instance: Instance, bs_frequency_hz: Array) -> Array:
    """E^S = kappa c2 D h^2 (13), in J."""
    return params.capacitance * params.samples * instance.bs_cycles * bs_frequency_hz * bs_frequency_hz


def _log_snr(params: Params, linear_snr: Array) -> Array:
    """ln S as (57) counts it: of S at most S^max."""
    return namespace(linear_snr).log(at_most(at_least(linear_snr, TINY_SNR), 10.0 ** (0.1 * params.max_snr_db)))


def psnr_db(params: Params, ratio: Array, linear_snr: Array) -> Array:
    """P(rho, min(S, S^max)) (57) with S in dB, in dB; 0 where the fit would give less."""
    xp = namespace(ratio)
    scale, ratio_slope, snr_slope, offset = params.psnr_parameters
    snr_db = DB * _log_snr(params, linear_snr)
    return scale * xp.log(at_least(ratio_slope * ratio + (snr_slope * snr_db + offset), 1.0))


def needed_ratio(params: Params, min_psnr_db: Array, linear_snr: Array) -> Array:
    """rho-bar of (20): the ratio at which :func:`psnr_db` is ``min_psnr_db``; may lie outside [0, 1]."""
    xp = namespace(linear_snr)
    scale, ratio_slope, snr_slope, offset = params.psnr_parameters
    rest = xp.exp(min_psnr_db * (1.0 / scale)) - offset
    return (rest - snr_slope * DB * _log_snr(params, linear_snr)) * (1.0 / ratio_slope)


def least_ratio(params: Params, min_psnr_db: Array, linear_snr: Array) -> Array:
    """The least ratio that meets PSNR (20) and (16f); max_ratio where PSNR is out of reach."""
    needed = needed_ratio(params, min_psnr_db, linear_snr)
    return at_most(at_least(needed, params.min_ratio), params.max_ratio)


def ratio_floor(params: Params, min_psnr_db: Array) -> Array:
    """The least ratio at any SNR, that of S^max; min_ratio where the curve states none."""
    return least_ratio(params, min_psnr_db, namespace(min_psnr_db).full_like(min_psnr_db, math.inf))


def needed_snr(params: Params, min_psnr_db: Array, ratio: Array | float) -> Array:
    """The linear SNR at which P(rho, S) is ``min_psnr_db``: the inverse of (57) in S.

    Above S^max for a ratio below :func:`ratio_floor`, which meets PSNR at no SNR.
    """
    return namespace(min_psnr_db).exp(needed_snr_db(params, min_psnr_db, ratio) * (1.0 / DB))


def needed_snr_db(params: Params, min_psnr_db: Array, ratio: Array | float) -> Array:
    """:func:`needed_snr` in dB."""
    scale, ratio_slope, snr_slope, offset = params.psnr_parameters
    wanted = namespace(min_psnr_db).exp(min_psnr_db * (1.0 / scale))
    return (wanted - (ratio_slope * ratio + offset)) * (1.0 / snr_slope)


def evaluate(params: Params, instance: Instance, allocation: Allocation) -> Outcome:
    """The objective (16), the constraints (16a)-(16f) and the quantities of every device."""
    p, b, f, h = (allocation.power_w, allocation.bandwidth_hz, allocation.device_frequency_hz,
                  allocation.bs_frequency_hz)  # fmt: skip
    linear_snr = snr(params, instance.gain, p, b)
    bit_s = rate(b, linear_snr)
    up = upload_time(params, allocation.ratio, bit_s)
    compute = device_time(params, instance, f) + bs_time(params, instance, h)
    time = at_most(up + compute, NEVER_S)  # T_n = T^D + T^S, (8)
    up_j = upload_energy(p, up)
    energy = up_j + (device_energy(params, instance, f) + bs_energy(params, instance, h))  # E^D + E^S, (12)
    quality = psnr_db(params, allocation.ratio, linear_snr)
    excess = _excess(params, instance, allocation, time, quality)
    return Outcome(
        objective=params.time_weight * largest(time) + params.energy_weight * total(energy),
        violation={name: at_least(largest(value), 0.0) for name, value in excess.items()},
        terms={
            "time_s": time,
            "upload_time_s": up,
            "energy_j": energy,
            "upload_energy_j": up_j,
            "rate_bit_s": bit_s,
            "snr": linear_snr,
            "psnr_db": quality,
            "bandwidth_hz": b,
            "power_of_cap": p * (1.0 / params.max_power_w),
            "device_frequency_of_cap": f / instance.max_frequency_hz,
            "bs_frequency_of_cap": h * (1.0 / params.max_bs_frequency_hz),
            "ratio": allocation.ratio,
        },
    )


def _excess(
    params: Params, instance: Instance, allocation: Allocation, time_s: Array, quality_db: Array
) -> dict[str, Array]:
    """Relative excess of each constraint, negative where it holds: (n, N), or (n, 1) for the shared bandwidth."""
    xp = namespace(time_s)
    ratio = allocation.ratio
    return {
        "power": allocation.power_w * (1.0 / params.max_power_w) - 1.0,  # (16a)
        "device_frequency": allocation.device_frequency_hz / instance.max_frequency_hz - 1.0,  # (16b)
        "bandwidth": (total(allocation.bandwidth_hz) * (1.0 / params.total_bandwidth_hz) - 1.0)[:, None],  # (16c)
        "bs_frequency": allocation.bs_frequency_hz * (1.0 / params.max_bs_frequency_hz) - 1.0,  # (16d)
        "psnr": 1.0 - quality_db / instance.min_psnr_db,  # (16e)
        "ratio": xp.maximum(params.min_ratio - ratio, ratio - params.max_ratio),  # (16f)
        "unfinished": xp.astype(time_s >= NEVER_S, time_s.dtype),  # a device without bandwidth, power or clock
    }


def diagnose(params: Params, instance: Instance, allocation: Allocation) -> list[str]:
    """For every instance the worst broken constraint and the device that breaks it, in words; empty if feasible."""
    terms = evaluate(params, instance, allocation).terms
    excess = _excess(params, instance, allocation, terms["time_s"], terms["psnr_db"])
    names = list(excess)
    worst = np.stack([to_numpy(largest(excess[name])) for name in names], axis=-1)
    lines = []
    for row, column in enumerate(worst.argmax(-1)):
        name, value = names[column], worst[row, column]
        where = "" if name == "bandwidth" else f" of device {int(to_numpy(excess[name])[row].argmax())}"
        lines.append(f"{name}{where} exceeds its limit by {value:.3g}" if value > FEASIBILITY_TOLERANCE else "")
    return lines
