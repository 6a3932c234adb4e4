"""Equal bandwidths with everything else optimal: only the makespan couples the devices, and it is searched.

At a makespan T every device takes the SNR of least energy that is through by T. Both are looked up on grids, then on
ever finer ones around the best.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.baselines.training.device import LN2
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params
from semcom_gym.envs.training.physics import Allocation

CHUNK = 160  # devices at a time: a grid of each must fit the cache
POINTS = 48  # of ln S where the ratio depends on it, and of ln S up to full power
NEAR = 17  # of ln S around the best
TIMES = 16  # makespans of a round of zooming
ZOOMS = 5  # on the first grid
LEVELS = 5  # of finer grids of ln S, each with two rounds
LATEST = 1e5  # the last makespan looked at, over the least possible


def optimise(params: Params, instance: Instance) -> Allocation:
    """The allocation of least objective with at most an equal share of the bandwidth for every device."""
    size = max(1, CHUNK // params.num_users)
    return concatenate([_Cell(params, instance[k : k + size]).best() for k in range(0, len(instance), size)])


class _Cell:
    """What devices on an equal share of the bandwidth need, (..., n, N)."""

    def __init__(self, params: Params, instance: Instance) -> None:
        self.params, self.instance = params, instance
        self.share_hz = params.total_bandwidth_hz / params.num_users
        self.reach = params.max_power_w * instance.gain / params.noise_psd_w_hz  # [Hz] bandwidth at S = 1, full power
        cycles = params.samples * instance.device_cycles, params.samples * instance.bs_cycles
        caps = instance.max_frequency_hz, np.full_like(self.reach, params.max_bs_frequency_hz)
        first = caps[0] <= caps[1]
        self.tight, self.wide = np.minimum(*caps), np.maximum(*caps)
        self.slow, self.other = np.where(first, *cycles), np.where(first, *cycles[::-1])  # cycles at either cap
        self.weight = params.energy_weight * params.capacitance

    def best(self) -> Allocation:
        """The grids, from coarse to fine."""
        snr = self._grid()
        upload_s = self._upload(snr)[0].min(0)
        least = (upload_s + self.slow / self.tight + self.other / self.wide).max(-1)
        low, high = np.log(least) + 1e-9, np.log(LATEST * least)
        width = np.abs(np.diff(snr, axis=0)).max(0)
        for level in range(LEVELS + 1):
            log_time, chosen = self._zoom(snr, low, high, 2 if level else ZOOMS)
            low, high = (log_time + sign * 0.04 * 8.0**-level for sign in (-1.0, 1.0))
            low = np.maximum(low, np.log(least) + 1e-9)
            around = chosen + width * np.linspace(-1.0, 1.0, NEAR)[:, None, None]
            snr = np.maximum(around, self._bottom())
            width = width / 8.0
        return self._allocation(chosen, np.exp(log_time)[:, None])

    def _bottom(self) -> Array:
        """ln S at which PSNR holds at rho^max."""
        return physics.needed_snr_db(self.params, self.instance.min_psnr_db, self.params.max_ratio) / physics.DB

    def _grid(self) -> Array:
        """(2 POINTS + 1, n, N) ln S, from the bottom to where the least ratio suffices, and to full power."""
        bottom = self._bottom()
        floor = physics.ratio_floor(self.params, self.instance.min_psnr_db)
        knee = physics.needed_snr_db(self.params, self.instance.min_psnr_db, floor) / physics.DB
        full = np.maximum(np.log(self.reach / self.share_hz), bottom)
        share = np.linspace(0.0, 1.0, POINTS)[:, None, None]
        return np.concatenate(
            [bottom + (knee - bottom) * share, knee + (np.maximum(full, knee) - knee) * share, full[None]]
        )

    def _upload(self, snr: Array) -> tuple[Array, Array, Array]:
        """Upload time [s], upload energy [J] and ratio at ln S, with as much of the share as power allows."""
        linear = np.exp(snr)
        ratio = physics.needed_ratio(self.params, self.instance.min_psnr_db, linear)
        ratio = np.clip(ratio, self.params.min_ratio, self.params.max_ratio)
        product = self.params.round_bit * LN2 * ratio / np.log1p(linear)  # bandwidth times time
        seconds = np.maximum(product / self.share_hz, linear * product / self.reach)
        return seconds, self.params.max_power_w / self.reach * linear * product, ratio

    def _pace(self, seconds: Array) -> Array:
        """The frequency x with both computations in ``seconds`` at min(x, cap) each; inf where there is none."""
        seconds = np.maximum(seconds, 1e-200)
        both = (self.slow + self.other) / seconds
        rest = np.maximum(seconds - self.slow / self.tight, 1e-200)
        pace = np.where(both <= self.tight, both, self.other / rest)
        return np.where(pace <= self.wide * (1 + 1e-12), pace, np.inf)

    def _zoom(self, snr: Array, low: Array, high: Array, rounds: int) -> tuple[Array, Array]:
        """The best ln T (n,) in [low, high], and with it the best ln S (n, N) on the grid."""
        upload_s, upload_j, _ = self._upload(snr)
        at = np.arange(len(low))
        for _ in range(rounds):
            log_times = low + (high - low) * np.linspace(0.0, 1.0, TIMES)[:, None]
            total = [self._total(upload_s, upload_j, log_time)[0] for log_time in log_times]
            k = np.argmin(total, axis=0)
            low, high = log_times[np.maximum(k - 1, 0), at], log_times[np.minimum(k + 1, TIMES - 1), at]
            log_time = log_times[k, at]
        place = self._total(upload_s, upload_j, log_time)[1]
        return log_time, np.take_along_axis(snr, place[None], 0)[0]

    def _total(self, upload_s: Array, upload_j: Array, log_time: Array) -> tuple[Array, Array]:
        """The objective (n,) at a makespan, and which point of the grid each device takes (n, N)."""
        makespan = np.exp(log_time)
        pace = self._pace(makespan[:, None] - upload_s)
        computing = self.weight * (self.slow * np.minimum(pace, self.tight) ** 2 + self.other * pace**2)
        cost = self.params.energy_weight * upload_j + computing
        place = cost.argmin(0)
        least = np.take_along_axis(cost, place[None], 0)[0]
        return self.params.time_weight * makespan + least.sum(-1), place

    def _allocation(self, snr: Array, makespan: Array) -> Allocation:
        seconds, _, ratio = self._upload(snr)
        band = self.params.round_bit * LN2 * ratio / np.log1p(np.exp(snr)) / seconds
        share = np.minimum(np.exp(snr) * band / self.reach, 1.0)
        pace = self._pace(makespan - seconds)
        caps = self.instance.max_frequency_hz, self.params.max_bs_frequency_hz
        clocks = [np.minimum(pace, cap) for cap in caps]
        return Allocation(self.params.max_power_w * share, band, clocks[0], clocks[1], ratio)
