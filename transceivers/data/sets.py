"""Loading a data set: by name from the cache, or from any folder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym.envs import validate
from semcom_gym.transceivers.data import cache, formats, pictures
from semcom_gym.transceivers.data.catalogue import CLASSES, SETS, DataSet, stamp_class

SPLITS = ("train", "validation", "test", "all")
STREAMS = {name: k for k, name in enumerate(SPLITS[:3])}
"""Stream of random numbers of each split, so that no two splits are drawn alike."""
SHORT_SIDE = 512
# what of ten pictures goes where, in the order of the hash of their names
DEALT = ("test", "validation", "train", "train", "train", "test", "train", "train", "train", "train")


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Pictures of one split.

    images: uint8 (n, 3, H, W), or a list of uint8 (3, H, W) where sizes differ; the set `stamps` has a fourth
        channel, alpha
    labels: int64 (n,), an index into ``classes``, or None
    sha256: of the pixels and labels, so of what a network saw
    source: package and version, or the folder's name
    """

    name: str
    split: str
    images: np.ndarray | list[np.ndarray]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    sha256: str
    licence: str
    source: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def origin(self) -> dict[str, Any]:
        """Number of pictures, hash, licence and source, for the provenance of a result."""
        return {"images": len(self), "sha256": self.sha256, "licence": self.licence, "source": self.source}


def load(name_or_path: str | Path, split: str = "train", *, short_side: int | None = SHORT_SIDE) -> Images:
    """The pictures of a data set.

    name_or_path: a name of ``semcom-gym data list``, or a folder: an unpacked CIFAR-10, STL-10, CUB-200-2011 or
        Kodak, told by its files, or any pictures in it and its subfolders. If they all lie in two or more
        subfolders, the subfolders are the classes.
    split: "train", "validation", "test" or "all". The authors' test part where there is one; pictures without such
        a part are dealt whole, 7 : 1 : 2, by the hash of their names.
    short_side: shrink larger pictures to this many pixels on their shorter side; None keeps their size.

    Raises ValueError in one line if the set is unknown, missing, incomplete or corrupt, ModuleNotFoundError if
    pillow is missing.
    """
    validate.choice("split", split, SPLITS)
    if short_side is not None:
        validate.integer("short_side", short_side)
    item = SETS.get(str(name_or_path))
    if item is not None and item.packages:
        return _fetched(item, split, short_side)
    if item is not None:
        folder = cache.cache_folder() / item.folder
        if formats.detect(folder) != item.name:
            raise ValueError(f"data set {item.name!r} is not there; unpack a copy of yours to {str(folder)!r}")
        return _archive(item.name, folder, split, short_side)
    folder = Path(name_or_path)
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"{str(folder)!r} is no folder; give the folder that the pictures are in")
        validate.choice("data set (and no folder)", str(name_or_path), SETS)
    kind = formats.detect(folder)
    return _archive(kind, folder, split, short_side) if kind else _folder(folder, split, short_side)


def identity(sources: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of :attr:`Images.origin` by name, what decides a result: all but where the pictures were found."""
    return {name: {key: value for key, value in item.items() if key != "source"} for name, item in sources.items()}


def _fetched(item: DataSet, split: str, short_side: int | None) -> Images:
    found = [(cache.package_folder(item, package), cache.manifest(item, package)) for package in item.packages]
    files = {f"{m['package']}/{path}": folder / path for folder, m in found for path in m["files"]}
    stamped = item.name == "stamps"
    kinds = {key: (stamp_class(key.partition("/")[2]) if stamped else None) for key in files}
    if item.test_only and split not in ("test", "all"):
        raise ValueError(
            f"{item.name} is a test set of {len(files)} pictures; split must be 'test' or 'all', got {split!r}"
        )
    keys = list(files) if item.test_only else deal(list(files), split, [kinds[key] for key in files])
    images = [pictures.decode(files[key], short_side, alpha=stamped) for key in keys]
    classes = tuple(CLASSES) if stamped else ()
    labels = np.array([classes.index(kinds[key]) for key in keys], np.int64) if stamped else None
    source = ", ".join(f"{m['package']} {m['version']}" for _, m in found)
    return _images(item.name, split, images, labels, classes, item.licence, source)


def _archive(kind: str, folder: Path, split: str, short_side: int | None) -> Images:
    images, labels, classes = formats.READERS[kind](folder, split, short_side)
    return _images(kind, split, images, labels, classes, SETS[kind].licence, folder.resolve().name)


def _folder(folder: Path, split: str, short_side: int | None) -> Images:
    paths = pictures.listed(folder)
    if not paths:
        raise ValueError(f"no pictures in {str(folder)!r} ({', '.join(sorted(pictures.SUFFIXES))})")
    classes = tuple(sorted({path.parts[0] for path in paths if len(path.parts) > 1}))
    labelled = len(classes) > 1 and all(len(path.parts) > 1 for path in paths)
    kinds = [path.parts[0] if labelled else None for path in paths]
    kind_of = dict(zip((path.as_posix() for path in paths), kinds, strict=True))
    keys = deal(list(kind_of), split, kinds)
    images = [pictures.decode(folder / key, short_side) for key in keys]
    labels = np.array([classes.index(str(kind_of[key])) for key in keys], np.int64) if labelled else None
    name = folder.resolve().name
    return _images(name, split, images, labels, classes if labelled else (), _licence(folder), name)


def deal(keys: Sequence[str], split: str, kinds: Sequence[str | None]) -> list[str]:
    """The keys of a split, in the given order: within each kind, whole pictures 7 : 1 : 2 by the hash of the key.

    Raises ValueError if the split gets none.
    """
    if split == "all":
        return list(keys)
    order = sorted(range(len(keys)), key=lambda k: hashlib.sha256(keys[k].encode(errors="surrogateescape")).hexdigest())
    met: dict[str | None, int] = {}
    chosen = set()
    for k in order:
        rank = met.get(kinds[k], 0)
        met[kinds[k]] = rank + 1
        if DEALT[rank % len(DEALT)] == split:
            chosen.add(k)
    if not chosen:
        raise ValueError(f"{len(keys)} pictures are too few for a {split} split; add some or use split='all'")
    return [key for k, key in enumerate(keys) if k in chosen]


def _images(
    name: str,
    split: str,
    images: Any,
    labels: np.ndarray | None,
    classes: tuple[str, ...],
    licence: str,
    source: str,
) -> Images:
    if len(images) == 0:
        raise ValueError(f"data set {name!r} has no pictures in its {split} split")
    if isinstance(images, list) and len({image.shape for image in images}) == 1:
        images = np.stack(images)
    return Images(name, split, images, labels, classes, _sha256(images, labels), licence, source)


def _sha256(images: Any, labels: np.ndarray | None) -> str:
    total = hashlib.sha256()
    for image in images:
        total.update(repr(image.shape).encode())
        total.update(image.tobytes())
    if labels is not None:
        total.update(labels.astype("<i8").tobytes())
    return total.hexdigest()


def _licence(folder: Path) -> str:
    """The first line of a licence file beside the pictures."""
    for path in sorted(folder.glob("LICEN[CS]E*")):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return lines[0].strip("# ").strip()
    return "not stated"
