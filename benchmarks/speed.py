"""Speed as ratios measured in one run.

Every row (:mod:`speed_rows` has them) is measured ``repeats`` times, in turn with the others, so that a busy machine
slows all of them; the medians are reported, per second of wall time and per second of CPU time.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from semcom_gym.benchmarks import hotspots, limits, store, table
from semcom_gym.benchmarks.progress import bar

LONGEST = 5.0  # seconds that a row takes, warm-up aside, unless one measurement alone takes more
PACKAGES = ("semcom-gym", "gymnasium", "numpy", "scipy", "torch", "cvxpy", "stable-baselines3", "mobile-env", "linkgym")


@dataclasses.dataclass(frozen=True)
class Item:
    """Something to time. work: does some and returns how many units. against: the row it is compared to.

    batch: how many environments step at once, or instances are solved.
    """

    group: str
    name: str
    unit: str
    work: Callable[[], int]
    against: str | None = None
    batch: int | None = None


def measure(items: list[Item], repeats: int, seconds: float) -> list[dict[str, Any]]:
    """Time every item ``repeats`` times for at least ``seconds`` each; one row per item.

    An item whose work takes so long that this would be more than ``LONGEST`` seconds is timed less often.
    """
    rates: dict[str, list[tuple[float, float]]] = {item.name: [] for item in items}
    with bar((repeats + 1) * len(items), "speed") as progress:
        times = {}
        for item in items:
            progress.set_postfix_str(item.name)
            start = time.perf_counter()
            item.work()  # warm-up
            each = max(time.perf_counter() - start, seconds)
            times[item.name] = min(repeats, max(1, int(LONGEST / each))) if each > seconds else repeats
            progress.update()
        for turn in range(repeats):
            for item in items:
                if turn < times[item.name]:
                    progress.set_postfix_str(item.name)
                    rates[item.name].append(_rate(item.work, seconds))
                progress.update()
    wall = {name: statistics.median(rate[0] for rate in found) for name, found in rates.items()}
    cpu = {name: statistics.median(rate[1] for rate in found) for name, found in rates.items()}
    return [
        {
            "group": item.group,
            "name": item.name,
            "unit": item.unit,
            "per_second": wall[item.name],
            "per_cpu_second": cpu[item.name],
            "slowest": min(rate[0] for rate in rates[item.name]),
            "fastest": max(rate[0] for rate in rates[item.name]),
            "times": times[item.name],
            "batch": item.batch,
            "against": item.against,
            "ratio": wall[item.name] / wall[item.against] if item.against else None,
        }
        for item in items
    ]


def _rate(work: Callable[[], int], seconds: float) -> tuple[float, float]:
    """Units per second of wall time and of CPU time, of at least one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    while time.perf_counter() - wall < seconds:
        done += work()
    return done / (time.perf_counter() - wall), done / max(time.process_time() - cpu, 1e-9)


def machine(threads: int | None) -> dict[str, Any]:
    """What the figures were measured on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    gpu = None
    if versions["torch"]:
        import torch

        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch_threads": threads,
        "versions": versions,
    }


def _processor() -> str:
    """The model name where Linux tells it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def text(found: dict[str, Any]) -> str:
    """The result as aligned text."""
    header = ("what", "at once", "unit", "per second", "per CPU second", "ratio", "to")
    rows = [
        [row["name"], str(row["batch"] or ""), row["unit"], limits.amount(row["per_second"]),
         limits.amount(row["per_cpu_second"]), f"{row['ratio']:.3g}" if row["ratio"] else "", row["against"] or ""]
        for row in found["rows"]
    ]  # fmt: skip
    parts = [table.aligned(header, rows, left=(0, 2, 6))] if rows else []
    if found.get("limits"):
        parts.append(limits.text(found["limits"]))
    if found.get("hotspots"):
        parts.append(hotspots.text(found["hotspots"]))
    host = found["machine"]
    about = f"{host['processor']}, {host['cores']} cores, load {host['load_average']:.1f}"
    return "\n\n".join([*parts, f"{about}, torch threads {host['torch_threads']}"])


def write(found: dict[str, Any], path: Path) -> Path:
    """The result as JSON."""
    store.make_folder(path.parent)
    store.write_atomically(path, store.dumps(found, indent=1) + "\n")
    return path
