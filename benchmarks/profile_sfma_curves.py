"""From what the profile of SC-SFMA measures to rho, its fits, and the curve files that environment and schemes read."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym import envs
from semcom_gym.benchmarks.profile_common import Profile, origin
from semcom_gym.benchmarks.profile_sfma_cells import REFERENCE, SHARES, SNRS_DB, STATED_DB, Measurement, Rows, cbr
from semcom_gym.envs.curve import Curve
from semcom_gym.envs.sfma.profile import PARAMETERS
from semcom_gym.transceivers.sfma import fit, interference

if TYPE_CHECKING:
    from semcom_gym.envs.arrays import Array

FITTED = ("sc_sfma", "swinjscc_noma")
"""Schemes whose rho is fitted: a profile each, as the paper's comparison has it."""
ORTHOGONAL = "swinjscc_oma"
LINK_INSTANCES = 1_000
INTERFERENCE = (
    "rho = rho_min + (rho_max - rho_min) / (1 + exp(a p + b delta + d)), a = steepness power_share / p0, "
    "b = steepness (1 - power_share) / d0, d = -steepness (10); "
    "D = level * table(similarity, delta) * delta**-tilt (17)"
)
EFFICIENCY = "log2(1 + Gamma) [bit/s/Hz] at which SC-SFMA without interference has the same distortion"


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """rho of one scheme with one kind of pairs against one reference; the fit where there is one."""

    scheme: str
    kind: str
    reference: str
    similarity: float
    estimate: interference.Estimate
    of_pairs: Array
    fit: fit.Fit | None


def estimates(measured: Mapping[str, Any], seed: int) -> list[Found]:
    """Of the schemes of ``FITTED``: against their own network without interference, fitted, and against `swinjscc_oma`
    with the same power and symbols, where that was measured. Kinds by rising similarity.
    """
    errors, found = measured["errors"], []
    for scheme in FITTED:
        kinds = [kind for name, kind in errors if name == scheme]
        alike = {kind: float(measured["similarity"][scheme, kind].mean()) for kind in kinds}
        for kind in sorted(kinds, key=lambda kind: alike[kind]):
            for reference, alone in ((scheme, (scheme, REFERENCE)), (ORTHOGONAL, (ORTHOGONAL, "random"))):
                if alone in errors:
                    both = errors[scheme, kind][..., 0], SNRS_DB, errors[alone][..., 0], SNRS_DB
                    estimate = interference.estimate(*both, seed=seed)
                    of_pairs = interference.of_pairs(*both)
                    fitted = _fitted(estimate) if reference == scheme else None
                    found.append(Found(scheme, kind, reference, alike[kind], estimate, of_pairs, fitted))
    return found


def rho_rows(found: Sequence[Found]) -> Rows:
    """A row for every point of the grid: rho as it comes, with its error; smoothed and fitted where there is a fit."""
    rows = []
    for item in found:
        e = item.estimate
        for i, snr_db in enumerate(SNRS_DB):
            for k, share in enumerate(SHARES):
                rows.append({
                    "scheme": item.scheme, "kind": item.kind, "reference": item.reference,
                    "similarity": item.similarity, "snr_db": snr_db, "share": share, "rho": float(e.rho[i, k]),
                    "error": float(e.error[i, k]), "equivalent_db": float(e.equivalent_db[i, k]),
                    "slope": float(e.slope[i, k]), "extended": bool(e.extended[i, k]),
                    "smoothed": None if item.fit is None else float(item.fit.smoothed[i, k]),
                    "fitted": None if item.fit is None else fitted_at(item.fit, snr_db, share),
                })  # fmt: skip
    return rows


def fit_rows(found: Sequence[Found], link: fit.Link) -> Rows:
    """A row for every fit."""
    rows = []
    for item in found:
        if item.fit is None:
            continue
        row: dict[str, Any] = {"scheme": item.scheme, "kind": item.kind, "similarity": item.similarity}
        for name, value in item.fit.parameters.items():
            per_w = link.snr_per_w if name == "power_slope" else 1.0
            error = item.fit.standard_errors[name]
            row[name] = None if value is None else value * per_w
            row[f"{name}_error"] = None if error is None else error * per_w
        row |= {name: getattr(item.fit, name) for name in ("r2_raw", "r2_smoothed", "r2_in_db", "constant")}
        rows.append(row | {
            "at_limit": " ".join(item.fit.at_limit), "largest": float(item.fit.smoothed.max()),
            "rate_error": _rate_error(item.estimate, item.fit),
        })  # fmt: skip
    return rows


def fitted_at(found: fit.Fit, snr_db: float, share: float) -> float:
    """rho of a fit."""
    if found.constant:
        return float(found.parameters["rho_min"] or 0.0)
    parameters = [float(found.parameters[name] or 0.0) for name in fit.NAMES]
    return float(fit.logistic(parameters, np.array(10.0 ** (snr_db / 10.0)), np.array(share)))


