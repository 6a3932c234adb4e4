"""The profile of the classifier, from labelled pictures to curve files that the environment reads."""

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

from semcom_gym.baselines.crra import fit
from semcom_gym.benchmarks import cli, profile_classifier
from semcom_gym.transceivers import checkpoint
from semcom_gym.transceivers.classifier import images as labelled
from semcom_gym.transceivers.classifier import measure, training
from semcom_gym.transceivers.classifier.importance import Importance, importance, ranking

torch.set_num_threads(1)
TINY = training.Size(
    width=4, features=16, side=32, images=1_600, batch=32, fitted=64, pool=80, tested=60, learning_rate=5e-3
)
COLOURS = {"blue": (40, 60, 220), "green": (30, 200, 60), "red": (220, 40, 40)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of pictures told by their colour, and a measurement of a few seconds."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for k in range(40):
            noise = rng.normal(0, 30, (36, 40, 3))
            picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "pictures" / name / f"{k}.png")
    monkeypatch.setitem(training.SIZES, "small", TINY)
    monkeypatch.setattr(profile_classifier, "LINKS_DB", (-5.0, 15.0))
    monkeypatch.setattr(profile_classifier, "JPEG_IMAGES", 20)
    monkeypatch.setattr(profile_classifier, "RANKED_BY", 50)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def profile(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["profile", "classifier", "--images", "pictures", "--out", "out", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_from_images_to_curves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = profile(capsys, "--backbone", "vgg", "--json")
    assert code == 0, err
    report, out_folder = json.loads(out), folder / "out"
    trained = training.load(out_folder / "network.pt")
    assert trained.weights_sha256 == report["weights_sha256"]
    assert report["classes"] == list(COLOURS)
    tested = labelled.sets("pictures", 32, 0, "test", False, 60)
    assert len(tested.labels) == 24  # 2 of 10 of each class
    used = labelled.sets("pictures", 32, 0, "train", True, 50)
    order = ranking(importance(trained.network, used.images), "spread")
    pooled = measure.features(trained.network, tested.images)

    for label, snr_db in (("m5db", -5.0), ("0db", 0.0), ("5db", 5.0)):
        path = out_folder / f"measured_vgg_{label}.json"
        curve = json.loads(path.read_text())
        expected = measure.eta(trained.network, order, profile_classifier.RATIOS, pooled, tested.labels, snr_db)
        assert curve["points"] == [[point["ratio"], point["accuracy"]] for point in expected]
        zeta = list(curve["parameters"].values())
        assert zeta[0] <= 0 < zeta[2]
        assert curve["goodness"]["rmse"] == pytest.approx(fit.rmse(np.array(zeta), np.array(curve["points"])))
        source = curve["provenance"]
        assert (curve["kind"], source["channel_snr_db"]) == ("measured", snr_db)
        assert source["accuracy"]["test"]["accuracy"] == expected[0]["accuracy"]
        assert source["images_seen"] == 1_600
        assert source["parameter_count"] == sum(value.numel() for value in trained.network.parameters())
        assert source["command"].startswith("semcom-gym profile classifier --backbone vgg --device cpu --size small")
        assert {"weights_sha256", "data_set", "tested_on", "seed", "device", "versions", "ranking"} <= set(source)
        env = gym.make("SemCom/CRRA-v0", curves=[str(path)])
        env.reset(seed=0)
        assert np.isfinite(env.step(env.action_space.sample())[1])
        assert env.unwrapped.params.curve_table.tolist() == [zeta]

    snr = rows(out_folder / "snr.csv")
    assert [row["symbols"] for row in snr[:3]] == ["8", "3", "2"]  # 16, 6 and 4 of 16 features
    assert len({row["scheme"] for row in snr}) == 3 + 4
    assert {row["snr_db"] for row in snr} == {"-5", "15"}
    assert {row["rule"] for row in rows(out_folder / "rankings.csv")} == {"paper", "spread", "random", "reverse"}
    assert {row["set"] for row in rows(out_folder / "eta.csv")} == {"test"}
    for name in ("eta", "snr", "rankings"):
        assert (out_folder / f"{name}.png").stat().st_size > 10_000


def test_what_is_done_is_not_done_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, jpeg = [], profile_classifier.tcm.uncoded

    def interrupted(*arguments: Any, **more: Any) -> dict[str, float]:
        found.append(arguments[3])
        if len(found) == 2:
            raise KeyboardInterrupt
        return jpeg(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(profile_classifier.tcm, "uncoded", interrupted)
        code, _, err = profile(capsys)
    assert code == 130
    assert "the network so far and finished measurements are kept in out" in err
    assert found == [-5.0, 15.0]
    cells = sorted((folder / "out" / "cells").iterdir())
    assert len(cells) == 1 + 3 + 1 + 2 + 1  # importance, eta, rankings, snr, one SNR of the JPEG
    kept = {path: path.read_bytes() for path in cells}
    with monkeypatch.context() as patch:
        patch.setattr(measure, "eta", pytest.fail)
        patch.setattr(profile_classifier, "_importance", pytest.fail)
        code, out, err = profile(capsys)
    assert code == 0, err
    assert {path: path.read_bytes() for path in cells} == kept
    assert "test 5 dB: accuracy" in out
    assert "features, 62% dropped, 3 symbols" in out
    files = {path: path.read_bytes() for path in (folder / "out").glob("*.*")}
    assert profile(capsys)[0] == 0  # nothing is left to do
    assert {path: path.read_bytes() for path in files} == files
    code, _, err = profile(capsys, "--train-images", "3200")
    assert (code, err.count("\n")) == (2, 1)
    assert "was made with training" in err


def test_cut_outs_are_measured_seen_and_unseen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which sets are asked for; the composites themselves are tested where they are made."""
    asked = []

    def sets(images: str, side: int, seed: int, split: str, seen: bool, count: int) -> labelled.Labelled:
        asked.append((images, side, seed, split, seen, count))
        return labelled.Labelled(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2).long(), ("a", "b"), {})

    monkeypatch.setattr(labelled, "sets", sets)
    asked_for = profile_classifier.Profile(("stamps",), "small", TINY, "cpu", 7, folder, folder)
    trained = training.Trained(training.initial(training.Config(features=16), 0).classifier, {}, {}, "")
    found = profile_classifier._held_out(asked_for, trained)
    assert [held.name for held in found] == ["seen", "unseen"]
    assert asked == [("stamps", 32, 7, "test", True, 60), ("stamps", 32, 7, "test", False, 60)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbone", "lenet"], "unknown backbone 'lenet'"),
        (["--size", "huge"], "unknown size 'huge'"),
        (["--train-images", "0"], "images must be >= 1"),
        (["--images", "a", "b"], "the classifier takes one set of images, got a b"),
        (["--images", "nowhere"], "nowhere"),
        (["--images", "plain"], "has no classes"),
        (["--specialist", "4", "10"], "--specialist is an option of deepjscc, not of classifier"),
    ],
)
def test_mistakes_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (folder / "plain").mkdir()
    for k in range(20):
        Image.new("RGB", (40, 40), (k, 0, 0)).save(folder / "plain" / f"{k}.png")
    code, out, err = profile(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("semcom-gym: error: ")
    assert err.count("\n") == 1


def test_options_of_another_network(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = cli.main(["profile", "deepjscc", "--backbone", "vgg", "--out", str(tmp_path / "out")])
    assert code == 2
    assert "--backbone is an option of classifier, not of deepjscc" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_foreign_checkpoint_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    checkpoint.save(folder / "out" / "network.pt", "deepjscc", {})
    code, _, err = profile(capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "is of a 'deepjscc', not of a 'classifier'" in err


def test_importance_survives_its_cell() -> None:
    found = Importance(np.random.default_rng(0).normal(size=(3, 5)), np.arange(5.0))
    again = profile_classifier._weighed(
        json.loads(json.dumps({"weights": found.weights.tolist(), "spread": [*range(5)]}))
    )
    assert np.array_equal(again.weights, found.weights)
    assert np.array_equal(again.spread, found.spread)
