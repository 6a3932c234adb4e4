"""The learning curve that ``semcom-gym rounds`` measured, fitted: a file for ``SemCom/TrainingFading-v0``."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import curve_fit

from semcom_gym.envs.curve import Curve
from semcom_gym.envs.training.learning import psnr_db


def fit(report: dict[str, Any], models: str) -> Curve:
    """The curve of one kind of models from the content of ``rounds.json``: least squares over all its runs, measured
    rounds and devices. Raises ValueError where there are too few measured rounds to fit three parameters.
    """
    runs = [run for run in report["runs"] if run["models"] == models]
    points = [[row["round"], psnr] for run in runs for row in run["rows"] for psnr in row["psnr_db"]]
    rounds, psnr = np.array(points, float).reshape(-1, 2).T
    if len(np.unique(rounds)) < 4:
        raise ValueError(f"a learning curve needs four measured rounds at least, got {len(np.unique(rounds))}")
    first = (float(psnr[rounds == 0].mean()), float(np.ptp(psnr)), float(rounds.max()) / 5.0)
    best, covariance = curve_fit(psnr_db, rounds, psnr, p0=first, bounds=([-np.inf, 0, 0], np.inf))
    residual = psnr - psnr_db(rounds, *best)
    return Curve(
        name=f"deepjscc_{models}",
        problem="training",
        kind="measured",
        quantity="PSNR [dB] on validation crops of a device's network on its own link, after l rounds of Algorithm 1",
        equation="P(l) = start + gain l / (l + half), 0 <= l <= max_rounds; a form of ours, the paper has none",
        parameters=_rounded(best) | {"max_rounds": float(rounds.max())},
        standard_errors=_rounded(np.sqrt(np.diag(covariance))),
        points=[[float(number), round(float(value), 4)] for number, value in points],
        goodness={
            "rmse_db": round(float(np.sqrt(np.mean(residual**2))), 4),
            "largest_error_db": round(float(np.max(np.abs(residual))), 4),
        },
        provenance={
            **report["provenance"],
            "models": models,
            "runs": [
                {name: run[name] for name in ("method", "weights_sha256")}
                | {"links": [{key: device[key] for key in ("maps", "snr_db")} for device in run["devices"]]}
                for run in runs
            ],
        },
    )


def _rounded(values: Any) -> dict[str, float]:
    return {name: round(float(x), 6) for name, x in zip(("start", "gain", "half"), values, strict=True)}
