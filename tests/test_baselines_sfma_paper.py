"""Algorithms 2 and 4 of the SC-SFMA paper: the surrogate, monotone, feasible, never above a brute-force optimum."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.optimize

from semcom_gym import baselines, envs
from semcom_gym.baselines.sfma import compression, heuristics, paper, sca
from semcom_gym.envs.sfma import actions, physics
from semcom_gym.envs.sfma.physics import Allocation

SFMA = envs.problem("sfma")


def batch(preset: str, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = SFMA.preset(preset, **overrides)
    return params, SFMA.sample_split(params, "validation", n)


def started(preset: str, n: int = 1) -> tuple[Any, Any, Allocation]:
    """Parameters, links of the pairs of ``equal`` and its allocation."""
    params, instance = batch(preset, n)
    allocation = heuristics.equal(params, instance).allocation
    return params, physics.links(params, instance, allocation.pair), allocation


def near(rng: np.random.Generator, around: sca.Surrogate, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """A random point at which q-hat is positive."""
    power = around.power_w * np.exp(rng.normal(0.0, spread, around.power_w.shape))
    power = np.where(around.product(power) > 0, power, around.power_w)
    return power, around.bandwidth_hz * np.exp(rng.normal(0.0, spread, power.shape))


def second(link: Any, around: sca.Surrogate, power: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """(33) [nat/s] without its part with N0."""
    return bandwidth[..., None] * np.log1p(link.snr * (around.product(power) / bandwidth)[..., None])


# --- the surrogate ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["default", "tight"])
def test_the_surrogate_is_tight_in_value_and_gradient(preset: str) -> None:
    _, link, at = started(preset, 5)
    power, bandwidth = near(np.random.default_rng(0), sca.Surrogate(link, at.power_w, at.bandwidth_hz, at.ratio), 1.0)
    around = sca.Surrogate(link, power, bandwidth, at.ratio)
    rate = physics.rates(link, power, bandwidth, at.ratio)
    np.testing.assert_allclose(around.rates(power, bandwidth), rate, rtol=1e-10)
    step = 1e-5
    for scale in ((1.0 + step, 1.0), (1.0, 1.0 + step)):  # along power, then bandwidth

        def slope(rates: Any, scale: tuple[float, float] = scale) -> np.ndarray:
            up = rates(power * scale[0], bandwidth * scale[1])
            return (up - rates(power / scale[0], bandwidth / scale[1])) / (2.0 * step)

        true = slope(lambda p, b: physics.rates(link, p, b, at.ratio))
        np.testing.assert_allclose(slope(around.rates), true, rtol=1e-6, atol=1e-6 * rate.max())


def test_the_surrogate_is_concave_and_its_tangent_lies_above_the_second_logarithm() -> None:
    _, link, at = started("default", 20)
    rng = np.random.default_rng(1)
    around = sca.Surrogate(link, *near(rng, sca.Surrogate(link, at.power_w, at.bandwidth_hz, at.ratio), 0.5), at.ratio)
    for _ in range(30):
        one, two = near(rng, around, 1.0), near(rng, around, 1.0)
        middle = tuple(0.5 * (x + y) for x, y in zip(one, two, strict=True))
        below = 0.5 * (around.rates(*one) + around.rates(*two))
        usable = np.isfinite(below)  # the first logarithm may leave its domain at the ends
        assert usable.mean() > 0.9
        assert np.all((around.rates(*middle) - below)[usable] >= -1e-9 * np.abs(below[usable]))
        assert np.all(around.tangent(*one) >= second(link, around, *one) * (1 - 1e-12))


# --- problem (35) ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("energy", sca.ENERGY)
def test_the_convex_problem_is_compiled_once(energy: str) -> None:
    assert sca.program(3, energy) is sca.program(3, energy)
    assert sca.program(3, energy).problem.is_dcp(dpp=True)  # else every solve compiles it again


@pytest.mark.parametrize("energy", sca.ENERGY)
@pytest.mark.parametrize("preset", ["default", "tight"])
def test_the_convex_problem_is_solved(preset: str, energy: str) -> None:
    params, link, at = started(preset)
    ratio = np.maximum(0.8 * at.ratio, physics.distortion_floor(params, link))  # leaves room everywhere
    around = sca.Surrogate(link, at.power_w, at.bandwidth_hz, ratio)
    radius = 0.4 * params.max_power_w / params.num_groups
    floor = physics.rate_floor(link, ratio) * (1.0 + sca.MARGIN)
    delay = physics.delays(link, physics.rates(link, at.power_w, at.bandwidth_hz, ratio), ratio).max(-1)
    fixed = -params.energy_coefficient_j * np.log(ratio).sum()
    now = (at.power_w * (link.spare_s.max(-1) if energy == "printed" else delay)).sum() + fixed
    params = dataclasses.replace(params, energy_per_group_j=1.01 * now / params.num_groups)  # scarce

    def within(power: np.ndarray, bandwidth: np.ndarray, slack: float) -> bool:
        rate = around.rates(power, bandwidth)
        if energy == "printed":
            spent = power * link.spare_s.max(-1)
        else:
            late = (link.source_bit * ratio[..., None] / rate).max(-1)
            spent = 0.5 * (power**2 * delay / at.power_w + late**2 * at.power_w / delay)
        return bool(
            (rate >= floor * (1.0 - slack)).all()
            and (np.abs(power - at.power_w) <= radius * (1.0 + slack)).all()
            and (around.product(power) >= 0).all()
            and spent.sum() + fixed <= params.max_energy_j * (1.0 + slack)
            and power.sum() <= params.max_power_w * (1.0 + slack)
            and bandwidth.sum() <= params.max_bandwidth_hz * (1.0 + slack)
        )

    found = sca.step(params, link, around, ratio, radius, energy)
    assert found is not None
    assert within(*found, 1e-6)
    best = around.rates(*found).sum()
    assert best > around.rates(at.power_w, at.bandwidth_hz).sum() * 1.001
    rng = np.random.default_rng(3)
    budgets = params.max_power_w, params.max_bandwidth_hz
    inside = 0
    for spread in np.geomspace(1e-4, 1.0, 400):
        power, bandwidth = near(rng, around, 0.3)
        point = [x + spread * (y - x) for x, y in zip(found, (power, bandwidth), strict=True)]
        point = [x * min(1.0, y / x.sum()) for x, y in zip(point, budgets, strict=True)]
        if within(*point, 0.0):
            inside += 1
            assert around.rates(*point).sum() <= best * (1.0 + 1e-6)
    assert inside > 20


def test_a_step_is_accepted_only_if_it_is_feasible_and_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    params, link, at = started("default")
    arguments = params, link, at.power_w, at.bandwidth_hz, at.ratio
    monkeypatch.setattr(sca, "step", lambda *_: (2.0 * at.power_w, 2.0 * at.bandwidth_hz))  # breaks every budget
    power, bandwidth, solved = sca.optimise(*arguments)
    np.testing.assert_array_equal((power, bandwidth), (at.power_w, at.bandwidth_hz))
    assert solved == 14  # until the radius has shrunk to SMALLEST
    monkeypatch.setattr(sca, "step", lambda *_: None)
    assert sca.optimise(*arguments)[2] == 1


# --- Algorithm 4 -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["default", "tight", "loose", "pruned"])
def test_it_never_falls_is_feasible_and_beats_its_start(preset: str) -> None:
    params, instance = batch(preset, 3)
    equal = heuristics.equal(params, instance)
    solution = paper.solve(params, instance)
    assert solution.feasible.all()
    assert set(solution.status) == {"ok"}
    change = np.diff(solution.trace, axis=-1)
    assert np.all(change[np.isfinite(change)] >= 0)
    last = solution.trace[np.arange(3), solution.iterations - 1]
    np.testing.assert_allclose(solution.objective, last, rtol=1e-12)
    gain = (solution.objective / equal.objective)[equal.feasible]
    assert np.all(gain >= 1.0)
    assert gain.mean() > 1.005


def test_it_finds_a_start_where_equal_shares_are_infeasible() -> None:
    params, instance = batch("pruned", 6)
    infeasible = ~heuristics.equal(params, instance).feasible
    assert infeasible.any()
    solution = paper.solve(params, instance[infeasible], iterations=1)
    assert solution.feasible.all()
    assert solution.iterations.tolist() == [1] * int(infeasible.sum())


def test_the_printed_energy_constraint_leaves_equal_shares_where_energy_is_scarce() -> None:
    params, instance = batch("tight", 4)
    start = heuristics.equal(params, instance).allocation
    link = physics.links(params, instance, start.pair)
    bound = start.power_w * link.spare_s.max(-1) - params.energy_coefficient_j * np.log(start.ratio)
    assert np.all(bound.sum(-1) > params.max_energy_j)  # (29c) at the start, which meets (20c)
    printed = paper.solve_printed(params, instance)
    np.testing.assert_array_equal(printed.allocation.power_w, start.power_w)
    np.testing.assert_array_equal(printed.allocation.bandwidth_hz, start.bandwidth_hz)
    np.testing.assert_allclose(printed.objective, heuristics.equal(params, instance).objective, rtol=1e-9)


def test_the_printed_energy_constraint_does_no_harm_where_energy_is_ample() -> None:
    params, instance = batch("loose", 3)
    both = [f(params, instance).objective for f in (paper.solve, paper.solve_printed)]
    np.testing.assert_allclose(*both, rtol=1e-3)


@pytest.mark.parametrize("preset", ["default", "tight"])
def test_it_is_below_the_bound_and_not_far_from_brute_force(preset: str) -> None:
    params, instance = batch(preset, 2, num_users=4)
    solution = paper.solve(params, instance)
    assert (solution.objective <= baselines.bound("sfma", params, instance).value).all()
    for row in range(len(instance)):
        assert solution.objective[row] > 0.6 * brute_force(params, instance[row])


def test_continuous_is_none_where_no_ratio_is_feasible() -> None:
    params, instance = batch("default", 1)
    pair = heuristics.best_pairing(params, instance)
    power, bandwidth = heuristics.equal_shares(params, 1)
    found = paper.continuous(params, instance, pair, power, bandwidth)
    assert found is not None
    assert physics.evaluate(params, instance, found).feasible.all()
    assert paper.continuous(params, instance, pair, power, 0.01 * bandwidth) is None


def test_worse_ratios_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    params, link, at = started("default")
    _, instance = batch("default", 1)
    floor = physics.distortion_floor(params, link)
    monkeypatch.setattr(compression, "optimise", lambda *_, **__: (floor, np.array([True]), np.array([1])))
    found = paper.continuous(params, instance, at.pair, at.power_w, at.bandwidth_hz, ratio=at.ratio)
    assert found is not None
    np.testing.assert_array_equal(found.ratio, at.ratio)


def test_a_fixed_pairing_is_kept() -> None:
    params, instance = batch("default", 2)
    pair = heuristics.best_pairing(params, instance)
    solution = paper.solve_pairing(params, instance, pair, iterations=1)
    np.testing.assert_array_equal(solution.allocation.pair, pair)
    assert np.all(solution.objective >= heuristics.equal(params, instance).objective)


# --- what goes wrong -------------------------------------------------------------------------------------------------
def test_an_infeasible_instance_is_reported_and_spares_the_others() -> None:
    params, instance = batch("loose", 2)
    gain = instance.gain.copy()
    gain[0, 3] *= 1e-9
    solution = paper.solve(params, dataclasses.replace(instance, gain=gain))
    assert solution.feasible.tolist() == [False, True]
    assert solution.status[0].startswith("infeasible: ")
    assert solution.iterations[0] == 0
    np.testing.assert_allclose(solution.objective[1], paper.solve(params, instance[1]).objective[0], rtol=1e-6)


def test_a_failing_solver_is_reported_and_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    params, instance = batch("loose", 2)
    whole = paper.solve(params, instance)
    solve, calls = sca.Program.solve, []

    def failing(self: sca.Program, **values: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise ArithmeticError("Clarabel failed")
        return solve(self, **values)

    monkeypatch.setattr(sca.Program, "solve", failing)
    hurt = paper.solve(params, instance)
    assert hurt.status == ["stopped at the last accepted tuple: Clarabel failed", whole.status[1]]
    assert hurt.feasible.all()
    np.testing.assert_allclose(hurt.objective[1], whole.objective[1], rtol=1e-9)


def test_bad_options_are_named() -> None:
    params, instance = batch("default", 1)
    with pytest.raises(TypeError, match="paper: unknown argument 'iter'; valid: energy, iterations"):
        paper.solve(params, instance, iter=3)
    with pytest.raises(TypeError, match="paper_printed: unknown argument 'energy'; valid: iterations"):
        paper.solve_printed(params, instance, energy="corrected")
    with pytest.raises(ValueError, match="unknown energy 'exact'; valid: corrected, printed"):
        paper.solve(params, instance, energy="exact")
    with pytest.raises(ValueError, match="iterations must be >= 1, got 0"):
        paper.solve(params, instance, iterations=0)


def test_importing_it_imports_no_cvxpy() -> None:
    code = "import sys, semcom_gym.baselines.sfma.paper; sys.exit(any(m in sys.modules for m in ('cvxpy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- brute force -----------------------------------------------------------------------------------------------------
def brute_force(params: Any, instance: Any) -> float:
    """The best sum rate of all three pairings of four users: 200 random allocations each, the best four polished."""
    rng = np.random.default_rng(0)
    best = -np.inf
    for pair in ([0, 5], [1, 4], [2, 3]):  # of the six pairs in lexicographic order
        some = np.zeros(200, int)
        pairs = np.tile(pair, (200, 1))
        link = physics.links(params, instance[some], pairs)
        tried = actions.allot(params, link, pairs, rng.uniform(-1.0, 1.0, (200, 3, 2)))
        outcome = physics.evaluate(params, instance[some], tried)
        value = np.where(outcome.feasible, outcome.objective, -np.inf)
        for row in np.argsort(-value)[:4]:
            best = max(best, value[row], polish(params, link[:1], tried[row]))
    return float(best)


def polish(params: Any, link: Any, start: Allocation) -> float:
    """SLSQP over power, bandwidth, ratio and delay of two groups, relative to equal shares and to Tmax."""
    unit = np.repeat((params.max_power_w / 2, params.max_bandwidth_hz / 2, 1.0, params.max_latency_s), 2)
    low = physics.distortion_floor(params, link)[0]

    def values(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of points (n, 8): minus the sum rate (n,), and the constraints (n, 11), met where they are not negative."""
        p, b, ratio, t = np.split(x * unit, 4, axis=-1)
        many = link[np.zeros(len(x), int)]
        rate = physics.rates(many, p, b, ratio)
        need = many.source_bit * ratio[..., None]
        spent = (p * t - params.energy_coefficient_j * np.log(ratio)).sum(-1) / params.max_energy_j
        rows = [
            *(rate * many.spare_s / need - 1.0).reshape(len(x), 4).T,
            *(rate * t[..., None] / need - 1.0).reshape(len(x), 4).T,
            1.0 - spent,
            1.0 - p.sum(-1) / params.max_power_w,
            1.0 - b.sum(-1) / params.max_bandwidth_hz,
        ]
        return -1e-6 * rate.sum((-1, -2)), np.stack(rows, axis=-1)

    def slopes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        step = 1e-6 * np.eye(8)
        up, down = values(x + step), values(x - step)
        return (up[0] - down[0]) / 2e-6, (up[1] - down[1]).T / 2e-6

    rate = physics.rates(link, start.power_w, start.bandwidth_hz, start.ratio)
    delay = physics.delays(link, rate, start.ratio).max(-1)
    first = np.concatenate([start.power_w[0], start.bandwidth_hz[0], start.ratio[0], delay[0]]) / unit
    result = scipy.optimize.minimize(
        lambda x: values(x[None])[0][0],
        first,
        jac=lambda x: slopes(x)[0],
        bounds=[(1e-3, 2.0)] * 4 + [(x, 1.0) for x in low] + [(1e-3, 1.0)] * 2,
        constraints={"type": "ineq", "fun": lambda x: values(x[None])[1][0], "jac": lambda x: slopes(x)[1]},
        options={"maxiter": 100},
    )
    return -float(result.fun) if values(result.x[None])[1].min() > -1e-6 else -np.inf
