"""The profile of ASCC: train codec and semantic decoder, flip bits, fit (12) and (13), and write the rate tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.benchmarks import measured_ascc, pictures_ascc, profile_analog, profile_common
from semcom_gym.envs.curve import Curve
from semcom_gym.transceivers.hyperprior import fit, semantic, training

if TYPE_CHECKING:
    import torch

Rows = list[dict[str, Any]]
COMPARED_BPP = (0.2, 0.4, 0.75)
"""Bits per pixel at which PSNR is compared with HEVC's."""
CLASSIFIER, DECODER = "network.classifier.pt", "network.semantic.pt"
USES = {
    ("hyperprior", "data"): "decoder of the codec",
    ("hyperprior", "semantic"): "semantic decoder: decoder of the codec and classifier, tuned together by (4)",
    ("hevc", "data"): "HEVC intra in place of BPG, 4:4:4, slice only; grey where the decoder gives up",
    ("hevc", "semantic"): "HEVC intra in place of BPG, then the classifier of uncoded pictures, not tuned",
}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much work a profile is. codec, semantic: of the networks. measured: of the measurement."""

    codec: training.Size
    semantic: semantic.Size
    measured: measured_ascc.Size

    @property
    def side(self) -> int:
        """Of the crops that the codec is trained on."""
        return self.codec.side


SIZES = {
    "small": Size(
        training.SIZES["small"],
        semantic.Size(side=192, look=64, width=16, features=128, pool=8_000, images=120_000, tuned=6_000),
        measured_ascc.Size(side=192, pictures=40, labelled=200, rates=8),
    ),
    "full": Size(
        training.SIZES["full"],
        semantic.Size(
            side=256, look=128, width=64, features=512, pool=20_000, images=3_000_000, tuned=300_000, batch=256,
            tuned_batch=64, learning_rate=1e-3, tuning_rate=2e-4,
        ),
        measured_ascc.Size(side=256, pictures=100, labelled=500, rates=23),
    ),
}  # fmt: skip
"""small: for a CPU. full: for a GPU."""


@dataclasses.dataclass(frozen=True)
class Profile(profile_common.Profile):
    """As for any network. labelled: the set of the semantic user. analog: a checkpoint of deep JSCC, or None."""

    labelled: str = "stamps"
    analog: Path | None = None

    @property
    def command(self) -> str:
        """The command line."""
        more = [f"--labelled {Path(self.labelled).name}"]
        more += [f"--analog {self.analog.name}"] if self.analog else []
        return self.command_of("ascc", self.size.codec.crops, *more)


def ascc(profile: Profile) -> dict[str, Any]:
    """Train, or go on; measure what is not measured yet; fit; write tables, pictures and report. The report."""
    analog = profile_analog.load(profile)
    networks = _trained(profile)
    measurement = measured_ascc.Measurement(profile, networks)
    found = measurement.errors()
    tables = {
        "errors": _points(found),
        "fits": [row for errors in found for row in _fits(errors)],
        "rate_distortion": measured_ascc.rate_distortion(found, profile.size.measured.side),
        "tuning": measurement.tuning(found),
    }
    origin = _origin(profile, networks, measurement)
    curves = _curves(found, origin)
    if analog is not None:
        tables["analog"] = profile_analog.measure(analog, measurement)
        curves += profile_analog.curves(tables["analog"], analog, origin)
    files = [profile_common.write_curve(curve, profile.out) for curve in curves]
    files += [profile_common.write_table(profile.out / f"{name}.csv", rows) for name, rows in tables.items()]
    files += pictures_ascc.all_of(tables, profile.out)
    report = {
        "fits": tables["fits"],
        "rate_distortion": tables["rate_distortion"],
        "over_hevc_db": measured_ascc.over_hevc_db(tables["rate_distortion"], COMPARED_BPP),
        "tuning": tables["tuning"],
        "classifier": networks.viewer.record,
        "semantic": networks.decoder.record,
    }
    files += [profile.out / CLASSIFIER, profile.out / DECODER]

    def forward(images: torch.Tensor) -> torch.Tensor:
        shown, bits = networks.codec.network(images, images.new_zeros(len(images)))
        return shown.sum() + bits.sum()

    return profile_common.write_report(profile, report, networks.codec, forward, files)


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [profile_common.trained_on(report)]
    for name in ("classifier", "semantic"):
        record = report[name]
        lines.append(
            f"{name}: {record['images']} images in {record['seconds']:.0f} s, accuracy on validation images "
            f"{record['curve'][-1]['accuracy']:.3f}"
        )
    found = ", ".join(f"{_signed(value)} at {bpp} bit per pixel" for bpp, value in report["over_hevc_db"].items())
    lines.append(f"PSNR over that of HEVC intra on the same pictures: {found}")
    low, high = report["tuning"][0], report["tuning"][-1]
    lines.append(
        f"classification error without bit errors from {low['rate_bit']:.0f} to {high['rate_bit']:.0f} bit: "
        f"{low['tuned']:.3f} to {high['tuned']:.3f}, before the tuning {low['untuned']:.3f} to {high['untuned']:.3f}, "
        f"without coding {low['uncoded']:.3f} (se up to {max(row['tuned_error'] for row in report['tuning']):.3f})"
    )
    groups = dict.fromkeys(_group(row) for row in report["fits"])
    lines += [_summary(name, [row for row in report["fits"] if _group(row) == name]) for name in groups]
    return "\n".join([*lines, f"written: {', '.join(report['files'])}"])


def _group(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[key] for key in ("codec", "user", "errors", "figure"))


def _summary(name: tuple[str, ...], rows: Rows) -> str:
    """One line on the fits of a codec at all of its rates."""
    codec, user, errors, figure = name
    span = {key: f"{rows[0][key]:.4g} to {rows[-1][key]:.4g}" for key in ("rate_bit", "d_s", "d_c", "a_1", "a_0")}
    apart = [row["a_0"] - row["log10_inverse_rate"] for row in rows]
    return (
        f"{codec}, {user} user, {figure}, errors in {errors}: {span['rate_bit']} bit, d_s {span['d_s']}, "
        f"d_c {span['d_c']}, a_1 {span['a_1']}, a_0 {span['a_0']} ({min(apart):+.2f} to {max(apart):+.2f} from "
        f"log10(1/B)), least R2 {min(row['r2'] for row in rows):.4f}"
    )


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.2f} dB"


def _trained(profile: Profile) -> measured_ascc.Networks:
    """The three networks, one after the other."""
    codec = training.train(
        profile.sets, profile.size.codec, path=profile.checkpoint, seed=profile.seed, device=profile.device,
        tensorboard=profile.tensorboard / "codec",
    )  # fmt: skip
    pictures = semantic.Pictures(profile.labelled, profile.size.semantic, profile.seed)
    viewer = semantic.train_classifier(
        pictures, path=profile.out / CLASSIFIER, device=profile.device, tensorboard=profile.tensorboard / "classifier"
    )
    decoder = semantic.tune(
        pictures, codec.network, viewer, path=profile.out / DECODER, device=profile.device,
        tensorboard=profile.tensorboard / "semantic",
    )  # fmt: skip
    return measured_ascc.Networks(codec, viewer, decoder)


def _points(found: list[measured_ascc.Errors]) -> Rows:
    """Rows of ``errors.csv``: those without an error have a log10 BER of -inf; a semantic user has no picture."""
    blank = dict.fromkeys(("mse", "mse_error", "psnr_db", "psnr_db_error"), "")
    rows = []
    for errors in found:
        clean = {"log10_ber": -np.inf, "hit": 0.0, "gave_up": 0.0, **errors.clean}
        for point in (clean, *errors.points):
            known = {"distortion": point["distortion"], "distortion_error": point["distortion_error"]}
            start = {name: point[name] for name in ("log10_ber", "hit", "gave_up")}
            rows.append({**errors.key, "rate_bit": errors.bits, **start, **known, **blank} | point)
    return rows


def _fits(errors: measured_ascc.Errors) -> Rows:
    """Rows of ``fits.csv``: of the distortion, and of a data user's mean squared error."""
    rows = []
    for figure in ("distortion", "mse") if errors.user == "data" else ("distortion",):
        found = _fitted(errors, figure)
        values = {"d_s": found.source_distortion, "d_c": found.channel_distortion, "a_1": found.slope,
                  "a_0": found.midpoint}  # fmt: skip
        uncertain = zip(values, (errors.clean[f"{figure}_error"], *found.errors), strict=True)
        rows.append({
            **errors.key, "figure": figure, "rate_bit": errors.bits, "protected_bit": errors.protected_bits,
            "log10_inverse_rate": -float(np.log10(errors.bits)), **values,
            **{f"{name}_error": error for name, error in uncertain},
            "r2": found.r2, "rmse": found.rmse, "at_a_limit": found.bounded,
        })  # fmt: skip
    return rows


