"""The SNR at which a device stops trading power for bandwidth and time: inverses of two rising functions.

With l = ln(1 + S), e^l (l - 1) + 1 is the derivative of (e^l - 1) / l times l^2; :mod:`device` says where each is met.
Each rises from 0 to infinity: l e^l / (e^l (l - 1) + 1) >= 2 / l is the slope of the logarithm of that factor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from semcom_gym.envs.arrays import Array

STEP = 1.0 / 32.0  # of the tables, in the logarithm of the argument: relative error of l below 1e-8


class Inverse:
    """l(y) of a rising function y(l), from a table of ln l against ln y with cubic Hermite interpolation."""

    def __init__(self, log_y: Callable[[Array], Array], low: float, high: float) -> None:
        self.low, self.high = low, high
        grid = np.linspace(-25.0, 5.5, 8000)
        nodes = np.arange(low, high + 2 * STEP, STEP)
        x = np.interp(nodes, log_y(grid), grid)
        for _ in range(4):  # Newton with a central difference; the start is good to 1e-6
            x = x - (log_y(x) - nodes) * 2e-4 / (log_y(x + 1e-4) - log_y(x - 1e-4))
        self.value = x
        self.slope = STEP * 2e-4 / (log_y(x + 1e-4) - log_y(x - 1e-4))

    def __call__(self, log_y: Array) -> tuple[Array, Array]:
        """l and dl / d ln y. Arguments beyond the table count as its ends."""
        place = (np.minimum(np.maximum(log_y, self.low), self.high) - self.low) * (1.0 / STEP)
        k = place.astype(np.intp)
        u = place - k
        start, m0, m1 = self.value.take(k), self.slope.take(k), self.slope.take(k + 1)
        rise = self.value.take(k + 1) - start
        c2, c3 = 3.0 * rise - 2.0 * m0 - m1, m0 + m1 - 2.0 * rise
        length = np.exp(start + u * (m0 + u * (c2 + u * c3)))
        return length, length * (m0 + u * (2.0 * c2 + 3.0 * u * c3)) * (1.0 / STEP)


def _log_gain(length: Array) -> Array:
    """ln(e^l (l - 1) + 1)."""
    small = length < 0.02
    series = length**2 * (0.5 + length * (1 / 3 + length * (1 / 8 + length * (1 / 30 + length / 144))))
    return np.where(small, np.log(series), length + np.log(np.where(small, 1.0, length - 1.0 + np.exp(-length))))


@functools.cache
def power_to_spare() -> Inverse:
    """Of (e^l (l - 1) + 1) / sqrt(l) = sqrt(lam beta / a) g / (omega_2 N0), below the power cap."""
    return Inverse(lambda x: _log_gain(np.exp(x)) - 0.5 * x, -30.0, 100.0)


@functools.cache
def full_power() -> Inverse:
    """Of (e^l (l - 1) + 1) (1 - e^-l)^2 e^l / l^2 = lam P / (a (omega_2 N0 / g + beta / P)), at it."""

    def log_y(x: Array) -> Array:
        length = np.exp(x)
        return _log_gain(length) + 2.0 * np.log(-np.expm1(-length)) + length - 2.0 * x

    return Inverse(log_y, -40.0, 180.0)
