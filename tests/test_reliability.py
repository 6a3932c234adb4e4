"""Work that is killed outright ends, once started again, as if nothing had happened; what is in its way is one line."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from processes import cells, ended, finish, kill, start, timeless

pytest.importorskip("tqdm")
SWEEP = ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "fra", "fast", "crra", "--agent", "-n", "12", "--chunk",
         "2", "--cells", "cells", "--out", "out")  # fmt: skip
SLOWEST = "cells/*-crra-0-*.json"
LEARN = ("--env", "SemCom/CRRA-v0", "--algo", "apg", "--num-envs", "32", "--timesteps")
TRAIN = ("train", *LEARN, "6400", "--resume", "--out", "run")
TUNE = ("tune", *LEARN, "1600", "--trials", "3", "--evaluations", "5", "--scored", "3", "--out", "study")
PROFILE = ("profile", "deepjscc", "--images", "pictures", "--out", "out")
TINY = (
    sys.executable, "-c", """
import sys
from semcom_gym.benchmarks import cli, profiles
from semcom_gym.transceivers.deepjscc import training
training.SIZES["small"] = training.Size(width=8, side=16, crops=9600, batch=16, pool=300, tested=60, learning_rate=5e-3)
profiles.SNRS_DB, profiles.FITTED_DB, profiles.MAPS = (-5.0, 0.0, 10.0, 30.0), 20.0, (4, 12, 16, 24, 32)
sys.exit(cli.main(sys.argv[1:]))
""",
)  # fmt: skip
"""The command with a deep JSCC of a few seconds."""


def losses(folder: Path) -> str:
    return (folder / "out/losses.csv").read_text()


# --- killed --------------------------------------------------------------------------------------------------------


def test_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("cvxpy")
    pytest.importorskip("matplotlib")
    assert finish(tmp_path / "whole", *SWEEP)[0] == 0
    broken = tmp_path / "broken"
    kill(start(broken, *SWEEP), lambda: len(list(broken.glob(SLOWEST))) >= 2)
    assert not (broken / "out/leaderboard.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in broken.glob("cells/*.json")}
    assert 6 + 6 + 2 <= len(kept) < 6 + 6 + 6
    code, _, err = finish(broken, *SWEEP)
    assert code == 0, err
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was finished is not computed again"
    assert cells(broken / "cells") == cells(tmp_path / "whole/cells")
    assert losses(broken) == losses(tmp_path / "whole")


@pytest.mark.slow
def test_a_benchmark_that_is_killed_with_its_workers_at_work(tmp_path: Path) -> None:
    pytest.importorskip("cvxpy")
    assert finish(tmp_path / "whole", *SWEEP)[0] == 0
    broken = tmp_path / "broken"
    process = start(broken, *SWEEP, "--jobs", "2")
    kill(process, lambda: bool(list(broken.glob(SLOWEST))))
    code, _, err = finish(broken, *SWEEP, "--jobs", "2")
    assert code == 0, err
    assert cells(broken / "cells") == cells(tmp_path / "whole/cells")
    ended(process.pid)  # the workers too


@pytest.mark.slow
def test_a_training_that_is_killed_twice(tmp_path: Path) -> None:
    agents = pytest.importorskip("semcom_gym.agents")
    import torch

    assert finish(tmp_path / "whole", *TRAIN)[0] == 0
    broken = tmp_path / "broken"
    for steps in (1, 3000):
        kill(start(broken, *TRAIN), lambda steps=steps: reached(broken / "run", steps))
        assert (broken / "run/checkpoint.zip").exists()
    code, _, err = finish(broken, *TRAIN)
    assert code == 0, err
    runs = [tmp_path / name / "run" for name in ("whole", "broken")]
    records = [timeless(json.loads((run / "run.json").read_text())) for run in runs]
    assert records[0] == records[1]
    assert records[0]["finished"]
    models = [agents.ALGORITHMS["apg"][0].load(run / "model.zip", device="cpu") for run in runs]
    vectors = [torch.nn.utils.parameters_to_vector(model.policy.parameters()) for model in models]
    assert torch.equal(*vectors)


def reached(run: Path, steps: int) -> bool:
    """Whether a training run has kept a checkpoint at this step or later."""
    record = run / "run.json"
    kept = record.exists() and (run / "checkpoint.zip").exists()
    return kept and json.loads(record.read_text())["timesteps"] >= steps


@pytest.mark.slow
def test_a_study_that_is_killed_within_a_trial(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    assert finish(tmp_path / "whole", *TUNE)[0] == 0
    broken = tmp_path / "broken"
    kill(start(broken, *TUNE), lambda: reached(broken / "study/trial_001", 300))
    code, _, err = finish(broken, *TUNE)
    assert code == 0, err
    for name in ("best.yml", "trials.csv"):
        texts = [tmp_path / folder / "study" / name for folder in ("whole", "broken")]
        tables = [rows(text) if name == "trials.csv" else text.read_text() for text in texts]
        assert tables[0] == tables[1]


def rows(file: Path) -> list[dict[str, str]]:
    """A table without times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file.read_text().splitlines())]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "parts"),
    [((), ("out/network.pt", "out/cells/psnr_0dB*.json")), (("--jobs", "2"), ("out/cells/psnr_*.json",))],
    ids=["alone", "two processes"],
)
def test_a_profile_that_is_killed(extra: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path) -> None:
    """In training, and while it measures."""
    pytest.importorskip("joblib")
    for name in ("whole", "broken"):
        paint(tmp_path / name / "pictures")
    assert finish(tmp_path / "whole", *PROFILE, program=TINY)[0] == 0
    broken = tmp_path / "broken"
    for part in parts:
        kill(start(broken, *PROFILE, *extra, program=TINY), lambda part=part: bool(list(broken.glob(part))))
    assert len(list(broken.glob("out/cells/*.json"))) < len(list((tmp_path / "whole/out/cells").glob("*.json")))
    code, _, err = finish(broken, *PROFILE, *extra, program=TINY)
    assert code == 0, err
    for name in ("profile.json", "deepjscc_small.json"):
        found = [timeless(json.loads((tmp_path / run / "out" / name).read_text())) for run in ("whole", "broken")]
        assert found[0] == found[1]
    assert cells(broken / "out/cells") == cells(tmp_path / "whole/out/cells")
    for name in ("surface.csv", "jpeg.csv"):
        assert (broken / "out" / name).read_bytes() == (tmp_path / "whole/out" / name).read_bytes()


