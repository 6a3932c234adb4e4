"""Leaderboards: rows, times, profiles, every format of the table."""

import dataclasses
import json
import math

import numpy as np
import pytest

from semcom_gym.baselines import crra
from semcom_gym.baselines.solution import Method
from semcom_gym.benchmarks import competitors, leaderboard, protocol, singles, stats, store, table

NONE = stats.Estimate(0.0, 0.0, 0.0)


@pytest.fixture
def board(task, loose, cells):
    return leaderboard.leaderboard(task, [competitors.solver("crra", name) for name in ("equal", "fast", "fra")], cells)


def test_rows_are_ranked_and_compared_in_pairs(board):
    assert [row.method for row in board.rows] == ["fast", "fra", "equal"]
    assert board.rows[1].score.value == pytest.approx(0.0, abs=1e-9)
    assert board.rows[0].behind_first.value == 0.0
    assert board.rows[2].behind_first.high < 0


def test_every_format_of_the_table_says_the_same(board):
    text, page = table.text(board), table.markdown(board)
    for row in board.rows:
        assert f"{row.score.value:.4f}" in text
        assert f"| {row.method} | {row.score.value:.4f} |" in page
    lines = table.csv_text([board]).splitlines()
    assert len(lines) == 4
    assert lines[1].split(",")[4] == "fast"
    data = json.loads(table.json_text([board]))["leaderboards"][0]
    assert [row["method"] for row in data["rows"]] == ["fast", "fra", "equal"]
    assert data["rows"][0]["score"]["value"] == board.rows[0].score.value


def test_single_decisions_are_cells_of_their_own(task, monkeypatch, loose, cells):
    """They are asked for without the decisions of the batch being made again; a slow method is cut short."""
    sizes = []

    def run(params, instance):
        sizes.append(len(instance))
        return crra.METHODS["fra"].run(params, instance)

    monkeypatch.setitem(crra.METHODS, "first", Method(run, "test", "none"))
    chosen = [competitors.solver("crra", "first")]
    without = leaderboard.leaderboard(task, chosen, cells, single=0).rows[0]
    assert sizes == [6]
    assert math.isnan(without.single)
    timed = leaderboard.leaderboard(task, chosen, cells, single=4).rows[0]
    assert sizes == [6, 1, 1, 1, 1, 1]  # one for nothing, then four
    assert timed.single > 0
    assert timed.score == without.score
    assert timed.seconds == without.seconds
    again = leaderboard.leaderboard(task, chosen, store.Store(cells.folder), single=4)
    assert len(sizes) == 6
    assert again.rows[0] == timed
    assert len(singles.seconds(chosen[0].runs[0], task, patience_s=0.0)) == 1


def test_a_single_time_is_the_median_over_all_calls():
    assert singles.median([{"seconds": [1.0, 9.0]}, {"seconds": [2.0]}]) == 2.0


def test_training_time_is_the_mean_over_seeds(task, loose, cells):
    runs = [competitors.Run({"seed": i}, lambda t: protocol.decide_by_method(t, "fra"), 10.0 * i, 1e2) for i in (1, 2)]
    row = leaderboard.leaderboard(task, [competitors.Competitor("A", "agent", tuple(runs))], cells, single=0).rows[0]
    assert (row.training_s, row.training_decisions) == (15.0, 100.0)


def test_profiles_count_the_decisions_that_lose_at_most_so_much():
    row = leaderboard.Row("A", "agent", NONE, NONE, 0.1, 1.0, 1.0, 3, NONE, np.array([[0.1, np.inf], [0.01, np.nan]]))
    other = dataclasses.replace(row, losses=np.array([[0.2, 0.3]]))
    x, shares = leaderboard.profiles([row, other])
    for losses, share in (([0.01, 0.1, np.inf], shares[0]), ([0.2, 0.3], shares[1])):
        np.testing.assert_allclose(share, [np.mean(np.array(losses) <= at) for at in x])
    assert x[0] < 0.01
    assert x[-1] == pytest.approx(0.3)


def test_pictures_are_written(board, tmp_path):
    pytest.importorskip("matplotlib")
    from semcom_gym.benchmarks import pictures

    for draw in (pictures.scores, pictures.loss_against_time, pictures.profile):
        file = draw(board, tmp_path / f"{draw.__name__}.png")
        assert file.read_bytes().startswith(b"\x89PNG")
