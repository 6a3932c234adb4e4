"""The Gymnasium id of the training paper. docs/training.md has the equations, tables and certified gaps."""

from __future__ import annotations

from semcom_gym.envs.core import AllocationEnv
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
