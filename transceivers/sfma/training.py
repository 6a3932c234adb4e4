"""Training of SC-SFMA and the schemes it is compared with, on pairs of crops of photographs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import usable_device
from semcom_gym.transceivers import data
from semcom_gym.transceivers import train as training
from semcom_gym.transceivers.sfma import measure
from semcom_gym.transceivers.sfma import pairs as paired
from semcom_gym.transceivers.sfma.network import SCHEMES, USERS, Config, Transceiver, build

KIND = "sfma"
FOLLOWED = 200  # validation pairs of each kind that is followed
FOLLOWED_KINDS = ("random", "same_scene", "near_duplicate")
SHARES = {"random": 0.4, "same_scene": 0.2, "mix": 0.15, "near_duplicate": 0.15, "identical": 0.1}
"""How often each kind of pair is trained on."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work a profile is. config: of the networks. side: of the images. pairs: to train on, repeats counted, in
    batches of ``batch``; pool: different crops that they are made of. tested: held-out pairs of each kind.
    """

    config: Config
    side: int
    pairs: int
    batch: int
    pool: int
    tested: int
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("side", "pairs", "batch", "pool"):
            validate.integer(name, getattr(self, name))
        validate.integer("tested", self.tested, low=2)
        self.config.check_side(self.side, self.side)


SIZES = {
    "small": Size(Config(), side=32, pairs=80_000, batch=16, pool=40_000, tested=200, learning_rate=3e-3),
    "full": Size(
        Config(channels=64, depths=(2, 2, 6, 2), heads=(2, 4, 8, 16), window=8, width=128), side=64, pairs=3_000_000,
        batch=128, pool=100_000, tested=2_000, learning_rate=5e-4,
    ),
}  # fmt: skip
"""small: for a CPU; chosen on validation crops. full: for a GPU; the paper's stages at half its C_1, smaller images."""


Trained = training.Trained


def train(
    scheme: str,
    sets: Sequence[str | Path],
    size: Size,
    *,
    path: str | Path,
    seed: int = 0,
    device: str = "cpu",
    span: measure.Range = measure.Range(),  # noqa: B008 (frozen)
    tensorboard: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train a scheme on the ``train`` split of image sets, or go on from the checkpoint at ``path``.

    scheme: one of ``network.SCHEMES``; all see the same pairs. span: SNRs and deltas trained for. The record counts
    images, two for a pair; its evaluations are the PSNR [dB] on validation pairs of three kinds, at 10 dB and
    delta = 0.5. tensorboard: folder of a log.
    Raises ValueError, in one line, for a bad value, set, device or checkpoint.
    """
    validate.choice("scheme", scheme, SCHEMES)
    where = usable_device(device)
    network, sent = initial(scheme, size.config, seed), size.config.sent(span.least_share)
    if sent < network.least:
        channels = f"{sent} channels of {size.config.features}: at least {network.least} are needed"
        raise ValueError(f"least_share {span.least_share:g} sends {channels}")
    settings = training.Settings(USERS * size.pairs, USERS * size.batch, size.learning_rate, seed=seed)
    pool = paired.scenes(sets, "train", size.side, size.pool, seed).to(where)
    followed = follow(sets, size.side, seed)
    identity = {
        "scheme": scheme,
        "network": dataclasses.asdict(size.config),
        "range": dataclasses.asdict(span),
        "pairs": {"side": size.side, "pool": size.pool, "shares": SHARES},
        "data": data.identity(pool.sources),
        "device": where.type,
    }

    def sample(rng: np.random.Generator, count: int) -> training.Batch:
        return (mixed(pool, rng, count // USERS, size.side).flatten(0, 1),)

    def loss(network: nn.Module, batch: training.Batch, generator: torch.Generator, done: float) -> Tensor:
        return measure.loss(network, batch[0].unflatten(0, (-1, USERS)), generator, span)

    def evaluate(network: nn.Module) -> dict[str, float]:
        snr_db, share = measure.ANCHOR
        return {
            kind: measure.surface(network, found, [snr_db], [share], seed)[0]["psnr_db"]
            for kind, found in followed.items()
        }

    record = training.train(
        network, settings, sample, loss, path=path, kind=KIND, identity=identity, evaluate=evaluate, where=where,
        tensorboard=tensorboard, progress=progress,
    )  # fmt: skip
    return training.trained(network, record, identity, settings)


def load(path: str | Path, device: str = "cpu") -> Trained:
    """A trained network from its checkpoint. Raises ValueError, in one line, for a file that is not one."""

    def made(identity: dict[str, Any]) -> Transceiver:
        return build(identity["scheme"], Config(**identity["network"]))

    return training.restored(path, KIND, made, device)


def initial(scheme: str, config: Config, seed: int) -> Transceiver:
    """The network before training."""
    return training.initial(lambda: build(scheme, config), seed)


def mixed(pool: paired.Scenes, rng: np.random.Generator, count: int, side: int) -> Tensor:
    """Pairs of all kinds, each as often as SHARES say in the mean, uint8 (count, 2, 3, side, side)."""
    counts = rng.multinomial(count, list(SHARES.values()))
    parts = [paired.sample(pool, kind, rng, int(n), side) for kind, n in zip(SHARES, counts, strict=True) if n]
    return torch.cat(parts)


def follow(sets: Sequence[str | Path], side: int, seed: int) -> dict[str, Tensor]:
    """Validation pairs of the kinds that are followed, the first images the same in all."""
    pool = paired.scenes(sets, "validation", side, 5 * FOLLOWED, seed)
    return {
        kind: paired.sample(pool, kind, np.random.default_rng([seed, data.STREAMS["validation"]]), FOLLOWED, side)
        for kind in FOLLOWED_KINDS
    }
