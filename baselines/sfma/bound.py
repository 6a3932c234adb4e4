"""A proven upper bound on the sum rate: the Lagrangian dual of the three budgets, pairs bounded by branch and bound.

docs/sfma.md ("The certificate") derives every step. Prices of power, bandwidth and energy come from a linear programme
over points that pairs can attain; at any prices, bounds of the pairs' values (:mod:`pricing`) and a perfect matching
give a bound of the problem.
"""

from __future__ import annotations

import functools
import itertools
import time

import numpy as np
import scipy.optimize

from semcom_gym.baselines.sfma import fast
from semcom_gym.baselines.sfma.pricing import OUTSIDE, Pricing
from semcom_gym.baselines.solution import Bound, Solution, package
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.sfma import pairs, physics, prices, resources
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import MBIT

COARSE, FINE = 1e-3, 5e-5  # of the bound: how closely pairs are bounded while prices move, and at last
PRICE_ROUNDS = 10
CLOSE = 1e-5  # of the bound: what better prices could still bring
ODD_SETS = {3: 24, 5: 16}  # sizes of sets of users that are watched, and up to how many users
STARTS = (1.0, 0.7, 1.4)  # times the first prices, at which the points of the first programme are best
TRIALS = 60  # random starts for the best known allocation


def prove(params: Params, instance: Instance) -> Bound:
    """The bound of every instance, and its gap to the best allocation known."""
    started = time.perf_counter()
    best = _best_known(params, instance)
    values, seconds = [], []
    for i in range(len(instance)):
        begun = time.perf_counter()
        values.append(_prove(params, instance[i], np.where(best.feasible, best.objective, 0.0)[i], best.allocation[i]))
        seconds.append(time.perf_counter() - begun)
    value = np.array(values)
    share = (time.perf_counter() - started - sum(seconds)) / len(instance)
    known = best.feasible & np.isfinite(value)
    gap = np.where(known, (value - best.objective) / np.where(known, value, 1.0), np.nan)
    return Bound(value=value, gap=gap, best=best, seconds=np.array(seconds) + share)


def _best_known(params: Params, instance: Instance) -> Solution:
    """The fast solver with more matchings, and climbs from random starts on the one it chose."""
    started = time.perf_counter()
    found = fast.solve(params, instance, candidates=8, rounds=1)
    best = found.allocation
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(len(instance)), TRIALS)
    spread = rng.choice((0.4, 1.0), (len(rows), 1, 1))
    entries = spread * rng.uniform(-1.0, 1.0, (len(rows), 3, params.num_groups))
    tried = resources.from_entries(params, instance[rows], best.pair[rows], entries)
    outcome = physics.evaluate(params, instance[rows], tried)
    score = np.where(outcome.feasible, outcome.objective, -np.inf).reshape(-1, TRIALS)
    top = tried[np.argmax(score, axis=-1) + TRIALS * np.arange(len(instance))]
    better = np.max(score, axis=-1) > np.where(found.feasible, found.objective, -1.0)
    return package("sfma", params, instance, best.replaced(better, top[better]), started)


def _prove(params: Params, instance: Instance, known: float, allocation: physics.Allocation) -> float:
    """The bound of one instance; -inf where it proves that nothing is feasible."""
    pricing = Pricing(params, instance)
    if not pricing.matchable:
        return -np.inf
    table = prices.tabulate(params, physics.links(params, instance))
    forbidden = np.where(pricing.allowed, 0.0, OUTSIDE)
    first, _ = prices.search(table, lambda net: pairs.best_matching(net + forbidden, params.num_users))
    master = _Master(params.num_users, pricing.budget)
    if known > 0:
        master.add(*_columns(params, instance, allocation))
    for scale in STARTS:
        _, index = table.best(scale * first)
        point = table.at(np.arange(params.num_pairs)[None], index)[0]
        fits = pricing.allowed & (point[:, 0] > 0)
        master.add(np.flatnonzero(fits), prices.SCALE * point[fits, 0], point[fits, 1:] * pricing.budget)
    found = _least(pricing, master, prices.SCALE * first[0] / pricing.budget)
    return found if found >= pricing.least else -np.inf  # a feasible allocation sends at least that


