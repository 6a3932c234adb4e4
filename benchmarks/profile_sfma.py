"""The profile of SC-SFMA and its learned rivals: train, measure pairs, fit rho and distortion, compare, write."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.benchmarks import pictures_sfma, profile_common, store
from semcom_gym.benchmarks import profile_sfma_cells as cells
from semcom_gym.benchmarks import profile_sfma_curves as curves
from semcom_gym.transceivers import metrics
from semcom_gym.transceivers.data.pictures import decode
from semcom_gym.transceivers.sfma import interference, training
from semcom_gym.transceivers.sfma.network import SCHEMES

if TYPE_CHECKING:
    import torch

SHOWN_SIDE = 512
DIGITAL = ("scheme", "snr_db", "psnr_db")
"""Columns of a table of a digital chain."""


@dataclasses.dataclass(frozen=True)
class Profile(profile_common.Profile):
    """As for any network. schemes: to train and measure. shown: two pictures to send together and to draw. digital: a
    table of a digital chain's PSNR over SNR, to be drawn with the others.
    """

    schemes: tuple[str, ...] = SCHEMES
    shown: tuple[Path, ...] = ()
    digital: Path | None = None

    @property
    def command(self) -> str:
        """The command line."""
        return self.command_of("sfma", self.size.pairs, f"--scheme {' '.join(self.schemes)}")

    def checkpoint_of(self, scheme: str) -> Path:
        """The file of a scheme's network."""
        return self.out / f"network_{scheme}.pt"


def sfma(profile: Profile) -> dict[str, Any]:
    """Train, or go on; measure what is not measured yet; fit; write curves, tables, pictures and report. The report."""
    digital = _table(profile.digital) if profile.digital else []
    shown = _pictures(profile) if profile.shown else None
    trained = {
        scheme: training.train(
            scheme, profile.sets, profile.size, path=profile.checkpoint_of(scheme), seed=profile.seed,
            device=profile.device, tensorboard=profile.tensorboard / scheme,
        )
        for scheme in profile.schemes
    }  # fmt: skip
    measurement = cells.Measurement(profile, trained)
    measured = measurement.all()
    tables, made = _analysed(profile, measurement, measured)
    files = [profile_common.write_curve(curve, profile.out) for curve in made]
    files += [profile_common.write_table(profile.out / f"{name}.csv", rows) for name, rows in tables.items() if rows]
    if tables["interference"]:
        files.append(pictures_sfma.interference(tables["interference"], profile.out / "interference.png"))
    picture = (tables["psnr"], tables["ms_ssim"], cells.STATED_DB, measurement.share, digital)
    files.append(pictures_sfma.quality(*picture, profile.out / "quality.png"))
    found = {
        "fits": tables["fits"], "leakage": tables["leakage"], "efficiency": tables["efficiency"],
        "curves": [curve.name for curve in made], "powers": _powers(tables["psnr"]), "gain": _gain(tables["gain"]),
        "psnr": _at_stated(tables["psnr"], measurement.share), "shown": [],
    }  # fmt: skip
    if shown is not None:
        files.append(profile.out / "users.png")
        found["shown"] = _users(profile, trained, shown, measurement.share, files[-1])
    return _report(profile, trained, found, files)


def _analysed(
    profile: Profile, measurement: cells.Measurement, measured: Mapping[str, Any]
) -> tuple[dict[str, cells.Rows], list[Any]]:
    """All tables and curves. Without SC-SFMA there is nothing to compare with, so its own tables are then empty."""
    config, seed = profile.size.config, profile.seed
    found = curves.estimates(measured, seed)
    efficiency = curves.efficiency_rows(measured, measurement.share, seed)
    fitted = [scheme for scheme in curves.FITTED if scheme in measurement.trained]
    made = [curves.profile_curve(profile, measurement, measured, found, scheme) for scheme in fitted]
    made += [
        curves.efficiency_curve(profile, measurement, efficiency, scheme)
        for scheme in dict.fromkeys(row["scheme"] for row in efficiency)
    ]
    similarity = [
        {"scheme": scheme, "kind": kind, "mean": float(values.mean()), "deviation": float(values.std(ddof=1))}
        for (scheme, kind), values in measured["similarity"].items()
    ]
    return {
        "psnr": cells.psnr_rows(measured, config), "interference": curves.rho_rows(found),
        "fits": curves.fit_rows(found, curves.reference_link()), "efficiency": efficiency,
        "gain": curves.gain_rows(measured), "similarity": similarity, "ms_ssim": measured["ms_ssim"],
        "leakage": measured["leakage"],
    }, made  # fmt: skip


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [f"{scheme}: {profile_common.trained_on(part)}" for scheme, part in report["schemes"].items()]
    lines.append(f"PSNR of the first user at {cells.STATED_DB:g} dB and the CBR nearest to {cells.CBR:g}:")
    lines += [f"  {row['scheme']}, {row['kind']}: {row['psnr_db']:.2f} dB (se {row['error_db']:.2f})"
              for row in report["psnr"]]  # fmt: skip
    lines.append("power of the two signals' sum before it is made 1, unrelated signals 1, mean over the grid:")
    lines += [f"  {row['scheme']}, {row['kind']}: {row['power']:.3f}" for row in report["powers"]]
    lines += [f"SC-SFMA over {row['over']}, {row['kind']}: {row['gain_db']:+.2f} dB (se {row['error_db']:.2f}) at "
              f"{cells.STATED_DB:g} dB, {row['mean_db']:+.2f} dB over the grid" for row in report["gain"]]  # fmt: skip
    for row in report["fits"]:
        what = f"{row['scheme']}, {row['kind']} (similarity {row['similarity']:.3f})"
        if row["constant"]:
            lines.append(f"rho of {what}: constant {row['rho_min']:.4f}")
            continue
        limit = f"; at a limit: {row['at_limit']}" if row["at_limit"] else ""
        lines.append(
            f"rho of {what}: {row['rho_min']:.3f} to {row['rho_max']:.3f}, R2 {row['r2_smoothed']:.3f} smoothed, "
            f"{row['r2_raw']:.3f} raw; rate off by {row['rate_error']:.3f} bit/s/Hz in the mean{limit}"
        )
    return "\n".join([*lines, f"curves: {', '.join(report['curves'])}", f"written: {', '.join(report['files'])}"])


