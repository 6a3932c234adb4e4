"""A proven lower bound of the training problem: the Lagrangian dual (:mod:`dual`), and branch and bound on modes.

With every device in its high mode the problem is convex in bandwidth and upload time, and the dual value at the
equilibrium's prices is the optimum. Where PSNR pushes devices below their knee, the dual at the convexified problem's
prices bounds every choice of modes. A node of the search gives each device a range of SNR: from some s to some s, or on
to infinity. Its two children cut the range of the device whose two modes are mixed most evenly: into its high mode,
s >= knee, and what lies below the peak (the knee beats what is between), or at a point. With a range that is a point
the problem is convex in all that is left to decide, so bounds and best known meet.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import scipy.special

from semcom_gym.baselines.solution import Bound, Solution
from semcom_gym.baselines.training import dual, equilibrium, fast
from semcom_gym.baselines.training.device import Devices
from semcom_gym.baselines.training.equilibrium import HIGH, LOW, OPEN, State
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, Batch, concatenate
from semcom_gym.envs.training import physics
from semcom_gym.envs.training.instance import Instance, Params

MIXED = 1e-4  # least weight of the lighter mode of a device that is worth a split
ROUNDS = 2  # of Newton's method for the best known; a node that it has lost takes all it needs
WIDTH = 4  # nodes of an instance that are split at a time, those of the lowest bound

Relax = Callable[[Devices, Array, State], State]


@dataclasses.dataclass(frozen=True)
class _Nodes(Batch):
    # (k,) instance; (k,) lower bound so far
    owner: Array
    lower: Array
    # (k, N) mode of each device, range of ln S of its low mode, whether that range is all it has
    mode: Array
    left: Array
    right: Array
    anchored: Array
    # (k, ...) where Newton's method stood at the parent
    log_lam: Array
    log_beta: Array
    log_time: Array
    low: Array
    tilt: Array

    def at(self, state: State) -> _Nodes:
        """The nodes with Newton's method at ``state``."""
        names = ("log_lam", "log_beta", "log_time", "low", "tilt")
        return dataclasses.replace(self, **{name: getattr(state, name) for name in names})

    def state(self) -> State:
        return State(self.log_lam, self.log_beta, self.log_time, self.low, self.tilt, np.full(len(self), np.inf))


def prove(params: Params, instance: Instance, *, nodes: int = 40, tolerance: float = 1e-6) -> Bound:
    """A lower bound for every instance. nodes: of the search, at most about this many per instance.

    tolerance: relative gap at which the search stops.
    """
    validate.integer("nodes", nodes)
    validate.number("tolerance", tolerance, high=1.0)
    started = time.perf_counter()
    search = _Search(params, instance, fast.solve(params, instance, undecided=1), tolerance)
    search.run(nodes)
    best = fast.scored(params, instance, search.allocation, started)
    value = np.where(search.lower > _most(params, instance), np.inf, search.lower)
    with np.errstate(invalid="ignore"):
        gap = np.where(best.feasible, (best.objective - value) / value, np.nan)
    return Bound(value, gap, best, np.full(len(instance), (time.perf_counter() - started) / len(instance)))


def _most(params: Params, instance: Instance) -> Array:
    """(n,) more than the objective of any feasible allocation: all at their caps until NEVER_S."""
    cycles = instance.device_cycles * instance.max_frequency_hz**2 + instance.bs_cycles * params.max_bs_frequency_hz**2
    joule = params.max_power_w * physics.NEVER_S + params.capacitance * params.samples * cycles
    return params.time_weight * physics.NEVER_S + params.energy_weight * joule.sum(-1)


