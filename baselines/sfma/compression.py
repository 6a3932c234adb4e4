"""Algorithm 1: the compression ratios of a pairing with its power and bandwidth, by dual decomposition (22)-(26).

Only the energy budget (22c) ties the groups together. Its multiplier splits (22) into one scalar problem (24) per
group, solved by a grid of feasible samples and Newton's method between the neighbours of the best one.
Where this departs from the paper:

* The derivative of a rate before (25) has (2 b N0 + (1 + rho) p h^2) as the second factor of its denominator; the
  paper prints the first factor twice. See :func:`rate_derivatives`.
* The ratios that meet the latency limit need not be an interval, so samples are masked, and a refined ratio counts
  only if it meets the limit itself. The logistic (10) makes (24) have several stationary points, and the largest
  delay has a kink where the slower user changes: Newton's step is taken only inside a bracket that keeps shrinking.
* (26) has no step size. The energy spent falls with the multiplier, so a bracket of the multiplier is searched.
* The paper stops when the budget is met with equality, which never happens where energy is left over. Here the stop is
  complementary slackness: lambda (Emax - E) bounds what a feasible iterate still loses, by weak duality.
* A maximiser of the Lagrangian need not be feasible: the best feasible iterate is returned.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.special

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, Batch, total
from semcom_gym.envs.sfma import limits, physics
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import LN2, MBIT, Links

GRID = 33
COARSE, BOUNDARY_STEPS = 17, 20
ROUNDING = 1e-9  # relative excess over the latency limit that is let pass: a thousandth of the tolerance
NEWTON_STEPS = 10
NARROWEST = 1e-12  # bracket of the multiplier's place in [0, 1]


def optimise(
    params: Params,
    link: Links,
    power_w: Array,
    bandwidth_hz: Array,
    *,
    grid: int = GRID,
    tolerance: float = 1e-6,
    iterations: int = 60,
) -> tuple[Array, Array, Array]:
    """Algorithm 1 for n instances: ratio (n, K), feasible (n,) bool, iterations (n,) of the multiplier.

    link: of the chosen pairs. power_w [W], bandwidth_hz [Hz]: (n, K). grid: samples of each ratio. tolerance: of the
    sum rate that complementary slackness may leave, relative. iterations: at most, per instance.
    Where some group has no feasible ratio, or the ratios of least energy break the budget, ``feasible`` is False; the
    ratios returned there are those of least energy, or the distortion floor (at most 1) of a group that has none.
    """
    validate.integer("grid", grid, low=2)
    validate.number("tolerance", tolerance)
    validate.integer("iterations", iterations)
    block, floor = _sample(params, link, power_w, bandwidth_hz, grid)
    limit = params.max_energy_j * (1.0 - limits.margin(power_w))
    possible = block.allowed.any(-1)
    top = block.ratio.shape[-1] - 1 - np.argmax(block.allowed[..., ::-1], axis=-1)
    # multiplier 0: the rate rises with the ratio
    ratio: Array = np.where(possible, block.at(block.ratio, top), floor)
    feasible = possible.all(-1)
    done = np.ones(len(ratio), int)
    rows = np.flatnonzero(feasible & (total(block.at(block.energy, top)) > limit))
    if len(rows):
        ratio[rows], feasible[rows], done[rows] = _search(params, block[rows], top[rows], limit, tolerance, iterations)
    return ratio, feasible, done


def respond(
    params: Params, link: Links, power_w: Array, bandwidth_hz: Array, worth: float, cost: float, *, grid: int = GRID
) -> tuple[Array, Array, Array]:
    """The maximiser of (24) for every pair by itself: ratio, sum rate [Mbit/s] and energy [J], each (n, P).

    worth: of a Mbit/s; cost: of a joule. (1, 0) gives the largest rate, (0, 1) the least energy. Where a pair has no
    feasible ratio, the rate is -inf, the energy inf and the ratio the distortion floor (at most 1).
    """
    block, floor = _sample(params, link, power_w, bandwidth_hz, grid)
    ones = np.ones(len(floor))
    ratio, rate, energy = _respond(params, block, worth * ones, cost * ones)
    possible = block.allowed.any(-1)
    return np.where(possible, ratio, floor), np.where(possible, rate, -np.inf), np.where(possible, energy, np.inf)


def rate_derivatives(link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array) -> tuple[Array, Array, Array]:
    """Rate [bit/s] and its first and second derivative in the ratio, (n, P, 2): (12) and the equation before (25).

    With x = rho + 2 b N0 / (p h^2) the rate is b log2(1 + 1 / x), so its derivative is -b rho' / (ln 2 x (1 + x)):
    in the paper's terms, a denominator of ln 2 (2 b N0 + rho p h^2) (2 b N0 + (1 + rho) p h^2). The printed one is
    smaller by 1 + Gamma.
    """
    # the logistic itself: rho - rho_min would lose its digits near saturation
    fall = scipy.special.expit(-(link.power_slope * power_w + link.ratio_slope * ratio + link.offset))
    bend = link.ratio_slope * (link.rho_max - link.rho_min) * fall * (1.0 - fall)
    first, second = -bend[..., None], (bend * link.ratio_slope * (1.0 - 2.0 * fall))[..., None]
    x = 1.0 / physics.sinr(link, power_w, bandwidth_hz, ratio)
    scale = bandwidth_hz[..., None] / LN2
    square = x * (1.0 + x)
    slope = -scale * first / square
    curvature = -scale * (second / square - first * first * (1.0 + 2.0 * x) / (square * square))
    return scale * np.log1p(1.0 / x), slope, curvature


def lagrangian_derivatives(
    params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array, price: tuple[Array, Array]
) -> tuple[Array, Array]:
    """First and second derivative in the ratio, (n, P), of price[0] times the pair's rate [Mbit/s] - price[1] times E.

    With price (1, lambda) the first is the left side of (25) minus its right side. At the kink of the largest delay
    the derivatives are those of one side.
    """
    rate, slope, curvature = rate_derivatives(link, power_w, bandwidth_hz, ratio)
    delta = ratio[..., None]
    left = rate - delta * slope
    delay_slope = link.source_bit * left / (rate * rate)
    delay_curvature = -link.source_bit * (delta * curvature + 2.0 * slope * left / rate) / (rate * rate)
    slow = np.argmax(link.source_bit / rate, axis=-1)[..., None]  # u*
    zeta = params.energy_coefficient_j
    energy_slope = power_w * np.take_along_axis(delay_slope, slow, -1)[..., 0] - zeta / ratio
    energy_curvature = power_w * np.take_along_axis(delay_curvature, slow, -1)[..., 0] + zeta / (ratio * ratio)
    return (
        price[0] * MBIT * total(slope) - price[1] * energy_slope,
        price[0] * MBIT * total(curvature) - price[1] * energy_curvature,
    )


@dataclasses.dataclass(frozen=True)
class _Block(Batch):
    """Sub-problem (22) with the samples of every group's ratio."""

    # (n, K)
    power_w: Array
    bandwidth_hz: Array
    # (n, K, grid): the samples, whether each meets the limits of its group, sum rate [Mbit/s] (13), energy [J] (16)
    ratio: Array
    allowed: Array
    rate: Array
    energy: Array
    link: Links

    @staticmethod
    def at(table: Array, index: Array) -> Array:
        """(n, K) the entries of a table (n, K, grid)."""
        return np.take_along_axis(table, index[..., None], -1)[..., 0]


