"""What the limits leave a group: the bandwidth it needs, the compression ratios it may use, and the energy budget.

Everything is found by a bounded number of Newton or secant steps outside the gradient graph; one more step inside it
makes the derivative of the result that of the implicit function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semcom_gym.envs.arrays import (
    Array,
    at_least,
    at_most,
    at_rows,
    frozen,
    is_torch,
    larger,
    like,
    namespace,
    rounding,
    total,
    turned,
    with_rows,
)
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.fixed_point import Reach, greatest
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import LN2, TINY_HZ, TINY_W, Links

FLOOR_STEPS = 3  # of Newton's method: four digits after the first, rounding after the third and the one that follows
LADDER = np.array((0.0, 0.25, 0.5, 0.75, 1.0))
SECANTS = 2
HOPELESS = 100.0  # times the budget: the floor of a group that no bandwidth can save


def margin(x: Array) -> float:
    """Relative distance kept to a limit, so that rounding does not break it: far below the tolerance."""
    return 64.0 * rounding(x)


def ratio_floor(params: Params, link: Links) -> Array:
    """Least ratio (n, P) that decoding gives a pair: delta^D (18)-(19) with the margin, 1 where none is enough."""
    return at_most(physics.distortion_floor(params, link) * (1.0 + margin(link.snr)), 1.0)


def bandwidth_floor(params: Params, link: Links, power_w: Array, ratio: Array) -> Array:
    """Least bandwidth [Hz] at which both users of a pair meet the latency limit (28), (n, P); at most 100 Bmax.

    With y the noise over the received power and c the rate needed [nat/s] in the same unit, (28) is y ln(1 + 1 / (rho +
    y)) = c. The map 1 / ln(1 + 1 / x) rises by at least 1 per unit of x, which gives a start below the root that is
    off by some percent, and is nearly straight, which Newton's method likes.
    """
    xp = namespace(power_w)
    cap = HOPELESS * params.max_bandwidth_hz
    needed = at_most(physics.rate_floor(link, ratio), 1e15) * (LN2 * (1.0 + margin(power_w)))  # nat/s
    rho = physics.interference(link, power_w, ratio)[..., None]
    noise = 1.0 / (at_least(power_w, TINY_W)[..., None] * link.snr)  # per Hz
    plain, most = frozen(rho), cap * frozen(noise)
    c = frozen(needed) * frozen(noise)
    y = xp.minimum(c / (xp.log1p(1.0 / at_least(plain, 1e-9)) * at_least(1.0 - c, 1e-9)), most)  # rho may be zero
    for _ in range(FLOOR_STEPS):
        x = plain + y
        log = xp.log1p(1.0 / x)
        slope = xp.maximum(log - c / (log * (x + x * x)), 1e-3 * log)  # smaller where no bandwidth can save it
        y = xp.minimum(y + (c - y * log) / slope, most)
    b = y / frozen(noise)
    x = rho + noise * b
    log = xp.log1p(1.0 / x)
    slope = xp.maximum(log - noise * b / (x + x * x), 1e-3 * log)
    return at_least(larger(at_most(b + (needed - b * log) / frozen(slope), cap)), TINY_HZ)


def ratio_ceiling(link: Links, power_w: Array, bandwidth_hz: Array, floor: Array, start: Array) -> Array:
    """Largest compression ratio in [floor, start] that meets the latency limit, (n, P); ``floor`` where none does.

    It is ``start`` itself or the greatest fixed point below it of min_u R_u(delta) T-bar_u / Q_u, a rising function of
    delta. The ratios that meet the limit need not be an interval.
    """
    xp = namespace(power_w)
    b = at_least(bandwidth_hz, TINY_HZ)[..., None]
    reach = Reach(
        rest=link.power_slope * power_w + link.offset,
        slope=link.ratio_slope,
        rho_min=link.rho_min,
        span=link.rho_max - link.rho_min,
        noise=b / (at_least(power_w, TINY_W)[..., None] * link.snr),
        scale=at_least(link.spare_s, 0.0) * (1.0 - margin(power_w)) * b / (LN2 * link.source_bit),
    ).map(_columns)
    low, top = _columns(floor), _columns(start)
    plain = reach.map(frozen) if is_torch(low) else reach
    delta = greatest(plain, frozen(low), frozen(top))
    if is_torch(delta):
        moved = xp.minimum(xp.maximum(reach(delta)[1], low), top)
        delta = xp.where((delta > frozen(low)) & (delta < frozen(top)), moved, xp.where(delta < frozen(top), low, top))
    return turned(xp.reshape(delta, tuple(reversed(floor.shape))))


def _columns(x: Array) -> Array:
    """Groups (n, P) as one axis (n P,), users (n, P, 2) as (2, n P)."""
    return namespace(x).reshape(turned(x), (-1,) if x.ndim == 2 else (2, -1))


def _at(link: Links, rows: Array) -> Links:
    return link if len(rows) == len(link) else link.map(lambda x: at_rows(x, rows))


def share_power(params: Params, link: Links, power_w: Array, floor: Array) -> tuple[Array, Array]:
    """Power (n, K) moved towards equal shares as far as the bandwidth floors at ratio ``floor`` need it; the floors."""
    need = bandwidth_floor(params, link, power_w, floor)
    limit, equal = params.max_bandwidth_hz, params.max_power_w / params.num_groups
    above = frozen(total(need)) / limit - 1.0
    if not bool((above > 0).any()):
        return power_w, need
    rows = namespace(need).nonzero(above > 0)[0]
    link, wish, least = _at(link, rows), at_rows(power_w, rows), at_rows(floor, rows)
    plain = link.map(frozen) if is_torch(need) else link

    def moved(t: Array) -> Array:
        return wish * (1.0 - t[..., None]) + equal * t[..., None]

    def excess(t: Array) -> Array:
        floors = bandwidth_floor(params, plain, frozen(moved(t)), frozen(least))
        return at_most(total(floors), 3.0 * limit) / limit - 1.0

    power = moved(least_move(above[rows], excess))
    return with_rows(power_w, rows, power), with_rows(need, rows, bandwidth_floor(params, link, power, least))


def spare_energy(
    params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array, low: Array, high: Array
) -> tuple[Array, Array]:
    """Power (n, K) and ratios (n, K), moved as far as the energy budget (20c) needs it.

    First the ratios move towards those of least energy between ``low`` and ``high``; where that is not enough, groups
    that stay in time with less power get less.
    """
    delay = physics.delays(link, physics.rates(link, power_w, bandwidth_hz, ratio), ratio)
    spent = physics.energy(params, power_w, delay, ratio)
    over = frozen(total(spent)) > params.max_energy_j * (1.0 - margin(ratio))
    if not bool(over.any()):
        return power_w, ratio
    rows = namespace(ratio).nonzero(over)[0]
    link = _at(link, rows)
    power, b, delta, low, high, spent = (at_rows(x, rows) for x in (power_w, bandwidth_hz, ratio, low, high, spent))
    delta = _calmer(params, link, power, b, delta, low, high, spent)
    power = _weaker(params, link, power, b, delta)
    return with_rows(power_w, rows, power), with_rows(ratio, rows, delta)


def _calmer(
    params: Params, link: Links, power: Array, b: Array, ratio: Array, low: Array, high: Array, now: Array
) -> Array:
    """Ratios moved towards those of least energy as far as the budget needs it. now: the energy."""
    xp = namespace(ratio)
    limit = params.max_energy_j * (1.0 - margin(ratio))

    def spent(delta: Array) -> Array:
        return physics.energy(params, power, physics.delays(link, physics.rates(link, power, b, delta), delta), delta)

    calm, least = ratio, now
    for other in (low, high, xp.sqrt(low * high)):
        cost = spent(other)
        calm, least = xp.where(cost < least, other, calm), xp.minimum(cost, least)

    def moved(t: Array) -> Array:
        return ratio + t[..., None] * (calm - ratio)

    t = _meet(lambda t: total(spent(moved(t))), frozen(total(now)), limit)
    return ratio_ceiling(link, power, b, low, moved(t))


def _weaker(params: Params, link: Links, power: Array, b: Array, ratio: Array) -> Array:
    """Powers of the groups that stay in time with less, lowered as far as the budget needs it."""
    xp = namespace(ratio)

    def lowered(t: Array) -> tuple[Array, Array]:
        """Power and energy of the groups with less power by a share t, where that is in time."""
        p = power * (1.0 - t[..., None])
        delay = physics.delays(link, physics.rates(link, p, b, ratio), ratio)
        late = larger(delay - link.spare_s) > 0
        return xp.where(late, power, p), xp.where(late, now, physics.energy(params, p, delay, ratio))

    delay = physics.delays(link, physics.rates(link, power, b, ratio), ratio)
    now = physics.energy(params, power, delay, ratio)
    limit = params.max_energy_j * (1.0 - margin(ratio))
    return lowered(_meet(lambda t: total(lowered(t)[1]), frozen(total(now)), limit))[0]


def _meet(spent: Callable[[Array], Array], now: Array, limit: float) -> Array:
    """How far (n,) to move for ``spent(t)`` to meet a limit, as a function of whatever ``spent`` depends on."""
    t = least_move(now / limit - 1.0, lambda t: frozen(spent(t)) / limit - 1.0)
    if not is_torch(t):
        return t
    here, nearer = spent(t), at_most(t + 1e-3, 1.0)
    if not here.requires_grad:
        return t
    slope = (frozen(spent(nearer)) - frozen(here)) / at_least(nearer - t, 1e-9)
    shift = -(here - frozen(here)) / at_most(slope, -1e-9)
    return t + namespace(t).where((t > 0) & (t < 1), shift, namespace(t).zeros_like(shift))


def least_move(start: Array, excess: Callable[[Array], Array]) -> Array:
    """(n,) about the least t in [0, 1] with excess(t) <= 0, 0 where ``start`` already is, 1 where none is found.

    excess(t): relative excess at t, (n,) or several of them, (R, n). The first rung of a ladder that meets the limit,
    then secant steps below it; the end of the bracket that meets the limit is returned.
    """
    xp = namespace(start)
    index = xp.arange(start.shape[0], device=start.device)
    ends = like(LADDER, start)
    values = xp.concat([at_least(start, 0.0)[None], excess(ends[1:, None] + xp.zeros_like(start))])
    meets = values <= 0
    some = xp.any(meets, axis=0)
    rung = at_least(xp.argmax(xp.astype(meets, xp.int8), axis=0), 1)
    low, high = ends[rung - 1], ends[rung]
    at_low, at_high = values[rung - 1, index], values[rung, index]
    for _ in range(SECANTS):
        share = at_low / at_least(at_low - at_high, 1e-30)
        # a little beyond the root, so that the end that meets the limit comes close
        t = low + (high - low) * at_most(1.05 * share + 1e-3, 1.0)
        value = excess(t)
        better = value <= 0
        low, at_low = xp.where(better, low, t), xp.where(better, at_low, value)
        high, at_high = xp.where(better, t, high), xp.where(better, value, at_high)
    return xp.where(some, high, ends[-1]) * (start > 0)
