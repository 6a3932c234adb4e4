"""The value of a user as a function of its resources: V(B, P) = max over o of eta(o) G(x(o, B, P)).

ln eta is concave in o (zeta1 <= 0, zeta2 > zeta4), ln G is concave and falling in x in both success models, and x is
convex in o; so ln(eta G) is concave in o and its maximiser is exact: the root of a falling function.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from semcom_gym.baselines.crra import hazard
from semcom_gym.envs.arrays import Array, at_least, at_most, at_rows, namespace, rows_where
from semcom_gym.envs.crra import physics
from semcom_gym.envs.crra.instance import Instance, Params

HOPELESS = 1e12  # an argument of Q at which success is zero in every arithmetic; keeps products finite
LOST = 40.0  # success is below 1e-300 beyond it, and its logarithm too steep for a Newton step
ROOT_STEPS = 150  # several times what any ratio takes: every third step halves the bracket
ROOT_STEP = 1e-9  # a Newton step this small leaves its square to go


@dataclasses.dataclass
class Slopes:
    """Value w eta G and first derivatives, and what the second are made of. All (U, n), pairs (2, U, n)."""

    value: Array
    by: Array  # d ln V / d ln B, d ln V / d ln P at a fixed ratio
    step: Array  # of the ratio, by Newton's method
    falls: Array  # -dx / d ln B, -dx / d ln P
    steep: Array  # -dx / do
    reach: Array  # (1 - o) steep
    rate: Array  # -d ln G / dx
    bend: Array  # its slope
    load: Array  # rate times the spectral efficiency needed, in nats
    ratio_bend: Array  # second derivative of ln V by the ratio


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
        bandwidth = at_least(bandwidth, physics.TINY_HZ)
        slope = self.rate / bandwidth
        grown = namespace(bandwidth).exp2(at_most((1.0 - ratio) * slope, physics.MAX_EFFICIENCY))
        scale = self.noise * bandwidth / at_least(power, physics.TINY_W)
        x = at_most(scale * (grown - 1.0), HOPELESS)
        return x, at_most(physics.LN2 * slope * scale * grown, HOPELESS)

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
        xp = namespace(ratio)
        z1, z2, z3, z4 = self.zeta
        bend, base = z1 * xp.exp(z2 * ratio), z3 * xp.exp(z4 * ratio)
        raw = bend + base
        slope = (z2 * bend + z4 * base) / xp.where(raw > 0, raw, 1.0)
        return at_most(at_least(raw, 0.0), 1.0), xp.where(raw > 0, xp.where(raw < 1, slope, 0.0), -1e9)

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
        xp, shape = namespace(bandwidth), np.broadcast_shapes(bandwidth.shape, self.noise.shape)

        def unroll(x: Array) -> Array:
            return xp.reshape(xp.broadcast_to(x, shape), (-1,))

        users, rows = self.map(unroll), xp.arange(math.prod(shape), device=bandwidth.device)
        b, p, ratio = unroll(bandwidth), unroll(power), unroll(at_most(xp.zeros_like(bandwidth) + start, top))
        low, high = xp.full_like(ratio, -1.0), xp.full_like(ratio, top + 1.0)  # the bracket: only ratios tried
        result = xp.empty_like(ratio)
        for k in range(ROOT_STEPS):
            slope, curvature = users.log_slopes(b, p, ratio)
            rising = slope > 0
            low, high = xp.where(rising, ratio, low), xp.where(rising, high, ratio)
            new = at_most(at_least(ratio - slope / curvature, 0.0), top)
            far = abs(new - ratio)
            outside = (new <= low) | (new >= high)
            if k % 3 == 2 and k > 5:  # where Newton creeps
                outside |= far > 1e-3
            halve = outside & (far > ROOT_STEP)
            new = xp.where(halve, 0.5 * (at_least(low, 0.0) + at_most(high, top)), new)
            end = top * xp.astype(rising, ratio.dtype)  # it only rises, or only falls
            result[rows] = new = xp.where(ratio == end, end, new)
            open_ = rows_where(abs(new - ratio) > ROOT_STEP)
            if not len(open_):
                break
            rows, b, p, ratio, low, high = (x[open_] for x in (rows, b, p, new, low, high))
            users = users.map(functools.partial(at_rows, rows=open_))
        return xp.reshape(result, shape)

    def map(self, change: Callable[[Array], Array]) -> Users:
        """These users with ``change`` applied to their arrays."""
        changed = copy.copy(self)
        changed.noise, changed.weight = change(self.noise), change(self.weight)
        changed.zeta = tuple(change(z) if hasattr(z, "shape") else z for z in self.zeta)
        return changed

    def log_slopes(self, bandwidth: Array, power: Array, ratio: Array) -> tuple[Array, Array]:
        """First and second (negative) derivative of ln(eta(o) G(x(o))) by the ratio; the first is -1e9 at eta = 0.

        Where success is zero the second is only known to be negative, and given as nearly zero.
        """
        x, falling = self.argument(bandwidth, power, ratio)
        rate = self.hazard(x)
        eta, slope, bend = self._log_task(ratio)
        capped, gone = eta >= 1.0, eta <= 1e-9
        xp, odd = namespace(x), gone | capped
        if odd.any():
            slope = xp.where(gone, -1e9, xp.where(capped, 0.0, slope))
            bend = xp.where(odd, 0.0, bend)
        first = slope + rate * falling
        curvature = at_most(bend + self._log_success_bend(bandwidth, x, falling, rate), -1e-12)
        return first, xp.where(x > LOST, -1e-12, curvature)

    def _log_task(self, ratio: Array) -> tuple[Array, Array, Array]:
        """eta(o) from 1e-9 up, and the first and second derivative of its logarithm, both as if it knew no 1."""
        xp = namespace(ratio)
        z1, z2, z3, z4 = self.zeta
        bend, base = z1 * xp.exp(z2 * ratio), z3 * xp.exp(z4 * ratio)
        eta = at_least(bend + base, 1e-9)
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

    def slopes(self, amounts: Array, ratio: Array) -> Slopes:
        """Value and slopes at bandwidth [Hz] and power [W], (2, U, n), to 1e-8; and the Newton step of the ratio."""
        xp, (bandwidth, power) = namespace(ratio), amounts
        left, slope = 1.0 - ratio, physics.LN2 * self.rate / bandwidth
        load = at_most(left * slope, physics.LN2 * physics.MAX_EFFICIENCY)
        scale = self.noise * bandwidth / power
        grown = scale * xp.exp(load)
        x = at_most(grown - scale, HOPELESS)
        steep = at_most(slope * grown, HOPELESS)
        reach = left * steep
        falls = xp.stack((reach - x, x))
        exact = self.params.success == "exact"
        rate = hazard.nearly(x) if exact else x
        bend = rate * (rate - x) if exact else xp.ones_like(x)
        eta, task, task_bend = self._log_task(ratio)
        value = self.weight * at_most(eta, 1.0) * self._success_from(x, rate)
        ratio_bend = at_most(task_bend - steep * (bend * steep + rate * slope), -1e-12)
        step = -(task + rate * steep) / ratio_bend
        return Slopes(value, rate * falls, step, falls, steep, reach, rate, bend, rate * load, ratio_bend)

    def _success_from(self, x: Array, rate: Array) -> Array:
        """:meth:`success` of an argument whose hazard is known, at half the cost."""
        bell = namespace(x).exp(-0.5 * x * x)
        return bell * hazard.SQRT_2_OVER_PI / rate if self.params.success == "exact" else bell


def allocation(bandwidth: Array, power: Array, ratio: Array, selected: Any = None) -> physics.Allocation:
    """An Allocation in which unselected users hold nothing; everybody is selected by default."""
    xp = namespace(bandwidth)
    on = xp.ones_like(bandwidth) if selected is None else xp.asarray(selected, dtype=bandwidth.dtype)
    return physics.Allocation(bandwidth_hz=on * bandwidth, power_w=on * power, ratio=ratio, selected=on)
