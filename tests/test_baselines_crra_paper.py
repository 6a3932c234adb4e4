"""The paper's algorithms: monotone, feasible, near the optimum where that is known, and robust to a failing solver."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from semcom_gym import baselines, envs
from semcom_gym.baselines.crra import METHODS, paper, sca
from semcom_gym.baselines.crra.normal import Users
from semcom_gym.envs.crra import physics

CRRA = envs.problem("crra")
ITERATIVE = ("crra", "crra_printed", "crraus")


def batch(preset: str, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = CRRA.preset(preset, **overrides)
    return params, CRRA.sample_split(params, "validation", n)


def steps(solution: baselines.Solution) -> np.ndarray:
    """Relative change of the objective from each convex problem to the next, of all instances."""
    change = np.diff(solution.trace, axis=-1) / solution.trace[:, :-1]
    return change[np.isfinite(change)]


@pytest.mark.parametrize("success", ["exact", "approximate"])
@pytest.mark.parametrize("preset", ["paper", "default", "select"])
def test_crra_is_monotone_feasible_and_beats_its_start(preset: str, success: str) -> None:
    params, instance = batch(preset, 4, success=success)
    solution = baselines.solve("crra", params, instance, "crra")
    start = baselines.solve("crra", params, instance, "fra")
    assert solution.feasible.all()
    assert set(solution.status) == {"ok"}
    assert steps(solution).min() > -1e-7  # Lemma 2, up to the solver's accuracy
    assert np.all(solution.trace[:, 0] >= start.objective * (1 - 1e-7))
    assert np.all(solution.objective >= start.objective)
    assert np.all(solution.objective >= np.nanmax(solution.trace, axis=-1) * (1 - 1e-12))
    assert np.all(solution.iterations == np.isfinite(solution.trace).sum(-1))


def test_the_printed_linearisation_is_not_monotone_and_ends_lower() -> None:
    params, instance = batch("default", 6)
    printed = baselines.solve("crra", params, instance, "crra_printed", outer=5)
    corrected = baselines.solve("crra", params, instance, "crra", outer=5)
    start = baselines.solve("crra", params, instance, "fra")
    assert np.min(printed.trace[:, 0] / start.objective) < 0.9 or steps(printed).min() < -0.1
    assert printed.objective.mean() < corrected.objective.mean()
    assert np.all(printed.objective >= start.objective)  # the best iterate is kept
    assert printed.feasible.all()


@pytest.mark.parametrize("success", ["exact", "approximate"])
def test_crra_of_two_users_against_a_grid(success: str) -> None:
    params, instance = batch("default", 12, num_users=2, max_bandwidth_hz=1e6, max_power_w=2e-3, success=success)
    solution = baselines.solve("crra", params, instance, "crra")
    share = np.linspace(0.0, 1.0, 101)
    b, p = (x.ravel() for x in np.meshgrid(share, share))
    spare_b, spare_p = 1e6 - 2 * params.min_bandwidth_hz, 2e-3 - 2 * params.min_power_w
    bandwidth = params.min_bandwidth_hz + spare_b * np.stack((b, 1 - b), -1)
    power = params.min_power_w + spare_p * np.stack((p, 1 - p), -1)
    best = np.empty(len(instance))
    for row in range(len(instance)):
        users = Users(params, instance[row])
        best[row] = users.value(bandwidth, power, users.best_ratio(bandwidth, power)).sum(-1).max()
    loss = 1 - solution.objective / best
    assert np.all(loss > -0.01)  # above the grid only by what its step leaves
    assert np.median(loss) < 1e-3
    assert loss.mean() < 0.05  # a local optimum now and then


def test_the_order_of_the_paper_where_resources_are_tight() -> None:
    params, instance = batch("default", 8)
    mean = {m: baselines.solve("crra", params, instance, m).objective.mean() for m in ("crra", "fra", "fcr", "msr")}
    assert mean["crra"] > mean["fra"] > mean["fcr"] > mean["msr"]


def test_enumeration_stays_on_its_grid_and_costs_little() -> None:
    params, instance = batch("default", 3)
    exact = baselines.solve("crra", params, instance, "crra")
    grid = baselines.solve("crra", params, instance, "crra", enumeration=True)
    ratio = grid.allocation.ratio
    np.testing.assert_allclose(ratio * 100, np.round(ratio * 100), atol=1e-9)
    assert len(np.unique(ratio[0])) > 1  # Algorithm 2 printed never resets h0 between users
    assert 0.985 < grid.objective.mean() / exact.objective.mean() < 1.0  # alternating on a grid stalls early
    assert grid.feasible.all()
    params = dataclasses.replace(params, max_ratio=0.955)
    short = baselines.solve("crra", params, instance, "crra", enumeration=True, outer=1)
    assert short.allocation.ratio.max() == pytest.approx(0.95)


# --- CRRAUS ----------------------------------------------------------------------------------------------------------
def test_crraus_honours_floors_and_beats_nothing_selected() -> None:
    params, instance = batch("select", 6)
    solution = baselines.solve("crra", params, instance, "crraus")
    on = solution.allocation.selected > 0
    assert solution.feasible.all()
    assert set(solution.status) == {"ok"}
    assert np.all(solution.allocation.bandwidth_hz[on] >= params.min_bandwidth_hz * (1 - 1e-9))
    assert np.all(solution.allocation.power_w[on] >= params.min_power_w * (1 - 1e-9))
    assert np.all((on.sum(-1) >= 1) & (on.sum(-1) <= 8))
    assert steps(solution).min() > -1e-7
    fast = baselines.solve("crra", params, instance, "fast", iterations=200)
    assert solution.objective.mean() > 0.85 * fast.objective.mean()


@pytest.mark.parametrize("start", [1.0, 1.5, 2.5])
def test_the_selection_is_the_best_of_all_subsets_that_fit(start: float) -> None:
    params, instance = batch("select", 10, num_users=6, max_bandwidth_hz=3e6)
    rng = np.random.default_rng(0)
    subsets = np.array(list(itertools.product((0.0, 1.0), repeat=6)))
    for row in range(len(instance)):
        run = paper._Run(params, instance[row], paper.Settings(), printed=False)
        bandwidth = rng.uniform(0.6e6, start * 1e6, 6)
        power = rng.uniform(0.3e-3, start * 2e-3, 6)
        ratio = rng.uniform(0.8, 0.99, 6)
        value = run._values(bandwidth, power, ratio)
        fits = (subsets @ bandwidth <= 3e6 * (1 + 1e-9)) & (subsets @ power <= 10e-3 * (1 + 1e-9))
        chosen = run._select(bandwidth, power, ratio)
        assert np.any(np.all(subsets[fits] == chosen, axis=-1))
        assert chosen @ value == pytest.approx((subsets[fits] @ value).max(), rel=1e-6)


def test_requests_that_fit_make_the_selection_vacuous() -> None:
    params, instance = batch("paper", 3, selection=True)  # floors that hardly bind, success for all
    everybody = baselines.solve("crra", params, instance, "crraus", start=1.0, outer=2)
    assert np.all(everybody.allocation.selected == 1)
    fewer = baselines.solve("crra", params, instance, "crraus", start=2.5, outer=2)
    assert np.all(fewer.allocation.selected.sum(-1) <= 4)


def test_crraus_needs_selection_and_a_sensible_start() -> None:
    params, instance = batch("default", 1)
    with pytest.raises(ValueError, match="crraus needs selection=True"):
        baselines.solve("crra", params, instance, "crraus")
    params, instance = batch("select", 1)
    for start in (0.0, -1.0, 11.0, float("nan")):
        with pytest.raises(ValueError, match="start must be finite, > 0 and <= 10"):
            baselines.solve("crra", params, instance, "crraus", start=start)


# --- what goes wrong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ITERATIVE)
def test_a_failing_solver_is_reported_and_spares_the_others(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params, instance = batch("select" if method == "crraus" else "default", 3)
    whole = baselines.solve("crra", params, instance, method, outer=2)
    solve, calls = sca.Program.solve, []

    def failing(self: sca.Program, **values: Any) -> Any:
        calls.append(1)
        return "Clarabel failed" if len(calls) == 2 else solve(self, **values)  # the first instance's second step

    monkeypatch.setattr(sca.Program, "solve", failing)
    hurt = baselines.solve("crra", params, instance, method, outer=2)
    assert hurt.status[0] == "stopped at the best iterate: Clarabel failed"
    assert hurt.feasible.all()
    assert 0 < hurt.objective[0] <= whole.objective[0] * (1 + 1e-9)
    np.testing.assert_allclose(hurt.objective[1:], whole.objective[1:], rtol=1e-6)
    assert hurt.status[1:] == whole.status[1:]


@pytest.mark.parametrize("method", ["crra", "crra_printed"])
def test_floors_beyond_the_budget_are_reported_and_spare_the_others(method: str) -> None:
    params, instance = batch("default", 3)
    broken = dataclasses.replace(instance, power_w=np.array((10e-3, 5e-5, 1e-4)))  # ten floors of 10 uW; exactly ten
    solution = baselines.solve("crra", params, broken, method, outer=2)
    assert solution.feasible.tolist() == [True, False, True]
    assert solution.status[1].startswith("infeasible: power exceeded")
    assert solution.objective[0] > 0


@pytest.mark.parametrize("method", ["crra", "crraus"])
def test_with_selection_no_room_for_anybody_serves_nobody(method: str) -> None:
    params, instance = batch("select", 2)
    broken = dataclasses.replace(instance, bandwidth_hz=np.array((5e6, 5e5)))
    solution = baselines.solve("crra", params, broken, method, outer=2)
    assert solution.feasible.all()
    assert solution.objective[0] > 0
    assert solution.objective[1] == 0


@pytest.mark.parametrize("method", ITERATIVE)
def test_bad_options_are_named(method: str) -> None:
    params, instance = batch("select", 1)
    with pytest.raises(TypeError, match=f"{method}: unknown argument 'iter'; valid: .*outer, inner"):
        baselines.solve("crra", params, instance, method, iter=3)
    with pytest.raises(ValueError, match="outer must be >= 1, got 0"):
        baselines.solve("crra", params, instance, method, outer=0)
    with pytest.raises(ValueError, match="tolerance must be finite, > 0"):
        baselines.solve("crra", params, instance, method, tolerance=0.0)


def test_enumeration_without_a_grid_point_is_named() -> None:
    params, instance = batch("default", 1, max_ratio=0.005)
    with pytest.raises(ValueError, match=r"enumeration needs max_ratio >= 0\.01, got 0\.005"):
        baselines.solve("crra", params, instance, "crra", enumeration=True)


def test_importing_the_baselines_imports_no_cvxpy() -> None:
    code = "import sys, semcom_gym.baselines.crra; sys.exit(any(m in sys.modules for m in ('cvxpy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- every method in the environment ---------------------------------------------------------------------------------
@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("env_id", ["SemCom/CRRA-v0", "SemCom/CRRAUS-v0"])
def test_the_environment_scores_a_solution_as_the_solver_does(env_id: str, method: str) -> None:
    if method == "crraus" and env_id == "SemCom/CRRA-v0":
        pytest.skip("crraus is a method of CRRAUS only")
    options = {"outer": 2} if method in ITERATIVE else {}
    for preset in ("default", "paper", "general"):
        env = gym.make(env_id, preset=preset)
        env.reset(seed=7)
        shell = env.unwrapped
        solution = baselines.solve("crra", shell.params, shell.instance, method, **options)
        assert solution.feasible.all()
        _, reward, _, _, info = env.step(shell.encode(solution.allocation))
        assert info["objective"] == pytest.approx(float(solution.objective[0]), rel=1e-9, abs=1e-12)
        assert reward == pytest.approx(info["objective"], rel=1e-9)
        assert isinstance(solution.allocation, physics.Allocation)
