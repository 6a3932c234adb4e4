"""Pictures as intra frames of HEVC: quality, known headers, any damage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("av")
from semcom_gym.transceivers.coding import hevc

PHOTOS = Path(__file__).parent / "fixtures" / "images"


def photo(name: str, side: int = 64) -> np.ndarray:
    with Image.open(PHOTOS / f"{name}.png") as picture:
        return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1)[:, :side, :side])


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * math.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize("chroma", hevc.CHROMAS)
def test_a_finer_quantiser_takes_more_bits_and_is_closer(chroma: str) -> None:
    image = photo("cat")
    bits, quality = [], []
    for qp in (4, 16, 28, 40):
        payload = hevc.encode(image, qp, chroma)
        assert payload == hevc.encode(image, qp, chroma)
        received, delivered = hevc.decode(payload, 64, 64, chroma)
        assert delivered
        assert received.shape == image.shape
        assert received.dtype == np.uint8
        bits.append(8 * len(payload))
        quality.append(psnr(received, image))
    assert bits == sorted(bits, reverse=True)
    assert quality == sorted(quality, reverse=True)
    assert quality[0] > (46.0 if chroma == "4:4:4" else 36.0)
    assert 24.0 < quality[-1] < 34.0
    np.testing.assert_array_equal(hevc.payload_bits(image[None], (4, 16, 28, 40), chroma), [bits])


def test_colours_come_back() -> None:
    flat = np.empty((3, 32, 32), np.uint8)
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 200, 90)):
        flat[:] = np.reshape(colour, (3, 1, 1))
        for chroma in hevc.CHROMAS:
            received, _ = hevc.decode(hevc.encode(flat, 0, chroma), 32, 32, chroma)
            assert np.abs(received.astype(int) - flat).max() <= 2


def test_parameter_sets_do_not_depend_on_the_picture() -> None:
    found = {tuple(hevc._units(photo(name), qp, "4:4:4")[:-1]) for name in ("cat", "rocket") for qp in (0, 25, 51)}
    assert found == {hevc._parameter_sets(64, 64, "4:4:4")}


def test_sides_that_are_no_multiple_of_a_block() -> None:
    image = photo("coffee", 128)[:, :50, :38]
    received, delivered = hevc.decode(hevc.encode(image, 10, "4:2:0"), 50, 38, "4:2:0")
    assert delivered
    assert psnr(received, image) > 33.0


INTACT = {chroma: hevc.encode(photo("dandelion"), 30, chroma) for chroma in hevc.CHROMAS}


@st.composite
def damaged(draw: Any) -> tuple[bytes, str]:
    """A payload with flipped bits, cut off, or of any bytes, and its chroma."""
    chroma = draw(st.sampled_from(list(hevc.CHROMAS)))
    payload = bytearray(INTACT[chroma])
    kind = draw(st.sampled_from(["flips", "cut", "both", "any"]))
    if kind == "any":
        head = payload[:2] if draw(st.booleans()) else b""
        return bytes(head) + draw(st.binary(max_size=300)), chroma
    if kind != "cut":
        for bit in draw(st.lists(st.integers(0, 8 * len(payload) - 1), min_size=1, max_size=40)):
            payload[bit // 8] ^= 1 << bit % 8
    return bytes(payload[: draw(st.integers(0, len(payload)))] if kind != "flips" else payload), chroma


@settings(max_examples=150)
@given(damaged())
def test_damage_gives_a_picture_or_grey_and_always_the_same(case: tuple[bytes, str]) -> None:
    payload, chroma = case
    image, delivered = hevc.decode(payload, 64, 64, chroma)
    assert image.shape == (3, 64, 64)
    assert image.dtype == np.uint8
    assert delivered or (image == 128).all()
    for _ in range(2):  # where a decoder reads beyond its data, the second time gives another picture
        again, also = hevc.decode(payload, 64, 64, chroma)
        assert also == delivered
        np.testing.assert_array_equal(again, image)


def test_what_is_no_slice_is_grey(capfd: pytest.CaptureFixture[str]) -> None:
    sets = hevc._parameter_sets(64, 64, "4:4:4")
    for payload in (b"", b"\0", INTACT["4:4:4"][:2], *sets, b"\0\0\1".join(sets)):
        image, delivered = hevc.decode(payload, 64, 64)
        assert not delivered
        assert (image == 128).all()
    half, delivered = hevc.decode(INTACT["4:4:4"][: len(INTACT["4:4:4"]) // 2], 64, 64)
    assert delivered
    assert psnr(half, photo("dandelion")) < psnr(hevc.decode(INTACT["4:4:4"], 64, 64)[0], half)
    assert capfd.readouterr() == ("", "")


def test_the_finest_that_fits() -> None:
    bits = np.array([[90, 70, 50], [90, 40, 60], [90, 80, 70]])
    assert hevc.finest(bits, 60).tolist() == [2, 1, -1]
    assert hevc.finest(bits, np.array([90, 39, 75])).tolist() == [0, -1, 2]


IMAGE = np.zeros((3, 32, 32), np.uint8)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: hevc.encode(IMAGE / 2, 30), ValueError, r"uint8 \(3, H, W\), got float64"),
        (lambda: hevc.encode(IMAGE[:, :8], 30), ValueError, "height must be >= 16, got 8"),
        (lambda: hevc.encode(IMAGE, 52), ValueError, "qp must be from 0 to 51, got 52"),
        (lambda: hevc.encode(IMAGE, 3.5), TypeError, "qp must be an integer"),
        (lambda: hevc.encode(IMAGE, 30, "4:1:1"), ValueError, "unknown chroma '4:1:1'"),
        (lambda: hevc.decode("text", 32, 32), TypeError, "payload must be bytes, got str"),
        (lambda: hevc.payload_bits(IMAGE), ValueError, r"uint8 \(n, 3, H, W\), got \(3, 32, 32\)"),
    ],
)
def test_mistakes(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
