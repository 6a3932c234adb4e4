"""The classifier: composites, network, information bound, and its training in two phases."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from labelled_pictures import grey, pictures, stamps

from semcom_gym.transceivers import channel, data
from semcom_gym.transceivers.classifier import images as labelled
from semcom_gym.transceivers.classifier.network import BACKBONES, Classifier, Config, kept

torch.set_num_threads(1)


def network(backbone: str = "resnet", features: int = 12, gains: bool = True) -> Classifier:
    """Small, untrained, with gains that differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Classifier(Config(backbone, 4, features, 3))
        if gains:
            net.gain.data.uniform_(0.2, 3.0)
        return net


def mask(*kept_features: int, features: int = 12) -> torch.Tensor:
    sent = torch.zeros(features, dtype=torch.bool)
    sent[list(kept_features)] = True
    return sent


# --- composites ------------------------------------------------------------------------------------------------------
def test_composites_are_what_the_generator_says_and_bear_their_class() -> None:
    first, labels = data.composites(stamps(), grey(), 32, 200, np.random.default_rng(0))
    again, _ = data.composites(stamps(), grey(), 32, 200, np.random.default_rng(0))
    other, _ = data.composites(stamps(), grey(), 32, 200, np.random.default_rng(1))
    assert (first.dtype, first.shape, labels.dtype, labels.shape) == (np.uint8, (200, 3, 32, 32), np.int64, (200,))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    wide = first.astype(int)
    red, blue = wide[:, 0] - wide[:, 1] > 80, wide[:, 2] - wide[:, 1] > 80
    for k, label in enumerate(labels):
        assert (red[k].sum() > 60, blue[k].sum() > 60) == (label == 0, label == 1)
    assert (wide[:, 1] - wide[:, 0] > 40).sum() == 0  # nothing of what is transparent


def test_composites_have_the_stated_size_and_brightness() -> None:
    """A block 12 x 8 turned by t has a box of longer side 12 cos t + 8 sin t, which is 0.65 to 1 of the frame."""
    images, _ = data.composites(stamps(classes=1), grey(), 64, 300, np.random.default_rng(0))
    wide = images.astype(int)
    found = wide[:, 0] - wide[:, 1] > 80
    sizes = np.array([[np.ptp(np.nonzero(axis)[0]) + 1 for axis in (shape.any(0), shape.any(1))] for shape in found])
    longer = sizes.max(1) / 64
    assert longer.min() > 0.62
    assert longer.max() <= 1.0
    assert np.quantile(longer, [0.1, 0.9]) == pytest.approx([0.685, 0.965], abs=0.04)
    brightest = np.array([image[0][shape].max() for image, shape in zip(images, found, strict=True)])
    assert brightest.min() == pytest.approx(0.8 * 200, abs=3)
    assert brightest.max() == pytest.approx(1.2 * 200, abs=3)


def test_classes_are_equally_likely_whatever_the_number_of_their_cut_outs() -> None:
    uneven = stamps(10)
    uneven = dataclasses.replace(uneven, labels=np.array([0] * 9 + [1]))
    _, labels = data.composites(uneven, grey(), 16, 2_000, np.random.default_rng(0))
    assert np.mean(labels) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "set 'blocks' has no labels"),
        (
            {"images": np.zeros((6, 3, 9, 9), np.uint8)},
            r"cut-out 0 must be uint8 \(4, H, W\), got uint8 of shape \(3, 9",
        ),
        ({"images": np.zeros((6, 4, 9, 9), np.uint8)}, "cut-out 0 is transparent everywhere"),
    ],
)
def test_mistakes_about_cut_outs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.composites(dataclasses.replace(stamps(), **changes), grey(), 16, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="smaller than a crop"):
        data.composites(stamps(), grey(side=8), 16, 2, np.random.default_rng(0))