def _least(pricing: Pricing, master: _Master, price: Array) -> float:
    """The least bound found while the master programme moves the prices; the last at tolerance ``FINE``."""
    bound, least, best_price = np.inf, np.inf, price
    for _ in range(PRICE_ROUNDS):
        upper, values = pricing.answer(price, COARSE)
        budgets = float(price @ pricing.budget)
        bound = min(bound, upper + budgets)
        if values.attained + budgets < least:
            least, best_price = values.attained + budgets, price
        met = np.flatnonzero(values.lower > OUTSIDE)
        master.add(met, values.reward[met], values.use[met])
        try:
            price, reachable = master.solve()
        except ArithmeticError:  # the prices found so far stand: every price gives a bound, this one may be looser
            break
        if least - reachable <= CLOSE * abs(least):
            break
    upper, _ = pricing.answer(best_price, FINE)
    return min(bound, upper + float(best_price @ pricing.budget))


def _columns(params: Params, instance: Instance, allocation: physics.Allocation) -> tuple[Array, Array, Array]:
    """Pairs, rewards [Mbit/s] and uses of an allocation."""
    terms = physics.evaluate(params, instance, allocation).terms
    use = (allocation.power_w[0], MBIT * allocation.bandwidth_hz[0], terms["energy_j"][0])
    return allocation.pair[0], terms["rate_mbit_s"][0].sum(-1), np.stack(use, axis=-1)


class _Master:
    """The linear programme over attained points of pairs (Dantzig-Wolfe): which to use, within the budgets, as a
    mixture of matchings. Its multipliers of the budgets are the next prices.

    A mixture has each user in one pair, and of an odd set of users at most half in pairs of the set (Edmonds). The odd
    sets come in as they are violated; those left out make the prices less good and the bound looser, never wrong.
    """

    def __init__(self, users: int, budget: Array) -> None:
        self.users, self.budget = users, budget
        self.pair, self.reward, self.use = np.zeros(0, int), np.zeros(0), np.zeros((0, 3))
        self.within, self.most = _odd_sets(users)
        self.kept = np.zeros(0, int)  # odd sets in the programme

    def add(self, pair: Array, reward: Array, use: Array) -> None:
        self.pair, self.reward = np.concatenate([self.pair, pair]), np.concatenate([self.reward, reward])
        self.use = np.concatenate([self.use, use])

    def solve(self) -> tuple[Array, float]:
        """Prices and optimum. Raises ArithmeticError if there is none."""
        while True:
            result = self._solve()
            share = np.bincount(self.pair, weights=result.x, minlength=self.within.shape[1])
            violated = np.flatnonzero(self.within @ share > self.most + 1e-6)
            new = np.setdiff1d(violated, self.kept)
            if not len(new):
                break
            self.kept = np.concatenate([self.kept, new])
        # a price of exactly zero would make free goods of unbounded use; the bound is valid at any price
        least = 1e-9 * float(np.max(np.abs(self.reward))) + 1e-30
        return np.maximum(-result.ineqlin.marginals[:3], least) / self.budget, -float(result.fun)

    def _solve(self) -> scipy.optimize.OptimizeResult:
        if not len(self.pair):
            raise ArithmeticError("no pair has a point")
        once = np.zeros((self.users, len(self.pair)))
        once[pairs.members(self.users)[self.pair].T, np.arange(len(self.pair))] = 1.0
        result = scipy.optimize.linprog(
            -self.reward,
            A_ub=np.concatenate([(self.use / self.budget).T, self.within[self.kept][:, self.pair]]),
            b_ub=np.concatenate([np.ones(3), self.most[self.kept]]),
            A_eq=once,
            b_eq=np.ones(self.users),
            method="highs",
        )
        if not result.success:
            raise ArithmeticError(f"linear programme of the prices failed: {result.message}")
        return result


@functools.cache
def _odd_sets(users: int) -> tuple[Array, Array]:
    """Which pairs are within each odd set of users (S, M), 0 or 1, and how many of them a matching can have (S,)."""
    member = pairs.members(users)
    within, most = [np.zeros((0, len(member)))], [np.zeros(0)]
    for size, largest in ODD_SETS.items():
        if size < users <= largest:
            sets = np.array(list(itertools.combinations(range(users), size)))
            inside = np.zeros((len(sets), users), bool)
            np.put_along_axis(inside, sets, True, -1)
            within.append((inside[:, member[:, 0]] & inside[:, member[:, 1]]).astype(float))
            most.append(np.full(len(sets), (size - 1) / 2))
    return np.concatenate(within), np.concatenate(most)
