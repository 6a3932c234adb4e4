"""Agents on shifted problems: the same scores as a leaderboard of the shifted task, in every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import (
    cli,
    commands_generalise,
    competitors,
    generalise,
    leaderboard,
    protocol,
    store,
    summary,
)
from semcom_gym.benchmarks.competitors import agent, solver

ASCC = "SemCom/ASCC-v0"
SHIFT = "3 users"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The command on two shifts of one id, with the shipped agent; a fast solver stands for the published algorithm."""
    pytest.importorskip("stable_baselines3")
    out = tmp_path_factory.mktemp("generalise")
    patch = pytest.MonkeyPatch()
    patch.setitem(generalise.PUBLISHED, ASCC, "mrt")  # type: ignore[arg-type]
    command = ["generalise", ASCC, "--shift", SHIFT, "power -3 dB", "-n", "4", "--slow", "2"]
    folders = ["--out", str(out / "out"), "--cells", str(out / "cells"), "--json"]
    stream = io.StringIO()
    patch.setattr("sys.stdout", stream)
    assert cli.main([*command, *folders]) == 0
    patch.undo()
    return out, json.loads(stream.getvalue())


def test_every_id_has_shifts_that_can_be_made() -> None:
    assert set(generalise.SHIFTS) == set(envs.IDS)
    for env_id in envs.IDS:
        found = generalise.tasks(env_id, None, 1, "validation")
        assert list(found) == [generalise.NONE, *generalise.SHIFTS[env_id]]
        own = found.pop(generalise.NONE)
        assert own.preset == envs.default_preset(env_id)
        for name, task in found.items():
            assert task.params != own.params, name


def test_rows_are_those_of_a_leaderboard(made: tuple[Path, dict[str, Any]]) -> None:
    """Those that decide all instances score as on a leaderboard of the shifted task, through the same cells."""
    out, found = made
    shown = {row["method"]: row for row in found["rows"] if row["shift"] == SHIFT}
    anchor = baselines.anchor("ascc")
    assert list(shown) == [anchor, "mrt", "fast", "apg"]
    task = protocol.task(ASCC, n=4, num_users=3)
    cells = store.Store(out / "cells")
    rivals = [solver("ascc", anchor), solver("ascc", "fast"), agent(task, "apg")]
    board = leaderboard.leaderboard(task, rivals, cells, single=0)
    assert cells.computed == 0
    for row in board.rows:
        assert shown[row.method]["loss"] == pytest.approx(row.loss, rel=1e-12)
        assert shown[row.method]["score"]["value"] == pytest.approx(row.score.value, rel=1e-12, abs=1e-12)
        assert shown[row.method]["n"] == row.n
    few = protocol.task(ASCC, n=2, num_users=3)
    [row] = leaderboard.leaderboard(few, [solver("ascc", "mrt")], cells, single=0).rows
    assert shown["mrt"]["n"] == 2
    assert shown["mrt"]["score"]["value"] == pytest.approx(row.score.value, rel=1e-6)


def test_every_format_says_the_same(made: tuple[Path, dict[str, Any]]) -> None:
    out, found = made
    rows = found["rows"]
    lines = list(csv.DictReader((out / "out/generalise.csv").read_text().splitlines()))
    assert [(line["shift"], line["method"]) for line in lines] == [(row["shift"], row["method"]) for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert float(line["loss"]) == row["loss"]
        assert float(line["score_low"]) == row["score"]["low"]
        assert float(line["feasible"]) == row["feasible"]
    page = (out / "out/generalise.md").read_text()
    assert page.count("\n| ") == 2 + len({row["shift"] for row in rows})
    for row in rows:
        assert f"{100 * row['loss']:.3f}" in page
    stored = json.loads((out / "out/generalise.json").read_text())
    assert stored["rows"] == rows
    assert stored["made"]["command"].startswith("semcom-gym generalise")
    assert (out / "out/generalise.png").read_bytes().startswith(b"\x89PNG")


def test_broken_decisions_are_seen() -> None:
    none = generalise.stats.Estimate(-1.0, -1.0, -1.0)
    row = generalise.Row(ASCC, "default", SHIFT, "apg", "agent", 0.1, none, none, 0.75, 4, 0.5, 0.0)
    page = generalise.markdown([row])
    assert "| 10.000 (25 % infeasible) | -1.000 |" in page
    assert f"Left out by rule: {SHIFT} 50 %" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SemCom/CRRB-v0"], "unknown environment id"),
        (["SemCom/CRRAFading-v0"], "has a decision in every block"),
        ([ASCC, "--shift", "more"], "unknown shift 'more'; valid: 2 users"),
        ([ASCC, "--agent", "nowhere"], "'nowhere' holds no training run"),
        ([ASCC, "--slow", "0"], "--slow must be >= 1"),
        ([ASCC, "-n", "0"], "must be >= 1"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["generalise", *arguments, "--out", str(tmp_path), "--cells", str(tmp_path / "cells")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_agent_is_scored_on_the_id_it_was_trained_for(tmp_path: Path, capsys: Any) -> None:
    record = {"env_id": "semcom_gym:SemCom/CRRA-v0", "algo": "apg", "seconds": 1.0, "timesteps": 2}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert cli.main(["generalise", ASCC, "--agent", f"A={tmp_path}"]) == 2
    assert "is for SemCom/CRRA-v0, which is not among the environments asked for" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text(json.dumps(record | {"env_id": ASCC}))
    assert cli.main(["generalise", "--agent", f"A={tmp_path},{other}"]) == 2
    assert "are of several environments: SemCom/CRRA-v0, SemCom/ASCC-v0" in capsys.readouterr().err


def test_shipped_agents_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every id whose own preset has one; what was varied in training is said above the tables."""
    agents = pytest.importorskip("semcom_gym.agents")
    ids = {card["env_id"] for card in agents.shipped() if (card["algo"], card["preset"]) == ("apg", "default")}
    assert ids <= set(competitors.trained_for("apg"))
    vary = {"num_users": [3, 5], "max_power_w": [1.0]}
    many = {"env_id": ASCC, "preset": "default", "algo": "apg_varied", "vary": vary}
    own = many | {"algo": "apg", "vary": None}
    monkeypatch.setattr(agents, "shipped", lambda: [own, many, many | {"env_id": "SemCom/CRRA-v0", "preset": "hard"}])
    assert competitors.trained_for("apg_varied") == [ASCC]
    task = protocol.task(ASCC, n=1)
    assert competitors.shipped(task) == ["apg"]
    text = "was trained on all combinations of `num_users` 3, 5; `max_power_w` 1.0.\n"
    assert commands_generalise._drawn(["apg", "apg_varied"]) == f"\napg_varied of ASCC-v0 {text}"
    (tmp_path / "run.json").write_text(json.dumps(many | {"algo": "apg", "seconds": 1.0, "timesteps": 2}))
    assert commands_generalise._drawn([f"A={tmp_path}"]) == f"\nA of ASCC-v0 {text}"


def test_published_algorithms_are_those_of_the_summary() -> None:
    assert generalise.PUBLISHED is summary.PUBLISHED
