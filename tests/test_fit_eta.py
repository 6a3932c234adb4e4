"""The fit of eta(o), and Algorithm 1 beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import envs
from semcom_gym.baselines.crra.fit import fit_eta, gradient_descent, rmse
from semcom_gym.envs import curve
from semcom_gym.envs.crra.instance import ZETA

NAMES = [name for name in curve.shipped("crra") if not name.startswith("measured_")]
RATIOS = np.linspace(0.0, 1.0, 41)
PLAIN_START = (-1e-3, 5.0, 0.9, -0.05)


def published(name: str) -> np.ndarray:
    parameters = curve.load("crra", name, ZETA).parameters
    return np.array([parameters[key] for key in ZETA])


def sample(zeta: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    eta = zeta[0] * np.exp(zeta[1] * RATIOS) + zeta[2] * np.exp(zeta[3] * RATIOS)
    return np.column_stack((RATIOS, eta + noise * np.random.default_rng(seed).standard_normal(len(RATIOS))))


def fitted(points: np.ndarray) -> np.ndarray:
    return np.array([fit_eta(points).parameters[key] for key in ZETA])


def test_all_six_curves_of_table_iv_are_there() -> None:
    assert len(NAMES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_recovers_a_published_curve_from_its_own_points(name: str) -> None:
    zeta = published(name)
    np.testing.assert_allclose(fitted(sample(zeta)), zeta, rtol=1e-7)
    assert fit_eta(sample(zeta)).goodness["rmse"] < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_with_noise_it_is_the_least_squares_fit(name: str) -> None:
    zeta = published(name)
    points = sample(zeta, noise=0.03)
    found = fit_eta(points)
    fit = np.array([found.parameters[key] for key in ZETA])
    assert found.goodness["rmse"] <= rmse(zeta, points)  # the truth is one candidate
    assert np.max(np.abs(sample(fit)[:, 1] - sample(zeta)[:, 1])) < 0.09  # three standard deviations of one point
    nudges = 1.0 + 1e-3 * np.random.default_rng(1).standard_normal((200, 4))
    assert found.goodness["rmse"] <= min(rmse(fit * nudge, points) for nudge in nudges) + 1e-12


@settings(max_examples=15)
@given(
    bend=st.floats(0.05, 1.0),
    rise=st.floats(4.0, 60.0),
    level=st.floats(0.3, 1.0),
    drift=st.floats(-0.3, 0.1),
    noise=st.sampled_from((0.0, 0.01, 0.05)),
    step=st.sampled_from((1e-9, 1e-6, 1e-3, 1e-1)),
)
def test_never_worse_than_gradient_descent_and_fit_for_the_environment(
    bend: float, rise: float, level: float, drift: float, noise: float, step: float
) -> None:
    zeta = np.array((-bend * np.exp(-rise), rise, level, drift))
    points = sample(zeta, noise)
    found = fitted(points)
    assert found[0] <= 0 < found[2]
    assert found[1] > max(0.0, found[3])
    for start in (PLAIN_START, tuple(zeta), (-0.5, 1.0, 1.0, 0.1)):
        descended, _ = gradient_descent(points, start, step, 300)
        assert rmse(found, points) <= rmse(descended, points) + 1e-12


def test_a_step_of_gradient_descent_is_along_the_gradient_of_its_loss() -> None:
    points = sample(published("resnet_m5db"), noise=0.02)
    start, step = np.array((-0.02, 3.0, 0.9, -0.1)), 1e-4
    moved, losses = gradient_descent(points, tuple(start), step, 1)

    def loss(zeta: np.ndarray) -> float:
        return 0.5 * rmse(zeta, points) ** 2

    numeric = [(loss(start + 1e-6 * e) - loss(start - 1e-6 * e)) / 2e-6 for e in np.eye(4)]
    np.testing.assert_allclose((start - moved) / step, numeric, rtol=1e-5)
    np.testing.assert_allclose(losses, [loss(start), loss(moved)])


@pytest.mark.parametrize("step", [1e-12, 1e-9, 1e-6, 1e-3, 1e-1, 10.0])
def test_algorithm_1_does_not_converge_on_the_papers_own_curve(step: float) -> None:
    points = sample(published("resnet_0db"), noise=0.02)
    best = fit_eta(points).goodness["rmse"]
    plain, _ = gradient_descent(points, PLAIN_START, step, 2000)
    assert rmse(plain, points) > 3 * best
    _, losses = gradient_descent(points, tuple(published("resnet_0db") * 1.01), step, 2000)
    assert np.sqrt(2 * losses[-1]) > 3 * best  # not even from one per cent off the solution


def test_standard_errors_are_the_spread_of_repeated_fits() -> None:
    zeta = published("resnet_m5db")
    fits = [fit_eta(sample(zeta, 0.01, seed)) for seed in range(120)]
    for key in ("zeta2", "zeta3", "zeta4"):
        spread = np.std([f.parameters[key] for f in fits])
        claimed = np.median([f.standard_errors[key] for f in fits if f.standard_errors is not None])
        assert 0.75 < claimed / spread < 1.3, key


def test_points_without_a_bend_have_no_standard_errors() -> None:
    found = fit_eta(np.column_stack((RATIOS, np.full_like(RATIOS, 0.9))))
    assert found.standard_errors is None
    assert found.goodness["rmse"] < 1e-8


def test_a_fit_is_a_curve_that_the_environment_takes(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    found = fit_eta(sample(published("vgg_0db"), 0.01), "mine", kind="synthetic", provenance={"source": "a test"})
    found.save(path)
    params = envs.problem("crra").preset("default", curves=(str(path),))
    np.testing.assert_allclose(params.curve_table[0], [found.parameters[key] for key in ZETA])


GOOD = sample(np.array((-1e-3, 6.0, 0.9, 0.0)))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (np.where(np.arange(41)[:, None] == 3, np.nan, GOOD), r"points\[3\] is not finite"),
        (GOOD * (1.5, 1.0), "outside"),
        (GOOD - (0.1, 0.0), "outside"),
        (GOOD[:4], "at least 5 different o, got 4"),
        (np.repeat(GOOD[:1], 9, axis=0), "at least 5 different o, got 1"),
        (GOOD[:, 0], "shape"),
        ("points", "shape|numbers"),
        (GOOD * (1.0, -1.0), "zeta3 > 0"),
    ],
)
def test_bad_points_are_one_clear_line(points: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        fit_eta(points)
    assert "\n" not in str(caught.value)


def test_bad_descent_settings_are_named() -> None:
    with pytest.raises(ValueError, match="step"):
        gradient_descent(GOOD, PLAIN_START, -1.0)
    with pytest.raises(ValueError, match="start"):
        gradient_descent(GOOD, (1.0, 2.0), 0.1)
    with pytest.raises(ValueError, match="curve kind"):
        fit_eta(GOOD, kind="guessed")
