"""Crops: every place at every scale alike, mirrored half the time, never flat, all chance from one generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semcom_gym.transceivers import data

pytest.importorskip("PIL.Image")
FIXTURE = Path(__file__).parent / "fixtures" / "images"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return rng(seed).integers(256, size=(3, height, width), dtype=np.uint8)


def places(crops: np.ndarray, picture: np.ndarray) -> list[tuple[int, int, bool]]:
    """Row, column and whether mirrored, of each crop in the picture it was cut from."""
    size = crops.shape[-1]
    where = {}
    for y in range(picture.shape[1] - size + 1):
        for x in range(picture.shape[2] - size + 1):
            window = picture[:, y : y + size, x : x + size]
            where[window.tobytes()] = (y, x, False)
            where[window[..., ::-1].tobytes()] = (y, x, True)
    return [where[crop.tobytes()] for crop in crops]  # KeyError: not a piece of the picture


def test_crops_are_pieces_of_the_picture_and_every_place_is_as_likely() -> None:
    picture = noise(1, 8, 10)
    found = places(data.crops([picture], 6, 6000, rng()), picture)
    counts = np.zeros((3, 5, 2))
    for y, x, mirrored in found:
        counts[y, x, int(mirrored)] += 1
    expected = 6000 / 30
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 59.7  # chi-squared with 29 degrees of freedom, 0.1 % point 58.3


def test_scales_share_by_their_places() -> None:
    """40 x 40 has 81 places of 32 x 32 and 64 x 64 has 1089; scales above the picture are left out."""
    picture = noise(0, 64, 64) // 128 * 255  # black or white; any shrinking makes greys
    found = data.crops([picture], 32, 4000, rng(), scales=(40, 64, 128))
    full = ((found == 0) | (found == 255)).all(axis=(1, 2, 3))
    assert abs(full.mean() - 1089 / (1089 + 81)) < 0.016  # four standard deviations


def test_stack_and_list_of_pictures_alike() -> None:
    stack = np.stack([noise(k, 9, 9) for k in range(5)])
    for given in (stack, list(stack)):
        crops = data.crops(given, 9, 500, rng())
        straight = {crop.tobytes() for crop in stack} | {crop[..., ::-1].tobytes() for crop in stack}
        assert {crop.tobytes() for crop in crops} == straight
    assert crops.dtype == np.uint8


def test_one_generator_decides_everything() -> None:
    images = data.load(FIXTURE, "train")
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (data.crops(images, 32, 40, rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert first.shape == (40, 3, 32, 32)


def test_flat_crops_are_drawn_again() -> None:
    picture = np.full((3, 16, 64), 90, np.uint8)
    picture[:, :, 48:] = noise(2, 16, 16)
    crops = data.crops([picture], 8, 300, rng())
    assert (crops.reshape(300, -1).std(axis=1) >= 0.03 * 255).all()
    with pytest.raises(ValueError, match=r"nearly all crops of 8x8 are flat; only 0 of 5 show anything"):
        data.crops([np.full((3, 16, 16), 9, np.uint8)], 8, 5, rng())


@pytest.mark.parametrize(
    ("images", "size", "count", "message"),
    [
        ([noise(0, 40, 20)], 32, 1, r"picture 0 is 20x40, smaller than a crop of 32x32"),
        ([noise(0, 40, 40), np.zeros((4, 40, 40), np.uint8)], 32, 1, r"picture 1 must be uint8 \(3, H, W\), got"),
        (np.zeros((2, 3, 40, 40), np.float32), 32, 1, r"picture 0 must be uint8 \(3, H, W\), got float32"),
        ([], 32, 1, r"there are no pictures"),
        ([noise(0, 40, 40)], 0, 1, r"size must be >= 1, got 0"),
        ([noise(0, 40, 40)], 8, -1, r"count must be >= 1, got -1"),
    ],
)  # fmt: skip
def test_mistakes(images: object, size: int, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.crops(images, size, count, rng())


def test_a_seed_is_no_generator() -> None:
    with pytest.raises(TypeError, match=r"generator must be a numpy.random.Generator, got 3"):
        data.crops([noise(0, 40, 40)], 8, 1, 3)
