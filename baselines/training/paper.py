"""Algorithm 3 of the training paper: P3 (:mod:`p3`) and P4 (:mod:`sumratio`, or directly :mod:`p4`) in turn.

The paper starts from a "random selection of feasible (p, B)", which decides where it ends: P3 lets every device finish
exactly at T, P4 then keeps every rate and trades SNR for bandwidth, so the next P3 finds the same T (unless a higher
SNR lowers a ratio that PSNR had raised). Starts: average and random allocation (Section VII-D), the best of seventeen.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from semcom_gym.baselines.solution import INFEASIBLE, Solution, package
from semcom_gym.baselines.training import heuristics, p3, p4, sumratio
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params
from semcom_gym.envs.training.physics import Allocation

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Powers of the uniform starts of :func:`solve_multistart`, over the cap."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of the four methods.

    rounds [K]: passes of Algorithm 3 at most. tolerance [epsilon]: relative change of every variable over a pass at
    which it stops. newton [I]: steps of Algorithm 2 at most; xi, epsilon: of its step size (39). direct: solve P4
    without Algorithm 2.
    """

    rounds: int = 50
    tolerance: float = 1e-6
    newton: int = 100
    xi: float = 0.5
    epsilon: float = 0.01
    direct: bool = False

    def __post_init__(self) -> None:
        validate.integer("rounds", self.rounds)
        validate.number("tolerance", self.tolerance)
        validate.integer("newton", self.newton)
        for name in ("xi", "epsilon"):
            validate.number(name, getattr(self, name), high=0.99)
        if not isinstance(self.direct, bool):
            raise TypeError(f"direct must be True or False, got {self.direct!r}")


def solve(params: Params, instance: Instance, *, level: float = 0.5, **options: Any) -> Solution:
    """Algorithm 3 from p = pmax / 2 and B = Btotal / N; other options are the fields of :class:`Settings`.

    level: the power of the start, over its cap. iterations: passes; trace: the objective after every P3 and every P4.
    """
    return _from_even(params, instance, level, _settings("paper", options))


def solve_direct(params: Params, instance: Instance, *, level: float = 0.5, **options: Any) -> Solution:
    """:func:`solve` with P4 by one bandwidth price instead of Algorithm 2."""
    settings = _settings("paper_direct", options, fixed="direct")
    return _from_even(params, instance, level, dataclasses.replace(settings, direct=True))


def solve_random(params: Params, instance: Instance, *, seed: int = 0, **options: Any) -> Solution:
    """Algorithm 3 from the powers and bandwidths of the random allocation; otherwise as :func:`solve`."""
    started = time.perf_counter()
    first = heuristics.random(params, instance, seed=seed).allocation
    run = _alternate(params, instance, first.power_w, first.bandwidth_hz, _settings("paper_random", options))
    return run.solution(params, instance, started)


def solve_multistart(params: Params, instance: Instance, *, seed: int = 0, draws: int = 10, **options: Any) -> Solution:
    """The best end of Algorithm 3 from ``draws`` random starts and equal bandwidths at seven equal powers (LEVELS).

    iterations, trace and status are those of the start that is kept.
    """
    started = time.perf_counter()
    validate.integer("draws", draws, low=0)
    settings = _settings("paper_multistart", options)
    drawn = [heuristics.random(params, instance, seed=seed + k).allocation for k in range(draws)]
    shares = [(first.power_w, first.bandwidth_hz) for first in drawn]
    shares += [_even(params, instance, level) for level in LEVELS]
    runs = (_alternate(params, instance, *share, settings) for share in shares)
    best = next(runs)
    for run in runs:
        best = best.improved(run, _value(params, instance, run) < _value(params, instance, best))
    return best.solution(params, instance, started)


def _value(params: Params, instance: Instance, run: _Run) -> Array:
    """(n,) the objective, inf where infeasible."""
    outcome = physics.evaluate(params, instance, run.allocation)
    return np.where(outcome.feasible, outcome.objective, np.inf)


def _settings(method: str, options: dict[str, Any], fixed: str = "") -> Settings:
    validate.keywords(method, options, [field.name for field in dataclasses.fields(Settings) if field.name != fixed])
    return Settings(**options)


def _even(params: Params, instance: Instance, level: float) -> tuple[Array, Array]:
    ones = np.ones_like(instance.gain)
    return ones * (level * params.max_power_w), ones * (params.total_bandwidth_hz / params.num_users)


