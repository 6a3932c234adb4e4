"""Training of the classifier in the two phases of Section III-B of the compression paper.

Phase 1 fits q_theta to what the transmitter sends and the receiver gets; labels take no part. Phase 2 minimises (18),
cross-entropy - kappa I_up, in the weights of transmitter and receiver. There q_theta keeps following, by L_MI on values
detached from the transmitter: I_up bounds the information only while q is near p(y|x), and the transmitter changes;
and in (18) itself q would raise -kappa I_up without limit, by taking a low likelihood for every other pair.

Features are dropped only in use, as in the paper, but the receiver should know what that is like: over the last third
of phase 2 half of each batch is sent with random features missing.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import usable_device
from semcom_gym.transceivers import channel, checkpoint, data, pixels
from semcom_gym.transceivers import train as training
from semcom_gym.transceivers.classifier import images as labelled
from semcom_gym.transceivers.classifier import information, measure
from semcom_gym.transceivers.classifier.network import SIDE, Classifier, Config

KIND = "classifier"
FOLLOWED, FOLLOWED_DB = 1_000, 5.0  # validation images and SNR of the accuracy that is followed
DROP_FROM = 2.0 / 3.0  # share of phase 2 from which features are dropped
LEAST_KEPT = 0.03  # share of the features


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work a profile is. width, features: of the network. side: of the images. images: to train on in
    phase 2, repeats counted, in batches of ``batch``; fitted: in phase 1; pool: different ones. tested: held-out ones.
    """

    width: int
    features: int
    side: int
    images: int
    batch: int
    fitted: int
    pool: int
    tested: int
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("width", "features", "images", "fitted", "pool"):
            validate.integer(name, getattr(self, name))
        validate.integer("batch", self.batch, low=4)
        validate.integer("tested", self.tested, low=2)
        pixels.check_side(self.side, SIDE)


SIZES = {
    "small": Size(
        width=16, features=256, side=64, images=500_000, batch=32, fitted=20_000, pool=40_000, tested=2_000
    ),
    "full": Size(
        width=64, features=512, side=96, images=6_000_000, batch=256, fitted=100_000, pool=200_000, tested=5_000,
        learning_rate=1e-3,
    ),
}  # fmt: skip
"""small: for a CPU. full: for a GPU."""


@dataclasses.dataclass(frozen=True)
class Link:
    """What a network is trained for: SNR uniform in [low_db, high_db] on a channel with white noise. kappa: of (18)."""

    low_db: float = -5.0
    high_db: float = 15.0
    kappa: float = 1e-3

    def __post_init__(self) -> None:
        channel.check_span(self.low_db, self.high_db)
        validate.number("kappa", self.kappa, high=1.0, open_low=False)


Trained = training.Trained


class Pair(nn.Module):
    """The classifier and q_theta, which learn side by side."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.classifier, self.likelihood = Classifier(config), information.Likelihood(config.features)


def train(
    images: str | Path,
    size: Size,
    *,
    path: str | Path,
    backbone: str = "resnet",
    seed: int = 0,
    device: str = "cpu",
    link: Link = Link(),
    tensorboard: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train on the ``train`` split of labelled images, or go on from the checkpoints at ``path`` and beside it.

    images: ``stamps`` or another set, see :func:`images.sets`. Phase 1 keeps its checkpoint at ``path`` with
    ``.phase1`` before the suffix. The evaluations of the record are accuracies on validation images at 5 dB with all
    features: ``seen`` for cut-outs that are trained on, before new backgrounds, and ``unseen`` for others.
    Raises ValueError, in one line, for a bad value, set, device or checkpoint.
    """
    where, path = usable_device(device), Path(path)
    trained_on = labelled.sets(images, size.side, seed, "train", True, size.pool)
    config = Config(backbone, size.width, size.features, len(trained_on.classes))
    followed = {
        name: labelled.sets(images, size.side, seed, "validation", seen, FOLLOWED)
        for name, seen in (("seen", True), ("unseen", False))
    }
    identity = {
        "network": dataclasses.asdict(config),
        "link": dataclasses.asdict(link),
        "classes": list(trained_on.classes),
        "images": {"side": size.side, "pool": size.pool, "fitted": size.fitted},
        "data": data.identity(trained_on.sources),
        "device": where.type,
    }
    pair = initial(config, seed)
    pool, labels = trained_on.images.to(where), trained_on.labels.to(where)

    def sample(rng: np.random.Generator, count: int) -> training.Batch:
        return labelled.augmented(pool, labels, torch.from_numpy(rng.integers(len(pool), size=count)), rng)

    def accuracies(pair: nn.Module) -> dict[str, float]:
        network = pair.classifier
        return {
            name: measure.accuracy(
                network, measure.features(network, found.images), found.labels, None, FOLLOWED_DB, seed=seed
            )["accuracy"]
            for name, found in followed.items()
        }

    def phase(number: int, count: int, file: Path, **rest: Any) -> tuple[dict[str, Any], training.Settings]:
        settings = training.Settings(count, size.batch, size.learning_rate, seed=seed)
        log = None if tensorboard is None else Path(tensorboard) / f"phase{number}"
        record = training.train(
            pair, settings, sample, path=file, kind=f"{KIND} phase {number}" if number == 1 else KIND,
            identity=identity, where=where, tensorboard=log, progress=progress, **rest,
        )  # fmt: skip
        return record, settings

    def fitted(pair: nn.Module, batch: training.Batch, generator: torch.Generator, done: float) -> Tensor:
        return phase_1(pair, batch, generator, link)

    def whole(pair: nn.Module, batch: training.Batch, generator: torch.Generator, done: float) -> Tensor:
        return phase_2(pair, batch, generator, done, link)

    phase(1, size.fitted, path.with_name(f"{path.stem}.phase1{path.suffix}"), loss=fitted, evaluate=lambda pair: {})
    record, settings = phase(2, size.images, path, loss=whole, evaluate=accuracies)
    return training.trained(pair.classifier.eval(), record, identity, settings)


