"""The profile of deep JSCC: train, measure, fit, compare, and write the curve with provenance, pictures and report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.benchmarks import pictures, profile_common, profile_jpeg, store
from semcom_gym.envs.curve import Curve
from semcom_gym.transceivers.deepjscc import fit, measure, training

if TYPE_CHECKING:
    import torch

SNRS_DB = (-5.0, -2.0, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 20.0)
MAPS = (4, 8, 10, 12, 16, 20, 24, 28, 32)
"""The grid of a surface: SNR, and feature maps sent, rho = maps / 96."""
FITTED_DB, FITTED_RATIO = 16.0, 0.1
"""Only points up to this SNR and from this ratio on are fitted: there the network is not saturated, and the environment
asks for no lower ratio. Chosen on validation crops."""
PICTURES, PICTURE_CROPS = 50, 250  # held-out pictures measured one by one, and crops of each
CODE = ("transceivers",)


@dataclasses.dataclass(frozen=True)
class Profile(profile_common.Profile):
    """As for any network. tested: sets held out, `sets` if empty; the surface is that of the first. example: a picture
    to show.
    """

    tested: tuple[str, ...] = ()
    example: Path | None = None

    @property
    def command(self) -> str:
        """The command line."""
        tested = [f"--tested {profile_common.names(self.tested)}"] if self.tested else []
        return self.command_of("deepjscc", self.size.crops, *tested)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Crops of the test split of a set. path: its name or folder. source: where the pictures come from."""

    name: str
    path: str
    crops: torch.Tensor
    source: dict[str, Any]


def deepjscc(profile: Profile) -> dict[str, Any]:
    """Train, or go on; measure what is not measured yet; fit; write curve, tables, pictures and report. The report."""
    held_out = load(profile)
    shown = profile_jpeg.picture_to_show(profile.example) if profile.example else None
    trained = training.train(
        profile.sets, profile.size, path=profile.checkpoint, seed=profile.seed, device=profile.device,
        tensorboard=profile.tensorboard,
    )  # fmt: skip
    points = _surface(profile, trained, held_out[0])
    tested = {held.name: _anchor(profile, trained, held) for held in held_out}
    jpeg = profile_jpeg.compare(profile, held_out[0].crops, points, _same(profile, held_out[0]))
    rows = np.array([[point[name] for name in ("ratio", "snr_db", "psnr_db")] for point in points])
    fitted = rows[(rows[:, 0] >= FITTED_RATIO) & (rows[:, 1] <= FITTED_DB)]
    provenance = _provenance(profile, trained, held_out, points, fitted, tested)
    curve = fit.fit_psnr(fitted, f"deepjscc_{profile.size_name}", provenance=provenance)
    files = [profile_common.write_curve(curve, profile.out)]
    files.append(profile_common.write_table(profile.out / "surface.csv", [_row(point) for point in points]))
    files.append(_picture(rows, curve, profile.out / "surface.png"))
    files.append(profile_common.write_table(profile.out / "jpeg.csv", jpeg))
    files.append(profile_jpeg.picture(jpeg, profile.out / "jpeg.png"))
    example = None
    if shown is not None:
        files.append(profile.out / "example.png")
        example = profile_jpeg.example(trained.network, shown, files[-1], profile.seed)
    found = {
        "tested": tested,
        "violations": fit.violations(points),
        "parameters": dict(curve.parameters),
        "standard_errors": curve.standard_errors,
        "goodness": dict(curve.goodness),
        "jpeg": jpeg,
        "example": example,
    }

    def forward(images: torch.Tensor) -> torch.Tensor:
        full = images.new_full((len(images),), profile.size.maps).long()
        return trained.network(images, images.new_zeros(len(images)), full)

    return profile_common.write_report(profile, found, trained, forward, files)


