"""The equations of the training paper against values worked out here from their definitions."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcom_gym import envs
from semcom_gym.envs import curve
from semcom_gym.envs.training import physics

TRAINING = envs.problem("training")
FIELDS = ("power_w", "bandwidth_hz", "device_frequency_hz", "bs_frequency_hz", "ratio")


def psnr(ratio: float, snr: float) -> float:
    """(57) with the slopes of (58) and the corrected constant, typed again."""
    return 18.67 * math.log(1.52 * ratio + 0.03 * 10 * math.log10(snr) + 3.69)


def random_case(preset: str, seed: int = 3, n: int = 4, **overrides: Any) -> tuple[Any, Any, physics.Allocation]:
    params = TRAINING.preset(preset, **overrides)
    generator = np.random.default_rng(seed)
    instance = TRAINING.sample(params, generator, n)
    action = generator.uniform(-0.7, 0.7, (n, TRAINING.action_layout(params).size))
    return params, instance, TRAINING.decode(params, instance, action)


@pytest.mark.parametrize("preset", ["default", "paper", "hard"])
def test_times_energies_and_objective_from_the_definitions(preset: str) -> None:
    """(5)-(13), (16), (57) in plain Python, device by device."""
    params, instance, decision = random_case(preset, time_weight=0.3)
    outcome = TRAINING.evaluate(params, instance, decision)
    noise = 10 ** (-174 / 10) / 1000
    for n in range(4):
        times, energy = [], 0.0
        for i in range(params.num_users):
            p, b, f, h, rho = (float(getattr(decision, name)[n, i]) for name in FIELDS)
            g, c1, c2 = (float(getattr(instance, name)[n, i]) for name in ("gain", "device_cycles", "bs_cycles"))
            snr = p * g / (noise * b)
            rate = b * math.log2(1 + snr)
            up = rho * 1e6 * 32 / rate
            times.append(c1 * 32 / f + up + c2 * 32 / h)
            joule = 1e-28 * c1 * 32 * f**2 + p * up + 1e-28 * c2 * 32 * h**2
            energy += joule
            for name, value in {
                "rate_bit_s": rate, "upload_time_s": up, "upload_energy_j": p * up, "time_s": times[-1],
                "energy_j": joule, "snr": snr, "psnr_db": psnr(rho, snr), "power_of_cap": p / params.max_power_w,
                "device_frequency_of_cap": f / instance.max_frequency_hz[n, i], "bs_frequency_of_cap": h / 5e9,
            }.items():  # fmt: skip
                assert outcome.terms[name][n, i] == pytest.approx(value, rel=1e-11), name
        assert outcome.objective[n] == pytest.approx(0.3 * max(times) + 0.7 * energy, rel=1e-11)


def test_the_corrected_curve_meets_the_papers_own_points() -> None:
    """Section VII-G: rho = 0.1 at 4 and 13 dB stand for thresholds of 25.70 and 26.79 dB, achieved 25.67 and 26.95."""
    params = TRAINING.preset("paper")
    at = {db: float(physics.psnr_db(params, np.array(0.1), np.array(10 ** (db / 10)))) for db in (4.0, 13.0)}
    assert at[4.0] == pytest.approx(25.70, abs=0.01)
    assert at[13.0] == pytest.approx(26.95, abs=0.02)
    assert at[13.0] == pytest.approx(psnr(0.1, 10**1.3), rel=1e-12)


def test_the_printed_curve_is_equation_58_and_never_binds() -> None:
    params = TRAINING.preset("paper", psnr_curve="published_printed")
    ratio, snr = np.meshgrid(np.linspace(0.1, 0.3, 5), 10 ** np.linspace(0, 2, 9))
    got = physics.psnr_db(params, ratio, snr)
    x = 1.52 * ratio + 0.03 * 10 * np.log10(snr)
    np.testing.assert_allclose(got, 18.67 * np.log(3.35 * x + 5.11), rtol=1e-12)
    assert got.min() > 30.4


@pytest.mark.parametrize("name", ["corrected", "published_printed"])
def test_condition_1(name: str) -> None:
    """PSNR rises with ratio and SNR (in dB), and is concave in both."""
    params = TRAINING.preset("default", psnr_curve=name)
    ratio, snr_db = np.linspace(0.01, 1, 100), np.linspace(-10, 40, 100)
    in_ratio = physics.psnr_db(params, ratio, np.full(100, 10.0))
    in_snr = physics.psnr_db(params, np.full(100, 0.2), 10 ** (snr_db / 10))
    for values in (in_ratio, in_snr):
        assert (np.diff(values) > 0).all()
        assert (np.diff(values, 2) < 0).all()
    assert curve.load("training", name, ("scale",)).kind == "published"


@given(st.floats(22.0, 33.0), st.floats(-20.0, 50.0), st.floats(0.05, 0.9))
def test_inverses_of_psnr(least_db: float, snr_db: float, ratio: float) -> None:
    params = TRAINING.preset("default")
    snr, least = np.array(10 ** (snr_db / 10)), np.array(least_db)
    needed = physics.needed_ratio(params, least, snr)
    assert float(physics.psnr_db(params, needed, snr)) == pytest.approx(least_db, rel=1e-12)
    needed = physics.needed_snr(params, least, ratio)
    assert float(physics.psnr_db(params, np.array(ratio), needed)) == pytest.approx(least_db, rel=1e-12)
    assert 10 * np.log10(needed) == pytest.approx(float(physics.needed_snr_db(params, least, ratio)), rel=1e-9)


@given(st.floats(1e4, 2e7), st.floats(1e-5, 1.0), st.floats(-140, -70), st.floats(1.001, 10.0))
def test_rate_and_energy_against_bandwidth_and_power(b: float, p: float, gain_db: float, up: float) -> None:
    """More bandwidth or power is faster; at equal power more bandwidth costs less energy, at equal bandwidth more
    power costs more."""
    params, gain = TRAINING.preset("paper"), np.array(10 ** (gain_db / 10))

    def send(b: float, p: float) -> tuple[float, float]:
        snr = physics.snr(params, gain, np.array(p), np.array(b))
        seconds = physics.upload_time(params, np.array(0.1), physics.rate(np.array(b), snr))
        return float(seconds), float(physics.upload_energy(p, seconds))

    time, joule = send(b, p)
    if time >= physics.NEVER_S:
        return
    wide, strong = send(up * b, p), send(b, up * p)
    assert wide[0] <= time * (1 + 1e-12)
    assert strong[0] <= time * (1 + 1e-12)
    assert wide[1] <= joule * (1 + 1e-12)
    assert strong[1] >= joule * (1 - 1e-12)


def test_objective_weighs_the_slowest_device_and_all_energies() -> None:
    params, instance, decision = random_case("default")
    terms = TRAINING.evaluate(params, instance, decision).terms
    times, energies = terms["time_s"].max(axis=-1), terms["energy_j"].sum(axis=-1)
    for weight in (0.001, 0.5, 0.999):
        value = TRAINING.evaluate(dataclasses.replace(params, time_weight=weight), instance, decision).objective
        np.testing.assert_allclose(value, weight * times + (1 - weight) * energies, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_allocations_stay_finite(dtype: type) -> None:
    params = TRAINING.preset("default", num_users=6)
    instance = TRAINING.sample(params, np.random.default_rng(0), 1).map(lambda x: x.astype(dtype))
    extreme = physics.Allocation(
        power_w=np.array([[0.0, 1e-20, 1e-3, 1e3, 0.0, 1e-2]], dtype),
        bandwidth_hz=np.array([[0.0, 1e-9, 1.0, 1e3, 1e12, 5e6]], dtype),
        device_frequency_hz=np.array([[0.0, 1.0, 1e12, 1e8, 1e8, 1e8]], dtype),
        bs_frequency_hz=np.array([[0.0, 1.0, 1e12, 1e8, 1e8, 1e8]], dtype),
        ratio=np.array([[0.0, 0.1, 0.3, 1.0, 0.1, 0.1]], dtype),
    )
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        outcome = TRAINING.evaluate(params, instance, extreme)
    for value in (outcome.objective, *outcome.violation.values(), *outcome.terms.values()):
        assert np.isfinite(value).all()
        assert value.dtype == dtype
    assert outcome.terms["time_s"].max() == physics.NEVER_S


def feasible_case() -> tuple[Any, Any, dict[str, np.ndarray]]:
    params = TRAINING.preset("default", num_users=4, psnr_range_db=(25.0, 25.0))
    instance = TRAINING.sample(params, np.random.default_rng(1), 1)
    cap = instance.max_frequency_hz
    return params, instance, {
        "power_w": np.full((1, 4), 5e-3), "bandwidth_hz": np.full((1, 4), 2e6), "device_frequency_hz": 0.5 * cap,
        "bs_frequency_hz": np.full((1, 4), 1e9), "ratio": np.full((1, 4), 0.2),
    }  # fmt: skip


CASES = [
    ("power", "power_w", [5e-3, 5e-3, 13e-3, 5e-3], 0.3, 2),
    ("bandwidth", "bandwidth_hz", [5e6, 2e6, 2e6, 2e6], 0.1, None),
    ("bs_frequency", "bs_frequency_hz", [1e9, 6e9, 1e9, 1e9], 0.2, 1),
    ("ratio", "ratio", [0.2, 0.2, 0.2, 0.307], 0.007, 3),
    ("ratio", "ratio", [0.09, 0.2, 0.2, 0.2], 0.01, 0),
    ("psnr", "power_w", [5e-3, 1e-6, 5e-3, 5e-3], None, 1),
    ("unfinished", "device_frequency_hz", [1e8, 1e8, 1e8, 0.0], 1.0, 3),
    ("unfinished", "bs_frequency_hz", [1e9, 1e9, 1.0, 1e9], 1.0, 2),
]


@pytest.mark.parametrize(("broken", "field", "values", "amount", "device"), CASES)
def test_each_constraint_is_reported_alone_with_its_device(
    broken: str, field: str, values: list[float], amount: float | None, device: int | None
) -> None:
    params, instance, fields = feasible_case()
    assert bool(TRAINING.evaluate(params, instance, physics.Allocation(**fields)).feasible[0])
    assert physics.diagnose(params, instance, physics.Allocation(**fields)) == [""]
    bad = physics.Allocation(**(fields | {field: np.array([values])}))
    outcome = TRAINING.evaluate(params, instance, bad)
    excess = {key: float(value[0]) for key, value in outcome.violation.items()}
    if broken == "psnr":
        amount = 1 - psnr(0.2, 1e-6 * float(instance.gain[0, 1]) / (10**-17.4 * 1e-3 * 2e6)) / 25.0
        assert amount > 1e-3
    assert excess.pop(broken) == pytest.approx(amount, rel=1e-9)
    assert excess == dict.fromkeys(excess, 0.0)
    assert not outcome.feasible[0]
    where = "" if device is None else f" of device {device}"
    assert physics.diagnose(params, instance, bad)[0].startswith(f"{broken}{where} exceeds its limit by ")


def test_a_device_faster_than_its_own_cap() -> None:
    params, instance, fields = feasible_case()
    fields["device_frequency_hz"] = instance.max_frequency_hz * np.array([[0.5, 1.0, 0.5, 1.25]])
    outcome = TRAINING.evaluate(params, instance, physics.Allocation(**fields))
    assert float(outcome.violation["device_frequency"][0]) == pytest.approx(0.25)
    assert float(outcome.cost[0]) == pytest.approx(0.25)
    reward = TRAINING.reward(outcome, penalty=2.0)
    assert float(reward[0]) == pytest.approx(-float(outcome.objective[0]) - 0.5)


def test_nothing_sent_is_never_finished_and_never_free() -> None:
    params, instance, fields = feasible_case()
    for field in ("bandwidth_hz", "power_w"):
        values = fields[field].copy()
        values[0, 2] = 0.0
        outcome = TRAINING.evaluate(params, instance, physics.Allocation(**(fields | {field: values})))
        assert float(outcome.violation["unfinished"][0]) == 1.0
        assert float(outcome.objective[0]) >= 0.5 * physics.NEVER_S


def test_rows_of_a_batch_do_not_mix() -> None:
    params, instance, decision = random_case("hard", 9)
    whole = TRAINING.evaluate(params, instance, decision)
    for i in range(4):
        row = TRAINING.evaluate(params, instance[i], decision[i])
        assert row.objective[0] == pytest.approx(whole.objective[i], rel=1e-14)


def test_numpy_and_torch_agree() -> None:
    torch = pytest.importorskip("torch")
    params, instance, decision = random_case("hard", 5)
    decision = dataclasses.replace(decision, power_w=1.2 * decision.power_w, ratio=decision.ratio - 0.05)
    expected = TRAINING.evaluate(params, instance, decision)
    got = TRAINING.evaluate(params, instance.to_torch(), decision.to_torch())
    assert torch.is_tensor(got.objective)
    np.testing.assert_allclose(got.objective.numpy(), expected.objective, rtol=1e-12)
    for part in ("terms", "violation"):
        for key, value in getattr(expected, part).items():
            np.testing.assert_allclose(getattr(got, part)[key].numpy(), value, rtol=1e-9, atol=1e-14)
    assert physics.diagnose(params, instance.to_torch(), decision.to_torch()) == physics.diagnose(
        params, instance, decision
    )
