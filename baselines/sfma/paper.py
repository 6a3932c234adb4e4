"""Algorithm 4 of the SC-SFMA paper, one instance at a time: ratios, power and bandwidth, and pairing in turn.

Algorithms 1 to 3 are in :mod:`compression`, :mod:`sca` and :mod:`pairing`. Where this departs from the paper:

* It leaves the first tuple open. Here it is that of ``equal``, the best pairing at equal shares, or where that is
  infeasible the same pairing with :func:`heuristics.start`.
* (47) claims that Algorithm 1 never lowers the objective. It may, as (22) is not concave and its own stop is not
  exact; the ratios that were there before are kept where it finds none that are better.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from semcom_gym.baselines.sfma import compression, heuristics, pairing, sca
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import Allocation


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of the methods.

    energy: how Algorithm 2 treats the energy budget, "corrected" or "printed" (:mod:`sca`). iterations: passes of
    Algorithm 4 at most. tolerance: relative change of the sum rate at which Algorithms 2 and 4 have converged.
    ratio_tolerance: what Algorithm 1 may lose, relative (:func:`compression.optimise`). progress: show a bar.
    """

    energy: str = "corrected"
    iterations: int = 20
    tolerance: float = 1e-4
    ratio_tolerance: float = 1e-6
    progress: bool = False

    def __post_init__(self) -> None:
        validate.choice("energy", self.energy, sca.ENERGY)
        validate.integer("iterations", self.iterations)
        validate.number("tolerance", self.tolerance)
        validate.number("ratio_tolerance", self.ratio_tolerance)


def solve(params: Params, instance: Instance, **options: Any) -> Solution:
    """Algorithm 4; options are the fields of :class:`Settings`.

    iterations: passes; trace: the accepted sum rate after each.
    """
    return _batch(params, instance, _first(params, instance), True, _settings("paper", options))


def solve_printed(params: Params, instance: Instance, **options: Any) -> Solution:
    """Algorithm 4 with (29c) as printed; other options as in :func:`solve`."""
    settings = dataclasses.replace(_settings("paper_printed", options, fixed="energy"), energy="printed")
    return _batch(params, instance, _first(params, instance), True, settings)


def solve_pairing(params: Params, instance: Instance, pair: Array, **options: Any) -> Solution:
    """Algorithm 4 without its pairing step, for the pairs (n, K), from :func:`heuristics.start`; as :func:`solve`."""
    settings = _settings("solve_pairing", options)
    return _batch(params, instance, heuristics.start(params, instance, pair), False, settings)


def continuous(
    params: Params,
    instance: Instance,
    pair: Array,
    power_w: Array,
    bandwidth_hz: Array,
    *,
    ratio: Array | None = None,
    energy: str = Settings.energy,
    tolerance: float = Settings.tolerance,
    ratio_tolerance: float = Settings.ratio_tolerance,
) -> Allocation | None:
    """Algorithm 1, then Algorithm 2, for one instance with its pairs (1, K); None where Algorithm 1 is infeasible.

    power_w [W], bandwidth_hz [Hz]: (1, K), to start from. ratio: feasible ratios (1, K) to keep where Algorithm 1
    finds none that are better; with them the result is never None.
    """
    link = physics.links(params, instance, pair)
    found, feasible, _ = compression.optimise(params, link, power_w, bandwidth_hz, tolerance=ratio_tolerance)
    if ratio is not None:
        old, new = (physics.rates(link, power_w, bandwidth_hz, x).sum() for x in (ratio, found))
        found = found if feasible[0] and new > old else ratio
    elif not feasible[0]:
        return None
    power_w, bandwidth_hz, _ = sca.optimise(params, link, power_w, bandwidth_hz, found, energy=energy, tolerance=tolerance)
    return Allocation(pair, power_w, bandwidth_hz, found)


def _settings(method: str, options: dict[str, Any], fixed: str = "") -> Settings:
    validate.keywords(method, options, [field.name for field in dataclasses.fields(Settings) if field.name != fixed])
    return Settings(**options)


def _first(params: Params, instance: Instance) -> Allocation:
    """The tuples that Algorithm 4 starts from; infeasible where no feasible one is known."""
    equal = heuristics.equal(params, instance)
    other = heuristics.start(params, instance, equal.allocation.pair)
    return concatenate([(equal.allocation if equal.feasible[row] else other)[row] for row in range(len(instance))])


def _batch(params: Params, instance: Instance, first: Allocation, repair: bool, settings: Settings) -> Solution:
    from tqdm import tqdm  # of the extra 'solvers', as cvxpy

    started = time.perf_counter()
    n = len(instance)
    found, status, seconds, trace = [], [], np.empty(n), np.full((n, settings.iterations), np.nan)
    for row in tqdm(range(n), disable=not settings.progress, unit="instance"):
        begun = time.perf_counter()
        allocation, values, why = _alternate(params, instance[row], first[row], repair, settings)
        found.append(allocation)
        status.append(why)
        trace[row, : len(values)] = values
        seconds[row] = time.perf_counter() - begun
    done = np.isfinite(trace).sum(-1)
    chosen, trace = concatenate(found), trace[:, : done.max()]
    return package(
        "sfma", params, instance, chosen, started, seconds=seconds, iterations=done, trace=trace, status=status
    )


def _alternate(
    params: Params, instance: Instance, now: Allocation, repair: bool, settings: Settings
) -> tuple[Allocation, list[float], str]:
    """Algorithm 4 for one instance from a tuple: the last accepted one, the sum rate after each pass, a status.

    repair: whether Algorithm 3 looks for better pairs.
    """

    def blocks(pair: Array, ratio: Array | None) -> tuple[Allocation | None, float]:
        """Algorithms 1 and 2 from the current power and bandwidth; the sum rate is -inf where infeasible."""
        found = continuous(
            params,
            instance,
            pair,
            now.power_w,
            now.bandwidth_hz,
            ratio=ratio,
            energy=settings.energy,
            tolerance=settings.tolerance,
            ratio_tolerance=settings.ratio_tolerance,
        )
        return found, -np.inf if found is None else _value(params, instance, found)

    value, trace, prices = _value(params, instance, now), [], None
    if value == -np.inf:
        return now, [], "no feasible start"
    for _ in range(settings.iterations):
        before = value
        refined, value = blocks(now.pair, now.ratio)
        assert refined is not None  # as there were ratios to keep
        now = refined
        if repair:
            pair, prices, _ = pairing.optimise(params, instance, now, prices=prices)
            other, other_value = (None, -np.inf) if pair is None else blocks(pair, None)
            if other is not None and other_value >= value:
                now, value = other, other_value
        trace.append(value)
        if value - before < settings.tolerance * before:
            return now, trace, "ok"
    return now, trace, f"not converged in {settings.iterations} passes"


def _value(params: Params, instance: Instance, allocation: Allocation) -> float:
    """Sum rate [Mbit/s] of one instance, -inf where a constraint of (20) is broken."""
    outcome = physics.evaluate(params, instance, allocation)
    return float(outcome.objective[0]) if outcome.feasible[0] else -np.inf
