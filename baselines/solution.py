"""What a solver and a bound return, and the registry behind ``baselines.solve``, ``bound`` and ``methods``."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from semcom_gym.envs import problem as find_problem
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, frozen, is_torch, to_numpy

INFEASIBLE = "infeasible"
"""How the status of an instance starts that no allocation satisfies."""


@dataclasses.dataclass(frozen=True)
class Solution:
    """A batch of n decisions.

    allocation: of the problem. objective (n,): of ``problem.evaluate``. feasible (n,) bool.
    seconds (n,): wall time per instance; of a batched method, its share of the batch.
    iterations (n,) int. trace (n, k): objective after each iteration, NaN where an instance had stopped; k may be 0.
    status: n strings, ``"ok"`` or why not; an instance that no allocation satisfies has one starting "infeasible".
    allocation, objective and feasible are tensors on their device where the instances were; the rest is NumPy.
    """

    allocation: Any
    objective: Array
    feasible: Array
    seconds: Array
    iterations: Array
    trace: Array
    status: list[str]


@dataclasses.dataclass(frozen=True)
class Bound:
    """A proven bound on the optimum of n instances.

    value (n,): no allocation has an objective above it (below it, where the problem minimises); -inf (inf) where no
    allocation is feasible. gap (n,): |value - best known| / |value|, relative distance to the best allocation known
    to the prover; NaN where infeasible. best: the Solution that ``gap`` is measured to. seconds (n,).
    """

    value: Array
    gap: Array
    best: Solution
    seconds: Array


@dataclasses.dataclass(frozen=True)
class Method:
    """A registered solver: ``run(params, instance, **options)`` returns a :class:`Solution`.

    summary: one line of what it is. source: its place in the paper. needs: module of an optional extra, if any.
    transceiver: another transceiver that it stands for, if any. Its objective is then that one's own rate, which no
    bound of the problem covers; its allocation is None, or does not have that objective in the problem.
    torch: whether it takes torch tensors too, and then stays on their device.
    """

    run: Callable[..., Solution]
    summary: str
    source: str
    needs: str | None = None
    transceiver: str | None = None
    torch: bool = False


def package(problem: str, params: Any, instance: Any, allocation: Any, started: float, **fields: Any) -> Solution:
    """A Solution of a finished batch: scores ``allocation`` and says for every instance whether it is feasible.

    started: ``time.perf_counter()`` when the work began. fields: iterations, trace, seconds, status override defaults.
    """
    n = len(instance)
    outcome = find_problem(problem).evaluate(params, instance, allocation)
    status = fields.pop("status", None) or ["ok"] * n
    missed = np.flatnonzero(~to_numpy(outcome.feasible))
    broken = {name: to_numpy(value) for name, value in outcome.violation.items()} if len(missed) else {}
    for i in missed:
        worst = max(broken, key=lambda name: broken[name][i])
        status[i] = f"{INFEASIBLE}: {worst} exceeded by {broken[worst][i]:.3g} of its limit"
    seconds = fields.pop("seconds", None)
    return Solution(
        allocation=allocation,
        objective=outcome.objective,
        feasible=outcome.feasible,
        seconds=np.full(n, (time.perf_counter() - started) / n) if seconds is None else seconds,
        iterations=fields.pop("iterations", np.zeros(n, int)),
        trace=fields.pop("trace", np.empty((n, 0))),
        status=status,
        **fields,
    )


def methods(problem: str) -> dict[str, str]:
    """The methods of a problem: name -> one line of what it is and its place in the paper."""
    return {name: f"{m.summary} ({m.source})" for name, m in _room(problem).METHODS.items()}


def transceiver(problem: str, method: str) -> str | None:
    """The other transceiver that a method stands for, or None. Raises ValueError for an unknown method."""
    table: Mapping[str, Method] = _room(problem).METHODS
    validate.choice(f"{problem} method", method, table)
    return table[method].transceiver


def on_torch(problem: str) -> tuple[str, ...]:
    """The methods of a problem that take torch tensors."""
    return tuple(name for name, method in _room(problem).METHODS.items() if method.torch)


def anchor(problem: str) -> str:
    """The method that scores 0: what a sensible engineer does without optimising."""
    return str(_room(problem).ANCHOR)


def solve(problem: str, params: Any, instance: Any, method: str, **options: Any) -> Solution:
    """Solve a batch of instances (float64) by a registered method; batch in, batch out.

    The arrays are NumPy's, or torch tensors (``instance.to_torch(device)``) for methods that :func:`on_torch` names;
    there is no gradient through a solver.
    options: keyword options of the method. Raises ValueError for an unknown problem or method and for tensors that the
    method does not take, TypeError for an unknown option, ModuleNotFoundError naming the extra to install.
    """
    table: Mapping[str, Method] = _room(problem).METHODS
    validate.choice(f"{problem} method", method, table)
    _check(problem, params, instance, f"method {method!r}", table[method].torch)
    needs = table[method].needs
    if needs is not None:
        require(needs, f"method {method!r}")
    return table[method].run(params, instance.map(frozen), **options)


def bound(problem: str, params: Any, instance: Any, **options: Any) -> Bound:
    """A proven bound on the optimum of every instance of a batch (NumPy, float64)."""
    _check(problem, params, instance, "bound", torch=False)
    result: Bound = _room(problem).prove(params, instance, **options)
    return result


def _check(problem: str, params: Any, instance: Any, what: str, torch: bool) -> None:
    """Raise unless the instances are valid, and of a library that ``what`` takes."""
    tensors = [x for x in getattr(instance, "__dict__", {}).values() if is_torch(x)]
    if tensors and not torch:
        raise ValueError(f"{what} of {problem} takes NumPy instances, not torch tensors")
    if any(x.is_floating_point() and x.element_size() < np.float64().itemsize for x in tensors):
        raise ValueError(f"{what} of {problem} solves in float64; the instances have torch tensors of another type")
    find_problem(problem).check(params, instance)


def require(module: str, what: str) -> None:
    """Raise ModuleNotFoundError in one line if an optional module is missing."""
    extras = {
        "cvxpy": "solvers", "torch": "agents", "stable_baselines3": "agents", "matplotlib": "report",
        "constriction": "codecs", "av": "codecs", "sionna": "codes",
        "minari": "datasets", "h5py": "datasets",
    }  # fmt: skip
    try:
        importlib.import_module(module)
    except ModuleNotFoundError:
        extra = extras.get(module, "all")
        raise ModuleNotFoundError(f"{what} needs {module}: pip install 'semcom-gym[{extra}]'") from None


def cvxpy() -> Any:
    """The module cvxpy, imported by those methods only that need it: that takes a second."""
    return importlib.import_module("cvxpy")


def _room(problem: str) -> Any:
    find_problem(problem)  # names the valid ones
    return importlib.import_module(f"semcom_gym.baselines.{problem}")
