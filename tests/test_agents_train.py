"""Training runs: every algorithm learns; a killed run ends as an unbroken one; what is written where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semcom_gym import agents, baselines, envs
from semcom_gym.agents import training
from semcom_gym.agents.callbacks import Reference, Validation

torch.set_num_threads(1)
SMALL = {"width": 16, "depth": 1, "start": [0.0, 0.0, 0.6]}
OFF_POLICY = {"learning_starts": 500, "gradient_steps": 8, "learning_rate": 3e-3}
QUICK: dict[str, dict[str, Any]] = {  # enough to be clearly better than the start
    "apg": {"timesteps": 4000, "num_envs": 64, "hyperparams": {}},
    "ppo": {"timesteps": 20_000, "num_envs": 128, "hyperparams": {"batch_size": 128}},
    "a2c": {"timesteps": 60_000, "num_envs": 256, "hyperparams": {"learning_rate": 3e-3}},
    "sac": {"timesteps": 4000, "num_envs": 64, "hyperparams": OFF_POLICY},
    "tqc": {"timesteps": 4000, "num_envs": 64, "hyperparams": OFF_POLICY},
    "td3": {"timesteps": 4000, "num_envs": 64, "hyperparams": OFF_POLICY},
}


def run(folder: Path, algo: str = "apg", env_id: str = "SemCom/CRRA-v0", **kwargs: Any) -> agents.Run:
    defaults: dict[str, Any] = {"timesteps": 640, "num_envs": 32, "evaluations": 4, "validation": 10, "scored": 0}
    defaults["hyperparams"] = {"policy_kwargs": SMALL} | kwargs.pop("hyperparams", {})
    return agents.train(env_id, algo, out=folder, progress=False, **(defaults | kwargs))


def weights(model: BaseAlgorithm) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


@pytest.mark.parametrize("algo", QUICK)
def test_learns(algo: str, tmp_path: Path) -> None:
    record = run(tmp_path, algo, num_users=4, validation=100, evaluations=1, **QUICK[algo]).record
    start, end = record["curve"][0]["reward"], record["curve"][-1]["reward"]
    assert end > start + 0.1
    assert record["curve"][-1]["feasible"] == 1.0
    assert record["finished"]


class Killed(Exception):
    """Stands for a process that is killed."""


def stop_at(monkeypatch: pytest.MonkeyPatch, steps: int, error: type[BaseException]) -> None:
    def on_step(self: Any) -> bool:
        if self.num_timesteps >= steps:
            raise error
        return True

    monkeypatch.setattr(training._Keeper, "_on_step", on_step)


@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt])
@pytest.mark.parametrize("algo", ["apg", "ppo", "sac"])
def test_a_stopped_run_ends_as_an_unbroken_one(
    algo: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"ppo": {"n_steps": 1, "batch_size": 32}, "sac": {"learning_starts": 64, "gradient_steps": 1}}.get(algo, {})
    unbroken = run(tmp_path / "a", algo, hyperparams=extra)
    with monkeypatch.context() as patch:
        stop_at(patch, 500, error)
        if error is Killed:
            with pytest.raises(Killed):
                run(tmp_path / "b", algo, hyperparams=extra)
        else:
            partial = run(tmp_path / "b", algo, hyperparams=extra)
            assert not partial.record["finished"]
    assert (tmp_path / "b" / "checkpoint.zip").exists()
    resumed = run(tmp_path / "b", algo, hyperparams=extra, resume=True)
    assert torch.equal(weights(resumed.model), weights(unbroken.model))
    rewards = [[point["reward"] for point in found.record["curve"]] for found in (resumed, unbroken)]
    assert rewards[0] == rewards[1]
    assert [point["timesteps"] for point in resumed.record["curve"]] == [0, 160, 320, 480, 640]
    assert resumed.record["finished"]


def test_what_a_run_leaves(tmp_path: Path) -> None:
    found = run(tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record == found.record
    assert {"model.zip", "run.json", "tensorboard"} == {path.name for path in tmp_path.iterdir()}
    assert (
        record["command"]
        == "semcom-gym train --env SemCom/CRRA-v0 --algo apg --preset default --timesteps 640 --num-envs 32 --seed 0"
    )
    assert record["versions"]["torch"] == torch.__version__
    assert record["best"]["reward"] == max(point["reward"] for point in record["curve"])
    problem = envs.problem("crra")
    params = problem.preset("default")
    instance = problem.sample_split(params, "validation", 10)
    actions = agents.decide(found.model, problem, params, instance).astype(float)
    objective = problem.evaluate(params, instance, problem.decode(params, instance, actions)).objective
    assert objective.mean() == pytest.approx(record["best"]["objective"], rel=1e-9)


@pytest.mark.parametrize("algo", ["apg", "ppo", "sac", "bc"])
def test_patience(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards are 0, 1, 0, 0, ...: with a patience of 2 the fourth validation is the last, interrupted or not."""
    measured = Validation.measure

    def measure(self: Any, model: BaseAlgorithm) -> Any:
        result, outcome = measured(self, model)
        return result | {"validation/reward": float(model.num_timesteps == 160)}, outcome

    monkeypatch.setattr(Validation, "measure", measure)
    monkeypatch.setattr(Validation, "picture", lambda *args: None)
    extra = {"ppo": {"n_steps": 1, "batch_size": 32}, "sac": {"learning_starts": 64, "gradient_steps": 1}}.get(algo, {})
    settings = {"evaluations": 8, "timesteps": 1280, "num_users": 3, "hyperparams": {**extra, "patience": 2}}
    whole = run(tmp_path / "a", algo, **settings).record
    assert (whole["finished"], whole["ended"], whole["best"]["timesteps"]) == (True, "patience", 160)
    assert [point["timesteps"] for point in whole["curve"]] == [0, 160, 320, 480]
    assert whole["command"].endswith("--patience 2 --set num_users=3")
    assert not (tmp_path / "a" / "checkpoint.zip").exists()
    with monkeypatch.context() as patch:
        stop_at(patch, 400, KeyboardInterrupt)
        run(tmp_path / "b", algo, **settings)
    resumed = run(tmp_path / "b", algo, resume=True, **settings).record
    assert [point["timesteps"] for point in resumed["curve"]] == [0, 160, 320, 480]
    assert resumed["ended"] == "patience"


