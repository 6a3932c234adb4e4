"""The generator of SC-SFMA cells: profile, similarity, channel; its statistics against the study's figures."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sfma_cells import CURVES, between, own_curve

from semcom_gym import envs
from semcom_gym.envs import channel
from semcom_gym.envs.sfma import physics

SFMA = envs.problem("sfma")
STEEP = json.loads((CURVES / "synthetic_steep.json").read_text())


def test_interference_parameters_of_the_profile(tmp_path: Path) -> None:
    """(10) is halfway between its ends on the line a p + b delta + d = 0, which the midpoints and the share fix."""
    knots = {
        "similarity": [0.1, 0.4, 0.9], "rho_min": [0.2, 0.1, 0.02], "rho_max": [0.95, 0.8, 0.5],
        "midpoint_power_w": [0.2, 0.18, 0.1], "midpoint_ratio": [0.5, 0.3, 0.2], "steepness": [4.0, 9.0, 6.0],
        "distortion": [STEEP["parameters"]["distortion"][0]] * 3, "parameter_spread": 0.0,
    }  # fmt: skip
    path = own_curve(tmp_path / "knots.json", **knots)
    params = SFMA.preset("default", curve=path)
    instance = SFMA.sample(params, np.random.default_rng(2), 20)
    outside = (instance.similarity < 0.1).mean(), (instance.similarity > 0.9).mean()
    assert min(outside) > 0, "the check must reach both ends"
    for n, m in np.ndindex(20, params.num_pairs):
        s = float(instance.similarity[n, m])
        low, high, p0, d0, steep = (
            between(s, knots["similarity"], knots[key])
            for key in ("rho_min", "rho_max", "midpoint_power_w", "midpoint_ratio", "steepness")
        )
        names = ("rho_min", "rho_max", "power_slope", "ratio_slope", "offset")
        got = [float(getattr(instance, key)[n, m]) for key in names]
        assert got == pytest.approx([low, high, steep * 0.75 / p0, steep * 0.25 / d0, -steep], rel=1e-12)
        link = physics.links(params, instance[n], np.array([[m]]))
        middle = physics.interference(link, np.full((1, 1), p0), np.full((1, 1), d0))
        assert float(middle[0, 0]) == pytest.approx((low + high) / 2, rel=1e-12)


def test_interpolation_of_tables() -> None:
    profile = SFMA.preset("pruned").profile
    grid = np.linspace(-0.2, 1.2, 57)
    expected = [between(float(x), list(profile.similarity), list(profile.rho_max)) for x in grid]
    rows = [[between(float(x), list(profile.similarity), list(c)) for c in profile.distortion.T] for x in grid]
    rho_max, least = profile.at(grid, "rho_max", "least_distortion")
    distortion = profile.distortion_at(grid[:, None], np.arange(len(profile.ratio_grid)))
    np.testing.assert_allclose(rho_max, expected, rtol=1e-12)
    np.testing.assert_allclose(distortion, rows, rtol=1e-12)
    np.testing.assert_allclose(least, distortion[:, -1], rtol=1e-12)


def test_statistics_of_the_generator() -> None:
    """Against the study's figures: mean distortion floor 0.21, every pair valid (default) or some 85 % (pruned)."""
    for preset, floor_mean, valid in (("default", 0.21, 1.0), ("pruned", None, 0.85)):
        params = SFMA.preset(preset)
        cells = SFMA.sample(params, np.random.default_rng(0), 400)
        usable = physics.feasible_pairs(params, cells)
        assert usable.mean() == pytest.approx(valid, abs=0.01)
        if floor_mean:
            floor = physics.distortion_floor(params, physics.links(params, cells))
            assert floor.mean() == pytest.approx(floor_mean, abs=0.01)
    source = cells.source_bit / params.source_bit
    assert 0.8 <= source.min() < 0.81
    assert 1.19 < source.max() <= 1.2
    # 10 ms of encoding and 15 ms of decoding, both +-30 %, leave some 75 ms of the 100
    assert cells.encode_s.min() == pytest.approx(7e-3, rel=0.01)
    assert cells.encode_s.max() == pytest.approx(13e-3, rel=0.01)
    assert cells.decode_s.min() == pytest.approx(10.5e-3, rel=0.01)
    assert cells.decode_s.max() == pytest.approx(19.5e-3, rel=0.01)
    assert physics.links(params, cells).spare_s.mean() == pytest.approx(75e-3, rel=0.01)
    # the spread around the profile is log-normal, 15 % on each of the five parameters
    expected = np.interp(cells.similarity, params.profile.similarity, params.profile.rho_min)
    assert np.log(cells.rho_min / expected).std() == pytest.approx(0.15, rel=0.03)
    assert cells.rho_max.max() <= 1.0


def test_similarity_of_clustered_contents() -> None:
    """Contents drawn here again, with another generator: the same mean, share of zeros and quantiles."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        centres, own = rng.standard_normal((3, 8)), rng.standard_normal((10, 8))
        z = math.sqrt(0.85) * centres[rng.integers(0, 3, 10)] + math.sqrt(0.15) * own
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        found += [max(0.0, float(z[i] @ z[j])) for i, j in itertools.combinations(range(10), 2)]
    similarity = SFMA.sample(SFMA.preset("default"), np.random.default_rng(1), 400).similarity
    assert similarity.min() == 0.0
    assert 0.9 < similarity.max() <= 1.0
    assert similarity.mean() == pytest.approx(np.mean(found), abs=0.02)
    assert (similarity == 0).mean() == pytest.approx(np.mean(np.array(found) == 0), abs=0.03)
    np.testing.assert_allclose(np.quantile(similarity, [0.5, 0.7, 0.9]), np.quantile(found, [0.5, 0.7, 0.9]), atol=0.04)


def test_users_and_channel() -> None:
    params = SFMA.preset("default", num_users=20)
    cells = SFMA.sample(params, np.random.default_rng(0), 1000)
    distance = cells.distance_m
    assert distance.min() >= 10.0
    assert distance.max() <= 250.0
    assert (distance < math.sqrt((10**2 + 250**2) / 2)).mean() == pytest.approx(0.5, abs=0.01)  # half of the area
    loss = -10 * np.log10(cells.gain) - (128.1 + 37.6 * np.log10(distance / 1000))
    assert loss.mean() == pytest.approx(14.0, abs=0.1)
    assert loss.std() == pytest.approx(4.0, rel=0.03)
    fading = SFMA.sample(dataclasses.replace(params, rayleigh=True), np.random.default_rng(0), 1000).gain / cells.gain
    assert fading.mean() == pytest.approx(1.0, abs=0.03)
    assert (fading > 1).mean() == pytest.approx(math.exp(-1), abs=0.01)
    flat = SFMA.sample(dataclasses.replace(params, shadowing_db=0.0), np.random.default_rng(0), 10)
    np.testing.assert_allclose(-10 * np.log10(flat.gain), channel.path_loss_db(flat.distance_m) + 14.0, rtol=1e-12)


def test_instances_of_another_size_are_valid() -> None:
    for users in (4, 16, 100):
        params = SFMA.preset("default", num_users=users)
        SFMA.check(params, SFMA.sample(params, np.random.default_rng(0), 2))
