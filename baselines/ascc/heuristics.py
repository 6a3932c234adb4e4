"""Simple choices of beams and powers, each with simple codecs (Section V-A and before).

Beams: MMSE at given dual powers, matched filters, or zero forcing. Powers: equal, or water-filling. Codecs: the best
of the table at the SINR reached, or those of fixed code rates.

Zero forcing takes the columns of the pseudo-inverse of the channels' directions. Where these are independent, no user
hears another's signal. Where they are not (N_t < K, or users in the same direction), the beams are the least-squares
answer: every user is still served and hears what cannot be cancelled. Water-filling counts the gains
|h_i^H w_i|**2 and no interference, and is exact where there is none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.ascc import actions, duality, physics
from semcom_gym.envs.ascc.instance import Instance, Params
from semcom_gym.envs.ascc.physics import Allocation

CODE_RATES = (1.8, 1.3)
"""R_c [bit per channel use] of data and of semantic users in the paper's comparison scheme."""
DEPENDENT = 1e-10  # singular values below this share of the largest one count as zero


def equal_mmse(params: Params, instance: Instance) -> Solution:
    """The same dual uplink power for every user, the beams that maximise the SINRs (43), the best codecs."""
    started = time.perf_counter()
    dual = np.full((len(instance), params.num_users), params.max_power_w / params.num_users)
    power, beam, _ = actions.realise(instance, dual)
    return best_codecs(params, instance, power, beam, started)


def mrt(params: Params, instance: Instance) -> Solution:
    """Maximum ratio transmission: matched beams, equal downlink powers, the best codecs."""
    started = time.perf_counter()
    return best_codecs(params, instance, equal_power(params, len(instance)), matched(instance), started)


def zf_equal(params: Params, instance: Instance) -> Solution:
    """Zero forcing, equal downlink powers, the best codecs."""
    started = time.perf_counter()
    return best_codecs(params, instance, equal_power(params, len(instance)), zero_forcing(instance), started)


def zf_wf_adaptive(params: Params, instance: Instance) -> Solution:
    """Zero forcing, water-filling, the best codecs."""
    started = time.perf_counter()
    return best_codecs(params, instance, *zf_wf(params, instance), started)


def zf_wf_fixed(params: Params, instance: Instance, *, code_rates: Sequence[float] = CODE_RATES) -> Solution:
    """Zero forcing, water-filling, fixed codecs. code_rates: see :func:`fixed_codecs`."""
    started = time.perf_counter()
    codecs = fixed_codecs(params, code_rates)
    power, beam = zf_wf(params, instance)
    index = np.broadcast_to(codecs, power.shape).copy()
    return package("ascc", params, instance, Allocation(power, beam.real, beam.imag, index), started)


def best_codecs(params: Params, instance: Instance, power: Array, beam: Array, started: float) -> Solution:
    """The Solution of powers (n, K) and beams (n, K, N_t), with the codec of least distortion for every user."""
    index = physics.best_index(params, physics.sinr(instance, power, beam))
    return package("ascc", params, instance, Allocation(power, beam.real, beam.imag, index), started)


def fixed_codecs(params: Params, code_rates: Sequence[float]) -> Array:
    """(K,) index of the largest codec with R_s <= R_c T, or the smallest of the table where there is none.

    code_rates [R_c, bit per channel use]: of data and of semantic users.
    """
    if len(code_rates) != 2:
        raise ValueError(f"code_rates must be a pair, of data and of semantic users, got {code_rates!r}")
    for rate in code_rates:
        validate.number("code_rates", rate)
    kinds = [
        np.searchsorted(table.columns[:, 0], rate * params.channel_uses * (1.0 + 1e-12), side="right") - 1.0
        for table, rate in zip(params.tables, code_rates, strict=True)
    ]
    return np.where(params.semantic, max(kinds[1], 0.0), max(kinds[0], 0.0))


def zf_wf(params: Params, instance: Instance) -> tuple[Array, Array]:
    """Powers (n, K) by water-filling over the zero-forcing beams (n, K, N_t)."""
    beam = zero_forcing(instance)
    channel = duality.vectors(instance.channel_re, instance.channel_im)
    gain = np.linalg.diagonal(physics.coupling(channel, beam))
    return water_filling(gain, params.max_power_w), beam


def equal_power(params: Params, n: int) -> Array:
    """(n, K) P_max / K [W]."""
    return np.full((n, params.num_users), params.max_power_w / params.num_users)


def matched(instance: Instance) -> Array:
    """(n, K, N_t) unit beams along the channels."""
    return _unit(duality.vectors(instance.channel_re, instance.channel_im))


def zero_forcing(instance: Instance) -> Array:
    """(n, K, N_t) unit beams along the columns of the pseudo-inverse of the matrix with rows h_i^H / |h_i|.

    No column is zero: row i times column i is a diagonal entry of the projection onto what the rows can receive.
    """
    beam = np.linalg.pinv(matched(instance).conj(), rcond=DEPENDENT).swapaxes(1, 2)
    return _unit(beam)


def water_filling(gain: Array, budget: float) -> Array:
    """(n, K) powers p_i = max(0, level - 1 / gain_i) that sum to the budget: largest sum of log(1 + gain_i p_i).

    Exact: with floors 1 / gain in ascending order, the first m users have power for the largest m whose level
    (budget + their floors) / m lies above the last floor among them. Floors count from the lowest, so that a budget
    far below them is not lost to rounding.
    """
    floor = 1.0 / gain
    floor = floor - floor.min(axis=-1, keepdims=True)
    rising = np.sort(floor, axis=-1)
    level = (budget + np.cumsum(rising, axis=-1)) / np.arange(1, gain.shape[-1] + 1)
    last = np.sum(level > rising, axis=-1, keepdims=True) - 1
    return np.maximum(np.take_along_axis(level, last, -1) - floor, 0.0)


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
