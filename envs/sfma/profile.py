"""The offline profile of a pair (Section III): interference and distortion as functions of similarity."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from semcom_gym.envs.arrays import Array, at_least, at_most, like

INTERFERENCE = ("rho_min", "rho_max", "midpoint_power_w", "midpoint_ratio", "steepness")
PARAMETERS = (
    "similarity", *INTERFERENCE, "power_share", "parameter_spread",
    "ratio_grid", "distortion", "distortion_level", "distortion_tilt", "distortion_spread",
)  # fmt: skip


class Profile:
    """The tables of a curve, checked.

    similarity (S,): knots; everything below is linear in between and constant outside. rho_min, rho_max,
    midpoint_power_w [p0], midpoint_ratio [d0], steepness [st] (S,): of (10), with a = st w / p0, b = st (1 - w) / d0,
    d = -st and power_share [w]. Each pair's values are multiplied by exp(parameter_spread * normal); rho stays within
    [0, 1].
    ratio_grid (L,), distortion (S, L): envelope of (17); a user's is multiplied by a level uniform in
    distortion_level, by ratio**-tilt with tilt uniform in +-distortion_tilt, and by exp(distortion_spread * normal).
    Raises ValueError, in one line, for tables that do not fit together, are out of range or not monotone.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name = name
        for key in PARAMETERS:
            try:
                value = np.asarray(parameters[key], float)
            except ValueError:
                raise ValueError(f"curve {name!r}: {key} must be a number or a rectangular table") from None
            setattr(self, key, value if value.ndim else float(value))
        self._check_shapes()
        self._check_values()

    similarity: np.ndarray[Any, Any]
    rho_min: np.ndarray[Any, Any]
    rho_max: np.ndarray[Any, Any]
    midpoint_power_w: np.ndarray[Any, Any]
    midpoint_ratio: np.ndarray[Any, Any]
    steepness: np.ndarray[Any, Any]
    power_share: float
    parameter_spread: float
    ratio_grid: np.ndarray[Any, Any]
    distortion: np.ndarray[Any, Any]
    distortion_level: np.ndarray[Any, Any]
    distortion_tilt: float
    distortion_spread: float

    def _check_shapes(self) -> None:
        knots, ratios = np.shape(self.similarity), np.shape(self.ratio_grid)
        shapes = {**dict.fromkeys(INTERFERENCE, knots), "distortion": (*knots, *ratios), "distortion_level": (2,)}
        shapes |= dict.fromkeys(("power_share", "parameter_spread", "distortion_tilt", "distortion_spread"), ())
        for key, shape in {"similarity": knots[:1], "ratio_grid": ratios[:1], **shapes}.items():
            got = np.shape(getattr(self, key))
            if got != shape:
                raise ValueError(f"curve {self.name!r}: {key} must have shape {shape}, got {got}")
        if len(self.similarity) < 2 or len(self.ratio_grid) < 2:
            raise ValueError(f"curve {self.name!r}: similarity and ratio_grid need two knots or more")

    def _check_values(self) -> None:
        grid = self.ratio_grid
        # at the largest tilt the table must still fall with the ratio
        flattest = np.log(np.maximum(self.distortion, 1e-300)) + self.distortion_tilt * np.log(np.maximum(grid, 1e-300))
        rules = {
            "similarity must rise from 0 or more to at most 1": _rises(self.similarity, 0.0, 1.0),
            "ratio_grid must rise from above 0 to exactly 1": _rises(grid, 1e-9, 1.0) and grid[-1] == 1.0,
            "rho_min must be within [0, 1]": bool(np.all((self.rho_min >= 0) & (self.rho_min <= 1))),
            "rho_max must be within [rho_min, 1]": bool(np.all((self.rho_max >= self.rho_min) & (self.rho_max <= 1))),
            "midpoints and steepness must be positive": bool(
                np.all((self.midpoint_power_w > 0) & (self.midpoint_ratio > 0) & (self.steepness > 0))
            ),
            "power_share must be within (0, 1)": 0 < self.power_share < 1,
            "spreads and tilt must not be negative": min(
                self.parameter_spread, self.distortion_tilt, self.distortion_spread
            ) >= 0,
            "distortion must be positive": bool(np.all(self.distortion > 0)),
            "distortion must not rise with the ratio, at any tilt": bool(np.all(np.diff(flattest, axis=1) <= 1e-12)),
            "distortion_level must be a pair 0 < low <= high": 0 < self.distortion_level[0] <= self.distortion_level[1],
        }  # fmt: skip
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"curve {self.name!r}: {rule}")

    @functools.cached_property
    def log_grid(self) -> np.ndarray[Any, Any]:
        """Logarithm of ``ratio_grid``."""
        return np.asarray(np.log(self.ratio_grid))

    @functools.cached_property
    def ratio_steps(self) -> np.ndarray[Any, Any]:
        """Distances between the knots of ``ratio_grid``."""
        return np.diff(self.ratio_grid)

    @functools.cached_property
    def worst_least_distortion(self) -> float:
        """The largest distortion at ratio 1 before a user's own level."""
        return float(self.distortion[:, -1].max())

    @functools.cached_property
    def _lines(self) -> dict[str, list[Any]]:
        """Per table: its first row, and by how much its slope changes at each knot but the last."""
        tables = {key: getattr(self, key) for key in (*INTERFERENCE, "distortion")}
        tables["least_distortion"] = self.distortion[:, -1]
        lines = {}
        for key, table in tables.items():
            slope = np.diff(table, axis=0) / np.diff(self.similarity).reshape(-1, *[1] * (table.ndim - 1))
            line = [table[0], *np.diff(slope, axis=0, prepend=np.zeros_like(slope[:1]))]
            lines[key] = line if table.ndim > 1 else [float(x) for x in line]  # floats leave float32 as it is
        return lines

    def at(self, similarity: Array, *keys: str) -> list[Array]:
        """Tables at similarities (...): each (...); ``least_distortion`` is that of ratio 1."""
        past = self._past(similarity)
        return [_along(past, self._lines[key]) for key in keys]

    def distortion_at(self, similarity: Array, knot: Array) -> Array:
        """The distortion at similarities and knots of ``ratio_grid``, whose shapes broadcast."""
        past = self._past(similarity)
        return _along(past, [like(row, similarity)[knot] for row in self._lines["distortion"]])

    def _past(self, similarity: Array) -> list[Array]:
        """How far similarities are beyond each knot but the last."""
        x = at_most(at_least(similarity, float(self.similarity[0])), float(self.similarity[-1]))
        return [at_least(x - knot, 0.0) for knot in self.similarity[:-1].tolist()]

    def interference(self, similarity: Array, factor: Array) -> dict[str, Array]:
        """The parameters of (10) at similarities (...), by their names in an Instance.

        factor (5, ...): each pair's own factors, in the order of ``INTERFERENCE``.
        """
        tables = self.at(similarity, *INTERFERENCE)
        rho_min, rho_max, power, ratio, steepness = (table * own for table, own in zip(tables, factor, strict=True))
        rho_max = np.minimum(rho_max, 1.0)
        return {
            "rho_min": np.minimum(rho_min, rho_max),
            "rho_max": rho_max,
            "power_slope": steepness * self.power_share / power,
            "ratio_slope": steepness * (1.0 - self.power_share) / ratio,
            "offset": -steepness,
        }


def _along(past: list[Array], line: list[Any]) -> Array:
    """Piecewise linear functions: the first value, and how much the slope changes at each knot."""
    value, *bends = line
    for distance, bend in zip(past, bends, strict=True):
        value = value + bend * distance
    return value


def _rises(x: np.ndarray[Any, Any], low: float, high: float) -> bool:
    return bool(np.all(np.diff(x) > 0) and x[0] >= low and x[-1] <= high)
