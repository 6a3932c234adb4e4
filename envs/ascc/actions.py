"""From a flat action in [-1, 1] to powers, beams and codecs, back, and what a policy observes."""

from __future__ import annotations

import numpy as np

from semcom_gym.envs import simplex
from semcom_gym.envs.arrays import Array, at_least, at_most, flat, like, namespace, straight_through, total
from semcom_gym.envs.ascc import duality, physics
from semcom_gym.envs.ascc.instance import Instance, Params
from semcom_gym.envs.ascc.physics import Allocation
from semcom_gym.envs.outcome import require_feasible

PROBES = (0.5, 1.0, 2.0)
USER_FEATURES = ("gain", "sinr", "weight", "semantic", *(f"distortion@{x:g}" for x in PROBES))
PAIR_FEATURES = ("correlation", "leakage")
ZERO_BEAM = 1e-6
GLOBAL_FEATURES = ("power", "deadline", "blocklength", "users")


def action_blocks(params: Params) -> tuple[str, ...]:
    """Names of the blocks of an action; each block has one entry per user."""
    if params.beamforming == "duality":
        return ("power", "rate")
    beams = [f"beam_{part}_{antenna}" for part in ("re", "im") for antenna in range(params.num_antennas)]
    return ("power", "rate", *beams)


def decode(params: Params, instance: Instance, action: Array) -> Allocation:
    """The allocation that an action (n, blocks * K) stands for; entries outside [-1, 1] are clipped.

    ``duality``: power entries are shares of P_max among the dual uplink powers q; beams are MMSE (43), downlink
    powers follow by (34). ``explicit``: power entries are shares of P_max among the downlink powers, of which some may
    be left; a user's beam entries, brought to unit length, are its beam, or its matched filter where all are zero.
    rate: see :func:`_index`.
    """
    xp = namespace(action)
    a = xp.reshape(at_most(at_least(action, -1.0), 1.0), (len(instance), len(action_blocks(params)), -1))
    if params.beamforming == "duality":
        weight = simplex.action_to_weight(a[:, 0])
        dual = params.max_power_w * (weight / total(weight)[:, None])  # in this order its gradient is finite at -1
        power, beam, gamma = realise(instance, dual)
    else:
        power = params.max_power_w * simplex.action_to_share(a[:, 0])
        beam = _beams(instance, a[:, 2:])
        gamma = physics.sinr(instance, power, beam)
    return Allocation(power, xp.real(beam), xp.imag(beam), _index(params, gamma, a[:, 1]))


def realise(instance: Instance, dual: Array) -> tuple[Array, Array, Array]:
    """Downlink powers (n, K), complex unit beams (n, K, N_t) and SINRs (n, K) of dual uplink powers q (n, K).

    The SINRs are the largest that each q allows; the downlink powers sum to the same total.
    """
    xp = namespace(dual)
    found = duality.uplink(duality.gram(instance), dual)
    channel = duality.vectors(instance.channel_re, instance.channel_im)
    beam = xp.matrix_transpose(found.mix) @ channel
    beam = beam / at_least(_norm(beam), duality.TINY)
    coupling = physics.coupling(channel, beam)
    gamma = physics.sinr_of(dual[:, None, :] * xp.matrix_transpose(coupling))  # (33), of the beams as rounded
    power = at_least(duality.downlink_power(coupling, gamma), 0.0)
    power = power * (total(dual) / total(power))[:, None]  # equal but for rounding
    return power, beam, gamma


def _beams(instance: Instance, entries: Array) -> Array:
    """Unit beams (n, K, N_t) of entries (n, 2 N_t, K)."""
    xp = namespace(entries)
    rows = xp.matrix_transpose(entries)
    antennas = rows.shape[-1] // 2
    wish = duality.vectors(rows[..., :antennas], rows[..., antennas:])
    matched = duality.vectors(instance.channel_re, instance.channel_im)
    empty = _norm(wish) < ZERO_BEAM
    beam = xp.where(empty, matched, wish)
    return beam / _norm(beam)


def _norm(x: Array) -> Array:
    """Length of complex vectors (..., N_t), with the last axis kept."""
    xp = namespace(x)
    return xp.linalg.vector_norm(x, axis=-1, keepdims=True)


