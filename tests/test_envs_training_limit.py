"""A curve's largest SNR: what it does to PSNR, to the least ratio, to feasibility and to the action map."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import draw_actions
from hypothesis import given, settings
from hypothesis import strategies as st
from training_curves import CORRECTED, KINDS, limited, write

from semcom_gym import envs
from semcom_gym.benchmarks import protocol
from semcom_gym.envs.training import physics

TRAINING = envs.problem("training")
LIMITS = (3.0, 12.0, 20.0, 60.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a curve of every kind and limit."""
    path = tmp_path_factory.mktemp("curves")
    for kind in KINDS:
        write(path, kind, KINDS[kind])
        for limit in LIMITS:
            limited(path, kind, limit)
    return path


def plain(kind: str, ratio: float, snr_db: float) -> float:
    """(57), typed again."""
    a = KINDS[kind]
    return a["scale"] * math.log(a["ratio_slope"] * ratio + a["snr_slope"] * snr_db + a["offset"])


def with_limit(folder: Path, kind: str, limit: float, **overrides: Any) -> Any:
    """Parameters with a limit, thresholds from what rho^min reaches at half the limit to the largest PSNR there is."""
    path = str(folder / f"{kind}_{limit:g}.json")
    bounds = (plain(kind, 0.1, 0.5 * limit), plain(kind, 0.3, limit))
    return TRAINING.preset("default", **({"psnr_curve": path, "psnr_range_db": bounds} | overrides))


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("kind", KINDS)
def test_psnr_stands_still_from_the_limit_on(folder: Path, kind: str, limit: float) -> None:
    params = with_limit(folder, kind, limit)
    assert params.max_snr_db == limit
    for snr_db in (limit - 4.0, limit - 1e-3, limit, limit + 1e-3, limit + 30.0, 3000.0):
        for ratio in (0.1, 0.17, 0.3):
            expected = plain(kind, ratio, min(snr_db, limit))
            got = float(physics.psnr_db(params, np.array(ratio), np.array(10 ** (snr_db / 10))))
            assert got == pytest.approx(expected, rel=1e-12)
            back = float(physics.needed_ratio(params, np.array(expected), np.array(10 ** (snr_db / 10))))
            assert back == pytest.approx(ratio, rel=1e-9)


def test_without_a_limit_nothing_is_held(folder: Path) -> None:
    own = TRAINING.preset("default", psnr_curve=str(folder / "corrected.json"))
    shipped = TRAINING.preset("default")
    snr = 10 ** np.linspace(-2, 12, 50)
    for params in (own, shipped):
        assert math.isinf(params.max_snr_db)
        assert params.curve_numbers == tuple(CORRECTED.values())
        assert (np.diff(physics.psnr_db(params, np.full(50, 0.2), snr)) > 0).all()
        np.testing.assert_array_equal(physics.ratio_floor(params, np.linspace(20.0, 33.2, 50)), 0.1)


@settings(max_examples=300)
@given(
    st.sampled_from(list(KINDS)), st.sampled_from(LIMITS), st.floats(-0.2, 1.0), st.floats(-15.0, 80.0),
    st.floats(0.1, 0.3),
)  # fmt: skip
def test_the_limit_is_a_least_ratio(
    folder: Path, kind: str, limit: float, place: float, snr_db: float, ratio: float
) -> None:
    """{P(rho, min(S, S^max)) >= P^min} = {P(rho, S) >= P^min and rho >= rho_floor}, off the sets' common edge."""
    params = with_limit(folder, kind, limit)
    low, high = plain(kind, 0.1, limit), plain(kind, 0.3, limit)
    least = low + place * (high - low)
    floor = float(physics.ratio_floor(params, np.array(least)))
    if place <= 0:
        assert floor == pytest.approx(0.1, rel=1e-12)
    else:
        assert plain(kind, floor, limit) == pytest.approx(least, rel=1e-12)
    a = KINDS[kind]
    if a["ratio_slope"] * ratio + a["snr_slope"] * snr_db + a["offset"] < 1.0:
        return  # (57) has no value: PSNR counts as 0 and both sides are false
    held, free = plain(kind, ratio, min(snr_db, limit)), plain(kind, ratio, snr_db)
    if min(abs(held - least), abs(free - least)) < 1e-9 or abs(ratio - floor) < 1e-9:
        return
    assert (held >= least) == (free >= least and ratio >= floor)


def test_too_small_a_ratio_breaks_psnr_and_not_16f(folder: Path) -> None:
    """However high the SNR; the least ratio is the one that restores it."""
    least = plain("corrected", 0.2, 12.0)
    params = with_limit(folder, "corrected", 12.0, psnr_range_db=(least, least), num_users=2)
    instance = TRAINING.sample(params, np.random.default_rng(0), 1)
    power, band = np.full((1, 2), 1e-2), np.full((1, 2), 1e4)
    assert (physics.snr(params, instance.gain, power, band) > 10**3).all()
    clocks = instance.max_frequency_hz, np.full((1, 2), 1e9)
    broken, met = (physics.Allocation(power, band, *clocks, np.full((1, 2), rho)) for rho in (0.19, 0.2))
    outcome = TRAINING.evaluate(params, instance, broken)
    wrong = {name: float(value[0]) for name, value in outcome.violation.items() if value[0] > 0}
    assert wrong == {"psnr": pytest.approx(1 - plain("corrected", 0.19, 12.0) / least, rel=1e-9)}
    assert physics.diagnose(params, instance, broken)[0].startswith("psnr of device 0 exceeds its limit by ")
    assert TRAINING.evaluate(params, instance, met).feasible.all()
    np.testing.assert_allclose(physics.ratio_floor(params, instance.min_psnr_db), 0.2, rtol=1e-12)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], int, str, float, bool]:
    """Fields of the cell, seed, curve, limit, and whether all thresholds are the largest PSNR there is."""
    fields = {
        "num_users": draw(st.integers(1, 20)), "total_bandwidth_hz": draw(st.floats(1e5, 1e8)),
        "max_power_w": draw(st.floats(1e-4, 1.0)), "shadowing_db": draw(st.sampled_from([0.0, 8.0])),
    }  # fmt: skip
    kind, limit = draw(st.sampled_from(list(KINDS))), draw(st.sampled_from(LIMITS))
    return fields, draw(st.integers(0, 2**32)), kind, limit, draw(st.booleans())


