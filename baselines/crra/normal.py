"""The value of a user as a function of its resources: V(B, P) = max over o of eta(o) G(x(o, B, P)).

ln eta is concave in o (zeta1 <= 0, zeta2 > zeta4), ln G is concave and falling in x in both success models, and x is
convex in o; so ln(eta G) is concave in o and its maximiser is exact: the root of a falling function.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from semcom_gym.baselines.crra import hazard
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.crra import physics
from semcom_gym.envs.crra.instance import Instance, Params

HOPELESS = 1e12  # an argument of Q at which success is zero in every arithmetic; keeps products finite
LOST = 40.0  # success is below 1e-300 beyond it, and its logarithm too steep for a Newton step
ROOT_STEPS = 150  # several times what any ratio takes: every third step halves the bracket
ROOT_STEP = 1e-9  # a Newton step this small leaves its square to go


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
            return hazard.hazard(x)
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

    def best_ratio(self, bandwidth: Array, power: Array, start: Array | float = 0.9) -> Array:
        """The ratio that maximises eta(o) G(x(o)), to rounding; replaces the enumeration of Algorithm 2.

        Newton from ``start`` inside a bracket of the root. Users who have converged leave the next steps, so that
        nobody's result depends on the rest of the batch.
        """
        top = self.params.max_ratio
        shape = np.broadcast_shapes(bandwidth.shape, self.noise.shape)

        def unroll(x: Array) -> Array:
            return np.broadcast_to(x, shape).ravel()

        users, rows = self._map(unroll), np.arange(int(np.prod(shape)))
        b, p, ratio = unroll(bandwidth), unroll(power), unroll(np.minimum(start, top))
        low, high = np.full_like(ratio, -1.0), np.full_like(ratio, top + 1.0)  # the bracket: only ratios tried
        result = np.empty_like(ratio)
        for k in range(ROOT_STEPS):
            slope, curvature = users.log_slopes(b, p, ratio)
            rising = slope > 0
            low, high = np.where(rising, ratio, low), np.where(rising, high, ratio)
            new = np.minimum(np.maximum(ratio - slope / curvature, 0.0), top)
            far = np.abs(new - ratio)
            outside = (new <= low) | (new >= high)
            if k % 3 == 2 and k > 5:  # where Newton creeps
                outside |= far > 1e-3
            halve = outside & (far > ROOT_STEP)
            new = np.where(halve, 0.5 * (np.maximum(low, 0.0) + np.minimum(high, top)), new)
            end = np.where(rising, top, 0.0)  # it only rises, or only falls
            result[rows] = new = np.where(ratio == end, end, new)
            open_ = np.flatnonzero(np.abs(new - ratio) > ROOT_STEP)
            if not len(open_):
                break
            rows, b, p, ratio, low, high = (x[open_] for x in (rows, b, p, new, low, high))
            users = users._map(functools.partial(np.take, indices=open_))
        return result.reshape(shape)

    def _map(self, change: Callable[[Array], Array]) -> Users:
        """These users with ``change`` applied to their arrays."""
        changed = copy.copy(self)
        changed.noise, changed.weight = change(self.noise), change(self.weight)
        changed.zeta = tuple(z if np.ndim(z) == 0 else change(z) for z in self.zeta)
        return changed

    def log_slopes(self, bandwidth: Array, power: Array, ratio: Array) -> tuple[Array, Array]:
        """First and second (negative) derivative of ln(eta(o) G(x(o))) by the ratio; the first is -1e9 at eta = 0.

        Where success is zero the second is only known to be negative, and given as nearly zero.
        """
        x, falling = self.argument(bandwidth, power, ratio)
        rate = self.hazard(x)
        eta, slope, bend = self._log_task(ratio)
        capped, gone = eta >= 1.0, eta <= 1e-9
        if capped.any() or gone.any():
            slope = np.where(gone, -1e9, np.where(capped, 0.0, slope))
            bend = np.where(gone | capped, 0.0, bend)
        first = slope + rate * falling
        curvature = np.minimum(bend + self._log_success_bend(bandwidth, x, falling, rate), -1e-12)
        return first, np.where(x > LOST, -1e-12, curvature)

    def _log_task(self, ratio: Array) -> tuple[Array, Array, Array]:
        """eta(o) from 1e-9 up, and the first and second derivative of its logarithm, both as if it knew no 1."""
        z1, z2, z3, z4 = self.zeta
        bend, base = z1 * np.exp(z2 * ratio), z3 * np.exp(z4 * ratio)
        eta = np.maximum(bend + base, 1e-9)
        bend, base = z2 * bend, z4 * base
        slope = (bend + base) / eta
        return eta, slope, (z2 * bend + z4 * base) / eta - slope * slope

    def _log_success_bend(self, bandwidth: Array, x: Array, falling: Array, rate: Array) -> Array:
        """Second derivative of ln G(x(o)) by the ratio."""
        steeper = rate * (rate - x) * falling if self.params.success == "exact" else falling
        return -(steeper + rate * (physics.LN2 * self.rate) / bandwidth) * falling

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
        x, falling = self.argument(bandwidth, power, ratio)
        rate = self.hazard(x)
        eta, slope, bend = self._log_task(ratio)
        value = self.weight * np.minimum(eta, 1.0) * self._success_from(x, rate)
        steep = value * rate
        by_bandwidth = steep * ((1.0 - ratio) * falling - x) / bandwidth
        curvature = np.minimum(bend + self._log_success_bend(bandwidth, x, falling, rate), -1e-12)
        step = -(slope + rate * falling) / curvature
        return value, by_bandwidth, steep * x / power, np.minimum(np.maximum(step, -0.1), 0.5 * (1.0 - ratio))

    def _success_from(self, x: Array, rate: Array) -> Array:
        """:meth:`success` of an argument whose hazard is known, at half the cost."""
        bell = np.exp(-0.5 * x * x)
        return bell * hazard.SQRT_2_OVER_PI / rate if self.params.success == "exact" else bell


def allocation(bandwidth: Array, power: Array, ratio: Array, selected: Any = None) -> physics.Allocation:
    """An Allocation in which unselected users hold nothing; everybody is selected by default."""
    on = np.ones_like(bandwidth) if selected is None else np.asarray(selected, float)
    return physics.Allocation(bandwidth_hz=on * bandwidth, power_w=on * power, ratio=ratio, selected=on)
