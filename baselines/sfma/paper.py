"""Algorithm 4 of the SC-SFMA paper, one instance at a time: ratios, power and bandwidth, and pairing in turn.

Algorithms 1 to 3 are in :mod:`compression`, :mod:`sca` and :mod:`pairing`. Where this departs from the paper:

* It leaves the first tuple open. Here it is that of ``equal``, the best pairing at equal shares, or where that is
  infeasible the pairing of :func:`_first_pairing` with :func:`heuristics.start`.
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
from semcom_gym.envs.arrays import Array, concatenate, total
from semcom_gym.envs.sfma import actions, limits, physics
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import MBIT, Allocation


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of the methods.

    energy: how Algorithm 2 treats the energy budget, "corrected" or "printed" (:mod:`sca`). iterations: passes of
    Algorithm 4 at most. tolerance: relative change of the sum rate at which Algorithms 2 and 4 have converged.
    ratio_tolerance: what Algorithm 1 may lose, relative (:func:`compression.optimise`). progress: show a bar.
    """

    energy: str = "corrected"
    iterations: int = 50
    tolerance: float = sca.TOLERANCE
    ratio_tolerance: float = 1e-2
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
    return _batch(params, instance, None, _settings("paper", options))


def solve_printed(params: Params, instance: Instance, **options: Any) -> Solution:
    """Algorithm 4 with (29c) as printed; other options as in :func:`solve`."""
    settings = dataclasses.replace(_settings("paper_printed", options, fixed="energy"), energy="printed")
    return _batch(params, instance, None, settings)


def solve_pairing(params: Params, instance: Instance, pair: Array, **options: Any) -> Solution:
    """Algorithm 4 without its pairing step, for the pairs (n, K), from :func:`heuristics.start`; as :func:`solve`."""
    return _batch(params, instance, pair, _settings("solve_pairing", options))


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
    finds none that are better; with them the result is never None. Raises ArithmeticError where the solver fails.
    """
    link = physics.links(params, instance, pair)
    found, feasible, _ = compression.optimise(params, link, power_w, bandwidth_hz, tolerance=ratio_tolerance)
    if ratio is not None:
        old, new = (physics.rates(link, power_w, bandwidth_hz, x).sum() for x in (ratio, found))
        found = found if feasible[0] and new > old else ratio
    elif not feasible[0]:
        return None
    shares = sca.optimise(params, link, power_w, bandwidth_hz, found, energy=energy, tolerance=tolerance)
    return Allocation(pair, shares[0], shares[1], found)


def _settings(method: str, options: dict[str, Any], fixed: str = "") -> Settings:
    validate.keywords(method, options, [field.name for field in dataclasses.fields(Settings) if field.name != fixed])
    return Settings(**options)


def _first(params: Params, instance: Instance) -> Allocation:
    """The tuples that Algorithm 4 starts from; infeasible where no feasible one is known."""
    equal = heuristics.equal(params, instance)
    first: Allocation = equal.allocation
    rows = np.flatnonzero(~equal.feasible)
    if len(rows):
        other = heuristics.start(params, instance[rows], _first_pairing(params, instance[rows]))
        first = first.replaced(rows, other)
    return first


def _first_pairing(params: Params, instance: Instance) -> Array:
    """(n, K) the matching of largest sum rate at equal shares, where some pairs need more than their share.

    The bandwidth that a pair lacks to meet its latency limit at delta^D costs the rate of the mean pair per share.
    """
    link = physics.links(params, instance)
    shares = heuristics.equal_shares(params, len(link))
    power, bandwidth = (np.broadcast_to(share[:, :1], link.rho_min.shape) for share in shares)
    low = limits.ratio_floor(params, link)
    need = np.minimum(limits.bandwidth_floor(params, link, power, low), params.max_bandwidth_hz)
    ratio = limits.ratio_ceiling(link, power, np.maximum(need, bandwidth), low, np.ones_like(low))
    rate = MBIT * total(physics.rates(link, power, bandwidth, ratio))
    lack = np.maximum(need / bandwidth - 1.0, 0.0)
    return actions.match(params, instance, rate - lack * rate.mean(-1, keepdims=True))


def _batch(params: Params, instance: Instance, pair: Array | None, settings: Settings) -> Solution:
    """Every instance by itself, with the pairs (n, K), or with those that Algorithm 3 finds."""
    from tqdm import tqdm  # of the extra 'solvers', as cvxpy

    started = time.perf_counter()
    n = len(instance)
    first = _first(params, instance) if pair is None else heuristics.start(params, instance, pair)
    seconds = np.full(n, (time.perf_counter() - started) / n)
    found, status, trace = [], [], np.full((n, settings.iterations), np.nan)
    for row in tqdm(range(n), disable=not settings.progress, unit="instance"):
        begun = time.perf_counter()
        allocation, values, why = _alternate(params, instance[row], first[row], pair is None, settings)
        found.append(allocation)
        status.append(why)
        trace[row, : len(values)] = values
        seconds[row] += time.perf_counter() - begun
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

    def blocks(pair: Array, ratio: Array | None) -> tuple[Allocation, float] | None:
        """Algorithms 1 and 2 from the current power and bandwidth, and the sum rate; None where infeasible."""
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
        return None if found is None else (found, _value(params, instance, found))

    trace: list[float] = []
    value, prices = _value(params, instance, now), None
    if value == -np.inf:
        return now, trace, "no feasible start"
    for _ in range(settings.iterations):
        before = value
        try:
            refined = blocks(now.pair, now.ratio)
            assert refined is not None  # as there were ratios to keep
            now, value = refined
            if repair:
                pair, prices, _ = pairing.optimise(params, instance, now, prices=prices)
                other = None if pair is None else blocks(pair, None)
                if other is not None and other[1] >= value:
                    now, value = other
        except ArithmeticError as error:
            return now, trace, f"stopped at the last accepted tuple: {error}"
        trace.append(value)
        if value - before < settings.tolerance * before:
            return now, trace, "ok"
    return now, trace, f"not converged in {settings.iterations} passes"


def _value(params: Params, instance: Instance, allocation: Allocation) -> float:
    """Sum rate [Mbit/s] of one instance, -inf where a constraint of (20) is broken."""
    outcome = physics.evaluate(params, instance, allocation)
    return float(outcome.objective[0]) if outcome.feasible[0] else -np.inf