def test_why_a_run_ended(tmp_path: Path) -> None:
    assert run(tmp_path / "a").record["ended"] == "timesteps"
    stopped = run(tmp_path / "b", stop=lambda record: len(record["curve"]) == 2).record
    assert (stopped["ended"], stopped["finished"], stopped["timesteps"]) == ("stopped", True, 160)


def test_a_finished_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path)
    monkeypatch.setattr(agents.APG, "learn", lambda *args, **kwargs: pytest.fail("trained again"))
    again = run(tmp_path, resume=True)
    assert torch.equal(weights(first.model), weights(again.model))
    with pytest.raises(ValueError, match="holds a training run: resume it, or name another folder"):
        run(tmp_path)
    with pytest.raises(ValueError, match="was made with seed 0, not 1"):
        run(tmp_path, resume=True, seed=1)


def test_never_looks_at_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    original = envs.Problem.sample_split

    def spy(self: envs.Problem, params: Any, split: str, n: int = 100) -> Any:
        asked.append(split)
        return original(self, params, split, n)

    monkeypatch.setattr(envs.Problem, "sample_split", spy)
    run(tmp_path, scored=2)
    assert set(asked) == {"validation"}


@pytest.mark.parametrize("algo", ["apg", "ppo"])
def test_event_file(algo: str, tmp_path: Path) -> None:
    extra = {"ppo": {"n_steps": 1, "batch_size": 32}}.get(algo, {})
    found = run(tmp_path, algo, scored=3, hyperparams=extra)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()
    violations = ("bandwidth", "min_bandwidth", "power", "min_power", "ratio", "selection")
    terms = ("success", "transmission", "task", "weighted_success", "bandwidth_hz", "power_w", "ratio", "selected")
    expected = {"rollout/ep_rew_mean", "rollout/objective", "rollout/feasible", "rollout/cost", "train/grad_norm"}
    expected |= {f"validation/{name}" for name in ("reward", "objective", "score", "gap", "feasible", "decision_ms")}
    expected |= {f"{prefix}violation/{name}" for name in violations for prefix in ("", "validation/")}
    expected |= {f"{prefix}terms/{name}" for name in terms for prefix in ("", "validation/")}
    expected |= {"train/learning_rate"} | ({"train/exploration_std"} if algo == "apg" else set())
    assert expected <= set(tags["scalars"])
    assert tags["images"] == ["figures/allocation"]
    assert any("hparams" in tag for tag in events.PluginTagToContent("hparams"))
    logged = [event.value for event in events.Scalars("validation/reward")]
    np.testing.assert_allclose(logged, [point["reward"] for point in found.record["curve"]], rtol=1e-6)
    assert all(event.value > 0 for event in events.Scalars("train/grad_norm"))


