"""Power, bandwidth and ratios for pairings that are already decided: a batched interior-point method.

At the optimum one group, the winner, holds what the others leave, so every start gives one group more than the rest.
From there Newton's method climbs the sum rate plus a logarithmic barrier whose weight falls. Groups are coupled by
three budgets only, so a step solves 3 x 3 systems. The rate is not concave: indefinite curvature is replaced by its
absolute value, and what is found is a local optimum near its start.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from semcom_gym.envs.arrays import Array, concatenate, total
from semcom_gym.envs.sfma import actions, frugal, physics, prices
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import LN2, MBIT, Allocation, Links

SCREENING, ITERATIONS, FINALISTS = 6, 16, 3
PRICED = 64  # instances whose tables are held at once
CHUNK = 512  # starts at a time: where NumPy's temporaries still fit the cache
WINNERS = 5  # groups tried as the winner
FIRST_WEIGHT, LAST_WEIGHT, WEIGHT_FALL = 1.0, 2e-5, 0.6  # of the barrier [Mbit/s]
INSIDE = (0.98, 0.998)  # starts keep this share of every limit, the second where the first leaves nothing
HALVINGS, SHORTER = 7, 0.4
TO_THE_WALL = 0.95  # of the way to where a limit would be met, by its slope
LEAST_CURVATURE = 1e-6
EVEN_RATIOS = (0.0, 0.9)  # entries of the ratio in the starts with equal shares
COSTLY = 1.5  # times the energy budget: what all power costs in all the time, above which little of it can be used
LEFT, WINNING_RATIO = 0.1, 0.5  # least share of the budgets and least ratio of the winner of a start
LEAST_SPARE = 1e-3  # of its bandwidth that a group has above its floor in a start


def allocate(params: Params, instance: Instance, pair: Array) -> Allocation:
    """The best allocation found for the pairs (n, K).

    Where no start is inside every limit, the allocation of a start, which may break one.
    """
    parts = []
    for low in range(0, len(pair), PRICED):
        rows = slice(low, low + PRICED)
        link = physics.links(params, instance[rows], pair[rows])
        table = prices.tabulate(params, link)
        modest = table.modest(prices.search(table, _all)[0])
        parts.append(best_of(params, instance[rows], pair[rows][:, None], modest[:, None]))
    return concatenate(parts)


def _all(net: Array) -> Array:
    """The choice of every pair, where the pairing is decided."""
    return np.broadcast_to(np.arange(net.shape[1]), net.shape)


def best_of(params: Params, instance: Instance, pair: Array, modest: Array) -> Allocation:
    """The best allocation found for any of the pairings (n, C, K), with several groups in turn as the winner.

    modest (n, C, K, 4): what each group holds if it is not (``prices.Table.modest``); the winner starts with the rest.
    Two more starts share everything equally. All starts climb a few steps; the best few of an instance climb on.
    """
    n, candidates, groups = pair.shape
    tried = min(WINNERS, groups)
    modest = modest.reshape(-1, groups, 4)
    link = physics.links(params, instance[np.repeat(np.arange(n), candidates)], pair.reshape(-1, groups))
    winner = _winners(params, link, modest, tried).ravel()
    rows = np.repeat(np.arange(len(modest)), tried)
    starts = [_start(params, link[rows], pair.reshape(-1, groups)[rows], modest[rows], winner)]
    for ratio in EVEN_RATIOS:
        even = np.zeros((len(modest), 3, groups))
        even[:, 2] = ratio
        starts.append(start(params, link, pair.reshape(-1, groups), even))
    each = np.arange(len(modest))
    owner = np.concatenate([rows, *[each] * len(EVEN_RATIOS)])
    link, found = link[owner], improve(params, link[owner], concatenate(starts), FIRST_WEIGHT, SCREENING)
    every = np.argsort(owner // candidates, kind="stable").reshape(n, -1)  # the starts of an instance
    rank = np.argsort(-_score(params, link, found)[every], axis=-1, kind="stable")[:, :FINALISTS]
    last = np.take_along_axis(every, rank, -1)
    link, found = link[last.ravel()], found[last.ravel()]
    found = improve(params, link, found, FIRST_WEIGHT * WEIGHT_FALL**SCREENING, ITERATIONS)
    best, score = _best(params, link, found, n)
    costly = params.max_power_w * params.max_latency_s > COSTLY * params.max_energy_j
    lost = np.flatnonzero(costly | (score < 0))
    if len(lost):
        rescued, other = _rescue(params, instance[lost], pair[lost])
        better = other > score[lost]
        best = _spread(rescued[better], lost[better], best)
    return best


def _best(params: Params, link: Links, found: Allocation, n: int) -> tuple[Allocation, Array]:
    """The best of the allocations of each of n instances, and its score."""
    score = _score(params, link, found).reshape(n, -1)
    return found[np.argmax(score, axis=-1) + score.shape[1] * np.arange(n)], np.max(score, axis=-1)


def _rescue(params: Params, instance: Instance, pair: Array) -> tuple[Allocation, Array]:
    """As :func:`best_of`, from shares of little energy: where the energy budget leaves no other start."""
    n, candidates, groups = pair.shape
    pair = pair.reshape(-1, groups)
    link = physics.links(params, instance[np.repeat(np.arange(n), candidates)], pair)
    power, bandwidth = frugal.shares(params, link)
    wanted = Allocation(pair, power, bandwidth, np.minimum(physics.distortion_floor(params, link), 1.0))
    found = start(params, link, pair, actions.group_entries(params, link, wanted, LEAST_SPARE))
    return _best(params, link, improve(params, link, found, FIRST_WEIGHT, SCREENING + ITERATIONS), n)


def _spread(part: Allocation, rows: Array, whole: Allocation) -> Allocation:
    """``whole`` with the allocations at ``rows`` replaced."""
    fields = {name: getattr(whole, name).copy() for name in vars(whole)}
    for name, value in fields.items():
        value[rows] = getattr(part, name)
    return Allocation(**fields)


def _winners(params: Params, link: Links, modest: Array, count: int) -> Array:
    """(n, count) the groups that add most as the winner: the rate with what the others leave, less the modest one."""
    left = np.maximum(1.0 - modest[..., 1:3].sum(axis=1, keepdims=True) + modest[..., 1:3], LEFT)
    power, bandwidth = params.max_power_w * left[..., 0], params.max_bandwidth_hz * left[..., 1]
    rate = total(physics.rates(link, power, bandwidth, np.maximum(modest[..., 3], WINNING_RATIO)))
    return np.argsort(prices.SCALE * modest[..., 0] - MBIT * rate, axis=-1, kind="stable")[:, :count]


def _start(params: Params, link: Links, pair: Array, modest: Array, winner: Array) -> Allocation:
    """Allocations inside every limit where there are any: the winners (n,) hold what the others leave."""
    share, each = modest[..., 1:3].copy(), np.arange(len(winner))
    share[each, winner] = np.maximum(1.0 - share.sum(axis=1) + share[each, winner], LEFT)
    ratio = modest[..., 3].copy()
    ratio[each, winner] = np.maximum(ratio[each, winner], WINNING_RATIO)
    wanted = Allocation(pair, params.max_power_w * share[..., 0], params.max_bandwidth_hz * share[..., 1], ratio)
    return start(params, link, pair, actions.group_entries(params, link, wanted, LEAST_SPARE))


def from_entries(params: Params, instance: Instance, pair: Array, entries: Array) -> Allocation:
    """Climb from action entries (n, 3, K) of the pairs (n, K)."""
    link = physics.links(params, instance, pair)
    return improve(params, link, start(params, link, pair, entries), FIRST_WEIGHT, SCREENING + ITERATIONS)


def choose(rows: Array, new: Allocation, old: Allocation) -> Allocation:
    """``new`` in some rows (n,), ``old`` in the others."""
    return Allocation(*(np.where(rows[:, None], getattr(new, name), getattr(old, name)) for name in vars(old)))


def _score(params: Params, link: Links, allocation: Allocation) -> Array:
    """(n,) the sum rate, or minus the worst excess of a limit."""
    state = _State(params, link, physics.distortion_floor(params, link), allocation)
    return np.where(state.worst >= 0, total(total(state.rate)), np.maximum(state.worst, -1e9))


def start(params: Params, link: Links, pair: Array, entries: Array) -> Allocation:
    """Allocations of action entries (n, 3, K) that keep inside every limit where there are any."""
    result = None
    for share in INSIDE:
        tighter = dataclasses.replace(
            params,
            max_power_w=share * params.max_power_w,
            max_bandwidth_hz=share * params.max_bandwidth_hz,
            energy_per_group_j=share * params.energy_per_group_j,
            max_distortion=share * params.max_distortion,
        )
        inner = dataclasses.replace(link, spare_s=share * link.spare_s)
        found = actions.allot(tighter, inner, pair, entries)
        ratio = np.minimum(found.ratio, share)
        floor = np.minimum(physics.distortion_floor(tighter, link), 1.0)
        found = dataclasses.replace(found, ratio=np.maximum(ratio, floor))
        if result is None:
            result = found
            good = _State(params, link, physics.distortion_floor(params, link), found).worst > 0
        else:
            result = choose(good, result, found)
    assert result is not None
    return result


def improve(params: Params, link: Links, allocation: Allocation, weight: float, iterations: int) -> Allocation:
    """Climb from allocations, the barrier's weight falling from ``weight``; one that is not inside stays as it is."""
    parts = []
    for low in range(0, len(allocation), CHUNK):
        rows = slice(low, low + CHUNK)
        parts.append(_climb(params, link[rows], allocation[rows], weight, iterations))
    return concatenate(parts)


