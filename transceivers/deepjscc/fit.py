"""Fit of the PSNR P(rho, S) = a ln(c^rho rho + c^s S + b), (57) of the training paper, to a measured surface.

S is in dB: with the slopes of (58) a linear S would overrun every figure of the paper. The four coefficients are badly
scaled (where PSNR rises by a few dB, the argument of the logarithm may be 1e6), so the same function is fitted as
p0 + a ln(1 + alpha (rho - rho_0) + beta (S - S_0)), with rho_0, S_0 the least of the points: for given alpha and beta
it is linear in p0 and a.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize

from semcom_gym.envs.arrays import Array
from semcom_gym.envs.curve import Curve

NAMES = ("scale", "ratio_slope", "snr_slope", "offset")
FOLDS, REPEATS = 5, 10  # of the cross-validation, as in Section VII-B
LOG_LIMITS = ((-9.0, -9.0), (9.0, 9.0))  # of ln(alpha times the range of rho) and of ln(beta times that of S)
STARTS = (-4.0, -1.0, 1.0, 4.0)
TINY_SCALE = 1e-3  # dB; a smaller slope is no rise at all
EQUATION = "P(rho, S) = scale ln(ratio_slope rho + snr_slope S + offset) (training, (57)), S in dB"
QUANTITY = "PSNR [dB] of reconstructed images against the compression rate rho and the SNR S in dB"


def fit_psnr(points: Array, name: str = "measured", *, provenance: Mapping[str, Any] | None = None) -> Curve:
    """The least-squares fit of (57) to ``points`` (m, 3), rows (rho, S in dB, PSNR in dB).

    The curve has a further parameter, ``max_snr_db``: the largest SNR of the points, beyond which (57) goes on rising
    where networks saturate, so that the environment takes P(rho, min(S, max_snr_db)).
    goodness: ``rmse``, ``mae``, ``largest_error`` and ``r2`` on the points and ``cross_validated_mae`` (5 folds,
    repeated 10 times), all but r2 in dB. Standard errors are from the Jacobian at the solution.
    Raises ValueError for points that are too few, not finite or on one line, and for a PSNR that does not rise with
    both (Condition 1 of the paper).
    """
    points = _check(points)
    found = fit_coefficients(points)
    residual = psnr_db(found, points[:, 0], points[:, 1]) - points[:, 2]
    spread = points[:, 2] - points[:, 2].mean()
    goodness = {
        "rmse": float(np.sqrt(np.mean(residual**2))),
        "mae": float(np.mean(np.abs(residual))),
        "largest_error": float(np.max(np.abs(residual))),
        "r2": float(1.0 - np.sum(residual**2) / np.sum(spread**2)),
        "cross_validated_mae": cross_validated_mae(points),
    }
    return Curve(
        name=name, problem="training", kind="measured", quantity=QUANTITY, equation=EQUATION,
        parameters=dict(zip(NAMES, found.tolist(), strict=True)) | {"max_snr_db": float(points[:, 1].max())},
        standard_errors=dict(zip(NAMES, _standard_errors(found, points, residual).tolist(), strict=True)),
        points=points.tolist(), goodness=goodness, provenance=dict(provenance or {}),
    )  # fmt: skip


def psnr_db(coefficients: Array, ratio: Array, snr_db: Array) -> Array:
    """(57) in dB; coefficients: scale, ratio_slope, snr_slope [1/dB], offset."""
    scale, ratio_slope, snr_slope, offset = coefficients
    return scale * np.log(ratio_slope * ratio + snr_slope * snr_db + offset)


def fit_coefficients(points: Array) -> Array:
    """scale, ratio_slope, snr_slope and offset of the best fit. Raises ValueError where there is none."""
    low, range_ = points[:, :2].min(0), np.ptp(points[:, :2], axis=0)
    x, target = (points[:, :2] - low) / range_, points[:, 2]

    def design(theta: Array) -> Array:
        return np.column_stack((np.ones(len(x)), np.log1p(x @ np.exp(theta))))

    def residual(theta: Array) -> Array:
        matrix = design(theta)
        return matrix @ np.linalg.lstsq(matrix, target, rcond=None)[0] - target

    starts = [np.array((alpha, beta)) for alpha in STARTS for beta in STARTS]
    start = min(starts, key=lambda theta: float(np.sum(residual(theta) ** 2)))
    theta = scipy.optimize.least_squares(residual, start, bounds=LOG_LIMITS, xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    level, scale = np.linalg.lstsq(design(theta), target, rcond=None)[0]
    if scale < TINY_SCALE or np.any(theta <= LOG_LIMITS[0][0] + 1e-6):
        raise ValueError("PSNR does not rise with both the ratio and the SNR, so (57) does not fit it (Condition 1)")
    slopes = np.exp(theta) / range_
    unit = np.exp(level / scale)  # a ln(unit (1 + ...)) = level + a ln(1 + ...)
    return np.array((scale, unit * slopes[0], unit * slopes[1], unit * (1.0 - slopes @ low)))


def cross_validated_mae(points: Array, folds: int = FOLDS, repeats: int = REPEATS, seed: int = 0) -> float:
    """Mean absolute error [dB] on points left out, over ``folds`` folds and ``repeats`` ways to deal them."""
    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(repeats):
        fold = rng.permutation(len(points)) % folds
        for k in range(folds):
            found = fit_coefficients(points[fold != k])
            left = points[fold == k]
            argument = left[:, :2] @ found[1:3] + found[3]
            if not np.all(argument > 0):
                raise ValueError("the points do not determine (57): a fit without some of them has no value at those")
            errors.append(np.abs(found[0] * np.log(argument) - left[:, 2]))
    return float(np.mean(np.concatenate(errors)))


def violations(points: Sequence[Mapping[str, float]], tolerance_db: float = 0.05) -> int:
    """How many steps of a measured grid, to the next ratio or SNR, lose more than ``tolerance_db`` of PSNR."""
    grid = {(p["ratio"], p["snr_db"]): p["psnr_db"] for p in points}
    ratios, snrs = sorted({key[0] for key in grid}), sorted({key[1] for key in grid})
    table = np.array([[grid[ratio, snr] for snr in snrs] for ratio in ratios])
    return int(np.sum(np.diff(table, axis=0) < -tolerance_db) + np.sum(np.diff(table, axis=1) < -tolerance_db))


def _standard_errors(found: Array, points: Array, residual: Array) -> Array:
    """Of the coefficients, from the Jacobian; the columns are scaled, as they differ by orders of magnitude."""
    scale = found[0]
    argument = points[:, :2] @ found[1:3] + found[3]
    jacobian = np.column_stack(
        (np.log(argument), scale * points[:, 0] / argument, scale * points[:, 1] / argument, scale / argument)
    )
    size = np.linalg.norm(jacobian, axis=0)
    variance = np.sum(residual**2) / (len(points) - len(found))
    return np.sqrt(variance * np.diag(np.linalg.pinv((jacobian / size).T @ (jacobian / size), hermitian=True))) / size


def _check(points: Array) -> Array:
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 2 * FOLDS:
        raise ValueError(f"points must be at least {2 * FOLDS} rows (rho, S in dB, PSNR in dB), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("points have a value that is not finite")
    if np.any(np.ptp(points[:, :2], axis=0) == 0):
        raise ValueError("points must have more than one ratio and more than one SNR")
    return points
