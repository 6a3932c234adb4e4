"""Where data sets lie on this machine, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from semcom_gym.transceivers.data import formats
from semcom_gym.transceivers.data.catalogue import SETS, DataSet, Package

MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """The folder of the data sets: $SEMCOM_GYM_DATA, or ~/.cache/semcom-gym."""
    return Path(os.environ.get("SEMCOM_GYM_DATA") or "~/.cache/semcom-gym").expanduser()


def package_folder(item: DataSet, package: Package) -> Path:
    """Where the pictures of a package lie."""
    return cache_folder() / item.name / package.name


def manifest(item: DataSet, package: Package) -> dict[str, Any]:
    """What was fetched of a package: package, version, sha256 of the package file, licence, files {path: sha256}.

    Raises ValueError in one line if it is not there or a file of it has changed since.
    """
    folder = package_folder(item, package)
    again = f"run: semcom-gym data fetch {item.name}"
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        files = dict(found["files"])
    except OSError:
        raise ValueError(f"data set {item.name!r} is not in {str(cache_folder())!r}; {again}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{str(folder / MANIFEST)!r} is damaged; {again}") from None
    for path, expected in files.items():
        if digest(folder / path) != expected:
            raise ValueError(f"{str(folder / path)!r} is missing or damaged; {again}")
    return found


def digest(path: Path) -> str | None:
    """SHA-256 of a file in hex; None if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def table() -> list[dict[str, Any]]:
    """Every known data set: name, what, licence, there, state, pictures and bytes (or None), folder, packages."""
    return [_row(item) for item in SETS.values()]


def describe(rows: list[dict[str, Any]]) -> str:
    """The table as text."""
    lines = [f"data sets in {cache_folder()} (change it with $SEMCOM_GYM_DATA):"]
    for row in rows:
        size = f", {row['pictures']} pictures, {row['bytes'] / 1e6:.1f} MB" if row["pictures"] else ""
        lines.append(f"  {row['name']:<8} {row['what']}; licence: {row['licence']}")
        lines.append(f"  {'':<8} {row['state']}{size}")
        lines += [f"  {'':<8} {p['package']} {p['version']}, sha256 {p['sha256'][:16]}" for p in row["packages"]]
    lines.append("Any folder of pictures works too: give its path instead of a name.")
    return "\n".join(lines)


def _row(item: DataSet) -> dict[str, Any]:
    row = {"name": item.name, "what": item.what, "licence": item.licence, "pictures": None, "bytes": None}
    if not item.packages:
        folder = cache_folder() / item.folder
        there = formats.detect(folder) == item.name
        state = f"there: {folder}" if there else f"not there; unpack a copy of yours to {folder}"
        return {**row, "there": there, "state": state, "folder": str(folder), "packages": []}
    folder = cache_folder() / item.name
    try:
        found = [manifest(item, package) for package in item.packages]
    except ValueError as error:
        return {**row, "there": False, "state": str(error), "folder": str(folder), "packages": []}
    paths = [package_folder(item, p) / path for p, m in zip(item.packages, found, strict=True) for path in m["files"]]
    packages = [{key: m[key] for key in ("package", "version", "sha256")} for m in found]
    size = {"pictures": len(paths), "bytes": sum(path.stat().st_size for path in paths)}
    return {**row, **size, "there": True, "state": f"there: {folder}", "folder": str(folder), "packages": packages}
