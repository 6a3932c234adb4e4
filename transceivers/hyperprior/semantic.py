"""The semantic user of the ASCC paper: decoder and classifier in one, tuned to name what is shown (Section II-B).

Three networks, one after the other:

1. the codec, encoder F_phi and decoder G_theta, trained by (3) for data users, see :mod:`training`;
2. a classifier E, trained on pictures that were never coded;
3. Q_psi = E after G, started from both and tuned by (4): the least cross-entropy over psi, with F_phi as it is.

(4) prints (theta, theta) under the argmin, for the weights of both parts of Q. The encoder stays that of (3), so data
and semantic users are sent the same stream and differ in what they do with it. The tuning sees no bit errors, as the
paper says. One Q serves all rates, as one codec does.

E is the classifier of the compression paper (:mod:`semcom_gym.transceivers.classifier`) without the noise between its
halves. It looks at a picture shrunk to ``look`` pixels a side, by means over blocks.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import usable_device
from semcom_gym.transceivers import checkpoint, data, pixels
from semcom_gym.transceivers import train as training
from semcom_gym.transceivers.classifier import images as labelled
from semcom_gym.transceivers.classifier.network import SIDE, Classifier, Config
from semcom_gym.transceivers.hyperprior import network as codecs

CLASSIFIER, DECODER = "ascc classifier", "ascc semantic decoder"
TOLD_DB = 15.0  # SNR that the classifier's receiver is told, where there is no noise
FOLLOWED, CHUNK = 100, 25  # validation images that the accuracy is followed on, so many at once


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work it is. side: of the images that are coded. look: of those that the classifier sees, which divides
    it. width, features: of the classifier. pool: different images. images: to train E on, repeats counted, in batches
    of ``batch``; tuned: to tune Q on, in batches of ``tuned_batch``.
    """

    side: int
    look: int
    width: int
    features: int
    pool: int
    images: int
    tuned: int
    batch: int = 32
    tuned_batch: int = 16
    learning_rate: float = 2e-3
    tuning_rate: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("width", "features", "pool", "images", "tuned"):
            validate.integer(name, getattr(self, name))
        for name in ("batch", "tuned_batch"):
            validate.integer(name, getattr(self, name), low=4)
        pixels.check_side(self.side, codecs.SIDE)
        pixels.check_side(self.look, SIDE)
        pixels.check_side(self.side, self.look)


Trained = training.Trained


