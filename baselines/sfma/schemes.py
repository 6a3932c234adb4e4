"""The paper's other transceivers (schemes 1-4 of Section IV) as rate models.

Their objective is the sum rate that the scheme itself reaches [Mbit/s], not the environment's. ``noma`` solves the
whole problem for a transceiver that is blind to similarity. The other three hold equal shares and no constraints, so
their solutions have no allocation. They count Shannon rates, or the efficiencies of a measured curve.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from semcom_gym.baselines.sfma import heuristics
from semcom_gym.baselines.solution import Solution
from semcom_gym.envs import curve as curves
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, total
from semcom_gym.envs.sfma import pairs
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import MBIT
from semcom_gym.envs.sfma.profile import INTERFERENCE

BLIND_SIMILARITY = 0.45  # what a transceiver without cross-user features makes of any pair
RATE_MODEL = "ok: rate model, no constraints"
# CQI 1-15 of 3GPP TS 38.214, Table 5.2.2.1-2: modulation order times code rate [bit/s/Hz]
EFFICIENCY = np.array((0.1523, 0.2344, 0.3770, 0.6016, 0.8770, 1.1758, 1.4766, 1.9141, 2.4063, 2.7305, 3.3223,
                       3.9023, 4.5234, 5.1152, 5.5547))  # fmt: skip
# SNR [dB] where each reaches a block error rate of 10 % over a Gaussian channel: the usual LTE link-level table
THRESHOLD_DB = np.array((-6.936, -5.147, -3.180, -1.253, 0.761, 2.699, 4.694, 6.525, 8.573, 10.366, 12.289, 14.173,
                         15.888, 17.814, 19.829))  # fmt: skip


def noma(params: Params, instance: Instance, *, solver: str = "paper", **options: Any) -> Solution:
    """SwinJSCC+NOMA (scheme 1): the problem of :func:`blind`, solved by Algorithm 4 ("paper") or by "fast".

    All constraints hold, and the allocation is one of the blind instance. options: of the solver.
    """
    from semcom_gym.baselines.sfma import fast, paper  # as in heuristics

    solvers = {"paper": paper.solve, "fast": fast.solve}
    validate.choice("noma solver", solver, solvers)
    return solvers[solver](params, blind(params, instance), **options)


def blind(params: Params, instance: Instance, similarity: float = BLIND_SIMILARITY) -> Instance:
    """The instance as a transceiver sees it that treats every pair as if it had the same similarity.

    The interference (10) and distortion (17) of every pair are those of the profile there, times the pair's own
    random factors. Where a rho was cut off at its limit, what was cut off is lost.
    """
    validate.number("similarity", similarity, high=1.0, open_low=False)
    there = params.profile.at(np.array(similarity), *INTERFERENCE)
    here = params.profile.at(instance.similarity, *INTERFERENCE)
    # where the profile has 0 the pair has 0 too, and stays there
    change = [np.where(old > 0, new / np.maximum(old, 1e-30), 1.0) for new, old in zip(there, here, strict=True)]
    rho_min, rho_max, power, ratio, steepness = change
    rho_max = np.minimum(instance.rho_max * rho_max, 1.0)
    return dataclasses.replace(
        instance,
        similarity=np.full_like(instance.similarity, similarity),
        rho_min=np.minimum(instance.rho_min * rho_min, rho_max),
        rho_max=rho_max,
        power_slope=instance.power_slope * steepness / power,
        ratio_slope=instance.ratio_slope * steepness / ratio,
        offset=instance.offset * steepness,
    )


def fdma(params: Params, instance: Instance, *, curve: str | None = None) -> Solution:
    """SwinJSCC+OMA (scheme 2): Bmax / N and Pmax / N for every user.

    curve: path of a curve file of kind "measured" with parameters snr_db and spectral_efficiency (lists of the same
    length); a user's rate is then its bandwidth times the efficiency at its SNR.
    """
    started = time.perf_counter()
    return _solution(_orthogonal(params, instance, _efficiency(curve)), started)


def deepjscc_noma(params: Params, instance: Instance, *, sic: str = "estimated", curve: str | None = None) -> Solution:
    """DeepJSCC+NOMA (scheme 3): power-domain superposition in the classical pairs, equal shares for the groups.

    Of the group's power p the weak user gets the share with which it reaches the rate of half the bandwidth and half
    the power by itself, and takes the other signal as noise. The strong user cancels the weak user's signal first.
    sic: "perfect", as if it were decoded without error; or "estimated": analog symbols can only be estimated, and
    the mean square error 1 / (1 + SINR) of the estimate stays as interference. The latter is still optimistic: it takes
    the error as independent of the strong user's own signal. curve: as of :func:`fdma`, read at the SINR.
    """
    validate.choice("sic", sic, ("estimated", "perfect"))
    started = time.perf_counter()
    return _solution(_superposed(params, instance, _efficiency(curve), sic).sum(-1), started)


def bpg_ldpc_qam(params: Params, instance: Instance, *, curve: str | None = None) -> Solution:
    """BPG+LDPC+QAM (scheme 4): the best modulation and code rate for every user's SINR, in the better of OMA and NOMA.

    OMA is as in :func:`fdma`, NOMA as in :func:`deepjscc_noma` with perfect cancellation: bits can be decoded, and the
    strong user hears the weak user's signal at a higher SINR than the weak user itself. Each group takes whichever
    gives more. Below the lowest threshold the rate is zero. curve: as of :func:`fdma`, in place of that table.
    """
    started = time.perf_counter()
    efficiency = adaptive_modulation if curve is None else _efficiency(curve)
    pair = heuristics.strongest_with_weakest(params, instance)
    user = pairs.members(params.num_users)[pair].reshape(len(instance), -1)
    alone = np.take_along_axis(_orthogonal(params, instance, efficiency), user, -1).reshape(*pair.shape, 2)
    return _solution(np.maximum(alone.sum(-1), _superposed(params, instance, efficiency, "perfect").sum(-1)), started)


def adaptive_modulation(sinr: Array) -> Array:
    """Spectral efficiency [bit/s/Hz] of the highest CQI whose threshold the SINR reaches; 0 below the lowest."""
    level = np.searchsorted(10.0 ** (THRESHOLD_DB / 10.0), sinr, side="right")
    return np.concatenate([[0.0], EFFICIENCY])[level]


def shannon(sinr: Array) -> Array:
    """Spectral efficiency [bit/s/Hz] of an ideal code."""
    return np.log2(1.0 + sinr)


def _orthogonal(params: Params, instance: Instance, efficiency: Any) -> Array:
    """Rates [bit/s] of all users, (n, N), each with 1 / N of both budgets."""
    bandwidth = params.max_bandwidth_hz / params.num_users
    return bandwidth * efficiency(_snr(params, instance))


def _superposed(params: Params, instance: Instance, efficiency: Any, sic: str) -> Array:
    """Rates [bit/s] of the users of the classical pairs, (n, K, 2), the weak user first."""
    pair = heuristics.strongest_with_weakest(params, instance)
    user = pairs.members(params.num_users)[pair].reshape(len(instance), -1)
    snr = np.sort(np.take_along_axis(_snr(params, instance), user, -1).reshape(*pair.shape, 2), axis=-1)
    weak, strong = snr[..., 0], snr[..., 1]  # with all the power of the group
    share = 1.0 / (1.0 + np.sqrt(1.0 + weak))  # of the strong user; the weak user's SINR is then sqrt(1 + weak) - 1
    left = np.zeros_like(share)
    if sic == "estimated":
        heard = (1.0 - share) * strong  # the weak user's signal at the strong user
        left = heard / (1.0 + heard / (1.0 + share * strong))
    sinr = np.stack([(1.0 - share) * weak / (1.0 + share * weak), share * strong / (1.0 + left)], axis=-1)
    return params.max_bandwidth_hz / params.num_groups * efficiency(sinr)


def _snr(params: Params, instance: Instance) -> Array:
    """SNR of every user, (n, N): the same with 1 / N of both budgets and with 1 / K."""
    return instance.gain * (params.max_power_w / (params.noise_psd_w_hz * params.max_bandwidth_hz))


def _efficiency(path: str | None) -> Any:
    """The function from SINR to spectral efficiency: Shannon's, or linear between the points of a curve file.

    Above its last point the efficiency stays, below its first it is 0: the curve does not tell.
    """
    if path is None:
        return shannon
    found = curves.load("sfma", path, ("snr_db", "spectral_efficiency"))
    if found.kind != "measured":
        raise ValueError(f"curve {path!r} must be of kind 'measured', got {found.kind!r}")
    snr_db, efficiency = (_row(path, found, name) for name in ("snr_db", "spectral_efficiency"))
    if len(snr_db) != len(efficiency) or len(snr_db) < 2:
        raise ValueError(f"curve {path!r}: snr_db and spectral_efficiency must have the same length, 2 or more")
    if not (np.diff(snr_db) > 0).all():
        raise ValueError(f"curve {path!r}: snr_db must rise")
    if (efficiency < 0).any() or (np.diff(efficiency) < 0).any():
        raise ValueError(f"curve {path!r}: spectral_efficiency must be 0 or more and never fall")

    def read(sinr: Array) -> Array:
        return np.interp(10.0 * np.log10(np.maximum(sinr, 1e-30)), snr_db, efficiency, left=0.0)

    return read


def _row(path: str, found: curves.Curve, name: str) -> Array:
    values = found.parameters[name]
    if not isinstance(values, list) or any(isinstance(x, list) for x in values):
        raise ValueError(f"curve {path!r}: {name} must be a list of numbers")
    return np.array(values, float)


def _solution(rate: Array, started: float) -> Solution:
    """Rates [bit/s] of users or groups, (n, ...), as a solution without an allocation."""
    n = len(rate)
    return Solution(
        allocation=None,
        objective=MBIT * total(rate),
        feasible=np.ones(n, bool),
        seconds=np.full(n, (time.perf_counter() - started) / n),
        iterations=np.zeros(n, int),
        trace=np.empty((n, 0)),
        status=[RATE_MODEL] * n,
    )
