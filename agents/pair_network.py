"""The network on users and pairs of users: equivariant under a change of their order, for any number of users.

A flat observation is a row per user, a row per pair of users i < j in lexicographic order, then the cell's features.
No weight depends on the number of users: it is read off the length of the observation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semcom_gym.envs.sfma import pairs as pairing


def mirror(pair_features: Sequence[str]) -> list[int]:
    """Where each feature of a pair is found once its two users change places: ``x_left`` and ``x_right`` swap."""
    other = {"left": "right", "right": "left"}

    def swapped(name: str) -> str:
        stem, _, side = name.rpartition("_")
        return f"{stem}_{other[side]}" if side in other else name

    return [pair_features.index(swapped(name)) for name in pair_features]


@functools.cache
def tables(users: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The lower and the higher user of every pair, (M,) each, and the N - 1 pairs of each user, (N (N - 1),)."""
    left, right = torch.as_tensor(pairing.members(users), device=device).T.contiguous()
    own = torch.as_tensor(pairing.index(users), device=device)
    off_diagonal = ~torch.eye(users, dtype=torch.bool, device=device)
    return left, right, own[off_diagonal]


class PairEmbedding(nn.Module):
    """Rows of pairs from their features and their users' rows; the same whichever user comes first."""

    def __init__(self, pair_features: int, mirror: Sequence[int], width: int) -> None:
        super().__init__()
        self.mirror = list(mirror)
        self.pair = nn.Linear(pair_features, width)
        self.first = nn.Linear(width, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)

    def forward(self, features: Tensor, users: Tensor) -> Tensor:
        """Features (n, M, P) and user rows (n, N, width) to pair rows (n, M, width)."""
        left, right, _ = tables(users.shape[1], users.device)
        first, second = self.first(users), self.second(users)
        seen = self.pair(features) + first.index_select(1, left) + second.index_select(1, right)
        turned = self.pair(features[..., self.mirror]) + first.index_select(1, right) + second.index_select(1, left)
        return nn.functional.silu(seen) + nn.functional.silu(turned)


class PairLayer(nn.Module):
    """A residual layer: a user sees itself, its pairs (mean, maximum) and all users (mean, maximum); a pair sees
    itself and its two users."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.user_norm, self.pair_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.user = nn.Linear(width, width)
        self.of_pairs = nn.Linear(2 * width, width, bias=False)
        self.of_all = nn.Linear(2 * width, width, bias=False)
        self.user_out = nn.Linear(width, width)
        self.pair = nn.Linear(width, width)
        self.of_users = nn.Linear(width, width, bias=False)
        self.pair_out = nn.Linear(width, width)

    def forward(self, users: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, N, width) and (n, M, width) to rows of the same shapes."""
        n, count, width = users.shape
        left, right, own = tables(count, users.device)
        x, y = self.user_norm(users), self.pair_norm(pairs)
        mine = y.index_select(1, own).view(n, count, count - 1, width)
        around = self.of_pairs(torch.cat([mine.mean(dim=2), mine.amax(dim=2)], dim=-1))
        everyone = self.of_all(torch.cat([x.mean(dim=1), x.amax(dim=1)], dim=-1))
        users = users + self.user_out(nn.functional.silu(self.user(x) + around + everyone[:, None, :]))
        both = self.of_users(self.user_norm(users))
        both = both.index_select(1, left) + both.index_select(1, right)
        return users, pairs + self.pair_out(nn.functional.silu(self.pair(y) + both))


