"""Minari data sets of experts: what is in them, that they replay, and that an interruption loses nothing."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from semcom_gym import agents, baselines, envs
from semcom_gym.agents import offline
from semcom_gym.benchmarks import cli, collect, datasets

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")

FEW = {"num_users": 4}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    return tmp_path / "sets"


def made(env_id: str, expert: str, n: int, name: str = "some/set-v0", margin: float = 1.0, **given: Any) -> Any:
    source = collect.source(env_id, None, n, **({"certified": 0} | given))
    job = datasets.job(name, None, source, collect.player(source.task, expert, margin))
    return datasets.write(job), minari.load_dataset(name)


# --- content ---------------------------------------------------------------------------------------------------------
SETS = [
    ("SemCom/CRRA-v0", "fast", FEW),
    ("SemCom/CRRA-v0", "apg", FEW),
    ("SemCom/CRRAUS-v0", "fast", FEW),
    ("SemCom/SFMA-v0", "equal", FEW),
    ("SemCom/SFMAPairing-v0", "equal", FEW),
    ("SemCom/SFMAPairing-v0", "maskable_ppo", {}),
    ("SemCom/ASCC-v0", "equal_mmse", {}),
    ("SemCom/Training-v0", "fast", FEW),
    ("SemCom/CRRAFading-v0", "fast", FEW | {"horizon": 3}),
    ("SemCom/CRRAUSFading-v0", "fast", FEW | {"horizon": 3}),
    ("SemCom/SFMAFading-v0", "equal", FEW | {"horizon": 3}),
    ("SemCom/ASCCFading-v0", "equal_mmse", {"horizon": 3}),
    ("SemCom/TrainingFading-v0", "fast", FEW | {"horizon": 3}),
]


def test_every_id_has_a_data_set_here() -> None:
    assert {env_id for env_id, _, _ in SETS} == set(envs.IDS | envs.FADING_IDS)


@pytest.mark.parametrize(("env_id", "expert", "changes"), SETS, ids=lambda x: str(x).removeprefix("SemCom/"))
def test_episodes_replay_in_the_recovered_environment(env_id: str, expert: str, changes: dict[str, Any]) -> None:
    summary, found = made(env_id, expert, 3, seed=11, **changes)
    env = found.recover_environment()
    assert env.unwrapped.params == gym.make(env_id, **changes).unwrapped.params
    assert (env.observation_space, env.action_space) == (found.observation_space, found.action_space)
    notes = list(found.storage.get_episode_metadata(found.episode_indices))
    assert summary["episodes"] == len(found) == 3
    for episode, note in zip(found, notes, strict=True):
        observation, _ = env.reset(seed=note["seed"])
        assert note["seed"] == 11 + note["row"]
        for t in range(len(episode)):
            np.testing.assert_array_equal(observation, episode.observations[t])
            assert env.action_space.contains(episode.actions[t])
            observation, reward, terminated, truncated, info = env.step(episode.actions[t])
            assert reward == pytest.approx(episode.rewards[t], rel=1e-9, abs=1e-12)
            assert (terminated, truncated) == (episode.terminations[t], episode.truncations[t])
            for name in collect.STEP_INFO:
                if info:
                    assert info[name] == pytest.approx(episode.infos[name][t], rel=1e-9, abs=1e-12)
        assert terminated or truncated
        np.testing.assert_array_equal(observation, episode.observations[-1])


def test_certificate_and_scores() -> None:
    summary, found = made("SemCom/Training-v0", "equal_bandwidth", 3, certified=2, split="validation", **FEW)
    problem = envs.problem("training")
    params = problem.preset("default", **FEW)
    instance = problem.sample_split(params, "validation", 3)[:2]
    bound = baselines.bound("training", params, instance).value
    notes = list(found.storage.get_episode_metadata(range(3)))
    assert [note["bound"] for note in notes[:2]] == pytest.approx(list(bound))
    assert np.isnan(notes[2]["bound"])
    assert np.isnan(notes[2]["score"])
    assert [note["score"] for note in notes[:2]] == pytest.approx([0.0, 0.0], abs=1e-5)  # it is the anchor
    returns = np.array([episode.rewards.sum() for episode in found])
    objective = np.array([episode.infos["objective"].sum() for episode in found])
    assert returns == pytest.approx(-objective)  # which is to be small
    assert summary["mean_return"] == pytest.approx(returns.mean())
    assert summary["scored"] == 2
    assert minari.get_normalized_score(found, -bound).mean() == pytest.approx(1.0)
    assert minari.get_normalized_score(found, returns[:2]).mean() == pytest.approx(0.0, abs=1e-5)


def test_genie_of_fading_episodes() -> None:
    _, found = made("SemCom/CRRAFading-v0", "fast", 2, certified=2, horizon=3, **FEW)
    for note, episode in zip(found.storage.get_episode_metadata(range(2)), found, strict=True):
        x = episode.infos["objective"].sum()
        assert note["anchor"] < x < note["bound"]
        assert note["score"] == pytest.approx((x - note["anchor"]) / (note["bound"] - note["anchor"]))


def test_noise_is_on_actions_only() -> None:
    kwargs: dict[str, Any] = {"n": 4, "seed": 0, **FEW}
    clean, noisy = (
        made("SemCom/CRRA-v0", "fast", name=f"set{noise}-v0".replace(".", "_"), noise=noise, **kwargs)[1]
        for noise in (0.0, 0.1)
    )
    for one, other in zip(clean, noisy, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        assert 0.03 < np.std(one.actions - other.actions) < 0.15
        assert np.abs(other.actions).max() <= 1.0


def test_episodes_without_an_answer_are_left_out() -> None:
    source = collect.source("SemCom/CRRA-v0", None, 3, certified=3, **FEW)
    expert = collect.player(source.task, "fra")

    def act(env: Any, observation: Any) -> Any:
        return expert.act(env, observation)[0], np.array([True, False, True])

    summary = datasets.write(datasets.job("some/gaps-v0", None, source, dataclasses.replace(expert, act=act)))
    found = minari.load_dataset("some/gaps-v0")
    assert (summary["episodes"], summary["left_out"], summary["scored"]) == (2, 1, 2)
    assert [note["row"] for note in found.storage.get_episode_metadata(range(2))] == [0, 2]


# --- the command -----------------------------------------------------------------------------------------------------
COMMAND = ["dataset", "SemCom/CRRA-v0", "--expert", "fra", "-n", "5", "--out", "crra/fra-v0", "--certified", "0"]


def test_an_interruption_keeps_chunks_and_a_second_run_finds_the_data_set(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[int] = []

    def counted(source: Any, expert: Any, start: int, stop: int) -> Any:
        if start == 4 and played.count(4) == 0:
            played.append(start)
            raise KeyboardInterrupt
        played.append(start)
        return collect.collect(source, expert, start, stop)

    monkeypatch.setattr(datasets, "collect", counted)
    monkeypatch.setattr(datasets, "CHUNK", 2)
    assert cli.main(COMMAND) == 130
    assert "2 finished chunk(s) are kept" in capsys.readouterr().err
    assert minari.list_local_datasets() == {}
    assert cli.main(COMMAND) == 0
    assert cli.main(COMMAND) == 0  # finds it made
    assert played == [0, 2, 4, 4]
    assert list(minari.list_local_datasets()) == ["crra/fra-v0"]
    assert not any((root / ".partial").iterdir())
    whole = collect.source("SemCom/CRRA-v0", None, 5, certified=0)
    expected = collect.collect(whole, collect.player(whole.task, "fra"), 0, 5)
    actions = np.stack([episode.actions for episode in minari.load_dataset("crra/fra-v0")])
    np.testing.assert_array_equal(actions, expected.action)
    assert cli.main([*COMMAND, "--seed", "1"]) == 2
    assert "holds something else" in capsys.readouterr().err


TRAIN = ["train", "--env", "SemCom/CRRA-v0", "--algo", "bc", "--timesteps", "10", "--num-envs", "2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset", "SemCom/No-v0", "--expert", "fast", "--out", "a-v0"], "SemCom/No-v0"),
        (["dataset", "SemCom/CRRA-v0", "--expert", "fast", "--out", "a b"], "folder/name-v0"),
        (["dataset", "SemCom/CRRA-v0", "--expert", "fast", "--out", "a-v0", "--set", "num_envs=3"], "num_envs"),
        (["dataset", "SemCom/CRRA-v0", "--expert", "fats", "--out", "a-v0"], "'fats' is no crra method"),
        (["dataset", "SemCom/SFMA-v0", "--expert", "noma", "--out", "a-v0"], "another transceiver"),
        (["dataset", "SemCom/CRRA-v0", "--expert", "fast", "--out", "a-v0", "-n", "0"], "n must be"),
        (["dataset", "SemCom/CRRA-v0", "--expert", "fast", "--out", "a-v0", "--margin", "0.5"], "margin"),
        (["dataset", "SemCom/SFMAPairing-v0", "--expert", "equal", "--out", "a-v0", "--noise", "0.1"], "choices"),
        (["dataset", "SemCom/CRRA-v0", "--expert", "fast", "--out", "a-v0", "--split", "tset"], "tset"),
        ([*TRAIN, "--dataset", "no/such-v0"], "no data set 'no/such-v0'"),
        ([*TRAIN, "--dataset", "x-v0", "--expert", "fast"], "--dataset is for --algo bc"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


# --- learning from them ----------------------------------------------------------------------------------------------
def test_cloning_from_a_data_set_comes_near_its_expert(tmp_path: Path) -> None:
    made("SemCom/CRRA-v0", "fast", 600, **FEW)
    sizes = {"gradient_steps": 20, "batch_size": 128, "learning_rate": "cos_5e-3", "dataset": "some/set-v0"}
    sizes["policy_kwargs"] = {"width": 16, "depth": 1, "start": [0.0, 0.0, 0.6]}
    common: dict[str, Any] = {"progress": False, "scored": 0, "evaluations": 1, **FEW}
    common |= {"timesteps": 3072, "num_envs": 256, "hyperparams": sizes}
    whole = agents.train("SemCom/CRRA-v0", "bc", out=tmp_path / "a", **common)
    problem = envs.problem("crra")
    params = problem.preset("default", **FEW)
    instance = problem.sample_split(params, "validation", 100)
    best = baselines.solve("crra", params, instance, "fast").objective.mean()
    curve = whole.record["curve"]
    assert best - curve[-1]["reward"] < 0.15 * (best - curve[0]["reward"])
    assert "--dataset some/set-v0" in whole.record["command"]


def test_a_stopped_run_on_a_data_set_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("SemCom/CRRA-v0", "fra", 50, **FEW)
    common: dict[str, Any] = {"progress": False, "scored": 0, "validation": 5, "evaluations": 4, **FEW}
    sizes = {"width": 8, "depth": 1, "start": [0.0, 0.0, 0.6]}
    settings = {"dataset": "some/set-v0", "batch_size": 16, "gradient_steps": 2, "policy_kwargs": sizes}
    common |= {"timesteps": 160, "num_envs": 10, "hyperparams": settings}
    whole = agents.train("SemCom/CRRA-v0", "bc", out=tmp_path / "whole", **common)
    replay, rounds = agents.BC._replay, []

    def stopping(self: Any, callback: Any) -> bool:
        rounds.append(1)
        if len(rounds) == 10:
            raise KeyboardInterrupt
        return replay(self, callback)

    with monkeypatch.context() as patched:
        patched.setattr(agents.BC, "_replay", stopping)
        assert not agents.train("SemCom/CRRA-v0", "bc", out=tmp_path / "cut", **common).record["finished"]
    cut = agents.train("SemCom/CRRA-v0", "bc", out=tmp_path / "cut", resume=True, **common)
    for one, other in zip(whole.model.policy.parameters(), cut.model.policy.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())


def test_choices_that_come_later_are_as_good_now() -> None:
    _, found = made("SemCom/SFMAPairing-v0", "equal", 2, **FEW)
    env = agents.make_vec_env("SemCom/SFMAPairing-v0", 2, **FEW).venv.unwrapped
    steps = offline.read("some/set-v0", env)
    target = offline.labels(steps, env).target
    first, second = found[0].actions
    assert sorted(np.flatnonzero(target[0] == 1)) == sorted([first, second])
    assert list(np.flatnonzero(target[1] == 1)) == [second]
    assert (target[0] >= 0).all()  # all four users are free
    assert list(np.flatnonzero(target[1] >= 0)) == [second]
    assert list(steps.left) == [2, 1, 2, 1]
    assert list(steps.terminated) == [False, True, False, True]


def test_a_data_set_of_another_environment_is_refused() -> None:
    made("SemCom/CRRA-v0", "fra", 2, **FEW)
    for env_id, changes in (("SemCom/CRRA-v0", {}), ("SemCom/CRRAFading-v0", FEW), ("SemCom/ASCC-v0", {})):
        with pytest.raises(ValueError, match="'some/set-v0' is of SemCom/CRRA-v0"):
            offline.read("some/set-v0", agents.make_vec_env(env_id, 1, **changes).venv.unwrapped)
    assert len(offline.read("some/set-v0")) == 2


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "docs" / "examples"))
    return importlib.import_module("offline_rl")


def test_offline_example_learns_what_was_recorded(example: Any) -> None:
    summary, _ = made("SemCom/CRRA-v0", "fra", 200, noise=0.3, **FEW)
    start, end = (
        example.train("SemCom/CRRA-v0", "some/set-v0", steps=steps, pull=0.0, scored=0, width=16, **FEW)
        for steps in (1, 150)
    )
    assert end["validation/reward"] > max(start["validation/reward"], summary["mean_return"])


def test_offline_example_takes_several_steps_into_account(example: Any) -> None:
    made("SemCom/CRRAFading-v0", "fast", 3, horizon=3, noise=0.1, **FEW)
    found = example.train("SemCom/CRRAFading-v0", "some/set-v0", steps=2, scored=0, width=8, horizon=3, **FEW)
    assert np.isfinite(found["validation/reward"])


@pytest.mark.slow
def test_offline_example_improves_on_cloning(example: Any) -> None:
    """As the page says: 2.164 against 2.022."""
    made("SemCom/CRRA-v0", "fra", 5000, noise=0.3)
    cloned, learnt = (
        example.train("SemCom/CRRA-v0", "some/set-v0", steps=2000, pull=pull, scored=0)["validation/reward"]
        for pull in (0.0, 2.5)
    )
    assert learnt > cloned + 0.05
