"""Figures of the papers: data, pictures, claims, and going on after a kill."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines import crra, sfma
from semcom_gym.baselines.solution import Bound
from semcom_gym.benchmarks import cli, store
from semcom_gym.benchmarks.figures import crra as paper
from semcom_gym.benchmarks.figures import sfma as sfma_paper
from semcom_gym.benchmarks.figures import sfma_claims, sweep

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


# --- sfma ----------------------------------------------------------------------------------------------------------


def stand_in(method, factor, infeasible=()):
    """``equal`` under another name, with its objective changed, so that a slow method costs nothing."""

    def run(params, instance, **options):
        found = sfma.heuristics.equal(params, instance)
        feasible = ~np.isin(np.arange(len(instance)), infeasible)
        return dataclasses.replace(found, objective=factor * found.objective, feasible=feasible)

    return dataclasses.replace(sfma.METHODS[method], run=run)


@pytest.fixture
def cheap(monkeypatch):
    """Every scheme of Figure 8 as a multiple of equal allocation; channel pairing fails on the second instance."""
    factors = {"paper": 1.1, "fast": 1.2, "noma": 0.8, "random_pairing": 0.6}
    for method, factor in factors.items():
        monkeypatch.setitem(sfma.METHODS, method, stand_in(method, factor))
    monkeypatch.setitem(sfma.METHODS, "channel_pairing", stand_in("channel_pairing", 0.7, infeasible=[1]))

    def prove(params, instance):
        best = sfma.heuristics.equal(params, instance)
        return Bound(1.25 * best.objective, np.full(len(instance), 0.2), best, np.zeros(len(instance)))

    monkeypatch.setattr(sfma, "prove", prove)


def test_constants_are_those_of_the_paper_sfma():
    figures = {figure.name: figure for figure in sfma_paper.figures("tight", slow=7)}
    assert list(figures) == [f"figure_{k:02d}" for k in range(5, 9)]
    base = envs.problem("sfma").preset("tight")
    point = figures["figure_05"].lines["paper"][5]
    assert (point.x, point.params, point.most) == (30.0, base, 7)
    assert figures["figure_05"].lines["fast"][0].params.max_power_w == pytest.approx(0.1)
    assert figures["figure_05"].lines["fast"][-1].params.max_power_w == pytest.approx(10**0.4)
    assert figures["figure_05"].lines["fdma"][0].most is None
    assert [p.params.num_users for p in figures["figure_06"].lines["equal"]] == [6, 8, 10, 12, 14, 16]
    assert [p.params.max_bandwidth_hz for p in figures["figure_07"].lines["equal"]][::3] == [4e6, 10e6, 16e6]
    for label in (sfma_claims.NOMA_FAST, sfma_claims.CHANNEL_FAST):
        assert figures["figure_08"].lines[label][1].options == {"solver": "fast"}
    drawn = {name for name, figure in figures.items() if "bound" in figure.lines}
    assert drawn == {"figure_08"}
    assert all("bound" in figure.lines for figure in sfma_paper.figures(bound=True))
    for figure in figures.values():
        for label, numbers in figure.printed.items():
            assert set(numbers) <= {point.x for point in figure.lines[label]}


def test_sfma_figure_has_both_counts_printed_numbers_and_what_the_sum_rate_hides(tmp_path, cheap, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["figures", "sfma", "--only", "8", "-n", "3", "--slow", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["slow"], found["preset"]) == (3, 2, "default")
    folder = tmp_path / "results/figures/sfma"
    assert (folder / "figure_08.png").read_bytes().startswith(b"\x89PNG")
    rows = {(row["line"], row["users"]): row for row in csv.DictReader((folder / "figure_08.csv").open())}
    assert len(rows) == 10 * 2
    paper, fast, channel, fdma = (rows[name, "10.0"] for name in ("paper", "fast", "channel_pairing", "fdma"))
    assert [row["instances"] for row in (paper, fast, channel)] == ["2", "3", "2"]
    assert [row["infeasible"] for row in (paper, fast, channel)] == ["0", "0", "1"]
    assert [row["printed"] for row in (paper, fast, channel)] == ["90.5", "", "68.9"]
    params = envs.problem("sfma").preset("default")
    instance = envs.problem("sfma").sample_split(params, "test", 3)
    equal = sfma.heuristics.equal(params, instance)
    rates = envs.problem("sfma").evaluate(params, instance, equal.allocation).terms["min_rate_mbit_s"]
    assert float(fast["sum rate [Mbit/s]"]) == pytest.approx(1.2 * equal.objective.mean(), rel=1e-12)
    assert float(fast["standard deviation"]) == pytest.approx(1.2 * equal.objective.std(ddof=1), rel=1e-12)
    assert float(fast["min_rate_mbit_s"]) == pytest.approx(rates.mean(), rel=1e-12)
    assert float(channel["sum rate [Mbit/s]"]) == pytest.approx(0.7 * equal.objective[0], rel=1e-12)
    assert float(channel["min_rate_mbit_s"]) == pytest.approx(rates[0], rel=1e-12)
    assert fdma["min_rate_mbit_s"] == ""
    page = (folder / "claims.md").read_text()
    assert "3 test instances (2 for `paper`" in page
    assert "paper: 10 % and 10 %; fast: 20 % and 20 %" in page
    assert f"| fast | {1.2 * equal.objective.mean():.1f} |" in page
    assert "| 8 | channel_pairing | 8: 50, 10: 50 |" in page


def test_all_sfma_claims_are_decided(tmp_path, cheap):
    """Every rule on every figure at the ends of the axes, and where nothing at all is feasible."""
    figures = sfma_paper.figures(slow=2, quick=True)
    found = sweep.compute("sfma", figures, 2, store.Store(tmp_path))
    claims = sfma_paper.claims(found)
    assert len(claims) == 25
    assert {claim.figure for claim in claims} == {"5", "6", "7", "8"}
    empty = {
        name: {label: sweep.Line(line.x, np.full_like(line.value, np.nan)) for label, line in lines.items()}
        for name, lines in found.items()
    }
    assert {claim.verdict for claim in sfma_paper.claims(empty)} == {"no"}
    assert "no instance" not in sfma_paper.appendix(found)
    assert sfma_paper.appendix({}) == "\nEvery scheme solves every instance.\n"


def rated(x, **rates):
    """Lines over ``x`` with these means; what the fast solver makes is as Algorithm 4's unless it is named."""
    for name, by_fast in sfma_claims.BY_FAST.items():
        if name in rates:
            rates.setdefault(by_fast, rates[name])
    x = np.array(x, float)
    return {name: sweep.Line(x, np.array(values, float)[:, None]) for name, values in rates.items()}


