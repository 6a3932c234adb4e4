"""The training loop and its checkpoints, on a network of a few weights."""

from __future__ import annotations

import math
import pickle
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semcom_gym.envs.arrays import usable_device
from semcom_gym.transceivers import checkpoint, train

torch.set_num_threads(1)
CPU = torch.device("cpu")
SETTINGS = train.Settings(images=96, batch=8, learning_rate=1e-2, evaluations=3)


def network(width: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.PReLU(), nn.Conv2d(width, 3, 3, padding=1))


def sample(rng: np.random.Generator, count: int) -> train.Batch:
    return (torch.from_numpy(rng.integers(256, size=(count, 3, 8, 8), dtype=np.uint8)),)


def loss(net: nn.Module, batch: train.Batch, generator: torch.Generator, done: float) -> Tensor:
    images = batch[0]
    noise = 0.1 * torch.randn(images.shape, generator=generator)
    return (net(images + noise) - images).square().mean()


def run(path: Path, settings: train.Settings = SETTINGS, net: nn.Module | None = None, **changes: Any) -> Any:
    net = network() if net is None else net
    arguments: dict[str, Any] = {
        "sample": sample, "loss": loss, "path": path, "kind": "test", "identity": {"data": "noise"}, "where": CPU,
        "evaluate": lambda net: {"bias": net[0].bias.sum().item()}, "progress": False,
    }  # fmt: skip
    record = train.train(net, settings, **(arguments | changes))
    return record, checkpoint.weights_hash(net.state_dict())


# --- the loop --------------------------------------------------------------------------------------------------------
def test_a_seed_decides_everything_and_no_global_stream_is_used(tmp_path: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    record, weights = run(tmp_path / "a.pt")
    assert run(tmp_path / "b.pt")[1] == weights
    assert run(tmp_path / "c.pt", train.Settings(96, 8, 1e-2, seed=1, evaluations=3))[1] != weights
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert (record["images"], record["step"], record["finished"]) == (96, 12, True)
    assert [point["images"] for point in record["curve"]] == [32, 64, 96]


def test_every_step_has_images_and_noise_of_its_own(tmp_path: Path) -> None:
    seen: list[tuple[float, float, float]] = []

    def followed(net: nn.Module, batch: train.Batch, generator: torch.Generator, done: float) -> Tensor:
        state = generator.get_state()
        seen.append((batch[0].sum().item(), torch.rand(1, generator=generator).item(), done))
        return loss(net, batch, generator.set_state(state), done)

    run(tmp_path / "a.pt", loss=followed)
    assert len(seen) == 12
    assert all(len(set(column)) == 12 for column in zip(*seen, strict=True))
    assert [row[2] for row in seen] == [step / 12 for step in range(12)]


def test_what_belongs_to_an_image_stays_with_it(tmp_path: Path) -> None:
    """Images come as values in [0, 1], labels as they are."""

    def labelled(rng: np.random.Generator, count: int) -> train.Batch:
        labels = torch.from_numpy(rng.integers(256, size=count))
        return labels[:, None, None, None].expand(count, 3, 8, 8).to(torch.uint8), labels

    def compared(net: nn.Module, batch: train.Batch, generator: torch.Generator, done: float) -> Tensor:
        images, labels = batch
        assert labels.dtype == torch.int64
        assert torch.equal(images, (labels.float() / 255.0)[:, None, None, None].expand(8, 3, 8, 8))
        return loss(net, batch, generator, done)

    assert run(tmp_path / "a.pt", sample=labelled, loss=compared)[0]["finished"]


def test_it_learns(tmp_path: Path) -> None:
    figures: list[float] = []

    def followed(net: nn.Module, batch: train.Batch, generator: torch.Generator, done: float) -> Tensor:
        value = loss(net, batch, generator, done)
        figures.append(value.item())
        return value

    run(tmp_path / "a.pt", train.Settings(800, 8, 1e-2), loss=followed)
    assert np.mean(figures[-10:]) < 0.5 * np.mean(figures[:10])


@pytest.mark.parametrize("at", [1, 5, 8])
def test_ctrl_c_ends_the_step_and_the_same_call_goes_on(tmp_path: Path, at: int) -> None:
    calls = []

    def interrupting(rng: np.random.Generator, count: int) -> train.Batch:
        calls.append(count)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return sample(rng, count)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a.pt", sample=interrupting)
    assert signal.getsignal(signal.SIGINT) is handler
    kept = checkpoint.load(tmp_path / "a.pt", "test", train.KEYS)["record"]
    assert (kept["step"], kept["finished"]) == (at, False)
    record, weights = run(tmp_path / "a.pt")
    whole, expected = run(tmp_path / "b.pt")
    assert weights == expected
    assert record["curve"] == whole["curve"]
    assert run(tmp_path / "a.pt", sample=pytest.fail)[1] == expected  # finished: nothing is drawn any more


def test_the_schedule_rises_then_falls() -> None:
    shares = [train._schedule(step, 1000) for step in range(1000)]
    assert max(shares) == shares[20] == 1.0
    assert shares[9] == 0.5
    assert shares[510] == pytest.approx(0.505)
    assert np.all(np.diff(shares[20:]) <= 0)
    assert shares[-1] == pytest.approx(0.01, abs=1e-4)


def test_figures_go_to_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path / "a.pt", tensorboard=tmp_path / "log")
    log = accumulator.EventAccumulator(str(tmp_path / "log")).Reload()
    assert {"loss", "gradient_norm", "learning_rate", "images_per_second"} <= set(log.Tags()["scalars"])
    assert [event.step for event in log.Scalars("validation/bias")] == [4, 8, 12]
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write the log in '.*file': File exists"):
        run(tmp_path / "b.pt", tensorboard=tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, "images must be >= 1"),
        ({"images": 8, "batch": 2.5}, "batch must be an integer"),
        ({"images": 8, "learning_rate": 0.0}, "learning_rate must be finite, > 0"),
        ({"images": 8, "seed": -1}, "seed must be >= 0"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        train.Settings(**changes)


def test_a_loss_that_is_not_finite_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss is not finite at step 0: try a learning rate below"):
        run(tmp_path / "a.pt", loss=lambda *given: loss(*given) * math.nan)
    assert not (tmp_path / "a.pt").exists()


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="device 'abacus' cannot be used"):
        usable_device("abacus")


