"""Random parameters of every id: valid ones far beyond the presets, and garbage in a field of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from semcom_gym import envs
from semcom_gym.envs.fading import SCENARIOS, Fading
from semcom_gym.envs.problems import Problem

Draw = Callable[[np.random.Generator, Any], Any]


def scaled(decades: float) -> Draw:
    """A positive number as many decades at most above or below what it was, or a pair of them in order."""

    def draw(rng: np.random.Generator, value: Any) -> Any:
        factor = 10.0 ** rng.uniform(-decades, decades)
        if isinstance(value, tuple):
            spread = 10.0 ** rng.choice([0.0, rng.uniform(0, 1)])
            return (value[0] * factor, max(value) * factor * spread)
        return value * factor

    return draw


def between(low: float, high: float) -> Draw:
    """A number from an interval, its ends at times."""
    return lambda rng, value: float(rng.choice([low, high, *rng.uniform(low, high, 6)]))


def whole(low: int, high: int, step: int = 1) -> Draw:
    """An integer."""
    return lambda rng, value: int(rng.choice(range(low, high + 1, step)))


def one_of(*values: Any) -> Draw:
    """One of some values."""
    return lambda rng, value: values[rng.integers(len(values))]


def pair(low: float, high: float) -> Draw:
    """Two numbers in order."""
    return lambda rng, value: tuple(sorted(rng.uniform(low, high, 2).tolist()))


CELL: dict[str, Draw] = {
    "noise_psd_dbm_hz": between(-200.0, -120.0),
    "cell_radius_m": between(60.0, 5000.0),
    "min_distance_m": between(1.0, 60.0),
    "shadowing_db": between(0.0, 15.0),
}
FIELDS: dict[str, dict[str, Draw]] = {
    "crra": CELL | {
        "num_users": whole(1, 30), "max_bandwidth_hz": scaled(2), "max_power_w": scaled(3),
        "bandwidth_range_hz": one_of(None, (1e6, 1e6), (1e5, 1e8)), "power_range_w": one_of(None, (1e-3, 1.0)),
        "min_bandwidth_hz": scaled(2), "min_power_w": scaled(2), "payload_bit": scaled(2), "deadline_s": scaled(2),
        "service_weights": one_of((1.0,), (1e-6, 1.0, 1e3), [0.5, 2]),
        "curves": one_of("vgg_0db", ("resnet_m5db", "measured_vgg_5db")), "max_ratio": between(1e-6, 0.999),
        "success": one_of("exact", "approximate"),
    },
    "sfma": CELL | {
        "num_users": whole(4, 16, 2), "max_power_w": scaled(2), "max_bandwidth_hz": scaled(2),
        "max_latency_s": scaled(1.5), "energy_per_group_j": scaled(2), "max_distortion": scaled(2),
        "energy_coefficient_j": scaled(2), "source_bit": scaled(2), "source_spread": between(0.0, 0.99),
        "encoder_cycles": scaled(2), "decoder_cycles": scaled(2), "cycles_spread": between(0.0, 0.99),
        "bs_frequency_hz": scaled(2), "user_frequency_hz": scaled(2), "rayleigh": one_of(True, False),
        "extra_loss_db": between(-60.0, 60.0), "clusters": whole(1, 9), "content_correlation": between(0.0, 1.0),
        "min_ratio": between(0.0625, 1.0),
        "curve": one_of("synthetic_gentle", "synthetic_steep_distorting", "measured_sc_sfma_small",
                        "measured_swinjscc_noma_small"),
    },
    "ascc": {
        "num_users": whole(1, 8), "num_antennas": whole(1, 8), "max_power_w": scaled(2), "blocklength": whole(1, 8192),
        "channel_uses": scaled(2), "channel_correlation": between(0.0, 1.0), "gain_range_db": pair(-60.0, 25.0),
        "data_table": one_of("measured_hevc_data", "measured_hyperprior_data", "synthetic_bpg_data"),
        "semantic_table": one_of("measured_hevc_semantic", "measured_hyperprior_semantic", "synthetic_bpg_semantic"),
        "beamforming": one_of("duality", "explicit"), "rate_action": one_of("relative", "absolute"),
    },
    "training": CELL | {
        "num_users": whole(1, 40), "total_bandwidth_hz": scaled(2), "max_power_w": scaled(2),
        "device_frequency_range_hz": scaled(1.5), "max_bs_frequency_hz": scaled(1.5), "psnr_range_db": pair(15.0, 30.0),
        "min_ratio": between(1e-3, 0.3), "max_ratio": between(0.01, 1.0), "samples": whole(1, 500),
        "sample_bit": scaled(3), "capacitance": scaled(2), "device_cycles_range": scaled(2),
        "bs_cycles_range": scaled(2), "time_weight": between(1e-3, 0.999),
        "psnr_curve": one_of("corrected", "published_printed", "deepjscc_small"),
    },
}  # fmt: skip
"""Of every paper: how a field is drawn, given what it is in a preset. Of ASCC, gain and power go no further
up: with more users than antennas and an SNR of 1e8, float32 takes the equations of (34) for singular."""
FADING: dict[str, Draw] = {
    "horizon": whole(1, 6), "block_s": scaled(2), "speed_range_m_s": pair(0.0, 40.0), "carrier_hz": scaled(1.5),
    "diversity": whole(1, 8), "decorrelation_m": scaled(2), "turn_m": scaled(2), "delay_blocks": whole(0, 4),
    "error_share": between(0.0, 1.0),
}  # fmt: skip
GARBAGE = (
    math.nan, math.inf, -math.inf, -1, 0, -1.5, 1e308, 1e-320, 10**400, True, None, "", "x", "nan", b"x", 1j, [], (),
    (1.0,), (2.0, 1.0), (math.nan, 1.0), ("a", "b"), [[1.0, 2.0], [3.0]], {}, {"a": 1}, object(), np.array([1.0, 2.0]),
    np.ones((2, 3)), 1e18, 1e-38, -1e18,
    np.float32("nan"), np.str_("x"), range(2), int,
)  # fmt: skip


def creator(env_id: str, *, vector: bool = False) -> Any:
    """The class behind an id; unlike Gymnasium's own makers it adds nothing to a message."""
    spec = gym.spec(env_id)
    return load_env_creator(str(spec.vector_entry_point if vector else spec.entry_point))


