"""The profile of the classifier: train, rank the features, measure eta(o) and accuracy over SNR, fit, write."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.baselines.crra.fit import fit_eta
from semcom_gym.benchmarks import pictures_classifier, profile_common, progress, store
from semcom_gym.transceivers import digital
from semcom_gym.transceivers.classifier import images as labelled
from semcom_gym.transceivers.classifier import importance, measure, tcm, training
from semcom_gym.transceivers.classifier.network import kept

if TYPE_CHECKING:
    import torch

    from semcom_gym.envs.arrays import Array
    from semcom_gym.envs.curve import Curve

SNRS_DB = (-5.0, 0.0, 5.0)
"""Of the curves, as in Table IV of the paper."""
RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)
LINKS_DB = (-5.0, -2.5, 0.0, 2.5, 5.0, 7.5, 10.0, 12.5, 15.0)
DROPPED = (0.0, 0.65, 0.8)
"""Of Fig. 3 of the paper."""
RULE, COMPARED_DB = "spread", 5.0
RANKED_BY, JPEG_IMAGES = 2_000, 1_000
TIMES = (1, 4, 16)
"""Symbols of the JPEG with an ideal code, over those of the classifier that drops nothing."""
CODE = ("transceivers",)


@dataclasses.dataclass(frozen=True)
class Profile(profile_common.Profile):
    """As for any network. sets: one labelled set."""

    backbone: str = "resnet"

    @property
    def command(self) -> str:
        """The command line."""
        return self.command_of("classifier", self.size.images, f"--backbone {self.backbone}")


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Images of the test split."""

    name: str
    content: labelled.Labelled
    network: Any

    @functools.cached_property
    def pooled(self) -> torch.Tensor:
        """Their features, (n, K)."""
        return measure.features(self.network, self.content.images)


Rows = list[dict[str, Any]]


def classifier(profile: Profile) -> dict[str, Any]:
    """Train, or go on; measure what is not measured yet; fit; write curves, tables, pictures and report. The report."""
    trained = training.train(
        profile.sets[0], profile.size, path=profile.checkpoint, backbone=profile.backbone, seed=profile.seed,
        device=profile.device, tensorboard=profile.tensorboard,
    )  # fmt: skip
    held_out = _held_out(profile, trained)
    tables = _measured(profile, trained, held_out)
    fits = {
        (held.name, snr_db): _fit(profile, trained, held, tables["eta"], snr_db)
        for held in held_out
        for snr_db in SNRS_DB
    }
    files = [profile_common.write_curve(fits[held_out[0].name, snr_db], profile.out) for snr_db in SNRS_DB]
    files += [profile_common.write_table(profile.out / f"{name}.csv", rows) for name, rows in tables.items()]
    files += _pictures(profile.out, tables, fits)
    report = {
        "fits": [_summary(curve, where, snr_db, tables["eta"]) for (where, snr_db), curve in fits.items()],
        "rankings": tables["rankings"],
        "snr": tables["snr"],
        "classes": trained.identity["classes"],
        "training": trained.record,
        "images_per_second": trained.record["images"] / trained.record["seconds"],
        "weights_sha256": trained.weights_sha256,
        "files": [str(path) for path in [*files, profile.checkpoint, profile.out / "profile.json"]],
    }
    store.write_atomically(profile.out / "profile.json", store.dumps(report, indent=1) + "\n")
    return report


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    record = report["training"]
    lines = [
        f"trained on {record['images']} images in {record['seconds']:.0f} s "
        f"({report['images_per_second']:.0f} a second)"
    ]
    for row in report["fits"]:
        fit = ", ".join(f"{name} {value:.4g}" for name, value in row["parameters"].items())
        lines.append(
            f"{row['set']} {row['snr_db']:g} dB: accuracy {row['accuracy']:.3f} (se {row['error']:.3f}), "
            f"with {row['ratio']:.0%} of the features dropped {row['dropped']:.3f}; fit {fit}, RMSE {row['rmse']:.4f}"
        )
    lines.append("accuracy by what the ranking goes by:")
    for rule in dict.fromkeys(row["rule"] for row in report["rankings"]):
        rows = [row for row in report["rankings"] if row["rule"] == rule]
        lines.append(f"  {rule}: " + ", ".join(f"{row['accuracy']:.3f} (o = {row['ratio']:.2f})" for row in rows[::3]))
    lines.append(f"accuracy from {LINKS_DB[0]:g} to {LINKS_DB[-1]:g} dB:")
    for scheme in dict.fromkeys(row["scheme"] for row in report["snr"]):
        rows = [row for row in report["snr"] if row["scheme"] == scheme]
        values = ", ".join(f"{row['accuracy']:.3f}" for row in rows)
        lines.append(f"  {scheme}, {rows[0]['symbols']:.0f} symbols: {values}")
    return "\n".join([*lines, f"written: {', '.join(report['files'])}"])


