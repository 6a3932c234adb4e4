"""Figures of the training paper: what they are made of, and verdicts that follow from the data."""

import csv
import json

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines import training
from semcom_gym.benchmarks import cli, store
from semcom_gym.benchmarks.figures import sweep, training_claims
from semcom_gym.benchmarks.figures import training as training_paper

pytest.importorskip("matplotlib")


def test_constants_are_those_of_the_paper_training():
    figures = {figure.name: figure for figure in training_paper.figures()}
    assert list(figures) == [*(f"figure_{k:02d}" for k in range(3, 9)), "figure_11", "figure_12"]
    base = envs.problem("training").preset("paper")
    for name in ("figure_03", "figure_04", "figure_05"):  # their last point is Table II
        assert figures[name].lines["paper"][-1].params == base
    assert figures["figure_03"].lines["fast"][0].params.total_bandwidth_hz == 1e6
    assert figures["figure_04"].lines["fast"][0].params.max_power_w == pytest.approx(10**-2.6)
    assert figures["figure_05"].lines["random"][0].params.device_frequency_range_hz == (1e8, 1e8)
    assert [p.params.time_weight for p in figures["figure_06"].lines["paper"]] == [k / 10 for k in range(1, 10)]
    assert [p.params.num_users for p in figures["figure_07"].lines["paper"]] == [10, 20, 30, 40, 50]
    assert figures["figure_08"].lines["paper"][5].params == base
    assert figures["figure_08"].lines["paper"][-1].params.psnr_range_db == (30.0, 30.0)
    trace = figures["figure_11"].lines["paper"]
    assert [(p.x, p.method, p.options) for p in trace[:3]] == [
        (0.0, "average", {}), (0.5, "fhrho_only", {}), (1.0, "paper", {"rounds": 1})
    ]  # fmt: skip
    assert figures["figure_12"].lines["paper"][0].options == {"level": 0.01}
    assert set(figures["figure_03"].lines) <= set(training.METHODS)
    bounded = training_paper.figures("default", slow=3, bound=True)[0].lines["bound"]
    assert (bounded[0].most, bounded[0].params.num_users) == (3, 10)


