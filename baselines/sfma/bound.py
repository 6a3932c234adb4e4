"""A proven upper bound on the sum rate: the Lagrangian dual of the three budgets, pairs bounded by branch and bound.

docs/sfma.md ("The certificate") derives every step. Prices of power, bandwidth and energy come from a linear programme
(:mod:`master`) over points that pairs can attain; at any prices, bounds of the pairs' values (:mod:`pricing`) and a
perfect matching give a bound of the problem.
"""

from __future__ import annotations

import time

import numpy as np

from semcom_gym.baselines.sfma import fast, matching
from semcom_gym.baselines.sfma.master import Master
from semcom_gym.baselines.sfma.pricing import Pricing, Values
from semcom_gym.baselines.solution import Bound, Solution, package
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.sfma import physics, prices, resources
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import MBIT, Allocation

CHUNK = 8  # instances that are proven together, at 45 pairs
FINE = 1e-5  # of the bound: how closely pairs are bounded
CLOSE = 1e-5  # of the bound: what better prices could still bring
PRICE_ROUNDS, PROOFS = 10, 6  # at most: prices tried on points alone, and with a proof
STARTS = (1.0, 0.7, 1.4)  # times the first prices, at which the first points are best
OPEN, TRIALS = 3e-5, 100  # gaps above which random starts are climbed from for a better allocation, and how many


