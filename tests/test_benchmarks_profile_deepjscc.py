"""The profile of deep JSCC: from images to a curve file, held-out sets, JPEG beside it, specialists."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from semcom_gym import envs
from semcom_gym.benchmarks import cli, profile_jpeg, profiles
from semcom_gym.transceivers import checkpoint, data, digital
from semcom_gym.transceivers.deepjscc import measure, training
from semcom_gym.transceivers.deepjscc.network import Config, DeepJSCC

torch.set_num_threads(1)
PHOTOS = Path(__file__).parent / "fixtures" / "images"


def smooth(n: int, side: int, seed: int) -> np.ndarray:
    """Smooth colour pictures, uint8 (n, 3, side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / 32
    wave = rng.uniform(-9, 9, (3, n, 3, 1, 1))
    return (127 + 120 * np.sin(wave[0] * y + wave[1] * x + wave[2])).astype(np.uint8)


def write(folder: Path, pictures: np.ndarray) -> None:
    folder.mkdir()
    for k, picture in enumerate(pictures):
        Image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{k}.png")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of pictures, a grid of a few points and a size of a few seconds."""
    write(tmp_path / "pictures", smooth(30, 48, seed=5))
    write(tmp_path / "others", smooth(20, 48, seed=6))
    tiny = training.Size(width=8, side=16, crops=4_800, batch=16, pool=300, tested=60, learning_rate=5e-3)
    monkeypatch.setitem(training.SIZES, "small", tiny)
    monkeypatch.setattr(profiles, "SNRS_DB", (-5.0, 0.0, 10.0, 30.0))
    monkeypatch.setattr(profiles, "FITTED_DB", 20.0)
    monkeypatch.setattr(profiles, "MAPS", (4, 12, 16, 24, 32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def profile(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["profile", "deepjscc", "--images", "pictures", "--out", "out", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_from_images_to_a_curve_and_specialists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--tested", "pictures", "others", "--example", str(PHOTOS / "coffee.png"))
    code, out, err = profile(capsys, "--json", *asked)
    assert code == 0, err
    report = json.loads(out)
    trained = training.load(folder / "out" / "network.pt")
    check_curve(folder, report, trained)
    check_held_out(report, trained)
    check_jpeg(folder, report)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "out").glob("cells/*")}
    code, out, _ = profile(capsys, *asked)  # nothing is left to do
    assert code == 0
    assert "others: PSNR at rho = 0.167 and 10 dB" in out
    assert "fit of (57) from rho = 0.1 on and up to 10 dB: scale" in out
    assert "deep JSCC against JPEG over an ideal link at rho = 0.042: ahead at" in out
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == files
    check_specialists(folder, capsys, trained)
    code, _, err = profile(capsys, "--train-images", "640")
    assert (code, err.count("\n")) == (2, 1)
    assert "was made with training" in err


def check_curve(folder: Path, report: dict[str, Any], trained: training.Trained) -> None:
    curve = json.loads((folder / "out" / "deepjscc_small.json").read_text())
    assert len(curve["points"]) == 12  # not those at 30 dB, nor those below rho = 0.1
    assert curve["parameters"]["max_snr_db"] == 10.0
    source = curve["provenance"]
    assert source["images_seen"] == 4_800
    assert source["weights_sha256"] == report["weights_sha256"] == trained.weights_sha256
    assert source["scope"]["ratio"] == [12 / 96, 32 / 96]
    assert source["scope"]["snr_db"] == [-5.0, 10.0]
    assert "--seed 0 --images pictures" in source["command"]
    assert "--tested pictures others" in source["command"]
    assert {"parameter_count", "data_set", "seed", "device", "versions"} <= set(source)
    loose = dataclasses.replace(envs.problem("training").preset("default"), psnr_range_db=(1.0, 2.0))
    assert dataclasses.replace(loose, psnr_curve="out/deepjscc_small.json").psnr_parameters[0] > 0
    assert (folder / "out" / "surface.png").stat().st_size > 10_000
    rows = table(folder / "out" / "surface.csv")
    found = [[float(row[key]) for key in ("ratio", "snr_db", "psnr_db")] for row in rows]
    fitted = [row for row in found if row[0] > 0.1 and row[1] < 30]
    assert fitted == [pytest.approx(point, rel=1e-5) for point in curve["points"]]
    assert len(found) == 20


def check_held_out(report: dict[str, Any], trained: training.Trained) -> None:
    """The surface is that of the first set; each set has an anchor and pictures of its own."""
    assert list(report["tested"]) == ["pictures", "others"]
    for name, found in report["tested"].items():
        crops, _ = training.crops([name], "test", 16, 60, 0)
        assert measure.psnr_db(trained.network, crops, [16], 10.0)[0] == found["anchor"]
        images = data.load(name, "test").images
        assert len(found["pictures_db"]) == len(images) > 1
        crops = torch.from_numpy(data.crops([images[0]], 16, 250, np.random.default_rng([0, 2])))
        assert measure.psnr_db(trained.network, crops, [16], 10.0)[0]["psnr_db"] == found["pictures_db"][0]
    point = next(p for p in report["jpeg"] if (p["ratio"], p["snr_db"]) == (16 / 96, 10.0))
    assert point["deepjscc_db"] == report["tested"]["pictures"]["anchor"]["psnr_db"]


def check_jpeg(folder: Path, report: dict[str, Any]) -> None:
    crops = training.crops(["pictures"], "test", 16, 60, 0)[0].numpy()
    rows, bits = report["jpeg"], digital.payload_bits(crops)
    assert {(round(row["ratio"] * 96), row["snr_db"]) for row in rows} == {
        (maps, snr) for maps in (4, 16, 32) for snr in (-5.0, 0.0, 10.0, 30.0)
    }
    for row in rows:
        assert row["symbols"] == round(row["ratio"] * 3 * 16 * 16)
        sent = digital.send_ideal(crops, row["symbols"], row["snr_db"], bits)
        errors = ((sent.images / 255.0 - crops / 255.0) ** 2).reshape(60, -1).mean(1)
        assert row["jpeg_db"] == pytest.approx(np.mean(-10 * np.log10(errors)))
        assert row["delivered"] == sent.delivered.mean()
    assert 0.0 <= min(row["delivered"] for row in rows) < max(row["delivered"] for row in rows) == 1.0
    assert len(table(folder / "out" / "jpeg.csv")) == 12
    assert [(row["snr_db"], row["symbols"]) for row in report["example"]] == [(4.0, 5120), (13.0, 5120)]
    assert all((folder / "out" / name).stat().st_size > 10_000 for name in ("jpeg.png", "example.png"))


def check_specialists(folder: Path, capsys: pytest.CaptureFixture[str], universal: training.Trained) -> None:
    weights = (folder / "out" / "network.pt").read_bytes()
    asked = ("--specialist", "8", "0", "--train-images", "640", "--tested", "others")
    code, _, err = profile(capsys, *asked)
    assert code == 0, err
    first = (folder / "out" / "specialists" / "8_maps_0_dB" / "network.pt").stat().st_mtime_ns
    code, out, err = profile(capsys, "--specialist", "4", "-5", *asked, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [(row["set"], row["ratio"], row["snr_db"]) for row in rows] == [
        ("others", 4 / 96, -5.0),
        ("others", 8 / 96, 0),
    ]
    assert len(table(folder / "out" / "specialists.csv")) == 2
    path = folder / "out" / "specialists" / "8_maps_0_dB" / "network.pt"
    assert path.stat().st_mtime_ns == first  # the second command only trained what was new
    own = training.load(path)
    assert own.network.config == Config(8, 8)
    assert own.identity["range"] == {"low_db": 0.0, "high_db": 0.0, "least_maps": 8}
    crops, _ = training.crops(["others"], "test", 16, 60, 0)
    psnr = [measure.psnr_of_crops(it.network, crops, 8, 0.0).numpy() for it in (own, universal)]
    assert rows[1]["specialist_db"] == pytest.approx(psnr[0].mean())
    assert rows[1]["universal_db"] == pytest.approx(psnr[1].mean())
    assert rows[1]["difference_error_db"] == pytest.approx(np.std(psnr[0] - psnr[1], ddof=1) / 60**0.5)
    assert (rows[1]["specialist_crops"], rows[1]["universal_crops"]) == (640, 4_800)
    assert (folder / "out" / "network.pt").read_bytes() == weights
    (folder / "out" / "specialists" / "4_maps_-5_dB" / "comparison.json").write_text("{")
    code, _, err = profile(capsys, *asked)
    assert (code, err.count("\n")) == (2, 1)
    assert "comparison.json' is corrupt" in err


def test_the_specialist_of_a_network_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = profile(capsys, "--specialist", "8", "0")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no network in 'out' to compare with: run the profile without --specialist first" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "huge"], "unknown size 'huge'"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--train-images", "0"], "crops must be >= 1"),
        (["--seed", "-1"], "seed must be >= 0"),
        (["--images", "nowhere"], "nowhere"),
        (["--images", "pictures", "pictures"], "two held-out sets of images have the name 'pictures'"),
        (["--tested", "nowhere"], "nowhere"),
        (["--tested", "others", "others"], "two held-out sets of images have the name 'others'"),
        (["--tensorboard", "pictures/0.png"], "cannot make the folder 'pictures/0.png'"),
        (["--example", "nothing.png"], "cannot read 'nothing.png' as a picture"),
        (["--specialist", "many", "0"], "--specialist takes a number of maps and an SNR in dB, got many 0"),
    ],
)
def test_mistakes_in_one_line_before_any_training(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = profile(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("semcom-gym: error: ")
    assert err.count("\n") == 1
    assert not (folder / "out" / "network.pt").exists()


def test_a_foreign_checkpoint_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    checkpoint.save(folder / "out" / "network.pt", "classifier", {})
    for more in ((), ("--specialist", "8", "0")):
        code, _, err = profile(capsys, *more)
        assert (code, err.count("\n")) == (2, 1)
        assert "is of a 'classifier', not of a 'deepjscc'" in err


def test_specialists_wait_for_the_end_and_know_their_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    network = DeepJSCC(Config(8, 12))
    content: dict[str, Any] = {"weights": network.state_dict(), "optimizer": {}}
    for finished, pool, maps, message in (
        (False, 300, "8", "has not ended: run the profile first"),
        (True, 301, "8", "the network in 'out' is not of size 'small'"),
        (True, 300, "13", "a specialist of 13 maps: the network has 12"),
        (True, 300, "0", "least_maps must be >= 1"),
        (True, 300, "8", "the network in 'out' was trained on other images"),
    ):
        content["record"] = {"finished": finished, "images": 9}
        identity = {"network": {"width": 8, "maps": 12}, "data": {}, "crops": {"side": 16, "pool": pool}}
        content["identity"] = identity
        checkpoint.save(folder / "out" / "network.pt", "deepjscc", content)
        code, _, err = profile(capsys, "--specialist", maps, "0", "--train-images", "16")
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
        assert not (folder / "out" / "specialists").exists()  # before any training


def test_ctrl_c_says_what_is_kept(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    code, _, err = profile(capsys)
    assert code == 130
    assert "there was no checkpoint yet" in err


def test_psnr_of_8_bits() -> None:
    reference = np.zeros((2, 3, 2, 2), np.uint8)
    image = reference.copy()
    image[0, 0, 0, 0] = 51
    assert profile_jpeg.psnr_db(image, reference)[0] == pytest.approx(10 * math.log10(12 * 25))
    assert profile_jpeg.psnr_db(image, reference)[1] == profile_jpeg.EXACT_DB == pytest.approx(58.92, abs=0.01)


def test_a_picture_to_show_is_cut_to_what_the_network_takes(tmp_path: Path) -> None:
    picture = smooth(1, 48, 0)[0, :, :45, :41]
    Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(profile_jpeg.picture_to_show(tmp_path / "a.png"), picture[:, :40, :40])
    Image.fromarray(picture[:, :7].transpose(1, 2, 0)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="is 41x7, smaller than 8x8"):
        profile_jpeg.picture_to_show(tmp_path / "b.png")


def test_data_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMCOM_GYM_DATA", str(tmp_path))
    assert cli.main(["data", "list", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["sets"]}
    assert {"photos", "samples", "cifar10", "kodak"} <= set(listed)
    assert not any(row["there"] for row in listed.values())
    for arguments, message in (
        (["data", "show"], "unknown action 'show'"),
        (["data", "list", "photos"], "data list takes no names"),
        (["data", "fetch", "imagenet"], "'imagenet'"),
        (["data", "fetch", "kodak"], "'kodak'"),
    ):
        assert cli.main(arguments) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
