"""Deep joint source-channel coding of images: one convolutional network for every SNR and every ratio.

Encoder and decoder are those of Bourtsoulatze, Kurka and Gunduz (2019), which the training paper uses (Section VII-A):
five convolutions with PReLU each, two of them halving the image, and a normalisation of power. Here w is the width::

    image 3 x H x W -> conv 5, w/2, stride 2 -> conv 5, w, stride 2 -> conv 5, w -> conv 5, w -> conv 5, c -> symbols
    symbols -> deconv 5, w -> deconv 5, w -> deconv 5, w -> deconv 5, w/2, stride 2 -> deconv 5, 3, stride 2 -> sigmoid

Instead of one network per ratio and SNR, this one is told both: every layer but the last has a gain and a shift per
feature map, made from the SNR and the number of maps by a small network. Of c feature maps the first m are sent (the
prefix is nested, so no ranking can differ between the two ends). A map holds H W / 16 real values, H W / 32 complex
symbols, and so rho = m H W / 32 / (3 H W) = m / 96.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from semcom_gym.envs import validate
from semcom_gym.transceivers import channel, pixels

KERNEL = 5
MAPS_PER_RATIO = 96
"""Feature maps for a ratio of 1: 3 source values per pixel against 1/32 of a symbol per pixel and map."""
SIDE = 8
"""Sides of an image are multiples of it, so that a feature map holds whole symbols."""
SNR_UNIT_DB, HIDDEN = 10.0, 32
CONTRAST = 4.0
"""Brings values of natural images, spread by about 0.25, to a variance of about 1."""
SLOPE = 0.25
"""Of PReLU at the start."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Size of the network. width: feature maps inside; maps: largest number of maps sent, rho <= maps / 96."""

    width: int = 32
    maps: int = 32

    def __post_init__(self) -> None:
        validate.integer("width", self.width, low=2)
        validate.integer("maps", self.maps)


def ratio(maps: int) -> float:
    """rho, complex symbols over source values, where ``maps`` feature maps are sent."""
    return maps / MAPS_PER_RATIO


class DeepJSCC(nn.Module):
    """The network; forward sends images through a channel and reconstructs them."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        half, width, maps = config.width // 2, config.width, config.maps
        sizes = ((3, half, 2), (half, width, 2), (width, width, 1), (width, width, 1), (width, maps, 1))
        self.encoder = nn.ModuleList(Block(nn.Conv2d(i, o, KERNEL, s, KERNEL // 2), o) for i, o, s in sizes)
        self.decoder = nn.ModuleList(Block(_deconvolution(o, i, s), i) for i, o, s in sizes[:0:-1])
        self.output = _deconvolution(half, 3, 2)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                initialise(module)

    def encode(self, images: Tensor, snr_db: Tensor, maps: Tensor) -> Tensor:
        """Symbols (n, maps H W / 32) of power 1 for images (n, 3, H, W) in [0, 1]; those not sent are 0.

        snr_db: what the transmitter knows of the channel, (n,). maps: how many feature maps are sent, integers (n,).
        Raises ValueError for images or numbers that do not fit.
        """
        self._check(images, snr_db, maps)
        state = _state(snr_db, maps, self.config.maps)
        features = (images - 0.5) * CONTRAST
        for block in self.encoder:
            features = block(features, state)
        symbols = channel.to_symbols(features.float().flatten(2))  # (n, maps, symbols per map)
        sent = torch.arange(self.config.maps, device=images.device) < maps[:, None]
        sent = sent[..., None].expand_as(symbols)
        return channel.normalise_power(symbols.flatten(1), sent.flatten(1))

    def decode(self, symbols: Tensor, snr_db: Tensor, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Images (n, 3, H, W) from received symbols. snr_db: what the receiver knows. size: H, W."""
        state = _state(snr_db, maps, self.config.maps)
        symbols = symbols.reshape(len(symbols), self.config.maps, -1)
        sent = torch.arange(self.config.maps, device=symbols.device) < maps[:, None]
        features = channel.to_values(symbols * sent[..., None])
        features = features.reshape(len(symbols), self.config.maps, size[0] // 4, size[1] // 4)
        for block in self.decoder:
            features = block(features, state)
        return torch.sigmoid(self.output(features).float())

    def forward(
        self,
        images: Tensor,
        snr_db: Tensor,
        maps: Tensor,
        medium: str = "awgn",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images as they arrive over a channel of mean SNR ``snr_db`` (n,). medium: ``awgn`` or ``rayleigh``."""
        symbols = self.encode(images, snr_db, maps)
        received, snr = channel.transmit(symbols, channel.db_to_linear(snr_db), medium, generator)
        return self.decode(received, channel.linear_to_db(snr), maps, (images.shape[2], images.shape[3]))

    def _check(self, images: Tensor, snr_db: Tensor, maps: Tensor) -> None:
        pixels.check_shape(images, SIDE)
        for name, value in (("snr_db", snr_db), ("maps", maps)):
            if tuple(value.shape) != (len(images),):
                raise ValueError(f"{name} must have shape ({len(images)},), got {tuple(value.shape)}")
        if maps.is_floating_point() or bool(((maps < 1) | (maps > self.config.maps)).any()):
            raise ValueError(f"maps must be integers from 1 to {self.config.maps}")


class Block(nn.Module):
    """A convolution, a gain and a shift per feature map set by the state of the link, PReLU."""

    def __init__(self, convolution: nn.Module, maps: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.condition = nn.Sequential(nn.Linear(2, HIDDEN), nn.PReLU(), nn.Linear(HIDDEN, 2 * maps))
        nn.init.zeros_(self.condition[-1].weight)  # starts as the plain network
        nn.init.zeros_(self.condition[-1].bias)
        self.activation = nn.PReLU(maps, SLOPE)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """Features (n, maps in, H, W), state of the link (n, 2)."""
        gain, shift = self.condition(state)[..., None, None].chunk(2, 1)
        features = self.convolution(features)
        return self.activation(torch.addcmul(features + shift, features, gain))


def _deconvolution(maps_in: int, maps_out: int, stride: int) -> nn.Module:
    """Undoes the size of a convolution of that stride."""
    return nn.ConvTranspose2d(maps_in, maps_out, KERNEL, stride, KERNEL // 2, stride - 1)


def initialise(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Weights that keep the variance through PReLU (He et al. 2015); torch's own shrink the signal layer by layer."""
    inputs = layer.in_channels * KERNEL**2
    if isinstance(layer, nn.ConvTranspose2d):
        inputs //= layer.stride[0] ** 2  # of the taps, only these meet a value
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 / (1.0 + SLOPE**2) / inputs))
    nn.init.zeros_(layer.bias)


def _state(snr_db: Tensor, maps: Tensor, most: int) -> Tensor:
    """What the layers are told, (n, 2): SNR and, as a logarithm, the share of the maps."""
    return torch.stack((snr_db / SNR_UNIT_DB, torch.log2(maps / most)), 1)
