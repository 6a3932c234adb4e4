"""P3, P4 and P7 of the training paper: KKT, brute force, a conic solver, and the printed equations by differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.optimize
from training_starts import batch, energy, p4_of, started

from semcom_gym.baselines.training import p3, p4, sumratio
from semcom_gym.envs.training import physics

LN2 = np.log(2.0)


# --- P3 --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["paper", "default", "hard"])
def test_p3_meets_its_kkt_conditions(preset: str) -> None:
    params, instance, now = started(preset, 12)
    time = physics.evaluate(params, instance, now).terms["time_s"]
    makespan = time.max(-1)
    np.testing.assert_allclose(time, np.broadcast_to(makespan[:, None], time.shape), rtol=1e-9)  # (30)
    kappa = 2.0 * params.energy_weight * params.capacitance
    f, h, cap = now.device_frequency_hz, now.bs_frequency_hz, instance.max_frequency_hz
    assert np.all(f <= cap * (1 + 1e-12))
    assert np.all(h <= params.max_bs_frequency_hz * (1 + 1e-12))
    free = np.maximum(f, h)  # no base station is at its cap here, so beta follows from h
    assert h.max() < 0.9 * params.max_bs_frequency_hz
    beta = kappa * free**3
    np.testing.assert_allclose(kappa * h**3, beta, rtol=1e-9)  # (23b) with tau = 0
    alpha = beta * instance.device_cycles * params.samples / f**2 - kappa * instance.device_cycles * params.samples * f
    assert np.all(alpha >= -1e-9 * beta)  # (23a), (25a)
    assert np.abs(alpha * (f - cap)).max() <= 1e-6 * (beta * cap).max()  # (24a)
    np.testing.assert_allclose(beta.sum(-1), params.time_weight, rtol=1e-6)  # (23c)


def test_p3_where_both_caps_bind_and_30_has_no_solution() -> None:
    """One device at both caps sets the makespan; the objective is the least over a grid of makespans."""
    params, instance = batch("default", 20, num_users=3, max_bs_frequency_hz=0.2e9, time_weight=0.99)
    upload_s = np.random.default_rng(0).uniform(0.1, 3.0, instance.gain.shape)
    found = p3.solve(params, instance, upload_s)
    c1, c2 = params.samples * instance.device_cycles, params.samples * instance.bs_cycles
    least = (upload_s + c1 / instance.max_frequency_hz + c2 / params.max_bs_frequency_hz).max(-1)
    np.testing.assert_allclose(found.makespan_s, least, rtol=1e-12)
    kappa = 2.0 * params.energy_weight * params.capacitance
    at_caps = kappa * np.maximum(instance.max_frequency_hz, params.max_bs_frequency_hz) ** 3
    assert np.all(at_caps.sum(-1) < params.time_weight)  # so no beta_n(T) of (30) adds up to omega_1
    spent = params.capacitance * (c1 * found.device_hz**2 + c2 * found.bs_hz**2)
    # every device by itself: least energy in the time left, over a fine grid of f
    grid = np.linspace(0.02, 1.0, 4001)[:, None, None] * instance.max_frequency_hz
    left = least[:, None] - upload_s - c1 / grid
    other = c2 / np.where(left > 0, left, np.nan)
    other = np.where(other <= params.max_bs_frequency_hz * (1 + 1e-9), other, np.nan)
    best = np.nanmin(params.capacitance * (c1 * grid**2 + c2 * other**2), axis=0)
    assert np.all(spent <= best * (1 + 1e-9))
    np.testing.assert_allclose(spent, best, rtol=1e-3)


def test_p3_takes_the_least_ratio_that_psnr_allows() -> None:
    params, instance, now = started("hard", 20)
    wanted = np.array([
        scipy.optimize.brentq(lambda x, s=s, p=p: 18.67 * np.log(1.52 * x + 0.3 * np.log10(s) + 3.69) - p, -1.0, 1.0)
        for s, p in zip(physics.snr(params, instance.gain, now.power_w, now.bandwidth_hz).ravel(),
                        instance.min_psnr_db.ravel(), strict=True)
    ]).reshape(now.ratio.shape)  # fmt: skip
    np.testing.assert_allclose(now.ratio, np.maximum(wanted, params.min_ratio), rtol=1e-9)
    assert np.any(wanted > params.min_ratio)


# --- P4 --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("preset", ["paper", "default", "hard"])
def test_algorithm_2_and_the_direct_form_agree(preset: str, seed: int | None) -> None:
    params, instance, now = started(preset, 16, seed)
    task = p4_of(params, instance, now)
    power, bandwidth = p4.direct(task)
    newton = sumratio.refine(task, now.power_w, now.bandwidth_hz, iterations=100, xi=0.5, epsilon=0.01)
    assert newton.converged.all()
    spent = energy(task, power, bandwidth).sum(-1)
    np.testing.assert_allclose(energy(task, newton.power_w, newton.bandwidth_hz).sum(-1), spent, rtol=1e-9)
    assert np.all(spent <= energy(task, now.power_w, now.bandwidth_hz).sum(-1) * (1 + 1e-12))
    for p, b in ((power, bandwidth), (newton.power_w, newton.bandwidth_hz)):
        snr = p / (task.noise * b)
        np.testing.assert_allclose(b * np.log1p(snr), task.load / task.seconds, rtol=1e-9)  # tight
        assert np.all(b.sum(-1) <= params.total_bandwidth_hz * (1 + 1e-12))
        assert np.all(p <= params.max_power_w)
        assert np.all(physics.psnr_db(params, now.ratio, snr) >= instance.min_psnr_db * (1 - 1e-12))


@pytest.mark.parametrize("psnr", [25.0, 28.0])
def test_p4_of_two_devices_against_a_grid_of_bandwidths(psnr: float) -> None:
    """No use of tight rates: any split, any unused bandwidth, least power for rate and PSNR."""
    params, instance, now = started("default", 12, 0, num_users=2, psnr_range_db=(psnr, psnr), max_power_w=0.02)
    task = p4_of(params, instance, now)
    power, bandwidth = p4.direct(task)
    spent = energy(task, power, bandwidth).sum(-1)
    share = np.linspace(0.02, 1.0, 600)[:, None, None] * params.total_bandwidth_hz
    snr = np.maximum(np.exp(task.rate / share) - 1.0, physics.needed_snr(params, instance.min_psnr_db, now.ratio))
    needed = task.noise * share * snr
    cost = np.where(needed <= params.max_power_w, energy(task, needed, share), np.inf)  # (600, n, 2)
    pairs = cost[:, None, :, 0] + cost[None, :, :, 1]
    fits = share[:, None, 0, 0] + share[None, :, 0, 0] <= params.total_bandwidth_hz * (1 + 1e-9)
    best = np.where(fits[..., None], pairs, np.inf).min((0, 1))
    assert np.all(spent <= best * (1 + 1e-9))
    np.testing.assert_allclose(spent, best, rtol=2e-2)  # the step of the grid


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("users", [1, 2, 4])
def test_p7_against_a_convex_solver_at_any_delta_and_gamma(users: int) -> None:
    """Both sides of the homogeneous problem: devices at the rate, at the power cap, and mixtures."""
    cp = pytest.importorskip("cvxpy")
    params, instance, now = started("default", 5, 3, num_users=users)
    task = p4_of(params, instance, now)
    rng = np.random.default_rng(0)
    at_start = energy(task, now.power_w, now.bandwidth_hz)
    wide = 0  # devices that take more than their rate
    for row in range(len(instance)):
        for spread in (0.0, 2.0, 5.0):
            delta = at_start[row] * np.exp(spread * rng.normal(size=users))
            gamma = task.seconds[row] / task.load[row] * np.exp(0.3 * rng.normal(size=users))
            part = task[row]
            p, b = (x[0] for x in sumratio.solve(part, delta[None], gamma[None]))
            rate = b * np.log(1.0 + p / (part.noise[0] * b))
            value = float(np.sum(gamma * (p * part.load[0] - delta * rate)))
            scale = float(np.sum(gamma * delta * rate))
            assert np.all(rate >= part.rate[0] * (1 - 1e-9))
            assert np.all(p <= params.max_power_w)
            assert b.sum() <= params.total_bandwidth_hz * (1 + 1e-9)
            wide += int(np.sum(rate > part.rate[0] * (1 + 1e-6)))
            x, y = cp.Variable(users), cp.Variable(users)  # bandwidth over total, power over cap
            reach = params.max_power_w / (part.noise[0] * params.total_bandwidth_hz)
            nats = -cp.rel_entr(x, x + cp.multiply(reach, y))
            unit = params.total_bandwidth_hz
            limits = [cp.sum(x) <= 1, y <= 1, nats * unit >= part.rate[0]]
            limits += [cp.multiply(reach, y) >= cp.multiply(np.expm1(part.low[0]), x)]
            cost = gamma * part.load[0] * params.max_power_w / scale @ y - (gamma * delta * unit / scale) @ nats
            problem = cp.Problem(cp.Minimize(cost), limits)
            problem.solve(solver=cp.CLARABEL)
            assert problem.status in ("optimal", "optimal_inaccurate")
            assert value / scale == pytest.approx(problem.value, rel=1e-5, abs=1e-5)
    assert wide > 0


@pytest.mark.parametrize("nats", [1e-6, 1e-3, 0.1, 1.0, 10.0, 100.0])
def test_closed_forms_invert_their_equations(nats: float) -> None:
    u = np.array([nats])
    assert p4.worth(p4.cost(u))[0] == pytest.approx(nats, rel=1e-7)
    assert p4.fastest(u / np.expm1(u))[0] == pytest.approx(nats, rel=1e-6 if nats > 1e-3 else 1e-3)
    capped = u + np.expm1(-u)
    assert sumratio._capped(capped)[0] == pytest.approx(nats, rel=1e-7 if nats > 1e-4 else 1e-3)


# --- what is printed, by differences ---------------------------------------------------------------------------------
@dataclasses.dataclass
class Printed:
    """One device of (43) in the paper's units, with any multipliers."""

    gamma: float = 3e-7
    delta: float = 0.05
    eta: float = 2e-8
    nu: float = 4e4
    iota: float = 7.0
    zeta: float = 3e-8
    rho: float = 0.2
    d: float = 1e6
    samples: float = 32.0
    gain: float = 1e-10
    noise: float = 4e-21
    low: float = 3.0

    def rate(self, p: float, b: float) -> float:
        return b * np.log2(1.0 + p * self.gain / (self.noise * b))

    def lagrangian(self, p: float, b: float) -> float:
        return (
            self.gamma * (p * self.rho * self.d * self.samples - self.delta * self.rate(p, b))
            + self.zeta * b
            - self.eta * self.rate(p, b)
            + self.nu * (self.noise * b * self.low - p * self.gain)
            + self.iota * p
        )

    def slope(self, p: float, b: float) -> tuple[float, float]:
        step = 1e-6
        by_p = self.lagrangian(p * (1 + step), b) - self.lagrangian(p * (1 - step), b)
        by_b = self.lagrangian(p, b * (1 + step)) - self.lagrangian(p, b * (1 - step))
        return by_p / (2 * step * p), by_b / (2 * step * b)


