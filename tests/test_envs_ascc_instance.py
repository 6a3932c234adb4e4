"""The generator of MU-ASCC channels and its statistics, the presets, the shipped rate tables."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import ascc_plain as plain
import numpy as np
import pytest
from ascc_plain import ASCC, PRESETS

from semcom_gym.envs.ascc import physics
from semcom_gym.envs.ascc.instance import CURVE_PINS


def channel(n: int, seed: int = 0, **overrides: Any) -> np.ndarray:
    instance = ASCC.sample(ASCC.preset("default", **overrides), np.random.default_rng(seed), n)
    return instance.channel_re + 1j * instance.channel_im


def test_gains_are_uniform_in_db() -> None:
    h = channel(400, num_antennas=400, channel_correlation=0.0, gain_range_db=(-6.0, 10.0))
    gain = 10 * np.log10((np.abs(h) ** 2).mean(axis=-1)).ravel()  # the mean of 400 fades is the gain, to 0.2 dB
    assert -6.8 < gain.min() < -5.8
    assert 9.8 < gain.max() < 10.8
    np.testing.assert_allclose(np.quantile(gain, [0.25, 0.5, 0.75]), [-2.0, 2.0, 6.0], atol=0.5)
    assert gain.std() == pytest.approx(16 / math.sqrt(12), rel=0.03)
    gains = gain.reshape(400, 4)
    assert np.abs(np.corrcoef(gains.T) - np.eye(4)).max() < 0.2, "users stand anywhere, whatever the others do"


@pytest.mark.parametrize("kappa", [0.0, 0.3, 0.8, 1.0])
def test_correlation_of_the_channels(kappa: float) -> None:
    h = channel(4000, channel_correlation=kappa, gain_range_db=(0.0, 0.0))
    products = np.einsum("nia,nja->nij", h.conj(), h) / 4
    np.testing.assert_allclose(products.mean(axis=0), kappa + (1 - kappa) * np.eye(4), atol=0.03)
    if kappa == 1.0:
        np.testing.assert_allclose(h, h[:, :1] * np.ones((1, 4, 1)), rtol=1e-12)


def test_fades_are_complex_normal() -> None:
    h = channel(5000, channel_correlation=0.3, gain_range_db=(0.0, 0.0))
    power = np.abs(h) ** 2
    assert power.mean() == pytest.approx(1.0, abs=0.02)
    assert (power > 1.0).mean() == pytest.approx(math.exp(-1), abs=0.01)
    assert (power > 3.0).mean() == pytest.approx(math.exp(-3), abs=0.005)
    assert np.abs((h * h).mean(axis=0)).max() < 0.05, "real and imaginary parts are alike and independent"
    antennas = np.einsum("nia,nib->ab", h.conj(), h) / (5000 * 4)
    np.testing.assert_allclose(antennas, np.eye(4), atol=0.03)


def test_channel_of_the_paper() -> None:
    """H-bar of Section V-A has a column per user."""
    printed = np.array([[-0.4199 - 1.2885j, -0.4546 + 1.0362j], [0.2092 + 1.0851j, -0.5603 + 0.7316j]])
    params = ASCC.preset("paper")
    instance = ASCC.sample(params, np.random.default_rng(0), 3)
    got = instance.channel_re + 1j * instance.channel_im
    np.testing.assert_array_equal(got, np.broadcast_to(printed.T, (3, 2, 2)))
    assert (np.abs(got[0]) ** 2).sum(axis=1).tolist() == pytest.approx([3.058, 2.130], abs=1e-3)
    assert (params.max_power_w, params.weight.tolist()) == (3.0, [0.8, 0.2])
    assert params.semantic.tolist() == [False, True]
    instance.channel_re[0, 0, 0] = 9.0
    assert instance.channel_re[1, 0, 0] == -0.4199, "instances do not share memory"


def test_a_channel_of_ones_own() -> None:
    rows = [[1.0, 2j], [0.5 - 1j, 3.0], [1.0, 1.0]]
    for given in (rows, tuple(map(tuple, rows)), np.array(rows)):
        params = ASCC.preset("two_user", num_users=3, channel_matrix=given)
        assert params == ASCC.preset("two_user", num_users=3, channel_matrix=rows)
        instance = ASCC.sample(params, np.random.default_rng(0), 2)
        np.testing.assert_array_equal(instance.channel_re + 1j * instance.channel_im, [rows, rows])


def test_kinds_of_users() -> None:
    for users, data in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3)):
        params = ASCC.preset("default", num_users=users)
        assert params.data_users == data
        assert params.semantic.tolist() == [False] * data + [True] * (users - data)
        assert params.weight.tolist() == [1 / users] * users
    every = ASCC.preset("default", num_data_users=0)
    assert every.semantic.all()
    assert ASCC.preset("default", weights=[1, 2, 3, 4]).weight.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_shipped_tables_are_what_their_files_say() -> None:
    """The laws in their provenance, computed again: rates, distortions and the thresholds that Section III-A prints."""
    rates = np.round(np.geomspace(2400, 93000, 23))
    data, semantic = (np.array(plain.codecs(name)).T for name in ("synthetic_data", "synthetic_semantic"))
    np.testing.assert_array_equal(data[0], rates)
    np.testing.assert_array_equal(semantic[0], rates)
    np.testing.assert_allclose(data[1], 0.020 * (rates / 93000) ** -0.63, rtol=1e-8)
    np.testing.assert_allclose(semantic[1], 0.20 + 0.62 * (rates / 2400) ** -0.8, rtol=1e-8)
    np.testing.assert_allclose(data[1] + data[2], 0.80, rtol=1e-8)
    np.testing.assert_allclose(semantic[1] + semantic[2], 0.995, rtol=1e-8)
    assert set(data[3]) == {3.0}
    assert set(semantic[3]) == {3.5}
    for table, law in (
        (data, np.log10(0.059 / rates)),
        (semantic, -6 + (math.log10(5.9e4) - np.log10(rates)) / 0.9384),
    ):
        threshold = [plain.logistic(tuple(row), x) - row[1] for row, x in zip(table.T, law, strict=True)]
        np.testing.assert_allclose(threshold, 0.05 * table[2], rtol=1e-6)
    at_5_9e4 = float(np.interp(5.9e4, rates, data[4]))
    assert 10 ** (at_5_9e4 - math.log(19) / 3.0) == pytest.approx(1e-6, rel=0.05)
    for name in CURVE_PINS:
        assert json.loads((plain.CURVES / f"{name}.json").read_text())["kind"] in ("synthetic", "measured")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_neither_trivial_nor_hopeless(preset: str) -> None:
    """Equal dual powers with the best rates: nearly every user is served, few at the highest rate."""
    params = ASCC.preset(preset)
    instance = ASCC.sample_split(params, "validation", 500)
    outcome = ASCC.play(params, instance, np.zeros((500, 2 * params.num_users)))[0]
    low, high = {"paper": (0.06, 0.09), "hard": (0.40, 0.50), "measured": (0.15, 0.20)}.get(preset, (0.2, 0.35))
    assert low < outcome.objective.mean() < high
    lost = (outcome.terms["distortion"] > 0.9 * np.where(params.semantic, 0.995, 0.8)).mean()
    assert lost < (0.3 if preset == "hard" else 0.1)
    top = 7 if preset == "measured" else 22
    assert (outcome.terms["rate_index"] == top).mean() < 0.35


def test_instances_of_another_size_are_valid() -> None:
    for users, antennas in ((1, 1), (2, 8), (12, 4), (20, 20)):
        params = ASCC.preset("default", num_users=users, num_antennas=antennas)
        instance = ASCC.sample(params, np.random.default_rng(0), 2)
        ASCC.check(params, instance)
        assert instance.channel_re.shape == (2, users, antennas)
        outcome = ASCC.play(params, instance, np.zeros((2, 2 * users)))[0]
        assert outcome.feasible.all()
        assert np.isfinite(ASCC.observe(params, instance)).all()


def test_one_antenna_more_or_less_is_another_problem() -> None:
    """N_t >= K lets every user be heard alone; with one antenna their SINRs cannot all exceed 1 / (K - 1)."""
    few, many = (ASCC.preset("default", num_antennas=k, max_power_w=1e4) for k in (1, 8))
    sinrs = []
    for params in (few, many):
        instance = ASCC.sample_split(params, "validation", 50)
        sinrs.append(10 ** (ASCC.play(params, instance, np.zeros((50, 8)))[0].terms["sinr_db"] / 10))
    assert sinrs[0].min(axis=1).max() <= 1 / 3
    assert sinrs[1].min() > 1.0


def test_the_best_codec_is_tabulated_once() -> None:
    params = ASCC.preset("default")
    assert params.best_rates is params.best_rates
    other = dataclasses.replace(params, channel_uses=28000.0)
    gamma = np.full((1, 4), 3.0)
    assert (physics.best_index(other, gamma) > physics.best_index(params, gamma)).all(), "more time, higher rates"
