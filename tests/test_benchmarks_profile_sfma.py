"""The profile of SC-SFMA, from images to curve files that environment and schemes read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from PIL import Image

from semcom_gym import envs
from semcom_gym.baselines.sfma import schemes
from semcom_gym.benchmarks import cli, profile_sfma, profile_sfma_cells, profile_sfma_curves
from semcom_gym.transceivers import checkpoint
from semcom_gym.transceivers.sfma import interference, measure, pairs, training
from semcom_gym.transceivers.sfma.network import SCHEMES, Config

torch.set_num_threads(1)
PHOTOS = Path(__file__).parent / "fixtures" / "images"
TINY = training.Size(
    Config(channels=8, depths=(1, 1, 1), heads=(1, 1, 2), window=4, width=8), side=32, pairs=64, batch=16, pool=100,
    tested=12, learning_rate=3e-3,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parts of the committed photographs, 24 scenes, and a grid of a few points."""
    (tmp_path / "pictures").mkdir()
    for path in sorted(PHOTOS.glob("*.png")):
        with Image.open(path) as picture:
            for k in range(6):
                left, top = 40 * (k % 3), 64 * (k // 3)
                picture.crop((left, top, left + 48, top + 64)).save(tmp_path / "pictures" / f"{path.stem}{k}.png")
    monkeypatch.setitem(training.SIZES, "small", TINY)
    monkeypatch.setattr(training, "FOLLOWED", 10)
    for module in (profile_sfma_cells, profile_sfma_curves):
        monkeypatch.setattr(module, "SNRS_DB", (-5.0, 1.0, 7.0, 13.0))
        monkeypatch.setattr(module, "SHARES", (0.125, 0.5, 1.0))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def profile(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["profile", "sfma", "--images", "pictures", "--out", "out", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_from_images_to_curves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "digital.csv").write_text("scheme,snr_db,psnr_db\nHEVC,0,10\nHEVC,10,30\n")
    shown = ("--shown", str(PHOTOS / "coffee.png"), str(PHOTOS / "cat.png"), "--digital", "digital.csv")
    code, out, err = profile(capsys, *shown, "--json")
    assert code == 0, err
    report = json.loads(out)
    trained = {scheme: training.load(folder / "out" / f"network_{scheme}.pt") for scheme in SCHEMES}
    assert {scheme: part["weights_sha256"] for scheme, part in report["schemes"].items()} == {
        scheme: item.weights_sha256 for scheme, item in trained.items()
    }
    check_psnr(folder, trained)
    check_interference(folder)
    check_profiles(folder)
    check_rates(folder)
    check_gain(folder, report)
    assert [row["scheme"] for row in report["shown"]] == list(SCHEMES)
    assert all(len(row["psnr_db"]) == len(row["ms_ssim"]) == 2 for row in report["shown"])
    assert {row["variant"] for row in rows(folder / "out" / "ms_ssim.csv")} == {"ms_ssim_M3w7"}
    assert all(0 <= row["leakage"] < 1 for row in report["leakage"])
    for name in ("interference", "quality", "users"):
        assert (folder / "out" / f"{name}.png").stat().st_size > 10_000
    assert set(report["files"]) <= {path.name for path in (folder / "out").iterdir()}
    kept = {path: path.read_bytes() for path in (folder / "out").rglob("*.*") if path.is_file()}
    code, out, _ = profile(capsys, *shown)  # nothing is left to do
    assert code == 0
    assert "SC-SFMA over swinjscc_noma, random: " in out
    assert "power of the two signals' sum before it is made 1" in out
    assert {path: path.read_bytes() for path in kept} == kept
    code, _, err = profile(capsys, "--train-images", "1280")
    assert (code, err.count("\n")) == (2, 1)
    assert "was made with training" in err


def check_psnr(folder: Path, trained: dict[str, training.Trained]) -> None:
    found = rows(folder / "out" / "psnr.csv")
    assert len(found) == (5 + 5 + 1 + 2) * 4 * 3
    pool = pairs.scenes(["pictures"], "test", 32, 120, 0)
    drawn = pairs.sample(pool, "random", np.random.default_rng([0, 2]), 12, 32)
    row = next(r for r in found if (r["scheme"], r["snr_db"], r["share"]) == ("swinjscc_oma", "7", "0.5"))
    mse, power = measure.errors(trained["swinjscc_oma"].network, drawn, 7.0, 0.5)
    assert float(row["psnr_db"]) == pytest.approx(float(-10 * torch.log10(mse[:, 0]).mean()), rel=1e-5)
    assert float(row["power"]) == pytest.approx(float(power.mean()), rel=1e-5)
    assert float(row["cbr"]) == pytest.approx(16 / (3 * 8 * 8), rel=1e-5)  # 16 of 32 real channels of 8 x 8 pixels


def check_interference(folder: Path) -> None:
    """rho of the table, put into (11), gives the SNR at which the reference has that distortion."""
    found = rows(folder / "out" / "interference.csv")
    assert len(found) == 2 * 5 * 2 * 4 * 3  # schemes, kinds, references, SNRs, ratios
    assert {(row["scheme"], row["reference"]) for row in found} == {
        (scheme, other) for scheme in profile_sfma_curves.FITTED for other in (scheme, "swinjscc_oma")
    }
    for row in found:
        snr, rho = 10 ** (float(row["snr_db"]) / 10), float(row["rho"])
        gamma = (snr / 2) / (rho * snr / 2 + 1)
        assert 2 * gamma == pytest.approx(10 ** (float(row["equivalent_db"]) / 10), rel=1e-3, abs=1e-5)
        assert (row["fitted"] == "None") == (row["reference"] == "swinjscc_oma")
    same = [row for row in found if row["kind"] == "identical" and row["reference"] == row["scheme"]]
    assert max(abs(float(row["rho"])) + float(row["error"]) for row in same) < 1e-6
    smoothed = {(r["scheme"], r["kind"], r["share"], float(r["snr_db"])): float(r["smoothed"])
                for r in found if r["smoothed"] != "None"}  # fmt: skip
    for (scheme, kind, share, snr_db), value in smoothed.items():
        assert value <= smoothed.get((scheme, kind, share, snr_db - 6.0), 1.0) + 1e-6


def check_profiles(folder: Path) -> None:
    for scheme in profile_sfma_curves.FITTED:
        path = folder / "out" / f"measured_{scheme}_small.json"
        curve = json.loads(path.read_text())
        parameters, source = curve["parameters"], curve["provenance"]
        assert parameters["similarity"] == sorted(source["kinds"].values())
        assert parameters["similarity"][-1] == pytest.approx(1.0)
        assert parameters["rho_min"][-1] == parameters["rho_max"][-1] < 1e-6  # identical images
        assert parameters["ratio_grid"] == [0.125, 0.5, 1.0]
        assert len(curve["points"]) == 5 * 4 * 3
        assert source["command"].startswith("semcom-gym profile sfma --scheme sc_sfma swinjscc_noma")
        assert {"weights_sha256", "data_set", "tested_on", "seed", "device", "versions", "trained_for"} <= set(source)
        link = source["reference_link"]
        per_w = link["gain"] / (link["bandwidth_hz"] * link["noise_psd_w_hz"])
        assert source["scope"]["power_w"] == pytest.approx([10**-0.5 / per_w, 10**1.3 / per_w])
        env = gym.make("SemCom/SFMA-v0", curve=str(path), min_ratio=0.125, max_distortion=1.0)
        env.reset(seed=0)
        assert np.isfinite(env.step(env.action_space.sample())[1])
    problem = envs.problem("sfma")
    params = problem.preset("default")
    assert link["gain"] == float(np.median(problem.sample_split(params, "train", 1_000).gain))
    assert link["bandwidth_hz"] == 2e6


def check_rates(folder: Path) -> None:
    params = envs.problem("sfma").preset("default")
    instance = envs.problem("sfma").sample_split(params, "train", 3)
    for scheme, solve in (("swinjscc_oma", schemes.fdma), ("deepjscc_noma", schemes.deepjscc_noma)):
        path = folder / "out" / f"measured_{scheme}_rate_small.json"
        assert np.isfinite(solve(params, instance, curve=str(path)).objective).all()
    found = rows(folder / "out" / "efficiency.csv")
    own = [row for row in found if row["scheme"] == "swinjscc_noma"]
    assert [float(row["snr_db"]) for row in own] == pytest.approx([x - 3.0103 for x in (-5, 1, 7, 13)], abs=1e-3)
    oma = [row for row in found if row["scheme"] == "swinjscc_oma"]
    assert [float(row["snr_db"]) for row in oma] == [-5, 1, 7, 13]
    share = float(oma[0]["share"])
    error = {
        (r["scheme"], r["kind"], float(r["snr_db"])): float(r["mse"])
        for r in rows(folder / "out" / "psnr.csv") if float(r["share"]) == share
    }  # fmt: skip
    snrs = np.array((-5.0, 1.0, 7.0, 13.0))
    reference = np.array([error["sc_sfma", "identical", snr_db] for snr_db in snrs])
    worth = [
        2 * np.log2(1 + 10 ** (float(interference.equivalent_snr_db(reference, snrs, np.array(error["swinjscc_oma",
                    "random", snr_db]))[0]) / 10) / 2)
        for snr_db in snrs
    ]  # fmt: skip
    expected = np.maximum.accumulate(worth)
    np.testing.assert_allclose([float(row["spectral_efficiency"]) for row in oma], expected, rtol=1e-2, atol=1e-3)


def check_gain(folder: Path, report: dict[str, Any]) -> None:
    psnr = {
        (r["scheme"], r["kind"], r["snr_db"], r["share"]): float(r["psnr_db"])
        for r in rows(folder / "out" / "psnr.csv")
    }
    found = rows(folder / "out" / "gain.csv")
    assert len(found) == 5 * 4 * 3
    for row in found:
        key = (row["kind"], row["snr_db"], row["share"])
        assert float(row["gain_db"]) == pytest.approx(psnr[("sc_sfma", *key)] - psnr[("swinjscc_noma", *key)], abs=2e-4)
    mean = np.mean([float(row["gain_db"]) for row in found if row["kind"] == "mix"])
    assert next(r for r in report["gain"] if r["kind"] == "mix")["mean_db"] == pytest.approx(mean, abs=1e-4)


def test_one_scheme_and_what_an_interruption_leaves(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, errors = [], measure.errors

    def interrupted(*arguments: Any) -> Any:
        found.append(len(arguments[1]) == TINY.tested)  # not those followed in training
        if sum(found) == 4:
            raise KeyboardInterrupt
        return errors(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(measure, "errors", interrupted)
        code, _, err = profile(capsys, "--scheme", "swinjscc_oma")
    assert code == 130
    assert "the network so far and finished measurements are kept in out" in err
    cells = list((folder / "out" / "cells").iterdir())
    assert len(cells) == 1  # three ratios at one SNR
    code, out, err = profile(capsys, "--scheme", "swinjscc_oma")
    assert code == 0, err
    assert not list((folder / "out").glob("network_sc_sfma.pt"))
    assert "curves: \n" in out  # nothing to compare with
    assert "swinjscc_oma, random: " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheme", "tdma"], "unknown scheme 'tdma'"),
        (["--size", "huge"], "unknown size 'huge'"),
        (["--train-images", "0"], "pairs must be >= 1"),
        (["--images", "nowhere"], "nowhere"),
        (["--shown", "nothing.png", "nothing.png"], "cannot read 'nothing.png' as a picture"),
        (["--digital", "nothing.csv"], "table 'nothing.csv' cannot be read"),
        (["--digital", "bad.csv"], "must have rows with the columns scheme, snr_db, psnr_db"),
        (["--backbone", "vgg"], "--backbone is an option of classifier, not of sfma"),
    ],
)
def test_mistakes_in_one_line_before_any_training(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (folder / "bad.csv").write_text("scheme,snr\nHEVC,0\n")
    code, out, err = profile(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("semcom-gym: error: ")
    assert err.count("\n") == 1
    assert not list((folder / "out").glob("network*")) if (folder / "out").exists() else True


def test_a_foreign_checkpoint_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    checkpoint.save(folder / "out" / "network_sc_sfma.pt", "deepjscc", {})
    code, _, err = profile(capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "is of a 'deepjscc', not of a 'sfma'" in err


def test_the_share_of_a_bandwidth_ratio_and_the_variant_of_a_size() -> None:
    config = Config(channels=24, depths=(1, 1, 1), heads=(1, 1, 1))
    assert profile_sfma_cells.nearest_share(config) == 0.25  # 24 of 96 channels of 8 x 8 pixels: 24 / 192
    assert profile_sfma_cells.cbr(config, 0.25) == pytest.approx(0.125)
    assert profile_sfma_cells.nearest_share(training.SIZES["full"].config) == 0.1875
    found = [profile_sfma_cells.variant_of(side) for side in (16, 28, 56, 88, 176)]
    assert found == [None, "ms_ssim_M3w7", "ms_ssim_M4w7", "ms_ssim_M4w11", "ms_ssim"]
    assert profile_sfma.DIGITAL == ("scheme", "snr_db", "psnr_db")