def test_augmentation_mirrors_and_shifts_within_the_frame() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).expand(1, 3, 32, 32).contiguous()
    labels, chosen = torch.tensor([7]), torch.zeros(400, dtype=torch.long)
    drawn, same = labelled.augmented(ramp, labels, chosen, np.random.default_rng(0))
    assert (drawn.dtype, drawn.shape, same.tolist()) == (torch.uint8, (400, 3, 32, 32), [7] * 400)
    rows = {tuple(image[0, 0].tolist()) for image in drawn}
    plain = [tuple(np.clip(np.arange(32) + s, 0, 31).tolist()) for s in range(-2, 3)]
    assert rows == {*plain, *(row[::-1] for row in plain)}
    tall, _ = labelled.augmented(ramp.transpose(2, 3), labels, chosen, np.random.default_rng(0))
    assert {tuple(image[0, :, 0].tolist()) for image in tall} == set(plain)  # never upside down


# --- network ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("backbone", BACKBONES)
def test_sizes_are_those_of_the_paper(backbone: str) -> None:
    net = Classifier(Config(backbone, 64, 512)).eval()
    seen: dict[tuple[int, ...], None] = {}
    for module in net.backbone.modules():
        module.register_forward_hook(lambda module, given, found: seen.setdefault(tuple(found.shape[1:])))
    with torch.no_grad():
        maps = net.maps(torch.rand(1, 3, 224, 224))
    assert tuple(maps.shape) == (1, 512, 7, 7)
    assert float(maps.min()) >= 0
    assert (64, 112, 112) in seen
    if backbone == "resnet":
        assert (128, 28, 28) in seen
    widths = [layer.out_features for layer in net.receiver if isinstance(layer, torch.nn.Linear)]
    assert widths == [256, 128, 10]
    for side in (16, 48, 96):
        assert tuple(network(backbone).maps(torch.rand(2, 3, side, side)).shape[:2]) == (2, 12)


@pytest.mark.parametrize("sent", [None, mask(0, 1), mask(1, 2, 5, 7), mask(3, 11)])
def test_symbols_have_power_1_in_the_long_run_for_every_mask(sent: torch.Tensor | None) -> None:
    net, pooled = network(), torch.randn(20_000, 12, generator=torch.Generator().manual_seed(0)) * 3.0 + 5.0
    net.standard.running_mean.fill_(5.0)
    net.standard.running_var.fill_(9.0)
    symbols = net.eval().modulate(pooled, sent).detach()
    kept_ = torch.ones(12, dtype=torch.bool) if sent is None else sent
    values = channel.to_values(symbols)
    assert not values[:, ~kept_].any()
    count = int(kept_.sum())
    assert float(symbols.abs().square().sum(1).mean()) / (count / 2) == pytest.approx(1.0, abs=0.02)
    one = symbols.abs().square().sum(1)
    assert float(one.std()) > 0.1  # single images differ
    z, g = (pooled[0] - 5.0) / 3.0, net.gain.detach()
    scale = math.sqrt(count / (2.0 * sum(float(g[k]) ** 2 for k in range(12) if kept_[k])))
    for k in range(12):
        assert float(values[0, k]) == pytest.approx(float(g[k] * z[k]) * scale * bool(kept_[k]), abs=1e-4)


def test_a_batch_in_training_has_power_1_exactly() -> None:
    net = network()
    symbols = net.encode(pictures(32), mask(1, 2, 5, 7)).detach()
    assert float(symbols.abs().square().sum(1).mean()) / 2 == pytest.approx(1.0, abs=1e-2)