# --- checkpoints -----------------------------------------------------------------------------------------------------
class Harmful:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("code of a checkpoint was run",))


def test_broken_and_foreign_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    run(path)
    good = path.read_bytes()
    for content in (b"", b"nothing", good[: len(good) // 2], pickle.dumps(Harmful())):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is corrupt") as caught:
            run(path)
        assert "\n" not in str(caught.value)
    torch.save({"weights": {}}, path)
    with pytest.raises(ValueError, match="was not written by this package"):
        run(path)
    checkpoint.save(path, "test", {"weights": {}})
    with pytest.raises(ValueError, match="lacks identity, optimizer, record"):
        run(path)
    path.write_bytes(good)
    with pytest.raises(ValueError, match="is of a 'test', not of a 'classifier'"):
        checkpoint.load(path, "classifier", ())
    with pytest.raises(ValueError, match=r"was made with data 'noise', not 'photos'"):
        run(path, identity={"data": "photos"})
    with pytest.raises(ValueError, match="was made with training"):
        run(path, train.Settings(images=200, batch=8))
    with pytest.raises(ValueError, match=r"is of another network: .* does not fit"):
        run(path, net=network(5))
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        checkpoint.load(tmp_path / "none.pt", "test", ())
    with pytest.raises(ValueError, match="cannot be written: No such file"):
        checkpoint.save(tmp_path / "none" / "a.pt", "test", {})


def test_the_hash_is_of_names_and_values() -> None:
    weights = network().state_dict()
    assert checkpoint.weights_hash(weights) == checkpoint.weights_hash(dict(reversed(weights.items())))
    other = {**weights, "0.bias": weights["0.bias"] + 1e-7}
    assert checkpoint.weights_hash(other) != checkpoint.weights_hash(weights)
