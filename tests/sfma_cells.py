"""What the tests of SFMA share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym import envs
from semcom_gym.envs import curve
from semcom_gym.envs.sfma import barrier, pairs, physics, resources

PROBLEM = envs.problem("sfma")
CURVES = Path(curve.__file__).parent / "sfma" / "curves"


def own_curve(path: Path, base: str = "synthetic_steep", **changes: Any) -> str:
    data = json.loads((CURVES / f"{base}.json").read_text())
    data["parameters"] |= changes
    path.write_text(json.dumps(data))
    return str(path)


def between(x: float, knots: list[float], values: list[float]) -> float:
    """Straight lines between the knots, constant outside."""
    if x <= knots[0]:
        return values[0]
    for left in range(len(knots) - 1):
        if x <= knots[left + 1]:
            share = (x - knots[left]) / (knots[left + 1] - knots[left])
            return values[left] + share * (values[left + 1] - values[left])
    return values[-1]


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
