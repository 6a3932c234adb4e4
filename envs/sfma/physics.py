"""The equations of the SC-SFMA paper, in its order, on NumPy arrays or torch tensors.

Symbols: p_k power, b_k bandwidth, delta_k compression ratio of group k, which serves one pair (i, j). The functions
of a pair take its :class:`Links`, whose axis may run over the K chosen pairs or over all M candidates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from semcom_gym.envs.arrays import (
    Array,
    Batch,
    at_least,
    falling,
    is_torch,
    larger,
    largest,
    like,
    namespace,
    to_numpy,
    total,
    turned,
)
from semcom_gym.envs.outcome import Outcome
from semcom_gym.envs.sfma import pairs as pairing
from semcom_gym.envs.sfma.instance import Instance, Params

LN2 = 0.6931471805599453
MBIT = 1e-6
INTERFERENCE = ("rho_min", "rho_max", "power_slope", "ratio_slope", "offset")
TINY_HZ = 1.0
TINY_W = 1e-6
ALMOST = 1.0 - 1e-5  # far enough inside a limit for rounding in float32
FEW = 64  # instances below which one operation on many values beats many on few
LONGEST = 1e3  # times the limit: a group without resources is late by this much, not infinitely


@dataclasses.dataclass(frozen=True)
class Allocation(Batch):
    """A decision for the K groups."""

    # (n, K) the pair that each group serves, an index into ``pairs.members``
    pair: Array
    # (n, K) power p_k [W], bandwidth b_k [Hz], compression ratio delta_k
    power_w: Array
    bandwidth_hz: Array
    ratio: Array


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shape of every field of an Allocation behind its first axis."""
    return dict.fromkeys(("pair", "power_w", "bandwidth_hz", "ratio"), (params.num_groups,))


def check(params: Params, allocation: Allocation) -> None:
    """Raise unless the pairs are integers below M and every ratio is positive."""
    pair = to_numpy(allocation.pair)
    if pair.dtype.kind not in "iu":
        raise TypeError(f"allocation.pair must hold integers, got {pair.dtype}")
    if bool((pair >= params.num_pairs).any()):
        raise ValueError(f"allocation.pair must be below {params.num_pairs}, the number of pairs, got {pair.max()}")
    if not bool((allocation.ratio > 0).all()):
        raise ValueError("allocation.ratio must be positive everywhere")


@dataclasses.dataclass(frozen=True)
class Links(Batch):
    """What the equations need of pairs, (n, P), and of their users, (n, P, 2)."""

    rho_min: Array
    rho_max: Array
    power_slope: Array
    ratio_slope: Array
    offset: Array
    similarity: Array
    # (n, P, 2): |h_u|^2 / (2 N0) [Hz/W], Q_u [bit], T-bar_u (27) [s], and the distortion's level and tilt
    snr: Array
    source_bit: Array
    spare_s: Array
    level: Array
    tilt: Array


def links(params: Params, instance: Instance, pair: Array | None = None) -> Links:
    """The links of the pairs (n, P), or of all M pairs, stored users first and instances last.

    Elementwise operations keep that order, and NumPy's inner loops then run along the instances.
    """
    xp = namespace(instance.gain)
    n, users = len(instance), params.num_users
    each = xp.arange(n, device=instance.gain.device)
    if pair is None:
        pair = xp.broadcast_to(xp.arange(params.num_pairs, device=each.device), (n, params.num_pairs))
    column = turned(pair)
    user = turned(like(pairing.members(users), pair))[:, column] + users * each  # (2, P, n), in all instances' users
    place = column + params.num_pairs * each
    side = xp.reshape(xp.arange(2, device=each.device), (2, 1, 1))
    spare = params.max_latency_s - instance.encode_s.take(place) - instance.decode_s.take(user)
    return Links(
        **{name: turned(getattr(instance, name).take(place)) for name in INTERFERENCE},
        similarity=turned(instance.similarity.take(place)),
        snr=turned(instance.gain.take(user) * (1.0 / (2.0 * params.noise_psd_w_hz))),
        source_bit=turned(instance.source_bit.take(user)),
        spare_s=turned(spare),
        level=turned(instance.distortion_level.take(2 * place + side)),
        tilt=turned(instance.distortion_tilt.take(user)),
    )


def exponent(link: Links, power_w: Array, ratio: Array) -> Array:
    """a p + b delta + d, the exponent in (10), (n, P)."""
    return link.power_slope * power_w + link.ratio_slope * ratio + link.offset


def interference(link: Links, power_w: Array, ratio: Array) -> Array:
    """Semantic interference factor rho_ij(p, delta) (10), (n, P)."""
    return link.rho_min + (link.rho_max - link.rho_min) * falling(exponent(link, power_w, ratio))