def _fitted(errors: measured_ascc.Errors, figure: str) -> fit.Logistic:
    """Of no wrong answer in n images half a wrong one is made: a share of errors of 0 cannot be measured."""
    least = 0.5 / errors.images if errors.user == "semantic" else 0.0
    most = np.inf if figure == "mse" else 1.0
    return fit.fit_logistic(errors.pairs(figure), max(errors.clean[figure], least), most)


def _curves(found: list[measured_ascc.Errors], origin: dict[str, Any]) -> list[Curve]:
    """The rate tables, of each codec and user."""
    curves = []
    for (codec, user), what in USES.items():
        own = [e for e in found if (e.codec, e.user, e.errors) == (codec, user, measured_ascc.TABLED[codec])]
        provenance = {
            "receiver": what, "settings": [errors.setting for errors in own],
            "protected_bit": [errors.protected_bits for errors in own], **origin,
        }  # fmt: skip
        table = fit.rate_table(
            [errors.bits for errors in own], [_fitted(errors, "distortion") for errors in own],
            [errors.pairs("distortion") for errors in own], f"measured_{codec}_{user}", user,
            source_errors=[errors.clean["distortion_error"] for errors in own], provenance=provenance,
        )  # fmt: skip
        curves.append(table)
    return curves


def _origin(
    profile: Profile, networks: measured_ascc.Networks, measurement: measured_ascc.Measurement
) -> dict[str, Any]:
    """Where the numbers come from: networks, data, training, measurement and the command that made them."""
    codec, size = networks.codec, profile.size.measured
    return {
        "network": "scale hyper-prior, one network for all rates (gains per channel)",
        **profile_common.origin(profile, codec.network, codec.weights_sha256),
        "weights": networks.hashes,
        "data_set": {"codec": codec.identity["data"], "semantic": networks.decoder.identity["data"]},
        "tested_on": {
            "data": {"data": measurement.photo_sources, "images": size.pictures},
            "semantic": {"data": measurement.shown.sources, "images": len(measurement.shown.labels)},
            "side": size.side,
        },
        "images_seen": {"codec": codec.record["images"], "classifier": networks.viewer.record["images"],
                        "semantic": networks.decoder.record["images"]},
        "training_seconds": round(sum(t.record["seconds"] for t in (codec, networks.viewer, networks.decoder)), 1),
        "command": profile.command,
        "rate_bit": "mean bits of the streams of the tested images, hyper-latents and padding included",
        "errors": "each bit wrong by itself with the bit error rate; none among protected_bit, the bits of the "
        "hyper-latents, which rate_bit counts too",
        "classes": networks.decoder.identity["classes"],
        "least_error": "of n images without a wrong answer, a classification error of 1 / (2 n)",
    }  # fmt: skip
