"""Pictures: every format written by the test itself, splits, hashes, crops, and what is said of a broken file."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcom_gym.transceivers import data
from semcom_gym.transceivers.data import formats, pictures, sets

Image = pytest.importorskip("PIL.Image")
FIXTURE = Path(__file__).parent / "fixtures" / "images"
CLASSES = [f"class{k}" for k in range(10)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEMCOM_GYM_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def noise(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(channels, height, width), dtype=np.uint8)


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.transpose(1, 2, 0)).save(path)


# --- archives --------------------------------------------------------------------------------------------------------
def python2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled it, opcode by opcode: {"data": uint8 (n, 3072), "labels": [...]}."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    shape = b"K" + bytes([len(pixels)]) + b"M\x00\x0c\x86"
    state = b"(K\x01" + shape + dtype + b"\x89T" + pixels.size.to_bytes(4, "little") + pixels.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}U\x04data" + array + state + b"sU\x06labels" + numbers + b"s."


def write_cifar10(folder: Path) -> np.ndarray:
    """Five training batches of 4 pictures and a test batch."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(6, 4, 3072), dtype=np.uint8)
    for k, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        (folder / name).write_bytes(python2_batch(pixels[k], [k, 0, 9, k]))
    meta = {b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return pixels


def write_stl10(folder: Path) -> np.ndarray:
    """20 training and 3 test pictures; the file runs down the columns."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(1).integers(256, size=(23, 3, 96, 96), dtype=np.uint8)
    for part, chosen in (("train", images[:20]), ("test", images[20:])):
        columns = bytes(chosen.transpose(0, 1, 3, 2).ravel())
        (folder / f"{part}_X.bin").write_bytes(columns)
        (folder / f"{part}_y.bin").write_bytes(bytes([k % 10 + 1 for k in range(len(chosen))]))
    (folder / "class_names.txt").write_text("\n".join(CLASSES) + "\n")
    return images


def write_cub200(folder: Path) -> dict[int, np.ndarray]:
    """12 pictures of two classes and many sizes, the last two for tests."""
    images = {k: noise(k, 20 + k, 30) for k in range(1, 13)}
    names = {k: f"{1 + k % 2:03d}.Bird/Bird_{k}.png" for k in images}
    for k, image in images.items():
        save(folder / "images" / names[k], image)
    lines = {
        "images.txt": [f"{k} {names[k]}" for k in images],
        "image_class_labels.txt": [f"{k} {1 + k % 2}" for k in images],
        "train_test_split.txt": [f"{k} {int(k <= 10)}" for k in images],
        "classes.txt": ["1 001.Tern", "2 002.Wren"],
    }
    for name, rows in lines.items():
        (folder / name).write_text("\n".join(rows) + "\n")
    return images


def write_kodak(folder: Path) -> None:
    for k in range(1, 25):
        size = (512, 768) if k % 3 else (768, 512)
        save(folder / f"kodim{k:02d}.png", np.full((3, *size), k, np.uint8))


def test_cifar10(cache: Path) -> None:
    pixels = write_cifar10(cache / "cifar-10-batches-py")
    train, held_out, test = (data.load("cifar10", split) for split in ("train", "validation", "test"))
    assert (len(train), len(held_out), len(test), len(data.load("cifar10", "all"))) == (18, 2, 4, 24)
    assert test.images.shape == (4, 3, 32, 32)
    assert test.images[2, 1, 5, 7] == pixels[5, 2, 1024 + 5 * 32 + 7]  # red, green, blue planes, row by row
    np.testing.assert_array_equal(held_out.images[1], pixels[4, 3].reshape(3, 32, 32))  # the 20th of 20
    assert test.labels.tolist() == [5, 0, 9, 5]
    assert test.classes == tuple(CLASSES)


def test_stl10(cache: Path) -> None:
    images = write_stl10(cache / "stl10_binary")
    test, held_out = data.load("stl10", "test"), data.load("stl10", "validation")
    np.testing.assert_array_equal(test.images, images[20:])
    np.testing.assert_array_equal(held_out.images, images[[9, 19]])
    assert test.labels.tolist() == [0, 1, 2]
    assert held_out.labels.tolist() == [9, 9]
    assert data.load("stl10", "test", short_side=24).images.shape == (3, 3, 24, 24)


def test_cub200(cache: Path) -> None:
    images = write_cub200(cache / "CUB_200_2011")
    test, train = data.load("cub200", "test"), data.load("cub200", "train")
    for found, k in zip(test.images, (11, 12), strict=True):
        np.testing.assert_array_equal(found, images[k])
    assert test.labels.tolist() == [1, 0]
    assert test.classes == ("001.Tern", "002.Wren")
    assert (len(train), len(data.load("cub200", "validation"))) == (9, 1)


def test_kodak(cache: Path) -> None:
    write_kodak(cache / "kodak")
    kodak = data.load("kodak", "test", short_side=None)
    assert [image.shape for image in kodak.images[:3]] == [(3, 512, 768), (3, 512, 768), (3, 768, 512)]
    assert [image[0, 0, 0] for image in kodak.images] == list(range(1, 25))
    with pytest.raises(ValueError, match=r"kodak is a test set .* got 'train'"):
        data.load("kodak", "train")
    (cache / "kodak" / "kodim07.png").unlink()
    with pytest.raises(ValueError, match=r"not complete; missing: kodim07\.png"):
        data.load("kodak", "test")


@pytest.mark.parametrize("name", ["cifar10", "stl10", "cub200", "kodak"])
def test_an_archive_is_told_by_its_files(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    {"cifar10": write_cifar10, "stl10": write_stl10, "cub200": write_cub200, "kodak": write_kodak}[name](folder)
    assert formats.detect(folder) == name
    found = data.load(folder, "test")
    assert (found.name, found.source) == (name, "elsewhere")


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'sprung'}",)

    write_cifar10(tmp_path / "c")
    for protocol in (0, 2, 5):
        (tmp_path / "c" / "test_batch").write_bytes(pickle.dumps({b"data": Trap()}, protocol=protocol))
        with pytest.raises(ValueError, match=r"test_batch.*asks for posix.system"):
            data.load(tmp_path / "c", "test")
    assert not (tmp_path / "sprung").exists()


# --- broken archives -------------------------------------------------------------------------------------------------
def _batch(**entries: object) -> bytes:
    return pickle.dumps({name.encode(): value for name, value in entries.items()}, protocol=2)


BROKEN = {
    "no batch": (write_cifar10, "test_batch", None, r"no such file: .*test_batch"),
    "cut pickle": (write_cifar10, "test_batch", b"\x80\x02}", r"cannot read .*test_batch"),
    "no pickle": (write_cifar10, "batches.meta", b"hello", r"cannot read .*batches.meta"),
    "another pickle": (write_cifar10, "test_batch", pickle.dumps([1]), r"test_batch' is not a file of CIFAR-10.* list"),
    "no data": (write_cifar10, "test_batch", _batch(labels=[0]), r"it has no 'data'"),
    "wrong size": (write_cifar10, "test_batch", _batch(data=np.zeros((2, 3000), np.uint8), labels=[0, 1]),
                   r"must be uint8 of shape \(n, 3072\), got uint8 of shape \(2, 3000\)"),
    "few labels": (write_cifar10, "test_batch", _batch(data=np.zeros((2, 3072), np.uint8), labels=[0]),
                   r"needs 2 whole-number labels"),
    "class 10": (write_cifar10, "test_batch", _batch(data=np.zeros((1, 3072), np.uint8), labels=[10]),
                 r"unknown class; there are 10"),
    "cut bin": (write_stl10, "test_X.bin", bytes(27647), r"27648 bytes each, got 27647 bytes"),
    "no labels": (write_stl10, "test_y.bin", None, r"cannot read .*test_y.bin'?: No such file"),
    "label 0": (write_stl10, "test_y.bin", bytes(3), r"unknown class"),
    "other rows": (write_cub200, "image_class_labels.txt", b"1 1\n", r"does not list the same pictures"),
    "half a row": (write_cub200, "images.txt", b"1\n", r"images.txt', line 1: needs a number and a value, got '1'"),
    "strange class": (write_cub200, "classes.txt", b"1 001.Tern\n", r"no known class: '2'"),
    "no picture": (write_cub200, "images/002.Bird/Bird_11.png", None, r"cannot read .*Bird_11.png.* as a picture"),
    "cut picture": (write_kodak, "kodim03.png", b"\x89PNG\r\n\x1a\n", r"cannot read .*kodim03.png.* as a picture"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_archive_is_one_line(case: str, tmp_path: Path) -> None:
    write, name, content, message = BROKEN[case]
    folder = tmp_path / "c"
    write(folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        data.load(folder, "test")
    assert "\n" not in str(caught.value)


def test_a_kodak_of_another_size_and_a_path_out_of_the_folder(tmp_path: Path) -> None:
    write_kodak(tmp_path / "k")
    save(tmp_path / "k" / "kodim05.png", noise(0, 10, 20))
    with pytest.raises(ValueError, match=r"kodim05.png' must be 768x512 or 512x768, got 20x10"):
        data.load(tmp_path / "k", "test")
    write_cub200(tmp_path / "c")
    text = (tmp_path / "c" / "images.txt").read_text()
    (tmp_path / "c" / "images.txt").write_text(text.replace("002.Bird/Bird_11.png", "../../secret.png"))
    with pytest.raises(ValueError, match="names a file outside"):
        data.load(tmp_path / "c", "test")


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("foto", "test", r"unknown data set \(and no folder\) 'foto'; valid: photos, .*did you mean 'photos'"),
        ("photos", "tests", r"unknown split 'tests'; valid: train, validation, test, all; did you mean 'test'"),
        ("photos", "test", r"data set 'photos' is not in '.*cache'; run: semcom-gym data fetch photos"),
        ("stl10", "test", r"data set 'stl10' is not there; unpack a copy of yours to '.*stl10_binary'"),
        (__file__, "test", r"is no folder"),
    ],
)
def test_what_is_not_there(name: str, split: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.load(name, split)


# --- folders ---------------------------------------------------------------------------------------------------------
def test_fixture() -> None:
    found = {split: data.load(FIXTURE, split) for split in data.SPLITS}
    assert [len(found[split]) for split in data.SPLITS] == [2, 1, 1, 4]
    assert all(images.images.shape[1:] == (3, 128, 128) for images in found.values())
    parts = np.concatenate([found[split].images for split in data.SPLITS[:3]])
    assert sorted(image.tobytes() for image in parts) == sorted(image.tobytes() for image in found["all"].images)
    assert found["all"].licence == "CC0-1.0 or public domain"
    assert found["all"].labels is None
    assert len({images.sha256 for images in found.values()}) == 4


def test_subfolders_are_classes_and_each_is_dealt(tmp_path: Path) -> None:
    for k in range(20):
        save(tmp_path / ("ab"[k % 2]) / "deep" / f"{k}.png", noise(k, 8, 9))
    save(tmp_path / ".hidden" / "x.png", noise(0, 8, 9))
    (tmp_path / "notes.txt").write_text("no picture")
    counts = {split: np.bincount(data.load(tmp_path, split).labels).tolist() for split in data.SPLITS}
    assert counts == {"train": [7, 7], "validation": [1, 1], "test": [2, 2], "all": [10, 10]}
    assert data.load(tmp_path).classes == ("a", "b")
    assert data.load(tmp_path).licence == "not stated"


def test_sizes_that_differ_make_a_list_and_the_hash_is_of_the_pixels(tmp_path: Path) -> None:
    for k in range(4):
        save(tmp_path / "one" / f"{k}.png", noise(k, 8 + k, 40))
        save(tmp_path / "two" / f"{k}.bmp", noise(k, 8 + k, 40))
    first, second = (data.load(tmp_path / name, "all") for name in ("one", "two"))
    assert [image.shape for image in first.images] == [(3, 8 + k, 40) for k in range(4)]
    assert first.sha256 == second.sha256  # the same pixels out of other files
    save(tmp_path / "two" / "3.bmp", noise(9, 11, 40))
    assert data.load(tmp_path / "two", "all").sha256 != first.sha256
    assert [i.shape for i in data.load(tmp_path / "one", "all", short_side=10).images][2:] == [(3, 10, 40), (3, 10, 36)]


def test_too_few_pictures_and_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures in"):
        data.load(tmp_path)
    save(tmp_path / "a.png", noise(0, 8, 8))
    with pytest.raises(ValueError, match="1 pictures are too few for a train split"):
        data.load(tmp_path)
    assert len(data.load(tmp_path, "all")) == 1


@given(st.lists(st.text(min_size=1), min_size=1, max_size=60, unique=True), st.integers(1, 3))
def test_a_deal_is_a_partition_that_stays_put(keys: list[str], kinds: int) -> None:
    kind = [str(len(key) % kinds) for key in keys]
    hands = []
    for split in ("train", "validation", "test"):
        try:
            hands += sets.deal(keys, split, kind)
        except ValueError:
            assert len(keys) <= 2 * kinds
    assert sorted(hands) == sorted(keys)
    backwards = sets.deal(keys[::-1], "test", kind[::-1])
    assert backwards[::-1] == sets.deal(keys, "test", kind)


# --- decoding --------------------------------------------------------------------------------------------------------
def test_decoding_turns_as_the_camera_was_held_and_shrinks(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    smooth = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)
    Image.fromarray(np.stack([smooth] * 3, axis=2)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    upright = pictures.decode(tmp_path / "a.jpg")
    assert upright.shape == (3, 96, 64)
    assert abs(upright[0, 0].astype(int) - smooth[::-1, 0]).max() <= 6
    assert pictures.decode(tmp_path / "a.jpg", 16).shape == (3, 24, 16)
    assert pictures.decode(tmp_path / "a.jpg", 640).shape == (3, 96, 64)  # never enlarged


def test_grey_palette_and_alpha_become_three_channels_and_deep_ones_are_refused(tmp_path: Path) -> None:
    cut_out = noise(0, 6, 5, channels=4)
    save(tmp_path / "alpha.png", cut_out)
    np.testing.assert_array_equal(pictures.decode(tmp_path / "alpha.png"), cut_out[:3])
    np.testing.assert_array_equal(pictures.decode(tmp_path / "alpha.png", alpha=True), cut_out)
    Image.fromarray(cut_out[0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(pictures.decode(tmp_path / "grey.png"), cut_out[[0, 0, 0]])
    Image.fromarray(cut_out[0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep.png' has more than 8 bits a channel"):
        pictures.decode(tmp_path / "deep.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "alpha.png").read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"cannot read .*cut\.png"):
        pictures.decode(tmp_path / "cut.png")
