"""The paper's iterative training (Algorithm 1): devices encode, the base station decodes, learns and sends back.

The base station has the devices' data as well, the paper's shared database. It draws the same batch Z_n, encodes it
with its own copy of theta_n, compares with what the device sent, adds the channel's noise and goes on from there; that
recomputed X_n is what the gradient of the encoder runs through. All randomness comes from the seed, the device and the
round, so that a resumed run ends, on the CPU, with the weights of one that was not interrupted.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from semcom_gym.envs import validate
from semcom_gym.transceivers import channel, checkpoint, data, metrics, pixels
from semcom_gym.transceivers import train as training
from semcom_gym.transceivers.deepjscc import distributed, measure
from semcom_gym.transceivers.deepjscc.distributed import Device, Link
from semcom_gym.transceivers.deepjscc.network import SIDE, Config, DeepJSCC
from semcom_gym.transceivers.deepjscc.training import crops

KIND = "deepjscc_rounds"
MODELS = ("own", "shared")
LEARNING_RATES = {"adam": 1e-3, "sgd": 1.0}
"""Optimisers, and the step size of each if none is named."""
FOLLOWED = 250  # validation crops that PSNR is measured on
SAME = 1e-4  # largest difference of symbols of power 1 that the device and the base station may compute


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train. rounds: L, a multiple of ``every``, the rounds between measurements. batch: D, crops of a device
    in a round. models: ``own``, a network for every device as printed, or ``shared``, one network with the mean
    gradient. optimizer: ``adam`` or ``sgd``, the printed step. learning_rate: eta, that of the optimiser if None.
    width, maps: of the networks. side: of the crops. pool: different training crops, dealt to the devices. seed:
    decides everything.
    """

    rounds: int
    batch: int = 32
    models: str = "own"
    optimizer: str = "adam"
    learning_rate: float | None = None
    width: int = 32
    maps: int = 32
    side: int = 32
    pool: int = 16_000
    every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "batch", "pool", "every"):
            validate.integer(name, getattr(self, name))
        validate.integer("seed", self.seed, low=0)
        validate.choice("models", self.models, MODELS)
        validate.choice("optimizer", self.optimizer, LEARNING_RATES)
        pixels.check_side(self.side, SIDE)
        Config(self.width, self.maps)
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", LEARNING_RATES[self.optimizer])
        validate.number("learning_rate", self.learning_rate)
        if self.rounds % self.every:
            raise ValueError(f"rounds must be a multiple of every ({self.every}), got {self.rounds}")


@dataclasses.dataclass(frozen=True)
class Trained:
    """The networks (one, or one per device), the record, what decided the result, and the sources of the crops.

    The record has ``round``, ``seconds`` and ``rows``: ``round``, and for each device ``loss`` (mean
    over the rounds since the last row, None at the start), ``psnr_db`` (on its own link) and ``anchor_db``.
    """

    networks: list[DeepJSCC]
    record: dict[str, Any]
    identity: dict[str, Any]
    sources: dict[str, Any]


