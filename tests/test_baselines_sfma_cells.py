"""What SFMA's certificate is made of: values of points, bounds of cells, matchings, and the programme of the prices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from sfma_cells import cells, matchings

from semcom_gym.baselines.sfma import centred, matching, pricing
from semcom_gym.baselines.sfma.cells import Cells, Plane, Points
from semcom_gym.baselines.sfma.master import Master
from semcom_gym.envs.sfma import pairs, physics

PRICES = [
    (15.0, 8.0, 60.0),
    (2.0, 9.5, 0.0),
    (40.0, 2.0, 300.0),
    (12.0, 8.0, 1e-6),
    (9.0, 9.0, 100.0),
    (60.0, 15.0, 1.0),
    (0.5, 0.3, 3e3),
    (30.0, 0.5, 1e3),
]
SIDES = [(1.0, 1.0), (0.3, 0.3), (0.1, 0.1), (0.01, 0.01), (0.3, 0.01), (0.01, 0.3)]


@pytest.mark.parametrize("prices", PRICES[:3])
def test_the_value_of_a_pair_at_prices_is_never_beaten(prices, monkeypatch):
    """Random power, bandwidth and ratio of every pair, within the limits of a pair, against the oracle."""
    params, instance = cells(1)
    monkeypatch.setattr(matching, "through", lambda value, users, wanted: np.full_like(value, np.inf))  # refine all
    values = pricing.Pricing(params, instance).answer(np.array([prices]), np.array([True]), 1e-2)
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
    refined = np.isfinite(best) & np.isfinite(values.lower)
    assert (values.upper - values.lower)[refined].max() < 1.0


def test_a_point_has_the_exact_value():
    params, instance = cells(1)
    plane, price = Plane(params, instance), np.array([[12.0, 8.0, 100.0]])
    points = plane.grid(12).middle()
    choice = plane.value(price, points)
    good = np.flatnonzero(np.isfinite(choice.net))[::37]
    assert len(good) > 20
    link = physics.links(params, instance)
    for row in good:
        pair = points.pair[row]
        one = link.map(lambda x, pair=pair: x[:, [pair]])
        p, b, ratio = (np.array([[x[row]]]) for x in (choice.power, 1e6 * choice.bandwidth, choice.ratio))
        placed = plane.placed(pair, choice.power[row], choice.bandwidth[row], choice.ratio[row])
        assert (placed.y, placed.x) == pytest.approx((points.y[row], points.x[row]), rel=1e-9)
        rate = physics.rates(one, p, b, ratio)
        delay = physics.delays(one, rate, ratio)
        energy = physics.energy(params, p, delay, ratio)[0, 0]
        assert (delay <= one.spare_s * (1.0 + 1e-9)).all()
        assert ratio >= plane.low[pair] * (1.0 - 1e-9)
        assert p <= params.max_power_w * (1.0 + 1e-9)
        assert b <= params.max_bandwidth_hz * (1.0 + 1e-9)
        net = 1e-6 * rate.sum() - price[0] @ [p[0, 0], 1e-6 * b[0, 0], energy]
        assert choice.net[row] == pytest.approx(net, rel=1e-9, abs=1e-9)


def test_no_other_ratio_is_better_at_a_point():
    params, instance = cells(1, "tight")
    plane, price = Plane(params, instance), np.array([[12.0, 8.0, 100.0]])
    points = plane.grid(12).middle()
    best = plane.value(price, points)
    rng = np.random.default_rng(0)
    link = physics.links(params, instance).map(lambda x: x[:, points.pair])
    for _ in range(30):
        ratio = plane.low[points.pair] ** rng.uniform(size=len(points))
        p = (points.x - plane.d[points.pair] - plane.beta[points.pair] * ratio) / plane.a[points.pair]
        there = (p > 0) & (p <= params.max_power_w) & (points.y * p <= 1e-6 * params.max_bandwidth_hz)
        p = np.where(there, p, 1.0)
        rate = physics.rates(link, p[None], 1e6 * (points.y * p)[None], ratio[None])
        delay = physics.delays(link, rate, ratio[None])
        energy = physics.energy(params, p[None], delay, ratio[None])[0]
        net = 1e-6 * rate.sum(-1)[0] - price[0, 0] * p - price[0, 1] * points.y * p - price[0, 2] * energy
        there &= (delay <= link.spare_s).all(-1)[0]
        assert there.sum() > 100
        assert (net <= best.net + 1e-9)[there].all()


def _some_cells(plane: Plane, rng: np.random.Generator, high: float, wide: float, count: int = 400) -> Cells:
    """Random cells, their sides ``high`` and ``wide`` times those of the grid in y and in x."""
    big = plane.grid(8)
    big = big[rng.choice(len(big), count)]
    at_y, at_x = rng.uniform(0.0, 1.0 - high, count), rng.uniform(0.0, 1.0 - wide, count)
    y1, x1 = big.y1 * (big.y2 / big.y1) ** at_y, big.x1 + (big.x2 - big.x1) * at_x
    return Cells(big.pair, y1, y1 * (big.y2 / big.y1) ** high, x1, x1 + (big.x2 - big.x1) * wide)


def _highest(plane: Plane, price: np.ndarray, some: Cells, rng: np.random.Generator, points: int) -> np.ndarray:
    """The largest value of random points of cells, the corners among them."""
    best = np.full(len(some), -np.inf)
    for k in range(points):
        at_y, at_x = (k % 2, k // 2) if k < 4 else rng.uniform(size=(2, len(some)))
        y, x = some.y1 * (some.y2 / some.y1) ** at_y, some.x1 + (some.x2 - some.x1) * at_x
        best = np.maximum(best, plane.value(price, Points(some.pair, y, x)).net)
    return best


def _second(plane: Plane, price: np.ndarray, some: Cells) -> np.ndarray:
    return centred.bound(plane, price, some, plane.value(price, some.middle()).ratio)


@pytest.mark.parametrize("preset", ["default", "tight", "measured", "paper", "pruned"])
def test_both_bounds_of_a_cell_hold_at_a_hundred_thousand_points(preset):
    params, instance = cells(2, preset)
    plane, rng = Plane(params, instance), np.random.default_rng(4)
    for prices in PRICES:
        price = np.array([prices, prices]) * rng.uniform(0.8, 1.25, (2, 3))
        for sides in SIDES:
            some = _some_cells(plane, rng, *sides)
            best = _highest(plane, price, some, rng, 16)
            assert np.isfinite(best).sum() > 50
            for upper in (plane.bound(price, some), _second(plane, price, some)):
                assert not np.isnan(upper).any()
                assert (best <= upper + 1e-9).all()


def test_any_ratio_gives_a_valid_bound():
    params, instance = cells(1)
    plane, rng, price = Plane(params, instance), np.random.default_rng(5), np.array([PRICES[0]])
    some = _some_cells(plane, rng, 0.1, 0.1)
    best = _highest(plane, price, some, rng, 30)
    for _ in range(5):
        upper = centred.bound(plane, price, some, rng.uniform(0.0, 1.5, len(some)))
        assert (best <= upper + 1e-9).all()


@pytest.mark.parametrize("prices", [PRICES[0], PRICES[3], PRICES[4]])
def test_the_excess_of_the_centred_bound_is_of_second_order(prices):
    """Ten times smaller cells: a tenth of the excess at first order, a hundredth at second."""
    params, instance = cells(1)
    plane, price = Plane(params, instance), np.array([prices])
    excess = []
    for size in (0.02, 0.002):
        rng = np.random.default_rng(6)
        some = _some_cells(plane, rng, size, size)
        some = some[np.isfinite(plane.value(price, some.middle()).net)]
        best = _highest(plane, price, some, rng, 200)
        excess.append([np.median(upper - best) for upper in (plane.bound(price, some), _second(plane, price, some))])
    first, second = np.array(excess).T
    assert 5.0 < first[0] / first[1] < 20.0
    assert 50.0 < second[0] / second[1] < 200.0
    assert second[0] < 0.1 * first[0]


def test_a_cell_of_one_point_has_its_value_for_a_bound():
    params, instance = cells(1)
    plane, price = Plane(params, instance), np.array([PRICES[0]])
    points = plane.grid(12).middle()
    value = plane.value(price, points).net
    there = np.isfinite(value)
    bound = plane.bound(price, Cells(points.pair, points.y, points.y, points.x, points.x))
    np.testing.assert_allclose(bound[there], value[there], rtol=1e-9, atol=1e-9)


def test_pattern_search_comes_close_to_the_proven_values(monkeypatch):
    params, instance = cells(2)
    price, active = np.array([PRICES[0], PRICES[4]]), np.array([True, True])
    found = pricing.Pricing(params, instance).attain(price, active)
    monkeypatch.setattr(matching, "through", lambda value, users, wanted: np.full_like(value, np.inf))  # refine all
    proven = pricing.Pricing(params, instance).answer(price, active, 1e-4)
    assert np.isfinite(proven.lower).all()
    missed = proven.upper - found.lower
    assert (missed >= -1e-9).all()
    assert np.median(missed) < 0.1
    assert (proven.upper - proven.lower).max() < 0.01


@pytest.mark.parametrize("users", [6, 12])
def test_totals_through_pairs_are_those_of_the_best_matchings(users):
    rng = np.random.default_rng(7)
    all_of_them = matchings(users)
    value = rng.normal(size=(3, pairs.count(users)))
    value[1, rng.choice(value.shape[1], users // 2)] = -np.inf
    totals = np.take_along_axis(value[:, None], all_of_them[None], -1).sum(-1)
    np.testing.assert_allclose(matching.total(value, users), totals.max(-1), rtol=1e-12)
    with_pair = np.array([(all_of_them == pair).any(-1) for pair in range(value.shape[1])])
    best = np.array([np.where(with_pair, row, -np.inf).max(-1) for row in totals])
    found = matching.through(value, users, np.ones(value.shape, bool))
    np.testing.assert_allclose(found[np.isfinite(best)], best[np.isfinite(best)], rtol=1e-9)
    assert np.isfinite(found).all()


def test_a_matching_without_value_is_minus_infinity():
    value = np.zeros((2, pairs.count(6)))
    value[0, pairs.index(6)[0, 1:]] = -np.inf  # nobody for user 0
    assert matching.total(value, 6).tolist() == [-np.inf, 0.0]


def _mixture(columns: list[tuple], users: int, budget: np.ndarray) -> scipy.optimize.OptimizeResult:
    """The programme with every matching as a variable: shares of matchings, and of points for their pairs."""
    all_of_them = matchings(users)
    pair = np.concatenate([c[0] for c in columns])
    reward, use = np.concatenate([c[1] for c in columns]), np.concatenate([c[2] for c in columns])
    count, kinds = len(pair), len(all_of_them)
    supplied = np.zeros((pairs.count(users), count + kinds))
    supplied[pair, np.arange(count)] = 1.0
    for k, one in enumerate(all_of_them):
        supplied[one, count + k] = -1.0
    shares = np.concatenate([np.zeros(count), np.ones(kinds)])
    return scipy.optimize.linprog(
        np.concatenate([-reward, np.zeros(kinds)]),
        A_ub=np.concatenate([(use / budget).T, np.zeros((3, kinds))], axis=1),
        b_ub=np.ones(3),
        A_eq=np.concatenate([supplied, shares[None]]),
        b_eq=np.append(np.zeros(len(supplied)), 1.0),
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_programme_has_the_optimum_and_the_prices_of_all_matchings(seed):
    rng, users, budget = np.random.default_rng(seed), 6, np.array([1.0, 10.0, 0.05])
    master, columns = Master(users, budget), []
    for k in range(5):
        count = pairs.count(users) if k else 3
        pair = np.arange(count) if k else matchings(users)[rng.integers(15)]
        use = rng.uniform(0.0, 0.3 if k == 0 else 0.7, (count, 3)) * budget
        columns.append((pair, 10.0 * (use / budget).sum(-1) ** 0.7 + rng.uniform(0.0, 3.0, count), use))
        master.add(*columns[-1])
        price, optimum = master.solve()
        expected = _mixture(columns, users, budget)
        assert optimum == pytest.approx(-expected.fun, rel=1e-9)
        # weak duality with equality: the prices are those of the optimum
        net = np.full(pairs.count(users), -np.inf)
        for pair, reward, use in columns:
            np.maximum.at(net, pair, reward - use @ price)
        assert matching.total(net[None], users)[0] + price @ budget == pytest.approx(optimum, rel=1e-6)


def test_a_programme_without_a_mixture_says_so():
    users, budget = 4, np.ones(3)
    master = Master(users, budget)
    master.add(np.array([0]), np.array([5.0]), np.full((1, 3), 0.1))
    with pytest.raises(ArithmeticError, match="no mixture"):
        master.solve()
    master.add(np.arange(6), np.full(6, 5.0), np.full((6, 3), 0.95))
    with pytest.raises(ArithmeticError, match="keeps to the budgets"):
        master.solve()
    master.add(np.array([5]), np.array([1.0]), np.full((1, 3), 0.2))
    assert master.solve()[1] == pytest.approx(6.0 + 4.0 * 0.7 / 0.75)  # uses of 0.3 for 6, and of 1.05 for 10
