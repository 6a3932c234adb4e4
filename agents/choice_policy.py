"""A policy that makes several decisions at once, for objectives of cliffs: which is best is found by playing them.

Where what is optimal is one of many combinations, a continuous policy settles between them. Here every candidate may
settle on one: APG follows the gradient of those that earn most on an instance, and ``agents.decide`` plays all of
them on it and takes the best.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from semcom_gym.agents.policies import PerUser, Pool, Shape
from semcom_gym.envs import validate


class ChoicePolicy(BasePolicy):
    """Deterministic: ``choices`` actions, tanh of per-user heads on the same rows, and the chance that each is best.

    Alone (``predict``) it takes the likeliest. policy_kwargs: choices, and those of :data:`agents.policies.SHAPE`.
    Raises ValueError for a bad one, and where actions have entries per pair of users.
    """

    def __init__(
        self, observation_space: spaces.Box, action_space: spaces.Box, lr_schedule: Schedule, *, choices: int = 16,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        validate.integer("choices", choices)
        if kwargs.get("pair_blocks"):
            raise ValueError("ChoicePolicy decides for users only: where they are paired, use MatchingPolicy")
        self.shape, self.choices = Shape(kwargs), choices
        super().__init__(observation_space, action_space, squash_output=True, **kwargs)
        self.network = self.shape.network()
        self.heads = PerUser(self.shape.width, self.shape.bias * choices)
        self.score = nn.Sequential(Pool(), nn.Linear(2 * self.shape.width, choices))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"choices": self.choices, "lr_schedule": self._dummy_schedule}
        return super()._get_constructor_parameters() | self.shape.kwargs | own

    def forward(self, obs: Tensor, deterministic: bool = True) -> Tensor:
        """The likeliest action (n, blocks U) of observations (n, d)."""
        return self.propose(obs, 1, 0.0)[0][0]

    def _predict(self, observation: Tensor, deterministic: bool = True) -> Tensor:
        return self(observation)

    def propose(self, obs: Tensor, count: int, temperature: float) -> tuple[Tensor, Tensor]:
        """The ``count`` likeliest actions (count, n, blocks U) for every observation, the likeliest first, and
        ``count`` times their chances (count, n), so that the mean of chance times reward is what is to be expected.

        The temperature changes nothing. The chances do not move the rows that they are read from. Raises ValueError
        for more than there are.
        """
        validate.not_above("candidates", count, "choices", self.choices)
        rows = self.network(obs)
        actions = torch.tanh(self.heads(rows)).view(len(obs), self.choices, -1)
        chance, which = torch.softmax(self.score(rows.detach()), dim=-1).topk(count)
        actions = actions.gather(1, which[..., None].expand(-1, -1, actions.shape[-1]))
        return actions.transpose(0, 1), count * chance.T
