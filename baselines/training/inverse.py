"""The SNR at which a device stops trading power for bandwidth and time: inverses of two rising functions.

With l = ln(1 + S), e^l (l - 1) + 1 is the derivative of (e^l - 1) / l times l^2; :mod:`device` says where each is met.
Each rises from 0 to infinity: l e^l / (e^l (l - 1) + 1) >= 2 / l is the slope of the logarithm of that factor.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from semcom_gym.envs.arrays import Array, at_least, at_most, at_rows, like, namespace

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
        slope = STEP * 2e-4 / (log_y(x + 1e-4) - log_y(x - 1e-4))
        rise, first, second = np.diff(x), slope[:-1], slope[1:]
        # of every interval, from the constant on
        self.cubic = x[:-1], first, 3.0 * rise - 2.0 * first - second, first + second - 2.0 * rise

    def __call__(self, log_y: Array) -> tuple[Array, Array]:
        """l and dl / d ln y. Arguments beyond the table count as its ends."""
        xp = namespace(log_y)
        place = (at_most(at_least(log_y, self.low), self.high) - self.low) * (1.0 / STEP)
        k = xp.astype(place, xp.int64)
        u = place - k
        start, c1, c2, c3 = (at_rows(like(table, log_y), k) for table in self.cubic)
        length = xp.exp(start + u * (c1 + u * (c2 + u * c3)))
        return length, length * (c1 + u * (2.0 * c2 + 3.0 * u * c3)) * (1.0 / STEP)


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
