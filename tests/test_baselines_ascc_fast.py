"""SINRs by minors, the table of distortions, and the batched solver."""

from __future__ import annotations

import numpy as np
import pytest
from ascc_cells import PROBLEM, brute_force, cells
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import baselines
from semcom_gym.baselines.ascc import fast, minors
from semcom_gym.envs.ascc import actions, duality, physics

PRESETS = ["default", "paper", "two_user", "three_user", "hard", "measured"]


@settings(max_examples=30)
@given(users=st.integers(1, 9), antennas=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_gains_are_those_of_the_uplink(users: int, antennas: int, seed: int) -> None:
    """By minors up to seven users, by inverses above; with users switched off, and with more users than antennas."""
    _, instance = cells(3, num_users=users, num_antennas=antennas)
    rng = np.random.default_rng(seed)
    power = rng.dirichlet(np.ones(users), (3, 5)).swapaxes(1, 2) * (rng.random((3, users, 5)) > 0.2)
    sinr = power * minors.Gains(instance).at(power)
    for point in range(5):
        expected = duality.uplink(duality.gram(instance), power[..., point]).sinr
        np.testing.assert_allclose(sinr[..., point], expected, rtol=1e-9, atol=1e-12)
    assert minors.Gains(instance).by_minors == (users <= 7)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), preset=st.sampled_from(PRESETS))
def test_tabulated_distortion_is_near_and_below_the_exact_one(seed: int, preset: str) -> None:
    params = PROBLEM.preset(preset)
    values = minors.values(params)
    sinr = np.exp(np.random.default_rng(seed).uniform(-12, 12, (4, params.num_users, 50)))
    flat = sinr.swapaxes(1, 2).reshape(-1, params.num_users)
    exact = (physics.best_distortion(params, flat) * params.weight).reshape(4, 50, -1).swapaxes(1, 2)
    near, below = values.near(sinr), values.below(sinr)
    assert (below <= exact * (1 + 1e-12)).all()
    assert (near >= exact * (1 - 1e-12)).all()
    assert (near - below <= 2e-3 * exact).all()


def test_no_sinr_falls_below_the_table() -> None:
    """Beyond its end the table holds the least source distortion."""
    params = PROBLEM.preset("default")
    huge = np.full((1, 4, 1), 1e30)
    assert (minors.values(params).below(huge)[0, :, 0] <= params.weight * params.curve_table[1].min(1)).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_beats_every_baseline_and_random_powers(preset: str) -> None:
    params, instance = cells(20, preset)
    found = baselines.solve("ascc", params, instance, "fast")
    assert found.feasible.all()
    rng = np.random.default_rng(0)
    dual = rng.dirichlet(np.full(params.num_users, 0.7), (300, 20)) * params.max_power_w
    random = min((_objective(params, instance, q) for q in dual), key=lambda x: x.mean())
    best = np.minimum.reduce([_objective(params, instance, q) for q in dual])
    assert (found.objective <= best * (1 + 2e-3)).all()
    assert found.objective.mean() < random.mean()
    for method in ("equal_mmse", "mrt", "zf_equal", "zf_wf_adaptive", "zf_wf_fixed"):
        other = baselines.solve("ascc", params, instance, method)
        assert (found.objective <= other.objective * (1 + 2e-3)).all(), method


def _objective(params, instance, dual):
    sinr = actions.realise(instance, dual)[2]
    return physics.best_distortion(params, sinr) @ params.weight


@pytest.mark.parametrize("blocklength", [256, 4096])
def test_two_users_against_brute_force(blocklength: int) -> None:
    """Over both beams, the power split and all codecs, without duality: the grid ends a little above the optimum."""
    params, instance = cells(4, "two_user", blocklength=blocklength)
    found = baselines.solve("ascc", params, instance, "fast").objective
    for i in range(4):
        best = brute_force(params, instance[i])
        assert best * (1 - 2e-3) <= found[i] <= best * (1 + 1e-4)


@pytest.mark.parametrize("users", [1, 2, 3, 4, 5, 8, 12])
def test_lattice_of_the_simplex(users: int) -> None:
    points = fast.lattice(users)
    assert points.shape[:2] == (1, users)
    np.testing.assert_allclose(points.sum(1), 1.0)
    assert (points >= 0).all()
    assert points.shape[2] <= fast.LATTICE * len(fast.BENDS) + 1
    for corner in np.eye(users):
        assert (corner == points[0].T).all(1).any()


def test_batch_and_options() -> None:
    """Every instance is solved as if alone; longer searches are not worse; bad options are one line."""
    params, instance = cells(fast.CHUNK + 3)
    whole = baselines.solve("ascc", params, instance, "fast")
    alone = baselines.solve("ascc", params, instance[fast.CHUNK + 1], "fast")
    np.testing.assert_allclose(whole.objective[fast.CHUNK + 1], alone.objective[0], rtol=1e-12)
    long = baselines.solve("ascc", params, instance, "fast", rounds=12, moves=100)
    assert long.objective.mean() <= whole.objective.mean()
    with pytest.raises(ValueError, match="moves must be >= 1, got 0"):
        baselines.solve("ascc", params, instance, "fast", moves=0)


@pytest.mark.parametrize("users", [1, 6, 9])
def test_any_number_of_users(users: int) -> None:
    params, instance = cells(3, num_users=users, num_antennas=3)
    found = baselines.solve("ascc", params, instance, "fast")
    assert found.feasible.all()
    assert (found.objective <= _objective(params, instance, np.full((3, users), 6.0 / users)) + 1e-12).all()