def load(profile: Profile) -> list[HeldOut]:
    """Crops of the test split of every held-out set. Raises ValueError for a set that is unknown or named twice."""
    found = []
    for path in profile.tested or profile.sets:
        crops, sources = training.crops([path], "test", profile.size.side, profile.size.tested, profile.seed)
        [(name, source)] = sources.items()
        if name in [held.name for held in found]:
            raise ValueError(f"two held-out sets of images have the name {name!r}")
        found.append(HeldOut(name, str(path), crops, source))
    return found


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    goodness = report["goodness"]
    terms = ", ".join(f"{name} {report['parameters'][name]:.4g} (se {report['standard_errors'][name]:.2g})"
                      for name in fit.NAMES)  # fmt: skip
    lines = [profile_common.trained_on(report)]
    for name, found in report["tested"].items():
        point = found["anchor"]
        where = f"rho = {point['ratio']:.3f} and {point['snr_db']:g} dB"
        lines.append(f"{name}: PSNR at {where}: {point['psnr_db']:.2f} dB (se over crops {point['error']:.2f})")
        lines.append(f"{name}: the same, picture by picture: {_spread(found['pictures_db'])}")
    lines += [
        f"steps of the surface that fall by more than 0.05 dB: {report['violations']}",
        f"fit of (57) from rho = {FITTED_RATIO:g} on and up to {report['parameters']['max_snr_db']:g} dB: {terms}",
        f"errors of the fit [dB]: MAE {goodness['mae']:.3f}, cross-validated {goodness['cross_validated_mae']:.3f}, "
        f"RMSE {goodness['rmse']:.3f}, largest {goodness['largest_error']:.2f}; R2 {goodness['r2']:.4f}",
        *profile_jpeg.summary(report["jpeg"]),
        f"written: {', '.join(report['files'])}",
    ]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """Mean, standard error and range as text."""
    error = profile_common.standard_error(values)
    extent = f"{min(values):.1f} to {max(values):.1f} dB"
    return f"{np.mean(values):.1f} dB" if error is None else f"{np.mean(values):.1f} dB (se {error:.1f}, {extent})"


def _same(profile: Profile, held: HeldOut) -> dict[str, Any]:
    """What decides a measurement, the network apart."""
    return {
        "data": {held.name: held.source}, "side": profile.size.side, "tested": len(held.crops), "seed": profile.seed,
        "device": profile.device, "code": store.code_version(*CODE),
    }  # fmt: skip


def _surface(profile: Profile, trained: training.Trained, held: HeldOut) -> list[dict[str, float]]:
    """PSNR at every SNR and ratio of the grid; each SNR is a cell of finished work."""
    maps = [count for count in MAPS if count <= profile.size.maps]
    same = _same(profile, held) | {"weights": trained.weights_sha256, "maps": maps}

    def compute(snr_db: float) -> dict[str, Any]:
        return {"points": measure.psnr_db(trained.network, held.crops, maps, snr_db, seed=profile.seed)}

    work = [store.Work(f"psnr_{snr:g}dB", same | {"snr_db": snr}, functools.partial(compute, snr)) for snr in SNRS_DB]
    return [point for found in profile.cells.cells(work, "measuring") for point in found["points"]]


def _anchor(profile: Profile, trained: training.Trained, held: HeldOut) -> dict[str, Any]:
    """PSNR on a held-out set at the anchor: over its crops, and of its pictures one by one; a cell."""
    maps, snr_db = measure.ANCHOR
    maps = min(maps, profile.size.maps)

    def compute() -> dict[str, Any]:
        counts = {"pictures": PICTURES, "count": PICTURE_CROPS}
        point = measure.psnr_db(trained.network, held.crops, [maps], snr_db, seed=profile.seed)[0]
        single = training.psnr_by_picture(trained, [held.path], profile.size.side, seed=profile.seed, **counts)
        return {"anchor": point, "pictures_db": single}

    key = {"weights": trained.weights_sha256, "pictures": PICTURES, "crops": PICTURE_CROPS}
    return profile.cells.cell(f"anchor_{held.name}", _same(profile, held) | key, compute)


