"""The Gymnasium id of the joint decision of the SC-SFMA paper. docs/sfma.md has the equations and certified gaps."""

from __future__ import annotations

from typing import Any

from semcom_gym.envs import fading
from semcom_gym.envs.core import AllocationEnv
from semcom_gym.envs.fading_env import FadingEnv, FadingVectorEnv
from semcom_gym.envs.fading_setup import FadingSetup
from semcom_gym.envs.vector import AllocationVectorEnv

PENALTY = 100.0  # [Mbit/s] per unit of relative violation: more than any violation earns


class SFMAEnv(AllocationEnv):
    """Pairing, power, bandwidth and compression for N users served in pairs (SC-SFMA).

    ## Description
    A base station superposes the semantic features of two users on one resource block. The pair's interference factor
    rho_ij(p, delta) (10) falls with power and with the share delta of the features that is sent, and depends on how
    similar the two contents are. K = N / 2 groups share power, bandwidth and an energy budget; each must meet its
    users' distortion limit (20a) and its latency limit (20b).
    ## Action space
    ``Box(-1, 1, (M + 3 N,), float32)``, M = N (N - 1) / 2: a score of every pair, then power share, bandwidth share
    and compression ratio of every user; a group takes the mean of its two users (``actions.decode``).
    ## Observation space
    ``Box(-1000, 1000, (4 N + 9 M + 5,), float32)``, see ``observation_layout`` and ``actions.observe``.
    ## Rewards
    The sum rate (20) in Mbit/s, minus ``penalty`` times the relative violation.
    ## Starting state
    A random cell of the preset. ## Episode end: after one decision, ``terminated=True``.
    ## Arguments
    ``preset`` (default, paper, loose, tight, pruned, figures, measured), ``penalty``, ``render_mode``, any field of
    ``Params``.
    """

    problem_name = "sfma"

    def __init__(self, preset: str = "default", *, penalty: float = PENALTY, **kwargs: Any) -> None:
        super().__init__(preset, penalty=penalty, **kwargs)


class SFMAVectorEnv(AllocationVectorEnv):
    """The vector form of :class:`SFMAEnv`."""

    problem_name = "sfma"

    def __init__(self, num_envs: int = 1, preset: str = "default", *, penalty: float = PENALTY, **kwargs: Any) -> None:
        super().__init__(num_envs, preset, penalty=penalty, **kwargs)


class _SFMAFading(FadingSetup):
    problem_name = "sfma"
    fixed = {"rayleigh": False}  # the blocks' own fading takes its place
    changed = {"diversity": 4}  # (20b) is a limit that a deep fade breaks whatever is decided
    channel = fading.Cell(extra_loss_db=lambda params: params.extra_loss_db)


class SFMAFadingEnv(_SFMAFading, FadingEnv):
    """:class:`SFMAEnv` over T blocks of a fading channel that is seen late and with error. docs/fading.md.

    ## Description
    Users walk; path loss, correlated shadowing and Gauss-Markov fading (Jakes) move the gain from block to block. A
    group whose true gain is below what its decision counted on may miss its latency (20b).
    ## Action space
    ``Box(-1, 1, (M + 3 N,), float32)`` as in SFMA-v0.
    ## Observation space
    ``Box(-1000, 1000, (6 N + 9 M + 6,), float32)``: that of SFMA-v0 on what is believed, with ``fade`` and
    ``correlation`` at the end of a user's row and ``time_left`` at the end of all.
    ## Rewards
    Of each block as in SFMA-v0; every block has the energy budget of the paper.
    ## Starting state
    A random cell of the preset. ## Episode end: after ``horizon`` blocks, ``truncated=True``.
    ## Arguments
    ``preset``, ``scenario`` (walk, drive, roam), ``penalty``, ``render_mode``, any field of ``Params`` or ``Fading``.
    """

    def __init__(self, preset: str = "default", *, penalty: float = PENALTY, **kwargs: Any) -> None:
        super().__init__(preset, penalty=penalty, **kwargs)


class SFMAFadingVectorEnv(_SFMAFading, FadingVectorEnv):
    """The vector form of :class:`SFMAFadingEnv`."""

    def __init__(self, num_envs: int = 1, preset: str = "default", *, penalty: float = PENALTY, **kwargs: Any) -> None:
        super().__init__(num_envs, preset, penalty=penalty, **kwargs)
