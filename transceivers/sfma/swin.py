"""Swin Transformer blocks (Liu et al. 2021) on feature maps (n, H, W, C), and the changes of resolution between stages.

Attention stays within windows of w x w tokens; every other block shifts them by half a window, and a token then
attends only to those that are its neighbours in the map, not to those that the cyclic shift brought beside it. A map
that is no larger than a window is one window. Every residual branch ends in zeros, and merging and expansion start as a
Haar transform and its inverse, so that an untrained network is a linear transform that keeps what matters of an image.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

STATE = 2
"""Numbers that the layers are told about the link, see :func:`state`."""
SNR_UNIT_DB, HIDDEN, MLP = 10.0, 32, 4


def state(snr_db: Tensor, share: Tensor) -> Tensor:
    """What the layers are told, (n, 2): SNR and, as a logarithm, the share of the channels."""
    return torch.stack((snr_db / SNR_UNIT_DB, torch.log2(share)), 1)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Three fully connected layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, outputs)
    )


def silenced(layer: nn.Linear) -> nn.Linear:
    """The layer with zeros, for the end of a residual branch."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Modulation(nn.Module):
    """A gain and a shift per channel, set by the state of the link; none at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(STATE, HIDDEN), nn.GELU(), silenced(nn.Linear(HIDDEN, 2 * channels)))

    def forward(self, features: Tensor, link: Tensor) -> Tensor:
        """Features (n, H, W, C), link (n, 2)."""
        gain, shift = self.layers(link)[:, None, None].chunk(2, -1)
        return features + (features * gain + shift)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a bias for each relative position of two tokens."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.query, self.key_value = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.output = silenced(nn.Linear(channels, channels))
        self.bias = nn.Parameter(torch.zeros(heads, 2 * window - 1, 2 * window - 1))

    def forward(self, features: Tensor, source: Tensor, shifted: bool) -> Tensor:
        """What the tokens of ``features`` take from those of ``source``, both (n, H, W, C), in windows or shifted ones.

        H and W are multiples of the window, or below it. No shift where all is one window.
        """
        _, height, width, _ = features.shape
        side = min(self.window, height, width)
        shift = side // 2 if shifted and min(height, width) > side else 0
        query, keys = self.query(features), self.key_value(source)
        if shift:
            query, keys = (x.roll((-shift, -shift), (1, 2)) for x in (query, keys))
        bias = self._bias(side)[None]  # (1, heads, tokens, tokens)
        if shift:
            bias = bias + _strangers(height, width, side, shift, features.device)[:, None].to(bias.dtype)
        query, keys = self._windows(query, side), self._windows(keys, side)
        key, value = keys.chunk(2, -1)
        scores = query @ key.mT / math.sqrt(query.shape[-1]) + bias.to(query.dtype)
        found = _joined(scores.softmax(-1) @ value, height, width, side)
        return self.output(found.roll((shift, shift), (1, 2)) if shift else found)

    def _windows(self, x: Tensor, side: int) -> Tensor:
        """(n, H, W, C) as (n, windows, heads, tokens, C / heads)."""
        n, height, width, _ = x.shape
        x = x.reshape(n, height // side, side, width // side, side, self.heads, -1).permute(0, 1, 3, 5, 2, 4, 6)
        return x.reshape(n, -1, self.heads, side * side, x.shape[-1])

    def _bias(self, side: int) -> Tensor:
        """The bias of each pair of tokens of a window, (heads, tokens, tokens)."""
        place = torch.arange(side, device=self.bias.device)
        steps = place[:, None] - place + self.window - 1
        found = self.bias[:, steps[:, None, :, None], steps[None, :, None, :]]
        return found.reshape(self.heads, side * side, side * side)


class Block(nn.Module):
    """Attention and a perceptron of each token, each on normalised features and added to them."""

    def __init__(self, channels: int, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm, self.attention = nn.LayerNorm(channels), WindowAttention(channels, heads, window)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, MLP * channels), nn.GELU(),
            silenced(nn.Linear(MLP * channels, channels)),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, H, W, C)."""
        normed = self.norm(features)
        features = features + self.attention(normed, normed, self.shifted)
        return features + self.perceptron(features)


class Stage(nn.Module):
    """Blocks at one resolution, told the state of the link before the first."""

    def __init__(self, channels: int, depth: int, heads: int, window: int) -> None:
        super().__init__()
        self.modulation = Modulation(channels)
        self.blocks = nn.ModuleList(Block(channels, heads, window, k % 2 == 1) for k in range(depth))

    def forward(self, features: Tensor, link: Tensor) -> Tensor:
        """Features (n, H, W, C), link (n, 2)."""
        features = self.modulation(features, link)
        for block in self.blocks:
            features = block(features)
        return features


class Merging(nn.Linear):
    """Four neighbours as one token: (n, H, W, C) to (n, H/2, W/2, C'). Starts with the low-pass channels first."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(4 * channels, outputs)
        with torch.no_grad():
            self.weight.copy_(haar(channels)[:outputs] if outputs <= 4 * channels else _padded(channels, outputs))
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, H, W, C)."""
        n, height, width, channels = features.shape
        parts = features.reshape(n, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        return super().forward(parts.reshape(n, height // 2, width // 2, 4 * channels))


class Expansion(nn.Linear):
    """One token as four neighbours: (n, H, W, C) to (n, 2 H, 2 W, C'). Starts as what undoes :class:`Merging`."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, 4 * outputs)
        with torch.no_grad():
            self.weight.copy_(Merging(outputs, channels).weight.mT)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, H, W, C)."""
        n, height, width, _ = features.shape
        parts = super().forward(features).reshape(n, height, width, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return parts.reshape(n, 2 * height, 2 * width, -1)


def haar(channels: int) -> Tensor:
    """Orthonormal transform (4 C, 4 C) of four neighbours: sums, then the differences across, down and diagonal."""
    signs = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2.0
    details = torch.kron(signs[1:], torch.eye(channels)).reshape(3, channels, 4 * channels).transpose(0, 1)
    return torch.cat((torch.kron(signs[:1], torch.eye(channels)), details.reshape(3 * channels, 4 * channels)))


def _padded(channels: int, outputs: int) -> Tensor:
    """The Haar transform with rows of zeros below."""
    return functional.pad(haar(channels), (0, 0, 0, outputs - 4 * channels))


def _joined(windows: Tensor, height: int, width: int, side: int) -> Tensor:
    """(n, windows, heads, tokens, C / heads) back as (n, H, W, C)."""
    n, _, heads, _, depth = windows.shape
    x = windows.reshape(n, height // side, width // side, heads, side, side, depth)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(n, height, width, heads * depth)


@functools.lru_cache(maxsize=64)
def _strangers(height: int, width: int, side: int, shift: int, where: torch.device) -> Tensor:
    """-inf for two tokens of a shifted window that are no neighbours in the map, else 0: (windows, tokens, tokens)."""
    rows, columns = (
        (place >= size - side).long() + (place >= size - shift).long()
        for size, place in ((s, torch.arange(s, device=where)) for s in (height, width))
    )
    region = (3 * rows[:, None] + columns).reshape(height // side, side, width // side, side)
    region = region.transpose(1, 2).reshape(-1, side * side)
    return torch.zeros(1, device=where).masked_fill(region[:, :, None] != region[:, None, :], -math.inf)
