"""What the limits leave a group: the bandwidth it needs, the compression ratios it may use, and the energy budget.

Everything is found by a bounded number of Newton or secant steps outside the gradient graph; one more step inside it
makes the derivative of the result that of the implicit function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from semcom_gym.envs.arrays import (
    Array,
    Batch,
    at_least,
    at_most,
    at_rows,
    falling,
    few,
    frozen,
    is_torch,
    namespace,
    rounding,
    turned,
    with_rows,
)
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.fixed_point import FINE, Reach, greatest, lesser
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.least_move import Function, least_move
from semcom_gym.envs.sfma.physics import LN2, TINY_HZ, TINY_W, Links

FLOOR_STEPS, FEWER_STEPS = 3, 2  # of Newton's method, and in float32: each doubles the digits, and one follows
HOPELESS = 100.0  # times the budget: the floor of a group that no bandwidth can save


def margin(x: Array) -> float:
    """Relative distance kept to a limit, so that rounding does not break it: far below the tolerance."""
    return 64.0 * rounding(x)


def ratio_floor(params: Params, link: Links) -> Array:
    """Least ratio (n, P) that decoding gives a pair: delta^D (18)-(19) with the margin, 1 where none is enough."""
    return at_most(physics.distortion_floor(params, link) * (1.0 + margin(link.snr)), 1.0)


@dataclasses.dataclass(frozen=True)
class Need(Batch):
    """What (28) asks of groups at their ratio, users first and instances last: nat/s and what decides the SINR."""

    rest: Array  # the exponent of (10) without power
    slope: Array
    rho_min: Array
    span: Array
    snr: Array
    nats: Array

    @classmethod
    def of(cls, link: Links, ratio: Array) -> Need:
        """Of the pairs of ``link`` at ratios (n, P)."""
        nats = at_most(physics.rate_floor(link, ratio), 1e15) * (LN2 * (1.0 + margin(ratio)))
        rest, span = link.ratio_slope * ratio + link.offset, link.rho_max - link.rho_min
        return cls(*map(turned, (rest, link.power_slope, link.rho_min, span, link.snr, nats)))

    def bandwidth(self, params: Params, power_w: Array) -> Array:
        """:func:`bandwidth_floor` for powers (P, n)."""
        xp = namespace(power_w)
        cap = HOPELESS * params.max_bandwidth_hz
        rho = self.rho_min + self.span * falling(self.slope * power_w + self.rest)
        noise = 1.0 / (at_least(power_w, TINY_W) * self.snr)  # per Hz
        plain, most = frozen(rho), cap * frozen(noise)
        c = frozen(self.nats) * frozen(noise)
        y = xp.minimum(c / (xp.log1p(1.0 / at_least(plain, 1e-9)) * at_least(1.0 - c, 1e-9)), most)  # rho may be zero
        for _ in range(FLOOR_STEPS if rounding(y) < FINE else FEWER_STEPS):
            x = plain + y
            log = xp.log1p(1.0 / x)
            slope = xp.maximum(log - c / (log * (x + x * x)), 1e-3 * log)  # smaller where no bandwidth can save it
            y = xp.minimum(y + (c - y * log) / slope, most)
        b = y / frozen(noise)
        noisy = noise * b
        x = rho + noisy
        log = xp.log1p(1.0 / x)
        slope = xp.maximum(log - noisy / (x + x * x), 1e-3 * log)
        b = at_most(b + (self.nats - b * log) / frozen(slope), cap)
        return at_least(xp.maximum(b[0], b[1]), TINY_HZ)


def bandwidth_floor(params: Params, link: Links, power_w: Array, ratio: Array) -> Array:
    """Least bandwidth [Hz] at which both users of a pair meet the latency limit (28), (n, P); at most 100 Bmax.

    With y the noise over the received power and c the rate needed [nat/s] in the same unit, (28) is y ln(1 + 1 / (rho +
    y)) = c. The map 1 / ln(1 + 1 / x) rises by at least 1 per unit of x, which gives a start below the root that is
    off by some percent, and is nearly straight, which Newton's method likes.
    """
    return turned(Need.of(link, ratio).bandwidth(params, turned(power_w)))


def reach(link: Links, power_w: Array, bandwidth_hz: Array) -> Reach:
    """How the pairs of ``link`` send with powers and bandwidths (n, P), its axes (P, n)."""
    b = at_least(bandwidth_hz, TINY_HZ)[..., None]
    pace = b / (LN2 * link.source_bit)
    fields = (
        link.power_slope * power_w + link.offset,
        link.ratio_slope,
        link.rho_min,
        link.rho_max - link.rho_min,
        b / (at_least(power_w, TINY_W)[..., None] * link.snr),
        pace,
        at_least(link.spare_s, 0.0) * (1.0 - margin(power_w)) * pace,
    )
    return Reach(*map(turned, fields))


def ratio_ceiling(link: Links, power_w: Array, bandwidth_hz: Array, floor: Array, start: Array) -> Array:
    """Largest compression ratio in [floor, start] that meets the latency limit, (n, P); ``floor`` where none does.

    It is ``start`` itself or the greatest fixed point below it of min_u R_u(delta) T-bar_u / Q_u, a rising function of
    delta. The ratios that meet the limit need not be an interval.
    """
    return turned(ceiling(reach(link, power_w, bandwidth_hz), turned(floor), turned(start)))


def ceiling(reach: Reach, floor: Array, top: Array, *, below: bool = False) -> Array:
    """:func:`ratio_ceiling` of groups that send like that, all (P, n). below: no group reaches less than its top."""
    xp = namespace(floor)
    groups = reach.map(lambda x: xp.reshape(x, (*x.shape[:-2], -1)))
    low, high = xp.reshape(floor, (-1,)), xp.reshape(top, (-1,))
    plain = groups.map(frozen) if is_torch(low) else groups
    delta = greatest(plain, frozen(low), frozen(high), frozen(high) if below else None)
    if is_torch(delta):
        moved = xp.minimum(xp.maximum(groups(delta)[1], low), high)
        inside, ends = (delta > frozen(low)) & (delta < frozen(high)), xp.where(delta < frozen(high), low, high)
        delta = xp.where(inside, moved, ends)
    return xp.reshape(delta, floor.shape)


def share_power(params: Params, link: Links, power_w: Array, floor: Array) -> tuple[Array, Array]:
    """Power (n, K) moved towards equal shares as far as the bandwidth floors at ratio ``floor`` need it; the floors."""
    every, wish = Need.of(link, floor), turned(power_w)
    need = every.bandwidth(params, wish)
    limit, equal = params.max_bandwidth_hz, params.max_power_w / params.num_groups
    above = frozen(need.sum(0)) / limit - 1.0
    short = above > 0
    if not bool(short.any()):
        return power_w, turned(need)
    rows = few(short)
    every, wished = every.map(lambda x: at_rows(x, rows)), at_rows(wish, rows)
    plain, wishes = (every.map(frozen), frozen(wished)) if is_torch(need) else (every, wished)

    def excess(some: Array | None) -> Function:
        here, mine = plain.map(lambda x: _some(x, some)), _some(wishes, some)

        def at(t: Array) -> Array:
            floors = here.bandwidth(params, mine * (1.0 - t) + equal * t)
            return at_most(floors.sum(0), 3.0 * limit) / limit - 1.0

        return at

    t = least_move(at_rows(above, rows), excess)
    power = wished * (1.0 - t) + equal * t
    needed = every.bandwidth(params, power)
    return turned(with_rows(wish, short, rows, power)), turned(with_rows(need, short, rows, needed))


def spare_energy(
    params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array, low: Array, high: Array,
    sent: Reach | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Power (n, K) and ratios (n, K), moved as far as the energy budget (20c) needs it. sent: :func:`reach`, if known.

    First the ratios move towards those of least energy between ``low`` and ``high``; where that is not enough, groups
    that stay in time with less power get less.
    """
    sent = reach(link, power_w, bandwidth_hz) if sent is None else sent
    limit = params.max_energy_j * (1.0 - margin(ratio))
    power, delta, low, high = map(turned, (power_w, ratio, low, high))
    spent = power * sent.delay(delta) + physics.coding_energy(params, delta)
    over = frozen(spent.sum(0)) > limit
    if not bool(over.any()):
        return power_w, ratio
    rows = few(over)
    sent = sent.map(lambda x: at_rows(x, rows))
    p, changed, spent, *ends = (at_rows(x, rows) for x in (power, delta, spent, low, high))
    changed = _calmer(params, sent, p, changed, spent, *ends)
    p = _weaker(params, sent, at_rows(turned(link.power_slope), rows), p, changed)
    return turned(with_rows(power, over, rows, p)), turned(with_rows(delta, over, rows, changed))


