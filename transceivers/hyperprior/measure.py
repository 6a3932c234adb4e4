"""Training loss of the codec, and its rate and distortion on images by the bits of real streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from semcom_gym.transceivers import metrics, pixels
from semcom_gym.transceivers.hyperprior import coding
from semcom_gym.transceivers.hyperprior.network import Hyperprior

LEAST_SIDE = 176
"""Of images whose MS-SSIM is reported, see :mod:`metrics`."""


def loss(network: Hyperprior, images: Tensor, generator: torch.Generator) -> Tensor:
    """Bits per pixel + lambda times the mean squared error, each image at a random rate, relative to sqrt(lambda).

    Without that the highest rates would decide nearly all of the gradient. Rates are drawn from equal parts of
    [0, R - 1], one each, so that a batch has some of all.
    """
    n, top = len(images), network.config.rates - 1
    share = torch.rand(n, generator=generator, device=images.device) + torch.arange(n, device=images.device)
    rate = top * share / n
    low, high = (float(value) for value in network.config.lambdas[[0, -1]])
    weight = low * (high / low) ** (rate / top)
    shown, bits = network(images, rate, generator)
    error = metrics.mse(shown, images)
    per_pixel = bits / (images.shape[2] * images.shape[3])
    return ((per_pixel + weight * error) * (low * high) ** 0.25 / weight.sqrt()).mean()


@torch.no_grad()
def estimate(network: Hyperprior, images: Tensor, rate: float) -> dict[str, float]:
    """Mean ``bpp`` by the likelihoods and mean ``psnr_db`` of uint8 images (n, 3, H, W): quick, for a log."""
    network.eval()
    where = next(network.parameters()).device
    found = []
    for batch in pixels.batches(images, where):
        shown, bits = network(batch, torch.full((len(batch),), float(rate), device=where))
        found.append(torch.stack((bits / batch[0, 0].numel(), metrics.psnr_db(_eight_bits(shown), batch))).double())
    bpp, psnr_db = torch.cat(found, 1).mean(1).tolist()
    return {"bpp": bpp, "psnr_db": psnr_db}


@torch.no_grad()
def rate_distortion(
    network: Hyperprior, images: Tensor | Sequence[Tensor], rates: Sequence[float]
) -> list[dict[str, float]]:
    """A row for each rate, means over images, uint8 (n, 3, H, W) or a list of (3, H, W), sides multiples of 64.

    ``rate``; ``bpp``, real bits of both streams per pixel, and ``hyper_bpp``, those of the hyper-latents among them;
    ``psnr_db`` of the decoded image in 8 bits, and ``ms_ssim``, nan unless all images have 176 pixels a side.
    Raises ValueError for images or rates that do not fit.
    """
    if len(images) == 0:
        raise ValueError("at least one image is needed")
    network.eval()
    rows = []
    for rate in rates:
        figures = np.mean([_figures(network, image, rate) for image in images], 0).tolist()
        rows.append(dict(zip(("bpp", "hyper_bpp", "psnr_db", "ms_ssim"), figures, strict=True), rate=float(rate)))
    return rows


def _figures(network: Hyperprior, image: Tensor, rate: float) -> list[float]:
    """Of one image, in the order of the rows."""
    stream = coding.encode(network, image, rate)
    shown, _ = coding.decode(network, stream)
    original, shown = pixels.scaled(image, shown.device)[None], _eight_bits(shown)[None]
    area = original[0, 0].numel()
    large = min(original.shape[2:]) >= LEAST_SIDE
    similarity = float(metrics.ms_ssim(shown, original)) if large else float("nan")
    return [stream.bits / area, stream.hyper_bits / area, float(metrics.psnr_db(shown, original)), similarity]


def _eight_bits(images: Tensor) -> Tensor:
    """Images as they are shown: limited to [0, 1] and of 8 bits."""
    return torch.round(images.clamp(0.0, 1.0) * 255.0) / 255.0
