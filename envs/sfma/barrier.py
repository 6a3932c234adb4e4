"""A batched interior-point method for power, bandwidth and ratios of pairings that are already decided.

Newton's method climbs the sum rate plus a logarithmic barrier whose weight falls. Groups are coupled by three budgets
only, so a step solves 3 x 3 systems. The rate is not concave: indefinite curvature is replaced by its absolute value,
and what is found is a local optimum near its start.

Inside, the pairings are the last axis, so that every operation is a long one: (K, n) of groups, (2, K, n) of users.
Power and bandwidth are in equal shares, Pmax / K and Bmax / K, rates in Mbit/s. Symmetric 3 x 3 matrices are as in
:mod:`symmetric`.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.envs.arrays import (
    Array,
    at_least,
    at_rows,
    chunk,
    concatenate,
    copied,
    falling,
    in_order,
    largest,
    like,
    namespace,
    rows_where,
    smallest,
    turned,
)
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.instance import Params
from semcom_gym.envs.sfma.physics import LN2, MBIT, Allocation, Links
from semcom_gym.envs.sfma.symmetric import COLUMN, ROW, SQUARE, inverted, times

CHUNK, ELSEWHERE = 2560, 1 << 18  # groups at a time: temporaries that fit a CPU's cache; off the CPU, 2 GB
LAST_WEIGHT, WEIGHT_FALL = 2e-5, 0.6  # of the barrier [Mbit/s], and its factor from step to step
HALVINGS, SHORTER = 7, 0.4
LEAST_BEND = 1e-3  # added to the curvature of every group: along a flat direction steps would be rounding
TO_THE_WALL = 0.95  # of the way to where a limit would be met, by its slope


def improve(params: Params, link: Links, allocation: Allocation, weight: float, iterations: int) -> Allocation:
    """Climb from allocations, the barrier's weight falling from ``weight``; one that is not inside stays as it is."""
    parts = []
    size = max(1, chunk(allocation.ratio, CHUNK, ELSEWHERE) // params.num_groups)
    for low in range(0, len(allocation), size):
        rows = slice(low, low + size)
        begun = State.of(params, link[rows], allocation[rows])
        parts.append(climb(begun, weight, iterations).allocation(allocation.pair[rows]))
    return concatenate(parts)


def climb(state: State, weight: float, iterations: int) -> State:
    """The states after Newton steps; one that is not inside stays as it is."""
    ready = rows_where(state.worst > 0)
    if not len(ready):
        return state
    inside = state[ready]
    for _ in range(iterations):
        inside = search(inside, inside.direction(weight), weight)
        weight = max(WEIGHT_FALL * weight, LAST_WEIGHT)
    return inside if len(ready) == len(state.worst) else state.replaced(ready, inside)


def search(state: State, step: Array, weight: float) -> State:
    """The state after the longest of a few steps along ``step`` (3, K, n) that raises the barrier function."""
    before = state.barrier(weight)
    moved = state.moved(step)
    worse = rows_where(~(moved.barrier(weight) >= before))
    if not len(worse):
        return moved
    length = namespace(before).ones_like(before)
    for _ in range(HALVINGS):
        length[worse] *= SHORTER
        tried = state[worse].moved(length[worse] * at_rows(step, worse))
        worse = worse[~(tried.barrier(weight) >= before[worse])]
        if not len(worse):
            break
    length[worse] = 0.0
    return state.moved(length * step)


class Groups:
    """Constants of pairings: ``group`` (6, K, n) and ``user`` (3, 2, K, n), in the units of the module."""

    def __init__(self, params: Params, group: Array, user: Array) -> None:
        self.params, self.group, self.user = params, group, user
        self.power_slope, self.ratio_slope, self.offset, self.rho_min, self.span, self.low = group
        self.noise, self.source, self.reach = user
        self.unit_rate = MBIT * params.max_bandwidth_hz / params.num_groups / LN2

    @classmethod
    def of(cls, params: Params, link: Links) -> Groups:
        """Those of links (n, K)."""
        unit_p, unit_b = params.max_power_w / params.num_groups, params.max_bandwidth_hz / params.num_groups
        low = physics.distortion_floor(params, link)
        group = (
            link.power_slope * unit_p,
            link.ratio_slope,
            link.offset,
            link.rho_min,
            link.rho_max - link.rho_min,
            low,
        )
        source = MBIT * link.source_bit
        with np.errstate(divide="ignore"):
            user = (unit_b / unit_p / link.snr, source, link.spare_s / source)  # the last: seconds per Mbit
        xp = namespace(low)
        return cls(params, xp.stack([turned(x) for x in group]), xp.stack([turned(x) for x in user]))

    def __getitem__(self, rows: Array) -> Groups:
        return Groups(self.params, at_rows(self.group, rows), at_rows(self.user, rows))


class State:
    """Points (3, K, n), power, bandwidth and ratio, with the slack of every limit and the Newton step from there."""

    def __init__(self, groups: Groups, point: Array) -> None:
        self.groups, self.point = groups, point
        g, params, xp = groups, groups.params, namespace(point)
        p, b, delta = point
        with np.errstate(all="ignore"):  # a step may leave the domain; the slack then says so
            self.fall = falling(g.power_slope * p + g.ratio_slope * delta + g.offset)
            self.wait = (b / p) * g.noise
            self.x = (g.rho_min + g.span * self.fall) + self.wait
            self.log = xp.log1p(1.0 / self.x)
            self.rate = (g.unit_rate * b) * self.log
            late = g.source / self.rate
            self.later = late[1] > late[0]
            self.sent = (params.max_power_w / params.num_groups) * p * delta * xp.maximum(late[0], late[1])  # joule
            energy = (self.sent - params.energy_coefficient_j * xp.log(delta)) / params.max_energy_j
            self.budget = 1.0 - xp.stack([_sum(p) / len(p), _sum(b) / len(b), _sum(energy)])
            bounds = xp.stack([delta - g.low, 1.0 - delta])
            self.slack = xp.concat([self.rate * g.reach - delta, bounds])  # (4, K, n)
            worst = xp.minimum(smallest(self.slack, (0, 1)), smallest(self.budget, 0))
            self.worst = xp.where((smallest(point, (0, 1)) > 0) & xp.isfinite(worst), worst, -np.inf)

    @classmethod
    def of(cls, params: Params, link: Links, allocation: Allocation) -> State:
        """The states of allocations (n, K)."""
        k, a = params.num_groups, allocation
        point = (a.power_w * (k / params.max_power_w), a.bandwidth_hz * (k / params.max_bandwidth_hz), a.ratio)
        return cls(Groups.of(params, link), namespace(a.ratio).stack([turned(x) for x in point]))

    def allocation(self, pair: Array) -> Allocation:
        """The allocations of the pairs (n, K)."""
        params = self.groups.params
        p, b, delta = (in_order(turned(x)) for x in self.point)
        k = params.num_groups
        return Allocation(pair, p * (params.max_power_w / k), b * (params.max_bandwidth_hz / k), delta)

    def __getitem__(self, rows: Array) -> State:
        return State(self.groups[rows], at_rows(self.point, rows))

    def replaced(self, rows: Array, part: State) -> State:
        """The states with those at ``rows`` replaced."""
        point = copied(self.point)
        point[..., rows] = part.point
        return State(self.groups, point)

    def score(self) -> Array:
        """(n,) the sum rate [Mbit/s], or minus the worst excess of a limit."""
        return namespace(self.worst).where(self.worst >= 0, _sum(self.rate), at_least(self.worst, -1e9))

    def barrier(self, weight: float) -> Array:
        """(n,) sum rate plus the weighted logarithms of all slacks; -inf outside."""
        xp = namespace(self.worst)
        with np.errstate(all="ignore"):
            logs = _sum(xp.log(self.slack)) + _sum(xp.log(self.budget))
            found = _sum(self.rate) + weight * logs
        return xp.where(self.worst > 0, found, -np.inf)

    def moved(self, step: Array) -> State:
        """The state after a step (3, K, n)."""
        return State(self.groups, self.point + step)

    def _derivatives(self) -> tuple[Array, Array]:
        """Gradient (3, 2, K, n) and Hessian (6, 2, K, n) of the rates."""
        g = self.groups
        p, b, _ = self.point
        bend = g.span * self.fall * (1.0 - self.fall)
        slope = -bend * g.group[:2]  # of rho, by power and ratio
        inverse = 1.0 / (self.x * (1.0 + self.x))
        x1 = namespace(p).empty((3, *self.x.shape), dtype=p.dtype, device=p.device)  # of x = rho + wait
        x1[0], x1[1], x1[2] = slope[0] - self.wait / p, self.wait / b, slope[1]
        bend *= 1.0 - 2.0 * self.fall
        second = ((1.0 + 2.0 * self.x) * inverse) * x1[like(ROW, x1)] * x1[like(COLUMN, x1)]
        second[0] -= bend * g.power_slope * g.power_slope + 2.0 * self.wait / (p * p)
        second[1] += self.wait / (p * b)
        second[2] -= bend * g.power_slope * g.ratio_slope
        second[5] -= bend * g.ratio_slope * g.ratio_slope
        second *= inverse * (g.unit_rate * b)
        first = x1 * (-g.unit_rate * inverse)  # by log(1 + 1 / x) times the unit of the rate
        second[1] += first[0]
        second[3] += 2.0 * first[1]
        second[4] += first[2]
        first *= b
        first[1] += g.unit_rate * self.log
        return first, second

    def _energy_derivatives(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Gradient (3, K, n) and Hessian (6, K, n) of E_k / Emax, by the later user of each group."""
        p, _, delta = self.point
        params, xp = self.groups.params, namespace(p)
        rate = xp.where(self.later, self.rate[1], self.rate[0])
        r1 = xp.where(self.later, first[:, 1], first[:, 0]) / rate
        r2 = xp.where(self.later, second[:, 1], second[:, 0]) / rate
        # what is sent costs p delta / rate: its logarithm has the gradient s, and its Hessian is its own times
        s = -r1
        s[0] += 1.0 / p
        s[2] += 1.0 / delta
        row, column = like(ROW, s), like(COLUMN, s)
        hessian = s[row] * s[column] + r1[row] * r1[column] - r2
        hessian[0] -= 1.0 / (p * p)
        hessian[5] -= 1.0 / (delta * delta)
        hessian *= self.sent / params.max_energy_j
        gradient = s * (self.sent / params.max_energy_j)
        gradient[2] -= params.energy_coefficient_j / params.max_energy_j / delta
        hessian[5] += params.energy_coefficient_j / params.max_energy_j / (delta * delta)
        return gradient, hessian

    def direction(self, weight: float) -> Array:
        """The Newton step (3, K, n) up the barrier function."""
        first, second = self._derivatives()
        energy1, energy2 = self._energy_derivatives(first, second)
        groups = self.groups.params.num_groups
        in_time1 = first * self.groups.reach
        in_time1[2] -= 1.0
        over = 1.0 / self.slack
        pull = weight / self.budget  # (3, n): power, bandwidth, energy
        push = weight * over[:2]
        gradient = (first + push * in_time1).sum(1)
        gradient[2] += weight * (over[2] - over[3])
        gradient[:2] -= pull[:2, None] / groups
        gradient -= pull[2] * energy1
        curve = pull[2] * energy2
        curve -= ((1.0 + push * self.groups.reach) * second).sum(1)
        curve += ((push * over[:2]) * in_time1[like(ROW, push)] * in_time1[like(COLUMN, push)]).sum(1)
        curve[5] += weight * (over[2] ** 2 + over[3] ** 2)
        for entry in SQUARE.diagonal().tolist():
            curve[entry] += LEAST_BEND
        step = _coupled(inverted(curve), gradient, energy1, self.budget**2 / weight)
        return step * self._reach(step, in_time1, energy1)

    def _reach(self, step: Array, in_time1: Array, energy1: Array) -> Array:
        """(n,) the largest part of a step, at most 1, that keeps off every limit as far as slopes tell."""
        xp = namespace(step)
        used = xp.stack([_sum(step[0]) / step.shape[1], _sum(step[1]) / step.shape[1], _sum(energy1 * step)])
        late = (in_time1 * step[:, None]).sum(0)
        lost = xp.concat([-late, xp.stack([-step[2], step[2]])]) / self.slack
        return 1.0 / at_least(xp.maximum(largest(lost, (0, 1)), largest(used / self.budget, 0)) / TO_THE_WALL, 1.0)


def _coupled(inverse: Array, gradient: Array, energy1: Array, room: Array) -> Array:
    """The step (3, K, n) where the budgets couple the groups by a matrix of rank three (Woodbury).

    inverse (6, K, n): of the groups' own curvature. room (3, n): of the budgets.
    """
    groups, xp = gradient.shape[1], namespace(gradient)
    plain, by_energy = times(inverse, gradient), times(inverse, energy1)
    small = xp.stack([
        _sum(inverse[0]) / groups**2, _sum(inverse[1]) / groups**2, _sum(by_energy[0]) / groups,
        _sum(inverse[3]) / groups**2, _sum(by_energy[1]) / groups, _sum(energy1 * by_energy),
    ])  # fmt: skip
    for entry, own in zip((0, 3, 5), room, strict=True):
        small[entry] += own
    right = xp.stack([_sum(plain[0]) / groups, _sum(plain[1]) / groups, _sum(energy1 * plain)])
    by_power, by_bandwidth, rest = times(inverted(small), right)
    second = inverse[like(SQUARE, inverse)[1]]
    return plain - inverse[:3] * (by_power / groups) - second * (by_bandwidth / groups) - by_energy * rest


def _sum(x: Array) -> Array:
    """(n,) the sum over all axes but the last, in an order that is the same for one pairing and for many."""
    x = x.reshape(-1, x.shape[-1])
    return x.sum(0) if x.shape[-1] > 1 else x.cumsum(0)[-1]