P, B = 0.02, 5e5


def test_stationarity_44_is_right_as_printed() -> None:
    x = Printed()
    s = P * x.gain / (x.noise * B)
    price = x.gamma * x.delta + x.eta
    by_p = x.gamma * x.rho * x.d * x.samples - price * x.gain / (x.noise * (1 + s) * LN2) - x.nu * x.gain + x.iota
    by_b = -price * np.log2(1 + s) + price * s / ((1 + s) * LN2) + x.zeta + x.nu * x.noise * x.low
    assert by_p == pytest.approx(x.slope(P, B)[0], rel=1e-6)
    assert by_b == pytest.approx(x.slope(P, B)[1], rel=1e-6)


def test_power_47_and_snr_49_are_right_as_printed() -> None:
    x = Printed(iota=0.0)
    price = x.gamma * x.delta + x.eta
    power = price * B / ((x.gamma * x.rho * x.d * x.samples - x.nu * x.gain) * LN2) - x.noise * B / x.gain
    assert x.slope(power, B)[0] == pytest.approx(0.0, abs=1e-6 * x.gamma * x.rho * x.d * x.samples)
    x = Printed(iota=0.0, nu=0.0)
    snr = price * x.gain / (x.gamma * x.rho * x.d * x.samples * x.noise * LN2) - 1.0
    assert x.slope(snr * x.noise * B / x.gain, B)[0] == pytest.approx(0.0, abs=1e-6)


