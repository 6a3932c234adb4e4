"""Bad input: one clear line that names the thing and the valid choices."""

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

CRRA = envs.problem("crra")
SHIPPED = Path(curve.__file__).parent / "crra" / "curves" / "resnet_0db.json"


def raises(kind: type[Exception], message: str) -> Any:
    """pytest.raises, and the message is a single line."""
    return pytest.raises(kind, match=message, check=lambda error: "\n" not in str(error))


def vector(**kwargs: Any) -> Any:
    return gym.make_vec("SemCom/CRRA-v0", num_envs=2, vectorization_mode="vector_entry_point", **kwargs)


def test_unknown_problem() -> None:
    with raises(ValueError, "unknown problem 'cra'; valid: crra, sfma, ascc, training; did you mean 'crra'"):
        envs.problem("cra")


def test_unknown_preset(env_id: str) -> None:
    problem = gym.make(env_id).unwrapped.problem.name
    with raises(ValueError, f"unknown {problem} preset 'papr'; valid: .*default.*; did you mean 'paper'"):
        gym.make(env_id, preset="papr")


def test_unknown_parameter(env_id: str) -> None:
    problem = gym.make(env_id).unwrapped.problem.name
    with raises(TypeError, f"{problem} parameters: unknown argument 'max_powr_w'; valid: .*max_power_w"):
        gym.make(env_id, max_powr_w=1.0)


def test_the_id_decides_about_selection() -> None:
    with raises(TypeError, "fixes selection=False; use the other id"):
        gym.make("SemCom/CRRA-v0", selection=True)


BAD_PARAMETERS = [
    ({"num_users": 0}, ValueError, "num_users must be >= 1, got 0"),
    ({"num_users": 2.5}, TypeError, "num_users must be an integer, got 2.5"),
    ({"num_users": True}, TypeError, "num_users must be an integer, got True"),
    ({"max_bandwidth_hz": -1.0}, ValueError, "max_bandwidth_hz must be finite, > 0, got -1.0"),
    ({"max_power_w": 0.0}, ValueError, "max_power_w must be finite, > 0, got 0.0"),
    ({"max_power_w": float("nan")}, ValueError, "max_power_w must be finite, > 0, got nan"),
    ({"min_power_w": -1e-3}, ValueError, "min_power_w must be finite, > 0, got -0.001"),
    ({"min_bandwidth_hz": "much"}, TypeError, "min_bandwidth_hz must be a number, got 'much'"),
    ({"payload_bit": float("inf")}, ValueError, "payload_bit must be finite, > 0, got inf"),
    ({"deadline_s": 0}, ValueError, "deadline_s must be finite, > 0, got 0"),
    ({"noise_psd_dbm_hz": 5.0}, ValueError, "noise_psd_dbm_hz must be finite, > -300 and <= 0, got 5.0"),
    ({"shadowing_db": -1.0}, ValueError, "shadowing_db must be finite, >= 0 and <= 40, got -1.0"),
    ({"max_ratio": 1.0}, ValueError, "max_ratio must be finite, > 0 and <= 0.999, got 1.0"),
    ({"min_distance_m": 600.0}, ValueError, "min_distance_m 600 exceeds cell_radius_m 500"),
    ({"bandwidth_range_hz": (2e6, 1e6)}, ValueError, "bandwidth_range_hz must have low <= high"),
    ({"power_range_w": (1e-3,)}, ValueError, r"power_range_w must be None or a pair \(low, high\)"),
    ({"success": "exakt"}, ValueError, "unknown success model 'exakt'; valid: exact, approximate"),
    ({"service_weights": ()}, ValueError, "service_weights must hold numbers, got ()"),
    ({"service_weights": (0.5, -0.5)}, ValueError, "service_weights must be finite, > 0, got -0.5"),
    ({"curves": ("resnet_1db",)}, ValueError, "unknown crra curve 'resnet_1db'; valid: .*resnet_0db.*a path"),
    ({"min_bandwidth_hz": 0.6e6}, ValueError, r"min_bandwidth_hz 600000 for 10 user\(s\) exceeds the budget 5e\+06"),
    ({"min_power_w": 2e-3}, ValueError, r"min_power_w 0.002 for 10 user\(s\) exceeds the budget 0.01"),
]


