"""The value of a user, and the heuristics that stand on it, against grids and independent solvers."""

from __future__ import annotations

import dataclasses
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import baselines, envs
from semcom_gym.baselines.crra import heuristics
from semcom_gym.baselines.crra.hazard import SQRT_2_OVER_PI
from semcom_gym.baselines.crra.normal import Users
from semcom_gym.envs import curve
from semcom_gym.envs.crra import actions

CRRA = envs.problem("crra")
CURVES = tuple(curve.shipped("crra"))
HEURISTICS = ("equal", "fra", "fcr", "msr")
PRESETS = ("paper", "default", "hard", "select", "general")


def batch(preset: str, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = CRRA.preset(preset, **overrides)
    return params, CRRA.sample_split(params, "validation", n)


def mixed(success: str) -> tuple[Any, Any]:
    """One instance with a user of every published curve."""
    params = CRRA.preset("default", num_users=6, curves=CURVES, success=success)
    instance = CRRA.sample_split(params, "validation", 1)
    return params, dataclasses.replace(instance, curve=np.arange(6)[None])


resource = st.floats(-1.5, 1.0)  # log10 of the factor to an equal share


@settings(max_examples=40)
@given(success=st.sampled_from(("exact", "approximate")), by_b=resource, by_p=resource, gain=st.floats(-2.0, 3.0))
def test_the_ratio_is_the_best_on_a_fine_grid(success: str, by_b: float, by_p: float, gain: float) -> None:
    params, instance = mixed(success)
    instance = dataclasses.replace(instance, gain=instance.gain * 10**gain)
    users = Users(params, instance)
    bandwidth = np.full((1, 6), params.max_bandwidth_hz / 6 * 10**by_b)
    power = np.full((1, 6), params.max_power_w / 6 * 10**by_p)
    best = users.best_ratio(bandwidth, power)
    assert np.all((best >= 0) & (best <= params.max_ratio))
    value = users.value(bandwidth, power, best)
    grid = np.linspace(0.0, params.max_ratio, 801)
    on_grid = np.max([users.value(bandwidth, power, np.full((1, 6), o)) for o in grid], axis=0)
    assert np.all(value >= on_grid * (1 - 1e-12))
    # no better than the grid allows: a step of the grid changes ln value by little where value counts
    assert np.all((value <= on_grid * 1.05) | (value < 1e-3))


@pytest.mark.parametrize("success", ["exact", "approximate"])
def test_marginals_are_derivatives(success: str) -> None:
    params, instance = batch("default", 50, curves=CURVES, success=success)
    users = Users(params, instance)
    rng = np.random.default_rng(0)
    bandwidth = 5e5 * np.exp(rng.normal(size=instance.gain.shape))
    power = 1e-3 * np.exp(rng.normal(size=instance.gain.shape))
    ratio = rng.uniform(0.5, 0.99, instance.gain.shape)
    value, by_bandwidth, by_power = users.marginals(bandwidth, power, ratio)
    np.testing.assert_allclose(value, users.value(bandwidth, power, ratio), rtol=1e-12)
    h = 1e-6
    alive = value > 1e-9
    assert alive.sum() > 100
    for marginal, up, down in (
        (by_bandwidth * bandwidth, (bandwidth * (1 + h), power), (bandwidth * (1 - h), power)),
        (by_power * power, (bandwidth, power * (1 + h)), (bandwidth, power * (1 - h))),
    ):
        numeric = (users.value(*up, ratio) - users.value(*down, ratio)) / (2 * h)
        np.testing.assert_allclose(marginal[alive], numeric[alive], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", HEURISTICS)
def test_feasible_and_uses_every_budget(method: str, preset: str) -> None:
    params, instance = batch(preset, 30)
    solution = baselines.solve("crra", params, instance, method)
    assert solution.feasible.all()
    assert set(solution.status) == {"ok"}
    chosen = solution.allocation
    np.testing.assert_allclose(np.sum(chosen.bandwidth_hz * chosen.selected, -1), instance.bandwidth_hz, rtol=1e-9)
    np.testing.assert_allclose(np.sum(chosen.power_w * chosen.selected, -1), instance.power_w, rtol=1e-9)
    np.testing.assert_array_equal(solution.objective, CRRA.evaluate(params, instance, chosen).objective)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_best_ratio_is_never_worse_than_a_fixed_one(preset: str) -> None:
    params, instance = batch(preset, 50)
    fra = baselines.solve("crra", params, instance, "fra").objective
    if not params.selection:  # with selection the two may admit different users
        for ratio in (0.5, 0.8, 0.95):
            equal = baselines.solve("crra", params, instance, "equal", ratio=ratio).objective
            assert np.all(fra >= equal * (1 - 1e-12))


def test_the_order_of_the_paper_where_resources_are_tight() -> None:
    params, instance = batch("default", 100)
    mean = {m: baselines.solve("crra", params, instance, m).objective.mean() for m in ("fra", "fcr", "msr", "fast")}
    assert mean["fast"] > mean["fra"] > mean["fcr"] > mean["msr"]


@pytest.mark.parametrize("selection", [False, True])
def test_fcr_against_a_grid_of_two_users(selection: bool) -> None:
    params, instance = batch("default", 20, num_users=2, max_bandwidth_hz=1e6, max_power_w=2e-3, selection=selection)
    solution = baselines.solve("crra", params, instance, "fcr", iterations=200)
    assert np.all(solution.allocation.ratio == 0.8)
    share = np.linspace(0.0, 1.0, 301)
    b, p = np.meshgrid(share, share)
    for row in range(len(instance)):
        users = Users(params, instance[row])
        spare_b, spare_p = 1e6 - 2 * params.min_bandwidth_hz, 2e-3 - 2 * params.min_power_w
        bandwidth = params.min_bandwidth_hz + spare_b * np.stack((b.ravel(), 1 - b.ravel()), -1)
        power = params.min_power_w + spare_p * np.stack((p.ravel(), 1 - p.ravel()), -1)
        best = users.value(bandwidth, power, np.full_like(bandwidth, 0.8)).sum(-1).max()
        assert solution.objective[row] >= best * (1 - 1e-3) - 1e-12


@pytest.mark.parametrize("floors", [(1e4, 1e-5), (6e5, 1e-4), (1e5, 2.4e-3)])
def test_msr_is_the_maximum_of_the_concave_rate(floors: tuple[float, float]) -> None:
    params, instance = batch("default", 6, num_users=4, min_bandwidth_hz=floors[0], min_power_w=floors[1])
    bandwidth, power = heuristics.maximum_sum_rate(params, instance, np.ones((6, 4)))
    snr = SQRT_2_OVER_PI * instance.gain / params.noise_psd_w_hz * params.max_power_w / params.max_bandwidth_hz
    for row in range(len(instance)):
        b, p = cp.Variable(4), cp.Variable(4)  # in units of the budgets
        rate = -cp.sum(cp.rel_entr(b, b + cp.multiply(snr[row], p)))
        limits = [cp.sum(b) <= 1, cp.sum(p) <= 1, b >= floors[0] / 5e6, p >= floors[1] / 10e-3]
        best = cp.Problem(cp.Maximize(rate), limits).solve(solver=cp.CLARABEL)
        mine_b, mine_p = bandwidth[row] / 5e6, power[row] / 10e-3
        mine = np.sum(mine_b * np.log1p(snr[row] * mine_p / mine_b))
        assert mine == pytest.approx(best, rel=1e-6)


def test_msr_gives_all_that_is_spare_to_the_best_channel() -> None:
    params, instance = batch("default", 20)
    chosen = baselines.solve("crra", params, instance, "msr").allocation
    best = np.argmax(instance.gain, axis=-1)
    others = np.arange(10) != best[:, None]
    np.testing.assert_allclose(chosen.bandwidth_hz[others], params.min_bandwidth_hz, rtol=1e-6)


def test_admission_takes_as_many_as_the_floors_allow() -> None:
    params, instance = batch("select", 50)
    served = heuristics.admit(params, instance)
    np.testing.assert_array_equal(served.sum(-1), actions.capacity(params, instance))
    users = Users(params, instance)
    shares = np.full((50, 10), 5e6 / 8), np.full((50, 10), 10e-3 / 8)
    value = users.value(*shares, users.best_ratio(*shares))
    kept = np.min(np.where(served > 0, value, np.inf), axis=-1)
    left_out = np.max(np.where(served > 0, -np.inf, value), axis=-1)
    assert np.all(kept >= left_out)


@pytest.mark.parametrize("method", HEURISTICS)
def test_floors_beyond_the_budget_are_reported_and_spare_the_others(method: str) -> None:
    params, instance = batch("default", 3)
    broken = dataclasses.replace(instance, bandwidth_hz=np.array((5e6, 5e4, 5e6)))  # ten floors of 10 kHz
    solution = baselines.solve("crra", params, broken, method)
    assert solution.feasible.tolist() == [True, False, True]
    assert solution.status[1].startswith("infeasible: bandwidth exceeded")
    whole = baselines.solve("crra", params, instance, method)
    np.testing.assert_array_equal(solution.objective[[0, 2]], whole.objective[[0, 2]])


@pytest.mark.parametrize("method", HEURISTICS)
def test_with_selection_no_room_for_anybody_serves_nobody(method: str) -> None:
    params, instance = batch("select", 2)
    broken = dataclasses.replace(instance, bandwidth_hz=np.array((5e6, 5e5)))  # one floor is 600 kHz
    solution = baselines.solve("crra", params, broken, method)
    assert solution.feasible.all()
    assert solution.objective[1] == 0
    assert solution.allocation.selected[1].sum() == 0


@pytest.mark.parametrize("method", HEURISTICS)
def test_an_unknown_option_is_named(method: str) -> None:
    params, instance = batch("default", 1)
    with pytest.raises(TypeError, match="sped"):
        baselines.solve("crra", params, instance, method, sped=1)


@pytest.mark.parametrize("method", ["equal", "fcr"])
@pytest.mark.parametrize("ratio", [1.0, -0.1, float("nan")])
def test_a_bad_ratio_is_named(method: str, ratio: float) -> None:
    params, instance = batch("default", 1)
    with pytest.raises(ValueError, match="ratio must be finite"):
        baselines.solve("crra", params, instance, method, ratio=ratio)


def test_batches_and_chunks_decide_nothing() -> None:
    params, instance = batch("default", 300)  # more than one chunk
    whole = baselines.solve("crra", params, instance, "fcr", iterations=5)
    part = baselines.solve("crra", params, instance[290:], "fcr", iterations=5)
    np.testing.assert_allclose(whole.objective[290:], part.objective, rtol=1e-12)