def test_the_receiver_undoes_the_scale_and_ignores_what_was_not_sent() -> None:
    net, images, sent = network().eval(), pictures(5), mask(0, 3, 4, 8)
    snr_db = torch.full((5,), 5.0)
    symbols = net.encode(images, sent)
    values = channel.to_values(symbols)
    garbage = channel.to_symbols(torch.where(sent, values, torch.full_like(values, 9.0)))
    logits = net.decode(symbols, snr_db, sent)
    assert logits.shape == (5, 3)
    assert torch.equal(net.decode(garbage, snr_db, sent), logits)
    z = net.standard(net.pooled(net.maps(images)))
    expected = net.receiver(torch.cat((net.gain * z * sent, snr_db[:, None] / 10), 1))
    assert torch.allclose(logits, expected, atol=1e-5)
    each = torch.stack((sent, ~sent, sent, ~sent, sent)) & mask(0, 3, 4, 8, 1, 2)
    mixed = net.decode(net.encode(images, each), snr_db, each)
    assert torch.allclose(mixed[0], logits[0], atol=1e-5)
    assert not torch.allclose(mixed[1], logits[1], atol=1e-3)
    assert not torch.equal(net.decode(symbols, snr_db + 9.0, sent), logits)  # it is told the SNR


def test_no_gradient_reaches_features_that_are_not_sent() -> None:
    net, sent = network(), mask(0, 3, 4, 8)
    maps = net.maps(pictures(6)).detach().requires_grad_()
    net.classify(maps, torch.zeros(6), sent, generator=torch.Generator().manual_seed(0)).square().sum().backward()
    assert maps.grad is not None
    reached = maps.grad.abs().sum((0, 2, 3)) > 0
    assert torch.equal(reached, sent)
    assert torch.equal(net.gain.grad != 0, sent)


def test_the_noise_is_that_of_the_snr() -> None:
    net, images = network().eval(), pictures(200, 16)
    received: list[torch.Tensor] = []
    net.decode = lambda symbols, *rest: received.append(symbols)  # type: ignore[assignment,method-assign]
    net(images, torch.full((200,), -5.0), generator=torch.Generator().manual_seed(0))
    noise = (received[0] - net.encode(images)).detach()
    assert float(noise.abs().square().mean()) == pytest.approx(10**0.5, rel=0.1)


def test_fading_is_a_choice() -> None:
    net, images, snr_db = network().eval(), pictures(4), torch.full((4,), 5.0)
    found = [net(images, snr_db, None, medium, torch.Generator().manual_seed(0)) for medium in channel.CHANNELS]
    assert not torch.allclose(*found)
    with pytest.raises(ValueError, match="unknown channel 'fibre'"):
        net(images, snr_db, medium="fibre")


def test_the_number_kept_is_even() -> None:
    assert [kept(o, 256) for o in (0.0, 0.2, 0.5, 0.8, 0.999, 1.0)] == [256, 204, 128, 52, 2, 2]
    with pytest.raises(ValueError, match="dropped must be"):
        kept(1.2, 256)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3, 30, 32), torch.zeros(2)), r"multiples of 16, got \(2, 3, 30"),
        ((torch.ones(2, 1, 32, 32), torch.zeros(2)), r"images must be \(n, 3, H, W\)"),
        ((torch.ones(2, 3, 16, 16), torch.zeros(1)), r"snr_db must have shape \(2,\)"),
        (
            (torch.ones(2, 3, 16, 16), torch.zeros(2), mask(1, 2, features=10)),
            r"sent must be boolean \(12,\) or \(2, 12",
        ),
        ((torch.ones(2, 3, 16, 16), torch.zeros(2), torch.ones(12)), "sent must be boolean"),
        ((torch.ones(2, 3, 16, 16), torch.zeros(2), mask(1, 2, 3)), "must be even and at least 2"),
        ((torch.ones(2, 3, 16, 16), torch.zeros(2), mask()), "must be even and at least 2"),
    ],
)
def test_mistakes_about_the_network(arguments: tuple[torch.Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network().eval()(*arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 7}, "features must be even"),
        ({"backbone": "lstm"}, "unknown backbone 'lstm'"),
        ({"classes": 1}, "classes"),
    ],
)
def test_mistakes_about_its_size(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**changes)
