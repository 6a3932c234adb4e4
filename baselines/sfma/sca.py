"""Algorithm 2 of the SC-SFMA paper: power and bandwidth by successive convex approximation in a trust region (29)-(36).

Needs cvxpy (extra ``solvers``). Where problem (35) departs from the printed one:

* It lists no power budget; (20d) is added.
* (29c) puts the residual time T-bar (27) in place of the delay t. That is so loose that the starting point breaks it
  where energy is scarce, and (35) has no solution; ``energy="printed"`` keeps it. ``energy="corrected"`` bounds p t by
  (p^2 t' / p' + t^2 p' / t') / 2 around an iterate p', t', with t no less than Q delta over the rates (34): convex,
  and right to first order. Freezing t at t' would not be: where energy binds, every step that takes bandwidth from a
  group then breaks (16), however small the trust region.
* (34) need not lie below the true rate, as q-hat is no bound on q, so a group at its rate floor breaks it by the
  square of the step. The floors (35a), (35b) are raised by MARGIN, which leaves room for longer steps.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
import scipy.special

from semcom_gym.baselines.solution import cvxpy
from semcom_gym.envs.arrays import Array, largest, total
from semcom_gym.envs.sfma import limits, physics
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import LN2, Links

ENERGY = ("corrected", "printed")
MARGIN = 3e-4  # relative, of a rate floor
RADIUS = 0.5  # Delta^(0), times Pmax / K
ACCEPT, EXPAND = 0.1, 0.75  # eta_1, eta_2
SHRINK, GROW = 0.5, 2.0  # kappa_sh, kappa_ex
TOLERANCE = 1e-4  # epsilon_pb
SMALLEST = 1e-4  # of the first radius: below it nothing is left to gain
STEPS = 60  # convex problems at most
NEARLY = 1e-6  # relative: a budget that is as good as used up

Step = tuple[Array, Array]
"""Power and bandwidth."""


class Surrogate:
    """The concave model (31)-(34) of the rates around power, bandwidth (1, K) at fixed ratios; tight there.

    q-hat = constant + slope p (31). Both logarithms are divided by N0, and the second, homogeneous of degree one in
    (b, q-hat), equals its own gradient times (b, q-hat): its tangent is per_hz b + per_watt q-hat, in nat/s.
    """

    def __init__(self, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array) -> None:
        self.power_w, self.bandwidth_hz, self.snr = power_w, bandwidth_hz, link.snr
        span = link.rho_max - link.rho_min
        low = scipy.special.expit(-(link.power_slope * power_w + link.ratio_slope * ratio + link.offset))
        rho, fall = link.rho_min + span * low, link.power_slope * span * low * (1.0 - low)  # fall = -iota
        self.slope, self.constant = rho - power_w * fall, power_w * power_w * fall  # (1, K)
        z = link.snr * (power_w * rho / bandwidth_hz)[..., None]
        self.per_hz, self.per_watt = np.log1p(z) - z / (1.0 + z), link.snr / (1.0 + z)  # (1, K, 2)

    def product(self, power_w: Array) -> Array:
        """q-hat (31) [W], (1, K)."""
        return self.constant + self.slope * power_w

    def first(self, power_w: Array, bandwidth_hz: Array) -> Array:
        """(32) less its part with N0 [nat/s], (1, K, 2)."""
        x = self.snr * (power_w + self.product(power_w))[..., None]
        return bandwidth_hz[..., None] * np.log1p(x / bandwidth_hz[..., None])

    def tangent(self, power_w: Array, bandwidth_hz: Array) -> Array:
        """The upper bound of (33) in (34) [nat/s], (1, K, 2)."""
        return self.per_hz * bandwidth_hz[..., None] + self.per_watt * self.product(power_w)[..., None]

    def rates(self, power_w: Array, bandwidth_hz: Array) -> Array:
        """(34) [bit/s], (1, K, 2)."""
        return (self.first(power_w, bandwidth_hz) - self.tangent(power_w, bandwidth_hz)) / LN2


class Program:
    """(35) for ``groups`` groups; power in units of Pmax / K, bandwidth of Bmax / K, rates of nat times that."""

    def __init__(self, groups: int, energy: str) -> None:
        cp = cvxpy()
        self.power, self.bandwidth = p, b = cp.Variable(groups, nonneg=True), cp.Variable(groups, nonneg=True)
        both_p, both_b, rate = cp.vstack([p, p]), cp.vstack([b, b]), cp.Variable((2, groups))  # of both users
        signed = {"lift_hz": 2, "lift_watt": 2, "lift": 2, "hz": 2, "watt": 2, "nat": 2, "slope": 1, "constant": 1}
        positive = {"floor": 2, "centre": 1, "radius": 1}
        positive |= {"needed": 2, "by_power": 1, "by_delay": 1} if energy == "corrected" else {"spent": 1}
        shape = {1: (groups,), 2: (2, groups)}
        self.given = given = {name: cp.Parameter(shape[axes]) for name, axes in signed.items()}
        given |= {name: cp.Parameter(shape[axes], nonneg=True) for name, axes in positive.items()}
        # b log(1 + x / b) = b log(L) - b log(b / ((b + x) / L)), where L, 1 + x / b at the iterate, keeps both near b
        lifted = cp.multiply(given["lift_hz"], both_b) + cp.multiply(given["lift_watt"], both_p) + given["lift"]
        affine = cp.multiply(given["hz"], both_b) + cp.multiply(given["watt"], both_p) + given["nat"]
        constraints = [
            rate <= affine - cp.rel_entr(both_b, lifted),  # (34)
            rate >= given["floor"],  # (35a), (35b)
            cp.abs(p - given["centre"]) <= given["radius"],  # (35c)
            cp.multiply(given["slope"], p) + given["constant"] >= 0,  # (35d)
            cp.sum(p) <= groups,  # (20d)
            cp.sum(b) <= groups,  # (20e)
        ]
        if energy == "corrected":
            late = cp.Variable(groups)  # t over t at the iterate
            constraints += [
                cp.vstack([late, late]) >= cp.multiply(given["needed"], cp.inv_pos(rate)),
                cp.sum_squares(cp.multiply(given["by_power"], p)) + cp.sum_squares(cp.multiply(given["by_delay"], late))
                <= 1,
            ]
        else:
            constraints += [given["spent"] @ p <= 1]  # (29c)
        self.problem = cp.Problem(cp.Maximize(cp.sum(rate)), constraints)

    def solve(self, **values: Array) -> Step | None:
        """Power and bandwidth (K,), or None where (35) is infeasible; all arguments (K,) or (2, K).

        Raises ArithmeticError where Clarabel finds neither.
        """
        cp = cvxpy()
        for name, parameter in self.given.items():
            parameter.value = values[name]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an inaccurate solution is judged by the true problem
                self.problem.solve(solver=cp.CLARABEL)
        except cp.error.SolverError:
            raise ArithmeticError("Clarabel failed") from None
        if self.problem.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
            return None
        if self.power.value is None or not np.isfinite([self.power.value, self.bandwidth.value]).all():
            raise ArithmeticError(f"Clarabel: {self.problem.status}")
        return self.power.value, self.bandwidth.value


@functools.lru_cache(maxsize=64)
def program(groups: int, energy: str) -> Program:
    """The compiled problem; compiling takes far longer than solving."""
    return Program(groups, energy)


def step(params: Params, link: Links, around: Surrogate, ratio: Array, radius: float, energy: str) -> Step | None:
    """Power [W] and bandwidth [Hz], (1, K), that solve (35), or None where it has no solution. radius [W]."""
    groups = params.num_groups
    watt, hertz = params.max_power_w / groups, params.max_bandwidth_hz / groups
    nat, per_watt = LN2 / hertz, around.per_watt[0].T * (watt / hertz)
    p, b, slope, constant = around.power_w[0], around.bandwidth_hz[0], around.slope[0], around.constant[0]
    snr = around.snr[0].T  # (2, K), as all that differs between the users
    lift = 1.0 + snr * (p + constant + slope * p) / b
    rate = physics.rates(link, around.power_w, around.bandwidth_hz, ratio)
    delay = largest(link.spare_s if energy == "printed" else physics.delays(link, rate, ratio))[0]
    spent = p * delay / (params.max_energy_j + params.energy_coefficient_j * float(np.log(ratio).sum()))
    found = program(groups, energy).solve(
        lift_hz=1.0 / lift,
        lift_watt=snr * (1.0 + slope) / lift * (watt / hertz),
        lift=snr * constant / lift / hertz,
        hz=np.log(lift) - around.per_hz[0].T,
        watt=-per_watt * slope,
        nat=-per_watt * constant / watt,
        slope=slope,
        constant=constant / watt,
        floor=physics.rate_floor(link, ratio)[0].T * (nat * (1.0 + MARGIN)),
        centre=p / watt,
        radius=np.full(groups, radius / watt),
        needed=(link.source_bit * ratio[..., None])[0].T / delay * nat,
        spent=spent / p * watt,
        by_power=np.sqrt(0.5 * spent) / p * watt,
        by_delay=np.sqrt(0.5 * spent),
    )
    if found is None:
        return None
    power, bandwidth = (_use_up(np.maximum(x, 0.0)[None], groups) for x in found)
    return power * watt, bandwidth * hertz


def _use_up(share: Array, budget: float) -> Array:
    """The shares (1, K), scaled to the budget where only the solver's tolerance is between them."""
    used = float(share.sum())
    return share * (budget / used) if used > budget * (1.0 - NEARLY) else share