def problem_of(env_id: str) -> Problem:
    """The problem of an id."""
    return envs.problem(creator(env_id).problem_name)


def fields_of(env_id: str) -> dict[str, Draw]:
    """How the keyword arguments of an id are drawn."""
    found = FIELDS[problem_of(env_id).name] | (FADING if env_id in envs.FADING_IDS else {})
    return {name: draw for name, draw in found.items() if name not in creator(env_id).fixed}


def keywords(rng: np.random.Generator, env_id: str) -> dict[str, Any]:
    """Keyword arguments of an id: a preset, and some fields changed. Some do not go together, which is an error."""
    preset = str(rng.choice(list(problem_of(env_id).PRESETS)))
    params, fields = problem_of(env_id).PRESETS[preset], fields_of(env_id)
    share = rng.choice([0.1, 0.4])
    given = {"preset": preset} | ({"horizon": int(rng.integers(1, 5))} if env_id in envs.FADING_IDS else {})
    for name, draw in fields.items():
        if rng.random() < share:
            given[name] = draw(rng, getattr(params if hasattr(params, name) else SCENARIOS["walk"], name))
    if preset == "paper" and params.num_users != given.get("num_users", params.num_users):
        given |= {name: None for name in ("weights", "channel_matrix") if hasattr(params, name)}
    return given


def garbage(env_id: str) -> list[tuple[str, Any]]:
    """Every field of an id with every value that is wrong for most."""
    fields = [field.name for field in dataclasses.fields(problem_of(env_id).Params)]
    fields += [field.name for field in dataclasses.fields(Fading)] if env_id in envs.FADING_IDS else []
    return [(name, value) for name in ["preset", "penalty", *fields] for value in GARBAGE]
