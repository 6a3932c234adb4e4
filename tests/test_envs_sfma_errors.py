"""Bad input to the SC-SFMA problem: one clear line that names the thing; what no decision can meet is reported."""

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

SFMA = envs.problem("sfma")
SHIPPED = Path(curve.__file__).parent / "sfma" / "curves" / "synthetic_gentle.json"


def raises(kind: type[Exception], message: str) -> Any:
    """pytest.raises, and the message is a single line."""
    return pytest.raises(kind, match=message, check=lambda error: "\n" not in str(error))


BAD_PARAMETERS = [
    ({"num_users": 7}, ValueError, "num_users must be even and at most 100, got 7"),
    ({"num_users": 102}, ValueError, "num_users must be even and at most 100, got 102"),
    ({"num_users": 2}, ValueError, "num_users must be >= 4, got 2"),
    ({"num_users": 10.0}, TypeError, "num_users must be an integer, got 10.0"),
    ({"clusters": 0}, ValueError, "clusters must be >= 1, got 0"),
    ({"max_power_w": 0.0}, ValueError, "max_power_w must be finite, > 0, got 0.0"),
    ({"max_bandwidth_hz": float("nan")}, ValueError, "max_bandwidth_hz must be finite, > 0, got nan"),
    ({"max_latency_s": -0.1}, ValueError, "max_latency_s must be finite, > 0, got -0.1"),
    ({"energy_per_group_j": "much"}, TypeError, "energy_per_group_j must be a number, got 'much'"),
    ({"min_ratio": 1.5}, ValueError, "min_ratio must be finite, > 0 and <= 1, got 1.5"),
    ({"source_spread": 1.0}, ValueError, "source_spread must be finite, >= 0 and <= 0.99, got 1.0"),
    ({"content_correlation": 1.1}, ValueError, "content_correlation must be finite, >= 0 and <= 1, got 1.1"),
    ({"noise_psd_dbm_hz": 5.0}, ValueError, "noise_psd_dbm_hz must be finite, > -300 and <= 0, got 5.0"),
    ({"shadowing_db": -1.0}, ValueError, "shadowing_db must be finite, >= 0 and <= 40, got -1.0"),
    ({"rayleigh": 1}, TypeError, "rayleigh must be True or False, got 1"),
    ({"min_distance_m": 300.0}, ValueError, "min_distance_m 300 exceeds cell_radius_m 250"),
    ({"min_ratio": 0.05}, ValueError, "curve 'synthetic_steep' starts at ratio 0.0625, above min_ratio"),
    ({"curve": "synthetic_step"}, ValueError, "unknown sfma curve 'synthetic_step'; valid: .*synthetic_steep.*a path"),
]


@pytest.mark.parametrize(("override", "kind", "message"), BAD_PARAMETERS)
def test_bad_parameters(override: dict[str, Any], kind: type[Exception], message: str) -> None:
    with raises(kind, message):
        gym.make("SemCom/SFMA-v0", **override)
    with raises(kind, message):
        gym.make_vec("SemCom/SFMA-v0", num_envs=2, vectorization_mode="vector_entry_point", **override)
    with raises(kind, message):
        SFMA.preset("default", **override)


def test_unknown_preset_of_another_problem() -> None:
    known = "default, paper, loose, tight, pruned, figures, measured"
    with raises(ValueError, f"unknown sfma preset 'hard'; valid: {known}"):
        gym.make("SemCom/SFMA-v0", preset="hard")


def case(users: int = 4) -> tuple[Any, Any, dict[str, np.ndarray]]:
    params = SFMA.preset("loose", num_users=users)
    groups = users // 2
    fields = {
        "pair": np.array([[0, 5]]),
        "power_w": np.full((1, groups), 1.0 / groups),
        "bandwidth_hz": np.full((1, groups), 10e6 / groups),
        "ratio": np.full((1, groups), 0.5),
    }
    return params, SFMA.sample_split(params, "test", 1), fields


