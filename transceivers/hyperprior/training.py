"""Training of the codec on crops of photos, one network for every rate, by (3) of the compression paper with the mean
squared error as distortion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import usable_device
from semcom_gym.transceivers import data, pixels
from semcom_gym.transceivers import train as training
from semcom_gym.transceivers.deepjscc.training import crops
from semcom_gym.transceivers.hyperprior import measure
from semcom_gym.transceivers.hyperprior.network import SIDE, Config, Hyperprior

KIND = "hyperprior"
FOLLOWED = 50  # validation crops whose rate and PSNR are followed


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work a profile is. width, latents, rates: of the network. side: of the crops. crops: to train on,
    repeats counted, in batches of ``batch``; pool: different ones among them.
    """

    width: int
    latents: int
    rates: int
    side: int
    crops: int
    batch: int
    pool: int
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("crops", "batch", "pool"):
            validate.integer(name, getattr(self, name))
        Config(self.width, self.latents, self.rates)
        pixels.check_side(self.side, SIDE)


SIZES = {
    "small": Size(width=48, latents=256, rates=8, side=128, crops=60_000, batch=8, pool=6_000),
    "full": Size(width=192, latents=384, rates=8, side=192, crops=3_000_000, batch=32, pool=40_000, learning_rate=5e-4),
}
"""small: for a CPU. full: for a GPU."""


Trained = training.Trained


def train(
    sets: Sequence[str | Path],
    size: Size,
    *,
    path: str | Path,
    seed: int = 0,
    device: str = "cpu",
    tensorboard: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train on the ``train`` split of image sets, or go on from the checkpoint at ``path``.

    The evaluations of the record are ``bpp`` and ``psnr_db`` of validation crops at the lowest, the middle and the
    highest rate, with that number. tensorboard: folder of a log.
    Raises ValueError, in one line, for a bad value, set, device or checkpoint.
    """
    where = usable_device(device)
    config = Config(size.width, size.latents, size.rates)
    settings = training.Settings(size.crops, size.batch, size.learning_rate, seed=seed)
    pool, sources = crops(sets, "train", size.side, size.pool, seed)
    followed, _ = crops(sets, "validation", size.side, FOLLOWED, seed)
    identity = {
        "network": dataclasses.asdict(config),
        "lambdas": config.lambdas.tolist(),
        "crops": {"side": size.side, "pool": size.pool},
        "data": data.identity(sources),
        "device": where.type,
    }
    network = training.initial(lambda: Hyperprior(config), seed)
    pool = pool.to(where)

    def sample(rng: np.random.Generator, count: int) -> training.Batch:
        return (pool[torch.from_numpy(rng.integers(len(pool), size=count)).to(where)],)

    def loss(network: nn.Module, batch: training.Batch, generator: torch.Generator, done: float) -> Tensor:
        return measure.loss(network, batch[0], generator)

    def evaluate(network: nn.Module) -> dict[str, float]:
        top = config.rates - 1
        found = {rate: measure.estimate(network, followed, rate) for rate in (0, top / 2, top)}
        return {f"{name}_{rate:g}": figure for rate, point in found.items() for name, figure in point.items()}

    record = training.train(
        network, settings, sample, loss, path=path, kind=KIND, identity=identity, evaluate=evaluate, where=where,
        tensorboard=tensorboard, progress=progress,
    )  # fmt: skip
    return training.trained(network.eval(), record, identity, settings)


def load(path: str | Path, device: str = "cpu") -> Trained:
    """A trained network from its checkpoint. Raises ValueError, in one line, for a file that is not one."""
    return training.restored(path, KIND, lambda found: Hyperprior(Config(**found["network"])), device)
