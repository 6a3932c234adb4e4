"""The batched solver and the certificate of the CRRA problem."""

import dataclasses
import itertools

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import baselines, envs
from semcom_gym.baselines import dual
from semcom_gym.baselines.crra import fast, hazard, oracle
from semcom_gym.baselines.crra.normal import Users, allocation

PROBLEM = envs.problem("crra")


def sample(preset, n, split="validation", **overrides):
    params = PROBLEM.preset(preset, **overrides)
    return params, PROBLEM.sample_split(params, split, n)


def brute_force(params, instance, steps=60):
    """Best objective of one two-user instance over a grid of shares, with the ratio on a grid of its own."""
    share = np.linspace(0.0, 1.0, steps + 1)
    ratio = np.linspace(0.0, params.max_ratio, 400)
    best = 0.0
    sets = itertools.product((0.0, 1.0), repeat=2) if params.selection else [(1.0, 1.0)]
    for on in map(np.array, sets):
        spare_b = instance.bandwidth_hz[0] - params.min_bandwidth_hz * on.sum()
        spare_p = instance.power_w[0] - params.min_power_w * on.sum()
        if on.sum() == 0 or spare_b < 0 or spare_p < 0:
            continue
        pairs = share if on.all() else on[:1]  # one user alone takes everything
        total = np.zeros((len(pairs), len(pairs)))
        for i in np.flatnonzero(on):
            part = pairs if i == 0 or not on.all() else 1.0 - pairs
            part = part if on.all() else np.ones(1)
            b = params.min_bandwidth_hz + spare_b * part[:, None, None]
            p = params.min_power_w + spare_p * part[None, :, None]
            one = instance.map(lambda x, i=i: x[:, i : i + 1, None] if x.ndim == 2 else x)
            total = total + Users(params, one).value(b, p, ratio[None, None, :]).max(-1)
        best = max(best, total.max())
    return best


@pytest.mark.parametrize("success", ["exact", "approximate"])
@pytest.mark.parametrize(
    ("preset", "fields"), [("default", {}), ("hard", {}), ("select", {"max_bandwidth_hz": 1e6, "max_power_w": 2e-3})]
)
def test_fast_and_bound_against_brute_force(preset, fields, success):
    params, instances = sample(preset, 6, num_users=2, success=success, **fields)
    found = fast.solve(params, instances, iterations=150, swaps=2).objective
    proven = baselines.bound("crra", params, instances).value
    for i in range(len(instances)):
        grid = brute_force(params, instances[i])
        assert found[i] >= grid * (1 - 2e-3)
        assert grid <= proven[i]


@pytest.mark.parametrize("preset", ["default", "hard", "paper", "general"])
def test_fast_satisfies_kkt(preset):
    """Users above their floors have equal marginal values; the ratio is stationary; the budgets are used up."""
    params, instances = sample(preset, 8)
    a = fast.solve(params, instances, iterations=400).allocation
    np.testing.assert_allclose(a.bandwidth_hz.sum(-1), instances.bandwidth_hz, rtol=1e-9)
    np.testing.assert_allclose(a.power_w.sum(-1), instances.power_w, rtol=1e-9)
    value, by_b, by_p = Users(params, instances).marginals(a.bandwidth_hz, a.power_w, a.ratio)
    for marginal, amount, floor in (
        (by_b, a.bandwidth_hz, params.min_bandwidth_hz),
        (by_p, a.power_w, params.min_power_w),
    ):
        spare = amount - floor
        held = (spare > 0.01 * amount.sum(-1, keepdims=True)) & (value > 1e-3)
        price = (spare * marginal).sum(-1, keepdims=True) / spare.sum(-1, keepdims=True)
        assert np.abs(marginal / price - 1)[held].max() < 0.02


def test_swaps_never_lose_and_help():
    params, instances = sample("hard", 40)
    plain = fast.solve(params, instances).objective
    searched = fast.solve(params, instances, swaps=2).objective
    assert (searched >= plain - 1e-6).all()
    assert searched.mean() > plain.mean()


@pytest.mark.parametrize("preset", ["default", "hard", "paper", "select", "general"])
def test_certified_gap_is_small_and_never_negative(preset):
    params, instances = sample(preset, 12)
    proof = baselines.bound("crra", params, instances)
    assert (proof.gap >= 0).all()
    assert proof.gap.mean() < 0.003


