"""The two priors of the codec: one distribution per map for the hyper-latents, one scale per value for the latents.

Both give a whole number k the mass of a density over [k - 1/2, k + 1/2]. In training a value is the number plus uniform
noise, and the same expression is the density of that sum (Balle et al. 2018).
"""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = 2.0**-24
"""Of a likelihood: nothing costs more than 24 bits, in the coder as well."""
STEPS = 8
"""Levels of the scale table per doubling."""
LOW, HIGH = -3.0, 8.0
"""log2 of the smallest and of the largest scale of the table."""
LEVELS = round((HIGH - LOW) * STEPS) + 1
MAPS_INSIDE = (1, 3, 3, 3, 1)
SPREAD = 3.0
"""About the width of the factorised prior at the start."""


def bits(likelihood: Tensor) -> Tensor:
    """Bits of each image, (n,), for the likelihoods of its values."""
    return -torch.log2(likelihood.clamp(min=LEAST)).sum((1, 2, 3))


def gaussian(values: Tensor, log2_scale: Tensor) -> Tensor:
    """Mass of N(0, scale^2) on values +- 1/2, scales limited to those of the table; shapes alike.

    The gradient at a scale beyond the limits is that at the limit where it leads back, and 0 where it leads away.
    """
    scale = torch.exp2(_Limited.apply(log2_scale, LOW, HIGH))
    size, unit = values.abs(), 1.0 / (math.sqrt(2.0) * scale)  # of the two tails, the one that keeps its digits
    return 0.5 * (torch.erfc((size - 0.5) * unit) - torch.erfc((size + 0.5) * unit))


def levels(log2_scale: np.ndarray) -> np.ndarray:
    """Index of the nearest entry of the scale table, int64."""
    return np.rint((np.clip(log2_scale, LOW, HIGH) - LOW) * STEPS).astype(np.int64)


def scale_table() -> np.ndarray:
    """Standard deviations 2^-3 to 2^8, eight a doubling; rounded, so that no last digit depends on the machine."""
    return np.rint(np.exp2(LOW + np.arange(LEVELS) / STEPS) * 2**20) / 2**20


class _Limited(torch.autograd.Function):
    """Values limited to [low, high], with a gradient beyond the limits that can lead back only."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.limits = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (values,), (low, high) = ctx.saved_tensors, ctx.limits
        away = ((values < low) & (gradient > 0)) | ((values > high) & (gradient < 0))
        return gradient.masked_fill(away, 0.0), None, None


class Factorised(nn.Module):
    """The non-parametric density of Balle et al. (2018), Appendix 6.1: for every map a distribution function
    sigmoid(f(z)), where f is a small network that can only rise.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        inside = list(itertools.pairwise(MAPS_INSIDE))
        rise = SPREAD ** (1 / len(inside))
        self.slopes = nn.ParameterList(
            torch.full((maps, b, a), math.log(math.expm1(1 / rise / b))) for a, b in inside
        )  # fmt: skip
        self.shifts = nn.ParameterList(torch.rand(maps, b, 1) - 0.5 for _, b in inside)
        self.bends = nn.ParameterList(torch.zeros(maps, b, 1) for _, b in inside[:-1])

    def logits(self, values: Tensor) -> Tensor:
        """f for values (maps, 1, n) in any number."""
        for k, (slope, shift) in enumerate(zip(self.slopes, self.shifts, strict=True)):
            values = functional.softplus(slope) @ values + shift
            if k < len(self.bends):
                values = values + torch.tanh(self.bends[k]) * torch.tanh(values)
        return values

    def forward(self, values: Tensor) -> Tensor:
        """Mass on values +- 1/2, for values (n, maps, h, w)."""
        flat = values.transpose(0, 1).flatten(1)[:, None]  # (maps, 1, n h w)
        low, high = self.logits(flat - 0.5), self.logits(flat + 0.5)
        sign = -torch.sign(low + high).detach()  # the difference is taken where both are small
        mass = (torch.sigmoid(sign * high) - torch.sigmoid(sign * low)).abs()
        return mass.reshape(values.shape[1], values.shape[0], *values.shape[2:]).transpose(0, 1)

    @torch.no_grad()
    def table(self, largest: int) -> np.ndarray:
        """Mass of -largest, ..., largest for every map, float64 (maps, 2 largest + 1); the tails count at the ends.

        Rounded, for the same reason as the scale table.
        """
        prior = copy.deepcopy(self).to("cpu", torch.float64)
        edges = torch.arange(-largest, largest, dtype=torch.float64) + 0.5
        cdf = torch.sigmoid(prior.logits(edges.expand(len(self.slopes[0]), 1, -1)))[:, 0].numpy()
        return np.rint(np.diff(cdf, prepend=0.0, append=1.0) * 2**24) / 2**24