def test_gain_is_over_the_instances_that_both_solve():
    one = sweep.Line(np.array([1.0]), np.array([[2.0, 4.0, np.nan]]))
    other = sweep.Line(np.array([1.0]), np.array([[1.0, np.nan, 1.0, 100.0]]))
    assert sweep.gain(one, other, 1.0) == 1.0
    assert sweep.gain(other, one, 1.0) == -0.5
    nothing = sweep.Line(np.array([1.0]), np.array([[np.nan]]))
    assert np.isnan(sweep.gain(one, nothing, 1.0))


def test_sfma_best_everywhere_passes_over_rivals_that_fail():
    rivals = {"equal": [np.nan, 1.0], "fdma": [0.9, 0.9], "channel_pairing": [0.1, 0.1], "noma": [0.5, 0.5]}
    claim = sfma_claims._best_everywhere(rated([20, 34], paper=[1.0, 1.1], fast=[1.0, 1.2], **rivals))
    assert claim.verdict == "yes"
    assert "paper: least gain 10 %, over equal at 34 dBm" in claim.ours
    claim = sfma_claims._best_everywhere(rated([20, 34], paper=[0.8, 1.1], fast=[1.0, 1.2], **rivals))
    assert claim.verdict == "partly"


@pytest.mark.parametrize(
    ("rule", "x", "rates", "expected"),
    [
        ("_over_equal", (20, 34), {"paper": [1.5, 1.0], "fast": [1.55, 1.05], "equal": [1.0, 1.0]}, "yes"),
        ("_over_equal", (20, 34), {"paper": [1.3, 1.0], "fast": [2.0, 1.0], "equal": [1.0, 1.0]}, "partly"),
        ("_over_equal", (20, 34), {"paper": [1.3, 1.2], "fast": [2.0, 1.2], "equal": [1.0, 1.0]}, "no"),
        ("_order", (30,), {"paper": [5], "equal": [4], "fdma": [3], "channel_pairing": [2], "noma": [1]}, "yes"),
        ("_order", (30,), {"paper": [3.5], "fast": [5], "equal": [4], "fdma": [3], "channel_pairing": [2], "noma": [1]},
         "partly"),
        ("_order", (30,), {"paper": [1], "equal": [2], "fdma": [3], "channel_pairing": [4], "noma": [5]}, "no"),
        ("_decline", (6, 16), {"paper": [100, 85], "fast": [100, 91]}, "yes"),
        ("_decline", (6, 16), {"paper": [100, 85], "fast": [100, 101]}, "partly"),
        ("_decline_of_noma", (6, 16), {"noma": [100, 80]}, "no"),
        ("_constant", (6, 16), {"fdma": [76, 77]}, "yes"),
        ("_constant", (6, 16), {"fdma": [76, 80]}, "no"),
        ("_crossover_of_users", (6, 16), {"paper": [1.22, 1.04], "fast": [1.22, 1.2], "fdma": [1, 1]}, "partly"),
        ("_crossover_of_bandwidth", (4, 8), {"paper": [0.9, 1.1], "fast": [0.8, 1.2], "fdma": [1, 1]}, "yes"),
        ("_crossover_of_bandwidth", (4, 8), {"paper": [1.1, 1.2], "fast": [0.5, 0.9], "fdma": [1, 1]}, "no"),
        ("_widening", (6, 8, 10), {"paper": [1, 1.1, 1.2], "fast": [1, 1.2, 1.1], "fdma": [1, 1, 1]}, "partly"),
        ("_noma_over_fdma", (16,), {"noma": [110], "fdma": [109]}, "yes"),
        ("_channel_below_fdma", (20, 34), {"channel_pairing": [1, 3], "fdma": [2, 2]}, "partly"),
        ("_channel_last", (10,), {"paper": [5], "equal": [4], "fdma": [3], "channel_pairing": [1], "noma": [2]}, "yes"),
    ],
)  # fmt: skip
def test_sfma_verdicts_follow_from_the_data(rule, x, rates, expected):
    assert getattr(sfma_claims, rule)(rated(x, **rates)).verdict == expected


def test_sfma_levels_are_within_six_percent():
    printed = {label: numbers[10] for label, numbers in sfma_claims.PRINTED["figure_08"].items()}
    near, far = ({label: [factor * rate] for label, rate in printed.items()} for factor in (1.05, 1.07))
    assert sfma_claims._levels_of_pairings(rated([10], **near)).verdict == "yes"
    assert sfma_claims._levels_of_pairings(rated([10], **far)).verdict == "no"
    claim = sfma_claims._levels_of_pairings(rated([10], fast=[91], **far))
    assert claim.verdict == "partly"
    assert "paper 96.8 (by fast 91.0)" in claim.ours
    assert "within 6 %: 0 of 5, by fast 1" in claim.ours


def test_sfma_deviation_is_of_the_instances():
    values = {"paper": [1.0, 2.0], "fast": [1.0, 2.0], "equal": [1.0, 3.0]}
    lines = {label: sweep.Line(np.array([10.0]), np.array([row])) for label, row in values.items()}
    claim = sfma_claims._deviation(lines)
    assert claim.verdict == "yes"
    assert "paper 0.7, fast 0.7, equal 1.4" in claim.ours