def _evaluate(
    params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array
) -> tuple[Array, Array, Array]:
    """Sum rate [Mbit/s], energy [J] and whether the latency limit is met, each in the shape of ``ratio``."""
    rate = physics.rates(link, power_w, bandwidth_hz, ratio)
    delay = physics.delays(link, rate, ratio)
    return MBIT * total(rate), physics.energy(params, power_w, delay, ratio), _in_time(link, delay)


def _sample(params: Params, link: Links, power_w: Array, bandwidth_hz: Array, grid: int) -> tuple[_Block, Array]:
    """The block and the distortion floors (n, K), at most 1."""
    floor = physics.distortion_floor(params, link)
    low = np.minimum(floor * (1.0 + limits.margin(power_w)), 1.0)
    wide = link.map(lambda x: x[:, :, None])

    def sample(high: Array, points: int) -> tuple[Array, ...]:
        ratio = low[..., None] + (high - low)[..., None] * np.linspace(0.0, 1.0, points)
        ratio[..., -1] = high
        return ratio, *_evaluate(params, wide, power_w[..., None], bandwidth_hz[..., None], ratio)

    # first where the ratios end that meet the latency limit: between the last sample that does and the next
    ratio, _, _, in_time = sample(np.ones_like(low), COARSE)
    above = (COARSE - 1 - np.argmax(in_time[..., ::-1], axis=-1))[..., None] + np.array((0, 1))
    left, right = np.moveaxis(np.take_along_axis(ratio, np.minimum(above, COARSE - 1), -1), -1, 0)
    high = _last_in_time(link, power_w, bandwidth_hz, left, right)
    none = ~in_time.any(-1)
    if none.any():  # a few may have some between two samples
        high = np.where(none, limits.ratio_ceiling(link, power_w, bandwidth_hz, low, np.ones_like(low)), high)
    ratio, rate, energy, in_time = sample(high, grid)
    allowed = in_time & (floor <= 1.0)[..., None]
    return _Block(power_w, bandwidth_hz, ratio, allowed, rate, energy, link), low


