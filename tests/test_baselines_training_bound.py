"""The certificate of the training problem: each claim of its proof by grids, and decisions that try to beat it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import baselines, envs
from semcom_gym.baselines.training import dual, equilibrium
from semcom_gym.baselines.training.device import Devices
from semcom_gym.baselines.training.equilibrium import HIGH, LOW, OPEN

TRAINING = envs.problem("training")
LN2 = np.log(2.0)


def batch(preset: str, n: int, **overrides: Any) -> tuple[Any, Any]:
    params = TRAINING.preset(preset, **overrides)
    return params, TRAINING.sample_split(params, "validation", n)


def prices(params: Any, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """ln lam (n, 1) and ln beta (n, N), some far from any optimum."""
    log_lam = np.log(params.time_weight / params.total_bandwidth_hz) + rng.uniform(-6, 3, (n, 1))
    beta = rng.dirichlet(np.full(params.num_users, 0.5), n) + 1e-9
    return log_lam, np.log(params.time_weight * beta / beta.sum(-1, keepdims=True))


def plain_value(params: Any, instance: Any, s: np.ndarray, log_lam: np.ndarray, log_beta: np.ndarray) -> np.ndarray:
    """omega_2 E^up + lam B + beta t at ln S = s, the least over a grid of upload times, written out."""
    scale, by_ratio, by_snr, offset = params.psnr_parameters
    noise = 10 ** (params.noise_psd_dbm_hz / 10) * 1e-3
    ratio = (np.exp(instance.min_psnr_db / scale) - offset - by_snr * 10 * s / np.log(10)) / by_ratio
    bits = np.maximum(ratio, params.min_ratio) * params.samples * params.sample_bit
    shape = np.geomspace(1e-4, 1e4, 4001).reshape(-1, *[1] * s.ndim)
    product = bits / np.log2(1 + np.exp(s))  # B t
    quickest = np.exp(s) * product * noise / instance.gain / params.max_power_w
    t = quickest * np.maximum(shape, 1.0)
    energy = np.exp(s) * noise / instance.gain * product
    return np.min(params.energy_weight * energy + np.exp(log_lam) * product / t + np.exp(log_beta) * t, axis=0)


def test_value_and_its_derivative() -> None:
    params, instances = batch("hard", 4)
    rng = np.random.default_rng(0)
    devices, (log_lam, log_beta) = Devices(params, instances), prices(params, 4, rng)
    for _ in range(10):
        s = devices.left + rng.uniform(0, 1, devices.left.shape) * (devices.knee + 3 - devices.left)
        value = devices.value(s, log_lam, log_beta)
        np.testing.assert_allclose(value, plain_value(params, instances, s, log_lam, log_beta), rtol=2e-4)
        h = 1e-6
        off = np.abs(s - devices.knee) > 1e-4
        ends = [devices.value(s + sign * h, log_lam, log_beta) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * h)
        np.testing.assert_allclose(devices.force(s, log_lam, log_beta)[off], slope[off], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("overrides", [{}, {"min_ratio": 0.02, "max_ratio": 1.0}, {"psnr_range_db": (25.0, 29.3)}])
def test_what_the_proof_says_of_g(overrides: dict[str, Any]) -> None:
    """The knee beats what is below it down to the peak; no minimum from crest to knee; G'' <= M."""
    params, instances = batch("hard", 3, **overrides)
    devices, rng = Devices(params, instances), np.random.default_rng(1)
    share = np.linspace(0.0, 1.0, 400)[:, None, None]
    s = devices.peak + (devices.knee - devices.peak) * share
    product = devices.ratio(s) / np.log1p(np.exp(s))
    assert (np.diff(product, axis=0) <= 1e-15).all()
    assert (np.diff(np.exp(s) * product, axis=0) <= 1e-9).all()
    assert devices.has_low.any()
    for _ in range(10):
        log_lam, log_beta = prices(params, 3, rng)
        s = devices.crest + (devices.knee - devices.crest) * share
        value = devices.value(s, log_lam, log_beta)
        assert (value >= np.minimum(value[0], value[-1]) * (1 - 1e-12)).all()
        for first, last in ((devices.left, devices.knee), (devices.knee, devices.knee + 8)):
            s = first + (last - first) * share
            step = s[1:] - s[:-1]
            g = devices.value(s, log_lam, log_beta)
            second = (g[2:] - 2 * g[1:-1] + g[:-2]) / np.maximum(step[1:], 1e-9) ** 2
            most = dual._bend(devices, s[:-2], s[2:], log_lam, log_beta)
            assert (second <= most * (1 + 1e-6) + 1e-7).all()
        rises = np.diff(g, axis=0) > 0  # of the high mode
        assert not (rises[:-1] & ~rises[1:]).any()


@pytest.mark.parametrize("mode", [HIGH, LOW, OPEN])
def test_bound_of_the_devices_against_a_grid(mode: int) -> None:
    """At any prices, the bound is below every point of a grid of S, and close to the least."""
    params, instances = batch("hard", 3)
    devices, rng = Devices(params, instances), np.random.default_rng(2)
    share = np.linspace(0.0, 1.0, 3000)[:, None, None]
    low = devices.left + (devices.crest - devices.left) * share
    high = devices.knee + 12 * share**2
    s = {HIGH: high, LOW: low, OPEN: np.concatenate([low, high])}[mode]
    f = np.geomspace(1e-3, 1.0, 4000)[:, None, None]
    for _ in range(5):
        log_lam, log_beta = prices(params, 3, rng)
        beta = np.exp(log_beta)
        total = devices.value(s, log_lam, log_beta).min(0)
        kappa = params.energy_weight * params.capacitance
        for cycles, cap in ((instances.device_cycles, instances.max_frequency_hz),
                            (instances.bs_cycles, params.max_bs_frequency_hz)):  # fmt: skip
            total = total + (params.samples * cycles * (beta / (f * cap) + kappa * (f * cap) ** 2)).min(0)
        rent = np.exp(log_lam[:, 0]) * params.total_bandwidth_hz
        grid = total.sum(-1) - rent
        proven, _ = dual.bound(devices, np.full(devices.knee.shape, mode), log_lam, log_beta)
        assert (proven <= grid).all()
        assert (grid - proven <= 3e-4 * (total.sum(-1) + rent)).all()


@pytest.mark.parametrize(("preset", "n", "gap"), [("default", 30, 1e-6), ("hard", 20, 1e-6), ("paper", 5, 1e-9)])
def test_certified_gap(preset: str, n: int, gap: float) -> None:
    params, instances = batch(preset, n)
    proof = baselines.bound("training", params, instances)
    assert (proof.gap >= 0).all()
    assert (proof.gap <= gap).all()
    np.testing.assert_allclose(proof.best.objective - proof.value, proof.gap * proof.value, atol=1e-15)


def test_fewer_nodes_give_a_looser_bound() -> None:
    params, instances = batch("hard", 30)
    tight = baselines.bound("training", params, instances).value
    loose = baselines.bound("training", params, instances, nodes=1)
    assert (loose.value <= tight * (1 + 1e-6)).all()
    assert (loose.value < tight * (1 - 1e-5)).any()
    assert (loose.gap >= 0).all()
    assert loose.gap.mean() < 0.01


@settings(max_examples=12)
@given(
    users=st.integers(1, 6), bandwidth=st.floats(5.5, 7.5), power=st.floats(-4.0, 0.0), quality=st.floats(25.5, 29.3),
    ratios=st.sampled_from([(0.1, 0.3), (0.02, 1.0), (0.2, 0.2)]), weight=st.sampled_from([0.05, 0.5, 0.95]),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_bound_holds_for_random_decisions(
    users: int, bandwidth: float, power: float, quality: float, ratios: tuple[float, float], weight: float, seed: int
) -> None:
    params = TRAINING.preset(
        "default", num_users=users, total_bandwidth_hz=10**bandwidth, max_power_w=10**power,
        psnr_range_db=(quality, quality + 0.5), min_ratio=ratios[0], max_ratio=ratios[1], time_weight=weight,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    instance = TRAINING.sample(params, rng, 1)
    proven = baselines.bound("training", params, instance, nodes=10).value[0]
    many = instance.map(lambda x: np.repeat(x, 3000, axis=0))
    actions = rng.uniform(-1, 1, (3000, TRAINING.action_layout(params).size))
    actions[:1500, -users:] = -1.0  # ratios at their floors
    outcome = TRAINING.evaluate(params, many, TRAINING.decode(params, many, actions))
    assert outcome.feasible.all()
    assert outcome.objective.min() >= proven


@pytest.mark.parametrize("preset", ["default", "hard"])
def test_bound_is_never_beaten_by_1e5_points(preset: str) -> None:
    """100,000 random decisions around the optimum, of the same instances."""
    params, instances = batch(preset, 10)
    proof = baselines.bound("training", params, instances)
    centre = TRAINING.encode(params, instances, proof.best.allocation)
    rng = np.random.default_rng(0)
    for scale in (1e-4, 0.003, 0.03, 0.1, 0.5):
        many = instances.map(lambda x: np.repeat(x, 2000, axis=0))
        decided = TRAINING.decode(params, many, np.repeat(centre, 2000, axis=0) + rng.normal(0, scale, (20000, 50)))
        outcome = TRAINING.evaluate_unchecked(params, many, decided)
        reached = np.where(outcome.feasible, outcome.objective, np.inf).reshape(10, 2000).min(-1)
        assert (reached >= proof.value).all()


def test_nodes_cover_their_parent() -> None:
    """The range of SNR of a node is that of its two children, but for what its knee beats."""
    from semcom_gym.baselines.training import bound, fast

    params, instances = batch("hard", 20)
    search = bound._Search(params, instances, fast.solve(params, instances), 1e-6)
    seen = 0
    nodes = search._roots()
    for _ in range(3):
        done, children = search._split(nodes)
        assert len(done) + len(children[0]) == len(nodes)
        first, second = children
        parents = nodes[np.searchsorted(nodes.owner, first.owner)] if seen == 0 else None
        if parents is not None:
            changed = (first.right != parents.right) | first.anchored
            assert (changed.sum(-1) == 1).all()
            at = changed.argmax(-1)
            rows = np.arange(len(first))
            peak = search.devices.take(first.owner).peak[rows, at]
            cut = first.right[rows, at]
            high = second.mode[rows, at] == HIGH
            assert high.any()
            np.testing.assert_array_equal(cut[high], peak[high])
            np.testing.assert_array_equal(second.left[rows, at][~high], cut[~high])
            assert (first.left == parents.left).all()
        assert (first.lower == second.lower).all()
        seen += len(first)
        nodes = first
    assert seen > 5


def test_equilibrium_prices_are_the_multipliers() -> None:
    """Where PSNR is slack, the dual at the equilibrium's prices is the optimum to rounding."""
    params, instances = batch("paper", 4)
    devices = Devices(params, instances)
    mode = np.full(devices.knee.shape, HIGH)
    state = equilibrium.solve(devices, mode, equilibrium.start(devices))
    value, _ = dual.bound(devices, mode, state.log_lam, state.log_beta)
    objective = TRAINING.evaluate(params, instances, equilibrium.decide(devices, mode, state)).objective
    np.testing.assert_allclose(value, objective, rtol=1e-10)
    off, _ = dual.bound(devices, mode, state.log_lam + 0.1, state.log_beta)
    assert (off < value).all()


def test_arguments_are_checked() -> None:
    params, instances = batch("default", 1)
    with pytest.raises(ValueError, match=r"nodes must be >= 1, got 0"):
        baselines.bound("training", params, instances, nodes=0)
    with pytest.raises(ValueError, match="tolerance"):
        baselines.bound("training", params, instances, tolerance=2.0)
    silent = dataclasses.replace(instances, gain=np.zeros_like(instances.gain))
    with pytest.raises(ValueError, match=r"instance.gain must be positive everywhere"):
        baselines.bound("training", params, silent)
