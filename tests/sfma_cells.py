"""What the tests of the SFMA solvers share."""

from __future__ import annotations

import numpy as np

from semcom_gym import envs
from semcom_gym.envs.sfma import barrier, pairs, physics, resources

PROBLEM = envs.problem("sfma")


def cells(n: int, preset: str = "default", **overrides: object):
    params = PROBLEM.preset(preset, **overrides)
    return params, PROBLEM.sample_split(params, "validation", n)


def matchings(users: int) -> np.ndarray:
    """All perfect matchings, by recursion."""

    def grow(free: list[int]):
        if not free:
            yield []
        for other in free[1:]:
            for rest in grow([u for u in free[1:] if u != other]):
                yield [pairs.index(users)[free[0], other], *rest]

    return np.array([sorted(found) for found in grow(list(range(users)))])


def climb_from_anywhere(params, instance, pair, rng, starts: int = 40) -> float:
    """The best of many climbs of one instance and pairing from random entries."""
    rows = np.zeros(starts, int)
    many = np.tile(pair, (starts, 1))
    link = physics.links(params, instance[rows], many)
    entries = rng.uniform(-1.0, 1.0, (starts, 3, params.num_groups)) * rng.choice([0.4, 1.0], (starts, 1, 1))
    found = barrier.improve(params, link, resources.start(params, link, many, entries), 1.0, 30)
    outcome = PROBLEM.evaluate(params, instance[rows], found)
    return float(np.max(np.where(outcome.feasible, outcome.objective, -np.inf)))
