"""Fitted curves with their provenance: the only thing the environments know of the transceivers.

A curve file is JSON with the keys of :class:`Curve`. Shipped files lie in ``envs/<problem>/curves`` and are pinned
by their SHA-256, so that an environment id always means the same numbers; a user's own file is named by its path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semcom_gym.envs import validate

KINDS = ("published", "synthetic", "measured")


@dataclasses.dataclass(frozen=True)
class Curve:
    """A fitted curve.

    kind: ``published`` (printed in a paper), ``synthetic`` (designed) or ``measured`` (from a network trained here).
    parameters: by name, each a number or a nested list of numbers (a table).
    quantity: what it gives, in words. equation: the formula fitted, with its number in the paper.
    standard_errors: of the parameters, None where the source prints none.
    points: the measured points the fit went through, their coordinates and then the value; empty where the source
    prints none.
    goodness: figures of the fit, such as ``rmse``. provenance: where the numbers come from.
    """

    name: str
    problem: str
    kind: str
    quantity: str
    equation: str
    parameters: Mapping[str, Any]
    standard_errors: Mapping[str, Any] | None
    points: list[list[float]]
    goodness: Mapping[str, float]
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        validate.choice("curve kind", self.kind, KINDS)
        for name, value in self.parameters.items():
            if not _is_numeric(value):
                raise ValueError(f"curve {self.name!r}: parameter {name} must be a finite number, got {value!r}")

    def save(self, path: str | Path) -> None:
        """Write the curve as a curve file."""
        Path(path).write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")


def _is_numeric(value: Any) -> bool:
    """Whether ``value`` is a finite number or a nested list of them."""
    if isinstance(value, list):
        return bool(value) and all(_is_numeric(entry) for entry in value)
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def shipped(problem: str, kind: str = "curves") -> list[str]:
    """Names of the curves that come with the package for a problem, those of another kind from its folder."""
    return sorted(path.stem for path in _folder(problem, kind).glob("*.json"))


def load(
    problem: str,
    name: str,
    parameters: tuple[str, ...],
    pins: Mapping[str, str] | None = None,
    kind: str = "curves",
) -> Curve:
    """Load a curve by the name of a shipped file or by the path of a user's own.

    parameters: names that the curve must have. pins: SHA-256 of the shipped files. kind: their folder.
    Raises ValueError, in one line, for an unknown name or a file that is missing, corrupt or incomplete.
    """
    own = isinstance(name, str) and name.endswith(".json")
    if not own:
        validate.choice(f"{problem} curve", name, [*shipped(problem, kind), "a path ending in .json"])
    path = Path(name) if own else _folder(problem, kind) / f"{name}.json"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"curve file {str(path)!r} cannot be read: {error.strerror}") from None
    if not own and pins is not None and hashlib.sha256(raw).hexdigest() != pins.get(name):
        raise ValueError(f"shipped curve {name!r} is not the file this version pins (SHA-256 differs): reinstall")
    curve = _parse(raw, str(path))
    if curve.problem != problem:
        raise ValueError(f"curve file {str(path)!r} is for {curve.problem!r}, not for {problem!r}")
    missing = [key for key in parameters if key not in curve.parameters]
    if missing:
        raise ValueError(f"curve file {str(path)!r} lacks the parameters {', '.join(missing)}")
    return curve


def _folder(problem: str, kind: str) -> Path:
    return Path(__file__).parent / problem / kind


def _parse(raw: bytes, path: str) -> Curve:
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise ValueError(f"curve file {path!r} is not valid JSON: {error}") from None
    names = [field.name for field in dataclasses.fields(Curve)]
    if not isinstance(data, dict) or set(data) != set(names):
        raise ValueError(f"curve file {path!r} must be an object with exactly the keys {', '.join(names)}")
    if not isinstance(data["parameters"], dict):
        raise ValueError(f"curve file {path!r}: 'parameters' must be an object of numbers")
    return Curve(**data)
