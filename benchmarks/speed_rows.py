"""What ``semcom-gym speed`` times: our environments beside Gymnasium's CartPole, solvers, bounds and agents.

Actions are drawn before the clock starts; where they are choices, they are picked among those allowed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import protocol
from semcom_gym.benchmarks.speed import Item

CARTPOLE = "CartPole-v1"
_CARTPOLE_ROW = f"gym.make {CARTPOLE}"
DRAWN = 256  # actions drawn ahead
VECTOR_DRAWN = 8
POOL = 4096  # instances of the rows on a pool
OTHERS = {"mobile_env": "mobile-small-central-v0", "linkgym": "linkgym/LinkAdaptation-v0"}
"""Environments of others for wireless networks, measured where they are installed: module and id."""
BATCHES = {"crra": 1024, "ascc": 1024, "training": 1024, "sfma": 64}
"""Instances that a batched solver of a problem takes at once, by how long it takes."""
ON_DEVICE = 16  # times as many on a device, which a batch for a CPU does not fill
BOUND_BATCH = 16
AGENT_BATCH = 256
SLOW_BATCH = 4  # instances of a method that goes through cvxpy


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


def solver_items(env_id: str, preset: str | None, slow: str, device: str = "cpu") -> list[Item]:
    """Beside the published algorithm: the batched solver on NumPy, and on torch where it can; the bound's proof."""
    whole = protocol.task(env_id, preset, n=1)
    problem, label, size = whole.problem.name, whole.label, BATCHES[whole.problem.name]
    larger = size if device == "cpu" else ON_DEVICE * size
    instance = protocol.task(env_id, preset, n=larger).instance
    parts = {"": instance[:size]}
    if "fast" in baselines.on_torch(problem):
        parts[" torch" if device == "cpu" else f" torch {device}"] = instance.to_torch(device)
    few, some = instance[:SLOW_BATCH], instance[:BOUND_BATCH]

    def solved(method: str, part: Any) -> Callable[[], int]:
        return lambda: len(baselines.solve(problem, whole.params, part, method).objective)

    slow_name = f"{slow}, {label}"
    rows = [Item("solver", slow_name, "instances", solved(slow, few), batch=len(few))]
    for where, part in parts.items():
        rows.append(Item("solver", f"fast{where}, {label}", "instances", solved("fast", part), slow_name, len(part)))

    def prove() -> int:
        return len(baselines.bound(problem, whole.params, some).value)

    return [*rows, Item("solver", f"bound, {label}", "instances", prove, slow_name, len(some))]


def agent_items(env_id: str, device: str = "cpu") -> list[Item]:
    """The policies of the agents that ship for an id's own preset, in decisions.

    A decision in several steps counts with what its environment solves for at the end.
    """
    from semcom_gym import agents
    from semcom_gym.benchmarks import competitors

    task = protocol.task(env_id, n=AGENT_BATCH)
    observation = task.problem.observe(task.params, task.instance)
    rows = []
    for algo in competitors.shipped(task):
        model = agents.load(env_id, algo, task.preset, device=device)

        def work(model: Any = model) -> int:
            if task.stepwise:
                return len(agents.allocate(model, task.problem, task.params, task.instance))
            decided = agents.decide(model, task.problem, task.params, task.instance, observation=observation)
            return len(decided)

        rows.append(Item("agent", f"agent {algo}, {task.label}", "decisions", work, batch=AGENT_BATCH))
    return rows
