"""The cell: where users stand, and what the large-scale channel does to their signal."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy.special

from semcom_gym.envs.arrays import Array

MAX_SHADOWING_DB = 40.0  # standard deviation; with more, a rare draw leaves the range of float32


def distance_m(uniform: Array, min_distance_m: float, radius_m: float) -> Array:
    """Distance [m] of a user dropped uniformly over the ring between two radii, from a uniform variate in [0, 1)."""
    low, high = min_distance_m**2, radius_m**2
    return np.sqrt(low + (high - low) * uniform)


def path_loss_db(distance: Array, at_1km_db: float = 128.1, per_decade_db: float = 37.6) -> Array:
    """Macro-cell path loss [dB] at a distance [m]: 128.1 + 37.6 log10(d / km) (3GPP TR 36.814 urban macro)."""
    return at_1km_db + per_decade_db * np.log10(distance / 1000.0)


def normal(uniform: Array) -> Array:
    """Standard normal variates from uniform ones in [0, 1), one for one.

    The inverse distribution function, unlike a Generator's own sampler, makes a block of n rows the first n rows
    of every longer block, so that test splits are prefixes and scalar and vector environments agree.
    """
    return scipy.special.ndtri(np.maximum(uniform, 1e-300))


DIGITS = 4  # independent ones that a uniform variate is good for
DIGIT_BITS = 12


def digits(uniform: Array) -> Array:
    """Four independent integers in [0, 4096) from each uniform variate: (..., k) to (..., 4 k).

    Where an instance needs hundreds of variates for its details, 12 bits of each are plenty.
    """
    whole = (uniform * 2.0 ** (DIGITS * DIGIT_BITS)).astype(np.int64)
    count = uniform.shape[-1]
    parts = np.empty((*uniform.shape[:-1], DIGITS * count), np.int64)
    for place in range(DIGITS):
        np.right_shift(whole, DIGIT_BITS * place, out=parts[..., place * count : (place + 1) * count])
    parts &= (1 << DIGIT_BITS) - 1
    return parts


def digit_uniform(digit: Array) -> Array:
    """Uniform variates in (0, 1) from :func:`digits`."""
    return (digit + 0.5) * 2.0**-DIGIT_BITS


@functools.cache
def _quantiles() -> np.ndarray[Any, Any]:
    return np.asarray(scipy.special.ndtri((np.arange(1 << DIGIT_BITS) + 0.5) * 2.0**-DIGIT_BITS))


def digit_normal(digit: Array) -> Array:
    """Standard normal variates from :func:`digits`, by a table of quantiles small enough for the cache."""
    return _quantiles().take(digit)


@functools.lru_cache(64)
def _log_normal(spread: float) -> np.ndarray[Any, Any]:
    return np.exp(spread * _quantiles())


def digit_log_normal(digit: Array, spread: float) -> Array:
    """exp(spread * normal) from :func:`digits`."""
    return _log_normal(spread).take(digit)


def db_to_linear(value_db: Array) -> Array:
    """10 ** (x / 10)."""
    return np.exp(value_db * 0.23025850929940458)


def dbm_to_w(power_dbm: float) -> float:
    """Watts of a power in dBm."""
    return float(10.0 ** (power_dbm / 10.0) * 1e-3)
