"""Decisions in batches, and their refinement."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semcom_gym import agents, envs
from semcom_gym.agents import decisions

torch.set_num_threads(1)
PROBLEM = envs.problem("crra")


@pytest.fixture(scope="module")
def model() -> agents.APG:
    env = agents.make_vec_env("SemCom/CRRA-v0", 8, backend="torch")
    return agents.APG("SetPolicy", env, seed=0, device="cpu", policy_kwargs={"start": (0.0, 0.0, 0.6)})


def test_chunks_do_not_change_decisions(model: agents.APG, monkeypatch: pytest.MonkeyPatch) -> None:
    params = PROBLEM.preset("default")
    instance = PROBLEM.sample_split(params, "validation", 9)
    whole = agents.decide(model, PROBLEM, params, instance)
    monkeypatch.setattr("semcom_gym.agents.decisions.CHUNK", 4)
    np.testing.assert_allclose(agents.decide(model, PROBLEM, params, instance), whole, atol=1e-5)
    assert whole.shape == (9, 30)
    assert np.abs(whole).max() <= 1
    np.testing.assert_allclose(whole, model.predict(PROBLEM.observe(params, instance).astype(np.float32))[0], atol=1e-5)


def test_another_number_of_users(model: agents.APG) -> None:
    params = PROBLEM.preset("default", num_users=17)
    instance = PROBLEM.sample_split(params, "validation", 3)
    outcome, _ = PROBLEM.play(params, instance, agents.decide(model, PROBLEM, params, instance))
    assert outcome.terms["ratio"].shape == (3, 17)
    assert outcome.feasible.all()


@pytest.mark.parametrize("preset", ["default", "hard", "paper", "select"])
@pytest.mark.parametrize("steps", [1, 30])
def test_refinement_is_never_worse(preset: str, steps: int) -> None:
    params = PROBLEM.preset(preset)
    instance = PROBLEM.sample_split(params, "validation", 40)
    actions = np.random.default_rng(0).uniform(-1, 1, (40, PROBLEM.action_layout(params).size))
    before = PROBLEM.play(params, instance, actions)[1]
    refined = agents.refine(PROBLEM, params, instance, actions, steps)
    outcome, after = PROBLEM.play(params, instance, refined)
    assert (after >= before - 1e-12).all()
    assert outcome.feasible.all()
    assert np.abs(refined).max() <= 1
    if steps == 30 and preset != "paper":
        assert after.mean() > before.mean() + 0.01


def test_refined_decisions(model: agents.APG) -> None:
    params = PROBLEM.preset("default")
    instance = PROBLEM.sample_split(params, "validation", 20)
    plain = PROBLEM.play(params, instance, agents.decide(model, PROBLEM, params, instance))[1]
    refined = PROBLEM.play(params, instance, agents.decide(model, PROBLEM, params, instance, refine_steps=20))[1]
    assert (refined >= plain - 1e-12).all()
    assert refined.mean() > plain.mean()


def test_bad_input(model: agents.APG) -> None:
    params = PROBLEM.preset("default")
    with pytest.raises(ValueError, match=r"observations must have shape \(n, d\), got \(75,\)"):
        decisions.act(model, np.zeros(75))
    with pytest.raises(TypeError, match="instance must be a crra Instance"):
        agents.decide(model, PROBLEM, params, np.zeros((2, 75)))
    with pytest.raises(ValueError, match="refine_steps must be >= 0"):
        agents.decide(model, PROBLEM, params, PROBLEM.sample_split(params, "train", 1), refine_steps=-1)
    with pytest.raises(ValueError, match=r"the length of a row must be users \* 7 \+ 5, got 76"):
        decisions.act(model, np.zeros((2, 76)))


@pytest.mark.parametrize("name", ["crra", "ascc"])
def test_search_is_never_worse_and_repeats_itself(name: str) -> None:
    """Random moves: at least as good everywhere, better on average, the same for every batch an instance is in."""
    problem = envs.problem(name)
    params = problem.preset("default")
    instance = problem.sample_split(params, "train", 40)
    actions = np.zeros((40, problem.action_layout(params).size))
    plain = problem.play(params, instance, actions)[1]
    found = agents.search(problem, params, instance, actions, 6)
    reward = problem.play(params, instance, found)[1]
    assert (reward >= plain).all()
    assert reward.mean() > plain.mean() + 1e-3
    assert np.abs(found).max() <= 1
    np.testing.assert_array_equal(agents.search(problem, params, instance[7], actions[7:8], 6), found[7:8])
    assert problem.play(params, instance, agents.search(problem, params, instance, found, 6))[1].mean() > reward.mean()


@pytest.mark.parametrize(
    ("bad", "name"), [({"rounds": 0}, "rounds"), ({"moves": 0}, "moves"), ({"spread": 0.0}, "spread")]
)
def test_bad_search(bad: dict[str, float], name: str) -> None:
    params = PROBLEM.preset("default")
    with pytest.raises(ValueError, match=f"{name} must be"):
        agents.search(PROBLEM, params, PROBLEM.sample_split(params, "train", 1), np.zeros((1, 30)), **bad)
