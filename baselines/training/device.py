"""One device at given prices: what it does when a hertz costs lam and a second of the round costs beta.

With a = rho d D ln 2, l = ln(1 + S) and q = a / l the product of bandwidth and upload time, B t = q and the energy of
the upload is (N0 / g) S q: both depend on S (and on rho, the least ratio that S allows) alone. So a device minimises
over s = ln S and t

    omega_2 (N0 / g) S q + lam q / t + beta t    with p <= p^max, that is t >= S q / P, P = p^max g / N0,

and over its clocks beta c1 D / f + omega_2 kappa c1 D f^2 and the same for h, which (26)-(29) solve. Let G(s) be the
least value over t. The least ratio at any SNR, the floor, is rho^min, or more where the curve's largest SNR asks for it
(:func:`physics.ratio_floor`). Where PSNR holds at it (s >= knee) G falls, then rises: the high mode, in closed form
(:mod:`inverse`). Below the knee the ratio falls with s, and G may have one more minimum: the low mode, of much
bandwidth and little power.

Below the knee let v = -d ln rho / ds, w = d ln l / ds (it falls from 1 to 0 as s rises), k = v + w = -d ln q / ds.

* S q falls where k > 1. Between ``peak`` and the knee it does, and so does q: the knee beats these s at any prices.
* Where G' = 0, G'' has the sign of (1 - k) (2 - k) + k' at full power and of (1 - k) (1 - k / 2) + k' / k below, with
  k' = -v^2 - w / (1 + S) + w^2. Between ``crest`` and ``peak`` both are negative: no minimum at any prices.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from semcom_gym.baselines.training import inverse
from semcom_gym.envs.arrays import Array, at_least, at_most, in_order, is_torch, namespace, rows_where
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params

LN2 = 0.6931471805599453
LEAST = -60.0  # of ln S: below it no upload ends before NEVER_S
PEAK_STEPS = 12  # towards the exact peak, from above
CREST_CELLS = 24  # between the bottom and the peak
LOOKS = 12  # points at which the low mode is looked for
LOW_STEPS = 4  # of Newton's method for the low mode, from where it was at the last prices
LOW_STEP = 0.5  # longest
TINY = 1e-300


@dataclasses.dataclass
class Response:
    """What devices do: logarithms of SNR, upload time [s], bandwidth [Hz]; slopes in ln lam and ln beta of the two."""

    snr: Array
    time: Array
    band: Array
    time_by: tuple[Array, Array]
    band_by: tuple[Array, Array]

    def arrays(self) -> tuple[Array, ...]:
        """All of them, in this order."""
        return self.snr, self.time, self.band, *self.time_by, *self.band_by


class Devices:
    """The constants of n instances of N devices, all (n, N), and what the devices do at given prices.

    ratio: that of all devices, where they do not choose it.
    """

    def __init__(self, params: Params, instance: Instance, ratio: float | None = None) -> None:
        xp, instance = namespace(instance.gain), instance.map(in_order)  # flat devices are written in place
        scale, ratio_slope, snr_slope, offset = params.psnr_parameters
        self.params = params
        self.bits = params.round_bit * LN2  # d D ln 2
        self.joule = params.energy_weight * params.noise_psd_w_hz / instance.gain  # omega_2 N0 / g
        self.reach = params.max_power_w * instance.gain / params.noise_psd_w_hz  # P [Hz]
        self.log_joule, self.log_reach = xp.log(self.joule), xp.log(self.reach)
        self.device_cycles = params.samples * instance.device_cycles
        self.bs_cycles = params.samples * instance.bs_cycles
        self.top_device = xp.log(instance.max_frequency_hz)
        self.top_bs = float(np.log(params.max_bs_frequency_hz))
        self.clock = float(np.log(2.0 * params.energy_weight * params.capacitance))  # 3 ln f = ln beta - this, (26)
        self.slope = snr_slope * physics.DB / ratio_slope  # - d rho / ds where PSNR binds
        self.ratio_at_0 = (xp.exp(instance.min_psnr_db / scale) - offset) / ratio_slope  # rho that S = 1 asks for
        floor = physics.ratio_floor(params, instance.min_psnr_db)
        self.floor = floor if ratio is None else xp.full_like(floor, ratio)
        self.most = params.max_ratio if ratio is None else ratio
        self.knee = at_least((self.ratio_at_0 - self.floor) / self.slope, LEAST)
        bottom = at_least((self.ratio_at_0 - self.most) / self.slope, LEAST)  # PSNR holds at rho^max
        self.peak = self._peak(bottom)
        self.has_low = self.peak > bottom
        self.crest = self._crest(bottom) if self.has_low.any() else self.peak
        self._set_range(bottom, self.knee, xp.zeros_like(self.has_low))

    def _set_range(self, left: Array, right: Array, anchored: Array) -> None:
        """Let the low mode range from ``left`` to ``right``, and the high mode from there, or be there if anchored."""
        xp = namespace(right)
        self.left, self.right, self.anchored = left, right, anchored
        self.stop = xp.maximum(xp.minimum(self.crest, right), left)  # beyond it the low mode has no minimum
        self.right_length = xp.log1p(xp.exp(right))
        self.log_right = xp.log(self.bits * self.ratio(right))

    def within(self, left: Array, right: Array, anchored: Array) -> Devices:
        """The same devices with these ranges: s in [left, right], or [left, inf) where not anchored, right the knee."""
        part = copy.copy(self)
        part._set_range(left, right, anchored)
        return part

    def take(self, rows: Array) -> Devices:
        """The devices of some instances."""
        return self._picked(lambda x: x[rows])

    def flat(self, cells: Array) -> Devices:
        """The devices of the flat indices ``cells``, in one row without an instance axis."""
        return self._picked(lambda x: x.reshape(-1)[cells])

    def _picked(self, pick: Callable[[Array], Array]) -> Devices:
        part = copy.copy(self)
        vars(part).update({name: pick(x) for name, x in vars(self).items() if _is_array(x)})
        return part

    def _steepness(self, snr: Array) -> tuple[Array, Array, Array]:
        """v, w and S."""
        xp = namespace(snr)
        linear = xp.exp(snr)
        return self.slope / (self.ratio_at_0 - self.slope * snr), linear / ((1.0 + linear) * xp.log1p(linear)), linear

    def _peak(self, bottom: Array) -> Array:
        """At least the peak: between s and the s' <= s at which v(s') = 1 - w(s), k > 1, for v rises and w falls."""
        xp, peak = namespace(bottom), self.knee
        for _ in range(PEAK_STEPS):
            w = self._steepness(peak)[1]
            with np.errstate(divide="ignore"):  # w is 1 at a vanishing S
                lower = (self.ratio_at_0 - self.slope / (1.0 - w)) / self.slope
            peak = xp.maximum(xp.minimum(peak, lower), bottom)
        return peak

    def _crest(self, bottom: Array) -> Array:
        """At least the crest: both signs are bounded from above on cells, from the peak down."""
        xp, step = namespace(bottom), (self.peak - bottom) / CREST_CELLS
        crest, sinks = self.peak, self.has_low
        v_top, w_low, linear = self._steepness(crest)
        for cell in range(CREST_CELLS - 1, -1, -1):
            left = bottom + step * cell
            v_low, w_top, linear_low = self._steepness(left)
            least, most = v_low + w_low, v_top + w_top
            bend = w_top * w_top - v_low * v_low - w_low / (1.0 + linear)
            room = at_least(1.0 - least, 0.0)
            capped = room * (2.0 - least) + bend
            free = room * (1.0 - 0.5 * least) + bend / xp.where(bend < 0, most, least)
            sinks = sinks & (capped < 0) & (free < 0)
            crest = xp.where(sinks, left, crest)
            v_top, w_low, linear = v_low, w_top, linear_low
        return crest

    def ratio(self, snr: Array) -> Array:
        """The least ratio that PSNR and (16f) allow at ln S = ``snr`` >= bottom."""
        return namespace(snr).maximum(self.ratio_at_0 - self.slope * snr, self.floor)

    def clocks(self, log_beta: Array) -> tuple[Array, Array, Array, Array]:
        """ln f and ln h of (28)-(29), the computing time [s] and its slope in ln beta."""
        xp, pace = namespace(log_beta), (log_beta - self.clock) / 3.0
        device, bs = xp.minimum(pace, self.top_device), at_most(pace, self.top_bs)
        first, second = self.device_cycles * xp.exp(-device), self.bs_cycles * xp.exp(-bs)
        slope = (first * (pace <= self.top_device) + second * (pace <= self.top_bs)) * (-1.0 / 3.0)
        return device, bs, first + second, slope

    def value(self, snr: Array, log_lam: Array, log_beta: Array) -> Array:
        """G: omega_2 E^up + lam B + beta t, least over t, at ln S = ``snr`` (bottom or more) and the least ratio."""
        xp = namespace(snr)
        linear = xp.exp(snr)
        product = self.bits * self.ratio(snr) / xp.log1p(linear)
        energy = linear * product
        lam, beta = xp.exp(log_lam), xp.exp(log_beta)
        time = xp.maximum(xp.sqrt(lam * product / beta), energy / self.reach)
        return self.joule * energy + beta * time + lam * product / time

    def force(self, snr: Array, log_lam: Array, log_beta: Array) -> Array:
        """G', of the side above where ``snr`` is the knee."""
        xp = namespace(snr)
        linear = xp.exp(snr)
        length, sent = xp.log1p(linear), self.ratio(snr)
        v, w = xp.where(snr < self.knee, self.slope / sent, 0.0), linear / ((1.0 + linear) * length)
        product = self.bits * sent / length
        energy, lam, beta = linear * product, xp.exp(log_lam), xp.exp(log_beta)
        hold = xp.sqrt(lam * beta * product)
        capped = hold * self.reach < energy * beta
        cost = xp.where(capped, self.joule + beta / self.reach, self.joule) * energy
        return cost * (1.0 - v - w) - xp.where(capped, lam * self.reach / linear, hold * (v + w))

    def high(self, log_lam: Array, log_beta: Array) -> Response:
        """The high mode. log_lam (n, 1), log_beta (n, N)."""
        xp = namespace(log_beta)
        length, bend = inverse.power_to_spare()(0.5 * (log_lam + log_beta - self.log_right) - self.log_joule)
        held = (length < self.right_length) | self.anchored
        length, bend = xp.where(held, self.right_length, length), xp.where(held, 0.0, bend)
        by_lam, by_beta = 0.5 * bend, 0.5 * bend  # of l
        linear = xp.expm1(length)
        snr, product = xp.log(linear), self.log_right - xp.log(length)
        capped = 0.5 * (log_lam - log_beta + product) < snr + product - self.log_reach
        cells = rows_where(capped.reshape(-1))
        if len(cells):
            self._at_cap(cells, log_lam, log_beta, (length, by_lam, by_beta))
            here = length.reshape(-1)[cells]
            rise = xp.expm1(here)
            linear.reshape(-1)[cells], snr.reshape(-1)[cells] = rise, xp.log(rise)
            product.reshape(-1)[cells] = self.log_right.reshape(-1)[cells] - xp.log(here)
        steep = 1.0 + 1.0 / linear  # ds / dl
        at = (snr, product, -1.0 / (steep * length), steep * by_lam, steep * by_beta)
        return self._respond(at, capped, log_lam, log_beta, self.log_reach)

    def _at_cap(self, cells: Array, log_lam: Array, log_beta: Array, found: tuple[Array, Array, Array]) -> None:
        """Put l at full power and its slopes into the arrays of ``found``, for the flat devices ``cells``."""
        xp = namespace(log_beta)
        length, by_lam, by_beta = (x.reshape(-1) for x in found)
        reach, least, anchored = (x.reshape(-1)[cells] for x in (self.log_reach, self.right_length, self.anchored))
        lam = of_device(log_lam, log_beta)[cells]
        share = xp.exp(log_beta.reshape(-1)[cells] - reach)
        cost = self.joule.reshape(-1)[cells] + share
        here, bend = inverse.full_power()(lam + reach - self.log_right.reshape(-1)[cells] - xp.log(cost))
        held = (here < least) | anchored
        bend = xp.where(held, 0.0, bend)
        length[cells], by_lam[cells], by_beta[cells] = xp.where(held, least, here), bend, -bend * share / cost

    def _respond(
        self, at: tuple[Array, ...], capped: Array, log_lam: Array, log_beta: Array, log_reach: Array
    ) -> Response:
        """The response from (s, ln q, d ln q / ds, ds / d ln lam, ds / d ln beta)."""
        xp = namespace(capped)
        snr, product, fall, snr_lam, snr_beta = at
        q_lam, q_beta = fall * snr_lam, fall * snr_beta
        time = xp.where(capped, snr + product - log_reach, 0.5 * (log_lam - log_beta + product))
        t_lam = xp.where(capped, snr_lam + q_lam, 0.5 * (1.0 + q_lam))
        t_beta = xp.where(capped, snr_beta + q_beta, 0.5 * (q_beta - 1.0))
        return Response(snr, time, product - time, (t_lam, t_beta), (q_lam - t_lam, q_beta - t_beta))

    def low(self, cells: Array, log_lam: Array, log_beta: Array, snr: Array) -> Response:
        """The low mode of the flat devices ``cells``: the minimum of G over [left, stop] next to ``snr`` (all flat).

        Newton's method on G', with brackets.
        """
        xp = namespace(snr)
        first, stop, joule, ratio, log_reach = (
            x.reshape(-1)[cells] for x in (self.left, self.stop, self.joule, self.ratio_at_0, self.log_reach)
        )
        lam, beta, reach = xp.exp(log_lam), xp.exp(log_beta), xp.exp(log_reach)
        price, rent, extra = lam * beta, -lam * reach, beta / reach
        dear = joule + extra  # of the energy, at the cap
        s = xp.minimum(xp.maximum(snr, first), stop)
        falls, rises = xp.full_like(s, -math.inf), xp.full_like(s, math.inf)  # where G is known to fall, to rise
        for steps_left in range(LOW_STEPS, -1, -1):
            linear = xp.exp(s)
            length, sent = xp.log1p(linear), ratio - self.slope * s
            more, v = 1.0 + linear, self.slope / sent
            w = linear / (more * length)
            fall, bend = -v - w, -v * v - w / more + w * w  # first and second derivative of ln q
            product = self.bits * sent / length
            energy = linear * product
            hold = xp.sqrt(price * product)
            capped = hold * reach < energy * beta  # the t of no cap is below S q / P
            cost = xp.where(capped, dear, joule) * energy
            rise = 1.0 + fall  # of the energy, relative
            pull = xp.where(capped, rent / linear, hold * fall)
            curve = cost * (rise * rise + bend) + xp.where(capped, -pull, hold * (bend + 0.5 * fall * fall))
            convex = curve > 0
            if steps_left:
                force = cost * rise + pull
                down, up = force < 0, force > 0
                falls, rises = xp.where(down, s, falls), xp.where(up, s, rises)
                step = force / xp.where(convex, curve, xp.abs(force) + TINY)  # where not convex, a whole one
                step = at_most(at_least(step, -LOW_STEP), LOW_STEP)
                following = xp.minimum(xp.maximum(s - step, first), stop)
                beyond = ((following <= falls) & up) | ((following >= rises) & down)
                s = xp.where(beyond, 0.5 * (s + xp.where(up, falls, rises)), following)
        turn = xp.where(convex & (s > first) & (s < stop), -1.0 / xp.where(convex, curve, 1.0), 0.0)
        by_lam = turn * xp.where(capped, pull, 0.5 * pull)
        by_beta = turn * xp.where(capped, extra * energy * rise, 0.5 * pull)
        return self._respond((s, xp.log(product), fall, by_lam, by_beta), capped, log_lam, log_beta, log_reach)

    def look(self, log_lam: Array, log_beta: Array) -> Array:
        """(n, N) where the low mode is, roughly: the first of a few points that a larger value follows, or ``stop``."""
        place, value = self.left, self.value(self.left, log_lam, log_beta)
        xp, found = namespace(value), self.stop
        falls = xp.ones_like(self.has_low)
        for k in range(1, LOOKS + 1):
            following = self.left + (self.stop - self.left) * (k / LOOKS)
            after = self.value(following, log_lam, log_beta)
            turns = falls & (after > value)
            found = xp.where(turns, place, found)
            falls = falls & ~turns
            place, value = following, after
        return found


def of_device(of_instance: Array, devices: Array) -> Array:
    """(n N,) one number of each instance (n, 1) for all its devices, flat; devices: of shape (n, N)."""
    return namespace(of_instance).repeat(of_instance[:, 0], devices.shape[1])


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or is_torch(x)
