"""Algorithm 3 against all pairings and assignments, and its stages one by one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines.sfma import pairing
from semcom_gym.envs.sfma import pairs, physics

SFMA = envs.problem("sfma")


def matchings(users: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    if not users:
        yield ()
    for k in range(1, len(users)):
        for rest in matchings(users[1:k] + users[k + 1 :]):
            yield ((users[0], users[k]), *rest)


def orders(users: int) -> np.ndarray[Any, Any]:
    """(matchings x K!, K) every pairing in every order of its groups."""
    index = pairs.index(users)
    found = [[index[i, j] for i, j in matching] for matching in matchings(tuple(range(users)))]
    return np.array([order for pair in found for order in itertools.permutations(pair)])


def best(utility: Any, users: int, energy: Any = None, limit: float = np.inf) -> float:
    """The largest total of a table (K, M) over all pairings and assignments within the energy limit."""
    order = orders(users)
    group = np.arange(order.shape[1])
    value = utility[group, order].sum(-1)
    if energy is not None:
        value = np.where(energy[group, order].sum(-1) <= limit, value, -np.inf)
    return float(value.max())


def drawn(preset: str, users: int, n: int, **overrides: Any) -> tuple[Any, Any, Any]:
    """Instances, and allocations with random shares and ratios."""
    params = SFMA.preset(preset, num_users=users, **overrides)
    rng = np.random.default_rng(0)
    groups = params.num_groups
    power, bandwidth = rng.dirichlet(np.full(groups, 8.0), (2, n))
    shares = power * params.max_power_w, bandwidth * params.max_bandwidth_hz
    allocation = SFMA.Allocation(np.zeros((n, groups), int), *shares, rng.uniform(0.15, 0.3, (n, groups)))
    return params, SFMA.sample_split(params, "validation", n), allocation


@pytest.mark.parametrize("preset", ["default", "tight"])
@pytest.mark.parametrize("users", [4, 6])
def test_against_every_pairing_and_assignment(preset: str, users: int) -> None:
    params, instance, allocation = drawn(preset, users, 50)
    ratio, missed, possible = [], 0, 0
    for row in range(50):
        pair, _, _ = pairing.optimise(params, instance[row], allocation[row])
        edge = pairing.edges(params, instance[row], allocation[row])
        optimum = best(np.where(edge.allowed, edge.rate, -np.inf), users, edge.energy, params.max_energy_j)
        possible += np.isfinite(optimum)
        if pair is None:
            missed += np.isfinite(optimum)
            continue
        chosen = SFMA.Allocation(pair, allocation.power_w[row, None], allocation.bandwidth_hz[row, None],
                                 allocation.ratio[row, None])  # fmt: skip
        outcome = SFMA.evaluate(params, instance[row], chosen)
        assert outcome.feasible[0]
        ratio.append(outcome.objective[0] / optimum)
    assert possible > 20
    assert missed <= 0.2 * possible
    assert max(ratio) <= 1 + 1e-9
    assert np.mean(ratio) > (0.999 if users == 4 else 0.97)
    assert np.mean(np.array(ratio) > 1 - 1e-9) > (0.95 if users == 4 else 0.6)


def test_an_early_stop_is_a_proof() -> None:
    params, instance, allocation = drawn("loose", 6, 40)
    stopped = 0
    for row in range(40):
        pair, prices, steps = pairing.optimise(params, instance[row], allocation[row], steps=400)
        if pair is None or steps == 400:
            continue
        stopped += 1
        edge = pairing.edges(params, instance[row], allocation[row])
        optimum = best(np.where(edge.allowed, edge.rate, -np.inf), 6, edge.energy, params.max_energy_j)
        assert edge.rate[np.arange(3), pair[0]].sum() >= optimum * (1 - 1e-6)
        assert prices.energy == 0.0  # there is energy to spare on this preset
    assert stopped > 10


def test_the_dynamic_edges_are_those_that_evaluate_accepts() -> None:
    params, instance, allocation = drawn("pruned", 6, 6)
    kinds = set()
    for row in range(6):
        edge = pairing.edges(params, instance[row], allocation[row])
        for order in orders(6)[::3]:
            chosen = SFMA.Allocation(order[None], allocation.power_w[row, None], allocation.bandwidth_hz[row, None],
                                     allocation.ratio[row, None])  # fmt: skip
            outcome = SFMA.evaluate(params, instance[row], chosen)
            accepted = max(outcome.violation["distortion"][0], outcome.violation["latency"][0]) <= 1e-9
            assert edge.allowed[np.arange(3), order].all() == accepted
            np.testing.assert_allclose(edge.rate[np.arange(3), order].sum(), outcome.objective[0], rtol=1e-12)
            np.testing.assert_allclose(edge.energy[np.arange(3), order], outcome.terms["energy_j"][0], rtol=1e-12)
            kinds.add(bool(accepted))
    assert kinds == {True, False}


def test_distortion_needs_no_price() -> None:
    params, instance, allocation = drawn("pruned", 10, 20)
    every = np.arange(45)[None]
    for row in range(20):
        edge = pairing.edges(params, instance[row], allocation[row])
        for group in range(5):
            ratio = np.full((1, 45), allocation.ratio[row, group])
            quality = physics.distortion(params, physics.links(params, instance[row], every), ratio)[0].max(-1)
            assert (quality[edge.allowed[group]] <= params.max_distortion * (1 + 1e-6)).all()


def test_conflicts_leave_every_user_its_best_choice() -> None:
    params = SFMA.preset("default", num_users=6)
    index = pairs.index(6)
    reduced = np.full((3, 15), -50.0)
    reduced[0, index[0, 1]], reduced[1, index[1, 2]], reduced[2, index[3, 4]] = 5.0, 7.0, 1.0
    assert pairing.resolve(params, reduced).tolist() == [-1, index[1, 2], index[3, 4]]
    reduced[2, index[2, 5]] = 9.0  # user 2 prefers this one, so user 1 is left with a choice that user 2 dropped
    assert pairing.resolve(params, reduced).tolist() == [-1, -1, index[2, 5]]


def test_the_residual_stage_completes_what_is_kept() -> None:
    params = SFMA.preset("default", num_users=8)
    rng = np.random.default_rng(0)
    for _ in range(30):
        reduced = rng.uniform(0.0, 10.0, (4, 28))
        kept = pairing.resolve(params, reduced)
        pair = pairing.complete(params, reduced, kept)
        assert pair is not None
        assert (pair[kept >= 0] == kept[kept >= 0]).all()
        assert (pairs.uses(pair[None], 8) == 1).all()


def test_repair_is_exact_where_matching_then_assignment_fails() -> None:
    index = pairs.index(4)
    utility = np.full((2, 6), -np.inf)
    # (0, 1) and (2, 3) are worth most, but only group 0 can serve either
    utility[0, [index[0, 1], index[2, 3]]] = 10.0, 10.0
    utility[0, index[0, 2]], utility[1, index[1, 3]] = 1.0, 2.0
    params = SFMA.preset("default", num_users=4)
    pair = pairing.complete(params, utility, np.full(2, -1))
    assert pair is not None
    assert pair.tolist() == [index[0, 2], index[1, 3]]
    utility[1, index[1, 3]] = -np.inf
    assert pairing.complete(params, utility, np.full(2, -1)) is None


def test_repair_against_all_assignments() -> None:
    rng = np.random.default_rng(0)
    solved = 0
    for _ in range(40):
        utility = np.where(rng.random((3, 15)) < 0.4, rng.uniform(-5.0, 5.0, (3, 15)), -np.inf)
        optimum = best(utility, 6)
        found = pairing._repair(utility, 6)
        assert (found is None) == np.isneginf(optimum)
        if found is not None:
            solved += 1
            assert utility[np.arange(3), found].sum() == pytest.approx(optimum, abs=1e-9)
            assert (pairs.uses(found[None], 6) == 1).all()
    assert 10 < solved < 40


def test_swaps_climb_and_stop_where_no_swap_helps() -> None:
    params = SFMA.preset("default", num_users=10)
    rng = np.random.default_rng(0)
    for _ in range(20):
        edge = pairing.Edges(rng.uniform(0, 10, (5, 45)), np.full((5, 45), 1e-6), np.ones((5, 45), bool))
        first = pairs.best_matching(rng.random((1, 45)), 10)[0]
        last = pairing.swap(params, edge, first)
        group = np.arange(5)
        assert sorted(last) == sorted(first)
        value = edge.rate[group, last].sum()
        assert value >= edge.rate[group, first].sum()
        for a, b in itertools.combinations(range(5), 2):
            other = last.copy()
            other[[a, b]] = other[[b, a]]
            assert edge.rate[group, other].sum() <= value + 1e-6


def test_swaps_keep_to_edges_and_mend_the_energy_budget() -> None:
    params = SFMA.preset("default", num_users=4)
    first = np.array([pairs.index(4)[0, 1], pairs.index(4)[2, 3]])
    swapped = first[::-1]
    rate, energy, allowed = np.ones((2, 6)), np.zeros((2, 6)), np.ones((2, 6), bool)
    rate[[0, 1], swapped] = 5.0
    assert pairing.swap(params, pairing.Edges(rate, energy, allowed), first).tolist() == swapped.tolist()
    forbidden = allowed.copy()
    forbidden[0, swapped[0]] = False
    assert pairing.swap(params, pairing.Edges(rate, energy, forbidden), first).tolist() == first.tolist()
    dear = energy.copy()
    dear[0, swapped[0]] = 2 * params.max_energy_j
    assert pairing.swap(params, pairing.Edges(rate, dear, allowed), first).tolist() == first.tolist()
    assert pairing.swap(params, pairing.Edges(rate, dear, allowed), swapped).tolist() == first.tolist()


def test_the_price_of_energy_turns_down_a_pairing_beyond_the_budget() -> None:
    params = SFMA.preset("default", num_users=4)
    index = pairs.index(4)
    rate, energy = np.ones((2, 6)), np.full((2, 6), 0.4 * params.max_energy_j)
    best_two, next_two = [index[0, 1], index[2, 3]], [index[0, 2], index[1, 3]]
    rate[:, best_two], energy[:, best_two] = [[10.0, 9.0], [9.0, 10.0]], params.max_energy_j
    rate[:, next_two] = [[8.0, 7.0], [7.0, 8.0]]
    edge = pairing.Edges(rate, energy, np.ones((2, 6), bool))
    chosen = []
    for prices in (pairing.Prices(np.zeros(4)), pairing.price(params, edge, pairing.Prices(np.zeros(4)), 100)[0]):
        reduced = pairing.reduced_utility(params, edge, prices)
        found = pairing.complete(params, reduced, pairing.resolve(params, reduced))
        assert found is not None
        chosen.append(pairing.swap(params, edge, found).tolist())
    assert chosen == [best_two, next_two]
    assert prices.energy > 0


def test_no_edge_no_pairing() -> None:
    params, instance, allocation = drawn("default", 4, 1, max_latency_s=0.03)
    pair, prices, steps = pairing.optimise(params, instance, allocation)
    assert pair is None
    assert steps == 0
    assert (prices.user == 0).all()


def test_prices_go_on_from_where_they_were() -> None:
    params, instance, allocation = drawn("loose", 10, 1)
    _, first, _ = pairing.optimise(params, instance, allocation, steps=5)
    _, more, _ = pairing.optimise(params, instance, allocation, prices=first, steps=5)
    assert (more.user != first.user).any()
    _, again, _ = pairing.optimise(params, instance, allocation, steps=5)
    np.testing.assert_array_equal(again.user, first.user)


def test_many_users_take_little_time() -> None:
    params, instance, allocation = drawn("loose", 24, 3)
    began = time.perf_counter()
    for row in range(3):
        pair, _, _ = pairing.optimise(params, instance[row], allocation[row])
        assert pair is None or (pairs.uses(pair, 24) == 1).all()
    assert time.perf_counter() - began < 5.0


def test_a_bad_option_is_named() -> None:
    params, instance, allocation = drawn("default", 4, 1)
    with pytest.raises(ValueError, match="steps"):
        pairing.optimise(params, instance, allocation, steps=0)
