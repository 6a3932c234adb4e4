"""Bad input to the training problem: one clear line that names the thing, and the device where one is to blame."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.envs import curve

TRAINING = envs.problem("training")
SHIPPED = Path(curve.__file__).parent / "training" / "curves" / "corrected.json"


def raises(kind: type[Exception], message: str) -> Any:
    """pytest.raises, and the message is a single line."""
    return pytest.raises(kind, match=message, check=lambda error: "\n" not in str(error))


BAD_PARAMETERS = [
    ({"num_users": 0}, ValueError, "num_users must be >= 1, got 0"),
    ({"samples": 1.5}, TypeError, "samples must be an integer, got 1.5"),
    ({"total_bandwidth_hz": 0.0}, ValueError, "total_bandwidth_hz must be finite, > 0, got 0.0"),
    ({"max_power_w": -1.0}, ValueError, "max_power_w must be finite, > 0, got -1.0"),
    ({"max_bs_frequency_hz": float("nan")}, ValueError, "max_bs_frequency_hz must be finite, > 0, got nan"),
    ({"sample_bit": "big"}, TypeError, "sample_bit must be a number, got 'big'"),
    ({"capacitance": 0}, ValueError, "capacitance must be finite, > 0, got 0"),
    (
        {"device_frequency_range_hz": 1e9},
        TypeError,
        r"device_frequency_range_hz must be a pair \(low, high\), got 1000000000",
    ),
    ({"device_frequency_range_hz": (0.0, 1e9)}, ValueError, r"device_frequency_range_hz\[0\] must be finite, > 0"),
    ({"psnr_range_db": (28.0, 27.0)}, ValueError, "psnr_range_db must have low <= high"),
    ({"psnr_range_db": None}, TypeError, r"psnr_range_db must be a pair \(low, high\), got None"),
    ({"bs_cycles_range": (3e6,)}, ValueError, "bs_cycles_range must be None or a pair"),
    ({"max_ratio": 1.2}, ValueError, "max_ratio must be finite, > 0 and <= 1, got 1.2"),
    ({"min_ratio": 0.4}, ValueError, "min_ratio must be finite, > 0 and <= 0.3, got 0.4"),
    ({"min_distance_m": 300.0}, ValueError, "min_distance_m 300 exceeds cell_radius_m 250"),
    ({"noise_psd_dbm_hz": 5.0}, ValueError, "noise_psd_dbm_hz must be finite, > -300 and <= 0, got 5.0"),
    ({"shadowing_db": -1.0}, ValueError, "shadowing_db must be finite, >= 0 and <= 40, got -1.0"),
    ({"time_weight": 0.0}, ValueError, "time_weight must be finite, >= 0.001 and <= 0.999, got 0.0"),
    ({"time_weight": 1.0}, ValueError, "time_weight must be finite, >= 0.001 and <= 0.999, got 1.0"),
    ({"psnr_curve": "correct"}, ValueError, "unknown training curve 'correct'; valid: .*did you mean 'corrected'"),
    (
        {"psnr_range_db": (27.0, 34.0)},
        ValueError,
        r"psnr_range_db\[1\] 34 cannot be met: curve 'corrected' reaches 33.28 dB at max_ratio 0.3 and an SNR of 60",
    ),
]


@pytest.mark.parametrize(("override", "kind", "message"), BAD_PARAMETERS)
def test_bad_parameters(override: dict[str, Any], kind: type[Exception], message: str) -> None:
    with raises(kind, message):
        gym.make("SemCom/Training-v0", **override)
    with raises(kind, message):
        gym.make_vec("SemCom/Training-v0", num_envs=2, vectorization_mode="vector_entry_point", **override)
    with raises(kind, message):
        TRAINING.preset("default", **override)


def case() -> tuple[Any, Any, dict[str, np.ndarray]]:
    params = TRAINING.preset("default", num_users=3)
    fields = {
        "power_w": np.full((2, 3), 5e-3), "bandwidth_hz": np.full((2, 3), 1e6),
        "device_frequency_hz": np.full((2, 3), 2e8), "bs_frequency_hz": np.full((2, 3), 1e9),
        "ratio": np.full((2, 3), 0.2),
    }  # fmt: skip
    return params, TRAINING.sample_split(params, "test", 2), fields


BAD_ALLOCATIONS = [
    ({"power_w": np.full((2, 3), -0.5)}, "allocation.power_w has a negative value: -0.5"),
    ({"bandwidth_hz": np.full((2, 3), np.nan)}, "allocation.bandwidth_hz has a value that is not finite"),
    ({"ratio": np.full(3, 0.2)}, r"allocation.ratio must have shape \(2, 3\), got \(3,\)"),
    ({"bs_frequency_hz": 1e9}, r"allocation.bs_frequency_hz must have shape \(2, 3\), got \(\)"),
]


@pytest.mark.parametrize(("change", "message"), BAD_ALLOCATIONS)
def test_bad_allocations(change: dict[str, Any], message: str) -> None:
    params, instance, fields = case()
    TRAINING.evaluate(params, instance, TRAINING.Allocation(**fields))
    with raises(ValueError, message):
        TRAINING.evaluate(params, instance, TRAINING.Allocation(**(fields | change)))


BAD_INSTANCES = [
    ("gain", 0.0, "instance.gain must be positive everywhere"),
    ("gain", -1e-9, "instance.gain has a negative value: -1e-09"),
    ("max_frequency_hz", 0.0, "instance.max_frequency_hz must be positive everywhere"),
    ("device_cycles", np.inf, "instance.device_cycles has a value that is not finite"),
    ("min_psnr_db", 40.0, r"instance.min_psnr_db of device 2 \(instance 1\) is 40.00, above the 33.28 dB that"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_INSTANCES)
def test_bad_instances(field: str, value: float, message: str) -> None:
    params, instance, fields = case()
    values = getattr(instance, field).copy()
    values[1, 2] = value
    bad = dataclasses.replace(instance, **{field: values})
    with raises(ValueError, message):
        TRAINING.evaluate(params, bad, TRAINING.Allocation(**fields))
    envs_of_two = gym.make_vec("SemCom/Training-v0", 2, "vector_entry_point", num_users=3)
    with raises(ValueError, message):
        envs_of_two.reset(options={"instance": bad})


def test_zero_bandwidth_is_reported_with_its_device() -> None:
    from semcom_gym.envs.training import physics

    params, instance, fields = case()
    fields["bandwidth_hz"][1, 2] = 0.0
    decision = TRAINING.Allocation(**fields)
    outcome = TRAINING.evaluate(params, instance, decision)
    assert outcome.violation["unfinished"].tolist() == [0.0, 1.0]
    assert physics.diagnose(params, instance, decision)[1] == "unfinished of device 2 exceeds its limit by 1"


# --- curve files -----------------------------------------------------------------------------------------------------
GOOD = json.loads(SHIPPED.read_text())


def write(path: Path, **changes: Any) -> str:
    parameters = {key: value for key, value in (GOOD["parameters"] | changes).items() if value is not ...}
    path.write_text(json.dumps(GOOD | {"name": "mine", "parameters": parameters}))
    return str(path)


BAD_CURVES = [
    ({"scale": -1.0}, "mine.json': scale must be positive"),
    ({"ratio_slope": 0.0}, "mine.json': ratio_slope must be positive"),
    ({"snr_slope": [0.03, 0.04]}, "mine.json': snr_slope must be one number"),
    ({"offset": ...}, "mine.json' lacks the parameters offset"),
    ({"scale": "big"}, "parameter scale must be a finite number, got 'big'"),
    ({"offset": -5.0}, r"psnr_range_db\[1\] 28.5 cannot be met: curve '.*mine.json' reaches 0.00 dB"),
    ({"max_snr_db": 0}, "mine.json': max_snr_db must be finite, > 0 and <= 60, got 0"),
    ({"max_snr_db": 60.5}, "mine.json': max_snr_db must be finite, > 0 and <= 60, got 60.5"),
    ({"max_snr_db": [20.0]}, "mine.json': max_snr_db must be one number"),
    ({"max_snr_db": True}, "parameter max_snr_db must be a finite number, got True"),
    ({"max_snr_db": float("inf")}, "parameter max_snr_db must be a finite number, got inf"),
    (
        {"max_snr_db": 12.0},
        r"psnr_range_db\[1\] 28.5 cannot be met: curve '.*mine.json' reaches 28.11 dB at max_ratio 0.3 and an SNR of",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CURVES)
def test_bad_curve_files(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", **changes)
    with raises(ValueError, message):
        TRAINING.preset("default", psnr_curve=path)


def test_curve_of_another_problem() -> None:
    other = Path(curve.__file__).parent / "crra" / "curves" / "resnet_0db.json"
    with raises(ValueError, "is for 'crra', not for 'training'"):
        TRAINING.preset("default", psnr_curve=str(other))


def test_an_instance_beyond_the_curves_largest_snr(tmp_path: Path) -> None:
    params = TRAINING.preset(
        "default", num_users=3, psnr_curve=write(tmp_path / "mine.json", max_snr_db=12.0), psnr_range_db=(26.0, 28.0)
    )
    instance, fields = TRAINING.sample_split(params, "test", 2), case()[2]
    wanted = instance.min_psnr_db.copy()
    wanted[0, 1] = 28.2
    bad = dataclasses.replace(instance, min_psnr_db=wanted)
    with raises(ValueError, r"device 1 \(instance 0\) is 28.20, above the 28.11 dB that max_ratio and an SNR of 12 dB"):
        TRAINING.evaluate(params, bad, TRAINING.Allocation(**fields))


def test_own_curve_file_works(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", scale=20.0, offset=4.0)
    env = gym.make("SemCom/Training-v0", psnr_curve=path).unwrapped
    env.reset(seed=0)
    info = env.step(np.zeros(env.action_space.shape))[4]
    terms = info["terms"]
    expected = 20.0 * np.log(1.52 * terms["ratio"] + 0.3 * np.log10(terms["snr"]) + 4.0)
    np.testing.assert_allclose(terms["psnr_db"], expected, rtol=1e-12)
    assert info["feasible"]
