"""Algorithm 4 of the SC-SFMA paper, one instance at a time: ratios, power and bandwidth, and pairing in turn.

Algorithms 1 to 3 are in :mod:`compression`, :mod:`sca` and :mod:`pairing`. Where this departs from the paper:

* It leaves the first tuple open. Here it is ``equal``: the best pairing at equal shares. Where equal shares are
  infeasible the bandwidth is shared above what each group needs (:func:`heuristics.start`).
* (47) claims that Algorithm 1 never lowers the objective. A maximiser of a Lagrangian that is not concave may, so the
  ratios that were there before are kept where it finds none that are better. The objective then never falls.
"""

from __future__ import annotations

import time

import numpy as np

from semcom_gym.baselines.sfma import compression, heuristics, pairing, sca
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import Allocation

PASSES = 20
TOLERANCE = 1e-4


def solve(
    params: Params,
    instance: Instance,
    *,
    energy: str = "corrected",
    iterations: int = PASSES,
    tolerance: float = TOLERANCE,
    progress: bool = False,
) -> Solution:
    """Algorithm 4.

    energy: "corrected", or "printed" for (29c) as it stands (:mod:`sca`). iterations: passes at most. tolerance:
    relative change of the sum rate at which Algorithms 2 and 4 have converged (epsilon_pb, epsilon). progress: show a
    bar. Of the solution, iterations: passes; trace: the accepted sum rate after each.
    """
    from tqdm import tqdm  # of the extra 'solvers', as cvxpy

    validate.choice("energy", energy, sca.ENERGY)
    validate.integer("iterations", iterations)
    validate.number("tolerance", tolerance)
    started = time.perf_counter()
    first = _first(params, instance)
    seconds = np.full(len(instance), (time.perf_counter() - started) / len(instance))
    found, trace, status = [], np.full((len(instance), iterations), np.nan), []
    for row in tqdm(range(len(instance)), disable=not progress, unit="instance"):
        begun = time.perf_counter()
        allocation, values, why = _alternate(params, instance[row], first[row], energy, iterations, tolerance)
        trace[row, : len(values)] = values
        found.append(allocation)
        status.append(why)
        seconds[row] += time.perf_counter() - begun
    done = np.isfinite(trace).sum(-1)
    return package(
        "sfma",
        params,
        instance,
        concatenate(found),
        started,
        seconds=seconds,
        iterations=done,
        trace=trace[:, : done.max()],
        status=status,
    )


def solve_printed(
    params: Params,
    instance: Instance,
    *,
    iterations: int = PASSES,
    tolerance: float = TOLERANCE,
    progress: bool = False,
) -> Solution:
    """Algorithm 4 with (29c) as printed; options as of :func:`solve`."""
    return solve(params, instance, energy="printed", iterations=iterations, tolerance=tolerance, progress=progress)


def continuous(
    params: Params,
    instance: Instance,
    pair: Array,
    power_w: Array,
    bandwidth_hz: Array,
    *,
    ratio: Array | None = None,
    energy: str = "corrected",
    tolerance: float = TOLERANCE,
) -> Allocation | None:
    """Algorithm 1, then Algorithm 2, for one instance with its pairs (1, K); None where Algorithm 1 is infeasible.

    power_w [W], bandwidth_hz [Hz]: (1, K), to start from. ratio: feasible ratios (1, K) to keep where Algorithm 1
    finds none that are better.
    """
    link = physics.links(params, instance, pair)
    found, feasible, _ = compression.optimise(params, link, power_w, bandwidth_hz)
    if ratio is not None:
        old, new = (physics.rates(link, power_w, bandwidth_hz, x).sum() for x in (ratio, found))
        found = found if feasible[0] and new > old else ratio
    elif not feasible[0]:
        return None
    power_w, bandwidth_hz, _ = sca.optimise(
        params, link, power_w, bandwidth_hz, found, energy=energy, tolerance=tolerance
    )
    return Allocation(pair, power_w, bandwidth_hz, found)


def _first(params: Params, instance: Instance) -> Allocation:
    """The tuple that Algorithm 4 starts from; it may be infeasible where no feasible one is known."""
    equal = heuristics.equal(params, instance)
    rows = np.flatnonzero(~equal.feasible)
    if not len(rows):
        return equal.allocation
    other = heuristics.start(params, instance[rows], equal.allocation.pair[rows])
    every = [equal.allocation[row] for row in range(len(instance))]
    for place, row in enumerate(rows):
        every[row] = other[place]
    return concatenate(every)


def _alternate(
    params: Params, instance: Instance, now: Allocation, energy: str, iterations: int, tolerance: float
) -> tuple[Allocation, list[float], str]:
    """Algorithm 4 for one instance from a tuple: the last accepted one, the sum rate after each pass, a status."""
    outcome = physics.evaluate(params, instance, now)
    if not outcome.feasible[0]:
        return now, [], "no feasible start"
    value, trace, prices = float(outcome.objective[0]), [], None
    for _ in range(iterations):
        before = value
        block = continuous(
            params, instance, now.pair, now.power_w, now.bandwidth_hz, ratio=now.ratio, energy=energy, tolerance=tolerance
        )
        assert block is not None  # as there were ratios to keep
        now, value = block, float(physics.evaluate(params, instance, block).objective[0])
        pair, prices, _ = pairing.optimise(params, instance, now, prices=prices)
        if pair is not None:
            other = continuous(
                params, instance, pair, now.power_w, now.bandwidth_hz, energy=energy, tolerance=tolerance
            )
            if other is not None:
                outcome = physics.evaluate(params, instance, other)
                if outcome.feasible[0] and outcome.objective[0] >= value:
                    now, value = other, float(outcome.objective[0])
        trace.append(value)
        if value - before < tolerance * before:
            return now, trace, "ok"
    return now, trace, f"not converged in {iterations} passes"
