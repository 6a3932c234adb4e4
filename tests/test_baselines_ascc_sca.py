"""The convex problem (P6.2) of MU-ASCC against the paper's own variables, and Algorithm 2 against scans."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from ascc_cells import cells
from ascc_plain import log10_q, logistic, tables

from semcom_gym.baselines.ascc import relaxed, sca, subgradient
from semcom_gym.envs.ascc import duality


def uplink(instance: Any, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SINRs (K,) and couplings (K, K) of one instance with MMSE receivers."""
    found = duality.uplink(duality.gram(instance), power[None])
    return found.sinr[0], duality.couplings(found)[0]


# --- the tail of the normal distribution -----------------------------------------------------------------------------
def test_log_q_is_concave_everywhere_with_the_slope_of_the_hazard() -> None:
    x = np.linspace(-8.0, 38.0, 200)
    step = 1e-3
    fall = [(log10_q(y - step) - log10_q(y + step)) / (2.0 * step) * math.log(10.0) for y in x]
    np.testing.assert_allclose(relaxed.hazard(x), fall, rtol=1e-5, atol=1e-9)
    wide = relaxed.hazard(np.linspace(-38.0, 38.0, 1000))
    assert np.all(np.diff(wide) > 0)  # Appendix B proves it for x >= 0 only
    assert relaxed.hazard(np.array([-1e6, 1e3])) == pytest.approx([0.0, 1e3], rel=1e-5)


# --- (P6.2) ----------------------------------------------------------------------------------------------------------
def iterates(preset: str, seed: int, n: int) -> Any:
    """Random iterates: params, codecs, couplings, powers; no user beyond its capacity."""
    params, instance = cells(n, preset)
    rng = np.random.default_rng(seed)
    for row in range(n):
        power = rng.dirichlet(np.full(params.num_users, 5.0)) * params.max_power_w * rng.uniform(0.7, 1.0)
        gamma, coupling = uplink(instance[row], power)
        users = relaxed.codecs(params, subgradient.descend(params, gamma * rng.uniform(0.9, 1.1)))
        if users.argument(gamma)[0].min() > 0:
            yield params, users, coupling, power


def solved(users: Any, coupling: np.ndarray, power: np.ndarray, budget: float) -> tuple[np.ndarray, float]:
    """The powers that solve (P6.2) and its objective."""
    program = sca.program(len(power))
    *_, step = next(program.solutions(sca.increments(users, coupling, power, budget)))
    return power + budget / len(power) * step, float(users.weight @ users.source + program.problem.value)


def upper_root(a: float, b: float, c: float, sign: float = 1.0) -> float:
    """The root of a x^2 + b x + c on one side; b is positive where a is zero."""
    return -c / b if a == 0 else (-b + sign * math.sqrt(max(b * b - 4 * a * c, 0.0))) / (2 * a)