def test_the_multiplier_51_is_not_right_as_printed() -> None:
    """At S = S_min with iota = 0, (44a) is stationary for the corrected nu alone."""
    x = Printed(iota=0.0, low=P * 1e-10 / (4e-21 * B))
    price = x.gamma * x.delta + x.eta
    scale = x.gamma * x.rho * x.d * x.samples
    x.nu = x.gamma * x.rho * x.d * x.samples / x.gain - price / ((1 + x.low) * x.noise * LN2)
    assert x.slope(P, B)[0] == pytest.approx(0.0, abs=1e-6 * scale)
    x.nu = x.gamma * x.rho * x.d / x.gain - price * x.gain / ((1 + x.low) * x.noise * LN2)
    assert abs(x.slope(P, B)[0]) > 0.1 * scale
    x.nu = x.gamma * x.rho * x.d / x.gain - price / ((1 + x.low) * x.noise * LN2)  # without D_n alone
    assert abs(x.slope(P, B)[0]) > 0.1 * scale
    x.nu = x.gamma * x.rho * x.d * x.samples / x.gain - price * x.gain / ((1 + x.low) * x.noise * LN2)
    assert abs(x.slope(P, B)[0]) > 0.1 * scale


def test_the_hessian_of_lemma_1_has_b_squared_in_both_mixed_entries() -> None:
    x, step = Printed(), 1e-4
    by = [[x.rate(P * (1 + i * step), B * (1 + j * step)) for j in (-1, 1)] for i in (-1, 1)]
    mixed = (by[1][1] - by[1][0] - by[0][1] + by[0][0]) / (4 * step**2 * P * B)
    s = P * x.gain / (x.noise * B)
    right = P * x.gain**2 / (B**2 * x.noise**2 * (1 + s) ** 2 * LN2)
    assert mixed == pytest.approx(right, rel=1e-4)
    assert right / B != pytest.approx(mixed, rel=0.5)  # printed in the first row


