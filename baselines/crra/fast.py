"""A batched solver: shares follow their marginal values, users who do not pay for their resources are dropped.

At a KKT point every user above its floor has the same marginal value of bandwidth, and of power. The update
``share <- share * (marginal value / mean marginal value)**g`` with a falling g has exactly these fixed points; the
compression ratio follows by one Newton step per iteration and is exact at the end. V is S-shaped, so a KKT point may
serve a user whose value is less than what its resources earn elsewhere at the going prices: such users are dropped
while the ascent runs, and ``swaps`` rounds of local search over the served set catch what that misses.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from semcom_gym.baselines.crra.normal import Users, allocation
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import simplex, validate
from semcom_gym.envs.arrays import Array, concatenate
from semcom_gym.envs.crra import actions, physics
from semcom_gym.envs.crra.instance import Instance, Params

DROP_EVERY = 8  # iterations between two looks at who does not pay
FIRST_DROP = 16
CHUNK = 256  # instances at a time: where NumPy's temporaries still fit the cache
STEP_LIMITS = (0.3, 10.0)  # of marginal value over its mean: a larger fall would starve a user for good


def solve(params: Params, instance: Instance, *, iterations: int = 40, swaps: int = 0) -> Solution:
    """Solve a batch. iterations: of the ascent; swaps: rounds of local search over the served set (slower, better)."""
    validate.integer("iterations", iterations)
    validate.integer("swaps", swaps, low=0)
    started = time.perf_counter()
    parts = []
    for low in range(0, len(instance), CHUNK):
        part = instance[low : low + CHUNK]
        state = _start(params, part, iterations)
        for _ in range(swaps):
            state, improved = _swap(params, part, state, iterations)
            if not improved:
                break
        parts.append(state.allocation(params, part))
    done = np.full(len(instance), iterations)
    return package("crra", params, instance, concatenate(parts), started, iterations=done)


@dataclasses.dataclass
class State:
    """Weights of the shares (n, U), the served set (n, U) in {0, 1}, the ratio (n, U) and the last value (n,)."""

    bandwidth: Array
    power: Array
    served: Array
    ratio: Array
    value: Array

    def take(self, rows: Array) -> State:
        """The states of some instances."""
        return State(*(getattr(self, name)[rows] for name in vars(self)))

    def put(self, rows: Array, other: State) -> State:
        """This state with some instances' replaced."""
        return State(*(_put(getattr(self, name), rows, getattr(other, name)) for name in vars(self)))

    def resources(self, params: Params, instance: Instance) -> tuple[Array, Array]:
        """Bandwidth [Hz] and power [W], (n, U)."""
        active = self.served if params.selection else np.ones_like(self.served)
        return (
            simplex.split_budget(self.bandwidth, instance.bandwidth_hz, params.min_bandwidth_hz, active),
            simplex.split_budget(self.power, instance.power_w, params.min_power_w, active),
        )

    def allocation(self, params: Params, instance: Instance) -> physics.Allocation:
        """The decision, with the exact ratio."""
        bandwidth, power = self.resources(params, instance)
        ratio = Users(params, instance).best_ratio(bandwidth, power)
        return allocation(bandwidth, power, ratio, self.served if params.selection else None)

    def objective(self, params: Params, instance: Instance) -> Array:
        """(n,) the objective at the exact ratio."""
        users = Users(params, instance)
        bandwidth, power = self.resources(params, instance)
        value = users.value(bandwidth, power, users.best_ratio(bandwidth, power, 30))
        return np.sum(value * self.served if params.selection else value, axis=-1)


def _start(params: Params, instance: Instance, iterations: int) -> State:
    """The ascent from equal shares; with selection, first without floors until the served set fits them."""
    ones = np.ones_like(instance.gain)
    state = State(ones, ones, ones, np.full_like(ones, 0.9 * params.max_ratio), np.zeros(len(ones)))
    if params.selection:
        tiny = dataclasses.replace(params, min_bandwidth_hz=1.0, min_power_w=1e-12, selection=False)
        fits = actions.capacity(params, instance)
        state = ascend(tiny, instance, state, iterations, drop=True, at_most=fits)
    before = ascend(params, instance, state, min(iterations, FIRST_DROP))
    rest = iterations - FIRST_DROP
    if rest <= 0:
        return before
    after = ascend(params, instance, before, rest, first=FIRST_DROP, drop=True)
    lost = np.flatnonzero(after.value < before.value)  # where success is tiny the prices mislead: serve all there
    if len(lost):
        after = after.put(lost, ascend(params, instance[lost], before.take(lost), rest, first=FIRST_DROP))
    return after


