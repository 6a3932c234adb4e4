"""The policy of APG where users are paired: a score for every pair, their best matching, then shares for its groups.

The matching has no gradient of its own. :meth:`MatchingPolicy.propose` samples several matchings around the best one,
so that APG can compare what they earn: the shares of all of them follow the gradient of the reward, the scores follow
their difference in reward.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from semcom_gym.agents.pair_network import PairNetwork, tables
from semcom_gym.agents.policies import SetLayer, head_bias
from semcom_gym.envs.sfma import pairs as pairing

SPREAD = 3.0  # standard deviation of an instance's scores, in units of a temperature of one


class MatchingPolicy(BasePolicy):
    """Deterministic: the action (n, M + blocks N) is 1 for the pairs of the matching, -1 for the others, and then the
    entries of every group for both of its users, in [-1, 1].

    policy_kwargs: those of :func:`agents.policies.space_kwargs`, width, depth (layers before the matching, and as
    many after it), start (the entries of every group before training, one in (-1, 1) per block).
    """

    def __init__(
        self, observation_space: spaces.Box, action_space: spaces.Box, lr_schedule: Schedule, *, blocks: int,
        width: int = 64, depth: int = 2, start: list[float] | None = None, user_features: int = 0,
        pair_features: int = 0, pair_blocks: int = 1, global_features: int = 0, mirror: list[int] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        if pair_blocks != 1:
            raise ValueError(f"pair_blocks must be 1, the scores of the matching, got {pair_blocks!r}")
        start = [0.0] * blocks if start is None else start
        bias = head_bias(start, blocks)
        self.sizes = {"user_features": user_features, "pair_features": pair_features}
        self.sizes |= {"global_features": global_features, "mirror": mirror, "width": width, "depth": depth}
        self.start, self.blocks = start, blocks
        super().__init__(observation_space, action_space, squash_output=True, **kwargs)
        self.network = PairNetwork(**self.sizes)
        self.score = nn.Linear(width, 1)
        nn.init.normal_(self.score.weight, std=0.01)
        self.embed = nn.Linear(2 * width + global_features, width)
        self.layers = nn.Sequential(*(SetLayer(width) for _ in range(depth)), nn.LayerNorm(width))
        self.head = nn.Linear(width, blocks)
        nn.init.normal_(self.head.weight, std=0.01)  # every group alike at the start
        with torch.no_grad():
            self.head.bias.copy_(torch.as_tensor(bias))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"blocks": self.blocks, "start": self.start, "lr_schedule": self._dummy_schedule}
        return super()._get_constructor_parameters() | self.sizes | own

    def forward(self, obs: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (n, M + blocks N) of observations (n, d)."""
        return self.propose(obs, 1, 0.0)[0][0]

    def _predict(self, observation: Tensor, deterministic: bool = True) -> Tensor:
        return self(observation)

    def propose(self, obs: Tensor, count: int, temperature: float) -> tuple[Tensor, Tensor]:
        """``count`` actions (count, n, M + blocks N) for every observation, and the total score of their matchings
        (count, n) in units of the temperature.

        The first matching is the best one. The others are best for scores with Gumbel noise, which samples about in
        proportion to exp(total score / temperature).
        """
        users, rows = self.network(obs)
        score = self._scores(rows)
        found = []
        for _ in range(count):
            noise = -torch.log(-torch.log(torch.rand_like(score).clamp(1e-9, 1.0 - 1e-7))) if found else 0.0
            found.append(pairing.best_matching(score.detach() + temperature * noise, users.shape[1]))
        pair = torch.stack(found)  # (count, n, K)
        total = score.expand(count, -1, -1).gather(-1, pair).sum(dim=-1) / max(temperature, 1e-6)
        actions = [self._action(obs, users, rows, chosen) for chosen in found]
        return torch.stack(actions), total

    def _scores(self, rows: Tensor) -> Tensor:
        """(n, M) scores of a fixed spread: else they would grow until nothing is explored."""
        score = self.score(rows)[..., 0]
        score = score - score.mean(dim=1, keepdim=True)
        return SPREAD * score / (score.square().mean(dim=1, keepdim=True) + 1e-4).sqrt()

    def _action(self, obs: Tensor, users: Tensor, rows: Tensor, pair: Tensor) -> Tensor:
        """The action of a matching (n, K), from rows of users (n, N, width) and pairs (n, M, width)."""
        n, count = users.shape[:2]
        left, right, _ = tables(count, obs.device)
        index = pair[..., None].expand(-1, -1, rows.shape[-1])
        both = (users.index_select(1, left) + users.index_select(1, right)).gather(1, index)
        cell = obs[:, -self.sizes["global_features"] :][:, None].expand(-1, pair.shape[1], -1)
        group = self.layers(self.embed(torch.cat([rows.gather(1, index), both, cell], dim=-1)))
        entries = torch.tanh(self.head(group)).transpose(1, 2)  # (n, blocks, K)
        members = torch.stack([left[pair], right[pair]], dim=-1).reshape(n, 1, -1).expand(-1, self.blocks, -1)
        shares = torch.zeros(n, self.blocks, count, device=obs.device, dtype=obs.dtype)
        shares = shares.scatter(2, members, entries.repeat_interleave(2, dim=-1))
        chosen = torch.full(rows.shape[:2], -1.0, device=obs.device, dtype=obs.dtype).scatter(1, pair, 1.0)
        return torch.cat([chosen, shares.flatten(1)], dim=1)
