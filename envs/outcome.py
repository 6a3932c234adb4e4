"""What an allocation achieves."""

from __future__ import annotations

import dataclasses

from semcom_gym.envs.arrays import Array

FEASIBILITY_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of evaluating a batch of n allocations.

    objective (n,): the paper's objective in natural units, sign as in the paper.
    violation: constraint name -> (n,) relative excess, 0 where it holds.
    terms: name -> array with leading axis n of per-user or per-group quantities.
    """

    objective: Array
    violation: dict[str, Array]
    terms: dict[str, Array]

    @property
    def cost(self) -> Array:
        """(n,) total relative violation, as in a constrained MDP."""
        values = iter(self.violation.values())
        total = next(values)
        for value in values:
            total = total + value
        return total

    @property
    def feasible(self) -> Array:
        """(n,) bool: no constraint is exceeded by more than 1e-6 of its limit."""
        values = iter(self.violation.values())
        holds = next(values) <= FEASIBILITY_TOLERANCE
        for value in values:
            holds = holds & (value <= FEASIBILITY_TOLERANCE)
        return holds


class UnreachableError(ValueError):
    """A feasible allocation that no action stands for."""


def require_feasible(violation: dict[str, Array]) -> None:
    """Raise ValueError, naming the constraint broken most, for an allocation that an action cannot stand for."""
    worst = max(violation, key=lambda name: float(violation[name].max()))
    excess = float(violation[worst].max())
    if excess > FEASIBILITY_TOLERANCE:
        raise ValueError(f"cannot encode an allocation that breaks {worst!r} by {excess:.3g} of its limit")
