"""The certificate: never on the wrong side, as tight as it says, valid when it is stopped."""

from __future__ import annotations

import numpy as np
import pytest
from ascc_cells import PROBLEM, brute_force, cells
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import baselines
from semcom_gym.baselines.ascc import bound, fast, minors
from semcom_gym.envs.ascc import duality, physics
from semcom_gym.envs.ascc.physics import Allocation

PRESETS = ["default", "paper", "two_user", "three_user", "hard", "measured"]


@pytest.mark.parametrize("preset", PRESETS)
def test_within_the_tolerance_and_not_above_anything_known(preset: str) -> None:
    params, instance = cells(10, preset)
    proof = baselines.bound("ascc", params, instance, tolerance=1e-3)
    assert (proof.gap <= 1.01e-3).all()
    assert (proof.gap >= 0).all()
    assert proof.best.feasible.all()
    for method in ("fast", "equal_mmse", "mrt", "zf_wf_adaptive"):
        assert (baselines.solve("ascc", params, instance, method).objective >= proof.value * (1 - 1e-12)).all()


@pytest.mark.parametrize("preset", ["default", "hard"])
def test_no_random_or_climbed_decision_beats_it(preset: str) -> None:
    """1e5 random beams, powers and codecs, without duality; half of them steps around the best decision known."""
    params, instance = cells(4, preset)
    proof = baselines.bound("ascc", params, instance)
    rng = np.random.default_rng(0)
    many = 12_500
    for i in range(4):
        cell = instance[np.full(many, i)]
        shape = (many, params.num_users, params.num_antennas)
        beam = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        power = rng.dirichlet(np.ones(params.num_users), many)
        for start in (0.0, 1.0):
            best = proof.best.allocation
            near = start * (best.beam_re[i] + 1j * best.beam_im[i]) + (0.05 if start else 1.0) * beam
            near /= np.linalg.norm(near, axis=-1, keepdims=True)
            split = start * best.power_w[i] / params.max_power_w + (0.05 if start else 1.0) * power
            split *= params.max_power_w / split.sum(-1, keepdims=True)
            index = physics.best_index(params, physics.sinr(cell, split, near))
            outcome = PROBLEM.evaluate(params, cell, Allocation(split, near.real, near.imag, index))
            assert outcome.feasible.all()
            assert (outcome.objective >= proof.value[i]).all()


def test_two_users_against_brute_force() -> None:
    params, instance = cells(3, "two_user")
    proof = baselines.bound("ascc", params, instance, tolerance=1e-4)
    for i in range(3):
        best = brute_force(params, instance[i])
        assert best * (1 - 3e-3) <= proof.value[i] <= best


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), users=st.integers(2, 5))
def test_no_point_of_a_box_is_below_its_bound(seed: int, users: int) -> None:
    params, instance = cells(1, num_users=users)
    rng = np.random.default_rng(seed)
    proof = bound._Proof(params, minors.Gains(instance), np.full(users, 6.0 / users), 1e-3)
    low = rng.dirichlet(np.ones(users))[:, None] * 6.0 * rng.random()
    high = low + rng.random((users, 1)) * 3.0
    lower = proof._below(low, high)[0]
    power = low + (high - low) * rng.random((users, 500))
    sinr = duality.uplink(duality.gram(instance), power.T[:, :]).sinr
    value = physics.best_distortion(params, sinr) @ params.weight
    assert (value >= lower).all()


def test_halves_hold_every_point_of_the_budget() -> None:
    """Cutting and shrinking boxes loses no powers that sum to the budget."""
    params, instance = cells(1)
    proof = bound._Proof(params, minors.Gains(instance), np.full(4, 1.5), 1e-3)
    point = np.random.default_rng(0).dirichlet(np.ones(4), 200).T * params.max_power_w
    low, high = proof.low, proof.high
    for _ in range(7):
        low, high = proof._halves(low, high)
        inside = (point[:, None] >= low[..., None] - 1e-9) & (point[:, None] <= high[..., None] + 1e-9)
        assert inside.all(0).any(0).all()


@pytest.mark.parametrize("users", [5, 8])
def test_stopped_early_it_is_looser_and_valid(users: int) -> None:
    params, instance = cells(2, num_users=users)
    short = baselines.bound("ascc", params, instance, max_nodes=5_000)
    longer = baselines.bound("ascc", params, instance, max_nodes=40_000)
    assert (short.value <= longer.value + 1e-12).all()
    assert (longer.value <= fast.solve(params, instance).objective).all()
    assert (short.best.iterations <= 5_000 + 4 * bound.BLOCK).all()
    assert (short.gap > 1e-3).all()


def test_one_user_is_its_own_bound() -> None:
    params, instance = cells(3, num_users=1, num_antennas=2)
    proof = baselines.bound("ascc", params, instance)
    assert (proof.gap <= 1e-3).all()


def test_bad_options() -> None:
    params, instance = cells(1)
    with pytest.raises(ValueError, match="tolerance must be finite, > 0"):
        baselines.bound("ascc", params, instance, tolerance=0.0)
    with pytest.raises(ValueError, match="max_nodes must be >= 1, got 0"):
        baselines.bound("ascc", params, instance, max_nodes=0)
