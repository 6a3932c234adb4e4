"""A batched solver: shares follow their marginal values, then Newton's method finishes.

At a KKT point every user above its floor has the same marginal value of bandwidth, and of power. The update
``share <- share * (marginal value / mean marginal value)**g`` with a falling g has exactly these fixed points; the
compression ratio follows by one Newton step per iteration and is exact at the end. After ``ASCENT`` of these steps from
equal shares :mod:`~semcom_gym.baselines.crra.newton` converges in a few more, and drops users who do not pay: V is
S-shaped, so a KKT point may serve a user whose value is less than what its resources earn elsewhere. Where that is in
doubt both ways are tried. ``swaps`` rounds of local search over the served set catch what all this misses.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from semcom_gym.baselines.crra.newton import Cells, Point, Verdict, is_user, refine, shares
from semcom_gym.baselines.crra.normal import allocation
from semcom_gym.baselines.solution import Solution, package
from semcom_gym.envs import simplex, validate
from semcom_gym.envs.arrays import (
    Array,
    Batch,
    at_least,
    at_most,
    chunk,
    concatenate,
    in_order,
    is_torch,
    keep_memory,
    namespace,
    rows_where,
    turned,
)
from semcom_gym.envs.crra import actions, physics
from semcom_gym.envs.crra.instance import Instance, Params

ASCENT = 10  # steps from equal shares: by then it shows who will be served
FIRST_RATIOS = 5  # Newton steps of the ratio alone before them, from the largest, at which nobody seems worthless
TRIAL = 4  # Newton steps without a user, to see whether that is better
SEARCH = 10  # Newton steps from every change of the served set that ``swaps`` tries
CHUNK, DEVICE_CHUNK = 1024, 65536
RATIO_STEPS = (-0.1, 0.5)  # of a ratio: down, and up as a share of what is left
STEP_LIMITS = (0.3, 10.0)  # of marginal value over its mean: a larger fall would starve a user for good
NO_FLOORS = (1.0, 1e-12)  # [Hz], [W]
LOST = 1e-7  # a relative fall of the value that is no rounding


def solve(params: Params, instance: Instance, *, iterations: int = 24, swaps: int = 0) -> Solution:
    """Solve a batch of NumPy or torch instances.

    iterations: at most, of the ascent and then of Newton's method, which with selection runs twice. swaps: rounds of
    local search over the served set (slower, better; NumPy only).
    """
    validate.integer("iterations", iterations)
    validate.integer("swaps", swaps, low=0)
    if swaps and is_torch(instance.gain):
        raise ValueError("swaps of method 'fast' takes NumPy instances, not torch tensors")
    started = time.perf_counter()
    keep_memory()
    parts = []
    size = chunk(instance.gain, CHUNK, DEVICE_CHUNK)
    for low in range(0, len(instance), size):
        part = instance[low : low + size]
        state = _start(params, part, iterations)
        for _ in range(swaps):
            state, improved = _swap(params, part, state)
            if not improved:
                break
        parts.append(state.allocation(params, part))
    done = np.full(len(instance), iterations)
    return package("crra", params, instance, concatenate(parts), started, iterations=done)


@dataclasses.dataclass(frozen=True)
class State(Batch):
    """Shares of what is spare (n, U), the served set (n, U) in {0, 1}, the ratio (n, U) and a recent value (n,)."""

    bandwidth: Array
    power: Array
    served: Array
    ratio: Array
    value: Array

    def point(self) -> Point:
        """The same as :mod:`newton` takes it."""
        served, ratio = in_order(turned(self.served)), in_order(turned(self.ratio))
        share = namespace(served).stack((turned(self.bandwidth), turned(self.power)))
        return Point(shares(share * served), served, ratio)

    def resources(self, params: Params, instance: Instance) -> tuple[Array, Array]:
        """Bandwidth [Hz] and power [W], (n, U)."""
        active = self.served if params.selection else namespace(self.served).ones_like(self.served)
        return (
            simplex.split_budget(self.bandwidth, instance.bandwidth_hz, params.min_bandwidth_hz, active),
            simplex.split_budget(self.power, instance.power_w, params.min_power_w, active),
        )

    def allocation(self, params: Params, instance: Instance) -> physics.Allocation:
        """The decision, with the exact ratio."""
        bandwidth, power = self.resources(params, instance)
        ratio = Cells(params, instance).users.best_ratio(turned(bandwidth), turned(power), turned(self.ratio))
        return allocation(bandwidth, power, turned(ratio), self.served if params.selection else None)

    def objective(self, params: Params, instance: Instance) -> Array:
        """(n,) the objective at the exact ratio."""
        users = Cells(params, instance).users
        bandwidth, power = (turned(x) for x in self.resources(params, instance))
        value = users.value(bandwidth, power, users.best_ratio(bandwidth, power, turned(self.ratio)))
        return (value * turned(self.served) if params.selection else value).sum(0)


def _state(point: Point, value: Array) -> State:
    """The same the other way round."""
    return State(turned(point.share[0]), turned(point.share[1]), turned(point.served), turned(point.ratio), value)


def _start(params: Params, instance: Instance, iterations: int) -> State:
    """A state from equal shares; with selection, first without floors until the served set fits them."""
    ones = in_order(namespace(instance.gain).ones_like(turned(instance.gain)))
    even = Point(namespace(ones).stack((ones, ones)) / len(ones), ones, params.max_ratio * ones)
    cells, rest = Cells(params, instance), max(iterations - ASCENT, 0)
    if params.selection:
        first = _select(params, instance, even, iterations)
        value = 0.0 * instance.power_w
    else:
        first, value = _climb(cells, even, iterations - rest)
    if not rest:
        return _state(first, value)
    point, verdict = refine(cells, first, rest)
    _try_without(cells, point, verdict)
    lost = rows_where(verdict.value < (1.0 - LOST) * value)  # where success is tiny the prices mislead: serve all there
    if len(lost):
        other, value = _climb(cells.take(lost), first.take(lost), rest, ASCENT)
        point.put(lost, other)
        verdict.value[lost] = value
    return _state(point, verdict.value)


def _try_without(cells: Cells, point: Point, verdict: Verdict) -> None:
    """Drop the users in doubt where that is better, in place."""
    rows = rows_where(verdict.doubt)
    if not len(rows):
        return
    less = point.take(rows).without(is_user(verdict.who[rows], len(point.served)))
    other, reached = refine(cells.take(rows), less, TRIAL, drop=cells.selection)
    better = rows_where(reached.value > verdict.value[rows])
    point.put(rows[better], other.take(better))
    verdict.value[rows[better]] = reached.value[better]


def _select(params: Params, instance: Instance, even: Point, iterations: int) -> Point:
    """A point without floors, until it serves no more users than they allow; then with floors."""
    free = Cells(params, instance, NO_FLOORS)
    point, _ = _climb(free, even, min(iterations, ASCENT))
    if iterations > ASCENT:
        point, _ = refine(free, point, iterations - ASCENT)
    amounts, xp = free.amounts(point), namespace(point.share)
    value = free.users.value(amounts[0], amounts[1], point.ratio)
    while len(rows_where(over := point.served.sum(0) > free.most)):
        who = xp.where(point.served > 0, value, xp.inf).argmin(0)
        point = point.without(is_user(who, len(value)) & over)
    share = xp.maximum(amounts - free.freed, 0.1 * free.freed)
    return Point(shares(share * point.served), point.served, point.ratio)


def ascend(params: Params, instance: Instance, state: State, iterations: int, *, frozen_ratio: bool = False) -> State:
    """The ascent from a state, serving whom it serves. frozen_ratio: keep its ratio."""
    return _state(*_climb(Cells(params, instance), state.point(), iterations, frozen_ratio=frozen_ratio))


def _climb(
    cells: Cells, point: Point, iterations: int, first: int = 0, frozen_ratio: bool = False
) -> tuple[Point, Array]:
    """The ascent, and the value before its last step (n,). first: iterations done before, which decide the step."""
    users, share, served, ratio = cells.users, point.share, point.served, point.ratio
    top, spare, amounts = users.params.max_ratio, cells.spare(served), cells.amounts(point)
    if not frozen_ratio and not first:
        for _ in range(FIRST_RATIOS):
            ratio = _turned(users.slopes(amounts, ratio).step, ratio, top)
    for k in range(first, first + iterations):
        at = users.slopes(amounts, ratio)
        marginal = at.value * at.by / amounts
        relative = marginal / ((share * marginal).sum(1) + 1e-300)[:, None]
        relative = at_most(at_least(relative, STEP_LIMITS[0]), STEP_LIMITS[1])
        share = shares(share * relative ** (0.5 / (1.0 + k / 15.0)) * served)
        before, amounts = amounts[0], cells.floors + spare * share
        if not frozen_ratio:  # keep the spectral efficiency: at the old ratio a smaller share would look worthless
            ratio = _turned(at.step, ratio, top)
            ratio = at_most(at_least(1.0 - (1.0 - ratio) * (amounts[0] / before), 0.0), top)
    return Point(share, served, ratio), cells.total(at.value, served)


def _turned(step: Array, ratio: Array, top: float) -> Array:
    """The ratio after a damped step."""
    step = namespace(ratio).minimum(at_least(step, RATIO_STEPS[0]), RATIO_STEPS[1] * (1.0 - ratio))
    return at_most(at_least(ratio + step, 0.0), top)


def _swap(params: Params, instance: Instance, state: State) -> tuple[State, bool]:
    """One round of local search: every user dropped, added, or exchanged for another; the best of each instance."""
    users = instance.gain.shape[1]
    one = np.eye(users)
    first, second = np.triu_indices(users, 1)
    flips = np.concatenate([one, one[first] + one[second]])
    before = state.objective(params, instance)
    size, improved = max(1, CHUNK // len(flips)), False
    for low in range(0, len(instance), size):
        rows = np.arange(low, min(low + size, len(instance)))
        owner, tried = _changed(params, instance[rows], state[rows], flips)
        if not len(owner):
            continue
        owner += low
        point, verdict = refine(Cells(params, instance[owner]), tried.point(), SEARCH, drop=False)
        tried = _state(point, verdict.value)
        reached = tried.objective(params, instance[owner])
        order = np.lexsort((-np.arange(len(owner)), reached, owner))
        top = order[np.append(owner[order][1:] != owner[order][:-1], True)]  # of every instance, the first if equal
        top = top[reached[top] > before[owner[top]]]
        improved |= bool(np.any(reached[top] > before[owner[top]] * (1 + 1e-7)))
        state = state.replaced(owner[top], tried[top])
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
    old = state[owner]
    new = (served > 0) & (old.served == 0)
    b, p = (np.where(new, 1.0 / np.maximum(grown, 1.0), share) for share in (old.bandwidth, old.power))
    return owner, State(b * served, p * served, served, old.ratio, old.value)
