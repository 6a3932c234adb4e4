"""A batched interior-point method for power, bandwidth and ratios of pairings that are already decided.

Newton's method climbs the sum rate plus a logarithmic barrier whose weight falls. Groups are coupled by three budgets
only, so a step solves 3 x 3 systems. The rate is not concave: indefinite curvature is replaced by its absolute value,
and what is found is a local optimum near its start.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.envs.arrays import Array, concatenate, falling, total
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import LN2, MBIT, Allocation, Links

CHUNK = 512  # starts at a time: where NumPy's temporaries still fit the cache
LAST_WEIGHT, WEIGHT_FALL = 2e-5, 0.6  # of the barrier [Mbit/s], and its factor from step to step
HALVINGS, SHORTER = 7, 0.4
TO_THE_WALL = 0.95  # of the way to where a limit would be met, by its slope
LEAST_CURVATURE = 1e-6


def improve(params: Params, link: Links, allocation: Allocation, weight: float, iterations: int) -> Allocation:
    """Climb from allocations, the barrier's weight falling from ``weight``; one that is not inside stays as it is."""
    parts = []
    for low in range(0, len(allocation), CHUNK):
        rows = slice(low, low + CHUNK)
        parts.append(_climb(params, link[rows], allocation[rows], weight, iterations))
    return concatenate(parts)


def _climb(params: Params, link: Links, allocation: Allocation, weight: float, iterations: int) -> Allocation:
    state = State(params, link, physics.distortion_floor(params, link), allocation)
    ready = np.flatnonzero(state.worst > 0)
    if not len(ready):
        return allocation
    state = state[ready]
    for _ in range(iterations):
        state = search(state, state.direction(weight), weight)
        weight = max(WEIGHT_FALL * weight, LAST_WEIGHT)
    return allocation.replaced(ready, state.allocation)


def search(state: State, step: Array, weight: float) -> State:
    """The state after the longest of a few steps along ``step`` (n, K, 3) that raises the barrier function."""
    before = state.barrier(weight)
    moved = state.moved(step)
    worse = np.flatnonzero(~(moved.barrier(weight) >= before))
    if not len(worse):
        return moved
    length = np.ones(len(step))
    for _ in range(HALVINGS):
        length[worse] *= SHORTER
        tried = state[worse].moved(length[worse, None, None] * step[worse])
        worse = worse[~(tried.barrier(weight) >= before[worse])]
        if not len(worse):
            break
    length[worse] = 0.0
    return state.moved(length[:, None, None] * step)


