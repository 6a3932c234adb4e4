"""Quality of images: PSNR and MS-SSIM. Images are tensors (n, 3, H, W) with values in [0, 1].

MS-SSIM (Wang, Simoncelli and Bovik 2003) takes five scales with an 11 x 11 window, so its smallest image is 176 x 176.
Smaller images need fewer scales or a smaller window, and that is another figure: means differ by up to 0.1. Each
variant here has its own name, ``ms_ssim_M<scales>w<window>``; never compare two of them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from semcom_gym.envs import validate

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIGMA, WINDOW = 1.5, 11  # of the standard window; a smaller one has a sigma in proportion
C1, C2 = 0.01**2, 0.03**2
VARIANTS = {"ms_ssim": (5, 11), "ms_ssim_M4w11": (4, 11), "ms_ssim_M4w7": (4, 7), "ms_ssim_M3w7": (3, 7)}
"""Name of each variant: its scales and the side of its window. Smallest sides: 176, 88, 56, 28."""


def mse(images: Tensor, references: Tensor) -> Tensor:
    """Mean squared error of each image, (n,)."""
    _check(images, references)
    return (images - references).square().mean((1, 2, 3))


def psnr_db(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image [dB], (n,); infinite where the two are the same.

    The mean of it over images is the mean of decibels, which lies above the PSNR of the mean squared error.
    """
    return -10.0 * torch.log10(mse(images, references))


def ms_ssim(images: Tensor, references: Tensor, variant: str = "ms_ssim") -> Tensor:
    """Multi-scale structural similarity of each image, (n,), mean over the colours.

    With fewer than five scales the first weights are taken and scaled to a sum of 1. A negative contrast term counts
    as 0. Raises ValueError for an unknown variant or images that are too small for it.
    """
    validate.choice("variant of MS-SSIM", variant, VARIANTS)
    scales, window = VARIANTS[variant]
    _check(images, references)
    least = window * 2 ** (scales - 1)
    if min(images.shape[-2:]) < least:
        raise ValueError(f"{variant} needs images of at least {least} pixels a side, got {tuple(images.shape[-2:])}")
    kernel = _gaussian(window, SIGMA * window / WINDOW).to(images)
    weights = torch.tensor(BETAS[:scales], dtype=torch.float64).to(images)
    weights = weights / weights.sum()
    terms = []
    for scale in range(scales):
        luminance, contrast = _ssim_terms(images, references, kernel)
        terms.append(luminance * contrast if scale == scales - 1 else contrast)
        images, references = functional.avg_pool2d(images, 2), functional.avg_pool2d(references, 2)
    means = torch.stack([term.mean((-2, -1)).clamp(min=0.0) for term in terms])  # (scales, n, 3)
    return (means ** weights[:, None, None]).prod(0).mean(1)


def _ssim_terms(x: Tensor, y: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of the luminance and of the contrast-structure term."""
    mean_x, mean_y = _blur(x, kernel), _blur(y, kernel)
    var_x = _blur(x * x, kernel) - mean_x**2
    var_y = _blur(y * y, kernel) - mean_y**2
    covariance = _blur(x * y, kernel) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (var_x + var_y + C2)


def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Separable filter without padding, each colour by itself."""
    channels = x.shape[1]
    rows = kernel.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = kernel.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(functional.conv2d(x, rows, groups=channels), columns, groups=channels)


def _gaussian(window: int, sigma: float) -> Tensor:
    place = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    kernel = torch.exp(-(place**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def _check(images: Tensor, references: Tensor) -> None:
    if images.ndim != 4 or images.shape != references.shape:
        raise ValueError(
            f"images must be two tensors (n, colours, H, W) of one shape, got {tuple(images.shape)} and "
            f"{tuple(references.shape)}"
        )
