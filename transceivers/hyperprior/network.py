"""A learned image codec with a scale hyper-prior (Balle, Minnen, Singh, Hwang and Johnston 2018), one network for every
rate. It is the code of the compression paper (Section II-A and reference [33])::

    image x -> analysis -> y, 1/16 of the sides -> times the gains of the rate, rounded to v -> stream `main`
    log(1 + |gain y|) -> hyper-analysis -> z, 1/64 of the sides, rounded to w               -> stream `hyper`
    w -> hyper-synthesis -> scale of every value of v;   v / gains -> synthesis -> image

Values of v are coded as normal with that scale, those of w by a factorised prior. GDN stands between the layers of the
analysis, and its counterpart between those of the synthesis. Of three maps, those that start as the mean colour of a
block, the hyper-prior also gives the mean, as Minnen, Balle and Toderici (2018) do for all: a scale alone cannot say
that neighbouring blocks are alike. All other means are 0.

A network that learns to code from nothing spends most of a short training on what is long known. So analysis and
synthesis are each a sum: a linear block transform that starts as the discrete cosine transform of 16 x 16 pixels in
opponent colours, low frequencies first, and a network of convolutions that starts near 0; the synthesis also shows that
network the picture that the transform alone would give. All of it is trained together.

The gains (Cui et al. 2021) are a vector for each of the rates 0, ..., R - 1, and another one for their inverse. In
between, their logarithms are interpolated; so the rate is any number from 0 to R - 1, in training as well.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from semcom_gym.envs import validate
from semcom_gym.transceivers import pixels
from semcom_gym.transceivers.hyperprior import priors
from semcom_gym.transceivers.hyperprior.gdn import GDN

SIDE = 64
"""Sides of an image are multiples of it."""
BLOCK, PATCH = 16, 4
"""Pixels a side of a block of the transform, and of the patches that the networks of convolutions take."""
LAMBDAS = (0.0008, 0.1)
"""Weight of the mean squared error, of values to 255, against bits per pixel, at the lowest and the highest rate."""
LARGEST_LATENT, LARGEST_HYPER = 1023, 63
"""Of whole numbers that can be coded; larger ones are cut off."""
CONTRAST = 4.0
"""Brings values of natural images to a variance of about 1."""
UNIT = 8.0
"""Of the weights of the block transforms. They are small, and without it each step would change them too much."""
OUTLIER = 10.0
"""In standard deviations, of what the synthesis is shown: an inverse GDN squares large values, which damage makes."""
SLOPE = 0.25
"""Below 0, of the hyper-networks. A power of two: see :meth:`Hyperprior.exact_parameters`."""
COARSE, MEAN_STEPS = 3, 16
"""Maps whose mean is coded as well, in sixteenths: those that start as the mean colour of a block."""
HYPER_GAIN = 4.0
"""Of the hyper-latents, which would else all round to 0 at the start. A power of two, as the slope."""
SMALL = 1.0 / 16.0
"""Of what the networks of convolutions add to the transforms: so they start near 0, and steps change them gently."""
WEIGHT_BITS, VALUE_BITS, WEIGHT_LIMIT, VALUE_LIMIT = 14, 10, 8.0, 1024.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Size of the network. width: feature maps N at a quarter of the sides, 4/3 N at an eighth and 2 N at a sixteenth;
    latents: maps M of y; rates: trained ones, R.
    """

    width: int = 48
    latents: int = 256
    rates: int = 8

    def __post_init__(self) -> None:
        validate.integer("width", self.width, low=6)
        validate.integer("latents", self.latents)
        validate.integer("rates", self.rates, low=2)
        for name, limit in (("width", 384), ("latents", 3 * BLOCK**2)):
            validate.not_above(name, getattr(self, name), "its limit", limit)
        if self.width % 3:
            raise ValueError(f"width must be a multiple of 3, got {self.width}")

    @property
    def hyper(self) -> int:
        """Maps of the hyper-latents."""
        return 2 * self.width // 3

    @property
    def lambdas(self) -> np.ndarray:
        """Weight of the mean squared error, of values to 1, at every trained rate."""
        return np.geomspace(*LAMBDAS, self.rates) * 255.0**2