def ascend(
    params: Params,
    instance: Instance,
    state: State,
    iterations: int,
    *,
    first: int = 0,
    drop: bool = False,
    at_most: Array | None = None,
    frozen_ratio: bool = False,
) -> State:
    """Run the ascent from a state. drop: give up users who do not pay; at_most (n,): and as many more as it takes.

    first: iterations done before, which decide the step. frozen_ratio: keep the state's ratio.
    """
    users = Users(params, instance)
    b, p, served, ratio = state.bandwidth * state.served, state.power * state.served, state.served.copy(), state.ratio
    if not frozen_ratio and not first:
        ratio = users.best_ratio(*state.resources(params, instance), 16)
    bandwidth, power = State(b, p, served, ratio, state.value).resources(params, instance)
    for k in range(first, first + iterations):
        value, by_bandwidth, by_power, step = users.newton(bandwidth, power, ratio)
        if not frozen_ratio:
            ratio = np.clip(ratio + step, 0.0, params.max_ratio)
        price_b = _mean(b, by_bandwidth)
        price_p = _mean(p, by_power)
        if drop and k % DROP_EVERY == 0 and k >= FIRST_DROP:
            held = (0.0, 0.0) if params.selection else (params.min_bandwidth_hz, params.min_power_w)
            surplus = value - price_b * (bandwidth - held[0]) - price_p * (power - held[1])
            _drop_worst(surplus, served, at_most)
        speed = 0.5 / (1.0 + k / 15.0)
        b = b * np.clip(by_bandwidth / price_b, *STEP_LIMITS) ** speed * served
        p = p * np.clip(by_power / price_p, *STEP_LIMITS) ** speed * served
        before = bandwidth
        bandwidth, power = State(b, p, served, ratio, state.value).resources(params, instance)
        if not frozen_ratio:  # keep the spectral efficiency: at the old ratio a smaller share would look worthless
            ratio = np.clip(1.0 - (1.0 - ratio) * (bandwidth / before), 0.0, params.max_ratio)
    while at_most is not None and bool(np.any(np.sum(served, axis=-1) > at_most)):
        _drop_worst(value, served, at_most)
    total = np.sum(value * served if params.selection else value, axis=-1)
    return State(b, p, served, ratio, total)


def _mean(share: Array, marginal: Array) -> Array:
    total = np.sum(share, axis=-1, keepdims=True)
    return np.sum(share * marginal, axis=-1, keepdims=True) / np.maximum(total, simplex.TINY) + 1e-300


def _drop_worst(surplus: Array, served: Array, at_most: Array | None) -> None:
    """Take the served user of least surplus out of every instance where that is negative or the set is too large."""
    surplus = np.where(served > 0, surplus, np.inf)
    rows = np.arange(len(surplus))
    worst = np.argmin(surplus, axis=-1)
    least = surplus[rows, worst]
    out = least < 0
    if at_most is not None:
        out |= np.sum(served, axis=-1) > at_most
    out &= np.isfinite(least)
    served[rows[out], worst[out]] = 0.0


def _swap(params: Params, instance: Instance, state: State, iterations: int) -> tuple[State, bool]:
    """One round of local search: every user dropped, added, or exchanged for another; the best of each instance."""
    n, users = instance.gain.shape
    flips = np.eye(users)
    pairs = [flips[i] + flips[j] for i in range(users) for j in range(i)]
    fits = actions.capacity(params, instance) if params.selection else np.full(n, users)
    best, objective = state, state.objective(params, instance)
    before = objective.copy()
    for flip in (*flips, *pairs):
        served = np.abs(state.served - flip)
        grown = np.sum(served, axis=-1, keepdims=True)
        new = (served > 0) & (state.served == 0)
        start = []
        for weight in (state.bandwidth, state.power):
            share = weight / np.maximum(weight.sum(-1, keepdims=True), simplex.TINY)
            start.append(np.where(new, 1.0 / np.maximum(grown, 1.0), share))
        candidate = State(start[0] * served, start[1] * served, served, state.ratio, state.value)
        allowed = np.flatnonzero((served.sum(-1) <= fits) & _one_for_one(served, state.served))
        if not len(allowed):
            continue
        part = instance[allowed]
        tried = ascend(params, part, candidate.take(allowed), iterations)
        reached = tried.objective(params, part)
        better = reached > objective[allowed]
        rows = allowed[better]
        objective[rows] = reached[better]
        best = best.put(rows, tried.take(np.flatnonzero(better)))
    return best, bool(np.any(objective > before * (1 + 1e-7)))


def _one_for_one(served: Array, before: Array) -> Array:
    """Whether a changed set drops one, adds one, or exchanges one for one."""
    return np.abs(served.sum(-1) - before.sum(-1)) < 2


def _put(array: Array, rows: Array, values: Array) -> Array:
    changed = array.copy()
    changed[rows] = values
    return changed
