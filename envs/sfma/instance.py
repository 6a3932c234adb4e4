"""Parameters and instances of the SC-SFMA problem (pairing, power, bandwidth, compression ratio).

Source: the SC-SFMA paper, Sections II and IV, Table I. Constants the paper leaves out are stated in docs/sfma.md.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from semcom_gym.envs import channel, curve, validate
from semcom_gym.envs.arrays import Array, Batch
from semcom_gym.envs.sfma import pairs
from semcom_gym.envs.sfma.profile import PARAMETERS, Profile

MAX_USERS = 100
FEATURES = 8  # length of the content vector whose cosine is the similarity
CURVE_PINS = {
    "measured_sc_sfma_small": "bd31dd0413d1278c8e35bd51ff45427ced5a163b636e24cbc43aa1f9444569c8",
    "measured_swinjscc_noma_small": "8d5cc00159a9a1a2e0f783538fa73e7bb0e88b00cc2304c37a5d22caffafca33",
    "synthetic_gentle": "fdceadfbc4b07ec201274197da5409f5d4f6855575e3c47501ec8b7a00d14b31",
    "synthetic_steep": "3828299ad3f24b0b7aeb59e69f00f956072c61fcdcefec01fdd0cbc1a0eb0585",
    "synthetic_steep_distorting": "e21f96a39eb74809be6dd3f689d235df02609e649a4513fb6febdc8cc37cc039",
}


@dataclasses.dataclass(frozen=True)
class Params:
    """Parameters of the problem; the defaults are the ``default`` preset. Symbols of the paper in brackets.

    num_users [N], even, in N / 2 = K groups. max_power_w [Pmax], max_bandwidth_hz [Bmax]: total budgets.
    max_latency_s [Tmax]: of every group. energy_per_group_j [Emax / K]. max_distortion [Dmax]: mean squared error on
    [0, 1]. min_ratio [delta_min]: below it no compression ratio. energy_coefficient_j [zeta].
    source_bit [Q_u], encoder_cycles [C_BS], decoder_cycles [C_dec]: means; each is uniform within
    ``source_spread`` or ``cycles_spread`` of its mean. bs_frequency_hz [f_BS], user_frequency_hz [f_u].
    noise_psd_dbm_hz [N0]. cell_radius_m, min_distance_m, shadowing_db, rayleigh: the channel. extra_loss_db: noise
    figure, implementation and penetration loss, which the paper does not name but its numbers need.
    clusters: of contents; content_correlation: between a user's content and its cluster's centre.
    curve: name or path of the profile of interference (10) and distortion (17) against similarity.
    """

    num_users: int = 10
    max_power_w: float = 1.0
    max_bandwidth_hz: float = 10e6
    max_latency_s: float = 0.1
    energy_per_group_j: float = 0.017
    max_distortion: float = 0.005
    min_ratio: float = 0.0625
    energy_coefficient_j: float = 5e-3
    source_bit: float = 0.7e6
    source_spread: float = 0.2
    encoder_cycles: float = 1e8
    decoder_cycles: float = 1.5e7
    cycles_spread: float = 0.3
    bs_frequency_hz: float = 10e9
    user_frequency_hz: float = 1e9
    noise_psd_dbm_hz: float = -174.0
    cell_radius_m: float = 250.0
    min_distance_m: float = 10.0
    shadowing_db: float = 4.0
    rayleigh: bool = False
    extra_loss_db: float = 14.0
    clusters: int = 3
    content_correlation: float = 0.85
    curve: str = "synthetic_steep"

    def __post_init__(self) -> None:
        validate.integer("num_users", self.num_users, low=4)
        if self.num_users % 2 or self.num_users > MAX_USERS:
            raise ValueError(f"num_users must be even and at most {MAX_USERS}, got {self.num_users}")
        validate.integer("clusters", self.clusters)
        for name in ("max_power_w", "max_bandwidth_hz", "max_latency_s", "energy_per_group_j", "max_distortion",
                     "energy_coefficient_j", "source_bit", "encoder_cycles", "decoder_cycles", "bs_frequency_hz",
                     "user_frequency_hz", "cell_radius_m", "min_distance_m"):  # fmt: skip
            validate.number(name, getattr(self, name))
        validate.not_above("min_distance_m", self.min_distance_m, "cell_radius_m", self.cell_radius_m)
        validate.number("min_ratio", self.min_ratio, high=1.0)
        for name in ("source_spread", "cycles_spread"):
            validate.number(name, getattr(self, name), high=0.99, open_low=False)
        validate.number("content_correlation", self.content_correlation, high=1.0, open_low=False)
        validate.number("noise_psd_dbm_hz", self.noise_psd_dbm_hz, low=-300.0, high=0.0)
        validate.number("shadowing_db", self.shadowing_db, high=channel.MAX_SHADOWING_DB, open_low=False)
        validate.number("extra_loss_db", self.extra_loss_db, low=-200.0, high=200.0)
        if not isinstance(self.rayleigh, bool):
            raise TypeError(f"rayleigh must be True or False, got {validate.text(self.rayleigh)}")
        if self.profile.ratio_grid[0] > self.min_ratio:
            raise ValueError(f"curve {self.curve!r} starts at ratio {self.profile.ratio_grid[0]:g}, above min_ratio")

    @property
    def num_groups(self) -> int:
        """K = N / 2."""
        return self.num_users // 2

    @property
    def num_pairs(self) -> int:
        """M = N (N - 1) / 2 candidate pairs."""
        return pairs.count(self.num_users)

    @property
    def max_energy_j(self) -> float:
        """E_max [J] of all groups."""
        return self.energy_per_group_j * self.num_groups

    @property
    def noise_psd_w_hz(self) -> float:
        """Noise power spectral density [W/Hz]."""
        return channel.dbm_to_w(self.noise_psd_dbm_hz)

    @functools.cached_property
    def profile(self) -> Profile:
        """The tables of the curve."""
        return Profile(self.curve, curve.load("sfma", self.curve, PARAMETERS, CURVE_PINS).parameters)

    @property
    def curve_numbers(self) -> dict[str, Any]:
        """What the named curves hold, as a user's file may change under its name."""
        return {name: getattr(self.profile, name) for name in ("name", *PARAMETERS)}