def sinr(link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array) -> Array:
    """Effective SINR Gamma_u (11), (n, P, 2)."""
    return _sinr(link, power_w, bandwidth_hz, interference(link, power_w, ratio))


def _sinr(link: Links, power_w: Array, bandwidth_hz: Array, rho: Array) -> Array:
    noise = at_least(bandwidth_hz, TINY_HZ)[..., None] / (at_least(power_w, TINY_W)[..., None] * link.snr)
    return 1.0 / (rho[..., None] + noise)


def rates(link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array) -> Array:
    """Rate R_u [bit/s] (12), (n, P, 2); their sum over the last axis is (13)."""
    return _rates(link, power_w, bandwidth_hz, interference(link, power_w, ratio))


def _rates(link: Links, power_w: Array, bandwidth_hz: Array, rho: Array) -> Array:
    gamma = _sinr(link, power_w, bandwidth_hz, rho)
    return at_least(bandwidth_hz, TINY_HZ)[..., None] * (namespace(gamma).log1p(gamma) * (1.0 / LN2))


def delays(link: Links, rate: Array, ratio: Array) -> Array:
    """Transmission delay t_u [s] (14), (n, P, 2)."""
    return link.source_bit * ratio[..., None] / rate


def energy(params: Params, power_w: Array, delay: Array, ratio: Array) -> Array:
    """Energy E_k [J] (16), (n, P)."""
    return power_w * larger(delay) + coding_energy(params, ratio)


def coding_energy(params: Params, ratio: Array) -> Array:
    """What coding adds to (16) [J], of any shape."""
    return -params.energy_coefficient_j * namespace(ratio).log(ratio)


def rate_floor(link: Links, ratio: Array) -> Array:
    """Rate [bit/s] that meets the latency limit (28), (n, P, 2); infinite where coding alone takes too long."""
    xp = namespace(ratio)
    inside = link.spare_s > 0
    needed = link.source_bit * ratio[..., None] / xp.where(inside, link.spare_s, xp.ones_like(link.spare_s))
    return xp.where(inside, needed, xp.full_like(needed, float("inf")))


def distortion_knots(params: Params, link: Links, knot: Array) -> Array:
    """The envelope of (17) of every user at ``knot`` (..., n, P, 1 or 2) of the grid, (..., n, P, 2)."""
    xp = namespace(link.level)
    log_grid = like(params.profile.log_grid, link.level)[knot]
    return link.level * params.profile.distortion_at(link.similarity[..., None], knot) * xp.exp(-link.tilt * log_grid)


def distortion(params: Params, link: Links, ratio: Array) -> Array:
    """D_u,ij(delta) (17): piecewise linear between the knots, (n, P, 2)."""
    xp = namespace(ratio)
    grid = like(params.profile.ratio_grid, ratio)
    below = xp.astype(_how_many(ratio >= grid[1:-1, None, None]), xp.int64)
    share = (ratio - grid[below]) / like(params.profile.ratio_steps, ratio)[below]
    low, high = (distortion_knots(params, link, knot[..., None]) for knot in (below, below + 1))
    return low + (high - low) * share[..., None]


def distortion_floor(params: Params, link: Links) -> Array:
    """delta^D_ij (18)-(19), (n, P); infinite where no ratio meets the distortion limit."""
    xp, last = namespace(link.level), len(params.profile.ratio_grid) - 1
    knots = _all_knots(params, link)
    size = knots[0].shape[0] * knots[0].shape[1] * knots[0].shape[2]
    above = _how_many(knots > params.max_distortion)  # (2, P, n), knots that are too low
    left = xp.astype(xp.clip(above, 1, last), xp.int64) - 1
    place = left * size + xp.reshape(xp.arange(size, device=link.level.device), left.shape)
    values = xp.reshape(knots, (-1,))
    high, low = values.take(place), values.take(place + size)
    fall = high - low
    share = (high - params.max_distortion) / xp.where(fall > 0, fall, xp.ones_like(fall))
    grid = params.profile.ratio_grid
    floor = like(grid, link.level)[left] + like(params.profile.ratio_steps, link.level)[left] * share
    floor = xp.where(above > last, xp.full_like(floor, float("inf")), floor)
    # the minimum also where no knot is too low: the grid starts below it
    return turned(at_least(xp.maximum(floor[0], floor[1]), params.min_ratio))


def _all_knots(params: Params, link: Links) -> Array:
    """:func:`distortion_knots` of the whole grid, users first and instances last: (L, 2, P, n)."""
    xp = namespace(link.level)
    level, tilt = turned(link.level), turned(link.tilt)
    knot = xp.reshape(xp.arange(len(params.profile.ratio_grid), device=level.device), (-1, 1, 1))
    table = params.profile.distortion_at(turned(link.similarity), knot)  # (L, P, n)
    log_grid = like(params.profile.log_grid, level)
    if level.shape[-1] <= FEW:
        return level * table[:, None] * xp.exp(-tilt * log_grid[:, None, None, None])
    return xp.stack([level * table[k] * xp.exp(-tilt * log_grid[k]) for k in range(len(knot))])


