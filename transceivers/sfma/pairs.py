"""Pairs of images of five kinds, and how alike the two are to a trained encoder, which is what curves are drawn over.

Crops are kept by the picture they are of, so that two users can be given the same scene. A crop is kept a little larger
than it is used, so that a near duplicate can be shifted without a border that no camera makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from semcom_gym.envs import validate
from semcom_gym.transceivers import data, pixels
from semcom_gym.transceivers.sfma.network import USERS, Transceiver

KINDS = ("random", "same_scene", "mix", "near_duplicate", "identical")
"""The second image: of another scene; elsewhere in the scene; half the first, half another scene; the first, shifted by
up to 3 pixels each way and with gains of its colours; the first. The first image is the same for all of them."""
SHIFT, GAIN = 3, 0.15
SIMILARITY_DB = 10.0
"""SNR at which similarity is measured, at delta = 1."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes:
    """Crops, uint8 (scenes, crops of each, 3, S, S), S = side + 6, of pictures of image sets. sources: by set."""

    crops: Tensor
    sources: dict[str, Any]

    def to(self, where: torch.device | str) -> Scenes:
        """The same on a device."""
        return dataclasses.replace(self, crops=self.crops.to(where))


def scenes(sets: Sequence[str | Path], split: str, side: int, count: int, seed: int) -> Scenes:
    """About ``count`` crops for images of ``side`` pixels, as many of each picture of a split of image sets.

    split: ``train``, ``validation`` or ``test``.
    Raises ValueError for an unknown set, two sets of one name, or fewer than two pictures or two crops of each.
    """
    validate.choice("split", split, data.STREAMS)
    validate.integer("count", count)
    loaded = [data.load(name, split) for name in sets]
    pictures = [picture for images in loaded for picture in images.images]
    sources = {images.name: images.origin for images in loaded}
    if len(sources) < len(loaded):
        raise ValueError(f"two sets of images have one name: {', '.join(images.name for images in loaded)}")
    if len(pictures) < 2:
        raise ValueError(f"pairs of unlike images need 2 pictures or more, the {split} split has {len(pictures)}")
    share = count // len(pictures)
    if share < 2:
        raise ValueError(f"{count} crops of {len(pictures)} pictures: at least 2 of each are needed")
    generator = np.random.default_rng([seed, data.STREAMS[split]])
    crops = np.stack([data.crops([picture], side + 2 * SHIFT, share, generator) for picture in pictures])
    return Scenes(torch.from_numpy(crops), sources)


def sample(pool: Scenes, kind: str, rng: np.random.Generator, count: int, side: int) -> Tensor:
    """Pairs, uint8 (count, 2, 3, side, side), on the device of the pool.

    Generators in the same state give the same first images, whatever the kind. Raises ValueError for an unknown kind or
    a side that is not the pool's.
    """
    validate.choice("kind of pair", kind, KINDS)
    validate.integer("count", count)
    number, share, _, size, _ = pool.crops.shape
    if side + 2 * SHIFT != size:
        raise ValueError(f"the pool is of images of {size - 2 * SHIFT} pixels, not {side}")
    scene, crop = rng.integers(number, size=count), rng.integers(share, size=count)
    other = (scene + rng.integers(1, number, size=count)) % number, rng.integers(share, size=count)
    sibling = (crop + rng.integers(1, share, size=count)) % share
    shift, gain = rng.integers(-SHIFT, SHIFT + 1, size=(2, count)), rng.uniform(1 - GAIN, 1 + GAIN, size=(count, 3))
    first = _cut(pool, scene, crop)
    if kind == "random":
        second = _cut(pool, *other)
    elif kind == "same_scene":
        second = _cut(pool, scene, sibling)
    elif kind == "mix":
        second = ((first.short() + _cut(pool, *other).short() + 1) // 2).byte()
    elif kind == "near_duplicate":
        gains = torch.from_numpy(gain).to(first.device, torch.float32)[..., None, None]
        second = (_cut(pool, scene, crop, *shift) * gains).round().clamp(0, 255).byte()
    else:
        second = first
    return torch.stack((first, second), 1)


def _cut(pool: Scenes, scene: np.ndarray, crop: np.ndarray, down: Any = 0, right: Any = 0) -> Tensor:
    """Crops (count, 3, side, side), shifted by so many pixels from the middle, integers (count,) of at most SHIFT."""
    where, side = pool.crops.device, pool.crops.shape[-1] - 2 * SHIFT

    def index(start: np.ndarray, *shape: int) -> Tensor:
        return torch.from_numpy(np.asarray(start).reshape(shape)).to(where)

    line, count = np.arange(side), len(scene)
    rows = np.broadcast_to(np.reshape(down, (-1, 1)), (count, 1)) + SHIFT + line
    columns = np.broadcast_to(np.reshape(right, (-1, 1)), (count, 1)) + SHIFT + line
    return pool.crops[
        index(scene, count, 1, 1, 1), index(crop, count, 1, 1, 1), index(np.arange(3), 1, 3, 1, 1),
        index(rows, count, 1, side, 1), index(columns, count, 1, 1, side),
    ]  # fmt: skip


@torch.no_grad()
def similarity(network: Transceiver, pairs: Tensor) -> Tensor:
    """How alike the images of pairs, uint8 (n, 2, 3, H, W), are to the encoder of a trained network: (n,) in [0, 1].

    The cosine of the semantic features z of the two, each image coded beside itself, so that nothing of the partner is
    in them, at 10 dB and delta = 1; below 0 it counts as 0. Float64 on the CPU.
    """
    network.eval()
    where = next(network.parameters()).device
    found = []
    for images in pixels.batches(pairs.flatten(0, 1), where):
        twice = images[:, None].expand(-1, USERS, -1, -1, -1)
        link = images.new_full((len(images),), SIMILARITY_DB), images.new_ones(len(images))
        found.append(network.features(twice, *link)[:, 0].double().flatten(1).cpu())
    features = torch.cat(found).unflatten(0, (-1, USERS))
    return functional.cosine_similarity(features[:, 0], features[:, 1], dim=1).clamp(0.0, 1.0)
