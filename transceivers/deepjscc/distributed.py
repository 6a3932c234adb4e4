"""A base station and its devices as a process group (torch.distributed, gloo) on one machine.

Rank 0 is the base station, in the caller's process. Ranks 1 to N are devices, processes of their own; each holds its
share of the training crops and an encoder, nothing else. In a round l the base station sends every device l, the loss
of the round before and the encoder's weights; the device encodes its batch and sends the symbols back, without noise:
the channel is applied where they arrive. Devices hold no gradients and draw nothing that a resumed run could miss.

Nothing listens to the network: processes find each other by a file and talk over the loopback interface.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from semcom_gym.envs import validate
from semcom_gym.envs.processes import shielded
from semcom_gym.transceivers import channel, pixels
from semcom_gym.transceivers.deepjscc.network import SIDE, Config, DeepJSCC

STOP = -1  # in place of a round: the device may go
POLL_S, SETTLE_S, GRACE_S, START_S = 0.02, 2.0, 5.0, 300.0
FOREVER = datetime.timedelta(days=365)  # a base station that dies closes the connection, which ends the wait
INTERFACE = "GLOO_SOCKET_IFNAME"
STREAMS = {"batch": 1, "noise": 2}


class DeviceLostError(Exception):
    """A device process died or did not answer in time."""


@dataclasses.dataclass(frozen=True)
class Link:
    """What a device's allocation says of its uplink. maps: feature maps sent, rho = maps / 96. snr_db: S_n."""

    maps: int
    snr_db: float

    def __post_init__(self) -> None:
        validate.integer("maps", self.maps)
        validate.number("snr_db", self.snr_db, low=-60.0, high=100.0, open_low=False)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """The link of ``count`` images, as the network wants it: SNR [dB] and maps, each (count,)."""
        return torch.full((count,), float(self.snr_db)), torch.full((count,), self.maps)


@dataclasses.dataclass(frozen=True)
class Device:
    """What device ``number`` (from 0) starts with. crops: its data, uint8 (k, 3, H, W). batch: D, images in a round."""

    number: int
    config: Config
    link: Link
    crops: np.ndarray
    batch: int
    seed: int

    def __post_init__(self) -> None:
        shape = self.crops.shape
        if self.crops.dtype != np.uint8 or len(shape) != 4 or shape[1] != 3 or 0 in shape or any(
            side % SIDE for side in shape[2:]
        ):  # fmt: skip
            raise ValueError(f"crops must be uint8 (k, 3, H, W), H and W multiples of {SIDE}, got {shape}")
        validate.integer("batch", self.batch)
        validate.integer("seed", self.seed, low=0)
        if self.link.maps > self.config.maps:
            raise ValueError(f"device {self.number} would send {self.link.maps} maps of {self.config.maps}")

    @property
    def symbols(self) -> int:
        """Complex symbols of an image that are sent."""
        return self.link.maps * self.crops.shape[2] * self.crops.shape[3] // 32

    def data(self, round_number: int) -> Tensor:
        """Z_n of a round, (D, 3, H, W) in [0, 1]; the base station draws the same ones."""
        rng = np.random.default_rng([self.seed, self.number, round_number, STREAMS["batch"]])
        return pixels.scaled(torch.from_numpy(self.crops[rng.integers(len(self.crops), size=self.batch)]))

    def noise(self, round_number: int) -> torch.Generator:
        """Where the channel's noise of a round comes from."""
        rng = np.random.default_rng([self.seed, self.number, round_number, STREAMS["noise"]])
        return torch.Generator().manual_seed(int(rng.integers(2**63)))


class Group:
    """The base station's end of the connections."""

    def __init__(self, devices: Sequence[Device], processes: Sequence[BaseProcess], timeout_s: float) -> None:
        self.devices = devices
        self.processes = processes
        self.timeout_s = timeout_s

    def distribute(self, round_number: int, losses: Sequence[float], encoders: Sequence[nn.Module]) -> None:
        """Send every device the round that comes next, or STOP, its last loss and its encoder's weights."""
        for n, (loss, encoder) in enumerate(zip(losses, encoders, strict=True)):
            message = torch.cat([torch.tensor([loss], dtype=torch.float32), flat(encoder)])
            with self._watch(n, round_number):
                dist.send(torch.tensor([round_number]), n + 1)
                dist.send(message, n + 1)

    def collect(self, round_number: int) -> list[Tensor]:
        """X_n of every device, (D, symbols), as it was sent. Raises DeviceLostError."""
        values = [torch.empty(d.batch, 2 * d.symbols) for d in self.devices]
        works = []
        for n, value in enumerate(values):
            with self._watch(n, round_number):
                works.append(dist.irecv(value, n + 1))
        for n, work in enumerate(works):
            with self._watch(n, round_number):
                work.wait(datetime.timedelta(seconds=self.timeout_s))
        return [channel.to_symbols(value) for value in values]

    @contextlib.contextmanager
    def _watch(self, number: int, round_number: int) -> Iterator[None]:
        """Say which device is at fault when a transfer with one of them fails."""
        try:
            yield
        except RuntimeError as error:
            deadline = time.monotonic() + SETTLE_S  # a connection closes before its process is gone
            while _failed(self.processes) is None and time.monotonic() < deadline:
                time.sleep(POLL_S)
            where = "at the end" if round_number == STOP else f"in round {round_number}"
            reason = _failed(self.processes) or f"device {number} did not answer within {self.timeout_s:g} s"
            raise DeviceLostError(f"{reason} {where}") from error


