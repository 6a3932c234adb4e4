"""Adaptive modulation and coding: the scheme for an SNR, and the rates of two users, apart or superposed.

Rates are bits of payload a symbol, check sums not counted, times the share of blocks that arrive. Two users share the
symbols and the energy of a link:

* OMA: each has half of the symbols, at the power of the link, which is half of the energy.
* NOMA: both have all symbols. The strong user has the share of the power with which the weak one reaches the rate of
  OMA at capacity, 1 / (1 + sqrt(1 + snr)), unless told. The weak user takes the other signal as noise, white and
  Gaussian, which the superposed symbols are not quite. The strong user decodes and cancels the weak user's blocks
  first; where one of those is lost, so are its own that overlap it.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.transceivers.coding.ldpc import Table
from semcom_gym.transceivers.coding.schemes import BLOCK, CHECK, Scheme

TARGET = 0.1
"""Block error rate that a scheme may have to be chosen: that of 5G's channel quality indicator."""
PAYLOAD = BLOCK - CHECK
"""Bits of a block that are not check sum."""


def choose(table: Table, snr_db: float, target: float = TARGET) -> Scheme | None:
    """The scheme with the most payload that arrives, of those with a block error rate of at most ``target``.

    None where there is none. Raises ValueError, TypeError.
    """
    validate.number("snr_db", snr_db, low=-100.0, high=100.0)
    validate.number("target", target, high=1.0)
    usable = [scheme for scheme in table.schemes if table.error_rate(scheme, snr_db) <= target]
    return max(usable, key=lambda scheme: rate(table, scheme, snr_db), default=None)


def rate(table: Table, scheme: Scheme | None, snr_db: float) -> float:
    """Payload that arrives over a link of one scheme [bit/symbol]; 0 without a scheme."""
    if scheme is None:
        return 0.0
    return PAYLOAD / scheme.symbols * (1.0 - float(table.error_rate(scheme, snr_db)))


def spectral_efficiency(table: Table, snr_db: Array, target: float = TARGET) -> Array:
    """Payload that arrives with the scheme chosen for each SNR [bit/symbol], of the shape of ``snr_db``."""
    values = [rate(table, choose(table, float(x), target), float(x)) for x in np.ravel(snr_db)]
    return np.array(values).reshape(np.shape(snr_db))


def oma(table: Table, weak_db: float, strong_db: float, target: float = TARGET) -> tuple[float, float]:
    """Rates of two users with SNRs [dB] at the power of the link, in bits for each of all its symbols."""
    weak, strong = (rate(table, choose(table, snr_db, target), snr_db) for snr_db in (weak_db, strong_db))
    return 0.5 * weak, 0.5 * strong


@dataclasses.dataclass(frozen=True)
class Superposed:
    """Two users in power-domain NOMA.

    share: of the power, for the strong user. weak_db, heard_db, strong_db: SINR [dB] of the weak user's signal at
    the weak user, of the same at the strong user, of the strong user's own once that is cancelled. weak, strong:
    schemes, None where nothing is sent. cancelled: chance that the blocks that overlap one of the strong user's are
    all decoded by the strong user.
    """

    share: float
    weak_db: float
    heard_db: float
    strong_db: float
    weak: Scheme | None
    strong: Scheme | None
    cancelled: float


def superpose(
    table: Table, weak_db: float, strong_db: float, share: float | None = None, target: float = TARGET
) -> Superposed:
    """Powers, SINRs and schemes of two users with SNRs [dB] at the power of the link. Raises ValueError, TypeError."""
    for name, value in (("weak_db", weak_db), ("strong_db", strong_db)):
        validate.number(name, value, low=-100.0, high=100.0)
    validate.not_above("weak_db", weak_db, "strong_db", strong_db)
    weak_snr, strong_snr = 10.0 ** (weak_db / 10.0), 10.0 ** (strong_db / 10.0)
    part = 1.0 / (1.0 + math.sqrt(1.0 + weak_snr)) if share is None else share
    validate.number("share", part)
    if part >= 1.0:
        raise ValueError(f"share must be below 1, got {part:g}")
    at_weak, heard = (_decibel((1.0 - part) * snr / (part * snr + 1.0)) for snr in (weak_snr, strong_snr))
    own = _decibel(part * strong_snr)
    first, second = choose(table, at_weak, target), choose(table, own, target)
    return Superposed(part, at_weak, heard, own, first, second, cancelled(table, first, second, heard))


def cancelled(table: Table, weak: Scheme | None, strong: Scheme | None, heard_db: float) -> float:
    """Chance that all blocks of the weak user's that overlap one of the strong user's are decoded by the latter.

    heard_db: SINR [dB] at which it hears them. The first blocks of both start together.
    """
    if weak is None or strong is None:
        return 1.0
    return float((1.0 - table.error_rate(weak, heard_db)) ** math.ceil(strong.symbols / weak.symbols))


def noma(
    table: Table, weak_db: float, strong_db: float, share: float | None = None, target: float = TARGET
) -> tuple[float, float]:
    """Rates of two users with SNRs [dB] at the power of the link, in bits for each of its symbols.

    Where the weak user's SINR carries no scheme, it sends nothing and the strong user keeps its share of the power.
    """
    pair = superpose(table, weak_db, strong_db, share, target)
    weak = rate(table, pair.weak, pair.weak_db)
    return weak, pair.cancelled * rate(table, pair.strong, pair.strong_db)


def _decibel(ratio: float) -> float:
    return 10.0 * math.log10(ratio)