def _from_even(params: Params, instance: Instance, level: float, settings: Settings) -> Solution:
    validate.number("level", level, high=1.0)
    started = time.perf_counter()
    return _alternate(params, instance, *_even(params, instance, level), settings).solution(params, instance, started)


@dataclasses.dataclass(frozen=True)
class _Run:
    """Where Algorithm 3 ended: allocation, passes (n,), objectives (n, 2 k), and why."""

    allocation: Allocation
    passes: Array
    trace: Array
    status: list[str]

    def improved(self, other: _Run, rows: Array) -> _Run:
        """This run with the instances in the mask ``rows`` from another."""
        return _Run(
            self.allocation.replaced(rows, other.allocation[rows]),
            np.where(rows, other.passes, self.passes),
            np.where(rows[:, None], other.trace, self.trace),
            [new if better else old for new, old, better in zip(other.status, self.status, rows, strict=True)],
        )

    def solution(self, params: Params, instance: Instance, started: float) -> Solution:
        """Scored; a status that names a device stands."""
        columns = 2 * int(self.passes.max(initial=0))
        fields = {"iterations": self.passes, "trace": self.trace[:, :columns], "status": list(self.status)}
        found = package("training", params, instance, self.allocation, started, **fields)
        status = [ours if ours.startswith(INFEASIBLE) else why
                  for ours, why in zip(self.status, found.status, strict=True)]  # fmt: skip
        return dataclasses.replace(found, status=status)


def _alternate(params: Params, instance: Instance, power: Array, bandwidth: Array, settings: Settings) -> _Run:
    """Algorithm 3 from powers [W] and bandwidths [Hz], (n, N)."""
    n = len(instance)
    now = p3.allocate(params, instance, power, bandwidth)
    status = _start_status(params, instance, now)
    active = np.flatnonzero([why == "ok" for why in status])
    trace, passes = np.full((n, 2 * settings.rounds), np.nan), np.zeros(n, int)
    for k in range(settings.rounds):
        if not len(active):
            break
        part, before = instance[active], now[active]
        half = before if k == 0 else p3.allocate(params, part, before.power_w, before.bandwidth_hz)
        after, solved = _communicate(params, part, half, settings)
        trace[active, 2 * k] = physics.evaluate(params, part, half).objective
        trace[active, 2 * k + 1] = physics.evaluate(params, part, after).objective
        now = now.replaced(active, after)
        passes[active] += 1
        for row in active[~solved]:
            status[row] = f"Algorithm 2 not converged in {settings.newton} steps"
        moved = _change(before, after) > settings.tolerance if k else np.ones(len(active), bool)
        active = active[solved & moved]
    for row in active:
        status[row] = f"not converged in {settings.rounds} passes"
    return _Run(now, passes, trace, status)


def _communicate(params: Params, instance: Instance, now: Allocation, settings: Settings) -> tuple[Allocation, Array]:
    """P4: powers and bandwidths that keep the makespan and every PSNR, and whether it was solved (n,)."""
    terms = physics.evaluate(params, instance, now).terms
    spare = terms["time_s"].max(-1, keepdims=True) - terms["time_s"]
    min_snr = physics.needed_snr(params, instance.min_psnr_db, now.ratio)
    task = p4.upload(params, instance, now.ratio, terms["upload_time_s"] + spare, min_snr)
    if settings.direct:
        power, bandwidth = p4.direct(task)
        return dataclasses.replace(now, power_w=power, bandwidth_hz=bandwidth), np.ones(len(now), bool)
    found = sumratio.refine(
        task, now.power_w, now.bandwidth_hz, iterations=settings.newton, xi=settings.xi, epsilon=settings.epsilon
    )
    return dataclasses.replace(now, power_w=found.power_w, bandwidth_hz=found.bandwidth_hz), found.converged


def _start_status(params: Params, instance: Instance, first: Allocation) -> list[str]:
    """For every instance ``"ok"``, or the device whose PSNR no ratio meets at the start, where P3 has no solution."""
    why = physics.diagnose(params, instance, first)
    return [f"{INFEASIBLE} start: {text}" if text else "ok" for text in why]


def _change(before: Allocation, after: Allocation) -> Array:
    """(n,) the largest relative change of a variable."""
    pairs = [(getattr(before, field.name), getattr(after, field.name)) for field in dataclasses.fields(before)]
    return np.max([np.max(np.abs(new - old) / old, axis=-1) for old, new in pairs], axis=0)
