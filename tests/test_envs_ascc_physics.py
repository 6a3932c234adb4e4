"""The equations of the MU-ASCC paper against plain Python, arbitrary precision and enumeration."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import ascc_plain as plain
import numpy as np
import pytest
from ascc_plain import ASCC, PRESETS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri_exp

from semcom_gym.envs.ascc import physics, rates

SINRS = [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 0.03, 0.3, 1.0, 3.0, 10.0, 100.0, 1e4, 1e6, 1e9, 1e12]
CODE_RATES = [1e-3, 0.02, 0.17, 0.7, 1.0, 2.4, 6.6, 13.0, 30.0, 50.0]
BLOCKLENGTHS = [1, 16, 256, 4096, 10**6]


# --- (7), (8), (14) --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", PRESETS)
def test_sinr_of_7(preset: str) -> None:
    params, instance, _ = plain.case(preset)
    decision = plain.free_allocation(params, 4)
    got = physics.sinr(instance, decision.power_w, decision.beam_re + 1j * decision.beam_im)
    for n in range(4):
        channel = plain.vectors(instance.channel_re[n], instance.channel_im[n])
        beam = plain.vectors(decision.beam_re[n], decision.beam_im[n])
        assert got[n].tolist() == pytest.approx(plain.sinr(channel, decision.power_w[n].tolist(), beam), rel=1e-12)


def test_normalised_channel_is_h_over_sigma() -> None:
    """(33) divides h by sigma squared: with a noise of 4, only h / sigma gives the SINR (7)."""
    params, instance, _ = plain.case("paper", n=1)
    decision = plain.free_allocation(params, 1)
    channel = plain.vectors(2.0 * instance.channel_re[0], 2.0 * instance.channel_im[0])
    beam = plain.vectors(decision.beam_re[0], decision.beam_im[0])
    expected = plain.sinr(channel, decision.power_w[0].tolist(), beam, noise=4.0)
    got = physics.sinr(instance, decision.power_w, decision.beam_re + 1j * decision.beam_im)[0]
    assert got.tolist() == pytest.approx(expected, rel=1e-12)
    printed = physics.sinr(instance.map(lambda x: 0.5 * x), decision.power_w, decision.beam_re + 1j * decision.beam_im)
    assert (np.abs(printed[0] / expected - 1.0) > 0.2).all()


def test_one_user_hears_no_interference() -> None:
    params, instance, _ = plain.case("default", num_users=1)
    channel = instance.channel_re + 1j * instance.channel_im
    beam = channel / np.linalg.norm(channel, axis=-1, keepdims=True)
    got = physics.sinr(instance, np.full((4, 1), 6.0), beam)
    np.testing.assert_allclose(got[:, 0], 6.0 * (np.abs(channel) ** 2).sum((1, 2)), rtol=1e-12)
    assert params.data_users == 1


@pytest.mark.parametrize("blocklength", BLOCKLENGTHS)
def test_bit_error_of_14_at_every_sinr(blocklength: int) -> None:
    """Finite and right from no signal at all to 120 dB, from 0.001 to 50 bit per channel use."""
    for gamma in SINRS:
        got = rates.log10_bit_error(np.full(len(CODE_RATES), gamma), np.array(CODE_RATES), blocklength)
        assert np.isfinite(got).all()
        heard = max(gamma, 1e-9)  # below, no packet gets through at any of these rates
        expected = [plain.log10_bit_error(heard, code_rate, blocklength) for code_rate in CODE_RATES]
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("blocklength", [64, 256, 4096])
def test_logarithm_of_q_against_arbitrary_precision(blocklength: int) -> None:
    mpmath = pytest.importorskip("mpmath")
    least, most = 0.0, -math.inf
    with mpmath.workdps(50):
        for gamma in SINRS[2:]:
            for code_rate in CODE_RATES:
                g, r = mpmath.mpf(gamma), mpmath.mpf(code_rate)
                x = mpmath.sqrt(blocklength) * (mpmath.log(1 + g, 2) - r)
                x /= mpmath.sqrt(1 - (1 + g) ** -2) * mpmath.log(mpmath.e, 2)
                near = mpmath.erfc(abs(x) / mpmath.sqrt(2)) / 2
                expected = float((mpmath.log(near) if x > 0 else mpmath.log1p(-near)) / mpmath.log(10))
                got = float(rates.log10_packet_error(np.array(gamma), np.array(code_rate), blocklength))
                assert got == pytest.approx(expected, rel=1e-12, abs=1e-300)
                least, most = min(least, got), max(most, got)
    assert least < -600, "far beyond what a float64 probability can hold"
    assert most > -1e-12, "and certain loss"


@pytest.mark.parametrize("code_rate", CODE_RATES)
def test_bit_error_in_float32(code_rate: float) -> None:
    torch = pytest.importorskip("torch")
    gamma = np.array(SINRS, np.float32)
    expected = rates.log10_bit_error(gamma.astype(float), np.array(code_rate), 256)
    got = rates.log10_bit_error(gamma, np.float32(code_rate), 256)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
    leaf = torch.tensor(gamma, requires_grad=True)
    tensor = rates.log10_bit_error(leaf, torch.tensor(code_rate, dtype=torch.float32), 256)
    np.testing.assert_allclose(tensor.detach().numpy(), got, rtol=1e-4, atol=2e-5)
    tensor.sum().backward()
    assert torch.isfinite(leaf.grad).all()
    assert (leaf.grad <= 0).all()


@given(st.floats(-12, 12), st.floats(0.0, 3.0), st.floats(1e-3, 50.0), st.integers(1, 10**6))
def test_more_sinr_never_means_more_bit_errors(exponent: float, more: float, code_rate: float, length: int) -> None:
    """Lemma A.1."""
    low, high = (
        rates.log10_bit_error(np.array(10.0**x), np.array(code_rate), length) for x in (exponent, exponent + more)
    )
    assert high <= low + 1e-12


def test_derivative_63_is_that_of_the_dispersion_used() -> None:
    """(63) is the slope of the argument of Q with log2 e outside the root, which (8) and (14) print inside."""
    length, code_rate, step = 256, 1.3, 1e-5
    for gamma in (0.5, 1.0, 2.0, 5.0):
        shifted = np.array([gamma - step, gamma + step])
        low, high = -ndtri_exp(np.log(10) * rates.log10_packet_error(shifted, np.array(code_rate), length))
        top = math.sqrt(length) * (2 * gamma - math.log(gamma + 1) + code_rate * math.log(2) + gamma**2)
        slope = top / ((1 - (gamma + 1) ** -2) ** 1.5 * (gamma + 1) ** 3)
        assert (high - low) / (2 * step) == pytest.approx(slope, rel=1e-6)


def test_a_lost_packet_is_one_bit_error() -> None:
    """(14) without signal is log10(1 / (R_c L)): R_s times it is T / L, however large the rate."""
    for code_rate in CODE_RATES:
        worst = float(rates.log10_bit_error(np.array(0.0), np.array(code_rate), 256))
        assert worst == pytest.approx(-math.log10(code_rate * 256), abs=1e-3)


def test_why_the_code_rate_is_not_free() -> None:
    """(19) bounds R_c from below only, and beyond the capacity (14) falls as it grows: the printed (P1) has no worst
    rate to avoid. The numbers are those of docs/ascc.md: `paper` at 1 W, equal dual powers, the highest source rates.
    """
    params = ASCC.preset("paper", max_power_w=1.0)
    instance = ASCC.sample_split(params, "test", 1)
    decision = ASCC.decode(params, instance, np.zeros((1, 4)))
    gamma = physics.sinr(instance, decision.power_w, decision.beam_re + 1j * decision.beam_im)[0].tolist()
    found = []
    for factor in (1.0, 1e4, 1e6, 1e9):
        total = 0.0
        for weight, rows, g in zip((0.8, 0.2), plain.tables(params), gamma, strict=True):
            code_rate = factor * rows[-1][0] / params.channel_uses
            total += weight * plain.logistic(rows[-1], plain.log10_bit_error(g, code_rate, 256))
        found.append(total)
    floor = 0.8 * plain.codecs("synthetic_data")[-1][1] + 0.2 * plain.codecs("synthetic_semantic")[-1][1]
    assert found == pytest.approx([0.838, 0.067, 0.06266, floor], rel=5e-3)


# --- (12), (13), (15) ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("table", [0, 1])
def test_distortion_of_every_codec(table: int) -> None:
    params = ASCC.preset("default")
    rows = plain.codecs(("synthetic_data", "synthetic_semantic")[table])
    got = params.tables[table].distortions(np.array(SINRS[2:]), params.channel_uses, params.blocklength)
    expected = [[plain.distortion(row, gamma, 14000.0, 256) for row in rows] for gamma in SINRS[2:]]
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_outcome_from_the_definitions(preset: str) -> None:
    params, instance, _ = plain.case(preset)
    decision = plain.free_allocation(params, 4)
    outcome = ASCC.evaluate(params, instance, decision)
    beta = params.weights or [1.0 / params.num_users] * params.num_users
    for n in range(4):
        channel = plain.vectors(instance.channel_re[n], instance.channel_im[n])
        beam = plain.vectors(decision.beam_re[n], decision.beam_im[n])
        gammas = plain.sinr(channel, decision.power_w[n].tolist(), beam)
        for k, j in np.ndindex(params.num_users, params.num_users):
            heard = decision.power_w[n, j] * abs(plain.inner(channel[k], beam[j])) ** 2
            assert outcome.terms["received"][n, k, j] == pytest.approx(heard, rel=1e-10)
        total = 0.0
        for i, (rows, gamma) in enumerate(zip(plain.tables(params), gammas, strict=True)):
            row = rows[int(decision.rate_index[n, i])]
            terms = {name: float(value[n, i]) for name, value in outcome.terms.items() if value.ndim == 2}
            harm = plain.distortion(row, gamma, params.channel_uses, params.blocklength)
            code_rate = row[0] / params.channel_uses
            error = plain.log10_bit_error(gamma, code_rate, params.blocklength)
            assert terms["distortion"] == pytest.approx(harm, rel=1e-10)
            assert terms["source_distortion"] == pytest.approx(row[1], rel=1e-12)
            assert terms["sinr_db"] == pytest.approx(10 * math.log10(gamma), abs=1e-9)
            assert terms["log10_bit_error"] == pytest.approx(error, rel=1e-10)
            assert terms["source_rate_bit"] == pytest.approx(row[0], rel=1e-12)
            assert terms["code_rate"] == pytest.approx(code_rate, rel=1e-12)
            assert terms["power_w"] == decision.power_w[n, i]
            assert terms["rate_index"] == decision.rate_index[n, i]
            total += beta[i] * harm
        assert outcome.objective[n] == pytest.approx(total, rel=1e-10)
    assert outcome.feasible.all()


def test_violations() -> None:
    params, instance, _ = plain.case("default", n=1)
    good = plain.free_allocation(params, 1)
    half = np.array([[0.0, 3.4, 5.0, 7.0]])
    cases = {
        "power": (dataclasses.replace(good, power_w=np.array([[3.0, 3.0, 1.5, 0.0]])), 0.25),
        "beam_norm": (dataclasses.replace(good, beam_re=1.2 * good.beam_re, beam_im=1.2 * good.beam_im), 0.2),
        "rate": (dataclasses.replace(good, rate_index=half), 0.4),
    }
    assert set(cases) == set(ASCC.evaluate(params, instance, good).violation)
    for name, (bad, size) in cases.items():
        outcome = ASCC.evaluate(params, instance, bad)
        assert not outcome.feasible.any()
        for other, value in outcome.violation.items():
            assert value[0] == pytest.approx(size if other == name else 0.0, abs=1e-12)


@given(st.integers(0, 21), st.floats(0.0, 1.0, exclude_max=True), st.floats(-20, 30))
def test_interpolated_tables_of_26_to_30(left: int, share: float, gamma_db: float) -> None:
    params = ASCC.preset("two_user")
    gamma = 10 ** (gamma_db / 10)
    for user, rows in enumerate(plain.tables(params)):
        row = tuple(a + share * (b - a) for a, b in zip(rows[left], rows[left + 1], strict=True))
        index = np.full((1, 2), left + share)
        got = np.array(physics.columns(params, index))[:, 0, user]
        np.testing.assert_allclose(got, row, rtol=1e-9)
        harm = physics.distortion(params, np.full((1, 2), gamma), index)[0, user]
        assert harm == pytest.approx(plain.distortion(row, gamma, 14000.0, 256), rel=1e-7)


def test_codecs_at_integer_indices(tmp_path: Any) -> None:
    """Also at the last one, and where the two tables differ in length."""
    short = plain.own_table(tmp_path / "short.json", **{key: plain_column(key)[:9] for key in plain.COLUMNS})
    params = ASCC.preset("two_user", data_table=short)
    assert params.rate_counts.tolist() == [9, 23]
    for index in range(9):
        got = np.array(physics.columns(params, np.full((1, 2), float(index))))[:, 0]
        np.testing.assert_allclose(got[:, 0], plain.codecs("synthetic_data")[index], rtol=1e-12)
        np.testing.assert_allclose(got[:, 1], plain.codecs("synthetic_semantic")[index], rtol=1e-12)
    last = np.array(physics.columns(params, np.array([[8.0, 22.0]])))[:, 0]
    np.testing.assert_allclose(last[:, 1], plain.codecs("synthetic_semantic")[22], rtol=1e-12)


def plain_column(key: str) -> list[float]:
    return [row[plain.COLUMNS.index(key)] for row in plain.codecs("synthetic_data")]


# --- the best codec --------------------------------------------------------------------------------------------------
@st.composite
def random_tables(draw: st.DrawFn) -> tuple[rates.RateTable, float, int]:
    """A table with nothing but its rates in order, a deadline and a blocklength.

    Thresholds of codecs, log2(1 + SINR) = R_s / T, lie at least 0.02 bit apart: twice the step of the tabulation.
    """
    n = draw(st.integers(2, 23))
    channel_uses, length = draw(st.floats(1e3, 1e5)), draw(st.sampled_from([16, 64, 256, 1024]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    source = rng.uniform(0.01, 0.9, n)
    columns = {
        "rate_bit": channel_uses * np.cumsum(rng.uniform(0.02, draw(st.sampled_from([0.1, 0.5, 2.0])), n)),
        "source_distortion": np.sort(source)[::-1] if draw(st.booleans()) else source,
        "channel_distortion": rng.uniform(0.0, 1.0, n),
        "slope": rng.uniform(0.5, 8.0, n),
        "midpoint": rng.uniform(-10.0, -1.0, n),
    }
    return rates.RateTable("mine", columns), channel_uses, length


@settings(max_examples=60)
@given(random_tables(), st.integers(0, 2**32))
def test_best_codec_is_the_best_of_all(case: tuple[rates.RateTable, float, int], seed: int) -> None:
    table, channel_uses, length = case
    rng = np.random.default_rng(seed)
    near = table.columns[:, 0] / channel_uses + rng.normal(0.0, 3.0 / math.sqrt(length), (40, len(table)))
    efficiency = np.concatenate([rng.uniform(0, 40, 200), near.ravel(), [0.0, 40.0]])
    gamma = np.expm1(rates.LN2 * efficiency[(efficiency >= 0) & (efficiency <= 40)])
    every = table.distortions(gamma, channel_uses, length)
    index = rates.BestRate(table, channel_uses, length).at(gamma)
    reached = np.take_along_axis(every, index[:, None], axis=-1)[:, 0]
    np.testing.assert_allclose(reached, every.min(axis=-1), rtol=1e-12, atol=1e-12)
    two = np.sort(every, axis=-1)[:, :2]
    clear = two[:, 1] - two[:, 0] > 1e-9
    np.testing.assert_array_equal(index[clear], every.argmin(axis=-1)[clear])


def test_codecs_closer_than_the_grid_of_the_tabulation() -> None:
    """Three codecs in every hundredth of a bit, each better than the one before it: every change is found."""
    step = np.arange(20)
    columns = {
        "rate_bit": 1e8 * (1.0 + 0.003 * step), "source_distortion": 0.5 - 0.02 * step,
        "channel_distortion": 0.3 + 0.03 * step, "slope": 3.0 + 0.0 * step, "midpoint": -8.0 + 0.0 * step,
    }  # fmt: skip
    table = rates.RateTable("mine", columns)
    best = rates.BestRate(table, 1e8, 10**6)
    gamma = np.expm1(rates.LN2 * np.linspace(0.9, 1.2, 3001))
    every = table.distortions(gamma, 1e8, 10**6)
    np.testing.assert_array_equal(best.at(gamma), every.argmin(axis=-1))
    assert best.index[-20:].tolist() == step.tolist()


@pytest.mark.parametrize("preset", PRESETS)
def test_best_codec_of_every_user(preset: str) -> None:
    params = ASCC.preset(preset)
    gamma = np.random.default_rng(0).uniform(-1.5, 2.0, (60, params.num_users))
    gamma = 10**gamma
    index, harm = physics.best_index(params, gamma), physics.best_distortion(params, gamma)
    for n, i in np.ndindex(gamma.shape):
        rows = plain.tables(params)[i]
        expected = plain.best(rows, float(gamma[n, i]), params.channel_uses, params.blocklength)
        assert (int(index[n, i]), float(harm[n, i])) == (expected[0], pytest.approx(expected[1], rel=1e-10))
    assert len(np.unique(index)) > (7 if preset == "measured" else 10), "the check must see many codecs"


@given(st.floats(-3, 5), st.floats(0.0, 1.0), st.sampled_from([0, 1]))
def test_best_distortion_falls_with_the_sinr(exponent: float, more: float, table: int) -> None:
    params = ASCC.preset("two_user")
    low, high = (physics.best_distortion(params, np.full((1, 2), 10**x))[0, table] for x in (exponent, exponent + more))
    assert high <= low + 1e-12


def test_a_deadline_too_short_for_the_lowest_rate() -> None:
    """Where even the lowest code rate is far above the capacity, distortion is the most that (14) allows."""
    params = ASCC.preset("two_user", channel_uses=300.0, blocklength=16, max_power_w=1e-3)
    instance = ASCC.sample_split(params, "test", 20)
    worst = [rows[0][1] + rows[0][2] for rows in plain.tables(params)]
    for entry in (-1.0, 0.0, 1.0):
        outcome = ASCC.play(params, instance, np.full((20, 4), entry))[0]
        assert outcome.feasible.all()
        assert np.isfinite(outcome.objective).all()
        assert (outcome.terms["distortion"] > 0.98 * np.array(worst)).all()
        assert (outcome.terms["code_rate"] >= 8.0).all()


def test_distortion_without_signal_approaches_its_maximum_with_the_deadline() -> None:
    """R_s times the bit error rate is at most T / L, so a short deadline caps the harm of a lost image."""
    worst = np.array([rows[0][1] + rows[0][2] for rows in plain.tables(ASCC.preset("two_user"))])
    share = []
    for ratio in (1.7, 6.8, 54.7):
        params = ASCC.preset("two_user", blocklength=4096, channel_uses=4096 * ratio)
        share.append(physics.best_distortion(params, np.zeros((1, 2)))[0] / worst)
    assert (np.diff(share, axis=0) > 0).all()
    assert (share[0] < 0.95).all()
    assert (share[2] > 0.99).all()


# --- torch -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", PRESETS)
def test_torch_gives_the_same_outcome(preset: str) -> None:
    torch = pytest.importorskip("torch")
    params, instance, _ = plain.case(preset)
    decision = plain.free_allocation(params, 4)
    expected = ASCC.evaluate(params, instance, decision)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-4)):
        got = ASCC.evaluate(params, instance.to_torch(dtype=dtype), decision.to_torch(dtype=dtype))
        np.testing.assert_allclose(got.objective.numpy(), expected.objective, rtol=tolerance)
        for name, value in expected.terms.items():
            assert got.terms[name].dtype == dtype
            np.testing.assert_allclose(got.terms[name].numpy(), value, rtol=tolerance, atol=tolerance)


def test_gradient_in_every_field_of_the_decision() -> None:
    """Autograd against central differences, in powers, beams and (through the interpolated tables) rate indices."""
    pytest.importorskip("torch")
    params, instance, _ = plain.case("default", n=3)
    decision = plain.free_allocation(params, 3)
    gamma = physics.sinr(instance, decision.power_w, decision.beam_re + 1j * decision.beam_im)
    index = np.clip(physics.best_index(params, gamma) + 0.3, 0.3, 21.7)  # between two codecs, where (26) is smooth
    decision = dataclasses.replace(decision, rate_index=index)
    leaves = decision.to_torch()
    for field in dataclasses.fields(leaves):
        getattr(leaves, field.name).requires_grad_(True)
    ASCC.evaluate(params, instance.to_torch(), leaves).objective.sum().backward()
    step = 1e-6
    for field in dataclasses.fields(decision):
        value, gradient = getattr(decision, field.name), getattr(leaves, field.name).grad.numpy()
        assert (np.abs(gradient) > 1e-6).mean() > 0.3, "the check must not compare zeros"
        for place in np.ndindex(value.shape[1:]):
            shift = np.zeros_like(value)
            shift[(slice(None), *place)] = step
            ends = [physics.evaluate(params, instance, dataclasses.replace(decision, **{field.name: value + s * shift}))
                    for s in (-1, 1)]  # fmt: skip
            slope = (ends[1].objective - ends[0].objective) / (2 * step)
            np.testing.assert_allclose(gradient[(slice(None), *place)], slope, rtol=1e-4, atol=1e-7)


def test_float32_stays_float32() -> None:
    params, instance, _ = plain.case("default")
    single = instance.map(lambda x: x.astype(np.float32))
    decision = plain.free_allocation(params, 4).map(lambda x: x.astype(np.float32))
    outcome = ASCC.evaluate(params, single, decision)
    values = {"objective": outcome.objective, **outcome.violation, **outcome.terms}
    assert {value.dtype for value in values.values()} == {np.dtype(np.float32)}
    assert {x.dtype for x in physics.columns(params, decision.rate_index)} == {np.dtype(np.float32)}
    assert ASCC.observe(params, single).dtype == np.float32


def test_rate_index_beyond_the_table() -> None:
    params, instance, _ = plain.case("default", n=1)
    bad = dataclasses.replace(plain.free_allocation(params, 1), rate_index=np.array([[0.0, 23.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"allocation.rate_index must be at most \[22, 22, 22, 22\]"):
        ASCC.evaluate(params, instance, bad)
