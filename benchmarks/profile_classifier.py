"""The profile of the classifier: train, rank the features, measure eta(o) and accuracy over SNR, fit, write."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
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
    tables = _Measurement(profile, trained, held_out).tables()
    fits = {
        (held.name, snr_db): _fit(profile, trained, held, tables["eta"], snr_db)
        for held in held_out
        for snr_db in SNRS_DB
    }
    files = [profile_common.write_curve(fits[held_out[0].name, snr_db], profile.out) for snr_db in SNRS_DB]
    files += [profile_common.write_table(profile.out / f"{name}.csv", rows) for name, rows in tables.items()]
    files += _pictures(profile.out, tables, fits)
    found = {
        "fits": [_summary(curve, where, snr_db, tables["eta"]) for (where, snr_db), curve in fits.items()],
        "rankings": tables["rankings"],
        "snr": tables["snr"],
        "classes": trained.identity["classes"],
    }

    def forward(images: torch.Tensor) -> torch.Tensor:
        return trained.network(images, images.new_zeros(len(images)))

    return profile_common.write_report(profile, found, trained, forward, files)


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [profile_common.trained_on(report)]
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


class _Measurement:
    """A network on the test images; finished parts are cells."""

    def __init__(self, profile: Profile, trained: training.Trained, held_out: list[HeldOut]) -> None:
        self.profile, self.trained, self.held_out, self.first = profile, trained, held_out, held_out[0]
        self.cells = store.Store(profile.out / "cells")
        self.bar = progress.bar(2 + len(held_out) * len(SNRS_DB) + 2 * len(LINKS_DB), "measuring")
        self.same = {
            "weights": trained.weights_sha256, "side": profile.size.side, "tested": profile.size.tested,
            "seed": profile.seed, "device": profile.device, "code": store.code_version(*CODE),
        }  # fmt: skip

    def tables(self) -> dict[str, Rows]:
        """Rows of the tables ``eta``, ``rankings`` and ``snr``."""
        with self.bar:
            key = {"images": RANKED_BY}
            weighed = _weighed(self._cell("importance", key, lambda: _importance(self.profile, self.trained)))
            orders = {rule: importance.ranking(weighed, rule, self.profile.seed) for rule in importance.RULES}
            eta, rankings = self._eta(orders[RULE]), self._rankings(orders)
            return {"eta": eta, "rankings": rankings, "snr": [*self._links(orders[RULE]), *self._jpeg()]}

    def _eta(self, order: Array) -> Rows:
        rows: Rows = []
        for held in self.held_out:
            key = {"data": held.content.sources, "ratios": RATIOS, "rule": RULE}
            for snr_db in SNRS_DB:
                name = f"eta_{held.name}_{snr_db:g}dB"
                points = self._rows("points", name, key, self._points, held, order, RATIOS, snr_db)
                rows += [{"set": held.name, **point} for point in points]
        return rows

    def _rankings(self, orders: dict[str, Array]) -> Rows:
        """eta(o) at one SNR by every rule."""

        def compared() -> dict[str, Any]:
            return {rule: self._points(self.first, order, RATIOS, COMPARED_DB) for rule, order in orders.items()}

        key = {"data": self.first.content.sources, "ratios": RATIOS, "snr_db": COMPARED_DB}
        found = self._cell("rankings", key, compared)
        return [{"rule": rule, **point} for rule, points in found.items() for point in points]

    def _links(self, order: Array) -> Rows:
        """Of ``snr``: the classifier itself."""
        rows: Rows = []
        key = {"data": self.first.content.sources, "dropped": DROPPED, "rule": RULE}
        for snr_db in LINKS_DB:
            name = f"snr_{snr_db:g}dB"
            rows += _semantic(self._rows("points", name, key, self._points, self.first, order, DROPPED, snr_db))
        return rows

    def _jpeg(self) -> Rows:
        """Of ``snr``: the JPEG schemes."""
        rows: Rows = []
        key = {"data": self.first.content.sources, "images": JPEG_IMAGES, "times": TIMES, "quality": tcm.QUALITY}
        jpeg = _Jpeg(self.trained.network, self.first, self.trained.network.config.features // 2, self.profile.seed)
        for snr_db in LINKS_DB:
            rows += self._rows("rows", f"jpeg_{snr_db:g}dB", key, jpeg.rows, snr_db)
        return rows

    def _points(self, held: HeldOut, order: Array, ratios: tuple[float, ...], snr_db: float) -> Rows:
        seed = self.profile.seed
        return measure.eta(self.trained.network, order, ratios, held.pooled, held.content.labels, snr_db, seed=seed)

    def _rows(self, field: str, name: str, key: dict[str, Any], work: Callable[..., Rows], *given: Any) -> Rows:
        """What ``work`` makes of what is given, which is kept as ``field`` of a cell."""
        rows: Rows = self._cell(name, key, lambda: {field: work(*given)})[field]
        return rows

    def _cell(self, name: str, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        found = self.cells.cell(name, self.same | {"cell": name} | key, compute)
        self.bar.update()
        return found


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
        "set": where, "snr_db": snr_db, "accuracy": rows[0]["accuracy"], "error": rows[0]["error"],
        "ratio": dropped["ratio"], "dropped": dropped["accuracy"], "parameters": dict(curve.parameters),
        "standard_errors": curve.standard_errors, "rmse": curve.goodness["rmse"],
    }  # fmt: skip


def _pictures(out: Path, tables: dict[str, Rows], fits: dict[tuple[str, float], Curve]) -> list[Path]:
    zeta = {key: list(curve.parameters.values()) for key, curve in fits.items()}
    return [
        pictures_classifier.eta(tables["eta"], zeta, out / "eta.png"),
        pictures_classifier.over_snr(tables["snr"], out / "snr.png"),
        pictures_classifier.rankings(tables["rankings"], out / "rankings.png"),
    ]