@settings(max_examples=8, deadline=None)
@given(
    users=st.integers(1, 6),
    bandwidth=st.floats(5e5, 3e7),
    power=st.floats(1e-4, 1.0),
    success=st.sampled_from(["exact", "approximate"]),
    curves=st.sampled_from([("resnet_0db",), ("vgg_5db", "resnet_5db", "resnet_m5db"), ("vgg_0db",)]),
    selection=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_bound_holds_for_random_decisions(users, bandwidth, power, success, curves, selection, seed):
    params = PROBLEM.preset(
        "default",
        num_users=users,
        max_bandwidth_hz=bandwidth,
        max_power_w=power,
        success=success,
        curves=curves,
        selection=selection,
        min_power_w=1e-6,
    )
    rng = np.random.default_rng(seed)
    instance = PROBLEM.sample(params, rng, 1)
    proven = baselines.bound("crra", params, instance, rounds=2).value[0]
    many = instance.map(lambda x: np.repeat(x, 2000, axis=0))
    actions = rng.uniform(-1, 1, (2000, PROBLEM.action_layout(params).size))
    decided = PROBLEM.decode(params, many, actions)
    best = Users(params, many).best_ratio(decided.bandwidth_hz, decided.power_w)
    for ratio in (decided.ratio, best):
        outcome = PROBLEM.evaluate(params, many, dataclasses.replace(decided, ratio=ratio))
        assert outcome.feasible.all()
        assert outcome.objective.max() <= proven


@pytest.mark.parametrize("preset", ["default", "select"])
def test_bound_is_never_beaten_by_1e5_points(preset):
    """100,000 random and optimised decisions on the same instances."""
    params, instances = sample(preset, 10)
    proven = baselines.bound("crra", params, instances).value
    solved = fast.solve(params, instances, swaps=1)
    centre = PROBLEM.encode(params, instances, solved.allocation)
    rng = np.random.default_rng(0)
    for scale in (0.0, 0.01, 0.05, 0.2, 1.0):
        many = instances.map(lambda x: np.repeat(x, 2000, axis=0))
        noise = rng.normal(0, scale, (20000, centre.shape[1])) if scale else 0.0
        decided = PROBLEM.decode(params, many, np.repeat(centre, 2000, axis=0) + noise)
        objective = PROBLEM.evaluate_unchecked(params, many, decided).objective
        assert (objective.reshape(10, 2000).max(-1) <= proven).all()


def test_bound_per_user_oracle_against_a_grid():
    """At fixed prices, no choice on a fine grid has a larger net value than the oracle's upper bound."""
    params, instances = sample("select", 3, curves=("resnet_5db", "vgg_m5db"))
    pricing = oracle.Pricing(params, instances)
    prices = np.stack([np.full(3, 4e-7), np.full(3, 150.0)], -1)
    upper, columns = pricing.answer(prices, np.arange(3), 1e-5)
    b = np.geomspace(params.min_bandwidth_hz, params.max_bandwidth_hz, 300)[:, None, None, None]
    p = np.geomspace(params.min_power_w, params.max_power_w, 300)[None, :, None, None]
    users = Users(params, instances)
    shape = (300, 300, *instances.gain.shape)
    b, p = np.broadcast_to(b, shape), np.broadcast_to(p, shape)
    net = users.value(b, p, users.best_ratio(b, p)) - 4e-7 * b - 150.0 * p
    grid = np.maximum(net.max((0, 1)), 0.0)
    assert (grid <= upper).all()
    assert (upper <= grid + 5e-3).all()  # and it is tight
    attained = columns.reward - (columns.use * prices[:, None, :]).sum(-1)
    assert (attained <= upper).all()
    assert (upper - attained <= 2e-5).all()


CURVES = ("measured_vgg_m5db", "measured_resnet_m5db", "resnet_5db", "vgg_0db")


@pytest.mark.parametrize("success", ["exact", "approximate"])
@pytest.mark.parametrize(("preset", "raised"), [("default", 1.0), ("select", 1.0), ("select", 1.08)])
def test_oracle_of_every_curve_against_random_choices(preset, raised, success, monkeypatch):
    """Curves that are convex in ln(1 - o) over much of it, prices far and wide: lines and bounds hold, tightly.

    raised: eta times it, so that it would be more than 1.
    """
    params, instances = sample(preset, 20, num_users=6, curves=CURVES, success=success)
    table = params.curve_table * np.array([raised, 1.0, raised, 1.0])
    monkeypatch.setattr(type(params), "curve_table", property(lambda self: table))
    rng = np.random.default_rng(0)
    pricing = oracle.Pricing(params, instances)
    users, of, shape = Users(params, instances), pricing.choices, instances.gain.shape
    b, p = (np.log(x) + rng.uniform(0, 9, (2000, *shape)) for x in (params.min_bandwidth_hz, params.min_power_w))
    ratio = params.max_ratio * np.sqrt(rng.random(b.shape))
    value = users.value(np.exp(b), np.exp(p), ratio)
    best = users.value(np.exp(b), np.exp(p), users.best_ratio(np.exp(b), np.exp(p)))
    for scale in (0.02, 0.3, 1.0, 5.0):
        prices = scale * np.exp(rng.normal(0, 1, (20, 2))) * np.array([4e-7, 150.0])
        upper, columns = pricing.answer(prices, np.arange(20), 1e-5)
        cost = prices[:, :1] * np.exp(b) + prices[:, 1:] * np.exp(p)
        assert (np.maximum(value, best) - cost <= upper).all()
        attained = columns.reward - (columns.use * prices[:, None, :]).sum(-1)
        assert (attained <= upper).all()
        assert raised > 1.0 or (upper - attained <= 2e-5).mean() > 0.98
        at = of.at_prices(np.arange(120), *np.repeat(prices, 6, axis=0).T)
        point = at.point(*(x[0].ravel() for x in (b, p, np.log1p(-ratio))))  # anywhere, not only where it is best
        a, theta = at.line(point, at.peak(point))
        some = (value > 1e-300).reshape(2000, -1)
        worth = np.log(np.maximum(value / instances.weight, 1e-300)).reshape(2000, -1)
        assert (np.log(cost).reshape(2000, -1) >= a + theta * worth - 1e-12)[some].all()


def test_bound_holds_where_the_solver_of_programmes_gives_up(monkeypatch):
    """On all instances together always, on one alone sometimes: that one has the prices it had."""
    params, instances = sample("select", 6)
    usual = baselines.bound("crra", params, instances)
    solve, calls = dual.scipy.optimize.linprog, itertools.count()

    def moody(reward, **programme):
        result = solve(reward, **programme)
        if len(programme["b_eq"]) > params.num_users or next(calls) % 3 == 0:
            result.success = False
        return result

    monkeypatch.setattr(dual.scipy.optimize, "linprog", moody)
    found = baselines.bound("crra", params, instances)
    assert (found.value >= usual.best.objective).all()
    assert (found.value <= usual.value * (1 + 1e-2)).all()
    assert np.isclose(found.value, usual.value, rtol=1e-7).sum() >= 2  # those it solves to the end


def test_infeasible_instances_are_reported():
    params, instances = sample("default", 4)
    tight = dataclasses.replace(instances, bandwidth_hz=instances.bandwidth_hz * np.array([1, 1e-3, 1, 1e-3]))
    solution = baselines.solve("crra", params, tight, "fast")
    assert solution.feasible.tolist() == [True, False, True, False]
    assert solution.status[0] == "ok"
    assert solution.status[1].startswith("infeasible: bandwidth")
    proof = baselines.bound("crra", params, tight)
    assert np.isneginf(proof.value[[1, 3]]).all()
    assert np.isnan(proof.gap[[1, 3]]).all()
    assert np.isfinite(proof.value[[0, 2]]).all()


def test_selection_with_no_room_serves_nobody():
    params, instances = sample("select", 2)
    empty = dataclasses.replace(instances, bandwidth_hz=np.full(2, 1e5))
    solution = baselines.solve("crra", params, empty, "fast")
    assert solution.feasible.all()
    assert (solution.objective == 0).all()
    proof = baselines.bound("crra", params, empty)
    assert (proof.value == 0).all()


@pytest.mark.parametrize(
    "fields", [{"num_users": 2, "max_bandwidth_hz": 1e6, "max_power_w": 2e-3, "max_ratio": 0.9}, {"max_ratio": 0.955}]
)
def test_odd_regimes(fields):
    """Where success is tiny for everybody the rule of prices drops the wrong users; the guard and the swaps hold."""
    params, instances = sample("default", 10, "train", **fields)
    plain = fast.solve(params, instances).objective
    searched = fast.solve(params, instances, swaps=2).objective
    crra = baselines.solve("crra", params, instances, "crra").objective
    assert (plain > 0.5 * crra).all()
    assert (searched >= 0.998 * crra).all()


@pytest.mark.parametrize("preset", ["default", "hard", "select", "general"])
def test_batch_equals_single_instances(preset):
    params, instances = sample(preset, 12)
    batch = fast.solve(params, instances).objective
    single = [fast.solve(params, instances[i]).objective[0] for i in range(len(instances))]
    np.testing.assert_allclose(batch, single, rtol=1e-12)


@pytest.mark.parametrize("success", ["exact", "approximate"])
def test_best_ratio_is_the_root_that_bisection_finds(success):
    """Shares over many decades, so that the maximiser lies inside and at both ends, and success may be hopeless."""
    params, instances = sample(
        "default", 400, "train", success=success, curves=("resnet_0db", "vgg_5db", "resnet_m5db")
    )
    users, rng = Users(params, instances), np.random.default_rng(0)
    bandwidth, power = 10 ** rng.uniform(3, 8, (400, 10)), 10 ** rng.uniform(-9, 1, (400, 10))
    low, high = np.zeros_like(bandwidth), np.full_like(bandwidth, params.max_ratio)
    for _ in range(60):
        middle = 0.5 * (low + high)
        rises = users.log_slopes(bandwidth, power, middle)[0] > 0
        low, high = np.where(rises, middle, low), np.where(rises, high, middle)
    for start in (0.0, 0.5, params.max_ratio, rng.random((400, 10))):
        found = users.best_ratio(bandwidth, power, start)
        np.testing.assert_allclose(found, high, rtol=0, atol=1e-12)
    assert (found == 0).sum() > 10
    assert (found == params.max_ratio).sum() > 10
    assert ((found > 0.01) & (found < 0.98)).sum() > 500


def test_slopes_of_the_log_value_are_its_differences():
    params, instances = sample("default", 50, "train")
    users, rng = Users(params, instances), np.random.default_rng(1)
    bandwidth, power = 10 ** rng.uniform(5, 7, (50, 10)), 10 ** rng.uniform(-4, -1, (50, 10))
    ratio = rng.uniform(0.3, 0.95, (50, 10))
    values = [users.value(bandwidth, power, ratio + step) for step in (-1e-4, 0.0, 1e-4)]
    around = [np.log(np.maximum(value, 1e-300)) for value in values]
    first, second = users.log_slopes(bandwidth, power, ratio)
    sure = (np.min(values, axis=0) > 1e-200) & (np.abs(second) < 1e4)
    assert sure.sum() > 100
    np.testing.assert_allclose(((around[2] - around[0]) / 2e-4)[sure], first[sure], rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(
        ((around[2] - 2 * around[1] + around[0]) / 1e-8)[sure], second[sure], rtol=2e-2, atol=0.1
    )


def test_hazard_table():
    x = np.concatenate([[0.0], np.geomspace(1e-9, 1e12, 100_000)])
    exact = hazard.SQRT_2_OVER_PI / scipy.special.erfcx(hazard.SQRT_HALF * x)
    np.testing.assert_allclose(hazard.hazard(x), exact, rtol=1e-14)
    np.testing.assert_allclose(hazard.nearly(x), exact, rtol=1e-8)


def test_wrong_arguments_are_named():
    params, instances = sample("default", 2)
    with pytest.raises(ValueError, match=r"unknown crra method 'fastt'.*did you mean 'fast'"):
        baselines.solve("crra", params, instances, "fastt")
    with pytest.raises(TypeError, match="iteration"):
        baselines.solve("crra", params, instances, "fast", iteration=3)
    with pytest.raises(ValueError, match="iterations must be >= 1, got 0"):
        baselines.solve("crra", params, instances, "fast", iterations=0)
    with pytest.raises(TypeError, match="params must be crra Params"):
        baselines.solve("crra", {"num_users": 3}, instances, "fast")
    with pytest.raises(ValueError, match=r"instance.distance_m must have shape \(2, 3\)"):
        baselines.solve("crra", dataclasses.replace(params, num_users=3), instances, "fast")


def test_impossible_instances_are_named():
    params, instances = sample("default", 2)
    silent = dataclasses.replace(instances, gain=np.zeros_like(instances.gain))
    with pytest.raises(ValueError, match=r"instance.gain must be positive everywhere"):
        baselines.solve("crra", params, silent, "fast")
    with pytest.raises(ValueError, match=r"instance.curve must be below 1"):
        baselines.bound("crra", params, dataclasses.replace(instances, curve=instances.curve + 1))


def test_allocation_helper_zeroes_the_unselected():
    a = allocation(np.ones((1, 2)), np.ones((1, 2)), np.zeros((1, 2)), np.array([[1, 0]]))
    assert a.bandwidth_hz.tolist() == [[1.0, 0.0]]
