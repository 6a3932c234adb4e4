"""Images as tensors: what a network takes, and held-out images in batches, each with its own repeatable noise."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BATCH = 250


def check_side(side: int, unit: int) -> None:
    """Raise ValueError unless ``side``, in pixels, is a multiple of ``unit``."""
    if side < unit or side % unit:
        raise ValueError(f"side must be a multiple of {unit}, got {side}")


def check_shape(images: Tensor, unit: int) -> None:
    """Raise ValueError unless ``images`` are (n, 3, H, W), at least one, H and W multiples of ``unit``."""
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] % unit or shape[3] % unit or 0 in shape:
        raise ValueError(f"images must be (n, 3, H, W), H and W multiples of {unit}, got {shape}")


def scaled(images: Tensor, where: torch.device | str = "cpu") -> Tensor:
    """uint8 images as float32 in [0, 1] on a device."""
    return images.to(where).float() / 255.0


def batches(images: Tensor, where: torch.device) -> Iterator[Tensor]:
    """uint8 images (n, 3, H, W), BATCH at a time, as :func:`scaled` makes them."""
    return (scaled(part, where) for part in images.split(BATCH))


def noise_seed(seed: int, batch: int) -> int:
    """Seed of the channel's noise on a batch: the same for every link, so that links differ by no draw."""
    return seed * 1_000_003 + batch