def _how_many(holds: Array) -> Array:
    """How many of the first axis hold (the short type: several times faster than the default)."""
    xp = namespace(holds)
    return xp.sum(holds, axis=0, dtype=xp.int16)


def least_distortion(params: Params, instance: Instance) -> Array:
    """D_u,ij(1), the least distortion (17) of both users of every candidate pair, (n, M, 2)."""
    return instance.distortion_level * params.profile.at(instance.similarity, "least_distortion")[0][..., None]


def feasible_pairs(params: Params, instance: Instance) -> Array:
    """The edge set E_f (21) as a mask (n, M): some ratio meets both distortion limits, coding leaves time to send."""
    xp = namespace(instance.gain)
    left, right = like(pairing.members(params.num_users), instance.gain).T
    decode = xp.maximum(xp.take(instance.decode_s, left, axis=1), xp.take(instance.decode_s, right, axis=1))
    in_time = instance.encode_s + decode < params.max_latency_s
    table = params.profile.at(instance.similarity, "least_distortion")[0]
    return in_time & (larger(instance.distortion_level) * table <= params.max_distortion)


def surely_feasible(params: Params, instance: Instance) -> bool:
    """Whether the worst values of all instances together already show that every pair is in E_f (21). False in torch,
    where the host would wait for the answer.
    """
    if is_torch(instance.gain):
        return False
    slowest = float(instance.encode_s.max()) + float(instance.decode_s.max())
    worst = float(instance.distortion_level.max()) * params.profile.worst_least_distortion
    return slowest < params.max_latency_s * ALMOST and worst < params.max_distortion * ALMOST


def evaluate(params: Params, instance: Instance, allocation: Allocation) -> Outcome:
    """The objective (20) [Mbit/s], the constraints (20a)-(20i), and the quantities of users and groups."""
    return outcome(params, allocation, links(params, instance, allocation.pair))


def outcome(params: Params, allocation: Allocation, link: Links) -> Outcome:
    """:func:`evaluate` for an allocation whose links are known."""
    xp = namespace(allocation.power_w)
    p, b, ratio = allocation.power_w, allocation.bandwidth_hz, allocation.ratio
    rho = interference(link, p, ratio)
    rate = _rates(link, p, b, rho)
    delay = delays(link, rate, ratio)
    spent = energy(params, p, delay, ratio)
    quality = distortion(params, link, ratio)
    late = larger(delay - link.spare_s) * (1.0 / params.max_latency_s)  # T / Tmax - 1, by (15) and (27)
    users = pairing.uses(allocation.pair, params.num_users)
    uneven = xp.sum(xp.astype(users != 1, p.dtype), axis=-1) / params.num_users
    outside = xp.maximum(params.min_ratio - ratio, ratio - 1.0)
    return Outcome(
        objective=MBIT * total(rate[..., 0] + rate[..., 1]),
        violation={
            "distortion": at_least(largest(larger(quality)) / params.max_distortion - 1.0, 0.0),  # (20a)
            "latency": _capped(largest(late)),  # (20b)
            "energy": _capped(total(spent) / params.max_energy_j - 1.0),  # (20c)
            "power": at_least(total(p) / params.max_power_w - 1.0, 0.0),  # (20d)
            "bandwidth": at_least(total(b) / params.max_bandwidth_hz - 1.0, 0.0),  # (20e)
            "ratio": at_least(largest(outside), 0.0),  # (20f)
            "pairing": uneven,  # (20g)-(20i): share of the users that are not in exactly one pair
        },
        terms=_terms(allocation, link, rho, rate, delay, spent, quality),
    )


def _capped(excess: Array) -> Array:
    return namespace(excess).clip(excess, 0.0, LONGEST)


def _terms(
    allocation: Allocation, link: Links, rho: Array, rate: Array, delay: Array, spent: Array, quality: Array
) -> dict[str, Any]:
    """Per group (n, K) and per user of each group (n, K, 2), and the two figures that a sum rate hides, (n,)."""
    images = rate / (link.source_bit * allocation.ratio[..., None])
    return {
        "pair": allocation.pair,
        "power_w": allocation.power_w,
        "bandwidth_hz": allocation.bandwidth_hz,
        "ratio": allocation.ratio,
        "similarity": link.similarity,
        "rho": rho,
        "energy_j": spent,
        "rate_mbit_s": MBIT * rate,
        "delay_s": delay,
        "distortion": quality,
        "min_rate_mbit_s": -MBIT * largest(larger(-rate)),
        "images_per_s": total(images[..., 0] + images[..., 1]),
    }
