"""APG where users are paired: the matching policy, and matchings compared by what they earn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semcom_gym import agents, baselines, envs
from semcom_gym.agents import APG, make_vec_env
from semcom_gym.agents.matching_policy import MatchingPolicy
from semcom_gym.envs.sfma import actions, pairs

torch.set_num_threads(1)
ID = "SemCom/SFMA-v0"
PROBLEM = envs.problem("sfma")
SMALL = {"width": 32, "depth": 1, "start": [0.2, 0.0, 0.6]}


def params(users: int = 6) -> Any:
    return PROBLEM.preset("default", num_users=users)


def model(users: int = 6, seed: int = 0, **kwargs: Any) -> APG:
    env = make_vec_env(ID, 64, seed=seed, backend="torch", num_users=users)
    settings = {"candidates": 4, "advantage_scale": 5.0, "learning_rate": 2e-3} | kwargs
    return APG("MatchingPolicy", env, seed=seed, device="cpu", policy_kwargs=dict(SMALL), **settings)


def observations(users: int = 6, n: int = 12) -> tuple[Any, torch.Tensor]:
    instance = PROBLEM.sample_split(params(users), "validation", n)
    return instance, torch.as_tensor(PROBLEM.observe(params(users), instance), dtype=torch.float32)


def stirred(users: int = 6) -> APG:
    """A model whose heads are not near zero, so that instances and pairs differ."""
    found = model(users)
    torch.manual_seed(3)
    for head in (found.policy.score, found.policy.head):
        torch.nn.init.normal_(head.weight, std=0.5)
    return found


def test_the_environment_decodes_the_policys_matching_and_shares() -> None:
    policy = stirred().policy
    instance, observation = observations()
    with torch.no_grad():
        action = policy(observation).numpy().astype(float)
    allocation = PROBLEM.decode(params(), instance, action)
    chosen = np.sort(np.argsort(-action[:, : pairs.count(6)], axis=-1)[:, :3], axis=-1)
    np.testing.assert_array_equal(allocation.pair, chosen)
    blocks = action[:, pairs.count(6) :].reshape(len(action), 3, 6)
    members = pairs.members(6)[chosen]
    for i in range(len(action)):
        for left, right in members[i]:
            np.testing.assert_array_equal(blocks[i, :, left], blocks[i, :, right])
    assert np.abs(action).max() <= 1.0


def test_relabelled_users_get_the_same_decision() -> None:
    policy = stirred().policy
    instance, observation = observations()
    order = np.random.default_rng(1).permutation(6)
    new_pair = pairs.index(6)[order[pairs.members(6)[:, 0]], order[pairs.members(6)[:, 1]]]
    flipped = order[pairs.members(6)[:, 0]] > order[pairs.members(6)[:, 1]]
    fields = {}
    for name, value in vars(instance).items():
        if name == "distortion_level":
            value = value[:, new_pair]
            fields[name] = np.where(flipped[None, :, None], value[..., ::-1], value)
        else:
            fields[name] = value[:, new_pair if value.shape[1] == pairs.count(6) else order]
    turned = type(instance)(**fields)
    with torch.no_grad():
        plain = PROBLEM.decode(params(), instance, policy(observation).numpy().astype(float))
        seen = torch.as_tensor(PROBLEM.observe(params(), turned), dtype=torch.float32)
        other = PROBLEM.decode(params(), turned, policy(seen).numpy().astype(float))
    rate = PROBLEM.evaluate(params(), instance, plain).objective
    np.testing.assert_allclose(PROBLEM.evaluate(params(), turned, other).objective, rate, rtol=1e-3)
    back = np.sort(new_pair[other.pair], axis=-1)
    assert (back == plain.pair).all(axis=-1).mean() > 0.9  # a tie may fall either way


def test_proposals_are_matchings_the_first_the_policys_own() -> None:
    torch.manual_seed(0)
    policy = stirred().policy
    _, observation = observations(n=40)
    found, score = policy.propose(observation, 5, 1.0)
    assert found.shape == (5, 40, pairs.count(6) + 18)
    assert score.shape == (5, 40)
    torch.testing.assert_close(found[0], policy(observation))
    chosen = (found[:, :, : pairs.count(6)] > 0).sum(dim=-1)
    assert (chosen == 3).all()
    assert (score[0][None] >= score - 1e-4).all()  # the best matching has the largest total score
    assert (found[1:, :, : pairs.count(6)] != found[0, :, : pairs.count(6)]).any(dim=-1).float().mean() > 0.2


def test_one_policy_for_any_number_of_users() -> None:
    policy = stirred().policy
    for users in (4, 6, 10, 16):
        instance, observation = observations(users, 3)
        with torch.no_grad():
            action = policy(observation).numpy().astype(float)
        allocation = actions.decode(params(users), instance, action)
        assert (pairs.uses(allocation.pair, users) == 1).all()


def test_gradients_reach_scores_and_shares() -> None:
    learner = model()
    learner.policy.optimizer.zero_grad()
    learner.learn(64)
    before = {name: p.detach().clone() for name, p in learner.policy.named_parameters()}
    learner.learn(192)
    moved = {name for name, p in learner.policy.named_parameters() if not torch.equal(p, before[name])}
    assert {"score.weight", "head.weight", "embed.weight"} <= moved


def test_learns_to_pair_and_to_share() -> None:
    """Better than equal shares on the best pairing for them, after a few seconds."""
    learner = model(4, exploration_std=0.02)
    instance, _ = observations(4, 60)
    equal = baselines.solve("sfma", params(4), instance, "equal")

    def reward() -> float:
        allocation = agents.allocate(learner, PROBLEM, params(4), instance)
        return float(PROBLEM.reward(PROBLEM.evaluate(params(4), instance, allocation), 100.0).mean())

    start = reward()
    learner.learn(64 * 150)
    assert reward() > start + 3.0
    assert reward() > float(equal.objective[equal.feasible].mean())


def test_save_load_and_resume_bit_for_bit(tmp_path: Path) -> None:
    learner = model()
    learner.learn(640)
    learner.save(tmp_path / "model.zip")
    again = APG.load(tmp_path / "model.zip", device="cpu")
    assert isinstance(again.policy, MatchingPolicy)
    assert again.candidates == 4
    _, observation = observations()
    np.testing.assert_array_equal(agents.act(again, observation), agents.act(learner, observation))
    other = model()
    other.learn(640)
    np.testing.assert_array_equal(agents.act(other, observation), agents.act(learner, observation))


def test_refinement_never_hurts() -> None:
    learner = stirred()
    instance, observation = observations()
    plain = agents.act(learner, observation)
    better = agents.refine(PROBLEM, params(), instance, plain, 5)
    before = PROBLEM.play(params(), instance, plain.astype(float))[1]
    assert (PROBLEM.play(params(), instance, better)[1] >= before - 1e-9).all()


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"candidates": 0}, "candidates"),
        ({"advantage_scale": -1.0}, "advantage_scale"),
        ({"policy_kwargs": {"start": [0.0, 0.0]}}, "start must hold 3 numbers"),
        ({"policy_kwargs": {"start": [0.0, 0.0, 1.0]}}, "start must hold 3 numbers"),
    ],
)
def test_bad_settings(kwargs: dict[str, Any], text: str) -> None:
    env = make_vec_env(ID, 2, backend="torch", num_users=4)
    with pytest.raises((TypeError, ValueError), match=text):
        APG("MatchingPolicy", env, device="cpu", **kwargs)
