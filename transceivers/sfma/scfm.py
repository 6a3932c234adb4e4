"""Similarity-conditioned cross-attention feature modulation (SCFM): what a user's features take from the partner's.

Of the paper, Section II-B.1: two descriptors of the pair, the cosine similarity alpha of all features and the mean
absolute difference Delta of each channel, go through a network of three layers (DC-SimM) to a gate gamma in (0, 1) for
each channel, the same for both users. Windowed, then shifted-window cross-attention makes e_cross of the user's
features; (8) is e = a + gamma (e_cross - a).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from semcom_gym.transceivers.sfma.swin import WindowAttention, perceptron


class SCFM(nn.Module):
    """The module of one stage; weights are shared by the two users, so that swapping them swaps the outputs."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.modulator = perceptron(channels + 1, channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.attentions = nn.ModuleList(WindowAttention(channels, heads, window) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        """Features of both users of each pair, (n, 2, H, W, C), fused."""
        return fused(features, self.gate(features), self.cross(features))

    def gate(self, features: Tensor) -> Tensor:
        """gamma, (n, C)."""
        alpha, difference = descriptors(features)
        return torch.sigmoid(self.modulator(torch.cat((alpha[:, None], difference), 1)))

    def cross(self, features: Tensor) -> Tensor:
        """e_cross of both users, (n, 2, H, W, C): each attends to the partner, in windows and then in shifted ones."""
        own = features.flatten(0, 1)
        partner = self.norm(features.flip(1).flatten(0, 1))
        for k, attention in enumerate(self.attentions):
            own = own + attention(self.norm(own), partner, k == 1)
        return own.reshape(features.shape)


def fused(own: Tensor, gate: Tensor, cross: Tensor) -> Tensor:
    """(8): the user's own features where the gate (n, C) is 0, e_cross where it is 1; both (n, 2, H, W, C)."""
    return own + gate[:, None, None, None] * (cross - own)


def descriptors(features: Tensor) -> tuple[Tensor, Tensor]:
    """alpha (n,), in [-1, 1], and Delta (n, C) of features (n, 2, H, W, C)."""
    first, second = features.float().unbind(1)
    alpha = functional.cosine_similarity(first.flatten(1), second.flatten(1), dim=1)
    return alpha, (first - second).abs().mean((1, 2))
