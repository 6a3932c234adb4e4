"""Picture files to arrays: decoding, shrinking, and the list of the picture files in a folder."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}


def pillow() -> Any:
    """The module ``PIL.Image``. Raises ModuleNotFoundError in one line if it is missing."""
    try:
        import PIL.Image
        import PIL.ImageOps
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading pictures needs pillow: pip install 'semcom-gym[transceivers]'") from None
    return PIL


def decode(path: Path, short_side: int | None = None, *, alpha: bool = False) -> np.ndarray:
    """The picture in a file, turned as its EXIF tag says: uint8 (3, H, W), or (4, H, W) with ``alpha``.

    short_side: shrink a larger picture so that its shorter side is this many pixels. Raises ValueError if the file
    cannot be read as a picture of 8 bits a channel.
    """
    pil = pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pil.Image.DecompressionBombWarning)  # 90 to 180 megapixels are a picture
            with pil.Image.open(path) as file:
                mode = file.mode
                if short_side:
                    _draft(file, short_side)
                picture = pil.ImageOps.exif_transpose(file)
                picture = picture.convert("RGBA" if alpha else "RGB")
    except Exception as error:  # a broken file makes Pillow raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read {str(path)!r} as a picture: {type(error).__name__}: {reason}") from None
    if mode[0] in "IF":
        raise ValueError(f"{str(path)!r} has more than 8 bits a channel (mode {mode}); convert it to 8 bits first")
    array = np.asarray(picture).transpose(2, 0, 1)
    return shrink(array, short_side) if short_side else np.ascontiguousarray(array)


def shrink(picture: np.ndarray, short_side: int) -> np.ndarray:
    """The picture with its shorter side at ``short_side`` pixels (Lanczos); as it is if it is no larger.

    picture: uint8 (C, H, W) with 3 or 4 channels.
    """
    height, width = picture.shape[1:]
    short = min(height, width)
    if short <= short_side:
        return np.ascontiguousarray(picture)
    pil = pillow()
    size = (round(width * short_side / short), round(height * short_side / short))
    resized = pil.Image.fromarray(picture.transpose(1, 2, 0)).resize(size, pil.Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def listed(folder: Path) -> list[Path]:
    """Paths of the picture files in ``folder`` and below, relative to it, sorted; hidden ones are left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted((p for p in found if not any(part.startswith(".") for part in p.parts)), key=Path.as_posix)


def _draft(file: Any, short_side: int) -> None:
    """Let a JPEG decode at a fraction of its size that is still twice what is asked for: several times faster."""
    if file.format == "JPEG":
        scale = 2 * short_side / min(file.size)
        file.draft(None, (int(file.size[0] * scale) + 1, int(file.size[1] * scale) + 1))