def _held_out(profile: Profile, trained: training.Trained) -> list[HeldOut]:
    """The test images; of cut-outs, those that are trained on, before new backgrounds, and those that are not."""
    stamps = profile.sets[0] == labelled.STAMPS
    found = []
    for name, seen in (("seen", True), ("unseen", False)) if stamps else (("test", False),):
        content = labelled.sets(profile.sets[0], profile.size.side, profile.seed, "test", seen, profile.size.tested)
        found.append(HeldOut(name, content, trained.network))
    return found


def _measured(profile: Profile, trained: training.Trained, held_out: list[HeldOut]) -> dict[str, Rows]:
    """Rows of the tables ``eta``, ``rankings`` and ``snr``; finished parts are cells."""
    cells = store.Store(profile.out / "cells")
    first, features = held_out[0], trained.network.config.features
    same = {
        "weights": trained.weights_sha256, "side": profile.size.side, "tested": profile.size.tested,
        "seed": profile.seed, "device": profile.device, "code": store.code_version(*CODE),
    }  # fmt: skip

    def points(held: HeldOut, order: Array, ratios: tuple[float, ...], snr_db: float) -> Rows:
        return measure.eta(trained.network, order, ratios, held.pooled, held.content.labels, snr_db, seed=profile.seed)

    def cell(name: str, more: dict[str, Any], compute: Any) -> dict[str, Any]:
        bar.update()
        return cells.cell(name, same | {"cell": name} | more, compute)

    with progress.bar(2 + len(held_out) * len(SNRS_DB) + 2 * len(LINKS_DB), "measuring") as bar:
        weighed = _weighed(cell("importance", {"images": RANKED_BY}, lambda: _importance(profile, trained)))
        order = importance.ranking(weighed, RULE, profile.seed)
        eta: Rows = []
        for held in held_out:
            for snr_db in SNRS_DB:
                key = {"data": held.content.sources, "ratios": RATIOS, "rule": RULE}
                work = functools.partial(points, held, order, RATIOS, snr_db)
                found = cell(f"eta_{held.name}_{snr_db:g}dB", key, lambda work=work: {"points": work()})
                eta += [{"set": held.name, **point} for point in found["points"]]

        def compared() -> dict[str, Any]:
            return {
                rule: points(first, importance.ranking(weighed, rule, profile.seed), RATIOS, COMPARED_DB)
                for rule in importance.RULES
            }

        by_rule = cell("rankings", {"data": first.content.sources, "ratios": RATIOS, "snr_db": COMPARED_DB}, compared)
        rankings = [{"rule": rule, **point} for rule, rows in by_rule.items() for point in rows]
        snr: Rows = []
        for snr_db in LINKS_DB:
            key = {"data": first.content.sources, "dropped": DROPPED, "rule": RULE}
            work = functools.partial(points, first, order, DROPPED, snr_db)
            snr += _semantic(cell(f"snr_{snr_db:g}dB", key, lambda work=work: {"points": work()})["points"])
        jpeg = _Jpeg(trained.network, first, features // 2, profile.seed)
        for snr_db in LINKS_DB:
            key = {"data": first.content.sources, "images": JPEG_IMAGES, "times": TIMES, "quality": tcm.QUALITY}
            work = functools.partial(jpeg.rows, snr_db)
            snr += cell(f"jpeg_{snr_db:g}dB", key, lambda work=work: {"rows": work()})["rows"]
    return {"eta": eta, "rankings": rankings, "snr": snr}


def _importance(profile: Profile, trained: training.Trained) -> dict[str, Any]:
    """Importance on images of the training split."""
    used = labelled.sets(profile.sets[0], profile.size.side, profile.seed, "train", True, RANKED_BY)
    return dataclasses.asdict(importance.importance(trained.network, used.images))


def _weighed(cell: dict[str, Any]) -> importance.Importance:
    return importance.Importance(np.array(cell["weights"]), np.array(cell["spread"]))


def _semantic(points: Rows) -> Rows:
    """Rows of ``snr`` for the classifier itself."""
    return [
        {
            "scheme": f"features, {point['ratio']:.0%} dropped", "snr_db": point["snr_db"],
            "accuracy": point["accuracy"], "error": point["error"], "delivered": 1.0, "symbols": point["kept"] / 2,
        }
        for point in points
    ]  # fmt: skip


class _Jpeg:
    """The JPEG schemes on the first held-out images. symbols: those of the classifier."""

    def __init__(self, network: Any, held: HeldOut, symbols: int, seed: int) -> None:
        self.network, self.symbols, self.seed = network, symbols, seed
        used = held.content
        self.images, self.labels = used.images[:JPEG_IMAGES].numpy(), used.labels[:JPEG_IMAGES].numpy()

    @functools.cached_property
    def bits(self) -> Array:
        return digital.payload_bits(self.images)

    def rows(self, snr_db: float) -> Rows:
        """One row for each scheme at one SNR."""
        found = {
            f"JPEG, ideal code, x {times}": tcm.ideal(
                self.network, self.images, self.labels, snr_db, symbols=times * self.symbols, bits=self.bits
            )
            for times in TIMES
        }
        found[f"JPEG of quality {tcm.QUALITY}, uncoded QPSK"] = tcm.uncoded(
            self.network, self.images, self.labels, snr_db, seed=self.seed
        )
        return [{"scheme": scheme, "snr_db": snr_db, **point} for scheme, point in found.items()]


def _fit(profile: Profile, trained: training.Trained, held: HeldOut, eta: Rows, snr_db: float) -> Curve:
    """The fit of eta(o) to the points of one set at one SNR."""
    rows = [row for row in eta if (row["set"], row["snr_db"]) == (held.name, snr_db)]
    label = f"{'m' if snr_db < 0 else ''}{abs(snr_db):g}db"
    return fit_eta(
        np.array([(row["ratio"], row["accuracy"]) for row in rows]),
        f"measured_{profile.backbone}_{label}",
        provenance=_provenance(profile, trained, held, eta, snr_db),
    )


def _provenance(profile: Profile, trained: training.Trained, held: HeldOut, eta: Rows, snr_db: float) -> dict[str, Any]:
    """Where the numbers come from: network, data, training, measurement and the command that made them."""
    features = trained.network.config.features
    whole = {row["set"]: row for row in eta if (row["kept"], row["snr_db"]) == (features, snr_db)}
    return {
        "network": f"{profile.backbone} backbone, {features} features sent as {features // 2} complex symbols",
        **profile_common.origin(profile, trained.network, trained.weights_sha256),
        "trained_for": trained.identity["link"],
        "classes": trained.identity["classes"],
        "data_set": trained.identity["data"],
        "tested_on": {
            "set": held.name, "data": held.content.sources, "images": len(held.pooled), "side": profile.size.side,
        },
        "images_seen": trained.record["images"],
        "training_seconds": round(trained.record["seconds"], 1),
        "command": profile.command,
        "channel": "awgn",
        "channel_snr_db": snr_db,
        "ratio": "share of the features that is not sent; an even number, at least 2, is",
        "ranking": f"{RULE}: abs of (19), largest over classes, times the feature's standard deviation",
        "ranked_by": f"{RANKED_BY} images of the training split",
        "accuracy": {name: {"accuracy": row["accuracy"], "error": row["error"]} for name, row in whole.items()},
    }  # fmt: skip


def _summary(curve: Curve, where: str, snr_db: float, eta: Rows) -> dict[str, Any]:
    """A line of the report on one fit."""
    rows = [row for row in eta if (row["set"], row["snr_db"]) == (where, snr_db)]
    number = kept(DROPPED[-1], rows[0]["kept"])
    dropped = next(row for row in rows if row["kept"] == number)
    return {
        "set": where,
        "snr_db": snr_db,
        "accuracy": rows[0]["accuracy"],
        "error": rows[0]["error"],
        "ratio": dropped["ratio"],
        "dropped": dropped["accuracy"],
        "parameters": dict(curve.parameters),
        "standard_errors": curve.standard_errors,
        "rmse": curve.goodness["rmse"],
    }


def _pictures(out: Path, tables: dict[str, Rows], fits: dict[tuple[str, float], Curve]) -> list[Path]:
    zeta = {key: list(curve.parameters.values()) for key, curve in fits.items()}
    return [
        pictures_classifier.eta(tables["eta"], zeta, out / "eta.png"),
        pictures_classifier.over_snr(tables["snr"], out / "snr.png"),
        pictures_classifier.rankings(tables["rankings"], out / "rankings.png"),
    ]
