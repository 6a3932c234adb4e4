"""Checks of what a user hands in. Every failure is one line with the offending name and value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from semcom_gym.envs.arrays import Array, to_numpy

LARGEST = 1e18
SMALLEST = 1e-40  # of what must be positive: what squares and quotients of physical quantities leave finite


def text(value: object) -> str:
    """``value`` in a message: one line, and not the whole of what is long."""
    line = " ".join(repr(value).split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def choice(what: str, value: object, valid: Iterable[object]) -> None:
    """Raise ValueError unless ``value`` is one of ``valid``."""
    names = list(valid)
    if not isinstance(value, Hashable) or value not in names:
        near = difflib.get_close_matches(str(value), [str(name) for name in names], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {what} {text(value)}; valid: {', '.join(str(name) for name in names)}{hint}")


def keywords(what: str, given: Iterable[str], valid: Iterable[str]) -> None:
    """Raise TypeError unless every keyword in ``given`` is one of ``valid``."""
    names = list(valid)
    for name in given:
        if name not in names:
            raise TypeError(f"{what}: unknown argument {name!r}; valid: {', '.join(names)}")


def number(name: str, value: Any, *, low: float = 0.0, high: float = math.inf, open_low: bool = True) -> None:
    """Raise unless ``value`` is a finite real number in (low, high], or [low, high] if not ``open_low``.

    Beyond LARGEST, and above a ``low`` of zero below SMALLEST, the physics would leave the range of its numbers.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {text(value)}")
    above = value > low if open_low else value >= low
    if not (-math.inf < value < math.inf and above and value <= high):
        sign = ">" if open_low else ">="
        top = "" if high == math.inf else f" and <= {high:g}"
        raise ValueError(f"{name} must be finite, {sign} {low:g}{top}, got {text(value)}")
    if not (-LARGEST <= value <= LARGEST and (low != 0.0 or value == 0.0 or value >= SMALLEST)):
        raise ValueError(f"{name} must be {SMALLEST:g} to {LARGEST:g} to be computed with, got {text(value)}")


def integer(name: str, value: Any, *, low: int = 1) -> None:
    """Raise unless ``value`` is an integer of at least ``low`` (and fits 64 bits)."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {text(value)}")
    if value < low:
        raise ValueError(f"{name} must be >= {low}, got {text(value)}")
    if value >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {text(value)}")


def not_above(name: str, value: float, limit_name: str, limit: float) -> None:
    """Raise ValueError if ``value`` exceeds the value of another field."""
    if value > limit:
        raise ValueError(f"{name} {value:g} exceeds {limit_name} {limit:g}")


def interval(name: str, value: Any) -> None:
    """Raise unless ``value`` is None or a pair 0 < low <= high."""
    if value is None:
        return
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{name} must be None or a pair (low, high), got {text(value)}")
    number(f"{name}[0]", value[0])
    number(f"{name}[1]", value[1])
    if value[0] > value[1]:
        raise ValueError(f"{name} must have low <= high, got {text(value)}")


def array(name: str, value: Array, shape: tuple[int, ...], *, nonnegative: bool = False) -> None:
    """Raise ValueError unless ``value`` is a finite array of ``shape`` (and nowhere negative)."""
    got = tuple(getattr(value, "shape", ()))
    if got != shape:
        raise ValueError(f"{name} must have shape {shape}, got {got}")
    data = to_numpy(value)
    if not np.isfinite(data).all():
        raise ValueError(f"{name} has a value that is not finite")
    if nonnegative and (data < 0).any():
        raise ValueError(f"{name} has a negative value: {float(data.min()):g}")
