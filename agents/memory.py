"""A set policy that remembers: an LSTM over every user's row, for sb3-contrib's RecurrentPPO on the ``Fading`` ids."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from semcom_gym.agents.policies import SetActorCriticPolicy


class RowMemory(nn.Module):
    """Adds to every user's row what an LSTM, the same for all users, remembers of it.

    Has the interface of :class:`torch.nn.LSTM` with one layer that RecurrentPPO relies on: inputs are flat observations
    (t, n, d), outputs observations (t, n, d + U memory) whose user rows are longer, states a pair of (1, n, U memory).
    """

    num_layers = 1

    def __init__(self, size: int, users: int, features: int, memory: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = size, users * memory
        self.features, self.memory = features, memory
        self.lstm = nn.LSTM(features, memory)

    def forward(self, flat: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The observations with what is remembered, and the states after them."""
        steps, n, _ = flat.shape
        users = states[0].shape[-1] // self.memory
        cut = users * self.features
        rows = flat[..., :cut].reshape(steps, n * users, self.features)
        hidden, cell = (state.reshape(1, n * users, self.memory) for state in states)
        out, (hidden, cell) = self.lstm(rows, (hidden.contiguous(), cell.contiguous()))
        longer = torch.cat([rows, out], dim=-1).reshape(steps, n, -1)
        return torch.cat([longer, flat[..., cut:]], dim=-1), (hidden.reshape(1, n, -1), cell.reshape(1, n, -1))


class SetRecurrentPolicy(SetActorCriticPolicy, RecurrentActorCriticPolicy):
    """:class:`SetActorCriticPolicy` on rows that hold what an LSTM remembers of their user.

    memory: numbers remembered for each user. The critic reads the actor's memory without training it. No weight
    depends on the number of users.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        memory: int = 16,
        **kwargs: Any,
    ) -> None:
        features, blocks = kwargs.get("user_features", 1), kwargs.get("blocks", 1)
        users = action_space.shape[0] // blocks
        self.memory, self.own_features = memory, features
        if "user_features" in kwargs:  # else the shape of the policy says what is missing
            kwargs["user_features"] = features + memory
        recurrent = {"lstm_hidden_size": users * memory, "shared_lstm": True, "enable_critic_lstm": False}
        super().__init__(observation_space, action_space, lr_schedule, **recurrent, **kwargs)
        self.lstm_actor = RowMemory(observation_space.shape[0], users, features, memory)  # type: ignore[assignment]
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"memory": self.memory, "user_features": self.own_features}
        return super()._get_constructor_parameters() | own
