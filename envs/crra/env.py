"""The Gymnasium ids of the CRRA paper. docs/crra.md has the equations, tables and certified gaps."""

from __future__ import annotations

from typing import Any

from semcom_gym.envs.core import AllocationEnv
from semcom_gym.envs.vector import AllocationVectorEnv


class CRRAEnv(AllocationEnv):
    """Bandwidth, power and compression for U users that perform an inference task at the edge (CRRA).

    ## Description
    Each user extracts features of an image, drops the share o_i (compression) and must deliver the rest within the
    deadline over bandwidth B_i with power P_i. A task succeeds with probability
    Phi_i = eta(o_i) 2 Q((2**(a_i (1 - o_i)) - 1) / (b_i delta_i)), equations (8) and (11).
    ## Action space
    ``Box(-1, 1, (3 U,), float32)``: bandwidth share, power share, compression ratio (``actions.decode``).
    ## Observation space
    ``Box(-1000, 1000, (7 U + 5,), float32)``, see ``observation_layout`` and ``actions.observe``.
    ## Rewards
    The weighted sum of success probabilities (13), minus ``penalty`` times the relative violation (zero by decoding
    wherever the instance is feasible).
    ## Starting state
    A random cell of the preset. ## Episode end: after one decision, ``terminated=True``.
    ## Arguments
    ``preset`` (default, paper, hard, general), ``penalty``, ``render_mode``, any field of ``Params``.
    """

    problem_name = "crra"
    fixed = {"selection": False}


class CRRAVectorEnv(AllocationVectorEnv):
    """The vector form of :class:`CRRAEnv`."""

    problem_name = "crra"
    fixed = {"selection": False}


class CRRAUSEnv(AllocationEnv):
    """CRRA with user selection beta_i (CRRAUS): as :class:`CRRAEnv`, with one more action entry per user.

    The fourth block selects the users with a positive entry, at most as many as the guaranteed minimums allow.
    The preset is ``select`` unless another is named.
    """

    problem_name = "crra"
    fixed = {"selection": True}

    def __init__(self, preset: str = "select", **kwargs: Any) -> None:
        super().__init__(preset, **kwargs)


class CRRAUSVectorEnv(AllocationVectorEnv):
    """The vector form of :class:`CRRAUSEnv`."""

    problem_name = "crra"
    fixed = {"selection": True}

    def __init__(self, num_envs: int = 1, preset: str = "select", **kwargs: Any) -> None:
        super().__init__(num_envs, preset, **kwargs)
