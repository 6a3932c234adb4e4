"""APG: exact gradients, it learns quickly, the same seed gives the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semcom_gym import agents, baselines, envs

torch.set_num_threads(1)
START = {"SemCom/CRRA-v0": (0.0, 0.0, 0.6), "SemCom/CRRAUS-v0": (0.0, 0.0, 0.6, 0.3)}
SWITCHES = {"SemCom/CRRA-v0": (), "SemCom/CRRAUS-v0": ("selection",)}


@pytest.fixture(params=["SemCom/CRRA-v0", "SemCom/CRRAUS-v0"])
def env_id(request: pytest.FixtureRequest) -> str:
    """The ids of a plain set policy; where users are paired, see test_agents_matching.py."""
    return str(request.param)


def make(env_id: str, num_envs: int = 16, **kwargs: object) -> agents.APG:
    env = agents.make_vec_env(env_id, num_envs, backend="torch")
    settings = {"policy_kwargs": {"start": START[env_id]}, "switches": SWITCHES[env_id], "seed": 0, "device": "cpu"}
    return agents.APG("SetPolicy", env, **(settings | kwargs))


def weights(model: agents.APG) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def test_beats_equal_shares_within_seconds(env_id: str) -> None:
    model = make(env_id, 256, learning_rate=2e-3)
    venv = model.get_env().venv.unwrapped
    instance = venv.problem.sample_split(venv.params, "validation", 100)
    anchor = baselines.solve("crra", venv.params, instance, baselines.anchor("crra"))
    fast = baselines.solve("crra", venv.params, instance, "fast")
    model.learn(256 * 250)
    actions = agents.decide(model, venv.problem, venv.params, instance)
    outcome, _ = venv.problem.play(venv.params, instance, actions)
    assert outcome.feasible.all()
    assert outcome.objective.mean() > anchor.objective.mean()
    covered = (outcome.objective - anchor.objective).mean() / (fast.objective - anchor.objective).mean()
    assert covered > 0.8  # 0.93-0.99 measured


def test_the_same_seed_gives_the_same_weights(env_id: str) -> None:
    first, second, other = (make(env_id, exploration_std=0.1, seed=seed).learn(16 * 8) for seed in (3, 3, 4))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))


def test_the_gradient_is_that_of_the_mean_reward() -> None:
    model = make("SemCom/CRRA-v0", learning_rate=0.0, max_grad_norm=1e9)
    model.learn(16)
    gradient = torch.cat([p.grad.flatten() for p in model.policy.parameters()])
    venv = model.get_env().venv.unwrapped
    observation, _ = venv.reset(seed=0)  # what learn() saw
    direction = gradient / gradient.norm()
    at, step = weights(model), 1e-3

    def value(shift: float) -> float:
        torch.nn.utils.vector_to_parameters(at + shift * direction, model.policy.parameters())
        with torch.no_grad():
            action = model.policy(observation).double()
        instance = venv.instance.map(lambda x: x.double() if x.is_floating_point() else x)
        return float(venv.problem.play(venv.params, instance, action, venv.penalty)[1].mean())

    slope = (value(step) - value(-step)) / (2 * step)
    assert slope < 0  # the gradient kept is that of the loss
    assert -slope == pytest.approx(float(gradient.norm()), rel=0.02)


def test_switches_follow_the_difference_they_make() -> None:
    model = make("SemCom/CRRAUS-v0", 4)
    venv = model.get_env().venv.unwrapped
    model.get_env().reset()
    generator = torch.Generator().manual_seed(0)
    action = (2 * torch.rand(4, 40, generator=generator) - 1).requires_grad_()
    mixed, gain = model._switch(action)
    assert torch.equal(mixed, action)
    gain.sum().backward()
    for user in range(10):
        on, off = action.detach().clone(), action.detach().clone()
        on[:, 30 + user], off[:, 30 + user] = 1.0, -1.0
        paid = [venv.problem.play(venv.params, venv.instance, action, venv.penalty)[1] for action in (on, off)]
        difference = paid[0] - paid[1]
        torch.testing.assert_close(action.grad[:, 30 + user], 0.5 * difference)
    assert action.grad[:, :30].abs().max() == 0
    assert action.grad[:, 30:].abs().max() > 0


def test_save_and_load(tmp_path: Path, env_id: str) -> None:
    model = make(env_id).learn(64)
    model.save(tmp_path / "model.zip")
    env = agents.make_vec_env(env_id, 16, backend="torch")
    loaded = agents.APG.load(tmp_path / "model.zip", env=env, device="cpu")
    observation = env.reset()
    np.testing.assert_array_equal(loaded.predict(observation)[0], model.predict(observation)[0])
    assert loaded.num_timesteps == 64
    loaded.learn(32, reset_num_timesteps=False)
    assert loaded.num_timesteps == 96
    assert not torch.equal(weights(loaded), weights(model))


def test_schedules_reach_their_end() -> None:
    model = make("SemCom/CRRA-v0", learning_rate=lambda left: 1e-3 * left, exploration_std=lambda left: 0.2 * left)
    model.learn(16 * 10)
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in envs.IDS | envs.FADING_IDS if name != "SemCom/SFMAPairing-v0"])
def test_learning_makes_nothing_on_the_default_device(name: str) -> None:
    """So that all of it is where the environments and the policy are."""
    fading = name in envs.FADING_IDS
    env = agents.make_vec_env(name, 64, backend="torch", **({} if fading else {"pool": 128}))
    policy = "MatchingPolicy" if "SFMA" in name else "ChoicePolicy" if "ASCC" in name else "SetPolicy"
    model = agents.APG(policy, env, seed=0, device="cpu", n_steps=4 if fading else 1)
    model.learn(64 * 4)
    before = weights(model)
    with torch.device("meta"):  # holds nothing: a tensor made there cannot meet the others
        model.learn(64 * 8, reset_num_timesteps=False)
    assert not torch.equal(weights(model), before)


def test_needs_a_gradient() -> None:
    model = agents.APG("SetPolicy", agents.make_vec_env("SemCom/CRRA-v0", 4), device="cpu")
    with pytest.raises(TypeError, match="APG differentiates the reward: env must come from make_vec_env"):
        model.learn(4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_steps": 0}, "n_steps must be >= 1"),
        ({"gamma": 1.5}, "gamma must be finite, >= 0 and <= 1, got 1.5"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be finite, > 0"),
        ({"switches": ("ratios",)}, "unknown switch 'ratios'; valid: bandwidth, power, ratio; did you mean 'ratio'"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("SemCom/CRRA-v0", **kwargs).learn(16)


def test_makes_its_own_environment_from_an_id() -> None:
    model = agents.APG("SetPolicy", "SemCom/CRRA-v0", seed=0, device="cpu")
    assert model.get_env().venv.unwrapped.backend == "torch"
