"""The Gymnasium id of the training paper. docs/training.md has the equations, tables and certified gaps."""

from __future__ import annotations

from typing import Any

from semcom_gym.envs.core import AllocationEnv
from semcom_gym.envs.fading_env import FadingEnv, FadingVectorEnv
from semcom_gym.envs.fading_setup import FadingSetup
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
    problem_name = "training"
    changed = {"diversity": 4}  # an image that has to arrive takes very long in a deep fade


class TrainingFadingEnv(_TrainingFading, FadingEnv):
    """:class:`TrainingEnv` over T rounds of a fading channel that is seen late and with error. docs/fading.md.

    ## Description
    A block is a round. Devices walk; path loss, correlated shadowing and Gauss-Markov fading (Jakes) move the gain from
    round to round. A device whose true gain is below what its decision counted on takes longer, and its images may
    miss the PSNR (``violation/psnr``).
    ## Action space
    ``Box(-1, 1, (5 N,), float32)`` as in Training-v0.
    ## Observation space
    ``Box(-1000, 1000, (8 N + 9,), float32)``: that of Training-v0 on what is believed, with ``fade`` and
    ``correlation`` at the end of a device's row and ``time_left`` at the end of all.
    ## Rewards
    Of each round as in Training-v0, with a ``penalty`` that makes a PSNR below the least one no bargain; the energy is
    a part of the objective and has no budget of its own.
    ## Starting state
    A random cell of the preset. ## Episode end: after ``horizon`` rounds, ``truncated=True``.
    ## Arguments
    ``preset``, ``scenario`` (walk, drive, roam), ``penalty``, ``render_mode``, any field of ``Params`` or ``Fading``.
    """

    def __init__(self, preset: str = "default", *, penalty: float = FADING_PENALTY, **kwargs: Any) -> None:
        super().__init__(preset, penalty=penalty, **kwargs)


class TrainingFadingVectorEnv(_TrainingFading, FadingVectorEnv):
    """The vector form of :class:`TrainingFadingEnv`."""

    def __init__(
        self, num_envs: int = 1, preset: str = "default", *, penalty: float = FADING_PENALTY, **kwargs: Any
    ) -> None:
        super().__init__(num_envs, preset, penalty=penalty, **kwargs)