def prove(params: Params, instance: Instance) -> Bound:
    """The bound of every instance, and its gap to the best allocation known."""
    started = time.perf_counter()
    best = fast.solve(params, instance, candidates=8, rounds=1)
    size = max(1, CHUNK * 45 // params.num_pairs)
    parts = [slice(k, k + size) for k in range(0, len(instance), size)]
    value = np.concatenate([_prove(params, instance[k], best.allocation[k], best.feasible[k]) for k in parts])
    best = _climbed(params, instance, best, np.flatnonzero(_gap(value, best) > OPEN))
    share = (time.perf_counter() - started) / len(instance)
    gap = np.where(best.feasible & np.isfinite(value), _gap(value, best), np.nan)
    return Bound(value=value, gap=gap, best=best, seconds=np.full(len(instance), share))


def _gap(value: Array, best: Solution) -> Array:
    """(n,) to the best allocation known, 1 where none is feasible; -inf where nothing is."""
    finite = np.where(np.isfinite(value), value, 1.0)
    known = np.where(best.feasible, best.objective, 0.0)
    return np.where(np.isfinite(value), (finite - known) / finite, -np.inf)


def _climbed(params: Params, instance: Instance, best: Solution, rows: Array) -> Solution:
    """With the best of some climbs from random starts on the same pairings, for the instances ``rows``."""
    if not len(rows):
        return best
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    spread = rng.choice((0.4, 1.0), (TRIALS, 1, 1))
    entries = np.tile(spread * rng.uniform(-1.0, 1.0, (TRIALS, 3, params.num_groups)), (len(rows), 1, 1))
    each = np.repeat(rows, TRIALS)
    tried = resources.from_entries(params, instance[each], best.allocation.pair[each], entries)
    outcome = physics.evaluate(params, instance[each], tried)
    score = np.where(outcome.feasible, outcome.objective, -np.inf).reshape(-1, TRIALS)
    top = tried[np.argmax(score, axis=-1) + TRIALS * np.arange(len(rows))]
    better = np.max(score, axis=-1) > np.where(best.feasible, best.objective, -1.0)[rows]
    return package("sfma", params, instance, best.allocation.replaced(rows[better], top[better]), started)


def _prove(params: Params, instance: Instance, known: Allocation, feasible: Array) -> Array:
    """The bounds (n,); -inf where it is proven that nothing is feasible.

    known: allocations to start from, those that are ``feasible`` (n,).
    """
    n, users = len(instance), params.num_users
    pricing = Pricing(params, instance)
    plane = pricing.plane
    allowed = plane.allowed.reshape(n, -1)
    active = np.isfinite(matching.total(np.where(allowed, 0.0, -np.inf), users))
    bound = np.where(active, np.inf, -np.inf)
    masters = [Master(users, plane.budget) for _ in range(n)]
    _take_in(params, instance, known, np.flatnonzero(feasible), pricing, masters)
    price = _settled(pricing, masters, _first_prices(params, instance, pricing), active)
    for _ in range(PROOFS):
        if not active.any():
            break
        values = pricing.answer(price, active, FINE)
        total = matching.total(values.matrix(values.upper), users) + price @ plane.budget
        bound = np.where(active, np.minimum(bound, total), bound)
        price, reachable = _moved(masters, values, price, active)
        active = active & (bound - reachable > (CLOSE + FINE) * abs(bound))
    floor = np.where(allowed, plane.floor.min(axis=0).reshape(n, -1), np.inf).min(axis=-1)
    return np.where(bound >= users * floor, bound, -np.inf)  # a feasible allocation sends at least that


def _take_in(
    params: Params, instance: Instance, known: Allocation, rows: Array, pricing: Pricing, masters: list[Master]
) -> None:
    """The allocations of the instances ``rows``, into the programmes and among the points."""
    terms = physics.evaluate(params, instance[rows], known[rows]).terms
    for i, rate, energy in zip(rows, terms["rate_mbit_s"].sum(axis=-1), terms["energy_j"], strict=True):
        pair, power, bandwidth = known.pair[i], known.power_w[i], MBIT * known.bandwidth_hz[i]
        masters[i].add(pair, rate, np.stack([power, bandwidth, energy], axis=-1))
        pricing.meet(pricing.plane.placed(pair + params.num_pairs * i, power, bandwidth, known.ratio[i]))


def _first_prices(params: Params, instance: Instance, pricing: Pricing) -> Array:
    """Prices (n, 3) from a table of points; those that are best at and around these prices are taken in."""
    plane = pricing.plane
    table = prices.tabulate(params, physics.links(params, instance))
    allowed = plane.allowed.reshape(len(instance), -1)
    first, _ = prices.search(table, lambda net: matching.chosen(np.where(allowed, net, -np.inf), params.num_users))
    pair = np.broadcast_to(np.arange(params.num_pairs), allowed.shape)
    for scale in STARTS:
        _, index = table.best(scale * first)
        point = table.at(pair, index)
        fits = allowed & (point[..., 0] > 0)
        power, bandwidth = (point[fits, 1:3] * plane.budget[:2]).T
        ratio = np.take_along_axis(table.ratio, index[..., None], -1)[..., 0][fits]
        pricing.meet(plane.placed(np.flatnonzero(fits), power, bandwidth, ratio))
    return prices.SCALE * first / plane.budget


def _settled(pricing: Pricing, masters: list[Master], price: Array, active: Array) -> Array:
    """Prices (n, 3) of the least bound, as far as points tell."""
    for _ in range(PRICE_ROUNDS):
        if not active.any():
            break
        values = pricing.attain(price, active)
        promised = matching.total(values.matrix(values.lower), pricing.users) + price @ pricing.plane.budget
        price, reachable = _moved(masters, values, price, active)
        active = active & (abs(promised - reachable) > CLOSE * abs(reachable))
    return price


def _moved(masters: list[Master], values: Values, price: Array, active: Array) -> tuple[Array, Array]:
    """The next prices (n, 3) of the ``active`` instances, and the optima (n,) of their programmes."""
    price, reachable = price.copy(), np.full(len(masters), np.inf)
    met, reward = np.isfinite(values.matrix(values.lower)), values.matrix(values.reward)
    use = values.use.reshape(*met.shape, 3)
    for i in np.flatnonzero(active):
        masters[i].add(np.flatnonzero(met[i]), reward[i, met[i]], use[i, met[i]])
        try:
            price[i], reachable[i] = masters[i].solve()
        except ArithmeticError:  # the last prices stand: every price gives a bound, this one may be looser
            continue
    return price, reachable
