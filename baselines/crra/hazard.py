"""The hazard rate of a half-normal variable by table, to 2e-15 relative: a quarter of the time of ``erfcx``."""

from __future__ import annotations

import numpy as np
import scipy.special

from semcom_gym.envs.arrays import Array, at_rows, like, namespace

CELLS = 4096  # of t = 4 / (4 + x), which takes x >= 0 to (0, 1]
SQRT_2_OVER_PI = 0.7978845608028654
SQRT_HALF = 0.7071067811865476


def _table() -> Array:
    """Per cell of t the cubic through hazard(x) - x at four Chebyshev nodes, (4, CELLS + 1), lowest power first."""
    nodes = 0.5 * np.cos((2 * np.arange(4) + 1) * np.pi / 8)
    middle = np.arange(CELLS + 1)[:, None] + 0.5
    x = 4.0 * CELLS / (middle + nodes) - 4.0
    values = SQRT_2_OVER_PI / scipy.special.erfcx(SQRT_HALF * x) - x
    return np.linalg.solve(np.vander(nodes, increasing=True), values.T)


def _lines() -> Array:
    """hazard(x) - x at the lower end of every cell, and its rise over the cell, (2, CELLS + 1)."""
    x = 4.0 * CELLS / np.arange(1, CELLS + 2) - 4.0
    values = np.append(0.0, SQRT_2_OVER_PI / scipy.special.erfcx(SQRT_HALF * x) - x)
    return np.stack((values[:-1], np.diff(values)))


TABLE, LINES = _table(), _lines()


def hazard(x: Array) -> Array:
    """-d ln(2 Q(x)) / dx = sqrt(2 / pi) exp(-x**2 / 2) / (2 Q(x)), for x >= 0; x: NumPy or torch."""
    xp, table = namespace(x), like(TABLE, x)
    place = (4.0 * CELLS) / (4.0 + x)
    cell = xp.astype(place, xp.int32)
    place -= cell
    place -= 0.5
    result = at_rows(table[3], cell)
    for k in (2, 1, 0):
        result *= place
        result += at_rows(table[k], cell)
    result += x
    return result


def nearly(x: Array) -> Array:
    """:func:`hazard` to 1e-8 relative, in half its time."""
    lines = like(LINES, x)
    place = (4.0 * CELLS) / (4.0 + x)
    cell = namespace(x).astype(place, namespace(x).int32)
    place -= cell
    place *= at_rows(lines[1], cell)
    place += at_rows(lines[0], cell)
    place += x
    return place
