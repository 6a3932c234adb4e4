"""The value of what comes after a window of decisions, for APG where an episode is longer than its window."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from semcom_gym.agents.policies import Shape


class Step(NamedTuple):
    """A decision in every environment, (n, ...) each, without gradient."""

    observation: Tensor
    reward: Tensor
    done: Tensor


class Critic(nn.Module):
    """V(o), the discounted reward from an observation to the end of its episode, the same in any order of the users.

    policy_kwargs: those of a set policy; ``value_scale`` is about the size of a return. The cell's features are always
    seen: what is left of the time and of a budget is among them. ``target`` follows ``network`` slowly; bootstraps are
    of the target.
    """

    def __init__(self, policy_kwargs: dict[str, Any], learning_rate: float) -> None:
        super().__init__()
        shape = Shape(policy_kwargs | {"cell": True})
        self.network = nn.Sequential(shape.network(), shape.pool(), shape.value(), nn.Flatten(0))
        self.target = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)

    def forward(self, observation: Tensor) -> Tensor:
        """Values (n,) of observations (n, d), by the target: their gradient is that in the observations alone."""
        return self.target(observation)

    @torch.no_grad()
    def returns(self, steps: list[Step], last: Tensor, gamma: float, gae_lambda: float) -> Tensor:
        """The TD(lambda) targets (T, n) of a window of T steps that ends with the observations ``last``.

        The end of an episode has no value: the time that is left is in the observation.
        """
        after = [step.observation for step in steps[1:]] + [last]
        value = self(torch.cat(after)).view(len(steps), -1)
        found, beyond = [], value[-1]
        for step, following in zip(reversed(steps), reversed(value), strict=True):
            mixed = (1.0 - gae_lambda) * following + gae_lambda * beyond
            beyond = step.reward + gamma * torch.where(step.done, 0.0, mixed)
            found.append(beyond)
        return torch.stack(found[::-1])

    def fit(self, observation: Tensor, wanted: Tensor, epochs: int, tau: float, max_grad_norm: float) -> Tensor:
        """``epochs`` steps of the optimiser to the returns (m,), then ``tau`` of the way for the target; how far the
        values were off before (m,)."""
        off: list[Tensor] = []
        for _ in range(epochs):
            off.append(wanted - self.network(observation))
            self.optimizer.zero_grad(set_to_none=True)
            off[-1].square().mean().backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), max_grad_norm, error_if_nonfinite=True)
            self.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, tau)
        return off[0].detach()
