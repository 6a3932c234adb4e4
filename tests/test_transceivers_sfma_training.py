"""Pairs of images for SC-SFMA, and the training on them."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semcom_gym.transceivers import checkpoint
from semcom_gym.transceivers.sfma import measure, pairs, training
from semcom_gym.transceivers.sfma.network import Config

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("empty_default_device")
PHOTOS = Path(__file__).parent / "fixtures" / "images"
SIDE = 16
TINY = Config(channels=16, depths=(1, 1), heads=(1, 2), window=2, width=8)
SIZE = training.Size(TINY, side=SIDE, pairs=240, batch=8, pool=120, tested=10, learning_rate=5e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of waves."""
    path = tmp_path_factory.mktemp("waves")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40] / 16
    for k in range(20):
        wave = rng.uniform(-3, 3, (3, 3, 1, 1))
        picture = (127 + 100 * np.sin(wave[0] * y + wave[1] * x + wave[2])).astype(np.uint8)
        Image.fromarray(picture.transpose(1, 2, 0)).save(path / f"{k}.png")
    return path


@pytest.fixture(scope="module")
def pool(folder: Path) -> pairs.Scenes:
    return pairs.scenes([folder], "train", SIDE, 140, seed=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- pairs -----------------------------------------------------------------------------------------------------------
def test_scenes_keep_crops_by_their_picture(pool: pairs.Scenes, folder: Path) -> None:
    assert pool.crops.shape == (14, 10, 3, SIDE + 2 * pairs.SHIFT, SIDE + 2 * pairs.SHIFT)
    assert pool.crops.dtype == torch.uint8
    assert list(pool.sources) == [folder.name]
    assert torch.equal(pool.crops, pairs.scenes([folder], "train", SIDE, 140, seed=0).crops)
    assert not torch.equal(pool.crops, pairs.scenes([folder], "train", SIDE, 140, seed=1).crops)


def test_what_each_kind_is(pool: pairs.Scenes) -> None:
    """The second image against the pool, by search; the first is the same in all kinds."""
    found = {kind: pairs.sample(pool, kind, rng(3), 12, SIDE) for kind in pairs.KINDS}
    inner = pool.crops[..., pairs.SHIFT : -pairs.SHIFT, pairs.SHIFT : -pairs.SHIFT]

    def place(image: torch.Tensor) -> list[tuple[int, int]]:
        return [tuple(row) for row in (inner == image).all((2, 3, 4)).nonzero().tolist()]

    first = found["identical"][:, 0]
    for kind, both in found.items():
        assert both.shape == (12, 2, 3, SIDE, SIDE), kind
        assert both.dtype == torch.uint8
        assert torch.equal(both[:, 0], first)
    assert torch.equal(found["identical"][:, 1], first)
    for k in range(12):
        [(scene, crop)] = place(first[k])
        [(other, _)] = place(found["random"][k, 1])
        [(same, sibling)] = place(found["same_scene"][k, 1])
        assert other != scene == same
        assert sibling != crop
        partner = 2.0 * found["mix"][k, 1].double() - first[k].double()  # within the rounding, a crop of another scene
        [(mixed, _)] = [
            at.tolist() for at in ((inner.double() - partner).abs() <= 1.0).all(dim=4).all(3).all(2).nonzero()
        ]
        assert mixed != scene
        fits = []
        for down in range(-3, 4):
            for right in range(-3, 4):
                whole = pool.crops[scene, crop, :, 3 + down : 3 + down + SIDE, 3 + right : 3 + right + SIDE].double()
                gain = (found["near_duplicate"][k, 1] * whole).sum((1, 2)) / (whole * whole).sum((1, 2))
                rest = (found["near_duplicate"][k, 1] - (gain[:, None, None] * whole)).abs()
                rest = rest[found["near_duplicate"][k, 1] < 255]
                fits.append((float(rest.max()), bool(((gain > 0.83) & (gain < 1.17)).all())))
        assert min(fits)[0] < 1.5
        assert min(fits)[1]


def test_chance_comes_from_the_generator_only(pool: pairs.Scenes) -> None:
    for kind in pairs.KINDS:
        one = pairs.sample(pool, kind, rng(1), 6, SIDE)
        assert torch.equal(one, pairs.sample(pool, kind, rng(1), 6, SIDE))
        assert not torch.equal(one, pairs.sample(pool, kind, rng(2), 6, SIDE))


@pytest.mark.parametrize("scheme", ["sc_sfma", "swinjscc_noma"])
def test_kinds_are_ordered_by_similarity(scheme: str) -> None:
    """On photographs, to networks that have learnt nothing yet."""
    photos = pairs.scenes([PHOTOS], "train", 16, 80, seed=0)
    net = training.initial(scheme, TINY, 0)
    found = [pairs.similarity(net, pairs.sample(photos, kind, rng(), 120, 16)) for kind in pairs.KINDS]
    means = [float(values.mean()) for values in found]
    assert means == sorted(means)
    assert min(np.diff(means)) > 0.02
    assert found[-1].tolist() == pytest.approx([1.0] * 120)
    assert all(0.0 <= float(values.min()) <= float(values.max()) <= 1.0 for values in found)
    assert float(found[0].min()) == 0.0  # opposite features count as unlike


def test_similarity_is_that_of_features_without_the_partner(pool: pairs.Scenes) -> None:
    net = training.initial("sc_sfma", TINY, 0)
    both = pairs.sample(pool, "random", rng(), 4, SIDE)
    link = torch.full((4,), 10.0), torch.ones(4)
    with torch.no_grad():
        one, two = (
            net.features((both[:, [user, user]] / 255.0), *link)[:, 0].flatten(1).double().numpy() for user in (0, 1)
        )
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(one, two, strict=True)]
    assert pairs.similarity(net, both).tolist() == pytest.approx(np.clip(cosine, 0, 1).tolist(), abs=1e-6)
    assert torch.allclose(pairs.similarity(net, both), pairs.similarity(net, both.flip(1)), atol=1e-6)


