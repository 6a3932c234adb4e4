"""What property tests of several problems draw."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st


def draw_actions(draw: Any, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Actions of one of four kinds: inside the space, also outside of it, at its corners, or all entries alike."""
    kind = draw(st.sampled_from(["inside", "outside", "corners", "constant"]))
    return {
        "inside": lambda: rng.uniform(-1, 1, shape),
        "outside": lambda: rng.uniform(-5, 5, shape),
        "corners": lambda: rng.choice([-1.0, 1.0], shape),
        "constant": lambda: np.full(shape, rng.choice([-1.0, 0.0, 1.0])),
    }[kind]()


def random_action(rng: np.random.Generator, shape: tuple[int, ...], allowed: np.ndarray | None = None) -> Any:
    """An action inside the space, far outside of it, at its corners or with all entries alike; or an allowed choice."""
    if allowed is not None:
        return int(rng.choice(np.flatnonzero(allowed)))
    draws = (
        lambda: rng.uniform(-1, 1, shape),
        lambda: rng.uniform(-1e3, 1e3, shape),
        lambda: rng.choice([-1.0, 1.0], shape),
        lambda: np.full(shape, rng.choice([-1.0, 0.0, 1.0])),
    )
    return draws[rng.integers(len(draws))]()
