"""Symmetric 3 x 3 matrices as their six entries, (6, ...) in the order of ``ROW`` and ``COLUMN``."""

from __future__ import annotations

import numpy as np

from semcom_gym.envs.arrays import Array, at_least, at_rows, like, namespace, rows_where, turned

ROW, COLUMN = np.triu_indices(3)
SQUARE = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])  # the entry at each place of the matrix
LEAST_CURVATURE = 1e-6


def times(matrix: Array, vector: Array) -> Array:
    """Symmetric matrices (6, ...) times vectors (3, ...)."""
    a, b, c, d, e, f = matrix
    x, y, z = vector
    return namespace(matrix).stack([a * x + b * y + c * z, b * x + d * y + e * z, c * x + e * y + f * z])


def inverted(matrix: Array) -> Array:
    """The inverse of symmetric matrices (6, ...), their eigenvalues replaced by absolute values where they matter."""
    xp = namespace(matrix)
    a, b, c, d, e, f = matrix
    with np.errstate(all="ignore"):
        i1 = 1.0 / a
        l21, l31 = b * i1, c * i1
        d2, lower = d - l21 * b, e - l21 * c
        i2 = 1.0 / d2
        l32 = lower * i2
        d3 = f - l31 * c - l32 * lower
        i3 = 1.0 / d3
        u = l21 * l32 - l31
        v, w = u * i3, l32 * i3
        found = xp.stack([i1 + l21 * l21 * i2 + u * v, -l21 * i2 - u * w, v, i2 + l32 * w, -w, i3])
        indefinite = ~(xp.minimum(xp.minimum(a, d2), d3) > LEAST_CURVATURE)
    rows = rows_where(indefinite.reshape(-1))
    if len(rows):
        entries = turned(at_rows(matrix.reshape(6, -1), rows))
        values, vectors = xp.linalg.eigh(entries[:, like(SQUARE, entries)])
        values = at_least(xp.abs(values), LEAST_CURVATURE)
        full = (vectors / values[:, None, :]) @ vectors.swapaxes(-1, -2)
        found.reshape(6, -1)[:, rows] = turned(full[:, like(ROW, full), like(COLUMN, full)])
    return found
