"""Scores, bounds and resumable results."""

import dataclasses

import numpy as np
import pytest

from semcom_gym import baselines, envs
from semcom_gym.baselines import crra
from semcom_gym.baselines.solution import Method
from semcom_gym.benchmarks import competitors, leaderboard, protocol, store
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.envs import files
from semcom_gym.envs.crra.physics import Allocation
from semcom_gym.envs.outcome import UnreachableError


@pytest.fixture
def pairing():
    return protocol.task("SemCom/SFMAPairing-v0", n=3, num_users=4)


def decisions(objective, feasible=None):
    objective = np.asarray(objective, float)
    feasible = np.isfinite(objective) if feasible is None else np.asarray(feasible)
    return protocol.Decisions(objective, feasible, np.full(len(objective), 1e-3))


# --- scores --------------------------------------------------------------------------------------------------------


def test_score_on_known_values():
    found = protocol.score([decisions([1.0, 2.0, 1.5, np.nan])], decisions([1.0] * 4), np.full(4, 2.0))
    assert found.score.tolist() == [[0.0, 1.0, 0.5, -1.0]]
    assert found.loss[0, :3].tolist() == [0.5, 0.0, 0.25]
    assert np.isnan(found.loss[0, 3])
    assert found.feasible == 0.75
    assert found.kept.all()


def test_score_of_a_minimisation():
    found = protocol.score([decisions([4.0, 3.0, 5.0])], decisions([4.0] * 3), np.full(3, 2.0), maximise=False)
    assert found.score.tolist() == [[0.0, 0.5, -0.5]]
    assert found.loss.tolist() == [[1.0, 0.5, 1.5]]


def test_exclusion_rule():
    anchor = decisions([1.0, np.nan, 1.9999, 1.9])
    found = protocol.score([decisions([1.0, 1.0, 1.99995, 1.95])], anchor, np.full(4, 2.0))
    assert found.kept.tolist() == [True, False, False, True]
    assert found.score.shape == (1, 2)


def test_instances_that_nothing_satisfies_are_left_out():
    found = protocol.score([decisions([np.nan, 1.5])], decisions([np.nan, 1.0]), np.array([-np.inf, 2.0]))
    assert found.kept.tolist() == [False, True]


def test_a_decision_where_the_bound_says_there_is_none_breaks_it():
    with pytest.raises(protocol.BoundBrokenError):
        protocol.score([decisions([1.0, 1.5])], decisions([np.nan, 1.0]), np.array([-np.inf, 2.0]))


def test_score_above_one_says_that_the_bound_is_broken():
    with pytest.raises(protocol.BoundBrokenError, match="instance 1 has a decision"):
        protocol.score([decisions([1.5, 2.001])], decisions([1.0, 1.0]), np.full(2, 2.0))


def test_a_broken_bound_is_seen_where_no_score_counts():
    with pytest.raises(protocol.BoundBrokenError):
        protocol.score([decisions([2.00001])], decisions([1.99999]), np.array([2.0]))


def test_rounding_above_the_bound_is_no_breach():
    protocol.score([decisions([2.0 + 1e-12])], decisions([1.0]), np.array([2.0]))


# --- decisions through the environment -----------------------------------------------------------------------------