@settings(max_examples=150)
@given(cases(), st.data())
def test_every_action_is_feasible_and_comes_back(
    folder: Path, case: tuple[dict[str, Any], int, str, float, bool], data: st.DataObject
) -> None:
    fields, seed, kind, limit, at_the_edge = case
    params = with_limit(folder, kind, limit, **fields)
    top = params.reachable_psnr_db
    assert top == pytest.approx(plain(kind, 0.3, limit), rel=1e-12)
    params = dataclasses.replace(params, psnr_range_db=(top, top)) if at_the_edge else params
    generator = np.random.default_rng(seed)
    action = draw_actions(data.draw, generator, (3, 5 * params.num_users))
    instance = TRAINING.sample(params, generator, 3)
    for dtype in (np.float32, np.float64):
        cell = instance.map(lambda x, dtype=dtype: x.astype(dtype))
        first = TRAINING.decode(params, cell, action.astype(dtype))
        outcome = TRAINING.evaluate_unchecked(params, cell, first)
        assert max(value.max() for name, value in outcome.violation.items() if name != "unfinished") <= 1e-6
    if outcome.feasible.all():
        again = TRAINING.decode(params, instance, TRAINING.encode(params, instance, first))
        objective = TRAINING.evaluate(params, instance, again).objective
        np.testing.assert_allclose(objective, outcome.objective, rtol=1e-9)


def test_the_lowest_ratio_entry_meets_psnr_exactly(folder: Path) -> None:
    params = with_limit(folder, "corrected", 12.0)
    generator = np.random.default_rng(0)
    instance = TRAINING.sample(params, generator, 50)
    action = generator.uniform(-1, 1, (50, 50))
    action[:, 40:] = -1.0
    decision = TRAINING.decode(params, instance, action)
    outcome = TRAINING.evaluate(params, instance, decision)
    assert outcome.feasible.all()
    floor = physics.ratio_floor(params, instance.min_psnr_db)
    at_floor = (outcome.terms["snr"] > 10**1.2) & (floor > 0.1)
    raised = decision.ratio > floor * (1 + 1e-9)
    assert 0.3 < at_floor.mean() < 0.9
    assert raised.any()
    np.testing.assert_allclose(decision.ratio[at_floor], floor[at_floor], rtol=1e-12)
    bound = at_floor | raised
    np.testing.assert_allclose(outcome.terms["psnr_db"][bound], instance.min_psnr_db[bound], rtol=1e-12)
    less = dataclasses.replace(decision, ratio=np.where(bound, 0.99, 1.0) * decision.ratio)
    assert not TRAINING.evaluate(params, instance, less).feasible[bound.any(-1)].any()


@pytest.mark.parametrize("kind", KINDS)
def test_torch_agrees_and_its_gradients_are_finite(folder: Path, kind: str) -> None:
    """At SNRs below, at and above the limit; above it PSNR has no slope in power."""
    torch = pytest.importorskip("torch")
    params = with_limit(folder, kind, 12.0)
    snr_db = np.array([0.0, 11.9, 12.0, 12.1, 40.0, 400.0])
    snr = torch.tensor(10 ** (snr_db / 10), dtype=torch.float64, requires_grad=True)
    ratio = torch.full_like(snr, 0.2).detach().requires_grad_(True)
    got = physics.psnr_db(params, ratio, snr)
    np.testing.assert_allclose(got.detach(), [plain(kind, 0.2, min(x, 12.0)) for x in snr_db], rtol=1e-12)
    got.sum().backward()
    assert torch.isfinite(snr.grad).all()
    assert (snr.grad[[0, 1]] > 0).all()
    assert (snr.grad[[3, 4, 5]] == 0).all()
    assert (ratio.grad > 0).all()
    instance = TRAINING.sample_split(params, "train", 20)
    for dtype in (torch.float32, torch.float64):
        action = torch.zeros((20, 50), dtype=dtype, requires_grad=True)
        outcome, reward = TRAINING.play(params, instance.to_torch(dtype=dtype), action)
        reward.sum().backward()
        assert torch.isfinite(action.grad).all()
        expected = TRAINING.play(params, instance, np.zeros((20, 50)))[0]
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        np.testing.assert_allclose(outcome.objective.detach(), expected.objective, rtol=tolerance)


def test_the_limit_is_part_of_the_fingerprint(folder: Path) -> None:
    free = TRAINING.preset("default", psnr_curve=str(folder / "corrected.json"), psnr_range_db=(26.5, 28.0))
    instance = TRAINING.sample_split(free, "validation", 2)
    marks = set()
    for limit in (12.0, 20.0):  # under one name, as a file may change
        path = write(folder, "changing", CORRECTED | {"max_snr_db": limit})
        params = dataclasses.replace(free, psnr_curve=path)
        assert params.curve_numbers == (*CORRECTED.values(), limit)
        marks.add(protocol.fingerprint(params, instance))
    assert len(marks) == 2