def _provenance(
    profile: Profile,
    trained: training.Trained,
    held_out: Sequence[HeldOut],
    points: list[dict[str, float]],
    fitted: np.ndarray[Any, Any],
    tested: dict[str, Any],
) -> dict[str, Any]:
    """Where the numbers come from: network, data, training, measurement and the command that made them."""
    first = held_out[0]
    return {
        "network": "deep JSCC, five convolutional layers each side, told SNR and ratio (one network for all points)",
        **profile_common.origin(profile, trained.network, trained.weights_sha256),
        "trained_for": trained.identity["range"],
        "channel": trained.identity["channel"],
        "data_set": trained.identity["data"],
        "tested_on": {first.name: first.source, "crops": len(first.crops), "side": profile.size.side},
        "images_seen": trained.record["images"],
        "training_seconds": round(trained.record["seconds"], 1),
        "command": profile.command,
        "ratio": "complex symbols over source values (3 H W)",
        "psnr": "mean over crops of the PSNR in dB",
        "scope": {
            "ratio": [fitted[:, 0].min(), fitted[:, 0].max()],
            "snr_db": [fitted[:, 1].min(), fitted[:, 1].max()],
            "beyond": "the fit rises on where the network saturates: above max_snr_db take the value at max_snr_db; "
            "below the least SNR and outside the ratios nothing was fitted",
        },
        "largest_standard_error_over_crops_db": max(point["error"] for point in points),
        "anchor": {
            held.name: {**tested[held.name]["anchor"], **_of_pictures(tested[held.name]["pictures_db"])}
            for held in held_out
        },
    }


def _of_pictures(values: list[float]) -> dict[str, Any]:
    return {
        "mean_of_pictures_db": float(np.mean(values)),
        "standard_error_over_pictures_db": profile_common.standard_error(values),
        "pictures_db": values,
    }


def _row(point: dict[str, float]) -> dict[str, float]:
    """Of the table of the surface."""
    return {"ratio": point["ratio"], "snr_db": point["snr_db"], "psnr_db": point["psnr_db"],
            "standard_error_db": point["error"]}  # fmt: skip


def _picture(rows: np.ndarray[Any, Any], curve: Curve, path: Path) -> Path:
    """Left the measured surface; right PSNR over SNR, points measured, lines as the environment reads the fit."""
    figure, (surface, lines) = pictures.grid(10.0, 4.2, 1, 2)
    ratios, snrs = np.unique(rows[:, 0]), np.unique(rows[:, 1])
    order = np.lexsort((rows[:, 0], rows[:, 1]))
    table = rows[order, 2].reshape(len(snrs), len(ratios))
    drawn = surface.contourf(ratios, snrs, table, levels=16, cmap="viridis")
    figure.colorbar(drawn, ax=surface, label="PSNR [dB], measured")
    surface.set(xlabel=r"compression ratio $\rho$", ylabel="SNR [dB]")
    coefficients = np.array([curve.parameters[name] for name in fit.NAMES])
    fine = np.linspace(snrs[0], snrs[-1], 200)
    heard = np.minimum(fine, curve.parameters["max_snr_db"])
    for k, place in enumerate(np.linspace(0, len(ratios) - 1, min(5, len(ratios))).round().astype(int)):
        colour, value = pictures.COLOURS[k], ratios[place]
        if value >= FITTED_RATIO:
            lines.plot(fine, fit.psnr_db(coefficients, value, heard), color=colour)
        lines.plot(
            snrs, table[:, place], linestyle="none", marker=pictures.MARKERS[k], color=colour, label=f"{value:.3f}"
        )
    lines.set(xlabel="SNR [dB]", ylabel="PSNR [dB]; lines: fit of (57)")
    lines.legend(title=r"$\rho$", frameon=False)
    return pictures.save(figure, path)