PLAIN = {
    "crra": ("equal", "fra"), "sfma": ("equal",), "ascc": ("equal_mmse", "mrt", "zf_wf_adaptive"),
    "training": ("equal_bandwidth",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("env_id", "method"),
    [(env_id, method) for env_id in envs.IDS for method in (*PLAIN[protocol.task(env_id, n=1).problem.name], "fast")],
)
def test_environment_agrees_with_evaluate(env_id, method):
    task = protocol.task(env_id, n=20 if "CRRA" in env_id else 4)
    solution = baselines.solve(task.problem.name, task.params, task.instance, method)
    outcome = task.problem.evaluate(task.params, task.instance, solution.allocation)
    found = protocol.decide_by_method(task, method)
    assert found.feasible.all()
    np.testing.assert_allclose(solution.objective, outcome.objective, rtol=1e-9)
    # what a solver leaves of the budgets is handed out where a decision is an action
    assert (task.sign * (found.objective - outcome.objective) >= -1e-9 * outcome.objective).all()
    np.testing.assert_allclose(found.objective, outcome.objective, rtol=1e-9 if method != "fast" else 1e-6)


def test_allocations_that_no_action_stands_for_are_evaluated():
    """A method may hand out less than the least of the action map; its decision then counts as it is."""
    task = protocol.task("SemCom/Training-v0", n=2)
    solution = baselines.solve("training", task.params, task.instance, "fast")
    thin = solution.allocation.bandwidth_hz.copy()
    thin[:, 0] = 0.01 * task.params.total_bandwidth_hz / task.params.num_users
    allocation = dataclasses.replace(solution.allocation, bandwidth_hz=thin)
    outcome = task.problem.evaluate(task.params, task.instance, allocation)
    assert outcome.feasible.all()
    with pytest.raises(UnreachableError, match="bandwidth of device 0"):
        task.problem.encode(task.params, task.instance, allocation)
    objective, feasible = protocol._credit(task, np.arange(2), allocation)
    np.testing.assert_array_equal(objective, outcome.objective)
    assert feasible.all()


def test_allocations_of_an_agent_that_chooses_are_evaluated(pairing):
    solution = baselines.solve("sfma", pairing.params, pairing.instance, "equal")
    late = dataclasses.replace(solution.allocation, bandwidth_hz=solution.allocation.bandwidth_hz * 1.5)
    calls = []
    for allocation, feasible in ((solution.allocation, True), (late, False)):
        found = protocol.decide_by_allocation(pairing, lambda a=allocation: calls.append(1) or a)
        assert found.feasible.all() == feasible
        np.testing.assert_array_equal(found.objective, solution.objective if feasible else np.nan)
        assert (found.seconds > 0).all()
    assert len(calls) == 4  # each after a warm-up


def test_an_agent_that_chooses_is_scored_by_its_pairings(pairing, monkeypatch):
    agents = pytest.importorskip("semcom_gym.agents")
    solution = baselines.solve("sfma", pairing.params, pairing.instance, "equal")
    seen = []

    def allocate(model, problem, params, instance):
        seen.append((model, problem.name, params, len(instance)))
        return solution.allocation

    monkeypatch.setattr(agents, "allocate", allocate)
    monkeypatch.setattr(
        competitors, "_shipped_model", lambda *_: ("a model", "weights", {"seconds": 3, "timesteps": 40})
    )
    run = competitors.agent(pairing, "maskable_ppo").runs[0]
    assert (run.training_s, run.training_decisions) == (3.0, 40.0)
    found = run.decide(pairing)
    assert seen == [("a model", "sfma", pairing.params, 3)] * 2
    np.testing.assert_array_equal(found.objective, solution.objective)
    with pytest.raises(ValueError, match="no refinement on SemCom/SFMAPairing-v0"):
        competitors.agent(pairing, "maskable_ppo", refine_steps=5)


def test_other_transceivers_are_not_scored():
    for name in ("noma", "fdma", "deepjscc_noma", "bpg_ldpc_qam"):
        with pytest.raises(ValueError, match=rf"sfma method '{name}' is not scored: it stands for another transceiver"):
            competitors.solver("sfma", name)
    with pytest.raises(ValueError, match="unknown sfma method 'nomma'"):
        competitors.solver("sfma", "nomma")


def test_totals_are_the_terms_with_one_number_per_instance(pairing):
    arguments = (pairing.problem, pairing.params, pairing.instance)
    solution = baselines.solve("sfma", pairing.params, pairing.instance, "equal")
    found = protocol.totals(*arguments, "equal", solution)
    assert set(found) == {"min_rate_mbit_s", "images_per_s"}
    rates = pairing.problem.evaluate(pairing.params, pairing.instance, solution.allocation).terms["rate_mbit_s"]
    np.testing.assert_array_equal(found["min_rate_mbit_s"], rates.min(axis=(1, 2)))
    other = baselines.solve("sfma", pairing.params, pairing.instance, "fdma")
    assert protocol.totals(*arguments, "fdma", other) == {}


def test_agent_and_solver_share_the_path(task):
    solution = baselines.solve("crra", task.params, task.instance, "fra")
    actions = task.problem.encode(task.params, task.instance, solution.allocation)
    found = protocol.decide_by_agent(task, lambda env, observation: actions)
    np.testing.assert_allclose(found.objective, solution.objective, rtol=1e-9)
    assert (found.seconds > 0).all()


def test_agent_sees_the_test_instances(task):
    seen = []

    def act(env, observation):
        seen.append(observation)
        return np.zeros((len(observation), env.single_action_space.shape[0]))

    protocol.decide_by_agent(task, act)
    expected = task.problem.observe(task.params, task.instance).astype(np.float32)
    np.testing.assert_array_equal(seen[-1], expected)


def method_of(change):
    """fra, with its solution changed."""
    return Method(lambda params, instance: change(crra.METHODS["fra"].run(params, instance)), "test", "none")


def test_a_claim_above_the_truth_is_found(task, monkeypatch):
    boast = method_of(lambda s: dataclasses.replace(s, objective=s.objective * 1.001))
    monkeypatch.setitem(crra.METHODS, "boast", boast)
    with pytest.raises(RuntimeError, match="'boast' on CRRA-v0 default: claims"):
        protocol.decide_by_method(task, "boast")


def test_an_infeasible_decision_scores_minus_one(task, monkeypatch, loose, cells):
    def half(solution):
        feasible = np.arange(len(solution.objective)) % 2 == 0
        twice = Allocation(*(x * np.where(feasible, 1.0, 2.0)[:, None] for x in vars(solution.allocation).values()))
        return dataclasses.replace(solution, allocation=twice, feasible=feasible)

    monkeypatch.setitem(crra.METHODS, "half", method_of(half))
    board = leaderboard.leaderboard(task, [competitors.solver("crra", "half")], cells)
    assert board.rows[0].feasible == 0.5
    assert board.rows[0].mean_score.value == pytest.approx(-0.5)


# --- results on disk -----------------------------------------------------------------------------------------------


def test_a_killed_benchmark_goes_on_where_it_stopped(task, monkeypatch, loose, cells):
    calls = []

    def counted(name, stop=False):
        def change(solution):
            calls.append(name)
            if stop and calls.count(name) == 1:
                raise KeyboardInterrupt
            return solution

        return method_of(change)

    monkeypatch.setitem(crra.METHODS, "first", counted("first"))
    monkeypatch.setitem(crra.METHODS, "second", counted("second", stop=True))
    chosen = [competitors.solver("crra", name) for name in ("first", "second")]
    with pytest.raises(KeyboardInterrupt):
        leaderboard.leaderboard(task, chosen, cells, single=0)
    board = leaderboard.leaderboard(task, chosen, store.Store(cells.folder), single=0)
    assert calls == ["first", "second", "second"]
    assert {row.method for row in board.rows} == {"first", "second"}
    again = leaderboard.leaderboard(task, chosen, store.Store(cells.folder), single=0)
    assert calls == ["first", "second", "second"]
    assert again == board


def test_other_options_instances_or_code_are_other_cells(cells):
    made = [cells.cell("x", {"n": n}, lambda n=n: {"value": n}) for n in (1, 2, 1)]
    assert [cell["value"] for cell in made] == [1, 2, 1]
    assert (cells.computed, cells.reused) == (2, 1)


def test_a_failed_write_leaves_no_file(cells, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        cells.cell("x", {"n": 1}, lambda: {"value": 1})
    assert list(cells.folder.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": {}, "value": {}}', '{"key": {"n": 1}}'])
def test_a_corrupt_result_is_named(cells, text):
    path = cells.path("x", {"n": 1})
    path.write_text(text)
    with pytest.raises(UserError, match=r"is corrupt.*delete it and run again") as caught:
        cells.cell("x", {"n": 1}, lambda: {"value": 1})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