@pytest.mark.parametrize(("override", "kind", "message"), BAD_PARAMETERS)
def test_bad_parameters(override: dict[str, Any], kind: type[Exception], message: str) -> None:
    for build in (lambda: gym.make("SemCom/CRRA-v0", **override), lambda: vector(**override)):
        with raises(kind, message):
            build()
    with raises(kind, message):
        CRRA.preset("default", **override)


def test_the_floor_message_points_to_selection() -> None:
    with raises(ValueError, "SemCom/CRRAUS-v0"):
        gym.make("SemCom/CRRA-v0", preset="select")
    with raises(ValueError, r"for 1 user\(s\) exceeds the budget"):
        gym.make("SemCom/CRRAUS-v0", min_bandwidth_hz=6e6)


@pytest.mark.parametrize(
    ("kwargs", "kind", "message"),
    [
        ({"backend": "jax"}, ValueError, "unknown backend 'jax'; valid: numpy, torch"),
        ({"dtype": "float16"}, ValueError, "unknown dtype 'float16'; valid: float32, float64"),
        ({"device": "cuda"}, ValueError, "device 'cuda' needs backend='torch'"),
        ({"render_mode": "rgb_array"}, ValueError, "a vector environment does not render"),
        ({"penalty": -1.0}, ValueError, "penalty must be finite, >= 0, got -1.0"),
    ],
)
def test_bad_arguments_of_the_vector_environment(kwargs: dict[str, Any], kind: type[Exception], message: str) -> None:
    with raises(kind, message):
        vector(**kwargs)


def test_bad_device() -> None:
    pytest.importorskip("torch")
    with raises(ValueError, "device 'gpu' cannot be used: "):
        vector(backend="torch", device="gpu")


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with raises(ModuleNotFoundError, r"backend='torch' needs torch: pip install 'semcom-gym\[agents\]'"):
        vector(backend="torch")


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    env = gym.make("SemCom/CRRA-v0", render_mode="rgb_array")
    env.reset(seed=0)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with raises(ModuleNotFoundError, r"rendering needs matplotlib: pip install 'semcom-gym\[report\]'"):
        env.render()


def test_bad_render_mode(env_id: str) -> None:
    with raises(ValueError, "unknown render_mode 'human'; valid: rgb_array"):
        gym.make(env_id).unwrapped.__class__(render_mode="human")


def test_bad_actions(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
    size = env.action_space.shape[0]
    with raises(ValueError, rf"action must have shape \({size},\), got \(3,\)"):
        env.step(np.zeros(3))
    for value in (np.nan, np.inf):
        action = np.zeros(size)
        action[2] = value
        with raises(ValueError, "action has a value that is not finite"):
            env.step(action)
    env.step(np.zeros(size))  # a refused action does not end the episode


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_bad_actions_of_the_vector_environment(backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    env = vector(backend=backend)
    env.reset(seed=0)
    with raises(ValueError, r"actions must have shape \(2, 30\), got \(30,\)"):
        env.step(np.zeros(30))
    actions = np.zeros((2, 30), np.float32)
    actions[1, 7] = np.nan
    with raises(ValueError, "actions hold a value that is not finite"):
        env.step(actions)


def test_step_without_reset(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before step\(\)"):
        env.step(np.zeros(env.action_space.shape))
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape))
    with pytest.raises(gym.error.ResetNeeded, match="the episode is over"):
        env.step(np.zeros(env.action_space.shape))
    many = vector().unwrapped
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before step\(\)"):
        many.step(np.zeros((2, 30)))
    rendered = gym.make(env_id, render_mode="rgb_array").unwrapped
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) before render\(\)"):
        rendered.render()


