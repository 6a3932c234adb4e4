"""Parameters and instances of the MU-ASCC problem (source rates, power and beamforming for data and semantic users).

Source: the MU-ASCC paper, Sections II, III and V. Constants the paper leaves out are stated in docs/ascc.md.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from semcom_gym.envs import channel, curve, validate
from semcom_gym.envs.arrays import Array, Batch
from semcom_gym.envs.ascc.rates import PARAMETERS, BestRate, RateTable

BEAMFORMING = ("duality", "explicit")
RATE_ACTIONS = ("relative", "absolute")
CURVE_PINS = {
    "measured_hevc_data": "ae0a985045fbf324f0def2952d72883620f2091533bacf5f3d80d46d9a074855",
    "measured_hevc_semantic": "610cb37f979520706d73d8399dd06066b104566defcbaa65d38fb89c9402564c",
    "measured_hyperprior_data": "22af61d2aae959b929673d771f4afaa759608ddb153f73d9e223ad168cffdea1",
    "measured_hyperprior_semantic": "d6ef21c3a5dd9a880721d9f142c1213e3527cac5dec8dc4ba2f5c3a638f0b5a7",
    "synthetic_data": "fa1aaa3fdf100433bc34e3864f620bead1f20437ecb53810ada60949840accfa",
    "synthetic_semantic": "6ff4e9c21da10b71a2a3388bef427eb87d9b281ce58f0fdf37e11269acce5919",
    "synthetic_bpg_data": "0a0504feb044df0585f940f713357c98fdeda41c7cbd0b09234513504a2a955e",
    "synthetic_bpg_semantic": "6357bdb5382d4c8fd0cd960f99c87c8fccf4059ff93d15bfc7805c71f6118db3",
    "synthetic_djscc_data_10db": "a9fea2adec303052de96e94dc4e17def2e6818170382c1349f55a469825b19be",
    "synthetic_djscc_data_matched": "873d48a635b32e6b36690d4099a442dbd7090b728617e8132b6a867ea4a2b978",
    "synthetic_djscc_semantic_10db": "32e6658ba929ad45b1c999c08057ccad1521c966f574c3bbdfd93c8118c3867d",
    "synthetic_djscc_semantic_matched": "99d266aa388ef8d91fc6904fee5cf16cfe2aa8c6acb728f49d8cf32ae422ad50",
}
PAPER_CHANNEL = ((-0.4199 - 1.2885j, 0.2092 + 1.0851j), (-0.4546 + 1.0362j, -0.5603 + 0.7316j))
"""H-bar of Section V-A, a row per user."""


@dataclasses.dataclass(frozen=True)
class Params:
    """Parameters of the problem; the defaults are the ``default`` preset. Symbols of the paper in brackets.

    num_users [K]; the first num_data_users [K_d] are data users (None: half of all, rounded up), the rest semantic
    users. num_antennas [N_t]. max_power_w [P_max]. blocklength [L]. channel_uses [T_i]: deadline of every user.
    weights [beta_i]: one positive number per user; None: 1 / K each.
    channel_correlation: share of every user's channel power that is common to all users. gain_range_db: the power of
    a user's channel is uniform in dB within it. channel_matrix [H-bar]: a fixed channel, a row of N_t numbers per
    user, instead of a random one.
    data_table [M_d], semantic_table [M_s]: names or paths of the rate tables.
    beamforming: whether an action holds dual uplink powers (``duality``, beams by MMSE) or beams and downlink powers
    (``explicit``). rate_action: whether its rate entries count from the best rate at the SINR reached (``relative``)
    or from the lowest rate (``absolute``).
    """

    num_users: int = 4
    num_data_users: int | None = None
    num_antennas: int = 4
    max_power_w: float = 6.0
    blocklength: int = 256
    channel_uses: float = 14000.0
    weights: tuple[float, ...] | None = None
    channel_correlation: float = 0.3
    gain_range_db: tuple[float, float] = (-8.0, 8.0)
    channel_matrix: tuple[tuple[complex, ...], ...] | None = None
    data_table: str = "synthetic_data"
    semantic_table: str = "synthetic_semantic"
    beamforming: str = "duality"
    rate_action: str = "relative"

    def __post_init__(self) -> None:
        for name in ("weights", "gain_range_db"):
            value = getattr(self, name)
            if isinstance(value, (list, np.ndarray)):
                object.__setattr__(self, name, tuple(value))
        for name in ("num_users", "num_antennas", "blocklength"):
            validate.integer(name, getattr(self, name))
        for name in ("max_power_w", "channel_uses"):
            validate.number(name, getattr(self, name))
        if self.channel_uses < self.blocklength:  # (14) would call lost packets nearly free of errors
            raise ValueError(f"channel_uses {self.channel_uses:g} leaves no room for a codeword of {self.blocklength}")
        validate.number("channel_correlation", self.channel_correlation, high=1.0, open_low=False)
        validate.choice("beamforming", self.beamforming, BEAMFORMING)
        validate.choice("rate_action", self.rate_action, RATE_ACTIONS)
        if self.num_data_users is not None:
            validate.integer("num_data_users", self.num_data_users, low=0)
            validate.not_above("num_data_users", self.num_data_users, "num_users", self.num_users)
        self._check_weights()
        self._check_channel()
        _ = self.tables  # a bad table is an error of the parameters, not of the first step

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        shown = validate.text(self.weights)
        if not isinstance(self.weights, tuple) or len(self.weights) != self.num_users:
            raise ValueError(f"weights must hold {self.num_users} numbers, one per user, got {shown}")
        for weight in self.weights:
            validate.number("weights", weight)

    def _check_channel(self) -> None:
        if not isinstance(self.gain_range_db, tuple) or len(self.gain_range_db) != 2:
            raise ValueError(f"gain_range_db must be a pair (low, high), got {validate.text(self.gain_range_db)}")
        low, high = self.gain_range_db
        for end in (low, high):
            validate.number("gain_range_db", end, low=-200.0, high=200.0)
        if low > high:
            raise ValueError(f"gain_range_db must have low <= high, got {self.gain_range_db!r}")
        if self.channel_matrix is None:
            return
        shape = (self.num_users, self.num_antennas)
        try:
            rows = np.asarray(self.channel_matrix, complex)
        except (TypeError, ValueError, OverflowError):  # ragged, or not numbers
            rows = np.empty(())
        if rows.shape != shape:
            raise ValueError(f"channel_matrix must have {shape[0]} rows of {shape[1]} numbers")
        if not np.isfinite(rows).all() or not rows.any(axis=1).all():
            raise ValueError("channel_matrix must be finite, with no row of zeros")
        object.__setattr__(self, "channel_matrix", tuple(tuple(row) for row in rows.tolist()))

    @property
    def data_users(self) -> int:
        """K_d."""
        return (self.num_users + 1) // 2 if self.num_data_users is None else self.num_data_users

    @functools.cached_property
    def semantic(self) -> np.ndarray[Any, Any]:
        """(K,) whether a user is a semantic one."""
        return np.arange(self.num_users) >= self.data_users

    @functools.cached_property
    def weight(self) -> np.ndarray[Any, Any]:
        """(K,) beta_i."""
        users = self.num_users
        return np.full(users, 1.0 / users) if self.weights is None else np.asarray(self.weights, float)

    @functools.cached_property
    def tables(self) -> tuple[RateTable, RateTable]:
        """The rate tables of data and of semantic users."""
        names = (self.data_table, self.semantic_table)
        found = [curve.load("ascc", name, PARAMETERS, CURVE_PINS) for name in names]
        return RateTable(names[0], found[0].parameters), RateTable(names[1], found[1].parameters)

    @functools.cached_property
    def best_rates(self) -> tuple[BestRate, BestRate]:
        """The best codec at every SINR, of data and of semantic users."""
        data, semantic = (BestRate(table, self.channel_uses, self.blocklength) for table in self.tables)
        return data, semantic

    @functools.cached_property
    def rate_counts(self) -> np.ndarray[Any, Any]:
        """(K,) how many codecs a user chooses from [N_o or N_s]."""
        data, semantic = (len(table) for table in self.tables)
        return np.where(self.semantic, semantic, data)

    @functools.cached_property
    def last_index(self) -> np.ndarray[Any, Any]:
        """(K,) the last of them, as a number that indices between codecs are compared to."""
        return self.rate_counts - 1.0

    @functools.cached_property
    def curve_table(self) -> np.ndarray[Any, Any]:
        """(5, K, N) columns of every user's table in the order of ``PARAMETERS``, the last codec repeated to N."""
        most = int(self.rate_counts.max())
        kinds = [table.columns[np.minimum(np.arange(most), len(table) - 1)] for table in self.tables]
        return np.stack([kinds[int(kind)] for kind in self.semantic]).transpose(2, 0, 1)

    @property
    def curve_numbers(self) -> np.ndarray[Any, Any]:
        """What the named curves hold, as a user's file may change under its name."""
        return self.curve_table


