"""Algorithm 3 of the training paper: monotone, without motion where PSNR is slack, and what goes wrong."""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_starts import batch, shares

from semcom_gym import baselines
from semcom_gym.baselines.training import METHODS, p3, paper
from semcom_gym.envs.training import physics

OURS = ("paper", "paper_direct", "paper_random", "paper_multistart")


# --- Algorithm 3 -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("preset", ["paper", "default"])
def test_algorithm_3_never_rises_and_its_trace_ends_at_its_objective(preset: str, method: str) -> None:
    params, instance = batch(preset, 8)
    options = {"draws": 2} if method == "paper_multistart" else {}
    found = baselines.solve("training", params, instance, method, **options)
    good = found.feasible
    assert good.any()
    assert [why for why, ok in zip(found.status, good, strict=True) if ok] == ["ok"] * int(good.sum())
    trace = found.trace[good]
    change = np.diff(trace, axis=-1) / trace[:, :-1]
    assert np.nanmax(change) <= 1e-9
    last = np.array([row[np.isfinite(row)][-1] for row in trace])
    np.testing.assert_allclose(last, found.objective[good], rtol=1e-12)
    np.testing.assert_array_equal(np.isfinite(trace).sum(-1), 2 * found.iterations[good])


def test_algorithm_3_does_not_move() -> None:
    """After one pass nothing changes; over its first P3 it gains next to nothing; the optimum is far below."""
    params, instance = batch("paper", 8)
    found = baselines.solve("training", params, instance, "paper")
    assert np.all(found.iterations == 2)
    np.testing.assert_allclose(found.trace[:, 2:], found.trace[:, 1:2].repeat(2, 1), rtol=1e-9)
    assert np.all(found.trace[:, 0] / found.trace[:, 1] < 1.005)
    first = p3.allocate(params, instance, *shares(params, instance))
    before = physics.evaluate(params, instance, first).terms["time_s"].max(-1)
    after = physics.evaluate(params, instance, found.allocation).terms["time_s"].max(-1)
    np.testing.assert_allclose(after, before, rtol=1e-9)
    best = baselines.solve("training", params, instance, "fast")
    assert np.all(found.objective > 1.3 * best.objective)


def test_where_psnr_binds_it_goes_on_until_nothing_moves() -> None:
    params, instance = batch("default", 100)
    found = baselines.solve("training", params, instance, "paper_direct")
    rows = np.flatnonzero(found.iterations > 2)
    assert len(rows) > 0
    assert np.all(found.trace[rows, 2] < found.trace[rows, 1] * (1 - 1e-6))  # a lower ratio, hence a shorter T
    end = found.allocation[rows]
    again = paper._alternate(params, instance[rows], end.power_w, end.bandwidth_hz, paper.Settings(direct=True))
    assert np.all(again.passes == 2)
    for name in ("power_w", "bandwidth_hz", "device_frequency_hz", "bs_frequency_hz", "ratio"):
        np.testing.assert_allclose(getattr(again.allocation, name), getattr(end, name), rtol=1e-5)


def test_the_two_forms_of_p4_lead_to_the_same_end() -> None:
    for preset in ("paper", "default", "hard"):
        params, instance = batch(preset, 10)
        newton, direct = (baselines.solve("training", params, instance, name) for name in ("paper", "paper_direct"))
        np.testing.assert_array_equal(newton.feasible, direct.feasible)
        np.testing.assert_allclose(newton.objective, direct.objective, rtol=1e-8)


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(np.log(low), np.log(high)).map(lambda x: float(np.exp(x)))


@settings(max_examples=25)
@given(
    users=st.integers(1, 5),
    bandwidth=log_uniform(1e3, 1e10),
    power=log_uniform(1e-7, 1e2),
    clock=log_uniform(1e6, 1e11),
    station=log_uniform(1e6, 1e11),
    psnr=st.floats(20.0, 30.0),
    bits=log_uniform(1e3, 1e8),
    capacitance=log_uniform(1e-31, 1e-25),
    weight=st.sampled_from([1e-3, 0.1, 0.5, 0.9, 0.999]),
)
@pytest.mark.filterwarnings("error")
def test_any_parameters_are_solved_alike_or_flagged(
    users: int, bandwidth: float, power: float, clock: float, station: float, psnr: float, bits: float,
    capacitance: float, weight: float,
) -> None:  # fmt: skip
    params, instance = batch(
        "default", 2, num_users=users, total_bandwidth_hz=bandwidth, max_power_w=power,
        device_frequency_range_hz=(clock, clock), max_bs_frequency_hz=station, psnr_range_db=(psnr, psnr),
        sample_bit=bits, capacitance=capacitance, time_weight=weight,
    )  # fmt: skip
    newton, direct = (baselines.solve("training", params, instance, name) for name in ("paper", "paper_direct"))
    np.testing.assert_array_equal(newton.feasible, direct.feasible)
    np.testing.assert_allclose(newton.objective[newton.feasible], direct.objective[newton.feasible], rtol=1e-7)
    for found in (newton, direct):
        for feasible, why in zip(found.feasible, found.status, strict=True):
            assert why == "ok" if feasible else why.startswith("infeasible start: ")
        change = np.diff(found.trace, axis=-1) / found.trace[:, :-1]
        assert np.all(~(change > 1e-9))


