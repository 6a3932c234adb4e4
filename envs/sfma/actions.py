"""From a flat action in [-1, 1] to a pairing with its resources, back, and what a policy observes."""

from __future__ import annotations

import numpy as np

from semcom_gym.envs import simplex
from semcom_gym.envs.arrays import Array, at_least, at_most, flat, like, namespace, total, turned
from semcom_gym.envs.outcome import Outcome, require_feasible
from semcom_gym.envs.sfma import limits, pairs, physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import Allocation, Links
from semcom_gym.envs.sfma.prepared import Prepared

USER_FEATURES = ("gain", "source", "decoding", "tilt")
PAIR_FEATURES = (
    "similarity", "rho_min", "rho_max", "midpoint", "power_slope", "ratio_slope", "encoding", "distortion_left",
    "distortion_right",
)  # fmt: skip
GLOBAL_FEATURES = ("power", "bandwidth", "energy", "latency", "users")
PAIR_BLOCKS = ("pairing",)
BLOCKS = ("power", "bandwidth", "ratio")
PRUNED = 1e3  # off the score of a pair outside (21): more than all scores together can make up for


def action_blocks(params: Params) -> tuple[str, ...]:
    """Names of the blocks with one entry per user; the entries per pair come before them."""
    return BLOCKS


def decode(params: Params, instance: Instance, action: Array) -> Allocation:
    """The allocation that an action (n, M + 3 N) stands for; entries outside [-1, 1] are clipped.

    pairing (M): the perfect matching of largest total score, over the pairs in E_f (21) wherever they allow one.
    power, bandwidth, ratio (N each): a group's entry is the mean of its two users'; then as in :func:`allot`.
    """
    return _decode(params, instance, action)[0]


def outcome_of(params: Params, instance: Instance, action: Array) -> Outcome:
    """What an action achieves: :func:`decode` and ``physics.evaluate``, which need the same links."""
    allocation, link = _decode(params, instance, action)
    return physics.outcome(params, allocation, link)


def outcome_at(params: Params, prepared: Prepared, rows: Array, action: Array) -> Outcome:
    """:func:`outcome_of` on the instances at ``rows`` (n,) of those that were prepared."""
    a = at_most(at_least(action, -1.0), 1.0)
    allowed = namespace(a).take(prepared.feasible, rows, axis=0)
    pair = pairs.best_matching(_avoiding(a[:, : params.num_pairs], allowed), params.num_users)
    link, low = prepared.chosen(rows, pair)
    return physics.outcome(params, allot(params, link, pair, _of_groups(params, a, pair), low), link)


def _decode(params: Params, instance: Instance, action: Array) -> tuple[Allocation, Links]:
    a = at_most(at_least(action, -1.0), 1.0)
    pair = match(params, instance, a[:, : params.num_pairs])
    link = physics.links(params, instance, pair)
    return allot(params, link, pair, _of_groups(params, a, pair)), link


def _of_groups(params: Params, action: Array, pair: Array) -> Array:
    """(n, 3, K) the entries of the groups with the pairs (n, K): means over their two users."""
    xp = namespace(action)
    each = action.shape[1] * xp.arange(len(action), device=action.device)
    first = params.num_pairs + params.num_users * xp.arange(len(BLOCKS), device=action.device)
    left, right = turned(like(pairs.members(params.num_users), pair))[:, turned(pair)] + each  # (K, n)
    both = (action.take(first[:, None, None] + user) for user in (left, right))
    return turned(xp.moveaxis(0.5 * sum(both), 0, 1))


def match(params: Params, instance: Instance, score: Array) -> Array:
    """(n, K) the perfect matching of largest total score (n, M), outside E_f (21) only where it must."""
    if not physics.surely_feasible(params, instance):
        score = _avoiding(score, physics.feasible_pairs(params, instance))
    return pairs.best_matching(score, params.num_users)


def _avoiding(score: Array, allowed: Array) -> Array:
    """Scores (n, M) that lead outside the ``allowed`` pairs only where they must."""
    return namespace(score).where(allowed, score, score - PRUNED)


def allot(params: Params, link: Links, pair: Array, group: Array, low: Array | None = None) -> Allocation:
    """The allocation of entries (n, 3, K) in [-1, 1] of the groups of a pairing. low: ``limits.ratio_floor``, if known.

    1. power: shares of Pmax, at most all of it; moved towards equal shares of all of it as far as the floors of step 2
       need it.
    2. bandwidth: each group's least bandwidth at its distortion floor delta^D, and a share of what is left of Bmax.
    3. ratio: from delta^D (-1) to the largest ratio that meets the latency limit (1), or the next lower one that meets
       it.
    4. energy: as far as the budget needs it, ratios move towards those of least energy, and where that is not enough,
       groups that stay in time with less power get less.
    """
    low = limits.ratio_floor(params, link) if low is None else low
    power, need = limits.share_power(params, link, params.max_power_w * simplex.action_to_share(group[:, 0]), low)
    left = params.max_bandwidth_hz - total(need)
    bandwidth = need + at_least(left, 0.0)[:, None] * _shares(group[:, 1])
    bandwidth = bandwidth * at_most(params.max_bandwidth_hz / total(need), 1.0)[:, None]  # where the floors exceed it
    sent = limits.reach(link, power, bandwidth)
    least = turned(low)
    high = limits.ceiling(sent, least, namespace(low).ones_like(least))
    wish = least + (high - least) * turned(0.5 * (group[:, 2] + 1.0))
    chosen = turned(limits.ceiling(sent, least, wish, below=True))
    power, ratio = limits.spare_energy(params, link, power, bandwidth, chosen, low, turned(high), sent)
    return Allocation(pair, power, bandwidth, ratio)