class Station:
    """The base station: the whole models, their optimisers, the shared data."""

    def __init__(self, devices: Sequence[Device], settings: Settings, config: Config) -> None:
        self.devices = devices
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            first = DeepJSCC(config)
        self.networks = [first]
        if settings.models == "own":
            self.networks += [copy.deepcopy(first) for _ in devices[1:]]  # all start from the same weights
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[settings.optimizer]
        self.optimizers = [kind(network.parameters(), lr=settings.learning_rate) for network in self.networks]

    def network(self, number: int) -> DeepJSCC:
        """The network of a device."""
        return self.networks[number % len(self.networks)]

    @property
    def encoders(self) -> list[torch.nn.Module]:
        """theta_n of every device."""
        return [self.network(device.number).encoder for device in self.devices]

    def update(self, round_number: int, arrived: Sequence[Tensor]) -> list[float]:
        """Lines 6 to 10 of Algorithm 1 from the devices' symbols: decode, and one step on the loss. The losses."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        losses = []
        for device, sent in zip(self.devices, arrived, strict=True):
            loss = self._loss(device, round_number, sent)
            (loss * (len(self.networks) / len(self.devices))).backward()  # the mean over those that share a network
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise _diverged(device, round_number)
        for optimizer in self.optimizers:
            optimizer.step()
        return losses

    def _loss(self, device: Device, round_number: int, sent: Tensor) -> Tensor:
        """MSE of Z_n and f^-1(Y_n | psi_n), with Y_n = X_n + CN(0, 1/S_n) and X_n recomputed, (1)-(3)."""
        network, images = self.network(device.number), device.data(round_number)
        snr_db, maps = device.link.batch(device.batch)
        symbols = network.encode(images, snr_db, maps)
        expected = symbols[:, : device.symbols].detach()
        if not bool(torch.isfinite(torch.view_as_real(expected)).all()):
            raise _diverged(device, round_number)
        distance = float((expected - sent).abs().max())
        if not distance <= SAME:
            raise distributed.DeviceLostError(
                f"device {device.number} sent other symbols in round {round_number} than its data and encoder give "
                f"(largest difference {distance:.3g})"
            )
        generator = device.noise(round_number)
        received, snr = channel.transmit(symbols, channel.db_to_linear(snr_db), "awgn", generator)
        decoded = network.decode(received, channel.linear_to_db(snr), maps, (images.shape[2], images.shape[3]))
        return metrics.mse(decoded, images).mean()

    def measure(self, followed: Tensor, seed: int) -> dict[str, list[float]]:
        """PSNR [dB] on validation crops, for every device: at its own maps and SNR, and at the anchor."""
        maps, snr_db = measure.ANCHOR
        most = self.networks[0].config.maps
        anchors = [measure.psnr_db(net, followed, [min(maps, most)], snr_db, seed=seed) for net in self.networks]
        own = [
            measure.psnr_db(self.network(d.number), followed, [d.link.maps], d.link.snr_db, seed=seed)
            for d in self.devices
        ]
        return {
            "psnr_db": [points[0]["psnr_db"] for points in own],
            "anchor_db": [anchors[d.number % len(anchors)][0]["psnr_db"] for d in self.devices],
        }


def train(
    sets: Sequence[str | Path],
    links: Sequence[Link],
    settings: Settings,
    *,
    path: str | Path,
    cost: Mapping[str, float] | None = None,
    timeout_s: float = 60.0,
    tensorboard: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Train with one device per link on the ``train`` split of image sets, or go on from the checkpoint at ``path``.

    The number of rounds decides nothing else, so a finished run goes on from its end if more are asked for.
    cost: what one round costs, by name; it goes to the log, cumulated, and decides nothing. timeout_s: longest wait
    for a device. tensorboard: folder of a log. Starts processes, see :func:`distributed.group`.
    Raises ValueError, in one line, for a bad value, set or checkpoint; DeviceLostError for a device that died, hangs
    or sends something else; KeyboardInterrupt after Ctrl-C, when the checkpoint is written.
    """
    if not links:
        raise ValueError("at least one link is needed")
    if len(links) > settings.pool:
        raise ValueError(f"pool must hold at least one crop for each of {len(links)} devices, got {settings.pool}")
    config = Config(settings.width, settings.maps)
    pool, sources = crops(sets, "train", settings.side, settings.pool, settings.seed)
    followed, _ = crops(sets, "validation", settings.side, FOLLOWED, settings.seed)
    shards = np.array_split(np.random.default_rng(settings.seed).permutation(len(pool)), len(links))
    devices = [
        Device(n, config, link, pool[torch.from_numpy(shard)].numpy(), settings.batch, settings.seed)
        for n, (link, shard) in enumerate(zip(links, shards, strict=True))
    ]
    identity = {
        **{name: value for name, value in dataclasses.asdict(settings).items() if name != "rounds"},
        "links": [dataclasses.asdict(link) for link in links],
        "data": data.identity(sources),
    }
    station = Station(devices, settings, config)
    record: dict[str, Any] = {"round": 0, "seconds": 0.0, "rows": [], "losses": []}
    if Path(path).exists():
        record = _resume(station, Path(path), identity)
    if record["round"] > settings.rounds:
        raise ValueError(
            f"checkpoint {str(path)!r} is of round {record['round']}, past the {settings.rounds} asked for"
        )
    if record["round"] < settings.rounds:
        run = _Run(station, settings, Path(path), identity, record, followed, dict(cost or {}))
        run.go(timeout_s, tensorboard, progress)
    return Trained(station.networks, record, identity, sources)


