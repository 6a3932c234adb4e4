"""The SB3 adapter: seeds, terminal observations, episode statistics, attributes, and SB3's own checkers."""

from __future__ import annotations

import warnings

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from semcom_gym import agents
from semcom_gym.envs.arrays import to_numpy


def actions(env: agents.SB3VecEnv, steps: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.uniform(-1, 1, (steps, env.num_envs, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_same_seeds_same_trajectories_as_scalar_environments(env_id: str, backend: str) -> None:
    env = agents.make_vec_env(env_id, 3, seed=7, backend=backend)
    scalars = [gym.make(env_id) for _ in range(3)]
    observation = env.reset()
    seen = [scalar.reset(seed=7 + i)[0] for i, scalar in enumerate(scalars)]
    for action in actions(env, 6):
        np.testing.assert_allclose(observation, seen, rtol=1e-6)
        before = observation
        observation, reward, done, infos = env.step(action)
        assert done.all()
        assert reward.dtype == np.float32
        for i, scalar in enumerate(scalars):
            _, scalar_reward, _, _, info = scalar.step(action[i])
            seen[i] = scalar.reset()[0]
            # in float32, whose rounding the root searches of SFMA magnify
            assert reward[i] == pytest.approx(scalar_reward, rel=0.1 if "SFMA" in env_id else 1e-4, abs=1e-6)
            assert infos[i]["objective"] == pytest.approx(info["objective"], rel=1e-2 if "SFMA" in env_id else 1e-4)
            assert infos[i]["feasible"] is info["feasible"]
            assert {name for name in info if name.startswith("violation/")} < set(infos[i])
            np.testing.assert_array_equal(infos[i]["terminal_observation"], before[i])
            assert infos[i]["TimeLimit.truncated"] is False
            assert infos[i]["episode"]["r"] == pytest.approx(float(reward[i]))
            assert infos[i]["episode"]["l"] == 1


def test_observations_are_not_overwritten_by_later_steps() -> None:
    env = agents.make_vec_env("SemCom/CRRA-v0", 4, seed=0)
    first = env.reset()
    copy = first.copy()
    _, _, _, infos = env.step(actions(env, 1)[0])
    last = infos[0]["terminal_observation"]
    env.step(actions(env, 1)[0])
    np.testing.assert_array_equal(first, copy)
    np.testing.assert_array_equal(last, copy[0])


def test_seed_takes_effect_at_the_next_reset_only() -> None:
    env = agents.make_vec_env("SemCom/CRRA-v0", 2, seed=5)
    first, second = env.reset(), env.reset()
    assert not np.array_equal(first, second)
    env.seed(5)
    np.testing.assert_array_equal(env.reset(), first)
    np.testing.assert_array_equal(env.reset(), second)


def test_attributes_and_methods() -> None:
    env = agents.make_vec_env("SemCom/CRRA-v0", 3, seed=0)
    env.reset()
    instances = env.get_attr("instance", [2, 0])
    np.testing.assert_array_equal(instances[0].gain, env.venv.unwrapped.instance.gain[2:])
    assert env.get_attr("penalty") == [1.0] * 3
    env.set_attr("penalty", 2.0)
    assert env.venv.unwrapped.penalty == 2.0
    with pytest.raises(ValueError, match="'penalty' is shared by all 3"):
        env.set_attr("penalty", 1.0, indices=[0])
    equal = env.venv.unwrapped.problem.decode(env.venv.unwrapped.params, env.venv.unwrapped.instance, np.zeros((3, 30)))
    assert [row.shape for row in env.env_method("encode", equal)] == [(30,)] * 3
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_is_wrapped(gym.wrappers.ClipAction) == [False] * 3
    assert env.render_mode is None


def test_options_pin_a_batch() -> None:
    env = agents.make_vec_env("SemCom/CRRA-v0", 4)
    inner = env.venv.unwrapped
    pinned = inner.problem.sample_split(inner.params, "validation", 4)
    env.set_options({"instance": pinned})
    observation = env.reset()
    np.testing.assert_allclose(observation, inner.problem.observe(inner.params, pinned), rtol=1e-6)
    with pytest.raises(TypeError, match="one dict for all"):
        env.set_options([{}])


def test_evaluate_policy_takes_it_for_monitored() -> None:
    env = agents.make_vec_env("SemCom/CRRA-v0", 4, seed=0, backend="torch")
    model = agents.APG("SetPolicy", env, seed=0, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean, _ = evaluate_policy(model, env, n_eval_episodes=8)
    assert np.isfinite(mean)


def test_sb3_checks_the_scalar_environment(env_and_preset: tuple[str, str]) -> None:
    env_id, preset = env_and_preset
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(env_id, preset=preset).unwrapped)


def test_rewards_of_the_torch_backend_are_differentiable() -> None:
    import torch

    env = agents.make_vec_env("SemCom/CRRA-v0", 4, seed=0, backend="torch")
    env.reset()
    action = torch.full((4, 30), 0.1, requires_grad=True)
    _, reward, done = env.step_batch(action)
    reward.sum().backward()
    assert torch.isfinite(action.grad).all()
    assert action.grad.abs().max() > 0
    assert to_numpy(done).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"env_id": "SemCom/CRRB-v0"}, "unknown environment id 'SemCom/CRRB-v0'"),
        ({"env_id": "SemCom/CRRA-v0", "preset": "esy"}, "unknown crra preset 'esy'"),
        ({"env_id": "SemCom/CRRA-v0", "backend": "jax"}, "unknown backend 'jax'"),
        ({"env_id": "SemCom/CRRA-v0", "backend": "torch", "device": "tpu9"}, "device 'tpu9' cannot be used"),
    ],
)
def test_bad_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        agents.make_vec_env(num_envs=2, **kwargs)
    assert "\n" not in str(error.value)
