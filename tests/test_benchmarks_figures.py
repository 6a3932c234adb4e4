"""Figures of the papers: data, pictures, claims, and going on after a kill."""

import csv

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines import crra
from semcom_gym.benchmarks import cli, store
from semcom_gym.benchmarks.figures import crra as paper
from semcom_gym.benchmarks.figures import sweep

pytest.importorskip("matplotlib")


def line(*mean):
    """A line with these means."""
    return sweep.Line(np.arange(1.0, len(mean) + 1), np.array(mean)[:, None])


def test_every_figure_of_the_paper_is_there():
    assert [figure.name for figure in paper.figures()] == [f"figure_{k:02d}" for k in range(4, 12)]


def test_constants_are_those_of_the_paper():
    figures = {figure.name: figure for figure in paper.figures("approximate")}
    base = envs.problem("crra").preset("paper")
    point = figures["figure_07"].lines["crra"][4]
    assert (point.x, point.params.max_bandwidth_hz, point.params.max_power_w) == (20.0, 20e6, 1.0)
    assert point.params.success == "approximate"
    assert base.success == "exact"
    assert {p.params.max_power_w for p in figures["figure_06"].lines["fra"]} == {1e-3}
    chosen = figures["figure_10"].lines["crraus"][0].params
    assert (chosen.selection, chosen.service_weights) == (True, (0.2, 0.4, 0.6, 0.8))
    assert not figures["figure_10"].lines["fra"][0].params.selection
    assert [p.params.num_users for p in figures["figure_09"].lines["crra"]] == list(paper.USERS)
    assert figures["figure_05"].lines["10 MHz"][6].options == {"ratio": 0.7}


def test_one_figure_makes_csv_picture_and_claims_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["figures", "crra", "--quick", "--only", "5"]
    calls = []
    fcr = crra.METHODS["fcr"]

    def interrupted(params, instance, **options):
        calls.append(options["ratio"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fcr.run(params, instance, **options)

    monkeypatch.setitem(crra.METHODS, "fcr", crra.Method(interrupted, "fcr", "test"))
    assert cli.main(arguments) == 130
    assert "2 finished cell(s) are kept in results/cells" in capsys.readouterr().err
    assert cli.main(arguments) == 0
    assert len(calls) == 1 + 8  # four bandwidths, two ratios; only the interrupted point ran twice
    folder = tmp_path / "results/figures/crra"
    rows = list(csv.DictReader((folder / "figure_05.csv").open()))
    assert len(rows) == 8
    assert (folder / "figure_05.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "claims.md").read_text()
    assert "the best fixed ratio is 0.7 at 10 MHz and 0.8 at 20 MHz" in page
    params = envs.problem("crra").preset("paper", max_bandwidth_hz=10e6)
    instance = envs.problem("crra").sample_split(params, "test", 2)
    expected = fcr.run(params, instance, ratio=0.95).objective.mean() / params.num_users
    row = next(row for row in rows if row["line"] == "10 MHz" and row["fixed compression ratio"] == "0.95")
    assert float(row["average success probability"]) == pytest.approx(expected, rel=1e-12)


def test_infeasible_instances_are_counted_not_averaged(tmp_path):
    params = envs.problem("crra").preset("paper")
    figure = sweep.Figure("f", "t", "x", "y", {"a": (sweep.Point(1.0, params, "fra"),)}, lambda p, objective: objective)
    found = {"f": {"a": sweep.Line(np.array([1.0]), np.array([[1.0, np.nan, 3.0]]))}}
    sweep.write([figure], found, tmp_path)
    row = next(csv.DictReader((tmp_path / "f.csv").open()))
    assert (row["y"], row["instances"], row["infeasible"]) == ("2.0", "3", "1")


def test_points_shared_by_figures_are_computed_once(tmp_path):
    figures = [figure for figure in paper.figures(quick=True) if figure.name in ("figure_07", "figure_08")]
    wanted = [sweep.Figure(f.name, f.title, f.x_label, f.y_label, {"fra": f.lines["fra"]}, f.value) for f in figures]
    cells = store.Store(tmp_path)
    sweep.compute("crra", wanted, 2, cells)
    assert (cells.computed, cells.reused) == (4, 0)
    sweep.compute("crra", wanted[:1], 2, cells)
    assert (cells.computed, cells.reused) == (4, 2)


# --- verdicts follow from the data ---------------------------------------------------------------------------------


def verdict(rule, name="figure_06", **lines):
    """The verdict of a rule."""
    return rule(name, lines).verdict


def test_best_everywhere():
    rivals = {"fra": line(1.0, 2.0), "fcr": line(0.5, 1.0), "msr": line(0.1, 0.1)}
    assert verdict(paper._best_everywhere, crra=line(1.1, 2.1), **rivals) == "yes"
    assert verdict(paper._best_everywhere, crra=line(1.1, 1.9), **rivals) == "partly"
    assert verdict(paper._best_everywhere, crra=line(0.9, 1.9), **rivals) == "no"


def test_best_ratio():
    ratios = np.array([0.6, 0.7, 0.8])

    def peak(at):
        return sweep.Line(ratios, np.array([[float(o == at)] for o in ratios]))

    lines = {"10 MHz": peak(0.7), "20 MHz": peak(0.8)}
    assert paper._best_ratio("figure_05", lines).verdict == "yes"
    claim = paper._best_ratio("figure_05", {"10 MHz": peak(0.8), "20 MHz": peak(0.7)})
    assert claim.verdict == "no"
    assert "0.8 at 10 MHz, 0.7 at 20 MHz" in claim.ours


def test_gain_is_counted_over_all_points():
    lines = [{"crra": line(1.2, 1.1), "fra": line(1.0, 1.0)}, {"crra": line(1.3), "fra": line(1.0)}]
    claim = paper._gain("crra", "fra", lines, 0.15)
    assert claim.verdict == "partly"
    assert "10 % to 30 %; at least 15 % at 2 of 3 points" in claim.ours


def test_growing_and_converging():
    flat = {"fra": line(1.0, 2.0), "fcr": line(1.0, 1.5), "msr": line(0.1, 0.1)}
    assert verdict(paper._growing, crra=line(1.0, 2.0), **flat) == "yes"
    assert verdict(paper._growing, crra=line(2.0, 1.0), **flat) == "partly"
    assert verdict(paper._converging, crra=line(1.0, 2.0, 2.05)) == "yes"
    assert verdict(paper._converging, crra=line(1.0, 2.0, 2.5)) == "no"


def test_a_loss_is_no_gain_that_is_largest_somewhere():
    rivals = {"fra": line(1.0, 1.0), "fcr": line(0.5, 0.5)}
    assert verdict(paper._most_when_tight, crraus=line(1.2, 1.1), **rivals) == "yes"
    assert verdict(paper._most_when_tight, crraus=line(0.9, 0.8), **rivals) == "no"
