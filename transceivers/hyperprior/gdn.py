"""Generalised divisive normalisation (Balle, Laparra and Simoncelli 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = 1e-6
"""Of beta, so that no channel is divided by 0."""
OWN, OTHER = 0.1, 1e-3
"""gamma of a channel on itself and on every other at the start."""


class GDN(nn.Module):
    """u_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2) at every place of feature maps (n, maps, H, W).

    inverse: multiplies by the root instead of dividing, as the synthesis does; with weights of its own it is the
    counterpart of a GDN, and its inverse only to first order. beta and gamma are squares, so they stay positive.
    """

    def __init__(self, maps: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.root_beta = nn.Parameter(torch.ones(maps))
        gamma = torch.full((maps, maps), OTHER) + (OWN - OTHER) * torch.eye(maps)
        self.root_gamma = nn.Parameter(gamma.sqrt())

    def forward(self, features: Tensor) -> Tensor:
        """Feature maps of the same shape."""
        gamma = self.root_gamma.square()[:, :, None, None]
        norm = functional.conv2d(features.square(), gamma, self.root_beta.square() + LEAST)
        return features * (norm.sqrt() if self.inverse else norm.rsqrt())
