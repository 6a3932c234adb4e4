"""From measured interference and distortion to the profile that the environment reads: (10) and (17).

rho of a kind of pairs is measured on a grid of SNRs and ratios. It is confined to [0, 1], replaced by the nearest table
that falls with both (weighted isotonic regression), and fitted by

    rho = rho_min + (rho_max - rho_min) / (1 + exp(a S + b delta + d)),  S linear.

In the environment (10) is a function of the power, while rho depends on the received SNR S = p |h|^2 / (b N0). A
reference link (:class:`Link`) turns one into the other: it fixes |h|^2 / (b N0), and p = S (b N0) / |h|^2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.optimize

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array

CONSTANT_BELOW = 0.05
"""Where rho never reaches this, it is noise about a constant and no curve is fitted."""
POWER_SHARE = 0.5
"""One for all knots is no loss: a, b and d follow from p0, d0 and st for any."""
NAMES = ("rho_min", "rho_max", "power_slope", "ratio_slope", "offset")
LEAST_SLOPE, LARGEST_SLOPE = 1e-3, 1e3  # of a times the mean SNR, and of b
LEAST_STEEPNESS, LARGEST_STEEPNESS = 0.05, 20.0  # of -d; see the starts
STARTS = [(a, b, st) for a in (0.1, 1.0, 5.0) for b in (0.1, 1.0, 5.0) for st in (0.2, 2.0)]
TRIED = 3  # of them, the best
ROUNDS, SETTLED = 500, 1e-10  # of the smoothing


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """(10) for one kind of pairs.

    parameters: by the names of ``NAMES``; power_slope [a] for a linear SNR. standard_errors: of them, from the
    Jacobian; neighbouring points share images and noise, so they are rough. smoothed (S, D): what was fitted.
    r2_raw, r2_smoothed: of the fit against the measured table, confined to [0, 1], and against the smoothed one;
    r2_in_db: the latter for the same function with S in dB. constant: no curve, only a mean; then the slopes are None.
    at_limit: parameters that ran into a limit of the search.
    """

    parameters: dict[str, float | None]
    standard_errors: dict[str, float | None]
    smoothed: Array
    r2_raw: float | None
    r2_smoothed: float | None
    r2_in_db: float | None
    constant: bool
    at_limit: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Link:
    """The link that the profile's powers are of: channel power gain |h|^2, bandwidth b and noise density N0."""

    gain: float
    bandwidth_hz: float
    noise_psd_w_hz: float

    def __post_init__(self) -> None:
        for name in ("gain", "bandwidth_hz", "noise_psd_w_hz"):
            validate.number(name, getattr(self, name))

    @property
    def snr_per_w(self) -> float:
        """SNR of a watt."""
        return self.gain / (self.bandwidth_hz * self.noise_psd_w_hz)


def smooth(table: Array, weight: Array) -> Array:
    """The table (S, D) nearest to ``table`` among those that rise along neither axis; least weighted squares.

    Dykstra's alternating projections onto falling columns and onto falling rows.
    """
    table, weight = np.asarray(table, float), np.asarray(weight, float)
    if table.ndim != 2 or weight.shape != table.shape or not (weight > 0).all():
        raise ValueError(f"weights must be positive, of the shape of the table {table.shape}, got {weight.shape}")
    found, left = table.copy(), [np.zeros_like(table), np.zeros_like(table)]
    for _ in range(ROUNDS):
        before = found
        for axis in (0, 1):
            target = found + left[axis]
            found = _falling(target, weight, axis)
            left[axis] = target - found
        if np.abs(found - before).max() < SETTLED:
            break
    return found


def logistic(parameters: Sequence[float], snr: Array, share: Array) -> Array:
    """(10) for a linear SNR and a ratio; parameters in the order of ``NAMES``."""
    rho_min, rho_max, a, b, d = parameters
    return rho_min + (rho_max - rho_min) / (1.0 + np.exp(np.clip(a * snr + b * share + d, -500.0, 500.0)))


