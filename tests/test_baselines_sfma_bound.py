"""The certified bound of the SFMA problem: never beaten, and close to what is known."""

from __future__ import annotations

import numpy as np
import pytest
from sfma_cells import PROBLEM, cells, climb_from_anywhere, matchings

from semcom_gym import baselines
from semcom_gym.envs.sfma import actions, physics


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


def test_the_bound_is_the_same_whatever_else_is_proven_with_it():
    params, instance = cells(3, "pruned")
    together = baselines.bound("sfma", params, instance)
    alone = [baselines.bound("sfma", params, instance[i]) for i in range(3)]
    for i, one in enumerate(alone):
        assert one.best.objective[0] <= together.value[i] * (1.0 + 1e-9)
        assert one.value[0] == pytest.approx(together.value[i], rel=1e-4)


def test_an_instance_without_a_matching_does_not_disturb_the_others():
    """Feasible and infeasible instances in one batch: the feasible ones keep their bounds."""
    params, instance = cells(4, "pruned", max_distortion=3e-3)
    proven = baselines.bound("sfma", params, instance)
    assert np.isfinite(proven.value).any()
    assert (proven.value == -np.inf).any()
    assert (np.isfinite(proven.value) | ~proven.best.feasible).all()
    for i in np.flatnonzero(np.isfinite(proven.value)):
        assert baselines.bound("sfma", params, instance[int(i)]).value[0] == pytest.approx(proven.value[i], rel=1e-4)
