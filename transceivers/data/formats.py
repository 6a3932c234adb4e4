"""The archives of CIFAR-10, STL-10, CUB-200-2011 and Kodak, as their authors ship them, once unpacked.

Each reader takes the folder and the split and returns (pictures, labels, classes). The authors' training part is
divided: every tenth picture is for validation.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym.transceivers.data import pictures

Read = tuple[Any, "np.ndarray | None", tuple[str, ...]]
STL10_SIDE = 96


def cifar10(folder: Path, split: str, short_side: int | None) -> Read:
    """``cifar-10-batches-py``: uint8 (n, 3, 32, 32)."""
    names = ["test_batch"] if split == "test" else [f"data_batch_{k}" for k in range(1, 6)]
    names += ["test_batch"] if split == "all" else []
    meta = unpickle(folder / "batches.meta")
    classes = tuple(_text(name) for name in _entry(meta, "label_names", folder / "batches.meta"))
    batches = [_cifar_batch(folder / name, len(classes)) for name in names]
    images = np.concatenate([images for images, _ in batches]).reshape(-1, 3, 32, 32)
    keep = _kept(len(images), split)
    return _shrunk(images[keep], short_side), np.concatenate([labels for _, labels in batches])[keep], classes


def stl10(folder: Path, split: str, short_side: int | None) -> Read:
    """``stl10_binary``, its labelled parts: uint8 (n, 3, 96, 96)."""
    parts = {"test": ["test"], "all": ["train", "test"]}.get(split, ["train"])
    classes = tuple(_bytes(folder / "class_names.txt").decode(errors="replace").split())
    read = [_stl_part(folder, part, len(classes)) for part in parts]
    images = np.concatenate([images for images, _ in read])
    keep = _kept(len(images), split)
    return _shrunk(images[keep], short_side), np.concatenate([labels for _, labels in read])[keep], classes


def cub200(folder: Path, split: str, short_side: int | None) -> Read:
    """``CUB_200_2011``: pictures of many sizes."""
    paths, labels, parts = (
        _table(folder / name) for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt")
    )
    classes = _table(folder / "classes.txt")
    for name, table in (("image_class_labels.txt", labels), ("train_test_split.txt", parts)):
        if table.keys() != paths.keys():
            raise ValueError(f"{str(folder / name)!r} does not list the same pictures as images.txt")
    order = {key: k for k, key in enumerate(classes)}
    for key, label in labels.items():
        if label not in order:
            raise ValueError(f"image_class_labels.txt in {str(folder)!r}: picture {key} has no known class: {label!r}")
    wanted = {"all": ("0", "1"), "test": ("0",)}.get(split, ("1",))
    keys = [key for key in paths if parts[key] in wanted]
    keys = [keys[k] for k in _kept(len(keys), split)]
    images = [pictures.decode(_inside(folder / "images", paths[key]), short_side) for key in keys]
    return images, np.array([order[labels[key]] for key in keys], np.int64), tuple(classes.values())


def kodak(folder: Path, split: str, short_side: int | None) -> Read:
    """``kodim01.png`` to ``kodim24.png``: a test set only."""
    if split not in ("test", "all"):
        raise ValueError(f"kodak is a test set of 24 pictures; split must be 'test' or 'all', got {split!r}")
    paths = [folder / f"kodim{k:02d}.png" for k in range(1, 25)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"kodak in {str(folder)!r} is not complete; missing: {', '.join(missing)}")
    images = [pictures.decode(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if sorted(image.shape[1:]) != [512, 768]:
            raise ValueError(f"{str(path)!r} must be 768x512 or 512x768, got {image.shape[2]}x{image.shape[1]}")
    return [pictures.shrink(image, short_side) if short_side else image for image in images], None, ()


READERS = {"cifar10": cifar10, "stl10": stl10, "cub200": cub200, "kodak": kodak}
MARKS = {"cifar10": "batches.meta", "stl10": "train_X.bin", "cub200": "train_test_split.txt", "kodak": "kodim01.png"}


def detect(folder: Path) -> str | None:
    """The name of the reader for a folder, by a file that only this format has; None for plain pictures."""
    return next((name for name, mark in MARKS.items() if (folder / mark).is_file()), None)


class _Safe(pickle.Unpickler):
    """Unpickles containers, numbers, text and NumPy arrays; nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.zeros(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in a pickle of protocol 2
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no picture archive needs")


def unpickle(path: Path) -> dict[Any, Any]:
    """The dictionary in a pickle file of CIFAR-10. Raises ValueError if it is no such file or asks for other code."""
    try:
        with path.open("rb") as file:
            found = _Safe(file, encoding="bytes").load()
    except FileNotFoundError:
        raise ValueError(f"no such file: {str(path)!r}") from None
    except Exception as error:  # a corrupt pickle raises nearly anything
        raise ValueError(f"cannot read {str(path)!r}: {type(error).__name__}: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{str(path)!r} is not a file of CIFAR-10: it holds a {type(found).__name__}")
    return found


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


def _cifar_batch(path: Path, classes: int) -> tuple[np.ndarray, np.ndarray]:
    batch = unpickle(path)
    data, labels = _entry(batch, "data", path), np.asarray(_entry(batch, "labels", path))
    if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim == 2 and data.shape[1] == 3072):
        raise ValueError(f"{str(path)!r}: data must be uint8 of shape (n, 3072), got {_kind(data)}")
    return data, _labels(labels, len(data), classes, path)


