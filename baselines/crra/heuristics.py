"""The simple methods: equal shares, and the paper's three comparison schemes FRA, FCR and MSR (Section VI).

Every budget is used up. Without selection all users are served. With selection the floors may not allow everybody:
as many users as they do allow are admitted, those of the largest weighted success at an equal share of the budgets
among that many users (:func:`admit`); the others hold nothing.
"""

from __future__ import annotations

import time

import numpy as np
import scipy.special

from semcom_gym.baselines.crra import fast
from semcom_gym.baselines.crra.hazard import SQRT_2_OVER_PI
from semcom_gym.baselines.crra.normal import Users, allocation
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import simplex, validate
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.crra import actions, physics
from semcom_gym.envs.crra.instance import Instance, Params

FIXED_RATIO = 0.8  # the paper's setting of FCR
BISECTIONS = 64
MSR_ROUNDS = 60  # at most


def equal(params: Params, instance: Instance, *, ratio: float | None = None) -> Solution:
    """Equal shares at a fixed ratio. ratio: 0.8, or max_ratio where that is smaller, unless given."""
    started = time.perf_counter()
    fixed = np.full_like(instance.gain, _fixed_ratio(params, ratio))
    served = admit(params, instance, fixed)
    shares = equal_shares(params, instance, served)
    return package("crra", params, instance, allocation(*shares, fixed, served), started)


def fra(params: Params, instance: Instance) -> Solution:
    """Fixed resource allocation: equal shares, the exact best ratio of each user."""
    started = time.perf_counter()
    served = admit(params, instance)
    shares = equal_shares(params, instance, served)
    ratio = Users(params, instance).best_ratio(*shares)
    return package("crra", params, instance, allocation(*shares, ratio, served), started)


def fcr(params: Params, instance: Instance, *, ratio: float | None = None, iterations: int = 60) -> Solution:
    """Fixed compression ratio: bandwidth and power optimised, the ratio not.

    The ascent of :mod:`fast` with the ratio frozen, from U starts, the best kept. A user whose success is zero has
    no gradient, so start k serves only the k users of the largest weighted success at 1/k of each budget.
    ratio: as in :func:`equal`. iterations: of each ascent.
    """
    validate.integer("iterations", iterations)
    fixed = _fixed_ratio(params, ratio)
    started = time.perf_counter()
    parts = []
    for low in range(0, len(instance), fast.CHUNK):
        part = instance[low : low + fast.CHUNK]
        parts.append(_fcr(params, part, np.full_like(part.gain, fixed), iterations))
    done = np.full(len(instance), iterations * params.num_users)
    return package("crra", params, instance, concatenate(parts), started, iterations=done)


def msr(params: Params, instance: Instance) -> Solution:
    """Maximum sum rate sum_i B_i log2(1 + P_i h_i / (N0 B_i)) at the mean gain h_i, then the exact best ratio.

    The sum rate has degree one in (B, P), so nearly all that is left above the floors goes to the best channel.
    """
    started = time.perf_counter()
    served = admit(params, instance)
    bandwidth, power = maximum_sum_rate(params, instance, served)
    ratio = Users(params, instance).best_ratio(bandwidth, power)
    return package("crra", params, instance, allocation(bandwidth, power, ratio, served), started)


def admit(params: Params, instance: Instance, ratio: Array | None = None) -> Array:
    """Who is served, (n, U) in {0, 1}: everybody without selection, else as many as the floors allow.

    ratio (n, U): of every user; the best one by default.
    """
    if not params.selection:
        return np.ones_like(instance.gain)
    fits = np.minimum(actions.capacity(params, instance), params.num_users)
    return _largest(_log_value(params, instance, np.maximum(fits, 1.0), ratio), fits)


def equal_shares(params: Params, instance: Instance, served: Array) -> tuple[Array, Array]:
    """Bandwidth [Hz] and power [W], (n, U), the same for every served user."""
    return _share(params, instance, served, np.ones_like(served), np.ones_like(served))