BAD_ALLOCATIONS = [
    ({"pair": np.array([[0.0, 5.0]])}, TypeError, "allocation.pair must hold integers, got float64"),
    ({"pair": np.array([[True, False]])}, TypeError, "allocation.pair must hold integers, got bool"),
    ({"pair": np.array([[0, 6]])}, ValueError, "allocation.pair must be below 6, the number of pairs, got 6"),
    ({"pair": np.array([[-1, 5]])}, ValueError, "allocation.pair has a negative value: -1"),
    ({"pair": np.array([[0, 5, 1]])}, ValueError, r"allocation.pair must have shape \(1, 2\), got \(1, 3\)"),
    ({"ratio": np.array([[0.0, 0.5]])}, ValueError, "allocation.ratio must be positive everywhere"),
    ({"power_w": np.array([[-0.5, 0.5]])}, ValueError, "allocation.power_w has a negative value: -0.5"),
    ({"power_w": np.array([[np.nan, 0.5]])}, ValueError, "allocation.power_w has a value that is not finite"),
    ({"bandwidth_hz": np.array([1e6, 1e6])}, ValueError, r"allocation.bandwidth_hz must have shape \(1, 2\)"),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD_ALLOCATIONS)
def test_bad_allocations(change: dict[str, np.ndarray], kind: type[Exception], message: str) -> None:
    params, instance, fields = case()
    assert SFMA.evaluate(params, instance, SFMA.Allocation(**fields)).feasible.all()
    with raises(kind, message):
        SFMA.evaluate(params, instance, SFMA.Allocation(**(fields | change)))