PRESETS: dict[str, Params] = {
    "default": Params(),
    "paper": Params(extra_loss_db=0.0),
    "loose": Params(source_bit=0.25e6, energy_per_group_j=0.05, curve="synthetic_gentle"),
    "tight": Params(source_bit=0.8e6, energy_per_group_j=0.016, curve="synthetic_gentle"),
    "pruned": Params(curve="synthetic_steep_distorting"),
    # what comes nearest to the levels printed in Figures 5 and 8, each scheme solved as well as can be
    "figures": Params(source_bit=0.6e6, energy_per_group_j=0.02, curve="synthetic_gentle"),
    "measured": Params(curve="measured_sc_sfma_small"),
}


@dataclasses.dataclass(frozen=True)
class Instance(Batch):
    """Channels, sources and pair profiles of n cells. Pairs i < j in lexicographic order (``pairs.members``)."""

    # (n, N) distance to the base station [m] and bearing [rad]
    distance_m: Array
    angle_rad: Array
    # (n, N) channel power gain |h_u|^2, source size Q_u [bit], decoding time tau_dec [s]
    gain: Array
    source_bit: Array
    decode_s: Array
    # (n, N) the user's distortion falls as delta**-(the profile's exponent + tilt)
    distortion_tilt: Array
    # (n, M) semantic similarity in [0, 1] and encoding time tau_BS [s]
    similarity: Array
    encode_s: Array
    # (n, M) parameters of (10): rho_min, rho_max, a [1/W], b, d
    rho_min: Array
    rho_max: Array
    power_slope: Array
    ratio_slope: Array
    offset: Array
    # (n, M, 2) factor of the distortion of the pair's users
    distortion_level: Array


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shape of every field of an Instance behind its first axis."""
    user, pair = (params.num_users,), (params.num_pairs,)
    tails = dict.fromkeys(("distance_m", "angle_rad", "gain", "source_bit", "decode_s", "distortion_tilt"), user)
    per_pair = ("similarity", "encode_s", "rho_min", "rho_max", "power_slope", "ratio_slope", "offset")
    return {**tails, **dict.fromkeys(per_pair, pair), "distortion_level": (*pair, 2)}


def _counts(params: Params) -> tuple[int, int]:
    """How many uniform variates an instance takes in full, and how many to be split in three."""
    users, count = params.num_users, params.num_pairs
    small = FEATURES * (params.clusters + users) + 8 * count
    return 9 * users, -(-small // channel.DIGITS)


def uniforms_per_instance(params: Params) -> int:
    """How many uniform variates one instance is made from."""
    return sum(_counts(params))


def build(params: Params, uniform: Array) -> Instance:
    """Instances from uniform variates in [0, 1), shape (n, ``uniforms_per_instance``), row by row."""
    n, users, count = len(uniform), params.num_users, params.num_pairs
    full, _ = _counts(params)
    each = uniform[:, :full].reshape(n, 9, users).swapaxes(0, 1)
    place, bearing, shadow, fade, source, decoder, level, tilt, content = each
    digit = channel.digits(uniform[:, full:])
    contents = FEATURES * (params.clusters + users)
    vectors = channel.digit_normal(digit[:, :contents]).reshape(n, -1, FEATURES)
    similarity = _similarity(params, vectors, (content * params.clusters).astype(np.int64))
    rest = digit[:, contents : contents + 8 * count].reshape(n, 8, count).swapaxes(0, 1)
    profile = params.profile
    factor = channel.digit_log_normal(rest[:5], profile.parameter_spread)
    low, high = profile.distortion_level
    mean = low + (high - low) * level
    spread = channel.digit_log_normal(rest[5:7], profile.distortion_spread)
    distortion_level = np.empty((n, count, 2))
    for side, user in enumerate(pairs.members(users).T):
        np.multiply(mean.take(user, axis=1), spread[side], out=distortion_level[..., side])
    distance = channel.distance_m(place, params.min_distance_m, params.cell_radius_m)
    return Instance(
        distance_m=distance,
        angle_rad=2 * np.pi * bearing,
        gain=_gain(params, distance, shadow, fade),
        source_bit=params.source_bit * _around_one(source, params.source_spread),
        decode_s=params.decoder_cycles / params.user_frequency_hz * _around_one(decoder, params.cycles_spread),
        distortion_tilt=profile.distortion_tilt * (2.0 * tilt - 1.0),
        similarity=similarity,
        encode_s=params.encoder_cycles / params.bs_frequency_hz
        * _around_one(channel.digit_uniform(rest[7]), params.cycles_spread),
        **profile.interference(similarity, factor),
        distortion_level=distortion_level,
    )  # fmt: skip


def _similarity(params: Params, vectors: Array, cluster: Array) -> Array:
    """(n, M) cosine of the users' content vectors, clipped to [0, 1]; contents gather around the clusters' centres."""
    n, each, _ = vectors.shape
    content = vectors.reshape(n * each, -1).take(cluster + each * np.arange(n)[:, None], axis=0)  # the centres
    content *= np.sqrt(params.content_correlation)
    content += np.sqrt(1.0 - params.content_correlation) * vectors[:, params.clusters :]
    content /= np.sqrt(np.sum(content * content, axis=-1, keepdims=True))
    left, right = pairs.members(params.num_users).T
    cosine = np.matmul(content, content.swapaxes(1, 2)).reshape(n, -1).take(left * params.num_users + right, axis=1)
    return np.minimum(np.maximum(cosine, 0.0), 1.0)


def _gain(params: Params, distance: Array, shadow: Array, fade: Array) -> Array:
    loss_db = channel.path_loss_db(distance) + params.extra_loss_db
    if params.shadowing_db > 0:
        loss_db = loss_db - params.shadowing_db * channel.normal(shadow)
    gain = channel.db_to_linear(-loss_db)
    return gain * -np.log1p(-fade) if params.rayleigh else gain


def _around_one(uniform: Array, spread: float) -> Array:
    return 1.0 + spread * (2.0 * uniform - 1.0)


def check(params: Params, instance: Instance) -> None:
    """Raise ValueError for a gain, source or slope that is not positive, or a similarity or rho outside [0, 1]."""
    for name in ("gain", "source_bit", "power_slope", "ratio_slope", "distortion_level"):
        if not bool((getattr(instance, name) > 0).all()):
            raise ValueError(f"instance.{name} must be positive everywhere")
    for name in ("similarity", "rho_max"):
        if bool((getattr(instance, name) > 1).any()):
            raise ValueError(f"instance.{name} must be at most 1")
    if bool((instance.rho_min > instance.rho_max).any()):
        raise ValueError("instance.rho_min must not exceed instance.rho_max")
