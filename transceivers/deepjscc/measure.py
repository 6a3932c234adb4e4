"""Training loss of deep JSCC, and its PSNR over ratio and SNR on held-out crops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from semcom_gym.envs import validate
from semcom_gym.transceivers import channel, metrics, pixels
from semcom_gym.transceivers.deepjscc.network import DeepJSCC, ratio

CHUNK = 10  # whole pictures that are sent at a time
ANCHOR = (16, 10.0)
"""Feature maps and SNR [dB] of the figure that is followed during training: rho = 1/6, 10 dB."""


@dataclasses.dataclass(frozen=True)
class Range:
    """What a network is trained for: SNR uniform in [low_db, high_db], maps uniform from ``least_maps`` to all."""

    low_db: float = -5.0
    high_db: float = 20.0
    least_maps: int = 3

    def __post_init__(self) -> None:
        channel.check_span(self.low_db, self.high_db)
        validate.integer("least_maps", self.least_maps)


def loss(network: DeepJSCC, images: Tensor, generator: torch.Generator, span: Range, medium: str = "awgn") -> Tensor:
    """Mean squared error over images, each at a random SNR and a random ratio.

    The logarithm of the error, image by image, would be the mean PSNR itself, but learns several times more slowly.
    """
    n, most = len(images), network.config.maps
    uniform = torch.rand(n, generator=generator, device=images.device)
    snr_db = span.low_db + (span.high_db - span.low_db) * uniform
    maps = torch.randint(span.least_maps, most + 1, (n,), generator=generator, device=images.device)
    return metrics.mse(network(images, snr_db, maps, medium, generator), images).mean()


def psnr_db(
    network: DeepJSCC, crops: Tensor, maps: Sequence[int], snr_db: float, *, seed: int = 0, medium: str = "awgn"
) -> list[dict[str, float]]:
    """PSNR at one SNR for each number of maps: ``ratio``, ``snr_db``, mean ``psnr_db`` over crops and its ``error``.

    crops: uint8 (n, 3, H, W). The noise is the same for every SNR and ratio, but for its power, so that differences
    between points of the surface are not those of the draw. error: standard error of the mean.
    """
    if len(crops) < 2:
        raise ValueError(f"a mean with an error needs at least 2 crops, got {len(crops)}")
    points = []
    for count in maps:
        psnr = psnr_of_crops(network, crops, count, snr_db, seed=seed, medium=medium)
        error = float(psnr.std()) / math.sqrt(len(psnr))
        points.append({"ratio": ratio(count), "snr_db": float(snr_db), "psnr_db": float(psnr.mean()), "error": error})
    return points


@torch.no_grad()
def psnr_of_crops(
    network: DeepJSCC, crops: Tensor, maps: int, snr_db: float, *, seed: int = 0, medium: str = "awgn"
) -> Tensor:
    """PSNR [dB] of every crop, float64 (n,), at one SNR and one number of maps; the noise is that of `psnr_db`."""
    network.eval()
    where = next(network.parameters()).device
    generator, values = torch.Generator(where), []
    for k, images in enumerate(pixels.batches(crops, where)):
        generator.manual_seed(pixels.noise_seed(seed, k))
        n = len(images)
        link = (torch.full((n,), float(snr_db), device=where), torch.full((n,), maps, device=where))
        values.append(metrics.psnr_db(network(images, *link, medium, generator), images).double().cpu())
    return torch.cat(values)


@torch.no_grad()
def received(network: DeepJSCC, images: Tensor, maps: int, snr_db: float, told_db: float, seed: int) -> Tensor:
    """Images uint8 (n, 3, H, W) as they arrive, in [0, 1], over white noise at ``snr_db``, both ends told another SNR.

    The noise is the same for every SNR and number of maps, but for its power.
    """
    where = next(network.parameters()).device
    generator, shown = torch.Generator(where), []
    for k, part in enumerate(images.split(CHUNK)):
        part = pixels.scaled(part, where)
        generator.manual_seed(pixels.noise_seed(seed, k))
        told, count = part.new_full((len(part),), told_db), torch.full((len(part),), maps, device=where)
        symbols = network.encode(part, told, count)
        heard, _ = channel.transmit(symbols, channel.db_to_linear(snr_db), "awgn", generator)
        shown.append(network.decode(heard, told, count, (part.shape[2], part.shape[3])))
    return torch.cat(shown)