BAD_INSTANCES = [
    ("similarity", 1.01, "instance.similarity must be at most 1"),
    ("similarity", -0.1, "instance.similarity has a negative value: -0.1"),
    ("rho_max", 1.2, "instance.rho_max must be at most 1"),
    ("rho_min", 0.99, "instance.rho_min must not exceed instance.rho_max"),
    ("gain", 0.0, "instance.gain must be positive everywhere"),
    ("source_bit", 0.0, "instance.source_bit must be positive everywhere"),
    ("power_slope", 0.0, "instance.power_slope must be positive everywhere"),
    ("distortion_level", np.inf, "instance.distortion_level has a value that is not finite"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_INSTANCES)
def test_bad_instances(field: str, value: float, message: str) -> None:
    params, instance, fields = case()
    bad = dataclasses.replace(instance, **{field: np.full_like(getattr(instance, field), value)})
    with raises(ValueError, message):
        SFMA.evaluate(params, bad, SFMA.Allocation(**fields))
    with raises(ValueError, message):
        gym.make("SemCom/SFMA-v0", preset="loose", num_users=4).reset(options={"instance": bad})


def test_instance_of_another_size() -> None:
    params, _, fields = case()
    other = SFMA.sample_split(SFMA.preset("loose", num_users=6), "test", 1)
    with raises(ValueError, r"instance.distance_m must have shape \(1, 4\), got \(1, 6\)"):
        SFMA.evaluate(params, other, SFMA.Allocation(**fields))


@pytest.mark.parametrize(
    ("override", "broken"),
    [
        ({"max_bandwidth_hz": 1e4}, "latency"),
        ({"max_power_w": 1e-9}, "latency"),
        ({"max_latency_s": 0.01}, "latency"),  # coding alone takes longer
        ({"max_distortion": 1e-5}, "distortion"),  # no ratio is good enough: E_f is empty
        ({"energy_per_group_j": 1e-6}, "energy"),
    ],
)
def test_limits_that_nothing_can_meet_are_reported(override: dict[str, float], broken: str) -> None:
    """Floors above the budgets: no exception, a finite reward, and the constraint that is broken."""
    for dtype in ("float32", "float64"):
        env = gym.make_vec("SemCom/SFMA-v0", 8, "vector_entry_point", dtype=dtype, **override)
        env.reset(seed=0)
        actions = np.random.default_rng(0).choice([-1.0, 0.3, 1.0], env.action_space.shape)
        _, reward, _, _, info = env.step(actions)
        final = info["final_info"]
        assert np.isfinite(reward).all()
        assert not final["feasible"].any()
        assert (final[f"violation/{broken}"] > 1e-3).all()
        for name in ("power", "bandwidth", "ratio", "pairing"):
            assert (final[f"violation/{name}"] <= 1e-6).all()


# --- curve files -----------------------------------------------------------------------------------------------------
GOOD = json.loads(SHIPPED.read_text())
TABLE = np.array(GOOD["parameters"]["distortion"])


def write(path: Path, **changes: Any) -> str:
    parameters = {key: value for key, value in (GOOD["parameters"] | changes).items() if value is not ...}
    path.write_text(json.dumps(GOOD | {"name": "mine", "parameters": parameters}))
    return str(path)


BAD_CURVES: list[tuple[dict[str, Any], str]] = [
    ({"distortion": TABLE[:, ::-1].tolist()}, "distortion must not rise with the ratio, at any tilt"),
    ({"distortion_tilt": 0.6}, "distortion must not rise with the ratio, at any tilt"),
    ({"distortion": (-TABLE).tolist()}, "distortion must be positive"),
    ({"rho_max": [1.2, 0.5]}, r"rho_max must be within \[rho_min, 1\]"),
    ({"rho_min": [0.95, 0.02]}, r"rho_max must be within \[rho_min, 1\]"),
    ({"rho_min": [-0.1, 0.02]}, r"rho_min must be within \[0, 1\]"),
    ({"distortion": [TABLE[0].tolist(), TABLE[1, :5].tolist()]}, "distortion must be a number or a rectangular table"),
    ({"distortion": TABLE[:1].tolist()}, r"distortion must have shape \(2, 16\), got \(1, 16\)"),
    ({"steepness": 5.0}, r"steepness must have shape \(2,\), got \(\)"),
    ({"power_share": [0.75]}, r"power_share must have shape \(\), got \(1,\)"),
    ({"steepness": [5.0, 0.0]}, "midpoints and steepness must be positive"),
    ({"power_share": 1.0}, r"power_share must be within \(0, 1\)"),
    ({"similarity": [0.5, 0.2]}, "similarity must rise from 0 or more to at most 1"),
    ({"similarity": 0.5}, r"rho_min must have shape \(\), got \(2,\)"),
    ({"ratio_grid": np.linspace(0.06, 0.9, 16).tolist()}, "ratio_grid must rise from above 0 to exactly 1"),
    ({"parameter_spread": -0.1}, "spreads and tilt must not be negative"),
    ({"distortion_level": [1.2, 0.8]}, "distortion_level must be a pair 0 < low <= high"),
    ({"distortion_level": 1.0}, r"distortion_level must have shape \(2,\), got \(\)"),
    ({"rho_min": "low"}, "parameter rho_min must be a finite number, got 'low'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD_CURVES)
def test_bad_curve_files(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.json", **changes)
    with raises(ValueError, message):
        SFMA.preset("default", curve=path)


@pytest.mark.parametrize("missing", ["distortion", "rho_min", "power_share"])
def test_curve_file_that_lacks_a_parameter(missing: str, tmp_path: Path) -> None:
    path = write(tmp_path / "short.json", **{missing: ...})
    with raises(ValueError, f"curve file '.*short.json' lacks the parameters {missing}"):
        SFMA.preset("default", curve=path)


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", rho_max=[1.2, 0.5])
    with raises(ValueError, "mine.json"):
        SFMA.preset("default", curve=path)


def test_curve_of_another_problem() -> None:
    other = Path(curve.__file__).parent / "crra" / "curves" / "resnet_0db.json"
    with raises(ValueError, "is for 'crra', not for 'sfma'"):
        SFMA.preset("default", curve=str(other))


def test_own_curve_file_works(tmp_path: Path) -> None:
    """A profile without interference or spread: the rates are those of the superposition alone."""
    path = write(
        tmp_path / "clean.json", rho_min=[0.0, 0.0], rho_max=[0.0, 0.0], parameter_spread=0.0, distortion_spread=0.0
    )
    env = gym.make("SemCom/SFMA-v0", preset="loose", curve=path).unwrapped
    env.reset(seed=0)
    info = env.step(np.zeros(env.action_space.shape))[4]
    terms = info["terms"]
    assert info["feasible"]
    assert (terms["rho"] == 0).all()
    users = np.array([[i, j] for i in range(10) for j in range(i + 1, 10)])[terms["pair"]]
    half = terms["power_w"][:, None] / 2 * env.instance.gain[0][users]
    noise = terms["bandwidth_hz"][:, None] * 10**-17.4 * 1e-3
    expected = terms["bandwidth_hz"][:, None] * np.log2(1 + half / noise) / 1e6
    np.testing.assert_allclose(terms["rate_mbit_s"], expected, rtol=1e-9)
