"""The Gymnasium id of the MU-ASCC paper. docs/ascc.md has the equations and certified gaps."""

from __future__ import annotations

from typing import Any

from semcom_gym.envs.ascc.fading import Antennas
from semcom_gym.envs.core import AllocationEnv
from semcom_gym.envs.fading_env import FadingEnv, FadingVectorEnv
from semcom_gym.envs.fading_setup import FadingSetup
from semcom_gym.envs.vector import AllocationVectorEnv


class ASCCEnv(AllocationEnv):
    """Source rates, power and beamforming for K data and semantic users of a multi-antenna base station (MU-ASCC).

    ## Description
    Data users want images back, semantic users their class. Each is served by one of the codecs of a rate table,
    over a channel code of rate R_s / T: a higher rate costs less source distortion and suffers more bit errors. Beams
    and powers decide the SINRs (7), SINR and code rate the bit error rate (14), and that the distortion (12), (13).
    ## Action space
    ``Box(-1, 1, (2 K,), float32)``: share of the dual uplink power and codec of every user (``actions.decode``);
    ``beamforming="explicit"`` adds 2 N_t beam entries per user.
    ## Observation space
    ``Box(-1000, 1000, (7 K + K (K - 1) + 4,), float32)``, see ``observation_layout`` and ``actions.observe``.
    ## Rewards
    Minus the weighted sum of end-to-end distortions (15), minus ``penalty`` times the relative violation (zero by
    decoding).
    ## Starting state
    A random channel of the preset. ## Episode end: after one decision, ``terminated=True``.
    ## Arguments
    ``preset`` (default, paper, two_user, three_user, hard), ``penalty``, ``render_mode``, any field of ``Params``.
    """

    problem_name = "ascc"


class ASCCVectorEnv(AllocationVectorEnv):
    """The vector form of :class:`ASCCEnv`."""

    problem_name = "ascc"


class _ASCCFading(FadingSetup):
    """The codec is named by the action, as the best one for the SINR that is expected is not that for the one met."""

    problem_name = "ascc"
    channel = Antennas()

    def _set_up(self, preset: str, penalty: float, overrides: dict[str, Any]) -> None:
        super()._set_up(preset, penalty, {"rate_action": "absolute"} | overrides)


class ASCCFadingEnv(_ASCCFading, FadingEnv):
    """:class:`ASCCEnv` over T blocks of a fading channel that is seen late and with error. docs/fading.md.

    ## Description
    The channels of all users move from block to block (Gauss-Markov, Jakes). Beams and codecs are chosen for what was
    seen a block ago and meet what is true.
    ## Action space
    ``Box(-1, 1, (2 K,), float32)`` as in ASCC-v0, with ``rate_action="absolute"`` if nothing else is said.
    ## Observation space
    ``Box(-1000, 1000, (9 K + K (K - 1) + 5,), float32)``: that of ASCC-v0 on what is believed, with ``fade`` and
    ``correlation`` at the end of a user's row and ``time_left`` at the end of all.
    ## Rewards
    Of each block as in ASCC-v0.
    ## Starting state
    A random channel of the preset. ## Episode end: after ``horizon`` blocks, ``truncated=True``.
    ## Arguments
    ``preset``, ``scenario`` (walk, drive, roam), ``penalty``, ``render_mode``, any field of ``Params`` or ``Fading``.
    """


class ASCCFadingVectorEnv(_ASCCFading, FadingVectorEnv):
    """The vector form of :class:`ASCCFadingEnv`."""