@dataclasses.dataclass
class _Run:
    """The rounds that are left."""

    station: Station
    settings: Settings
    path: Path
    identity: dict[str, Any]
    record: dict[str, Any]
    followed: Tensor
    cost: dict[str, float]

    def go(self, timeout_s: float, tensorboard: str | Path | None, progress: bool) -> None:
        record, last = self.record, self.settings.rounds
        started, before = time.perf_counter(), record["seconds"]
        bar = tqdm(
            total=last, initial=record["round"], unit="round", leave=False, file=sys.stderr,
            disable=None if progress else True,
        )  # fmt: skip
        with (
            contextlib.closing(bar),
            training.tensorboard_log(tensorboard, record["round"]) as log,
            training.deferred_interrupt() as interrupted,
            distributed.group(self.station.devices, timeout_s) as group,
        ):
            if not record["rows"]:
                self._measure(log, bar)
            losses = record["losses"][-1] if record["losses"] else [math.nan] * len(self.station.devices)
            group.distribute(record["round"], losses, self.station.encoders)
            while True:
                losses = self.station.update(record["round"], group.collect(record["round"]))
                record["round"] += 1
                record["losses"].append(losses)
                finished = record["round"] == last
                stop = finished or interrupted()
                group.distribute(distributed.STOP if stop else record["round"], losses, self.station.encoders)
                record["seconds"] = before + time.perf_counter() - started
                bar.update()
                log({"loss": sum(losses) / len(losses)}, record["round"])
                due = record["round"] % self.settings.every == 0
                if due:
                    self._measure(log, bar)
                if due or stop:
                    self._save()
                if stop:
                    break
        if interrupted() or not finished:
            raise KeyboardInterrupt

    def _measure(self, log: Any, bar: Any) -> None:
        """A row of the record: the losses since the last one, and PSNR."""
        record = self.record
        losses = [sum(column) / len(column) for column in zip(*record["losses"], strict=True)] or None
        row = {"round": record["round"], "loss": losses, **self.station.measure(self.followed, self.settings.seed)}
        record["rows"].append(row)
        record["losses"] = []
        means = {name: sum(row[name]) / len(row[name]) for name in ("psnr_db", "anchor_db")}
        figures = {f"validation/{name}": value for name, value in means.items()}
        figures |= {f"validation/psnr_db_device_{n}": value for n, value in enumerate(row["psnr_db"])}
        figures |= {f"cost/{name}": value * record["round"] for name, value in self.cost.items()}
        log(figures, record["round"])
        bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})

    def _save(self) -> None:
        content = {
            "identity": self.identity,
            "weights": [network.state_dict() for network in self.station.networks],
            "optimizer": [optimizer.state_dict() for optimizer in self.station.optimizers],
            "record": self.record,
        }
        checkpoint.save(self.path, KIND, content)


def _resume(station: Station, path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Bring the base station to where the checkpoint is; the record. Raises ValueError."""
    content = training.resume(path, KIND, identity)
    if len(content["weights"]) != len(station.networks):
        raise ValueError(f"checkpoint {str(path)!r} holds {len(content['weights'])} networks")
    for network, weights in zip(station.networks, content["weights"], strict=True):
        checkpoint.load_weights(network, weights, path)
    for optimizer, state in zip(station.optimizers, content["optimizer"], strict=True):
        optimizer.load_state_dict(state)
    return dict(content["record"])


def _diverged(device: Device, round_number: int) -> ValueError:
    return ValueError(
        f"the loss of device {device.number} is not finite in round {round_number}: try a smaller learning rate"
    )