def test_mistakes_about_pairs(pool: pairs.Scenes, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown kind of pair 'randon'; valid: .*; did you mean 'random'"):
        pairs.sample(pool, "randon", rng(), 2, SIDE)
    with pytest.raises(ValueError, match="the pool is of images of 16 pixels, not 32"):
        pairs.sample(pool, "random", rng(), 2, 32)
    with pytest.raises(ValueError, match="20 crops of 14 pictures: at least 2 of each are needed"):
        pairs.scenes([folder], "train", SIDE, 20, 0)
    with pytest.raises(ValueError, match="need 2 pictures or more, the validation split has 1"):
        pairs.scenes([PHOTOS], "validation", SIDE, 20, 0)
    with pytest.raises(ValueError, match="two sets of images have one name: waves"):
        pairs.scenes([folder, folder], "train", SIDE, 80, 0)
    with pytest.raises(ValueError, match="unknown split"):
        pairs.scenes([folder], "tests", SIDE, 80, 0)


# --- training --------------------------------------------------------------------------------------------------------
def run(
    folder: Path, path: Path, scheme: str = "sc_sfma", size: training.Size = SIZE, seed: int = 0
) -> training.Trained:
    return training.train(scheme, [folder], size, path=path, seed=seed, progress=False)


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pairs to follow the training on."""
    monkeypatch.setattr(training, "FOLLOWED", 10)


@pytest.mark.usefixtures("followed")
def test_a_seed_decides_everything_and_a_checkpoint_gives_it_back(folder: Path, tmp_path: Path) -> None:
    state, size = torch.get_rng_state(), dataclasses.replace(SIZE, pairs=24)
    one = run(folder, tmp_path / "a.pt", size=size)
    assert run(folder, tmp_path / "b.pt", size=size).weights_sha256 == one.weights_sha256
    assert run(folder, tmp_path / "c.pt", size=size, seed=1).weights_sha256 != one.weights_sha256
    assert torch.equal(torch.get_rng_state(), state)
    assert one.record["finished"]
    assert one.record["images"] == 2 * size.pairs
    assert set(one.record["curve"][-1]) == {"images", *training.FOLLOWED_KINDS}
    loaded = training.load(tmp_path / "a.pt")
    assert (loaded.weights_sha256, loaded.identity) == (one.weights_sha256, one.identity)
    assert loaded.network.config == TINY
    held_out = training.follow([folder], SIDE, 0)["random"]
    same = [measure.surface(found.network, held_out, [5.0], [0.5]) for found in (one, loaded)]
    assert same[0] == same[1]
    with pytest.raises(ValueError, match="was made with scheme 'sc_sfma', not 'swinjscc_noma'"):
        run(folder, tmp_path / "a.pt", "swinjscc_noma", size)


@pytest.mark.usefixtures("followed")
@pytest.mark.parametrize("scheme", ["sc_sfma", "deepjscc_noma"])
def test_training_that_was_cut_off_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    size = dataclasses.replace(SIZE, pairs=40)
    expected = run(folder, tmp_path / "a.pt", scheme, size).weights_sha256
    mixed, calls = training.mixed, []

    def interrupting(*given: object) -> torch.Tensor:
        calls.append(given)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return mixed(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "mixed", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "b.pt", scheme, size)
    kept = checkpoint.load(tmp_path / "b.pt", training.KIND, ())["record"]
    assert (kept["step"], kept["finished"]) == (3, False)
    assert run(folder, tmp_path / "b.pt", scheme, size).weights_sha256 == expected
    assert len(calls) == 5


@pytest.mark.usefixtures("followed")
def test_a_few_steps_bring_the_error_down(folder: Path, tmp_path: Path) -> None:
    held_out = training.follow([folder], SIDE, 0)["random"]
    before = measure.surface(training.initial("sc_sfma", TINY, 0), held_out, [10.0], [0.5])[0]
    after = measure.surface(run(folder, tmp_path / "a.pt").network, held_out, [10.0], [0.5])[0]
    assert after["mse"] < 0.7 * before["mse"]


def test_batches_have_every_kind_as_often_as_stated(pool: pairs.Scenes) -> None:
    assert set(training.SHARES) == set(pairs.KINDS)
    assert sum(training.SHARES.values()) == pytest.approx(1.0)
    both = training.mixed(pool, rng(), 2000, SIDE)
    same = float((both[:, 0] == both[:, 1]).all(dim=3).all(2).all(1).double().mean())
    assert same == pytest.approx(training.SHARES["identical"], abs=0.03)


def test_sizes() -> None:
    for size in training.SIZES.values():
        assert size.config.sent(measure.Range().least_share) >= 2  # one channel of each user's, if orthogonal
    with pytest.raises(ValueError, match="images of 18x18: sides must be multiples of 4"):
        dataclasses.replace(SIZE, side=18)
    with pytest.raises(ValueError, match="tested must be >= 2"):
        dataclasses.replace(SIZE, tested=1)
    with pytest.raises(ValueError, match="least_share must be finite, > 0 and <= 1"):
        measure.Range(least_share=1.5)
    with pytest.raises(ValueError, match="low_db 5 exceeds high_db 1"):
        measure.Range(5.0, 1.0)


def test_mistakes_about_training(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown scheme"):
        run(folder, tmp_path / "a.pt", "noma")
    small = dataclasses.replace(SIZE, config=Config(channels=4, depths=(1, 1), heads=(1, 1), window=2))
    with pytest.raises(ValueError, match=r"least_share 0\.0625 sends 0 channels of 8: at least 2 are needed"):
        run(folder, tmp_path / "a.pt", "swinjscc_oma", small)
    with pytest.raises(ValueError, match="device 'abacus' cannot be used"):
        training.train("sc_sfma", [folder], SIZE, path=tmp_path / "a.pt", device="abacus")
    with pytest.raises(ValueError, match="cannot be read"):
        training.load(tmp_path / "none.pt")
    assert not list(tmp_path.iterdir())
