"""Fit of the logistic distortion (12), (13) of the ASCC paper, and the rate table of its rows.

    D = d_s + d_c / (1 + exp(-a_1 (log10 BER - a_0)))

d_s is what was measured without an error, as Section III-A has it; d_c, a_1 and a_0 are those of least squared error.
For given a_1 and a_0 the best d_c is known in closed form, which leaves two to search for. Nothing is determined
outside the bit error rates that were measured, so a_0 is kept within them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize
from scipy.special import expit

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.ascc.rates import RateTable
from semcom_gym.envs.curve import Curve

SLOPES = (0.2, 50.0)
"""Limits of a_1. A slope of 50 is a step between two neighbouring rates."""
STARTS = (1.0, 3.0, 9.0)
LEAST_POINTS = 5
EQUATION = "D = d_s + d_c / (1 + exp(-a_1 (log10 BER - a_0))), a row of every list per codec ({number})"
QUANTITIES = {
    "data": "distortion 1 - MS-SSIM of a data user against the log10 of its bit error rate",
    "semantic": "classification error of a semantic user against the log10 of its bit error rate",
}
NUMBERS = {"data": "(12)", "semantic": "(13)"}


@dataclasses.dataclass(frozen=True)
class Logistic:
    """A row of a table. errors: standard errors of d_c, a_1 and a_0. bounded: whether a_1 or a_0 ended at a limit."""

    source_distortion: float
    channel_distortion: float
    slope: float
    midpoint: float
    errors: tuple[float, float, float]
    r2: float
    rmse: float
    bounded: bool

    def at(self, log10_ber: Array) -> Array:
        """Distortion at bit error rates."""
        return self.source_distortion + self.channel_distortion * expit(self.slope * (log10_ber - self.midpoint))


def fit_logistic(points: Array, source_distortion: float, most: float = 1.0) -> Logistic:
    """The least-squares fit to ``points`` (m, 2), rows (log10 BER, distortion), five or more.

    source_distortion: d_s, without errors. most: the largest distortion there is; inf for a mean squared error.
    Standard errors are from the Jacobian at the solution. Raises ValueError for points that are too few, not finite or
    do not rise above d_s.
    """
    log10_ber, excess = _check(points, source_distortion, most)
    room = most - source_distortion

    def height(theta: Array) -> float:
        shape = expit(theta[0] * (log10_ber - theta[1]))
        return float(np.clip(shape @ excess / (shape @ shape), 0.0, room))

    def residual(theta: Array) -> Array:
        return height(theta) * expit(theta[0] * (log10_ber - theta[1])) - excess

    limits = ((SLOPES[0], log10_ber.min()), (SLOPES[1], log10_ber.max()))
    inner = log10_ber.min() + np.ptp(log10_ber) * np.linspace(0.1, 0.9, 9)
    starts = [np.array((slope, middle)) for slope in STARTS for middle in inner]
    starts.sort(key=lambda theta: float(np.sum(residual(theta) ** 2)))
    found = [
        scipy.optimize.least_squares(residual, start, bounds=limits, xtol=1e-12, ftol=1e-12, gtol=1e-12)
        for start in starts[:3]
    ]
    slope, midpoint = min(found, key=lambda result: float(result.cost)).x
    channel_distortion = height(np.array((slope, midpoint)))
    left = residual(np.array((slope, midpoint)))
    return Logistic(
        source_distortion, channel_distortion, float(slope), float(midpoint),
        _errors(log10_ber, left, channel_distortion, slope, midpoint),
        r2=float(1.0 - np.sum(left**2) / np.sum((excess - excess.mean()) ** 2)),
        rmse=float(np.sqrt(np.mean(left**2))),
        bounded=bool(np.any(np.isclose([slope, midpoint], limits, rtol=1e-3, atol=1e-3))),
    )  # fmt: skip


def rate_table(
    rates_bit: Sequence[float],
    rows: Sequence[Logistic],
    points: Sequence[Array],
    name: str,
    user: str,
    *,
    source_errors: Sequence[float],
    provenance: Mapping[str, Any] | None = None,
) -> Curve:
    """The table of codecs, a row for each, as the environment ASCC reads it.

    rates_bit: mean coded bits of an image. points: of each row, as for :func:`fit_logistic`. user: data or semantic.
    source_errors: standard errors of the d_s. Raises ValueError, in one line, for a table the environment refuses.
    """
    validate.choice("user", user, QUANTITIES)
    columns = {
        "rate_bit": [float(rate) for rate in rates_bit],
        "source_distortion": [row.source_distortion for row in rows],
        "channel_distortion": [row.channel_distortion for row in rows],
        "slope": [row.slope for row in rows],
        "midpoint": [row.midpoint for row in rows],
    }
    RateTable(name, columns)
    errors: dict[str, Any] = {"source_distortion": [float(error) for error in source_errors]}
    for k, key in enumerate(("channel_distortion", "slope", "midpoint")):
        errors[key] = [row.errors[k] for row in rows]
    limits = {"log10_inverse_rate": [-float(np.log10(rate)) for rate in rates_bit], "r2": [row.r2 for row in rows],
              "rmse": [row.rmse for row in rows], "at_a_limit": [row.bounded for row in rows]}  # fmt: skip
    return Curve(
        name=name, problem="ascc", kind="measured", quantity=f"{QUANTITIES[user]}, for {len(rows)} codecs",
        equation=EQUATION.format(number=NUMBERS[user]), parameters=columns, standard_errors=errors,
        points=[[rate, *pair] for rate, own in zip(columns["rate_bit"], points, strict=True) for pair in own.tolist()],
        goodness={"least_r2": min(row.r2 for row in rows), "largest_rmse": max(row.rmse for row in rows)},
        provenance={**(provenance or {}), "rows": limits},
    )  # fmt: skip


def _errors(
    log10_ber: Array, left: Array, channel_distortion: float, slope: float, midpoint: float
) -> tuple[float, float, float]:
    """Standard errors of d_c, a_1 and a_0, from the Jacobian."""
    shape = expit(slope * (log10_ber - midpoint))
    steep = channel_distortion * shape * (1.0 - shape)
    jacobian = np.column_stack((shape, steep * (log10_ber - midpoint), -steep * slope))
    variance = np.sum(left**2) / (len(left) - 3)
    d_c, a_1, a_0 = np.sqrt(variance * np.diag(np.linalg.pinv(jacobian.T @ jacobian, hermitian=True))).tolist()
    return d_c, a_1, a_0


def _check(points: Array, source_distortion: float, most: float) -> tuple[Array, Array]:
    """log10 BER and the distortion above d_s."""
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < LEAST_POINTS:
        raise ValueError(f"points must be at least {LEAST_POINTS} rows (log10 BER, distortion), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("points have a value that is not finite")
    validate.number("source_distortion", source_distortion, high=most, open_low=False)
    excess = points[:, 1] - source_distortion
    if len(np.unique(points[:, 0])) < LEAST_POINTS or excess.max() <= 0:
        raise ValueError("points must have five different bit error rates and rise above the distortion without errors")
    return points[:, 0], excess
