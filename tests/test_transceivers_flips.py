"""Bit errors in streams, and the logistic fit of what they do."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import envs
from semcom_gym.envs import curve
from semcom_gym.envs.ascc.rates import PARAMETERS, RateTable
from semcom_gym.transceivers.hyperprior import fit, flips


def wrong_bits(sent: bytes, received: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(sent, received, strict=True))


def counting(sent: Sequence[flips.Payload]) -> flips.Judge:
    """A receiver whose figures are 1 for a damaged stream and its number of wrong bits; more than 3 are too many."""

    def judge(k: int, received: Sequence[flips.Payload]) -> tuple[np.ndarray, np.ndarray]:
        wrong = np.array([wrong_bits(b"".join(sent[k]), b"".join(parts)) for parts in received])
        return np.stack((wrong > 0, wrong), 1).astype(float), wrong > 3

    return judge


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=3), st.data())
def test_exactly_the_named_bits_are_wrong(parts: list[bytes], data: st.DataObject) -> None:
    bits = 8 * sum(len(part) for part in parts)
    places = data.draw(st.sets(st.integers(0, bits - 1)) if bits else st.just(set()))
    found = flips.flipped(tuple(parts), np.array(sorted(places), int))
    assert [len(part) for part in found] == [len(part) for part in parts]
    text = "".join(f"{byte:08b}" for byte in b"".join(parts))
    after = "".join(f"{byte:08b}" for byte in b"".join(found))
    assert {k for k in range(bits) if text[k] != after[k]} == places


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_chance_and_number_of_errors_are_those_of_independent_flips(rate: float) -> None:
    bits = 12
    chance = [math.comb(bits, n) * rate**n * (1 - rate) ** (bits - n) for n in range(bits + 1)]
    edges = list(itertools.accumulate(p / (1 - chance[0]) for p in chance[1:]))
    for uniform in (0.0, 0.05, 0.31, 0.6, 0.93, 0.999):
        found, number = flips.counts_of_errors(bits, np.array([rate]), uniform)
        assert found[0] == pytest.approx(1 - (1 - rate) ** bits)
        assert number[0] == 1 + sum(uniform > edge for edge in edges)


def test_a_rare_error_keeps_its_chance() -> None:
    chance, number = flips.counts_of_errors(50_000, np.array([1e-12]), 0.5)
    assert chance[0] == pytest.approx(5e-8, rel=1e-6)
    assert number[0] == 1


def test_means_are_those_of_flipping_every_bit_by_chance() -> None:
    """All 2^16 error patterns of a stream of 16 bits, weighed by their chance."""
    sent = [(b"\x0f\xa5",), (b"\x00\xff",)]
    rate, bits = 0.08, 16
    expected = {"hurt": 0.0, "wrong": 0.0, "gave_up": 0.0}
    for pattern in itertools.product((0, 1), repeat=bits):
        wrong = sum(pattern)
        chance = rate**wrong * (1 - rate) ** (bits - wrong)
        expected["hurt"] += chance * (wrong > 0)
        expected["wrong"] += chance * wrong
        expected["gave_up"] += chance * (wrong > 3)
    found = flips.measure(sent, counting(sent), ("hurt", "wrong"), [math.log10(rate)], draws=3000, seed=1)
    point = found["points"][0]
    assert point["hurt"] == pytest.approx(expected["hurt"], rel=1e-10)  # needs no luck: P0 is exact
    assert point["hit"] == point["hurt"]
    assert point["wrong"] == pytest.approx(expected["wrong"], rel=0.03)
    assert point["gave_up"] == pytest.approx(expected["gave_up"], rel=0.12)
    assert found["clean"] == {"hurt": 0.0, "wrong": 0.0, "hurt_error": 0.0, "wrong_error": 0.0}
    assert (found["bits"], found["protected_bits"]) == (16, 0)


def test_more_errors_at_a_higher_rate_and_the_same_ones() -> None:
    sent = [(bytes(range(40)),), (bytes(40),)]
    seen: list[list[bytes]] = []

    def judge(k: int, received: Sequence[flips.Payload]) -> tuple[np.ndarray, np.ndarray]:
        seen.append([parts[0] for parts in received])
        return counting(sent)(k, received)

    found = flips.measure(sent, judge, ("hurt", "wrong"), (-4.0, -3.0, -2.0, -1.0), draws=1, seed=3)
    wrong = [point["wrong"] for point in found["points"]]
    assert wrong == sorted(wrong)
    assert wrong[0] < wrong[-1]
    for streams in seen:
        clean, *damaged = [np.unpackbits(np.frombuffer(stream, np.uint8)) for stream in streams]
        errors = [set(np.flatnonzero(stream ^ clean).tolist()) for stream in damaged]
        assert all(few < more for few, more in itertools.pairwise(errors))
    assert flips.measure(sent, judge, ("hurt", "wrong"), (-4.0, -3.0, -2.0, -1.0), draws=1, seed=3) == found


def test_protected_parts_arrive_whole() -> None:
    sent = [(bytes(3), bytes(5), bytes(9)), (bytes(3), bytes(4), bytes(8))]

    def judge(k: int, received: Sequence[flips.Payload]) -> tuple[np.ndarray, np.ndarray]:
        wrong = np.array([[wrong_bits(a, b) for a, b in zip(sent[k], parts, strict=True)] for parts in received])
        return wrong.astype(float), np.zeros(len(received), bool)

    one, two = (flips.measure(sent, judge, "xyz", [-1.0], draws=50, protected=n)["points"][0] for n in (1, 2))
    assert (one["x"], two["x"], two["y"]) == (0.0, 0.0, 0.0)
    assert min(one["y"], one["z"], two["z"]) > 0
    measured = flips.measure(sent, judge, "xyz", [-1.0], protected=2)
    assert (measured["bits"], measured["protected_bits"]) == (8 * 16, 8 * 7.5)
    assert two["hit"] == pytest.approx(1 - (0.9**72 + 0.9**64) / 2)


def test_an_empty_stream_cannot_be_hurt() -> None:
    sent = [(b"",), (b"",)]
    point = flips.measure(sent, counting(sent), ("hurt", "wrong"), [-1.0], draws=2)["points"][0]
    assert (point["hit"], point["hurt"], point["gave_up"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sent": [(b"a",)]}, "at least 2 pictures"),
        ({"draws": 0}, "draws must be >= 1"),
        ({"protected": 1}, "leave a part"),
        ({"log10_bers": []}, "must rise and be below 0"),
        ({"log10_bers": [-3.0, -4.0]}, "must rise and be below 0"),
        ({"log10_bers": [-1.0, 0.0]}, "must rise and be below 0"),
    ],
)
def test_mistakes_in_one_line(change: dict[str, object], message: str) -> None:
    sent = [(b"a",), (b"b",)]
    given_ = {"sent": sent, "judge": counting(sent), "names": ("hurt", "wrong"), "log10_bers": [-3.0], **change}
    with pytest.raises(ValueError, match=message):
        flips.measure(**given_)  # type: ignore[arg-type]


def test_a_stream_that_is_whole_must_be_decoded() -> None:
    sent = [(b"a",), (b"b",)]

    def judge(k: int, received: Sequence[flips.Payload]) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(received), 1)), np.full(len(received), k == 1)

    with pytest.raises(ValueError, match="picture 1 cannot be decoded though no bit of it is wrong"):
        flips.measure(sent, judge, ("x",), [-3.0])


# --- the fit ---------------------------------------------------------------------------------------------------------


def logistic(x: float, d_s: float, d_c: float, a_1: float, a_0: float) -> float:
    return d_s + d_c / (1.0 + math.exp(-a_1 * (x - a_0)))


@settings(max_examples=30)
@given(st.just(0.0) | st.floats(1e-12, 0.3), st.floats(0.2, 0.65), st.floats(1.0, 9.0), st.floats(-5.5, -3.0))
def test_a_logistic_is_found_again(d_s: float, d_c: float, a_1: float, a_0: float) -> None:
    points = np.array([(x, logistic(x, d_s, d_c, a_1, a_0)) for x in flips.LOG10_BERS])
    found = fit.fit_logistic(points, d_s)
    assert (found.channel_distortion, found.slope, found.midpoint) == pytest.approx((d_c, a_1, a_0), rel=1e-4)
    assert found.r2 > 1 - 1e-8
    assert not found.bounded
    assert found.at(points[:, 0]) == pytest.approx(points[:, 1], abs=1e-5)


def test_no_better_fit_and_errors_of_the_size_of_the_noise() -> None:
    """Against a grid of parameters; standard errors against the spread of fits to repeated noise."""
    rng, truth = np.random.default_rng(0), (0.05, 0.8, 3.0, -4.4)
    x = np.array(flips.LOG10_BERS)
    exact = np.array([logistic(value, *truth) for value in x])
    fits = [fit.fit_logistic(np.column_stack((x, exact + rng.normal(0, 0.01, len(x)))), 0.05) for _ in range(60)]
    spread = np.std([(row.channel_distortion, row.slope, row.midpoint) for row in fits], axis=0, ddof=1)
    assert np.mean([row.errors for row in fits], axis=0) == pytest.approx(spread, rel=0.25)
    noisy = exact + rng.normal(0, 0.02, len(x))
    found = fit.fit_logistic(np.column_stack((x, noisy)), 0.05)
    for d_c in np.linspace(0.7, 0.9, 9):
        for a_1 in np.linspace(2.0, 4.0, 9):
            for a_0 in np.linspace(-4.7, -4.1, 9):
                other = sum((logistic(a, 0.05, d_c, a_1, a_0) - b) ** 2 for a, b in zip(x, noisy, strict=True))
                assert len(x) * found.rmse**2 <= other + 1e-12


def test_what_was_not_measured_stays_at_a_limit() -> None:
    """A rise that has only begun at the last rate: d_c stays possible and a_0 within what was measured."""
    x = np.linspace(-7, -5, 9)
    rising = fit.fit_logistic(np.array([(v, logistic(v, 0.1, 0.9, 3.0, -3.0)) for v in x]), 0.1)
    assert rising.channel_distortion <= 0.9
    assert -7 <= rising.midpoint <= -5
    assert rising.bounded
    large = np.array([(v, logistic(v, 2.0, 900.0, 3.0, -6.0)) for v in x])
    assert fit.fit_logistic(large, 2.0, math.inf).channel_distortion == pytest.approx(900.0, rel=1e-3)


@pytest.mark.parametrize(
    ("points", "source", "message"),
    [
        ([(-3.0, 0.1)] * 4, 0.1, "at least 5 rows"),
        ([(-3.0, math.nan)] * 6, 0.1, "not finite"),
        ([(-3.0, 0.2)] * 6, 0.1, "five different"),
        ([(-k, 0.1) for k in range(1, 7)], 0.1, "rise above"),
        ([(-k, 0.1 * k) for k in range(1, 7)], -0.1, "source_distortion must be"),
    ],
)
def test_points_that_cannot_be_fitted(points: list[tuple[float, float]], source: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit.fit_logistic(np.array(points), source)


def rows() -> tuple[list[float], list[fit.Logistic], list[np.ndarray]]:
    truths = [(0.1, 0.7, 3.0, -3.9), (0.05, 0.75, 3.2, -4.3), (0.02, 0.8, 2.9, -4.8)]
    points = [np.array([(x, logistic(x, *truth)) for x in flips.LOG10_BERS]) for truth in truths]
    return [5e3, 2e4, 6e4], [fit.fit_logistic(own, t[0]) for own, t in zip(points, truths, strict=True)], points


def test_a_table_is_one_the_environment_reads(tmp_path: Path) -> None:
    rates, found, points = rows()
    table = fit.rate_table(rates, found, points, "measured_mine", "semantic", source_errors=[0.01, 0.02, 0.03])
    path = tmp_path / "measured_mine.json"
    table.save(path)
    again = curve.load("ascc", str(path), PARAMETERS)
    assert RateTable("mine", again.parameters).columns[:, 0].tolist() == rates
    assert "(13)" in again.equation
    assert again.points[0] == [5e3, *points[0][0].tolist()]
    assert again.provenance["rows"]["log10_inverse_rate"][2] == pytest.approx(-math.log10(6e4))
    assert set(json.loads(path.read_text())["standard_errors"]) == set(PARAMETERS) - {"rate_bit"}
    problem = envs.problem("ascc")
    params = problem.preset("default", data_table=str(path), semantic_table=str(path))
    assert [len(found) for found in params.tables] == [3, 3]


def test_a_table_that_does_not_ascend_is_refused() -> None:
    rates, found, points = rows()
    with pytest.raises(ValueError, match="rate_bit must be positive and ascend"):
        fit.rate_table(rates[::-1], found, points, "mine", "data", source_errors=[0.0] * 3)
    with pytest.raises(ValueError, match="unknown user 'both'"):
        fit.rate_table(rates, found, points, "mine", "both", source_errors=[0.0] * 3)
