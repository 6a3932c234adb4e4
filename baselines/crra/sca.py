"""The convex problem (32) of the CRRA paper, compiled once for each number of users. Needs cvxpy (extra ``solvers``).

Corrections to the printed problem (docs/crra.md): every variable is divided by its current iterate, because hertz and
watts side by side stall the solver; (32d) reads q_i >= d0 (1 - o_i) / (B_i t0); and (x - P)^2 in (30) is kept, not
linearised: it stands, convex, on the smaller side, so its tangent in (31) enlarges the feasible set and the ascent
that Lemma 2 promises is lost.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from semcom_gym.baselines.solution import cvxpy
from semcom_gym.envs.arrays import Array


class Program:
    """(32) for ``count`` users.

    Variables, relative to the iterate: b, p bandwidth and power; s, u, v, y are q, m, z and x of the paper. At an
    iterate of ones (29) reads v >= (b + u)^2 / 4 and (31) reads v <= y + p - 1 - (y - p)^2 / 4; ``printed`` drops
    that last term, as the tangent in (31) does. f and l of (32a), (32b) are tight at the optimum and eliminated.
    """

    def __init__(self, count: int, success: str, printed: bool) -> None:
        cp = cvxpy()
        b, p, s, u, v, y = (cp.Variable(count, nonneg=True) for _ in range(6))
        self.b, self.p = b, p
        names = ("slope", "growth", "bandwidth", "power", "min_bandwidth", "min_power", "log_lift", "lift")
        self.given: dict[str, Any] = {name: cp.Parameter(count, nonneg=True) for name in names}
        given = self.given
        constraints = [
            given["bandwidth"] @ b <= 1,  # (14a)
            given["power"] @ p <= 1,  # (14c)
            b >= given["min_bandwidth"],  # (14b)
            p >= given["min_power"],  # (14d)
            s >= cp.inv_pos(b),  # (32d)
            # (32c) over m^j = e^k - 1: u >= (e^(k s) - 1) / (e^k - 1), with lift = e^k / (e^k - 1)
            u >= cp.exp(cp.multiply(given["growth"], s - 1) + given["log_lift"]) - (given["lift"] - 1),
            v >= 0.25 * cp.square(b + u),  # (29)
            v + (0 if printed else 0.25 * cp.square(y - p)) <= y + p - 1,  # (31)
        ]
        loss = y if success == "exact" else cp.square(y)
        self.problem = cp.Problem(cp.Minimize(given["slope"] @ loss), constraints)

    def solve(self, growth: Array, **values: Array) -> tuple[Array, Array] | str:
        """Bandwidth and power relative to the iterate, or why there are none. All arguments (count,).

        slope: fall of the objective per unit of y (``exact``) or of y^2 (``approximate``). growth: ln 2 times the
        spectral efficiency at the iterate. bandwidth, power: iterate over its budget. min_bandwidth, min_power:
        floor over iterate.
        """
        cp = cvxpy()
        lift = -1.0 / np.expm1(-growth)
        for name, value in (values | {"growth": growth, "lift": lift, "log_lift": np.log(lift)}).items():
            self.given[name].value = value
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an inaccurate solution is judged by its own objective
                self.problem.solve(solver=cp.CLARABEL)
        except cp.error.SolverError:
            return "Clarabel failed"
        if self.b.value is None or not (np.isfinite(self.b.value).all() and np.isfinite(self.p.value).all()):
            return f"Clarabel: {self.problem.status}"
        return self.b.value, self.p.value


@functools.lru_cache(maxsize=64)
def program(count: int, success: str, printed: bool) -> Program:
    """The compiled problem; compiling takes far longer than solving."""
    return Program(count, success, printed)
