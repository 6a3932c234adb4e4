"""The problem at the least ratios as a geometric programme, by cvxpy: a check of :mod:`fast` that shares none of it.

rho is rho^min, or what PSNR asks for at the curve's largest SNR (:func:`physics.ratio_floor`).
With y = ln(1 + S) the upload takes B t = a / y, a = rho d D ln 2, and p t = (N0 / g) a (e^y - 1) / y. The series
1 + y / 2 + y^2 / 6 + ... of (e^y - 1) / y is a posynomial, so with a variable above it every constraint is one of
geometric programming, and PSNR at rho is a least y: in the logarithms of all variables the problem is convex. Its
optimum is that of (16) where no device gains by a larger ratio, and a feasible allocation elsewhere.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from typing import Any

import numpy as np
import scipy.special

from semcom_gym.baselines.solution import INFEASIBLE, Solution, cvxpy
from semcom_gym.baselines.training import fast
from semcom_gym.baselines.training.device import LN2
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import concatenate
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params
from semcom_gym.envs.training.physics import Allocation

AGAIN = (0, 10, 20)  # terms more, of one try after another


def solve(params: Params, instance: Instance, *, terms: int = 40) -> Solution:
    """One instance after another. terms: of the series; 40 are exact to rounding up to an SNR of 40 dB (y = 9).

    Where Clarabel gives up it is asked again with more terms, which changes nothing but its path.
    """
    validate.integer("terms", terms, low=2)
    started = time.perf_counter()
    parts = [_solve_again(params, instance[k], terms) for k in range(len(instance))]
    found = fast.scored(params, instance, concatenate([part for part, _ in parts]), started)
    failed = [f"{INFEASIBLE}: Clarabel ends as {why}" if why else "" for _, why in parts]
    return dataclasses.replace(found, status=[why or had for why, had in zip(failed, found.status, strict=True)])


def _solve_again(params: Params, instance: Instance, terms: int) -> tuple[Allocation, str]:
    for more in AGAIN:
        found, why = _solve(params, instance, terms + more)
        if not why:
            break
    return found, why


def _solve(params: Params, instance: Instance, terms: int) -> tuple[Allocation, str]:
    """The allocation of one instance, and why there is none."""
    cp = cvxpy()
    users = params.num_users
    cycles, bs_cycles = params.samples * instance.device_cycles[0], params.samples * instance.bs_cycles[0]
    ratio = physics.ratio_floor(params, instance.min_psnr_db[0])
    load = ratio * params.round_bit * LN2
    reach = params.max_power_w * instance.gain[0] / params.noise_psd_w_hz / params.total_bandwidth_hz
    least = np.log1p(physics.needed_snr(params, instance.min_psnr_db[0], ratio))
    # logarithms; times in s, bandwidths as shares of the budget, frequencies in GHz
    nats, series, band, upload, clock, bs_clock = (cp.Variable(users) for _ in range(6))
    makespan = cp.Variable()
    degree = np.arange(terms)
    powers = cp.reshape(degree[:, None] @ cp.reshape(nats, (1, users), "C"), (terms, users), "C")
    times = cp.vstack([upload, np.log(cycles * 1e-9) - clock, np.log(bs_cycles * 1e-9) - bs_clock])
    upload_j = cp.exp(series + np.log(params.noise_psd_w_hz * load / instance.gain[0]))
    joule = params.capacitance * 1e18
    clock_j = cp.exp(np.log(joule * cycles) + 2 * clock) + cp.exp(np.log(joule * bs_cycles) + 2 * bs_clock)
    cost = params.time_weight * cp.exp(makespan) + params.energy_weight * cp.sum(upload_j + clock_j)
    constraints = [
        cp.log_sum_exp(times, axis=0) <= makespan,
        cp.log_sum_exp(powers - scipy.special.gammaln(degree + 2.0)[:, None], axis=0) <= series,
        cp.log_sum_exp(band) <= 0,
        band + upload + nats >= np.log(load / params.total_bandwidth_hz),
        band + nats + series <= np.log(reach),
        nats >= np.log(least),
        clock <= np.log(instance.max_frequency_hz[0] * 1e-9),
        bs_clock <= np.log(params.max_bs_frequency_hz * 1e-9),
    ]
    problem = cp.Problem(cp.Minimize(cost), constraints)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # fast.scored checks what counts
            problem.solve(solver=cp.CLARABEL)
    except cp.error.SolverError:
        return _nothing(instance), "failed"
    if makespan.value is None:
        return _nothing(instance), str(problem.status)
    values = [np.exp(x.value)[None] for x in (nats, band, clock, bs_clock)]
    return _allocation(params, instance, *values), ""


def _nothing(instance: Instance) -> Allocation:
    zero = np.zeros_like(instance.gain)
    return Allocation(zero, zero, zero, zero, zero)


def _allocation(params: Params, instance: Instance, nats: Any, share: Any, clock: Any, bs_clock: Any) -> Allocation:
    """What an interior-point method finds, with every limit kept to rounding."""
    ratio = physics.ratio_floor(params, instance.min_psnr_db)
    least = physics.needed_snr(params, instance.min_psnr_db, ratio)
    reach = params.max_power_w * instance.gain / params.noise_psd_w_hz
    band = np.minimum(params.total_bandwidth_hz * share / max(1.0, float(share.sum())), reach / least)
    power = params.max_power_w * np.minimum(np.maximum(np.expm1(nats), least) * band / reach, 1.0)
    return Allocation(
        power,
        band,
        np.minimum(clock * 1e9, instance.max_frequency_hz),
        np.minimum(bs_clock * 1e9, params.max_bs_frequency_hz),
        ratio,
    )
