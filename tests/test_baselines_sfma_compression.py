"""Algorithm 1 against finite differences and grids, and the derivative that the paper prints."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines.sfma import compression
from semcom_gym.envs.sfma import pairs, physics

SFMA = envs.problem("sfma")


def block(preset: str, n: int, seed: int = 0, **overrides: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Parameters, instances, the most similar pairs with their links, and shares drawn around equal ones."""
    params = SFMA.preset(preset, **overrides)
    instance = SFMA.sample_split(params, "validation", n)
    pair = pairs.best_matching(instance.similarity, params.num_users)
    rng = np.random.default_rng(seed)
    power, bandwidth = rng.dirichlet(np.full(params.num_groups, 30.0), (2, n))
    link = physics.links(params, instance, pair)
    return params, instance, pair, link, power * params.max_power_w, bandwidth * params.max_bandwidth_hz


def grid_values(params: Any, link: Any, power: Any, bandwidth: Any, grid: Any) -> tuple[Any, Any]:
    """Sum rate [Mbit/s], -inf where a limit of the group is broken, and energy [J], (n, K, points)."""
    wide = link.map(lambda x: x[:, :, None])
    p, b = power[..., None], bandwidth[..., None]
    ratio = np.broadcast_to(grid, (*power.shape, len(grid)))
    rate = physics.rates(wide, p, b, ratio)
    delay = physics.delays(wide, rate, ratio)
    allowed = (delay <= wide.spare_s).all(-1) & (ratio >= physics.distortion_floor(params, link)[..., None])
    return np.where(allowed, 1e-6 * rate.sum(-1), -np.inf), physics.energy(params, p, delay, ratio)


def best_of_two_groups(params: Any, link: Any, power: Any, bandwidth: Any, points: int = 1200) -> Any:
    """(n,) the best sum rate over a grid of both ratios, -inf where it holds no feasible point."""
    grid = np.linspace(params.min_ratio, 1.0, points)
    rate, energy = grid_values(params, link, power, bandwidth, grid)
    best = np.empty(len(rate))
    for row, (r, e) in enumerate(zip(rate, energy, strict=True)):
        within = e[0][:, None] + e[1] <= params.max_energy_j
        best[row] = np.where(within, r[0][:, None] + r[1], -np.inf).max()
    return best


def test_derivatives_of_the_rate() -> None:
    _, _, _, link, power, bandwidth = block("default", 100)
    for delta in (0.15, 0.3, 0.6):
        ratio, h = np.full_like(power, delta), 1e-4
        rate, slope, curvature = compression.rate_derivatives(link, power, bandwidth, ratio)
        low, high = (physics.rates(link, power, bandwidth, ratio + side) for side in (-h, h))
        np.testing.assert_allclose(rate, physics.rates(link, power, bandwidth, ratio), rtol=1e-12)
        np.testing.assert_allclose(slope, (high - low) / (2 * h), rtol=1e-5, atol=10.0)
        np.testing.assert_allclose(curvature, (high - 2 * rate + low) / h**2, rtol=1e-3, atol=1e3)


def test_the_printed_denominator_is_too_small_by_one_plus_gamma() -> None:
    params, _, _, link, power, bandwidth = block("default", 100)
    ratio = np.full_like(power, 0.3)
    rho = physics.interference(link, power, ratio)
    h = 1e-5
    rho_slope = (physics.interference(link, power, ratio + h) - physics.interference(link, power, ratio - h)) / (2 * h)
    signal = power[..., None] * link.snr * 2 * params.noise_psd_w_hz  # p h^2
    noise = 2 * bandwidth[..., None] * params.noise_psd_w_hz
    top = -bandwidth[..., None] * signal**2 * rho_slope[..., None]
    once = noise + rho[..., None] * signal
    printed, corrected = (top / (np.log(2) * once * other) for other in (once, once + signal))
    rates = [physics.rates(link, power, bandwidth, ratio + side) for side in (-h, h)]
    measured = (rates[1] - rates[0]) / (2 * h)
    np.testing.assert_allclose(corrected, measured, rtol=1e-5)
    np.testing.assert_allclose(corrected, compression.rate_derivatives(link, power, bandwidth, ratio)[1], rtol=1e-6)
    gamma = physics.sinr(link, power, bandwidth, ratio)
    np.testing.assert_allclose(printed / measured, 1 + gamma, rtol=1e-4)
    assert np.median(printed / measured) > 2