def paint(folder: Path) -> None:
    """A folder of smooth pictures."""
    import numpy as np

    image = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:48, :48] / 32
    for k in range(30):
        wave = rng.uniform(-9, 9, (3, 3, 1, 1))
        picture = 127 + 120 * np.sin(wave[0] * y + wave[1] * x + wave[2])
        image.fromarray(picture.astype(np.uint8).transpose(1, 2, 0)).save(folder / f"{k}.png")


# --- a full disk, a folder that takes no files ---------------------------------------------------------------------


def one_line(found: tuple[int, str, str], *words: str) -> None:
    """A mistake of the user: exit code 2, nothing on stdout, one line behind any progress bar."""
    code, out, err = found
    lines = [line for line in err.replace("\r", "\n").split("\n") if line.startswith("semcom-gym: error: ")]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0]


def test_a_benchmark_on_a_full_disk(tmp_path: Path) -> None:
    """Files may grow to what a cell of two instances takes, but not a table of pictures."""
    pytest.importorskip("matplotlib")
    asked = ("benchmark", "--env", "SemCom/CRRA-v0", "--method", "fra", "--agent", "-n", "4", "--cells", "cells",
             "--out", "out")  # fmt: skip
    one_line(finish(tmp_path, *asked, file_size=300), "cannot write 'cells/", "File too large")
    assert list((tmp_path / "cells").iterdir()) == []
    one_line(finish(tmp_path, *asked, file_size=900), "cannot write 'out/")
    kept = cells(tmp_path / "cells")
    assert kept
    assert finish(tmp_path, *asked)[0] == 0
    assert cells(tmp_path / "cells") == kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "size", "words"),
    [
        (TRAIN, 100_000, "cannot write 'run/model.zip': File too large"),
        (TUNE, 3_000, "storage 'study/study.db' cannot be used"),
        (TUNE, 300_000, "cannot write 'study/trial_000/model.zip': File too large"),
    ],
)
def test_an_agent_on_a_full_disk(arguments: tuple[str, ...], size: int, words: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    one_line(finish(tmp_path, *arguments, file_size=size), words)
    code, _, err = finish(tmp_path, *arguments)
    assert code == 0, err


@pytest.mark.slow
def test_a_profile_on_a_full_disk(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    paint(tmp_path / "pictures")
    one_line(finish(tmp_path, *PROFILE, program=TINY, file_size=20_000), "'out/network.pt' cannot be written")
    code, _, err = finish(tmp_path, *PROFILE, program=TINY)
    assert code == 0, err