def load(path: str | Path, device: str = "cpu") -> Trained:
    """A trained network from its checkpoint. Raises ValueError, in one line, for a file that is not one."""
    content = checkpoint.load(path, KIND, training.KEYS)
    pair = Pair(Config(**content["identity"]["network"]))
    checkpoint.load_weights(pair, content["weights"], path)
    pair.to(usable_device(device), memory_format=torch.channels_last)  # as in training, to the last bit
    network = pair.classifier.eval()
    return Trained(network, content["record"], content["identity"], checkpoint.weights_hash(network.state_dict()))


def initial(config: Config, seed: int) -> Pair:
    """The networks before training."""
    return training.initial(lambda: Pair(config), seed)


def phase_1(pair: nn.Module, batch: training.Batch, generator: torch.Generator, link: Link) -> Tensor:
    """L_MI per value of q_theta, for a transmitter that stays as it is."""
    snr_db = _snr_db(len(batch[0]), generator, link)
    with torch.no_grad():
        sent = pair.classifier.encode(batch[0])
        received, _ = channel.transmit(sent, channel.db_to_linear(snr_db), "awgn", generator)
    x, y = channel.to_values(sent), channel.to_values(received)
    return information.loss(pair.likelihood(x, y, snr_db)) / x.shape[1]


def phase_2(
    pair: nn.Module, batch: training.Batch, generator: torch.Generator, done: float, link: Link
) -> Tensor:  # fmt: skip
    """(18) in the weights of the classifier, with I_up from the images that are sent whole, plus L_MI in those of q.

    done: share of the phase that is over. Batch: images and labels.
    """
    images, labels = batch
    network = pair.classifier
    n, whole = len(images), len(images)
    sent, snr_db = None, _snr_db(n, generator, link)
    if done >= DROP_FROM:
        whole = n // 2
        sent = torch.cat((
            torch.ones(whole, network.config.features, dtype=torch.bool, device=images.device),
            random_masks(n - whole, network.config.features, generator),
        ))  # fmt: skip
    symbols = network.encode(images, sent)
    received, _ = channel.transmit(symbols, channel.db_to_linear(snr_db), "awgn", generator)
    task = functional.cross_entropy(network.decode(received, snr_db, sent), labels)
    x, y, told = channel.to_values(symbols)[:whole], channel.to_values(received)[:whole], snr_db[:whole]
    following = information.loss(pair.likelihood(x.detach(), y.detach(), told)) / x.shape[1]
    fixed = {name: value.detach() for name, value in pair.likelihood.named_parameters()}
    bound = information.upper_bound(functional_call(pair.likelihood, fixed, (x, y, told)))
    return task - link.kappa * bound + following


def random_masks(count: int, features: int, generator: torch.Generator) -> Tensor:
    """Which features are sent, boolean (count, features): a share uniform in [0.03, 1], even, whichever they are."""
    where = generator.device
    share = LEAST_KEPT + (1.0 - LEAST_KEPT) * torch.rand(count, generator=generator, device=where)
    number = (2 * torch.round(share * features / 2)).clamp(min=2)
    rank = torch.rand(count, features, generator=generator, device=where).argsort(1).argsort(1)
    return rank < number[:, None]


def _snr_db(count: int, generator: torch.Generator, link: Link) -> Tensor:
    uniform = torch.rand(count, generator=generator, device=generator.device)
    return link.low_db + (link.high_db - link.low_db) * uniform
