"""The Gymnasium id of the joint decision of the SC-SFMA paper. docs/sfma.md has the equations and certified gaps."""

from __future__ import annotations

from typing import Any

from semcom_gym.envs.core import AllocationEnv
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
    ``preset`` (default, paper, loose, tight, pruned), ``penalty``, ``render_mode``, any field of ``Params``.
    """

    problem_name = "sfma"

    def __init__(self, preset: str = "default", *, penalty: float = PENALTY, **kwargs: Any) -> None:
        super().__init__(preset, penalty=penalty, **kwargs)


class SFMAVectorEnv(AllocationVectorEnv):
    """The vector form of :class:`SFMAEnv`."""

    problem_name = "sfma"

    def __init__(self, num_envs: int = 1, preset: str = "default", *, penalty: float = PENALTY, **kwargs: Any) -> None:
        super().__init__(num_envs, preset, penalty=penalty, **kwargs)