class _Search:
    """Branch and bound over all instances of a batch at once."""

    def __init__(self, params: Params, instance: Instance, known: Solution, tolerance: float) -> None:
        self.params, self.instance, self.tolerance = params, instance, tolerance
        self.devices = Devices(params, instance)
        self.allocation = known.allocation
        self.objective = np.where(known.feasible, known.objective, 2.0 * _most(params, instance))
        self.lower = np.full(len(instance), np.inf)  # least bound of the nodes that are done
        self.count = np.zeros(len(instance), int)

    def run(self, nodes: int) -> None:
        """Search until every instance is within the tolerance or has used up its nodes."""
        todo, relax = self._roots(), equilibrium.relax
        while len(todo):
            todo = todo[np.lexsort((todo.lower, todo.owner))]
            now = np.arange(len(todo)) - np.searchsorted(todo.owner, todo.owner) < WIDTH
            done, children = self._split(todo[now], relax)
            relax = equilibrium.relax_again
            np.minimum.at(self.lower, done.owner, done.lower)
            todo = concatenate([todo[~now], *children])
            closed = self._closed(todo) | (self.count[todo.owner] >= nodes)
            np.minimum.at(self.lower, todo.owner[closed], todo.lower[closed])
            todo = todo[~closed]

    def _closed(self, nodes: _Nodes) -> Array:
        return nodes.lower >= self.objective[nodes.owner] * (1.0 - self.tolerance)

    def _roots(self) -> _Nodes:
        """A node for every instance whose dual value at the prices of high modes is not its optimum already."""
        devices = self.devices
        mode = np.where(devices.has_low, OPEN, HIGH)
        state = equilibrium.solve(devices, np.full_like(mode, HIGH), equilibrium.start(devices))
        lower = dual.bound(devices, mode, state.log_lam, state.log_beta)[0]
        ranges = (devices.left, devices.right, devices.anchored)
        zeros = np.zeros(mode.shape)
        blank = _Nodes(np.arange(len(mode)), lower, mode, *ranges, *(zeros,) * 5)
        roots = blank.at(dataclasses.replace(state, tilt=zeros))
        closed = self._closed(roots)
        self.lower[closed] = lower[closed]
        return roots[~closed]

    def _split(self, nodes: _Nodes, relax: Relax = equilibrium.relax) -> tuple[_Nodes, list[_Nodes]]:
        """Bound the nodes and improve the best known; returns those that are done, and children of the others."""
        np.add.at(self.count, nodes.owner, 1)
        devices = self.devices.take(nodes.owner).within(nodes.left, nodes.right, nodes.anchored)
        state, value, place = _price(devices, nodes, relax)
        nodes = dataclasses.replace(nodes.at(state), lower=np.maximum(nodes.lower, value))
        self._improve(devices, nodes, state)
        done = self._closed(nodes)
        rows = np.flatnonzero(~done)
        children, stuck = _children(devices.take(rows), nodes[rows], place[rows])
        return concatenate([nodes[done], nodes[rows[stuck]]]), children

    def _improve(self, devices: Devices, nodes: _Nodes, state: State) -> None:
        """Put every device in the mode it leans to, and keep what is better than the best known of its instance."""
        mode = _leaning(nodes.mode, state)
        found = equilibrium.decide(devices, mode, equilibrium.solve(devices, mode, state, ROUNDS))
        outcome = physics.evaluate(self.params, self.instance[nodes.owner], found)
        reached = np.where(outcome.feasible, outcome.objective, np.inf)
        for row in np.flatnonzero(reached < self.objective[nodes.owner]):
            if reached[row] < self.objective[nodes.owner[row]]:
                self.objective[nodes.owner[row]] = reached[row]
                self.allocation = self.allocation.replaced(nodes.owner[row : row + 1], found[int(row)])


def _leaning(mode: Array, state: State) -> Array:
    """(k, N) the mode that each device leans to."""
    return np.where((mode == LOW) | (mode == OPEN) & (state.tilt > 0), LOW, HIGH)


def _price(devices: Devices, nodes: _Nodes, relax: Relax) -> tuple[State, Array, Array]:
    """The convexified problem's state, its dual value (k,) and where the low modes' least value was seen (k, N).

    Where Newton's method has lost it: the state with all devices in the mode they lean to, if its prices prove more.
    """
    state = relax(devices, nodes.mode, nodes.state())
    value, place = dual.bound(devices, nodes.mode, state.log_lam, state.log_beta)
    lost = np.flatnonzero(~(state.residual < equilibrium.TRACKED))
    if len(lost):
        part, mode, old = devices.take(lost), nodes.mode[lost], state[lost]
        again = dataclasses.replace(equilibrium.solve(part, _leaning(mode, old), old), tilt=old.tilt)
        found, where = dual.bound(part, mode, again.log_lam, again.log_beta)
        better = found > value[lost]
        rows = lost[better]
        state = state.replaced(rows, again[better])
        value[rows], place[rows] = found[better], where[better]
    return state, value, place


def _children(devices: Devices, nodes: _Nodes, place: Array) -> tuple[list[_Nodes], Array]:
    """Two children of every node in two batches, and a mask (k,) of nodes that cannot be split.

    Split is the device whose two modes are mixed most evenly; in nodes without one, the low mode that has a lower
    value elsewhere, at ``place``, than where Newton's method is.
    """
    mix = np.where(nodes.mode == OPEN, scipy.special.expit(-np.abs(nodes.tilt)), 0.0)
    mix = np.where(nodes.right > nodes.left, mix, 0.0)
    rows, device = np.arange(len(nodes)), mix.argmax(-1)
    undecided = mix[rows, device] > MIXED
    here, there = (devices.value(s, nodes.log_lam, nodes.log_beta) for s in (nodes.low, place))
    in_low = (nodes.mode == LOW) | ((nodes.mode == OPEN) & (nodes.tilt > 0))
    excess = np.where(in_low, here - there, 0.0)
    other = excess.argmax(-1)
    device = np.where(undecided, device, other)
    left, right, tilt = nodes.left[rows, device], nodes.right[rows, device], nodes.tilt[rows, device]
    low, where = nodes.low[rows, device], place[rows, device]
    tail = undecided & ~nodes.anchored[rows, device]  # the high mode in one child, all below the peak in the other
    share = np.clip(scipy.special.expit(-tilt), 0.25, 0.75)
    cut = np.where(undecided, low + share * (right - low), 0.5 * (low + where))
    can = tail | ((cut > left) & (cut < right) & (undecided | (excess[rows, other] > 0)))
    first, second = nodes[can], nodes[can]
    k, at, tail, cut = np.arange(len(first)), device[can], tail[can], cut[can]
    peak, crest = devices.peak[can][k, at], devices.crest[can][k, at]
    # first: from left to the cut, or to the peak
    first.right[k, at] = np.where(tail, peak, cut)
    first.anchored[k, at] = True
    first.mode[k, at] = np.where(first.right[k, at] > crest, OPEN, LOW)
    second.left[k, at] = np.where(tail, second.left[k, at], cut)
    second.mode[k, at] = np.where(tail, HIGH, second.mode[k, at])
    return [first, second], ~can
