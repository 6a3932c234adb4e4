"""The interference factor measured, smoothed, fitted, and as the environment reads it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from semcom_gym import envs
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.profile import Profile
from semcom_gym.transceivers.sfma import fit, interference

torch.set_num_threads(1)
SNRS_DB = np.array((-5.0, -2.0, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0))
SHARES = np.array((0.0625, 0.125, 0.25, 0.5, 0.75, 1.0))
RHO = (0.1, 0.7, 0.3, 3.0, -2.0)  # rho_min, rho_max, a, b, d


def reference_error(snr_db: float, share: float) -> float:
    """A distortion that is linear in dB over dB, so that nothing is lost between its points."""
    return 0.03 * share**-0.4 * 10 ** (-0.06 * snr_db)


def true_rho(snr_db: float, share: float) -> float:
    low, high, a, b, d = RHO
    return low + (high - low) / (1 + math.exp(a * 10 ** (snr_db / 10) + b * share + d))


def measured(levels: np.ndarray, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Distortion of pairs with that rho by (11), and of the reference, (S, D, n); each user has a level of its own."""
    pair, alone = np.empty((2, len(SNRS_DB), len(SHARES)))
    for k, snr_db in enumerate(SNRS_DB):
        for m, share in enumerate(SHARES):
            power, noise_power = 10 ** (snr_db / 10), 1.0  # p |h|^2 and b N0
            own = power / 2
            gamma = own / (true_rho(snr_db, share) * own + noise_power)  # (11)
            # without interference the reference has Gamma = p |h|^2 / (2 b N0)
            pair[k, m] = reference_error(10 * math.log10(2 * gamma), share)
            alone[k, m] = reference_error(snr_db, share)
    jitter = np.exp(noise * np.random.default_rng(seed).standard_normal((*pair.shape, len(levels))))
    return pair[..., None] * levels * jitter, alone[..., None] * levels


def test_rho_put_into_11_gives_the_measured_distortion() -> None:
    levels = np.array((0.5, 1.0, 3.0))
    pair, alone = measured(levels)
    found = interference.estimate(pair, SNRS_DB, alone, SNRS_DB, draws=5)
    expected = np.array([[true_rho(snr_db, share) for share in SHARES] for snr_db in SNRS_DB])
    np.testing.assert_allclose(found.rho, expected, atol=1e-6)
    assert np.all(found.error < 1e-6)  # all pairs are alike but for their level
    np.testing.assert_allclose(found.slope, 0.6, rtol=1e-6)  # dB of distortion over dB
    # the environment's own (11), at a power, bandwidth and gain of which only the SNR matters
    bandwidth, power, half = 2e6, 0.05, np.ones((1, 1))
    for k, snr_db in enumerate(SNRS_DB):
        for m, share in enumerate(SHARES):
            link = physics.Links(
                rho_min=found.rho[k, m] * half, rho_max=found.rho[k, m] * half, power_slope=half, ratio_slope=half,
                offset=-half, similarity=half, snr=np.full((1, 1, 2), 10 ** (snr_db / 10) * bandwidth / power / 2),
                source_bit=half, spare_s=half, level=half, tilt=half,
            )  # fmt: skip
            gamma = physics.sinr(link, power * half, bandwidth * half, share * half)[0, 0, 0]
            assert gamma == pytest.approx(float(interference.sinr(snr_db, found.rho[k, m])))
            error = reference_error(10 * math.log10(2 * gamma), share) * levels.mean()
            assert error == pytest.approx(pair[k, m].mean(), rel=1e-6)


def test_bootstrap_error_is_the_spread_of_repeated_measurements() -> None:
    rng = np.random.default_rng(1)
    runs = [
        interference.estimate(*_args(measured(np.exp(0.5 * rng.standard_normal(60)), 0.1, seed)), seed=seed, draws=100)
        for seed in range(30)
    ]
    spread = np.std([run.rho for run in runs], axis=0, ddof=1)
    claimed = np.mean([run.error for run in runs], axis=0)
    assert np.median(claimed / spread) == pytest.approx(1.0, abs=0.2)
    assert np.all((claimed / spread > 0.5) & (claimed / spread < 2.0))


