"""Fetching: tiny packages built by the test, a stand-in for apt-get, the real dpkg-deb."""

from __future__ import annotations

import fcntl
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from semcom_gym.transceivers import data
from semcom_gym.transceivers.data.catalogue import SETS, stamp_class

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is Debian's")
STAMPS = "usr/share/tuxpaint/stamps"
CUT_OUTS = ("animals/birds/crow.png", "animals/birds/owl.png", "vehicles/auto/beetle.png", "vehicles/auto/truck.png")
LEFT_OUT = (
    "animals/birds/cartoon/tux.png",
    "animals/mammals/hedgehog.png",
    "town/house.png",
    "vehicles/van_mirror.png",
)
APT = """#!/bin/sh
# the last word is the package, or "update"
for word; do last=$word; done
echo "$@" >> {shop}/calls
if [ "$last" = update ]; then echo "$@" > {shop}/updated; exit 0; fi
if [ -e {shop}/no_lists ] && [ ! -e {shop}/updated ]; then echo "E: Unable to locate package $last" >&2; exit 100; fi
if [ -e {shop}/cut_$last ]; then echo "E: Failed to fetch $last" >&2; exit 100; fi
cp {shop}/$last.deb .
"""


def encoded(seed: int, kind: str) -> bytes:
    channels = 4 if kind == "png" else 3
    picture = np.random.default_rng(seed).integers(256, size=(12, 16, channels), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG" if kind == "png" else "JPEG")
    return buffer.getvalue()


def build(shop: Path, name: str, paths: tuple[str, ...], version: str = "1:2.3-4") -> None:
    """A package with these pictures, a program and a copyright file."""
    tree = shop / "trees" / name
    for k, path in enumerate(paths):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(encoded(k, path.rpartition(".")[2]))
    for path in (f"usr/share/doc/{name}/copyright", "usr/bin/program"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)
    (tree / "DEBIAN").mkdir(exist_ok=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: pictures\n"
    (tree / "DEBIAN" / "control").write_text(control)
    target = shop / f"{name}.deb"
    subprocess.run(["dpkg-deb", "-Znone", "-b", str(tree), str(target)], check=True, capture_output=True)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packages of all data sets, and apt-get in front of the PATH to serve them."""
    shop = tmp_path / "shop"
    shop.mkdir()
    for package in SETS["photos"].packages:
        build(shop, package.name, (*package.files, f"{Path(package.files[0]).parent}/drawing.jpg"))
    build(shop, "tuxpaint-stamps-default", tuple(f"{STAMPS}/{path}" for path in CUT_OUTS + LEFT_OUT))
    samples = SETS["samples"].packages[0]
    build(shop, samples.name, (*samples.files, f"{Path(samples.files[-1]).parent}/drawing.jpg"))
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text(APT.format(shop=shop))
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("SEMCOM_GYM_DATA", str(tmp_path / "cache"))
    return shop


def downloaded(shop: Path) -> list[str]:
    calls = (shop / "calls").read_text().splitlines()
    return [call.split()[-1] for call in calls if "download" in call]


def test_fetch_keeps_the_photographs_only_and_says_where_from(shop: Path) -> None:
    told: list[str] = []
    rows = data.fetch(report=told.append)
    counts = [("photos", True, 37), ("stamps", True, 4), ("samples", True, 20)]
    assert [(row["name"], row["there"], row["pictures"]) for row in rows] == counts
    assert told[:2] == ["lomiri-wallpapers-16.04: downloading", "lomiri-wallpapers-16.04: unpacking 0 MB"]
    cache = data.cache_folder()
    assert not [path for path in cache.rglob("*") if path.name in ("drawing.jpg", "program", "tux.png", "house.png")]
    assert not [path for path in cache.rglob("*") if path.suffix == ".deb"]
    for package in (package for name in data.FETCHED for package in SETS[name].packages):
        folder = next(cache.glob(f"*/{package.name}"))
        found = json.loads((folder / "manifest.json").read_text())
        hashed = subprocess.run(["sha256sum", shop / f"{package.name}.deb"], capture_output=True, text=True, check=True)
        assert found["sha256"] == hashed.stdout.split()[0]
        assert (found["package"], found["version"], found["licence"]) == (package.name, "1:2.3-4", package.licence)
        assert (folder / "copyright").read_text() == f"usr/share/doc/{package.name}/copyright"


def test_fetched_sets_load(shop: Path) -> None:
    data.fetch()
    photos = {split: data.load("photos", split) for split in data.SPLITS}
    assert [len(photos[split]) for split in data.SPLITS] == [25, 4, 8, 37]
    assert photos["test"].images.shape == (8, 3, 12, 16)
    assert photos["test"].source.startswith("lomiri-wallpapers-16.04 1:2.3-4, mate-backgrounds 1:2.3-4, plasma")
    assert "CC-BY-SA-4.0" in photos["test"].licence
    stamps = data.load("stamps", "all")
    assert stamps.images.shape == (4, 4, 12, 16)  # with alpha
    assert [stamps.classes[k] for k in stamps.labels] == ["bird", "bird", "vehicle", "vehicle"]
    expected = np.asarray(Image.open(shop / "trees" / "tuxpaint-stamps-default" / STAMPS / CUT_OUTS[1]))
    np.testing.assert_array_equal(stamps.images[1], expected.transpose(2, 0, 1))
    text = data.describe(data.table())
    assert "37 pictures" in text
    assert "tuxpaint-stamps-default 1:2.3-4" in text
    assert "unpack a copy of yours to" in text


def test_a_test_set_has_no_other_split(shop: Path) -> None:
    data.fetch(["samples"])
    whole, test = data.load("samples", "all"), data.load("samples", "test")
    assert len(test) == 20
    assert test.sha256 == whole.sha256
    assert (test.licence, test.source) == ("mixed, see the package", "opencv-doc 1:2.3-4")
    for split in ("train", "validation"):
        with pytest.raises(ValueError, match=f"samples is a test set of 20 pictures; split must be .*, got '{split}'"):
            data.load("samples", split)


def test_an_interrupted_fetch_goes_on(shop: Path) -> None:
    cut = shop / "cut_mate-backgrounds"
    cut.touch()
    with pytest.raises(ValueError, match=r"apt-get download mate-backgrounds failed: E: Failed to fetch"):
        data.fetch(["photos"])
    assert [path.name for path in (data.cache_folder() / "photos").glob("[!.]*")] == ["lomiri-wallpapers-16.04"]
    with pytest.raises(ValueError, match=r"'photos' is not in .*; run: semcom-gym data fetch photos"):
        data.load("photos")
    cut.unlink()
    left = data.cache_folder() / "photos" / ".mate-backgrounds"
    (left / "old.deb").write_bytes(b"half a download")
    data.fetch(["photos"])
    data.fetch(["photos"])
    names = [package.name for package in SETS["photos"].packages]
    assert downloaded(shop) == [names[0], names[1], names[1], names[1], names[2]]  # the second with both kinds of lists
    assert not list((data.cache_folder() / "photos").glob(".*"))


def test_a_damaged_picture_is_noticed_and_fetched_again(shop: Path) -> None:
    data.fetch(["stamps"])
    picture = next(data.cache_folder().rglob("crow.png"))
    whole = picture.read_bytes()
    for damage in (lambda: picture.write_bytes(whole[:-1]), picture.unlink):
        damage()
        with pytest.raises(ValueError, match=r"crow.png' is missing or damaged; run: semcom-gym data fetch stamps"):
            data.load("stamps", "all")
        assert [row["there"] for row in data.table()][:2] == [False, False]
        data.fetch(["stamps"])
        assert picture.read_bytes() == whole
    manifest = picture.parents[6] / "manifest.json"
    manifest.write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json' is damaged; run: semcom-gym data fetch stamps"):
        data.load("stamps", "all")


def test_without_lists_of_packages_apt_reads_its_own(shop: Path) -> None:
    (shop / "no_lists").touch()
    data.fetch(["stamps"])
    words = (shop / "updated").read_text().split()
    private = [word for word in words if word.startswith(("Dir::State::lists=", "Dir::Cache="))]
    assert len(private) == 2
    assert all(str(data.cache_folder()) in word for word in private)
    assert len(data.load("stamps", "all")) == 4


def test_a_package_without_the_pictures_is_refused(shop: Path) -> None:
    shutil.rmtree(shop / "trees" / "tuxpaint-stamps-default" / "usr" / "share" / "tuxpaint")
    build(shop, "tuxpaint-stamps-default", (), version="9")
    with pytest.raises(ValueError, match="tuxpaint-stamps-default 9 lacks the pictures: all"):
        data.fetch(["stamps"])
    (shop / "trees" / "mate-backgrounds" / "usr/share/backgrounds/mate/nature/Dune.jpg").unlink()
    build(shop, "mate-backgrounds", ())
    with pytest.raises(ValueError, match=r"mate-backgrounds 1:2.3-4 lacks the pictures: usr/.*/Dune.jpg$"):
        data.fetch(["photos"])
    build(shop, "tuxpaint-stamps-default", tuple(f"{STAMPS}/{path}" for path in CUT_OUTS))
    whole = (shop / "tuxpaint-stamps-default.deb").read_bytes()
    (shop / "tuxpaint-stamps-default.deb").write_bytes(whole[:-3000])
    with pytest.raises(ValueError, match=r"cannot unpack tuxpaint-stamps-default.deb: "):
        data.fetch(["stamps"])
    (shop / "tuxpaint-stamps-default.deb").write_bytes(b"no package")
    with pytest.raises(ValueError, match=r"dpkg-deb -f tuxpaint-stamps-default.deb failed"):
        data.fetch(["stamps"])


def test_mistakes(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"unknown data set 'stamp'; valid: photos, stamps, samples; did you mean 'stamps'"
    ):
        data.fetch(["stamp"])
    with pytest.raises(ValueError, match=r"'cifar10' is in no Debian package; unpack a copy of yours to"):
        data.fetch(["cifar10"])
    data.cache_folder().mkdir()
    with (data.cache_folder() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"another fetch is at work in"):
            data.fetch(["stamps"])
    monkeypatch.setenv("SEMCOM_GYM_DATA", str(shop / "calls" / "x"))
    (shop / "calls").touch()
    with pytest.raises(ValueError, match=r"cannot write the cache '.*calls/x'"):
        data.fetch(["stamps"])
    monkeypatch.setenv("PATH", str(shop))
    with pytest.raises(ValueError, match=r"fetching needs apt-get \(Debian, Ubuntu\)"):
        data.fetch(["stamps"])


def test_classes_of_cut_outs() -> None:
    assert [stamp_class(f"{STAMPS}/{path}") for path in CUT_OUTS] == ["bird", "bird", "vehicle", "vehicle"]
    assert [stamp_class(f"{STAMPS}/{path}") for path in LEFT_OUT] == [None] * 4
    assert stamp_class("usr/share/doc/crow.png") is None
    assert stamp_class(f"{STAMPS}/animals/birds/crow.ogg") is None
