"""Parameters and instances of the CRRA / CRRAUS problem (task-oriented semantic communication).

Source: the CRRA paper, Sections II and VI, Table II. Constants the paper leaves out are stated in docs/crra.md.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from semcom_gym.envs import channel, curve, validate
from semcom_gym.envs.arrays import Array, Batch

ZETA = ("zeta1", "zeta2", "zeta3", "zeta4")
SUCCESS_MODELS = ("exact", "approximate")
CURVE_PINS = {
    "measured_resnet_0db": "5d671ef5597fe62879c5cbacb61a1a4b80e20868d4c2ad1d3527c89e3d1655b5",
    "measured_resnet_5db": "ba9f63400ab954e5a5de1deac42a14c0e6b8f955e9fedb8a99a4015146a2bcc7",
    "measured_resnet_m5db": "133e8f3073ef075c06d20e2022ede0c851b3d519541af92ce7f4b441a72e9528",
    "measured_vgg_0db": "9fe2240a3b486368494c94f97edaf76aa30365040cb588b05acbcfc3337b6313",
    "measured_vgg_5db": "edf9f10dfda9fe8b6352c6b7375ab667415cf720b42457435ba5efcb83521c07",
    "measured_vgg_m5db": "12975ab8b3d4b4649c392ce4a4bd6c92956ab2f2d6288777080e94fcea54833a",
    "resnet_0db": "71322a0e9e0bf0a97623a13cfe5b262ba78198fc48a2bfa4009b9b4e2cc5ee56",
    "resnet_5db": "27c97a13c50d088e5ac14ff828432c7fa130184a612add81353fdc27bb22a008",
    "resnet_m5db": "9e299e891affb30e678ada6a37ab4917093be789873644ec8f15836505504405",
    "vgg_0db": "55d009820c6c5c12225cfc2d7a0d45f5503eb78013ab95f24b9f81624baabad4",
    "vgg_5db": "8d11eb35afbdf953c02088b8c1cf6066d7cab36190535a510bebbcc98b384329",
    "vgg_m5db": "bcef0c0e7508c6dd1cde99f49eec51c236ea62c43ef55f839f6d8bd099c0e230",
}


@dataclasses.dataclass(frozen=True)
class Params:
    """Parameters of the problem; the defaults are the ``default`` preset. Symbols of the paper in brackets.

    num_users [U]. max_bandwidth_hz [Bmax], max_power_w [Pmax]: total budgets; if ``bandwidth_range_hz`` or
    ``power_range_w`` is given, the budget of each instance is drawn log-uniformly from it instead.
    min_bandwidth_hz [Bmin], min_power_w [Pmin]: guaranteed to every (selected) user.
    noise_psd_dbm_hz [N0]. payload_bit [d0]: features before compression, in bit. deadline_s [t0].
    cell_radius_m, min_distance_m, shadowing_db: geometry of the channel; the standard deviation of the power
    gain [delta_i] is the inverse of path loss times shadowing.
    service_weights [epsilon_n]: one is drawn for each user. curves: names or paths of eta(o); one is drawn for each
    user. max_ratio: largest compression ratio [o]. success: ``exact`` (Lemma 1) or ``approximate`` ((20)).
    selection: whether users may be left out (CRRAUS) or all must be served (CRRA).
    """

    num_users: int = 10
    max_bandwidth_hz: float = 5e6
    max_power_w: float = 10e-3
    bandwidth_range_hz: tuple[float, float] | None = None
    power_range_w: tuple[float, float] | None = None
    min_bandwidth_hz: float = 1e4
    min_power_w: float = 1e-5
    noise_psd_dbm_hz: float = -174.0
    payload_bit: float = 24.5e3
    deadline_s: float = 1e-3
    cell_radius_m: float = 500.0
    min_distance_m: float = 50.0
    shadowing_db: float = 8.0
    service_weights: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    curves: tuple[str, ...] = ("measured_resnet_0db",)
    max_ratio: float = 0.99
    success: str = "exact"
    selection: bool = False

    def __post_init__(self) -> None:
        for name in ("bandwidth_range_hz", "power_range_w", "service_weights"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        curves = self.curves if isinstance(self.curves, (list, tuple)) else (self.curves,)
        object.__setattr__(self, "curves", tuple(curves))
        self._check_values()
        self._check_minimums()
        _ = self.curve_table  # a bad curve is an error of the parameters, not of the first step

    def _check_values(self) -> None:
        validate.integer("num_users", self.num_users)
        positive = ("max_bandwidth_hz", "max_power_w", "min_bandwidth_hz", "min_power_w", "payload_bit", "deadline_s")
        for name in (*positive, "cell_radius_m", "min_distance_m"):
            validate.number(name, getattr(self, name))
        validate.not_above("min_distance_m", self.min_distance_m, "cell_radius_m", self.cell_radius_m)
        validate.number("noise_psd_dbm_hz", self.noise_psd_dbm_hz, low=-300.0, high=0.0)
        validate.number("shadowing_db", self.shadowing_db, high=channel.MAX_SHADOWING_DB, open_low=False)
        validate.number("max_ratio", self.max_ratio, high=0.999)
        validate.interval("bandwidth_range_hz", self.bandwidth_range_hz)
        validate.interval("power_range_w", self.power_range_w)
        validate.choice("success model", self.success, SUCCESS_MODELS)
        if not isinstance(self.selection, bool):
            raise TypeError(f"selection must be True or False, got {validate.text(self.selection)}")
        if not isinstance(self.service_weights, tuple) or not self.service_weights:
            raise ValueError(f"service_weights must hold numbers, got {validate.text(self.service_weights)}")
        if not self.curves:
            raise ValueError("curves must not be empty")
        for weight in self.service_weights:
            validate.number("service_weights", weight)

    def _check_minimums(self) -> None:
        served = 1 if self.selection else self.num_users
        top_bandwidth = self.bandwidth_range_hz[1] if self.bandwidth_range_hz else self.max_bandwidth_hz
        top_power = self.power_range_w[1] if self.power_range_w else self.max_power_w
        for what, floor, top in (
            ("bandwidth_hz", self.min_bandwidth_hz, top_bandwidth),
            ("power_w", self.min_power_w, top_power),
        ):
            if served * floor > top * (1 + 1e-9):
                hint = "" if self.selection else "; with selection (SemCom/CRRAUS-v0) users may be left out"
                raise ValueError(f"min_{what} {floor:g} for {served} user(s) exceeds the budget {top:g}{hint}")

    @property
    def noise_psd_w_hz(self) -> float:
        """Noise power spectral density [W/Hz]."""
        return channel.dbm_to_w(self.noise_psd_dbm_hz)

    @functools.cached_property
    def curve_table(self) -> np.ndarray[Any, Any]:
        """Parameters zeta1..zeta4 of each curve, (C, 4)."""
        table = [curve.load("crra", name, ZETA, CURVE_PINS).parameters for name in self.curves]
        for name, row in zip(self.curves, table, strict=True):
            if row["zeta1"] > 0 or row["zeta3"] <= 0 or row["zeta2"] <= max(0.0, row["zeta4"]):
                raise ValueError(f"curve {name!r}: eta must have zeta1 <= 0 < zeta3 and zeta2 > max(0, zeta4)")
        return np.array([[row[key] for key in ZETA] for row in table])

    @property
    def curve_numbers(self) -> np.ndarray[Any, Any]:
        """What the named curves hold, as a user's file may change under its name."""
        return self.curve_table


