"""The paper's algorithms: CRRA (Algorithms 2-4) and CRRAUS (Algorithms 5-6), one instance at a time.

Both alternate the best compression ratio and a resource allocation by successive convex approximation (SCA, (24)-(32),
:mod:`sca`, where its corrections are explained); CRRAUS also selects users by branch and bound (34).
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import scipy.optimize

from semcom_gym.baselines.crra import heuristics, sca
from semcom_gym.baselines.crra.normal import Users, allocation
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import simplex, validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.crra import actions, physics
from semcom_gym.envs.crra.instance import Instance, Params

GRID = 0.01  # of Algorithm 2


@dataclasses.dataclass(frozen=True)
class Settings:
    """Options of the three methods.

    outer: most passes of Algorithm 4 or 6. inner: most convex problems per pass (Algorithm 3). tolerance: relative
    change of the objective at which a loop has converged. enumeration: Algorithm 2's grid of 0.01 (reset for each
    user, up to max_ratio) in place of the exact ratio. progress: show a bar.
    """

    outer: int = 50
    inner: int = 5
    tolerance: float = 1e-5
    enumeration: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        validate.integer("outer", self.outer)
        validate.integer("inner", self.inner)
        validate.number("tolerance", self.tolerance)


def crra(params: Params, instance: Instance, **options: Any) -> Solution:
    """CRRA, Algorithm 4, from equal shares; options are the fields of :class:`Settings`.

    With ``success="approximate"`` the objective is exactly the paper's (24a)-(25); with ``"exact"`` the tangent of
    2 Q(x), which lies below it because 2 Q is convex for x > 0, takes the place of (24a)-(25).
    With selection, users are admitted once, as :func:`heuristics.admit` does.
    iterations: convex problems solved; trace: the objective after each.
    """
    return _batch(params, instance, _settings("crra", options), printed=False)


def crra_printed(params: Params, instance: Instance, **options: Any) -> Solution:
    """CRRA with the linearisation (31) as printed, its last term corrected to + (x^j - P^j)^2.

    Its objective may fall and seldom converges: ``outer`` is 10 by default and the best iterate is returned. Other
    options as in :func:`crra`.
    """
    return _batch(params, instance, _settings("crra_printed", {"outer": 10} | options), printed=True)


def crraus(params: Params, instance: Instance, *, start: float = 1.0, **options: Any) -> Solution:
    """CRRAUS, Algorithm 6; other options are the fields of :class:`Settings`. Needs params.selection (ValueError).

    start: what every user asks for at first, in equal shares of the budgets, and at least its floors. Where the
    requests fit the budgets (1.0 without binding floors), (34) selects everybody and nobody is ever left out.
    A user that is left out keeps its last request and ratio, so that a later pass may select it.
    """
    if not params.selection:
        raise ValueError("crraus needs selection=True (SemCom/CRRAUS-v0); without it use method 'crra'")
    validate.number("start", start, high=params.num_users)
    return _batch(params, instance, _settings("crraus", options), printed=False, start=start)


def _settings(method: str, options: dict[str, Any]) -> Settings:
    validate.keywords(method, options, [field.name for field in dataclasses.fields(Settings)])
    return Settings(**options)


def _batch(
    params: Params, instance: Instance, settings: Settings, *, printed: bool, start: float | None = None
) -> Solution:
    from tqdm import tqdm  # of the extra 'solvers', as cvxpy

    started = time.perf_counter()
    runs, seconds = [], []
    for row in tqdm(range(len(instance)), disable=not settings.progress, unit="instance"):
        begun = time.perf_counter()
        run = _Run(params, instance[row], settings, printed)
        if start is None:
            run.allocate()
        else:
            run.select_and_allocate(start)
        run.polish()
        runs.append(run)
        seconds.append(time.perf_counter() - begun)
    trace = np.full((len(runs), max(len(run.trace) for run in runs)), np.nan)
    for row, run in enumerate(runs):
        trace[row, : len(run.trace)] = run.trace
    names = ("bandwidth", "power", "ratio", "served")
    best = allocation(*(np.stack([getattr(run.best, name) for run in runs]) for name in names))
    return package(
        "crra",
        params,
        instance,
        best,
        started,
        seconds=np.array(seconds),
        iterations=np.array([len(run.trace) for run in runs]),
        trace=trace,
        status=[run.status for run in runs],
    )


@dataclasses.dataclass(frozen=True)
class _Point:
    """Bandwidth [Hz], power [W], ratio and served in {0, 1} of the U users, and the objective."""

    bandwidth: Array
    power: Array
    ratio: Array
    served: Array
    objective: float


class _Run:
    """One instance: the best iterate so far, the trace, and why it stopped."""

    def __init__(self, params: Params, instance: Instance, settings: Settings, printed: bool) -> None:
        self.params, self.instance, self.settings, self.printed = params, instance, settings, printed
        self.users = Users(params, instance)
        self.trace: list[float] = []
        self.status = "ok"
        served = heuristics.admit(params, instance)
        bandwidth, power = heuristics.equal_shares(params, instance, served)
        self.best = self._point(bandwidth[0], power[0], self._ratios(bandwidth[0], power[0]), served[0])

    def allocate(self) -> None:
        """Algorithm 4."""
        point = self.best
        for _ in range(self.settings.outer):
            before = point.objective
            point = self._resources(point)
            point = self._point(point.bandwidth, point.power, self._ratios(point.bandwidth, point.power), point.served)
            self._keep(point)
            if self._finished(before, point):
                return
        self.status = f"not converged in {self.settings.outer} passes"

    def select_and_allocate(self, start: float) -> None:
        """Algorithm 6."""
        params, users = self.params, self.params.num_users
        bandwidth = np.full(users, max(start / users * self.instance.bandwidth_hz[0], params.min_bandwidth_hz))
        power = np.full(users, max(start / users * self.instance.power_w[0], params.min_power_w))
        ratio, served = self._ratios(bandwidth, power), np.ones(users)
        point = self.best = self._point(bandwidth, power, ratio, np.zeros(users))
        for _ in range(self.settings.outer):
            before = point.objective
            ratio = np.where(served > 0, self._ratios(bandwidth, power), ratio)
            served = self._select(bandwidth, power, ratio)
            point = self._resources(self._point(*self._use_up(bandwidth, power, served), ratio, served))
            bandwidth = np.where(served > 0, point.bandwidth, bandwidth)
            power = np.where(served > 0, point.power, power)
            if self._finished(before, point):
                return
        self.status = f"not converged in {self.settings.outer} passes"

    def polish(self) -> None:
        """The best ratio at the best resources, which the last pass may not have reached."""
        best = self.best
        self._keep(self._point(best.bandwidth, best.power, self._ratios(best.bandwidth, best.power), best.served))

    def _finished(self, before: float, point: _Point) -> bool:
        return self.status != "ok" or abs(point.objective - before) <= self.settings.tolerance * point.objective

    def _ratios(self, bandwidth: Array, power: Array) -> Array:
        """Algorithm 2, or (33): the best ratio of each user."""
        if not self.settings.enumeration:
            return np.asarray(self.users.best_ratio(bandwidth[None], power[None])[0])
        grid = GRID * np.arange(1, int(self.params.max_ratio / GRID + 1e-9) + 1)
        if not len(grid):
            raise ValueError(f"enumeration needs max_ratio >= {GRID}, got {self.params.max_ratio:g}")
        values = [self._values(bandwidth, power, np.full_like(bandwidth, ratio)) for ratio in grid]
        return np.minimum(grid[np.argmax(values, axis=0)], self.params.max_ratio)

    def _select(self, bandwidth: Array, power: Array, ratio: Array) -> Array:
        """(34) under (14a), (14c): the users of largest total value whose requests fit, by branch and bound."""
        value = self._values(bandwidth, power, ratio)
        requests = np.stack([bandwidth / self.instance.bandwidth_hz, power / self.instance.power_w])
        fits = scipy.optimize.LinearConstraint(requests, ub=1.0 + actions.MARGIN)
        scaled = value / max(float(value.max()), 1e-300)
        binary = scipy.optimize.Bounds(0, 1)
        result = scipy.optimize.milp(
            -scaled, integrality=np.ones_like(value), bounds=binary, constraints=fits, options={"mip_rel_gap": 0.0}
        )
        if result.x is None:
            raise RuntimeError(f"user selection (34) failed: {result.message}")
        return np.round(result.x)

    def _values(self, bandwidth: Array, power: Array, ratio: Array) -> Array:
        return np.asarray(self.users.value(bandwidth[None], power[None], ratio[None])[0])

    def _point(self, bandwidth: Array, power: Array, ratio: Array, served: Array) -> _Point:
        objective = float(np.sum(served * self._values(bandwidth, power, ratio)))
        return _Point(bandwidth, power, ratio, served, objective)

    def _keep(self, point: _Point) -> None:
        if point.objective > self.best.objective:
            self.best = point

    def _use_up(self, bandwidth: Array, power: Array, served: Array) -> tuple[Array, Array]:
        """The resources, with what is left of a budget (or lacking) shared in proportion above the floors."""
        shares = []
        for amount, floor, budget in (
            (bandwidth, self.params.min_bandwidth_hz, self.instance.bandwidth_hz),
            (power, self.params.min_power_w, self.instance.power_w),
        ):
            above = np.maximum(amount - floor, 1e-9 * floor)  # all at their floors: equal shares of the rest
            shares.append(simplex.split_budget(above[None], budget, floor, served[None])[0])
        return shares[0], shares[1]

    def _resources(self, point: _Point) -> _Point:
        """Algorithm 3 at the point's ratio and served users: its last iterate."""
        self._keep(point)
        on = np.flatnonzero(point.served)
        spare_hz = self.instance.bandwidth_hz[0] - len(on) * self.params.min_bandwidth_hz
        spare_w = self.instance.power_w[0] - len(on) * self.params.min_power_w
        if not len(on) or spare_hz <= 0 or spare_w <= 0:
            return point
        for _ in range(self.settings.inner):
            before = point.objective
            relative = self._step(point, on)
            if isinstance(relative, str):
                self.status = f"stopped at the best iterate: {relative}"
                break
            bandwidth, power = point.bandwidth.copy(), point.power.copy()
            bandwidth[on] *= relative[0]
            power[on] *= relative[1]
            point = self._point(*self._use_up(bandwidth, power, point.served), point.ratio, point.served)
            self.trace.append(point.objective)
            self._keep(point)
            if abs(point.objective - before) <= self.settings.tolerance * before:
                break
        return point

    def _step(self, point: _Point, on: Array) -> tuple[Array, Array] | str:
        """(32) around a point: bandwidth and power of the served users relative to it, or why there are none."""
        users, params = self.users, self.params
        x = users.argument(point.bandwidth[None], point.power[None], point.ratio[None])[0][0]
        steepness = users.hazard(x) if params.success == "exact" else 0.5 * x
        slope = (self._values(point.bandwidth, point.power, point.ratio) * x * steepness)[on]
        efficiency = np.minimum((1.0 - point.ratio) * users.rate / point.bandwidth, physics.MAX_EFFICIENCY)
        return sca.program(len(on), params.success, self.printed).solve(
            slope=slope / max(float(slope.max()), 1e-300),
            growth=physics.LN2 * efficiency[on],
            bandwidth=point.bandwidth[on] / self.instance.bandwidth_hz,
            power=point.power[on] / self.instance.power_w,
            min_bandwidth=params.min_bandwidth_hz / point.bandwidth[on],
            min_power=params.min_power_w / point.power[on],
        )
