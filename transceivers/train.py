"""The training loop of every transceiver.

All randomness of a step comes from the seed and the number of the step, so a run that was interrupted and resumed ends,
on the CPU, with the weights of one that was not. A checkpoint is written every minute, at every evaluation and on
Ctrl-C, which lets the step in progress end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import usable_device
from semcom_gym.transceivers import checkpoint

CHECKPOINT_SECONDS = 60.0
LOG_EVERY = 50  # steps
WARM_UP, FINAL_RATE = 0.02, 0.01  # share of the steps; share of the learning rate at the end
KEYS = ("identity", "weights", "optimizer", "record")

Batch = tuple[Tensor, ...]
"""The images first, then what belongs to each of them, such as labels."""
Sample = Callable[[np.random.Generator, int], Batch]
Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[[nn.Module, Batch, torch.Generator, float], Tensor]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train. images: to see in all, in batches of ``batch``. learning_rate: of Adam, the peak of a schedule
    with a linear start and a cosine end. clip: largest norm of the gradient. seed: decides everything.
    evaluations: how often to evaluate, at equal distances.
    """

    images: int
    batch: int = 64
    learning_rate: float = 1e-3
    clip: float = 1.0
    seed: int = 0
    evaluations: int = 10

    def __post_init__(self) -> None:
        for name in ("images", "batch", "evaluations"):
            validate.integer(name, getattr(self, name))
        validate.integer("seed", self.seed, low=0)
        validate.number("learning_rate", self.learning_rate)
        validate.number("clip", self.clip)

    @property
    def steps(self) -> int:
        """Number of batches."""
        return math.ceil(self.images / self.batch)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, the record of its training, what decided the result, and the SHA-256 of the weights."""

    network: Any
    record: dict[str, Any]
    identity: dict[str, Any]
    weights_sha256: str


def initial(make: Callable[[], Network], seed: int) -> Network:
    """What ``make`` makes with torch's generator at a seed: a network before training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def trained(network: nn.Module, record: dict[str, Any], identity: dict[str, Any], settings: Settings) -> Trained:
    """A network after :func:`train`, with what decided the result."""
    whole = {**identity, "training": dataclasses.asdict(settings)}
    return Trained(network, record, whole, checkpoint.weights_hash(network.state_dict()))


def restored(
    path: str | Path, kind: str, make: Callable[[dict[str, Any]], nn.Module], device: str = "cpu"
) -> Trained:  # fmt: skip
    """A trained network from its checkpoint; make: the network of an identity, untrained.

    Raises ValueError, in one line, for a file that is not one.
    """
    content = checkpoint.load(path, kind, KEYS)
    network = make(content["identity"])
    checkpoint.load_weights(network, content["weights"], path)
    network.to(usable_device(device), memory_format=torch.channels_last).eval()  # as in training, to the last bit
    return Trained(network, content["record"], content["identity"], checkpoint.weights_hash(content["weights"]))


