"""Random crops of pictures at several scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semcom_gym.envs import validate
from semcom_gym.transceivers.data.pictures import shrink
from semcom_gym.transceivers.data.sets import Images

SCALES = (128, 256, 512)
FLAT = 0.03  # standard deviation, of values in [0, 1], below which a crop shows next to nothing
ROUNDS = 50


def crops(
    images: Images | np.ndarray | Sequence[np.ndarray],
    size: int,
    count: int,
    generator: np.random.Generator,
    scales: Sequence[int] = SCALES,
) -> np.ndarray:
    """Random square crops: uint8 (count, 3, size, size).

    Every picture is shrunk to each short side in ``scales`` that it reaches (as it is if it reaches none), so that a
    crop shows a whole scene or a detail. Each place of each of these is equally likely, as is each mirror image; flat
    crops (standard deviation below 0.03 of full scale) are drawn again. generator: the only source of chance. Raises
    ValueError if a picture has other than 3 channels or is smaller than a crop, or if nearly all crops are flat.
    """
    validate.integer("size", size)
    validate.integer("count", count)
    if not isinstance(generator, np.random.Generator):
        raise TypeError(f"generator must be a numpy.random.Generator, got {generator!r}")
    for scale in scales:
        validate.integer("scales", scale)
    stacks = _stacks(images.images if isinstance(images, Images) else images, size, [s for s in scales if s >= size])
    found, missing = [], count
    for _ in range(ROUNDS):
        drawn = _draw(stacks, size, missing, generator)
        found.append(drawn[_spread(drawn) >= FLAT])
        missing -= len(found[-1])
        if not missing:
            mixed = np.concatenate(found)
            return mixed[generator.permutation(count)]
    raise ValueError(f"nearly all crops of {size}x{size} are flat; only {count - missing} of {count} show anything")


def _stacks(images: Any, size: int, scales: Sequence[int]) -> list[np.ndarray]:
    """Pictures of one size and scale together, (m, 3, h, w)."""
    if len(images) == 0:
        raise ValueError("there are no pictures to crop")
    for k, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"picture {k} must be uint8 (3, H, W), got {image.dtype} of shape {image.shape}")
        if min(image.shape[1:]) < size:
            raise ValueError(f"picture {k} is {image.shape[2]}x{image.shape[1]}, smaller than a crop of {size}x{size}")
    if isinstance(images, np.ndarray) and not any(scale < min(images.shape[2:]) for scale in scales):
        return [images]
    return [scaled[None] for image in images for scaled in _scaled(image, scales)]


def _scaled(image: np.ndarray, scales: Sequence[int]) -> list[np.ndarray]:
    return [shrink(image, scale) for scale in scales if scale <= min(image.shape[1:])] or [image]


def _draw(stacks: list[np.ndarray], size: int, count: int, generator: np.random.Generator) -> np.ndarray:
    places = np.array([len(s) * (s.shape[2] - size + 1) * (s.shape[3] - size + 1) for s in stacks], float)
    crops = []
    for stack, share in zip(stacks, generator.multinomial(count, places / places.sum()), strict=True):
        n, _, height, width = stack.shape
        k = generator.integers(n, size=share)
        y, x = generator.integers(height - size + 1, size=share), generator.integers(width - size + 1, size=share)
        windows = np.lib.stride_tricks.sliding_window_view(stack, (size, size), axis=(2, 3))
        crops.append(windows[k, :, y, x])
    drawn = np.concatenate(crops)
    mirrored = generator.random(count) < 0.5
    drawn[mirrored] = drawn[mirrored][..., ::-1]
    return drawn


def _spread(crops: np.ndarray) -> np.ndarray:
    """Standard deviation of each crop over its values, full scale 1."""
    chunks = [crops[k : k + 1024].reshape(-1, crops[0].size) for k in range(0, len(crops), 1024)] if len(crops) else []
    return np.concatenate([chunk.std(axis=1, dtype=np.float32) for chunk in chunks]) / 255 if chunks else np.zeros(0)
