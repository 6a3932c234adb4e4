"""User pairs as one axis, and the perfect matching of largest total score."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from semcom_gym.envs.arrays import Array, frozen, like, namespace, pick, to_numpy

ENUMERATED_USERS = 14  # up to here all matchings are compared, level by level; above, a blossom algorithm
BLOSSOM_SCALE = 2.0**40  # it wants integers


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

    Each level is (pairs, rest), both (states, choices): the pair chosen, and the state one level down that is left.
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
        levels.append((np.array(pairs), np.array(rest)))
    return levels


def best_matching(score: Array, users: int) -> Array:
    """(n, N / 2) the pairs, in rising order, of the perfect matching with the largest total of ``score`` (n, M).

    Exact: dynamic programming over the free users up to ``ENUMERATED_USERS``, rustworkx's blossom algorithm above.
    """
    score = frozen(score)
    if users > ENUMERATED_USERS:
        return like(np.stack([_blossom(row, users) for row in to_numpy(score).astype(float)]), score)
    xp = namespace(score)
    by_pair = xp.asarray(score.T, copy=True)
    values = [xp.zeros_like(by_pair[:1])]
    for pairs, rest in _levels(users):
        best = by_pair[pairs[:, 0]] + values[-1][rest[:, 0]]
        for choice in range(1, pairs.shape[1]):
            best = xp.maximum(best, by_pair[pairs[:, choice]] + values[-1][rest[:, choice]])
        values.append(best)
    return _read_back(score, users, values)


def _read_back(score: Array, users: int, values: list[Array]) -> Array:
    """The matching behind the values of all states: at each level the choice that attains the best."""
    xp = namespace(score)
    n = score.shape[0]
    instance = xp.arange(n, device=score.device)[:, None]
    state = xp.zeros(n, dtype=xp.int64, device=score.device)
    chosen = []
    levels = _levels(users)
    for level in range(len(levels) - 1, -1, -1):
        pairs, rest = (like(table, score)[state] for table in levels[level])  # (n, choices)
        take = xp.argmax(pick(score, pairs) + values[level][rest, instance], axis=-1)[:, None]
        chosen.append(pick(pairs, take))
        state = pick(rest, take)[:, 0]
    return xp.sort(xp.concat(chosen, axis=-1), axis=-1)


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
    both = like(members(users), pairs)[pairs]  # (n, K, 2)
    same = both[..., None] == xp.arange(users, device=pairs.device)
    return xp.sum(xp.sum(xp.astype(same, xp.int64), axis=-2), axis=-2)