def excess(params: Params, link: Links, power_w: Array, bandwidth_hz: Array, ratio: Array) -> float:
    """Largest relative excess over (20b)-(20e) of one instance, as ``physics.evaluate`` counts it; all (1, K)."""
    delay = physics.delays(link, physics.rates(link, power_w, bandwidth_hz, ratio), ratio)
    return max(
        float((delay - link.spare_s).max()) / params.max_latency_s,
        float(total(physics.energy(params, power_w, delay, ratio))[0]) / params.max_energy_j - 1.0,
        float(total(power_w)[0]) / params.max_power_w - 1.0,
        float(total(bandwidth_hz)[0]) / params.max_bandwidth_hz - 1.0,
    )


def optimise(
    params: Params,
    link: Links,
    power_w: Array,
    bandwidth_hz: Array,
    ratio: Array,
    *,
    energy: str = "corrected",
    tolerance: float = TOLERANCE,
) -> tuple[Array, Array, int]:
    """Algorithm 2 for one instance: the last accepted power [W] and bandwidth [Hz], and the convex problems solved.

    link: of the chosen pairs. power_w, bandwidth_hz, ratio: (1, K), meeting the constraints of (20). energy: of (29c),
    see the head of this file. tolerance: epsilon_pb. A candidate is accepted if it meets (20b)-(20e) and gains at
    least ACCEPT of what (35) predicts (36). Where (35) is infeasible, which the printed (29c) or MARGIN can make it,
    the search ends. Raises ArithmeticError where the solver fails.
    """
    first = radius = RADIUS * params.max_power_w / params.num_groups
    rate = float(physics.rates(link, power_w, bandwidth_hz, ratio).sum())
    solved = 0
    while solved < STEPS and radius > SMALLEST * first:
        around = Surrogate(link, power_w, bandwidth_hz, ratio)
        found = step(params, link, around, ratio, radius, energy)
        solved += 1
        if found is None:
            break
        predicted = float(around.rates(*found).sum()) - rate
        if predicted <= 0:
            break
        gain = float(physics.rates(link, *found, ratio).sum()) - rate
        if gain < ACCEPT * predicted or excess(params, link, *found, ratio) > limits.margin(power_w):
            radius *= SHRINK
            continue
        power_w, bandwidth_hz = found
        converged = gain < tolerance * rate
        rate += gain
        if converged:
            break
        if gain >= EXPAND * predicted:
            radius *= GROW
    return power_w, bandwidth_hz, solved
