"""Block error rates of the schemes over white noise, from the committed table, and the bound that no code can beat.

The table was simulated with the 5G code of Sionna (`semcom-gym codes`; see :mod:`.simulate`); reading it needs NumPy
only. Between two points the logarithm of the rate is linear in the SNR in dB.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.transceivers.coding.schemes import BLOCK, SCHEMES, Scheme

FILE = "ldpc_5g.json"
SHIPPED = Path(__file__).parent / "tables" / FILE
FLOOR = 1e-4
"""The line through the last two points of a scheme goes on down to this rate; nothing was measured there."""


@dataclasses.dataclass(frozen=True)
class Waterfall:
    """The points of one scheme. snr_db: rising. blocks, errors: sent, and in error."""

    snr_db: Array
    blocks: Array
    errors: Array

    @property
    def error_rate(self) -> Array:
        """Block error rate at the points."""
        return self.errors / self.blocks


@dataclasses.dataclass(frozen=True)
class Table:
    """Waterfalls by the scheme's index, and where they come from."""

    waterfalls: Mapping[int, Waterfall]
    provenance: Mapping[str, Any]

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """Those that the table has, from the slowest to the fastest."""
        return tuple(scheme for scheme in SCHEMES if scheme.index in self.waterfalls)

    def error_rate(self, scheme: Scheme, snr_db: Array | float) -> Array:
        """Block error rate at an SNR [dB] of any shape: 1 below the first point, above the last see ``FLOOR``."""
        return np.asarray(10.0 ** self._exponent(scheme, np.asarray(snr_db, float)))

    def snr_db(self, scheme: Scheme, error_rate: float) -> float:
        """The least SNR [dB] with a block error rate of no more than ``error_rate``, from ``FLOOR`` to below 1."""
        validate.number("error_rate", error_rate, low=FLOOR, high=0.9, open_low=False)
        low, high = -50.0, 100.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.error_rate(scheme, middle) > error_rate else (low, middle)
        return high

    def _exponent(self, scheme: Scheme, snr_db: Array) -> Array:
        if scheme.index not in self.waterfalls:
            have = ", ".join(str(index) for index in self.waterfalls)
            raise ValueError(f"the table has no scheme {scheme.index}; it has: {have}")
        found = self.waterfalls[scheme.index]
        seen = found.errors > 0
        at, value = found.snr_db[seen], np.log10(found.error_rate[seen])
        value = np.minimum.accumulate(value)  # noise of the simulation must not make an error rate rise
        slope = (value[-1] - value[-2]) / (at[-1] - at[-2])
        exponent = np.interp(snr_db, at, value, left=0.0)
        exponent = np.where(snr_db > at[-1], value[-1] + slope * (snr_db - at[-1]), exponent)
        return np.asarray(np.maximum(exponent, min(math.log10(FLOOR), value[-1])))


def load(path: str | Path | None = None) -> Table:
    """The shipped table, or a file of `semcom-gym codes`. Raises ValueError, in one line, for one that is unusable."""
    return _shipped() if path is None else _read(Path(path))


@functools.lru_cache(maxsize=1)
def _shipped() -> Table:
    return _read(SHIPPED)


def _read(path: Path) -> Table:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["block"] != BLOCK:
            raise ValueError(f"blocks of {found['block']} bits, not of {BLOCK}")
        waterfalls = {int(index): _waterfall(index, rows) for index, rows in found["schemes"].items()}
        return Table(waterfalls, dict(found["provenance"]))
    except OSError as error:
        raise ValueError(f"table {str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"table {str(path)!r} is unusable: {str(error) or type(error).__name__}") from None


def _waterfall(index: str, rows: Mapping[str, Any]) -> Waterfall:
    snr_db, blocks, errors = (np.array(rows[name], float) for name in ("snr_db", "blocks", "errors"))
    if not (snr_db.shape == blocks.shape == errors.shape == (len(snr_db),) and (np.diff(snr_db) > 0).all()):
        raise ValueError(f"scheme {index}: snr_db must rise and have a number of blocks and errors each")
    if (errors < 0).any() or (errors > blocks).any() or (blocks < 1).any() or np.sum(errors > 0) < 2:
        raise ValueError(f"scheme {index}: errors must be from 0 to the blocks, above 0 at two points at least")
    return Waterfall(snr_db, blocks, errors)


def normal_approximation(snr_db: Array | float, bits: int, symbols: int) -> Array:
    """Least block error rate of any code of ``bits`` over ``symbols`` complex symbols of white noise, approximately.

    Polyanskiy, Poor and Verdu 2010, (296) with the third term: Q((n C - k + log2(n) / 2) / sqrt(n V)), n complex
    symbols as 2 n real ones. Inputs of any form, so a bound for QAM too.
    """
    validate.integer("bits", bits)
    validate.integer("symbols", symbols)
    snr = 10.0 ** (np.asarray(snr_db, float) / 10.0)
    capacity = np.log2(1.0 + snr)
    dispersion = (1.0 - 1.0 / (1.0 + snr) ** 2) * math.log2(math.e) ** 2
    margin = symbols * capacity - bits + 0.5 * math.log2(2 * symbols)
    return np.asarray(scipy.special.ndtr(-margin / np.sqrt(symbols * dispersion)))
