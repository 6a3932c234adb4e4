"""Training of the hyper-prior codec, on the pictures of the tests."""

from __future__ import annotations

import dataclasses
import itertools
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semcom_gym.transceivers import checkpoint, data
from semcom_gym.transceivers.hyperprior import coding, measure, training
from semcom_gym.transceivers.hyperprior.network import Config

pytest.importorskip("constriction")
torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("empty_default_device")
PICTURES = Path(__file__).parent / "fixtures" / "images"
SIZE = training.Size(width=6, latents=24, rates=3, side=64, crops=24, batch=3, pool=30)


@pytest.fixture(autouse=True)
def few_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "FOLLOWED", 4)


def run(path: Path, size: training.Size = SIZE, **changes: Any) -> training.Trained:
    return training.train([PICTURES], size, path=path, progress=False, **changes)


def crops(n: int = 6, side: int = 64) -> torch.Tensor:
    images = data.load(PICTURES, "test")
    return torch.from_numpy(data.crops(images, side, n, np.random.default_rng(0)))


def test_a_seed_decides_everything_and_a_loaded_network_is_the_trained_one(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    trained = run(tmp_path / "a.pt")
    assert run(tmp_path / "b.pt").weights_sha256 == trained.weights_sha256
    assert run(tmp_path / "c.pt", seed=1).weights_sha256 != trained.weights_sha256
    assert torch.equal(torch.get_rng_state(), before)
    assert (trained.record["images"], trained.record["finished"]) == (24, True)
    assert set(trained.record["curve"][-1]) == {
        "images", "bpp_0", "psnr_db_0", "bpp_1", "psnr_db_1", "bpp_2", "psnr_db_2",
    }  # fmt: skip
    loaded = training.load(tmp_path / "a.pt")
    assert loaded.weights_sha256 == trained.weights_sha256
    assert loaded.network.config == Config(6, 24, 3)
    assert loaded.identity["crops"] == {"side": 64, "pool": 30}
    for image in crops(3):
        stream = coding.encode(trained.network, image, 1.3)
        assert coding.encode(loaded.network, image, 1.3) == stream
        values, status = coding.read(loaded.network, stream)
        assert status is coding.Status.INTACT
        assert np.array_equal(values, coding.read(trained.network, stream)[0])
        assert torch.equal(coding.decode(loaded.network, stream)[0], coding.decode(trained.network, stream)[0])


@pytest.mark.parametrize("at", [1, 5])
def test_ctrl_c_and_the_same_call_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    calls, loss = [], measure.loss

    def interrupting(*given: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return loss(*given)

    monkeypatch.setattr(measure, "loss", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a.pt")
    monkeypatch.undo()
    resumed, whole = run(tmp_path / "a.pt"), run(tmp_path / "b.pt")
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.record["step"] == 8


def test_it_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, loss = [], measure.loss

    def followed(*given: Any) -> torch.Tensor:
        value = loss(*given)
        figures.append(value.item())
        return value

    monkeypatch.setattr(measure, "loss", followed)
    trained = run(tmp_path / "a.pt", dataclasses.replace(SIZE, latents=96, crops=600, batch=6))
    first, last = (np.mean(part) for part in (figures[:20], figures[-20:]))
    assert last < 0.96 * first
    rows = measure.rate_distortion(trained.network, crops(), [0.0, 1.0, 2.0])
    for lower, higher in itertools.pairwise(rows):
        assert higher["bpp"] > lower["bpp"]
        assert higher["psnr_db"] > lower["psnr_db"]


def test_the_loss_weighs_bits_and_error_at_rates_from_all_over_the_range() -> None:
    """Worked out again in plain numbers from what the network was asked for and gave."""
    asked: list[torch.Tensor] = []

    class Fixed(torch.nn.Module):
        config = Config(6, 24, 3)

        def forward(self, images: torch.Tensor, rate: torch.Tensor, generator: torch.Generator) -> Any:
            asked.append(rate)
            return images + 0.1, torch.full((len(images),), 4096.0)

    found = measure.loss(Fixed(), torch.zeros(4, 3, 64, 64), torch.Generator().manual_seed(0))
    total = 0.0
    for k, rate in enumerate(asked[0].tolist()):
        assert 2 * k / 4 <= rate < 2 * (k + 1) / 4
        weight = 0.0008 * (0.1 / 0.0008) ** (rate / 2)
        middle = math.sqrt(0.0008 * 0.1)
        total += (1.0 + weight * 255**2 * 0.01) * math.sqrt(middle / weight) / 4
    assert found.item() == pytest.approx(total, rel=1e-4)
    assert Config(6, 24, 3).lambdas == pytest.approx([0.0008 * 255**2, middle * 255**2, 0.1 * 255**2])


def test_the_estimate_of_a_log_is_near_real_streams(tmp_path: Path) -> None:
    trained, images = run(tmp_path / "a.pt"), crops(4, 128)
    for rate in (0.0, 2.0):
        real = measure.rate_distortion(trained.network, images, [rate])[0]
        estimate = measure.estimate(trained.network, images, rate)
        assert estimate["psnr_db"] == pytest.approx(real["psnr_db"], abs=0.02)
        assert abs(estimate["bpp"] - real["bpp"]) < 0.01 * real["bpp"] + 64 / 128**2


def test_errors_are_one_line(tmp_path: Path) -> None:
    run(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="was made with network") as caught:
        run(tmp_path / "a.pt", dataclasses.replace(SIZE, latents=30))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="was made with crops"):
        run(tmp_path / "a.pt", dataclasses.replace(SIZE, pool=31))
    with pytest.raises(ValueError, match="device 'abacus' cannot be used"):
        run(tmp_path / "b.pt", device="abacus")
    checkpoint.save(tmp_path / "c.pt", "deepjscc", {})
    with pytest.raises(ValueError, match="is of a 'deepjscc', not of a 'hyperprior'"):
        training.load(tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 96}, "side must be a multiple of 64, got 96"),
        ({"crops": 0}, "crops must be >= 1"),
        ({"width": 7}, "width must be a multiple of 3"),
    ],
)
def test_sizes_are_checked(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SIZE, **changes)
