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

import math

from semcom_gym.baselines.training.device import Devices, of_device
from semcom_gym.baselines.training.equilibrium import HIGH, LOW
from semcom_gym.envs.arrays import Array, at_least, copied, largest, lower_at, namespace, rows_where, total

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
    xp, params = namespace(log_beta), devices.params
    beta = xp.exp(log_beta - largest(log_beta)[:, None])
    log_beta = xp.log(params.time_weight * beta / total(beta)[:, None])
    device, bs = devices.clocks(log_beta)[:2]
    weight, beta = params.energy_weight * params.capacitance, xp.exp(log_beta)
    computing = devices.device_cycles * (beta * xp.exp(-device) + weight * xp.exp(2.0 * device))
    computing = computing + devices.bs_cycles * (beta * xp.exp(-bs) + weight * xp.exp(2.0 * bs))
    rent = xp.exp(log_lam[:, 0]) * params.total_bandwidth_hz
    least = _high(devices, log_lam, log_beta)
    close = of_device(CLOSE * total(computing + least)[:, None], mode)
    least = xp.where(mode == LOW, math.inf, least)
    low, place = xp.full_like(least, math.inf), copied(devices.stop)
    cells = rows_where((mode != HIGH).reshape(-1))
    if len(cells):
        found = _low(devices, cells, log_lam, log_beta, least.reshape(-1)[cells], close[cells])
        low.reshape(-1)[cells], place.reshape(-1)[cells] = found
    value = total(computing + xp.minimum(least, low))
    return value - rent - ROUNDING * (value + rent), place


def _high(devices: Devices, log_lam: Array, log_beta: Array) -> Array:
    """(n, N) lower bound of G over the high mode."""
    xp, at = namespace(log_beta), devices.high(log_lam, log_beta).snr
    found = xp.where(devices.anchored, devices.value(devices.right, log_lam, log_beta), 0.0)  # G is positive
    todo = ~devices.anchored
    for width in WIDTHS:
        left, right = xp.maximum(at - width, devices.right), xp.maximum(at, devices.right) + width
        falls = (left <= devices.right) | (devices.force(left, log_lam, log_beta) <= 0)
        enclosed = todo & falls & (devices.force(right, log_lam, log_beta) >= 0)
        ends = [devices.value(s, log_lam, log_beta) for s in (left, right)]
        lower = xp.minimum(*ends) - _bend(devices, left, right, log_lam, log_beta) * (right - left) ** 2 / 8.0
        found = xp.where(enclosed, at_least(lower, 0.0), found)
        todo = todo & ~enclosed
        if not todo.any():
            break
    return found


def _bend(devices: Devices, left: Array, right: Array, log_lam: Array, log_beta: Array) -> Array:
    """M: an upper bound of G'' on [left, right]."""
    xp, sent = namespace(left), devices.ratio(left)
    high, beta = xp.exp(right), xp.exp(log_beta)
    energy = devices.bits * sent * high / xp.log1p(high)
    product = devices.bits * sent / xp.log1p(xp.exp(left))
    hold = xp.exp(0.5 * (log_lam + log_beta)) * xp.sqrt(product)
    return devices.joule * energy + hold + xp.maximum(hold, beta / devices.reach * energy)


def _low(
    devices: Devices, cells: Array, log_lam: Array, log_beta: Array, rival: Array, close: Array
) -> tuple[Array, Array]:
    """Lower bound of G over the low mode of the flat devices ``cells``, and where its least value was seen.

    Of several such places NumPy takes the last, a GPU any.
    rival: a bound above this one does not matter; close: nor does this difference (all flat).
    """
    xp, flat = namespace(cells), devices.flat(cells)
    lam, beta = of_device(log_lam, log_beta)[cells], log_beta.reshape(-1)[cells]
    owner = xp.arange(len(cells), device=cells.device)
    left, right, pieces = flat.left, flat.stop, CELLS
    best, lower = (xp.full_like(beta, math.inf) for _ in range(2))
    place = copied(flat.stop)
    for last in [False] * (ROUNDS - 1) + [True]:
        owner, (left, right), pieces = xp.repeat(owner, pieces), _cut(left, right, pieces), SPLIT
        part, prices = flat.take(owner), (lam[owner], beta[owner])
        first, second = part.value(left, *prices), part.value(right, *prices)
        lowest = xp.minimum(first, second)
        lower_at(best, owner, lowest)
        seen = rows_where(lowest == best[owner])
        place[owner[seen]] = xp.where(first < second, left, right)[seen]
        below = lowest - _bend(part, left, right, *prices) * (right - left) ** 2 / 8.0
        is_open = (below < xp.minimum(best, rival)[owner] - close[owner]) & (not last)
        done, todo = rows_where(~is_open), rows_where(is_open)
        lower_at(lower, owner[done], below[done])
        if not len(todo):
            break
        owner, left, right = owner[todo], left[todo], right[todo]
    return lower, place


def _cut(left: Array, right: Array, pieces: int) -> tuple[Array, Array]:
    """The ends (k pieces,) of equal pieces of the intervals [left, right] (k,)."""
    xp = namespace(left)
    piece = xp.arange(pieces, device=left.device)
    width = ((right - left) / pieces)[:, None]
    start = left[:, None] + width * piece
    return start.reshape(-1), xp.where(piece == pieces - 1, right[:, None], start + width).reshape(-1)