def _climb(params: Params, link: Links, allocation: Allocation, weight: float, iterations: int) -> Allocation:
    low = physics.distortion_floor(params, link)
    ready = np.flatnonzero(_State(params, link, low, allocation).worst > 0)
    if not len(ready):
        return allocation
    state = _State(params, link[ready], low[ready], allocation[ready])
    for _ in range(iterations):
        state = _search(state, state.direction(weight), weight)
        weight = max(WEIGHT_FALL * weight, LAST_WEIGHT)
    return _spread(state.allocation, ready, allocation)


def _search(state: _State, step: Array, weight: float) -> _State:
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


class _State:
    """Allocations with the slack of every limit, and the Newton step of the barrier function.

    Variables (n, K, 3): power over Pmax / K, bandwidth over Bmax / K, ratio. Rates are in Mbit/s.
    """

    def __init__(self, params: Params, link: Links, low: Array, allocation: Allocation) -> None:
        """low (n, K): the distortion floor of the ratio."""
        self.params, self.link, self.low, self.allocation = params, link, low, allocation
        p, b, delta = allocation.power_w, allocation.bandwidth_hz, allocation.ratio
        with np.errstate(all="ignore"):  # a step may leave the domain; the slack then says so
            rise = link.power_slope * p + link.ratio_slope * delta + link.offset
            self.fall = 0.5 - 0.5 * np.tanh(0.5 * rise)
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

    def __getitem__(self, rows: Array) -> _State:
        return _State(self.params, self.link[rows], self.low[rows], self.allocation[rows])

    def barrier(self, weight: float) -> Array:
        """(n,) sum rate plus the weighted logarithms of all slacks; -inf outside."""
        with np.errstate(all="ignore"):
            logs = np.sum(np.log(self.slack), axis=(-2, -1)) + np.sum(np.log(self.budget), axis=-1)
            found = np.sum(self.rate, axis=(-2, -1)) + weight * logs
        return np.where(self.worst > 0, found, -np.inf)

    def moved(self, step: Array) -> _State:
        """The state after a step (n, K, 3)."""
        a, share = self.allocation, 1.0 / self.params.num_groups
        power = a.power_w + (share * self.params.max_power_w) * step[..., 0]
        bandwidth = a.bandwidth_hz + (share * self.params.max_bandwidth_hz) * step[..., 1]
        return _State(self.params, self.link, self.low, Allocation(a.pair, power, bandwidth, a.ratio + step[..., 2]))

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
