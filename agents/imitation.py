"""Imitation of a solver: behaviour cloning and DAgger (Ross, Gordon and Bagnell, 2011) behind SB3's API.

Both ask the expert at every state they meet, keep the answers and fit the policy to all that they have. They differ in
who acts meanwhile: in behaviour cloning the expert, in DAgger after one round the learner, so that it is told what to
do where its own mistakes lead. Where an episode is one decision no action leads anywhere: the states, and so the two
algorithms, are the same.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from torch import Tensor

from semcom_gym.agents import offline
from semcom_gym.agents.algorithm import Algorithm
from semcom_gym.agents.experts import Expert, Labels
from semcom_gym.agents.pair_policy import SetMaskablePolicy
from semcom_gym.agents.policies import SetPolicy
from semcom_gym.agents.vec_env import SB3VecEnv, make_vec_env
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array

SelfBC = TypeVar("SelfBC", bound="BC")
FIELDS = ("observation", "target", "weight")
FEWEST_ROWS = 1024  # that room is made for at a time


class Answers:
    """The expert's answers so far: rows of observations (n, d), targets and weights, the oldest dropped if too many."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self.rows: dict[str, Array] = {}

    def __len__(self) -> int:
        return min(self.count, self.most)

    def add(self, observation: Array, labels: Labels) -> None:
        """Keep the rows that the expert has an answer for."""
        new = {"observation": observation, "target": labels.target, "weight": labels.weight}
        new = {name: np.asarray(value, np.float32)[labels.known] for name, value in new.items()}
        self._make_room(len(new["target"]), new)
        where = (self.count + np.arange(len(new["target"]))) % self.most
        for name, value in new.items():
            self.rows[name][where] = value
        self.count += len(where)

    def _make_room(self, more: int, like: dict[str, Array]) -> None:
        room = len(self.rows["target"]) if self.rows else 0
        needed = min(self.count + more, self.most)
        if needed <= room:
            return
        size = min(max(2 * room, needed, FEWEST_ROWS), self.most)
        for name, value in like.items():
            larger = np.zeros((size, value.shape[1]), np.float32)
            larger[:room] = self.rows.get(name, larger[:0])
            self.rows[name] = larger

    def draw(self, size: int, device: torch.device) -> list[Tensor]:
        """A random minibatch of every field, with replacement."""
        rows = torch.randint(len(self), (size,)).numpy()
        return [torch.as_tensor(self.rows[name][rows], device=device) for name in FIELDS]


