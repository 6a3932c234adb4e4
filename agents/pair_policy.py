"""The policy of SB3's maskable algorithms that chooses a pair of users, for any number of users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sb3_contrib.common.maskable.distributions import MaskableCategoricalDistribution
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from semcom_gym.agents.pair_network import PairNetwork, PoolBoth


class _Trunk(nn.Module):
    """The network that the choice and the value share, behind the interface of SB3's MlpExtractor."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.pool = PairNetwork(**sizes), PoolBoth()

    def forward(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of pairs (n, M, width) and a summary of the cell (n, 4 width)."""
        rows = self.network(flat)
        return rows[1], self.pool(rows)

    def forward_actor(self, flat: Tensor) -> Tensor:
        return self(flat)[0]

    def forward_critic(self, flat: Tensor) -> Tensor:
        return self(flat)[1]


class Scale(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """``factor * x``."""
        return self.factor * x


class SetMaskablePolicy(MaskableActorCriticPolicy):
    """sb3-contrib's maskable actor-critic on a :class:`PairNetwork`: a logit per pair, and a value for the cell.

    policy_kwargs: those of :func:`agents.policies.space_kwargs`, width, depth, and value_scale, about the size of a
    reward.
    """

    def __init__(
        self, *args: Any, user_features: int, pair_features: int, global_features: int,
        mirror: Sequence[int] | None = None, width: int = 64, depth: int = 2, value_scale: float = 1.0, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.sizes = {"user_features": user_features, "pair_features": pair_features}
        self.sizes |= {"global_features": global_features, "mirror": mirror, "width": width, "depth": depth}
        self.value_scale = value_scale
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.mlp_extractor = _Trunk(self.sizes)  # type: ignore[assignment]
        logit = nn.Linear(self.sizes["width"], 1)
        nn.init.normal_(logit.weight, std=0.01)  # every pair alike at the start
        self.action_net = nn.Sequential(logit, nn.Flatten())
        self.value_net = nn.Sequential(nn.Linear(4 * self.sizes["width"], 1), Scale(self.value_scale))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> MaskableCategoricalDistribution:
        logits = self.action_net(latent_pi)
        return MaskableCategoricalDistribution(logits.shape[1]).proba_distribution(logits)  # of any number of pairs

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.sizes | {"value_scale": self.value_scale}
