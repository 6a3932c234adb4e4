"""What the algorithms of this package share behind SB3's API."""

from __future__ import annotations

import sys
import time
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import safe_mean

from semcom_gym.agents.policies import space_kwargs
from semcom_gym.agents.vec_env import SB3VecEnv


class Algorithm(BaseAlgorithm):
    """One policy with one optimiser."""

    policy: Any

    def _make_policy(self) -> None:
        if isinstance(self.env, SB3VecEnv):
            self.policy_kwargs = space_kwargs(self.env.venv.unwrapped) | self.policy_kwargs
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space, self.action_space, self.lr_schedule, **self.policy_kwargs
        ).to(self.device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_obs"]  # of the environment's device

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []

    def dump_logs(self) -> None:
        """Write what was recorded since the last call."""
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        if self.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", safe_mean([x["r"] for x in self.ep_info_buffer]))
            self.logger.record("rollout/ep_len_mean", safe_mean([x["l"] for x in self.ep_info_buffer]))
        self.logger.record("time/fps", int((self.num_timesteps - self._num_timesteps_at_start) / elapsed))
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)
