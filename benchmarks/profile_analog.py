"""Deep JSCC on the pictures of the ASCC profile: the curves that its model ZF-WF-DJSCC reads.

The network of :mod:`profiles` serves every SNR and ratio. Told the SNR that it meets, it stands for networks trained
at the SNR of each user (Fig. 8 of the paper); told 10 dB whatever it meets, at both ends, for the one trained at 10 dB
(Figs. 7 and 9).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.benchmarks import store
from semcom_gym.envs.curve import Curve
from semcom_gym.transceivers.deepjscc import measure as analog
from semcom_gym.transceivers.deepjscc import training
from semcom_gym.transceivers.deepjscc.network import MAPS_PER_RATIO
from semcom_gym.transceivers.hyperprior import receivers

if TYPE_CHECKING:
    from semcom_gym.benchmarks.measured_ascc import Measurement
    from semcom_gym.benchmarks.profile_ascc import Profile

MAPS = (4, 8, 16, 32)
SNRS_DB = (-20.0, -15.0, -10.0, -5.0, -2.0, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0, 20.0)
TOLD = {"matched": None, "10db": 10.0}
"""SNR [dB] that both ends are told; None for the true one, within what the network was trained for."""
QUANTITY = {
    "data": "distortion 1 - MS-SSIM of a data user against SNR and channel uses, deep JSCC",
    "semantic": "classification error of a semantic user against SNR and channel uses, deep JSCC",
}
Rows = list[dict[str, Any]]


def load(profile: Profile) -> training.Trained | None:
    """The network of ``profile.analog``, None if none is named."""
    return None if profile.analog is None else training.load(profile.analog, profile.device)


def measure(trained: training.Trained, measurement: Measurement) -> Rows:
    """Distortion of both users over channel uses and SNR; each user, number of maps and kind of network is a cell."""
    counts = [count for count in MAPS if count <= trained.network.config.maps]
    asked = [(user, told, count) for user in receivers.FIGURES for told in TOLD for count in counts]
    work = []
    for user, told, count in asked:
        key = measurement.same | {"analog": trained.weights_sha256, "user": user, "told": told, "maps": count,
                                  "snrs_db": SNRS_DB}  # fmt: skip
        compute = functools.partial(_points, trained, measurement, user, told, count)
        work.append(store.Work(f"analog_{user}_{told}_{count}", key, compute))
    found = measurement.cells.cells(work, "deep JSCC")
    return [
        {"user": user, "told": told, **point}
        for (user, told, _), cell in zip(asked, found, strict=True)
        for point in cell["points"]
    ]


def curves(rows: Rows, trained: training.Trained, origin: dict[str, Any]) -> list[Curve]:
    """A curve of each user and kind of network, in the format of ``Quality`` of ZF-WF-DJSCC.

    origin: provenance of the pictures, the classifier and the command.
    """
    provenance = {
        name: origin[name] for name in ("tested_on", "command", "device", "versions", "seed", "classes", "weights")
    } | {"network": "deep JSCC, one network for all SNRs and ratios", "weights_sha256": trained.weights_sha256,
         "trained_for": trained.identity["range"], "images_seen": trained.record["images"]}  # fmt: skip
    return [
        _curve([row for row in rows if (row["user"], row["told"]) == (user, told)], user, told, provenance)
        for user in receivers.FIGURES
        for told in TOLD
    ]


def _points(trained: training.Trained, measurement: Measurement, user: str, told: str, maps: int) -> dict[str, Rows]:
    images = measurement.photos if user == "data" else measurement.shown.images
    score = receivers.quality(images)
    if user == "semantic":
        score = receivers.recognition(measurement.networks.viewer.network, measurement.shown.labels)
    span = trained.identity["range"]
    uses = round(maps / MAPS_PER_RATIO * images[0].numel())
    rows = []
    for snr_db in SNRS_DB:
        said = TOLD[told]
        said = float(np.clip(snr_db, span["low_db"], span["high_db"])) if said is None else said
        shown = analog.received(trained.network, images, maps, snr_db, said, measurement.profile.seed)
        values = np.array([score(k, picture[None])[0, 0] for k, picture in enumerate(shown)])
        error = float(values.std(ddof=1) / len(values) ** 0.5)
        rows.append({"channel_uses": uses, "snr_db": snr_db, "distortion": float(values.mean()), "error": error})
    return {"points": rows}


def _curve(rows: Rows, user: str, told: str, provenance: dict[str, Any]) -> Curve:
    uses = sorted({row["channel_uses"] for row in rows})
    table = np.array([[row["distortion"] for row in rows if row["channel_uses"] == count] for count in uses])
    falling = np.minimum.accumulate(table, axis=1)
    return Curve(
        name=f"measured_djscc_{user}_{told}", problem="ascc", kind="measured",
        quantity=QUANTITY[user], equation="a table: a row for every number of channel uses, a column for every SNR",
        parameters={
            "channel_uses": [float(count) for count in uses], "snr_db": list(SNRS_DB), "distortion": falling.tolist(),
        },
        standard_errors={"distortion": max(row["error"] for row in rows)},
        points=[[row["channel_uses"], row["snr_db"], row["distortion"]] for row in rows],
        goodness={"largest_change_by_running_minimum": float(np.max(table - falling))},
        provenance={**provenance, "told_db": TOLD[told] if TOLD[told] is not None else "the true SNR",
                    "distortion": "running minimum over the SNR: it never rises with it"},
    )  # fmt: skip
