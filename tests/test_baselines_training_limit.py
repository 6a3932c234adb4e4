"""Solvers and bound of the training problem with a curve's largest SNR: brute force, order, what may not happen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_curves import KINDS, limited

from semcom_gym import baselines, envs
from semcom_gym.baselines.training.device import Devices
from semcom_gym.envs.training import physics

TRAINING = envs.problem("training")
RANGES = {("corrected", 12.0): (26.3, 28.0), ("steep", 12.0): (31.0, 32.9), ("steep", 20.0): (32.5, 34.2)}
EVERY = ("random", "average", "pb_only_frozen", "pb_only", "fhrho_only", "equal_bandwidth", "paper", "paper_direct",
         "paper_random", "paper_multistart", "fast", "convex")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the curves of RANGES."""
    path = tmp_path_factory.mktemp("curves")
    for kind, limit in RANGES:
        limited(path, kind, limit)
    return path


def with_limit(folder: Path, kind: str, limit: float, **overrides: Any) -> Any:
    """The default preset with a curve that has a limit, and thresholds at which it binds for many devices."""
    curve = {"psnr_curve": str(folder / f"{kind}_{limit:g}.json"), "psnr_range_db": RANGES[kind, limit]}
    return TRAINING.preset("default", **(curve | overrides))


def batch(folder: Path, kind: str, limit: float, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = with_limit(folder, kind, limit, **overrides)
    return params, TRAINING.sample_split(params, "validation", n)


def solve(method: str, params: Any, instance: Any, **options: Any) -> Any:
    return baselines.solve("training", params, instance, method, **options)


# --- brute force -----------------------------------------------------------------------------------------------------
def uploads(params: Any, one: Any, device: int, kind: str, limit: float, band: np.ndarray) -> tuple[Any, Any]:
    """Time [s] and energy [J] of one device over bandwidths, powers and ratios; inf where PSNR, held, is missed."""
    a, noise = KINDS[kind], 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3
    power = params.max_power_w * np.geomspace(1e-3, 1.0, 80)[:, None]
    ratio = np.linspace(params.min_ratio, params.max_ratio, 101)[:, None, None]
    snr = power * one.gain[0, device] / (noise * band)
    inside = a["ratio_slope"] * ratio + a["snr_slope"] * np.minimum(10 * np.log10(snr), limit) + a["offset"]
    missed = a["scale"] * np.log(np.maximum(inside, 1.0)) < one.min_psnr_db[0, device]
    seconds = ratio * params.samples * params.sample_bit / (band * np.log2(1 + snr))
    return np.where(missed, np.inf, seconds), np.where(missed, np.inf, power * seconds)


def computing(params: Any, one: Any, device: int, seconds: np.ndarray) -> np.ndarray:
    """Least computing energy [J] in ``seconds`` over a grid of f, with the h that is left; inf where a cap forbids."""
    c1, c2 = params.samples * one.device_cycles[0, device], params.samples * one.bs_cycles[0, device]
    f = one.max_frequency_hz[0, device] * np.linspace(0.02, 1.0, 300)
    left = seconds[:, None] - c1 / f
    h = c2 / np.where(left > 0, left, np.nan)
    energy = params.capacitance * (c1 * f**2 + c2 * h**2)
    return np.min(np.where(h <= params.max_bs_frequency_hz, energy, np.inf), axis=-1)


def frontier(seconds: np.ndarray, joule: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(edges, bands) the least upload energy within each time."""
    flat_s, flat_j = (np.reshape(x, (-1, x.shape[-1])) for x in (seconds, joule))
    best = np.full((len(edges), flat_s.shape[1]), np.inf)
    for column in range(flat_s.shape[1]):
        at = np.searchsorted(edges, flat_s[:, column])
        np.minimum.at(best[:, column], at[at < len(edges)], flat_j[at < len(edges), column])
    return np.minimum.accumulate(best, axis=0)


def brute_force(params: Any, one: Any, kind: str, limit: float, bands: list[np.ndarray]) -> float:
    """Least objective over (p, B, rho, f, h) of every device and the makespan, on grids.

    bands: of each device, one entry for every choice of all bandwidths.
    """
    edges, makespans = np.geomspace(3e-3, 20.0, 400), np.geomspace(0.1, 20.0, 160)
    total = params.time_weight * makespans[:, None]
    for device, band in enumerate(bands):
        unique, index = np.unique(band, return_inverse=True)
        joule = frontier(*uploads(params, one, device, kind, limit, unique), edges)
        clocks = computing(params, one, device, np.maximum(makespans[:, None] - edges, 0.0).ravel())
        cost = clocks.reshape(len(makespans), -1, 1) + joule
        total = total + params.energy_weight * cost.min(1)[:, index]
    return float(total.min())


@pytest.mark.parametrize(("kind", "limit"), RANGES)
def test_one_device_against_brute_force(folder: Path, kind: str, limit: float) -> None:
    params, instances = batch(folder, kind, limit, 3, num_users=1, total_bandwidth_hz=1e6)
    found = solve("fast", params, instances)
    for i in range(3):
        grid = brute_force(params, instances[i], kind, limit, [1e6 * np.geomspace(0.02, 1.0, 60)])
        assert found.objective[i] <= grid * (1 + 1e-9)
        assert grid <= found.objective[i] * 1.04


def test_two_devices_against_brute_force(folder: Path) -> None:
    params, instances = batch(
        folder, "corrected", 12.0, 3, num_users=2, total_bandwidth_hz=1e6, psnr_range_db=(27.0, 28.0)
    )
    floor = physics.ratio_floor(params, instances.min_psnr_db)
    assert (floor > 0.11).all()
    found = solve("fast", params, instances)
    share = np.linspace(0.05, 0.95, 19)
    first, second = (x.ravel() for x in np.meshgrid(share, share))
    fits = first + second <= 1.0 + 1e-9
    for i in range(3):
        grid = brute_force(params, instances[i], "corrected", 12.0, [1e6 * x[fits] for x in (first, second)])
        assert found.objective[i] <= grid * (1 + 1e-9)
        assert grid <= found.objective[i] * 1.06


# --- order, feasibility ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "limit"), RANGES)
def test_all_methods_are_feasible_or_flagged_and_in_order(folder: Path, kind: str, limit: float) -> None:
    params, instances = batch(folder, kind, limit, 6)
    proof = baselines.bound("training", params, instances)
    assert (proof.gap <= 1.1e-6).all()
    best = solve("fast", params, instances)
    np.testing.assert_allclose(best.objective, proof.value, rtol=1e-5)
    for method in EVERY:
        options = {"draws": 1} if method == "paper_multistart" else {}
        found = solve(method, params, instances, **options)
        assert [why == "ok" for why in found.status] == found.feasible.tolist()
        assert all("device" in why for why, ok in zip(found.status, found.feasible, strict=True) if not ok)
        assert (found.objective[found.feasible] >= proof.value[found.feasible]).all()
        assert (found.objective >= best.objective * (1 - 1e-6))[found.feasible].all()
        floor = physics.ratio_floor(params, instances.min_psnr_db)
        assert (found.allocation.ratio >= floor * (1 - 1e-5))[found.feasible].all()
        if method in ("fast", "equal_bandwidth", "convex"):
            assert found.feasible.all()


@pytest.mark.parametrize(("kind", "limit"), RANGES)
def test_the_environment_scores_what_solvers_claim(folder: Path, kind: str, limit: float) -> None:
    params, instances = batch(folder, kind, limit, 20)
    for method in ("fast", "equal_bandwidth", "paper"):
        found = solve(method, params, instances)
        rows = np.flatnonzero(found.feasible)
        assert len(rows) > 0
        action = TRAINING.encode(params, instances[rows], found.allocation[rows])
        outcome = TRAINING.play(params, instances[rows], action)[0]
        assert outcome.feasible.all()
        np.testing.assert_allclose(outcome.objective, found.objective[rows], rtol=1e-9)


def test_floors_bind_and_more_data_is_sent_only_where_snr_is_short(folder: Path) -> None:
    """At the optimum a device is at its floor, or below the SNR of the limit with PSNR tight."""
    params, instances = batch(folder, "corrected", 12.0, 30)
    found = solve("fast", params, instances)
    terms = TRAINING.evaluate(params, instances, found.allocation).terms
    floor = physics.ratio_floor(params, instances.min_psnr_db)
    at_floor = found.allocation.ratio <= floor * (1 + 1e-9)
    assert 0.3 < (at_floor & (floor > params.min_ratio)).mean() < 0.95
    assert (~at_floor).mean() > 0.02
    assert (terms["snr"][~at_floor] < 10**1.2).all()
    np.testing.assert_allclose(terms["psnr_db"][~at_floor], instances.min_psnr_db[~at_floor], rtol=1e-9)
    raised = at_floor & (floor > params.min_ratio)
    np.testing.assert_allclose(terms["psnr_db"][raised], instances.min_psnr_db[raised], rtol=1e-9)
    assert (terms["snr"][raised] >= 10**1.2 * (1 - 1e-9)).all()


def test_the_limit_costs_something_and_only_where_it_binds(folder: Path) -> None:
    """Without it the same thresholds are cheaper; where every floor is rho^min, nothing changes."""
    low, high = (25.0, 26.7), RANGES["corrected", 12.0]
    for bounds, binds in ((high, True), (low, False)):
        params, instances = batch(folder, "corrected", 12.0, 8, psnr_range_db=bounds)
        free = dataclasses.replace(params, psnr_curve="corrected")
        assert (physics.ratio_floor(params, instances.min_psnr_db) > params.min_ratio).any() == binds
        for method in ("fast", "equal_bandwidth"):
            ours, theirs = (solve(method, p, instances).objective for p in (params, free))
            if binds:
                assert (ours > theirs * (1 + 1e-6)).all()
                assert (ours / theirs).mean() > 1.02
            else:
                np.testing.assert_array_equal(ours, theirs)


def test_the_geometric_programme_agrees_where_all_are_at_their_floors(folder: Path) -> None:
    """It shares no code with the exact solver but the floor."""
    params, instances = batch(folder, "corrected", 12.0, 3, num_users=5, max_power_w=0.1, psnr_range_db=(27.0, 28.0))
    convex, best = (solve(method, params, instances) for method in ("convex", "fast"))
    assert convex.feasible.all()
    assert (convex.allocation.ratio > 0.11).all()
    np.testing.assert_allclose(convex.objective, best.objective, rtol=1e-6)


def test_a_fixed_ratio_below_the_floor_is_flagged(folder: Path) -> None:
    """Schemes that keep the middle ratio cannot serve a device whose floor is above it, whatever the SNR."""
    params, instances = batch(folder, "corrected", 12.0, 20, num_users=2, max_power_w=1.0)
    short = (physics.ratio_floor(params, instances.min_psnr_db) > 0.2).any(-1)
    assert 0.2 < short.mean() < 0.9
    for method in ("average", "pb_only", "pb_only_frozen"):
        found = solve(method, params, instances)
        assert not found.feasible[short].any()
        assert all("psnr of device" in found.status[row] for row in np.flatnonzero(short))
    assert solve("pb_only", params, instances).feasible[~short].all()


def test_a_threshold_out_of_reach_at_the_middle_ratio_is_flagged() -> None:
    """Without a limit too: 33 dB needs more than 60 dB at rho = 0.2, and some devices cannot have as much."""
    params = TRAINING.preset("default", psnr_range_db=(33.0, 33.2))
    found = solve("pb_only", params, TRAINING.sample_split(params, "validation", 3))
    assert found.objective.shape == (3,)
    np.testing.assert_allclose(found.allocation.ratio, 0.2, rtol=1e-12)


# --- the bound -------------------------------------------------------------------------------------------------------
def test_the_value_of_a_device_is_that_of_the_held_curve(folder: Path) -> None:
    """G(s) of device.py with the ratio that the held curve asks for, written out; its derivative by differences."""
    params, instances = batch(folder, "steep", 12.0, 3)
    devices, rng, a = Devices(params, instances), np.random.default_rng(0), KINDS["steep"]
    log_lam = np.log(params.time_weight / params.total_bandwidth_hz) + rng.uniform(-3, 2, (3, 1))
    log_beta = np.log(params.time_weight * rng.dirichlet(np.ones(10), 3))
    noise, scale_t = 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3 / instances.gain, np.geomspace(1.0, 1e5, 3001)
    for _ in range(10):
        s = devices.left + rng.uniform(0, 1, devices.left.shape) * (devices.knee + 3 - devices.left)
        held = np.minimum(10 * s / np.log(10), 12.0)
        ratio = (np.exp(instances.min_psnr_db / a["scale"]) - a["offset"] - a["snr_slope"] * held) / a["ratio_slope"]
        product = np.maximum(ratio, 0.1) * 32e6 / np.log2(1 + np.exp(s))
        quickest = np.exp(s) * product * noise / params.max_power_w
        t = quickest * scale_t[:, None, None]
        cost = params.energy_weight * np.exp(s) * noise * product + np.exp(log_lam) * product / t + np.exp(log_beta) * t
        np.testing.assert_allclose(devices.value(s, log_lam, log_beta), cost.min(0), rtol=1e-4)
        ends = [devices.value(s + h, log_lam, log_beta) for h in (1e-6, -1e-6)]
        off = np.abs(s - devices.knee) > 1e-4
        slope = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(devices.force(s, log_lam, log_beta)[off], slope[off], rtol=1e-4, atol=1e-7)


@settings(max_examples=12)
@given(
    case=st.sampled_from(list(RANGES)), users=st.integers(1, 6), bandwidth=st.floats(5.5, 7.5),
    power=st.floats(-4.0, 0.0), place=st.floats(0.0, 0.9), ratios=st.sampled_from([(0.1, 0.3), (0.02, 1.0)]),
    weight=st.sampled_from([0.05, 0.5, 0.95]), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_any_parameters_and_random_decisions(
    folder: Path, case: tuple[str, float], users: int, bandwidth: float, power: float, place: float,
    ratios: tuple[float, float], weight: float, seed: int,
) -> None:  # fmt: skip
    """bound <= fast <= equal bandwidths; no decision drawn at random is better than the bound."""
    low, high = RANGES[case]
    bounds = (low + place * (high - low), high)
    params = with_limit(
        folder, *case, num_users=users, total_bandwidth_hz=10**bandwidth, max_power_w=10**power, time_weight=weight,
        min_ratio=ratios[0], max_ratio=ratios[1], psnr_range_db=bounds,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    instance = TRAINING.sample(params, rng, 2)
    found, simple = (solve(method, params, instance) for method in ("fast", "equal_bandwidth"))
    proven = baselines.bound("training", params, instance, nodes=10).value
    assert found.feasible.all()
    assert (found.objective <= simple.objective * (1 + 1e-6)).all()
    assert (proven <= found.objective).all()
    many = instance[0].map(lambda x: np.repeat(x, 3000, axis=0))
    actions = rng.uniform(-1, 1, (3000, 5 * users))
    actions[:1000, -users:] = -1.0  # ratios at their floors
    actions[1000:2000] = TRAINING.encode(params, instance[0], found.allocation[0]) + rng.normal(
        0, 0.05, (1000, 5 * users)
    )
    outcome = TRAINING.evaluate(params, many, TRAINING.decode(params, many, actions))
    assert outcome.feasible.all()
    assert outcome.objective.min() >= proven[0]
