"""Power, bandwidth and ratios for pairings that are already decided: where the climbs of :mod:`barrier` start.

At the optimum one group, the winner, holds what the others leave, so most starts give one group more than the rest.
"""

from __future__ import annotations

import dataclasses

from semcom_gym.envs.arrays import (
    Array,
    at_least,
    at_most,
    chunk,
    concatenate,
    copied,
    largest,
    namespace,
    rows_where,
    total,
)
from semcom_gym.envs.sfma import actions, frugal, physics, prices
from semcom_gym.envs.sfma.barrier import WEIGHT_FALL, State, climb, improve
from semcom_gym.envs.sfma.instance import Instance, Params
from semcom_gym.envs.sfma.physics import MBIT, Allocation, Links

SCREENING = 4  # steps that all starts climb
RACE = ((6, 2), (3, 4), (1, 12))  # how many of an instance then climb on, and how many steps
PRICED, ELSEWHERE = 64, 4096  # instances whose tables are held at once; off the CPU
WINNERS = 5  # groups tried as the winner
ITERATIONS = SCREENING + sum(steps for _, steps in RACE)
FIRST_WEIGHT = 1.0  # of the barrier [Mbit/s]
INSIDE = (0.98, 0.998)  # starts keep this share of every limit, the second where the first leaves nothing
COSTLY = 1.5  # times the energy budget: what all power costs in all the time, above which little of it can be used
LEFT, WINNING_RATIO = 0.1, 0.5  # least share of the budgets and least ratio of the winner of a start
LEAST_SPARE = 1e-3  # of its bandwidth that a group has above its floor in a start


def allocate(params: Params, instance: Instance, pair: Array) -> Allocation:
    """The best allocation found for the pairs (n, K).

    Where no start is inside every limit, the allocation of a start, which may break one.
    """
    parts = []
    size = chunk(pair, PRICED, ELSEWHERE)
    for low in range(0, len(pair), size):
        rows = slice(low, low + size)
        link = physics.links(params, instance[rows], pair[rows])
        table = prices.tabulate(params, link)
        modest = table.modest(prices.search(table, _all)[0])
        parts.append(best_of(params, instance[rows], pair[rows][:, None], modest[:, None]))
    return concatenate(parts)


def _all(net: Array) -> Array:
    """The choice of every pair, where the pairing is decided."""
    xp = namespace(net)
    return xp.broadcast_to(xp.arange(net.shape[1], device=net.device), net.shape)