def test_scores_are_those_of_the_protocol() -> None:
    problem = envs.problem("crra")
    params = problem.preset("default")
    instance = problem.sample_split(params, "validation", 3)
    reference = Reference.prove(problem, params, instance)
    anchor = baselines.solve("crra", params, instance, baselines.anchor("crra"))
    everywhere = np.ones(3, bool)
    np.testing.assert_allclose(reference.score(anchor.objective, everywhere), 0.0, atol=1e-12)
    np.testing.assert_allclose(reference.score(reference.bound, everywhere), 1.0)
    np.testing.assert_array_equal(reference.score(reference.bound, ~everywhere), -1.0)
    near = Reference(reference.anchor, reference.anchor * 1.0001)
    assert np.isnan(near.score(reference.anchor, everywhere)).all()


def test_validation_measures_feasible_rewards() -> None:
    problem = envs.problem("crra")
    params = problem.preset("default")
    validation = Validation(problem, params, 10)
    env = agents.make_vec_env("SemCom/CRRA-v0", 2, backend="torch")
    result, _ = validation.measure(agents.APG("SetPolicy", env, seed=0, device="cpu"))
    assert result["validation/reward"] == pytest.approx(result["validation/objective"])
    assert result["validation/feasible"] == 1.0
    assert result["validation/decision_ms"] > 0
    assert "validation/score" not in result


def test_solver_traces_beside_agents(tmp_path: Path) -> None:
    problem = envs.problem("crra")
    params = problem.preset("default")
    instance = problem.sample_split(params, "validation", 3)
    solution = baselines.solve("crra", params, instance, "fast")
    trace = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 6.0], [5.0, np.nan, np.nan]])
    solution = type(solution)(**(vars(solution) | {"trace": trace}))
    agents.log_solution(tmp_path, "crra", "fast", solution, Reference.prove(problem, params, instance))
    events = EventAccumulator(str(tmp_path / "crra-fast"))
    events.Reload()
    assert [event.value for event in events.Scalars("solver/objective")] == pytest.approx([3.0, 11 / 3, 13 / 3])
    assert events.Scalars("validation/objective")[0].value == pytest.approx(solution.objective.mean(), rel=1e-6)
    assert 0.8 < events.Scalars("validation/score")[0].value <= 1.0
    assert events.Tags()["histograms"] == ["solver/iterations"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"algo": "dqn"}, "unknown algorithm 'dqn'; valid: apg, bc, dagger, ppo, a2c, sac, tqc, td3"),
        ({"env_id": "SemCom/CRRB-v0"}, "unknown environment id 'SemCom/CRRB-v0'"),
        ({"preset": "esy"}, "unknown crra preset 'esy'"),
        ({"device": "tpu9"}, "device 'tpu9' cannot be used"),
        ({"timesteps": 0}, "n_timesteps must be >= 1, got 0"),
        ({"num_envs": -1}, "n_envs must be >= 1, got -1"),
        ({"evaluations": 0}, "evaluations must be >= 1, got 0"),
        ({"num_user": 3}, "unknown argument 'num_user'"),
        ({"hyperparams": {"learning_rate": "exp_1"}}, "unknown schedule of learning_rate 'exp'"),
        ({"hyperparams": {"momentum": 1}}, "'momentum'"),
        ({"hyperparams": {"patience": 0}}, "patience must be >= 1, got 0"),
        ({"hyperparams": {"policy": "MlpPolicy"}}, "unknown policy 'MlpPolicy'; valid: SetPolicy"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as error:
        run(tmp_path, **kwargs)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run.json").exists()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot make the folder"):
        run(tmp_path / "file")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/tensorboard").write_text("")
    with pytest.raises(ValueError, match=r"cannot write the log in '.*run/tensorboard': File exists") as error:
        run(tmp_path / "run")
    assert "\n" not in str(error.value)


def test_corrupt_files_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 300, KeyboardInterrupt)
        run(tmp_path)
    content = (tmp_path / "checkpoint.zip").read_bytes()
    (tmp_path / "checkpoint.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"the checkpoint in .* is missing or corrupt"):
        run(tmp_path, resume=True)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"training run .*run.json' is missing or corrupt"):
        run(tmp_path, resume=True)