def fit_interference(rho: Array, snrs_db: Array, shares: Array, weight: Array) -> Fit:
    """The fit of (10) to rho (S, D), measured at SNRs (S,) [dB] and ratios (D,); weight (S, D): of the points, above 0.

    Raises ValueError for tables that do not fit together or are not finite.
    """
    rho, snrs_db, shares = (np.asarray(x, float) for x in (rho, snrs_db, shares))
    if rho.shape != (len(snrs_db), len(shares)) or not np.isfinite(rho).all():
        raise ValueError(f"rho must be finite, ({len(snrs_db)}, {len(shares)}), got shape {rho.shape}")
    if rho.size < 2 * len(NAMES):
        raise ValueError(f"{rho.size} points are too few for the {len(NAMES)} parameters of (10)")
    raw = np.clip(rho, 0.0, 1.0)
    smoothed = smooth(raw, weight)
    if smoothed.max() < CONSTANT_BELOW:
        return _constant(raw, smoothed, np.asarray(weight, float))
    snr = np.broadcast_to(10.0 ** (snrs_db / 10.0)[:, None], raw.shape).ravel()
    snr_db, share = (x.ravel() for x in np.broadcast_arrays(snrs_db[:, None], shares))
    target, root = smoothed.ravel(), np.sqrt(np.asarray(weight, float) / np.mean(weight)).ravel()
    theta, at_limit = _search(snr, share, target, root, -LEAST_STEEPNESS)
    in_db, _ = _search(snr_db - snrs_db.min(), share, target, root, LARGEST_STEEPNESS)
    fitted = logistic(theta, snr, share)
    return Fit(
        parameters=dict(zip(NAMES, theta.tolist(), strict=True)),
        standard_errors=dict(zip(NAMES, _standard_errors(theta, snr, share, target, root).tolist(), strict=True)),
        smoothed=smoothed,
        r2_raw=_r2(fitted, raw.ravel()),
        r2_smoothed=_r2(fitted, target),
        r2_in_db=_r2(logistic(in_db, snr_db - snrs_db.min(), share), target),
        constant=False,
        at_limit=at_limit,
    )


def envelope(distortion: Array) -> Array:
    """The monotone upper envelope of (17): at each ratio the largest distortion there and at all larger ratios.

    distortion (..., D), ratios rising.
    """
    return np.maximum.accumulate(np.asarray(distortion, float)[..., ::-1], axis=-1)[..., ::-1]


def interference_tables(fits: Sequence[Fit], link: Link) -> dict[str, Any]:
    """The tables of a profile for (10), one knot for each fit, as plain lists.

    A constant knot has no slopes of its own and takes those of the nearest knot that has, since the environment
    interpolates them; with rho_min = rho_max they have no effect at the knot itself.
    """
    if not fits:
        raise ValueError("a profile needs at least one fit")
    curved = [k for k, fit in enumerate(fits) if not fit.constant]
    rows = []
    for k, fit in enumerate(fits):
        source = fits[min(curved, key=lambda other: abs(other - k))] if curved else None
        a, b, d = (1.0, 1.0, -1.0) if source is None else (source.parameters[name] for name in NAMES[2:])
        steepness = -float(d or 0.0)
        rows.append({
            "rho_min": fit.parameters["rho_min"],
            "rho_max": fit.parameters["rho_max"],
            "midpoint_power_w": POWER_SHARE * steepness / (float(a or 0.0) * link.snr_per_w),
            "midpoint_ratio": (1.0 - POWER_SHARE) * steepness / float(b or 0.0),
            "steepness": steepness,
        })  # fmt: skip
    return {name: [row[name] for row in rows] for name in rows[0]} | {"power_share": POWER_SHARE}


def distortion_tables(errors: Array, shares: Array) -> dict[str, Any]:
    """The tables of a profile for (17), and how much users differ. errors (K, D, n): of the same n users with a partner
    of each of K kinds, at ratios (D,), at one SNR.

    distortion: upper envelope of the mean over users. distortion_level: the 10 % and 90 % quantiles of the users'
    means over kinds and ratios, over their middle, so that the mean of a uniform level is 1. distortion_tilt: sqrt(3)
    standard deviations over users of their slope of ln D over ln delta, the half-width of a uniform distribution that
    spreads as much; but no more than the flattest step of the envelope allows, as a tilted table must not rise.
    distortion_spread: standard deviation of ln D within a user, over kinds, after the means of users and of kinds; at
    each ratio, then the mean. Raises ValueError for fewer than 2 kinds or users.
    """
    errors, shares = np.asarray(errors, float), np.asarray(shares, float)
    if errors.ndim != 3 or min(errors.shape) < 2 or errors.shape[1] != len(shares):
        raise ValueError(f"errors must be (kinds, {len(shares)}, users), 2 or more of each, got {errors.shape}")
    table, log = envelope(errors.mean(2)), np.log(errors)
    low, high = np.quantile(errors.mean((0, 1)), (0.1, 0.9))
    steps = -np.diff(np.log(table), axis=1) / np.diff(np.log(shares))
    slopes = np.polyfit(np.log(shares), log.mean(0), 1)[0]
    rest = log - log.mean(0) - log.mean(2, keepdims=True) + log.mean((0, 2))[:, None]
    freedom = (errors.shape[0] - 1) * (errors.shape[2] - 1)
    return {
        "ratio_grid": shares.tolist(),
        "distortion": table.tolist(),
        "distortion_level": [float(2.0 * low / (low + high)), float(2.0 * high / (low + high))],
        "distortion_tilt": float(min(np.sqrt(3.0) * np.std(slopes, ddof=1), np.abs(steps).min() * (1.0 - 1e-9))),
        "distortion_spread": float(np.sqrt((rest**2).sum((0, 2)) / freedom).mean()),
    }


