"""Measurement of the ASCC profile: coded pictures with bit errors, at data and semantic users, of codecs and rates."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.benchmarks import store
from semcom_gym.envs import validate
from semcom_gym.transceivers import pixels
from semcom_gym.transceivers.classifier import images as labelled
from semcom_gym.transceivers.coding import hevc
from semcom_gym.transceivers.deepjscc import training as photographs
from semcom_gym.transceivers.hyperprior import flips, receivers
from semcom_gym.transceivers.hyperprior.network import SIDE, positions

if TYPE_CHECKING:
    import torch

    from semcom_gym.benchmarks.profile_ascc import Profile
    from semcom_gym.envs.arrays import Array

QPS = (46, 42, 38, 34, 30, 26, 23, 20)
"""Quantisation of HEVC, the coarsest first."""
MAIN, ALL = "main", "all"
"""Which bits may be wrong: those of the latents, the hyper-latents before them being protected, or all."""
CASES = (
    ("hyperprior", "data", MAIN), ("hyperprior", "data", ALL), ("hyperprior", "semantic", MAIN),
    ("hevc", "data", ALL), ("hevc", "semantic", ALL),
)  # fmt: skip
"""What is measured: codec, user, errors."""
TABLED = {"hyperprior": MAIN, "hevc": ALL}
"""Errors that the rate tables are of. With errors in all bits the distortion of the learned codec is no logistic: it
falls again where most hyper-latents are damaged, as the flat picture of a decoder that gave up scores above a wrong
one."""
CODE = ("transceivers",)
Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Size:
    """What is measured. side: of the pictures. pictures: crops for the data user; labelled: images for the semantic
    user. rates: of the codec, evenly over its range. draws: of bit errors for each of them.
    """

    side: int
    pictures: int
    labelled: int
    rates: int
    draws: int = 1

    def __post_init__(self) -> None:
        for name in ("pictures", "labelled", "rates"):
            validate.integer(name, getattr(self, name), low=2)
        validate.integer("draws", self.draws)
        pixels.check_side(self.side, SIDE)


@dataclasses.dataclass(frozen=True)
class Networks:
    """The codec, the classifier of uncoded pictures, and the semantic decoder, as their training returns them."""

    codec: Any
    viewer: Any
    decoder: Any

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of their weights."""
        return {field.name: getattr(self, field.name).weights_sha256 for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class Errors:
    """One codec at one setting (rate index or qp) and one user, as :func:`flips.measure` finds it on ``images``."""

    codec: str
    user: str
    errors: str
    setting: float
    images: int
    bits: float
    protected_bits: float
    clean: dict[str, float]
    points: Rows

    @property
    def key(self) -> dict[str, Any]:
        """What it is of."""
        return {"codec": self.codec, "user": self.user, "errors": self.errors, "setting": self.setting}

    def pairs(self, figure: str) -> Array:
        """Rows (log10 BER, figure)."""
        return np.array([(point["log10_ber"], point[figure]) for point in self.points])


class Measurement:
    """Networks and HEVC on test pictures; each codec, user and setting is a cell of finished work."""

    def __init__(self, profile: Profile, networks: Networks) -> None:
        self.profile, self.networks, self.size = profile, networks, profile.size.measured
        self.photos, self.photo_sources = photographs.crops(
            profile.sets, "test", self.size.side, self.size.pictures, profile.seed
        )
        self.shown = labelled.sets(
            profile.labelled, self.size.side, profile.seed, "test", True, self.size.labelled
        )  # fmt: skip
        self.cells = profile.cells
        self.rates = positions(networks.codec.network.config, self.size.rates)

    @property
    def same(self) -> dict[str, Any]:
        """What decides a measurement."""
        return {
            "weights": self.networks.hashes, "size": dataclasses.asdict(self.size), "seed": self.profile.seed,
            "data": {**self.photo_sources, **self.shown.sources}, "device": self.profile.device,
            "code": store.code_version(*CODE),
        }  # fmt: skip

    def errors(self) -> list[Errors]:
        """Every case at every rate or qp, so that the mean length of a stream rises."""
        asked = [
            (codec, user, errors, float(setting))
            for codec, user, errors in CASES
            for setting in (self.rates if codec == "hyperprior" else QPS)
        ]
        work = []
        for codec, user, errors, setting in asked:
            key = self.same | {"codec": codec, "user": user, "errors": errors, "setting": setting,
                               "log10_bers": flips.LOG10_BERS}  # fmt: skip
            compute = functools.partial(self._measured, codec, user, errors, setting)
            work.append(store.Work(f"{codec}_{user}_{errors}_{setting:.3g}", key, compute))
        images = {"data": self.size.pictures, "semantic": len(self.shown.labels)}
        return [
            Errors(codec, user, errors, setting, images[user], **cell)
            for (codec, user, errors, setting), cell in zip(asked, self.cells.cells(work, "measuring"), strict=True)
        ]

    def tuning(self, found: list[Errors]) -> Rows:
        """What the tuning by (4) is worth: classification error without bit errors at every rate, ``tuned`` and not,
        and ``uncoded``, of the classifier on pictures that were never coded; each with its standard error.
        """
        own = [e for e in found if (e.codec, e.user) == ("hyperprior", "semantic")]
        key = self.same | {"tuning": self.rates}
        plain = self.cells.cell("tuning", key, lambda: {"shares": [self._wrong(rate) for rate in (None, *self.rates)]})
        (uncoded, uncoded_error), *untuned = plain["shares"]
        return [
            {
                "setting": e.setting, "rate_bit": e.bits, "tuned": e.clean["distortion"],
                "tuned_error": e.clean["distortion_error"], "untuned": share, "untuned_error": error,
                "uncoded": uncoded, "uncoded_error": uncoded_error,
            }
            for e, (share, error) in zip(own, untuned, strict=True)
        ]  # fmt: skip

    def _wrong(self, rate: float | None) -> tuple[float, float]:
        """Share of labelled images, coded at a rate or not at all, that the classifier alone names wrongly."""
        codec, viewer = self.networks.codec.network, self.networks.viewer.network
        score, where = receivers.recognition(viewer, self.shown.labels), next(codec.parameters()).device
        wrong = []
        for k, image in enumerate(self.shown.images):
            shown = pixels.scaled(image, where)[None]
            if rate is not None:
                shown = receivers.shown(codec, shown, rate)
            wrong.append(score(k, shown)[0, 0])
        return float(np.mean(wrong)), float(np.std(wrong, ddof=1) / len(wrong) ** 0.5)

    def _measured(self, codec: str, user: str, errors: str, setting: float) -> dict[str, Any]:
        images = self.photos if user == "data" else self.shown.images
        sent, judge = (self._of_codec if codec == "hyperprior" else self._of_hevc)(images, user, setting)
        return flips.measure(
            sent, judge, receivers.FIGURES[user], draws=self.size.draws, seed=self.profile.seed,
            protected=int(errors == MAIN),
        )  # fmt: skip

    def _of_codec(self, images: torch.Tensor, user: str, rate: float) -> tuple[list[flips.Payload], flips.Judge]:
        codec = self.networks.codec.network
        streams = receivers.streams(codec, images, rate)
        score = receivers.recognition(self.networks.decoder.network, self.shown.labels)
        if user == "data":
            score = receivers.quality(images)

        def decode(latents: torch.Tensor) -> torch.Tensor:
            return codec.reconstruct(latents).clamp(0.0, 1.0) if user == "data" else latents

        return receivers.payloads(streams), receivers.of_codec(codec, streams, decode, score)

    def _of_hevc(self, images: torch.Tensor, user: str, qp: float) -> tuple[list[flips.Payload], flips.Judge]:
        if user == "data":
            score = receivers.quality(images)
        else:
            score = receivers.recognition(self.networks.viewer.network, self.shown.labels)
        sent: list[flips.Payload] = [(hevc.encode(image, int(qp)),) for image in images.numpy()]
        return sent, receivers.of_hevc(self.size.side, self.size.side, score)


def rate_distortion(curves: list[Errors], side: int) -> Rows:
    """Bits per pixel and quality of every codec without errors, on the pictures of the data user."""
    return [
        {
            "codec": curve.codec, "setting": curve.setting, "bpp": curve.bits / side**2,
            "psnr_db": curve.clean["psnr_db"], "psnr_db_error": curve.clean["psnr_db_error"],
            "ms_ssim": 1.0 - curve.clean["distortion"], "ms_ssim_error": curve.clean["distortion_error"],
        }
        for curve in curves
        if (curve.user, curve.errors) == ("data", TABLED[curve.codec])
    ]  # fmt: skip


def over_hevc_db(rows: Rows, rates_bpp: tuple[float, ...]) -> dict[str, float | None]:
    """PSNR of the codec over that of HEVC at rates [bit per pixel], None where one of them has no such rate.

    Between measured rates PSNR is linear in the logarithm of the rate.
    """

    def at(codec: str, rate: float) -> float | None:
        own = np.array([(np.log(row["bpp"]), row["psnr_db"]) for row in rows if row["codec"] == codec])
        inside = own[0, 0] <= np.log(rate) <= own[-1, 0]
        return float(np.interp(np.log(rate), *own.T)) if inside else None

    found: dict[str, float | None] = {}
    for rate in rates_bpp:
        ours, reference = at("hyperprior", rate), at("hevc", rate)
        found[f"{rate:g}"] = None if ours is None or reference is None else ours - reference
    return found
