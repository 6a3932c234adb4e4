"""What the profiles of all transceivers share: what is asked for, where a network was made, files, a few words."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym import __version__
from semcom_gym.benchmarks import store
from semcom_gym.envs.curve import Curve

if TYPE_CHECKING:
    from torch import Tensor, nn

    from semcom_gym.benchmarks.machines import Workers

COUNTED = 8  # images of the step whose operations are counted
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations a second, by a part of a device's name: its maker's data sheet, SXM form."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """What is asked for. sets: names or folders of images. size: the amount of work, called ``size_name``. workers:
    who measures; this process if None. It always trains.
    """

    sets: tuple[str, ...]
    size_name: str
    size: Any
    device: str
    seed: int
    out: Path
    tensorboard: Path
    workers: Workers | None = dataclasses.field(default=None, kw_only=True)

    @property
    def cells(self) -> store.Store:
        """Finished measurements, and who makes the others."""
        return store.Store(self.out / "cells", self.workers)

    @property
    def checkpoint(self) -> Path:
        """The network's file."""
        return self.out / "network.pt"

    def command_of(self, network: str, images: int, *more: str) -> str:
        """The command line. images: how many are trained on."""
        parts = (
            f"semcom-gym profile {network}", *more, f"--device {self.device} --size {self.size_name}",
            f"--train-images {images} --seed {self.seed} --images {names(self.sets)}",
        )  # fmt: skip
        return " ".join(parts)

    def kept(self) -> str:
        """One line on what an interruption leaves."""
        if not any(self.out.glob("network*.pt")):
            return "there was no checkpoint yet"
        return (
            f"the network so far and finished measurements are kept in {self.out}; the same command goes on from there"
        )


def names(sets: Sequence[str]) -> str:
    """Sets of images in a command line; a folder by its last part, as paths of a machine say nothing to others."""
    return " ".join(Path(name).name for name in sets)


def versions() -> dict[str, str]:
    """What decides the numbers of a network beside our code."""
    import torch

    return {"semcom-gym": __version__, "torch": torch.__version__, "python": platform.python_version()}


def origin(profile: Profile, network: Any, weights_sha256: str) -> dict[str, Any]:
    """Provenance that needs no knowledge of the network: its size and weights, device, versions, seed."""
    import torch

    where = "CPU" if profile.device == "cpu" else torch.cuda.get_device_name(torch.device(profile.device))
    return {
        "parameter_count": sum(value.numel() for value in network.parameters()),
        "weights_sha256": weights_sha256,
        "seed": profile.seed,
        "device": where,
        "versions": versions(),
    }


def write_curve(curve: Curve, folder: Path) -> Path:
    """The curve file, under the curve's name."""
    path = folder / f"{curve.name}.json"
    store.write_atomically(path, json.dumps(dataclasses.asdict(curve), indent=2) + "\n")
    return path


def work(
    network: nn.Module, forward: Callable[[Tensor], Tensor], side: int, images_per_second: float
) -> dict[str, Any]:
    """Operations of training: for an image, forward and backward (2 for each multiplication with addition, of matrices
    and convolutions, as torch counts them), a second, and as a share of the device's peak, None where that is unknown.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    where = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter:
        forward(torch.zeros(COUNTED, 3, side, side, device=where)).sum().backward()
    network.zero_grad(set_to_none=True)
    flop = counter.get_total_flops() / COUNTED
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else ""
    peak = next((value for part, value in PEAK_FLOPS.items() if part in name), None)
    return {
        "images_per_second": images_per_second,
        "flop_per_image": flop,
        "flop_per_second": flop * images_per_second,
        "share_of_peak": None if peak is None else flop * images_per_second / peak,
    }


def trained_on(report: dict[str, Any]) -> str:
    """The first line of a report as text."""
    record, share, rate = report["training"], report["share_of_peak"], report["images_per_second"]
    peak = "" if share is None else f", {share:.1%} of the device's peak"
    return (
        f"trained on {record['images']} images in {record['seconds']:.0f} s ({rate:.0f} a second, "
        f"{report['flop_per_image'] / 1e9:.3g} GFLOP each, {report['flop_per_second'] / 1e9:.3g} GFLOP/s{peak})"
    )


def write_report(
    profile: Profile,
    found: dict[str, Any],
    trained: Any,
    forward: Callable[[Tensor], Tensor],
    files: Sequence[Path],
) -> dict[str, Any]:
    """``profile.json``: what was found, the course of the training and all files. The report.

    forward: the network on images, as in training.
    """
    path = profile.out / "profile.json"
    rate = trained.record["images"] / trained.record["seconds"]
    report = {
        **found,
        "training": trained.record,
        **work(trained.network, forward, profile.size.side, rate),
        "weights_sha256": trained.weights_sha256,
        "files": [file.name for file in (*files, profile.checkpoint, path)],
    }
    store.write_atomically(path, store.dumps(report, indent=1) + "\n")
    return report


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], digits: int = 6) -> Path:
    """A CSV file of rows with the same keys; numbers with so many significant digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([_entry(value, digits) for value in row.values()] for row in rows)
    store.write_atomically(path, stream.getvalue())
    return path


def standard_error(values: Sequence[float]) -> float | None:
    """Standard error of the mean; None of a single value."""
    return float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None


def _entry(value: Any, digits: int) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