def _calmer(params: Params, sent: Reach, power: Array, ratio: Array, now: Array, low: Array, high: Array) -> Array:
    """Ratios moved towards those of least energy as far as the budget needs it; all (P, n). now: the energy."""
    xp = namespace(ratio)
    calm, least = ratio, now
    others = xp.stack([low, high, xp.sqrt(low * high)], axis=-2)  # (P, 3, n)
    delay = sent.map(lambda x: _some(x, None)).delay(others)
    cost = power[:, None] * delay + physics.coding_energy(params, others)
    for k in range(3):
        calm = xp.where(cost[:, k] < least, others[:, k], calm)
        least = xp.minimum(cost[:, k], least)
    way = calm - ratio

    def spent(rows: Array | None) -> Function:
        here, (p, begin, away) = sent.map(lambda x: _some(x, rows)), (_some(x, rows) for x in (power, ratio, way))

        def at(t: Array) -> Array:
            delta = begin + t * away
            return (p * here.delay(delta) + physics.coding_energy(params, delta)).sum(0)

        return at

    # what no ratio spends less than: the delay per ratio falls with the ratio
    floor = xp.where(way == 0, now, power * delay[:, 1] * (low / high) + physics.coding_energy(params, high))
    return ceiling(sent, low, ratio + _meet(params, spent, now.sum(0), frozen(floor.sum(0))) * way)


