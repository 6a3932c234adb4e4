"""Studies: what a space may say, the same trials after an interruption, pruning, and what a study leaves."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from semcom_gym import agents, envs
from semcom_gym.agents import hyperparams, search_space, training, tuning
from semcom_gym.benchmarks import cli

optuna = pytest.importorskip("optuna")
ENV = "SemCom/CRRA-v0"
SPACE = """\
learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true, schedule: cos}
n_envs: {choices: [16, 32]}
policy_kwargs.width: {low: 8, high: 64}
"""
RATES = "learning_rate: {choices: [cos_2e-3, cos_1e-12]}\n"


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are most of the time of so short a run."""
    monkeypatch.setattr(training.Validation, "picture", lambda *args: None)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "space.yml"
    file.write_text(SPACE)
    return file


def study(folder: Path, space: Path, **kwargs: Any) -> agents.Study:
    short: dict[str, Any] = {"trials": 2, "timesteps": 128, "num_envs": 16, "evaluations": 4, "validation": 6}
    options = short | {"scored": 2, "num_users": 3, "progress": False} | kwargs
    return agents.tune(ENV, "apg", out=folder, space=space, **options)


def without_times(found: agents.Study) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found.trials]


# --- a study ---------------------------------------------------------------------------------------------------------


def test_an_interrupted_study_ends_as_an_unbroken_one(
    tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = study(tmp_path / "a", space, trials=3)
    with monkeypatch.context() as patch:
        measured = training.Validation.measure

        def measure(self: Any, model: Any) -> Any:
            if tuning.count(tmp_path / "b") == 1 and model.num_timesteps > 60:
                raise KeyboardInterrupt
            return measured(self, model)

        patch.setattr(training.Validation, "measure", measure)
        with pytest.raises(KeyboardInterrupt):
            study(tmp_path / "b", space, trials=2)
    assert tuning.count(tmp_path / "b") == 1
    assert (tmp_path / "b/trial_001/checkpoint.zip").exists()
    study(tmp_path / "b", space, trials=2)
    longer = study(tmp_path / "b", space, trials=3)  # a larger number of trials goes on
    assert without_times(longer) == without_times(unbroken)
    assert len({row["learning_rate"] for row in longer.trials}) == 3


def test_what_a_study_leaves(tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = envs.Problem.sample_split

    def spy(self: envs.Problem, params: Any, split: str, n: int = 100) -> Any:
        asked.append(split)
        return original(self, params, split, n)

    monkeypatch.setattr(envs.Problem, "sample_split", spy)
    found = study(tmp_path / "a", space)
    assert set(asked) == {"validation"}
    records = [json.loads((tmp_path / f"a/trial_00{k}/run.json").read_text()) for k in range(2)]
    # the first trial is that of the file; the score of a trial is that of its best model
    first = hyperparams.load(ENV, "apg", n_timesteps=128, n_envs=16)
    assert records[0]["hyperparams"] == first | {"learning_rate": "cos_0.002"}
    assert [row["score"] for row in found.trials] == [record["best"]["score"] for record in records]
    for name in ("timesteps", "seconds"):  # those of the run, not of its best model
        assert [row[name] for row in found.trials] == [record[name] for record in records]
    assert found.best is not None
    assert found.best["score"] == max(row["score"] for row in found.trials)
    # best.yml is an entry of hyperparams/apg.yml
    content = yaml.safe_load((tmp_path / "a/best.yml").read_text())
    settings = records[found.best["trial"]]["hyperparams"]
    assert content == {ENV: settings}
    assert hyperparams.load(ENV, "apg", content[ENV]) == settings
    assert hyperparams.arguments(settings, 9)
    with (tmp_path / "a/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["ended"] for row in rows] == ["timesteps", "timesteps"]
    assert [float(row["score"]) for row in rows] == [row["score"] for row in found.trials]
    assert rows[1]["learning_rate"] == records[1]["hyperparams"]["learning_rate"]
    assert all(list((tmp_path / f"a/trial_00{k}/tensorboard").iterdir()) for k in range(2))


def test_a_trial_below_the_median_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "STARTUP", 1)
    file = tmp_path / "rates.yml"
    file.write_text(RATES)
    found = study(tmp_path / "a", file, trials=4, timesteps=640, num_envs=32)
    slow = [row for row in found.trials if row["learning_rate"] == "cos_1e-12"]  # which learns nothing
    assert 0 < len(slow) < 4
    assert all(row["ended"] == "pruned" and row["timesteps"] < 640 for row in slow)
    assert all(row["ended"] == "timesteps" for row in found.trials if row not in slow)
    assert all(math.isnan(row["score"]) for row in slow)


def test_a_trial_that_diverges_is_named_and_the_study_goes_on(
    tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = agents.APG._train

    def explode(self: Any, reward: Any) -> None:
        train(self, reward * (float("nan") if self.policy.shape.width != 64 else 1.0))

    monkeypatch.setattr(agents.APG, "_train", explode)
    found = study(tmp_path / "a", space)
    assert [row["ended"] for row in found.trials] == ["timesteps", "diverged"]
    assert found.best is not None
    assert found.best["trial"] == 0
    settings = {"policy_kwargs": {"width": 8}}
    with pytest.raises(FloatingPointError, match="apg diverged after 16 decisions"):
        agents.train(ENV, "apg", out=tmp_path / "b", timesteps=64, num_envs=16, scored=0, hyperparams=settings)


# --- spaces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", agents.ALGORITHMS)
def test_the_spaces_contain_the_hyperparameters(algo: str) -> None:
    space = search_space.load(algo)
    assert search_space.distributions(space)
    for env_id in sorted(set(hyperparams.read(algo)) - set(envs.FADING_IDS)):  # those tune refuses
        settings = hyperparams.load(env_id, algo)
        drawn = search_space.found_in(space, settings)
        off = {"exploration_std"} if settings.get("exploration_std") == 0.0 else set()
        assert set(drawn) == set(space) - off, env_id
        again = search_space.apply(space, settings, drawn)
        assert hyperparams.arguments(again, 30).keys() == hyperparams.arguments(settings, 30).keys()
        for name, value in search_space.values(space, settings).items():
            spelled = search_space.values(space, again)[name]
            assert _number(spelled) == pytest.approx(_number(value)), name


def _number(value: Any) -> Any:
    head, _, tail = str(value).partition("_")
    return float(tail) if head in hyperparams.SCHEDULES else value


def test_apply_leaves_what_it_is_given() -> None:
    space = {"policy_kwargs.width": {"low": 8, "high": 64}, "learning_rate": {"low": 0.0, "high": 1.0}}
    settings: dict[str, Any] = {"policy_kwargs": {"width": 16, "depth": 1}, "learning_rate": 0.5}
    found = search_space.apply(space, settings, {"policy_kwargs.width": 32, "learning_rate": 0.123456})
    assert found == {"policy_kwargs": {"width": 32, "depth": 1}, "learning_rate": 0.123}
    assert settings["policy_kwargs"]["width"] == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("momentum: {low: 0.0, high: 1.0}", "unknown hyper-parameter of apg 'momentum'; valid: learning_rate"),
        ("n_timesteps: {low: 1, high: 9}", "unknown hyper-parameter of apg 'n_timesteps'"),
        ("policy_kwargs: {low: 1, high: 9}", "'policy_kwargs' must be a name, or an entry of policy_kwargs"),
        ("gamma.x: {low: 0.0, high: 1.0}", "'gamma.x' must be a name, or an entry of policy_kwargs"),
        ("gamma: 0.5", "search space of gamma must be a table with choices, or with low and high, got 0.5"),
        ("gamma: {low: 0.0, hgih: 1.0}", "search space of gamma: unknown argument 'hgih'; valid: low, high"),
        ("gamma: {low: 0.0}", "high of search space of gamma must be a number, got None"),
        ("gamma: {low: 1.0, high: 0.5}", "low of search space of gamma 1 exceeds high 0.5"),
        ("gamma: {low: 0.0, high: 1.0, log: true}", "low of search space of gamma must be finite, > 0, got 0.0"),
        ("gamma: {low: 0.1, high: 1.0, log: 1}", "log of search space of gamma must be true or false, got 1"),
        ("gamma: {low: 0.1, high: 1.0, schedule: exp}", "unknown schedule of gamma 'exp'; valid: lin, cos"),
        ("gamma: {choices: []}", r"choices of search space of gamma must be a list, got \[\]"),
        ("gamma: {choices: [[1]]}", r"choices of search space of gamma must be numbers, text, .* got \[1\]"),
        ("gamma: {choices: [0.0], log: true}", "search space of gamma: unknown argument 'log'; valid: choices"),
        ("gamma", "must be a table of hyper-parameters"),
        ("gamma: {", "cannot be read"),
    ],
)
def test_a_mistake_in_a_space_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yml"
    file.write_text(content)
    with pytest.raises((ValueError, TypeError), match=message) as error:
        agents.tune(ENV, "apg", out=tmp_path / "a", space=file)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a").exists()


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, space: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["tune", "--env", ENV, "--trials", "1", "--timesteps", "32", "--num-envs", "16", "--scored", "1"]
    command += ["--evaluations", "1", "--space", str(space), "--set", "num_users=3", "--out", "s"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "best on validation: trial 0, score" in out
    assert "s/best.yml" in out
    mistakes = {
        "the study in 's' was made with seed 0, not 1": ["--seed", "1"],
        "trials must be >= 1, got 0": ["--trials", "0"],
        "scored must be >= 1, got 0": ["--scored", "0"],
        "unknown algorithm 'dqn'": ["--algo", "dqn"],
        "search space 'no.yml' cannot be read": ["--space", "no.yml"],
        "unknown argument 'num_user'": ["--set", "num_user=3"],
    }
    for message, changed in mistakes.items():
        assert cli.main([*command, *changed]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    (tmp_path / "s/study.db").write_text("no database")
    assert cli.main(command) == 2
    assert "storage 's/study.db' is corrupt" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert cli.main(command) == 2
    assert capsys.readouterr().err == (
        "semcom-gym: error: tuning needs optuna: pip install 'semcom-gym[tune]'\n"
    )  # fmt: skip