def test_bad_reset_options(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    with raises(TypeError, "reset options: unknown argument 'instances'; valid: instance, bound"):
        env.reset(options={"instances": 3})
    with raises(TypeError, f"instance must be a {env.problem.name} Instance, got int"):
        env.reset(options={"instance": 3})
    batch = env.problem.sample_split(env.params, "test", 2)
    with raises(ValueError, r"options\['instance'\] must hold 1 instance\(s\), got 2"):
        env.reset(options={"instance": batch})
    large = env.problem.sample_split(dataclasses.replace(env.params, num_users=12), "test", 1)
    first = dataclasses.fields(batch)[0].name
    with raises(ValueError, rf"instance.{first} must have shape \(1, {env.params.num_users}.*\), got \(1, 12.*\)"):
        env.reset(options={"instance": large})
    bad = dataclasses.replace(batch[0], **{first: np.full_like(getattr(batch[0], first), np.nan)})
    with raises(ValueError, f"instance.{first} has a value that is not finite"):
        env.reset(options={"instance": bad})


def test_bad_vector_resets() -> None:
    env = vector().unwrapped
    env.reset(seed=0)
    with raises(ValueError, "seed must be an integer or a list of 2, got a list of 3"):
        env.reset(seed=[1, 2, 3])
    with raises(ValueError, r"options\['reset_mask'\] must have shape \(2,\), got \(3,\)"):
        env.reset(options={"reset_mask": np.ones(3, bool)})
    with raises(TypeError, "reset options: unknown argument 'mask'"):
        env.reset(options={"mask": np.ones(2, bool)})
    with raises(TypeError, "num_envs must be an integer"):
        env.__class__(num_envs=1.5)


def decision(n: int = 1, **changes: Any) -> Any:
    fields = {
        "bandwidth_hz": np.full((n, 10), 5e5),
        "power_w": np.full((n, 10), 1e-3),
        "ratio": np.full((n, 10), 0.9),
        "selected": np.ones((n, 10)),
    }
    return CRRA.Allocation(**(fields | changes))


def test_bad_allocations() -> None:
    params = CRRA.preset("default")
    instance = CRRA.sample_split(params, "test", 1)
    with raises(TypeError, "allocation must be a crra Allocation, got dict"):
        CRRA.evaluate(params, instance, {})
    with raises(ValueError, r"allocation.bandwidth_hz must have shape \(1, 10\), got \(2, 10\)"):
        CRRA.evaluate(params, instance, decision(2))
    for name in ("bandwidth_hz", "power_w"):
        with raises(ValueError, f"allocation.{name} has a negative value: -2"):
            CRRA.evaluate(params, instance, decision(**{name: np.full((1, 10), -2.0)}))
        with raises(ValueError, f"allocation.{name} has a value that is not finite"):
            CRRA.evaluate(params, instance, decision(**{name: np.full((1, 10), np.nan)}))
    with raises(ValueError, r"allocation.ratio must have shape \(1, 10\), got \(\)"):
        CRRA.evaluate(params, instance, decision(ratio=0.5))


def test_bad_arguments_of_sample() -> None:
    params = CRRA.preset("default")
    with raises(ValueError, "unknown split 'tset'; valid: train, validation, test; did you mean 'test'"):
        CRRA.sample_split(params, "tset")
    with raises(ValueError, "n must be >= 1, got 0"):
        CRRA.sample_split(params, "test", 0)
    with raises(TypeError, r"rng must be a numpy.random.Generator, got int"):
        CRRA.sample(params, 0)
    with raises(TypeError, "params must be crra Params, got dict"):
        CRRA.sample({}, np.random.default_rng(0))
    with pytest.raises(IndexError, match="instance 7 of a batch of 2"):
        CRRA.sample_split(params, "test", 2)[7]


def test_infeasible_instance_is_reported_by_the_environment() -> None:
    env = gym.make("SemCom/CRRA-v0")
    instance = CRRA.sample_split(env.unwrapped.params, "test", 1)
    poor = dataclasses.replace(instance, bandwidth_hz=np.array([1e4]))
    observation, _ = env.reset(options={"instance": poor})
    assert observation in env.observation_space
    _, reward, terminated, _, info = env.step(np.zeros(env.action_space.shape, np.float32))
    assert terminated
    assert info["feasible"] is False
    assert info["violation/bandwidth"] == pytest.approx(9.0)  # ten floors of 10 kHz on 10 kHz
    assert info["violation/power"] <= 1e-12
    assert info["cost"] == pytest.approx(9.0)
    assert reward == pytest.approx(info["objective"] - 9.0)


# --- curve files -----------------------------------------------------------------------------------------------------
def write(path: Path, **changes: Any) -> str:
    data = json.loads(SHIPPED.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    return str(path)


def test_own_curve_file_works(tmp_path: Path) -> None:
    zeta = {"zeta1": -1e-9, "zeta2": 20.0, "zeta3": 0.8, "zeta4": 0.0}
    path = write(tmp_path / "mine.json", name="mine", kind="measured", parameters=zeta)
    env = gym.make("SemCom/CRRA-v0", curves=(path,), preset="paper")
    env.reset(seed=0)
    action = np.zeros(30, np.float32)
    info = env.step(action)[4]
    eta = 0.8 - 1e-9 * np.exp(20.0 * info["terms"]["ratio"])
    np.testing.assert_allclose(info["terms"]["task"], eta, rtol=1e-9)
    assert gym.make("SemCom/CRRA-v0", curves=path).unwrapped.params.curves == (path,), "a single name is enough"


def test_saved_curve_loads_again(tmp_path: Path) -> None:
    original = curve.load("crra", "resnet_0db", ("zeta1",))
    original.save(tmp_path / "again.json")
    assert curve.load("crra", str(tmp_path / "again.json"), ("zeta1",)) == original


GOOD = {"zeta1": -1e-9, "zeta2": 20.0, "zeta3": 0.8, "zeta4": 0.0}
BAD_CURVES = [
    ({"kind": "guessed"}, "unknown curve kind 'guessed'; valid: published, synthetic, measured"),
    ({"kind": ...}, "must be an object with exactly the keys name, problem, kind"),
    ({"colour": "red"}, "must be an object with exactly the keys name, problem, kind"),
    ({"problem": "sfma"}, "is for 'sfma', not for 'crra'"),
    ({"parameters": {"zeta1": -1.0}}, "lacks the parameters zeta2, zeta3, zeta4"),
    ({"parameters": [1, 2]}, "'parameters' must be an object of numbers"),
    ({"parameters": GOOD | {"zeta2": "big"}}, "parameter zeta2 must be a finite number, got 'big'"),
    ({"parameters": GOOD | {"zeta2": None}}, "parameter zeta2 must be a finite number, got None"),
    ({"parameters": GOOD | {"zeta1": 1.0}}, "eta must have zeta1 <= 0 < zeta3 and zeta2 >"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CURVES)
def test_bad_curve_files(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.json", **changes)
    with raises(ValueError, message):
        CRRA.preset("default", curves=(path,))


def test_missing_and_corrupt_curve_files(tmp_path: Path) -> None:
    with raises(ValueError, "curve file .*none.json' cannot be read: No such file"):
        CRRA.preset("default", curves=(str(tmp_path / "none.json"),))
    corrupt = tmp_path / "corrupt.json"
    for content in (b'{"name": ', b"\xff\xfe\x00", b""):
        corrupt.write_bytes(content)
        with raises(ValueError, "curve file .*corrupt.json' is not valid JSON"):
            CRRA.preset("default", curves=(str(corrupt),))
    corrupt.write_text("[1, 2]")
    with raises(ValueError, "must be an object with exactly the keys"):
        CRRA.preset("default", curves=(str(corrupt),))


def test_a_changed_shipped_curve_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "curves"
    folder.mkdir()
    write(folder / "measured_resnet_0db.json", parameters=GOOD)
    monkeypatch.setattr(curve, "_folder", lambda problem, kind: folder)
    with raises(ValueError, r"curve 'measured_resnet_0db' is not the file this version pins \(SHA-256 differs\)"):
        CRRA.preset("default", max_ratio=0.98)
