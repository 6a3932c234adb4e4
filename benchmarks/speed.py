"""Speed as ratios measured in one run: our environments beside Gymnasium's CartPole, solvers and agents per instance.

Actions are drawn before the clock starts; where they are choices, they are picked among those allowed. Every row is
measured ``repeats`` times, in turn with the others, so that a busy machine slows all of them; the medians are reported,
per second of wall time and per second of CPU time.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import limits, protocol, store, table
from semcom_gym.benchmarks.progress import bar

CARTPOLE = "CartPole-v1"
_CARTPOLE_ROW = f"gym.make {CARTPOLE}"
DRAWN = 256  # actions drawn ahead
VECTOR_DRAWN = 8
SOLVER_BATCH = 256
SOLVER_BATCHES = {"sfma": 64}  # of problems whose batched solver takes tens of milliseconds per instance
SLOW_BATCH = 4  # instances of a method that goes through cvxpy
LONGEST = 5.0  # seconds that a row takes, warm-up aside, unless one measurement alone takes more
POOL = 4096  # instances of the rows on a pool
OTHERS = {"mobile_env": "mobile-small-central-v0", "linkgym": "linkgym/LinkAdaptation-v0"}
"""Environments of others for wireless networks, measured where they are installed: module and id."""
PACKAGES = ("semcom-gym", "gymnasium", "numpy", "scipy", "torch", "cvxpy", "stable-baselines3", "mobile-env", "linkgym")


@dataclasses.dataclass(frozen=True)
class Item:
    """Something to time. work: does some and returns how many units. against: the row it is compared to.

    batch: how many environments step at once, where that is varied.
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


def scalar_items() -> list[Item]:
    """step and reset through gym.make, every id and CartPole."""
    rows = []
    for env_id in (CARTPOLE, *envs.IDS):
        env = gym.make(env_id)
        against = None if env_id == CARTPOLE else _CARTPOLE_ROW
        rows.append(Item("scalar", f"gym.make {env_id}", "steps", _scalar_work(env), against))
    return rows


def other_items() -> list[Item]:
    """step and reset of the OTHERS that are installed.

    Raises ImportError for one that is there but cannot be imported.
    """
    rows = []
    for module, env_id in OTHERS.items():
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)  # registers its ids
            rows.append(Item("scalar", f"gym.make {env_id}", "steps", _scalar_work(gym.make(env_id)), _CARTPOLE_ROW))
    return rows


def _scalar_work(env: Any) -> Callable[[], int]:
    action = _drawn(env, DRAWN)

    def work() -> int:
        for k in range(DRAWN):
            _, _, terminated, truncated, _ = env.step(action(k))
            if terminated or truncated:
                env.reset()
        return DRAWN

    return work


def _drawn(env: Any, count: int) -> Callable[[int], Any]:
    """Reset, and draw random actions by number; choices are those allowed that have the largest random score."""
    env.reset(seed=0)
    env.action_space.seed(0)
    masks = getattr(env.unwrapped, "action_masks", None)
    if masks is None:
        return [env.action_space.sample() for _ in range(count)].__getitem__
    scores = np.random.default_rng(0).random((count, *masks().shape))
    return lambda k: np.argmax(np.where(masks(), scores[k], -1.0), axis=-1)


def vector_items(batches: Sequence[int], device: str = "cpu") -> list[Item]:
    """step of the vector environments (they reset themselves), every id on NumPy and torch, with new instances all the
    time and with those of a pool, and CartPole.

    An id whose decisions take several steps is measured on NumPy with new instances. Raises ValueError for a device
    that cannot be used.
    """
    rows = []
    for n in batches:
        cartpole = f"vector {CARTPOLE} x{n}"
        rows.append(Item("vector", cartpole, "steps", _vector_work(_cartpole(n), n), batch=n))
        for env_id in envs.IDS:
            stepwise = protocol.is_stepwise(protocol.make_vector(env_id, 1))
            for backend, pool in ((b, p) for p in (None, POOL) for b in ("numpy", "torch")):
                if stepwise and (backend, pool) != ("numpy", None):
                    continue
                where = device if backend == "torch" else "cpu"
                env = protocol.make_vector(env_id, n, backend=backend, device=where, pool=pool)
                words = [env_id, backend, *(["pool"] if pool else []), *([where] if where != "cpu" else []), f"x{n}"]
                rows.append(Item("vector", f"vector {' '.join(words)}", "steps", _vector_work(env, n), cartpole, n))
    return rows


