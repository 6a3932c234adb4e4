"""The equations of the MU-ASCC paper, in its order, on NumPy arrays or torch tensors (n, K).

Symbols: p_i downlink power, w_i unit beam, h_i normalised channel, R_s source rate, R_c = R_s / T code rate, gamma_i
SINR. (19) only bounds R_c from below, and by (14) an ever larger R_c would make every bit error vanish: the printed
problem is ill-posed, and R_c is R_s / T throughout, as the paper's own algorithm sets it.
"""

from __future__ import annotations

import dataclasses

from semcom_gym.envs.arrays import Array, Batch, at_least, largest, like, namespace, to_numpy, total
from semcom_gym.envs.ascc import duality, rates
from semcom_gym.envs.ascc.instance import Instance, Params
from semcom_gym.envs.outcome import Outcome


@dataclasses.dataclass(frozen=True)
class Allocation(Batch):
    """A decision for the K users."""

    # (n, K) downlink power p_i [W]
    power_w: Array
    # (n, K, N_t) real and imaginary part of the unit beams w_i
    beam_re: Array
    beam_im: Array
    # (n, K) codec of each user, an index into its rate table; between two integers the tables are interpolated (26)
    rate_index: Array


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shape of every field of an Allocation behind its first axis."""
    users, beam = (params.num_users,), (params.num_users, params.num_antennas)
    return {"power_w": users, "beam_re": beam, "beam_im": beam, "rate_index": users}


def check(params: Params, allocation: Allocation) -> None:
    """Raise ValueError for a rate index beyond a user's table."""
    last = params.rate_counts - 1
    if bool((to_numpy(allocation.rate_index) > last).any()):
        raise ValueError(f"allocation.rate_index must be at most {last.tolist()}, the last of each user's table")


def sinr(instance: Instance, power_w: Array, beam: Array) -> Array:
    """SINR gamma_i (7) of powers (n, K) and complex beams (n, K, N_t)."""
    return sinr_of(received(instance, power_w, beam))


def received(instance: Instance, power_w: Array, beam: Array) -> Array:
    """(n, K, K) power p_l |h_k^H w_l|**2 of the signal of l that user k hears, over the noise."""
    channel = duality.vectors(instance.channel_re, instance.channel_im)
    return power_w[:, None, :] * coupling(channel, beam)


def sinr_of(received: Array) -> Array:
    """(n, K) SINRs of powers over the noise (n, K, K), what row k receives of every signal."""
    xp = namespace(received)
    others = 1.0 - xp.eye(received.shape[-1], dtype=received.dtype, device=received.device)
    return xp.linalg.diagonal(received) / (total(received * others) + 1.0)


def coupling(channel: Array, beam: Array) -> Array:
    """(n, K, K) |h_k^H w_l|**2."""
    xp = namespace(beam)
    size = xp.abs(xp.conj(channel) @ xp.matrix_transpose(beam))
    return size * size


def columns(params: Params, index: Array) -> list[Array]:
    """Source rate [bit], d_s, d_c, a_1, a_0 of (12), (13) at rate indices (n, K); linear in between, (26)-(30)."""
    xp = namespace(index)
    low = at_least(xp.floor(index), 0.0)
    top = like(params.last_index, index) - 1.0
    low = xp.minimum(low, top)
    part = index - low
    table = like(params.curve_table, index)
    users, most = table.shape[1:]
    place = xp.astype(low, xp.int64) + most * xp.arange(users, device=index.device)
    found = []
    for column in xp.reshape(table, (len(rates.PARAMETERS), -1)):
        left = column[place]
        found.append(left + part * (column[place + 1] - left))
    return found


def best_index(params: Params, sinr: Array) -> Array:
    """(n, K) index of the codec of least distortion at SINRs (n, K)."""
    data, semantic = params.best_rates
    xp = namespace(sinr)
    cut = params.data_users
    index = xp.concat([data.at(sinr[:, :cut]), semantic.at(sinr[:, cut:])], axis=-1)
    return xp.astype(index, sinr.dtype)


def distortion(params: Params, sinr: Array, index: Array) -> Array:
    """End-to-end distortion (12), (13) of every user."""
    return rates.distortion(columns(params, index), sinr, params.channel_uses, params.blocklength)


def best_distortion(params: Params, sinr: Array) -> Array:
    """Distortion (n, K) at the best codec for every SINR."""
    return distortion(params, sinr, best_index(params, sinr))


def evaluate(params: Params, instance: Instance, allocation: Allocation) -> Outcome:
    """Objective (15), violations of (16)-(18), (20) and the quantities of every user (and pair)."""
    xp = namespace(allocation.power_w)
    beam = duality.vectors(allocation.beam_re, allocation.beam_im)
    heard = received(instance, allocation.power_w, beam)
    gamma = sinr_of(heard)
    found = columns(params, allocation.rate_index)
    rate, source = found[:2]
    harm = rates.distortion(found, gamma, params.channel_uses, params.blocklength)
    code_rate = rate * (1.0 / params.channel_uses)  # (19) with equality
    return Outcome(
        objective=total(like(params.weight, harm) * harm),
        violation=violations(params, allocation),
        terms={
            "distortion": harm,
            "source_distortion": source,
            "sinr_db": 10.0 * xp.log10(at_least(gamma, rates.TINY_SINR)),
            "log10_bit_error": rates.log10_bit_error(gamma, code_rate, params.blocklength),
            "source_rate_bit": rate,
            "code_rate": code_rate,
            "rate_index": allocation.rate_index,
            "power_w": allocation.power_w,
            "received": heard,
        },
    )


def violations(params: Params, allocation: Allocation) -> dict[str, Array]:
    """Relative excess of each constraint, (n,), 0 where it holds."""
    xp = namespace(allocation.power_w)
    norm = total(allocation.beam_re**2 + allocation.beam_im**2) ** 0.5
    index = allocation.rate_index
    return {
        "rate": largest(xp.abs(index - xp.round(index))),  # (16), (17): in codecs
        "power": at_least(total(allocation.power_w) / params.max_power_w - 1.0, 0.0),  # (18)
        "beam_norm": largest(xp.abs(norm - 1.0)),  # (20)
    }
