"""What a round of training brings: PSNR against rounds, measured by ``semcom-gym rounds`` (docs/iterative.md)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from semcom_gym.envs import curve, validate

PARAMETERS = ("start", "gain", "half", "max_rounds")
KIND = "rounds"
PINS = {
    "deepjscc_own": "444bfa838e09a25b7f034a7eb0bc4b90af727e4d17866fe55db56157b3ce5fb0",
    "deepjscc_shared": "d14c697f616c7f07bee410d17211f6ccb28356db7465af8ca18aedf468933551",
}


def psnr_db(rounds: Any, start: float, gain: float, half: float) -> Any:
    """P(l) = start + gain l / (l + half) [dB], of a number of rounds or an array."""
    return start + gain * rounds / (rounds + half)


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """P(l) = start + gain l / (l + half), the PSNR [dB] after l rounds, rising towards start + gain.

    max_rounds: the rounds it was measured over; the curve says nothing of more.
    """

    start: float
    gain: float
    half: float
    max_rounds: float

    def __post_init__(self) -> None:
        for name in ("gain", "half", "max_rounds"):
            validate.number(f"learning curve: {name}", getattr(self, name))

    @classmethod
    def load(cls, name: str) -> LearningCurve:
        """A shipped curve by its name, or a user's own by its path. Raises ValueError as ``curve.load`` does."""
        found = curve.load("training", name, PARAMETERS, PINS, KIND).parameters
        return cls(*(float(found[key]) for key in PARAMETERS))

    def psnr_db(self, rounds: Any) -> Any:
        """P(l) [dB], of a number or an array."""
        return psnr_db(rounds, self.start, self.gain, self.half)

    def rounds_to(self, psnr_db: float) -> int:
        """The least number of rounds after which P(l) is ``psnr_db`` or more.

        Raises ValueError for one that the first round finds or that was not reached where the curve was measured.
        """
        top = self.psnr_db(self.max_rounds)
        validate.number("target_psnr_db", psnr_db, low=self.start, high=top)
        progress = (psnr_db - self.start) / self.gain
        return math.ceil(self.half * progress / (1.0 - progress) - 1e-9)
