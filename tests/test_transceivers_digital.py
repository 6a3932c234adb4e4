"""JPEG over a digital link, against what pillow itself writes and reads and against closed forms."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym.transceivers import data, digital

Image = pytest.importorskip("PIL.Image")
FIXTURE = Path(__file__).parent / "fixtures" / "images"


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Three crops of 40 x 32 from photographs."""
    return np.stack([image[:, 30:70, 40:72] for image in data.load(FIXTURE, "all").images[:3]])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def file_of(image: np.ndarray, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return stream.getvalue()


def read(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file))).transpose(2, 0, 1)


@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 95), st.integers(0, 999))
def test_header_and_payload_are_the_file(height: int, width: int, quality: int, seed: int) -> None:
    """Of noise, whose scan has many bytes of 0xFF: the payload is the scan without the zeros that follow these."""
    image = rng(seed).integers(256, size=(3, height, width), dtype=np.uint8)
    file, payload = file_of(image, quality), digital.jpeg_bits(image, quality)
    scan = payload.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"
    assert file.endswith(scan)
    header = file[: -len(scan)]
    length = 12  # of the last segment of a header: marker, 2 + 10 bytes about three components
    assert header[-length - 2 : -length] == b"\xff\xda"
    assert int.from_bytes(header[-length : -length + 2], "big") == length


def test_standard_tables_make_one_header_for_all_pictures_of_a_size(photos: np.ndarray) -> None:
    heads = {
        file_of(image, 60)[: -len(digital.jpeg_bits(image, 60).replace(b"\xff", b"\xff\x00")) - 2] for image in photos
    }
    assert len(heads) == 1
    assert len(heads.pop()) > 600  # more than most payloads of this size


def test_over_a_clean_channel_it_is_plain_jpeg(photos: np.ndarray) -> None:
    sent = digital.send_uncoded(photos, 70, 30.0, rng())
    for image, arrived, symbols in zip(photos, sent.images, sent.symbols, strict=True):
        np.testing.assert_array_equal(arrived, read(file_of(image, 70)))
        assert symbols == 4 * len(digital.jpeg_bits(image, 70))  # two bits each
    assert sent.delivered.tolist() == [True] * 3


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 7.0])
def test_error_rate_is_that_of_simulated_qpsk(snr_db: float) -> None:
    snr, generator, n = 10 ** (snr_db / 10), rng(1), 400_000
    bits = generator.integers(2, size=(n, 2))
    symbols = ((1 - 2 * bits[:, 0]) + 1j * (1 - 2 * bits[:, 1])) / math.sqrt(2)
    noise = generator.standard_normal(n) + 1j * generator.standard_normal(n)
    received = symbols + noise * math.sqrt(0.5 / snr)
    wrong = np.mean((received.real < 0) != bits[:, 0]) + np.mean((received.imag < 0) != bits[:, 1])
    assert digital.bit_error_rate(snr_db) == pytest.approx(wrong / 2, abs=4 * math.sqrt(wrong / 2 / (2 * n)))


def test_bits_are_flipped_at_that_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    image, arrived = rng(2).integers(256, size=(1, 3, 96, 96), dtype=np.uint8), []
    monkeypatch.setattr(digital, "_decode", lambda header, payload: arrived.append(payload))
    digital.send_uncoded(image.repeat(4, 0), 90, 3.0, rng())
    payload = digital.jpeg_bits(image[0], 90)
    differing = [bin(int.from_bytes(payload, "big") ^ int.from_bytes(other, "big")).count("1") for other in arrived]
    n = 4 * 8 * len(payload)
    rate = 0.5 * math.erfc(math.sqrt(10**0.3 / 2))
    assert {len(other) for other in arrived} == {len(payload)}
    assert sum(differing) == pytest.approx(n * rate, abs=4 * math.sqrt(n * rate))


