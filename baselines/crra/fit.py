"""Fit the task performance eta(o) = zeta1 exp(zeta2 o) + zeta3 exp(zeta4 o) to measured points (Section III-D).

Algorithm 1 of the paper descends along the gradient from any start. With zeta1 near 1e-16 and zeta2 near 36 the
gradient in zeta1 is some 1e15 times the others, so no single step length suits; :func:`gradient_descent` shows it.
:func:`fit_eta` solves the same least-squares problem: the two amplitudes follow from the two exponents in closed form
(variable projection), and the bend is measured by its height at o = 1, which is near -1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.crra.instance import ZETA
from semcom_gym.envs.curve import Curve

MIN_POINTS = 5  # one more than the parameters, or there is no residual to judge the fit by
GAPS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)  # starts: zeta2 - max(0, zeta4) ...
SLOPES = (-0.5, -0.05, 0.05, 0.5)  # ... and zeta4
LIMITS = ((1e-3, -20.0), (500.0, 20.0))  # of both
POLISHED = 4  # starts that are followed to the end


def fit_eta(
    points: Array,
    name: str = "fitted",
    *,
    kind: str = "measured",
    provenance: Mapping[str, Any] | None = None,
) -> Curve:
    """The least-squares fit of eta(o) to ``points`` (m, 2), rows (o, eta), with 0 <= o <= 1.

    The result has zeta1 <= 0 < zeta3 and zeta2 > max(0, zeta4), as the environment requires. Standard errors are from
    the Jacobian at the solution; None where the points do not determine all four parameters (a fit without a bend).
    goodness: ``rmse``. kind, provenance: of the :class:`Curve`.
    Raises ValueError for points that are too few, not finite or out of range.
    """
    o, eta = _check(points)
    starts = [np.array((gap, slope)) for gap in GAPS for slope in SLOPES]
    starts.sort(key=lambda theta: float(np.sum(_residual(theta, o, eta) ** 2)))
    found = [
        scipy.optimize.least_squares(_residual, theta, bounds=LIMITS, args=(o, eta), xtol=1e-14, ftol=1e-14, gtol=1e-14)
        for theta in starts[:POLISHED]
    ]
    theta = min(found, key=lambda result: float(result.cost)).x
    zeta2, zeta4 = max(0.0, theta[1]) + theta[0], theta[1]
    height, zeta3 = _amplitudes(theta, o, eta)
    if zeta3 <= 0:
        raise ValueError("the points have no positive trend: eta(o) needs zeta3 > 0")
    zeta = np.array((-height * np.exp(-zeta2), zeta2, zeta3, zeta4))
    errors = _standard_errors(zeta, height, o, eta)
    return Curve(
        name=name,
        problem="crra",
        kind=kind,
        quantity="probability that the task succeeds once the features arrive, against the compression ratio o",
        equation="eta(o) = zeta1 exp(zeta2 o) + zeta3 exp(zeta4 o) (CRRA, Section III-D, Algorithm 1)",
        parameters=dict(zip(ZETA, zeta.tolist(), strict=True)),
        standard_errors=None if errors is None else dict(zip(ZETA, errors.tolist(), strict=True)),
        points=np.column_stack((o, eta)).tolist(),
        goodness={"rmse": rmse(zeta, np.column_stack((o, eta)))},
        provenance=dict(provenance or {}),
    )


def gradient_descent(points: Array, start: Sequence[float], step: float, iterations: int = 1000) -> tuple[Array, Array]:
    """Algorithm 1 as printed: descent on L = sum (eta - eta*)^2 / (2 D) with one step length for all parameters.

    Returns zeta (4,) of the last iterate with a finite loss and the loss (iterations + 1,) of every iterate, inf once
    the descent has left the finite numbers.
    """
    o, eta = _check(points)
    zeta = np.array(start, float)
    validate.array("start", zeta, (4,))
    validate.number("step", step)
    validate.integer("iterations", iterations)
    losses = np.full(iterations + 1, np.inf)
    last = zeta
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(iterations + 1):
            bend, base = np.exp(zeta[1] * o), np.exp(zeta[3] * o)
            residual = zeta[0] * bend + zeta[2] * base - eta
            loss = 0.5 * np.mean(residual**2)
            if not np.isfinite(loss):
                break
            losses[k], last = loss, zeta
            slopes = np.stack((bend, zeta[0] * o * bend, base, zeta[2] * o * base))
            zeta = zeta - step * np.mean(slopes * residual, axis=-1)
    return last, losses


def rmse(zeta: Array, points: Array) -> float:
    """Root mean square error of eta(o) with parameters ``zeta`` (4,) over ``points`` (m, 2)."""
    o, eta = points[:, 0], points[:, 1]
    fitted = zeta[0] * np.exp(zeta[1] * o) + zeta[2] * np.exp(zeta[3] * o)
    return float(np.sqrt(np.mean((fitted - eta) ** 2)))


def _check(points: Array) -> tuple[Array, Array]:
    try:
        data = np.asarray(points, float)
    except (TypeError, ValueError):
        raise ValueError(f"points must be numbers of shape (m, 2), got {points!r:.60}") from None
    if data.ndim != 2 or data.shape[1] != 2:
        raise ValueError(f"points must have shape (m, 2), rows (o, eta), got {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"points[{int(np.argwhere(~np.isfinite(data))[0, 0])}] is not finite")
    outside = np.flatnonzero((data[:, 0] < 0) | (data[:, 0] > 1))
    if len(outside):
        raise ValueError(f"points[{outside[0]}] has o = {data[outside[0], 0]:g}, outside [0, 1]")
    if len(np.unique(data[:, 0])) < MIN_POINTS:
        raise ValueError(f"points must have at least {MIN_POINTS} different o, got {len(np.unique(data[:, 0]))}")
    return data[:, 0], data[:, 1]


def _basis(theta: Array, o: Array) -> Array:
    """The columns -exp(zeta2 (o - 1)) and exp(zeta4 o) whose non-negative combination is eta; (m, 2)."""
    zeta2, zeta4 = max(0.0, theta[1]) + theta[0], theta[1]
    return np.column_stack((-np.exp(zeta2 * (o - 1.0)), np.exp(zeta4 * o)))


def _amplitudes(theta: Array, o: Array, eta: Array) -> Array:
    """-zeta1 exp(zeta2) >= 0 and zeta3 >= 0: the best for given exponents."""
    return scipy.optimize.nnls(_basis(theta, o), eta)[0]


def _residual(theta: Array, o: Array, eta: Array) -> Array:
    return _basis(theta, o) @ _amplitudes(theta, o, eta) - eta


def _standard_errors(zeta: Array, height: float, o: Array, eta: Array) -> Array | None:
    """Of zeta1..zeta4, to first order, from the Jacobian in (height of the bend at 1, zeta2, zeta3, zeta4)."""
    bend, base = np.exp(zeta[1] * (o - 1.0)), np.exp(zeta[3] * o)
    jacobian = np.column_stack((-bend, -height * (o - 1.0) * bend, base, zeta[2] * o * base))
    if np.linalg.matrix_rank(jacobian) < 4 or len(o) < MIN_POINTS:
        return None
    residual = -height * bend + zeta[2] * base - eta
    covariance = np.linalg.inv(jacobian.T @ jacobian) * np.sum(residual**2) / (len(o) - 4)
    # zeta1 = -height exp(-zeta2)
    change = np.eye(4)
    change[0, :2] = -np.exp(-zeta[1]), height * np.exp(-zeta[1])
    return np.sqrt(np.diag(change @ covariance @ change.T))
