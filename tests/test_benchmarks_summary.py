"""The summary of a leaderboard of everything, and the word for everything."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import cli, fading_board, summary
from semcom_gym.benchmarks.leaderboard import Leaderboard, Row
from semcom_gym.benchmarks.stats import Estimate

NONE = Estimate(0.0, 0.0, 0.0)


def row(method: str, kind: str, loss: float, seconds: float) -> Row:
    return Row(method, kind, NONE, NONE, loss, 1.0, seconds, 4, NONE, single=2 * seconds)


def board(env: str, *rows: Row) -> Leaderboard:
    return Leaderboard(f"{env} default", env, "default", "test", 4, 0.0, "fra", 0.0, "0", rows)


def test_published_methods_are_registered() -> None:
    assert list(summary.PUBLISHED) == list(envs.IDS)
    problems = {"CRRA": "crra", "CRRAUS": "crra", "SFMA": "sfma", "SFMAPairing": "sfma", "ASCC": "ascc"}
    for env_id, method in summary.PUBLISHED.items():
        name = problems.get(env_id.removeprefix("SemCom/").removesuffix("-v0"), "training")
        assert method in baselines.methods(name)


def test_summary_takes_the_published_row_and_the_first_agent() -> None:
    rows = (row("fast", "solver", 0.001, 1e-3), row("apg + 10 steps", "agent", 0.002, 2e-3),
            row("apg", "agent", 0.003, 1e-4), row("crra", "solver", 0.01, 0.5))  # fmt: skip
    nobody = board("SemCom/ASCC-v0", row("jrpb", "solver", 0.02, 0.7), row("crra", "solver", 0.1, 0.1))
    lines = summary.summary([board("SemCom/CRRA-v0", *rows), nobody])
    assert lines[0].published == rows[3]
    assert lines[0].agent == rows[1]
    assert lines[0].faster == pytest.approx(250.0)
    assert lines[0].faster_single == pytest.approx(250.0)
    assert (lines[1].published, lines[1].agent) == (nobody.rows[0], None)
    assert math.isnan(lines[1].faster)
    cells = summary.text(lines).splitlines()[-2].split()
    assert cells[2:] == [
        "crra", "1.000", "100.0", "500", "1e+03", "apg", "+", "10", "steps", "0.200", "100.0", "2", "4", "-", "250.0",
        "250.0",
    ]  # fmt: skip
    assert summary.markdown(lines).splitlines()[-1] == (
        "| SemCom/ASCC-v0 default | jrpb | 2.000 | 100.0 | 700 | 1.4e+03 | - | - | - | - | - | - | - | - |"
    )


def test_benchmark_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Every id with its own preset and its shipped agents; the fast solvers stand for the published algorithms."""
    pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "PUBLISHED", dict.fromkeys(envs.IDS, "fast"))
    monkeypatch.setattr(fading_board, "shipped_ids", list)  # their episodes take their time
    command = ["benchmark", "all", "--method", "fast", "-n", "2", "--out", "out"]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    boards, lines = found["leaderboards"], found["summary"]
    assert [entry["env"] for entry in boards] == list(envs.IDS)
    assert [entry["preset"] for entry in boards] == [envs.default_preset(env_id) for env_id in envs.IDS]
    for entry, line in zip(boards, lines, strict=True):
        rows = {kind: [r for r in entry["rows"] if r["kind"] == kind] for kind in ("solver", "agent")}
        assert line["published"]["loss"] == rows["solver"][0]["loss"]
        assert line["agent"]["loss"] == rows["agent"][0]["loss"]
        for row in entry["rows"]:
            assert row["single"] > 0
            assert (row["training_s"] is None) == (row["kind"] == "solver")
        assert line["faster"] == pytest.approx(line["published"]["seconds"] / line["agent"]["seconds"])
    page = (tmp_path / "out/leaderboard.md").read_text()
    assert page.count("\n## ") == len(envs.IDS) + 1
    assert summary.TITLE in page


def test_one_id_has_no_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["benchmark", "SemCom/ASCC-v0", "--method", "fast", "--agent", "-n", "2"]) == 0
    assert summary.TITLE not in capsys.readouterr().out
    assert cli.main(["benchmark", "every", "-n", "2"]) == 2
    assert "unknown environment id 'every'; valid: all, SemCom/CRRA-v0" in capsys.readouterr().err
