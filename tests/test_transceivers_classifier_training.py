"""The information bound of the classifier, and its training in two phases."""

from __future__ import annotations

import dataclasses
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_pictures import grey, pictures, stamps
from PIL import Image
from torch.nn import functional

from semcom_gym.transceivers import channel, checkpoint, data
from semcom_gym.transceivers.classifier import images as labelled
from semcom_gym.transceivers.classifier import information, training
from semcom_gym.transceivers.classifier.network import Config

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("empty_default_device")


# --- information -----------------------------------------------------------------------------------------------------
def gaussian(n: int, size: int, snr_db: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x of power 1/2, y with the noise of the SNR, as values of symbols."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, size, generator=generator) * 0.5**0.5
    told = torch.full((n,), snr_db)
    y = channel.to_values(channel.awgn(channel.to_symbols(x), channel.db_to_linear(told), generator))
    return x, y, told


def exact(size: int) -> information.Likelihood:
    """The likelihood of white noise: a variance of 1 / (2 snr) around x."""
    q = information.Likelihood(size)
    q.noise.weight.data.fill_(-math.log(10.0))
    q.noise.bias.data.fill_(-math.log(2.0))
    return q


def test_the_likelihood_of_all_pairs_is_that_of_gaussians() -> None:
    q = exact(4)
    with torch.no_grad():
        for net in (q.mean, q.log_variance):
            net[-1].weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
            net[-1].bias.fill_(0.3)
    x, y, told = gaussian(5, 4, 3.0)
    told = told + torch.arange(5)
    pairs = q(x, y, told).detach()
    mean, of_x = (x + q.mean(x)).detach().double().numpy(), q.log_variance(x).detach().double().numpy()
    for i in range(5):
        for j in range(5):
            total = 0.0
            for k in range(4):
                variance = math.exp(of_x[j, k]) / (2.0 * 10 ** (float(told[i]) / 10))
                error = float(y[i, k]) - mean[j, k]
                total -= 0.5 * (error**2 / variance + math.log(2 * math.pi * variance))
            assert float(pairs[i, j]) == pytest.approx(total, rel=1e-4, abs=1e-3)
    assert float(information.loss(pairs)) == pytest.approx(-float(pairs.diagonal().mean()))
    off = [float(pairs[i, j]) for i in range(5) for j in range(5) if i != j]
    expected = float(pairs.diagonal().mean()) - sum(off) / 20
    assert float(information.upper_bound(pairs)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 10.0])
def test_the_bound_of_a_gaussian_channel(snr_db: float) -> None:
    """K values of SNR s: I = K ln(1 + s) / 2, and with the true likelihood I_up = K s, which is more."""
    size, snr = 6, 10 ** (snr_db / 10)
    pairs = exact(size)(*gaussian(3_000, size, snr_db)).detach()
    found = float(information.upper_bound(pairs))
    assert found == pytest.approx(size * snr, rel=0.05)
    assert found > 0.5 * size * math.log1p(snr)
    entropy = 0.5 * size * math.log(2 * math.pi * math.e / (2 * snr))
    assert float(information.loss(pairs)) == pytest.approx(entropy, abs=0.15)


def test_the_likelihood_is_learned() -> None:
    """L_MI comes down to the entropy of the noise, and no further; over several SNRs at once."""
    q = information.Likelihood(4)
    optimizer = torch.optim.Adam(q.parameters(), 2e-2)
    parts = [gaussian(600, 4, snr_db, seed) for seed, snr_db in enumerate((-5.0, 0.0, 5.0, 10.0))]
    x, y, told = (torch.cat(part) for part in zip(*parts, strict=True))
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        chosen = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        information.loss(q(x[chosen], y[chosen], told[chosen])).backward()
        optimizer.step()
    for snr_db in (-5.0, 10.0):
        fresh = gaussian(2_000, 4, snr_db, 99)
        entropy = 2.0 * math.log(2 * math.pi * math.e / (2 * 10 ** (snr_db / 10)))
        assert float(information.loss(q(*fresh)).detach()) == pytest.approx(entropy, abs=0.5)
        assert float(information.upper_bound(exact(4)(*fresh)).detach()) == pytest.approx(
            4 * 10 ** (snr_db / 10), rel=0.1
        )


