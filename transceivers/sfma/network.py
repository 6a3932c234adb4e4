"""SC-SFMA and the schemes that it is compared with: two users' images, one superposed signal, two receivers.

The paper's Section II-A and II-B, with L stages (four there)::

    image u -> patches 2 x 2, C_1 channels -> [SCFM, N_l blocks, merging to half the size] x L -> z_u, C' = 2^(L-1) C_1
    z_u * r_u (Rate-ModNet) -> linear, of the user -> the first floor(delta C') channels -> power 1      (4)
    s = (s_i + s_j), power 1                                                                             (5)
    y_u = s + CN(0, 1/snr)                                                                               (6)
    y_u -> linear, of the user -> [N_l blocks, expansion to twice the size] x L -> image u               (7)

``sc_sfma`` is this. ``swinjscc_noma`` has no SCFM: each image is coded by itself. ``swinjscc_oma`` is that without a
partner: each user has every second one of the channels sent to itself, with half of the power, so that a pair takes
the same energy and the same symbols in all. ``deepjscc_noma`` is ``swinjscc_noma`` with convolutions.

Three things differ from the paper. Of (5): a network that knows both images can make s_i and s_j alike, and the power
of a sum of two like signals is twice that of two unlike ones, so here the *sum* has the power of the pair, whatever
their correlation. The code mask keeps a prefix, as important channels learn to come first: a ranking by activation
ties and wobbles, so that two ends or two versions of a library may differ in it, and has to be sent along. And every
stage is told the SNR and delta, as one network serves all of them. F of (4) is left open there; the linear layer of
each user is what lets the receivers tell the users apart, whose other weights are the same.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from semcom_gym.envs import validate
from semcom_gym.transceivers import channel
from semcom_gym.transceivers.sfma import deepjscc_noma
from semcom_gym.transceivers.sfma.scfm import SCFM
from semcom_gym.transceivers.sfma.swin import HIDDEN, STATE, Expansion, Merging, Stage, perceptron, state

SCHEMES = ("sc_sfma", "swinjscc_noma", "swinjscc_oma", "deepjscc_noma")
USERS = 2
CONTRAST = 4.0
"""Brings values of natural images, spread by about 0.25, to a variance of about 1."""
LEAK = 0.02
"""Spread of the weights by which a user's channel coding leaves its own half at the start: zeros would stay zeros."""
ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Config:
    """Size of the networks. channels: C_1; depths: blocks of each stage; heads: of attention, stage by stage;
    window: side, in tokens. width: of the convolutions of ``deepjscc_noma``, which takes nothing else but the number
    of symbols from here.
    """

    channels: int = 24
    depths: tuple[int, ...] = (1, 1, 3)
    heads: tuple[int, ...] = (1, 2, 4)
    window: int = 4
    width: int = 48

    def __post_init__(self) -> None:
        validate.integer("channels", self.channels, low=2)
        validate.integer("window", self.window, low=2)
        validate.integer("width", self.width, low=2)
        if not 2 <= len(self.depths) == len(self.heads):
            raise ValueError(f"depths and heads must be of 2 stages or more, as many, got {self.depths}, {self.heads}")
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            validate.integer("depths", depth)
            validate.integer("heads", heads)
            if self.channels_of(stage) % heads:
                raise ValueError(f"{heads} heads do not divide the {self.channels_of(stage)} channels of their stage")

    def channels_of(self, stage: int) -> int:
        """C_l; the stages count from 0."""
        return int(self.channels * 2**stage)

    @property
    def features(self) -> int:
        """C', real channels at delta = 1."""
        return self.channels_of(len(self.depths) - 1)

    @property
    def unit(self) -> int:
        """Pixels that a side of the smallest feature map stands for."""
        return int(2 ** len(self.depths))

    def sent(self, share: float) -> int:
        """C_s = floor(delta C'), channels sent."""
        return math.floor(share * self.features + ROUNDING)

    def ratio(self, share: float) -> float:
        """Complex symbols over source values of one image, k / (3 H W); the paper's CBR counts reals, twice that."""
        return self.sent(share) / (2 * 3 * self.unit**2)

    def check_side(self, height: int, width: int) -> None:
        """Raise ValueError unless maps of such images can be cut into windows and hold whole symbols."""
        given = f"images of {height}x{width}"
        if min(height, width) < 1 or height % self.unit or width % self.unit:
            raise ValueError(f"{given}: sides must be multiples of {self.unit}")
        for stage in range(len(self.depths)):
            h, w = (size // 2 ** (stage + 1) for size in (height, width))
            side = min(self.window, h, w)
            if h % side or w % side:
                raise ValueError(f"{given}: stage {stage + 1}, {h}x{w}, cannot be cut into windows of {side} tokens")
        if height * width // self.unit**2 % 2:
            raise ValueError(f"{given} leave half a symbol: a side must be a multiple of {2 * self.unit}")


PAPER = Config(channels=128, depths=(2, 2, 6, 2), heads=(4, 8, 16, 32), window=8, width=256)
"""Table I; heads and window are those of the Swin Transformer, as the paper gives none."""


class Transceiver(nn.Module):
    """Two users' encoders and decoders, which share all weights but one layer each, and their superposition.

    encoder: images (2 n, 3, H, W) around 0, those of a pair side by side, and the state of the link to features
    (2 n, H', W', C'); decoder: such features to logits of images.
    """

    def __init__(self, config: Config, encoder: nn.Module, decoder: nn.Module, *, orthogonal: bool = False) -> None:
        super().__init__()
        self.config, self.orthogonal = config, orthogonal
        self.encoder, self.decoder = encoder, decoder
        self.rate = perceptron(STATE, HIDDEN, config.features)
        self.send = nn.ModuleList(nn.Linear(config.features, config.features) for _ in range(USERS))
        self.receive = nn.ModuleList(nn.Linear(config.features, config.features) for _ in range(USERS))
        gain = math.sqrt(2 * 3 * config.unit**2 / config.features)  # a sent value has a variance of 1/2
        for user in range(USERS):
            _initialise(self.send[user], own(config.features, user))
            _initialise(self.receive[user], gain * own(config.features, user).mT)

    def features(self, pairs: Tensor, snr_db: Tensor, share: Tensor) -> Tensor:
        """z, (n, 2, H', W', C'), of both users of pairs (n, 2, 3, H, W) in [0, 1]."""
        self._check(pairs, snr_db, share)
        link = state(snr_db, share).repeat_interleave(USERS, 0)
        images = (pairs.flatten(0, 1) - 0.5) * CONTRAST
        return self.encoder(images, link).unflatten(0, (-1, USERS))

    def encode(self, pairs: Tensor, snr_db: Tensor, share: Tensor) -> Tensor:
        """Symbols (n, 2, k) of pairs (n, 2, 3, H, W) in [0, 1]: each user's of mean power 1, those not sent 0.

        snr_db: (n,). share: delta, (n,), in (0, 1]. k: symbols at delta = 1. Raises ValueError for what does not fit.
        """
        features = self.features(pairs, snr_db, share)
        features = features * torch.sigmoid(self.rate(state(snr_db, share)))[:, None, None, None]
        coded = torch.stack([layer(features[:, user]) for user, layer in enumerate(self.send)], 1)
        symbols = channel.to_symbols(coded.float().movedim(-1, 2).flatten(3))  # (n, 2, C', symbols of a channel)
        sent = self.mask(share)[..., None].expand_as(symbols)
        return channel.normalise_power(symbols.flatten(2).flatten(0, 1), sent.flatten(2).flatten(0, 1)).unflatten(
            0, (-1, USERS)
        )

    def superpose(self, symbols: Tensor, share: Tensor) -> Tensor:
        """(5) with the power of the sum: (n, k), of mean power 1 over what is sent, from symbols (n, 2, k).

        Two opposite signals leave nothing to send: their sum stays 0.
        """
        sent = self.mask(share).any(1)[..., None].expand(-1, -1, symbols.shape[-1] // self.config.features)
        return channel.normalise_power(symbols.sum(1), sent.flatten(1))

    def decode(self, received: Tensor, snr_db: Tensor, share: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Images (n, 2, 3, H, W) from what each user received, (n, 2, k). size: H, W, if the images are not square."""
        n, per_channel = len(received), received.shape[-1] // self.config.features
        side = math.isqrt(2 * per_channel)
        height, width = (side, side) if size is None else (s // self.config.unit for s in size)
        if received.shape[1:] != (USERS, self.config.features * height * width // 2):
            raise ValueError(f"received must be of {height}x{width} feature maps, got shape {tuple(received.shape)}")
        values = received.reshape(n, USERS, self.config.features, per_channel) * self.mask(share)[..., None]
        features = channel.to_values(values).movedim(2, -1)
        features = torch.stack([layer(features[:, user]) for user, layer in enumerate(self.receive)], 1)
        features = features.reshape(USERS * n, height, width, self.config.features)
        link = state(snr_db, share).repeat_interleave(USERS, 0)
        return torch.sigmoid(self.decoder(features, link).float()).unflatten(0, (n, USERS))

    def transmit(
        self, pairs: Tensor, snr_db: Tensor, share: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """What each user receives, (n, 2, k), and the symbols of :meth:`encode`.

        snr_db: p |h|^2 / (b N_0) of the superposed signal. The noise of each user is its own, and it is drawn for all
        k symbols, so that a state of the generator gives the same noise for every SNR and delta, but for its power.
        """
        symbols = self.encode(pairs, snr_db, share)
        signal = self.superpose(symbols, share)[:, None].expand_as(symbols)
        snr = channel.db_to_linear(snr_db).repeat_interleave(USERS)
        return channel.awgn(signal.flatten(0, 1), snr, generator).unflatten(0, (-1, USERS)), symbols

    def forward(self, pairs: Tensor, snr_db: Tensor, share: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images as they arrive, (n, 2, 3, H, W), see :meth:`transmit`."""
        received, _ = self.transmit(pairs, snr_db, share, generator)
        return self.decode(received, snr_db, share, (pairs.shape[-2], pairs.shape[-1]))

    @property
    def least(self) -> int:
        """Channels that have to be sent at the least."""
        return USERS if self.orthogonal else 1

    def mask(self, share: Tensor) -> Tensor:
        """Which channels a user sends, boolean (n, 2, C'): the first floor(delta C').

        Orthogonal users send every second one of them, the first user the even ones, both as many.
        """
        place = torch.arange(self.config.features, device=share.device)
        count = torch.floor(share * self.config.features + ROUNDING)[:, None, None]
        if not self.orthogonal:
            return (place < count).expand(-1, USERS, -1)
        user = torch.arange(USERS, device=share.device)[:, None]
        return (place < count - count % USERS) & (place % USERS == user)

    def _check(self, pairs: Tensor, snr_db: Tensor, share: Tensor) -> None:
        shape = tuple(pairs.shape)
        if len(shape) != 5 or shape[1:3] != (USERS, 3) or not shape[0]:
            raise ValueError(f"pairs must be (n, 2, 3, H, W), got {shape}")
        self.config.check_side(*shape[3:])
        for name, value in (("snr_db", snr_db), ("share", share)):
            if tuple(value.shape) != shape[:1]:
                raise ValueError(f"{name} must have shape ({shape[0]},), got {tuple(value.shape)}")
        least = self.least / self.config.features
        if not bool(((share >= least - ROUNDING / self.config.features) & (share <= 1.0)).all()):
            raise ValueError(f"share must be from {least:g}, {self.least} of the channels, to 1")


class Encoder(nn.Module):
    """Stages of Swin Transformer blocks, each after an SCFM if ``fusion``."""

    def __init__(self, config: Config, *, fusion: bool) -> None:
        super().__init__()
        sizes = [config.channels_of(k) for k in range(len(config.depths))]
        self.merging = nn.ModuleList(Merging(i, o) for i, o in zip([3, *sizes[:-1]], sizes, strict=True))
        self.stages = nn.ModuleList(
            Stage(size, depth, heads, config.window)
            for size, depth, heads in zip(sizes, config.depths, config.heads, strict=True)
        )
        self.fusion = nn.ModuleList(
            SCFM(size, heads, config.window) for size, heads in zip(sizes, config.heads, strict=True) if fusion
        )

    def forward(self, images: Tensor, link: Tensor) -> Tensor:
        """Images (2 n, 3, H, W) around 0, link (2 n, 2)."""
        features = images.movedim(1, -1)
        for k, (merging, stage) in enumerate(zip(self.merging, self.stages, strict=True)):
            features = merging(features)
            if self.fusion:
                features = self.fusion[k](features.unflatten(0, (-1, USERS))).flatten(0, 1)
            features = stage(features, link)
        return features


class Decoder(nn.Module):
    """The encoder in reverse, without SCFM: a receiver knows nothing of its partner."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        sizes = [config.channels_of(k) for k in range(len(config.depths))]
        self.stages = nn.ModuleList(
            Stage(size, depth, heads, config.window)
            for size, depth, heads in reversed(list(zip(sizes, config.depths, config.heads, strict=True)))
        )
        self.expansion = nn.ModuleList(Expansion(i, o) for i, o in zip(sizes[::-1], [*sizes[-2::-1], 3], strict=True))

    def forward(self, features: Tensor, link: Tensor) -> Tensor:
        """Features (n, H', W', C'), link (n, 2)."""
        for stage, expansion in zip(self.stages, self.expansion, strict=True):
            features = expansion(stage(features, link))
        return features.movedim(-1, 1)


def build(scheme: str, config: Config = Config()) -> Transceiver:
    """The network of a scheme. Raises ValueError for an unknown one."""
    validate.choice("scheme", scheme, SCHEMES)
    if scheme == "deepjscc_noma":
        size = (config.width, config.features, config.unit // 4)
        return Transceiver(config, deepjscc_noma.Encoder(*size), deepjscc_noma.Decoder(*size))
    encoder = Encoder(config, fusion=scheme == "sc_sfma")
    return Transceiver(config, encoder, Decoder(config), orthogonal=scheme == "swinjscc_oma")


def power_ratio(symbols: Tensor) -> Tensor:
    """Power of s_i + s_j over the sum of their powers, (n,), of symbols (n, 2, k): what (5) lets slip.

    1 if they are uncorrelated, 2 if they are the same, 0 if they are opposite.
    """
    energy = symbols.abs().square().sum((1, 2))
    return symbols.sum(1).abs().square().sum(1) / energy.clamp(min=torch.finfo(energy.dtype).tiny)


def own(features: int, user: int) -> Tensor:
    """Feature m on the channel 2 m + u, (channels, features): at the start no two users meet, at any delta."""
    found = torch.zeros(features, features)
    place = torch.arange(user, features, USERS)
    found[place, torch.arange(len(place))] = 1.0
    return found


def _initialise(layer: nn.Linear, weight: Tensor) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight + LEAK * torch.randn_like(weight))
    nn.init.zeros_(layer.bias)
