"""Algorithm 2 of the MU-ASCC paper: dual uplink powers by successive convex approximation (45)-(62).

Needs cvxpy (extra ``solvers``). All corrections to the printed problem are in docs/ascc.md: c_i = exp(a_1 a_0) below
(51); log10(Q / (R_c L)) in (46); the L in (53); Q-hat at the iterate in (54); l_2 not squared in (55); zeta_i, xi_i,
not zeta_j, xi_j, in the sums of (49), (50). The problem is solved for increments from the iterate, each in a unit
of its own; this changes neither its feasible set nor its objective, and spares the solver numbers of 1e-100 to 1e100.
The slack variables of an iterate are those that its powers imply, so that no solver's tolerance accumulates and a
surrogate that promised too much is noticed: see :func:`optimise`.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.special

from semcom_gym.baselines.ascc.relaxed import Codecs, hazard
from semcom_gym.baselines.solution import cvxpy
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.ascc.rates import LN10, TINY_SINR

SOLVERS: tuple[tuple[str, dict[str, float]], ...] = (
    ("CLARABEL", {}),
    ("CLARABEL", {"max_step_fraction": 0.8, "tol_gap_abs": 1e-6, "tol_gap_rel": 1e-6, "tol_feas": 1e-6}),
    ("SCS", {"eps_abs": 1e-7, "eps_rel": 1e-7}),
)
"""Solvers of (P6.2) and their options: the first, and those that are asked in turn where it fails."""


class Program:
    """(P6.2) for ``count`` users.

    Variables are increments from the iterate: power, of q_i in P_max / K; low and high, of zeta_i and xi_i in
    1 + gamma_i; root, of g_i in 1 / (g_i (1 + gamma_i)**2) or 1, the smaller; argument, of rho-hat_i in what adds 1 to
    log t_i, or 1, the smaller. With t_i at its limit (62), ``rest`` is the denominator 1 + c_i t_i of (61) over its
    value at the iterate.
    """

    def __init__(self, count: int) -> None:
        cp = cvxpy()
        self.power, low, high, root, argument, rest = (cp.Variable(count) for _ in range(6))
        signed = ("argument_root", "min_power", "min_low", "max_low", "max_root")
        positive = ("harm", "steep", "floor", "log", "root_argument", "bow_argument", "bow_root", "root_high")
        self.given: dict[str, Any] = {name: cp.Parameter(count) for name in signed}
        self.given |= {name: cp.Parameter(count, nonneg=True) for name in positive}
        self.given |= {"gain": cp.Parameter((count, count)), "spare": cp.Parameter(nonneg=True)}
        self.given |= {name: cp.Parameter((count, count), nonneg=True) for name in ("bow_own", "bow_power")}
        given = self.given
        constraints = [
            rest == 1 + cp.multiply(given["steep"], argument),  # (62)
            rest >= given["floor"],  # t_i >= 0
            cp.multiply(given["argument_root"], root) + cp.multiply(given["root_argument"], argument)
            + cp.square(cp.multiply(given["bow_argument"], argument) + cp.multiply(given["bow_root"], root))
            <= cp.multiply(given["log"], cp.log1p(low)),  # (55)
            high <= cp.multiply(given["root_high"], root),  # (60)
            cp.sum(self.power) <= given["spare"],  # (39)
            self.power >= given["min_power"], root <= given["max_root"],  # (51); g_i >= 0 follows from (60)
            low >= given["min_low"], low <= given["max_low"], high >= given["min_low"], high <= given["max_low"],
        ]  # fmt: skip
        signal = given["gain"] @ self.power  # own signal less (1 + gamma_i) times the interference, at the iterate
        for i in range(count):
            own, power = given["bow_own"][i], cp.multiply(given["bow_power"][i], self.power)
            constraints += [
                cp.sum_squares(own * low[i] + power) + low[i] <= signal[i],  # (56)
                cp.sum_squares(own * high[i] - power) + signal[i] <= high[i],  # (57)
            ]
        self.problem = cp.Problem(cp.Minimize(given["harm"] @ cp.inv_pos(rest)), constraints)

    def solutions(self, values: dict[str, Array]) -> Iterator[tuple[int, bool, Array]]:
        """From each of SOLVERS in turn that has an answer: its place among them, whether the answer is accurate, and
        the increments of the powers in P_max / K.
        """
        cp = cvxpy()
        for name, value in values.items():
            self.given[name].value = value
        for order, (solver, options) in enumerate(SOLVERS):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # an inaccurate solution is judged by the true objective
                    self.problem.solve(solver=solver, warm_start=False, **options)
            except cp.error.SolverError:
                continue
            if self.problem.status in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) and np.isfinite(self.power.value).all():
                yield order, self.problem.status == cp.OPTIMAL, self.power.value


@functools.lru_cache(maxsize=64)
def program(count: int) -> Program:
    """The compiled problem; compiling takes far longer than solving."""
    return Program(count)


def sinr(coupling: Array, power: Array) -> Array:
    """Uplink SINRs (33), (K,), of dual powers (K,) at beams of |h_k^H w_l|**2 = coupling[k, l]."""
    own = coupling.diagonal()
    return power * own / (1.0 + power @ coupling - power * own)


def increments(codecs: Codecs, coupling: Array, power: Array, budget: float) -> dict[str, Array]:
    """The values of :class:`Program` around dual powers (K,); budget: P_max [W]."""
    unit, own = budget / len(power), coupling.diagonal()
    gamma = np.maximum(sinr(coupling, power), TINY_SINR)
    x, g = codecs.argument(gamma)
    harm = scipy.special.expit(-codecs.exponent(gamma))  # 1 / (1 + c t)
    slope = codecs.slope / LN10 * hazard(x)  # of log t in rho-hat
    per_argument, per_root = 1.0 / np.maximum(slope, 1.0), np.minimum(1.0 / (g * (1.0 + gamma) ** 2), 1.0)
    root = np.sqrt(codecs.blocklength)  # (55) is divided by it, and by what else its largest coefficient asks for
    log = np.minimum(root / np.maximum(np.abs(x) * per_root, g * per_argument), 1.0)
    scale = (1.0 + power @ coupling - power * own) * (1.0 + gamma)  # (56), (57) are divided by it
    cross = coupling.T / scale[:, None]  # row i: the interference of q_j for user i
    np.fill_diagonal(cross, 0.0)
    return {
        "harm": codecs.weight * codecs.channel * harm,
        "steep": (1.0 - harm) * slope * per_argument,
        "floor": harm,
        "log": log,
        "argument_root": x * per_root * log / root,
        "root_argument": g * per_argument * log / root,
        "bow_argument": 0.5 * per_argument * np.sqrt(log / root),
        "bow_root": 0.5 * per_root * np.sqrt(log / root),
        "root_high": g * (1.0 + gamma) ** 2 * per_root,
        "gain": unit * (np.diag(own / scale) - gamma[:, None] * cross),
        "bow_own": 0.5 * np.sqrt(cross) * (1.0 + gamma)[:, None],
        "bow_power": 0.5 * np.sqrt(cross) * unit,
        "spare": np.maximum(budget - power.sum(), 0.0) / unit,
        "min_power": -power / unit,
        "min_low": -gamma / (1.0 + gamma),
        "max_low": (budget * own - gamma) / (1.0 + gamma),
        "max_root": (1.0 - g) / per_root,
    }


@dataclasses.dataclass
class Effort:
    """What the convex problems of a run took.

    problems: how many there were. fallbacks: those that the first solver failed and another solved; failures: those
    that all failed, where Algorithm 2 stops at the best powers so far.
    """

    problems: int = 0
    fallbacks: int = 0
    failures: int = 0

    def summary(self) -> str:
        """What went wrong, to stand behind a status."""
        counts = {
            "fallbacks to another solver": self.fallbacks,
            "convex problems without a usable answer": self.failures,
        }
        return "".join(f"; {count} {what}" for what, count in counts.items() if count)


def optimise(
    codecs: Codecs, coupling: Array, power: Array, budget: float, *, tolerance: float, most: int, effort: Effort
) -> Array:
    """Algorithm 2: dual powers (K,) that are no worse than ``power`` at beams of |h_k^H w_l|**2 = coupling[k, l].

    tolerance: epsilon_1. most: convex problems at most. Where an accurate answer raises the objective (44), as it can
    if rho-hat < 0 for some user, since a larger g then relaxes (47), the powers before it are final.
    """
    value = codecs.objective(sinr(coupling, power))
    for _ in range(most):
        found = _step(codecs, coupling, power, budget, value, tolerance, effort)
        if found is None or found[1] >= value:
            break
        gain, (power, value) = value - found[1], found
        if gain <= tolerance * value:
            break
    return power


def _step(
    codecs: Codecs, coupling: Array, power: Array, budget: float, value: float, tolerance: float, effort: Effort
) -> tuple[Array, float] | None:
    """The powers that solve (P6.2) around ``power`` and their objective; None where there is nothing to find."""
    values = increments(codecs, coupling, power, budget)
    reach = float(values["harm"].sum())  # what channel errors cost, the most that can be gained
    if reach <= tolerance * value:
        return None
    values["harm"] = values["harm"] / reach
    effort.problems += 1
    for order, accurate, step in program(len(power)).solutions(values):
        found = np.maximum(power + budget / len(power) * step, 0.0)
        found *= min(1.0, budget / float(found.sum()))
        after = codecs.objective(sinr(coupling, found))
        if accurate or after <= value:
            effort.fallbacks += order > 0
            return found, after
    effort.failures += 1
    return None
