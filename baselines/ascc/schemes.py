"""The paper's other transceivers (Section V-A), both with zero forcing and water-filling, as models fed by curves.

Their objective is the weighted distortion (15) that the scheme itself reaches, not the environment's. The shipped
curves are stand-ins and say so in their names (docs/ascc.md): measured ones are named by their paths.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from semcom_gym.baselines.ascc import heuristics
from semcom_gym.baselines.solution import Solution
from semcom_gym.envs import curve
from semcom_gym.envs.arrays import Array, total
from semcom_gym.envs.ascc import physics
from semcom_gym.envs.ascc.instance import CURVE_PINS, Instance, Params

MODEL = "ok: model of another transceiver"
BPG_TABLES = ("synthetic_bpg_data", "synthetic_bpg_semantic")
DJSCC_CURVES = ("synthetic_djscc_data_10db", "synthetic_djscc_semantic_10db")
"""DJSCC trained at 10 dB, as in the paper's Figures 7 and 9."""
MATCHED_CURVES = ("synthetic_djscc_data_matched", "synthetic_djscc_semantic_matched")
"""DJSCC trained at the SNR of each user, as in Figure 8."""


def zf_wf_bpg(
    params: Params,
    instance: Instance,
    *,
    tables: Sequence[str] = BPG_TABLES,
    code_rates: Sequence[float] = heuristics.CODE_RATES,
) -> Solution:
    """ZF-WF-BPG: :func:`heuristics.zf_wf_fixed` with BPG in place of the learned codecs.

    tables: names or paths of the rate tables of BPG for data and for semantic users, in the format of the learned
    ones: a row per rate. The rate indices of the allocation are of these tables. code_rates: as there.
    """
    found = heuristics.zf_wf_fixed(bpg(params, tables), instance, code_rates=code_rates)
    return dataclasses.replace(found, status=[MODEL] * len(instance))


def zf_wf_djscc(params: Params, instance: Instance, *, curves: Sequence[str] = DJSCC_CURVES) -> Solution:
    """ZF-WF-DJSCC: analog transmission of T symbols per image, whose distortion the SINR alone decides.

    curves: names or paths of the curves of data and of semantic users, see :class:`Quality`. The solution has no
    allocation: there is no codec to choose.
    """
    started = time.perf_counter()
    harm = djscc_distortion(params, instance, curves)
    n = len(instance)
    return Solution(
        allocation=None,
        objective=total(params.weight * harm),
        feasible=np.ones(n, bool),
        seconds=np.full(n, (time.perf_counter() - started) / n),
        iterations=np.zeros(n, int),
        trace=np.empty((n, 0)),
        status=[MODEL] * n,
    )


def bpg(params: Params, tables: Sequence[str] = BPG_TABLES) -> Params:
    """The parameters as they are for BPG, with its rate tables."""
    data, semantic = _pair("tables", tables)
    return dataclasses.replace(params, data_table=data, semantic_table=semantic)


def djscc_distortion(params: Params, instance: Instance, curves: Sequence[str] = DJSCC_CURVES) -> Array:
    """(n, K) the end-to-end distortion of every user under ZF-WF-DJSCC."""
    data, semantic = (Quality(name) for name in _pair("curves", curves))
    sinr = physics.sinr(instance, *heuristics.zf_wf(params, instance))
    cut = params.data_users
    return np.concat([data.at(sinr[:, :cut], params), semantic.at(sinr[:, cut:], params)], axis=-1)


class Quality:
    """Distortion of an analog transceiver against SNR and channel uses per image, from a curve file.

    Parameters of the file: channel_uses [T] (M,), positive and rising; snr_db (S,), rising, two or more; distortion
    (M, S), within [0, 1], which never rises with the SNR. Linear in dB and in log T. Beyond the first and the last SNR
    the distortion stays as it is there; other channel uses than the file covers are refused.
    Raises ValueError, in one line, for a file that breaks a rule.
    """

    def __init__(self, name: str) -> None:
        found = curve.load("ascc", name, ("channel_uses", "snr_db", "distortion"), CURVE_PINS).parameters
        self.name = name
        try:
            uses, snr_db, harm = (np.array(found[key], float) for key in ("channel_uses", "snr_db", "distortion"))
        except ValueError:  # of a ragged list
            uses = snr_db = harm = np.empty(0)
        if uses.ndim != 1 or snr_db.ndim != 1 or len(snr_db) < 2 or harm.shape != (len(uses), len(snr_db)):
            raise ValueError(
                f"curve {name!r}: distortion must have a row per channel_uses and a column per snr_db (2+)"
            )
        self.channel_uses, self.snr_db, self.distortion = uses, snr_db, harm
        rules = {
            "channel_uses must be positive and rise": self.channel_uses[0] > 0
            and np.all(np.diff(self.channel_uses) > 0),
            "snr_db must rise": np.all(np.diff(snr_db) > 0),
            "distortion must lie within [0, 1]": np.all((harm >= 0) & (harm <= 1)),
            "distortion must never rise with snr_db": np.all(np.diff(harm, axis=-1) <= 0),
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"curve {name!r}: {rule}")

    def covers(self, channel_uses: float) -> bool:
        """Whether the file says anything about so many channel uses."""
        return bool(self.channel_uses[0] <= channel_uses <= self.channel_uses[-1])

    def at(self, sinr: Array, params: Params) -> Array:
        """Distortion at SINRs (...) and the channel uses of the parameters."""
        uses, first, last = params.channel_uses, self.channel_uses[0], self.channel_uses[-1]
        if not self.covers(uses):
            raise ValueError(f"curve {self.name!r} covers channel_uses from {first:g} to {last:g}, not {uses:g}")
        row = [np.interp(np.log(uses), np.log(self.channel_uses), column) for column in self.distortion.T]
        return np.interp(10.0 * np.log10(np.maximum(sinr, 1e-30)), self.snr_db, row)


def _pair(what: str, names: Sequence[str]) -> tuple[str, str]:
    if isinstance(names, str) or len(names) != 2:
        raise ValueError(f"{what} must be a pair, of data and of semantic users, got {names!r}")
    data, semantic = names
    return data, semantic
