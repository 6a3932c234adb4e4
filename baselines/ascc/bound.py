"""A proven lower bound on MU-ASCC: branch and bound over dual uplink powers (docs/ascc.md, "The certificate").

By duality the SINRs that powers and beams can reach are, at best, those of MMSE receivers at dual uplink powers q >= 0
that sum to P_max. A user's distortion at its best codec falls with its SINR (Lemma A.1); its SINR q_i s_i(q) rises
with its own power, and its gain s_i falls with every other's. So on a box l <= q <= u user i's distortion is at least
that at the SINR u_i s_i(l), and the weighted sum of these is a bound for the box. Boxes are cut to where powers can sum
to P_max, and split until they cannot hold an allocation better than the best known by more than the tolerance.
"""

from __future__ import annotations

import time

import numpy as np

from semcom_gym.baselines.ascc import fast, minors
from semcom_gym.baselines.solution import Bound, package
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.ascc.instance import Instance, Params

BLOCK = 4096  # boxes bounded at a time: where the temporaries still fit the cache
POINT = 1e-9  # a box narrower than this share of P_max is not split
ROUNDS, MOVES = 20, 64  # of the search for a good allocation to begin with


def prove(params: Params, instance: Instance, *, tolerance: float = 5e-4, max_nodes: int = 1_000_000) -> Bound:
    """A bound for every instance, within ``tolerance`` of the best known unless that takes more than ``max_nodes``.

    tolerance: relative; where a distortion is steep, the step of its table may add one part in 1e4. max_nodes: boxes
    per instance; where they run out the bound is as valid, but looser. ``best.iterations`` says how many there were.
    """
    validate.number("tolerance", tolerance, high=1.0)
    validate.integer("max_nodes", max_nodes)
    gains, proofs, seconds = minors.Gains(instance), [], []
    for i in range(len(instance)):
        started = time.perf_counter()
        own = gains[i : i + 1]
        proofs.append(_Proof(params, own, fast.search(params, own, ROUNDS, MOVES)[0], tolerance))
        proofs[-1].run(max_nodes)
        seconds.append(time.perf_counter() - started)
    allocation = fast.at(params, instance, np.stack([proof.power for proof in proofs]))
    nodes = np.array([proof.nodes for proof in proofs])
    best = package("ascc", params, instance, allocation, 0.0, iterations=nodes, seconds=np.array(seconds))
    value = np.minimum([proof.bound for proof in proofs], best.objective)
    return Bound(value=value, gap=(best.objective - value) / value, best=best, seconds=best.seconds)


class _Proof:
    """Branch and bound for one instance. ``bound`` holds at any time."""

    def __init__(self, params: Params, gains: minors.Gains, known: Array, tolerance: float) -> None:
        self.budget, self.gains, self.values = params.max_power_w, gains, minors.values(params)
        self.tolerance = tolerance
        self.power, self.best = known, np.inf
        self._try(known[:, None])
        users = gains.users
        self.low, self.high = np.zeros((users, 1)), np.full((users, 1), self.budget)  # (K, boxes)
        self.lower = self._below(self.low, self.high)
        self.settled = np.inf  # least bound of the boxes that are done with
        self.nodes = 1

    @property
    def bound(self) -> float:
        """No allocation has an objective below it."""
        return float(min(self.settled, self.lower.min(initial=np.inf)))

    def run(self, max_nodes: int) -> None:
        """Split boxes, those of least bound first, until none is left or there were too many."""
        while self.lower.size and self.nodes < max_nodes:
            count = min(max(self.lower.size // 4, BLOCK), self.lower.size)
            order = np.argpartition(self.lower, count - 1)
            take, rest = order[:count], order[count:]
            fresh = [self._split(take[start : start + BLOCK]) for start in range(0, count, BLOCK)]
            self.low = np.concat([self.low[:, rest], *(low for low, _, _ in fresh)], axis=1)
            self.high = np.concat([self.high[:, rest], *(high for _, high, _ in fresh)], axis=1)
            self.lower = np.concat([self.lower[rest], *(lower for _, _, lower in fresh)])
            self._settle()

    def _split(self, take: Array) -> tuple[Array, Array, Array]:
        """The halves of some boxes, and their bounds; tries a point of each half as an allocation."""
        low, high = self._halves(self.low[:, take], self.high[:, take])
        self.nodes += low.shape[1]
        self._try(low + (self.budget - low.sum(0)) * _shares(high - low))
        return low, high, self._below(low, high)

    def _settle(self) -> None:
        """Put away the boxes that hold nothing much better than the best known, and those that are points."""
        done = self.lower >= self.best * (1.0 - self.tolerance)
        done |= (self.high - self.low).max(0) < POINT * self.budget
        self.settled = min(self.settled, self.lower[done].min(initial=np.inf))
        self.low, self.high, self.lower = self.low[:, ~done], self.high[:, ~done], self.lower[~done]

    def _halves(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The boxes cut in two across their widest side, each shrunk to where powers can sum to the budget."""
        side, box = (high - low).argmax(0), np.arange(low.shape[1])
        middle = 0.5 * (low + high)[side, box]
        low, high = np.concat([low, low], axis=1), np.concat([high, high], axis=1)
        high[side, box] = middle
        low[side, box + len(box)] = middle
        high = np.minimum(high, self.budget - (low.sum(0) - low))
        low = np.maximum(low, self.budget - (high.sum(0) - high))
        some = (low <= high + POINT * self.budget).all(0)
        return low[:, some], np.maximum(high, low)[:, some]

    def _below(self, low: Array, high: Array) -> Array:
        """(boxes,) the bound of every box."""
        return self.values.below(high * self.gains.at(low[None]))[0].sum(0)

    def _try(self, power: Array) -> None:
        """Keep the best of some powers (K, m)."""
        if power.shape[1]:
            value = self.values.near(power * self.gains.at(power[None]))[0].sum(0)
            first = int(value.argmin())
            if value[first] < self.best:
                self.best, self.power = float(value[first]), power[:, first].copy()


def _shares(x: Array) -> Array:
    """Columns divided by their sums; equal where all is zero."""
    return (x + 1e-300) / (x + 1e-300).sum(0)
