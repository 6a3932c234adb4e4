"""SemCom/TrainingFading-v0 as a training run: rounds, what they teach, what they cost, when they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from semcom_gym.baselines import fading
from semcom_gym.envs import curve
from semcom_gym.envs.training import learning

ID = "SemCom/TrainingFading-v0"
ROUNDS = Path(__file__).parent.parent / "docs" / "results" / "rounds" / "rounds.json"


def make(**kwargs: Any) -> Any:
    return gym.make(ID, disable_env_checker=True, num_users=4, **kwargs).unwrapped


@pytest.mark.parametrize("name", list(learning.PINS))
def test_the_shipped_curves_are_fits_of_the_measured_rounds(name: str) -> None:
    """Fitted here by a grid over the one parameter that is not linear, from the rows of the report."""
    shipped = curve.load("training", name, learning.PARAMETERS, learning.PINS, learning.KIND)
    report = json.loads(ROUNDS.read_text())
    models = name.removeprefix("deepjscc_")
    rows = [(row["round"], p) for run in report["runs"] if run["models"] == models for row in run["rows"]
            for p in row["psnr_db"]]  # fmt: skip
    number, psnr = np.array(rows, float).T
    assert shipped.points == [[a, round(b, 4)] for a, b in rows]
    assert shipped.kind == "measured"
    errors = {}
    for half in np.linspace(40, 80, 401):
        form = np.stack([np.ones_like(number), number / (number + half)], axis=1)
        errors[half] = float(np.linalg.lstsq(form, psnr, rcond=None)[1][0])
    best = min(errors, key=lambda half: errors[half])
    assert shipped.parameters["half"] == pytest.approx(best, abs=0.1)
    assert shipped.goodness["rmse_db"] == pytest.approx((errors[best] / len(number)) ** 0.5, abs=1e-3)
    assert shipped.goodness["rmse_db"] < 0.5


def test_the_command_fits_the_shipped_curves() -> None:
    pytest.importorskip("torch")
    from semcom_gym.benchmarks import rounds_curve

    report = json.loads(ROUNDS.read_text())
    for name in learning.PINS:
        again = rounds_curve.fit(report, name.removeprefix("deepjscc_"))
        shipped = curve.load("training", name, (), learning.PINS, learning.KIND)
        assert again.parameters == pytest.approx(shipped.parameters, rel=1e-4)
        assert again.points == shipped.points
    for run in report["runs"]:
        run["rows"] = run["rows"][:3]
    with pytest.raises(ValueError, match="four measured rounds at least, got 3"):
        rounds_curve.fit(report, "own")


def test_a_round_teaches_what_the_curve_says() -> None:
    env = make(horizon=3)
    observation, _ = env.reset(seed=0)
    p = json.loads((Path(learning.__file__).parent / "rounds" / "deepjscc_own.json").read_text())["parameters"]
    for done in (0, 1, 2, 3):
        expected = p["start"] + p["gain"] * done / (done + p["half"])
        assert observation[-1] == pytest.approx((expected - 20.0) / 10.0, abs=1e-6)
        if done == 3:
            break
        observation, reward, terminated, truncated, info = env.step(np.zeros(env.action_space.shape))
        cost = env.params.time_weight * info["terms"]["time_s"].max()
        cost += env.params.energy_weight * info["terms"]["energy_j"].sum()
        assert reward == pytest.approx(-cost - env.penalty * info["cost"])
        assert info["terms"]["learnt_psnr_db"] == pytest.approx(
            p["start"] + p["gain"] * (done + 1) / (done + 1 + p["half"])
        )
        assert (terminated, truncated) == (False, done == 2)


@pytest.mark.parametrize("name", list(learning.PINS))
def test_the_run_ends_with_the_round_that_reaches_the_target(name: str) -> None:
    env = make(horizon=50, target_psnr_db=13.0, learning_curve=name)
    env.reset(seed=0)
    rounds, done = 0, False
    while not done:
        _, _, terminated, truncated, info = env.step(np.zeros(env.action_space.shape))
        rounds, done = rounds + 1, terminated or truncated
        reached = info["terms"]["learnt_psnr_db"] >= 13.0
        assert (terminated, truncated) == (bool(reached), False)
    assert 5 < rounds < 20
    assert env.learning.rounds_to(13.0) == rounds
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(env.action_space.shape))


def test_a_target_beyond_the_horizon_cuts_the_run() -> None:
    env = make(horizon=2, target_psnr_db=20.0)
    env.reset(seed=0)
    assert env.step(np.zeros(env.action_space.shape))[2:4] == (False, False)
    assert env.step(np.zeros(env.action_space.shape))[2:4] == (False, True)


def test_the_vector_form_ends_alike_and_its_copy_knows_the_target() -> None:
    vector = gym.make_vec(ID, 3, "vector_entry_point", dtype="float64", num_users=4, target_psnr_db=11.3).unwrapped
    vector.reset(seed=0)
    n = vector.learning.rounds_to(11.3)
    for k in range(n):
        _, _, terminated, truncated, info = vector.step(np.zeros(vector.action_space.shape))
        assert terminated.tolist() == [k == n - 1] * 3
        assert not truncated.any()
    assert set(info) >= {"final_obs", "final_info"}
    again = vector.alike(2)
    episode = again.episodes("validation", 2)
    assert episode.horizon == n
    played = fading.play(again, episode, fading.SolverPolicy("fast", sees="truth"))
    assert played.objective.shape == (2, n)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"target_psnr_db": 30.0}, "target_psnr_db must be finite, > 10.8283 and <= 23.3856, got 30.0"),
        ({"target_psnr_db": 9.0}, "target_psnr_db"),
        ({"target_psnr_db": "high"}, "target_psnr_db must be a number"),
        ({"horizon": 301}, "horizon 301 exceeds rounds of 'deepjscc_own' 300"),
        ({"learning_curve": "own"}, "unknown training curve 'own'; valid: deepjscc_own, deepjscc_shared"),
        ({"target": 1.0}, "unknown argument 'target'; valid: .*learning_curve, target_psnr_db"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make(**kwargs)


def test_a_curve_of_ones_own(tmp_path: Path) -> None:
    shipped = curve.load("training", "deepjscc_own", (), learning.PINS, learning.KIND)
    path = tmp_path / "mine.json"
    shipped.save(path)
    assert make(learning_curve=str(path)).learning == learning.LearningCurve.load("deepjscc_own")
    path.write_text(path.read_text().replace('"half": 58', '"half": -58'))
    with pytest.raises(ValueError, match="learning curve: half"):
        make(learning_curve=str(path))
