"""What one network for every link costs: networks trained for a single SNR and ratio, beside the universal one."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semcom_gym.benchmarks import profile_common, profiles, store
from semcom_gym.transceivers.deepjscc import measure, training
from semcom_gym.transceivers.deepjscc.network import ratio

FOLDER, TABLE = "specialists", "specialists.csv"


def check(points: Sequence[tuple[int, float]], profile: profiles.Profile) -> None:
    """Raise ValueError, TypeError unless every point is one that the finished network of the profile serves."""
    universal, size = _universal(profile), profile.size
    crops = {"side": size.side, "pool": size.pool}
    if (universal.network.config.width, universal.identity["crops"]) != (size.width, crops):
        raise ValueError(f"the network in {str(profile.out)!r} is not of size {profile.size_name!r}")
    for maps, snr_db in points:
        measure.Range(snr_db, snr_db, maps)
        if maps > universal.network.config.maps:
            raise ValueError(f"a specialist of {maps} maps: the network has {universal.network.config.maps}")


def specialists(profile: profiles.Profile, points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Train a network for each point (maps, SNR in dB), or go on; compare each with the network of the profile.

    The rows are those of all specialists in the profile's folder that were compared with the network it has now.
    """
    universal, held_out = _universal(profile), profiles.load(profile)
    _, sources = training.crops(profile.sets, "train", profile.size.side, len(profile.sets), profile.seed)
    if {name: item["sha256"] for name, item in sources.items()} != _hashes(universal):
        raise ValueError(f"the network in {str(profile.out)!r} was trained on other images")
    for maps, snr_db in points:
        folder = profile.out / FOLDER / f"{maps}_maps_{snr_db:g}_dB"
        trained = training.train(
            profile.sets, dataclasses.replace(profile.size, maps=maps), path=folder / "network.pt", seed=profile.seed,
            device=profile.device, span=measure.Range(snr_db, snr_db, maps), anchor=(maps, snr_db),
            tensorboard=folder / "tensorboard",
        )  # fmt: skip
        rows = [_row(held, trained, universal, maps, snr_db, profile.seed) for held in held_out]
        found = {"universal": universal.weights_sha256, "rows": rows}
        store.write_atomically(folder / "comparison.json", store.dumps(found, indent=1) + "\n")
    rows = _rows(profile.out / FOLDER, universal.weights_sha256)
    table = profile_common.write_table(profile.out / TABLE, rows)
    return {"rows": rows, "files": [str(table)]}


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = []
    for row in report["rows"]:
        lines.append(
            f"{row['set']}, rho = {row['ratio']:.3f}, {row['snr_db']:g} dB: specialist {row['specialist_db']:.2f} dB "
            f"({row['specialist_crops']} crops), universal {row['universal_db']:.2f} dB ({row['universal_crops']}), "
            f"difference {row['difference_db']:+.2f} dB (se over crops {row['difference_error_db']:.2f})"
        )
    return "\n".join([*lines, f"written: {', '.join(report['files'])}"])


def _universal(profile: profiles.Profile) -> training.Trained:
    if not profile.checkpoint.exists():
        raise ValueError(
            f"no network in {str(profile.out)!r} to compare with: run the profile without --specialist first"
        )
    found = training.load(profile.checkpoint, profile.device)
    if not found.record["finished"]:
        raise ValueError(f"the training of {str(profile.checkpoint)!r} has not ended: run the profile first")
    return found


def _hashes(trained: training.Trained) -> dict[str, str]:
    """SHA-256 of the images of every set that a network was trained on."""
    return {name: item["sha256"] for name, item in trained.identity["data"].items()}


def _row(
    held: profiles.HeldOut, trained: training.Trained, universal: training.Trained, maps: int, snr_db: float, seed: int
) -> dict[str, Any]:
    """Both networks on the same crops."""
    own, other = (measure.psnr_of_crops(it.network, held.crops, maps, snr_db, seed=seed) for it in (trained, universal))
    return {
        "set": held.name,
        "ratio": ratio(maps),
        "snr_db": snr_db,
        "specialist_db": float(own.mean()),
        "universal_db": float(other.mean()),
        "difference_db": float((own - other).mean()),
        "difference_error_db": float((own - other).std()) / math.sqrt(len(own)),
        "specialist_crops": trained.record["images"],
        "universal_crops": universal.record["images"],
    }


def _rows(folder: Path, universal: str) -> list[dict[str, Any]]:
    """Of all comparisons with the network of that hash, by set, ratio and SNR."""
    rows = []
    for path in folder.glob("*/comparison.json"):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            rows += found["rows"] if found["universal"] == universal else []
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error) or type(error).__name__
            raise ValueError(f"result file {str(path)!r} is corrupt ({reason}): delete it and run again") from None
    return sorted(rows, key=lambda row: (row["set"], row["ratio"], row["snr_db"]))
