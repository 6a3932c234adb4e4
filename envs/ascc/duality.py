"""Uplink-downlink duality (Section IV-C): SINRs, beams and powers from dual uplink powers, on complex arrays.

G = H^H H with the channels as columns of H, so that everything happens in K dimensions, whatever the antennas:
(I + H Q H^H)^-1 H = H (I + Q G)^-1.
"""

from __future__ import annotations

import dataclasses

from semcom_gym.envs.arrays import Array, at_least, namespace, total
from semcom_gym.envs.ascc.instance import Instance

TINY = 1e-30


def vectors(real: Array, imaginary: Array) -> Array:
    """Complex vectors (n, K, N_t) from their parts."""
    return real + 1j * imaginary


def gram(instance: Instance) -> Array:
    """G (n, K, K): h_k^H h_l."""
    h = vectors(instance.channel_re, instance.channel_im)
    xp = namespace(h)
    return xp.conj(h) @ xp.matrix_transpose(h)


@dataclasses.dataclass(frozen=True)
class Uplink:
    """The dual uplink at given powers with MMSE receivers. Fields (n, K) or (n, K, K).

    sinr [gamma_i^u]. mix: column i combines the channels into the beam of user i before normalisation,
    v_i = H mix_i. cross: h_k^H v_i at row k, column i.
    """

    sinr: Array
    mix: Array
    cross: Array


def uplink(gram: Array, power: Array) -> Uplink:
    """The uplink (33) with the receivers (43) that maximise every SINR, at powers q (n, K)."""
    xp = namespace(gram)
    users = gram.shape[-1]
    identity = xp.eye(users, dtype=gram.dtype, device=gram.device)
    mix = xp.linalg.inv(identity + power[..., None] * gram)
    cross = gram @ mix
    own = _diagonal(xp.real(cross))
    left = _diagonal(xp.real(mix))  # 1 / (1 + gamma)
    return Uplink(power * own / left, mix, cross)


def _diagonal(x: Array) -> Array:
    return namespace(x).linalg.diagonal(x)


def couplings(found: Uplink) -> Array:
    """(n, K, K) |h_k^H w_l|**2 of the normalised beams of an uplink."""
    xp = namespace(found.sinr)
    norm_squared = total(xp.matrix_transpose(xp.real(xp.conj(found.mix) * found.cross)))
    size = xp.abs(found.cross)
    return size * size / at_least(norm_squared, TINY)[:, None, :]


def downlink_power(coupling: Array, sinr: Array) -> Array:
    """Downlink powers p (n, K) (34) that give the SINRs with beams of |h_k^H w_l|**2 = coupling[k, l].

    (36) with its off-diagonal signs mended; a row is multiplied by its SINR, so that a user without power has none.
    """
    return _powers(coupling, coupling, sinr)


def dual_power(coupling: Array, sinr: Array) -> Array:
    """Dual uplink powers q (n, K) (35) that give the SINRs with the same beams: (37), its signs mended."""
    return _powers(coupling, namespace(coupling).matrix_transpose(coupling), sinr)


def _powers(coupling: Array, interference: Array, sinr: Array) -> Array:
    """x with own_k x_k - sinr_k sum over l != k of interference[k, l] x_l = sinr_k."""
    xp = namespace(coupling)
    identity = xp.eye(coupling.shape[-1], dtype=coupling.dtype, device=coupling.device)
    own = coupling * identity
    system = own - sinr[..., None] * interference * (1.0 - identity)
    return xp.linalg.solve(system, sinr[..., None])[..., 0]
