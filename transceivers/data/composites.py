"""Labelled pictures from cut-outs pasted onto photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from semcom_gym.transceivers.data.crops import crops
from semcom_gym.transceivers.data.pictures import pillow
from semcom_gym.transceivers.data.sets import Images

TURN = 20.0  # degrees, to either side
SCALE = (0.65, 1.0)  # longer side of the turned cut-out over that of the frame
GAIN = (0.8, 1.2)  # of the whole picture
OPAQUE = 128  # alpha from which a pixel belongs to the cut-out


def composites(
    stamps: Images, backgrounds: Sequence[np.ndarray], side: int, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures, uint8 (count, 3, side, side), of one cut-out each on a random crop of a background, and its class.

    Classes with cut-outs are equally likely, then the cut-outs of the class, each cropped to the bounding box of its
    alpha. It is mirrored half of the time, turned by up to 20 degrees, scaled so that its longer side is 0.65 to 1 of
    the frame, and put anywhere in it; the brightness of the whole is multiplied by 0.8 to 1.2.

    stamps: labelled pictures with an alpha channel. backgrounds: uint8 (3, H, W), see :func:`crops`. generator: the
    only source of chance. Raises ValueError for stamps without labels or alpha and for backgrounds that are too small.
    """
    frames = crops(backgrounds, side, count, generator)
    cut_outs, classes = _cut_outs(stamps, side), np.asarray(stamps.labels)
    present = np.unique(classes)
    labels = present[generator.integers(len(present), size=count)]
    members = {label: np.flatnonzero(classes == label) for label in present}
    chosen = np.array(
        [members[label][int(u * len(members[label]))] for label, u in zip(labels, generator.random(count), strict=True)]
    )
    chance = generator.random((count, 6))
    pictures = np.stack([_paste(frames[i], cut_outs[chosen[i]], chance[i]) for i in range(count)])
    return pictures, labels.astype(np.int64)


def _cut_outs(stamps: Images, side: int) -> list[Any]:
    """The cut-outs as Pillow images, cropped to what is opaque and no larger than is useful."""
    if stamps.labels is None:
        raise ValueError(f"set {stamps.name!r} has no labels, so its cut-outs are of no class")
    pil, found = pillow(), []
    for k, stamp in enumerate(stamps.images):
        if stamp.dtype != np.uint8 or stamp.ndim != 3 or stamp.shape[0] != 4:
            raise ValueError(f"cut-out {k} must be uint8 (4, H, W), got {stamp.dtype} of shape {stamp.shape}")
        y, x = np.nonzero(stamp[3] >= OPAQUE)
        if not len(y):
            raise ValueError(f"cut-out {k} is transparent everywhere")
        box = stamp[:, y.min() : y.max() + 1, x.min() : x.max() + 1]
        image = pil.Image.fromarray(np.ascontiguousarray(box.transpose(1, 2, 0)))
        image.thumbnail((2 * side, 2 * side), pil.Image.Resampling.LANCZOS)
        found.append(image)
    return found


def _paste(frame: np.ndarray, cut_out: Any, chance: np.ndarray) -> np.ndarray:
    """The frame (3, side, side) with the cut-out on it. chance: six numbers, uniform in [0, 1)."""
    pil, side = pillow(), frame.shape[1]
    mirror, turn, scale, x, y, gain = chance.tolist()
    angle = TURN * (2.0 * turn - 1.0)
    if mirror < 0.5:
        cut_out = cut_out.transpose(pil.Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = cut_out.size
    sine, cosine = abs(math.sin(math.radians(angle))), math.cos(math.radians(angle))
    longer = max(width * cosine + height * sine, width * sine + height * cosine)  # of its box once it is turned
    factor = (SCALE[0] + (SCALE[1] - SCALE[0]) * scale) * side / longer
    size = max(1, round(width * factor)), max(1, round(height * factor))
    turned = cut_out.resize(size, pil.Image.Resampling.BILINEAR)
    turned = turned.rotate(angle, pil.Image.Resampling.BICUBIC, expand=True)
    picture = pil.Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0)))
    place = round(x * (side - turned.width)), round(y * (side - turned.height))
    picture.paste(turned, place, turned)
    brightness = GAIN[0] + (GAIN[1] - GAIN[0]) * gain
    return np.minimum(np.asarray(picture).transpose(2, 0, 1) * brightness + 0.5, 255.0).astype(np.uint8)