def _stl_part(folder: Path, part: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    path, size = folder / f"{part}_X.bin", 3 * STL10_SIDE**2
    data = np.frombuffer(_bytes(path), np.uint8)
    if len(data) == 0 or len(data) % size:
        raise ValueError(f"{str(path)!r} must hold pictures of {size} bytes each, got {len(data)} bytes")
    images = data.reshape(-1, 3, STL10_SIDE, STL10_SIDE).transpose(0, 1, 3, 2)  # the file runs down the columns
    labels = np.frombuffer(_bytes(folder / f"{part}_y.bin"), np.uint8).astype(np.int64) - 1  # 1 to 10 in the file
    return np.ascontiguousarray(images), _labels(labels, len(images), classes, folder / f"{part}_y.bin")


def _labels(labels: np.ndarray, n: int, classes: int, path: Path) -> np.ndarray:
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(f"{str(path)!r}: needs {n} whole-number labels, got {_kind(labels)}")
    if n and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"{str(path)!r} has the label of an unknown class; there are {classes}")
    whole: np.ndarray = labels.astype(np.int64)
    return whole


def _kept(n: int, split: str) -> np.ndarray:
    """Which of the n pictures of the authors' part belong to the split."""
    tenth = np.arange(n) % 10 == 9
    wanted = {"train": ~tenth, "validation": tenth}.get(split, np.full(n, True))
    return np.flatnonzero(wanted)


def _table(path: Path) -> dict[str, str]:
    """Lines ``key value`` of a text file."""
    rows = {}
    for number, line in enumerate(_bytes(path).decode(errors="replace").splitlines(), 1):
        key, _, value = line.strip().partition(" ")
        if key and not value:
            raise ValueError(f"{str(path)!r}, line {number}: needs a number and a value, got {line!r}")
        if key:
            rows[key] = value.strip()
    return rows


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"images.txt names a file outside {str(folder)!r}: {name!r}")
    return path


def _shrunk(images: np.ndarray, short_side: int | None) -> np.ndarray:
    if not short_side or short_side >= images.shape[-1]:
        return images
    return np.stack([pictures.shrink(image, short_side) for image in images]) if len(images) else images


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}") from None


def _entry(found: dict[Any, Any], name: str, path: Path) -> Any:
    for key in (name.encode(), name):
        if key in found:
            return found[key]
    raise ValueError(f"{str(path)!r} is not a file of CIFAR-10: it has no {name!r}")


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__
