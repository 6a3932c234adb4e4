"""Analytic policy gradient: SB3's API around the gradient of the reward itself.

The environments compute their reward with differentiable array code, so the gradient of the expected reward in the
policy's weights is exact backpropagation; no score function, no replay. A critic is needed only where a window of
decisions is shorter than the episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor

from semcom_gym.agents.algorithm import Algorithm
from semcom_gym.agents.choice_policy import ChoicePolicy
from semcom_gym.agents.critic import Critic, Step
from semcom_gym.agents.matching_policy import MatchingPolicy
from semcom_gym.agents.policies import SetPolicy
from semcom_gym.agents.vec_env import SB3VecEnv, make_vec_env
from semcom_gym.envs import validate

SelfAPG = TypeVar("SelfAPG", bound="APG")
LEAST_SOFTNESS = 1e-6  # where rewards are of the size of one, what rounding leaves of their differences


class APG(Algorithm):
    """Ascend the differentiable reward of a torch vector environment.

    Each update takes one decision in every environment, ``clip(policy(o) + std * noise, -1, 1)``, and follows the
    gradient of the mean reward. Noise smooths the reward where a user is starved and its gradient vanishes; it is
    annealed with the learning rate.

    policy: ``"SetPolicy"``, ``"MatchingPolicy"`` (where users are paired), ``"ChoicePolicy"`` or a class.
    env: made by ``make_vec_env(..., backend="torch")``, or an id.
    learning_rate, exploration_std: numbers, or functions of the remaining progress (1 to 0).
    n_steps, gamma: decisions per environment and update, and their discount within an episode; episodes of one
    decision need neither. max_grad_norm: the gradient's norm is clipped to this. switches: names of the action blocks
    whose entries mean yes (positive) or no. A step has no useful slope, so the gradient of such an entry is half the
    difference in reward between 1 and -1, all else equal. candidates: decisions compared for every instance, where
    the policy can ``propose`` several that differ in a choice without slope, such as a matching; temperature: of that
    proposal, a number or a function; advantage_scale: standard deviation, in units of reward, that their differences
    are brought to. softness: None follows the gradient of all candidates, as where they are samples; a number, or a
    function, in units of reward, that of one of them, drawn in proportion to exp(reward / softness), as where the
    best of them will be taken (``"ChoicePolicy"``).
    bootstrap: add the value of the observation after the last decision, by a critic (as SHAC, Xu et al. 2022), so that
    ``n_steps`` may be less than an episode whose decisions share a budget; gae_lambda: of the critic's TD(lambda)
    targets; critic_epochs: its steps per update, at the same learning rate; tau: how far its target follows in an
    update. The rest is as in SB3.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "SetPolicy": SetPolicy,
        "MatchingPolicy": MatchingPolicy,
        "ChoicePolicy": ChoicePolicy,
    }

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 2e-3,
        n_steps: int = 1,
        gamma: float = 0.0,
        exploration_std: float | Schedule = 0.0,
        max_grad_norm: float = 1.0,
        switches: Sequence[str] = (),
        candidates: int = 1,
        temperature: float | Schedule = 0.5,
        advantage_scale: float = 1.0,
        softness: float | Schedule | None = None,
        bootstrap: bool = False,
        gae_lambda: float = 0.95,
        critic_epochs: int = 8,
        tau: float = 0.2,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if isinstance(env, str):
            env = make_vec_env(env, backend="torch", device="cpu" if device == "auto" else str(device))
        super().__init__(
            policy,
            env,
            learning_rate,
            policy_kwargs=policy_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            supported_action_spaces=(spaces.Box,),
        )
        validate.integer("n_steps", n_steps)
        validate.number("gamma", gamma, high=1.0, open_low=False)
        validate.number("max_grad_norm", max_grad_norm)
        self.n_steps, self.gamma, self.max_grad_norm = n_steps, gamma, max_grad_norm
        if bootstrap and gamma == 0:
            raise ValueError("bootstrap needs gamma > 0, got 0")
        validate.number("gae_lambda", gae_lambda, high=1.0, open_low=False)
        validate.integer("critic_epochs", critic_epochs)
        validate.number("tau", tau, high=1.0)
        self.bootstrap, self.gae_lambda, self.critic_epochs, self.tau = bootstrap, gae_lambda, critic_epochs, tau
        self.exploration_std = exploration_std
        self.switches = tuple(switches)
        validate.integer("candidates", candidates)
        validate.number("advantage_scale", advantage_scale, open_low=False)
        self.candidates, self.temperature, self.advantage_scale = candidates, temperature, advantage_scale
        if isinstance(softness, (int, float)):
            validate.number("softness", softness, open_low=False)
        self.softness = softness
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self._std_schedule = FloatSchedule(self.exploration_std)
        self._temperature_schedule = FloatSchedule(self.temperature)
        self._softness_schedule = None if self.softness is None else FloatSchedule(self.softness)
        self.set_random_seed(self.seed)
        self._make_policy()
        self.critic = None
        if self.bootstrap:
            with torch.random.fork_rng([]):  # the exploration is the same with a critic and without
                self.critic = Critic(self.policy_kwargs, self.lr_schedule(1)).to(self.device)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names, variables = super()._get_torch_save_params()
        return [*names, *(["critic", "critic.optimizer"] if self.bootstrap else [])], variables

    def learn(
        self: SelfAPG,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "APG",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfAPG:
        """Train for ``total_timesteps`` decisions over all environments; log every ``log_interval`` updates.

        Raises TypeError if the environment gives no gradient, ValueError for a switch that is no action block, or
        the power of a block, which counts in later blocks too, or to bootstrap where no decision changes what follows.
        """
        if not isinstance(self.env, SB3VecEnv) or self.env.venv.unwrapped.backend != "torch":
            raise TypeError("APG differentiates the reward: env must come from make_vec_env(..., backend='torch')")
        blocks = [name for name in self.env.venv.unwrapped.action_layout.blocks if name != "spend"]
        for name in self.switches:
            validate.choice("switch", name, blocks)
        if self.bootstrap and "spend" not in self.env.venv.unwrapped.action_layout.blocks:
            raise ValueError("bootstrap needs decisions that share a budget, as those of SemCom/CRRAFading-v0 do")
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            reward, window, going = self._rollout(callback)
            if not going:
                break
            callback.on_rollout_end()
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self._train(reward)
            if self.critic is not None:
                self._fit_critic(self.critic, window)
            if log_interval and self._n_updates % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def _rollout(self, callback: Any) -> tuple[Tensor, list[Step], bool]:
        """Mean discounted reward of ``n_steps`` decisions everywhere, with the value of what follows if there is a
        critic; what it learns from; and whether the callback wants to go on."""
        env = self.env
        assert isinstance(env, SB3VecEnv)
        assert self.ep_info_buffer is not None
        self.policy.set_training_mode(True)
        std = self._std_schedule(self._current_progress_remaining)
        total = torch.zeros((), device=self.device)
        discount: Any = 1.0
        observation = torch.as_tensor(self._last_obs, device=self.device)
        window: list[Step] = []
        for _ in range(self.n_steps):
            if self.candidates > 1:
                action, gain = self._compete(observation, std)
                total = total + (discount * gain).mean()
            else:
                action = _disturbed(self.policy(observation), std)
            if self.switches:
                action, gain = self._switch(action)
                total = total + (discount * gain).mean()
            before = observation.detach()
            observation, reward, done = env.step_batch(action)
            window.append(Step(before, reward.detach(), done))
            total = total + (discount * reward).mean()
            discount = torch.where(done, 1.0, discount * self.gamma)
            self.num_timesteps += env.num_envs
            self.ep_info_buffer.extend(env.finished_episodes(self._stats_window_size))
            callback.update_locals(locals())
            if not callback.on_step():
                return total, window, False
        if self.critic is not None:
            total = total + torch.where(done, 0.0, discount * self.critic(observation)).mean()
        self._last_obs = observation.detach()
        env.venv.unwrapped.cut_gradient()
        return total / self.n_steps, window, True

    def _compete(self, observation: Tensor, std: float) -> tuple[Tensor, Tensor]:
        """The action to play of several proposed ones, and (n,) the terms that all of them add to its reward to climb.

        Without softness the first is played, and the others add the mean reward of all less its own. With it, what is
        played is drawn, and nothing is added. In either case what the differences in reward say of the scores.
        """
        assert isinstance(self.env, SB3VecEnv)
        temperature = self._temperature_schedule(self._current_progress_remaining)
        actions, score = self.policy.propose(observation, self.candidates, temperature)
        actions = _disturbed(actions, std)
        if self._softness_schedule is None:
            reward = self.env.compare(actions)
            action, more = actions[0], reward.mean(dim=0) - reward[0]
        else:
            softness = max(self._softness_schedule(self._current_progress_remaining), LEAST_SOFTNESS)
            with torch.no_grad():
                reward = self.env.compare(actions)
                drawn = torch.softmax(reward.T / softness, dim=-1).multinomial(1)[:, 0]
            action, more = actions[drawn, torch.arange(len(drawn), device=drawn.device)], 0.0
        advantage = (reward - reward.mean(dim=0)).detach()
        advantage = self.advantage_scale * advantage / (advantage.std() + 1e-6)
        return action, more + (advantage * (score - score.detach())).mean(dim=0)

    def _switch(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """The action without gradient in its switches, and (n,) a term of value zero that carries their gradient."""
        assert isinstance(self.env, SB3VecEnv)
        layout = self.env.venv.unwrapped.action_layout
        blocks = [layout.blocks.index(name) for name in self.switches]
        entries = [block * layout.users + user for block in blocks for user in range(layout.users)]
        plain = action.detach()
        with torch.no_grad():
            trials = plain.repeat(2 * len(entries), 1).view(2, len(entries), *plain.shape)
            for row, entry in enumerate(entries):
                trials[0, row, :, entry], trials[1, row, :, entry] = 1.0, -1.0
            value = self.env.compare(trials.flatten(0, 1)).view(2, len(entries), -1)
            slope = 0.5 * (value[0] - value[1]).T
        switch = action[:, entries]
        mixed = action.clone()
        mixed[:, entries] = plain[:, entries]
        return mixed, (slope * (switch - switch.detach())).sum(dim=1)

    def _train(self, reward: Tensor) -> None:
        """One step of the optimiser up the gradient of ``reward``."""
        self._update_learning_rate(self.policy.optimizer)
        self.policy.optimizer.zero_grad(set_to_none=True)
        (-reward).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm, error_if_nonfinite=True)
        self.policy.optimizer.step()
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", -reward.item())
        self.logger.record("train/grad_norm", norm.item())
        self.logger.record("train/exploration_std", self._std_schedule(self._current_progress_remaining))

    def _fit_critic(self, critic: Critic, window: list[Step]) -> None:
        """Fit the values of a window, which the policy before this update decided, to its returns."""
        self._update_learning_rate(critic.optimizer)
        assert isinstance(self._last_obs, Tensor)
        returns = critic.returns(window, self._last_obs, self.gamma, self.gae_lambda).flatten()
        observation = torch.cat([step.observation for step in window])
        off = critic.fit(observation, returns, self.critic_epochs, self.tau, self.max_grad_norm)
        self.logger.record("train/value_loss", off.square().mean().item())
        explained = 1.0 - off.var() / returns.var() if len(off) > 1 else torch.tensor(float("nan"))
        self.logger.record("train/explained_variance", explained.item())


def _disturbed(action: Tensor, std: float) -> Tensor:
    """The action with Gaussian noise."""
    return action + std * torch.randn_like(action) if std > 0 else action
