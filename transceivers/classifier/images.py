"""Labelled images of the classifier: cut-outs on photographs, or a labelled set of the user."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semcom_gym.envs import validate
from semcom_gym.transceivers import data
from semcom_gym.transceivers.data.pictures import pillow
from semcom_gym.transceivers.train import Batch

STAMPS, PHOTOS = "stamps", "photos"


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """images: (n, 3, side, side), uint8. labels: (n,), int64, indices into ``classes``. sources: of the images."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    sources: dict[str, Any]


def sets(images: str | Path, side: int, seed: int, split: str, seen: bool, count: int) -> Labelled:
    """Up to ``count`` labelled images.

    images: ``stamps`` makes ``count`` composites of cut-outs on photographs of the split; the cut-outs are those of
        the split or, with ``seen``, those that are trained on, so that only the background is new. Any other labelled
        set has its own images, scaled and cropped about the centre, and ``seen`` changes nothing.
    split: ``train``, ``validation`` or ``test``. Raises ValueError for an unknown set or one without classes.
    """
    validate.choice("split", split, data.STREAMS)
    validate.integer("count", count)
    generator = np.random.default_rng([seed, data.STREAMS[split], int(seen)])
    if str(images) == STAMPS:
        stamps, photos = data.load(STAMPS, "train" if seen else split), data.load(PHOTOS, split)
        pictures, labels = data.composites(stamps, photos.images, side, count, generator)
        return _labelled(pictures, labels, stamps, photos)
    found = data.load(images, split, short_side=side)
    if found.labels is None:
        raise ValueError(f"set {found.name!r} has no classes: put its images into one subfolder for each")
    chosen = np.sort(generator.permutation(len(found))[:count])
    pictures = np.stack([_square(found.images[k], side) for k in chosen])
    return _labelled(pictures, found.labels[chosen], found)


def augmented(images: Tensor, labels: Tensor, chosen: Tensor, rng: np.random.Generator) -> Batch:
    """The ``chosen`` images and labels; mirrored half of the time, shifted by up to a 16th of a side each way.

    The border is repeated where a shift uncovers it.
    """
    side, count, where = images.shape[-1], len(chosen), images.device
    shift = rng.integers(-(side // 16), side // 16 + 1, size=(2, count))
    rows, columns = (np.clip(np.arange(side) + s[:, None], 0, side - 1) for s in shift)
    columns = np.where(rng.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    y, x = torch.from_numpy(rows).to(where), torch.from_numpy(columns).to(where)
    channels = torch.arange(images.shape[1], device=where)[:, None, None]
    chosen = chosen.to(where)
    return images[chosen[:, None, None, None], channels, y[:, None, :, None], x[:, None, None, :]], labels[chosen]


def _square(image: np.ndarray, side: int) -> np.ndarray:
    pil = pillow()
    picture = pil.Image.fromarray(image.transpose(1, 2, 0))
    fitted = pil.ImageOps.fit(picture, (side, side), pil.Image.Resampling.LANCZOS)
    return np.asarray(fitted).transpose(2, 0, 1)


def _labelled(pictures: np.ndarray, labels: np.ndarray, *loaded: data.Images) -> Labelled:
    """``loaded``: the sets that the pictures are of, the labelled one first."""
    sources = {item.name: item.origin for item in loaded}
    return Labelled(torch.from_numpy(pictures), torch.from_numpy(labels), loaded[0].classes, sources)