def reference_link() -> fit.Link:
    """The median link of the default preset of the environment: its bandwidth at equal shares, its median gain."""
    problem = envs.problem("sfma")
    params = problem.preset("default")
    gain = float(np.median(problem.sample_split(params, "train", LINK_INSTANCES).gain))
    return fit.Link(gain, params.max_bandwidth_hz / params.num_groups, params.noise_psd_w_hz)


def profile_curve(
    profile: Profile, measurement: Measurement, measured: Mapping[str, Any], found: Sequence[Found], scheme: str
) -> Curve:
    """The profile of a scheme, one knot for each kind of pairs. Raises ValueError for kinds of the same similarity."""
    items = [item for item in found if (item.scheme, item.reference) == (scheme, scheme)]
    link, fits = reference_link(), [item.fit for item in items if item.fit is not None]
    at = SNRS_DB.index(STATED_DB)
    errors = np.stack([measured["errors"][scheme, item.kind][at, :, :, 0] for item in items])
    curved = [item for item in items if item.fit is not None and not item.fit.constant]
    tables = {
        "similarity": [item.similarity for item in items],
        **fit.interference_tables(fits, link),
        "parameter_spread": fit.parameter_spread([item.of_pairs for item in curved]),
        **fit.distortion_tables(errors, np.array(SHARES)),
    }
    for first, second in itertools.pairwise(items):
        if first.similarity == second.similarity:
            raise ValueError(f"{scheme} has one similarity for two kinds of pairs, {first.kind} and {second.kind}")
    rows = [row for row in fit_rows(items, link) if not row["constant"]]
    return Curve(
        name=f"measured_{scheme}_{profile.size_name}", problem="sfma", kind="measured",
        quantity=f"semantic interference of a pair (10) and distortion of its users (17) against similarity, {scheme}",
        equation=INTERFERENCE, parameters={name: tables[name] for name in PARAMETERS},
        standard_errors={f"{name}_{row['kind']}": row[f"{name}_error"] for row in rows for name in fit.NAMES} or None,
        points=[[item.similarity, snr_db, share, float(item.estimate.rho[i, k])] for item in items
                for i, snr_db in enumerate(SNRS_DB) for k, share in enumerate(SHARES)],
        goodness={f"{name}_{row['kind']}": row[name] for row in rows for name in ("r2_raw", "r2_smoothed")},
        provenance=_provenance(profile, measurement, scheme) | _profile_provenance(link, items),
    )  # fmt: skip


def efficiency_rows(measured: Mapping[str, Any], share: float, seed: int) -> Rows:
    """Spectral efficiency of the schemes beside SC-SFMA, over the SNR that a rate model reads a curve at.

    A scheme without interference has the distortion D at S. SC-SFMA without interference has it at S', which is
    Gamma = S' / 2 by (11). A user of NOMA has half the power of the band, so its curve is read at S / 2, and gets
    log2(1 + Gamma) in the band of the pair. An orthogonal user's is read at S; it has half the band, so twice that.
    """
    errors, k = measured["errors"], SHARES.index(share)
    rows = []
    for scheme, kind in (("swinjscc_noma", REFERENCE), (ORTHOGONAL, "random"), ("deepjscc_noma", REFERENCE)):
        if (scheme, kind) not in errors or ("sc_sfma", REFERENCE) not in errors:
            continue
        own, other = (errors[key][:, k : k + 1, :, 0] for key in ((scheme, kind), ("sc_sfma", REFERENCE)))
        e = interference.estimate(own, SNRS_DB, other, SNRS_DB, seed=seed)
        gamma = interference.sinr(SNRS_DB, e.rho[:, 0])
        times = 2.0 if scheme == ORTHOGONAL else 1.0
        slope = gamma**2 / (1.0 + gamma) / np.log(2.0)  # of log2(1 + Gamma) over 1 / Gamma, whose error is that of rho
        best = times * np.maximum.accumulate(np.log2(1.0 + gamma))
        for i, snr_db in enumerate(SNRS_DB):
            read_db = snr_db + 10.0 * np.log10(times / 2.0)
            rows.append({
                "scheme": scheme, "snr_db": float(read_db), "spectral_efficiency": float(best[i]),
                "error": float(times * slope[i] * e.error[i, 0]), "share": share, "extended": bool(e.extended[i, 0]),
            })  # fmt: skip
    return rows


def efficiency_curve(profile: Profile, measurement: Measurement, rows: Rows, scheme: str) -> Curve:
    """The curve that the rate models of the schemes read."""
    own = [row for row in rows if row["scheme"] == scheme]
    points = [[row["snr_db"], row["spectral_efficiency"]] for row in own]
    return Curve(
        name=f"measured_{scheme}_rate_{profile.size_name}", problem="sfma", kind="measured",
        quantity=f"spectral efficiency of {scheme} against the SNR (orthogonal) or SINR (NOMA) of a user: {EFFICIENCY}",
        equation="linear between the points", parameters={
            "snr_db": [x for x, _ in points], "spectral_efficiency": [y for _, y in points],
        }, standard_errors=None, points=points,
        goodness={"largest_standard_error": max(row["error"] for row in own)},
        provenance=_provenance(profile, measurement, scheme) | {
            "compared_with": measurement.trained["sc_sfma"].weights_sha256,
            "ratio": own[0]["share"],
            "beyond_the_measured_reference": [row["snr_db"] for row in own if row["extended"]],
        },
    )  # fmt: skip


