"""The certified bound of the SFMA problem: never beaten, and close to what is known."""

from __future__ import annotations

import numpy as np
import pytest
from sfma_cells import PROBLEM, cells, climb_from_anywhere, matchings

from semcom_gym import baselines
from semcom_gym.baselines.sfma import bound, pricing
from semcom_gym.envs.sfma import actions, pairs, physics


@pytest.mark.parametrize(("users", "preset"), [(4, "default"), (4, "loose"), (6, "tight")])
def test_brute_force_over_all_pairings_stays_below(users, preset):
    params, instance = cells(3, preset, num_users=users, max_bandwidth_hz=users * 1e6, max_power_w=0.1 * users)
    proven = baselines.bound("sfma", params, instance)
    rng = np.random.default_rng(1)
    for i in range(len(instance)):
        best = max(climb_from_anywhere(params, instance[i], pair, rng) for pair in matchings(users))
        assert best <= proven.value[i] * (1.0 + 1e-9)
        assert best >= 0.85 * proven.value[i]


def test_a_hundred_thousand_random_points_stay_below():
    params, instance = cells(4, "loose")
    proven = baselines.bound("sfma", params, instance)
    rng = np.random.default_rng(2)
    best = np.full(4, -np.inf)
    for _ in range(13):
        rows = np.repeat(np.arange(4), 2000)
        spread = rng.choice([0.2, 0.5, 1.0], (len(rows), 1))
        action = spread * rng.uniform(-1.0, 1.0, (len(rows), params.num_pairs + 30))
        outcome = PROBLEM.play(params, instance[rows], action)[0]
        found = np.where(outcome.feasible, outcome.objective, -np.inf).reshape(4, -1).max(axis=1)
        best = np.maximum(best, found)
    assert np.isfinite(best).all()
    assert (best < proven.value).all()
    assert (best > 0.6 * proven.value).all()  # the points are no straw men


@pytest.mark.parametrize("preset", ["default", "tight", "loose"])
def test_the_gap_is_small_and_measured_to_a_feasible_solution(preset):
    params, instance = cells(3, preset)
    proven = baselines.bound("sfma", params, instance)
    outcome = PROBLEM.evaluate(params, instance, proven.best.allocation)
    assert outcome.feasible.all()
    np.testing.assert_allclose(proven.gap, (proven.value - outcome.objective) / proven.value, rtol=1e-12)
    assert (proven.gap >= 0).all()
    assert proven.gap.mean() < 0.01
    assert (proven.seconds > 0).all()


@pytest.mark.parametrize("prices", [(15.0, 8.0, 60.0), (2.0, 9.5, 0.0), (40.0, 2.0, 300.0)])
def test_the_value_of_a_pair_at_prices_is_never_beaten(prices):
    """Random power, bandwidth and ratio of every pair, within the limits of a pair, against the oracle."""
    params, instance = cells(1)
    oracle = pricing.Pricing(params, instance)
    values = _values(oracle, np.array(prices))
    link = physics.links(params, instance)
    low = physics.distortion_floor(params, link)
    rng = np.random.default_rng(3)
    best = np.full(params.num_pairs, -np.inf)
    for _ in range(400):
        shape = (1, params.num_pairs)
        p = params.max_power_w * 10.0 ** rng.uniform(-2.0, 0.0, shape)
        b = params.max_bandwidth_hz * 10.0 ** rng.uniform(-2.0, 0.0, shape)
        ratio = low + (1.0 - low) * rng.uniform(0.0, 1.0, shape) ** 2
        rate = physics.rates(link, p, b, ratio)
        delay = physics.delays(link, rate, ratio)
        energy = physics.energy(params, p, delay, ratio)
        net = 1e-6 * rate.sum(-1) - prices[0] * p - 1e-6 * prices[1] * b - prices[2] * energy
        best = np.maximum(best, np.where((delay <= link.spare_s).all(-1), net, -np.inf)[0])
    assert np.isfinite(best).sum() > 30
    assert (best <= values.upper + 1e-9).all()
    refined = np.isfinite(best) & (values.lower > pricing.OUTSIDE)
    assert (best[refined] <= values.upper[refined]).all()


def _values(oracle, price):
    """The oracle's upper and lower values of all pairs, refined without regard to the matching."""
    oracle._contends = lambda upper, least: np.ones(len(upper), bool)
    return oracle.answer(price, 1e-2)[1]