def test_stationarity_is_the_derivative_of_the_lagrangian() -> None:
    params, _, _, link, power, bandwidth = block("default", 100)
    price = np.full((100, 1), 1.0), np.full((100, 1), 2000.0)

    def lagrangian(ratio: Any) -> tuple[Any, Any]:
        rate = physics.rates(link, power, bandwidth, ratio)
        delay = physics.delays(link, rate, ratio)
        return 1e-6 * rate.sum(-1) - price[1] * physics.energy(params, power, delay, ratio), np.argmax(delay, -1)

    h = 1e-5
    ratio = np.random.default_rng(1).uniform(0.1, 0.9, power.shape)
    first, second = compression.lagrangian_derivatives(params, link, power, bandwidth, ratio, price)
    (low, slow_low), (mid, _), (high, slow_high) = (lagrangian(ratio + side) for side in (-h, 0.0, h))
    smooth = slow_low == slow_high
    assert smooth.mean() > 0.99
    np.testing.assert_allclose(first[smooth], ((high - low) / (2 * h))[smooth], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(second[smooth], ((high - 2 * mid + low) / h**2)[smooth], rtol=1e-3, atol=0.1)


@pytest.mark.parametrize(("preset", "energy"), [("default", 0.017), ("default", 0.0155), ("tight", 0.0165)])
def test_against_a_grid_of_two_groups(preset: str, energy: float) -> None:
    params, instance, pair, link, power, bandwidth = block(preset, 40, num_users=4, energy_per_group_j=energy)
    ratio, feasible, iterations = compression.optimise(params, link, power, bandwidth)
    outcome = SFMA.evaluate(params, instance, SFMA.Allocation(pair, power, bandwidth, ratio))
    np.testing.assert_array_equal(feasible, outcome.feasible)
    best = best_of_two_groups(params, link, power, bandwidth)
    assert not (np.isfinite(best) & ~feasible).any()
    known = np.isfinite(best)
    assert known.sum() > 20
    assert (iterations[known] > 1).mean() > 0.5  # the energy budget matters
    assert (outcome.objective[known] >= best[known] * (1 - 2e-6)).all()
    assert (outcome.objective[known] <= best[known] * (1 + 1e-3)).all()  # the grid is that fine


def test_every_preset_says_what_is_feasible() -> None:
    for preset in SFMA.PRESETS:
        params, instance, pair, link, power, bandwidth = block(preset, 100)
        ratio, feasible, _ = compression.optimise(params, link, power, bandwidth)
        outcome = SFMA.evaluate(params, instance, SFMA.Allocation(pair, power, bandwidth, ratio))
        np.testing.assert_array_equal(feasible, outcome.feasible)


def test_spare_energy_means_multiplier_zero_and_ratios_at_their_limit() -> None:
    params, _, _, link, power, bandwidth = block("loose", 100)
    ratio, feasible, iterations = compression.optimise(params, link, power, bandwidth)
    assert feasible.all()
    assert (iterations == 1).all()
    delay = physics.delays(link, physics.rates(link, power, bandwidth, ratio), ratio)
    late = np.max(delay / link.spare_s, axis=-1)
    assert ((ratio == 1.0) | np.isclose(late, 1.0, rtol=1e-6)).all()


def test_a_binding_budget_is_used_up() -> None:
    params, _, _, link, power, bandwidth = block("tight", 100)
    ratio, feasible, iterations = compression.optimise(params, link, power, bandwidth, tolerance=1e-10)
    bound = feasible & (iterations > 1)
    assert bound.sum() > 50
    delay = physics.delays(link, physics.rates(link, power, bandwidth, ratio), ratio)
    spent = physics.energy(params, power, delay, ratio).sum(-1)[bound] / params.max_energy_j
    assert (spent <= 1.0).all()
    assert np.median(1.0 - spent) < 1e-5


def union() -> tuple[Any, Any, Any, Any]:
    """Two groups whose latency limit holds at ratios up to 0.21 and from about 0.6 up, not between."""
    params, _, _, link, _, _ = block("default", 1, num_users=4, energy_coefficient_j=1e-6)
    bandwidth = np.full((1, 2), 5e6)
    link = dataclasses.replace(
        link,
        rho_min=np.full((1, 2), 0.01), rho_max=np.full((1, 2), 0.9),
        power_slope=np.full((1, 2), 1e-6), ratio_slope=np.full((1, 2), 60.0), offset=np.full((1, 2), -36.0),
        snr=np.full((1, 2, 2), 1e12), spare_s=np.full((1, 2, 2), 0.05),
        source_bit=np.full((1, 2, 2), 5.0 * 0.05 * 5e6), level=np.full((1, 2, 2), 1e-9),
    )  # fmt: skip
    return params, link, np.array([[0.3, 0.2]]), bandwidth


def test_ratios_that_meet_the_latency_limit_need_not_be_an_interval() -> None:
    params, link, power, bandwidth = union()
    grid = np.linspace(params.min_ratio, 1.0, 1200)
    rate, _ = grid_values(params, link, power, bandwidth, grid)
    changes = np.diff(np.isfinite(rate[0, 0]).astype(int))
    assert changes.tolist().count(1) == 1
    assert changes.tolist().count(-1) == 1  # feasible, then not, then feasible again
    seen = set()
    for energy in np.linspace(0.003, 0.0075, 12):
        tighter = dataclasses.replace(params, energy_per_group_j=float(energy))
        best = best_of_two_groups(tighter, link, power, bandwidth)
        ratio, feasible, _ = compression.optimise(tighter, link, power, bandwidth)
        assert feasible[0] == np.isfinite(best[0])
        if not feasible[0]:
            continue
        found, spent = grid_values(tighter, link, power, bandwidth, np.sort(ratio[0]))
        order = np.argsort(np.argsort(ratio[0]))
        assert spent[0, [0, 1], order].sum() <= tighter.max_energy_j * (1 + 1e-12)
        # Lagrangian relaxation may leave a gap where the feasible set is not convex; never an infeasible ratio
        assert 0.98 * best[0] < found[0, [0, 1], order].sum() <= best[0] * (1 + 1e-3)
        seen.add(tuple(ratio[0] > 0.4))
    assert len(seen) > 1  # both parts of the union are used


@pytest.mark.parametrize(
    "change",
    [{"energy_per_group_j": 1e-4}, {"max_latency_s": 0.027}, {"max_distortion": 1e-5}],
    ids=["energy", "latency", "distortion"],
)
def test_infeasible_is_said(change: dict[str, float]) -> None:
    params, instance, pair, link, power, bandwidth = block("default", 10, **change)
    ratio, feasible, _ = compression.optimise(params, link, power, bandwidth)
    assert not feasible.any()
    assert ((ratio >= params.min_ratio) & (ratio <= 1.0)).all()
    outcome = SFMA.evaluate(params, instance, SFMA.Allocation(pair, power, bandwidth, ratio))
    assert not outcome.feasible.any()


def test_one_pair_by_itself() -> None:
    params, _, _, link, power, bandwidth = block("default", 50)
    grid = np.linspace(params.min_ratio, 1.0, 2000)
    rate, energy = grid_values(params, link, power, bandwidth, grid)
    possible = np.isfinite(rate).any(-1)
    ratio, most, _ = compression.respond(params, link, power, bandwidth, 1.0, 0.0)
    _, _, least = compression.respond(params, link, power, bandwidth, 0.0, 1.0)
    np.testing.assert_array_equal(np.isfinite(most), possible)
    assert 0.1 < possible.mean() < 1.0
    on_grid = rate.max(-1)[possible], np.where(np.isfinite(rate), energy, np.inf).min(-1)[possible]
    assert (most[possible] >= on_grid[0] * (1 - 1e-12)).all()
    assert (least[possible] <= on_grid[1] * (1 + 1e-6)).all()
    np.testing.assert_allclose(most[possible], on_grid[0], rtol=1e-2)
    np.testing.assert_allclose(least[possible], on_grid[1], rtol=1e-2)
    assert (most[~possible] == -np.inf).all()
    assert (least[~possible] == np.inf).all()
    assert (ratio <= 1.0).all()


def test_a_batch_decides_nothing() -> None:
    params, _, _, link, power, bandwidth = block("tight", 20)
    whole = compression.optimise(params, link, power, bandwidth)
    for row in range(20):
        one = compression.optimise(params, link[row], power[row : row + 1], bandwidth[row : row + 1])
        for together, alone in zip(whole, one, strict=True):
            np.testing.assert_allclose(together[row], alone[0], rtol=1e-9)


@pytest.mark.parametrize(("option", "value"), [("grid", 1), ("tolerance", 0.0), ("iterations", 0)])
def test_bad_options_are_named(option: str, value: Any) -> None:
    params, _, _, link, power, bandwidth = block("default", 1)
    with pytest.raises(ValueError, match=option):
        compression.optimise(params, link, power, bandwidth, **{option: value})
