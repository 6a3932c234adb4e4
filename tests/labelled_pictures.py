"""Small generated pictures with classes, for the tests of the classifier."""

from __future__ import annotations

import numpy as np
import torch

from semcom_gym.transceivers import data


def pictures(n: int, side: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def stamps(count: int = 6, side: int = 24, classes: int = 2) -> data.Images:
    """Cut-outs: a block of one colour for each class, 12 x 8, in a transparent frame of another colour."""
    images = np.zeros((count, 4, side, side), np.uint8)
    images[:, 1] = 255  # green shows only if alpha is not heeded
    labels = np.arange(count) % classes
    for image, label in zip(images, labels, strict=True):
        image[:, 6:18, 10:18] = 0
        image[2 * label, 6:18, 10:18] = 200
        image[3, 6:18, 10:18] = 255
    return data.Images("blocks", "train", images, labels, ("red", "blue")[:classes], "0", "CC0-1.0", "generated")


def grey(n: int = 2, side: int = 64) -> list[np.ndarray]:
    """Backgrounds of grey noise."""
    noise = np.random.default_rng(0).integers(90, 160, size=(n, 1, side, side), dtype=np.uint8)
    return list(np.repeat(noise, 3, axis=1))