def gain_rows(measured: Mapping[str, Any], scheme: str = "swinjscc_noma") -> Rows:
    """PSNR of SC-SFMA over another scheme on the same first users at the same power of the sum, point by point."""
    errors, rows = measured["errors"], []
    for kind in [kind for name, kind in errors if name == scheme and ("sc_sfma", kind) in errors]:
        gain = 10.0 * np.log10(errors[scheme, kind][..., 0] / errors["sc_sfma", kind][..., 0])
        error = gain.std(2, ddof=1) / np.sqrt(gain.shape[2])
        powers = measured["powers"]
        rows += [
            {"over": scheme, "kind": kind, "snr_db": snr_db, "share": share, "gain_db": float(gain[i, k].mean()),
             "error_db": float(error[i, k]), "power": float(powers["sc_sfma", kind][i, k]),
             "other_power": float(powers[scheme, kind][i, k])}
            for i, snr_db in enumerate(SNRS_DB) for k, share in enumerate(SHARES)
        ]  # fmt: skip
    return rows


def _fitted(estimate: interference.Estimate) -> fit.Fit:
    """The fit to one kind of pairs.

    A point weighs as the slope of the reference squared times S'. For a given relative error of the distortion the
    first is the precision of S' in dB, and with S' squared it would be that of rho. Chosen on validation pairs.
    """
    slope = np.maximum(estimate.slope, 1e-3 * max(float(estimate.slope.max()), 1e-9))
    worth = 10.0 ** (np.clip(estimate.equivalent_db, SNRS_DB[0], SNRS_DB[-1]) / 10.0)
    return fit.fit_interference(estimate.rho, np.array(SNRS_DB), np.array(SHARES), slope**2 * worth)


def _rate_error(estimate: interference.Estimate, found: fit.Fit) -> float:
    """Mean absolute error [bit/s/Hz] of log2(1 + Gamma) by the fit instead of the measured rho, confined to [0, 1]."""
    fitted = np.array([[fitted_at(found, snr_db, share) for share in SHARES] for snr_db in SNRS_DB])
    snrs_db = np.array(SNRS_DB)[:, None]
    rates = [np.log2(1.0 + interference.sinr(snrs_db, rho)) for rho in (fitted, np.clip(estimate.rho, 0.0, 1.0))]
    return float(np.abs(rates[0] - rates[1]).mean())


def _provenance(profile: Profile, measurement: Measurement, scheme: str) -> dict[str, Any]:
    """Where the numbers come from: network, data, training, measurement and the command that made them."""
    trained = measurement.trained[scheme]
    return {
        "network": f"{scheme}, one network for every SNR and ratio",
        **origin(profile, trained.network, trained.weights_sha256),
        "config": trained.identity["network"],
        "trained_for": trained.identity["range"],
        "data_set": trained.identity["data"],
        "tested_on": {
            "data": measurement.sources,
            "pairs_of_each_kind": profile.size.tested,
            "side": profile.size.side,
        },
        "images_seen": trained.record["images"],
        "training_seconds": round(trained.record["seconds"], 1),
        "command": profile.command,
        "snr": "p |h|^2 / (b N0) of the superposed signal of the pair's power p, whose sum has that power",
        "cbr_at_ratio_1": cbr(trained.network.config, 1.0),
    }


def _profile_provenance(link: fit.Link, items: Sequence[Found]) -> dict[str, Any]:
    return {
        "interference": "rho = 2 / S' - 2 / S by (11) with p / 2; S' is the SNR at which the same network has the "
        "pair's distortion with a pair of identical images",
        "kinds": {item.kind: item.similarity for item in items},
        "constant": [item.kind for item in items if item.fit is not None and item.fit.constant],
        "reference_link": {
            **dataclasses.asdict(link),
            "snr_db_of_1_w": 10.0 * np.log10(link.snr_per_w),
            "what": "median gain of the training instances of SFMA's default preset and its bandwidth at equal shares; "
            "turns the SNR that rho was fitted over into the power of (10)",
        },
        "scope": {
            "snr_db": [SNRS_DB[0], SNRS_DB[-1]],
            "power_w": [10.0 ** (snr_db / 10.0) / link.snr_per_w for snr_db in (SNRS_DB[0], SNRS_DB[-1])],
            "ratio": [SHARES[0], SHARES[-1]],
        },
        "distortion": f"upper envelope of the mean squared error at {STATED_DB:g} dB",
        "spreads": "of parameters: over single pairs, noise of the draw included; of distortion: quantiles (10 and "
        "90 %), slopes and residuals over the first users' images",
    }  # fmt: skip
