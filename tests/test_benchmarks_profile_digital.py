"""The profile of the digital chain and the table of block error rates, from the command to the files."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import commands_codes, profile_digital
from semcom_gym.transceivers.coding import ldpc

pytest.importorskip("av")
NAMES = ("bler", "psnr", "users", "rates")


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> profile_digital.Profile:
    """A few smooth pictures and a grid of a few SNRs."""
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:72, :72] / 24
    for k in range(12):
        wave = rng.uniform(-9, 9, (3, 3, 1, 1))
        picture = (127 + 120 * np.sin(wave[0] * y + wave[1] * x + wave[2])).astype(np.uint8)
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / "pictures" / f"{k}.png")
    monkeypatch.setattr(profile_digital, "SNRS_DB", (-6.0, 1.0, 7.0, 13.0, 20.0, 26.0))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return profile_digital.Profile(("pictures",), "small", profile_digital.Size(64, 4), 0, tmp_path / "out")


def rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [{k: v if k == "scheme" else float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def test_from_pictures_to_the_rate_model(profile: profile_digital.Profile) -> None:
    report = profile_digital.digital(profile)
    assert all((profile.out / name).exists() for name in report["files"])
    found = {name: {(row["scheme"], row["snr_db"]): row for row in rows(profile.out / f"{name}.csv")}
             for name in ("psnr", "users")}  # fmt: skip
    fixed = [found["psnr"]["64-QAM 567/1024", snr_db] for snr_db in (1.0, 7.0, 13.0, 26.0)]
    assert [row["delivered"] for row in fixed] == [0.0, 0.0, 1.0, 1.0]  # the cliff
    assert fixed[3]["psnr_db"] == fixed[2]["psnr_db"] > fixed[1]["psnr_db"] + 15.0  # and no gain beyond it
    adaptive = [found["psnr"]["adaptive", snr_db]["psnr_db"] for snr_db in profile_digital.SNRS_DB]
    assert adaptive == sorted(adaptive)
    assert adaptive[-1] > adaptive[3]
    assert found["psnr"]["adaptive", 20.0]["psnr_db"] > found["users"]["OMA", 20.0]["psnr_db"]
    assert found["users"]["NOMA", -6.0]["delivered"] == 0.0
    assert found["users"]["NOMA", 26.0]["delivered"] == 1.0
    assert len(rows(profile.out / "bler.csv")) == sum(len(w.blocks) for w in ldpc.load().waterfalls.values())
    assert all(row["noma"] < row["capacity"] + np.log2(11) for row in rows(profile.out / "rates.csv"))
    stored = json.loads((profile.out / "profile.json").read_text())
    assert stored["pictures"] == 4
    assert stored["data"]["pictures"]["sha256"]
    assert "two users, NOMA, 13 dB" in profile_digital.show(report)

    cells = {path: path.stat().st_mtime_ns for path in (profile.out / "cells").iterdir()}
    assert profile_digital.digital(profile)["users"] == report["users"]
    assert {path: path.stat().st_mtime_ns for path in (profile.out / "cells").iterdir()} == cells  # kept

    problem = envs.problem("sfma")
    params = problem.preset("default")
    instance = problem.sample(params, np.random.default_rng(0), n=3)
    curve = str(profile.out / "measured_ldpc_qam.json")
    measured = baselines.solve("sfma", params, instance, method="bpg_ldpc_qam", curve=curve)
    ideal = baselines.solve("sfma", params, instance, method="fdma")
    assert (measured.objective > 0.0).all()
    assert (measured.objective < 2.0 * ideal.objective).all()


def prepared(*arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    commands_codes.add_to(parser.add_subparsers())
    args = parser.parse_args(["codes", *arguments])
    return args.prepare(args)


def test_codes_are_simulated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sionna")
    from semcom_gym.benchmarks import codes
    from semcom_gym.transceivers.coding import simulate

    counts = iter([(32, 32), (32, 30), (64, 20), (64, 0)])
    asked: list[float] = []

    def count(link: simulate.Link, snr_db: float, seed: int, **limits: int) -> simulate.Count:
        asked.append(snr_db)
        if len(asked) == 3 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise KeyboardInterrupt
        return simulate.Count(*next(counts))

    monkeypatch.setattr(simulate, "count", count)
    monkeypatch.setattr(simulate, "Link", lambda scheme: scheme)
    job = prepared("--out", str(tmp_path), "--schemes", "15", "--errors", "20", "--blocks", "64")
    with pytest.raises(KeyboardInterrupt):
        job.run()
    assert "finished points are kept" in job.kept()
    table = job.run()
    start = codes.STEP_DB * np.ceil((10 * np.log10(2 ** (1024 / 139) - 1) + 0.5) / codes.STEP_DB)
    assert asked == [start, start + 0.25, start + 0.5, start + 0.5, start + 0.75]  # that of the interruption twice
    assert table["schemes"]["15"]["errors"] == [32, 30, 20, 0]
    assert ldpc.load(tmp_path / ldpc.FILE).provenance["command"] == "semcom-gym codes --errors 20 --blocks 64 --seed 0"
    assert "256-QAM 948/1024" in job.show(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--schemes", "16"), "unknown scheme 16; valid: 1, 2, 3"),
        (("--errors", "0"), "errors must be >= 1"),
        (("--seed", "-1"), "seed must be >= 0"),
    ],
)
def test_mistakes_of_codes(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    pytest.importorskip("sionna")
    with pytest.raises(ValueError, match=message):
        prepared("--out", str(tmp_path), *arguments)