def _index(params: Params, sinr: Array, entry: Array) -> Array:
    """Codec indices (n, K) of rate entries (n, K).

    ``relative``: the codec of least distortion at the SINR, moved by round((N - 1) a |a|) places; ``absolute``: the
    codec round((N - 1) (a + 1) / 2), whatever the SINR. Both kept within the table. The latter has the gradient of the
    interpolated tables; the former has none, as its best entry is 0 and needs no search.
    """
    xp = namespace(entry)
    last = like(params.last_index, entry)
    if params.rate_action == "relative":
        wish = physics.best_index(params, sinr) + last * entry * xp.abs(entry)
        return xp.minimum(at_least(xp.round(wish), 0.0), last)
    soft = 0.5 * last * (entry + 1.0)  # within the table, as the entry is within [-1, 1]
    return straight_through(xp.round(soft), soft)


def encode(params: Params, instance: Instance, allocation: Allocation) -> Array:
    """The float64 action (n, blocks * K) that decodes to ``allocation``.

    ``duality``: to its codecs at SINRs that are at least as large: beams become the MMSE beams of its dual powers (35),
    and power that is left is used, neither of which raises a distortion. Raises ValueError for an allocation that
    breaks a constraint.
    """
    require_feasible(physics.violations(params, allocation))
    beam = duality.vectors(allocation.beam_re, allocation.beam_im)
    gamma = physics.sinr(instance, allocation.power_w, beam)
    if params.beamforming == "duality":
        channel = duality.vectors(instance.channel_re, instance.channel_im)
        dual = np.maximum(duality.dual_power(physics.coupling(channel, beam), gamma), 0.0)
        power = simplex.weight_to_action(dual)
        weight = simplex.action_to_weight(power)
        gamma = realise(instance, params.max_power_w * weight / total(weight)[:, None])[2]
        beams: list[Array] = []
    else:
        power = simplex.share_to_action(allocation.power_w / params.max_power_w)
        beams = [np.concat([allocation.beam_re, allocation.beam_im], axis=-1).swapaxes(1, 2).reshape(len(instance), -1)]
    return np.concat([power, _entry(params, gamma, np.round(allocation.rate_index)), *beams], axis=-1)


def _entry(params: Params, sinr: Array, index: Array) -> Array:
    """Inverse of :func:`_index`."""
    last = params.rate_counts - 1.0
    if params.rate_action == "absolute":
        return 2.0 * index / last - 1.0
    offset = (index - physics.best_index(params, sinr)) / last
    return np.sign(offset) * np.sqrt(np.abs(offset))


def observe(params: Params, instance: Instance) -> Array:
    """The observation: K rows of USER_FEATURES, a row of PAIR_FEATURES per pair of users, the cell's own features.

    Features at equal dual powers P_max / K: sinr, 10 log10 gamma_i / 20; distortion@x, that of the best codec at
    x gamma_i; leakage, |s_ij|**2 / (s_ii s_jj) with S = G (I + Q G)^-1, which says how much user i's SINR loses to q_j.
    gain: 10 log10(P_max |h_i|**2) / 20. weight: K beta_i. semantic: 0 or 1. correlation: the same of G. power:
    log10 of P_max / W. deadline: log10 of T / 1e4. blocklength: log10 of L / 1e3. users: 10 / K.
    """
    xp = namespace(instance.channel_re)
    users = params.num_users
    gram = duality.gram(instance)
    strength = xp.real(xp.linalg.diagonal(gram))
    found = duality.uplink(gram, xp.full_like(strength, params.max_power_w / users))
    one = xp.ones_like(strength)
    rows = [
        0.5 * xp.log10(params.max_power_w * strength),
        0.5 * xp.log10(found.sinr),
        users * like(params.weight, one) * one,
        like(params.semantic, one) * one,
        *(physics.best_distortion(params, x * found.sinr) for x in PROBES),
    ]
    pairs = [_overlap(gram), _overlap(found.cross)]
    cell = [
        np.log10(params.max_power_w),
        np.log10(params.channel_uses / 1e4),
        np.log10(params.blocklength / 1e3),
        10.0 / users,
    ]
    return flat([xp.stack(rows, axis=-1), xp.stack(pairs, axis=-1)], cell)


def _overlap(x: Array) -> Array:
    """(n, M) |x_ij|**2 / (x_ii x_jj) of Hermitian matrices, pairs i < j in lexicographic order."""
    xp = namespace(x)
    own = xp.linalg.diagonal(xp.real(x))
    left, right = np.triu_indices(x.shape[-1], 1)
    size = xp.abs(x[:, left, right])
    return size * size / (own[:, left] * own[:, right])
