"""Pairs as one axis, and the perfect matching of largest total score against a search over all matchings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from semcom_gym.envs.sfma import pairs


def matchings(free: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Every way to split some users into pairs."""
    if not free:
        yield ()
        return
    for k in range(1, len(free)):
        for rest in matchings(free[1:k] + free[k + 1 :]):
            yield ((free[0], free[k]), *rest)


def total(score: np.ndarray, chosen: np.ndarray) -> float:
    return math.fsum(score[m] for m in chosen)


def is_perfect(chosen: np.ndarray, users: int) -> bool:
    lookup = list(itertools.combinations(range(users), 2))
    return sorted(u for m in chosen for u in lookup[m]) == list(range(users))


def scores(kind: str, n: int, users: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (n, users * (users - 1) // 2)
    return {
        "random": lambda: rng.normal(size=shape),
        "ties": lambda: rng.integers(0, 3, shape).astype(float),
        "constant": lambda: np.full(shape, -7.0),
        "negative": lambda: -rng.uniform(1, 100, shape),
        "forbidden": lambda: np.where(rng.random(shape) < 0.4, -1e3, 0.0) + rng.uniform(-1, 1, shape),
    }[kind]()


KINDS = ["random", "ties", "constant", "negative", "forbidden"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("users", [2, 4, 6, 8, 10])
def test_best_matching_against_all_matchings(users: int, kind: str) -> None:
    every = list(matchings(tuple(range(users))))
    assert len(every) == math.prod(range(users - 1, 0, -2))
    index = {pair: m for m, pair in enumerate(itertools.combinations(range(users), 2))}
    score = scores(kind, 5, users)
    for row, chosen in zip(score, pairs.best_matching(score, users), strict=True):
        assert is_perfect(chosen, users)
        assert (np.diff(chosen) > 0).all()
        best = max(math.fsum(row[index[pair]] for pair in matching) for matching in every)
        assert total(row, chosen) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("users", [4, 10, 12, 14])
def test_both_algorithms_agree(users: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    score = scores(kind, 10, users, seed=1)
    enumerated = pairs.best_matching(score, users)
    monkeypatch.setattr(pairs, "ENUMERATED_USERS", 0)
    blossom = pairs.best_matching(score, users)
    for row, a, b in zip(score, enumerated, blossom, strict=True):
        assert is_perfect(b, users)
        assert total(row, a) == pytest.approx(total(row, b), abs=1e-6)


def improved(score: np.ndarray, users: int, rng: np.random.Generator) -> float:
    """Total of a random matching after swapping partners between two pairs as long as that helps."""
    value = np.zeros((users, users))
    left, right = np.triu_indices(users, 1)
    value[left, right] = value[right, left] = score
    groups = rng.permutation(users).reshape(-1, 2).tolist()
    better = True
    while better:
        better = False
        for p, q in itertools.combinations(range(len(groups)), 2):
            (a, b), (c, d) = groups[p], groups[q]
            for one, other in (((a, c), (b, d)), ((a, d), (b, c))):
                if value[one] + value[other] > value[a, b] + value[c, d] + 1e-12:
                    groups[p], groups[q] = list(one), list(other)
                    better = True
                    break
    return math.fsum(value[a, b] for a, b in groups)


def test_a_hundred_users() -> None:
    score = scores("random", 2, 100)
    rng = np.random.default_rng(5)
    for row, chosen in zip(score, pairs.best_matching(score, 100), strict=True):
        assert is_perfect(chosen, 100)
        assert (np.diff(chosen) > 0).all()
        assert total(row, chosen) >= max(improved(row, 100, rng) for _ in range(3))


@pytest.mark.parametrize("users", [4, 10, 16])
def test_torch_gives_the_same_matching(users: int) -> None:
    torch = pytest.importorskip("torch")
    score = scores("random", 6, users)
    got = pairs.best_matching(torch.tensor(score, dtype=torch.float64), users)
    assert got.dtype == torch.int64
    np.testing.assert_array_equal(got.numpy(), pairs.best_matching(score, users))


@pytest.mark.filterwarnings("error")
def test_scores_with_a_gradient_are_taken_as_numbers() -> None:
    torch = pytest.importorskip("torch")
    for users in (6, 16):
        score = torch.tensor(scores("random", 3, users), requires_grad=True)
        chosen = pairs.best_matching(score, users)
        assert all(is_perfect(row.numpy(), users) for row in chosen)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("users", [10, 16])
def test_float32_scores(users: int) -> None:
    for kind in KINDS:
        score = scores(kind, 3, users)
        for row, chosen in zip(score, pairs.best_matching(score.astype(np.float32), users), strict=True):
            assert is_perfect(chosen, users)
            assert total(row, chosen) == pytest.approx(total(row, pairs.best_matching(row[None], users)[0]), abs=1e-3)


def test_scores_are_left_as_they_are() -> None:
    for users in (6, 16):
        score = scores("random", 2, users)
        before = score.copy()
        pairs.best_matching(score, users)
        np.testing.assert_array_equal(score, before)


@pytest.mark.parametrize("users", [2, 4, 7, 30])
def test_numbering_of_pairs(users: int) -> None:
    expected = list(itertools.combinations(range(users), 2))
    assert pairs.count(users) == len(expected)
    assert [tuple(row) for row in pairs.members(users)] == expected
    table = pairs.index(users)
    for m, (i, j) in enumerate(expected):
        assert table[i, j] == table[j, i] == m


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_uses(library: str) -> None:
    chosen = np.array([[0, 5], [0, 0], [1, 2], [0, 1]])  # of the pairs 01 02 03 12 13 23
    expected = [[1, 1, 1, 1], [2, 2, 0, 0], [2, 0, 1, 1], [2, 1, 1, 0]]
    if library == "torch":
        got = pairs.uses(pytest.importorskip("torch").tensor(chosen), 4).numpy()
    else:
        got = pairs.uses(chosen, 4)
    np.testing.assert_array_equal(got, expected)