class Viewer(nn.Module):
    """E: logits (n, classes) of square images (n, 3, H, H) in [0, 1], seen at ``look`` pixels a side."""

    def __init__(self, config: Config, look: int) -> None:
        super().__init__()
        self.classifier, self.look = Classifier(config), look

    def forward(self, images: Tensor) -> Tensor:
        """Raises ValueError for images whose sides are no multiples of ``look``."""
        pixels.check_shape(images, self.look)
        seen = functional.avg_pool2d(images, images.shape[-1] // self.look)
        told = seen.new_full((len(seen),), TOLD_DB)
        logits: Tensor = self.classifier.decode(self.classifier.encode(seen), told)
        return logits


class SemanticDecoder(nn.Module):
    """Q: logits from the latents that a stream holds. It starts as E after G, copies of both; of the codec's copy only
    the decoder is used.
    """

    def __init__(self, codec: codecs.Hyperprior, viewer: Viewer) -> None:
        super().__init__()
        self.codec, self.viewer = copy.deepcopy(codec), copy.deepcopy(viewer)

    def forward(self, latents: Tensor) -> Tensor:
        """latents: (n, M, h, w), those that the data user's decoder takes."""
        return self.viewer(self.codec.reconstruct(latents).clamp(0.0, 1.0))


class Pictures:
    """Labelled images of the train and the validation split, made when they are first asked for."""

    def __init__(self, images: str | Path, size: Size, seed: int) -> None:
        self._make = functools.partial(labelled.sets, images, size.side, seed)
        self.size, self.seed = size, seed
        few = self._make("train", True, 2)
        self.classes, self.identity = few.classes, data.identity(few.sources)

    @functools.cached_property
    def train(self) -> labelled.Labelled:
        """Those that are trained on."""
        return self._make("train", True, self.size.pool)

    @functools.cached_property
    def validation(self) -> labelled.Labelled:
        """Those that the accuracy is followed on: of cut-outs, those that are trained on."""
        return self._make("validation", True, FOLLOWED)


def train_classifier(
    pictures: Pictures,
    *,
    path: str | Path,
    device: str = "cpu",
    tensorboard: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train E on uncoded images, or go on from the checkpoint at ``path``.

    The record's evaluations are accuracies on validation images. Raises ValueError, in one line, for a bad device or
    checkpoint.
    """
    size = pictures.size
    viewer = initial(Config("resnet", size.width, size.features, len(pictures.classes)), size.look, pictures.seed)
    settings = training.Settings(size.images, size.batch, size.learning_rate, seed=pictures.seed, evaluations=5)

    def answer(network: nn.Module, images: Tensor, share: Tensor) -> Tensor:
        logits: Tensor = network(images)
        return logits

    return _train(
        viewer, pictures, settings, answer, {"look": size.look}, size.look, path=path, kind=CLASSIFIER, device=device,
        tensorboard=tensorboard, progress=progress,
    )  # fmt: skip


def tune(
    pictures: Pictures,
    codec: codecs.Hyperprior,
    viewer: Trained,
    *,
    path: str | Path,
    device: str = "cpu",
    tensorboard: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Tune Q by (4) on coded images, each at a rate drawn evenly from those of the codec, or go on from ``path``.

    codec: trained by (3); it is not changed. viewer: E. Otherwise as :func:`train_classifier`.
    """
    size, top = pictures.size, codec.config.rates - 1
    settings = training.Settings(size.tuned, size.tuned_batch, size.tuning_rate, seed=pictures.seed, evaluations=5)
    made_of = {"codec": checkpoint.weights_hash(codec.state_dict()), "classifier": viewer.weights_sha256}

    def answer(network: nn.Module, images: Tensor, share: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):  # as the stream holds them
            latents = codec.quantised(images, top * share)
        logits: Tensor = network(latents)
        return logits

    codec.eval()
    return _train(
        SemanticDecoder(codec, viewer.network), pictures, settings, answer, made_of, size.side, path=path, kind=DECODER,
        device=device, tensorboard=tensorboard, progress=progress,
    )  # fmt: skip


def initial(config: Config, look: int, seed: int) -> Viewer:
    """E before training."""
    return training.initial(lambda: Viewer(config, look), seed)


def shrunk(images: Tensor, side: int) -> Tensor:
    """Images uint8 (n, 3, H, H), by means over blocks, as uint8 (n, 3, side, side)."""
    factor = images.shape[-1] // side
    parts = [functional.avg_pool2d(part.float(), factor) for part in images.split(pixels.BATCH)]
    return torch.cat([(part + 0.5).to(torch.uint8) for part in parts])


Answer = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Logits of a network for images in [0, 1]; the last says for each at which share of the range of rates it is coded."""


def _train(
    network: nn.Module, pictures: Pictures, settings: training.Settings, answer: Answer, made_of: dict[str, Any],
    side: int, *, path: str | Path, kind: str, device: str, tensorboard: str | Path | None, progress: bool,
) -> Trained:  # fmt: skip
    """Least cross-entropy on the training images, shrunk to ``side``."""
    where = usable_device(device)
    identity = {
        "size": dataclasses.asdict(pictures.size),
        "classes": list(pictures.classes),
        "data": pictures.identity,
        "made_of": made_of,
        "device": where.type,
    }

    @functools.cache
    def pool(split: str) -> tuple[Tensor, Tensor]:
        found: labelled.Labelled = getattr(pictures, split)
        return shrunk(found.images, side).to(where), found.labels.to(where)

    def sample(rng: np.random.Generator, count: int) -> training.Batch:
        images, labels = pool("train")
        return labelled.augmented(images, labels, torch.from_numpy(rng.integers(len(images), size=count)), rng)

    def loss(network: nn.Module, batch: training.Batch, generator: torch.Generator, done: float) -> Tensor:
        images, labels = batch
        share = torch.rand(len(images), generator=generator, device=where)
        return functional.cross_entropy(answer(network, images, share), labels)

    @torch.no_grad()
    def evaluate(network: nn.Module) -> dict[str, float]:
        network.eval()
        images, labels = pool("validation")
        right = []
        for part, known in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
            share = torch.linspace(0.0, 1.0, len(part), device=where)
            right.append(answer(network, pixels.scaled(part, where), share).argmax(1) == known)
        return {"accuracy": float(torch.cat(right).float().mean())}

    record = training.train(
        network, settings, sample, loss, path=path, kind=kind, identity=identity, evaluate=evaluate, where=where,
        tensorboard=tensorboard, progress=progress,
    )  # fmt: skip
    return training.trained(network.eval(), record, identity, settings)
