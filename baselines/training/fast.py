"""A batched exact solver: the equilibrium of one bandwidth price, a makespan and every device's price of time.

With every device in its high mode (:mod:`device`) the problem is convex, and Newton's method on its KKT conditions
(:mod:`equilibrium`) solves it to rounding error; where no device is held at its knee, that is the optimum. Elsewhere
the convexified problem says which devices take the low mode. The few that it cannot put on one side try both modes and
the stationary point between them, and the best combination is kept.

Instances may be torch tensors: everything then happens on their device, and the host asks only how many rows are left.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from semcom_gym.baselines.solution import INFEASIBLE, Solution, package
from semcom_gym.baselines.training import dual, equilibrium, lines
from semcom_gym.baselines.training.device import Devices
from semcom_gym.baselines.training.equilibrium import HIGH, OPEN, State
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, at_most, chunk, concatenate, namespace, rows_where, to_numpy
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params
from semcom_gym.envs.training.physics import Allocation

CHUNK = 10_240  # devices at a time: more would leave the cache, fewer would not be worth a call of NumPy
GPU_CHUNK = 500_000  # on a GPU, at 3 to 5 kB each
LEANING = 12.0  # log-odds of a mode beyond which it is taken
HELD = 1e-9  # of ln S
LOOSE = 1e-6  # gap above which undecided devices are searched


def solve(params: Params, instance: Instance, *, undecided: int = 3) -> Solution:
    """Solve a batch (NumPy or torch). undecided: devices of an instance, at most, that try every mode."""
    validate.integer("undecided", undecided, low=0)
    started = time.perf_counter()
    return scored(params, instance, optimise(params, instance, undecided), started)


def optimise(params: Params, instance: Instance, undecided: int = 3) -> Allocation:
    """The allocation of :func:`solve`."""
    size = max(1, chunk(instance.gain, CHUNK, GPU_CHUNK) // params.num_users)
    chunks = [instance[k : k + size] for k in range(0, len(instance), size)]
    found = concatenate([_optimise(params, part, undecided) for part in chunks])
    late = rows_where(~physics.evaluate(params, instance, found).feasible)
    return found.replaced(late, _quick(params, instance[late])) if len(late) else found


def _quick(params: Params, instance: Instance) -> Allocation:
    """All caps met, equal bandwidths or less where PSNR asks for it: what is unfinished here is so by itself."""
    needed = physics.needed_snr(params, instance.min_psnr_db, params.max_ratio)
    reach = params.max_power_w * instance.gain / params.noise_psd_w_hz
    band = at_most(reach / needed, params.total_bandwidth_hz / params.num_users)
    caps = params.max_power_w, params.max_bs_frequency_hz
    power, bs_clock = (namespace(band).full_like(band, cap) for cap in caps)
    ratio = physics.least_ratio(params, instance.min_psnr_db, reach / band)
    return Allocation(power, band, instance.max_frequency_hz, bs_clock, ratio)


def scored(params: Params, instance: Instance, allocation: Allocation, started: float, **fields: Any) -> Solution:
    """A Solution whose status names the device that breaks a constraint. fields: as in :func:`package`."""
    found = package("training", params, instance, allocation, started, **fields)
    broken = rows_where(~found.feasible)
    status = list(found.status)
    if len(broken):
        lines = physics.diagnose(params, instance[broken], allocation[broken])
        for row, line in zip(to_numpy(broken), lines, strict=True):
            status[row] = f"{INFEASIBLE}: {line}"
    return dataclasses.replace(found, status=status)


def _optimise(params: Params, instance: Instance, undecided: int) -> Allocation:
    xp, devices = namespace(instance.gain), Devices(params, instance)
    high = xp.full_like(devices.knee, HIGH, dtype=xp.int64)
    state = equilibrium.solve(devices, high, equilibrium.start(devices))
    found = equilibrium.decide(devices, high, state)
    held = devices.high(state.log_lam, state.log_beta).snr <= devices.knee + HELD
    rows = rows_where((held & devices.has_low).any(-1))
    if not len(rows):
        return found
    objective, other = _mixed(devices.take(rows), instance[rows], state[rows], undecided)
    better = rows_where(objective < physics.evaluate(params, instance, found).objective[rows])
    return found.replaced(rows[better], other[better])


def _mixed(devices: Devices, instance: Instance, state: State, undecided: int) -> tuple[Array, Allocation]:
    """Objective and allocation of instances with low modes, from their equilibrium in high modes."""
    xp = namespace(state.log_beta)
    mode = OPEN * xp.astype(devices.has_low, xp.int64)  # the others HIGH
    relaxed = equilibrium.relax(devices, mode, state)
    search = lines.Search(devices, instance, relaxed)
    lower, _ = dual.bound(devices, mode, relaxed.log_lam, relaxed.log_beta)
    loose = search.objective - lower > LOOSE * lower
    weak = xp.where(devices.has_low, xp.abs(relaxed.tilt), math.inf)
    order = xp.argsort(weak, axis=-1, stable=True)[:, :undecided]
    open_ = (xp.take_along_axis(weak, order, axis=-1) < LEANING) & loose[:, None]
    again = open_ & (open_.sum(-1) > 1)[:, None]  # one device's best SNR depends on the other's
    for todo in (open_, again):
        for k in range(order.shape[1]):
            which = rows_where(todo[:, k])
            if len(which):
                search.along(which, order[which, k])
    return search.objective, search.allocation
