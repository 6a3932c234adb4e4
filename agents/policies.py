"""Permutation-equivariant policies for SB3's algorithms that run on any number of users.

A flat observation is ``users`` rows of ``user_features``, a row of ``pair_features`` for every pair of users if there
are any, and then ``global_features`` once; a flat action is ``pair_blocks`` of one entry per pair, if there are any,
and ``blocks`` of one entry per user. The networks see rows, so no weight depends on the number of users: it is read off
the length of the observation. The sizes reach a policy as
``policy_kwargs`` (see :func:`space_kwargs`) and so survive SB3's save and load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.distributions import DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from semcom_gym.agents.pair_network import HeadOfBoth, PairNetwork, PoolBoth, UserRows, mirror
from semcom_gym.agents.pair_policy import Scale
from semcom_gym.envs.problems import ActionLayout, ObservationLayout

SHAPE = (
    "user_features", "global_features", "blocks", "pair_features", "mirror", "pair_blocks", "width", "depth", "start",
    "cell", "value_scale",
)  # fmt: skip
"""The policy_kwargs of a set policy: the sizes of the layout, units per row and layer, layers, the action of every user
before training, one number in (-1, 1) per block, whether rows see the cell's own features (true if not given), and
about the size of a reward for the value of a critic (1 if not given). Where the cell's features never change in
training, a policy that sees them is at their mercy on any other number of users."""

LOG_STD = -2.5  # of the exploration of PPO, A2C, SAC and TQC before training; -1 drowns the gradient in noise


def layout_kwargs(observation: ObservationLayout, action: ActionLayout | None = None) -> dict[str, Any]:
    """The policy_kwargs that tell a policy how observations, and actions with entries per user, fold."""
    kwargs: dict[str, Any] = {
        "user_features": len(observation.user_features),
        "global_features": len(observation.global_features),
    }
    if observation.pair_features:
        kwargs |= {"pair_features": len(observation.pair_features), "mirror": mirror(observation.pair_features)}
    if action is None:
        return kwargs
    scores = {"pair_blocks": len(action.pair_blocks)} if action.pair_blocks else {}
    return kwargs | {"blocks": len(action.blocks)} | scores


def space_kwargs(venv: Any) -> dict[str, Any]:
    """:func:`layout_kwargs` of an environment of this package."""
    boxed = isinstance(venv.single_action_space, spaces.Box)
    return layout_kwargs(venv.observation_layout, venv.action_layout if boxed else None)


def head_bias(start: Sequence[float], blocks: int) -> list[float]:
    """What a head adds before tanh for the action to be ``start``, one number in (-1, 1) per block, before training."""
    if len(start) != blocks or not all(-1 < x < 1 for x in start):
        raise ValueError(f"start must hold {blocks} numbers in (-1, 1), one per block, got {start!r}")
    return [math.atanh(x) for x in start]


class SetLayer(nn.Module):
    """A residual layer on rows (n, U, width): each row sees itself and the mean and maximum over all rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.own = nn.Linear(width, width)
        self.pooled = nn.Linear(2 * width, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Rows (n, U, width) to rows."""
        y = self.norm(x)
        context = torch.cat([y.mean(dim=1), y.amax(dim=1)], dim=-1)
        return x + self.out(nn.functional.silu(self.own(y) + self.pooled(context)[:, None, :]))


class SetNetwork(nn.Module):
    """Flat observations (n, U F + G), with U K action entries behind them in a critic, to rows (n, U, width)."""

    def __init__(
        self, user_features: int, global_features: int, blocks: int, width: int, depth: int, *, critic: bool,
        cell: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.user_features, self.global_features, self.cell = user_features, global_features, cell
        self.blocks = blocks if critic else 0
        self.embed = nn.Linear(user_features + global_features * cell + self.blocks, width)
        self.layers = nn.Sequential(*(SetLayer(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def fold(self, flat: Tensor) -> Tensor:
        """Rows (n, U, F + G + K) of a flat input, without G where rows do not see the cell's features."""
        n = flat.shape[0]
        users, rest = divmod(flat.shape[1] - self.global_features, self.user_features + self.blocks)
        if rest or users < 1:
            sizes = f"users * {self.user_features + self.blocks} + {self.global_features}"
            raise ValueError(f"the length of a row must be {sizes}, got {flat.shape[1]}")
        cut = users * self.user_features
        rows = [flat[:, :cut].reshape(n, users, self.user_features)]
        if self.cell:
            rows.append(flat[:, None, cut : cut + self.global_features].expand(-1, users, -1))
        if self.blocks:
            rows.append(flat[:, cut + self.global_features :].reshape(n, self.blocks, users).transpose(1, 2))
        return torch.cat(rows, dim=-1)

    def forward(self, flat: Tensor) -> Tensor:
        """Features (n, U, width) of every user."""
        return self.norm(self.layers(self.embed(self.fold(flat))))


class PerUser(nn.Module):
    """A linear head on every row, unfolded to a flat action (n, blocks U)."""

    def __init__(self, width: int, bias: Sequence[float]) -> None:
        super().__init__()
        self.linear = nn.Linear(width, len(bias))
        nn.init.normal_(self.linear.weight, std=0.01)  # every user alike at the start: equal shares
        with torch.no_grad():
            self.linear.bias.copy_(torch.as_tensor(bias))

    def forward(self, rows: Tensor) -> Tensor:
        """(n, U, width) to (n, blocks U)."""
        return self.linear(rows).transpose(1, 2).flatten(1)


class Pool(nn.Module):
    """Mean and maximum over the rows: (n, U, width) to (n, 2 width)."""

    def forward(self, rows: Tensor) -> Tensor:
        """One vector per instance."""
        return torch.cat([rows.mean(dim=1), rows.amax(dim=1)], dim=-1)


class Shape:
    """Builds the parts of a set policy from its policy_kwargs; raises ValueError for a start of the wrong length."""

    def __init__(self, kwargs: dict[str, Any]) -> None:
        """Takes the names in :data:`SHAPE` out of ``kwargs``."""
        missing = [name for name in SHAPE[:3] if name not in kwargs]
        if missing:
            raise ValueError(f"a set policy needs policy_kwargs {', '.join(missing)}; see agents.layout_kwargs")
        self.kwargs = {name: kwargs.pop(name) for name in SHAPE if name in kwargs}
        self.blocks: int = self.kwargs["blocks"]
        self.pair_blocks: int = self.kwargs.get("pair_blocks", 0)
        self.width: int = self.kwargs.get("width", 64)
        self.bias = head_bias(self.kwargs.get("start", [0.0] * self.blocks), self.blocks)

    def network(self, critic: bool = False) -> nn.Module:
        """Rows of features of every user; of every user and every pair where an action has entries per pair."""
        sizes = {name: self.kwargs[name] for name in ("user_features", "global_features")}
        sizes |= {"width": self.width, "depth": self.kwargs.get("depth", 3), "cell": self.kwargs.get("cell", True)}
        if not self.kwargs.get("pair_features"):
            return SetNetwork(**sizes, blocks=self.blocks, critic=critic)
        pairs = {name: self.kwargs[name] for name in ("pair_features", "mirror")}
        entries = {"blocks": self.blocks, "pair_blocks": self.pair_blocks} if critic else {}
        network = PairNetwork(**sizes, **pairs, **entries)
        return network if self.pair_blocks else UserRows(network)

    def mean(self) -> nn.Module:
        """Head of the action before tanh."""
        return self._head([0.0] * self.pair_blocks, self.bias)

    def log_std(self) -> nn.Module:
        """Head of the log standard deviation of every entry."""
        return self._head([LOG_STD] * self.pair_blocks, [LOG_STD] * self.blocks)

    def _head(self, pairs: Sequence[float], users: Sequence[float]) -> nn.Module:
        head = PerUser(self.width, users)
        return HeadOfBoth(PerUser(self.width, pairs), head) if pairs else head

    def pool(self) -> nn.Module:
        """Summary of the rows of :meth:`network`, as :meth:`value` sees it."""
        return PoolBoth() if self.pair_blocks else Pool()

    def value(self, outputs: int = 1) -> nn.Module:
        """Value (n, outputs) of a summary."""
        linear = nn.Linear((4 if self.pair_blocks else 2) * self.width, outputs)
        scale = self.kwargs.get("value_scale")
        return linear if scale is None else nn.Sequential(linear, Scale(scale))

    def critic(self, outputs: int) -> nn.Module:
        """Value (n, outputs) of observations and actions, one behind the other."""
        return nn.Sequential(self.network(critic=True), self.pool(), self.value(outputs))


class SetPolicy(BasePolicy):
    """The deterministic policy of APG: tanh of a per-user head, in [-1, 1]."""

    def __init__(
        self, observation_space: spaces.Box, action_space: spaces.Box, lr_schedule: Schedule, **kwargs: Any
    ) -> None:
        self.shape = Shape(kwargs)
        super().__init__(observation_space, action_space, squash_output=True, **kwargs)
        self.actor = nn.Sequential(self.shape.network(), self.shape.mean(), nn.Tanh())
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.shape.kwargs | {"lr_schedule": self._dummy_schedule}

    def forward(self, obs: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (n, blocks U) of observations (n, d); always deterministic, APG adds the exploration itself."""
        return self.actor(obs)

    def _predict(self, observation: Tensor, deterministic: bool = True) -> Tensor:
        return self.actor(observation)


class _Extractor(nn.Module):
    """The two networks of an actor-critic policy, behind the interface of SB3's MlpExtractor."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.actor = shape.network()
        self.critic = nn.Sequential(shape.network(), shape.pool())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(features), self.critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        return self.actor(features)

    def forward_critic(self, features: Tensor) -> Tensor:
        return self.critic(features)


class SetActorCriticPolicy(ActorCriticPolicy):
    """Gaussian policy of PPO and A2C: tanh mean per user, one log standard deviation per block, pooled value."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.shape = Shape(kwargs)
        kwargs.setdefault("log_std_init", LOG_STD)
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.mlp_extractor = _Extractor(self.shape)  # type: ignore[assignment]
        self.action_net = nn.Sequential(self.shape.mean(), nn.Tanh())
        self.value_net = self.shape.value()
        blocks = self.shape.pair_blocks + self.shape.blocks
        self.log_std = nn.Parameter(torch.full((blocks,), float(self.log_std_init)))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        assert isinstance(self.action_dist, DiagGaussianDistribution)
        return self.action_dist.proba_distribution(self.action_net(latent_pi), self._log_std(latent_pi))

    def _log_std(self, rows: Any) -> Tensor:
        """The log standard deviation of every entry of an action, from that of its block."""
        if not self.shape.pair_blocks:
            return self.log_std.repeat_interleave(rows.shape[1])
        each = [rows[1].shape[1]] * self.shape.pair_blocks + [rows[0].shape[1]] * self.shape.blocks
        return self.log_std.repeat_interleave(torch.tensor(each, device=self.device))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self.shape.kwargs


class _SetOffPolicy:
    """Puts set networks in place of SB3's in an off-policy policy."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.shape = Shape(kwargs)
        kwargs["net_arch"] = []  # SB3's own layers are replaced as soon as they are made
        super().__init__(*args, **kwargs)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """SB3's critic whose networks see the action entries of each user beside its observation row."""
        critic = super().make_critic(features_extractor)  # type: ignore[misc]
        outputs = getattr(critic, "n_quantiles", 1)
        critic.q_networks = [self.shape.critic(outputs) for _ in critic.q_networks]
        for i, network in enumerate(critic.q_networks):
            setattr(critic, f"qf{i}", network)
        return critic.to(self.device)  # type: ignore[attr-defined]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()  # type: ignore[misc]
        return data | self.shape.kwargs


class _SetSquashed(_SetOffPolicy):
    def make_actor(self, features_extractor: Any = None) -> Any:
        """SB3's squashed Gaussian actor with a mean and a log standard deviation per user."""
        actor = super().make_actor(features_extractor)  # type: ignore[misc]
        actor.latent_pi, actor.mu, actor.log_std = self.shape.network(), self.shape.mean(), self.shape.log_std()
        return actor.to(self.device)  # type: ignore[attr-defined]


class SetSACPolicy(_SetSquashed, SACPolicy):
    """SB3's SACPolicy on set networks."""


class SetTQCPolicy(_SetSquashed, TQCPolicy):
    """sb3-contrib's TQCPolicy on set networks."""


class SetTD3Policy(_SetOffPolicy, TD3Policy):
    """SB3's TD3Policy on set networks."""

    def make_actor(self, features_extractor: Any = None) -> Any:
        """SB3's deterministic actor with a set network."""
        actor = super().make_actor(features_extractor)
        actor.mu = nn.Sequential(self.shape.network(), self.shape.mean(), nn.Tanh())
        return actor.to(self.device)
