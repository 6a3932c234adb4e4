"""The fast solver of the SFMA problem, and the climb and prices it stands on."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import scipy.optimize
from sfma_cells import PROBLEM, cells, climb_from_anywhere, matchings

from semcom_gym import baselines
from semcom_gym.baselines.sfma import fast
from semcom_gym.envs.sfma import actions, barrier, pairs, physics, prices, resources
from semcom_gym.envs.sfma.physics import Allocation

PRESETS = ("default", "loose", "tight", "paper", "pruned", "figures", "measured")


@pytest.mark.parametrize("preset", PRESETS)
def test_fast_is_feasible_and_above_equal(preset):
    params, instance = cells(12, preset)
    found = baselines.solve("sfma", params, instance, "fast")
    equal = baselines.solve("sfma", params, instance, "equal")
    assert found.feasible.all()
    assert set(found.status) == {"ok"}
    np.testing.assert_array_equal(found.objective, PROBLEM.evaluate(params, instance, found.allocation).objective)
    both = equal.feasible
    assert (found.objective[both] > equal.objective[both]).all()
    assert found.objective[both].mean() > 1.05 * equal.objective[both].mean()


@pytest.mark.parametrize("users", [4, 6])
def test_fast_is_near_the_best_of_all_pairings(users):
    params, instance = cells(4, "default", num_users=users, max_bandwidth_hz=users * 1e6, max_power_w=0.1 * users)
    rng = np.random.default_rng(0)
    found = fast.solve(params, instance)
    every = matchings(users)
    assert len(every) == {4: 3, 6: 15}[users]
    share = []
    for i in range(len(instance)):
        best = max(climb_from_anywhere(params, instance[i], pair, rng) for pair in every)
        share.append(found.objective[i] / best)
    assert min(share) >= 0.95, share
    assert np.mean(share) >= 0.985, share


def test_no_local_solver_improves_on_the_climb():
    """SLSQP from the solution, with the same limits written out here, gains nothing."""
    params, instance = cells(3)
    found = fast.solve(params, instance)
    for i in range(len(instance)):
        assert polished(params, instance[i], found.allocation[i]) <= found.objective[i] * (1.0 + 1e-4)


def polished(params, instance, allocation: Allocation) -> float:
    groups = params.num_groups
    link = physics.links(params, instance, allocation.pair)
    low = physics.distortion_floor(params, link)[0]

    def parts(v):
        share = v.reshape(3, 1, groups)
        return params.max_power_w * share[0], params.max_bandwidth_hz * share[1], share[2]

    def rates(v):
        return physics.rates(link, *parts(v))

    def slacks(v):
        p, _, ratio = parts(v)
        delay = link.source_bit * ratio[..., None] / rates(v)
        energy = p * delay.max(-1) - params.energy_coefficient_j * np.log(ratio)
        budgets = [1.0 - energy.sum() / params.max_energy_j, 1.0 - v[:groups].sum(), 1.0 - v[groups : 2 * groups].sum()]
        return np.concatenate([((link.spare_s - delay) / params.max_latency_s).ravel(), budgets])

    units = ((allocation.power_w, params.max_power_w), (allocation.bandwidth_hz, params.max_bandwidth_hz))
    start = [*(x / unit for x, unit in units), allocation.ratio]
    result = scipy.optimize.minimize(
        lambda v: -rates(v).sum() / 5e7, np.concatenate(start, axis=1)[0], method="SLSQP", options={"maxiter": 60},
        bounds=[(1e-4, 1.0)] * (2 * groups) + [(x, 1.0) for x in low], constraints=[{"type": "ineq", "fun": slacks}],
    )  # fmt: skip
    return -50.0 * result.fun if slacks(result.x).min() > -1e-6 else -np.inf


def test_more_users_and_uneven_batches():
    params, instance = cells(2, num_users=16)
    found = fast.solve(params, instance)
    assert found.feasible.all()
    assert (pairs.uses(found.allocation.pair, 16) == 1).all()
    alone = fast.solve(params, instance[1], rounds=2)
    np.testing.assert_allclose(alone.objective, found.objective[1:], rtol=1e-6)


def test_a_hundred_users():
    params, instance = cells(1, "loose", num_users=100, max_bandwidth_hz=100e6, max_power_w=10.0)
    found = fast.solve(params, instance)
    assert found.feasible.all()
    assert (pairs.uses(found.allocation.pair, 100) == 1).all()


def test_too_little_bandwidth_is_reported_not_raised():
    params, instance = cells(2, max_bandwidth_hz=1e5)
    found = fast.solve(params, instance)
    assert not found.feasible.any()
    assert all(status.startswith("infeasible") for status in found.status)


@pytest.mark.parametrize(("option", "value"), [("candidates", 0), ("rounds", -1), ("candidates", 1.5)])
def test_bad_options(option, value):
    params, instance = cells(1)
    with pytest.raises((TypeError, ValueError), match=option):
        fast.solve(params, instance, **{option: value})


def test_exchanges_are_all_matchings_one_exchange_away():
    users = 6
    every = matchings(users)
    for chosen in every[:5]:
        near = fast.swaps(users, chosen[None])[0]
        assert (pairs.uses(near, users) == 1).all()
        expected = {tuple(other) for other in every if len(set(other) & set(chosen)) == 1}
        assert {tuple(sorted(row)) for row in near} == expected


# --- the climb ------------------------------------------------------------------------------------------------------


def state(params, instance, pair) -> barrier.State:
    link = physics.links(params, instance, pair)
    return barrier.State.of(
        params, link, resources.start(params, link, pair, np.zeros((len(pair), 3, params.num_groups)))
    )


def test_derivatives_against_finite_differences():
    params, instance = cells(5)
    pair = np.tile(matchings(10)[100], (5, 1))
    here = state(params, instance, pair)
    first, second = here._derivatives()
    energy1, energy2 = here._energy_derivatives(first, second)
    step = 1e-5
    for axis in range(3):
        change = np.zeros_like(here.point)
        change[axis] = step
        more, less = here.moved(change), here.moved(-change)
        np.testing.assert_allclose((more.rate - less.rate) / (2 * step), first[axis], rtol=2e-5, atol=1e-5)
        entries = [k for k in range(6) if barrier.ROW[k] == axis]
        others = barrier.COLUMN[entries]
        slope = (more._derivatives()[0] - less._derivatives()[0])[others] / (2 * step)
        np.testing.assert_allclose(slope, second[entries], rtol=2e-4, atol=1e-3)

        def spent(at):
            a = at.allocation(pair)
            delay = (at.groups.source * a.ratio.T / at.rate).T
            return physics.energy(params, a.power_w, delay, a.ratio).T / params.max_energy_j

        np.testing.assert_allclose((spent(more) - spent(less)) / (2 * step), energy1[axis], rtol=1e-4, atol=1e-6)
        slope = more._energy_derivatives(*more._derivatives())[0] - less._energy_derivatives(*less._derivatives())[0]
        np.testing.assert_allclose(slope[others] / (2 * step), energy2[entries], rtol=2e-3, atol=1e-4)


def test_a_newton_step_climbs_and_the_barrier_never_falls():
    params, instance = cells(8)
    pair = np.tile(matchings(10)[7], (8, 1))
    here = state(params, instance, pair)
    inside = here.worst > 0
    assert inside.any()
    for weight in (1.0, 0.1, 1e-3):
        before = here.barrier(weight)
        here = barrier.search(here, here.direction(weight), weight)
        assert (here.barrier(weight)[inside] >= before[inside]).all()
        assert (here.worst[inside] > 0).all()
    assert (here.barrier(1e-3)[inside] > state(params, instance, pair).barrier(1e-3)[inside]).all()


def test_allocate_beats_equal_entries_and_keeps_the_pairs():
    params, instance = cells(10)
    pair = fast.solve(params, instance).allocation.pair
    found = resources.allocate(params, instance, pair)
    np.testing.assert_array_equal(found.pair, pair)
    outcome = PROBLEM.evaluate(params, instance, found)
    assert outcome.feasible.all()
    link = physics.links(params, instance, pair)
    plain = actions.allot(params, link, pair, np.zeros((10, 3, params.num_groups)))
    assert (outcome.objective > PROBLEM.evaluate(params, instance, plain).objective).all()


# --- prices ---------------------------------------------------------------------------------------------------------


def test_the_table_holds_what_the_equations_say():
    params, instance = cells(2)
    link = physics.links(params, instance)
    table = prices.tabulate(params, link)
    rng = np.random.default_rng(0)
    for _ in range(50):
        i, m, g = rng.integers(2), rng.integers(params.num_pairs), rng.integers(table.points.shape[-1])
        value, power, bandwidth, energy = table.points[i, :, m, g].astype(float)
        if value < 0:
            continue
        one = link[int(i)]
        one = one.map(lambda x, m=m: x[:, [m]])
        p, b = np.array([[power * params.max_power_w]]), np.array([[bandwidth * params.max_bandwidth_hz]])
        ratio = np.array([[float(table.ratio[i, m, g])]])
        rate = physics.rates(one, p, b, ratio)
        assert rate.sum() * 1e-6 == pytest.approx(prices.SCALE * value, rel=1e-4)
        spent = physics.energy(params, p, physics.delays(one, rate, ratio), ratio)
        assert spent[0, 0] == pytest.approx(energy * params.max_energy_j, rel=1e-3)
        late = physics.delays(one, rate, ratio) - one.spare_s
        assert (late <= 1e-5 * one.spare_s).all()


def test_search_finds_the_least_of_the_dual_function():
    """No prices near those found have a lower dual value over the table."""
    params, instance = cells(2)
    table = prices.tabulate(params, physics.links(params, instance))

    def match(net):
        return pairs.best_matching(net, params.num_users)

    def dual(price):
        net, _ = table.best(price)
        return np.take_along_axis(net, match(net), -1).sum(-1) + price.sum(-1)

    found, met = prices.search(table, match)
    assert len(met) == prices.STEPS
    least = dual(found)
    rng = np.random.default_rng(0)
    for size in (0.3, 0.1, 0.03, 0.01):
        for _ in range(25):
            other = np.maximum(found * (1.0 + size * rng.normal(size=found.shape)), 0.0)
            assert (dual(other) >= least - 2e-3).all()


def test_tight_instances_are_served_where_equal_shares_are_not():
    params, instance = cells(40, "pruned")
    equal = baselines.solve("sfma", params, instance, "equal")
    found = fast.solve(params, instance)
    assert (~equal.feasible).any()
    assert found.feasible[equal.feasible].all()
    assert found.feasible.mean() > 0.95


def test_overridden_parameters_reach_the_solver():
    params, instance = cells(4)
    wide = dataclasses.replace(params, max_bandwidth_hz=2 * params.max_bandwidth_hz)
    assert (fast.solve(wide, instance).objective > fast.solve(params, instance).objective).all()


@pytest.mark.parametrize("method", ["equal", "channel_pairing", "paper", "paper_printed", "price_matching", "fast"])
@pytest.mark.parametrize("preset", ["default", "tight"])
def test_the_environment_scores_a_solution_as_the_solver_does(preset, method):
    """To 1e-9 where all bandwidth is used; a method that leaves some gets the credit of handing it out."""
    env = gym.make("SemCom/SFMA-v0", preset=preset).unwrapped
    instance = env.problem.sample_split(env.params, "validation", 3)
    found = baselines.solve("sfma", env.params, instance, method)
    assert found.feasible.any()
    for i in np.flatnonzero(found.feasible):
        env.reset(options={"instance": instance[int(i)]})
        _, reward, _, _, info = env.step(env.encode(found.allocation[int(i)]))
        assert info["feasible"]
        assert reward == pytest.approx(info["objective"], abs=1e-4)
        used = found.allocation.bandwidth_hz[i].sum() / env.params.max_bandwidth_hz
        assert info["objective"] >= found.objective[i] * (1 - 1e-9)
        assert info["objective"] <= found.objective[i] * (1 + 1e-9 + 3.0 * max(1.0 - used, 0.0))
