"""Parameters and instances of the training problem (time and energy of training semantic communication networks).

Source: the training paper, Sections III, IV and VII, Table II. Constants the paper leaves out: docs/training.md.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np

from semcom_gym.envs import channel, curve, validate
from semcom_gym.envs.arrays import Array, Batch, to_numpy

PSNR_PARAMETERS = ("scale", "ratio_slope", "snr_slope", "offset")
LARGEST_SNR = "max_snr_db"  # a further entry of a curve's parameters, which the published ones lack
CURVE_PINS = {
    "corrected": "cc8b847f7f41d386e0fb8511163f818f6109e53711a219ca77874d3a86d2930d",
    "deepjscc_small": "aa3a99c519b8b6ba677bc47645018672901ec2f28f2f658717547e6c7af08762",
    "published_printed": "1e315b4224dae64440ac458794cb6684c41bb866c60c79cc555a47f29619dba2",
}
MAX_SNR_DB = 60.0  # three times the range that (58) was fitted on: a PSNR that needs more counts as out of reach


@dataclasses.dataclass(frozen=True)
class Params:
    """Parameters of the problem; the defaults are the ``default`` preset. Symbols of the paper in brackets.

    num_users [N]. total_bandwidth_hz [B_total]: shared by all. max_power_w [p^max]: of every device.
    device_frequency_range_hz: the cap of a device's clock [f^max] is uniform in it (equal ends: a constant).
    max_bs_frequency_hz [h^max]: of the base station's clock, for each device. psnr_range_db: a device's least PSNR
    [P^min] is uniform in it. min_ratio, max_ratio [rho^min, rho^max]: of the share of the data that is sent.
    samples [D] of ``sample_bit`` [d] each in a round. capacitance [kappa]. device_cycles_range [c1],
    bs_cycles_range [c2]: clock cycles per sample, uniform. noise_psd_dbm_hz [N0].
    cell_radius_m, min_distance_m, shadowing_db: the channel.
    time_weight [omega_1, 1/s]; the energy's [omega_2, 1/J] is 1 - time_weight. psnr_curve: name or path of (57).

    Table II (preset ``paper``) leaves out the weights (0.5 each here), the least distance (10 m) and the curve's
    constant that fits its own numbers.
    """

    num_users: int = 10
    total_bandwidth_hz: float = 10e6
    max_power_w: float = 0.01
    device_frequency_range_hz: tuple[float, float] = (0.3e9, 0.8e9)
    max_bs_frequency_hz: float = 5e9
    psnr_range_db: tuple[float, float] = (26.5, 28.5)
    min_ratio: float = 0.1
    max_ratio: float = 0.3
    samples: int = 32
    sample_bit: float = 1e6
    capacitance: float = 1e-28
    device_cycles_range: tuple[float, float] = (1e6, 3e6)
    bs_cycles_range: tuple[float, float] = (3e6, 5e6)
    noise_psd_dbm_hz: float = -174.0
    cell_radius_m: float = 250.0
    min_distance_m: float = 10.0
    shadowing_db: float = 4.0
    time_weight: float = 0.5
    psnr_curve: str = "corrected"

    def __post_init__(self) -> None:
        for name in ("device_frequency_range_hz", "psnr_range_db", "device_cycles_range", "bs_cycles_range"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)):
                raise TypeError(f"{name} must be a pair (low, high), got {validate.text(value)}")
            object.__setattr__(self, name, tuple(value))
            validate.interval(name, value)
        validate.integer("num_users", self.num_users)
        validate.integer("samples", self.samples)
        for name in ("total_bandwidth_hz", "max_power_w", "max_bs_frequency_hz", "sample_bit", "capacitance",
                     "cell_radius_m", "min_distance_m"):  # fmt: skip
            validate.number(name, getattr(self, name))
        validate.not_above("min_distance_m", self.min_distance_m, "cell_radius_m", self.cell_radius_m)
        validate.number("max_ratio", self.max_ratio, high=1.0)
        validate.number("min_ratio", self.min_ratio, high=self.max_ratio)
        validate.number("noise_psd_dbm_hz", self.noise_psd_dbm_hz, low=-300.0, high=0.0)
        validate.number("shadowing_db", self.shadowing_db, high=channel.MAX_SHADOWING_DB, open_low=False)
        validate.number("time_weight", self.time_weight, low=1e-3, high=1.0 - 1e-3, open_low=False)
        if self.psnr_range_db[1] > self.reachable_psnr_db:
            raise ValueError(
                f"psnr_range_db[1] {self.psnr_range_db[1]:g} cannot be met: curve {self.psnr_curve!r} reaches "
                f"{self.reachable_psnr_db:.2f} dB at max_ratio {self.max_ratio:g} and an SNR of "
                f"{self.reachable_snr_db:g} dB"
            )

    @property
    def noise_psd_w_hz(self) -> float:
        """Noise power spectral density [W/Hz]."""
        return channel.dbm_to_w(self.noise_psd_dbm_hz)

    @property
    def energy_weight(self) -> float:
        """omega_2 [1/J]."""
        return 1.0 - self.time_weight

    @property
    def round_bit(self) -> float:
        """D d: data of a device in one round, before compression [bit]."""
        return self.samples * self.sample_bit

    @functools.cached_property
    def _psnr_table(self) -> dict[str, float]:
        """The curve's parameters that count here."""
        table = curve.load("training", self.psnr_curve, PSNR_PARAMETERS, CURVE_PINS).parameters
        found = {name: table[name] for name in (*PSNR_PARAMETERS, LARGEST_SNR) if name in table}
        for name, value in found.items():
            if isinstance(value, list):
                raise ValueError(f"curve {self.psnr_curve!r}: {name} must be one number")
        return {name: float(value) for name, value in found.items()}

    @functools.cached_property
    def psnr_parameters(self) -> tuple[float, float, float, float]:
        """scale, ratio_slope, snr_slope [1/dB] and offset of (57)."""
        scale, ratio_slope, snr_slope, offset = (self._psnr_table[name] for name in PSNR_PARAMETERS)
        for name, value in (("scale", scale), ("ratio_slope", ratio_slope), ("snr_slope", snr_slope)):
            if value <= 0:
                raise ValueError(f"curve {self.psnr_curve!r}: {name} must be positive (Condition 1)")
        return scale, ratio_slope, snr_slope, offset

    @functools.cached_property
    def max_snr_db(self) -> float:
        """S^max, the largest SNR [dB] the curve was measured at: (57) stays there beyond it; inf if it states none."""
        if LARGEST_SNR not in self._psnr_table:
            return math.inf
        validate.number(f"curve {self.psnr_curve!r}: {LARGEST_SNR}", self._psnr_table[LARGEST_SNR], high=MAX_SNR_DB)
        return self._psnr_table[LARGEST_SNR]

    @property
    def reachable_snr_db(self) -> float:
        """The SNR [dB] up to which a PSNR counts as within reach."""
        return min(self.max_snr_db, MAX_SNR_DB)

    @property
    def reachable_psnr_db(self) -> float:
        """Largest PSNR [dB] within reach: at max_ratio and reachable_snr_db; 0 where (57) has no value."""
        scale, ratio_slope, snr_slope, offset = self.psnr_parameters
        return scale * math.log(max(ratio_slope * self.max_ratio + snr_slope * self.reachable_snr_db + offset, 1.0))

    @property
    def curve_numbers(self) -> tuple[float, ...]:
        """What the named curves hold, as a user's file may change under its name."""
        return (*self.psnr_parameters, *([self.max_snr_db] if LARGEST_SNR in self._psnr_table else []))