PRESETS: dict[str, Params] = {
    "default": Params(),
    "paper": Params(
        max_bandwidth_hz=20e6, max_power_w=1.0, shadowing_db=0.0, service_weights=(1.0,), curves=("resnet_0db",)
    ),
    "hard": Params(max_bandwidth_hz=10e6, max_power_w=1e-3),
    "select": Params(min_bandwidth_hz=0.6e6, min_power_w=0.3e-3, selection=True),
    "general": Params(bandwidth_range_hz=(2e6, 20e6), power_range_w=(1e-3, 0.1)),
}


@dataclasses.dataclass(frozen=True)
class Instance(Batch):
    """Channel states, service levels and budgets of n cells."""

    # (n, U) distance to the edge server [m] and bearing [rad]
    distance_m: Array
    angle_rad: Array
    # (n, U) standard deviation of the channel power gain [delta_i]
    gain: Array
    # (n, U) importance weight [w_i]
    weight: Array
    # (n, U) index of the user's task curve in Params.curves
    curve: Array
    # (n,) total bandwidth [Hz] and total power [W]
    bandwidth_hz: Array
    power_w: Array


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shape of every field of an Instance behind its first axis."""
    tails: dict[str, tuple[int, ...]] = {field.name: (params.num_users,) for field in dataclasses.fields(Instance)}
    return tails | {"bandwidth_hz": (), "power_w": ()}


def uniforms_per_instance(params: Params) -> int:
    """How many uniform variates one instance is made from."""
    return 5 * params.num_users + 2


def build(params: Params, uniform: Array) -> Instance:
    """Instances from uniform variates in [0, 1), shape (n, ``uniforms_per_instance``), row by row."""
    users = params.num_users
    place, bearing, shadow, service, task = (uniform[:, k * users : (k + 1) * users] for k in range(5))
    distance = channel.distance_m(place, params.min_distance_m, params.cell_radius_m)
    gain_db = -channel.path_loss_db(distance)
    if params.shadowing_db > 0:
        gain_db = gain_db + params.shadowing_db * channel.normal(shadow)
    levels = np.asarray(params.service_weights)
    return Instance(
        distance_m=distance,
        angle_rad=2 * np.pi * bearing,
        gain=channel.db_to_linear(gain_db),
        weight=levels[_pick(service, len(levels))],
        curve=_pick(task, len(params.curves)),
        bandwidth_hz=_budget(uniform[:, -2], params.bandwidth_range_hz, params.max_bandwidth_hz),
        power_w=_budget(uniform[:, -1], params.power_range_w, params.max_power_w),
    )


def check(params: Params, instance: Instance) -> None:
    """Raise ValueError for a gain or budget of zero, or a curve index beyond ``params.curves``."""
    for name in ("gain", "bandwidth_hz", "power_w"):
        if not bool((getattr(instance, name) > 0).all()):
            raise ValueError(f"instance.{name} must be positive everywhere")
    if bool((instance.curve >= len(params.curves)).any()):
        raise ValueError(f"instance.curve must be below {len(params.curves)}, the number of curves of the parameters")


def _pick(uniform: Array, count: int) -> Array:
    return np.zeros(uniform.shape, np.int64) if count == 1 else (uniform * count).astype(np.int64)


def _budget(uniform: Array, bounds: tuple[float, float] | None, fixed: float) -> Array:
    if bounds is None:
        return np.full(uniform.shape, float(fixed))
    low, high = np.log(bounds[0]), np.log(bounds[1])
    return np.exp(low + (high - low) * uniform)
