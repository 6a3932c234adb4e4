"""What the limits leave a group: the bandwidth it needs, the compression ratios it may use, and the energy budget.

Everything is found by a bounded number of Newton or secant steps outside the gradient graph; one more step inside it
makes the derivative of the result that of the implicit function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from semcom_gym.envs.arrays import Array, at_least, at_most, falling, frozen, is_torch, larger, namespace, total
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import LN2, TINY_HZ, TINY_W, Links

MOST_STEPS = 12  # of Newton's method; most rows need four or five
SEARCH_STEPS = 4  # of Newton's method while a budget is searched for
LADDER = (0.25, 0.5, 0.75, 1.0)
SECANTS = 2
SCAN, SCANS = 64, 4
EVERYONE = slice(None)
NEGLIGIBLE = 1e-8  # relative lateness, a hundredth of the tolerance of feasibility
HOPELESS = 100.0  # times the budget: the floor of a group that no bandwidth can save


def _settled(x: Array, last: Array) -> bool:
    """Whether one more step of a quadratically convergent method reaches the precision of ``x`` everywhere."""
    close = 0.1 * float(namespace(x).finfo(x.dtype).eps) ** 0.5
    return bool((abs(x - last) <= close * x).all())


def margin(x: Array) -> float:
    """Relative distance kept to a limit, so that rounding does not break it: far below the tolerance."""
    return 64.0 * float(namespace(x).finfo(x.dtype).eps)


def ratio_floor(params: Params, link: Links) -> Array:
    """Least ratio (n, P) that decoding gives a pair: delta^D (18)-(19) with the margin, 1 where none is enough."""
    return at_most(physics.distortion_floor(params, link) * (1.0 + margin(link.snr)), 1.0)


def bandwidth_floor(params: Params, link: Links, power_w: Array, ratio: Array, steps: int = MOST_STEPS) -> Array:
    """Least bandwidth [Hz] at which both users of a pair meet the latency limit (28), (n, P); at most 100 Bmax.

    Rate is concave and increasing in bandwidth, so Newton's steps from below stay below and converge; after
    at most ``steps`` of them the answer is what it is.
    """
    xp = namespace(power_w)
    cap = HOPELESS * params.max_bandwidth_hz
    needed = at_most(physics.rate_floor(link, ratio), 1e15) * (LN2 * (1.0 + margin(power_w)))  # nat/s
    rho = physics.interference(link, power_w, ratio)[..., None]
    noise = 1.0 / (at_least(power_w, TINY_W)[..., None] * link.snr)  # per Hz

    def step(b: Array, needed: Array, rho: Array, noise: Array) -> Array:
        x = rho + noise * b
        log = xp.log1p(1.0 / x)
        slope = xp.maximum(log - noise * b / (x * (1.0 + x)), 1e-3 * log)  # smaller where no bandwidth can save it
        return at_most(b + (needed - b * log) / frozen(slope), cap)

    plain = frozen(needed), frozen(rho), frozen(noise)
    b = at_most(plain[0] / xp.log1p(1.0 / at_least(plain[1], 1e-9)), cap)  # rho may be zero
    for _ in range(steps):
        last, b = b, step(b, *plain)
        if _settled(b, last):
            break
    return at_least(larger(step(b, needed, rho, noise)), TINY_HZ)


def ratio_ceiling(link: Links, power_w: Array, bandwidth_hz: Array, floor: Array, start: Array) -> Array:
    """Largest compression ratio in [floor, start] that meets the latency limit, (n, P); ``floor`` where none does.

    It is ``start`` itself or the greatest fixed point below it of min_u R_u(delta) T-bar_u / Q_u, a rising function of
    delta. The ratios that meet the limit need not be an interval.
    """
    xp = namespace(power_w)
    b = at_least(bandwidth_hz, TINY_HZ)[..., None]
    noise = b / (at_least(power_w, TINY_W)[..., None] * link.snr)
    scale = at_least(link.spare_s, 0.0) * (1.0 - margin(power_w)) * b / (LN2 * link.source_bit)
    span = link.rho_max - link.rho_min

    def reach_at(
        delta: Array, link: Links, power_w: Array, noise: Array, scale: Array, span: Array
    ) -> tuple[Array, Array]:
        low = falling(physics.exponent(link, power_w, delta))
        x = (link.rho_min + span * low)[..., None] + noise
        reach = scale * xp.log1p(1.0 / x)
        slope = scale * (link.ratio_slope * span * low * (1.0 - low))[..., None] / (x * (1.0 + x))
        last = reach[..., 0] <= reach[..., 1]
        reach = xp.where(last, reach[..., 0], reach[..., 1])
        slope = frozen(xp.where(last, slope[..., 0], slope[..., 1]))
        return reach, delta - (delta - reach) / xp.where(slope < 0.9, 1.0 - slope, xp.ones_like(slope))

    plain = link.map(frozen), frozen(power_w), frozen(noise), frozen(scale), frozen(span)
    top = frozen(start)
    delta = above = top
    for _ in range(MOST_STEPS):
        reach, newton = reach_at(delta, *plain)
        jumped = reach > delta  # Newton went past the fixed point: back to the plain step, which never does
        last, delta = delta, xp.minimum(xp.maximum(xp.where(jumped, above, newton), frozen(floor)), top)
        above = xp.where(jumped, above, reach)
        if _settled(delta, last):
            break
    late = (delta > frozen(floor)) & (reach_at(delta, *plain)[0] < delta * (1.0 - max(margin(delta), NEGLIGIBLE)))
    if bool(late.any()):  # the search crawls where the map nearly touches the diagonal above its fixed point
        parts = (plain[0].map(lambda x: x[late][:, None]), *(x[late][:, None] for x in plain[1:]))
        best, width = frozen(floor)[late][:, None], (delta - frozen(floor))[late][:, None]
        rungs = xp.arange(SCAN + 1, dtype=delta.dtype, device=delta.device) / SCAN
        for _ in range(SCANS):
            tried = best + width * rungs
            met = xp.where(reach_at(tried, *parts)[0] >= tried, tried, best)
            best, width = xp.max(met, axis=-1, keepdims=True), width / SCAN
        delta[late] = best[:, 0]
    free = (delta > frozen(floor)) & (delta < top)
    moved = xp.minimum(xp.maximum(reach_at(delta, link, power_w, noise, scale, span)[1], floor), top)
    return xp.where(free, moved, xp.where(delta < top, floor, start))


def share_power(params: Params, link: Links, power_w: Array, floor: Array) -> tuple[Array, Array]:
    """Power (n, K) moved towards equal shares as far as the bandwidth floors at ratio ``floor`` need it; the floors."""
    need = bandwidth_floor(params, link, power_w, floor)
    limit = params.max_bandwidth_hz

    def excess(rows: Any, t: Array) -> Array:
        moved = frozen(power_w)[rows] * (1.0 - t[:, None]) + t[:, None] * (params.max_power_w / params.num_groups)
        floors = bandwidth_floor(params, link[rows].map(frozen), moved, frozen(floor)[rows], SEARCH_STEPS)
        return at_most(total(floors), 3.0 * limit) / limit - 1.0

    t = least_move(frozen(total(need)) / limit - 1.0, excess)
    if t is None:
        return power_w, need
    power_w = power_w * (1.0 - t[:, None]) + t[:, None] * (params.max_power_w / params.num_groups)
    return power_w, bandwidth_floor(params, link, power_w, floor)


def spare_energy(
    params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array, low: Array, high: Array
) -> tuple[Array, Array]:
    """Power (n, K) and ratios (n, K), moved as far as the energy budget (20c) needs it.

    First the ratios move towards those of least energy between ``low`` and ``high``; where that is not enough, groups
    that stay in time with less power get less.
    """
    xp = namespace(ratio)
    limit = params.max_energy_j * (1.0 - margin(ratio))

    def delays(rows: Any, p: Array, delta: Array) -> Array:
        return physics.delays(link[rows], physics.rates(link[rows], p, bandwidth_hz[rows], delta), delta)

    def spent(rows: Any, p: Array, delta: Array) -> Array:
        return physics.energy(params, p, delays(rows, p, delta), delta)

    now = spent(EVERYONE, power_w, ratio)
    if not bool((frozen(total(now)) > limit).any()):
        return power_w, ratio
    calm, least = ratio, now
    for other in (low, high, xp.sqrt(low * high)):
        cost = spent(EVERYONE, power_w, other)
        calm, least = xp.where(cost < least, other, calm), xp.minimum(cost, least)

    def calmer(rows: Any, t: Array) -> Array:
        return total(spent(rows, power_w[rows], ratio[rows] + t[:, None] * (calm - ratio)[rows]))

    t = _meet(calmer, frozen(total(now)), limit)
    if t is not None:
        moved = ratio_ceiling(link, power_w, bandwidth_hz, low, ratio + t[:, None] * (calm - ratio))
        ratio = xp.where((t > 0)[:, None], moved, ratio)

    def weaker(rows: Any, t: Array) -> Array:
        return total(spent(rows, lowered(rows, t), ratio[rows]))

    def lowered(rows: Any, t: Array) -> Array:
        p = power_w[rows] * (1.0 - t)[:, None]
        return xp.where(larger(delays(rows, p, ratio[rows]) - link[rows].spare_s) <= 0, p, power_w[rows])

    t = _meet(weaker, frozen(total(spent(EVERYONE, power_w, ratio))), limit)
    return power_w if t is None else lowered(EVERYONE, t), ratio


def _meet(spent: Callable[[Any, Array], Array], now: Array, limit: float) -> Array | None:
    """How far (n,) to move for ``spent(rows, t)`` to meet a limit, as a function of whatever ``spent`` depends on."""
    t = least_move(now / limit - 1.0, lambda rows, t: frozen(spent(rows, t)) / limit - 1.0)
    if t is None or not is_torch(t):
        return t
    here, nearer = spent(EVERYONE, t), at_most(t + 1e-3, 1.0)
    if not here.requires_grad:
        return t
    slope = (frozen(spent(EVERYONE, nearer)) - frozen(here)) / at_least(nearer - t, 1e-9)
    shift = -(here - frozen(here)) / at_most(slope, -1e-9)
    return t + namespace(t).where((t > 0) & (t < 1), shift, namespace(t).zeros_like(shift))


def least_move(start: Array, excess: Callable[[Any, Array], Array]) -> Array | None:
    """(n,) about the least t in [0, 1] with excess(t) <= 0, 0 where ``start`` already is, 1 where none is found.

    excess(rows, t): relative excess of the instances ``rows`` (an index array, which may repeat) at t. Returns None if
    no instance needs to move. The first rung of a ladder that meets the limit, then secant steps below it; the end of
    the bracket that meets the limit is returned.
    """
    xp = namespace(start)
    over = start > 0
    if not bool(over.any()):
        return None
    rows = xp.nonzero(over)[0]
    n = rows.shape[0]
    rungs = xp.asarray(LADDER, dtype=start.dtype, device=start.device)
    each = excess(xp.concat([rows] * len(LADDER)), xp.reshape(xp.broadcast_to(rungs[:, None], (len(LADDER), n)), (-1,)))
    values = xp.concat([start[rows][None], xp.reshape(each, (len(LADDER), n))])
    meets = values <= 0
    rung = at_least(xp.argmax(xp.astype(meets, start.dtype), axis=0), 1)
    cured = xp.any(meets, axis=0)
    index = xp.arange(n, device=start.device)
    ends = xp.concat([xp.zeros_like(rungs[:1]), rungs])
    low, high = ends[rung - 1], ends[rung]
    at_low, at_high = values[rung - 1, index], values[rung, index]
    for _ in range(SECANTS):
        share = at_low / at_least(at_low - at_high, 1e-30)
        # a little beyond the root, so that the end that meets the limit comes close
        t = low + (high - low) * at_most(1.05 * share + 1e-3, 1.0)
        value = excess(rows, t)
        better = value <= 0
        low, at_low = xp.where(better, low, t), xp.where(better, at_low, value)
        high, at_high = xp.where(better, t, high), xp.where(better, value, at_high)
    found = xp.zeros_like(start)
    found[rows] = xp.where(cured, high, xp.ones_like(high))
    return found
