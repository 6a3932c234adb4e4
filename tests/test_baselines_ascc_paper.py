"""JRPB of MU-ASCC: Algorithm 1 against plain Python and grids, the whole, and what goes wrong."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ascc_cells import brute_force, cells
from ascc_plain import Row, argument, log10_q, logistic, tables

from semcom_gym import baselines
from semcom_gym.baselines.ascc import paper, sca, subgradient
from semcom_gym.envs.ascc import duality, physics


def interpolated(rows: list[Row], rate: float, gamma: float, channel_uses: float, blocklength: float) -> float:
    """(26)-(30) in plain Python."""
    n = max(i for i in range(len(rows) - 1) if i == 0 or rows[i][0] <= rate)
    part = (rate - rows[n][0]) / (rows[n + 1][0] - rows[n][0])
    row = tuple(a + part * (b - a) for a, b in zip(rows[n], rows[n + 1], strict=True))
    bits = rate / channel_uses
    return logistic(row, log10_q(argument(gamma, bits, blocklength)) - math.log10(bits * blocklength))


# --- Algorithm 1 -----------------------------------------------------------------------------------------------------
def test_the_subgradient_is_that_of_the_interpolated_tables() -> None:
    params, _ = cells(4)
    rng, rows = np.random.default_rng(0), tables(params)
    for _ in range(30):
        gamma = 10.0 ** rng.uniform(-1.0, 2.0, 4)
        segment, part = rng.integers(0, 22, 4), rng.uniform(0.1, 0.9, 4)
        found = subgradient.subgradient(params, gamma, segment + part)
        for i in range(4):
            left, right = rows[i][segment[i]][0], rows[i][segment[i] + 1][0]
            rate, step = left + part[i] * (right - left), 1e-4 * (right - left)
            ends = [interpolated(rows[i], r, gamma[i], 14000.0, 256) for r in (rate - step, rate + step)]
            slope = (ends[1] - ends[0]) / (2.0 * step)
            assert found[i] == pytest.approx(slope, rel=1e-4, abs=1e-11)


def test_at_a_codec_it_is_the_mean_of_both_sides_and_at_the_ends_one_sided() -> None:
    params, _ = cells(1)
    gamma = np.array([1.0, 3.0, 10.0, 30.0])
    near = 1e-7
    for index in (0, 1, 9, 21, 22):
        whole = np.full(4, float(index))
        sides = [subgradient.subgradient(params, gamma, np.clip(whole + x, 0, 22)) for x in (-near, near)]
        expected = sides[1] if index == 0 else sides[0] if index == 22 else 0.5 * (sides[0] + sides[1])
        np.testing.assert_allclose(subgradient.subgradient(params, gamma, whole), expected, rtol=1e-4)


@pytest.mark.parametrize("overrides", [{}, {"blocklength": 4096}, {"channel_uses": 28000.0}])
def test_algorithm_1_finds_the_least_interpolated_distortion(overrides: dict[str, Any]) -> None:
    params, _ = cells(1, **overrides)
    rng = np.random.default_rng(1)
    grid = np.linspace(0.0, 22.0, 2201)[:, None].repeat(4, 1)
    for _ in range(25):
        gamma = 10.0 ** rng.uniform(-0.5, 2.5, 4)
        index = subgradient.descend(params, gamma)
        assert np.all((index >= 0) & (index <= 22))
        least = physics.distortion(params, gamma, grid).min(0)
        np.testing.assert_allclose(physics.distortion(params, gamma, index[None])[0], least, rtol=1e-3)
        assert np.all(subgradient.subgradient(params, gamma, np.zeros(4)) < 0)  # so R^1 + alpha d, as printed, is R^1


def test_algorithm_1_stays_within_tables_of_different_length() -> None:
    params, _ = cells(1)
    short = dataclasses.replace(params)
    object.__setattr__(short, "tables", (params.tables[0], _first_codecs(params.tables[1], 5)))
    assert short.rate_counts.tolist() == [23, 23, 5, 5]
    index = subgradient.descend(short, np.full(4, 1e4))
    assert index == pytest.approx([22, 22, 4, 4])


def _first_codecs(table: Any, count: int) -> Any:
    keys = ("rate_bit", "source_distortion", "channel_distortion", "slope", "midpoint")
    return type(table)("short", dict(zip(keys, table.columns[:count].T, strict=True)))


# --- the whole -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["default", "paper", "hard", "three_user"])
def test_it_never_rises_is_feasible_and_beats_its_start(preset: str) -> None:
    params, instance = cells(2, preset)
    solution = paper.solve(params, instance)
    assert solution.feasible.all()
    assert all(status.startswith("ok") for status in solution.status)
    change = np.diff(solution.trace, axis=-1)
    assert np.all(change[np.isfinite(change)] <= 1e-12)
    assert np.all(solution.iterations * 2 == np.isfinite(solution.trace).sum(-1))
    index = solution.allocation.rate_index
    np.testing.assert_array_equal(index, np.round(index))
    np.testing.assert_allclose(solution.allocation.power_w.sum(-1), params.max_power_w, rtol=1e-5)
    start = baselines.solve("ascc", params, instance, "mrt")
    assert np.all(solution.objective < start.objective)
    bound = baselines.bound("ascc", params, instance)
    assert np.all(solution.objective >= bound.value)
    assert np.all(solution.objective <= 1.1 * bound.value)


def test_it_comes_near_a_brute_force_over_beams_powers_and_codecs() -> None:
    params, instance = cells(2, "two_user")
    solution = paper.solve(params, instance)
    for row in range(len(instance)):
        best = brute_force(params, instance[row])
        assert best * (1 - 1e-6) <= solution.objective[row] <= 1.08 * best


def test_the_first_rates_are_those_of_algorithm_1_at_the_start_rounded_down() -> None:
    params, instance = cells(3)
    solution = paper.solve(params, instance, passes=1)
    first = baselines.solve("ascc", params, instance, "mrt").allocation
    sinr = physics.sinr(instance, first.power_w, duality.vectors(first.beam_re, first.beam_im))
    for row in range(3):
        rounded = np.floor(subgradient.descend(params, sinr[row]) + paper.SNAP)
        np.testing.assert_array_equal(solution.allocation.rate_index[row], rounded)
    assert solution.status == ["not converged in 1 passes"] * 3


def test_every_start_and_rounding_gives_an_answer() -> None:
    params, instance = cells(2, "three_user")
    found = {start: paper.solve(params, instance, start=start, tolerance=1e-3) for start in paper.STARTS}
    assert len({tuple(solution.objective) for solution in found.values()}) == 3
    for solution in found.values():
        assert solution.feasible.all()
        assert set(solution.status) == {"ok"}
    equal = baselines.solve("ascc", params, instance, "equal_mmse")
    assert np.all(np.nanmin(found["mmse"].trace, axis=1) < equal.objective)
    best = paper.solve(params, instance, rounding="best", tolerance=1e-3)
    np.testing.assert_array_equal(best.trace, found["mrt"].trace)  # the relaxed problem is the same
    sinr = 10.0 ** (0.1 * physics.evaluate(params, instance, best.allocation).terms["sinr_db"])
    held = physics.distortion(params, sinr, best.allocation.rate_index)
    assert np.all(held <= physics.best_distortion(params, sinr) * 1.02)


@pytest.mark.parametrize(
    "overrides",
    [
        {"num_users": 1, "num_antennas": 1},
        {"num_users": 3, "num_antennas": 1},
        {"max_power_w": 0.02},  # nobody but the strongest gets anything through
        {"num_users": 2, "num_antennas": 2, "channel_matrix": ((1.0, 1.0j), (2.0, 2.0j))},
        {"channel_uses": 256.0},  # the lowest rate asks for 9 bit per channel use
    ],
)
def test_odd_cells_are_solved(overrides: dict[str, Any]) -> None:
    params, instance = cells(2, **overrides)
    solution = paper.solve(params, instance, tolerance=1e-3)
    assert solution.feasible.all()
    assert all(status.startswith("ok") for status in solution.status)
    assert np.all(solution.objective <= 1.05 * baselines.solve("ascc", params, instance, "mrt").objective)


def test_an_instance_does_not_depend_on_its_batch() -> None:
    params, instance = cells(3, "two_user")
    whole, part = (paper.solve(params, x, passes=5) for x in (instance, instance[np.array([2, 0])]))
    np.testing.assert_array_equal(whole.objective[[2, 0]], part.objective)


def test_the_environment_scores_it_as_the_solver_does() -> None:
    env = gym.make("SemCom/ASCC-v0", preset="two_user")
    env.reset(seed=7)
    shell = env.unwrapped
    solution = baselines.solve("ascc", shell.params, shell.instance, "jrpb", passes=10)
    _, reward, _, _, info = env.step(shell.encode(solution.allocation))
    assert info["objective"] == pytest.approx(float(solution.objective[0]), rel=1e-9)
    assert reward == pytest.approx(-info["objective"], rel=1e-9)


# --- what goes wrong -------------------------------------------------------------------------------------------------
def test_another_solver_steps_in_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    params, instance = cells(2, "two_user")
    whole = paper.solve(params, instance, passes=3)
    monkeypatch.setattr(sca, "SOLVERS", (("CLARABEL", {"max_iter": 2}), *sca.SOLVERS[1:]))
    other = paper.solve(params, instance, passes=3)
    np.testing.assert_allclose(other.objective, whole.objective, rtol=1e-4)
    assert all("fallbacks to another solver" in status for status in other.status)
    monkeypatch.setattr(sca, "SOLVERS", sca.SOLVERS[2:])
    last = paper.solve(params, instance, passes=3)
    np.testing.assert_allclose(last.trace, whole.trace, rtol=1e-4)


def test_a_problem_that_no_solver_solves_is_counted_and_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    params, instance = cells(2, "two_user")
    whole = paper.solve(params, instance, tolerance=1e-3)
    solutions, calls = sca.Program.solutions, []

    def failing(self: sca.Program, values: Any) -> Any:
        calls.append(1)
        return iter(()) if len(calls) == 1 else solutions(self, values)

    monkeypatch.setattr(sca.Program, "solutions", failing)
    hurt = paper.solve(params, instance, tolerance=1e-3)
    assert hurt.status == ["ok; 1 convex problems without a usable answer", "ok"]
    assert hurt.feasible.all()
    assert hurt.objective[1] == whole.objective[1]


def test_bad_options_are_named() -> None:
    params, instance = cells(1)
    with pytest.raises(TypeError, match="jrpb: unknown argument 'iter'; valid: start, rounding, passes"):
        paper.solve(params, instance, iter=3)
    with pytest.raises(ValueError, match="unknown start 'mmrt'; valid: mrt, zf, mmse; did you mean 'mrt'"):
        paper.solve(params, instance, start="mmrt")
    with pytest.raises(ValueError, match="unknown rounding 'up'"):
        paper.solve(params, instance, rounding="up")
    with pytest.raises(ValueError, match="passes must be >= 1, got 0"):
        paper.solve(params, instance, passes=0)
    with pytest.raises(ValueError, match="tolerance must be finite, > 0"):
        paper.solve(params, instance, tolerance=0.0)


def test_importing_it_imports_no_cvxpy() -> None:
    code = "import sys, semcom_gym.baselines.ascc; sys.exit(any(m in sys.modules for m in ('cvxpy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_it_lands_a_few_percent_above_the_optimum_without_a_failure() -> None:
    params, instance = cells(40)
    solution = paper.solve(params, instance)
    assert all(status.startswith("ok") and "without" not in status for status in solution.status)
    loss = solution.objective / baselines.bound("ascc", params, instance).value - 1.0
    assert 0.015 < loss.mean() < 0.06
    assert loss.max() < 0.12
    enumerated = paper.solve(params, instance, rounding="best")
    assert enumerated.objective.mean() < solution.objective.mean()
