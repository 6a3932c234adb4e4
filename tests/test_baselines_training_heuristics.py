"""The comparison schemes of Section VII-D and equal bandwidths, against independent searches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize

from semcom_gym import baselines, envs
from semcom_gym.baselines.training import heuristics

TRAINING = envs.problem("training")
SIMPLE = ("random", "average", "pb_only_frozen", "pb_only", "fhrho_only", "equal_bandwidth")


def batch(preset: str, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = TRAINING.preset(preset, **overrides)
    return params, TRAINING.sample_split(params, "validation", n)


def solve(method: str, params: Any, instances: Any, **options: Any) -> Any:
    return baselines.solve("training", params, instances, method, **options)


def round_cost(params: Any, instance: Any, power: Any, band: Any, f: Any, h: Any, ratio: Any) -> tuple[Any, float]:
    """Times (N,) and energy of one instance, (5)-(13) written out."""
    noise = 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3
    rate = band * np.log2(1 + power * instance.gain[0] / (noise * band))
    upload = ratio * params.samples * params.sample_bit / rate
    c1, c2 = params.samples * instance.device_cycles[0], params.samples * instance.bs_cycles[0]
    energy = params.capacitance * (c1 * f**2 + c2 * h**2) + power * upload
    return upload + c1 / f + c2 / h, float(energy.sum())


def test_registry() -> None:
    assert baselines.anchor("training") == "equal_bandwidth"
    methods = baselines.methods("training")
    assert set(methods) >= {*SIMPLE, "fast", "convex"}


def test_average() -> None:
    params, instances = batch("paper", 3)
    a = solve("average", params, instances).allocation
    np.testing.assert_allclose(a.power_w, 0.05)
    np.testing.assert_allclose(a.bandwidth_hz, 20e6 / 50)
    np.testing.assert_allclose(a.device_frequency_hz, 0.5e9)
    np.testing.assert_allclose(a.bs_frequency_hz, 2.5e9)
    np.testing.assert_allclose(a.ratio, 0.2)


def test_random() -> None:
    params, instances = batch("default", 200)
    found = solve("random", params, instances)
    a = found.allocation
    shares = (
        a.power_w / params.max_power_w,
        a.device_frequency_hz / instances.max_frequency_hz,
        a.bs_frequency_hz / params.max_bs_frequency_hz,
        (a.ratio - params.min_ratio) / (params.max_ratio - params.min_ratio),
    )
    for share in shares:
        assert ((share > 0) & (share < 1)).all()
        np.testing.assert_allclose(share.mean(), 0.5, atol=0.01)
        np.testing.assert_allclose(share.std(), 0.1, atol=0.005)
    assert np.corrcoef([share.ravel() for share in shares])[np.triu_indices(4, 1)].max() < 0.1
    np.testing.assert_allclose(a.bandwidth_hz.sum(-1), params.total_bandwidth_hz, rtol=1e-12)
    band = a.bandwidth_hz * params.num_users / params.total_bandwidth_hz
    assert band.min() > 0.7
    assert band.max() < 1.4
    assert (solve("random", params, instances, seed=0).objective == found.objective).all()
    assert (solve("random", params, instances, seed=1).objective != found.objective).all()


@pytest.mark.parametrize("preset", ["default", "hard", "paper"])
def test_feasible_or_flagged_and_in_order(preset: str) -> None:
    params, instances = batch(preset, 12)
    proven = baselines.bound("training", params, instances).value
    found = {name: solve(name, params, instances) for name in SIMPLE}
    for solution in found.values():
        for ok, status, objective, low in zip(
            solution.feasible, solution.status, solution.objective, proven, strict=True
        ):
            assert (status == "ok") == ok
            assert ok or "of device" in status
            assert not ok or objective >= low
    for better, worse in (
        ("pb_only", "pb_only_frozen"), ("pb_only_frozen", "average"), ("equal_bandwidth", "fhrho_only"),
        ("fhrho_only", "average"),
    ):  # fmt: skip
        both = found[better].feasible & found[worse].feasible
        assert (found[better].objective[both] <= found[worse].objective[both] * (1 + 1e-6)).all()
    assert found["equal_bandwidth"].feasible.all()
    assert found["pb_only"].feasible.all()


def test_fhrho_only_against_a_search() -> None:
    """p and B as average; f and h of two devices by Nelder-Mead, the makespan by its definition."""
    params, instances = batch("default", 6, num_users=2, psnr_range_db=(25.0, 25.2))
    found = solve("fhrho_only", params, instances)
    assert found.feasible.all()
    for i in range(6):
        a = found.allocation[i]
        np.testing.assert_allclose(a.power_w, 0.5 * params.max_power_w)
        np.testing.assert_allclose(a.bandwidth_hz, 0.5 * params.total_bandwidth_hz)
        np.testing.assert_allclose(a.ratio, params.min_ratio)
        one = instances[i]

        def cost(x: np.ndarray, a: Any = a, one: Any = one) -> float:
            caps = np.concatenate([one.max_frequency_hz[0], np.full(2, params.max_bs_frequency_hz)])
            f, h = np.split(caps / (1 + np.exp(-x)), 2)
            seconds, joule = round_cost(params, one, a.power_w[0], a.bandwidth_hz[0], f, h, params.min_ratio)
            return float(params.time_weight * seconds.max() + params.energy_weight * joule)

        options = {"maxiter": 4000, "xatol": 1e-8, "fatol": 1e-12}
        best = min(
            scipy.optimize.minimize(cost, np.array(x0), method="Nelder-Mead", options=options).fun
            for x0 in ([2.0, 2.0, -2.0, -2.0], [0.5, 3.0, -1.0, -2.0])
        )
        np.testing.assert_allclose(found.objective[i], best, rtol=2e-4)
        assert found.objective[i] <= best * (1 + 1e-9)


def pb_grid(params: Any, one: Any, makespan: float | None) -> float:
    """Least objective of two devices over bandwidths and powers at f, h, rho of average; a deadline if it is frozen."""
    f, h = 0.5 * one.max_frequency_hz[0], np.full(2, 0.5 * params.max_bs_frequency_hz)
    ratio = 0.5 * (params.min_ratio + params.max_ratio)
    scale, by_ratio, by_snr, offset = params.psnr_parameters
    db = (np.exp(one.min_psnr_db[0] / scale) - offset - by_ratio * ratio) / by_snr
    noise = 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3
    share = np.linspace(0.002, 0.998, 250)
    power = np.geomspace(1e-4, 1.0, 300)[:, None] * params.max_power_w
    times, energies = [], []
    for k, part in enumerate((share, 1 - share)):
        band = params.total_bandwidth_hz * part[None, :]
        snr = power * one.gain[0, k] / (noise * band)
        seconds = ratio * params.samples * params.sample_bit / (band * np.log2(1 + snr))
        seconds = np.where(snr >= 10 ** (db[k] / 10), seconds, np.inf)
        rest = params.samples * (one.device_cycles[0, k] / f[k] + one.bs_cycles[0, k] / h[k])
        times.append(seconds + rest)
        energies.append(np.where(np.isfinite(seconds), power * seconds, np.inf))
    clocks = params.capacitance * params.samples * (one.device_cycles[0] * f**2 + one.bs_cycles[0] * h**2)
    best = np.inf
    for t in [makespan] if makespan else np.linspace(0.3, 6.0, 400):
        joule = sum(np.where(s <= t, e, np.inf).min(0) for s, e in zip(times, energies, strict=True))
        best = min(best, params.time_weight * t + params.energy_weight * (joule.min() + clocks.sum()))
    return best


def test_pb_only_against_a_grid() -> None:
    params, instances = batch("default", 4, num_users=2, total_bandwidth_hz=2e6, psnr_range_db=(25.5, 26.0))
    free, frozen = (solve(name, params, instances) for name in ("pb_only", "pb_only_frozen"))
    first = heuristics.average_allocation(params, instances)
    makespan = TRAINING.evaluate(params, instances, first).terms["time_s"].max(-1)
    assert free.feasible.all()
    assert frozen.feasible.all()
    for i in range(4):
        assert free.objective[i] <= pb_grid(params, instances[i], None) * (1 + 1e-3)
        np.testing.assert_allclose(free.objective[i], pb_grid(params, instances[i], None), rtol=0.02)
        np.testing.assert_allclose(frozen.objective[i], pb_grid(params, instances[i], makespan[i]), rtol=0.02)
        kept = TRAINING.evaluate(params, instances[i], frozen.allocation[i]).terms["time_s"].max()
        assert kept <= makespan[i] * (1 + 1e-9)
    for name in ("device_frequency_hz", "bs_frequency_hz", "ratio"):
        np.testing.assert_allclose(getattr(free.allocation, name), getattr(first, name), rtol=1e-12)


def equal_grid(params: Any, one: Any) -> float:
    """Least objective at equal bandwidths or less: a grid of makespans, of SNRs and of device frequencies."""
    users = params.num_users
    noise = 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3
    scale, by_ratio, by_snr, offset = params.psnr_parameters
    best = np.inf
    low, high = 0.05, 30.0
    db = np.linspace(-10.0, 45.0, 1500)
    snr = 10 ** (db / 10)
    f = np.linspace(0.02, 1.0, 200)
    for _ in range(3):
        times = np.geomspace(low, high, 40)
        values = params.time_weight * times
        for k in range(users):
            ratio = (np.exp(one.min_psnr_db[0, k] / scale) - offset - by_snr * db) / by_ratio
            bits = np.maximum(ratio, params.min_ratio) * params.samples * params.sample_bit
            bits = np.where(ratio <= params.max_ratio, bits, np.inf)
            top = params.max_power_w * one.gain[0, k] / noise / snr  # bandwidth at full power
            band = np.minimum(top, params.total_bandwidth_hz / users)
            seconds = bits / (band * np.log2(1 + snr))
            joule = snr * noise * band / one.gain[0, k] * np.where(np.isfinite(seconds), seconds, 0.0)
            c1, c2 = params.samples * one.device_cycles[0, k], params.samples * one.bs_cycles[0, k]
            clock = f * one.max_frequency_hz[0, k]
            spare = np.geomspace(1e-3, high, 2000)
            left = spare[:, None] - c1 / clock
            bs = np.where(left > 0, c2 / np.where(left > 0, left, 1.0), np.inf)
            need = params.capacitance * (c1 * clock**2 + c2 * bs**2)
            need = np.where(bs <= params.max_bs_frequency_hz, need, np.inf).min(-1)
            for j, t in enumerate(times):
                values[j] += params.energy_weight * np.min(joule + np.interp(t - seconds, spare, need, left=np.inf))
        k = int(np.argmin(values))
        best = min(best, values[k])
        low, high = times[max(k - 1, 0)], times[min(k + 1, 39)]
    return best


@pytest.mark.parametrize(("preset", "users", "band"), [("default", 3, 3e6), ("hard", 4, 2e6), ("paper", 3, 1e6)])
def test_equal_bandwidth_against_a_grid(preset: str, users: int, band: float) -> None:
    params, instances = batch(preset, 4, num_users=users, total_bandwidth_hz=band)
    found = solve("equal_bandwidth", params, instances)
    assert found.feasible.all()
    assert (found.allocation.bandwidth_hz <= band / users * (1 + 1e-9)).all()
    for i in range(4):
        grid = equal_grid(params, instances[i])
        assert found.objective[i] <= grid * (1 + 1e-4)
        np.testing.assert_allclose(found.objective[i], grid, rtol=0.01)


def test_infeasible_schemes_name_the_device_of_the_worst_psnr() -> None:
    params, instances = batch("hard", 20)
    found = solve("fhrho_only", params, instances)
    assert 0 < found.feasible.sum() < 20
    needed = TRAINING.evaluate(params, instances, found.allocation).terms["psnr_db"] / instances.min_psnr_db
    for row in np.flatnonzero(~found.feasible):
        assert found.status[row].startswith(f"infeasible: psnr of device {needed[row].argmin()} exceeds")


def test_arguments_are_checked() -> None:
    params, instances = batch("default", 1)
    with pytest.raises(ValueError, match=r"seed must be >= 0, got -1"):
        solve("random", params, instances, seed=-1)
    with pytest.raises(TypeError, match="seed"):
        solve("average", params, instances, seed=1)
