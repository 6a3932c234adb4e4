"""Importance (19) against closed forms, the orders made from it, accuracy and eta(o), and the JPEG comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from semcom_gym.transceivers import digital
from semcom_gym.transceivers.classifier import measure, tcm
from semcom_gym.transceivers.classifier.importance import RULES, Importance, importance, ranking
from semcom_gym.transceivers.classifier.network import HIDDEN, Classifier, Config

torch.set_num_threads(1)
SIDE, FEATURES, CLASSES = 64, 8, 4
POSITIONS = 4  # of a feature map


def network(seed: int = 0) -> Classifier:
    """A small network whose features have means, spreads and gains of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Classifier(Config("resnet", width=4, features=FEATURES, classes=CLASSES))
        net.train()
        for _ in range(30):  # running statistics
            net.encode(torch.rand(16, 3, SIDE, SIDE))
        net.gain.data.uniform_(0.5, 2.0)
    return net.eval()


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(256, size=(n, 3, SIDE, SIDE), dtype=np.uint8))


def linear(weights: Tensor) -> nn.Module:
    """A receiver whose logits are ``weights`` (C, K) times the features, at any SNR: two layers pass them on shifted
    so far that no ReLU acts.
    """
    receiver = nn.Sequential(
        nn.Linear(FEATURES + 1, HIDDEN[0]), nn.ReLU(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(),
        nn.Linear(HIDDEN[1], CLASSES),
    )  # fmt: skip
    shift = 100.0
    with torch.no_grad():
        for layer in receiver:
            for parameter in layer.parameters():
                parameter.zero_()
        for k in range(FEATURES):
            receiver[0].weight[k, k] = receiver[2].weight[k, k] = 1.0
        receiver[0].bias[:FEATURES] = shift
        receiver[4].weight[:, :FEATURES] = weights
        receiver[4].bias[:] = -shift * weights.sum(1)
    return receiver


WEIGHTS = torch.linspace(-1.0, 1.5, CLASSES * FEATURES).reshape(CLASSES, FEATURES).flip(0)


# --- importance ------------------------------------------------------------------------------------------------------
def test_slopes_of_a_linear_receiver_are_in_closed_form() -> None:
    net, images = network(), pictures(300)
    net.receiver = linear(WEIGHTS)
    found = importance(net, images)
    assert net.maps(images[:1] / 255.0).shape[2] ** 2 == POSITIONS
    running = net.standard.running_var.double().sqrt()  # the scale of the channel layer cancels at the receiver
    expected = WEIGHTS.double() * net.gain.double() / running / POSITIONS
    assert np.allclose(found.weights, expected.detach().numpy(), rtol=1e-4)
    pooled = np.concatenate([net.maps(part / 255.0).detach().mean((2, 3)).numpy() for part in images.split(100)])
    assert np.allclose(found.spread, pooled.std(0, ddof=1), rtol=1e-5)


def test_slope_times_spread_is_the_effect_of_the_value_that_is_sent() -> None:
    """Without the linear receiver: small steps of one standardised feature, all images and classes in the mean."""
    net, images = network(), pictures(40)
    found = importance(net, images, snr_db=2.0)
    pooled, told, step = measure.features(net, images).double(), torch.full((40,), 2.0).double(), 1e-3
    net.double()
    running = net.standard.running_var.sqrt()
    for k in range(FEATURES):
        move = torch.zeros(FEATURES).double()
        move[k] = step * running[k]
        low, high = (net.decode(net.modulate(p), told).double().mean(0) for p in (pooled - move, pooled + move))
        effect = ((high - low) / (2 * step)).detach().numpy()
        assert np.abs(effect).max() > 1e-3
        assert np.allclose(effect, POSITIONS * found.weights[:, k] * float(running[k]), atol=1e-4)


def test_the_rules() -> None:
    found = Importance(np.array([[3.0, -1.0, 0.5, 0.0], [-3.0, 4.0, 0.5, 0.0]]), np.array([1.0, 0.1, 9.0, 5.0]))
    assert ranking(found, "paper").tolist() == [0, 1, 2, 3]  # means 3, 2.5, 0.5, 0
    assert ranking(found).tolist() == ranking(found, "spread").tolist() == [2, 0, 1, 3]  # 4.5, 3, 0.4, 0
    assert ranking(found, "reverse").tolist() == [3, 1, 0, 2]
    tied = Importance(np.ones((2, 6)), np.ones(6))
    assert ranking(tied, "paper").tolist() == ranking(tied, "spread").tolist() == list(range(6))
    drawn = [ranking(tied, "random", seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(sorted(ranking(found, rule).tolist()) == [0, 1, 2, 3] for rule in RULES)


def test_a_scaled_feature_changes_the_papers_order_but_not_ours() -> None:
    """A feature a hundred times smaller, which the standardisation undoes: the network does the same as before."""
    net, images = network(), pictures(60)
    pooled = measure.features(net, images)
    before = importance(net, images)
    last = int(ranking(before, "paper")[-1])
    scale = torch.ones(FEATURES)
    scale[last] = 0.01
    plain = net.backbone
    net.backbone = nn.Sequential(plain, _Scale(scale))
    net.standard.running_mean *= scale
    net.standard.running_var *= scale**2
    net.standard.eps = 1e-12
    assert torch.allclose(measure.features(net, images), pooled * scale, rtol=1e-5)
    after = importance(net, images)
    assert ranking(after, "paper")[0] == last
    assert ranking(after, "spread").tolist() == ranking(before, "spread").tolist()


class _Scale(nn.Module):
    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.scale[:, None, None]


# --- accuracy --------------------------------------------------------------------------------------------------------
def answers(net: Classifier, images: Tensor, mask: Tensor, snr_db: float, seed: int) -> list[int]:
    """The whole network on images, batch by batch as the measurement deals them."""
    found: list[int] = []
    for k, part in enumerate(images.split(250)):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + k)
        told = torch.full((len(part),), snr_db)
        found += net(part / 255.0, told, mask, generator=generator).argmax(1).tolist()
    return found


def test_accuracy_is_that_of_the_whole_network() -> None:
    net, images = network(), pictures(300)
    mask = torch.tensor([True, False, True, True, False, True, False, False])
    named = answers(net, images, mask, -5.0, seed=3)
    labels = torch.tensor(named)
    labels[:90] = (labels[:90] + 1) % CLASSES
    pooled = measure.features(net, images)
    found = measure.accuracy(net, pooled, labels, mask, -5.0, seed=3)
    assert found["accuracy"] == 0.7
    assert found["error"] == pytest.approx(np.std([0] * 90 + [1] * 210, ddof=1) / 300**0.5)
    assert measure.accuracy(net, pooled, labels, mask, -5.0, seed=4)["accuracy"] < 0.7
    assert measure.accuracy(net, pooled, labels, mask, -5.0, seed=3) == found


def test_the_noise_is_the_same_for_every_mask() -> None:
    net = network()
    net.receiver = linear(WEIGHTS)
    met = []
    net.decode = lambda symbols, *rest: met.append(symbols) or torch.zeros(len(symbols), CLASSES)  # type: ignore[assignment,method-assign]
    pooled, labels = torch.rand(40, FEATURES), torch.zeros(40, dtype=torch.long)
    masks = [torch.arange(FEATURES) < 4, torch.arange(FEATURES) >= 2]
    for mask in masks:
        measure.accuracy(net, pooled, labels, mask, 0.0)
    noise = [symbols - net.modulate(pooled, mask).detach() for symbols, mask in zip(met, masks, strict=True)]
    assert torch.allclose(noise[0], noise[1], atol=1e-5)
    assert float(noise[0].abs().square().mean()) == pytest.approx(1.0, rel=0.3)


def test_points_of_eta() -> None:
    net, images = network(), pictures(60)
    pooled, labels = measure.features(net, images), torch.arange(60) % CLASSES
    order = np.array([5, 1, 7, 0, 2, 6, 3, 4])
    points = measure.eta(net, order, (0.0, 0.3, 0.45, 0.55, 1.0), pooled, labels, 5.0, seed=1)
    assert [point["kept"] for point in points] == [8, 6, 4, 2]
    assert [point["ratio"] for point in points] == [0.0, 0.25, 0.5, 0.75]
    mask = torch.zeros(FEATURES, dtype=torch.bool)
    mask[[5, 1, 7, 0]] = True
    assert measure.sent(order, 4).tolist() == mask.tolist()
    expected = measure.accuracy(net, pooled, labels, mask, 5.0, seed=1)
    assert (points[2]["accuracy"], points[2]["error"], points[2]["snr_db"]) == (*expected.values(), 5.0)


def test_dropping_what_matters_not_costs_nothing() -> None:
    """One feature per class decides: with those first, accuracy stays until they are dropped."""
    net, rng = network(), np.random.default_rng(0)
    weights = torch.zeros(CLASSES, FEATURES)
    weights[range(CLASSES), range(2, 2 + CLASSES)] = 1.0
    net.receiver = linear(weights)
    net.gain.data[:] = 1.0
    labels = torch.from_numpy(rng.integers(CLASSES, size=800))
    values = torch.zeros(800, FEATURES)
    values[torch.arange(800), labels + 2] = 3.0
    pooled = values * net.standard.running_var.sqrt() + net.standard.running_mean
    order = np.array([2, 3, 4, 5, 0, 1, 6, 7])
    found = [p["accuracy"] for p in measure.eta(net, order, np.linspace(0, 1, 9), pooled, labels, 20.0)]
    assert found[:3] == pytest.approx([1.0, 1.0, 1.0], abs=0.02)  # 8, 6 and 4 kept
    known = float((labels < 2).double().mean())  # of the others, those whose two rivals are below 0: a guess
    assert found[3] == pytest.approx(known + (1 - known) / 8, abs=0.03)
    backwards = [p["accuracy"] for p in measure.eta(net, order[::-1].copy(), (0.5,), pooled, labels, 20.0)]
    assert backwards == pytest.approx([1 / CLASSES], abs=0.05)


# --- traditional communication ---------------------------------------------------------------------------------------
def test_a_clear_link_leaves_the_classifier_and_the_jpeg() -> None:
    net, images = network(), pictures(30)
    told = torch.full((30,), tcm.CLEAR_DB)
    known = net(images / 255.0, told + 80.0).argmax(1)  # next to no noise, another SNR told
    assert (tcm.clear(net, images, tcm.CLEAR_DB + 80.0) == known).all()
    array, labels = images.numpy(), np.arange(30) % CLASSES
    jpeg = digital.send_uncoded(array, 50, 30.0, np.random.default_rng(0))
    assert jpeg.delivered.all()
    right = float((tcm.clear(net, torch.from_numpy(jpeg.images)).numpy() == labels).mean())
    found = tcm.uncoded(net, array, labels, 30.0)
    assert found["accuracy"] == right
    assert (found["delivered"], found["symbols"]) == (1.0, jpeg.symbols.mean())
    assert found["error"] == pytest.approx(math.sqrt(right * (1 - right) / 29))
    bits = digital.payload_bits(array)
    best = tcm.ideal(net, array, labels, 20.0, symbols=100_000, bits=bits)
    assert (best["delivered"], best["symbols"]) == (1.0, 100_000)


def test_what_does_not_fit_is_not_delivered() -> None:
    net, array = network(), pictures(20).numpy()
    grey = int(tcm.clear(net, torch.full((1, 3, SIDE, SIDE), 128, dtype=torch.uint8))[0])
    labels = np.full(20, grey)
    found = tcm.ideal(net, array, labels, 0.0, symbols=8, bits=digital.payload_bits(array))
    assert found == {"accuracy": 1.0, "error": 0.0, "delivered": 0.0, "symbols": 8.0}


# --- mistakes --------------------------------------------------------------------------------------------------------
POOLED, LABELS = torch.zeros(4, FEATURES), torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("pooled", "labels", "order", "message"),
    [
        (POOLED[:1], LABELS[:1], range(8), "at least 2 images, got 1"),
        (POOLED, LABELS[:3], range(8), r"labels must be int64 \(4,\)"),
        (POOLED, LABELS.float(), range(8), r"labels must be int64 \(4,\), got torch.float32"),
        (POOLED, LABELS, range(7), "order must name each of the 8 features once"),
        (POOLED, LABELS, [0] * 8, "order must name each of the 8 features once"),
    ],
)
def test_mistakes_about_a_measurement(pooled: Tensor, labels: Tensor, order: Sequence[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure.eta(network(), np.array(order), (0.0,), pooled, labels, 0.0)


def test_mistakes_about_importance() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        importance(network(), pictures(1))
    with pytest.raises(ValueError, match=r"weights \(C, K\) and spread \(K,\), got \(2, 3\) and \(2,\)"):
        Importance(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ValueError, match="not finite"):
        Importance(np.full((1, 2), np.nan), np.ones(2))
    with pytest.raises(ValueError, match="unknown rule 'best'"):
        ranking(Importance(np.ones((1, 2)), np.ones(2)), "best")
