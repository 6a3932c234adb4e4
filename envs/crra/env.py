"""The Gymnasium ids of the CRRA paper. docs/crra.md has the equations, tables and certified gaps."""

from __future__ import annotations

from typing import Any

from semcom_gym.envs import spending
from semcom_gym.envs.arrays import Array, total
from semcom_gym.envs.core import AllocationEnv
from semcom_gym.envs.crra.instance import Params
from semcom_gym.envs.crra.physics import Allocation
from semcom_gym.envs.fading_env import FadingEnv, FadingVectorEnv
from semcom_gym.envs.fading_setup import FadingSetup
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


def _power(params: Params, allocation: Allocation) -> Array:
    return total(allocation.selected * allocation.power_w)


def _least_power(params: Params) -> float:
    """The floors of all users, or of one where the others may be left out [W]."""
    return (1 if params.selection else params.num_users) * params.min_power_w


class _CRRAFading(FadingSetup):
    """The gain delta_i of a block is what path loss, shadowing and block fading leave; Lemma 1 averages the rest."""

    problem_name = "crra"
    fixed = {"selection": False}
    changed = {"energy_share": 0.5}
    energy = spending.Energy(
        budget="power_w",
        used=_power,
        floor_w=_least_power,
        least_w=lambda params: params.power_range_w[0] if params.power_range_w else params.max_power_w,
    )


class CRRAFadingEnv(_CRRAFading, FadingEnv):
    """:class:`CRRAEnv` over T blocks of a fading channel that is seen late and with error. docs/fading.md.

    ## Description
    Users walk; path loss, correlated shadowing and Gauss-Markov fading (Jakes) move the gain delta_i from block to
    block. Decisions are made on what was seen a block ago and scored on what is true. Half of the energy that full
    power would take has to last for all blocks.
    ## Action space
    ``Box(-1, 1, (4 U,), float32)``: the blocks of CRRA-v0, and ``spend``: the mean of its entries is the power of the
    block, from the floors (-1) over the even pace (0) to all there is (1). Without budget (``energy_share=None``) 3 U.
    ## Observation space
    ``Box(-1000, 1000, (9 U + 8,), float32)``: that of CRRA-v0 on what is believed, with ``fade`` and ``correlation`` at
    the end of a user's row and ``time_left``, ``energy_left``, ``pace`` at the end of all.
    ## Rewards
    Of each block as in CRRA-v0; ``violation/energy`` is what goes beyond the budget (zero by decoding).
    ## Starting state
    A random cell of the preset. ## Episode end: after ``horizon`` blocks, ``truncated=True``.
    ## Arguments
    ``preset``, ``scenario`` (walk, drive, roam), ``penalty``, ``render_mode``, any field of ``Params`` or ``Fading``.
    """


class CRRAFadingVectorEnv(_CRRAFading, FadingVectorEnv):
    """The vector form of :class:`CRRAFadingEnv`."""


class _CRRAUSFading(_CRRAFading):
    fixed = {"selection": True}


class CRRAUSFadingEnv(_CRRAUSFading, FadingEnv):
    """:class:`CRRAFadingEnv` with user selection, as :class:`CRRAUSEnv`: a block serves whom its floors allow.

    ``selection`` comes before ``spend`` in the action, ``Box(-1, 1, (5 U,), float32)``. The power of a block decides
    how many users can have their floor, so that a block may also serve few at little energy. The preset is ``select``
    unless another is named.
    """

    def __init__(self, preset: str = "select", **kwargs: Any) -> None:
        super().__init__(preset, **kwargs)


class CRRAUSFadingVectorEnv(_CRRAUSFading, FadingVectorEnv):
    """The vector form of :class:`CRRAUSFadingEnv`."""

    def __init__(self, num_envs: int = 1, preset: str = "select", **kwargs: Any) -> None:
        super().__init__(num_envs, preset, **kwargs)