def _cartpole(n: int) -> Any:
    return gym.make_vec(CARTPOLE, num_envs=n, vectorization_mode="vector_entry_point")


def _vector_work(env: Any, n: int) -> Callable[[], int]:
    action = _drawn(env, VECTOR_DRAWN)
    if getattr(env.unwrapped, "backend", "numpy") == "torch":
        import torch

        placed = [torch.as_tensor(action(k), device=env.unwrapped.device) for k in range(VECTOR_DRAWN)]
        action = placed.__getitem__

    def work() -> int:
        for k in range(VECTOR_DRAWN):
            reward = env.step(action(k))[1]
        float(reward[0])  # waits for a GPU
        return VECTOR_DRAWN * n

    return work


def solver_items(env_id: str, preset: str | None, slow: str, fast: str = "fast") -> list[Item]:
    """The batched solver and the proof of the bound beside the paper's algorithm, in instances."""
    problem = protocol.task(env_id, preset, n=1).problem.name
    task = protocol.task(env_id, preset, n=SOLVER_BATCHES.get(problem, SOLVER_BATCH))
    rows = []
    slow_name = f"{slow}, {task.label}"
    for method, part in ((slow, task.instance[:SLOW_BATCH]), (fast, task.instance)):

        def work(method: str = method, part: Any = part) -> int:
            baselines.solve(problem, task.params, part, method)
            return len(part)

        against = None if method == slow else slow_name
        rows.append(Item("solver", f"{method}, {task.label}", "instances", work, against))
    few = task.instance[:SLOW_BATCH]

    def prove() -> int:
        baselines.bound(problem, task.params, few)
        return len(few)

    return [*rows, Item("solver", f"bound, {task.label}", "instances", prove, slow_name)]


def agent_items(env_id: str, device: str = "cpu") -> list[Item]:
    """The policies of the agents that ship for an id's own preset, in decisions.

    A decision in several steps counts with what its environment solves for at the end.
    """
    from semcom_gym import agents
    from semcom_gym.benchmarks import competitors

    task = protocol.task(env_id, n=SOLVER_BATCH)
    observation = task.problem.observe(task.params, task.instance)
    rows = []
    for algo in competitors.shipped(task):
        model = agents.load(env_id, algo, task.preset, device=device)

        def work(model: Any = model) -> int:
            if task.stepwise:
                return len(agents.allocate(model, task.problem, task.params, task.instance))
            decided = agents.decide(model, task.problem, task.params, task.instance, observation=observation)
            return len(decided)

        rows.append(Item("agent", f"agent {algo}, {task.label}", "decisions", work))
    return rows


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
    header = ("what", "unit", "per second", "per CPU second", "ratio", "to")
    rows = [
        [row["name"], row["unit"], limits.amount(row["per_second"]), limits.amount(row["per_cpu_second"]),
         f"{row['ratio']:.3g}" if row["ratio"] else "", row["against"] or ""]
        for row in found["rows"]
    ]  # fmt: skip
    parts = [table.aligned(header, rows, left=(0, 1, 5))]
    if found.get("limits"):
        parts.append(limits.text(found["limits"]))
    host = found["machine"]
    about = f"{host['processor']}, {host['cores']} cores, load {host['load_average']:.1f}"
    return "\n\n".join([*parts, f"{about}, torch threads {host['torch_threads']}"])


def write(found: dict[str, Any], path: Path) -> Path:
    """The result as JSON."""
    store.make_folder(path.parent)
    store.write_atomically(path, store.dumps(found, indent=1) + "\n")
    return path
