"""The paper's comparison schemes (i)-(iv) of Section VII-D, and equal bandwidths with everything else optimal.

Average allocation is p = pmax / 2, B = Btotal / N, f = fmax / 2, h = hmax / 2 and the middle ratio. Where a scheme's
fixed variables leave a device without its PSNR, the solution is infeasible and its status names the device.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import scipy.special

from semcom_gym.baselines.solution import Solution
from semcom_gym.baselines.training import equal, equilibrium, fast, p3, p4
from semcom_gym.baselines.training.device import Devices
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params
from semcom_gym.envs.training.physics import Allocation

SPREAD = 0.1  # standard deviation of the random allocation, over the range
BAND_RANGE = (0.8, 1.25)  # of its bandwidths, over an equal share


def average(params: Params, instance: Instance) -> Solution:
    """Average allocation, scheme (ii)."""
    started = time.perf_counter()
    return fast.scored(params, instance, average_allocation(params, instance), started)


def random(params: Params, instance: Instance, *, seed: int = 0) -> Solution:
    """Random allocation, scheme (i), drawn from ``seed``.

    p, f, h and rho are normal about the middle of their range, with a tenth of it as standard deviation, truncated to
    it; bandwidths are uniform between 0.8 and 1.25 equal shares and then scaled to the budget.
    """
    validate.integer("seed", seed, low=0)
    started = time.perf_counter()
    uniform = np.random.default_rng(seed).random((5, *instance.gain.shape))
    tail = scipy.special.ndtr(-0.5 / SPREAD)
    share = 0.5 + SPREAD * scipy.special.ndtri(tail + (1.0 - 2.0 * tail) * uniform[:4])
    band = BAND_RANGE[0] + (BAND_RANGE[1] - BAND_RANGE[0]) * uniform[4]
    drawn = Allocation(
        params.max_power_w * share[0],
        params.total_bandwidth_hz * band / band.sum(-1, keepdims=True),
        instance.max_frequency_hz * share[1],
        params.max_bs_frequency_hz * share[2],
        params.min_ratio + (params.max_ratio - params.min_ratio) * share[3],
    )
    return fast.scored(params, instance, drawn, started)


def pb_only_frozen(params: Params, instance: Instance) -> Solution:
    """Scheme (iii) as printed, P4 (19) alone: least upload energy within the makespan of average allocation.

    Where average allocation misses a PSNR, P4 has no makespan to keep, and average allocation is returned.
    """
    started = time.perf_counter()
    first = average_allocation(params, instance)
    terms = physics.evaluate(params, instance, first).terms
    deadline = terms["time_s"].max(-1, keepdims=True) - terms["time_s"] + terms["upload_time_s"]
    needed = physics.needed_snr(params, instance.min_psnr_db, first.ratio)
    power, band = p4.direct(p4.upload(params, instance, first.ratio, deadline, needed))
    found = dataclasses.replace(first, power_w=power, bandwidth_hz=band)
    missed = ~physics.evaluate(params, instance, first).feasible
    return fast.scored(params, instance, found.replaced(missed, first[missed]), started)


def pb_only(params: Params, instance: Instance) -> Solution:
    """Scheme (iii) with the makespan optimised too: best p, B and T at the f, h and rho of average allocation."""
    started = time.perf_counter()
    first = average_allocation(params, instance)
    devices = _FixedClocks(params, instance, float(first.ratio[0, 0]))
    devices.set_clocks(first)
    mode = np.full(first.ratio.shape, equilibrium.HIGH)
    state = equilibrium.solve(devices, mode, equilibrium.start(devices))
    found = equilibrium.decide(devices, mode, state)
    return fast.scored(params, instance, found, started)


def fhrho_only(params: Params, instance: Instance) -> Solution:
    """Scheme (iv), P3 (18) alone: best f, h, rho and T at the p and B of average allocation."""
    started = time.perf_counter()
    first = average_allocation(params, instance)
    found = p3.allocate(params, instance, first.power_w, first.bandwidth_hz)
    return fast.scored(params, instance, found, started)


def equal_bandwidth(params: Params, instance: Instance) -> Solution:
    """An equal share of the bandwidth for every device, everything else optimal.

    A device leaves a part of its share unused where PSNR asks for more power density than all of it allows.
    """
    started = time.perf_counter()
    return fast.scored(params, instance, equal.optimise(params, instance), started)


def average_allocation(params: Params, instance: Instance) -> Allocation:
    """Average allocation."""
    ones = np.ones_like(instance.gain)
    return Allocation(
        0.5 * params.max_power_w * ones,
        params.total_bandwidth_hz / params.num_users * ones,
        0.5 * instance.max_frequency_hz,
        0.5 * params.max_bs_frequency_hz * ones,
        0.5 * (params.min_ratio + params.max_ratio) * ones,
    )


class _FixedClocks(Devices):
    """Devices whose clock frequencies are given."""

    def set_clocks(self, given: Allocation) -> None:
        """Fix f and h at those of an allocation."""
        self.log_f, self.log_h = np.log(given.device_frequency_hz), np.log(given.bs_frequency_hz)

    def clocks(self, log_beta: Array) -> tuple[Array, Array, Array, Array]:
        """As of Devices, whatever the price of time."""
        seconds = self.device_cycles * np.exp(-self.log_f) + self.bs_cycles * np.exp(-self.log_h)
        return self.log_f, self.log_h, seconds, np.zeros_like(seconds)
