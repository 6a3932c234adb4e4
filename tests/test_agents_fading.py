"""Agents on the Fading ids: training through whole episodes, validation, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from semcom_gym import agents, envs
from semcom_gym.agents.fading import FadingValidation
from semcom_gym.baselines import fading
from semcom_gym.benchmarks import cli

CRRA = "SemCom/CRRAFading-v0"
SMALL = {"num_users": 4, "horizon": 4}


def apg(**kwargs: Any) -> agents.APG:
    env = agents.make_vec_env(CRRA, 16, backend="torch", seed=0, **SMALL)
    layout = agents.layout_kwargs(env.venv.unwrapped.observation_layout, env.venv.unwrapped.action_layout)
    settings = {"n_steps": 4, "gamma": 1.0, "learning_rate": 5e-3, "seed": 0, "device": "cpu"}
    return agents.APG("SetPolicy", env, policy_kwargs=layout | {"width": 16, "depth": 1}, **(settings | kwargs))


def test_apg_learns_through_the_episode() -> None:
    model = apg()
    validation = FadingValidation(model.env.venv.unwrapped, 20, scored=0)
    before = validation.measure(model)[0]
    model.learn(16 * 4 * 60)
    after = validation.measure(model)[0]
    assert after["validation/reward"] > 1.3 * before["validation/reward"]
    assert after["validation/feasible"] == 1.0
    assert after["validation/terms/energy_left"] < 1.0


@pytest.mark.parametrize("kwargs", [{"candidates": 2}, {"switches": ["spend"]}])
def test_what_compares_decisions_on_one_instance_is_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ids of one decision"):
        apg(**kwargs).learn(64)


def test_rollouts_need_not_end_with_an_episode() -> None:
    model = apg(n_steps=3)
    model.learn(16 * 3 * 5)
    assert all(np.isfinite(p.detach().numpy()).all() for p in model.policy.parameters())


def test_validation_plays_the_episodes_of_the_split() -> None:
    model = apg()
    validation = FadingValidation(model.env.venv.unwrapped, 6, scored=5)
    result, outcome = validation.measure(model)
    env = model.env.venv.unwrapped.alike(6)
    episode = env.episodes("validation", 6)
    played = fading.play(env, episode, lambda _, observation: agents.act(model, observation))
    assert result["validation/reward"] == pytest.approx(played.reward.mean())
    assert result["validation/objective"] == pytest.approx(played.objective.mean())
    assert result == pytest.approx(result | {k: v for k, v in validation.measure(model)[0].items() if "_ms" not in k})
    bound = fading.genie(env.alike(2), episode[:2])  # five blocks are two episodes
    x = played.objective[:2].sum(axis=1)
    assert result["validation/gap"] == pytest.approx(((bound - x) / bound).mean())
    assert result["validation/score"] < 1.0
    pytest.importorskip("matplotlib")
    assert validation.picture(outcome).shape == (540, 960, 3)


def test_train_and_resume(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "timesteps": 256, "num_envs": 8, "evaluations": 2, "validation": 4, "scored": 0, "progress": False,
        "hyperparams": {"n_steps": 4}, **SMALL,
    }  # fmt: skip
    run = agents.train(CRRA, "apg", out=tmp_path / "run", **options)
    assert run.record["finished"]
    assert [point["timesteps"] for point in run.record["curve"]] == [0, 128, 256]
    again = agents.train(CRRA, "apg", out=tmp_path / "run", resume=True, **options)
    assert again.record["curve"] == run.record["curve"]


def test_ppo_runs(tmp_path: Path) -> None:
    settings = {"batch_size": 32, "n_steps": 4}
    run = agents.train(
        CRRA, "ppo", out=tmp_path / "run", timesteps=128, num_envs=8, evaluations=1, validation=4, scored=0,
        progress=False, hyperparams=settings, **SMALL,
    )  # fmt: skip
    assert run.record["finished"]


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["envs", "--json"]) == 0
    assert set(envs.FADING_IDS) <= set(json.loads(capsys.readouterr().out)["environments"])
    train = ["train", "--env", CRRA, "--timesteps", "64", "--num-envs", "4", "--out", str(tmp_path / "run")]
    assert cli.main([*train, "--set", "num_users=3", "--set", "horizon=2"]) == 0
    assert "best on validation" in capsys.readouterr().out
    for command, message in (
        (["solve", CRRA, "--method", "fast"], "a decision in every block"),
        (["benchmark", "--env", CRRA], "a decision in every block"),
        (["tune", "--env", CRRA, "--trials", "1"], "a decision in every block"),
        (["train", "--env", CRRA, "--algo", "bc"], "environment id for bc"),
        (["train", "--env", CRRA, "--set", "horizon=0"], "horizon must be >= 1"),
    ):
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_what_is_for_one_decision_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the blocks of"):
        agents.tune(CRRA)
    reference = object()
    with pytest.raises(ValueError, match="proves its own"):
        agents.train(CRRA, "apg", reference=reference, out=tmp_path, timesteps=1)  # type: ignore[arg-type]
