"""What an expert says in the states of an agent: labels of actions, labels of choices, and where it says nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from semcom_gym import agents, baselines
from semcom_gym.agents import experts
from semcom_gym.agents.experts import Expert, Labels
from semcom_gym.agents.imitation import Answers
from semcom_gym.envs.sfma import pairs, resources

ONE_STEP = ("SemCom/CRRA-v0", "SemCom/CRRAUS-v0", "SemCom/ASCC-v0", "SemCom/Training-v0")
PAIRING = "SemCom/SFMAPairing-v0"


def vector(env_id: str, n: int, **kwargs: Any) -> Any:
    env = agents.make_vec_env(env_id, n, seed=3, dtype="float64", **kwargs)
    env.reset()
    return env.venv.unwrapped


# --- labels of actions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", ONE_STEP)
def test_labels_are_the_solver_s_decisions(env_id: str) -> None:
    venv = vector(env_id, 6)
    labels = Expert(venv, "fast").labels()
    solution = baselines.solve(venv.problem.name, venv.params, venv.instance, "fast")
    assert labels.known.all()
    reached = venv.problem.play(venv.params, venv.instance, labels.target)[0]
    sign = 1.0 if venv.problem.maximise else -1.0
    assert (sign * (reached.objective - solution.objective) >= -1e-9 * np.abs(solution.objective)).all()
    np.testing.assert_allclose(reached.objective, solution.objective, rtol=1e-6)
    assert set(np.unique(labels.weight)) <= {0.0, 1.0}


def test_stakes_are_the_dearer_of_two_nudges() -> None:
    venv = vector("SemCom/CRRA-v0", 2, num_users=3)
    action = np.full((2, 9), 0.2)
    action[1, 4] = 0.95
    found = experts.stakes(venv.problem, venv.params, venv.instance, action, 1.0)

    def reward(row: int, moved: list[float]) -> float:
        instance = venv.instance[row]
        allocation = venv.problem.decode(venv.params, instance, np.array([moved]))
        return float(venv.problem.evaluate(venv.params, instance, allocation).objective[0])

    priced = 0
    for row in range(2):
        plain = action[row].tolist()
        for entry in range(9):
            dearest = 0.0
            for step in (0.1, -0.1):
                end = min(max(plain[entry] + step, -1.0), 1.0)
                lost = reward(row, plain) - reward(row, [*plain[:entry], end, *plain[entry + 1 :]])
                dearest = max(dearest, lost / (end - plain[entry]) ** 2)
            if dearest > 0:
                assert found[row, entry] == pytest.approx(dearest, rel=1e-6)
                priced += 1
    assert priced >= 12, "of 18"


def test_entries_that_decide_nothing_do_not_count_and_switches_do() -> None:
    venv = vector("SemCom/CRRAUS-v0", 40, preset="select")
    labels = Expert(venv, "fast").labels()
    users = venv.params.num_users
    bandwidth, power, ratio, switch = labels.weight.reshape(40, 4, users).swapaxes(0, 1)
    off = labels.target.reshape(40, 4, users)[:, 3] < 0
    assert off.any()
    assert (~off).any()
    for block in (bandwidth, power, ratio):
        assert not block[off].any()
    assert ratio[~off].mean() > 0.9
    assert switch[~off].mean() > 0.9, "a small step turns no switch: the ends of the box do"


def test_no_label_where_the_solver_has_no_answer() -> None:
    venv = vector("SemCom/Training-v0", 3)
    solution = baselines.solve("training", venv.params, venv.instance, "fast")
    thin = solution.allocation.bandwidth_hz.copy()
    thin[1, 0] = 0.01 * venv.params.total_bandwidth_hz / venv.params.num_users  # below what an action reaches
    allocation = dataclasses.replace(solution.allocation, bandwidth_hz=thin)
    feasible = np.array([True, True, False])
    solution = dataclasses.replace(solution, allocation=allocation, feasible=feasible)
    actions, known = experts.encoded(venv.problem, venv.params, venv.instance, solution)
    assert known.tolist() == [True, False, False]
    np.testing.assert_array_equal(actions[0], venv.problem.encode(venv.params, venv.instance[0], allocation[0])[0])
    assert not actions[1:].any()
    answers = Answers(10)
    answers.add(np.zeros((3, 2)), Labels(actions, np.ones_like(actions), known))
    assert len(answers) == 1


# --- labels of choices ---------------------------------------------------------------------------------------------


def test_an_expert_that_is_followed_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    venv = vector(PAIRING, 4, num_users=8)
    pairing = baselines.solve("sfma", venv.params, venv.instance, "price_matching").allocation.pair
    asked = []
    solve = baselines.solve
    monkeypatch.setattr(baselines, "solve", lambda *args: asked.append(len(args[2])) or solve(*args))
    expert = Expert(venv, "price_matching")
    for step in range(venv.params.num_groups):
        labels = expert.labels()
        assert labels.known.all()
        for row in range(4):
            assert set(np.flatnonzero(labels.target[row] > 0)) == set(pairing[row, step:])
        np.testing.assert_array_equal(labels.target >= 0, venv.action_masks())
        venv.step(pairing[:, step])
    assert asked == [4]
    expert.labels()
    assert asked == [4, 4], "new episodes"


def test_after_a_mistake_the_expert_completes_as_well_as_can_be() -> None:
    venv = vector(PAIRING, 8, num_users=6)
    expert = Expert(venv, "fast")
    first = expert.labels()
    mistake = np.array([np.flatnonzero(row == 0)[0] for row in first.target])
    venv.step(mistake)
    labels = expert.labels()
    assert labels.known.sum() >= 6
    users = pairs.members(6)
    for row in np.flatnonzero(labels.known):
        free = [user for user in range(6) if user not in users[mistake[row]]]
        table = pairs.index(6)
        a, b, c, d = free
        rivals = [(table[a, b], table[c, d]), (table[a, c], table[b, d]), (table[a, d], table[b, c])]
        answer = tuple(np.flatnonzero(labels.target[row] > 0))
        assert sorted(answer) in [sorted(rival) for rival in rivals]
        pair = np.sort([[mistake[row], *rival] for rival in rivals], axis=-1)
        instance = venv.instance[np.full(3, row)]
        outcome = venv.problem.evaluate(venv.params, instance, resources.allocate(venv.params, instance, pair))
        value = np.where(outcome.feasible, outcome.objective, -np.inf)
        own = [sorted(rival) for rival in rivals].index(sorted(answer))
        assert value[own] >= 0.98 * value.max()


def test_a_solver_that_does_not_heed_the_taken_pairs_has_no_label_after_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    venv = vector(PAIRING, 3, num_users=6)
    fixed = baselines.solve("sfma", venv.params, venv.instance, "price_matching")
    monkeypatch.setattr(baselines, "solve", lambda *args: fixed)
    expert = Expert(venv, "price_matching")
    first = expert.labels()
    assert first.known.all()
    venv.step(np.array([np.flatnonzero(row == 0)[0] for row in first.target]))
    monkeypatch.setattr(
        baselines, "solve", lambda p, params, instance, m: dataclasses.replace(
            fixed, allocation=fixed.allocation[:len(instance)], feasible=fixed.feasible[:len(instance)]
        )
    )  # fmt: skip
    assert not expert.labels().known.any()
