"""The exact solver of the training problem: brute force, KKT, limits, and what it says of impossible instances."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import baselines, envs
from semcom_gym.baselines.training import equilibrium, fast, inverse
from semcom_gym.baselines.training.device import Devices
from semcom_gym.envs.training.physics import Allocation

TRAINING = envs.problem("training")


def batch(preset: str, n: int, split: str = "validation", **overrides: Any) -> tuple[Any, Any]:
    params = TRAINING.preset(preset, **overrides)
    return params, TRAINING.sample_split(params, split, n)


def snr_db(params: Any, instance: Any, a: Allocation) -> np.ndarray:
    noise = 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3
    return 10 * np.log10(a.power_w * instance.gain / (noise * a.bandwidth_hz))


def upload(params: Any, instance: Any, device: int, power: np.ndarray, band: np.ndarray) -> tuple[Any, Any]:
    """Time [s] and energy [J] of one device at the least ratio that PSNR allows, inf where it allows none."""
    noise = 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3
    snr = power * instance.gain[0, device] / (noise * band)
    scale, by_ratio, by_snr, offset = params.psnr_parameters
    wanted = np.exp(instance.min_psnr_db[0, device] / scale) - offset - by_snr * 10 * np.log10(snr)
    ratio = np.maximum(wanted / by_ratio, params.min_ratio)
    seconds = ratio * params.samples * params.sample_bit / (band * np.log2(1 + snr))
    seconds = np.where(ratio <= params.max_ratio, seconds, np.inf)
    return seconds, np.where(np.isinf(seconds), np.inf, power * seconds)


def computing(params: Any, instance: Any, device: int, seconds: np.ndarray) -> np.ndarray:
    """Least computing energy [J] in the seconds left, over a grid of device frequencies; inf where caps forbid it."""
    c1 = params.samples * instance.device_cycles[0, device]
    c2 = params.samples * instance.bs_cycles[0, device]
    f = instance.max_frequency_hz[0, device] * np.linspace(0.02, 1.0, 400)
    left = seconds[..., None] - c1 / f
    h = c2 / np.where(left > 0, left, np.nan)
    energy = params.capacitance * (c1 * f**2 + c2 * h**2)
    return np.min(np.where(h <= params.max_bs_frequency_hz, energy, np.inf), axis=-1)


def brute_force(params: Any, instance: Any, bands: list[np.ndarray]) -> float:
    """Least objective over bandwidths (one entry of each device per choice), powers and makespans on grids."""
    power = params.max_power_w * np.geomspace(1e-3, 1.0, 600)[:, None]
    uploads = [upload(params, instance, k, power, band[None, :]) for k, band in enumerate(bands)]
    quickest = max(float(np.min(seconds.min(0).max())) for seconds, _ in uploads)
    best = np.inf
    low, high = 0.02, 20.0 + 3 * quickest
    for _ in range(3):
        times = np.geomspace(low, high, 40)
        values = []
        for t in times:
            total = params.time_weight * t * np.ones(len(bands[0]))
            for k, (seconds, joule) in enumerate(uploads):
                table = np.geomspace(1e-3, t, 300)
                clock = np.interp(t - seconds, table, computing(params, instance, k, table), left=np.inf)
                total = total + params.energy_weight * np.min(joule + clock, axis=0)
            values.append(float(total.min()))
        k = int(np.argmin(values))
        best = min(best, values[k])
        low, high = times[max(k - 1, 0)], times[min(k + 1, 39)]
    return best


@pytest.mark.parametrize("preset", ["default", "hard", "paper"])
def test_one_device_against_brute_force(preset: str) -> None:
    params, instances = batch(preset, 5, num_users=1, total_bandwidth_hz=1e6)
    found = fast.solve(params, instances)
    band = [params.total_bandwidth_hz * np.geomspace(0.01, 1.0, 150)]
    for i in range(len(instances)):
        grid = brute_force(params, instances[i], band)
        assert found.objective[i] <= grid * (1 + 1e-9)
        assert grid <= found.objective[i] * 1.01


@pytest.mark.parametrize("preset", ["default", "hard"])
def test_two_devices_against_brute_force(preset: str) -> None:
    params, instances = batch(preset, 2, num_users=2, total_bandwidth_hz=1e6)
    found = fast.solve(params, instances)
    # some bandwidth may stay unused: both shares from a grid, all pairs that fit
    share = np.linspace(0.02, 0.98, 49)
    first, second = (x.ravel() for x in np.meshgrid(share, share))
    fits = first + second <= 1.0 + 1e-9
    bands = [params.total_bandwidth_hz * x[fits] for x in (first, second)]
    for i in range(len(instances)):
        grid = brute_force(params, instances[i], bands)
        assert found.objective[i] <= grid * (1 + 1e-9)
        assert grid <= found.objective[i] * 1.03


@pytest.mark.parametrize(("preset", "n"), [("paper", 3), ("default", 20), ("hard", 20), ("large", 2)])
def test_feasible_and_optimal(preset: str, n: int) -> None:
    params, instances = batch(preset, n)
    found = baselines.solve("training", params, instances, "fast")
    proven = baselines.bound("training", params, instances, nodes=60)
    assert found.feasible.all()
    assert found.status == ["ok"] * n
    assert (found.objective >= proven.value).all()
    np.testing.assert_allclose(found.objective, proven.value, rtol=1e-6 if preset != "large" else 1e-3)


def test_kkt_of_the_convex_case() -> None:
    """(23c), (26) and equal prices of bandwidth, with derivatives by differences."""
    params, instances = batch("paper", 5, num_users=8, total_bandwidth_hz=3e6, max_power_w=3.0,
                              device_frequency_range_hz=(3e9, 3e9))  # fmt: skip
    a = fast.solve(params, instances).allocation
    terms = TRAINING.evaluate(params, instances, a).terms
    np.testing.assert_allclose(terms["time_s"], terms["time_s"].max(-1, keepdims=True) * np.ones(8), rtol=1e-9)
    np.testing.assert_allclose(a.bandwidth_hz.sum(-1), params.total_bandwidth_hz, rtol=1e-9)
    assert (a.device_frequency_hz < instances.max_frequency_hz * (1 - 1e-6)).all()  # f = h = (beta / 2 w2 kappa)^(1/3)
    np.testing.assert_allclose(a.device_frequency_hz, a.bs_frequency_hz, rtol=1e-9)
    beta = 2 * params.energy_weight * params.capacitance * a.device_frequency_hz**3
    np.testing.assert_allclose(beta.sum(-1), params.time_weight, rtol=1e-9)

    def cost(power: np.ndarray, band: np.ndarray) -> np.ndarray:
        noise = 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3
        rate = band * np.log2(1 + power * instances.gain / (noise * band))
        seconds = params.min_ratio * params.samples * params.sample_bit / rate
        return (params.energy_weight * power + beta) * seconds

    h = 1e-5
    by_power = (cost(a.power_w * (1 + h), a.bandwidth_hz) - cost(a.power_w * (1 - h), a.bandwidth_hz)) / (2 * h)
    by_band = (cost(a.power_w, a.bandwidth_hz * (1 + h)) - cost(a.power_w, a.bandwidth_hz * (1 - h))) / (2 * h)
    price = -by_band / a.bandwidth_hz
    assert np.abs(by_power / cost(a.power_w, a.bandwidth_hz)).max() < 1e-5
    np.testing.assert_allclose(price, price.mean(-1, keepdims=True) * np.ones(8), rtol=1e-5)


def test_psnr_binds_exactly_where_the_ratio_is_not_the_least() -> None:
    params, instances = batch("hard", 30)
    a = fast.solve(params, instances).allocation
    scale, by_ratio, by_snr, offset = params.psnr_parameters
    psnr = scale * np.log(by_ratio * a.ratio + by_snr * snr_db(params, instances, a) + offset)
    assert (psnr >= instances.min_psnr_db - 1e-6).all()
    raised = a.ratio > params.min_ratio * (1 + 1e-9)
    assert 0.05 < raised.mean() < 0.6
    np.testing.assert_allclose(psnr[raised], instances.min_psnr_db[raised], atol=1e-9)


@settings(max_examples=15)
@given(
    users=st.integers(1, 8), bandwidth=st.floats(5.5, 8.0), power=st.floats(-4.0, 0.5), quality=st.floats(24.5, 29.3),
    ratios=st.sampled_from([(0.1, 0.3), (0.02, 1.0), (0.2, 0.2)]), weight=st.sampled_from([0.001, 0.3, 0.999]),
    clock=st.floats(7.5, 9.5), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_any_parameters(
    users: int, bandwidth: float, power: float, quality: float, ratios: tuple[float, float], weight: float,
    clock: float, seed: int,
) -> None:  # fmt: skip
    params = TRAINING.preset(
        "default", num_users=users, total_bandwidth_hz=10**bandwidth, max_power_w=10**power,
        psnr_range_db=(quality, quality + 0.5), min_ratio=ratios[0], max_ratio=ratios[1], time_weight=weight,
        device_frequency_range_hz=(10**clock, 2 * 10**clock),
    )  # fmt: skip
    instances = TRAINING.sample(params, np.random.default_rng(seed), 3)
    found = fast.solve(params, instances)
    simple = baselines.solve("training", params, instances, "equal_bandwidth")
    proven = baselines.bound("training", params, instances, nodes=5)
    assert found.feasible.all()
    assert (found.objective <= simple.objective * (1 + 1e-6)).all()
    assert (proven.value <= found.objective).all()


def test_unused_bandwidth() -> None:
    """Where power is scarce and PSNR tight, bandwidth beyond the ceiling of PSNR is of no use; the price is nil."""
    params, instances = batch("default", 6, num_users=2, max_power_w=1e-6, min_ratio=0.2, max_ratio=0.2)
    found = fast.solve(params, instances)
    assert found.feasible.all()
    left = found.allocation.bandwidth_hz.sum(-1) < 0.9 * params.total_bandwidth_hz
    assert left.any()
    np.testing.assert_allclose(found.allocation.power_w[left], params.max_power_w, rtol=1e-9)
    np.testing.assert_allclose(baselines.bound("training", params, instances).value, found.objective, rtol=1e-6)


def test_all_caps_at_once() -> None:
    """The device that is slowest with every cap met sets the makespan; nothing else can."""
    params, instances = batch("default", 4, num_users=3, time_weight=0.999, device_frequency_range_hz=(2e7, 2e7),
                              max_bs_frequency_hz=2e7, max_power_w=1.0)  # fmt: skip
    found = fast.solve(params, instances)
    np.testing.assert_allclose(baselines.bound("training", params, instances).value, found.objective, rtol=1e-5)
    slowest = (params.samples * (instances.device_cycles + instances.bs_cycles) / 2e7).max(-1)
    time_s = TRAINING.evaluate(params, instances, found.allocation).terms["time_s"].max(-1)
    assert (time_s > slowest).all()


def test_batch_equals_single_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    params, instances = batch("hard", 6)
    together = fast.solve(params, instances).objective
    np.testing.assert_allclose(together, [fast.solve(params, instances[i]).objective[0] for i in range(6)], rtol=1e-9)
    monkeypatch.setattr(fast, "CHUNK", 4 * params.num_users)
    np.testing.assert_allclose(together, fast.solve(params, instances).objective, rtol=1e-9)


def test_instances_may_lie_in_memory_as_they_like() -> None:
    params, instances = batch("hard", 6)
    plain = fast.solve(params, instances).objective
    np.testing.assert_allclose(fast.solve(params, instances.map(np.asfortranarray)).objective, plain, rtol=1e-12)
    pytest.importorskip("torch")
    turned = instances.to_torch().map(lambda x: x.T.contiguous().T)
    np.testing.assert_allclose(fast.solve(params, turned).objective.numpy(), plain, rtol=1e-9)


@pytest.mark.parametrize(("preset", "n"), [("default", 32), ("hard", 32), ("paper", 32), ("large", 3)])
def test_tensors(preset: str, n: int) -> None:
    """The same decisions as on NumPy, of instances with many devices and of those that cannot be satisfied too."""
    pytest.importorskip("torch")
    params, instances = batch(preset, n)
    instances.gain[1, 4] = 1e-22
    ours, found = (baselines.solve("training", params, x, "fast") for x in (instances, instances.to_torch()))
    np.testing.assert_allclose(found.objective.numpy(), ours.objective, rtol=1e-9)
    assert found.feasible.tolist() == ours.feasible.tolist() == [k != 1 for k in range(n)]
    assert found.status == ours.status
    assert found.status[1] == "infeasible: unfinished of device 4 exceeds its limit by 1"


def test_a_gpu_waits_as_often_for_many_instances_as_for_few() -> None:
    """Without undecided devices: every wait is for a number that the host asks for, 28 here."""
    torch = pytest.importorskip("torch")
    dispatch = pytest.importorskip("torch.utils._python_dispatch")

    class Count(dispatch.TorchDispatchMode):
        waits = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = str(function)
            masks = [x for x in args[1] if x is not None and x.dtype == torch.bool] if "aten.index" in name else []
            self.waits += "nonzero" in name or "local_scalar" in name or bool(masks)
            return function(*args, **(kwargs or {}))

    for n in (4, 100):
        params, instances = batch("paper", n)
        with Count() as count:
            fast.solve(params, instances.to_torch())
        assert 10 < count.waits <= 40


def test_impossible_instances_name_the_device() -> None:
    params, instances = batch("default", 3)
    gain = instances.gain.copy()
    gain[1, 4] = 1e-22
    broken = dataclasses.replace(instances, gain=gain)
    found = baselines.solve("training", params, broken, "fast")
    assert found.feasible.tolist() == [True, False, True]
    assert found.status[1] == "infeasible: unfinished of device 4 exceeds its limit by 1"
    proven = baselines.bound("training", params, broken)
    assert np.isposinf(proven.value[1])
    assert np.isnan(proven.gap[1])
    assert np.isfinite(proven.value[[0, 2]]).all()
    wanted = instances.min_psnr_db.copy()
    wanted[2, 3] = 60.0
    with pytest.raises(ValueError, match=r"min_psnr_db of device 3 \(instance 2\)"):
        baselines.solve("training", params, dataclasses.replace(instances, min_psnr_db=wanted), "fast")


def test_wrong_arguments_are_named() -> None:
    params, instances = batch("default", 1)
    with pytest.raises(ValueError, match=r"undecided must be >= 0, got -1"):
        baselines.solve("training", params, instances, "fast", undecided=-1)
    with pytest.raises(TypeError, match="swaps"):
        baselines.solve("training", params, instances, "fast", swaps=1)
    with pytest.raises(ValueError, match=r"unknown training method 'fsat'"):
        baselines.solve("training", params, instances, "fsat")


@pytest.mark.parametrize("length", [1e-5, 0.019, 0.021, 0.7, 4.0, 30.0])
def test_inverses(length: float) -> None:
    gain = length**2 / 2 + length**3 / 3 if length < 1e-4 else float(np.exp(length) * (length - 1) + 1)
    tolerance = 1e-7 if length < 1e-3 or length > 0.1 else 1e-6  # of this plain formula
    spare, slope = inverse.power_to_spare()(np.log(np.array([gain / np.sqrt(length)])))
    np.testing.assert_allclose(spare, length, rtol=tolerance)
    full, _ = inverse.full_power()(np.log(np.array([gain * np.expm1(length) ** 2 / (length**2 * np.exp(length))])))
    np.testing.assert_allclose(full, length, rtol=tolerance)
    near = inverse.power_to_spare()(np.log(np.array([gain / np.sqrt(length)])) + 1e-4)[0]
    np.testing.assert_allclose((near - spare) / 1e-4, slope, rtol=1e-3)


def test_newton_converges_on_many_problems() -> None:
    """Prices, makespan and times of all devices agree to rounding, from the same crude start, in odd regimes too."""
    rng = np.random.default_rng(0)
    for _ in range(25):
        params = TRAINING.preset(
            "default", num_users=int(rng.choice([1, 3, 10])), total_bandwidth_hz=10 ** rng.uniform(5, 8),
            max_power_w=10 ** rng.uniform(-4, 1), max_bs_frequency_hz=10 ** rng.uniform(7, 10),
            time_weight=float(rng.choice([0.001, 0.5, 0.999])), sample_bit=10 ** rng.uniform(3, 7),
        )  # fmt: skip
        devices = Devices(params, TRAINING.sample(params, rng, 8))
        mode = np.full(devices.knee.shape, equilibrium.HIGH)
        state = equilibrium.solve(devices, mode, equilibrium.start(devices))
        assert state.residual.max() < 1e-10
