"""The profile of ASCC, from pictures to rate tables that the environment reads."""

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
from scipy.special import expit

from semcom_gym import envs
from semcom_gym.baselines.ascc import schemes
from semcom_gym.benchmarks import cli, measured_ascc, profile_analog, profile_ascc
from semcom_gym.envs.ascc.rates import PARAMETERS
from semcom_gym.transceivers import checkpoint, metrics, pixels
from semcom_gym.transceivers.classifier import images as labelled
from semcom_gym.transceivers.coding import hevc
from semcom_gym.transceivers.deepjscc import training as deepjscc
from semcom_gym.transceivers.hyperprior import flips, receivers, semantic, training

torch.set_num_threads(1)
FIXTURES = Path(__file__).parent / "fixtures" / "images"
COLOURS = {"blue": (40, 60, 220), "green": (30, 200, 60), "red": (220, 40, 40)}
TINY = profile_ascc.Size(
    training.Size(width=6, latents=48, rates=3, side=64, crops=96, batch=8, pool=16),
    semantic.Size(side=192, look=32, width=4, features=16, pool=60, images=1_600, tuned=32, tuned_batch=8),
    measured_ascc.Size(side=192, pictures=2, labelled=6, rates=2),
)
SMALL_JSCC = deepjscc.Size(width=4, side=32, crops=128, batch=32, pool=32, tested=2, maps=8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, and three classes of pictures told by their colour."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "photos").mkdir()
    for path in sorted(FIXTURES.glob("*.png")):
        for turn in range(4):
            picture = Image.open(path).convert("RGB").resize((208, 200)).rotate(90 * turn, expand=True)
            picture.save(folder / "photos" / f"{path.stem}{turn}.png")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / "classes" / name).mkdir(parents=True)
        for k in range(40):
            picture = np.clip(np.array(colour) + rng.normal(0, 30, (36, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / "classes" / name / f"{k}.png")
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(profile_ascc.SIZES, "small", TINY)
    monkeypatch.setattr(measured_ascc, "QPS", (44, 28))
    monkeypatch.setattr(profile_analog, "MAPS", (4, 8))
    monkeypatch.setattr(profile_analog, "SNRS_DB", (-5.0, 10.0))


def profile(capsys: pytest.CaptureFixture[str], pictures: Path, out: Path, *arguments: str) -> tuple[int, str, str]:
    given = ["--images", str(pictures / "photos"), "--labelled", str(pictures / "classes"), "--out", str(out)]
    code = cli.main(["profile", "ascc", *given, *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.usefixtures("tiny")
def test_from_pictures_to_tables(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    deepjscc.train([str(pictures / "photos")], SMALL_JSCC, path=tmp_path / "jscc.pt", progress=False)
    code, text, err = profile(capsys, pictures, out, "--analog", str(tmp_path / "jscc.pt"), "--json")
    assert code == 0, err
    report = json.loads(text)
    codec = training.load(out / "network.pt")
    assert codec.weights_sha256 == report["weights_sha256"]
    _check_clean(pictures, out, codec)
    _check_tables(out, codec)
    _check_fits(out)
    _check_schemes(out)
    _check_tuning(pictures, out, codec)
    for name in ("errors_hyperprior", "errors_hevc", "protection", "rate_distortion", "analog"):
        assert (out / f"{name}.png").stat().st_size > 10_000

    files = {path: path.read_bytes() for path in out.glob("*.*")}
    with monkeypatch.context() as patch:
        patch.setattr(flips, "measure", pytest.fail)
        patch.setattr(profile_analog.analog, "received", pytest.fail)
        code, text, err = profile(capsys, pictures, out, "--analog", str(tmp_path / "jscc.pt"))
    assert code == 0, err
    assert {path: path.read_bytes() for path in files} == files
    assert "PSNR over that of HEVC intra" in text
    assert "hyperprior, data user, mse, errors in all: " in text
    code, _, err = profile(capsys, pictures, out, "--train-images", "192")
    assert (code, err.count("\n")) == (2, 1)
    assert "was made with training" in err


def _check_clean(pictures: Path, out: Path, codec: training.Trained) -> None:
    """Figures without errors against a plain computation on the same pictures."""
    errors = rows(out / "errors.csv")
    photos, _ = deepjscc.crops([str(pictures / "photos")], "test", 192, 2, 0)
    for setting, clean in [
        (float(row["setting"]), row)
        for row in errors
        if row["log10_ber"] == "-inf" and (row["codec"], row["user"], row["errors"]) == ("hyperprior", "data", "main")
    ]:
        streams = receivers.streams(codec.network, photos, setting)
        assert float(clean["rate_bit"]) == np.mean([8 * len(s.hyper + s.main) for s in streams])
        with torch.no_grad():
            shown = codec.network.reconstruct(codec.network.quantised(photos / 255.0, torch.full((2,), setting)))
        harm = 1.0 - metrics.ms_ssim(shown.clamp(0, 1), pixels.scaled(photos))
        assert float(clean["distortion"]) == pytest.approx(float(harm.mean()), abs=1e-5)
    coarse = next(row for row in errors if row["codec"] == "hevc" and row["log10_ber"] == "-inf")
    payloads = [hevc.encode(image, 44) for image in photos.numpy()]
    assert float(coarse["rate_bit"]) == np.mean([8 * len(payload) for payload in payloads])
    shown = torch.stack([torch.from_numpy(hevc.decode(payload, 192, 192)[0]) for payload in payloads])
    assert float(coarse["psnr_db"]) == pytest.approx(
        float(metrics.psnr_db(pixels.scaled(shown), pixels.scaled(photos)).mean()), abs=1e-4
    )


def _check_tables(out: Path, codec: training.Trained) -> None:
    """Rate tables: what the environment asks for, points as measured, provenance."""
    names = [str(out / f"measured_hyperprior_{user}.json") for user in ("data", "semantic")]
    for user, name in zip(("data", "semantic"), names, strict=True):
        table = json.loads(Path(name).read_text())
        assert set(table["parameters"]) == set(PARAMETERS)
        assert table["parameters"]["rate_bit"] == sorted(table["parameters"]["rate_bit"])
        assert len(table["parameters"]["rate_bit"]) == 2
        assert len(table["points"]) == 2 * len(flips.LOG10_BERS)
        source = table["provenance"]
        assert source["weights"]["codec"] == codec.weights_sha256
        assert source["settings"] == [0.0, 2.0]
        assert all(
            0 < hyper < rate
            for hyper, rate in zip(source["protected_bit"], table["parameters"]["rate_bit"], strict=True)
        )
        assert source["command"].startswith("semcom-gym profile ascc --labelled classes --analog jscc.pt --device cpu")
        assert {"tested_on", "seed", "device", "versions", "rows", "receiver", "errors"} <= set(source)
        measured = [
            float(row["distortion"])
            for row in rows(out / "errors.csv")
            if (row["codec"], row["user"], row["errors"]) == ("hyperprior", user, "main") and row["log10_ber"] != "-inf"
        ]
        assert [point[2] for point in table["points"]] == pytest.approx(measured, rel=1e-5)
    env = gym.make("SemCom/ASCC-v0", data_table=names[0], semantic_table=names[1])
    env.reset(seed=0)
    assert np.isfinite(env.step(env.action_space.sample())[1])


def _check_tuning(pictures: Path, out: Path, codec: training.Trained) -> None:
    """The classifier alone on test pictures, coded and not, against a plain computation."""
    found = rows(out / "tuning.csv")
    shown = labelled.sets(pictures / "classes", 192, 0, "test", True, 6)
    content = checkpoint.load(out / "network.classifier.pt", semantic.CLASSIFIER, ("weights",))
    viewer = semantic.initial(semantic.Config("resnet", 4, 16, 3), 32, 0)
    viewer.load_state_dict(content["weights"])
    for row in found:
        rate = torch.full((6,), float(row["setting"]))
        with torch.no_grad():
            coded = codec.network.reconstruct(codec.network.quantised(shown.images / 255.0, rate)).clamp(0, 1)
            for name, images in (("uncoded", shown.images / 255.0), ("untuned", coded)):
                wrong = (viewer.eval()(images).argmax(1) != shown.labels).double()
                assert float(row[name]) == pytest.approx(float(wrong.mean()), abs=1e-5)
    assert [float(row["setting"]) for row in found] == [0.0, 2.0]


def _check_fits(out: Path) -> None:
    found = rows(out / "fits.csv")
    assert len(found) == 2 * (2 + 2 + 1) + 2 * (2 + 1)
    errors = rows(out / "errors.csv")
    for row in found:
        own = [
            point
            for point in errors
            if all(point[key] == row[key] for key in ("codec", "user", "errors", "setting"))
            and point["log10_ber"] != "-inf"
        ]
        x, y = (np.array([float(point[key]) for point in own]) for key in ("log10_ber", row["figure"]))
        d_s, d_c, a_1, a_0 = (float(row[key]) for key in ("d_s", "d_c", "a_1", "a_0"))
        left = d_s + d_c * expit(a_1 * (x - a_0)) - y
        assert np.sqrt(np.mean(left**2)) == pytest.approx(float(row["rmse"]), rel=1e-3, abs=1e-5)
        assert 1 - np.sum(left**2) / np.sum((y - y.mean()) ** 2) == pytest.approx(float(row["r2"]), abs=1e-3)
        assert x[0] <= a_0 <= x[-1]
        assert float(row["log10_inverse_rate"]) == pytest.approx(-np.log10(float(row["rate_bit"])), abs=1e-4)


def _check_schemes(out: Path) -> None:
    """The baselines of the paper read the tables of HEVC and the curves of deep JSCC."""
    problem = envs.problem("ascc")
    params = problem.preset("default", channel_uses=4608.0)
    instance = problem.sample(params, np.random.default_rng(0), 2)
    bpg = schemes.zf_wf_bpg(
        params, instance, tables=[str(out / f"measured_hevc_{user}.json") for user in ("data", "semantic")]
    )
    assert np.isfinite(bpg.objective).all()
    for told in ("10db", "matched"):
        names = [str(out / f"measured_djscc_{user}_{told}.json") for user in ("data", "semantic")]
        assert np.isfinite(schemes.zf_wf_djscc(params, instance, curves=names).objective).all()
        quality = schemes.Quality(names[0])
        assert quality.channel_uses.tolist() == [4 * 1152, 8 * 1152]
    at_10 = {
        row["told"]: row["distortion"]
        for row in rows(out / "analog.csv")
        if (row["user"], row["channel_uses"], row["snr_db"]) == ("data", "4608", "10")
    }
    assert at_10["10db"] == at_10["matched"]  # told the truth


def test_psnr_over_hevc() -> None:
    made: list[dict[str, Any]] = [
        {"codec": codec, "bpp": bpp, "psnr_db": level + 10 * np.log10(bpp)}
        for codec, level in (("hyperprior", 40.0), ("hevc", 39.0))
        for bpp in (0.1, 0.5, 1.0)
    ]
    found = measured_ascc.over_hevc_db(made, (0.05, 0.2, 0.8, 1.2))
    assert found == {"0.05": None, "0.2": pytest.approx(1.0), "0.8": pytest.approx(1.0), "1.2": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "huge"], "unknown size 'huge'"),
        (["--train-images", "0"], "crops must be >= 1"),
        (["--backbone", "vgg"], "--backbone is an option of classifier, not of ascc"),
        (["--analog", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_mistakes_in_one_line(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = profile(capsys, pictures, tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("semcom-gym: error: ")
    assert err.count("\n") == 1
