"""Means, interquartile means and bootstrap intervals of scores (seeds, instances)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import scipy.stats

from semcom_gym.envs.arrays import Array

RESAMPLES = 2000
SEED = 0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A statistic and its 95 % interval; the interval is NaN for a single instance, both are for none."""

    value: float
    low: float
    high: float


def mean(values: Array, axis: int = -1) -> Array:
    """Arithmetic mean."""
    return np.mean(values, axis=axis)


def iqm(values: Array, axis: int = -1) -> Array:
    """Interquartile mean: the mean of the middle half."""
    return scipy.stats.trim_mean(values, 0.25, axis=axis)


def estimate(values: Array, statistic: Callable[..., Array] = iqm, resamples: int = RESAMPLES) -> Estimate:
    """A statistic of ``values`` (seeds, instances), or (instances,), with its percentile-bootstrap interval.

    Instances are resampled together for all seeds, and seeds for all instances, because both are shared. Two calls on
    the same shape draw the same instances, so that intervals of two methods are paired.
    """
    table = np.atleast_2d(values)
    seeds, n = table.shape
    if n < 2:
        return Estimate(float(statistic(table.reshape(-1))) if n else math.nan, math.nan, math.nan)
    axes = [np.arange(size) for size in (n, seeds) if size > 1]

    def resampled(rows: Array, picks: Array | None = None, axis: int = -1) -> Array:
        which = np.zeros((*rows.shape[:-1], 1), int) if picks is None else picks
        drawn = table[which[..., :, None], rows[..., None, :]]
        return statistic(drawn.reshape(*drawn.shape[:-2], -1), axis=axis)

    found = scipy.stats.bootstrap(
        axes, resampled, n_resamples=resamples, method="percentile", vectorized=True, batch=200,
        rng=np.random.default_rng(SEED),
    )  # fmt: skip
    value = float(statistic(table.reshape(-1)))
    return Estimate(value, float(found.confidence_interval.low), float(found.confidence_interval.high))


def difference(a: Array, b: Array, statistic: Callable[..., Array] = mean, resamples: int = RESAMPLES) -> Estimate:
    """Paired comparison of two methods on the same instances: ``statistic`` of a - b; a, b (seeds, instances).

    Scores are averaged over the seeds of each method first, because seeds of two methods are not paired.
    """
    return estimate(np.atleast_2d(a).mean(axis=0) - np.atleast_2d(b).mean(axis=0), statistic, resamples)