def printed(users: Any, coupling: np.ndarray, at: np.ndarray, power: np.ndarray) -> float:
    """The objective (61) at powers q: (52)-(60) as in the paper, in its variables, its misprints mended.

    The best slack variables, user by user: the largest zeta (56), the least xi (57), the least g (60), the largest
    rho-hat (55) and the largest t (62). inf where there are none.
    """
    gamma = sca.sinr(coupling, at)
    found = 0.0
    for i in range(len(at)):
        others = [j for j in range(len(at)) if j != i]
        length, bits, slope = math.sqrt(users.blocklength), users.code_rate[i], users.slope[i]
        z0, own = gamma[i], coupling[i, i]
        g0 = math.sqrt(1.0 - (1.0 + z0) ** -2.0)
        r0 = length * (math.log(1.0 + z0) - bits * math.log(2.0)) / g0
        # (56): sum over j of ((z + q_j)^2 - l_2) c_ji / 4 + z - q_i c_ii <= 0, l_2 (59) of (z - q_j)^2
        a, b, c, b2, c2 = 0.0, 1.0, -power[i] * own, -1.0, power[i] * own
        for j in others:
            weight, difference, total = coupling[j, i] / 4.0, z0 - at[j], z0 + at[j]
            a += weight
            b += weight * (2.0 * power[j] - 2.0 * difference)
            c += weight * (power[j] ** 2 - difference**2 - 2.0 * difference * (at[j] - power[j] - z0))
            # (57): the same of (x - q_j)^2 - l_1, l_1 (58) of (x + q_j)^2
            b2 += weight * (-2.0 * power[j] - 2.0 * total)
            c2 += weight * (power[j] ** 2 - total**2 - 2.0 * total * (power[j] - at[j] - z0))
        if b * b < 4 * a * c or b2 * b2 < 4 * a * c2:
            return math.inf
        zeta = upper_root(a, b, c)
        xi = upper_root(a, b2, c2, -1.0)
        # (60)
        g = g0 + (1.0 + 2.0 / (1.0 + z0) ** 3 * (xi - z0) - (1.0 + z0) ** -2.0 - g0**2) / (2.0 * g0)
        if zeta < 0 or g > 1:
            return math.inf
        # (55): ((rho + g)^2 - l_2) / 4 <= sqrt(L) / log2 e (log2(1 + zeta) - R_c), l_2 not squared
        right = length * (math.log(1.0 + zeta) - bits * math.log(2.0))
        difference = r0 - g0
        rest = g * g - difference**2 - 2.0 * difference * (g0 - g - r0)
        rho = upper_root(0.25, 0.25 * (2.0 * g - 2.0 * difference), 0.25 * rest - right)
        # (62): t / t0 + log t0 - 1 + a_1 (log10(1 / (R_c L)) + log10 Q(r0) + slope (rho - r0)) <= 0
        step = 1e-4
        fall = (log10_q(r0 + step) - log10_q(r0 - step)) / (2.0 * step)
        log_t0 = -slope * (log10_q(r0) - math.log10(bits * users.blocklength))
        t = math.exp(log_t0) * (1.0 - slope * fall * (rho - r0))
        if t < 0:
            return math.inf
        constant = math.exp(slope * users.midpoint[i])
        found += users.weight[i] * (users.source[i] + users.channel[i] / (1.0 + constant * t))
    return found


def test_the_convex_problem_is_compiled_once() -> None:
    assert sca.program(3) is sca.program(3)
    assert sca.program(3).problem.is_dcp(dpp=True)  # else every solve compiles it again


@pytest.mark.parametrize("preset", ["two_user", "three_user"])
def test_the_convex_problem_is_the_papers_with_its_misprints_mended(preset: str) -> None:
    rng, tried, better = np.random.default_rng(2), 0, 0
    for params, users, coupling, power in iterates(preset, 0, 12):
        budget = params.max_power_w
        best, objective = solved(users, coupling, power, budget)
        now = users.objective(sca.sinr(coupling, power))
        assert printed(users, coupling, power, power) == pytest.approx(now, rel=1e-9)  # tight at the iterate
        assert printed(users, coupling, power, best) == pytest.approx(objective, rel=1e-5)
        assert best.min() >= -1e-7
        assert best.sum() <= budget * (1 + 1e-7)
        assert users.objective(sca.sinr(coupling, best)) <= objective * (1 + 1e-6)  # Lemma 4.1: an upper bound
        better += objective < now * (1 - 1e-4)
        for spread in np.geomspace(1e-3, 0.3, 40):
            other = np.maximum(best + spread * rng.normal(size=len(best)) * best, 0.0)
            other *= min(1.0, budget / other.sum())
            value = printed(users, coupling, power, other)
            tried += math.isfinite(value)
            assert value >= objective * (1 - 1e-6)
    assert tried > 100
    assert better > 3


def test_the_bounds_of_51() -> None:
    for params, users, coupling, power in iterates("three_user", 1, 4):
        given = sca.increments(users, coupling, power, params.max_power_w)
        gamma = sca.sinr(coupling, power)
        g = np.sqrt(1.0 - (1.0 + gamma) ** -2.0)
        unit = given["root_high"] / (g * (1.0 + gamma) ** 2)  # of g
        largest = params.max_power_w * coupling.diagonal()  # gamma-bar
        np.testing.assert_allclose(power + params.max_power_w / 3 * given["min_power"], 0.0, atol=1e-12)
        np.testing.assert_allclose(gamma + (1.0 + gamma) * given["min_low"], 0.0, atol=1e-12)
        np.testing.assert_allclose(gamma + (1.0 + gamma) * given["max_low"], largest, rtol=1e-12)
        np.testing.assert_allclose(g + unit * given["max_root"], 1.0, rtol=1e-12)


def test_the_constant_below_51_is_an_exponential_of_a_product() -> None:
    for row in tables(cells(1)[0])[0][::5]:
        slope, midpoint, bit_error = row[3], row[4], -5.0
        assert math.exp(slope) * midpoint < 0  # as printed: "a positive constant"
        t = math.exp(-slope * bit_error)
        mended = row[1] + row[2] / (1.0 + math.exp(slope * midpoint) * t)
        assert mended == pytest.approx(logistic(row, bit_error), rel=1e-12)


