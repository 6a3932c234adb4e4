"""APG on windows shorter than an episode: the value of what follows, its gradient, what it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("stable_baselines3")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semcom_gym import agents
from semcom_gym.agents.critic import Critic, Step
from semcom_gym.agents.fading import FadingValidation

torch.set_num_threads(1)
CRRA = "SemCom/CRRAFading-v0"
SMALL = {"num_users": 3, "horizon": 4}


def make(num_envs: int = 16, *, seed: int = 0, num_users: int = 3, horizon: int = 4, **kwargs: Any) -> agents.APG:
    env = agents.make_vec_env(CRRA, num_envs, backend="torch", num_users=num_users, horizon=horizon)
    start = {"width": 16, "depth": 1, "start": [0.0, 0.0, 0.6, 0.0]}
    settings = {"n_steps": 1, "gamma": 1.0, "bootstrap": True, "learning_rate": 5e-3, "policy_kwargs": start}
    return agents.APG("SetPolicy", env, seed=seed, device="cpu", **(settings | kwargs))


def weights(model: agents.APG) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def steep(model: agents.APG) -> Critic:
    """The critic of the model, untrained, with values that differ much."""
    critic = model.critic
    assert critic is not None
    with torch.no_grad():
        for p in critic.target.parameters():
            p.mul_(2.0)
    return critic


def test_the_gradient_reaches_through_the_value() -> None:
    """Against finite differences of the rewards of a window and the value after it, on the same episodes."""
    model = make(n_steps=2, gamma=0.9, max_grad_norm=1e9)
    critic = steep(model)
    env = model.get_env()
    episode = env.venv.unwrapped.episodes("train", 16)
    _, callback = model._setup_learn(1)

    def value() -> torch.Tensor:
        env.set_options({"episode": episode})
        model._last_obs = env.reset()
        return model._rollout(callback)[0]

    def gradient() -> torch.Tensor:
        model.policy.zero_grad()
        value().backward()
        return torch.cat([p.grad.flatten() for p in model.policy.parameters()])

    found = gradient()
    assert all(p.grad is None for p in critic.target.parameters())
    at, step, direction = weights(model), 3e-3, found / found.norm()
    ends = []
    for shift in (step, -step):
        torch.nn.utils.vector_to_parameters(at + shift * direction, model.policy.parameters())
        ends.append(float(value().detach()))
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(found.norm()), rel=0.02)
    torch.nn.utils.vector_to_parameters(at, model.policy.parameters())
    model.critic = None
    assert (gradient() - found).norm() > 0.1 * found.norm()


def test_a_window_is_worth_its_rewards_and_the_value_after_it() -> None:
    model = make(4, n_steps=3, gamma=0.5)
    critic = steep(model)
    _, callback = model._setup_learn(1)
    env = model.get_env()
    model._last_obs = env.reset()
    total, window, _ = model._rollout(callback)
    after = critic(model._last_obs).detach()
    reward = [step.reward for step in window]
    wanted = reward[0] + 0.5 * reward[1] + 0.25 * reward[2] + 0.125 * after
    assert total.item() == pytest.approx(wanted.mean().item() / 3, rel=1e-5)
    total, window, _ = model._rollout(callback)  # the fourth decision is the last: what follows is another episode
    assert window[0].done.all()
    reward = [step.reward for step in window]
    wanted = reward[0] + reward[1] + 0.5 * reward[2] + 0.25 * critic(model._last_obs).detach()
    assert total.item() == pytest.approx(wanted.mean().item() / 3, rel=1e-5)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7, 1.0])
def test_returns(gae_lambda: float) -> None:
    """The mean of the returns over k steps, weighted by lambda^(k - 1), each worked out by itself."""
    model = make(2)
    critic, size, gamma = steep(model), model.observation_space.shape[0], 0.9
    seen = torch.rand(5, 2, size, generator=torch.Generator().manual_seed(0))
    reward = torch.rand(4, 2, generator=torch.Generator().manual_seed(1))
    done = torch.zeros(4, 2, dtype=torch.bool)
    done[1, 1] = True
    window = [Step(seen[t], reward[t], done[t]) for t in range(4)]
    found = critic.returns(window, seen[4], gamma, gae_lambda)
    value = torch.stack([critic(x).detach() for x in seen])

    def after(t: int, k: int, row: int) -> float:
        """The return of ``k`` steps from step ``t``, or of as many as the episode has."""
        total = 0.0
        for i in range(k):
            total += gamma**i * float(reward[t + i, row])
            if done[t + i, row]:
                return total
        return total + gamma**k * float(value[t + k, row])

    for row in range(2):
        for t in range(4):
            most = 4 - t
            share = [(1 - gae_lambda) * gae_lambda ** (k - 1) for k in range(1, most)] + [gae_lambda ** (most - 1)]
            wanted = sum(w * after(t, k, row) for k, w in enumerate(share, 1))
            assert float(found[t, row]) == pytest.approx(wanted, rel=1e-4)


def test_values_do_not_depend_on_the_order_of_users() -> None:
    model = make(8)
    layout = model.get_env().venv.unwrapped.observation_layout
    seen = torch.as_tensor(model.get_env().reset())
    cut = 3 * len(layout.user_features)
    rows = seen[:, :cut].view(8, 3, -1)[:, [2, 0, 1]].reshape(8, -1)
    torch.testing.assert_close(model.critic(torch.cat([rows, seen[:, cut:]], dim=1)), model.critic(seen))


def test_nothing_follows_a_whole_episode() -> None:
    """A window that is the episode: the same weights as without a critic, exploration and all."""
    first, second = (make(n_steps=4, bootstrap=on, exploration_std=0.1).learn(16 * 4 * 3) for on in (True, False))
    assert torch.equal(weights(first), weights(second))


def test_it_keeps_energy_for_what_follows() -> None:
    """One decision at a time, energy left is worth nothing without the value of what follows."""
    reward = {}
    for bootstrap in (True, False):
        model = make(16, critic_epochs=4, bootstrap=bootstrap)
        validation = FadingValidation(model.env.venv.unwrapped, 20, scored=0)
        model.learn(16 * 150)
        reward[bootstrap] = validation.measure(model)[0]["validation/reward"]
    assert reward[True] > reward[False] + 0.1, reward


def test_resumed_bit_for_bit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "timesteps": 256, "num_envs": 8, "evaluations": 4, "validation": 2, "scored": 0, "progress": False,
        "hyperparams": {
            "n_steps": 2, "bootstrap": True, "gamma": 0.99, "policy_kwargs": {"width": 16, "depth": 1},
        },
    }  # fmt: skip
    unbroken = agents.train(CRRA, "apg", out=tmp_path / "a", **settings, **SMALL)

    def stop(record: dict[str, Any]) -> bool:
        if len(record["curve"]) == 3:
            raise KeyboardInterrupt
        return False

    partial = agents.train(CRRA, "apg", out=tmp_path / "b", stop=stop, **settings, **SMALL)
    assert not partial.record["finished"]
    resumed = agents.train(CRRA, "apg", out=tmp_path / "b", resume=True, **settings, **SMALL)
    assert [point["reward"] for point in resumed.record["curve"]] == [p["reward"] for p in unbroken.record["curve"]]
    assert torch.equal(weights(resumed.model), weights(unbroken.model))
    for ours, theirs in zip(resumed.model.critic.parameters(), unbroken.model.critic.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    events = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    assert {"train/value_loss", "train/explained_variance"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": 0.0}, "bootstrap needs gamma > 0"),
        ({"gae_lambda": 1.5}, "gae_lambda must be finite, >= 0 and <= 1, got 1.5"),
        ({"critic_epochs": 0}, "critic_epochs must be >= 1"),
        ({"tau": 0.0}, "tau must be finite, > 0 and <= 1, got 0"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


@pytest.mark.parametrize("env_id", ["SemCom/CRRA-v0", "SemCom/ASCCFading-v0"])
def test_where_no_decision_changes_what_follows(env_id: str) -> None:
    env = agents.make_vec_env(env_id, 2, backend="torch")
    model = agents.APG("SetPolicy", env, gamma=0.9, bootstrap=True, device="cpu")
    with pytest.raises(ValueError, match="bootstrap needs decisions that share a budget"):
        model.learn(2)
