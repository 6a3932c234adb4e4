"""Pieces of the HTML report: losses of single decisions, charts, escaping, Markdown, numbers."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import Page, board

from semcom_gym import baselines
from semcom_gym.benchmarks import certificates, competitors, leaderboard, protocol, store, table
from semcom_gym.benchmarks.report import boards, decisions, files, markdown, markup, plot, speeds

# --- losses of single decisions --------------------------------------------------------------------------------------


def test_losses_are_written_and_read_back(tmp_path):
    task = protocol.task("SemCom/CRRA-v0", n=6)
    rivals = [competitors.solver("crra", name) for name in ("msr", "fra")]
    found = leaderboard.leaderboard(task, rivals, store.Store(tmp_path / "cells"))
    bound = certificates.shipped(task).bound
    for entry in found.rows:
        objective = baselines.solve("crra", task.params, task.instance, entry.method).objective
        expected = [(top - x) / abs(top) for top, x in zip(bound[:6], objective, strict=True)]
        np.testing.assert_allclose(entry.losses, [expected], rtol=1e-6)
    (tmp_path / "leaderboard.json").write_text(
        table.json_text([found], {"command": "c", "machine": {"processor": "P", "versions": {}}})
    )
    (tmp_path / "losses.csv").write_text(table.losses_csv([found]))
    (read,) = files.read(tmp_path, []).boards
    assert read.board == found
    for entry, original in zip(read.board.rows, found.rows, strict=True):
        np.testing.assert_allclose(entry.losses, original.losses, rtol=1e-4)


def test_infeasible_loses_infinitely_and_what_is_left_out_is_not_a_number():
    nan = math.nan
    base = protocol.Decisions(np.array([1.0, 1.0, nan]), np.array([True, True, False]), np.zeros(3))
    tried = protocol.Decisions(np.array([1.5, nan, 1.0]), np.array([True, False, True]), np.zeros(3))
    losses = leaderboard._losses(protocol.score([tried], base, np.array([2.0, 2.0, 2.0])))
    np.testing.assert_array_equal(losses, [[0.25, math.inf, nan]])


def test_profile_counts_decisions():
    chart = str(boards._profile(board()))
    ends = {}
    for path, kind in re.findall(r'<path d="([^"]*)" class="line (c\d) d0"', chart):
        points = [tuple(map(float, point.split())) for point in re.split("[ML]", path)[1:]]
        ends[kind] = points
    inner = plot.HEIGHT - plot.TOP - plot.BOTTOM
    share = {kind: [102.0 * (1.0 - y / inner) for _, y in points] for kind, points in ends.items()}
    assert share["c0"][-1] == pytest.approx(75.0, abs=0.1)  # one of four decisions is infeasible
    assert share["c1"][-1] == pytest.approx(100.0, abs=0.1)  # all six that count
    assert {round(value) for value in share["c0"]} == {25, 50, 75}  # from 0.1 %, the least loss, on
    assert {round(value) for value in share["c1"]} == {0, 17, 33, 50, 67, 83, 100}
    assert all(a <= b for points in share.values() for a, b in itertools.pairwise(points))


# --- pieces ----------------------------------------------------------------------------------------------------------


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_linear_ticks_lie_on_the_axis(low, size, whole):
    ticks = plot.Axis("x", low, low + size, whole=whole).ticks()
    values = [value for value, _ in ticks]
    assert values == sorted(set(values))
    assert all(low - 1e-6 * size <= value <= low + size + 1e-6 * size for value in values)
    assert len(values) <= 7
    assert whole or len(values) >= 2
    assert not whole or all(abs(value - round(value)) < 1e-6 for value in values)


@given(st.floats(-9, 6), st.floats(0.35, 12))
def test_log_ticks_lie_on_the_axis(low, decades):
    ticks = [value for value, _ in plot.Axis("x", 10.0**low, 10.0 ** (low + decades), log=True).ticks()]
    assert 1 <= len(ticks) <= 8
    assert all(low - 1e-6 <= math.log10(value) <= low + decades + 1e-6 for value in ticks)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.text("ab", min_size=1, max_size=20)), max_size=12))
def test_labels_never_overlap(points):
    chart = plot.Chart(plot.Axis("x", 0, 1), plot.Axis("y", 0, 1), "alt")
    for x, y, _ in points:
        chart.dot((x, y), "c0")
    dots = len(chart.taken)
    for x, y, name in points:
        chart.label((x, y), name, "1")
    for place, (left, top, right, bottom) in enumerate(chart.taken[dots:], dots):
        assert 0 <= left < right <= chart.inner_width
        for a, b, c, d in chart.taken[:place]:
            assert right < a or left > c or bottom < b or top > d


def test_place_on_axes():
    assert plot.Axis("x", 10, 1000, log=True).place(100) == pytest.approx(0.5)
    assert plot.Axis("x", -1, 3).place(0) == pytest.approx(0.25)
    grown = plot.axis("x", [0.0, math.nan, 0.1, 10.0], log=True, room=0.5)
    assert (grown.low, grown.high) == pytest.approx((0.01, 100.0))


def test_line_breaks_where_there_is_no_number():
    chart = plot.Chart(plot.Axis("x", 1, 10, log=True), plot.Axis("y", 0, 1), "alt")
    chart.line([(1, 0), (2, 0.5), (3, math.nan), (4, 0.5), (0, 1), (5, 0.5)], "c0")
    assert str(chart.marks[0]).count("M") == 3


@given(st.text())
def test_everything_is_escaped(text):
    found = Page(str(markup.tag("p", text, title=text)))
    assert found.tags == [("p", {"title": text})] or "\r" in text or "\0" in text
    assert len(found.tags) == 1


def test_markdown():
    source = "## A *b*\n\none `c<d`, **e** [f](g.md) [h](javascript:i) [r](#s)\ntwo\n\n* j\n  k\n* l\n\n"
    text = markdown.render(source + "|m|n|\n|-|-|\n|o\\|p|`q`|", lambda target: f"x/{target}")
    assert "<h4>A *b*</h4>" in text
    assert '<p>one <code>c&lt;d</code>, <strong>e</strong> <a href="x/g.md">f</a> h r two</p>' in text
    assert "<ul><li>j k</li><li>l</li></ul>" in text
    assert '<th scope="row">o|p</th><td><code>q</code></td>' in text


def test_what_a_pair_shares_stands_at_both_users():
    pairs = np.array([[0, 3], [1, 2]])
    np.testing.assert_array_equal(decisions._by_user(np.array([5.0, 7.0]), pairs, 4), [5, 7, 7, 5])
    np.testing.assert_array_equal(decisions._by_user(np.array([[1.0, 2.0], [3.0, 4.0]]), pairs, 4), [1, 3, 4, 2])


@pytest.mark.parametrize(
    ("value", "shown"), [(2.5, "2.5 s"), (0.0123, "12.3 ms"), (4.2e-5, "42 \N{MICRO SIGN}s"), (3e-9, "3 ns")]
)
def test_times(value, shown):
    assert boards.time(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "50.0 %"), (0.00123, "0.123 %"), (1.23e-6, "0.00012 %"), (0.0, "0.000 %")]
)
def test_percentages(value, shown):
    assert boards.percent(value) == shown


def test_speed_against_the_batch_stands_beside_what_bounds_it():
    def row(name, rate, batch=None):
        group = "scalar" if batch is None else "vector"
        return {"group": group, "name": name, "unit": "steps", "per_second": rate, "slowest": rate, "fastest": rate,
                "batch": batch}  # fmt: skip

    rows = [row("gym.make SemCom/CRRA-v0", 50.0)]
    for batch in (1, 8):
        rows.append(row(f"vector CartPole-v1 x{batch}", 1000.0 * batch, batch))
        for way, rate in (("numpy", 100.0), ("numpy pool", 200.0), ("torch cuda", 10.0)):
            rows.append(row(f"vector SemCom/CRRA-v0 {way} x{batch}", rate * batch, batch))
    bound = {"name": "SemCom/CRRA-v0", "operations": 12, "bytes": 100.0, "least_bytes": 10.0, "functions": 3.0,
             "as_written": 3200.0, "fused": 9000.0, "single": 500.0}  # fmt: skip
    core = {"copy_bytes_per_second": 1e9, "cached_bytes_per_second": 4e9, "exp_per_second": 1e9, "call_seconds": 1e-6}
    found = {"machine": {}, "repeats": 1, "seconds": 1.0, "rows": rows,
             "limits": {"batch": 8, "rates": core, "rows": [bound]}}  # fmt: skip
    page = str(speeds.section("speed.json", found))
    assert re.findall(r"Steps per second, ([a-z ]+)<", page) == ["numpy", "numpy pool", "torch cuda"]
    assert page.count('class="line') == 3 * 2 + 3 * 2  # two lines and their samples in each chart
    assert "SemCom/CRRA-v0, numpy pool" not in page
    assert "SemCom/CRRA-v0 numpy pool, 8 at once: 1,600 steps/s" in page
    line = page[page.index("What a step asks") :].split("</tr>")[1]
    assert re.findall(r"[\d,.]+ %", line) == ["50.0 %", "10.0 %"]  # 1,600 of 3,200 with a pool, 50 of 500 alone
    without = str(speeds.section("speed.json", {**found, "rows": rows[:1], "limits": None}))
    assert "Steps per second" not in without
    assert "gym.make SemCom/CRRA-v0" in without


def test_solvers_are_listed_with_their_batches_and_where_their_time_goes():
    row = {"group": "solver", "name": "fast, CRRA-v0 default", "unit": "instances", "per_second": 4e4, "slowest": 3e4,
           "fastest": 5e4, "batch": 1024}  # fmt: skip
    parts = [{"function": "baselines.crra.newton.refine", "share": 0.625}, {"function": "elsewhere", "share": 0.25}]
    found = {"machine": {}, "repeats": 5, "seconds": 0.4, "rows": [row],
             "hotspots": [{"name": row["name"], "batch": 1024, "samples": 8, "parts": parts}]}  # fmt: skip
    page = str(speeds.section("speed.json", found))
    assert re.findall(r">([^<>]+)</t[dh]>", page[page.index("<tbody") :].split("</tr>")[0]) == [
        row["name"], "1024", "40,000", "30,000 to 50,000", "instances", "25 \u00b5s",
    ]  # fmt: skip
    assert "62.5 % baselines.crra.newton.refine, 25.0 % elsewhere" in page