def parameter_spread(rho: Sequence[Array]) -> float:
    """Standard deviation of ln rho over pairs, from the rho (n,) of the pairs of each kind; mean over kinds.

    From the coefficient of variation, as if rho were log-normal: rho itself may be 0. 0 without any kind. The
    environment takes it for the spread of each parameter of (10).
    """
    spreads = [np.sqrt(np.log1p(np.var(values, ddof=1) / np.mean(values) ** 2)) for values in rho]
    return float(np.mean(spreads)) if spreads else 0.0


def _falling(table: Array, weight: Array, axis: int) -> Array:
    """Each line along ``axis`` by itself made to fall."""
    lines = zip(np.moveaxis(table, axis, 0).T, np.moveaxis(weight, axis, 0).T, strict=True)
    found = [scipy.optimize.isotonic_regression(y, weights=w, increasing=False).x for y, w in lines]
    return np.moveaxis(np.stack(found).T, 0, axis)


def _constant(raw: Array, smoothed: Array, weight: Array) -> Fit:
    mean = float(np.average(raw, weights=weight))
    nothing: dict[str, float | None] = dict.fromkeys(NAMES)
    return Fit(nothing | {"rho_min": mean, "rho_max": mean}, nothing, smoothed, None, None, None, True, ())


def _search(
    snr: Array, share: Array, target: Array, root: Array, largest_offset: float
) -> tuple[Array, tuple[str, ...]]:
    """The parameters of least weighted squares, in the order of ``NAMES``, and which ran into a limit of the slopes."""
    unit = float(np.mean(snr))

    def natural(theta: Array) -> Array:
        low, above, a, b, offset = theta
        return np.array((low, low + (1.0 - low) * above, np.exp(a) / unit, np.exp(b), offset))

    def residual(theta: Array) -> Array:
        return root * (logistic(natural(theta), snr, share) - target)

    slopes = (np.log(LEAST_SLOPE), np.log(LARGEST_SLOPE))
    bounds = np.array([(0.0, 1.0), (0.0, 1.0), slopes, slopes, (-LARGEST_STEEPNESS, largest_offset)]).T
    low, high = float(target.min()), float(target.max())
    above = (high - low) / max(1.0 - low, 1e-9)
    starts = [np.array((low, above, np.log(a), np.log(b), -st)) for a, b, st in STARTS]
    inside = [np.clip(start, bounds[0] + 1e-6, bounds[1] - 1e-6) for start in starts]
    best = sorted(inside, key=lambda theta: float(np.sum(residual(theta) ** 2)))[:TRIED]
    found = min(
        (scipy.optimize.least_squares(residual, start, bounds=bounds, max_nfev=400) for start in best),
        key=lambda result: float(result.cost),
    ).x
    near = np.isclose(found, bounds[0], atol=1e-3) | np.isclose(found, bounds[1], atol=1e-3)
    return natural(found), tuple(name for name, hit in zip(NAMES[2:], near[2:], strict=True) if hit)


def _standard_errors(theta: Array, snr: Array, share: Array, target: Array, root: Array) -> Array:
    """Of the parameters, from the Jacobian by central differences; its columns are scaled, as they differ by orders."""
    step = 1e-6 * np.maximum(np.abs(theta), 1e-6)
    columns = [
        (logistic(theta + change, snr, share) - logistic(theta - change, snr, share)) / (2.0 * size)
        for size, change in zip(step, np.diag(step), strict=True)
    ]
    jacobian = root[:, None] * np.column_stack(columns)
    size = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    residual = root * (logistic(theta, snr, share) - target)
    variance = np.sum(residual**2) / (len(target) - len(theta))
    return np.asarray(
        np.sqrt(variance * np.diag(np.linalg.pinv((jacobian / size).T @ (jacobian / size), hermitian=True))) / size
    )


def _r2(fitted: Array, target: Array) -> float:
    return float(1.0 - np.sum((fitted - target) ** 2) / np.sum((target - target.mean()) ** 2))