PRESETS: dict[str, Params] = {
    "default": Params(),
    "paper": Params(
        num_users=2, num_antennas=2, max_power_w=3.0, channel_uses=28000.0, weights=(0.8, 0.2),
        channel_matrix=PAPER_CHANNEL,
    ),
    "two_user": Params(num_users=2, num_antennas=2, max_power_w=3.0),
    "three_user": Params(num_users=3, num_antennas=3, max_power_w=4.5),
    "hard": Params(num_antennas=2),
    "measured": Params(data_table="measured_hyperprior_data", semantic_table="measured_hyperprior_semantic"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Instance(Batch):
    """Channels of n cells."""

    # (n, K, N_t) real and imaginary part of the normalised channel h-bar_i = h_i / sigma_i
    channel_re: Array
    channel_im: Array


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shape of every field of an Instance behind its first axis."""
    return dict.fromkeys(("channel_re", "channel_im"), (params.num_users, params.num_antennas))


def uniforms_per_instance(params: Params) -> int:
    """How many uniform variates one instance is made from."""
    return params.num_users + 2 * (params.num_users + 1) * params.num_antennas


def build(params: Params, uniform: Array) -> Instance:
    """Instances from uniform variates in [0, 1), shape (n, ``uniforms_per_instance``), row by row.

    h_i = g_i (sqrt(1 - kappa) z_i + sqrt(kappa) z_0) with z standard complex normal and g_i**2 in ``gain_range_db``.
    """
    n, users = len(uniform), params.num_users
    if params.channel_matrix is not None:
        fixed = np.broadcast_to(np.asarray(params.channel_matrix), (n, users, params.num_antennas))
        return Instance(fixed.real.copy(), fixed.imag.copy())
    low, high = params.gain_range_db
    gain = channel.db_to_linear(low + (high - low) * uniform[:, :users])
    normal = channel.normal(uniform[:, users:]).reshape(n, 2, users + 1, params.num_antennas)
    common = params.channel_correlation
    mixed = np.sqrt(1.0 - common) * normal[:, :, 1:] + np.sqrt(common) * normal[:, :, :1]
    mixed *= np.sqrt(0.5 * gain)[:, None, :, None]  # half of the power in each part
    return Instance(np.ascontiguousarray(mixed[:, 0]), np.ascontiguousarray(mixed[:, 1]))


def check(params: Params, instance: Instance) -> None:
    """Raise ValueError for a channel of zeros."""
    power = instance.channel_re * instance.channel_re + instance.channel_im * instance.channel_im
    if not bool((power.sum(-1) > 0).all()):
        raise ValueError("instance holds a user whose channel is zero")
