"""A classifier cut in two by a channel: the transmitter sends semantic features, the receiver names the class.

The network of the compression paper (CRRA, Section III-A, Table III). w is the width and K the number of features::

    image 3 x H x W -> conv w, H/2 -> residual blocks 2w, H/4, H/8 -> residual blocks 4w, K, H/16, H/32    maps A^k
        -> mean over positions (K,) -> channel layer -> K/2 complex symbols
    receiver: dense 256, ReLU -> dense 128, ReLU -> dense, one logit per class

With w = 64, K = 512 and images of 224 x 224 the sizes are those of Table III. ``vgg`` has plain convolutions and
pooling in place of the blocks.

The channel layer. The paper drops features to save symbols, but a dense layer would mix them, so that each symbol would
carry all of them. It is diagonal here: feature k is standardised by the mean and variance over many images, which both
ends know, and multiplied by a gain g_k that is learned. Where the features S are sent,

    x_k = g_k z_k sqrt(|S| / (2 sum of g_j^2 over S)),  k in S,

and neighbours are real and imaginary part of a symbol. As z_k has variance 1, the mean power of the symbols sent is 1
for every S: in the mean over images, not for each image by itself, so that the length of the vector says something too.
The receiver knows S, and so the scale: it undoes it and puts 0 for what was not sent.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from semcom_gym.envs import validate
from semcom_gym.transceivers import channel, pixels

BACKBONES = ("resnet", "vgg")
SIDE = 16
"""Sides of an image are multiples of it."""
HIDDEN = (256, 128)
SNR_UNIT_DB = 10.0
CONTRAST = 4.0
"""Brings values of natural images, spread by about 0.25, to a variance of about 1."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Size of the network. width: maps of the first layer. features: K, even."""

    backbone: str = "resnet"
    width: int = 16
    features: int = 256
    classes: int = 10

    def __post_init__(self) -> None:
        validate.choice("backbone", self.backbone, BACKBONES)
        validate.integer("width", self.width, low=2)
        validate.integer("features", self.features, low=2)
        validate.integer("classes", self.classes, low=2)
        if self.features % 2:
            raise ValueError(f"features must be even (two make a symbol), got {self.features}")