def _args(both: tuple[np.ndarray, np.ndarray]) -> tuple[Any, ...]:
    return both[0], SNRS_DB, both[1], SNRS_DB


def test_pairs_by_themselves() -> None:
    levels = np.array((0.5, 1.0, 3.0))
    _, alone = measured(levels)
    own = np.array((0.0, 0.2, 0.6))
    pair = np.empty_like(alone)
    for k, snr_db in enumerate(SNRS_DB):
        for m, share in enumerate(SHARES):
            gamma = [1 / (rho + 2 * 10 ** (-snr_db / 10)) for rho in own]
            pair[k, m] = [
                x * reference_error(10 * math.log10(2 * g), share) for x, g in zip(levels, gamma, strict=True)
            ]
    found = interference.of_pairs(pair, SNRS_DB, alone, SNRS_DB)
    np.testing.assert_allclose(found, own, atol=1e-6)
    sample = np.exp(0.4 * np.random.default_rng(0).standard_normal(20_000))
    assert fit.parameter_spread([0.1 * sample, 0.3 * sample]) == pytest.approx(0.4, rel=0.03)
    assert fit.parameter_spread([]) == 0.0


def test_equivalent_snr_between_and_beyond_the_points() -> None:
    reference_db = np.array((0.0, 10.0, 20.0))
    reference = np.array((1e-1, 1e-2, 1e-2 / math.sqrt(10)))
    asked = np.array((1e-1, 10**-1.5, 1e-2, 1.0, 1e-3))
    found, slope, outside = interference.equivalent_snr_db(reference, reference_db, asked)
    np.testing.assert_allclose(found, (0, 5, 10, -10, 30), atol=1e-6)
    assert outside.tolist() == [False, False, False, True, True]
    np.testing.assert_allclose(slope, (1.0, 0.875, 0.75, 1.0, 0.5), atol=1e-6)  # halfway of 1 and (1 + 0.5) / 2


def test_a_reference_that_rises_or_stands_still_has_an_inverse() -> None:
    found, slope, _ = interference.equivalent_snr_db(
        np.array((4e-2, 1e-2, 2e-2, 1e-3)), np.array((0.0, 5.0, 10.0, 15.0)), np.array((3e-2, 2e-3))
    )
    assert 0 < found[0] < 5 and 10 < found[1] < 15  # noqa: PT018
    flat = interference.equivalent_snr_db(np.array((1e-2, 1e-3, 1e-3)), np.array((0.0, 5.0, 10.0)), np.array((9e-4,)))
    assert flat[0][0] == interference.FARTHEST_DB  # what the reference never reaches
    assert abs(flat[1][0]) < 1e-6
    assert np.all(slope > 0)
    assert interference.rho(10.0, 60.0) == pytest.approx(2e-6 - 0.2)


