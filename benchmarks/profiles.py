"""Profiles of transceivers: train, measure, fit, and write the curve with its provenance, figure and report."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym import __version__
from semcom_gym.benchmarks import pictures, progress, store
from semcom_gym.transceivers.deepjscc import fit, measure, training
from semcom_gym.transceivers.deepjscc.network import ratio

if TYPE_CHECKING:
    import torch

SNRS_DB = (-5.0, -2.0, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 20.0)
MAPS = (4, 8, 10, 12, 16, 20, 24, 28, 32)
"""The grid of a surface: SNR, and feature maps sent, rho = maps / 96."""
PICTURES, PICTURE_CROPS = 50, 250  # held-out pictures measured one by one, and crops of each
CODE = ("transceivers",)


@dataclasses.dataclass(frozen=True)
class Profile:
    """What is asked for. sets: names or folders of images. size: the amount of work, under its name."""

    sets: tuple[str, ...]
    name: str
    size: training.Size
    device: str
    seed: int
    out: Path
    tensorboard: Path

    @property
    def command(self) -> str:
        """The command line; a folder of images by its last part, as paths of a machine say nothing to others."""
        sets = " ".join(Path(name).name for name in self.sets)
        return (
            f"semcom-gym profile deepjscc --device {self.device} --size {self.name} --crops {self.size.crops} "
            f"--seed {self.seed} --images {sets}"
        )


def deepjscc(profile: Profile) -> dict[str, Any]:
    """Train, or go on; measure what is not measured yet; fit; write curve, table, picture and report. The report."""
    trained = training.train(
        profile.sets, profile.size, path=profile.out / "network.pt", seed=profile.seed, device=profile.device,
        tensorboard=profile.tensorboard,
    )  # fmt: skip
    tested, sources = training.crops(profile.sets, "test", profile.size.side, profile.size.tested, profile.seed)
    points, pictures_db = _measured(profile, trained, tested, sources)
    rows = np.array([[point[name] for name in ("ratio", "snr_db", "psnr_db")] for point in points])
    provenance = _provenance(profile, trained, sources, points, pictures_db)
    curve = fit.fit_psnr(rows, f"deepjscc_{profile.name}", provenance=provenance)
    files = [profile.out / f"{curve.name}.json", profile.out / "surface.csv", profile.out / "surface.png"]
    store.write_atomically(files[0], json.dumps(dataclasses.asdict(curve), indent=2) + "\n")
    store.write_atomically(files[1], _csv(points))
    coefficients = np.array(list(curve.parameters.values()))
    _picture(rows, coefficients, files[2])
    maps, snr_db = measure.ANCHOR
    anchor = next(p for p in points if p["ratio"] == ratio(maps) and p["snr_db"] == snr_db)
    report = {
        "anchor": anchor,
        "pictures_db": pictures_db,
        "violations": fit.violations(points),
        "parameters": dict(curve.parameters),
        "standard_errors": curve.standard_errors,
        "goodness": dict(curve.goodness),
        "training": trained.record,
        "images_per_second": trained.record["images"] / trained.record["seconds"],
        "weights_sha256": trained.weights_sha256,
        "files": [str(path) for path in [*files, profile.out / "network.pt", profile.out / "profile.json"]],
    }
    store.write_atomically(profile.out / "profile.json", store.dumps(report, indent=1) + "\n")
    return report


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    anchor, goodness, training_ = report["anchor"], report["goodness"], report["training"]
    terms = ", ".join(
        f"{name} {value:.4g} (se {report['standard_errors'][name]:.2g})" for name, value in report["parameters"].items()
    )
    rate = f"{training_['images']} crops in {training_['seconds']:.0f} s ({report['images_per_second']:.0f} a second)"
    where = f"rho = {anchor['ratio']:.3f} and {anchor['snr_db']:g} dB"
    lines = [
        f"trained on {rate}",
        f"PSNR at {where}: {anchor['psnr_db']:.2f} dB (se over crops {anchor['error']:.2f})",
        f"the same, picture by picture: {_spread(report['pictures_db'])}",
        f"steps of the surface that fall by more than 0.05 dB: {report['violations']}",
        f"fit of (57): {terms}",
        f"errors of the fit [dB]: MAE {goodness['mae']:.3f}, cross-validated {goodness['cross_validated_mae']:.3f}, "
        f"RMSE {goodness['rmse']:.3f}, largest {goodness['largest_error']:.2f}; R2 {goodness['r2']:.4f}",
        f"written: {', '.join(report['files'])}",
    ]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """Mean, standard error and range as text."""
    error = _error(values)
    extent = f"{min(values):.1f} to {max(values):.1f} dB"
    return f"{np.mean(values):.1f} dB" if error is None else f"{np.mean(values):.1f} dB (se {error:.1f}, {extent})"


def kept(profile: Profile) -> str:
    """One line on what an interruption leaves."""
    if not (profile.out / "network.pt").exists():
        return "there was no checkpoint yet"
    return (
        f"the network so far and finished measurements are kept in {profile.out}; the same command goes on from there"
    )


def _measured(
    profile: Profile, trained: training.Trained, tested: torch.Tensor, sources: dict[str, Any]
) -> tuple[list[dict[str, float]], list[float]]:
    """PSNR at every SNR and ratio of the grid, and that of single pictures; each SNR is a cell of finished work."""
    cells = store.Store(profile.out / "cells")
    maps = [count for count in MAPS if count <= profile.size.maps]
    same = {
        "weights": trained.weights_sha256, "data": sources, "side": profile.size.side, "tested": len(tested),
        "maps": maps, "seed": profile.seed, "device": profile.device, "code": store.code_version(*CODE),
    }  # fmt: skip
    points = []
    with progress.bar(len(SNRS_DB), "measuring") as bar:
        for snr_db in SNRS_DB:

            def compute(snr_db: float = snr_db) -> dict[str, Any]:
                return {"points": measure.psnr_db(trained.network, tested, maps, snr_db, seed=profile.seed)}

            points += cells.cell(f"psnr_{snr_db:g}dB", same | {"snr_db": snr_db}, compute)["points"]
            bar.update()

    def pictures() -> dict[str, Any]:
        counts = {"pictures": PICTURES, "count": PICTURE_CROPS}
        found = training.psnr_by_picture(trained, profile.sets, profile.size.side, seed=profile.seed, **counts)
        return {"psnr_db": found}

    key = same | {"pictures": PICTURES, "crops": PICTURE_CROPS}
    return points, cells.cell("psnr_by_picture", key, pictures)["psnr_db"]


def _provenance(
    profile: Profile,
    trained: training.Trained,
    sources: dict[str, Any],
    points: list[dict[str, float]],
    pictures_db: list[float],
) -> dict[str, Any]:
    """Where the numbers come from: network, data, training, measurement and the command that made them."""
    import torch

    parameters = sum(value.numel() for value in trained.network.parameters())
    where = "CPU" if profile.device == "cpu" else torch.cuda.get_device_name(torch.device(profile.device))
    return {
        "network": "deep JSCC, five convolutional layers each side, told SNR and ratio (one network for all points)",
        "parameter_count": parameters,
        "weights_sha256": trained.weights_sha256,
        "trained_for": trained.identity["range"],
        "channel": trained.identity["channel"],
        "data_set": trained.identity["data"],
        "tested_on": {**sources, "crops": profile.size.tested, "side": profile.size.side},
        "images_seen": trained.record["images"],
        "training_seconds": round(trained.record["seconds"], 1),
        "seed": profile.seed,
        "device": where,
        "versions": {"semcom-gym": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "command": profile.command,
        "ratio": "complex symbols over source values (3 H W)",
        "psnr": "mean over crops of the PSNR in dB",
        "largest_standard_error_over_crops_db": max(point["error"] for point in points),
        "psnr_db_of_single_pictures": {
            "maps": measure.ANCHOR[0],
            "snr_db": measure.ANCHOR[1],
            "mean": float(np.mean(pictures_db)),
            "standard_error": _error(pictures_db),
            "psnr_db": pictures_db,
        },
    }


def _error(values: list[float]) -> float | None:
    """Standard error of the mean; None of a single value."""
    return float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None


def _csv(points: Sequence[dict[str, float]]) -> str:
    lines = ["ratio,snr_db,psnr_db,standard_error_db"]
    lines += [f"{p['ratio']:.6f},{p['snr_db']:g},{p['psnr_db']:.4f},{p['error']:.4f}" for p in points]
    return "\n".join(lines) + "\n"


def _picture(rows: np.ndarray[Any, Any], coefficients: np.ndarray[Any, Any], path: Path) -> None:
    """Left the measured surface; right PSNR over SNR, points measured, lines fitted."""
    figure, (surface, lines) = pictures.grid(10.0, 4.2, 1, 2)
    ratios, snrs = np.unique(rows[:, 0]), np.unique(rows[:, 1])
    order = np.lexsort((rows[:, 0], rows[:, 1]))
    table = rows[order, 2].reshape(len(snrs), len(ratios))
    drawn = surface.contourf(ratios, snrs, table, levels=16, cmap="viridis")
    figure.colorbar(drawn, ax=surface, label="PSNR [dB], measured")
    surface.set(xlabel=r"compression ratio $\rho$", ylabel="SNR [dB]")
    fine = np.linspace(snrs[0], snrs[-1], 200)
    for k, place in enumerate(np.linspace(0, len(ratios) - 1, min(5, len(ratios))).round().astype(int)):
        colour, value = pictures.COLOURS[k], ratios[place]
        lines.plot(fine, fit.psnr_db(coefficients, value, fine), color=colour)
        lines.plot(
            snrs, table[:, place], linestyle="none", marker=pictures.MARKERS[k], color=colour, label=f"{value:.3f}"
        )
    lines.set(xlabel="SNR [dB]", ylabel="PSNR [dB]; lines: fit of (57)")
    lines.legend(title=r"$\rho$", frameon=False)
    pictures.save(figure, path)
