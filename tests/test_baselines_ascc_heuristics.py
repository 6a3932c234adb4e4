"""Simple beams, powers and codecs, and the other transceivers: hand-made values, brute force, bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ascc_cells import PROBLEM, brute_force, cells, least_distortion
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semcom_gym.baselines.ascc import heuristics, schemes
from semcom_gym.envs.ascc import Instance
from semcom_gym.envs.curve import Curve

METHODS = [
    heuristics.equal_mmse, heuristics.mrt, heuristics.zf_equal, heuristics.zf_wf_adaptive, heuristics.zf_wf_fixed
]  # fmt: skip


def instance_of(channel: Any) -> Instance:
    """One instance with these channels, a row per user."""
    h = np.asarray(channel, complex)[None]
    return Instance(h.real.copy(), h.imag.copy())


def beams(allocation: Any) -> np.ndarray:
    return allocation.beam_re + 1j * allocation.beam_im


def sinr_by_hand(channel: Any, power: Any, beam: Any) -> list[float]:
    """(7), one user after the other."""
    found = []
    for k in range(len(power)):
        heard = [power[m] * abs(np.vdot(channel[k], beam[m])) ** 2 for m in range(len(power))]
        found.append(heard[k] / (1.0 + sum(heard) - heard[k]))
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preset", ["default", "hard", "paper", "three_user"])
def test_feasible_in_every_preset_and_all_power_used(method: Any, preset: str) -> None:
    params, instance = cells(30, preset)
    found = method(params, instance)
    assert found.feasible.all()
    assert found.status == ["ok"] * 30
    assert (found.allocation.power_w >= 0).all()
    np.testing.assert_allclose(found.allocation.power_w.sum(-1), params.max_power_w, rtol=1e-9)
    assert np.isfinite(found.objective).all()
    again = method(params, instance[20:])
    np.testing.assert_allclose(found.objective[20:], again.objective, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS[:-1])
def test_objective_is_that_of_the_best_codecs_at_the_sinrs_by_hand(method: Any) -> None:
    params, instance = cells(5)
    found = method(params, instance)
    for row in range(5):
        channel = (instance.channel_re + 1j * instance.channel_im)[row]
        sinr = sinr_by_hand(channel, found.allocation.power_w[row], beams(found.allocation)[row])
        best = [least_distortion(params, user, np.array([x]))[0] for user, x in enumerate(sinr)]
        assert found.objective[row] == pytest.approx(np.dot(params.weight, best), rel=1e-9)


@pytest.mark.parametrize(("preset", "blocklength"), [("paper", 256), ("paper", 4096), ("two_user", 256)])
def test_nothing_beats_brute_force(preset: str, blocklength: int) -> None:
    params, instance = cells(1 if preset == "paper" else 3, preset, blocklength=blocklength)
    found = [method(params, instance).objective for method in METHODS]
    for row in range(len(instance)):
        best = brute_force(params, instance[row])
        assert min(objective[row] for objective in found) >= best * (1 - 1e-6)
        assert found[0][row] <= 3 * best  # and equal powers with the right beams are no disaster


def test_brute_force_finds_the_optimum_of_the_paper_setting() -> None:
    params, instance = cells(1, "paper")
    dual = np.linspace(0, 3, 2001)
    h = (instance.channel_re + 1j * instance.channel_im)[0]
    values = np.zeros(2001)
    for user in (0, 1):  # (33) with (43): q h^H (I + the other's q h h^H)^-1 h
        other = 1 - user
        q, p = (dual, 3 - dual) if user == 0 else (3 - dual, dual)
        cross = abs(np.vdot(h[user], h[other])) ** 2
        sinr = q * (np.linalg.norm(h[user]) ** 2 - p * cross / (1 + p * np.linalg.norm(h[other]) ** 2))
        values += params.weight[user] * least_distortion(params, user, sinr)
    assert brute_force(params, instance) == pytest.approx(values.min(), rel=1e-4)


def test_zero_forcing_leaves_no_interference_and_is_the_inverse() -> None:
    params, instance = cells(20)
    found = heuristics.zf_equal(params, instance).allocation
    for row in range(20):
        channel = (instance.channel_re + 1j * instance.channel_im)[row]
        received = np.abs(channel.conj() @ beams(found)[row].T) ** 2
        off = received - np.diag(np.diag(received))
        assert off.max() < 1e-20 * received.max()
        inverse = np.linalg.inv(channel.conj())
        gain = 1.0 / np.sum(np.abs(inverse) ** 2, axis=0)
        np.testing.assert_allclose(np.diag(received), gain, rtol=1e-9)


def test_zero_forcing_of_dependent_channels_is_least_squares() -> None:
    """Beam i has the least norm among those that arrive nearest to |h_i| at user i and 0 elsewhere, over |h_k|."""
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(4, 2)) + 1j * rng.normal(size=(4, 2))  # N_t < K
    twins = rng.normal(size=(3, 4)) + 1j * rng.normal(size=(3, 4))
    twins[2] = (0.3 - 0.4j) * twins[1]  # the same direction
    for channel in (wide, twins, np.diag([1.0, 1e4, 1e-4]) @ twins):  # scale does not matter
        found = heuristics.zero_forcing(instance_of(channel))[0]
        channel = channel / np.linalg.norm(channel, axis=1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1.0, rtol=1e-12)
        for user in range(len(channel)):
            wish = np.linalg.lstsq(channel.conj(), np.eye(len(channel))[user], rcond=1e-10)[0]
            assert abs(np.vdot(wish, found[user])) == pytest.approx(np.linalg.norm(wish), rel=1e-9)
            assert abs(np.vdot(channel[user], found[user])) > 1e-3  # everybody is served


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-7])
def test_users_in_the_same_direction_have_a_finite_answer(method: Any, scale: float) -> None:
    params = PROBLEM.preset("three_user")
    channel = np.array([[1, 1j, 0.5], [0.2, 1, -1j], [0.4, 2, -2j]]) + scale * np.array(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    )
    found = method(params, instance_of(channel))
    assert found.feasible.all()
    assert 0 < found.objective[0] < 1


def test_matched_beams_by_hand() -> None:
    params, instance = cells(1, "paper")
    found = heuristics.mrt(params, instance).allocation
    first = np.array([-0.4199 - 1.2885j, 0.2092 + 1.0851j])
    np.testing.assert_allclose(beams(found)[0, 0], first / np.sqrt(np.sum(np.abs(first) ** 2)), rtol=1e-12)
    assert found.power_w.tolist() == [[1.5, 1.5]]


def test_equal_mmse_solves_the_normal_equations() -> None:
    params, instance = cells(3)
    found = heuristics.equal_mmse(params, instance).allocation
    for row in range(3):
        h = (instance.channel_re + 1j * instance.channel_im)[row].T
        wish = np.linalg.solve(np.eye(4) + 1.5 * h @ h.conj().T, h)  # (43), q_i = 6 W / 4
        wish /= np.linalg.norm(wish, axis=0)
        np.testing.assert_allclose(np.abs(np.sum(wish.T.conj() * beams(found)[row], axis=-1)), 1.0, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    gain=arrays(float, (3, 5), elements=st.floats(1e-6, 1e6)),
    budget=st.floats(1e-3, 1e3),
)
def test_water_filling_meets_its_optimality_conditions(gain: np.ndarray, budget: float) -> None:
    power = heuristics.water_filling(gain, budget)
    assert (power >= 0).all()
    np.testing.assert_allclose(power.sum(-1), budget, rtol=1e-6)
    for row in range(3):
        on = power[row] > 0
        level = (power[row] + 1 / gain[row])[on]
        assert np.ptp(level) <= 1e-6 * level.max()
        assert (1 / gain[row][~on] >= level.min() * (1 - 1e-9)).all()


def test_water_filling_by_hand_and_far_below_the_floors() -> None:
    # floors 1, 2, 10: the level of two users is (4 + 3) / 2 = 3.5
    np.testing.assert_allclose(heuristics.water_filling(np.array([[0.5, 0.1, 1.0]]), 4.0), [[1.5, 0.0, 2.5]])
    np.testing.assert_allclose(heuristics.water_filling(np.array([[1e-20, 1e-20, 1e-21]]), 4.0), [[2.0, 2.0, 0.0]])


def test_water_filling_switches_weak_users_off_and_the_answer_stays_finite() -> None:
    params, instance = cells(200)
    found = heuristics.zf_wf_adaptive(params, instance)
    assert (found.allocation.power_w == 0).any()
    assert found.feasible.all()
    assert found.objective.mean() > heuristics.equal_mmse(params, instance).objective.mean()


def test_fixed_codecs_are_the_nearest_below() -> None:
    params = PROBLEM.preset("paper")  # 1.8 x 28000 = 50400, 1.3 x 28000 = 36400
    rates = params.tables[0].columns[:, 0]
    assert rates[heuristics.fixed_codecs(params, (1.8, 1.3)).astype(int)].tolist() == [47831.0, 34302.0]
    exact = (rates[7] / 28000.0, rates[3] / 28000.0)
    assert heuristics.fixed_codecs(params, exact).tolist() == [7.0, 3.0]
    assert heuristics.fixed_codecs(params, (1e-9, 1e9)).tolist() == [0.0, 22.0]
    four = PROBLEM.preset("default")
    chosen = heuristics.zf_wf_fixed(four, cells(2)[1], code_rates=(1.0, 0.5)).allocation.rate_index
    assert chosen[0].tolist() == chosen[1].tolist() == [10.0, 10.0, 6.0, 6.0]


@pytest.mark.parametrize("rates", [(1.8,), (1.8, 0.0), (1.8, np.nan), (1.8, 1.3, 1.0)])
def test_bad_code_rates_are_named(rates: Any) -> None:
    params, instance = cells(1, "paper")
    with pytest.raises(ValueError, match="code_rates"):
        heuristics.zf_wf_fixed(params, instance, code_rates=rates)


# --- other transceivers --------------------------------------------------------------------------------------------


def test_bpg_is_the_fixed_scheme_with_its_own_tables() -> None:
    params, instance = cells(4)
    found = schemes.zf_wf_bpg(params, instance)
    ours = heuristics.zf_wf_fixed(params, instance)
    assert (found.objective > ours.objective).all()
    assert set(found.status) == {schemes.MODEL}
    same = schemes.zf_wf_bpg(params, instance, tables=("synthetic_data", "synthetic_semantic"))
    np.testing.assert_array_equal(same.objective, ours.objective)
    weak, one = cells(1, "paper", max_power_w=1.0)
    assert schemes.zf_wf_bpg(weak, one).objective > 0.7  # the cliff
    assert schemes.zf_wf_bpg(weak, one, code_rates=(0.8, 0.6)).objective < 0.2


@pytest.mark.parametrize("kind", ["data", "semantic"])
def test_bpg_stand_in_needs_twice_the_rate(kind: str) -> None:
    params = schemes.bpg(PROBLEM.preset("paper"))
    table = params.tables[kind == "semantic"]
    rate, source, channel = table.columns.T[:3]
    law = 0.020 * (rate / 186000) ** -0.63 if kind == "data" else 0.20 + 0.62 * (rate / 4800) ** -0.8
    top = 0.80 if kind == "data" else 0.995
    np.testing.assert_allclose(source, np.minimum(law, top), rtol=1e-8)
    np.testing.assert_allclose(source + channel, top, rtol=1e-8)


def test_djscc_by_hand() -> None:
    params, instance = cells(1, "paper")
    found = schemes.zf_wf_djscc(params, instance)
    inverse = np.linalg.inv((instance.channel_re - 1j * instance.channel_im)[0])
    floor = np.sum(np.abs(inverse) ** 2, axis=0)
    assert abs(floor[0] - floor[1]) < 3.0  # both have power
    snr = (3.0 + floor.sum()) / 2 / floor - 1
    distortion = []
    for constant, spread, scale, power, x in ((0.0, 0.020, 93000, 0.63, snr[0]), (0.20, 0.62, 2400, 0.8, snr[1])):
        at = spread * (14000 * np.log2(11) / scale) ** -power  # half of T log2(1 + SNR) at 10 dB
        slope = at * power / (np.log(11) * 0.1 * 1.1)
        distortion.append(constant + at + slope * (1 / x - 0.1))
    assert found.objective[0] == pytest.approx(np.dot([0.8, 0.2], distortion), rel=2e-3)
    assert found.allocation is None
    assert found.status == [schemes.MODEL]


def test_djscc_trained_for_another_snr_is_never_better() -> None:
    for one, other in zip(schemes.DJSCC_CURVES, schemes.MATCHED_CURVES, strict=True):
        fixed, matched = schemes.Quality(one), schemes.Quality(other)
        assert (fixed.distortion >= matched.distortion - 1e-9).all()
        at = fixed.snr_db == 10
        np.testing.assert_allclose(fixed.distortion[:, at], matched.distortion[:, at], rtol=1e-8)


def quality_file(folder: Path, **changes: Any) -> str:
    table = {"channel_uses": [1000.0, 4000.0], "snr_db": [0.0, 10.0], "distortion": [[0.8, 0.4], [0.6, 0.2]]} | changes
    Curve("test", "ascc", "measured", "quantity", "equation", table, None, [], {}, {}).save(folder / "curve.json")
    return str(folder / "curve.json")


def test_a_measured_curve_is_read_between_its_points(tmp_path: Path) -> None:
    quality = schemes.Quality(quality_file(tmp_path))
    sinr = 10 ** (np.array([-300.0, -5.0, 0.0, 5.0, 10.0, 30.0]) / 10)
    np.testing.assert_allclose(
        quality.at(sinr, PROBLEM.preset("paper", channel_uses=1000.0)), [0.8, 0.8, 0.8, 0.6, 0.4, 0.4]
    )
    np.testing.assert_allclose(
        quality.at(sinr, PROBLEM.preset("paper", channel_uses=2000.0)), [0.7, 0.7, 0.7, 0.5, 0.3, 0.3]
    )
    assert quality.at(np.array([0.0]), PROBLEM.preset("paper", channel_uses=4000.0)).tolist() == [0.6]
    with pytest.raises(ValueError, match="covers channel_uses from 1000 to 4000, not 5000"):
        quality.at(sinr, PROBLEM.preset("paper", channel_uses=5000.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snr_db": [0.0, 0.0]}, "snr_db must rise"),
        ({"snr_db": [0.0]}, "a column per snr_db"),
        ({"snr_db": 3.0}, "a column per snr_db"),
        ({"channel_uses": [4000.0, 1000.0]}, "channel_uses must be positive"),
        ({"channel_uses": [1000.0]}, "a row per channel_uses"),
        ({"distortion": [[0.8, 0.4], [0.6]]}, "a row per channel_uses"),
        ({"distortion": 0.3}, "a row per channel_uses"),
        ({"distortion": [[0.8, 0.4], [0.6, 0.7]]}, "never rise"),
        ({"distortion": [[1.8, 0.4], [0.6, 0.5]]}, "within"),
    ],
)
def test_a_bad_quality_curve_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as error:
        schemes.Quality(quality_file(tmp_path, **change))
    assert "curve.json" in str(error.value)


def test_bad_names_of_curves_are_named() -> None:
    params, instance = cells(1, "paper")
    with pytest.raises(ValueError, match="synthetic_djscc_dat"):
        schemes.zf_wf_djscc(params, instance, curves=("synthetic_djscc_dat", "synthetic_djscc_semantic_10db"))
    with pytest.raises(ValueError, match="lacks the parameters channel_uses"):
        schemes.zf_wf_djscc(params, instance, curves=schemes.BPG_TABLES)
    with pytest.raises(ValueError, match="lacks the parameters rate_bit"):
        schemes.zf_wf_bpg(params, instance, tables=schemes.DJSCC_CURVES)
    with pytest.raises(ValueError, match="curves must be a pair"):
        schemes.zf_wf_djscc(params, instance, curves="synthetic_djscc_data_10db")
    with pytest.raises(ValueError, match="tables must be a pair"):
        schemes.zf_wf_bpg(params, instance, tables=("synthetic_bpg_data",))
    with pytest.raises(ValueError, match="channel_uses from 3500 to 56000, not 1000"):
        schemes.zf_wf_djscc(dataclasses.replace(params, channel_uses=1000.0), instance)