def maximum_sum_rate(params: Params, instance: Instance, served: Array) -> tuple[Array, Array]:
    """Bandwidth [Hz] and power [W], (n, U), of the served users' largest sum rate (a concave problem).

    Exact water-filling in turn over bandwidth and power, from all spare bandwidth on the best channel; that start
    is already optimal unless the power floors bind for that user.
    """
    snr = SQRT_2_OVER_PI * instance.gain / params.noise_psd_w_hz  # mean half-normal gain over N0 [Hz/W]
    best = _largest(np.where(served > 0, snr, -np.inf), np.ones(len(instance)))
    bandwidth, power = _share(params, instance, served, best, np.ones_like(served))
    for _ in range(MSR_ROUNDS):
        # d/dP: equal snr / (1 + snr P / B), so P / B = level - 1 / snr above the floor
        power = _fill(bandwidth, 1.0 / snr, params.min_power_w, instance.power_w, served)
        # d/dB: a function of snr P / B alone, so B = level * snr P above the floor
        before = bandwidth
        bandwidth = _fill(snr * power, np.zeros_like(snr), params.min_bandwidth_hz, instance.bandwidth_hz, served)
        if np.allclose(bandwidth, before, rtol=1e-9, atol=0.0):
            break
    return _share(params, instance, served, bandwidth - params.min_bandwidth_hz, power - params.min_power_w)


def _fill(slope: Array, offset: Array, floor: float, budget: Array, served: Array) -> Array:
    """max(floor, slope (level - offset)) with the level at which the served users' amounts use the budget up."""
    low = np.zeros_like(budget)
    reach = np.where(served > 0, budget[:, None] / slope + offset, 0.0)
    high = np.max(reach, axis=-1)
    for _ in range(BISECTIONS):
        level = 0.5 * (low + high)
        amount = np.maximum(floor, slope * (level[:, None] - offset))
        over = np.sum(served * amount, axis=-1) > budget
        low, high = np.where(over, low, level), np.where(over, level, high)
    return np.maximum(floor, slope * (low[:, None] - offset))


def _fcr(params: Params, instance: Instance, ratio: Array, iterations: int) -> physics.Allocation:
    users = Users(params, instance)
    n, count = instance.gain.shape
    fits = actions.capacity(params, instance) if params.selection else np.full(n, float(count))
    best: physics.Allocation | None = None
    reached = np.full(n, -1.0)
    for k in range(1, count + 1):
        size = np.minimum(k, fits)
        served = _largest(_log_value(params, instance, np.maximum(size, 1.0), ratio), size)
        state = fast.State(np.ones_like(ratio), np.ones_like(ratio), served, ratio, np.zeros(len(ratio)))
        state = fast.ascend(params, instance, state, iterations, frozen_ratio=True)
        shares = state.resources(params, instance)
        found = allocation(*shares, ratio, state.served if params.selection else None)
        objective = np.sum(found.selected * users.value(*shares, ratio), axis=-1)
        best = found if best is None else _pick(objective > reached, found, best)
        reached = np.maximum(reached, objective)
    assert best is not None
    return best


def _pick(rows: Array, new: physics.Allocation, old: physics.Allocation) -> physics.Allocation:
    chosen = {name: np.where(rows[:, None], getattr(new, name), getattr(old, name)) for name in vars(old)}
    return physics.Allocation(**chosen)


def _log_value(params: Params, instance: Instance, count: Array, ratio: Array | None) -> Array:
    """ln of the weighted success at 1/count of each budget, (n, U); the logarithm ranks users where success is zero."""
    users = Users(params, instance)
    bandwidth = np.broadcast_to((instance.bandwidth_hz / count)[:, None], instance.gain.shape)
    power = np.broadcast_to((instance.power_w / count)[:, None], instance.gain.shape)
    ratio = users.best_ratio(bandwidth, power) if ratio is None else ratio
    x, _ = users.argument(bandwidth, power, ratio)
    arrives = scipy.special.log_ndtr(-x) if params.success == "exact" else -0.5 * x * x
    return np.log(np.maximum(users.weight, 1e-300)) + np.log(np.maximum(users.task(ratio)[0], 1e-300)) + arrives


def _largest(score: Array, count: Array) -> Array:
    """1 at the ``count`` largest entries of each row, the first where tied; 0 elsewhere."""
    rank = np.argsort(np.argsort(-score, axis=-1, kind="stable"), axis=-1)
    return (rank < count[:, None]).astype(float)


def _share(params: Params, instance: Instance, served: Array, by_b: Array, by_p: Array) -> tuple[Array, Array]:
    return (
        simplex.split_budget(by_b, instance.bandwidth_hz, params.min_bandwidth_hz, served),
        simplex.split_budget(by_p, instance.power_w, params.min_power_w, served),
    )


def _fixed_ratio(params: Params, ratio: float | None) -> float:
    if ratio is None:
        return min(FIXED_RATIO, params.max_ratio)
    validate.number("ratio", ratio, high=params.max_ratio, open_low=False)
    return float(ratio)
