"""The Lagrangian dual of the training problem: a lower bound that holds at any prices (docs/training.md).

For lam >= 0 and beta_n >= 0 with sum beta_n = omega_1, since omega_1 max_n T_n >= sum_n beta_n T_n, no allocation is
better than -lam B_total + sum_n min [omega_2 E_n + lam B_n + beta_n T_n]. The minimum over the clocks is exact,
(26)-(29). What is left is the minimum of G(s) of :mod:`device`, which has a continuous derivative:

* high mode, s >= knee: G' has the sign of a rising function of s, one below the power cap, another at it. So G falls,
  then rises, and signs of G' on both sides of a point enclose its minimum.
* low mode, from the bottom to the crest: cells. Between the crest and the knee there is no minimum.

On [s1, s2], G'' <= M gives G >= min(G(s1), G(s2)) - M (s2 - s1)^2 / 8. With e = omega_2 (N0 / g) S q and
hold = sqrt(lam beta q), M = e + max(hold, beta S q / P) + hold with S and q at their largest: G'' is at most e + 2 hold
below the power cap and e + beta S q / P + lam P / S at it, where lam P / S <= hold <= beta S q / P. (The second
derivative of S q over S q is 1 - 2 k (1 - w) - w / (1 + S) <= 1, that of 2 hold over hold is
-v^2 / 2 + v w + 3 w^2 / 2 - w / (1 + S) <= 2 w^2 <= 2.)
"""

from __future__ import annotations

import numpy as np

from semcom_gym.baselines.training.device import Devices
from semcom_gym.baselines.training.equilibrium import HIGH, LOW
from semcom_gym.envs.arrays import Array

WIDTHS = (1e-6, 1e-3, 0.1, 2.0)  # tried around the high mode, in s
CELLS = 10  # of the low mode at first
SPLIT = 4
ROUNDS = 7
CLOSE = 1e-9  # cells are split until their bound is this close, over the dual value's scale
ROUNDING = 1e-12  # relative, taken off: far above float64's error


def bound(devices: Devices, mode: Array, log_lam: Array, log_beta: Array) -> tuple[Array, Array]:
    """(n,) a lower bound on the objective of all allocations with the devices in their mode (n, N), OPEN: either.

    log_lam (n, 1) and log_beta (n, N): any; log_beta is made to add up to omega_1. Also returns (n, N) the lower bound
    of G over each device's low mode (inf where it has none) and where in it the least value was seen.
    """
    params = devices.params
    beta = np.exp(log_beta - log_beta.max(-1, keepdims=True))
    log_beta = np.log(params.time_weight * beta / beta.sum(-1, keepdims=True))
    device, bs = devices.clocks(log_beta)[:2]
    weight, beta = params.energy_weight * params.capacitance, np.exp(log_beta)
    computing = devices.device_cycles * (beta * np.exp(-device) + weight * np.exp(2.0 * device))
    computing = computing + devices.bs_cycles * (beta * np.exp(-bs) + weight * np.exp(2.0 * bs))
    rent = np.exp(log_lam[:, 0]) * params.total_bandwidth_hz
    least = _high(devices, log_lam, log_beta)
    close = np.broadcast_to(CLOSE * (computing + least).sum(-1, keepdims=True), mode.shape)
    least[mode == LOW] = np.inf
    low, place = np.full_like(least, np.inf), devices.stop.copy()
    cells = np.flatnonzero(mode != HIGH)
    if len(cells):
        rival = least.reshape(-1)[cells]
        found = _low(devices, cells, log_lam, log_beta, rival, close.reshape(-1)[cells])
        low.reshape(-1)[cells], place.reshape(-1)[cells] = found
    total = (computing + np.minimum(least, low)).sum(-1)
    return total - rent - ROUNDING * (total + rent), place


def _high(devices: Devices, log_lam: Array, log_beta: Array) -> Array:
    """(n, N) lower bound of G over the high mode."""
    at = devices.high(log_lam, log_beta).snr
    found = np.where(devices.anchored, devices.value(devices.right, log_lam, log_beta), 0.0)  # G is positive
    todo = ~devices.anchored
    for width in WIDTHS:
        left, right = np.maximum(at - width, devices.right), np.maximum(at, devices.right) + width
        falls = (left <= devices.right) | (devices.force(left, log_lam, log_beta) <= 0)
        enclosed = todo & falls & (devices.force(right, log_lam, log_beta) >= 0)
        ends = [devices.value(s, log_lam, log_beta) for s in (left, right)]
        lower = np.minimum(*ends) - _bend(devices, left, right, log_lam, log_beta) * (right - left) ** 2 / 8.0
        found = np.where(enclosed, np.maximum(lower, 0.0), found)
        todo &= ~enclosed
        if not todo.any():
            break
    return found


def _bend(devices: Devices, left: Array, right: Array, log_lam: Array, log_beta: Array) -> Array:
    """M: an upper bound of G'' on [left, right]."""
    sent, high, beta = devices.ratio(left), np.exp(right), np.exp(log_beta)
    energy = devices.bits * sent * high / np.log1p(high)
    product = devices.bits * sent / np.log1p(np.exp(left))
    hold = np.exp(0.5 * (log_lam + log_beta)) * np.sqrt(product)
    return devices.joule * energy + hold + np.maximum(hold, beta / devices.reach * energy)


def _low(
    devices: Devices, cells: Array, log_lam: Array, log_beta: Array, rival: Array, close: Array
) -> tuple[Array, Array]:
    """Lower bound of G over the low mode of the flat devices ``cells``, and where its least value was seen.

    rival: a bound above this one does not matter; close: nor does this difference (all flat).
    """
    flat = devices.flat(cells)
    lam, beta = np.repeat(log_lam[:, 0], log_beta.shape[1])[cells], log_beta.reshape(-1)[cells]
    owner = np.arange(len(cells))
    left, right, pieces = flat.left, flat.stop, CELLS
    best, lower, place = np.full(len(cells), np.inf), np.full(len(cells), np.inf), flat.stop.copy()
    for last in [False] * (ROUNDS - 1) + [True]:
        width, end, piece = np.repeat((right - left) / pieces, pieces), right, np.tile(np.arange(pieces), len(left))
        owner, left = np.repeat(owner, pieces), np.repeat(left, pieces) + width * piece
        right = np.where(piece == pieces - 1, np.repeat(end, pieces), left + width)
        pieces = SPLIT
        part, prices = flat.take(owner), (lam[owner], beta[owner])
        first, second = part.value(left, *prices), part.value(right, *prices)
        lowest = np.minimum(first, second)
        np.minimum.at(best, owner, lowest)
        seen = lowest == best[owner]
        place[owner[seen]] = np.where(first < second, left, right)[seen]
        below = lowest - _bend(part, left, right, *prices) * (right - left) ** 2 / 8.0
        is_open = (below < np.minimum(best, rival)[owner] - close[owner]) & (not last)
        np.minimum.at(lower, owner[~is_open], below[~is_open])
        if not is_open.any():
            break
        owner, left, right = owner[is_open], left[is_open], right[is_open]
    return lower, place