CONTINUOUS = ("SemCom/CRRA-v0", "SemCom/CRRAUS-v0", "SemCom/SFMA-v0", "SemCom/ASCC-v0", "SemCom/Training-v0")
IMITATED = (*(env_id for env_id in CONTINUOUS if env_id != "SemCom/SFMA-v0"), "SemCom/SFMAPairing-v0")
IDS_OF = dict.fromkeys(agents.ALGORITHMS, CONTINUOUS) | {
    "bc": IMITATED,
    "dagger": IMITATED,
    "maskable_ppo": ("SemCom/SFMAPairing-v0",),
    "recurrent_ppo": (),  # for the blocks of the fading ids
}


@pytest.mark.parametrize("algo", agents.ALGORITHMS)
def test_which_ids_have_hyperparameters(algo: str) -> None:
    from semcom_gym.agents import hyperparams

    for env_id in envs.IDS:
        if env_id not in IDS_OF[algo]:
            with pytest.raises(ValueError, match=env_id):
                hyperparams.load(env_id, algo)
            continue
        settings = hyperparams.load(env_id, algo)
        imitates = issubclass(agents.ALGORITHMS[algo][0], agents.BC)
        other = {"SemCom/SFMA-v0": "MatchingPolicy"} if algo == "apg" else {}
        other |= {"SemCom/SFMAPairing-v0": "SetMaskablePolicy"} if imitates else {}
        other |= {"SemCom/ASCC-v0": "ChoicePolicy"} if algo == "apg" else {}
        assert settings["policy"] == other.get(env_id, "SetPolicy")
        assert hyperparams.arguments(settings, 30)


MODEL_FREE = {
    "ppo": {"n_steps": 2, "batch_size": 32, "n_epochs": 2},
    "a2c": {},
    "sac": {"learning_starts": 32, "gradient_steps": 2, "batch_size": 16},
    "tqc": {"learning_starts": 32, "gradient_steps": 2, "batch_size": 16},
    "td3": {"learning_starts": 32, "gradient_steps": 2, "batch_size": 16},
}


@pytest.mark.parametrize("env_id", CONTINUOUS)
@pytest.mark.parametrize("algo", MODEL_FREE)
def test_every_algorithm_trains_on_every_id(
    algo: str, env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the settings of its own file: the weights move, are saved, and decide the same when loaded."""
    monkeypatch.setattr(Validation, "picture", lambda *args: None)
    short: dict[str, Any] = {"timesteps": 96, "num_envs": 16, "evaluations": 1, "validation": 6, "scored": 0}
    short["num_users"] = 4
    found = agents.train(env_id, algo, out=tmp_path, progress=False, hyperparams=MODEL_FREE[algo], **short)
    assert found.record["curve"][0]["reward"] != found.record["curve"][-1]["reward"]
    loaded = agents.ALGORITHMS[algo][0].load(tmp_path / "model.zip", device="cpu")
    problem = envs.problem(found.model.env.venv.unwrapped.problem.name)
    params = problem.preset(found.record["preset"], num_users=4)
    instance = problem.sample_split(params, "train", 6)
    actions = [agents.decide(model, problem, params, instance) for model in (found.model, loaded)]
    np.testing.assert_array_equal(actions[0], actions[1])
    outcome = problem.evaluate(params, instance, problem.decode(params, instance, actions[1].astype(float)))
    assert np.isfinite(problem.reward(outcome, 1.0)).all()
    assert loaded.predict(problem.observe(params, instance).astype(np.float32))[0].shape == actions[1].shape


PAIRS = {
    "ppo": {"timesteps": 10_240, "num_envs": 128, "hyperparams": {"batch_size": 128}},
    "sac": {"timesteps": 3200, "num_envs": 64, "hyperparams": OFF_POLICY | {"batch_size": 64, "gradient_steps": 2}},
}


@pytest.mark.parametrize("algo", PAIRS)
def test_learns_to_pair(algo: str, tmp_path: Path) -> None:
    small = {"policy_kwargs": {"width": 16, "depth": 1, "start": [0.2, 0.0, 0.6], "value_scale": 30.0}}
    settings = PAIRS[algo] | {"hyperparams": PAIRS[algo]["hyperparams"] | small, "num_users": 4}
    record = run(tmp_path, algo, "SemCom/SFMA-v0", validation=100, evaluations=1, **settings).record
    start, end = record["curve"][0]["reward"], record["curve"][-1]["reward"]
    assert end > start + 2.0  # Mbit/s