class State:
    """Allocations with the slack of every limit, and the Newton step of the barrier function.

    Variables (n, K, 3): power over Pmax / K, bandwidth over Bmax / K, ratio. Rates are in Mbit/s.
    """

    def __init__(self, params: Params, link: Links, low: Array, allocation: Allocation) -> None:
        """low (n, K): the distortion floor of the ratio."""
        self.params, self.link, self.low, self.allocation = params, link, low, allocation
        p, b, delta = allocation.power_w, allocation.bandwidth_hz, allocation.ratio
        with np.errstate(all="ignore"):  # a step may leave the domain; the slack then says so
            self.fall = falling(physics.exponent(link, p, delta))
            rho = link.rho_min + (link.rho_max - link.rho_min) * self.fall
            self.x = rho[..., None] + (b / p)[..., None] / link.snr
            self.log = np.log1p(1.0 / self.x)
            self.rate = b[..., None] * self.log * (MBIT / LN2)
            self.source = link.source_bit * MBIT
            delay = self.source * delta[..., None] / self.rate
            energy = p * np.max(delay, axis=-1) - params.energy_coefficient_j * np.log(delta)
            self.reach = link.spare_s / self.source  # seconds per Mbit
            used = np.stack([total(p) / params.max_power_w, total(b) / params.max_bandwidth_hz,
                             total(energy) / params.max_energy_j], axis=-1)  # fmt: skip
            self.budget = 1.0 - used
            in_time = self.rate * self.reach - delta[..., None]
            self.slack = np.concatenate([in_time, (delta - low)[..., None], (1.0 - delta)[..., None]], axis=-1)
            worst = np.minimum(np.min(self.slack, axis=(-2, -1)), np.min(self.budget, axis=-1))
            inside = (np.min(p, axis=-1) > 0) & (np.min(b, axis=-1) > 0) & (np.min(delta, axis=-1) > 0)
            self.worst = np.where(inside & np.isfinite(worst), worst, -np.inf)

    def __getitem__(self, rows: Array) -> State:
        return State(self.params, self.link[rows], self.low[rows], self.allocation[rows])

    def barrier(self, weight: float) -> Array:
        """(n,) sum rate plus the weighted logarithms of all slacks; -inf outside."""
        with np.errstate(all="ignore"):
            logs = np.sum(np.log(self.slack), axis=(-2, -1)) + np.sum(np.log(self.budget), axis=-1)
            found = np.sum(self.rate, axis=(-2, -1)) + weight * logs
        return np.where(self.worst > 0, found, -np.inf)

    def moved(self, step: Array) -> State:
        """The state after a step (n, K, 3)."""
        a, share = self.allocation, 1.0 / self.params.num_groups
        power = a.power_w + (share * self.params.max_power_w) * step[..., 0]
        bandwidth = a.bandwidth_hz + (share * self.params.max_bandwidth_hz) * step[..., 1]
        return State(self.params, self.link, self.low, Allocation(a.pair, power, bandwidth, a.ratio + step[..., 2]))

    def _derivatives(self) -> tuple[Array, Array]:
        """Gradient (n, K, 2, 3) and Hessian (n, K, 2, 3, 3) of the rates."""
        link, a = self.link, self.allocation
        unit_p, unit_b = (y / self.params.num_groups for y in (self.params.max_power_w, self.params.max_bandwidth_hz))
        p, b = a.power_w[..., None], a.bandwidth_hz[..., None]
        span = (link.rho_max - link.rho_min) * self.fall * (1.0 - self.fall)
        slopes = np.stack([link.power_slope * unit_p, np.zeros_like(span), link.ratio_slope], axis=-1)
        # of x = rho + b / (p snr)
        x1 = np.repeat((-span[..., None] * slopes)[:, :, None, :], 2, axis=2)
        x2 = np.repeat(((span * (1.0 - 2.0 * self.fall))[..., None, None] * slopes[..., None] * slopes[..., None, :])
                       [:, :, None], 2, axis=2)  # fmt: skip
        noise = 1.0 / (p * link.snr)
        x1[..., 0] -= b * noise / p * unit_p
        x1[..., 1] += noise * unit_b
        x2[..., 0, 0] += 2.0 * b * noise / (p * p) * unit_p**2
        x2[..., 0, 1] -= noise / p * unit_p * unit_b
        x2[..., 1, 0] -= noise / p * unit_p * unit_b
        inverse = 1.0 / (self.x * (1.0 + self.x))
        log1 = -inverse
        log2 = (1.0 + 2.0 * self.x) * inverse * inverse
        scale = MBIT / LN2
        first = b[..., None] * log1[..., None] * x1
        first[..., 1] += self.log * unit_b
        second = b[..., None, None] * (
            log2[..., None, None] * x1[..., None] * x1[..., None, :] + log1[..., None, None] * x2
        )
        cross = unit_b * log1[..., None] * x1
        second[..., 1, :] += cross
        second[..., :, 1] += cross
        return scale * first, scale * second

    def _energy_derivatives(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (n, K, 3) and Hessian (n, K, 3, 3) of E_k / Emax, by the later user of each group."""
        a, params = self.allocation, self.params
        late = np.argmax(self.source / self.rate, axis=-1)[..., None]
        rate = np.take_along_axis(self.rate, late, -1)[..., 0]
        source = np.take_along_axis(self.source, late, -1)[..., 0]
        r1 = np.take_along_axis(first, late[..., None], 2)[:, :, 0]
        r2 = np.take_along_axis(second, late[..., None, None], 2)[:, :, 0]
        unit = params.max_power_w / params.num_groups
        bits = source * a.power_w * a.ratio  # W Mbit; energy is bits / rate
        n1 = np.stack([source * unit * a.ratio, np.zeros_like(bits), source * a.power_w], axis=-1)
        gradient = n1 / rate[..., None] - (bits / rate**2)[..., None] * r1
        mixed = n1[..., None] * r1[..., None, :]
        hessian = (2.0 * bits / rate**3)[..., None, None] * r1[..., None] * r1[..., None, :]
        hessian -= (mixed + mixed.swapaxes(-1, -2) + bits[..., None, None] * r2) / (rate**2)[..., None, None]
        hessian[..., 0, 2] += source * unit / rate
        hessian[..., 2, 0] += source * unit / rate
        gradient[..., 2] -= params.energy_coefficient_j / a.ratio
        hessian[..., 2, 2] += params.energy_coefficient_j / a.ratio**2
        return gradient / params.max_energy_j, hessian / params.max_energy_j

    def direction(self, weight: float) -> Array:
        """The Newton step (n, K, 3) up the barrier function."""
        first, second = self._derivatives()
        energy1, energy2 = self._energy_derivatives(first, second)
        groups = self.params.num_groups
        in_time1 = first * self.reach[..., None]
        in_time1[..., 2] -= 1.0
        over = 1.0 / self.slack
        pull = weight / self.budget  # (n, 3): power, bandwidth, energy
        gradient = np.sum(first + weight * over[..., :2, None] * in_time1, axis=2)
        gradient[..., 2] += weight * (over[..., 2] - over[..., 3])
        gradient[..., 0] -= pull[:, :1] / groups
        gradient[..., 1] -= pull[:, 1:2] / groups
        gradient -= pull[:, 2, None, None] * energy1
        curve = pull[:, 2, None, None, None] * energy2
        curve -= np.sum((1.0 + weight * over[..., :2] * self.reach)[..., None, None] * second, axis=2)
        curve += weight * np.einsum("nkui,nkuj,nku->nkij", in_time1, in_time1, over[..., :2] ** 2)
        curve[..., 2, 2] += weight * (over[..., 2] ** 2 + over[..., 3] ** 2)
        values, vectors = np.linalg.eigh(curve)
        values = np.maximum(np.abs(values), LEAST_CURVATURE)
        # the budgets couple the groups by a matrix of rank three: Woodbury
        coupling = np.zeros((*gradient.shape, 3))
        coupling[..., 0, 0] = coupling[..., 1, 1] = 1.0 / groups
        coupling[..., :, 2] = energy1
        sides = np.concatenate([gradient[..., None], coupling], axis=-1)
        solved = vectors @ ((vectors.swapaxes(-1, -2) @ sides) / values[..., None])
        plain, columns = solved[..., 0], solved[..., 1:]
        small = np.einsum("nkij,nkil->njl", coupling, columns)
        small += np.eye(3) * (self.budget**2 / weight)[:, None, :]
        right = np.einsum("nkij,nki->nj", coupling, plain)
        step = plain - np.einsum("nkij,nj->nki", columns, np.linalg.solve(small, right[..., None])[..., 0])
        return step * self._reach(step, in_time1, energy1)[:, None, None]

    def _reach(self, step: Array, in_time1: Array, energy1: Array) -> Array:
        """(n,) the largest part of a step, at most 1, that keeps off every limit as far as slopes tell."""
        used = np.stack([np.mean(step[..., 0], -1), np.mean(step[..., 1], -1), np.sum(energy1 * step, (-2, -1))], -1)
        late = -np.einsum("nkui,nki->nku", in_time1, step)
        ratio = step[..., 2:]
        lost = np.concatenate([late, -ratio, ratio], axis=-1) / self.slack
        return 1.0 / np.maximum(1.0, np.maximum(np.max(lost, (-2, -1)), np.max(used / self.budget, -1)) / TO_THE_WALL)