def best_of(params: Params, instance: Instance, pair: Array, modest: Array) -> Allocation:
    """The best allocation found for any of the pairings (n, C, K), with several groups in turn as the winner.

    modest (n, C, K, 4): what each group holds if it is not (``prices.Table.modest``); the winner starts with the rest.
    One more start shares everything equally. All starts climb a few steps; the best few of an instance climb on.
    """
    xp = namespace(modest)
    n, candidates, groups = pair.shape
    tried = min(WINNERS, groups)
    modest = modest.reshape(-1, groups, 4)
    each = xp.arange(n * candidates, device=pair.device)
    link = physics.links(params, instance[each // candidates], pair.reshape(-1, groups))
    winner = _winners(params, link, modest, tried).reshape(-1)
    rows = xp.arange(n * candidates * tried, device=pair.device) // tried
    nothing = xp.zeros((len(modest), 3, groups), dtype=modest.dtype, device=modest.device)
    even = start(params, link, pair.reshape(-1, groups), nothing)
    begun = concatenate([_start(params, link[rows], pair.reshape(-1, groups)[rows], modest[rows], winner), even])
    owner = xp.concat([rows, each])
    every = xp.argsort(owner // candidates, stable=True).reshape(n, -1)  # the starts of an instance
    best, score = _race(params, link[owner], begun, every)
    costly = params.max_power_w * params.max_latency_s > COSTLY * params.max_energy_j
    lost = rows_where(costly | (score < 0))
    if len(lost):
        rescued, other = _rescue(params, instance[lost], pair[lost])
        better = other > score[lost]
        best = best.replaced(lost[better], rescued[better])
    return best


def _race(params: Params, link: Links, begun: Allocation, every: Array) -> tuple[Allocation, Array]:
    """The best allocation of each instance, whose starts are the rows ``every`` (n, S), and its score.

    All climb, and every few steps only the best go on.
    """
    xp = namespace(every)
    state = climb(State.of(params, link, begun), FIRST_WEIGHT, SCREENING)
    last = xp.arange(len(begun), device=every.device)
    weight = FIRST_WEIGHT * WEIGHT_FALL**SCREENING
    for kept, steps in (*RACE, (1, 0)):
        rank = xp.argsort(-state.score()[every], axis=-1, stable=True)[:, :kept]
        rows = xp.take_along_axis(every, rank, axis=-1)
        every = xp.arange(rows.shape[0] * rows.shape[1], device=rows.device).reshape(rows.shape)
        last, state = last[rows.reshape(-1)], climb(state[rows.reshape(-1)], weight, steps)
        weight *= WEIGHT_FALL**steps
    return state.allocation(begun.pair[last]), state.score()


def _best(params: Params, link: Links, found: Allocation, n: int) -> tuple[Allocation, Array]:
    """The best of the allocations of each of n instances, and its score."""
    score = _score(params, link, found).reshape(n, -1)
    xp = namespace(score)
    first = score.shape[1] * xp.arange(n, device=score.device)
    return found[first + xp.argmax(score, axis=-1)], largest(score)


def _rescue(params: Params, instance: Instance, pair: Array) -> tuple[Allocation, Array]:
    """As :func:`best_of`, from shares of little energy: where the energy budget leaves no other start."""
    n, candidates, groups = pair.shape
    pair = pair.reshape(-1, groups)
    each = namespace(pair).arange(n * candidates, device=pair.device)
    link = physics.links(params, instance[each // candidates], pair)
    power, bandwidth = frugal.shares(params, link)
    wanted = Allocation(pair, power, bandwidth, at_most(physics.distortion_floor(params, link), 1.0))
    found = start(params, link, pair, actions.group_entries(params, link, wanted, LEAST_SPARE))
    return _best(params, link, improve(params, link, found, FIRST_WEIGHT, ITERATIONS), n)


def _winners(params: Params, link: Links, modest: Array, count: int) -> Array:
    """(n, count) the groups that add most as the winner: the rate with what the others leave, less the modest one."""
    left = at_least(1.0 - modest[..., 1:3].sum(1)[:, None] + modest[..., 1:3], LEFT)
    power, bandwidth = params.max_power_w * left[..., 0], params.max_bandwidth_hz * left[..., 1]
    rate = total(physics.rates(link, power, bandwidth, at_least(modest[..., 3], WINNING_RATIO)))
    gain = MBIT * rate - prices.SCALE * modest[..., 0]
    return namespace(gain).argsort(-gain, axis=-1, stable=True)[:, :count]


def _start(params: Params, link: Links, pair: Array, modest: Array, winner: Array) -> Allocation:
    """Allocations inside every limit where there are any: the winners (n,) hold what the others leave."""
    share, ratio = copied(modest[..., 1:3]), copied(modest[..., 3])
    each = namespace(winner).arange(len(winner), device=winner.device)
    share[each, winner] = at_least(1.0 - share.sum(1) + share[each, winner], LEFT)
    ratio[each, winner] = at_least(ratio[each, winner], WINNING_RATIO)
    wanted = Allocation(pair, params.max_power_w * share[..., 0], params.max_bandwidth_hz * share[..., 1], ratio)
    return start(params, link, pair, actions.group_entries(params, link, wanted, LEAST_SPARE))


def from_entries(params: Params, instance: Instance, pair: Array, entries: Array) -> Allocation:
    """Climb from action entries (n, 3, K) of the pairs (n, K)."""
    link = physics.links(params, instance, pair)
    return improve(params, link, start(params, link, pair, entries), FIRST_WEIGHT, ITERATIONS)


def _score(params: Params, link: Links, allocation: Allocation) -> Array:
    """(n,) the sum rate, or minus the worst excess of a limit."""
    return State.of(params, link, allocation).score()


def start(params: Params, link: Links, pair: Array, entries: Array) -> Allocation:
    """Allocations of action entries (n, 3, K) that keep inside every limit where there are any."""
    found = _inside(params, link, pair, entries, INSIDE[0])
    lost = rows_where(~(State.of(params, link, found).worst > 0))
    if len(lost):
        found = found.replaced(lost, _inside(params, link[lost], pair[lost], entries[lost], INSIDE[1]))
    return found


def _inside(params: Params, link: Links, pair: Array, entries: Array, share: float) -> Allocation:
    """Allocations of entries where only this share of every limit may be used."""
    tighter = dataclasses.replace(
        params,
        max_power_w=share * params.max_power_w,
        max_bandwidth_hz=share * params.max_bandwidth_hz,
        energy_per_group_j=share * params.energy_per_group_j,
        max_distortion=share * params.max_distortion,
    )
    found = actions.allot(tighter, dataclasses.replace(link, spare_s=share * link.spare_s), pair, entries)
    floor = at_most(physics.distortion_floor(tighter, link), 1.0)
    return dataclasses.replace(found, ratio=namespace(floor).maximum(at_most(found.ratio, share), floor))
