"""A batched exact solver: the equilibrium of one bandwidth price, a makespan and every device's price of time.

With every device in its high mode (:mod:`device`) the problem is convex, and Newton's method on its KKT conditions
(:mod:`equilibrium`) solves it to rounding error; where no device is held at its knee, that is the optimum. Elsewhere
the convexified problem says which devices take the low mode. The few that it cannot put on one side try both modes and
the stationary point between them, and the best combination is kept.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from semcom_gym.baselines.solution import INFEASIBLE, Solution, package
from semcom_gym.baselines.training import dual, equilibrium, lines
from semcom_gym.baselines.training.device import Devices
from semcom_gym.baselines.training.equilibrium import HIGH, OPEN, State
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params
from semcom_gym.envs.training.physics import Allocation

CHUNK = 2560  # devices at a time: where NumPy's temporaries still fit the cache
LEANING = 12.0  # log-odds of a mode beyond which it is taken
HELD = 1e-9  # of ln S
LOOSE = 1e-6  # gap above which undecided devices are searched


def solve(params: Params, instance: Instance, *, undecided: int = 3) -> Solution:
    """Solve a batch. undecided: devices of an instance, at most, that try every mode."""
    validate.integer("undecided", undecided, low=0)
    started = time.perf_counter()
    return scored(params, instance, optimise(params, instance, undecided), started)


def optimise(params: Params, instance: Instance, undecided: int = 3) -> Allocation:
    """The allocation of :func:`solve`."""
    size = max(1, CHUNK // params.num_users)
    chunks = [instance[k : k + size] for k in range(0, len(instance), size)]
    found = concatenate([_optimise(params, part, undecided) for part in chunks])
    late = np.flatnonzero(~physics.evaluate(params, instance, found).feasible)
    return found.replaced(late, _quick(params, instance[late])) if len(late) else found


def _quick(params: Params, instance: Instance) -> Allocation:
    """All caps met, equal bandwidths or less where PSNR asks for it: what is unfinished here is so by itself."""
    needed = physics.needed_snr(params, instance.min_psnr_db, params.max_ratio)
    reach = params.max_power_w * instance.gain / params.noise_psd_w_hz
    band = np.minimum(params.total_bandwidth_hz / params.num_users, reach / needed)
    power, bs_clock = (np.full_like(band, cap) for cap in (params.max_power_w, params.max_bs_frequency_hz))
    ratio = physics.least_ratio(params, instance.min_psnr_db, reach / band)
    return Allocation(power, band, instance.max_frequency_hz, bs_clock, ratio)


def scored(params: Params, instance: Instance, allocation: Allocation, started: float, **fields: Any) -> Solution:
    """A Solution whose status names the device that breaks a constraint. fields: as in :func:`package`."""
    found = package("training", params, instance, allocation, started, **fields)
    broken = np.flatnonzero(~found.feasible)
    status = list(found.status)
    if len(broken):
        for row, line in zip(broken, physics.diagnose(params, instance[broken], allocation[broken]), strict=True):
            status[row] = f"{INFEASIBLE}: {line}"
    return dataclasses.replace(found, status=status)


def _optimise(params: Params, instance: Instance, undecided: int) -> Allocation:
    devices = Devices(params, instance)
    high = np.full(devices.knee.shape, HIGH)
    state = equilibrium.solve(devices, high, equilibrium.start(devices))
    found = equilibrium.decide(devices, high, state)
    held = devices.high(state.log_lam, state.log_beta).snr <= devices.knee + HELD
    rows = np.flatnonzero((held & devices.has_low).any(-1))
    if not len(rows):
        return found
    objective, other = _mixed(devices.take(rows), instance[rows], state[rows], undecided)
    better = objective < physics.evaluate(params, instance, found).objective[rows]
    return found.replaced(rows[better], other[better])


def _mixed(devices: Devices, instance: Instance, state: State, undecided: int) -> tuple[Array, Allocation]:
    """Objective and allocation of instances with low modes, from their equilibrium in high modes."""
    mode = np.where(devices.has_low, OPEN, HIGH)
    relaxed = equilibrium.relax(devices, mode, state)
    search = lines.Search(devices, instance, relaxed)
    lower, _ = dual.bound(devices, mode, relaxed.log_lam, relaxed.log_beta)
    loose = search.objective - lower > LOOSE * lower
    weak = np.where(devices.has_low, np.abs(relaxed.tilt), np.inf)
    order = np.argsort(weak, axis=-1, kind="stable")[:, :undecided]
    open_ = (np.take_along_axis(weak, order, -1) < LEANING) & loose[:, None]
    passes = np.where(open_.sum(-1) > 1, 2, 1)  # one device's best SNR depends on the other's
    for again in range(2):
        for k in range(order.shape[1]):
            which = np.flatnonzero(open_[:, k] & (again < passes))
            if len(which):
                search.along(which, order[which, k])
    return search.objective, search.allocation
