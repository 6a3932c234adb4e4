"""What a step asks of the machine: its array operations, counted, and how fast this core could do them at best.

Steps of the torch backend on a pool are recorded operation by operation. Three bounds follow on the steps per second
of one core: ``as_written``, where every operation costs a call and moves what it reads and writes as fast as a copy
within the cache; ``fused``, where only instances, actions and results are moved, through memory, and all exponentials,
logarithms and their kin run as fast as NumPy's float32 exp; and ``single``, for an environment alone, whose operations
are so small that only the calls count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from semcom_gym.benchmarks import protocol, table

BATCH = 1024
GATHERS = ("take", "index", "index_select", "gather")  # read as much as they write, not all that they pick from
FUNCTIONS = (
    "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "tanh", "sigmoid", "sin", "cos", "pow", "sqrt", "rsqrt",
    "erf", "erfc", "special_erfc", "special_ndtr", "special_log_ndtr",
)  # fmt: skip
COPIED = 1 << 23  # float32: larger than any cache of a core
CACHED = 1 << 14  # float32: about as large as the arrays of a step
ALONE = 16  # steps of one environment whose operations are averaged


def rates(repeats: int = 5) -> dict[str, float]:
    """Of this core, each the best of ``repeats``: bytes per second read and written by a copy, through memory and
    within the cache, float32 exponentials per second, and seconds of the smallest array operation.
    """
    source, target = np.ones(COPIED, np.float32), np.empty(COPIED, np.float32)
    x, y = np.linspace(-1, 1, CACHED, dtype=np.float32), np.empty(CACHED, np.float32)
    one = np.ones(1)
    return {
        "copy_bytes_per_second": 2 * source.nbytes / _best(lambda: np.copyto(target, source), 5, repeats),
        "cached_bytes_per_second": 2 * x.nbytes / _best(lambda: np.copyto(y, x), 1000, repeats),
        "exp_per_second": CACHED / _best(lambda: np.exp(x, out=y), 200, repeats),
        "call_seconds": _best(lambda: one + one, 20_000, repeats),
    }


def _best(work: Callable[[], Any], times: int, repeats: int) -> float:
    """Seconds of CPU time of a call: the best mean over ``times`` calls."""
    means = []
    work()
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(times):
            work()
        means.append((time.process_time() - start) / times)
    return min(means)


def count(env_id: str, batch: int = BATCH) -> dict[str, float]:
    """What a step with random actions takes: operations per call, also of an environment alone; per environment of a
    batch the bytes read and written by all of them, the bytes that come in and go out, and the values of FUNCTIONS.
    """
    together, outside = _record(env_id, batch, 1)
    alone, _ = _record(env_id, 1, ALONE)
    return {
        "operations": together.operations,
        "operations_alone": alone.operations / ALONE,
        "bytes": together.bytes / batch,
        "least_bytes": outside / batch,
        "functions": together.functions / batch,
    }


def _record(env_id: str, batch: int, steps: int) -> tuple[Any, int]:
    """The counts of some steps, and the bytes of what the last began and ended with."""
    import torch

    env = protocol.make_vector(env_id, batch, backend="torch", pool=BATCH).unwrapped
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [torch.as_tensor(env.action_space.sample()) for _ in range(steps)]
    for _ in range(2):  # constants are placed in the first step
        env.step(actions[0])
    counter = _counter()
    with counter:
        for action in actions:
            instance = env.instance
            observation, reward, _, _, info = env.step(action)
    final = info["final_info"]
    outside = [*vars(instance).values(), *vars(env.instance).values(), actions[-1], observation, reward]
    outside += [*final["terms"].values(), *(value for name, value in final.items() if name != "terms")]
    return counter, sum(x.numel() * x.element_size() for x in outside)


def _counter() -> Any:
    """A mode of torch that counts what runs inside it."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counter(TorchDispatchMode):
        operations = 0
        bytes = 0
        functions = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            name = func._schema.name.partition("::")[2]
            results = [x for x in tree_leaves(found) if isinstance(x, torch.Tensor)]
            if not func.is_view:
                read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
                moved = [*read[1:], *results, *results] if name in GATHERS else [*read, *results]
                self.operations += 1
                self.bytes += sum(x.numel() * x.element_size() for x in moved)
            if name in FUNCTIONS:
                self.functions += sum(x.numel() for x in results)
            return found

    return Counter()


def bounds(counted: dict[str, float], core: dict[str, float], batch: int = BATCH) -> dict[str, float]:
    """Most steps per second of one core by these counts and rates."""
    calls = counted["operations"] * core["call_seconds"] / batch
    moved = counted["least_bytes"] / core["copy_bytes_per_second"]
    return {
        "as_written": 1.0 / (calls + counted["bytes"] / core["cached_bytes_per_second"]),
        "fused": 1.0 / max(moved, counted["functions"] / core["exp_per_second"]),
        "single": 1.0 / (counted["operations_alone"] * core["call_seconds"]),
    }


def table_of(env_ids: list[str]) -> dict[str, Any]:
    """Rates of this core, and counts and bounds of every id of one decision."""
    core = rates()
    rows = []
    for env_id in env_ids:
        if protocol.is_stepwise(protocol.make_vector(env_id, 1)):
            continue
        counted = count(env_id)
        rows.append({"name": env_id, **counted, **bounds(counted, core)})
    return {"batch": BATCH, "rates": core, "rows": rows}


def text(found: dict[str, Any]) -> str:
    """What a step takes and the most steps per second that leaves one core."""
    header = ("a step of", "operations", "alone", "bytes", "in, out", "exp, log, ...", "as written", "fused", "single")
    names = ("operations", "operations_alone", "bytes", "least_bytes", "functions", "as_written", "fused", "single")
    rows = [[row["name"], *(amount(row[name]) for name in names)] for row in found["rows"]]
    core = found["rates"]
    about = (
        f"the last three: most steps per second in batches of {found['batch']}; this core copies "
        f"{core['copy_bytes_per_second'] / 1e9:.3g} GB/s, within the cache "
        f"{core['cached_bytes_per_second'] / 1e9:.3g} GB/s, makes {core['exp_per_second'] / 1e9:.3g}e9 exp/s "
        f"and a call in {core['call_seconds'] * 1e6:.2f} us"
    )
    return f"{table.aligned(header, rows, left=(0,))}\n{about}"


def amount(value: float) -> str:
    """A number to read: thousands apart, or three digits."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
