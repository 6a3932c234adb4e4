"""The value of a user as a function of its resources: V(B, P) = max over o of eta(o) G(x(o, B, P)).

ln eta is concave in o (zeta1 <= 0, zeta2 > zeta4), ln G is concave and falling in x in both success models, and x is
convex in o; so ln(eta G) is concave in o and its maximiser is exact: the root of a falling function, by bisection.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.special

from semcom_gym.envs.arrays import Array
from semcom_gym.envs.crra import physics
from semcom_gym.envs.crra.instance import Instance, Params

SQRT_2_OVER_PI = 0.7978845608028654
SQRT_HALF = 0.7071067811865476
HOPELESS = 1e12  # an argument of Q at which success is zero in every arithmetic; keeps products finite


class Users:
    """The users of a batch of instances: value, derivatives and best ratio. All arrays (n, U), float64."""

    def __init__(self, params: Params, instance: Instance) -> None:
        self.params = params
        self.rate = params.payload_bit / params.deadline_s  # d0 / t0 [bit/s]
        self.noise = params.noise_psd_w_hz / instance.gain  # N0 / delta_i [W/Hz]
        self.weight = instance.weight
        self.zeta = physics.user_zeta(params, instance)

    def argument(self, bandwidth: Array, power: Array, ratio: Array) -> tuple[Array, Array]:
        """The argument x of Q in Lemma 1 and -dx/do."""
        bandwidth = np.maximum(bandwidth, physics.TINY_HZ)
        slope = self.rate / bandwidth
        grown = np.exp2(np.minimum((1.0 - ratio) * slope, physics.MAX_EFFICIENCY))
        scale = self.noise * bandwidth / np.maximum(power, physics.TINY_W)
        x = np.minimum(scale * (grown - 1.0), HOPELESS)
        return x, np.minimum(physics.LN2 * slope * scale * grown, HOPELESS)

    def success(self, x: Array) -> Array:
        """G(x): probability that the features arrive in time."""
        return physics.transmission_success(self.params, x)

    def hazard(self, x: Array) -> Array:
        """-d ln G / dx."""
        if self.params.success == "exact":
            return SQRT_2_OVER_PI / scipy.special.erfcx(SQRT_HALF * x)
        return x

    def task(self, ratio: Array) -> tuple[Array, Array]:
        """eta(o), kept in [0, 1], and d ln eta / do (a large negative number where eta is zero)."""
        z1, z2, z3, z4 = self.zeta
        bend, base = z1 * np.exp(z2 * ratio), z3 * np.exp(z4 * ratio)
        raw = bend + base
        slope = (z2 * bend + z4 * base) / np.where(raw > 0, raw, 1.0)
        return np.clip(raw, 0.0, 1.0), np.where(raw > 0, np.where(raw < 1, slope, 0.0), -1e9)

    def value(self, bandwidth: Array, power: Array, ratio: Array) -> Array:
        """w eta(o) G(x): the user's term of the objective (13)."""
        x, _ = self.argument(bandwidth, power, ratio)
        return self.weight * self.task(ratio)[0] * self.success(x)

    def best_ratio(self, bandwidth: Array, power: Array, iterations: int = 52) -> Array:
        """The ratio that maximises eta(o) G(x(o)), exact to 2**-iterations; replaces the enumeration of Algorithm 2."""
        low = np.zeros(np.broadcast_shapes(bandwidth.shape, self.noise.shape))
        high = np.full_like(low, self.params.max_ratio)
        for _ in range(iterations):
            middle = 0.5 * (low + high)
            rising = self._log_slope(bandwidth, power, middle) > 0
            low, high = np.where(rising, middle, low), np.where(rising, high, middle)
        # the ends are maximisers of their own where the function only rises or only falls
        top = np.full_like(low, self.params.max_ratio)
        high = np.where(self._log_slope(bandwidth, power, top) >= 0, top, high)
        return np.where(self._log_slope(bandwidth, power, np.zeros_like(low)) <= 0, 0.0, high)

    def _log_slope(self, bandwidth: Array, power: Array, ratio: Array) -> Array:
        x, falling = self.argument(bandwidth, power, ratio)
        return self.task(ratio)[1] + self.hazard(x) * falling

    def marginals(self, bandwidth: Array, power: Array, ratio: Array) -> tuple[Array, Array, Array]:
        """Value and its derivatives with respect to bandwidth [1/Hz] and power [1/W] at a fixed ratio."""
        x, falling = self.argument(bandwidth, power, ratio)
        value = self.weight * self.task(ratio)[0] * self.success(x)
        steep = value * self.hazard(x)
        # x = N0/delta B/P (2**(r/B) - 1): dx/dB = x/B - (r/B) ln2 scale 2**(r/B) / B
        by_bandwidth = steep * ((1.0 - ratio) * falling - x) / bandwidth
        return value, by_bandwidth, steep * x / power

    def newton(self, bandwidth: Array, power: Array, ratio: Array) -> tuple[Array, Array, Array, Array]:
        """:meth:`marginals`, and a damped Newton step of the ratio towards the maximiser of eta(o) G(x(o))."""
        z1, z2, z3, z4 = self.zeta
        x, falling = self.argument(bandwidth, power, ratio)
        bend, base = z1 * np.exp(z2 * ratio), z3 * np.exp(z4 * ratio)
        eta = np.maximum(bend + base, 1e-9)
        hazard = self.hazard(x)
        value = self.weight * np.minimum(eta, 1.0) * self.success(x)
        steep = value * hazard
        by_bandwidth = steep * ((1.0 - ratio) * falling - x) / bandwidth
        first = (z2 * bend + z4 * base) / eta
        second = (z2 * z2 * bend + z4 * z4 * base) / eta - first * first
        hazard_slope = hazard * (hazard - x) if self.params.success == "exact" else 1.0
        curvature = second - hazard_slope * falling * falling - hazard * falling * physics.LN2 * self.rate / bandwidth
        step = -(first + hazard * falling) / np.minimum(curvature, -1e-12)
        return value, by_bandwidth, steep * x / power, np.clip(step, -0.1, 0.5 * (1.0 - ratio))


def allocation(bandwidth: Array, power: Array, ratio: Array, selected: Any = None) -> physics.Allocation:
    """An Allocation in which unselected users hold nothing; everybody is selected by default."""
    on = np.ones_like(bandwidth) if selected is None else np.asarray(selected, float)
    return physics.Allocation(bandwidth_hz=on * bandwidth, power_w=on * power, ratio=ratio, selected=on)
