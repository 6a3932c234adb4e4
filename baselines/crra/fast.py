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
CHUNK = 1024
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
        ratio = Users(params, instance).best_ratio(bandwidth, power, self.ratio)
        return allocation(bandwidth, power, ratio, self.served if params.selection else None)

    def objective(self, params: Params, instance: Instance) -> Array:
        """(n,) the objective at the exact ratio."""
        users = Users(params, instance)
        bandwidth, power = self.resources(params, instance)
        value = users.value(bandwidth, power, users.best_ratio(bandwidth, power, self.ratio))
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
    instance = instance.map(np.asfortranarray)  # sums over users then run along whole columns
    users = Users(params, instance)
    served, ratio = state.served.copy("F"), np.asfortranarray(state.ratio)
    count = instance.gain.shape[1]

    def spare() -> tuple[Array, Array]:
        """What is left of each budget above the floors, (n, 1)."""
        held = np.sum(served, axis=-1) if params.selection else count
        left_b = instance.bandwidth_hz - params.min_bandwidth_hz * held
        left_p = instance.power_w - params.min_power_w * held
        return np.maximum(left_b, 0.0)[:, None], np.maximum(left_p, 0.0)[:, None]

    b, p = (_shares(np.asfortranarray(weight) * served) for weight in (state.bandwidth, state.power))
    spare_b, spare_p = spare()
    bandwidth, power = params.min_bandwidth_hz + spare_b * b, params.min_power_w + spare_p * p
    if not frozen_ratio and not first:
        ratio = users.best_ratio(bandwidth, power, ratio)
    for k in range(first, first + iterations):
        value, by_bandwidth, by_power, step = users.newton(bandwidth, power, ratio)
        price_b = np.sum(b * by_bandwidth, axis=-1, keepdims=True) + 1e-300
        price_p = np.sum(p * by_power, axis=-1, keepdims=True) + 1e-300
        if drop and k % DROP_EVERY == 0 and k >= FIRST_DROP:
            held = (0.0, 0.0) if params.selection else (params.min_bandwidth_hz, params.min_power_w)
            surplus = value - price_b * (bandwidth - held[0]) - price_p * (power - held[1])
            _drop_worst(surplus, served, at_most)
            spare_b, spare_p = spare()
        speed = 0.5 / (1.0 + k / 15.0)
        b = _shares(b * _step(by_bandwidth / price_b) ** speed * served)
        p = _shares(p * _step(by_power / price_p) ** speed * served)
        before, bandwidth = bandwidth, params.min_bandwidth_hz + spare_b * b
        power = params.min_power_w + spare_p * p
        if not frozen_ratio:  # keep the spectral efficiency: at the old ratio a smaller share would look worthless
            ratio = np.minimum(np.maximum(ratio + step, 0.0), params.max_ratio)
            ratio = np.maximum(1.0 - (1.0 - ratio) * (bandwidth / before), 0.0)
            ratio = np.minimum(ratio, params.max_ratio)
    while at_most is not None and bool(np.any(np.sum(served, axis=-1) > at_most)):
        _drop_worst(value, served, at_most)
    total = np.sum(value * served if params.selection else value, axis=-1)
    return State(b, p, served, ratio, total)


def _shares(weight: Array) -> Array:
    """Weights over their sum, all zero where nobody is served."""
    return weight / np.maximum(np.sum(weight, axis=-1, keepdims=True), simplex.TINY)


def _step(relative: Array) -> Array:
    return np.minimum(np.maximum(relative, STEP_LIMITS[0]), STEP_LIMITS[1])


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
    users = instance.gain.shape[1]
    one = np.eye(users)
    first, second = np.triu_indices(users, 1)
    flips = np.concatenate([one, one[first] + one[second]])
    before = state.objective(params, instance)
    size, improved = max(1, CHUNK // len(flips)), False
    for low in range(0, len(instance), size):
        rows = np.arange(low, min(low + size, len(instance)))
        owner, tried = _changed(params, instance[rows], state.take(rows), flips)
        if not len(owner):
            continue
        owner += low
        tried = ascend(params, instance[owner], tried, iterations)
        reached = tried.objective(params, instance[owner])
        order = np.lexsort((-np.arange(len(owner)), reached, owner))
        top = order[np.append(owner[order][1:] != owner[order][:-1], True)]  # of every instance, the first if equal
        top = top[reached[top] > before[owner[top]]]
        improved |= bool(np.any(reached[top] > before[owner[top]] * (1 + 1e-7)))
        state = state.put(owner[top], tried.take(top))
    return state, improved


def _changed(params: Params, instance: Instance, state: State, flips: Array) -> tuple[Array, State]:
    """The states with each of the ``flips`` (F, U) of the served set that is allowed, and whose they are."""
    owner, flip = (x.ravel() for x in np.indices((len(instance), len(flips))))
    served = np.abs(state.served[owner] - flips[flip])
    grown = np.sum(served, axis=-1)
    allowed = np.abs(grown - state.served.sum(-1)[owner]) < 2  # one dropped, one added, or one for one
    if params.selection:
        allowed &= grown <= actions.capacity(params, instance)[owner]
    owner, served, grown = owner[allowed], served[allowed], grown[allowed, None]
    old = state.take(owner)
    new = (served > 0) & (old.served == 0)
    start = [np.where(new, 1.0 / np.maximum(grown, 1.0), _shares(weight)) for weight in (old.bandwidth, old.power)]
    return owner, State(start[0] * served, start[1] * served, served, old.ratio, old.value)


def _put(array: Array, rows: Array, values: Array) -> Array:
    changed = array.copy()
    changed[rows] = values
    return changed
