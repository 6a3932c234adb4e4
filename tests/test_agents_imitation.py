"""Behaviour cloning and DAgger: what they learn, their runs, and what they refuse."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from semcom_gym import agents, baselines, envs
from semcom_gym.agents import training
from semcom_gym.agents.experts import Labels

torch.set_num_threads(1)
PAIRING = "SemCom/SFMAPairing-v0"
SMALL = {"width": 16, "depth": 1, "start": [0.0, 0.0, 0.6]}


def run(folder: Path, algo: str, env_id: str = "SemCom/CRRA-v0", **kwargs: Any) -> agents.Run:
    defaults: dict[str, Any] = {"timesteps": 640, "num_envs": 32, "evaluations": 4, "validation": 10, "scored": 0}
    sizes: dict[str, Any] = {"gradient_steps": 4, "batch_size": 64, "policy_kwargs": SMALL}
    if env_id == PAIRING:
        sizes["policy_kwargs"] = {"width": 16, "depth": 1}
        defaults |= {"num_users": 6}
    defaults["hyperparams"] = sizes | kwargs.pop("hyperparams", {})
    return agents.train(env_id, algo, out=folder, progress=False, **(defaults | kwargs))


def weights(run: agents.Run) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(run.model.policy.parameters()).detach()


# --- training ------------------------------------------------------------------------------------------------------


def test_the_loss_of_choices_is_the_probability_of_any_that_is_right() -> None:
    model = agents.BC("SetMaskablePolicy", agents.make_vec_env(PAIRING, 2, num_users=4), policy_kwargs={"width": 8})
    observation = torch.as_tensor(model.env.reset())
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        logits = model.policy.get_distribution(observation).distribution.logits.tolist()
        target = torch.tensor([[1.0, 0, -1, 0, -1, 1], [0.0, 0, 0, 0, 1, -1]])
        found = model._loss(observation, target, torch.ones(2, 6)).item()
    by_hand = []
    for logit, row in zip(logits, target.tolist(), strict=True):
        allowed = sum(math.exp(x) for x, t in zip(logit, row, strict=True) if t >= 0)
        right = sum(math.exp(x) for x, t in zip(logit, row, strict=True) if t > 0)
        by_hand.append(-math.log(right / allowed))
    assert found == pytest.approx(sum(by_hand) / 2, rel=1e-5)


def test_cloning_comes_near_its_expert(tmp_path: Path) -> None:
    sizes = {"gradient_steps": 25, "batch_size": 128, "learning_rate": "cos_5e-3"}
    record = run(
        tmp_path, "bc", timesteps=5120, num_envs=256, num_users=4, validation=100, evaluations=1, hyperparams=sizes
    ).record
    problem = envs.problem("crra")
    params = problem.preset("default", num_users=4)
    instance = problem.sample_split(params, "validation", 100)
    best = baselines.solve("crra", params, instance, "fast").objective.mean()
    start, end = record["curve"][0]["reward"], record["curve"][-1]["reward"]
    assert best - end < 0.15 * (best - start)
    assert record["curve"][-1]["feasible"] == 1.0


def test_pairing_is_learnt(tmp_path: Path) -> None:
    sizes = {"gradient_steps": 40, "learning_rate": "cos_5e-3"}
    record = run(
        tmp_path, "dagger", PAIRING, timesteps=960, num_envs=32, validation=40, evaluations=1, hyperparams=sizes
    ).record
    problem = envs.problem("sfma")
    params = problem.preset("default", num_users=6)
    instance = problem.sample_split(params, "validation", 40)
    best = baselines.solve("sfma", params, instance, "price_matching").objective.mean()
    start, end = record["curve"][0]["objective"], record["curve"][-1]["objective"]
    assert best - end < 0.4 * (best - start)


def test_both_are_one_where_an_episode_is_one_decision_and_differ_where_it_is_not(tmp_path: Path) -> None:
    found = {algo: run(tmp_path / algo, algo) for algo in ("bc", "dagger")}
    assert torch.equal(weights(found["bc"]), weights(found["dagger"]))
    states = {}
    for algo in ("bc", "dagger"):
        env = agents.make_vec_env(PAIRING, 16, seed=0, num_users=6)
        model = agents.ALGORITHMS[algo][0](
            "SetMaskablePolicy", env, seed=0, gradient_steps=2, expert="price_matching", policy_kwargs={"width": 8}
        )
        model.learn(16 * 3 * 2)
        states[algo] = model.answers.rows["observation"][:96]
        assert len(model.answers) == 96
    free = slice(4, None, 5)  # the last feature of a user's row; 6 users
    np.testing.assert_array_equal(states["bc"][:48], states["dagger"][:48])
    assert not np.array_equal(states["bc"][48:, free], states["dagger"][48:, free]), "the second round is the learner's"


class Killed(Exception):
    """Stands for a process that is killed."""


@pytest.mark.parametrize(("algo", "env_id"), [("bc", "SemCom/CRRA-v0"), ("dagger", PAIRING)])
def test_a_killed_run_ends_as_an_unbroken_one(
    algo: str, env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"timesteps": 192, "num_envs": 16, "evaluations": 2, "validation": 4}
    unbroken = run(tmp_path / "a", algo, env_id, **sizes)

    def on_step(self: Any) -> bool:
        if self.num_timesteps >= 144:
            raise Killed
        return True

    with monkeypatch.context() as patch:
        patch.setattr(training._Keeper, "_on_step", on_step)
        with pytest.raises(Killed):
            run(tmp_path / "b", algo, env_id, **sizes)
    resumed = run(tmp_path / "b", algo, env_id, resume=True, **sizes)
    assert torch.equal(weights(resumed), weights(unbroken))
    assert [p["reward"] for p in resumed.record["curve"]] == [p["reward"] for p in unbroken.record["curve"]]


def test_a_run_is_scored_and_shipped_like_any_other(tmp_path: Path) -> None:
    from semcom_gym.benchmarks import competitors, protocol

    found = run(tmp_path / "run", "bc", hyperparams={"expert": "fra"})
    assert found.record["hyperparams"]["expert"] == "fra"
    assert found.record["command"].endswith("--seed 0 --expert fra")
    task = protocol.task("SemCom/CRRA-v0", n=4, split="validation")
    competitor = competitors.agent(task, f"BC={tmp_path / 'run'}")
    decisions = competitor.runs[0].decide(task)
    assert decisions.feasible.all()
    (tmp_path / "shipped").mkdir()
    file = agents.ship(tmp_path / "run", folder=tmp_path / "shipped")
    model = agents.load("SemCom/CRRA-v0", "bc", folder=tmp_path / "shipped")
    np.testing.assert_array_equal(
        agents.decide(model, task.problem, task.params, task.instance),
        agents.decide(found.model, task.problem, task.params, task.instance),
    )
    assert file.stat().st_size < 200_000, "without what was collected"


def test_predict_obeys_masks_after_save_and_load(tmp_path: Path) -> None:
    model = agents.DAgger("SetMaskablePolicy", agents.make_vec_env(PAIRING, 2, num_users=6), seed=0)
    model.save(tmp_path / "model.zip")
    loaded = agents.DAgger.load(tmp_path / "model.zip")
    env = gym.make(PAIRING, num_users=6)
    observation, _ = env.reset(seed=1)
    ended = False
    while not ended:
        masks = env.unwrapped.action_masks()
        action, _ = loaded.predict(observation, deterministic=True, action_masks=masks)
        assert masks[action]
        observation, _, ended, _, info = env.step(action)
    assert info["violation/pairing"] == 0


def test_answers_drop_the_oldest_and_survive_a_file() -> None:
    model = agents.BC("SetPolicy", agents.make_vec_env("SemCom/CRRA-v0", 2, dtype="float64"), buffer_size=5)
    for k in range(4):
        value = np.full((2, 3), float(k))
        model.answers.add(value, Labels(value, value, np.array([True, True])))
    assert len(model.answers) == 5
    assert sorted(model.answers.rows["target"][:, 0]) == [1.0, 2.0, 2.0, 3.0, 3.0]
    stream = io.BytesIO()
    model.save_replay_buffer(stream)
    stream.seek(0)
    other = agents.BC("SetPolicy", model.env, buffer_size=5)
    other.load_replay_buffer(stream)
    assert (other.answers.count, len(other.answers)) == (8, 5)
    for name, value in model.answers.rows.items():
        np.testing.assert_array_equal(other.answers.rows[name], value)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hyperparams": {"expert": "fastest"}}, "unknown crra method 'fastest'.*did you mean 'fast'"),
        ({"env_id": PAIRING, "hyperparams": {"expert": "noma"}}, "'noma' is no expert: it stands for another"),
        ({"env_id": "SemCom/SFMA-v0"}, "unknown environment id for bc 'SemCom/SFMA-v0'"),
        ({"hyperparams": {"batch_size": 0}}, "batch_size must be >= 1"),
        ({"hyperparams": {"buffer_size": 2.5}}, "buffer_size must be an integer"),
        ({"hyperparams": {"max_grad_norm": 0}}, "max_grad_norm must be finite, > 0"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as error:
        run(tmp_path, "bc", **kwargs)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run.json").exists()


def test_environments_that_no_solver_can_answer() -> None:
    with pytest.raises(TypeError, match="float64"):
        agents.BC("SetPolicy", agents.make_vec_env("SemCom/CRRA-v0", 2))
    with pytest.raises(TypeError, match="imitate on SemCom/SFMAPairing-v0"):
        agents.BC("SetPolicy", agents.make_vec_env("SemCom/SFMA-v0", 2, dtype="float64"))
    with pytest.raises(TypeError, match="a solver sees the instance"):
        agents.BC("SetPolicy", None, _init_setup_model=False).learn(1)


def test_an_expert_is_for_imitation(capsys: pytest.CaptureFixture[str]) -> None:
    from semcom_gym.benchmarks import cli

    assert cli.main(["train", "--env", "SemCom/CRRA-v0", "--algo", "ppo", "--expert", "fast"]) == 2
    assert "--expert is for --algo bc or dagger, not 'ppo'" in capsys.readouterr().err
