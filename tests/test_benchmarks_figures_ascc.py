"""Figures of the MU-ASCC paper: data, pictures, claims."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines import ascc
from semcom_gym.baselines.solution import Bound
from semcom_gym.benchmarks import cli, protocol, store
from semcom_gym.benchmarks.figures import ascc as paper
from semcom_gym.benchmarks.figures import ascc_claims as rules
from semcom_gym.benchmarks.figures import sweep
from semcom_gym.envs import curve

pytest.importorskip("matplotlib")
ASCC = envs.problem("ascc")


@pytest.fixture
def cheap(monkeypatch):
    """``equal_mmse`` in place of what solves, and a bound below it."""
    for name in ("jrpb", "fast"):
        monkeypatch.setitem(ascc.METHODS, name, dataclasses.replace(ascc.METHODS["equal_mmse"], summary="stand-in"))

    def prove(params, instance):
        best = ascc.heuristics.equal_mmse(params, instance)
        return Bound(0.8 * best.objective, np.full(len(instance), 0.25), best, np.zeros(len(instance)))

    monkeypatch.setattr(ascc, "prove", prove)


def rows_of(path):
    return list(csv.DictReader(path.open()))


def test_constants_are_those_of_the_paper():
    figures = {figure.name: figure for figure in paper.figures()}
    panels = [f"{panel}_L{length}" for length in (256, 4096) for panel in "abc"]
    assert list(figures) == ["figure_04a", "figure_04c", *(f"figure_07{x}" for x in panels), "figure_08_L256",
                             "figure_08_L4096", *(f"figure_09{x}" for x in panels)]  # fmt: skip
    base = ASCC.preset("paper")
    point = figures["figure_07a_L256"].lines["jrpb"][4]
    assert (point.x, point.params.blocklength, point.params.weights) == (8.0, 256, (0.8, 0.2))
    assert point.params.max_power_w == pytest.approx(10**0.8)
    assert point.params.channel_matrix == base.channel_matrix
    assert figures["figure_07b_L4096"].lines["fast"][0].params.blocklength == 4096
    assert {"bound" in figure.lines for name, figure in figures.items() if "a_L" in name} == {True}
    assert not any("bound" in figure.lines for name, figure in figures.items() if "a_L" not in name)
    ratio = figures["figure_09c_L256"].lines["equal_mmse"][4]
    assert (round(ratio.x, 4), ratio.params.channel_uses, ratio.params.max_power_w) == (0.0356, 28000.0, 3.0)
    weights = [point.params.weights for point in figures["figure_08_L256"].lines["fast"]]
    assert (0.8, 1 - 0.8) in weights
    assert len(weights) == 21
    assert len(figures["figure_08_L256"].lines["zf_wf_bpg"]) == 1
    trained = {name: figures[name].lines["zf_wf_djscc"][0].options["curves"][0] for name in figures if "_L" in name}
    assert {x for name, x in trained.items() if name.startswith("figure_08")} == {"synthetic_djscc_data_matched"}
    assert {x for name, x in trained.items() if "08" not in name} == {"synthetic_djscc_data_10db"}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("figure_05", "5"),
        ("figure_11", "11"),
        ("figure_07a_L256", "7a"),
        ("figure_08_L4096", "8"),
        ("figure_04c", "4c"),
    ],
)
def test_number_of_a_panel(name, number):
    assert sweep.number(name) == number


def test_a_preset_with_a_fixed_channel_has_a_fingerprint():
    params = ASCC.preset("paper")
    other = dataclasses.replace(params, channel_matrix=((1, 2j), (2, 1)))
    assert protocol.fingerprint(params, ASCC.sample_split(params, "test", 1)) != protocol.fingerprint(
        other, ASCC.sample_split(params, "test", 1)
    )
    assert store.plain({"h": (1 - 2j, np.complex128(3.0))}) == {"h": [[1.0, -2.0], [3.0, 0.0]]}


@pytest.mark.parametrize("method", ["equal_mmse", "zf_wf_fixed", "zf_wf_bpg", "zf_wf_djscc"])
def test_qualities_of_users_make_up_the_objective(method):
    params = ASCC.preset("paper")
    instance = ASCC.sample_split(params, "test", 1)
    options = {"zf_wf_bpg": {"tables": ascc.schemes.BPG_TABLES}, "zf_wf_djscc": {"curves": ascc.schemes.MATCHED_CURVES}}
    point = sweep.Point(1.0, params, method, options.get(method, {}))
    found = ascc.METHODS[method].run(params, instance, **point.options)
    quality = paper.users(point, instance, found)
    weighted = 0.8 * (1 - quality["ms_ssim"]) + 0.2 * (1 - quality["accuracy"])
    np.testing.assert_allclose(weighted, found.objective, rtol=1e-12)


def test_qualities_are_means_over_the_users_of_a_kind():
    params = ASCC.preset("default", num_users=3, num_data_users=2)
    instance = ASCC.sample_split(params, "test", 2)
    found = ascc.heuristics.mrt(params, instance)
    harm = ASCC.evaluate(params, instance, found.allocation).terms["distortion"]
    quality = paper.users(sweep.Point(1.0, params, "mrt"), instance, found)
    np.testing.assert_allclose(quality["ms_ssim"], 1 - (harm[:, 0] + harm[:, 1]) / 2, rtol=1e-12)
    np.testing.assert_allclose(quality["accuracy"], 1 - harm[:, 2], rtol=1e-12)


def test_all_panels_are_made_and_hold_what_the_schemes_reach(tmp_path, cheap, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["figures", "ascc", "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 1
    folder = tmp_path / "results/figures/ascc"
    assert len(list(folder.glob("*.png"))) == len(list(folder.glob("*.csv"))) == 16
    params = ASCC.preset("paper", max_power_w=10**0.8, blocklength=4096)
    instance = ASCC.sample_split(params, "test", 1)
    expected = ascc.METHODS["zf_wf_djscc"].run(params, instance).objective[0]
    row = next(
        row for row in rows_of(folder / "figure_07a_L4096.csv")
        if (row["line"], row["power budget [dBW]"]) == ("zf_wf_djscc", "8.0")
    )  # fmt: skip
    assert float(row["weighted distortion"]) == pytest.approx(expected, rel=1e-12)
    region = rows_of(folder / "figure_08_L256.csv")
    assert [row["weight of the data user"] for row in region if row["line"] == "fast"] == ["0.2", "0.8"]
    assert {"ms_ssim", "accuracy of the semantic user"} <= set(region[0])
    page = (folder / "claims.md").read_text()
    assert "Designed, not measured: `synthetic_data`" in page
    assert "## Every scheme at 8 dBW" in page
    assert "| equal_mmse | 0.0664 | 25.00 | 0.9778 | 0.7566 |" in page
    # 0.1034 of BPG, 0.0791 of our codecs at its code rates, 0.0664 of the best codecs, and as much of the stand-in
    assert "| L = 256 | 23.5 | 12.2 | 0.0 | 35.7 |" in page
    assert {claim["figure"] for claim in found["claims"]} == {"4a", "4c", "7a", "7b, c", "8", "9a", "9b, c"}


def test_panels_share_their_points_and_are_chosen_by_number(tmp_path, cheap, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["figures", "ascc", "--quick", "--only", "9"]) == 0
    names = {path.stem for path in (tmp_path / "results/figures/ascc").glob("*.csv")}
    assert names == {f"figure_09{panel}_L{length}" for panel in "abc" for length in (256, 4096)}
    assert len(list((tmp_path / "results/cells").iterdir())) == 2 * 2 * 8  # ends, blocklengths, lines
    capsys.readouterr()
    assert cli.main(["figures", "ascc", "--quick", "--only", "5"]) == 2
    assert "unknown figure 5; valid: 4, 7, 8, 9" in capsys.readouterr().err


def own(path, name, **changes):
    """A copy of a shipped curve with other points or parameters."""
    data = json.loads((Path(curve.__file__).parent / "ascc" / "curves" / f"{name}.json").read_text()) | changes
    path.write_text(json.dumps(data))
    return str(path)


def test_measured_points_and_a_second_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    points = [[2400.0, -4.0, 0.35], [2400.0, -6.0, 0.21], [9073.0, -4.0, 0.5]]  # the last codec is not drawn
    data = own(tmp_path / "d.json", "synthetic_data", points=points, kind="measured")
    arguments = ["figures", "ascc", "--tables", "synthetic_data", "synthetic_semantic", data, "synthetic_semantic"]
    assert cli.main([*arguments, "--only", "5"]) == 0
    rows = rows_of(tmp_path / "results/figures/ascc/figure_05a.csv")
    measured = [row for row in rows if row["line"].startswith("measured")]
    assert {row["line"] for row in measured} == {"measured R_s = 2400 bit"}
    assert [(float(row["log10 of the bit error rate"]), float(row["1 - MS-SSIM"])) for row in measured] == [
        (-4.0, 0.35), (-6.0, 0.21)
    ]  # fmt: skip
    fit = next(
        row for row in rows if row["line"] == "R_s = 2400 bit" and float(row["log10 of the bit error rate"]) == -4
    )
    slope = 0.2 + 0.6 / (1 + np.exp(-3 * (-4 - (np.log10(0.059 / 2400) + np.log(19) / 3))))
    assert float(fit["1 - MS-SSIM"]) == pytest.approx(slope, rel=1e-3)
    capsys.readouterr()
    bad = own(tmp_path / "b.json", "synthetic_data", points=[[1.0, 2.0]])
    assert cli.main([*arguments[:-2], bad, "synthetic_semantic"]) == 2
    assert "a point must be [rate_bit" in capsys.readouterr().err


def test_measured_curves_of_the_benchmarks_are_used_where_they_cover(tmp_path, cheap):
    table = {"channel_uses": [28000.0], "snr_db": [0.0, 1.0], "distortion": [[0.5, 0.5]]}
    djscc = own(tmp_path / "q.json", "synthetic_djscc_data_10db", parameters=table, kind="measured")
    figures = {f.name: f for f in paper.figures(djscc=(djscc,) * 4, quick=True)}
    assert [point.params.channel_uses for point in figures["figure_09a_L256"].lines["zf_wf_djscc"]] == [28000.0]
    found = sweep.compute("ascc", [figures["figure_07a_L256"]], 1, store.Store(tmp_path / "cells"))
    np.testing.assert_allclose(found["figure_07a_L256"]["zf_wf_djscc"].mean, 0.5)
    own(tmp_path / "q.json", "synthetic_djscc_data_10db", parameters=table | {"distortion": [[0.4, 0.4]]})
    paper._load.cache_clear()
    again = {f.name: f for f in paper.figures(djscc=(djscc,) * 4, quick=True)}
    found = sweep.compute("ascc", [again["figure_07a_L256"]], 1, store.Store(tmp_path / "cells"))
    np.testing.assert_allclose(found["figure_07a_L256"]["zf_wf_djscc"].mean, 0.4)  # not the stored 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tables", "synthetic_data"], "tables must be two curves, or four"),
        (["--tables", "synthetic_dat", "synthetic_semantic"], "unknown ascc curve 'synthetic_dat'"),
        (["--bpg", "synthetic_bpg_data", "synthetic_djscc_data_10db"], "lacks the parameters rate_bit"),
        (["--djscc", *["synthetic_bpg_data"] * 4], "lacks the parameters channel_uses"),
        (["--success", "exact"], "figures ascc: unknown argument 'success'; valid: tables, bpg, djscc"),
    ],
)
def test_bad_arguments_are_named(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["figures", "ascc", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_curves_that_cover_nothing_are_named(tmp_path):
    table = {"channel_uses": [100.0], "snr_db": [0.0, 1.0], "distortion": [[0.5, 0.5]]}
    djscc = own(tmp_path / "q.json", "synthetic_djscc_data_10db", parameters=table)
    with pytest.raises(ValueError, match="cover none of the channel uses"):
        paper.figures(djscc=(djscc,) * 4)


# --- verdicts follow from the data ---------------------------------------------------------------------------------


def lines(x, **means):
    """Lines over ``x`` with these means; the two joint ones are alike unless both are named."""
    if "fast" in means:
        means.setdefault("jrpb", means["fast"])
    return {name: sweep.Line(np.array(x, float), np.array(values, float)[:, None]) for name, values in means.items()}


def test_reductions():
    def at_8(fast, jrpb=None):
        means = {"fast": [1.0, fast], "zf_wf_bpg": [1.0, 1.0], "zf_wf_djscc": [1.0, 0.6015 / 0.7037]}
        return lines([0, 8], **means, **({} if jrpb is None else {"jrpb": [1.0, jrpb]}))

    claim = rules._reductions(at_8(0.6015), 256)
    assert claim.verdict == "yes"
    assert "fast: 39.8 % below zf_wf_bpg, 29.6 % below zf_wf_djscc" in claim.ours
    assert rules._reductions(at_8(0.6015, jrpb=0.9), 256).verdict == "partly"
    assert rules._reductions(at_8(0.9), 256).verdict == "no"


def panels(name, x=(0, 2), **means):
    return {f"{name}{panel}_L{length}": lines(x, **means) for panel in "abc" for length in (256, 4096)}


def test_lowest_and_cliff():
    good = panels("figure_07", fast=[0.1, 0.08], zf_wf_bpg=[0.8, 0.1], zf_wf_djscc=[0.2, 0.15])
    assert rules._lowest("figure_07", good).verdict == "yes"
    assert "fast: at least 20 % below both" in rules._lowest("figure_07", good).ours
    assert rules._no_cliff(good).verdict == "yes"
    bad = panels("figure_07", fast=[0.9, 0.3], zf_wf_bpg=[0.8, 0.5], zf_wf_djscc=[0.2, 0.15])
    assert rules._lowest("figure_07", bad).verdict == "partly"
    assert rules._no_cliff(bad).verdict == "no"


def test_qualities_at_nearly_all_points():
    better = panels("figure_09", fast=[0.9, 0.95], zf_wf_bpg=[0.8, 0.9], zf_wf_djscc=[0.8, 0.9])
    assert rules._qualities("figure_09", better).verdict == "yes"
    assert "fast: at 16 of 16 points" in rules._qualities("figure_09", better).ours
    assert rules._less_bandwidth(better).verdict == "yes"
    worse = panels("figure_09", fast=[0.8, 0.85], jrpb=[0.9, 0.95], zf_wf_bpg=[0.8, 0.9], zf_wf_djscc=[0.8, 0.9])
    assert rules._qualities("figure_09", worse).verdict == "partly"
    claim = rules._less_bandwidth(worse)
    assert claim.verdict == "partly"
    assert "fast, 9b, 256: none of 2" in claim.ours


def region(*qualities):
    """A line of (MS-SSIM, accuracy) over the weights."""
    ms_ssim, accuracy = np.array(qualities, float).T[:, :, None]
    return sweep.Line(np.linspace(0.2, 0.8, len(qualities)), accuracy, {"ms_ssim": ms_ssim, "accuracy": accuracy})


def test_gains_and_region():
    bpg, djscc = region((0.96, 0.5)), region((0.97, 0.9))
    ours = region((0.96, 0.8), (0.974, 0.71), (0.98, 0.4))
    found = {"fast": ours, "jrpb": ours, "zf_wf_bpg": bpg, "zf_wf_djscc": djscc}
    claim = rules._gains(found, "zf_wf_bpg")
    assert claim.verdict == "yes"
    assert "fast: +0.0140 and +21.0 points at weight 0.5" in claim.ours
    assert rules._gains(found | {"jrpb": region((0.97, 0.5))}, "zf_wf_bpg").verdict == "partly"
    assert rules._gains(found, "zf_wf_djscc").verdict == "no"
    claim = rules._region({"figure_08_L256": found})
    assert claim.verdict == "partly"
    assert "fast, 256: zf_wf_djscc out of reach" in claim.ours


def test_longer_blocks():
    short, long = (region((0.9, 0.5), (0.95, 0.4)), region((0.9, 0.6), (0.96, 0.4)))
    regions = {f"figure_08_L{length}": {"fast": line, "jrpb": line} for length, line in ((256, short), (4096, long))}
    assert rules._longer_blocks(regions).verdict == "yes"
    assert "fast: +0.0080 to +0.0800" in rules._longer_blocks(regions).ours
    turned = {"figure_08_L256": regions["figure_08_L4096"], "figure_08_L4096": regions["figure_08_L256"]}
    assert rules._longer_blocks(turned).verdict == "no"
    assert rules._longer_blocks({"figure_08_L256": regions["figure_08_L256"]}).verdict == "no"


def test_thresholds_and_robustness():
    x = np.linspace(-8, -1, 141)

    def fit(midpoint, source):
        return sweep.Line(x, (source + 0.5 / (1 + np.exp(-4 * (x - midpoint))))[:, None])

    shift = np.log(19) / 4
    found = {"R_s = 6507 bit": fit(-5 + shift, 0.4), "R_s = 56481 bit": fit(-6 + shift, 0.2)}
    assert rules._thresholds(found).verdict == "yes"
    assert rules._robust("figure_05c", found).verdict == "yes"
    assert rules._robust("figure_05c", found).figure == "5c"
    found = {"R_s = 6507 bit": fit(-6.5 + shift, 0.4), "R_s = 56481 bit": fit(-6 + shift, 0.2)}
    assert rules._thresholds(found).verdict == "partly"
    assert rules._robust("figure_05c", found).verdict == "partly"
