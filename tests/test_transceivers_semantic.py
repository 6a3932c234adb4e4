"""The semantic decoder, and what receivers make of damaged streams."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semcom_gym.transceivers import metrics
from semcom_gym.transceivers.coding import hevc
from semcom_gym.transceivers.hyperprior import coding, flips, receivers, semantic
from semcom_gym.transceivers.hyperprior.network import Config, Hyperprior

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("empty_default_device")
TINY = semantic.Size(
    side=64, look=32, width=4, features=16, pool=40, images=320, tuned=24, batch=16, tuned_batch=8, tuning_rate=1e-2
)


def codec(seed: int = 0) -> Hyperprior:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Hyperprior(Config(width=6, latents=24, rates=3)).eval()


def images(n: int, side: int, seed: int = 0) -> torch.Tensor:
    """Smooth pictures, uint8."""
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)).to(torch.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> semantic.Pictures:
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for name, colour in {"blue": (40, 60, 220), "red": (220, 40, 40)}.items():
        (folder / name).mkdir()
        for k in range(20):
            picture = np.clip(np.array(colour) + rng.normal(0, 30, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / name / f"{k}.png")
    return semantic.Pictures(folder, TINY, 0)


def test_shrinking_takes_means() -> None:
    found = semantic.shrunk(images(2, 64), 32)
    plain = images(2, 64).double().reshape(2, 3, 32, 2, 32, 2).mean((3, 5))
    assert found.dtype == torch.uint8
    assert (found.double() - plain).abs().max() <= 0.5


def test_training_goes_on_and_changes_no_codec(pictures: semantic.Pictures, tmp_path: Path) -> None:
    network = codec()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    viewer = semantic.train_classifier(pictures, path=tmp_path / "e.pt", progress=False)
    assert viewer.record["curve"][-1]["accuracy"] >= 0.75  # two colours
    start = semantic.SemanticDecoder(network, viewer.network)
    latents = network.quantised(images(3, 64) / 255.0, torch.tensor([0.0, 1.5, 2.0]))
    with torch.no_grad():
        shown = network.reconstruct(latents).clamp(0.0, 1.0)
        assert torch.equal(start.eval()(latents), viewer.network.eval()(shown))  # Q starts as E after G

    tuned = semantic.tune(pictures, network, viewer, path=tmp_path / "q.pt", progress=False)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    moved = {name for name, value in tuned.network.codec.state_dict().items() if not torch.equal(value, before[name])}
    decoder = ("synthesis", "inverse", "enter", "leave")
    assert {name.split(".")[0] for name in moved} == set(decoder)
    again = semantic.tune(pictures, network, viewer, path=tmp_path / "q.pt", progress=False)
    assert again.weights_sha256 == tuned.weights_sha256
    with pytest.raises(ValueError, match="was made with made_of"):
        semantic.tune(pictures, codec(1), viewer, path=tmp_path / "q.pt", progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 96}, "multiple of 64"),
        ({"look": 40}, "multiple of 16"),
        ({"look": 48}, "multiple of 48"),
        ({"batch": 1}, "batch must be >= 4"),
        ({"tuned": 0}, "tuned must be >= 1"),
    ],
)
def test_sizes_that_do_not_fit(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


def test_a_picture_of_another_size_is_refused() -> None:
    viewer = semantic.initial(semantic.Config("resnet", 4, 16, 2), 32, 0).eval()
    with pytest.raises(ValueError, match="multiples of 32"):
        viewer(torch.zeros(2, 3, 48, 48))


def test_the_data_user_of_the_codec() -> None:
    network, sent_images = codec(), images(2, 192)
    streams = receivers.streams(network, sent_images, 1.5)
    sent = receivers.payloads(streams)
    judge = receivers.of_codec(
        network, streams, lambda latents: network.reconstruct(latents).clamp(0, 1), receivers.quality(sent_images)
    )
    broken = (b"\x01", sent[1][1])  # no word of 32 bits: nothing can be read
    figures, gave_up = judge(1, [sent[1], broken, flips.flipped(sent[1], np.array([8 * len(sent[1][0]) + 5]))])
    assert gave_up.tolist() == [False, True, False]
    original = sent_images[1:] / 255.0
    with torch.no_grad():
        whole, _ = coding.decode(network, streams[1])
        nothing = network.reconstruct(torch.zeros(1, 24, 12, 12)).clamp(0, 1)
    for row, shown in zip(figures, (whole[None], nothing), strict=False):
        expected = [1 - metrics.ms_ssim(shown, original), metrics.mse(shown, original)]
        assert row[:2] == pytest.approx([float(value) for value in expected], rel=1e-4)
    assert figures[2, 1] > figures[0, 1]


def test_the_semantic_user() -> None:
    network, labels = torch.nn.Linear(2, 2), torch.tensor([0, 1])
    with torch.no_grad():
        network.weight.copy_(torch.eye(2))
        network.bias.zero_()
    score = receivers.recognition(network, labels)
    received = torch.tensor([[3.0, 1.0], [0.0, 1.0]])
    assert score(0, received).tolist() == [[0.0], [1.0]]
    assert score(1, received).tolist() == [[1.0], [0.0]]


def test_users_of_hevc() -> None:
    sent_images = images(2, 192)
    sent = [(hevc.encode(image, 30),) for image in sent_images.numpy()]
    judge = receivers.of_hevc(192, 192, receivers.quality(sent_images))
    figures, gave_up = judge(0, [sent[0], (b"",)])
    assert gave_up.tolist() == [False, True]
    grey = torch.full((1, 3, 192, 192), 128 / 255)
    assert figures[1, 1] == pytest.approx(float(metrics.mse(grey, sent_images[:1] / 255.0)), rel=1e-5)
    assert figures[0, 2] > 30
    found = flips.measure(sent, judge, receivers.FIGURES["data"], (-6.0, -2.0))
    assert found["clean"]["psnr_db"] > found["points"][1]["psnr_db"]