def test_training_figure_has_its_panels_and_the_trace(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["figures", "training", "--only", "3", "11", "-n", "2", "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["preset"], found["bound"]) == (2, "paper", False)
    folder = tmp_path / "results/figures/training"
    assert (folder / "figure_03.png").read_bytes().startswith(b"\x89PNG")
    rows = {(r["line"], r["bandwidth [MHz]"]): r for r in csv.DictReader((folder / "figure_03.csv").open())}
    assert len(rows) == 2 * len(training_paper.SCHEMES)
    params = envs.problem("training").preset("paper")
    instance = envs.problem("training").sample_split(params, "test", 2)
    ours = training.METHODS["paper"].run(params, instance)
    terms = envs.problem("training").evaluate(params, instance, ours.allocation).terms
    row = rows["paper", "20.0"]
    assert float(row["T [s]"]) == pytest.approx(terms["time_s"].max(-1).mean(), rel=1e-12)
    assert float(row["E [J]"]) == pytest.approx(terms["energy_j"].sum(-1).mean(), rel=1e-12)
    assert float(row["weighted sum of T and E"]) == pytest.approx(ours.objective.mean(), rel=1e-12)
    page = (folder / "claims.md").read_text()
    assert "| 20 | 1.000000 | " in page
    best = training.METHODS["fast"].run(params, instance).objective
    excess = 100 * (ours.objective / best - 1)
    assert f"| paper | {ours.objective.mean():.4f} |" in page
    assert f"| {excess.mean():.2f} | {np.median(excess):.2f} | 0 |" in page
    steps = {(r["line"], r["passes (0: start, 0.5: after P3)"]): float(r["T [s]"])
             for r in csv.DictReader((folder / "figure_11.csv").open())}  # fmt: skip
    assert steps["paper", "0.0"] > 1.05 * steps["paper", "0.5"]
    assert steps["paper", "0.5"] == pytest.approx(steps["paper", "10.0"], rel=1e-9)  # it does not move


def test_all_training_claims_are_decided(tmp_path):
    """Every rule at the ends of the axes, and where nothing at all is feasible."""
    figures = training_paper.figures(quick=True)
    found = sweep.compute("training", figures, 2, store.Store(tmp_path))
    claims = training_paper.claims(found)
    assert {claim.figure for claim in claims} == {"3", "4", "5", "6", "7", "8", "9"}
    assert {claim.verdict for claim in claims} == {"yes", "partly", "no"}
    assert all(claim.ours for claim in claims)
    empty = {
        name: {
            label: sweep.Line(line.x, np.full_like(line.value, np.nan),
                              {term: np.full_like(value, np.nan) for term, value in line.terms.items()})
            for label, line in lines.items()
        }
        for name, lines in found.items()
    }  # fmt: skip
    assert {claim.verdict for claim in training_paper.claims(empty) if claim.figure != "9"} == {"no"}
    text = training_paper.appendix(found)
    assert "no instance" not in text
    assert "| 8 | average | " in text
    assert training_paper.appendix({}) == "\nEvery scheme solves every instance.\n"


def test_panels_leave_out_means_over_the_easy_instances_only():
    value = np.array([[1.0] * 10, [1.0] * 9 + [np.nan], [1.0] * 8 + [np.nan] * 2])
    lines = {"a": sweep.Line(np.arange(3.0), value)}
    ((_, _, shown, intervals),) = sweep._series(lines, sweep.SOLVED)
    assert np.isnan(shown).tolist() == [False, False, True]
    assert np.isnan(intervals[2]).all()
    ((_, _, shown, _),) = sweep._series(lines)
    assert shown == [1.0, 1.0, 1.0]


def test_what_is_measured_of_a_training_solution():
    problem = envs.problem("training")
    params = problem.preset("default", psnr_range_db=(20.0, 20.0))
    instance = problem.sample_split(params, "validation", 3)
    found = training.METHODS["paper"].run(params, instance)
    made = training_paper.measure(sweep.Point(0.0, params, "paper"), instance, found)
    a = found.allocation
    upload = a.ratio * 32e6 / (a.bandwidth_hz * np.log2(1 + a.power_w * instance.gain / (10**-20.4 * a.bandwidth_hz)))
    device = 32 * instance.device_cycles / a.device_frequency_hz + upload
    station = 32 * instance.bs_cycles / a.bs_frequency_hz
    energy = 32e-28 * instance.device_cycles * a.device_frequency_hz**2 + a.power_w * upload
    np.testing.assert_allclose(made["makespan_s"], (device + station).max(-1), rtol=1e-9)
    np.testing.assert_allclose(made["device_time_s"], device.mean(-1), rtol=1e-9)
    np.testing.assert_allclose(made["bs_time_s"], station.mean(-1), rtol=1e-9)
    np.testing.assert_allclose(made["device_energy_j"], energy.sum(-1), rtol=1e-9)
    np.testing.assert_allclose(made["energy_j"], made["device_energy_j"] + made["bs_energy_j"], rtol=1e-12)
    np.testing.assert_allclose(0.5 * (made["makespan_s"] + made["energy_j"]), found.objective, rtol=1e-9)
    np.testing.assert_array_equal(made["p4_second"], found.trace[:, 3])
    assert np.all(made["least_psnr_db"] <= made["psnr_db"])
    assert "passes" not in training_paper.measure(sweep.Point(0.0, params, "fast"), instance, found)


def cells(x, rows, **terms):
    """Lines over ``x``: label -> means, and the same for terms."""
    x = np.array(x, float)
    shaped = {
        name: {label: np.array(values, float)[:, None] for label, values in by.items()} for name, by in terms.items()
    }
    return {
        label: sweep.Line(x, np.array(values, float)[:, None], {name: by[label] for name, by in shaped.items()})
        for label, values in rows.items()
    }


def schemes(**given):
    """Means of every scheme over two points: 1 unless given."""
    labels = {*training_claims.PUBLISHED, "fast", "equal_bandwidth"}
    return {label: given.get(label, [1.0, 1.0]) for label in labels}


@pytest.mark.parametrize(
    ("rule", "means", "expected"),
    [
        ("_best_with_power", {}, "yes"),  # ties count as best
        ("_best_with_power", {"random": [0.9, 1.0]}, "partly"),
        ("_best_with_power", {"paper": [2.0, 2.0], "fast": [2.0, 2.0]}, "no"),
        ("_gap", {"paper": [1.9, 1.5]}, "no"),
        ("_gap", {"paper": [1.001, 1.5]}, "partly"),
        ("_gap", {}, "yes"),
    ],
)
def test_training_verdicts_on_the_weighted_sum(rule, means, expected):
    assert getattr(training_claims, rule)(cells((1, 2), schemes(**means))).verdict == expected


FALL, RISE = [2.0, 1.0], [1.0, 2.0]


@pytest.mark.parametrize(
    ("rule", "time", "energy", "expected"),
    [
        ("_shortest", {}, {}, "yes"),
        ("_shortest", {"pb_only": [0.5, 0.5]}, {}, "partly"),
        ("_shorter_with_power", dict.fromkeys((*training_claims.PUBLISHED, "fast"), FALL), {}, "yes"),
        ("_shorter_with_power", {"paper": FALL}, {}, "partly"),
        ("_shorter_with_power", {"paper": RISE}, {}, "no"),
        ("_power_beats_clocks", {"pb_only": [2.0, 0.9]}, {}, "partly"),
        ("_power_beats_clocks", {"pb_only": [0.9, 2.0]}, {}, "no"),
        ("_least_energy", {}, {"fast": [0.5, 0.5], "paper": [0.6, 0.6]}, "yes"),
        ("_power_only_is_short", {"pb_only": [0.9, 1.0], "pb_only_frozen": [0.9, 1.0]},
         {"pb_only": [3.0, 3.0], "pb_only_frozen": [3.0, 3.0]}, "yes"),
        ("_power_only_is_short", {"pb_only": [0.9, 1.0]}, {"pb_only": [1.05, 3.0]}, "no"),
        ("_moderate_rise", {}, {"paper": [1.0, 1.5], "fast": [1.0, 1.5]}, "yes"),
        ("_moderate_rise", {}, {"paper": [1.0, 1.5], "fast": [1.0, 0.5]}, "partly"),
        ("_stationary", {}, {}, "yes"),
        ("_stationary", {"paper": FALL}, {}, "partly"),
        ("_energy_rises_sharper", {"paper": [1.0, 1.5], "fast": [1.0, 1.5]}, {"paper": RISE, "fast": RISE}, "yes"),
        ("_costs_rise_with_psnr", {"paper": RISE, "fast": RISE}, {"paper": RISE, "fast": FALL}, "partly"),
    ],
)  # fmt: skip
def test_training_verdicts_on_time_and_energy(rule, time, energy, expected):
    lines = cells((1, 2), schemes(), makespan_s=schemes(**time), energy_j=schemes(**energy))
    assert getattr(training_claims, rule)(lines).verdict == expected


def test_training_operating_points_tell_the_two_curves_apart():
    claim = training_claims._operating_points()
    assert claim.verdict == "partly"
    assert "published_printed: 33.5" in claim.ours
    assert "corrected: 25.70 and 26.9" in claim.ours
