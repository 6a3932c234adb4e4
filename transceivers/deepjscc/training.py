"""Training of the universal deep JSCC network on crops of photos."""

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
from semcom_gym.transceivers import data, pixels
from semcom_gym.transceivers import train as training
from semcom_gym.transceivers.deepjscc import measure
from semcom_gym.transceivers.deepjscc.network import SIDE, Config, DeepJSCC

KIND = "deepjscc"
FOLLOWED = 500  # validation crops that the anchor's PSNR is followed on


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work a profile is. width: of the network. side: of the crops. crops: to train on, repeats counted, in
    batches of ``batch``; pool: different ones among them. tested: crops of the held-out pictures.
    """

    width: int
    side: int
    crops: int
    batch: int
    pool: int
    tested: int
    maps: int = 32
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name in ("width", "crops", "batch", "pool", "maps"):
            validate.integer(name, getattr(self, name))
        validate.integer("tested", self.tested, low=2)
        pixels.check_side(self.side, SIDE)


SIZES = {
    "small": Size(width=32, side=32, crops=1_000_000, batch=64, pool=40_000, tested=2_000),
    "full": Size(width=128, side=64, crops=15_000_000, batch=256, pool=100_000, tested=5_000, learning_rate=1e-3),
}
"""small: for a CPU. full: for a GPU."""


Trained = training.Trained


def crops(sets: Sequence[str | Path], split: str, side: int, count: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """``count`` crops (count, 3, side, side), uint8, of image sets in equal parts, and where they come from.

    split: ``train``, ``validation`` or ``test``.
    Raises ValueError for an unknown set, two sets of one name or too few crops.
    """
    validate.choice("split", split, data.STREAMS)
    if not sets:
        raise ValueError("name at least one set of images")
    if count < len(sets):
        raise ValueError(f"{count} crops of {len(sets)} sets: at least one of each is needed")
    generator = np.random.default_rng([seed, data.STREAMS[split]])
    parts, sources = [], {}
    for k, name in enumerate(sets):
        images = data.load(name, split)
        share = count // len(sets) + (k < count % len(sets))
        parts.append(torch.from_numpy(data.crops(images, side, share, generator)))
        if images.name in sources:
            raise ValueError(f"two sets of images have the name {images.name!r}")
        sources[images.name] = images.origin
    return torch.cat(parts), sources


def psnr_by_picture(
    trained: Trained, sets: Sequence[str | Path], side: int, *, pictures: int, count: int, seed: int = 0
) -> list[float]:
    """PSNR [dB] at the anchor of each of the first held-out pictures, ``pictures`` of every set, by ``count`` crops.

    Crops of one picture are alike, so that only the spread over pictures says what another set of them would give.
    """
    maps, snr_db = measure.ANCHOR
    generator = np.random.default_rng([seed, data.STREAMS["test"]])
    found = []
    for name in sets:
        for image in data.load(name, "test").images[:pictures]:
            part = torch.from_numpy(data.crops([image], side, count, generator))
            point = measure.psnr_db(trained.network, part, [min(maps, trained.network.config.maps)], snr_db, seed=seed)
            found.append(point[0]["psnr_db"])
    return found


def train(
    sets: Sequence[str | Path],
    size: Size,
    *,
    path: str | Path,
    seed: int = 0,
    device: str = "cpu",
    span: measure.Range = measure.Range(),  # noqa: B008 (frozen)
    medium: str = "awgn",
    anchor: tuple[int, float] = measure.ANCHOR,
    tensorboard: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train on the ``train`` split of image sets, or go on from the checkpoint at ``path``.

    span: SNRs and ratios trained for. medium: ``awgn`` or ``rayleigh``. anchor: maps and SNR [dB] at which the PSNR is
    followed. tensorboard: folder of a log.
    Raises ValueError, in one line, for a bad value, set, device or checkpoint.
    """
    where = usable_device(device)
    config = Config(size.width, size.maps)
    settings = training.Settings(size.crops, size.batch, size.learning_rate, seed=seed)
    pool, sources = crops(sets, "train", size.side, size.pool, seed)
    followed, _ = crops(sets, "validation", size.side, FOLLOWED, seed)
    identity = {
        "network": dataclasses.asdict(config),
        "range": dataclasses.asdict(span),
        "channel": medium,
        "crops": {"side": size.side, "pool": size.pool},
        "data": data.identity(sources),
        "device": where.type,
    }
    network = training.initial(lambda: DeepJSCC(config), seed)
    pool = pool.to(where)

    def sample(rng: np.random.Generator, count: int) -> training.Batch:
        return (pool[torch.from_numpy(rng.integers(len(pool), size=count)).to(where)],)

    def loss(network: nn.Module, batch: training.Batch, generator: torch.Generator, done: float) -> Tensor:
        return measure.loss(network, batch[0], generator, span, medium)

    def evaluate(network: nn.Module) -> dict[str, float]:
        maps, snr_db = anchor
        point = measure.psnr_db(network, followed, [min(maps, config.maps)], snr_db, seed=seed, medium=medium)[0]
        return {"psnr_db": point["psnr_db"]}

    record = training.train(
        network, settings, sample, loss, path=path, kind=KIND, identity=identity, evaluate=evaluate, where=where,
        tensorboard=tensorboard, progress=progress,
    )  # fmt: skip
    return training.trained(network, record, identity, settings)


def load(path: str | Path, device: str = "cpu") -> Trained:
    """A trained network from its checkpoint. Raises ValueError, in one line, for a file that is not one."""
    return training.restored(path, KIND, lambda found: DeepJSCC(Config(**found["network"])), device)