def test_mistakes_about_information() -> None:
    x, y, told = gaussian(3, 4, 0.0)
    with pytest.raises(
        ValueError, match=r"must have shapes \(n, 4\), \(n, 4\) and \(n,\), got \(3, 4\), \(3, 4\), \(2,\)"
    ):
        exact(4)(x, y, told[:2])
    with pytest.raises(ValueError, match="at least 2 images"):
        information.upper_bound(torch.zeros(1, 1))


# --- training --------------------------------------------------------------------------------------------------------
TINY = training.Size(width=4, features=8, side=16, images=480, batch=16, fitted=64, pool=60, tested=20)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of noisy pictures, red and blue, of several sizes."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "red")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(20):
            picture = rng.integers(110, size=(20 + k, 30, 3), dtype=np.uint8)
            picture[..., 2 * (1 - label)] += 120
            Image.fromarray(picture).save(tmp_path / "set" / name / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "FOLLOWED", 20)
    return tmp_path


def test_a_labelled_set_is_scaled_and_cropped(folder: Path) -> None:
    found = labelled.sets("set", 16, 0, "train", True, 1_000)
    assert (found.images.shape, found.images.dtype, found.classes) == ((28, 3, 16, 16), torch.uint8, ("blue", "red"))
    for image, label in zip(found.images.float().mean((2, 3)), found.labels, strict=True):
        assert (image[0] > image[2]) == (label == 1)
    assert set(found.sources) == {"set"}
    part = labelled.sets("set", 32, 0, "test", False, 5)  # larger than some of the pictures
    assert part.images.shape == (5, 3, 32, 32)
    assert torch.equal(part.images, labelled.sets("set", 32, 0, "test", False, 5).images)
    with pytest.raises(ValueError, match="set 'blue' has no classes: put its images into one subfolder for each"):
        labelled.sets("set/blue", 16, 0, "train", True, 5)


def test_seen_cut_outs_before_backgrounds_of_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def load(name: str, split: str) -> data.Images:
        asked.append((name, split))
        photos = data.Images("photos", split, grey(), None, (), "1", "CC0-1.0", "generated")
        return stamps() if name == "stamps" else photos

    monkeypatch.setattr(labelled.data, "load", load)
    seen = labelled.sets("stamps", 16, 0, "test", True, 30)
    assert asked == [("stamps", "train"), ("photos", "test")]
    unseen = labelled.sets("stamps", 16, 0, "test", False, 30)
    assert asked[2:] == [("stamps", "test"), ("photos", "test")]
    assert not torch.equal(seen.images, unseen.images)
    assert list(seen.sources) == ["blocks", "photos"]
    assert seen.classes == ("red", "blue")
    with pytest.raises(ValueError, match="unknown split 'all'"):
        labelled.sets("stamps", 16, 0, "all", True, 30)


def run(path: Path, size: training.Size = TINY, **more: Any) -> training.Trained:
    return training.train("set", size, path=path, progress=False, **more)


def test_it_learns_and_loads_again(folder: Path) -> None:
    trained = run(folder / "network.pt", dataclasses.replace(TINY, images=960, learning_rate=1e-2))
    last = trained.record["curve"][-1]
    assert min(last["seen"], last["unseen"]) > 0.9
    again = training.load(folder / "network.pt")
    assert again.weights_sha256 == trained.weights_sha256
    assert again.identity == trained.identity
    assert trained.identity["classes"] == ["blue", "red"]
    probe = pictures(3, 16)
    assert torch.equal(again.network(probe, torch.zeros(3), generator=torch.Generator().manual_seed(0)),
                       trained.network(probe, torch.zeros(3), generator=torch.Generator().manual_seed(0)))  # fmt: skip


