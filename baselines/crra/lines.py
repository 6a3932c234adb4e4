"""What the value of an instance can be at most as its power budget varies: a few straight lines, all of them proven."""

from __future__ import annotations

import dataclasses

import numpy as np

from semcom_gym.baselines.crra import fast
from semcom_gym.baselines.crra.bound import CHUNK
from semcom_gym.baselines.crra.oracle import Pricing
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.crra.instance import Instance, Params

SHARES = (0.15, 0.3, 0.45, 0.6, 0.8, 1.0)  # of full power, at which the lines are to be close
TOLERANCE = 1e-4  # slack per user, as a share of the largest weight


def power_lines(params: Params, instance: Instance) -> tuple[Array, Array]:
    """Lines (n, k): no allocation that uses the share u of the power has an objective above intercept + slope u.

    For prices lam, mu >= 0, whoever uses bandwidth up to Bmax and power u Pmax reaches at most
    ``sum_i max [value_i - lam B_i - mu P_i] + lam Bmax + mu Pmax u``, which is a straight line in u. The oracle of
    :mod:`~semcom_gym.baselines.crra.oracle` bounds the maxima from above. The prices are those of ``fast`` at
    ``SHARES`` of the power; any prices give a valid line.
    """
    found = [_lines(params, instance[low : low + CHUNK]) for low in range(0, len(instance), CHUNK)]
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])


def _lines(params: Params, instance: Instance) -> tuple[Array, Array]:
    pricing = Pricing(params, instance)
    everyone = np.arange(len(instance))
    tolerance = TOLERANCE * float(np.max(instance.weight))
    intercepts, slopes = [], []
    for share in SHARES:
        known = fast.solve(params, dataclasses.replace(instance, power_w=share * instance.power_w), iterations=150)
        prices = pricing.prices_at(known.allocation)
        upper, _ = pricing.answer(prices, everyone, tolerance)
        intercepts.append(upper.sum(-1) + prices[:, 0] * instance.bandwidth_hz)
        slopes.append(prices[:, 1] * instance.power_w)
    return np.stack(intercepts, -1), np.stack(slopes, -1)