def test_errors_cost_quality_and_chance_is_the_generators(photos: np.ndarray) -> None:
    many = photos.repeat(20, 0)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    errors = []
    for snr_db in (2.0, 9.0, 12.0):
        sent, again, other = (digital.send_uncoded(many, 70, snr_db, rng(seed)) for seed in (0, 0, 1))
        np.testing.assert_array_equal(sent.images, again.images)
        errors.append(np.mean((sent.images.astype(float) - many) ** 2))
        assert sent.delivered.all()
        if snr_db < 12:
            assert not np.array_equal(sent.images, other.images)
    assert errors[0] > 1.5 * errors[1] > 6 * errors[2]
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_what_cannot_be_decoded_is_grey_and_not_delivered(photos: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digital, "END", b"")  # pillow refuses a file that ends before the picture does
    monkeypatch.setattr(digital, "_encode", lambda image, quality: (file_of(image, quality)[:623], b"\x13\x37"))
    sent = digital.send_uncoded(photos, 70, 30.0, rng())
    assert sent.delivered.tolist() == [False] * 3
    assert (sent.images == 128).all()


def test_the_largest_quality_that_fits_is_sent(photos: np.ndarray) -> None:
    bits = digital.payload_bits(photos)
    lengths = [[8 * len(digital.jpeg_bits(image, quality)) for quality in range(1, 96)] for image in photos]
    assert bits.tolist() == lengths
    qualities = set()
    for symbols, snr_db in ((200, 3.0), (600, 0.0), (300, 13.0)):
        capacity = symbols * math.log2(1 + 10 ** (snr_db / 10))
        sent = digital.send_ideal(photos, symbols, snr_db)
        assert sent.symbols.tolist() == [symbols] * 3
        for image, arrived, length in zip(photos, sent.images, lengths, strict=True):
            quality = max(q for q in range(1, 96) if length[q - 1] <= capacity)
            np.testing.assert_array_equal(arrived, read(file_of(image, quality)))
            qualities.add(quality)
        np.testing.assert_array_equal(digital.send_ideal(photos, symbols, snr_db, bits).images, sent.images)
    assert len(qualities) > 5


def test_a_payload_that_shrinks_with_quality(photos: np.ndarray) -> None:
    """It fits at 20 and 22 but not at 21: 22 is sent."""
    bits = np.full((3, 95), 10_000)
    bits[:, [*range(20), 21]] = 300
    sent = digital.send_ideal(photos, 100, 10.0, bits)
    np.testing.assert_array_equal(sent.images[0], read(file_of(photos[0], 22)))


def test_where_no_quality_fits_nothing_arrives(photos: np.ndarray) -> None:
    least = digital.payload_bits(photos)[:, 0]
    assert len(set(least)) > 1
    sent = digital.send_ideal(photos, int(least.min()), 0.0)  # 1 bit a symbol
    assert sent.delivered.tolist() == (least == least.min()).tolist()
    assert (sent.images[~sent.delivered] == 128).all()
    assert not digital.send_ideal(photos, int(least.min()) - 1, 0.0).delivered.any()


def test_capacity_by_hand() -> None:
    assert digital.capacity_bits(100, 10 * math.log10(3)) == 200
    assert digital.capacity_bits(7, 0.0) == 7
    assert digital.capacity_bits(3, 10.0) == 10  # 3 x 3.459


GOOD = np.zeros((1, 3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: digital.send_uncoded(GOOD / 255, 50, 0.0, rng()), ValueError, r"uint8 \(n, 3, H, W\), got float64"),
        (lambda: digital.send_ideal(GOOD[0], 9, 0.0), ValueError, r"uint8 \(n, 3, H, W\), got uint8 \(3, 8, 8\)"),
        (lambda: digital.jpeg_bits(GOOD, 50), ValueError, r"uint8 \(3, H, W\), got uint8 \(1, 3, 8, 8\)"),
        (lambda: digital.jpeg_bits(GOOD[0], 96), ValueError, "quality must be from 1 to 95, got 96"),
        (lambda: digital.jpeg_bits(GOOD[0], 7.5), TypeError, "quality must be an integer"),
        (lambda: digital.send_uncoded(GOOD, 50, math.nan, rng()), ValueError, "snr_db must be finite"),
        (lambda: digital.send_uncoded(GOOD, 50, 0.0, 0), TypeError, "numpy.random.Generator, got 0"),
        (lambda: digital.send_ideal(GOOD, 0, 0.0), ValueError, "symbols must be >= 1"),
        (lambda: digital.send_ideal(GOOD, 9, 0.0, np.ones((2, 95))), ValueError, r"\(1, 95\), got \(2, 95\)"),
    ],
)
def test_mistakes(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