class Hyperprior(nn.Module):
    """The network; forward gives images as they come out of the codec and the bits that they took."""

    def __init__(self, config: Config = Config()) -> None:
        super().__init__()
        self.config = config
        n, maps = config.width, config.latents
        basis, deviation = cosine_transform(maps)
        self.transform = nn.Conv2d(3, maps, BLOCK, BLOCK)
        self.inverse = nn.Conv2d(maps, 3 * BLOCK**2, 1)  # and a shuffle: twice as fast as a transposed convolution
        for layer, weight in ((self.transform, basis), (self.inverse, basis.flatten(1).T[..., None, None])):
            layer.weight.data.copy_(UNIT * weight)
            nn.init.zeros_(layer.bias)
        self.register_buffer("deviation", deviation[:, None, None])
        start = 0.5 * np.log2(config.lambdas * math.log(2.0) / 18.0)  # each quantiser by itself would choose this step
        gains = torch.from_numpy(start).float()[:, None].repeat(1, maps)
        self.log2_gain, self.log2_inverse = nn.Parameter(gains), nn.Parameter(-gains)
        self.analysis, self.enter, self.synthesis, self.leave = _convolutions(n, maps)
        self.coarse = min(COARSE, maps)
        self.hyper_analysis, self.hyper_synthesis = _hyper(n, maps, self.coarse, config.hyper)
        self.prior = priors.Factorised(config.hyper)

    def forward(self, images: Tensor, rate: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Images (n, 3, H, W) in [0, 1] and rates (n,) in [0, R - 1] to images, not limited, and bits of each, (n,).

        generator: of the noise that stands for rounding in the bits while training; without it values are rounded.
        Raises ValueError for images or rates that do not fit.
        """
        self.check(images, rate)
        values, hyper = self.latents(images, rate)
        noisy, noisy_hyper = _rounded(values, generator), _rounded(hyper, generator)
        coded = _straight_through(hyper) if generator else noisy_hyper
        mean, scale = self.parameters_of(coded, rate)
        bits = priors.bits(priors.gaussian(noisy - mean, scale)) + priors.bits(self.prior(noisy_hyper))
        return self.reconstruct(self.dequantised(_straight_through(values), rate)), bits

    def latents(self, images: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """y times the gains, (n, M, H/16, W/16), and z, (n, 2 N / 3, H/64, W/64), before rounding."""
        centred = images - 0.5
        detail = self.analysis(functional.pixel_unshuffle(CONTRAST * centred, PATCH))
        with _full_precision(images):
            blocks = self.transform(centred) / UNIT
        y = blocks + SMALL * self.deviation * detail.float()
        values = y * torch.exp2(self._interpolated(self.log2_gain, rate))
        seen = torch.cat((torch.log1p(values.abs()), (y / self.deviation)[:, : self.coarse]), 1)
        return values, HYPER_GAIN * self.hyper_analysis(seen).float()

    def parameters_of(self, hyper: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of every value of the latents and log2 of its scale, for rounded hyper-latents: for training and
        estimates.
        """
        with _full_precision(hyper):
            learned = self.hyper_synthesis(hyper / HYPER_GAIN)
        unit = torch.log2(self.deviation) + self._interpolated(self.log2_gain, rate)
        scales, means = learned[:, : self.config.latents], learned[:, self.config.latents :]
        means = means * torch.exp2(unit[:, : self.coarse])
        return functional.pad(means, (0, 0, 0, 0, 0, self.config.latents - self.coarse)), scales + unit

    @torch.no_grad()
    def exact_parameters(self, hyper: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """The same for coding, float64 (M, h, w), for integers (2 N / 3, h/4, w/4): equal to the last bit in every
        batch and on every number of threads, for a decoder that is off by one level reads nothing.

        Weights are rounded to multiples of 2^-14 and limited to 8, values between layers to multiples of 2^-10 and
        1024. In float64 each sum of such products is exact, so the order of summation cannot matter.
        """
        value = torch.from_numpy(hyper.astype(np.float64) / HYPER_GAIN)[None]
        for layer in self.hyper_synthesis:
            if isinstance(layer, nn.LeakyReLU):
                value = _to_grid(layer(value), VALUE_BITS, VALUE_LIMIT)
            else:
                value = _exact(layer, value)
        learned, count = value[0].numpy(), self.config.latents
        gain = self._interpolated(self.log2_gain.cpu().double(), torch.tensor([rate], dtype=torch.float64))[0]
        unit = _to_grid(gain + torch.log2(self.deviation.cpu().double()), VALUE_BITS, VALUE_LIMIT).numpy()
        means = np.zeros_like(learned[:count])
        means[: self.coarse] = np.rint(MEAN_STEPS * learned[count:] * np.exp2(unit[: self.coarse])) / MEAN_STEPS
        return means, learned[:count] + unit

    def dequantised(self, rounded: Tensor, rate: Tensor) -> Tensor:
        """What the synthesis takes: rounded latents without the gains."""
        return rounded * torch.exp2(self._interpolated(self.log2_inverse, rate))

    def quantised(self, images: Tensor, rate: Tensor) -> Tensor:
        """What the synthesis gets of images (n, 3, H, W) in [0, 1] at rates (n,): (n, M, H/16, W/16)."""
        self.check(images, rate)
        rounded = torch.round(self.latents(images, rate)[0]).clamp(-LARGEST_LATENT, LARGEST_LATENT)
        return self.dequantised(rounded, rate)

    def reconstruct(self, latents: Tensor) -> Tensor:
        """Images (n, 3, H, W), not limited to [0, 1], from (n, M, H/16, W/16) without gains."""
        with _full_precision(latents):
            blocks = functional.pixel_shuffle(self.inverse(latents) / UNIT, BLOCK)
        features = self.synthesis((latents / self.deviation).clamp(-OUTLIER, OUTLIER))
        features = features + self.enter(functional.pixel_unshuffle(CONTRAST * blocks, PATCH))
        detail = functional.pixel_shuffle(self.leave(features).float(), PATCH)
        return blocks + SMALL / CONTRAST * detail + 0.5

    def check(self, images: Tensor, rate: Tensor) -> None:
        """Raise ValueError unless images and rates fit each other and the network."""
        pixels.check_shape(images, SIDE)
        if tuple(rate.shape) != (len(images),):
            raise ValueError(f"rate must have shape ({len(images)},), got {tuple(rate.shape)}")
        top = self.config.rates - 1
        if not bool(((rate >= 0) & (rate <= top)).all()):
            raise ValueError(f"rate must be from 0 to {top}, got {rate.min().item():g} to {rate.max().item():g}")

    def _interpolated(self, vectors: Tensor, rate: Tensor) -> Tensor:
        """Vectors (R, M) at rates (n,): (n, M, 1, 1)."""
        low = rate.floor().long().clamp(max=self.config.rates - 2)
        share = (rate - low)[:, None].to(vectors.dtype)
        return torch.lerp(vectors[low], vectors[low + 1], share)[..., None, None]


def positions(config: Config, count: int) -> list[float]:
    """``count`` rates at equal distances from the lowest to the highest."""
    validate.integer("count", count, low=2)
    return np.linspace(0.0, config.rates - 1.0, count).tolist()


def cosine_transform(maps: int) -> tuple[Tensor, Tensor]:
    """The first basis pictures (maps, 3, 16, 16) of an orthonormal cosine transform and about the standard deviation of
    their coefficients in natural images, (maps,). Brightness counts more than the two opponent colours.
    """
    k = np.arange(BLOCK)
    waves = np.cos(np.pi * k[:, None] * (k + 0.5) / BLOCK) * np.sqrt(2.0 / BLOCK)
    waves[0] /= np.sqrt(2.0)
    colours = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    basis = np.einsum("ca,uy,vx->cuvayx", colours, waves, waves).reshape(-1, 3, BLOCK, BLOCK)
    radius = k[:, None] ** 2 + k**2
    order = np.stack((radius, 6 * radius + 2, 6 * radius + 2)).ravel()
    first = np.argsort(order, kind="stable")[:maps]
    deviation = 3.0 * (1.0 + order[first]) ** -0.75
    return torch.from_numpy(basis[first]).float(), torch.from_numpy(deviation).float()


def _convolutions(n: int, maps: int) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """Analysis, and synthesis in its three parts: from the latents, from the blocks, and to patches of the image."""
    values, quarter, eighth, sixteenth = 3 * PATCH**2, n, 4 * n // 3, 2 * n
    analysis = nn.Sequential(
        nn.Conv2d(values, quarter, 3, 1, 1), GDN(quarter),
        nn.Conv2d(quarter, eighth, 5, 2, 2), GDN(eighth),
        nn.Conv2d(eighth, maps, 5, 2, 2),
    )  # fmt: skip
    synthesis = nn.Sequential(
        nn.Conv2d(maps, sixteenth, 3, 1, 1), GDN(sixteenth, inverse=True),
        nn.ConvTranspose2d(sixteenth, eighth, 5, 2, 2, 1), GDN(eighth, inverse=True),
        nn.ConvTranspose2d(eighth, quarter, 5, 2, 2, 1),
    )  # fmt: skip
    enter = nn.Conv2d(values, quarter, 3, 1, 1)
    leave = nn.Sequential(GDN(quarter, inverse=True), nn.Conv2d(quarter, values, 3, 1, 1))
    return analysis, enter, synthesis, leave


def _hyper(n: int, maps: int, coarse: int, hyper: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Hyper-analysis and hyper-synthesis."""
    down = nn.Sequential(
        nn.Conv2d(maps + coarse, n, 3, 1, 1), nn.LeakyReLU(SLOPE),
        nn.Conv2d(n, n, 5, 2, 2), nn.LeakyReLU(SLOPE),
        nn.Conv2d(n, hyper, 5, 2, 2),
    )  # fmt: skip
    up = nn.Sequential(
        nn.ConvTranspose2d(hyper, n, 5, 2, 2, 1), nn.LeakyReLU(SLOPE),
        nn.ConvTranspose2d(n, n, 5, 2, 2, 1), nn.LeakyReLU(SLOPE),
        nn.Conv2d(n, maps + coarse, 3, 1, 1),
    )  # fmt: skip
    return down, up


def _full_precision(tensor: Tensor) -> torch.autocast:
    """Where 8 binary digits would be too few: for what is coded in finer steps than that."""
    return torch.autocast(tensor.device.type, enabled=False)


def _exact(layer: nn.Module, values: Tensor) -> Tensor:
    """A convolution of the hyper-synthesis in numbers whose sums are exact, on the CPU."""
    weight, bias = (
        _to_grid(part.cpu().double().contiguous(), WEIGHT_BITS, WEIGHT_LIMIT) for part in (layer.weight, layer.bias)
    )
    same = {"stride": layer.stride, "padding": layer.padding}
    if isinstance(layer, nn.ConvTranspose2d):
        return functional.conv_transpose2d(values, weight, bias, output_padding=layer.output_padding, **same)
    return functional.conv2d(values, weight, bias, **same)


def _rounded(values: Tensor, generator: torch.Generator | None) -> Tensor:
    """Rounded values, or what stands for them in training: values with noise of the same width."""
    if generator is None:
        return torch.round(values)
    return values + torch.rand(values.shape, generator=generator, device=values.device) - 0.5


def _straight_through(values: Tensor) -> Tensor:
    """Rounded values whose gradient is that of the values."""
    return values + (torch.round(values) - values).detach()


def _to_grid(values: Tensor, bits: int, limit: float) -> Tensor:
    """The nearest multiples of 2^-bits from -limit to limit."""
    return torch.round(values.clamp(-limit, limit) * 2.0**bits) / 2.0**bits
