"""Equal shares, the other pairings and the other transceivers: feasibility, hand-made values, the paper's order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines.sfma import compression, heuristics, schemes
from semcom_gym.envs.curve import Curve
from semcom_gym.envs.sfma import frugal, pairs, physics

SFMA = envs.problem("sfma")


def batch(preset: str, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = SFMA.preset(preset, **overrides)
    return params, SFMA.sample_split(params, "validation", n)


def test_equal_is_feasible_nearly_everywhere() -> None:
    least = dict.fromkeys(SFMA.PRESETS, 0.97) | {"loose": 1.0, "figures": 1.0, "pruned": 0.5}
    for preset, share in least.items():
        params, instance = batch(preset, 100)
        solution = heuristics.equal(params, instance)
        assert solution.feasible.mean() >= share
        assert (pairs.uses(solution.allocation.pair, 10) == 1).all()
        for row, status in enumerate(solution.status):
            assert status == "ok" if solution.feasible[row] else status.startswith("infeasible: ")


def test_equal_by_hand() -> None:
    params, instance = batch("default", 5)
    solution = heuristics.equal(params, instance)
    chosen = solution.allocation
    assert (chosen.power_w == 0.2).all()
    assert (chosen.bandwidth_hz == 2e6).all()
    for row in range(5):
        value = 0.0
        for pair, delta in zip(chosen.pair[row], chosen.ratio[row], strict=True):
            rise = instance.power_slope[row, pair] * 0.2 + instance.ratio_slope[row, pair] * delta
            span = instance.rho_max[row, pair] - instance.rho_min[row, pair]
            rho = instance.rho_min[row, pair] + span / (1 + np.exp(rise + instance.offset[row, pair]))
            for user in pairs.members(10)[pair]:
                half = 0.1 * instance.gain[row, user]
                value += 2.0 * np.log2(1 + half / (rho * half + 2e6 * 10**-20.4))
        assert solution.objective[row] == pytest.approx(value, rel=1e-9)


def test_equal_has_the_best_pairing_where_energy_is_spare() -> None:
    params, instance = batch("loose", 10, num_users=6)
    solution = heuristics.equal(params, instance)
    index = pairs.index(6)
    for row in range(10):
        best = 0.0
        for a, b, c, d, e, f in [
            (0, 1, 2, 3, 4, 5), (0, 1, 2, 4, 3, 5), (0, 1, 2, 5, 3, 4), (0, 2, 1, 3, 4, 5), (0, 2, 1, 4, 3, 5),
            (0, 2, 1, 5, 3, 4), (0, 3, 1, 2, 4, 5), (0, 3, 1, 4, 2, 5), (0, 3, 1, 5, 2, 4), (0, 4, 1, 2, 3, 5),
            (0, 4, 1, 3, 2, 5), (0, 4, 1, 5, 2, 3), (0, 5, 1, 2, 3, 4), (0, 5, 1, 3, 2, 4), (0, 5, 1, 4, 2, 3),
        ]:  # fmt: skip
            pair = np.array([[index[a, b], index[c, d], index[e, f]]])
            link = physics.links(params, instance[row], pair)
            shares = heuristics.equal_shares(params, 1)
            ratio, feasible, _ = compression.optimise(params, link, *shares)
            if feasible[0]:
                best = max(best, 1e-6 * float(physics.rates(link, *shares, ratio).sum()))
        assert solution.objective[row] == pytest.approx(best, rel=1e-9)


def test_equal_falls_back_on_the_pairing_of_least_energy() -> None:
    params, instance = batch("default", 200, energy_per_group_j=0.013)
    solution = heuristics.equal(params, instance)
    shares = heuristics.equal_shares(params, 200)
    by_rate = heuristics.best_pairing(params, instance)
    _, possible, _ = compression.optimise(params, physics.links(params, instance, by_rate), *shares)
    rescued = solution.feasible & ~possible
    assert (solution.feasible >= possible).all()
    assert rescued.sum() > 3
    assert (solution.allocation.pair[rescued] != by_rate[rescued]).any(-1).all()
    # it decides: no matching can need less energy than that of the least
    least = heuristics._match(params, instance, 0.0, 1.0)
    _, cured, _ = compression.optimise(params, physics.links(params, instance, least), *shares)
    np.testing.assert_array_equal(solution.feasible, possible | cured)


def test_infeasible_equal_shares_are_said_and_spare_the_others() -> None:
    params, instance = batch("default", 3)
    far = dataclasses.replace(instance, gain=instance.gain * np.array([1.0, 1e-6, 1.0])[:, None])
    solution = heuristics.equal(params, far)
    assert solution.feasible.tolist() == [True, False, True]
    assert solution.status[1].startswith("infeasible: ")
    np.testing.assert_array_equal(solution.objective[[0, 2]], heuristics.equal(params, instance).objective[[0, 2]])


def test_equal_is_the_same_in_any_batch_and_fast() -> None:
    params, instance = batch("default", 60)
    whole = heuristics.equal(params, instance)
    part = heuristics.equal(params, instance[50:])
    np.testing.assert_allclose(whole.objective[50:], part.objective, rtol=1e-9)
    assert whole.seconds.max() < 0.01


def test_channel_pairing_pairs_the_extremes() -> None:
    params, instance = batch("default", 20)
    pair = heuristics.strongest_with_weakest(params, instance)
    assert (pairs.uses(pair, 10) == 1).all()
    for row in range(20):
        ranks = np.argsort(np.argsort(instance.gain[row]))[pairs.members(10)[pair[row]]]
        assert (ranks.sum(-1) == 9).all()


def test_a_start_is_feasible_far_more_often_than_equal_shares() -> None:
    params, instance = batch("default", 100)
    pair = heuristics.strongest_with_weakest(params, instance)
    shares = heuristics.equal_shares(params, 100)
    _, equal, _ = compression.optimise(params, physics.links(params, instance, pair), *shares)
    first = heuristics.start(params, instance, pair)
    feasible = np.asarray(SFMA.evaluate(params, instance, first).feasible)
    assert (feasible >= equal).all()
    assert equal.mean() < 0.5
    assert feasible.mean() > 0.8
    assert (first.power_w[equal] == 0.2).all()
    assert (first.bandwidth_hz[equal] == 2e6).all()


def test_frugal_shares_meet_the_budgets_and_need_less_energy_than_equal_power() -> None:
    params, instance = batch("default", 60)
    link = physics.links(params, instance, heuristics.strongest_with_weakest(params, instance))
    power, bandwidth = frugal.shares(params, link)
    np.testing.assert_allclose(bandwidth.sum(-1), params.max_bandwidth_hz, rtol=1e-9)
    _, feasible, _ = compression.optimise(params, link, power, bandwidth)
    assert (power.sum(-1)[feasible] <= params.max_power_w * (1 + 1e-9)).all()
    _, plain, _ = compression.optimise(params, link, *heuristics._equal_rest(params, link))
    assert feasible.mean() > plain.mean() + 0.1


@pytest.mark.parametrize("method", [heuristics.channel_pairing, heuristics.random_pairing])
def test_the_other_pairings_climb_and_say_what_is_infeasible(method: Any) -> None:
    params, instance = batch("default", 4)
    solution = method(params, instance, iterations=2)
    first = heuristics.start(params, instance, solution.allocation.pair)
    outcome = SFMA.evaluate(params, instance, first)
    np.testing.assert_array_equal(solution.feasible, outcome.feasible)
    assert (solution.objective >= np.asarray(outcome.objective) * (1 - 1e-9)).all()
    assert (solution.iterations[solution.feasible] >= 1).all()
    assert (solution.iterations <= 2).all()
    assert (np.isfinite(solution.trace).sum(-1) == solution.iterations).all()
    for row in np.flatnonzero(solution.feasible):
        trace = solution.trace[row, : solution.iterations[row]]
        assert (np.diff(trace) >= -1e-9 * trace[0]).all()
        assert trace[-1] == pytest.approx(solution.objective[row])


@pytest.mark.parametrize("method", [heuristics.channel_pairing, heuristics.random_pairing])
def test_the_climb_serves_the_same_pairs_better(method: Any) -> None:
    params, instance = batch("figures", 5)
    slow, quick = method(params, instance), method(params, instance, solver="fast")
    assert (slow.allocation.pair == quick.allocation.pair).all()
    assert quick.feasible.all()
    assert (quick.objective[slow.feasible] >= slow.objective[slow.feasible] * (1 - 1e-3)).all()
    assert quick.objective.mean() > slow.objective[slow.feasible].mean()
    with pytest.raises(ValueError, match="unknown solver of a pairing 'best'"):
        method(params, instance, solver="best")
    with pytest.raises(TypeError, match="unknown argument 'tolerance'"):
        method(params, instance, solver="fast", tolerance=1e-3)


def test_random_pairing_is_seeded() -> None:
    params, instance = batch("default", 3)
    blocked = dataclasses.replace(instance, gain=instance.gain * 1e-9)  # nothing to optimise
    pair = [heuristics.random_pairing(params, blocked, seed=seed).allocation.pair for seed in (1, 1, 2)]
    np.testing.assert_array_equal(pair[0], pair[1])
    assert (pair[0] != pair[2]).any()
    assert (pairs.uses(pair[2], 10) == 1).all()
    with pytest.raises(ValueError, match="seed"):
        heuristics.random_pairing(params, instance, seed=-1)


def test_a_blind_instance_has_the_profile_of_one_similarity() -> None:
    params, instance = batch("default", 50)
    same = schemes.blind(params, dataclasses.replace(instance, similarity=np.full_like(instance.similarity, 0.45)))
    for name in ("rho_min", "rho_max", "power_slope", "ratio_slope", "offset"):
        np.testing.assert_allclose(getattr(same, name), getattr(instance, name), rtol=1e-12)
    blind = schemes.blind(params, instance)
    SFMA.check(params, blind)
    assert (blind.similarity == 0.45).all()
    # what is left of each parameter is the pair's own factor, whose logarithm has the profile's spread
    own = np.log(blind.rho_min / np.interp(0.45, params.profile.similarity, params.profile.rho_min))
    assert own.std() == pytest.approx(params.profile.parameter_spread, rel=0.1)
    assert abs(np.corrcoef(own.ravel(), instance.similarity.ravel())[0, 1]) < 0.1
    users = physics.distortion(params, physics.links(params, blind, np.arange(45)[None].repeat(50, 0)),
                               np.full((50, 45), 0.5))  # fmt: skip
    assert users.shape == (50, 45, 2)
    np.testing.assert_array_equal(blind.gain, instance.gain)


def test_a_blind_transceiver_loses() -> None:
    params, instance = batch("default", 40)
    ours = heuristics.equal(params, instance)
    theirs = heuristics.equal(params, schemes.blind(params, instance))
    both = ours.feasible & theirs.feasible
    assert both.sum() > 30
    assert theirs.objective[both].mean() < 0.9 * ours.objective[both].mean()


def test_noma_solves_the_blind_instance() -> None:
    params, instance = batch("default", 2)
    solution = schemes.noma(params, instance, iterations=1)
    assert solution.feasible.all()
    again = SFMA.evaluate(params, schemes.blind(params, instance), solution.allocation)
    np.testing.assert_allclose(solution.objective, again.objective, rtol=1e-12)
    assert schemes.noma(params, instance, solver="fast").objective.mean() > solution.objective.mean()
    with pytest.raises(ValueError, match="unknown noma solver 'papr'"):
        schemes.noma(params, instance, solver="papr")


def test_fdma_by_hand() -> None:
    params, instance = batch("default", 5)
    snr = 0.1 * instance.gain / (1e6 * 10**-20.4)
    np.testing.assert_allclose(schemes.fdma(params, instance).objective, np.log2(1 + snr).sum(-1), rtol=1e-9)


def test_fdma_does_not_depend_on_the_number_of_users() -> None:
    means = []
    for users in (6, 10, 16):
        params, instance = batch("default", 1000, num_users=users)
        means.append(schemes.fdma(params, instance).objective.mean())
    assert max(means) / min(means) < 1.03
    assert 70 < means[1] < 82  # the paper's figure is 76


def test_superposition_with_perfect_cancellation_beats_orthogonal_users_and_without_it_does_not() -> None:
    params, instance = batch("default", 100)
    alone = schemes.fdma(params, instance).objective
    perfect = schemes.deepjscc_noma(params, instance, sic="perfect").objective
    estimated = schemes.deepjscc_noma(params, instance).objective
    assert (perfect >= alone * (1 - 1e-12)).all()
    assert (estimated < alone).all()
    assert schemes.deepjscc_noma(params, instance).allocation is None
    with pytest.raises(ValueError, match="unknown sic 'none'"):
        schemes.deepjscc_noma(params, instance, sic="none")


def test_deepjscc_noma_by_hand() -> None:
    params, instance = batch("default", 1, num_users=4)
    gain = np.sort(instance.gain[0])
    noise = 5e6 * 10**-20.4
    rate = 0.0
    for weak, strong in ((gain[0], gain[3]), (gain[1], gain[2])):
        alone = 0.5 * np.log2(1 + 0.5 * weak / noise)  # half the band and half the power: the same SNR
        share = (np.sqrt(1 + 0.5 * weak / noise) - 1) / (0.5 * weak / noise)
        own, other = share * 0.5, (1 - share) * 0.5
        weak_rate = np.log2(1 + other * weak / (own * weak + noise))
        assert weak_rate == pytest.approx(alone)
        heard = other * strong / (own * strong + noise)
        rate += weak_rate + np.log2(1 + own * strong / (noise + other * strong / (1 + heard)))
    found = schemes.deepjscc_noma(params, instance).objective[0]
    assert found == pytest.approx(5.0 * rate, rel=1e-9)


def test_adaptive_modulation_is_a_staircase_below_shannon() -> None:
    snr_db = np.linspace(-15, 40, 2000)
    snr = 10 ** (snr_db / 10)
    found = schemes.adaptive_modulation(snr)
    assert (found[snr_db < -6.94] == 0).all()
    assert (found[snr_db > 19.83] == 5.5547).all()
    assert (np.diff(found) >= 0).all()
    assert len(np.unique(found)) == 16
    assert (found <= schemes.shannon(snr)).all()


def test_bpg_takes_the_better_of_orthogonal_and_superposed() -> None:
    params, instance = batch("default", 100)
    found = schemes.bpg_ldpc_qam(params, instance).objective
    alone = 1e-6 * schemes._orthogonal(params, instance, schemes.adaptive_modulation).sum(-1)
    both = 1e-6 * schemes._superposed(params, instance, schemes.adaptive_modulation, "perfect").sum((-2, -1))
    assert (found >= np.maximum(alone, both) - 1e-9).all()
    assert (found > both + 1e-6).any()
    assert (found > alone + 1e-6).any()
    assert found.mean() < schemes.fdma(params, instance).objective.mean()
    silent = dataclasses.replace(instance, gain=instance.gain * 1e-9)
    assert (schemes.bpg_ldpc_qam(params, silent).objective == 0).all()


MODELS = [schemes.fdma, schemes.deepjscc_noma, schemes.bpg_ldpc_qam]


def curve_file(path: Path, kind: str = "measured", **parameters: Any) -> str:
    table = {"snr_db": [0.0, 10.0, 20.0], "spectral_efficiency": [1.0, 2.0, 4.0], **parameters}
    Curve("test", "sfma", kind, "quantity", "equation", table, None, [], {}, {}).save(path / "curve.json")
    return str(path / "curve.json")


@pytest.mark.parametrize("model", MODELS)
def test_a_measured_curve_takes_the_place_of_shannon(model: Any, tmp_path: Path) -> None:
    params, instance = batch("default", 20)
    found = model(params, instance, curve=curve_file(tmp_path))
    assert (found.objective != model(params, instance).objective).all()
    assert found.feasible.all()
    assert set(found.status) == {schemes.RATE_MODEL}


def test_fdma_reads_the_curve_at_the_snr(tmp_path: Path) -> None:
    params, instance = batch("default", 1, num_users=4)
    unit = params.noise_psd_w_hz * params.max_bandwidth_hz / params.max_power_w
    at = 10 ** (np.array([[-1.0, 5.0, 15.0, 30.0]]) / 10)  # zero below the first point, constant above the last
    known = dataclasses.replace(instance, gain=at * unit)
    found = schemes.fdma(params, known, curve=curve_file(tmp_path)).objective[0]
    assert found == pytest.approx(2.5 * (0.0 + 1.5 + 3.0 + 4.0), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "synthetic"}, "kind 'measured'"),
        ({"snr_db": [0.0, 10.0]}, "same length"),
        ({"snr_db": [0.0, 20.0, 10.0]}, "snr_db must rise"),
        ({"spectral_efficiency": [1.0, 0.5, 2.0]}, "never fall"),
        ({"spectral_efficiency": [-1.0, 0.5, 2.0]}, "0 or more"),
        ({"spectral_efficiency": 3.0}, "list of numbers"),
        ({"spectral_efficiency": [[1.0, 2.0], [1.0, 2.0]]}, "list of numbers"),
    ],
)
def test_a_bad_curve_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    params, instance = batch("default", 1)
    with pytest.raises(ValueError, match=message):
        schemes.fdma(params, instance, curve=curve_file(tmp_path, **change))


def test_an_unknown_curve_is_named() -> None:
    params, instance = batch("default", 1)
    with pytest.raises(ValueError, match="nowhere"):
        schemes.fdma(params, instance, curve="nowhere.json")
