"""Parameters and instances of the training problem: Table II, distributions, what PSNR leaves possible."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.envs import channel
from semcom_gym.envs.training import actions

TRAINING = envs.problem("training")


def test_the_paper_preset_is_table_ii() -> None:
    params = TRAINING.preset("paper")
    table = {
        "num_users": 50, "total_bandwidth_hz": 20e6, "shadowing_db": 8.0, "noise_psd_dbm_hz": -174.0,
        "capacitance": 1e-28, "samples": 32, "sample_bit": 1e6, "device_cycles_range": (1e6, 3e6),
        "bs_cycles_range": (3e6, 5e6), "device_frequency_range_hz": (1e9, 1e9), "max_bs_frequency_hz": 5e9,
        "psnr_range_db": (25.0, 25.0), "min_ratio": 0.1, "max_ratio": 0.3, "cell_radius_m": 250.0,
    }  # fmt: skip
    assert {name: getattr(params, name) for name in table} == table
    assert 10 * math.log10(params.max_power_w) + 30 == pytest.approx(20.0)  # dBm
    assert params.noise_psd_w_hz == pytest.approx(10**-20.4)
    assert params.round_bit == 32e6
    assert params.time_weight + params.energy_weight == 1.0


def test_channel_and_devices_are_drawn_as_described() -> None:
    params = TRAINING.preset("default", num_users=20)
    cells = TRAINING.sample(params, np.random.default_rng(0), 4000)
    assert cells.distance_m.min() >= params.min_distance_m
    assert cells.distance_m.max() <= params.cell_radius_m
    middle = math.sqrt((params.min_distance_m**2 + params.cell_radius_m**2) / 2)  # half of the area lies inside
    assert (cells.distance_m < middle).mean() == pytest.approx(0.5, abs=0.01)
    shadow = 10 * np.log10(cells.gain) + channel.path_loss_db(cells.distance_m)
    assert shadow.std() == pytest.approx(4.0, rel=0.02)
    assert shadow.mean() == pytest.approx(0.0, abs=0.1)
    for field, bounds in (
        ("max_frequency_hz", params.device_frequency_range_hz),
        ("min_psnr_db", params.psnr_range_db),
        ("device_cycles", params.device_cycles_range),
        ("bs_cycles", params.bs_cycles_range),
    ):
        values, (low, high) = getattr(cells, field), bounds
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, rel=0.01)
        assert abs(np.corrcoef(values.ravel(), cells.gain.ravel())[0, 1]) < 0.02
    flat = TRAINING.sample(TRAINING.preset("default", shadowing_db=0.0), np.random.default_rng(0), 10)
    np.testing.assert_allclose(10 * np.log10(flat.gain), -channel.path_loss_db(flat.distance_m))


def test_equal_ends_are_a_constant() -> None:
    cells = TRAINING.sample(TRAINING.preset("paper"), np.random.default_rng(0), 10)
    assert (cells.max_frequency_hz == 1e9).all()
    assert (cells.min_psnr_db == 25.0).all()
    listed = TRAINING.preset("default", device_frequency_range_hz=[1e9, 1e9])
    assert listed.device_frequency_range_hz == (1e9, 1e9)
    assert hash(listed) == hash(TRAINING.preset("default", device_frequency_range_hz=(1e9, 1e9)))


@pytest.mark.parametrize(
    ("preset", "share"),
    [("default", (0.9, 1.0)), ("paper", (1.0, 1.0)), ("large", (0.85, 1.0)), ("hard", (0.85, 0.95))],
)
def test_equal_bandwidth_can_meet_psnr_in_most_cells(preset: str, share: tuple[float, float]) -> None:
    """The anchor shares bandwidth equally: a preset where it mostly fails would have few instances to score."""
    params = TRAINING.preset(preset)
    cells = TRAINING.sample_split(params, "validation", 200)
    noise = params.noise_psd_w_hz * params.total_bandwidth_hz / params.num_users
    snr_db = 10 * np.log10(params.max_power_w * cells.gain / noise)
    met = 18.67 * np.log(1.52 * 0.3 + 0.03 * snr_db + 3.69) >= cells.min_psnr_db
    low, high = share
    assert low <= met.all(axis=-1).mean() <= high
    ceiling = actions.bandwidth_ceiling(params, cells)
    np.testing.assert_array_equal(ceiling >= params.total_bandwidth_hz / params.num_users, met)


@pytest.mark.parametrize("curve", ["corrected", "published_printed"])
def test_reachable_psnr(curve: str) -> None:
    params = TRAINING.preset("paper", psnr_curve=curve)
    expected = {"corrected": 18.67 * math.log(1.52 * 0.3 + 0.03 * 60 + 3.69),
                "published_printed": 18.67 * math.log(3.35 * (1.52 * 0.3 + 0.03 * 60) + 5.11)}  # fmt: skip
    assert params.reachable_psnr_db == pytest.approx(expected[curve], rel=1e-12)
    top = params.reachable_psnr_db
    edge: Any = TRAINING.preset("paper", psnr_curve=curve, psnr_range_db=(top, top))
    cell = TRAINING.sample(edge, np.random.default_rng(0), 3)
    outcome = TRAINING.evaluate(edge, cell, TRAINING.decode(edge, cell, np.zeros((3, 250))))
    assert outcome.feasible.all()
    assert np.isfinite(outcome.objective).all()