class PairNetwork(nn.Module):
    """Flat observations (n, N F + M P + G), M = N (N - 1) / 2, to rows of users (n, N, width) and pairs (n, M, width).

    user_features F, pair_features P, global_features G. mirror: see :func:`mirror`; None where no feature has a side.
    pair_blocks, blocks: entries of every pair and then of every user that follow the observation, block by block, as in
    a critic. cell: whether users see the G features.
    """

    def __init__(
        self, user_features: int, pair_features: int, global_features: int, width: int, depth: int,
        mirror: Sequence[int] | None = None, blocks: int = 0, pair_blocks: int = 0, cell: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.user_features, self.pair_features = user_features, pair_features
        self.global_features, self.cell = global_features, cell
        self.blocks, self.pair_blocks = blocks, pair_blocks
        self.embed_users = nn.Linear(user_features + global_features * cell + blocks, width)
        of_both = range(pair_features, pair_features + pair_blocks)  # an entry is the same from either side
        self.embed_pairs = PairEmbedding(
            pair_features + pair_blocks, [*(mirror or range(pair_features)), *of_both], width
        )
        self.layers = nn.ModuleList(PairLayer(width) for _ in range(depth))
        self.user_norm, self.pair_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def users(self, length: int) -> int:
        """How many users an observation of this length is of. Raises ValueError where there is no such number."""
        per_pair = self.pair_features + self.pair_blocks
        half = 0.5 * per_pair
        each = self.user_features + self.blocks
        slope = each - half
        rest = length - self.global_features
        users = round((math.sqrt(max(slope * slope + 4.0 * half * rest, 0.0)) - slope) / (2.0 * half))
        if users < 2 or users * each + pairing.count(users) * per_pair != rest:
            sizes = f"N * {each} + N * (N - 1) / 2 * {per_pair} + {self.global_features}"
            raise ValueError(f"the length of a row must be {sizes}, got {length}")
        return users

    def fold(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, N, F + G + blocks) of users and (n, M, P + pair_blocks) of pairs of a flat input."""
        n, users = flat.shape[0], self.users(flat.shape[1])
        pairs = pairing.count(users)
        sizes = [users * self.user_features, pairs * self.pair_features, self.global_features]
        sizes += [pairs * self.pair_blocks, users * self.blocks]
        of_users, of_pairs, cell, scores, entries = flat.split(sizes, dim=1)
        rows = [of_users.reshape(n, users, -1)]
        rows += [cell[:, None, :].expand(-1, users, -1)] if self.cell else []
        rows += [entries.reshape(n, self.blocks, users).transpose(1, 2)] if self.blocks else []
        seen = [of_pairs.reshape(n, pairs, -1)]
        seen += [scores.reshape(n, self.pair_blocks, pairs).transpose(1, 2)] if self.pair_blocks else []
        return torch.cat(rows, dim=-1), torch.cat(seen, dim=-1)

    def forward(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Features of every user (n, N, width) and of every pair (n, M, width)."""
        user_rows, pair_rows = self.fold(flat)
        users = self.embed_users(user_rows)
        pairs = self.embed_pairs(pair_rows, users)
        for layer in self.layers:
            users, pairs = layer(users, pairs)
        return self.user_norm(users), self.pair_norm(pairs)


class UserRows(nn.Module):
    """The rows of users (n, U, width) of a :class:`PairNetwork`."""

    def __init__(self, network: PairNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, flat: Tensor) -> Tensor:
        """Features (n, U, width) of every user."""
        return self.network(flat)[0]


class PoolBoth(nn.Module):
    """A summary of the cell (n, 4 width): mean and maximum over the rows of users, then of pairs."""

    def forward(self, rows: tuple[Tensor, Tensor]) -> Tensor:
        """Of what a :class:`PairNetwork` returns."""
        users, pairs = rows
        return torch.cat([users.mean(dim=1), users.amax(dim=1), pairs.mean(dim=1), pairs.amax(dim=1)], dim=-1)


class HeadOfBoth(nn.Module):
    """A flat action: what one head makes of the rows of pairs, then what another makes of the rows of users."""

    def __init__(self, pairs: nn.Module, users: nn.Module) -> None:
        super().__init__()
        self.pairs, self.users = pairs, users

    def forward(self, rows: tuple[Tensor, Tensor]) -> Tensor:
        """Of what a :class:`PairNetwork` returns."""
        return torch.cat([self.pairs(rows[1]), self.users(rows[0])], dim=1)
