"""The fit of (57), and that the environment reads it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.envs.curve import Curve
from semcom_gym.envs.training import physics
from semcom_gym.transceivers.deepjscc import fit

TRUTHS = [(18.67, 1.52, 0.03, 3.69), (18.67, 5.092, 0.1005, 5.11), (2.0, 4e5, 9e3, 2e5)]
"""Two published curves, and the scale that a network which saturates asks for."""


def surface(coefficients: tuple[float, ...], noise_db: float = 0.0, seed: int = 0) -> np.ndarray:
    ratio, snr_db = (grid.ravel() for grid in np.meshgrid(np.linspace(0.05, 0.33, 8), np.linspace(-5, 20, 9)))
    scale, ratio_slope, snr_slope, offset = coefficients
    psnr = scale * np.log(ratio_slope * ratio + snr_slope * snr_db + offset)
    return np.column_stack((ratio, snr_db, psnr + noise_db * np.random.default_rng(seed).standard_normal(len(psnr))))


def coefficients(curve: Curve) -> np.ndarray:
    return np.array([curve.parameters[name] for name in fit.NAMES])


@pytest.mark.parametrize("truth", TRUTHS)
def test_recovers_the_coefficients(truth: tuple[float, ...]) -> None:
    curve = fit.fit_psnr(surface(truth))
    assert coefficients(curve) == pytest.approx(truth, rel=1e-4)
    assert curve.parameters["max_snr_db"] == 20.0  # the largest of the points
    assert curve.goodness["rmse"] < 1e-6
    assert curve.goodness["cross_validated_mae"] < 1e-5
    assert curve.goodness["r2"] == pytest.approx(1.0)


@pytest.mark.parametrize("truth", TRUTHS)
def test_with_noise_it_is_the_least_squares_fit(truth: tuple[float, ...]) -> None:
    points = surface(truth, noise_db=0.3)
    found = coefficients(fit.fit_psnr(points))

    def total(coefficients: np.ndarray) -> float:
        return float(np.sum((fit.psnr_db(coefficients, points[:, 0], points[:, 1]) - points[:, 2]) ** 2))

    nudges = 1.0 + 1e-4 * np.random.default_rng(1).standard_normal((200, 4))
    assert total(found) <= min(total(np.array(truth)), *(total(found * nudge) for nudge in nudges))


def test_figures_of_the_fit_are_those_of_its_residuals() -> None:
    points = surface(TRUTHS[2], noise_db=0.3)
    curve = fit.fit_psnr(points)
    a, cr, cs, b = coefficients(curve)
    left = [a * np.log(cr * r + cs * s + b) - p for r, s, p in points]
    assert curve.goodness["mae"] == pytest.approx(sum(abs(e) for e in left) / len(left))
    assert curve.goodness["rmse"] == pytest.approx((sum(e * e for e in left) / len(left)) ** 0.5)
    assert curve.goodness["mae"] < curve.goodness["cross_validated_mae"] < 0.35
    assert curve.goodness["largest_error"] == pytest.approx(max(abs(e) for e in left))
    assert curve.points == points.tolist()


def test_standard_errors_are_the_spread_of_repeated_fits() -> None:
    truth = TRUTHS[1]
    fits = [fit.fit_coefficients(surface(truth, 0.02, seed)) for seed in range(60)]
    errors = np.array(list(fit.fit_psnr(surface(truth, 0.02)).standard_errors.values()))
    assert np.std(fits, axis=0, ddof=1) / errors == pytest.approx(np.ones(4), abs=0.4)  # 60 draws: sd of the ratio 0.1


def test_the_environment_reads_the_curve(tmp_path: Path) -> None:
    points = surface((3.0, 8000.0, 300.0, 30000.0))
    curve = fit.fit_psnr(points, "mine", provenance={"command": "a test"})
    curve.save(tmp_path / "mine.json")
    params = dataclasses.replace(envs.problem("training").preset("default"), psnr_curve=str(tmp_path / "mine.json"))
    found = physics.psnr_db(params, points[:, 0], 10 ** (points[:, 1] / 10))
    np.testing.assert_allclose(found, points[:, 2], atol=1e-6)
    written = json.loads((tmp_path / "mine.json").read_text())
    assert (written["kind"], written["problem"]) == ("measured", "training")


FALLING = surface(TRUTHS[0]) * [1, 1, -1]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (surface(TRUTHS[0])[:9], "at least 10 rows"),
        (surface(TRUTHS[0])[:, :2], "at least 10 rows"),
        (np.full((12, 3), np.nan), "not finite"),
        (surface(TRUTHS[0])[:8].repeat(2, 0), "more than one SNR"),
        (FALLING, "does not rise with both"),
        (surface(TRUTHS[0]) * [1, 0, 1] + [0, 1, 0] * np.arange(72)[:, None] % 7, "does not rise with both"),
    ],
)
def test_points_that_cannot_be_fitted(points: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit.fit_psnr(points)


def test_violations_are_counted_step_by_step() -> None:
    table = {(0.1, 0.0): 20.0, (0.1, 5.0): 19.94, (0.2, 0.0): 19.96, (0.2, 5.0): 19.97}
    points = [{"ratio": r, "snr_db": s, "psnr_db": p} for (r, s), p in table.items()]
    assert fit.violations(points) == 1
    assert fit.violations(points, tolerance_db=0.03) == 2
    assert fit.violations(points[::-1], tolerance_db=0.1) == 0
