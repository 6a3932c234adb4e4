"""A proven upper bound on CRRA and CRRAUS: the Lagrangian dual over both budgets (docs/crra.md, "The certificate").

For prices lam [1/Hz] and mu [1/W] the users decouple. Each one's net value, over the ratio o, B >= Bmin and P >= Pmin,
is bounded by :mod:`~semcom_gym.baselines.crra.tangents`, more of them until the bound is within a tolerance of a choice
that attains it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from semcom_gym.baselines import dual
from semcom_gym.baselines.crra import fast
from semcom_gym.baselines.crra.oracle import Pricing
from semcom_gym.baselines.solution import Bound
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.crra import actions
from semcom_gym.envs.crra.instance import Instance, Params

COARSE = 10.0  # tolerance while prices are searched, over that of the last evaluation
CHUNK = 64


def prove(params: Params, instance: Instance, *, rounds: int = 30, swaps: int = 2, tolerance: float = 5e-6) -> Bound:
    """A bound for every instance. rounds: price updates at most; swaps: local search of the best known allocation.

    tolerance: slack per user, as a share of the largest weight, at which its bound is let be.
    """
    validate.integer("rounds", rounds, low=0)
    validate.number("tolerance", tolerance)
    started = time.perf_counter()
    n = len(instance)
    best = fast.solve(params, instance, iterations=150, swaps=swaps)
    # no room for a single user: with selection the optimum is to serve nobody, without it there is no allocation,
    # and that is the only way for an instance to be infeasible
    room = actions.capacity(params, instance) >= (1 if params.selection else params.num_users)
    value = np.full(n, 0.0 if params.selection else -np.inf)
    possible = np.flatnonzero(room)
    for low in range(0, len(possible), CHUNK):
        rows = possible[low : low + CHUNK]
        value[rows] = _prove(params, instance[rows], best.allocation[rows], rounds, tolerance)
    with np.errstate(invalid="ignore"):
        gap = np.where(np.isfinite(value), (value - best.objective) / np.maximum(np.abs(value), 1e-300), np.nan)
    return Bound(value=value, gap=gap, best=best, seconds=np.full(n, (time.perf_counter() - started) / n))


def _prove(params: Params, instance: Instance, known: Any, rounds: int, tolerance: float) -> Array:
    users = Pricing(params, instance, known)
    idle = np.zeros_like(instance.gain) if params.selection else np.ones_like(instance.gain)
    nothing = dual.Columns(
        np.zeros_like(instance.gain),
        np.stack([idle * params.min_bandwidth_hz, idle * params.min_power_w], -1),
    )
    reward = known.selected * users.users.value(known.bandwidth_hz, known.power_w, known.ratio)
    start = dual.Columns(reward, np.stack([known.bandwidth_hz, known.power_w], -1))
    scale = tolerance * float(np.max(instance.weight))
    return dual.minimise(
        users.answer,
        np.stack([instance.bandwidth_hz, instance.power_w], -1),
        users.prices_at(known),
        [nothing, start],
        rounds=rounds,
        coarse=COARSE * scale,
        fine=scale,
    )
