"""Agents on the Fading ids: training through whole episodes, validation, the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from semcom_gym import agents, envs
from semcom_gym.agents import hyperparams
from semcom_gym.agents.fading import FadingValidation, Player, scores_on_test
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


def test_what_counts_in_later_blocks_is_no_switch() -> None:
    with pytest.raises(ValueError, match="unknown switch 'spend'; valid: bandwidth, power, ratio"):
        apg(switches=["spend"]).learn(64)


@pytest.mark.parametrize("env_id", sorted(set(envs.FADING_IDS) - {CRRA}))
def test_apg_trains_on_every_id(env_id: str, tmp_path: Path) -> None:
    """With the settings of the file, scaled down: selection is a switch, matchings are compared."""
    settings = hyperparams.load(env_id, "apg")
    small = settings["policy_kwargs"] | {"width": 8, "depth": 1}
    size = {} if "ASCC" in env_id else {"num_users": 4}
    run = agents.train(
        env_id, "apg", out=tmp_path / "run", timesteps=96, num_envs=8, evaluations=1, validation=2, scored=1,
        progress=False, hyperparams={"policy_kwargs": small, "n_steps": 3}, horizon=3, **size,
    )  # fmt: skip
    assert run.record["finished"]
    before, after = (point["reward"] for point in (run.record["curve"][0], run.record["curve"][-1]))
    assert np.isfinite([before, after]).all()
    assert before != after
    assert run.record["best"]["score"] < 1.0


def test_a_rollout_is_an_episode_whatever_its_horizon(tmp_path: Path) -> None:
    run = agents.train(
        CRRA, "apg", out=tmp_path / "run", timesteps=60, num_envs=4, evaluations=1, validation=2, scored=0,
        progress=False, num_users=3, horizon=5,
    )  # fmt: skip
    assert run.model.n_steps == 5
    assert run.record["timesteps"] == 60


def test_matchings_are_learnt_over_the_blocks() -> None:
    """SFMA has one choice without slope: its scores get their gradient from what the matchings would earn."""
    env = agents.make_vec_env("SemCom/SFMAFading-v0", 32, backend="torch", seed=0, num_users=4, horizon=4)
    layout = agents.layout_kwargs(env.venv.unwrapped.observation_layout, env.venv.unwrapped.action_layout)
    model = agents.APG("MatchingPolicy", env, candidates=3, advantage_scale=5.0, seed=0, device="cpu",
                       policy_kwargs=layout | {"width": 16, "depth": 1, "start": [0.2, 0.0, 0.6]})  # fmt: skip
    weights = model.policy.score.weight.detach().clone()
    model.learn(32 * 4)
    assert (model.policy.score.weight - weights).abs().max() > 1e-4


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
    x = played.reward[:2].sum(axis=1)
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


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> agents.Run:
    settings = {"batch_size": 32, "n_steps": 4, "policy_kwargs": {"width": 16, "depth": 1, "memory": 4}}
    return agents.train(
        CRRA, "recurrent_ppo", out=tmp_path_factory.mktemp("recurrent") / "run", timesteps=128, num_envs=8,
        evaluations=2, validation=3, scored=0, progress=False, hyperparams=settings, **SMALL,
    )  # fmt: skip


def test_recurrent_ppo_runs_and_its_run_can_be_read(recurrent: agents.Run) -> None:
    assert recurrent.record["finished"]
    assert [point["timesteps"] for point in recurrent.record["curve"]] == [0, 64, 128]
    model = agents.ALGORITHMS["recurrent_ppo"][0].load(recurrent.folder / "model.zip", device="cpu")
    env = agents.make_vec_env(CRRA, 1, **SMALL).venv.unwrapped
    found = FadingValidation(env, 3, scored=0).measure(model)[0]
    assert found["validation/reward"] == pytest.approx(recurrent.record["best"]["reward"], rel=1e-6)


def test_a_player_remembers_within_an_episode_only(recurrent: agents.Run) -> None:
    env = agents.make_vec_env(CRRA, 1, **SMALL).venv.unwrapped.alike(3)
    episode = env.episodes("validation", 3)
    player = Player(recurrent.model)
    first = fading.play(env, episode, player)
    again = fading.play(env, episode, player)
    np.testing.assert_array_equal(first.reward, again.reward)
    forgetful = fading.play(env, episode, lambda e, o: Player(recurrent.model)(e, o))
    np.testing.assert_array_equal(first.reward[:, 0], forgetful.reward[:, 0])
    assert (first.reward[:, 1:] != forgetful.reward[:, 1:]).all()


def test_the_card_of_a_fading_agent_is_its_score(recurrent: agents.Run, tmp_path: Path) -> None:
    env = agents.make_vec_env(CRRA, 1, **SMALL).venv.unwrapped
    scores = scores_on_test(recurrent.model, env, 2)
    judge = env.alike(2)
    episode = judge.episodes("test", 2)
    played = fading.play(judge, episode, Player(recurrent.model))
    bound = fading.genie(judge, episode)
    assert scores["reward"] == pytest.approx(played.reward.mean())
    assert scores["gap"] == pytest.approx((1 - played.reward.sum(axis=1) / bound).mean())
    assert (scores["n"], scores["proven"]) == (2, 2)
    agents.ship(recurrent.folder, {"test": scores}, folder=tmp_path)
    loaded = agents.load(CRRA, "recurrent_ppo", num_users=4, folder=tmp_path)
    again = fading.play(judge, episode, Player(loaded))
    np.testing.assert_array_equal(again.reward, played.reward)
    more = agents.load(CRRA, "recurrent_ppo", num_users=6, folder=tmp_path)  # the weights are the same for all
    six = agents.make_vec_env(CRRA, 1, num_users=6, horizon=2).venv.unwrapped.alike(2)
    assert fading.play(six, six.episodes("test", 2), Player(more)).feasible.all()


def test_ship_from_the_command_line(
    recurrent: agents.Run, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = []
    monkeypatch.setattr(agents, "ship", lambda run, scores: shipped.append((run, scores)) or tmp_path)
    assert cli.main(["ship", str(recurrent.folder), "-n", "2"]) == 0
    assert "below the genie" in capsys.readouterr().out
    ((run, scores),) = shipped
    assert run == str(recurrent.folder)
    assert set(scores["test"]) == {"reward", "objective", "feasible", "score", "gap", "n", "proven"}
    for option, name in (("-n", "--instances"), ("--scored", "--scored")):
        assert cli.main(["ship", str(recurrent.folder), option, "0"]) == 2
        assert f"{name} must be >= 1" in capsys.readouterr().err


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["envs", "--json"]) == 0
    assert set(envs.FADING_IDS) <= set(json.loads(capsys.readouterr().out)["environments"])
    train = ["train", "--env", CRRA, "--timesteps", "64", "--num-envs", "4", "--out", str(tmp_path / "run")]
    assert cli.main([*train, "--set", "num_users=3", "--set", "horizon=2"]) == 0
    assert "best on validation" in capsys.readouterr().out
    for command, message in (
        (["solve", CRRA, "--method", "fast"], "a decision in every block"),
        (["benchmark", "--prove", "--env", CRRA], "a decision in every block"),
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