def _weaker(params: Params, sent: Reach, slope: Array, power: Array, ratio: Array) -> Array:
    """Powers of the groups that stay in time with less, lowered as far as the budget needs it; all (P, n)."""
    coding, due = physics.coding_energy(params, ratio), ratio * (1.0 - margin(ratio))
    log, limit = sent.capacity(ratio), params.max_energy_j * (1.0 - margin(ratio))
    now = power * ratio / lesser(sent.pace * log) + coding
    late = due > lesser(sent.scale * log)
    # less power takes no longer, and saves nothing where a group is late as it is
    over = (now.sum(0) > limit) & (namespace(ratio).where(late, now, coding).sum(0) <= limit * (1.0 + margin(ratio)))
    if not bool(over.any()):
        return power
    rows = few(over)
    sent = sent.map(lambda x: at_rows(x, rows))
    slope, p, ratio, now, coding, due = (at_rows(x, rows) for x in (slope, power, ratio, now, coding, due))

    def lowered(rows: Array | None) -> Callable[[Array], tuple[Array, Array]]:
        """Power and energy of the groups with less power by a share t, where that is in time."""
        here = sent.map(lambda x: _some(x, rows))
        a, most, delta, before, code, last = (_some(x, rows) for x in (slope, p, ratio, now, coding, due))
        received = here.noise * at_least(most, TINY_W)

        def at(t: Array) -> tuple[Array, Array]:
            xp, less = namespace(t), most * (1.0 - t)
            log = here.moved(a * (less - most), received / at_least(less, TINY_W)).capacity(delta)
            late = last > lesser(here.scale * log)
            spent = less * delta / lesser(here.pace * log) + code
            return xp.where(late, most, less), xp.where(late, before, spent)

        return at

    def spent(rows: Array | None) -> Function:
        each = lowered(rows)
        return lambda t: each(t)[1].sum(0)

    t = _meet(params, spent, now.sum(0))
    return with_rows(power, over, rows, lowered(None)(t[None])[0][:, 0])


def _some(x: Array, rows: Array | None) -> Array:
    """Groups (..., P, n) of some instances, with an axis before the last for several moves."""
    return at_rows(x, rows)[..., None, :]


def _meet(params: Params, spent: Callable[[Array | None], Function], now: Array, floor: Array | None = None) -> Array:
    """How far (n,) to move for the energy to meet the budget, as a function of whatever ``spent`` depends on.

    floor (n,): what no move spends less than, if known.
    """
    limit = params.max_energy_j * (1.0 - margin(now))

    def excess(rows: Array | None) -> Function:
        energy = spent(rows)
        return lambda t: frozen(energy(t)) / limit - 1.0

    hopeless = None if floor is None else floor > limit * (1.0 + margin(now))
    t = least_move(frozen(now) / limit - 1.0, excess, hopeless)
    if not is_torch(t):
        return t
    energy, nearer = spent(None), at_most(t + 1e-3, 1.0)
    here = energy(t[None])[0]
    if not here.requires_grad:
        return t
    slope = (frozen(energy(nearer[None])[0]) - frozen(here)) / at_least(nearer - t, 1e-9)
    shift = -(here - frozen(here)) / at_most(slope, -1e-9)
    return t + namespace(t).where((t > 0) & (t < 1), shift, namespace(t).zeros_like(shift))
