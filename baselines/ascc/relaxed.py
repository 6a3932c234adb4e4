"""Users of one instance at fixed source rates, which may lie between two codecs of their tables (26)-(30)."""

from __future__ import annotations

import dataclasses

import numpy as np

from semcom_gym.envs.arrays import Array, falling, log_ndtr
from semcom_gym.envs.ascc import physics, rates
from semcom_gym.envs.ascc.instance import Params

ROOT_TWO_PI = 2.5066282746310002


@dataclasses.dataclass(frozen=True)
class Codecs:
    """What the rates R_s of the K users fix. Fields (K,) but for the blocklength [L].

    weight [beta]. code_rate [R_c = R_s / T]. source [d_s], channel [d_c], slope [a_1], midpoint [a_0]: of (26).
    """

    weight: Array
    code_rate: Array
    source: Array
    channel: Array
    slope: Array
    midpoint: Array
    blocklength: float

    def argument(self, sinr: Array) -> tuple[Array, Array]:
        """(K,) argument of Q in (14) at SINRs (K,), and the root of the dispersion below it [rho-hat, g]."""
        return argument(sinr, self.code_rate, self.blocklength)

    def exponent(self, sinr: Array) -> Array:
        """(K,) log(c_i t_i), the exponent in (26): distortion is d_s + d_c / (1 + exp of it)."""
        return self.slope * (self.midpoint - rates.log10_bit_error(sinr, self.code_rate, self.blocklength))

    def objective(self, sinr: Array) -> float:
        """The relaxed objective (15) with (26)."""
        return float(self.weight @ (self.source + self.channel * falling(self.exponent(sinr))))


def codecs(params: Params, index: Array) -> Codecs:
    """The codecs at indices (K,) into the tables of the users, whole or not."""
    rate, source, channel, slope, midpoint = (column[0] for column in physics.columns(params, index[None]))
    return Codecs(params.weight, rate / params.channel_uses, source, channel, slope, midpoint, params.blocklength)


def argument(sinr: Array, code_rate: Array, blocklength: float) -> tuple[Array, Array]:
    """Argument of Q in (14), log2 e outside the root, and the root g = sqrt(1 - 1 / (1 + SINR)**2)."""
    capacity = np.log1p(np.maximum(sinr, rates.TINY_SINR))
    root = np.sqrt(-np.expm1(-2.0 * capacity))
    return np.sqrt(blocklength) * (capacity - rates.LN2 * code_rate) / root, root


def hazard(x: Array) -> Array:
    """-Q'(x) / Q(x) of the normal tail Q, exact in both tails; log Q is concave, so it rises."""
    return np.exp(-0.5 * x * x - log_ndtr(-x)) / ROOT_TWO_PI