def _last_in_time(link: Links, power_w: Array, bandwidth_hz: Array, low: Array, high: Array) -> Array:
    """The ratio (n, K) between ``low``, which meets the latency limit, and ``high`` where it ends; ``low`` if equal.

    Newton's method inside the bracket, since the delay may be flat or fall below the limit.
    """
    ratio = 0.5 * (low + high)
    for _ in range(BOUNDARY_STEPS):
        rate, slope, _ = rate_derivatives(link, power_w, bandwidth_hz, ratio)
        delta = ratio[..., None]
        short = link.source_bit * delta / np.maximum(link.spare_s, 1e-30) - rate  # above 0: late
        user = np.argmax(short / rate, axis=-1)[..., None]
        change = link.source_bit / np.maximum(link.spare_s, 1e-30) - slope
        short, change, rate = (np.take_along_axis(x, user, -1)[..., 0] for x in (short, change, rate))
        over = short > 0
        low, high = np.where(over, low, ratio), np.where(over, ratio, high)
        settled = (np.abs(short) < 1e-12 * rate) | (high - low < 1e-14)
        if settled.all():
            break
        step = ratio - short / np.where(change > 0, change, np.inf)
        inside = (change > 0) & (step > low) & (step < high)
        # a settled ratio stays, so that the rest of the batch does not matter
        ratio = np.where(settled, ratio, np.where(inside, step, 0.5 * (low + high)))
    delay = physics.delays(link, physics.rates(link, power_w, bandwidth_hz, ratio), ratio)
    return np.where(_in_time(link, delay), ratio, low)


def _in_time(link: Links, delay: Array) -> Array:
    return (delay <= link.spare_s * (1.0 + ROUNDING)).all(-1)


def _search(
    params: Params, block: _Block, top: Array, limit: float, tolerance: float, iterations: int
) -> tuple[Array, Array, Array]:
    """Ratios, feasibility and iterations of instances that break the energy budget at multiplier 0, samples ``top``.

    The multiplier is scale s / (1 - s), s in [0, 1]: s = 1 asks for the least energy. Steps are regula falsi
    (Illinois), every third a bisection, because the energy may jump where a group changes to another maximum.
    """
    n = len(top)
    scale = total(block.at(block.rate, top)) / limit
    best, best_rate, spent = _totals(*_respond(params, block, np.zeros(n), scale))
    feasible = spent <= limit
    low, high = np.zeros(n), np.ones(n)
    at_low, at_high = total(block.at(block.energy, top)) / limit - 1.0, spent / limit - 1.0
    done = np.full(n, 2)
    active = np.flatnonzero(feasible)
    for step in range(iterations - 2):
        if not len(active):
            break
        a, b = low[active], high[active]
        share = 0.5 if step % 3 == 2 else at_low[active] / np.maximum(at_low[active] - at_high[active], 1e-300)
        s = a + (b - a) * np.clip(share, 1e-3, 1.0 - 1e-3)
        tried, rate, spent = _totals(*_respond(params, block[active], 1.0 - s, s * scale[active]))
        excess = spent / limit - 1.0
        meets = excess <= 0
        better = meets & (rate > best_rate[active])
        best[active[better]], best_rate[active[better]] = tried[better], rate[better]
        at_high[active] = np.where(meets, excess, 0.5 * at_high[active])
        at_low[active] = np.where(meets, 0.5 * at_low[active], excess)
        low[active], high[active] = np.where(meets, a, s), np.where(meets, s, b)
        done[active] += 1
        loss = s / (1.0 - s) * scale[active] * (limit - spent)
        over = (meets & (loss <= tolerance * rate)) | (high[active] - low[active] < NARROWEST)
        active = active[~over]
    return best, feasible, done


def _totals(ratio: Array, rate: Array, energy: Array) -> tuple[Array, Array, Array]:
    return ratio, total(rate), total(energy)


def _respond(params: Params, block: _Block, worth: Array, cost: Array) -> tuple[Array, Array, Array]:
    """The maximisers of (24) at prices (n,) of rate and energy, and the sum rate and energy they give, (n, K)."""
    score = np.where(block.allowed, worth[:, None, None] * block.rate - cost[:, None, None] * block.energy, -np.inf)
    best = np.argmax(score, axis=-1)
    last = score.shape[-1] - 1
    left, right = np.maximum(best - 1, 0), np.minimum(best + 1, last)
    left = np.where(block.at(block.allowed, left), left, best)
    right = np.where(block.at(block.allowed, right), right, best)
    price = worth[:, None], cost[:, None]
    ratio = block.at(block.ratio, best)
    refined = _newton(params, block, ratio, block.at(block.ratio, left), block.at(block.ratio, right), price)
    rate, energy, in_time = _evaluate(params, block.link, block.power_w, block.bandwidth_hz, refined)
    finer = in_time & (price[0] * rate - price[1] * energy > block.at(score, best))
    return (
        np.where(finer, refined, ratio),
        np.where(finer, rate, block.at(block.rate, best)),
        np.where(finer, energy, block.at(block.energy, best)),
    )


def _newton(params: Params, block: _Block, ratio: Array, low: Array, high: Array, price: tuple[Array, Array]) -> Array:
    """A root of (25) in [low, high], or the end that (24) rises to; the bracket is halved where Newton strays."""
    for _ in range(NEWTON_STEPS):
        slope, curvature = lagrangian_derivatives(params, block.link, block.power_w, block.bandwidth_hz, ratio, price)
        low, high = np.where(slope > 0, ratio, low), np.where(slope > 0, high, ratio)
        step = ratio - slope / np.where(curvature < 0, curvature, -np.inf)
        inside = (curvature < 0) & (step > low) & (step < high)
        ratio = np.where(inside, step, 0.5 * (low + high))
    return ratio
