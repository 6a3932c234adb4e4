"""Leaderboards of the Fading ids: episodes against the genie, solvers with their margins, trained agents."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines import fading
from semcom_gym.benchmarks import cli, competitors, fading_board, protocol, store, table
from semcom_gym.benchmarks.commands import ids_of
from semcom_gym.benchmarks.report import files, page

NAME = "SemCom/CRRAFading-v0"
SIZE = {"horizon": 3, "num_users": 3}


@pytest.fixture(scope="module")
def task() -> fading_board.Task:
    return fading_board.task(NAME, n=4, **SIZE)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fading_board, "KNOWN", 3)


def test_rows_are_what_playing_gives(task: fading_board.Task, tmp_path: Path) -> None:
    cells = store.Store(tmp_path)
    board = fading_board.board(task, fading_board.rivals(task, None, [], "cpu"), cells, single=1)
    assert {row.method for row in board.rows} == {
        "fast on belief", "fast on prediction", "fast on truth", "fra on belief",
    }  # fmt: skip
    assert board.rows[0].method == "fast on truth"
    assert board.rows[0].single > 0
    env = task.make(4).unwrapped
    episode = env.episodes("test", 4)
    bound = fading.genie(env, episode)
    known = env.alike(3)
    reached = {}
    for row in board.rows:
        method, sees = row.method.split(" on ")
        policy = fading.choose_margin(known, known.episodes("validation", 3), method, sees=sees)
        assert f"{row.method} {policy.margin:g}" in board.rule
        reached[row.method] = fading.play(env, episode, policy).reward.sum(axis=1)
    anchor = reached["fra on belief"]
    for row in board.rows:
        score = (reached[row.method] - anchor) / (bound - anchor)
        assert row.mean_score.value == pytest.approx(score.mean(), rel=1e-9, abs=1e-12)
        assert row.loss == pytest.approx(((bound - reached[row.method]) / bound).mean(), rel=1e-9)
        assert (row.feasible, row.n) == (1.0, 4)
    again = store.Store(tmp_path)
    assert fading_board.board(task, fading_board.rivals(task, None, [], "cpu"), again, single=1) == board
    assert again.computed == 0


def test_what_is_needed_is_all_that_is_computed(task: fading_board.Task, tmp_path: Path) -> None:
    rivals = fading_board.rivals(task, ["fra"], [], "cpu")
    cells = store.Store(tmp_path)
    cells.cells(fading_board.needed(task, rivals, 0), "work")
    made = cells.computed
    fading_board.board(task, rivals, cells, single=0)
    assert cells.computed == made


def test_other_episodes_are_other_cells(task: fading_board.Task) -> None:
    keys = [task.key()]
    for change in ({"split": "validation"}, {"n": 3}, {"scenario": "drive"}, {"penalty": 2.0}, {"max_power_w": 5e-3}):
        own = dict(change)
        n, split = own.pop("n", 4), own.pop("split", "test")
        keys.append(fading_board.task(NAME, n=n, split=split, **(SIZE | own)).key())
    assert len({key["data"] for key in keys}) == len(keys)
    assert fading_board.task(NAME, n=4, **SIZE).key() == keys[0]


def cell(reward: list[float], feasible: list[float]) -> dict[str, Any]:
    return {"reward": reward, "feasible": feasible, "seconds": [1e-3] * len(reward)}


class Forgetful:
    """A policy that only plays one episode."""

    def __init__(self, task: fading_board.Task) -> None:
        self.left = task.episode.horizon

    def __call__(self, env: Any, observation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert self.left > 0
        self.left -= 1
        return np.zeros((len(observation), env.single_action_space.shape[0]))


def test_an_agent_starts_every_episode_afresh(task: fading_board.Task, tmp_path: Path) -> None:
    rival = competitors.Competitor("A", "agent", (competitors.Run({"agent": "a"}, Forgetful, 1.0, 2.0),) * 2)
    [row] = fading_board.board(task, [rival], store.Store(tmp_path), single=1).rows
    assert (row.n, row.training_s) == (8, 1.0)
    assert row.single > 0


def test_only_a_feasible_episode_breaks_the_genie(task: fading_board.Task) -> None:
    anchor, genie = cell([1.0, 1.0], [1.0, 1.0]), np.array([2.0, 2.0])
    found = fading_board._score(task, [cell([2.5, 1.5], [0.9, 1.0])], anchor, genie)
    assert found.score.tolist() == [[1.5, 0.5]]
    assert found.loss.tolist() == [[-0.25, 0.25]]
    assert found.feasible == pytest.approx(0.95)
    with pytest.raises(protocol.BoundBrokenError):
        fading_board._score(task, [cell([2.5, 1.5], [1.0, 1.0])], anchor, genie)


def test_rewards_of_a_cost_are_scored_by_their_sign() -> None:
    cost = fading_board.task("SemCom/TrainingFading-v0", n=1, horizon=2, num_users=2)
    found = fading_board._score(cost, [cell([-3.0], [1.0])], cell([-4.0], [1.0]), np.array([2.0]))
    assert found.score.tolist() == [[0.5]]
    assert found.loss.tolist() == [[0.5]]
    with pytest.raises(protocol.BoundBrokenError):
        fading_board._score(cost, [cell([-1.9], [1.0])], cell([-4.0], [1.0]), np.array([2.0]))


def test_command_scores_a_trained_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    agents = pytest.importorskip("semcom_gym.agents")
    monkeypatch.chdir(tmp_path)
    small = {"policy_kwargs": {"width": 8, "depth": 1}}
    settings = {"timesteps": 24, "num_envs": 4, "evaluations": 1, "validation": 2, "scored": 0}
    agents.train(NAME, "apg", out="run", hyperparams=small, progress=False, **settings, **SIZE)
    sets = [f"--set={name}={value}" for name, value in SIZE.items()]
    command = ["benchmark", NAME, "--episodes", "2", *sets, "--method", "fra", "--agent", "A=run", "--out", "out"]
    assert cli.main([*command, "--json"]) == 0
    [board] = json.loads(capsys.readouterr().out)["leaderboards"]
    assert {row["kind"] for row in board["rows"]} == {"solver", "agent"}
    [row] = [row for row in board["rows"] if row["kind"] == "agent"]
    record = json.loads(Path("run/run.json").read_text())
    assert (row["method"], row["n"], row["training_decisions"]) == ("A", 2, record["timesteps"])
    text = Path("out/leaderboard.md").read_text()
    assert "2 test episodes" in text
    assert "genie" in text
    monkeypatch.setattr(page, "_cards", lambda: ([], []))
    read = files.read(Path("out"), [])
    assert read.boards[0].board.rule == board["rule"]
    assert "2 test episodes, best first" in page.build(read, Path("out"), tmp_path / "index.html")[0]


def test_all_has_the_fading_ids_with_shipped_agents() -> None:
    assert ids_of([], ["SemCom/CRRAFading-v0"]) == [*envs.IDS, "SemCom/CRRAFading-v0"]
    assert ids_of(["SemCom/SFMAFading-v0"], []) == ["SemCom/SFMAFading-v0"]
    with pytest.raises(ValueError, match="has a decision in every block"):
        ids_of(["SemCom/SFMAFading-v0"])
    assert set(fading_board.shipped_ids()) <= set(envs.FADING_IDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prove"], "has a decision in every block"),
        (["--episodes", "0"], "--episodes must be >= 1, got 0"),
        (["--set", "horizn=3"], "horizn"),
        (["--method", "fst"], "unknown crra method 'fst'"),
        (["--agent", "nobody"], "unknown algorithm 'nobody'"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["benchmark", NAME, *arguments, "--out", str(tmp_path), "--cells", str(tmp_path / "cells")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_ordinary_board_keeps_its_words(task: fading_board.Task, tmp_path: Path) -> None:
    board = fading_board.board(task, fading_board.rivals(task, ["fra"], [], "cpu"), store.Store(tmp_path), single=0)
    assert math.isnan(board.rows[0].single)
    plain = table.markdown(dataclasses.replace(board, rule=""))
    assert "4 test instances" in plain
    assert "0 = `fra on belief`, -1 = infeasible" in plain
    assert "episodes" not in plain
