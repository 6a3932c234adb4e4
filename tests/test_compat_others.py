"""Other libraries train on our ids, where they are installed: ``tianshou`` with ``rliable``, ``ray[rllib]``."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import semcom_gym  # noqa: F401  registers the ids

pytestmark = pytest.mark.slow
ENV_ID = "SemCom/CRRA-v0"


def test_tianshou(tmp_path: Path) -> None:
    for module in ("tianshou", "rliable"):
        pytest.importorskip(module, reason="not installed: pip install tianshou rliable")
    from tianshou.highlevel.config import OnPolicyTrainingConfig
    from tianshou.highlevel.env import EnvFactoryRegistered, VectorEnvType
    from tianshou.highlevel.experiment import ExperimentConfig, PPOExperimentBuilder
    from tianshou.highlevel.params.algorithm_params import PPOParams

    environments = EnvFactoryRegistered(task=f"semcom_gym:{ENV_ID}", venv_type=VectorEnvType.DUMMY, num_users=4)
    place = ExperimentConfig(
        persistence_base_dir=str(tmp_path), watch=False, persistence_enabled=False, log_file_enabled=False
    )
    training = OnPolicyTrainingConfig(
        max_epochs=4, epoch_num_steps=4096, num_training_envs=16, num_test_envs=4, test_step_num_episodes=200,
        collection_step_num_env_steps=1024, batch_size=256, update_step_num_repetitions=5, buffer_size=1024,
    )  # fmt: skip
    builder = PPOExperimentBuilder(environments, place, training)
    builder = builder.with_ppo_params(PPOParams(lr=3e-3, gamma=0.0, advantage_normalization=True))
    result = builder.with_actor_factory_default((64, 64)).with_critic_factory_default((64, 64)).build().run("ppo")
    best, untrained = result.trainer_result.best_reward, before(4)
    assert best > untrained + 0.1, (best, untrained)


def test_rllib() -> None:
    pytest.importorskip("ray.rllib", reason="not installed: pip install 'ray[rllib]', which pins gymnasium==1.2.2")
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig

    config = PPOConfig().environment(f"semcom_gym:{ENV_ID}", env_config={"num_users": 4})
    config = config.env_runners(num_env_runners=0, num_envs_per_env_runner=8)
    config = config.training(lr=3e-3, gamma=0.0, train_batch_size_per_learner=1024, minibatch_size=256, num_epochs=5)
    ray.init(num_cpus=1, include_dashboard=False, local_mode=False)
    try:
        algorithm = config.build_algo()
        returns = [algorithm.train()["env_runners"]["episode_return_mean"] for _ in range(12)]
        algorithm.stop()
    finally:
        ray.shutdown()
    assert returns[-1] > returns[0] + 0.1


def before(users: int) -> float:
    """Mean reward of a policy that has learnt nothing: the middle of the box, or random actions if they are better."""
    env = gym.make_vec(ENV_ID, num_envs=2000, vectorization_mode="vector_entry_point", num_users=users)
    env.action_space.seed(0)
    rewards = []
    for action in (env.action_space.sample(), np.zeros(env.action_space.shape)):
        env.reset(seed=0)
        rewards.append(env.step(action)[1].mean())
    return float(max(rewards))