def _shares(entries: Array) -> Array:
    weight = simplex.action_to_weight(entries)
    return weight / total(weight)[:, None]


def encode(params: Params, instance: Instance, allocation: Allocation) -> Array:
    """The float64 action (n, M + 3 N) that decodes to ``allocation``, with its groups in the order of their pairs.

    Bandwidth that is not used is handed out in proportion to the groups' shares, which never lowers a rate. Raises
    ValueError for an allocation that breaks a constraint.
    """
    require_feasible(physics.evaluate(params, instance, allocation).violation)
    n, users = len(allocation), params.num_users
    entries = group_entries(params, physics.links(params, instance, allocation.pair), allocation)
    user = pairs.members(users)[allocation.pair].reshape(n, -1)
    action = np.full((n, params.num_pairs + len(BLOCKS) * users), -1.0)
    np.put_along_axis(action, allocation.pair, 1.0, -1)
    for block, entry in enumerate(entries.swapaxes(0, 1)):
        start = params.num_pairs + block * users
        np.put_along_axis(action[:, start : start + users], user, np.repeat(entry, 2, axis=-1), -1)
    return action


def group_entries(params: Params, link: Links, allocation: Allocation, least_spare: float = 0.0) -> Array:
    """The entries (n, 3, K) that :func:`allot` turns into ``allocation``, or into one near it that meets the floors.

    least_spare: least bandwidth above its floor that a group gets, as a share of what it has.
    """
    xp, low = namespace(allocation.power_w), limits.ratio_floor(params, link)
    power = allocation.power_w / at_least(total(allocation.power_w) / params.max_power_w, 1.0)[:, None]
    need = limits.bandwidth_floor(params, link, power, low)
    bandwidth = allocation.bandwidth_hz * (params.max_bandwidth_hz / total(allocation.bandwidth_hz))[:, None]
    left = at_least(params.max_bandwidth_hz - total(need), 0.0)
    spare = xp.maximum(bandwidth - need, least_spare * bandwidth)
    bandwidth = need + left[:, None] * spare / at_least(total(spare), simplex.TINY)[:, None]
    high = limits.ratio_ceiling(link, power, bandwidth, low, xp.ones_like(low))
    room = xp.where(high > low, high - low, 1.0)
    ratio = xp.clip(2.0 * (allocation.ratio - low) / room - 1.0, -1.0, 1.0)
    powers = simplex.share_to_action(power / params.max_power_w)
    return xp.stack([powers, simplex.weight_to_action(spare), ratio], axis=1)


def observe(params: Params, instance: Instance) -> Array:
    """The observation: N rows of USER_FEATURES, M rows of PAIR_FEATURES, then the cell's own features.

    gain: log10 of the SNR Pmax |h|^2 / (2 N0 Bmax) with all resources. source: Q_u over its mean. decoding: tau_dec
    over Tmax. tilt: 10 times. similarity, rho_max: as is. rho_min: log10. midpoint: the power where (10) is halfway at
    ratio 0, over Pmax / K. power_slope: log10 of a Pmax / K. ratio_slope: log10 b. encoding: tau_BS over Tmax.
    distortion: log10 of D_u at ratio 1 over Dmax, of the pair's lower and higher user. power: log10 of Pmax / W.
    bandwidth: log10 of Bmax / 10 MHz. energy: log10 of Emax / (K Pmax Tmax). latency: log10 of Q / (Tmax Bmax / K).
    users: 10 / N.
    """
    xp = namespace(instance.gain)
    share_w = params.max_power_w / params.num_groups
    reach = params.max_power_w / (2.0 * params.noise_psd_w_hz * params.max_bandwidth_hz)
    users = xp.stack(
        [
            xp.log10(instance.gain * reach),
            instance.source_bit * (1.0 / params.source_bit),
            instance.decode_s * (1.0 / params.max_latency_s),
            10.0 * instance.distortion_tilt,
        ],
        axis=-1,
    )
    worst = physics.least_distortion(params, instance) * (1.0 / params.max_distortion)
    rows = xp.stack(
        [
            instance.similarity,
            xp.log10(instance.rho_min + 1e-6),
            instance.rho_max,
            -instance.offset / (instance.power_slope * share_w),
            xp.log10(instance.power_slope * share_w),
            xp.log10(instance.ratio_slope),
            instance.encode_s * (1.0 / params.max_latency_s),
            xp.log10(worst[..., 0]),
            xp.log10(worst[..., 1]),
        ],
        axis=-1,
    )
    latency = params.source_bit * params.num_groups / (params.max_latency_s * params.max_bandwidth_hz)
    cell = [
        np.log10(params.max_power_w),
        np.log10(params.max_bandwidth_hz / 10e6),
        np.log10(params.energy_per_group_j / (params.max_power_w * params.max_latency_s)),
        np.log10(latency),
        10.0 / params.num_users,
    ]
    return flat([users, rows], cell)
