"""The Gymnasium id of the training paper. docs/training.md has the equations, tables and certified gaps."""

from __future__ import annotations

import dataclasses
from typing import Any

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, namespace
from semcom_gym.envs.core import AllocationEnv
from semcom_gym.envs.fading_env import FadingEnv, FadingVectorEnv
from semcom_gym.envs.fading_setup import FadingSetup
from semcom_gym.envs.outcome import Outcome
from semcom_gym.envs.training.learning import LearningCurve
from semcom_gym.envs.vector import AllocationVectorEnv


class TrainingEnv(AllocationEnv):
    """Power, bandwidth, clock frequencies and compression for N devices that train semantic codecs with a server.

    ## Description
    In a round every device encodes D samples, uploads the share rho_n of their bits over bandwidth B_n with power p_n,
    and the base station decodes them and updates the device's networks. Computing takes c1 D / f_n + c2 D / h_n
    seconds and kappa D (c1 f_n^2 + c2 h_n^2) joules, uploading rho_n d D / r_n seconds at p_n watts; (5)-(13). Images
    must reach the PSNR that the device asks for, P(rho_n, S_n) (57).
    ## Action space
    ``Box(-1, 1, (5 N,), float32)``: bandwidth share, power, device frequency, base-station frequency, compression
    ratio (``actions.decode``).
    ## Observation space
    ``Box(-1000, 1000, (6 N + 8,), float32)``, see ``observation_layout`` and ``actions.observe``.
    ## Rewards
    Minus omega_1 max_n T_n + omega_2 sum_n E_n (16), minus ``penalty`` times the relative violation, which decoding
    keeps at zero.
    ## Starting state
    A random cell of the preset. ## Episode end: after one decision, ``terminated=True``.
    ## Arguments
    ``preset`` (default, paper, large, hard), ``penalty``, ``render_mode``, any field of ``Params``.
    """

    problem_name = "training"


class TrainingVectorEnv(AllocationVectorEnv):
    """The vector form of :class:`TrainingEnv`."""

    problem_name = "training"


FADING_PENALTY = 300.0  # per unit of relative violation: more than a lower PSNR earns in any preset


class _TrainingFading(FadingSetup):
    """A block is a round of about a second, over which the fading of a walker is averaged some 16 times."""

    problem_name = "training"
    changed = {"diversity": 16, "block_s": 1.0}
    further = ("learning_curve", "target_psnr_db")

    def _set_up(self, preset: str, penalty: float, overrides: dict[str, Any]) -> None:
        super()._set_up(preset, penalty, overrides)
        name, target = self._further.get("learning_curve", "deepjscc_own"), self._further.get("target_psnr_db")
        self.learning = LearningCurve.load(name)
        validate.not_above("horizon", self.fading.horizon, f"rounds of {name!r}", self.learning.max_rounds)
        if target is not None and (rounds := self.learning.rounds_to(target)) <= self.fading.horizon:
            self.fading, self.completes = dataclasses.replace(self.fading, horizon=rounds), True
        layout = self.observation_layout
        features = (*layout.global_features, "learnt_psnr")
        self.observation_layout = dataclasses.replace(layout, global_features=features)

    def _learnt_db(self) -> Array:
        """(n,) PSNR after the rounds so far."""
        return self._place_field(self.learning.psnr_db(self._t.astype(float)))

    def _look(self) -> Array:
        seen = super()._look()
        xp = namespace(seen)
        learnt = xp.astype((self._learnt_db() - 20.0) * 0.1, seen.dtype)
        return xp.concat([seen, learnt[:, None]], axis=-1)

    def _settle(self, allocation: Any) -> tuple[Outcome, Array]:
        outcome, reward = super()._settle(allocation)
        outcome = dataclasses.replace(outcome, terms=outcome.terms | {"learnt_psnr_db": self._learnt_db()})
        self.outcome = outcome
        return outcome, reward


class TrainingFadingEnv(_TrainingFading, FadingEnv):
    """The rounds of iterative training (Algorithm 1) on a fading channel seen late and with error. docs/fading.md.

    ## Description
    An episode is a training run, a block is a round; :class:`TrainingEnv` is one of them. Devices walk; path loss,
    correlated shadowing and fading move the gain from round to round. A device whose true gain is below what its
    decision counted on takes longer, and its images may miss the PSNR (``violation/psnr``). What a round teaches is
    read off a measured curve of PSNR against rounds: the networks' ``learnt_psnr_db``, in ``terms``.
    ## Action space
    ``Box(-1, 1, (5 N,), float32)`` as in Training-v0.
    ## Observation space
    ``Box(-1000, 1000, (8 N + 10,), float32)``: that of Training-v0 on what is believed, with ``fade`` and
    ``correlation`` at the end of a device's row, ``time_left`` and ``learnt_psnr`` at the end of all.
    ## Rewards
    Minus the cost of each round, omega_1 T + omega_2 E (16), with a ``penalty`` that makes a PSNR below the least one
    no bargain; the energy has no budget of its own.
    ## Starting state
    A random cell of the preset. ## Episode end: after ``horizon`` rounds, ``truncated=True``; with ``target_psnr_db``,
    after the round that reaches it if that comes first, ``terminated=True``.
    ## Arguments
    ``preset``, ``scenario`` (walk, drive, roam), ``penalty``, ``render_mode``, ``learning_curve`` (deepjscc_own,
    deepjscc_shared, or a path), ``target_psnr_db``, any field of ``Params`` or ``Fading``.
    """

    def __init__(self, preset: str = "default", *, penalty: float = FADING_PENALTY, **kwargs: Any) -> None:
        super().__init__(preset, penalty=penalty, **kwargs)


class TrainingFadingVectorEnv(_TrainingFading, FadingVectorEnv):
    """The vector form of :class:`TrainingFadingEnv`."""

    def __init__(
        self, num_envs: int = 1, preset: str = "default", *, penalty: float = FADING_PENALTY, **kwargs: Any
    ) -> None:
        super().__init__(num_envs, preset, penalty=penalty, **kwargs)