@pytest.mark.parametrize("at", [2, 9, 28])  # phase 1 has 4 steps, phase 2 has 30
def test_ctrl_c_in_either_phase_and_the_same_call_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    calls, augmented = [], labelled.augmented

    def interrupting(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return augmented(*arguments)

    monkeypatch.setattr(labelled, "augmented", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(folder / "a.pt")
    assert len(calls) == at
    resumed, whole = run(folder / "a.pt"), run(folder / "b.pt")
    assert len(calls) == 34 + 34
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.record["curve"] == whole.record["curve"]
    assert run(folder / "a.pt").weights_sha256 == whole.weights_sha256
    assert len(calls) == 34 + 34


def test_what_decides_the_result_is_kept(folder: Path) -> None:
    first = run(folder / "a.pt")
    assert run(folder / "b.pt", seed=1).weights_sha256 != first.weights_sha256
    for more, message in (
        ({"backbone": "vgg"}, "was made with network"),
        ({"link": training.Link(kappa=0.5)}, "was made with link"),
        ({"seed": 1}, "was made with training"),
        ({"size": dataclasses.replace(TINY, pool=50)}, "was made with images"),
    ):
        with pytest.raises(ValueError, match=message):
            run(folder / "a.pt", **more)
    checkpoint.save(folder / "c.pt", "deepjscc", {})
    with pytest.raises(ValueError, match="is of a 'deepjscc', not of a 'classifier'"):
        training.load(folder / "c.pt")


def batch(count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    return pictures(count, 16), torch.arange(count) % 3


def pair() -> training.Pair:
    return training.initial(Config("resnet", 4, 8, 3), 0)


def test_phase_1_leaves_the_transmitter_alone() -> None:
    nets = pair()
    loss = training.phase_1(nets, batch(), torch.Generator().manual_seed(0), training.Link())
    loss.backward()
    assert all(value.grad is None for value in nets.classifier.parameters())
    assert all(value.grad is not None for value in nets.likelihood.parameters())


def test_phase_2_is_18_and_the_likelihood_only_follows() -> None:
    """Its gradient is that of cross-entropy - kappa I_up in the classifier and that of L_MI in q."""
    link, nets = training.Link(kappa=0.1), pair()
    training.phase_2(nets, batch(), torch.Generator().manual_seed(0), 0.0, link).backward()
    grown = [value.grad for value in (*nets.classifier.parameters(), *nets.likelihood.parameters())]
    other, generator = pair(), torch.Generator().manual_seed(0)
    snr_db = -5.0 + 20.0 * torch.rand(16, generator=generator)
    images, labels = batch()
    symbols = other.classifier.encode(images)
    received = channel.awgn(symbols, 10 ** (snr_db / 10), generator)
    x, y = channel.to_values(symbols), channel.to_values(received)
    pairs = other.likelihood(x, y, snr_db)
    cross_entropy = functional.cross_entropy(other.classifier.decode(received, snr_db), labels)
    whole = cross_entropy - 0.1 * information.upper_bound(pairs)
    first = torch.autograd.grad(whole, list(other.classifier.parameters()), retain_graph=True)
    second = torch.autograd.grad(information.loss(pairs) / 8, list(other.likelihood.parameters()))
    for found, expected in zip(grown, (*first, *second), strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_features_are_dropped_over_the_last_third(monkeypatch: pytest.MonkeyPatch) -> None:
    nets, seen = pair(), []
    encode = nets.classifier.encode

    def followed(images: torch.Tensor, sent: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(sent)
        return encode(images, sent)

    monkeypatch.setattr(nets.classifier, "encode", followed)
    for done in (0.0, 0.66, 0.67, 0.99):
        training.phase_2(nets, batch(), torch.Generator().manual_seed(0), done, training.Link())
    assert seen[0] is seen[1] is None
    for sent in seen[2:]:
        assert sent[:8].all()
        assert not sent[8:].all()


def test_random_masks() -> None:
    masks = training.random_masks(4_000, 64, torch.Generator().manual_seed(0))
    count = masks.sum(1)
    assert not (count % 2).any()
    assert (int(count.min()), int(count.max())) == (2, 64)
    assert float(count.float().mean()) == pytest.approx(64 * 0.515, rel=0.03)
    assert masks.float().mean(0).numpy() == pytest.approx(0.515, abs=0.04)  # no feature is favoured


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 20}, "side must be a multiple of 16"),
        ({"batch": 2}, "batch must be >= 4"),
        ({"images": 0}, "images must be >= 1"),
    ],
)
def test_sizes_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_links_are_checked() -> None:
    with pytest.raises(ValueError, match="low_db 9 exceeds high_db 3"):
        training.Link(9.0, 3.0)
    with pytest.raises(ValueError, match="kappa must be"):
        training.Link(kappa=2.0)
