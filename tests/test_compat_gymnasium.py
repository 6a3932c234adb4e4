"""Other people's code on our ids: Gymnasium's ways to make vectors, its wrappers, and a CleanRL-style script."""

from __future__ import annotations

from typing import Any

import cleanrl_style
import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from semcom_gym import envs

torch.set_num_threads(1)
STEPS = 3


def rollout(env_id: str, mode: str, steps: int = STEPS, **vector_kwargs: Any) -> list[tuple[np.ndarray, ...]]:
    """Observations, rewards and ends of a few steps of three environments, all resetting in the same step."""
    kwargs: dict[str, Any] = {"dtype": "float64"} if mode == "vector_entry_point" else {}
    env = gym.make_vec(env_id, num_envs=3, vectorization_mode=mode, vector_kwargs=vector_kwargs, **kwargs)
    rng = np.random.default_rng(0)
    found = [(env.reset(seed=5)[0],)]
    for _ in range(steps):
        if isinstance(env.single_action_space, gym.spaces.Discrete):
            masks = env.unwrapped.action_masks() if mode == "vector_entry_point" else np.stack(env.call("action_masks"))
            action = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        else:
            action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        found.append(tuple(np.array(x) for x in env.step(action)[:4]))
    env.close()
    return found


def assert_same(ours: list[tuple[np.ndarray, ...]], theirs: list[tuple[np.ndarray, ...]]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("env_id", envs.IDS)
def test_all_ways_to_make_a_vector_agree(env_id: str) -> None:
    steps = 6 if "Pairing" in env_id else STEPS  # beyond an end
    ours = rollout(env_id, "vector_entry_point", steps)
    assert any(row[2].any() for row in ours[1:])
    assert_same(ours, rollout(env_id, "sync", steps, autoreset_mode=AutoresetMode.SAME_STEP))


@pytest.mark.parametrize("env_id", ["SemCom/CRRA-v0", "SemCom/SFMAPairing-v0"])
def test_worker_processes_agree(env_id: str) -> None:
    theirs = rollout(f"semcom_gym:{env_id}", "async", autoreset_mode=AutoresetMode.SAME_STEP, context="spawn")
    assert_same(rollout(env_id, "vector_entry_point"), theirs)


def test_resetting_in_the_next_step_loses_every_other_step_of_one_decision_episodes() -> None:
    """Gymnasium's default: the step after an end resets, whatever the action, and pays nothing."""
    env = gym.make_vec("SemCom/CRRA-v0", num_envs=2, vectorization_mode="sync")
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    ends, rewards = zip(*[env.step(action)[2:0:-1] for _ in range(4)], strict=True)
    assert [bool(end.all()) for end in ends] == [True, False, True, False]
    assert [bool(reward.all()) for reward in rewards] == [True, False, True, False]


def test_vector_wrappers_of_gymnasium() -> None:
    env: Any = gym.make_vec("SemCom/CRRA-v0", num_envs=8, vectorization_mode="vector_entry_point", num_users=4)
    env = gym.wrappers.vector.RecordEpisodeStatistics(env)
    env = gym.wrappers.vector.ClipAction(env)
    with pytest.raises(ValueError, match="autoreset_mode"):  # Gymnasium's own limit, of all that reset in the same step
        gym.wrappers.vector.NormalizeObservation(env)
    env = gym.wrappers.vector.NormalizeReward(env, gamma=0.0)
    observation, _ = env.reset(seed=0)
    paid = []
    for _ in range(50):
        observation, reward, terminated, _, _ = env.step(3.0 * env.action_space.sample())
        paid.append(reward)
        assert terminated.all()
    assert observation.shape == (8, env.single_observation_space.shape[0])
    assert np.isfinite(observation).all()
    assert np.std(paid[10:]) == pytest.approx(1.0, rel=0.5)
    recorder = env.env.env
    assert len(recorder.return_queue) == 100
    assert set(recorder.length_queue) == {1}


@pytest.mark.parametrize("env_id", [name for name in envs.IDS if "Pairing" not in name])
def test_scalar_wrappers_of_gymnasium(env_id: str) -> None:
    env: Any = gym.make(env_id)
    env = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.RescaleAction(env, np.float32(0), np.float32(1)))
    env = gym.wrappers.DtypeObservation(gym.wrappers.NormalizeObservation(env), np.float64)
    plain = gym.make(env_id)
    plain.reset(seed=2)
    env.reset(seed=2)
    action = np.full(env.action_space.shape, 0.75, np.float32)
    _, reward, ended, _, info = env.step(action)
    assert ended
    assert info["episode"]["r"] == pytest.approx(reward)
    assert reward == pytest.approx(plain.step(np.full(plain.action_space.shape, 0.5, np.float32))[1], rel=1e-6)


def test_a_cleanrl_style_script_learns() -> None:
    args = cleanrl_style.Args("SemCom/CRRA-v0", {"num_users": 4}, total_timesteps=8_192, learning_rate=3e-3)
    returns = cleanrl_style.train(args)
    assert len(returns) == args.total_timesteps, "one episode a step"
    first, last = np.mean(returns[:1000]), np.mean(returns[-1000:])
    assert last > first + 0.1, (first, last)