class Classifier(nn.Module):
    """The network; forward sends images through a channel and classifies them."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        self.backbone = _resnet(config) if config.backbone == "resnet" else _vgg(config)
        self.standard = nn.BatchNorm1d(config.features, affine=False)
        self.gain = nn.Parameter(torch.ones(config.features))
        self.receiver = nn.Sequential(
            nn.Linear(config.features + 1, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(),
            nn.Linear(HIDDEN[1], config.classes),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def maps(self, images: Tensor) -> Tensor:
        """Feature maps A^k (n, K, h, w), not negative, of images (n, 3, H, W) in [0, 1]; h and w are those / 32.

        Raises ValueError for images of another shape.
        """
        pixels.check_shape(images, SIDE)
        maps: Tensor = self.backbone((images - 0.5) * CONTRAST)
        return maps

    def pooled(self, maps: Tensor) -> Tensor:
        """Mean of the feature maps over their positions, (n, K)."""
        return maps.float().mean((2, 3))

    def modulate(self, pooled: Tensor, sent: Tensor | None = None) -> Tensor:
        """Symbols (n, K / 2) for pooled features (n, K): of mean power 1 over images, those not sent are 0.

        sent: which features are sent, boolean (K,) or (n, K), an even number of them; all, if None. In training mode
        the features are standardised by the batch. Raises ValueError for a mask that does not fit.
        """
        sent = self._mask(sent, pooled)
        values = self.standard(pooled) * self.gain * self._scale(sent)
        return channel.to_symbols(values * sent)

    def encode(self, images: Tensor, sent: Tensor | None = None) -> Tensor:
        """Symbols (n, K / 2) for images (n, 3, H, W) in [0, 1], as :meth:`modulate` makes them."""
        return self.modulate(self.pooled(self.maps(images)), sent)

    def decode(self, symbols: Tensor, snr_db: Tensor, sent: Tensor | None = None) -> Tensor:
        """Logits (n, classes) from received symbols (n, K / 2). snr_db: what the receiver knows, (n,)."""
        values = channel.to_values(symbols)
        _check_snr(snr_db, len(values))
        sent = self._mask(sent, values)
        values = values * sent / self._scale(sent)
        logits: Tensor = self.receiver(torch.cat((values, snr_db[:, None] / SNR_UNIT_DB), 1))
        return logits.float()

    def classify(
        self,
        maps: Tensor,
        snr_db: Tensor,
        sent: Tensor | None = None,
        medium: str = "awgn",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits (n, classes) from feature maps (n, K, h, w): all that comes after the last convolution."""
        _check_snr(snr_db, len(maps))
        symbols = self.modulate(self.pooled(maps), sent)
        received, snr = channel.transmit(symbols, channel.db_to_linear(snr_db), medium, generator)
        return self.decode(received, channel.linear_to_db(snr), sent)

    def forward(
        self,
        images: Tensor,
        snr_db: Tensor,
        sent: Tensor | None = None,
        medium: str = "awgn",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits (n, classes) for images sent over a channel of mean SNR ``snr_db`` (n,).

        sent: as in :meth:`modulate`. medium: ``awgn`` or ``rayleigh``.
        """
        return self.classify(self.maps(images), snr_db, sent, medium, generator)

    def _mask(self, sent: Tensor | None, values: Tensor) -> Tensor:
        """``sent`` as (n, K)."""
        shape = (len(values), self.config.features)
        if tuple(values.shape) != shape:
            raise ValueError(f"features must have shape {shape}, got {tuple(values.shape)}")
        if sent is None:
            return torch.ones(shape, dtype=torch.bool, device=values.device)
        if sent.dtype != torch.bool or tuple(sent.shape) not in (shape, shape[1:]):
            raise ValueError(
                f"sent must be boolean ({shape[1]},) or {shape}, got {sent.dtype} of shape {tuple(sent.shape)}"
            )
        count = sent.sum(-1)
        if bool(((count % 2 == 1) | (count == 0)).any()):
            raise ValueError("the number of features sent must be even and at least 2")
        return sent.expand(shape)

    def _scale(self, sent: Tensor) -> Tensor:
        """Of the values, (n, 1), so that symbols have a mean power of 1: half of it in each of their two values."""
        power = (sent * self.gain.square()).sum(1, keepdim=True)
        return (sent.sum(1, keepdim=True) / (2.0 * power)).sqrt()


class _Residual(nn.Module):
    """Two convolutions and a shortcut around them (He et al. 2016)."""

    def __init__(self, maps_in: int, maps_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(maps_in, maps_out, stride), nn.ReLU(), *_convolution(maps_out, maps_out, 1)
        )
        self.shortcut = nn.Identity() if (maps_in, stride) == (maps_out, 1) else nn.Sequential(
            *_convolution(maps_in, maps_out, stride, kernel=1)
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        return functional.relu(self.body(maps) + self.shortcut(maps))


def _resnet(config: Config) -> nn.Module:
    w, k = config.width, config.features
    return nn.Sequential(
        *_convolution(3, w, 2), nn.ReLU(),
        _Residual(w, 2 * w, 2), _Residual(2 * w, 2 * w, 2),
        _Residual(2 * w, 4 * w, 2), _Residual(4 * w, k, 2),
    )  # fmt: skip


def _vgg(config: Config) -> nn.Module:
    w, k = config.width, config.features
    layers: list[nn.Module] = []
    for maps_in, maps_out in ((3, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w), (4 * w, k)):
        layers += [*_convolution(maps_in, maps_out, 1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
    return nn.Sequential(*layers, *_convolution(k, k, 1), nn.ReLU())


def _convolution(maps_in: int, maps_out: int, stride: int, kernel: int = 3) -> list[nn.Module]:
    """A convolution without bias, as the normalisation over the batch that follows has one."""
    return [nn.Conv2d(maps_in, maps_out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(maps_out)]


def _check_snr(snr_db: Tensor, count: int) -> None:
    if tuple(snr_db.shape) != (count,):
        raise ValueError(f"snr_db must have shape ({count},), got {tuple(snr_db.shape)}")


def kept(dropped: float, features: int) -> int:
    """How many of ``features`` are sent where a share ``dropped`` is not: even, at least 2."""
    validate.number("dropped", dropped, high=1.0, open_low=False)
    return max(2, 2 * round((1.0 - dropped) * features / 2.0))