class BC(Algorithm):
    """Behaviour cloning: the expert acts, the policy is fitted to what it does.

    Each round takes one episode in every environment, asks the expert at each of its states, and then makes
    ``gradient_steps`` steps on minibatches of all answers. Of continuous actions the loss is the squared error of every
    entry that decides anything (``experts.stakes``); of choices, of which any that is left to the expert is as good, it
    is minus the logarithm of their total probability. An instance that the expert cannot solve has no label.

    With ``dataset`` nobody is asked: the answers are the recorded decisions, and a round is as many of them as there
    are environments. What an entry costs is not recorded, so that every entry counts.

    policy: ``"SetPolicy"``, ``"SetMaskablePolicy"`` (where actions are choices) or a class. env: made by
    ``make_vec_env(..., dtype="float64")``, or an id. expert: a method of ``baselines.methods``. dataset: name or folder
    of a Minari data set, as ``semcom-gym dataset`` writes them. learning_rate: a number or a function of the remaining
    progress (1 to 0). gradient_steps, batch_size: of a round. buffer_size: answers kept.
    weighted: whether an entry's error counts by what it costs. max_grad_norm: the gradient's norm is clipped to this.
    The rest is as in SB3.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "SetPolicy": SetPolicy, "SetMaskablePolicy": SetMaskablePolicy,
    }  # fmt: skip
    learner_acts = False

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        expert: str = "fast",
        learning_rate: float | Schedule = 1e-3,
        gradient_steps: int = 50,
        batch_size: int = 512,
        buffer_size: int = 100_000,
        weighted: bool = False,
        dataset: str | None = None,
        max_grad_norm: float = 1.0,
        policy_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if isinstance(env, str):
            env = make_vec_env(env, dtype="float64")
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
            supported_action_spaces=(spaces.Box, spaces.Discrete),
        )
        sizes = {"gradient_steps": gradient_steps, "batch_size": batch_size, "buffer_size": buffer_size}
        for name, value in sizes.items():
            validate.integer(name, value)
        validate.number("max_grad_norm", max_grad_norm)
        if dataset is not None and (weighted or self.learner_acts):
            raise ValueError("decisions of a data set are neither weighted nor asked for where the learner acts")
        self.expert, self.weighted, self.max_grad_norm, self.dataset = expert, weighted, max_grad_norm, dataset
        self.gradient_steps, self.batch_size, self.buffer_size = gradient_steps, batch_size, buffer_size
        self.answers = Answers(buffer_size)
        if _init_setup_model:
            if dataset is not None and isinstance(self.env, SB3VecEnv):
                offline.opened(dataset, self.env.venv.unwrapped)  # says what is wrong with it
            self._setup_model()

    def _setup_model(self) -> None:
        self._setup_lr_schedule()
        self.set_random_seed(self.seed)
        if isinstance(self.env, SB3VecEnv) and self.dataset is None:
            Expert(self.env.venv.unwrapped, self.expert)  # says what is wrong with it
        self._make_policy()
        self.answers = Answers(self.buffer_size)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "answers"]

    def save_replay_buffer(self, stream: Any) -> None:
        """Write the answers so far, which ``save`` leaves out, to a path or a binary stream; none of a data set."""
        held = {} if self.dataset else {name: value[: len(self.answers)] for name, value in self.answers.rows.items()}
        np.savez(stream, count=self.answers.count, **held)

    def load_replay_buffer(self, stream: Any) -> None:
        """Read the answers that ``save_replay_buffer`` wrote."""
        with np.load(stream) as held:
            self.answers = Answers(self.buffer_size)
            self.answers.count = int(held["count"])
            self.answers.rows = {name: held[name] for name in FIELDS if name in held}

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Array | None = None,
    ) -> tuple[np.ndarray[Any, Any], Any]:
        """As in SB3; action_masks: which choices are allowed, as for sb3-contrib's maskable algorithms."""
        masks = {} if action_masks is None else {"action_masks": action_masks}
        found: tuple[np.ndarray[Any, Any], Any]
        found = self.policy.predict(observation, state, episode_start, deterministic, **masks)
        return found

    def learn(
        self: SelfBC,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 10,
        tb_log_name: str = "imitation",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfBC:
        """Train on ``total_timesteps`` decisions, over all environments, that the expert is asked about.

        Logs every ``log_interval`` rounds. Raises TypeError if no solver can answer the environment.
        """
        if not isinstance(self.env, SB3VecEnv):
            raise TypeError("a solver sees the instance: env must come from make_vec_env(..., dtype='float64')")
        expert = None if self.dataset else Expert(self.env.venv.unwrapped, self.expert, self.weighted)
        if self.dataset:
            steps = offline.read(self.dataset, self.env.venv.unwrapped)
            self.answers = Answers(len(steps))
            self.answers.add(steps.observation, offline.labels(steps, self.env.venv.unwrapped))
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        rounds = 0
        while self.num_timesteps < total_timesteps:
            callback.on_rollout_start()
            if not (self._rollout(expert, callback) if expert else self._replay(callback)):
                break
            callback.on_rollout_end()
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            if len(self.answers):
                self._train()
            rounds += 1
            if log_interval and rounds % log_interval == 0:
                self.dump_logs()
        callback.on_training_end()
        return self

    def _rollout(self, expert: Expert, callback: Any) -> bool:
        """One episode in every environment, each state with the expert's answer; whether the callback goes on."""
        env = self.env
        assert isinstance(env, SB3VecEnv)
        assert self.ep_info_buffer is not None
        self.policy.set_training_mode(False)
        asked, known, done = 0, 0, np.zeros(env.num_envs, bool)
        own = self.learner_acts and self._n_updates > 0
        while not done.all():
            labels = expert.labels()
            asked, known = asked + len(labels.known), known + int(labels.known.sum())
            self.answers.add(self._last_obs, labels)
            self._last_obs, _, done = env.step_batch(self._act(labels, own))
            self.num_timesteps += env.num_envs
            self.ep_info_buffer.extend(env.finished_episodes(self._stats_window_size))
            callback.update_locals(locals())
            if not callback.on_step():
                return False
        self.logger.record("imitation/labelled", known / asked)
        return True

    def _replay(self, callback: Any) -> bool:
        """A round of a data set, whose decisions are all known already; whether the callback goes on."""
        assert self.env is not None
        self.num_timesteps += self.env.num_envs
        callback.update_locals(locals())
        return bool(callback.on_step())

    def _act(self, labels: Labels, own: bool) -> Array:
        """The action in every environment: the learner's if ``own``, else the expert's where it has one."""
        observation = torch.as_tensor(np.asarray(self._last_obs, np.float32), device=self.device)
        choices = isinstance(self.action_space, spaces.Discrete)
        masks = {"action_masks": labels.target >= 0} if choices else {}
        with torch.no_grad():
            action = self.policy._predict(observation, deterministic=True, **masks).cpu().numpy()
        if not own and labels.known.any():
            target = labels.target[labels.known]
            if choices:  # any of those left to the expert, at random
                target = torch.multinomial(torch.as_tensor(target > 0, dtype=torch.float64), 1)[:, 0].numpy()
            action[labels.known] = target
        return action

    def _train(self) -> None:
        """The gradient steps of a round."""
        self._update_learning_rate(self.policy.optimizer)
        self.policy.set_training_mode(True)
        losses, norms = [], []
        for _ in range(self.gradient_steps):
            loss = self._loss(*self.answers.draw(self.batch_size, self.device))
            self.policy.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norms.append(
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm, error_if_nonfinite=True)
            )
            self.policy.optimizer.step()
            losses.append(loss.item())
        self._n_updates += self.gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", float(np.mean(losses)))
        self.logger.record("imitation/answers", len(self.answers))

    def _loss(self, observation: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.action_space, spaces.Discrete):
            logit = self.policy.action_net(self.policy.mlp_extractor.forward_actor(observation))
            allowed = torch.where(target >= 0, logit, -torch.inf).logsumexp(dim=1)
            return (allowed - torch.where(target > 0, logit, -torch.inf).logsumexp(dim=1)).mean()
        error = self.policy(observation) - target
        return (weight * error * error).mean() / weight.mean().clamp(min=1e-12)


class DAgger(BC):
    """Dataset aggregation: as :class:`BC`, but after a first round the learner acts and the expert only answers."""

    learner_acts = True