def test_beyond_capacity_the_convex_problem_may_promise_too_much() -> None:
    params, instance = cells(30, "two_user")
    excess = []
    for row in range(30):
        power = np.array([1.0, 2.0])
        gamma, coupling = uplink(instance[row], power)
        over = np.log2(1.0 + gamma) * params.channel_uses * np.array([1.05, 0.7])  # R_c = 1.05 C and 0.7 C
        users = relaxed.codecs(params, subgradient.to_index(params, over))
        best, objective = solved(users, coupling, power, params.max_power_w)
        excess.append(users.objective(sca.sinr(coupling, best)) - objective)
    assert max(excess) > 1e-5  # g rises and relaxes (47), though (48) asks only for a lower bound of it


# --- Algorithm 2 -----------------------------------------------------------------------------------------------------
def climb(users: Any, coupling: np.ndarray, power: np.ndarray, budget: float, **options: Any) -> tuple[Any, sca.Effort]:
    effort = sca.Effort()
    settings = {"tolerance": 1e-6, "most": 60} | options
    return sca.optimise(users, coupling, power, budget, effort=effort, **settings), effort


def test_algorithm_2_reaches_the_best_split_of_two_users() -> None:
    params, instance = cells(12, "two_user")
    share = np.linspace(0.0, 1.0, 4001)
    gains = []
    for row in range(len(instance)):
        gamma, coupling = uplink(instance[row], np.array([1.5, 1.5]))
        users = relaxed.codecs(params, subgradient.descend(params, gamma))
        found, effort = climb(users, coupling, np.array([1.5, 1.5]), 3.0)
        splits = 3.0 * np.stack([share, 1.0 - share], -1)
        best = min(users.objective(sca.sinr(coupling, q)) for q in splits)
        start = users.objective(sca.sinr(coupling, np.array([1.5, 1.5])))
        assert users.objective(sca.sinr(coupling, found)) == pytest.approx(best, rel=1e-4)
        gains.append(1.0 - best / start)
        assert found.min() >= 0
        assert found.sum() <= 3.0 * (1 + 1e-12)
        assert (effort.problems > 1, effort.failures) == (True, 0)
    assert max(gains) > 1e-3


def test_algorithm_2_cannot_lift_a_user_out_of_an_outage() -> None:
    params, instance = cells(6, "two_user")
    share = np.linspace(0.0, 1.0, 501)
    stuck = 0
    for row in range(6):
        even, skewed = np.array([1.5, 1.5]), np.array([0.3, 2.7])
        users = relaxed.codecs(params, subgradient.descend(params, uplink(instance[row], even)[0]))
        gamma, coupling = uplink(instance[row], skewed)
        if users.argument(gamma)[0][0] > -4:
            continue
        best = min(users.objective(sca.sinr(coupling, 3.0 * np.array([x, 1.0 - x]))) for x in share)
        found, _ = climb(users, coupling, skewed, 3.0)
        assert best < 0.95 * users.objective(gamma)
        assert users.objective(sca.sinr(coupling, found)) > 0.99 * users.objective(gamma)
        stuck += 1
    assert stuck > 1


def test_nothing_is_solved_where_channel_errors_cost_nothing() -> None:
    params, instance = cells(1)
    _, coupling = uplink(instance, np.full(4, 1.5))
    power, effort = climb(relaxed.codecs(params, np.zeros(4)), coupling, np.full(4, 100.0), 400.0)
    np.testing.assert_array_equal(power, 100.0)
    assert effort.problems == 0


@pytest.mark.parametrize("accurate", [True, False])
def test_an_answer_that_raises_the_objective_is_refused(monkeypatch: pytest.MonkeyPatch, accurate: bool) -> None:
    params, instance = cells(1, "two_user")
    power = np.array([1.5, 1.5])
    gamma, coupling = uplink(instance, power)
    users = relaxed.codecs(params, subgradient.descend(params, gamma))
    monkeypatch.setattr(sca.Program, "solutions", lambda *_: iter([(0, accurate, np.array([-0.9, 0.9]))]))
    found, effort = climb(users, coupling, power, 3.0)
    np.testing.assert_array_equal(found, power)
    assert effort == sca.Effort(problems=1, failures=int(not accurate))