def test_a_cell_of_one_point_has_the_exact_value():
    params, instance = cells(1)
    oracle = pricing.Pricing(params, instance)
    price = np.array([12.0, 8.0, 100.0])
    points = oracle._first_cells().middle()
    choice = oracle._best(price, points)
    good = np.flatnonzero(np.isfinite(choice.net))[::37]
    assert len(good) > 20
    link = physics.links(params, instance)
    for row in good:
        pair = points.pair[row]
        one = link.map(lambda x, pair=pair: x[:, [pair]])
        p, b = choice.power[row], 1e6 * choice.bandwidth[row]
        ratio = (points.x1[row] - one.offset[0, 0] - one.power_slope[0, 0] * p) / one.ratio_slope[0, 0]
        rate = physics.rates(one, np.array([[p]]), np.array([[b]]), np.array([[ratio]]))
        delay = physics.delays(one, rate, np.array([[ratio]]))
        energy = physics.energy(params, np.array([[p]]), delay, np.array([[ratio]]))[0, 0]
        assert (delay <= one.spare_s * (1.0 + 1e-9)).all()
        assert ratio >= oracle.low[pair] * (1.0 - 1e-9)
        assert p <= params.max_power_w * (1.0 + 1e-9)
        assert b <= params.max_bandwidth_hz * (1.0 + 1e-9)
        net = 1e-6 * rate.sum() - price[0] * p - 1e-6 * price[1] * b - price[2] * energy
        assert choice.net[row] == pytest.approx(net, rel=1e-9, abs=1e-9)


def test_a_cell_bounds_its_points():
    params, instance = cells(1, "tight")
    oracle = pricing.Pricing(params, instance)
    price = np.array([12.0, 8.0, 100.0])
    big = oracle._first_cells()
    upper = oracle._best(price, big).net
    rng = np.random.default_rng(4)
    for _ in range(20):
        y = big.y1 * (big.y2 / big.y1) ** rng.uniform(size=len(big))
        x = big.x1 + (big.x2 - big.x1) * rng.uniform(size=len(big))
        inside = oracle._best(price, pricing.Cells(big.pair, y, y, x, x)).net
        assert (inside <= upper + 1e-9).all()


def test_nothing_feasible_is_proven():
    params, instance = cells(2, max_bandwidth_hz=1e5)
    proven = baselines.bound("sfma", params, instance)
    assert (proven.value == -np.inf).all()
    assert np.isnan(proven.gap).all()
    assert not proven.best.feasible.any()
    action = np.random.default_rng(0).uniform(-1, 1, (2, params.num_pairs + 30))
    allocation = actions.decode(params, instance, action)
    assert not PROBLEM.evaluate(params, instance, allocation).feasible.any()


def test_no_perfect_matching_in_the_pruned_graph():
    params, instance = cells(1, "pruned", max_distortion=1.2e-3)
    assert not physics.feasible_pairs(params, instance).all()
    proven = baselines.bound("sfma", params, instance)
    assert proven.value[0] == -np.inf


def test_prices_of_mixtures_of_matchings_are_worth_the_effort():
    """Odd sets in the programme: the prices of fractional matchings, three users in half a pair each, are worse."""
    params, instance = cells(4, "tight")
    best = bound._best_known(params, instance)
    with_sets = [bound._prove(params, instance[i], best.objective[i], best.allocation[i]) for i in range(4)]
    plain = bound.ODD_SETS
    bound._odd_sets.cache_clear()
    bound.ODD_SETS = {}
    try:
        without = [bound._prove(params, instance[i], best.objective[i], best.allocation[i]) for i in range(4)]
    finally:
        bound.ODD_SETS = plain
        bound._odd_sets.cache_clear()
    assert (np.array(with_sets) >= best.objective).all()
    assert np.mean(with_sets) <= np.mean(without) * (1.0 + 1e-5)
    assert np.mean(with_sets) < np.mean(without)


def test_odd_sets_hold_for_every_matching_and_cut_off_triangles():
    users = 6
    within, most = bound._odd_sets(users)
    assert len(within) == 20 + 6  # sets of three and of five
    for matching in matchings(users):
        assert (within[:, matching].sum(-1) <= most).all()
    triangles = np.zeros(pairs.count(users))
    triangles[pairs.index(users)[[0, 0, 1, 3, 3, 4], [1, 2, 2, 4, 5, 5]]] = 0.5
    assert (within @ triangles > most).any()