@contextlib.contextmanager
def group(devices: Sequence[Device], timeout_s: float = 60.0) -> Iterator[Group]:
    """Start the devices' processes and connect them; when the block is left, none of them is.

    timeout_s: longest wait for an answer of a device, once all are there. A script that calls this needs the usual
    guard ``if __name__ == "__main__":``, as each process imports it.
    Raises ValueError for a bad value or a process group in use, DeviceLostError if a device cannot be started.
    """
    validate.number("timeout_s", timeout_s, high=86_400.0)
    if not devices:
        raise ValueError("at least one device is needed")
    if dist.is_initialized():
        raise ValueError("this process is in a process group of torch.distributed already")
    try:
        folder = tempfile.mkdtemp(prefix="semcom-gym-")
    except OSError as error:
        raise ValueError(f"no folder for the processes to meet in: {error.strerror}") from None
    processes: list[BaseProcess] = []
    try:
        with _loopback():
            with shielded():  # Ctrl-C is the base station's to handle
                context = multiprocessing.get_context("spawn")
                for rank, device in enumerate(devices, 1):
                    arguments = (rank, len(devices) + 1, f"{folder}/store", device, timeout_s)
                    processes.append(context.Process(target=_device, args=arguments, daemon=True))
                    processes[-1].start()
            _meet(f"{folder}/store", processes, timeout_s)
        yield Group(devices, processes, timeout_s)
        if dist.is_initialized():
            dist.destroy_process_group()
        deadline = time.monotonic() + GRACE_S
        for process in processes:  # told to stop, so on their way out
            process.join(max(0.0, deadline - time.monotonic()))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for process in processes:
            process.kill()  # also one that is stopped
            process.join()
        shutil.rmtree(folder, ignore_errors=True)


def flat(module: nn.Module) -> Tensor:
    """All weights of a module as one float32 vector."""
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def _meet(path: str, processes: Sequence[BaseProcess], timeout_s: float) -> None:
    """Join the group once every device is there, so that one that dies at its start is noticed at once."""
    world = len(processes) + 1
    try:
        store = dist.FileStore(path, world)
        names = [f"ready/{rank}" for rank in range(1, world)]
        started = time.monotonic()
        while not store.check(names):
            reason = _failed(processes)
            if reason is None and time.monotonic() - started > START_S:
                reason = f"the devices were not ready within {START_S:g} s"
            if reason is not None:
                raise DeviceLostError(f"{reason} at the start")
            time.sleep(POLL_S)
        _join(store, 0, world, timeout_s)
    except RuntimeError as error:
        raise DeviceLostError(f"the process group cannot be made: {str(error).splitlines()[0]}") from error


def _join(store: dist.Store, rank: int, world: int, timeout_s: float) -> None:
    timeout = datetime.timedelta(seconds=timeout_s)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)


def _failed(processes: Sequence[BaseProcess]) -> str | None:
    """Which device is gone, and how; None if none is. One that left in order did so as a connection was closed."""
    for n, process in enumerate(processes):
        code = process.exitcode
        if code:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return f"device {n} {how}"
    return None


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Keep gloo, here and in processes started now, on the loopback interface unless the user chose another."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if INTERFACE in os.environ or not names:
        yield
        return
    os.environ[INTERFACE] = names[0]
    try:
        yield
    finally:
        del os.environ[INTERFACE]


# --- a device's process ----------------------------------------------------------------------------------------------
def _device(rank: int, world: int, path: str, device: Device, timeout_s: float) -> None:
    """Life of a device: until STOP, take the round and theta_n, send X_n = f(Z_n | theta_n), (1)."""
    torch.set_num_threads(1)
    network = DeepJSCC(device.config)
    del network.decoder, network.output  # psi_n is the base station's
    store = dist.FileStore(path, world)
    store.set(f"ready/{rank}", "")
    with contextlib.suppress(_GoneError):
        with _transfer():
            _join(store, rank, world, timeout_s)
        _serve(device, network)
    if dist.is_initialized():
        dist.destroy_process_group()


def _serve(device: Device, network: DeepJSCC) -> None:
    header, message = torch.empty(1, dtype=torch.long), torch.empty(1 + flat(network.encoder).numel())
    while True:
        with _transfer():
            dist.irecv(header, 0).wait(FOREVER)
            dist.irecv(message, 0).wait(FOREVER)
        if header.item() == STOP:
            return
        nn.utils.vector_to_parameters(message[1:], network.encoder.parameters())
        with torch.no_grad():
            symbols = network.encode(device.data(int(header)), *device.link.batch(device.batch))
        with _transfer():
            dist.send(channel.to_values(symbols[:, : device.symbols]).contiguous(), 0)


class _GoneError(Exception):
    """The base station is no longer there."""


@contextlib.contextmanager
def _transfer() -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        raise _GoneError from None
