"""APG with several choices: the best of them on the instance is followed in training and taken in a decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semcom_gym import agents, baselines, envs
from semcom_gym.agents import APG, make_vec_env

torch.set_num_threads(1)
ID = "SemCom/ASCC-v0"
PROBLEM = envs.problem("ascc")
CHOICES = 6
SMALL = {"width": 32, "depth": 1, "choices": CHOICES}


def params(users: int = 4) -> Any:
    return PROBLEM.preset("default", num_users=users, num_antennas=users)


def model(num_envs: int = 64, **kwargs: Any) -> APG:
    env = make_vec_env(ID, num_envs, backend="torch")
    settings = {"candidates": CHOICES, "softness": 0.002, "policy_kwargs": dict(SMALL), "seed": 0} | kwargs
    return APG("ChoicePolicy", env, device="cpu", **settings)


def stirred() -> APG:
    """A model whose heads are not near zero, so that choices, instances and users differ."""
    found = model()
    torch.manual_seed(3)
    for layer in (found.policy.heads.linear, found.policy.score[1]):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return found


def cells(users: int = 4, n: int = 40) -> tuple[Any, torch.Tensor]:
    instance = PROBLEM.sample_split(params(users), "validation", n)
    return instance, torch.as_tensor(PROBLEM.observe(params(users), instance), dtype=torch.float32)


def paid(instance: Any, action: Any, users: int = 4) -> Any:
    return PROBLEM.play(params(users), instance, np.asarray(action, np.float64))[1]


def test_the_likeliest_come_first() -> None:
    policy = stirred().policy
    _, observation = cells()
    with torch.no_grad():
        actions, chance = policy.propose(observation, CHOICES, 0.0)
        few, _ = policy.propose(observation, 2, 0.0)
        alone = policy(observation)
    assert actions.shape == (CHOICES, 40, 8)
    torch.testing.assert_close(chance.mean(dim=0), torch.ones(40))
    assert (chance.diff(dim=0) <= 0).all()
    assert torch.equal(few, actions[:2])
    assert torch.equal(alone, actions[0])
    assert (actions[1:] - actions[0]).abs().amax(dim=(0, 2)).min() > 0.05
    np.testing.assert_array_equal(agents.act(stirred(), observation), alone)


def test_the_decision_is_the_best_choice_on_the_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = stirred()
    instance, observation = cells()
    with torch.no_grad():
        actions = learner.policy.propose(observation, CHOICES, 0.0)[0].numpy()
    each = np.stack([paid(instance, action) for action in actions])
    decision = agents.decide(learner, PROBLEM, params(), instance)
    np.testing.assert_allclose(paid(instance, decision), each.max(axis=0), rtol=1e-6)
    assert (each.argmax(axis=0) > 0).any()  # not always the likeliest
    seen = agents.decide(learner, PROBLEM, params(), instance, observation=observation)
    np.testing.assert_array_equal(seen, decision)
    monkeypatch.setattr("semcom_gym.agents.decisions.CHUNK", 20)
    np.testing.assert_allclose(agents.decide(learner, PROBLEM, params(), instance), decision, atol=1e-5)
    np.testing.assert_allclose(agents.decide(learner, PROBLEM, params(), instance[7]), decision[7:8], atol=1e-5)


def test_relabelled_users_get_the_same_choices() -> None:
    """Users of one kind change places: the first two are data users."""
    policy = stirred().policy
    instance, observation = cells()
    order = [1, 0, 3, 2]
    turned = instance.map(lambda x: x[:, order])
    with torch.no_grad():
        plain = policy.propose(observation, CHOICES, 0.0)[0]
        seen = torch.as_tensor(PROBLEM.observe(params(), turned), dtype=torch.float32)
        other = policy.propose(seen, CHOICES, 0.0)[0]
    blocks = plain.view(CHOICES, 40, 2, 4)[..., order].flatten(2)
    torch.testing.assert_close(other, blocks, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("users", [2, 3, 6])
def test_any_number_of_users(users: int) -> None:
    instance, observation = cells(users, 5)
    decision = agents.decide(stirred(), PROBLEM, params(users), instance)
    assert decision.shape == (5, 2 * users)
    alone = agents.act(stirred(), observation)
    assert (paid(instance, decision, users) >= paid(instance, alone, users) - 1e-6).all()


def test_only_the_best_choices_are_moved() -> None:
    """With almost no softness the gradient is that of the mean of the best rewards, to the heads that earned them."""
    learner = model(16, softness=0.0, learning_rate=0.0, max_grad_norm=1e9, advantage_scale=0.0)
    learner.policy.heads = stirred().policy.heads
    learner.learn(16)
    gradient = learner.policy.heads.linear.weight.grad.view(CHOICES, 2, -1)[:, 0]  # of the powers
    venv = learner.get_env().venv.unwrapped
    observation, _ = venv.reset(seed=0)  # what learn() saw
    actions = learner.policy.propose(observation, CHOICES, 0.0)[0]
    reward = torch.stack([venv.problem.play(venv.params, venv.instance, action)[1] for action in actions])
    learner.policy.zero_grad()
    (-reward.max(dim=0).values.mean()).backward()
    wanted = learner.policy.heads.linear.weight.grad.view(CHOICES, 2, -1)[:, 0]
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-7)
    moved = gradient.abs().amax(dim=1) > 0
    assert 1 < moved.sum() <= CHOICES


def test_learns_choices_and_which_to_take() -> None:
    """In seconds: the best choice is close to the solver's, the likeliest one is better than the others."""
    learner = model(learning_rate=3e-3)
    instance, observation = cells(n=200)
    learner.learn(64 * 150)
    decision = agents.decide(learner, PROBLEM, params(), instance)
    outcome, reward = PROBLEM.play(params(), instance, decision.astype(float))
    assert outcome.feasible.all()
    anchor, fast = (baselines.solve("ascc", params(), instance, name).objective for name in ("equal_mmse", "fast"))
    covered = (anchor - outcome.objective).mean() / (anchor - fast).mean()
    with torch.no_grad():
        actions = learner.policy.propose(observation, CHOICES, 0.0)[0]
    each = np.stack([paid(instance, action) for action in actions])
    assert covered > 0.88  # 0.94 measured
    assert each[0].mean() > each[1:].mean()
    assert reward.mean() > each[0].mean() + 1e-3


def test_save_load_and_resume_bit_for_bit(tmp_path: Path) -> None:
    learner, other = model().learn(640), model().learn(640)
    learner.save(tmp_path / "model.zip")
    again = APG.load(tmp_path / "model.zip", device="cpu")
    assert (again.policy.choices, again.candidates, again.softness) == (CHOICES, CHOICES, 0.002)
    instance, observation = cells()
    decision = agents.decide(learner, PROBLEM, params(), instance)
    np.testing.assert_array_equal(agents.decide(again, PROBLEM, params(), instance), decision)
    np.testing.assert_array_equal(agents.decide(other, PROBLEM, params(), instance), decision)
    np.testing.assert_allclose(again.predict(observation.numpy())[0], agents.act(learner, observation), atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"policy_kwargs": {"choices": 0}}, "choices must be >= 1, got 0"),
        ({"policy_kwargs": {"pair_blocks": 1}}, "ChoicePolicy decides for users only"),
        ({"candidates": CHOICES + 1}, "candidates 7 exceeds choices 6"),
        ({"softness": -0.1}, "softness must be finite, >= 0, got -0.1"),
    ],
)
def test_bad_settings(kwargs: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        model(4, **kwargs).learn(4)