def train(
    network: nn.Module,
    settings: Settings,
    sample: Sample,
    loss: Loss,
    *,
    path: str | Path,
    kind: str,
    identity: dict[str, Any],
    evaluate: Callable[[nn.Module], dict[str, float]],
    where: torch.device,
    tensorboard: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train ``network`` on the device ``where``, or go on from the checkpoint at ``path``; returns the record.

    sample: a batch from a generator and n: images (n, 3, H, W), uint8, and any tensors beside them. loss: of the
    network on the batch, its images now in [0, 1], with the share of the training that is done; its random draws come
    from the generator. evaluate: figures for the log. identity: what decides the result, plain values;
    a checkpoint of another identity is refused. tensorboard: folder of the log, none if None.
    The record has ``step``, ``images``, ``seconds``, ``finished`` and ``curve`` (the evaluations).

    On CUDA the network runs in bfloat16 mixed precision. Raises ValueError for a foreign or corrupt checkpoint and
    for a loss that is no longer finite, KeyboardInterrupt after Ctrl-C, when the checkpoint is written.
    """
    identity = {**identity, "training": dataclasses.asdict(settings)}
    network.to(where, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), settings.learning_rate)
    record: dict[str, Any] = {"step": 0, "images": 0, "seconds": 0.0, "finished": False, "curve": []}
    if Path(path).exists():
        content = resume(Path(path), kind, identity)
        checkpoint.load_weights(network, content["weights"], path)
        record = content["record"]
        if record["finished"]:
            return record
        optimizer.load_state_dict(content["optimizer"])

    def save() -> None:
        kept = {} if record["finished"] else optimizer.state_dict()
        weights = {name: value.contiguous() for name, value in network.state_dict().items()}
        content = {"identity": identity, "weights": weights, "optimizer": kept, "record": record}
        checkpoint.save(path, kind, content)

    generator = torch.Generator(where)
    every = math.ceil(settings.steps / settings.evaluations)
    started, before, saved = time.perf_counter(), record["seconds"], time.perf_counter()
    bar = tqdm(
        total=settings.steps * settings.batch, initial=record["images"], unit="image", unit_scale=True, leave=False,
        file=sys.stderr, disable=None if progress else True,
    )  # fmt: skip
    with (
        contextlib.closing(bar),
        tensorboard_log(tensorboard, record["step"]) as log,
        deferred_interrupt() as interrupted,
    ):
        while not record["finished"]:
            step = record["step"]
            rate = settings.learning_rate * _schedule(step, settings.steps)
            value, norm = _step(network, optimizer, rate, settings, step, sample, loss, generator, where)
            record["step"], record["images"] = step + 1, (step + 1) * settings.batch
            record["seconds"] = before + time.perf_counter() - started
            record["finished"] = step + 1 == settings.steps
            bar.update(settings.batch)
            if step % LOG_EVERY == 0 or record["finished"]:
                if not math.isfinite(value.item()):
                    raise ValueError(f"the loss is not finite at step {step}: try a learning rate below {rate:g}")
                log({"loss": value.item(), "gradient_norm": norm.item(), "learning_rate": rate,
                     "images_per_second": (record["images"] / record["seconds"])}, record["step"])  # fmt: skip
            if (step + 1) % every == 0 or record["finished"]:
                point = evaluate(network)
                log({f"validation/{name}": figure for name, figure in point.items()}, record["step"])
                bar.set_postfix({name: f"{figure:.4g}" for name, figure in point.items()})
                record["curve"].append({"images": record["images"], **point})
            due = (step + 1) % every == 0 or time.perf_counter() - saved > CHECKPOINT_SECONDS
            if due or record["finished"] or interrupted():
                save()
                saved = time.perf_counter()
            if interrupted() and not record["finished"]:
                raise KeyboardInterrupt
    return record


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, rate: float, settings: Settings, step: int, sample: Sample,
    loss: Loss, generator: torch.Generator, where: torch.device,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One step of the optimiser: the loss and the norm of its gradient, before clipping."""
    rng = np.random.default_rng([settings.seed, step])
    generator.manual_seed(int(rng.integers(2**63)))
    images, *others = (tensor.to(where, non_blocking=True) for tensor in sample(rng, settings.batch))
    images = images.to(torch.float32, memory_format=torch.channels_last) / 255.0
    network.train()
    with torch.autocast("cuda", torch.bfloat16, enabled=where.type == "cuda"):
        value = loss(network, (images, *others), generator, step / settings.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
    optimizer.step()
    return value.detach(), norm


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: rises over the first steps, then falls along half a cosine."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return FINAL_RATE + (1.0 - FINAL_RATE) * 0.5 * (1.0 + math.cos(math.pi * done))


def resume(path: Path, kind: str, identity: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint at ``path``. Raises ValueError, in one line, for one of another identity or none at all."""
    content = checkpoint.load(path, kind, KEYS)
    for name, value in identity.items():
        found = content["identity"].get(name)
        if found != value:
            raise ValueError(
                f"checkpoint {str(path)!r} was made with {name} {found!r}, not {value!r}: name another folder"
            )
    return content


@contextlib.contextmanager
def tensorboard_log(folder: str | Path | None, step: int) -> Iterator[Callable[[dict[str, float], int], None]]:
    """A function that writes figures to TensorBoard, or nowhere. Raises ValueError for a folder that takes none."""
    if folder is None:
        yield lambda figures, step: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a log needs tensorboard: pip install 'semcom-gym[transceivers]'") from None
    try:
        writer = SummaryWriter(str(folder), purge_step=step)
    except OSError as error:
        raise ValueError(f"cannot write the log in {str(folder)!r}: {error.strerror}") from None
    with writer:

        def log(figures: dict[str, float], step: int) -> None:
            for name, figure in figures.items():
                writer.add_scalar(name, figure, step)

        yield log


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C only raises a flag, so that no step is cut in two; the second Ctrl-C acts at once."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set
        return
    previous = signal.getsignal(signal.SIGINT)

    def handler(number: int, frame: Any) -> None:
        flag.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handler)
    try:
        yield flag.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