@pytest.mark.parametrize(
    ("reference", "reference_db", "distortion", "message"),
    [
        ([1.0], [0.0], [1.0], "one distortion for each of 2 SNRs or more"),
        ([1.0, 0.5], [0.0], [1.0], "one distortion for each of 2 SNRs or more"),
        ([1.0, 0.5], [5.0, 5.0], [1.0], "SNRs of the reference must rise"),
        ([1.0, 0.0], [0.0, 5.0], [1.0], "distortion of the reference must be positive"),
        ([1.0, 0.5], [0.0, 5.0], [0.0], "distortion must be positive"),
    ],
)
def test_references_that_make_no_sense(reference: Any, reference_db: Any, distortion: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interference.equivalent_snr_db(np.array(reference), np.array(reference_db), np.array(distortion))


def test_estimates_that_make_no_sense() -> None:
    pair, alone = measured(np.ones(3))
    for bad, message in (
        ((pair[:, :2], SNRS_DB, alone, SNRS_DB), "same ratios and images"),
        ((pair, SNRS_DB[:3], alone, SNRS_DB), "3 SNRs for distortion"),
        ((pair[..., :1], SNRS_DB, alone[..., :1], SNRS_DB), "at least 2 pairs"),
    ):
        with pytest.raises(ValueError, match=message):
            interference.estimate(*bad)
    with pytest.raises(ValueError, match="draws must be >= 2"):
        interference.estimate(pair, SNRS_DB, alone, SNRS_DB, draws=1)


class Mixing(nn.Module):
    """Adds a share of the partner's image and a constant; no channel."""

    def __init__(self, mixed: float, shift: float = 0.0) -> None:
        super().__init__()
        self.mixed, self.shift = nn.Parameter(torch.tensor(mixed)), shift
        self.links: list[tuple[float, float, float]] = []

    def forward(self, pairs: Tensor, snr_db: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(1, generator=generator)
        self.links.append((float(snr_db[0]), float(share[0]), float(noise)))
        return pairs + self.mixed * pairs.flip(1) + self.shift


def drawn(n: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(256, size=(n, 2, 3, 4, 4), dtype=np.uint8))


def test_images_of_both_users_as_they_arrive() -> None:
    pairs = drawn(200, 0)  # two batches of 250 images
    network = Mixing(0.5)
    for snr_db, share in ((7.0, 0.25), (10.0, 1.0)):
        received, sent = (
            torch.cat(part) for part in zip(*interference.deliver(network, pairs, snr_db, share, 3), strict=True)
        )
        assert torch.equal((255 * sent).round().byte(), pairs)
        torch.testing.assert_close(received, sent + 0.5 * sent.flip(1))
    assert [link[:2] for link in network.links] == [(7.0, 0.25)] * 2 + [(10.0, 1.0)] * 2
    noise = [link[2] for link in network.links]
    assert noise[0] != noise[1]  # batches have noise of their own
    assert noise[:2] == noise[2:]  # links share it
    with pytest.raises(ValueError, match="pairs must be uint8"):
        list(interference.deliver(network, pairs / 255.0, 7.0, 1.0))


def test_leakage_is_the_partners_share_of_the_variance() -> None:
    pairs = drawn(4_000, 1)
    again = pairs.clone()
    again[:, 1] = drawn(4_000, 2)[:, 1]
    for mixed in (0.0, 0.5):
        found = interference.leakage(Mixing(mixed), pairs, again, 10.0, 1.0)
        assert found == pytest.approx(mixed**2 / (1 + mixed**2), abs=0.01)
    assert interference.leakage(Mixing(0.5), pairs, pairs, 10.0, 1.0) == 0.0
    with pytest.raises(ValueError, match="same first images"):
        interference.leakage(Mixing(0.0), pairs, drawn(4_000, 3), 10.0, 1.0)
    with pytest.raises(ValueError, match="at least 2"):
        interference.leakage(Mixing(0.0), pairs[:1], pairs[:1], 10.0, 1.0)
    still = pairs[:1].expand(5, -1, -1, -1, -1)
    with pytest.raises(ValueError, match="nothing to compare"):
        interference.leakage(Mixing(0.0), still, still, 10.0, 1.0)


TABLES = arrays.arrays(float, (3, 4), elements=st.floats(0, 1, width=32))
WEIGHTS = arrays.arrays(float, (3, 4), elements=st.floats(0.125, 4, width=32))


@settings(max_examples=25, deadline=None)
@given(TABLES, WEIGHTS)
def test_smoothing_is_the_projection(table: np.ndarray, weight: np.ndarray) -> None:
    found = fit.smooth(table, weight)
    assert np.all(np.diff(found, axis=0) <= 1e-7)
    assert np.all(np.diff(found, axis=1) <= 1e-7)
    steps = [
        {"type": "ineq", "fun": lambda x, axis=axis: -np.diff(x.reshape(3, 4), axis=axis).ravel()} for axis in (0, 1)
    ]
    best = scipy.optimize.minimize(
        lambda x: np.sum(weight * (x.reshape(3, 4) - table) ** 2), np.full(12, table.mean()), constraints=steps,
        jac=lambda x: (2 * weight * (x.reshape(3, 4) - table)).ravel(), method="SLSQP", options={"ftol": 1e-14},
    )  # fmt: skip
    assert np.sum(weight * (found - table) ** 2) <= best.fun + 1e-6
    np.testing.assert_allclose(fit.smooth(found, weight), found, atol=1e-6)


def surface(noise: float = 0.0, seed: int = 0) -> np.ndarray:
    exact = np.array([[true_rho(snr_db, share) for share in SHARES] for snr_db in SNRS_DB])
    return exact + noise * np.random.default_rng(seed).standard_normal(exact.shape)


def test_fit_recovers_the_parameters() -> None:
    found = fit.fit_interference(surface(), SNRS_DB, SHARES, np.ones((8, 6)))
    assert list(found.parameters.values()) == pytest.approx(RHO, rel=1e-4)
    assert found.r2_raw == pytest.approx(1.0)
    assert found.r2_smoothed == pytest.approx(1.0)
    assert found.r2_in_db is not None
    assert found.r2_in_db < 0.99
    assert (found.constant, found.at_limit) == (False, ())
    exact = fit.logistic(RHO, 10 ** (SNRS_DB[:, None] / 10), SHARES)
    np.testing.assert_allclose(exact, surface(), rtol=1e-12)


def test_r2_and_standard_errors_with_noise() -> None:
    fits = [fit.fit_interference(surface(0.01, seed), SNRS_DB, SHARES, np.ones((8, 6))) for seed in range(12)]
    values = np.array([list(each.parameters.values()) for each in fits])
    claimed = np.array([list(each.standard_errors.values()) for each in fits])
    assert np.all(np.abs(values.mean(0) - RHO) < 4 * values.std(0) / 12**0.5 + 0.01)
    # the fit is to the smoothed table, whose residuals are smaller than the noise: the errors are rough
    assert np.all((claimed.mean(0) / values.std(0, ddof=1) > 0.3) & (claimed.mean(0) / values.std(0, ddof=1) < 2.0))
    raw = np.clip(surface(0.01, 3), 0, 1)
    snr, share = np.meshgrid(10 ** (SNRS_DB / 10), SHARES, indexing="ij")
    residual = raw - fit.logistic(values[3], snr, share)
    assert fits[3].r2_raw == pytest.approx(1 - np.sum(residual**2) / np.sum((raw - raw.mean()) ** 2))
    assert np.all(np.diff(fits[3].smoothed, axis=0) <= 1e-7)


def test_what_never_rises_above_noise_is_a_constant() -> None:
    rho = 0.02 + 0.01 * np.random.default_rng(0).standard_normal((8, 6))
    weight = np.random.default_rng(1).uniform(0.5, 2, (8, 6))
    found = fit.fit_interference(rho, SNRS_DB, SHARES, weight)
    assert found.constant
    assert found.parameters["rho_min"] == found.parameters["rho_max"]
    assert found.parameters["rho_min"] == pytest.approx(np.average(np.clip(rho, 0, 1), weights=weight))
    assert found.parameters["power_slope"] is None
    assert found.r2_raw is None


def test_a_surface_without_a_slope_in_one_direction_says_so() -> None:
    rho = np.repeat(surface()[:, :1], 6, axis=1)
    found = fit.fit_interference(rho, SNRS_DB, SHARES, np.ones((8, 6)))
    assert "ratio_slope" in found.at_limit
    assert found.r2_raw is not None
    assert found.r2_raw > 0.95


@pytest.mark.parametrize(
    ("rho", "weight", "message"),
    [
        (np.zeros((8, 5)), np.ones((8, 5)), r"rho must be finite, \(8, 6\)"),
        (np.full((8, 6), np.nan), np.ones((8, 6)), "rho must be finite"),
        (np.zeros((8, 6)), np.zeros((8, 6)), "weights must be positive"),
        (np.zeros((8, 6)), np.ones((6, 8)), "weights must be positive"),
    ],
)
def test_tables_that_cannot_be_fitted(rho: Any, weight: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit.fit_interference(rho, SNRS_DB, SHARES, weight)
    with pytest.raises(ValueError, match="9 points are too few"):
        fit.fit_interference(np.zeros((3, 3)), SNRS_DB[:3], SHARES[:3], np.ones((3, 3)))


def test_the_environment_reads_the_fits(tmp_path: Path) -> None:
    steep = fit.fit_interference(surface(), SNRS_DB, SHARES, np.ones((8, 6)))
    gentle = fit.fit_interference(0.5 * surface(), SNRS_DB, SHARES, np.ones((8, 6)))
    none = fit.fit_interference(np.full((8, 6), 0.01), SNRS_DB, SHARES, np.ones((8, 6)))
    link = fit.Link(gain=5e-12, bandwidth_hz=2e6, noise_psd_w_hz=4e-21)
    errors = np.random.default_rng(0).uniform(1e-3, 3e-3, (3, 6, 20)) * SHARES[:, None] ** -0.5
    tables = fit.interference_tables([steep, gentle, none], link) | fit.distortion_tables(errors, SHARES)
    parameters = tables | {"similarity": [0.2, 0.6, 1.0], "parameter_spread": 0.1}
    profile = Profile("mine", json.loads(json.dumps(parameters)))
    power = 10 ** (SNRS_DB / 10) * 2e6 * 4e-21 / 5e-12
    for similarity, expected in ((0.2, surface()), (0.6, 0.5 * surface()), (1.0, np.full((8, 6), 0.01))):
        found = {name: np.full((1, 8), x) for name, x in profile.interference(np.array(similarity), np.ones(5)).items()}
        rest = dict.fromkeys(("similarity", "snr", "source_bit", "spare_s", "level", "tilt"), np.zeros((1, 8)))
        for m, share in enumerate(SHARES):
            rho = physics.interference(physics.Links(**found, **rest), power[None], np.full((1, 8), share))
            np.testing.assert_allclose(rho[0], expected[:, m], atol=1e-4)
    assert tables["steepness"][1] == tables["steepness"][2]  # the constant has its neighbour's slopes
    curve = {"name": "mine", "problem": "sfma", "kind": "measured", "quantity": "q", "equation": "e", "points": [],
             "parameters": parameters, "standard_errors": None, "goodness": {}, "provenance": {}}  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(curve))
    params = dataclasses.replace(envs.problem("sfma").preset("default"), curve=str(tmp_path / "mine.json"))
    assert np.isfinite(envs.problem("sfma").sample_split(params, "train", 2).rho_min).all()
    lone = fit.interference_tables([none], link)
    assert lone["steepness"] == [1.0]
    with pytest.raises(ValueError, match="at least one fit"):
        fit.interference_tables([], link)
    with pytest.raises(ValueError, match="gain must be"):
        fit.Link(0.0, 1.0, 1.0)


def test_distortion_tables_by_hand() -> None:
    rng = np.random.default_rng(0)
    level = np.exp(0.6 * rng.standard_normal(400))
    tilt = rng.uniform(-0.1, 0.1, 400)
    means = np.array((2e-3, 1e-3))[:, None] * SHARES**-0.5
    spread = np.exp(0.05 * rng.standard_normal((2, 6, 400)))
    found = fit.distortion_tables(means[..., None] * level * SHARES[:, None] ** -tilt * spread, SHARES)
    assert found["distortion_spread"] == pytest.approx(0.05, abs=0.005)
    assert found["distortion_tilt"] == pytest.approx(0.1, abs=0.02)
    low, high = found["distortion_level"]
    assert low + high == pytest.approx(2.0)
    assert high / low == pytest.approx(math.exp(2 * 1.2816 * 0.6), rel=0.15)  # quantiles of a log-normal
    np.testing.assert_allclose(found["distortion"], means * level.mean(), rtol=0.05)
    flat = fit.distortion_tables(np.ones((2, 6, 3)) * np.array((1.0, 2.0, 3.0)), SHARES)
    assert (flat["distortion_tilt"], flat["distortion_spread"]) == (0.0, 0.0)
    assert flat["ratio_grid"] == SHARES.tolist()
    with pytest.raises(ValueError, match="2 or more of each"):
        fit.distortion_tables(np.ones((1, 6, 3)), SHARES)


def test_envelope_is_the_running_maximum_from_the_right() -> None:
    assert fit.envelope(np.array((5.0, 2.0, 4.0, 1.0, 3.0))).tolist() == [5.0, 4.0, 4.0, 3.0, 3.0]
