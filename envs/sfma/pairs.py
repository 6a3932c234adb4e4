"""User pairs as one axis, and the perfect matching of largest total score."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from semcom_gym.envs.arrays import Array, chunk, frozen, in_order, like, namespace, to_numpy, turned

ENUMERATED_USERS = 14  # up to here all matchings are compared, level by level; above, a blossom algorithm
BLOSSOM_SCALE = 2.0**40  # it wants integers
LISTED_USERS, LISTED_ROWS = 10, 32  # 945 matchings; for more rows the levels are faster
LISTED_ELSEWHERE = 4096  # rows off the CPU, where the levels are a hundred times as many operations: 31 MB


def count(users: int) -> int:
    """Number M of pairs."""
    return users * (users - 1) // 2


@functools.cache
def members(users: int) -> np.ndarray[Any, Any]:
    """(M, 2) the users i < j of every pair, in lexicographic order."""
    return np.stack(np.triu_indices(users, 1), axis=-1)


@functools.cache
def index(users: int) -> np.ndarray[Any, Any]:
    """(N, N) the pair of two users; on the diagonal 0, which means nothing."""
    table = np.zeros((users, users), np.int64)
    left, right = members(users).T
    table[left, right] = table[right, left] = np.arange(len(left))
    return table


@functools.cache
def _levels(users: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """The states of a matching that always pairs the lowest free user, from two free users up to all.

    Each level is (pairs, rest), both (choices, states): the pair chosen, and the state one level down that is left.
    """
    left: list[list[tuple[int, ...]]] = [[tuple(range(users))]]
    while len(left[-1][0]) > 2:
        smaller = {free[1:k] + free[k + 1 :] for free in left[-1] for k in range(1, len(free))}
        left.append(sorted(smaller))
    levels = []
    for depth in range(len(left) - 1, -1, -1):
        below: dict[tuple[int, ...], int]
        below = {free: row for row, free in enumerate(left[depth + 1])} if depth + 1 < len(left) else {(): 0}
        pairs = [[index(users)[free[0], free[k]] for k in range(1, len(free))] for free in left[depth]]
        rest = [[below[free[1:k] + free[k + 1 :]] for k in range(1, len(free))] for free in left[depth]]
        levels.append((np.array(pairs).T.copy(), np.array(rest).T.copy()))
    return levels


@functools.cache
def _all_matchings(users: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The perfect matchings in lexicographic order: their pairs (matchings, N / 2), and which pair is in which, (M,
    matchings) 0 or 1.
    """
    levels = _levels(users)
    state, rows = np.zeros(1, np.int64), np.empty((1, 0), np.int64)
    for pairs, rest in reversed(levels):
        choices = len(pairs)
        rows = np.concatenate([rows.repeat(choices, 0), pairs.T[state].reshape(-1, 1)], axis=1)
        state = rest.T[state].ravel()
    within = np.zeros((count(users), len(rows)))
    within[rows, np.arange(len(rows))[:, None]] = 1.0
    return np.sort(rows, axis=1), within


@functools.cache
def _matchings_with(users: int) -> np.ndarray[Any, Any]:
    """(M, matchings) which matchings of :func:`_all_matchings` have each pair."""
    return np.stack([np.flatnonzero(row) for row in _all_matchings(users)[1]])


def best_totals(score: Array, users: int) -> Array:
    """(n, M) the largest total of ``score`` (n, M; NumPy) over the perfect matchings that have each pair; up to
    ``LISTED_USERS`` users.
    """
    return (score @ _all_matchings(users)[1])[:, _matchings_with(users)].max(axis=-1)


def best_matching(score: Array, users: int) -> Array:
    """(n, N / 2) the pairs, in rising order, of the perfect matching with the largest total of ``score`` (n, M).

    Exact: dynamic programming over the free users up to ``ENUMERATED_USERS``, rustworkx's blossom algorithm above; for
    a few rows and users the totals of all matchings. Where totals are equal, the first in lexicographic order.
    """
    score = frozen(score)
    xp = namespace(score)
    if users <= LISTED_USERS and len(score) <= chunk(score, LISTED_ROWS, LISTED_ELSEWHERE):
        matchings, within = _all_matchings(users)
        wide = xp.astype(score, xp.float64, copy=False)
        return like(matchings, score)[xp.argmax(wide @ like(within, wide), axis=1)]
    if users > ENUMERATED_USERS:
        found = np.stack([_blossom(row, users) for row in to_numpy(score).astype(float)])
        return xp.asarray(found, device=score.device)
    by_pair = in_order(turned(score))
    values = [xp.zeros_like(by_pair[:1])]
    for pairs, rest in _levels(users)[:-1]:
        best = None
        for pair, left in zip(like(pairs, score), like(rest, score), strict=True):
            tried = xp.take(by_pair, pair, axis=0)
            tried += xp.take(values[-1], left, axis=0)
            best = tried if best is None else xp.maximum(best, tried)
        values.append(best)
    return _read_back(score, users, values)


def _read_back(score: Array, users: int, values: list[Array]) -> Array:
    """The matching behind the values of all states: at each level the choice that attains the best."""
    xp = namespace(score)
    n = score.shape[0]
    each = xp.arange(n, device=score.device)
    state = xp.zeros_like(each)
    chosen = []
    for (pairs, rest), value in zip(reversed(_levels(users)), reversed(values), strict=True):
        pair, left = (xp.take(like(table, score), state, axis=1) for table in (pairs, rest))  # (choices, n)
        take = xp.argmax(score.take(pair + score.shape[1] * each) + value.take(n * left + each), axis=0)
        chosen.append(pair.take(n * take + each))
        state = left.take(n * take + each)
    return turned(xp.sort(xp.stack(chosen), axis=0))


def _blossom(score: np.ndarray[Any, Any], users: int) -> np.ndarray[Any, Any]:
    import rustworkx

    graph = rustworkx.PyGraph(multigraph=False)
    graph.add_nodes_from(range(users))
    # a matching of largest cardinality is perfect in a complete graph; the shift keeps weights positive
    weight = np.rint((score - score.min()) / max(float(np.ptp(score)), 1e-300) * BLOSSOM_SCALE).astype(np.int64)
    graph.add_edges_from([(int(i), int(j), int(w)) for (i, j), w in zip(members(users), weight, strict=True)])
    found = rustworkx.max_weight_matching(graph, max_cardinality=True, weight_fn=int)
    return np.sort([index(users)[i, j] for i, j in found])


def uses(pairs: Array, users: int) -> Array:
    """(n, N) how many of the groups' pairs (n, K) each user is in: 1 everywhere in a perfect matching."""
    xp = namespace(pairs)
    n = pairs.shape[0]
    place = turned(like(members(users), pairs))[:, turned(pairs)] + users * xp.arange(n, device=pairs.device)
    return xp.reshape(xp.bincount(xp.reshape(place, (-1,)), minlength=n * users), (n, users))