def test_the_least_rate_before_33_is_upside_down() -> None:
    params, instance, now = started("paper", 4)
    terms = physics.evaluate(params, instance, now).terms
    left = terms["time_s"].max(-1, keepdims=True) - (terms["time_s"] - terms["upload_time_s"])
    np.testing.assert_allclose(terms["rate_bit_s"], now.ratio * params.sample_bit * params.samples / left, rtol=1e-9)
    assert np.all(left / (now.ratio * params.sample_bit) < 1e-3 * terms["rate_bit_s"])


def test_with_33a_as_printed_p4_lowers_every_snr_to_its_floor_and_the_sum_rises() -> None:
    params, instance, now = started("paper", 8)
    terms = physics.evaluate(params, instance, now).terms
    left = terms["time_s"].max(-1, keepdims=True) - (terms["time_s"] - terms["upload_time_s"])
    floor = physics.needed_snr(params, instance.min_psnr_db, now.ratio)
    seconds = now.ratio * params.round_bit / (left / (now.ratio * params.sample_bit))  # at the printed r_min
    task = p4.upload(params, instance, now.ratio, seconds, floor)
    power, bandwidth = p4.direct(task)
    np.testing.assert_allclose(power / (task.noise * bandwidth), floor, rtol=1e-6)
    equal = np.full_like(power, params.total_bandwidth_hz / params.num_users)  # any split costs the same
    after = p3.allocate(params, instance, power * equal / bandwidth, equal)
    moved = physics.evaluate(params, instance, after)
    assert np.all(moved.violation["psnr"] < 1e-6)
    assert np.all(moved.objective > 1.5 * physics.evaluate(params, instance, now).objective)


def test_p7_is_homogeneous_so_54_fixes_no_bandwidth() -> None:
    """With eta = nu = iota = 0, both slopes at the SNR (49) are the same at every bandwidth."""
    x = Printed(eta=0.0, nu=0.0, iota=0.0)
    snr = x.delta * x.gain / (x.rho * x.d * x.samples * x.noise * LN2) - 1.0
    slopes = [x.slope(snr * x.noise * b / x.gain, b) for b in (1e5, 1e6, 1e7)]
    np.testing.assert_allclose([by_b for _, by_b in slopes], slopes[0][1], rtol=1e-6)
    np.testing.assert_allclose([by_p for by_p, _ in slopes], 0.0, atol=1e-6)