def test_multistart_is_no_worse_than_any_of_its_starts() -> None:
    params, instance = batch("default", 4)
    many = baselines.solve("training", params, instance, "paper_multistart", seed=4, draws=2)
    best = np.full(4, np.inf)
    for seed in (4, 5):
        one = baselines.solve("training", params, instance, "paper_random", seed=seed)
        best = np.where(one.feasible, np.minimum(best, one.objective), best)
    average = baselines.solve("training", params, instance, "paper")
    best = np.where(average.feasible, np.minimum(best, average.objective), best)
    assert np.all(many.feasible == np.isfinite(best) | many.feasible)
    good = np.isfinite(best)
    assert good.any()
    assert np.all(many.objective[good] <= best[good] * (1 + 1e-12))
    assert np.any(many.objective[good] < best[good] * (1 - 1e-3))  # one of the other powers


def test_starts_are_reproducible_and_differ() -> None:
    params, instance = batch("paper", 3)
    one, same, other = (baselines.solve("training", params, instance, "paper_random", seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.objective, same.objective)
    assert np.all(one.objective != other.objective)


def test_an_instance_alone_ends_where_it_ends_in_a_batch() -> None:
    params, instance = batch("default", 5)
    whole = baselines.solve("training", params, instance, "paper")
    for row in range(5):
        alone = baselines.solve("training", params, instance[row], "paper")
        assert alone.objective[0] == pytest.approx(whole.objective[row], rel=1e-9)
        assert alone.status[0] == whole.status[row]


# --- what goes wrong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["paper", "paper_direct"])
def test_a_start_without_psnr_names_the_device_and_spares_the_others(method: str) -> None:
    params, instance = batch("paper", 3)
    min_psnr = instance.min_psnr_db.copy()
    min_psnr[1, 17] = 33.0
    whole = baselines.solve("training", params, instance, method)
    hurt = baselines.solve("training", params, dataclasses.replace(instance, min_psnr_db=min_psnr), method)
    assert hurt.feasible.tolist() == [True, False, True]
    assert hurt.status[1].startswith("infeasible start: psnr of device 17 ")
    assert hurt.iterations[1] == 0
    assert np.isnan(hurt.trace[1]).all()
    np.testing.assert_allclose(hurt.objective[[0, 2]], whole.objective[[0, 2]], rtol=1e-12)


def test_multistart_says_so_where_no_start_is_feasible() -> None:
    params, instance = batch("paper", 2)
    min_psnr = np.full_like(instance.min_psnr_db, 33.0)
    found = baselines.solve(
        "training", params, dataclasses.replace(instance, min_psnr_db=min_psnr), "paper_multistart", draws=1
    )
    assert not found.feasible.any()
    assert all(why.startswith("infeasible start: psnr of device ") for why in found.status)


def test_too_few_passes_or_steps_are_reported() -> None:
    params, instance = batch("paper", 2)
    one = baselines.solve("training", params, instance, "paper", rounds=1)
    assert one.status == ["not converged in 1 passes"] * 2
    assert one.feasible.all()
    few = paper._alternate(params, instance, *shares(params, instance, 0), paper.Settings(newton=1))
    assert few.status[0] == "Algorithm 2 not converged in 1 steps"
    assert few.solution(params, instance, 0.0).feasible.all()


@pytest.mark.parametrize("method", OURS)
def test_bad_options_are_named(method: str) -> None:
    params, instance = batch("default", 1)
    with pytest.raises(TypeError, match=f"{method}: unknown argument 'round'; valid: rounds, "):
        baselines.solve("training", params, instance, method, round=3)
    with pytest.raises(ValueError, match="rounds must be >= 1, got 0"):
        baselines.solve("training", params, instance, method, rounds=0)
    with pytest.raises(ValueError, match=r"xi must be finite, > 0 and <= 0\.99, got 1\.0"):
        baselines.solve("training", params, instance, method, xi=1.0)
    with pytest.raises(ValueError, match="tolerance must be finite, > 0"):
        baselines.solve("training", params, instance, method, tolerance=0.0)


def test_what_only_some_of_them_take_is_checked() -> None:
    params, instance = batch("default", 1)
    with pytest.raises(ValueError, match="level must be finite, > 0 and <= 1, got 2"):
        baselines.solve("training", params, instance, "paper", level=2)
    with pytest.raises(TypeError, match="paper_direct: unknown argument 'direct'"):
        baselines.solve("training", params, instance, "paper_direct", direct=True)
    with pytest.raises(TypeError, match="direct must be True or False, got 1"):
        baselines.solve("training", params, instance, "paper", direct=1)


# --- in the environment ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_the_environment_scores_a_solution_as_the_solver_does(preset: str, method: str) -> None:
    assert method in METHODS
    env = gym.make("SemCom/Training-v0", preset=preset)
    shell = env.unwrapped
    seeds = []
    for seed in range(20):
        env.reset(seed=seed)
        options = {"draws": 2} if method == "paper_multistart" else {}
        solution = baselines.solve("training", shell.params, shell.instance, method, **options)
        if not solution.feasible[0]:
            continue
        _, reward, _, _, info = env.step(shell.encode(solution.allocation))
        assert info["feasible"]
        assert info["objective"] == pytest.approx(float(solution.objective[0]), rel=1e-9)
        assert reward == pytest.approx(-info["objective"], rel=1e-9)
        seeds.append(seed)
        if len(seeds) == 2:
            return
    pytest.fail("no feasible instance among twenty")