PRESETS: dict[str, Params] = {
    "default": Params(),
    "paper": Params(
        num_users=50, total_bandwidth_hz=20e6, max_power_w=0.1, device_frequency_range_hz=(1e9, 1e9),
        psnr_range_db=(25.0, 25.0), shadowing_db=8.0,
    ),
    "large": Params(num_users=200, total_bandwidth_hz=80e6),
    "hard": Params(total_bandwidth_hz=5e6, psnr_range_db=(27.0, 29.0)),
    "measured": Params(max_power_w=0.02, psnr_range_db=(33.5, 35.0), psnr_curve="deepjscc_small"),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Instance(Batch):
    """Channels, devices and requirements of n cells."""

    # (n, N) distance to the base station [m] and bearing [rad]
    distance_m: Array
    angle_rad: Array
    # (n, N) channel power gain [g_n]
    gain: Array
    # (n, N) cap of the device's clock frequency [Hz] and least PSNR [dB]
    max_frequency_hz: Array
    min_psnr_db: Array
    # (n, N) clock cycles per sample on the device [c1] and on the base station [c2]
    device_cycles: Array
    bs_cycles: Array


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Shape of every field of an Instance behind its first axis."""
    return {field.name: (params.num_users,) for field in dataclasses.fields(Instance)}


def uniforms_per_instance(params: Params) -> int:
    """How many uniform variates one instance is made from."""
    return 7 * params.num_users


def build(params: Params, uniform: Array) -> Instance:
    """Instances from uniform variates in [0, 1), shape (n, ``uniforms_per_instance``), row by row."""
    users = params.num_users
    place, bearing, shadow, clock, quality, device, station = (
        uniform[:, k * users : (k + 1) * users] for k in range(7)
    )
    distance = channel.distance_m(place, params.min_distance_m, params.cell_radius_m)
    gain_db = -channel.path_loss_db(distance)
    if params.shadowing_db > 0:
        gain_db = gain_db + params.shadowing_db * channel.normal(shadow)
    return Instance(
        distance_m=distance,
        angle_rad=2 * np.pi * bearing,
        gain=channel.db_to_linear(gain_db),
        max_frequency_hz=_between(params.device_frequency_range_hz, clock),
        min_psnr_db=_between(params.psnr_range_db, quality),
        device_cycles=_between(params.device_cycles_range, device),
        bs_cycles=_between(params.bs_cycles_range, station),
    )


def _between(bounds: tuple[float, float], uniform: Array) -> Array:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform


def check(params: Params, instance: Instance) -> None:
    """Raise ValueError for a value that is not positive, or a least PSNR out of reach, with the device's index."""
    for name in ("gain", "max_frequency_hz", "min_psnr_db", "device_cycles", "bs_cycles"):
        if not bool((getattr(instance, name) > 0).all()):
            raise ValueError(f"instance.{name} must be positive everywhere")
    wanted = to_numpy(instance.min_psnr_db)
    if bool((wanted > params.reachable_psnr_db * (1 + 1e-6)).any()):
        row, device = np.unravel_index(np.argmax(wanted), wanted.shape)
        raise ValueError(
            f"instance.min_psnr_db of device {device} (instance {row}) is {wanted[row, device]:.2f}, above the "
            f"{params.reachable_psnr_db:.2f} dB that max_ratio and an SNR of {params.reachable_snr_db:g} dB reach"
        )