def _at_stated(rows: cells.Rows, share: float) -> cells.Rows:
    return [row for row in rows if (row["snr_db"], row["share"]) == (cells.STATED_DB, share)]


def _powers(rows: cells.Rows) -> cells.Rows:
    """Of every scheme and kind, the mean over the grid."""
    keys = dict.fromkeys((row["scheme"], row["kind"]) for row in rows)
    power = {key: [row["power"] for row in rows if (row["scheme"], row["kind"]) == key] for key in keys}
    return [{"scheme": scheme, "kind": kind, "power": float(np.mean(power[scheme, kind]))} for scheme, kind in keys]


def _gain(rows: cells.Rows) -> cells.Rows:
    """Of every kind, at the stated SNR, mean over ratios, and over the whole grid."""
    found = []
    for over, kind in dict.fromkeys((row["over"], row["kind"]) for row in rows):
        own = [row for row in rows if (row["over"], row["kind"]) == (over, kind)]
        stated = [row for row in own if row["snr_db"] == cells.STATED_DB]
        found.append({
            "over": over, "kind": kind, "gain_db": float(np.mean([row["gain_db"] for row in stated])),
            "error_db": max(row["error_db"] for row in stated),
            "mean_db": float(np.mean([row["gain_db"] for row in own])),
        })  # fmt: skip
    return found


def _pictures(profile: Profile) -> torch.Tensor:
    """The two pictures to show, uint8 (1, 2, 3, s, s), cut from their middles to the largest side both allow."""
    import torch

    images = [decode(path, SHOWN_SIDE) for path in profile.shown]
    unit = profile.size.side
    side = min(min(image.shape[1:]) for image in images) // unit * unit
    if not side:
        raise ValueError(f"pictures to show must be {unit} pixels or more each way")
    starts = [[(size - side) // 2 for size in image.shape[1:]] for image in images]
    cut = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(images, starts, strict=True)]
    return torch.from_numpy(np.stack(cut)[None])


def _users(
    profile: Profile, trained: Mapping[str, training.Trained], pair: torch.Tensor, share: float, path: Path
) -> cells.Rows:
    """Draw two pictures as every scheme delivers them; PSNR and MS-SSIM of both users."""
    shown, rows = [("user i\nuser j", pair[0].numpy())], []
    variant = cells.variant_of(pair.shape[-1])
    for scheme, item in trained.items():
        [(received, sent)] = interference.deliver(item.network, pair, cells.STATED_DB, share, profile.seed)
        both, before = (x.detach().flatten(0, 1).cpu() for x in (received, sent))
        psnr = metrics.psnr_db(both, before).tolist()
        alike = metrics.ms_ssim(both, before, variant).tolist() if variant else [None, None]
        label = pictures_sfma.LABELS[scheme]
        titles = [
            f"{label}, {p:.2f} dB" + ("" if a is None else f", {a:.3f}") for p, a in zip(psnr, alike, strict=True)
        ]
        shown.append(("\n".join(titles), (255.0 * both).round().byte().numpy()))
        rows.append({"scheme": scheme, "psnr_db": psnr, "variant": variant, "ms_ssim": alike})
    pictures_sfma.users(shown, path)
    return rows


def _table(path: Path) -> list[dict[str, str]]:
    """Rows of a digital chain's table. Raises ValueError, in one line, for one that is unreadable or lacks a column."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"table {str(path)!r} cannot be read: {error}") from None
    if not rows or not set(DIGITAL) <= set(rows[0]):
        raise ValueError(f"table {str(path)!r} must have rows with the columns {', '.join(DIGITAL)}")
    return rows


def _report(
    profile: Profile, trained: Mapping[str, training.Trained], found: dict[str, Any], files: Sequence[Path]
) -> dict[str, Any]:
    """``profile.json``: what was found, the course of every training and all files."""
    parts = {}
    for scheme, item in trained.items():

        def forward(images: torch.Tensor, network: Any = item.network) -> torch.Tensor:
            pairs = images.unflatten(0, (-1, 2))
            return network(pairs, pairs.new_zeros(len(pairs)), pairs.new_ones(len(pairs)))

        rate = item.record["images"] / item.record["seconds"]
        work = profile_common.work(item.network, forward, profile.size.side, rate)
        parts[scheme] = {"training": item.record, **work, "weights_sha256": item.weights_sha256}
    path = profile.out / "profile.json"
    checkpoints = [profile.checkpoint_of(scheme) for scheme in trained]
    report = {**found, "schemes": parts, "files": [file.name for file in (*files, *checkpoints, path)]}
    store.write_atomically(path, store.dumps(report, indent=1) + "\n")
    return report
