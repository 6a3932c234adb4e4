"""Agents: SB3's algorithms, the analytic policy gradient and imitation on set policies; training; shipped agents."""

from semcom_gym.agents import _needs as _needs
from semcom_gym.agents.apg import APG
from semcom_gym.agents.callbacks import log_solution
from semcom_gym.agents.decisions import act, allocate, decide, refine, search
from semcom_gym.agents.hyperparams import ALGORITHMS
from semcom_gym.agents.imitation import BC, DAgger
from semcom_gym.agents.policies import layout_kwargs
from semcom_gym.agents.store import load, ship, shipped
from semcom_gym.agents.training import Run, train
from semcom_gym.agents.tuning import Study, tune
from semcom_gym.agents.vec_env import SB3VecEnv, make_vec_env

__all__ = [
    "ALGORITHMS",
    "APG",
    "BC",
    "DAgger",
    "Run",
    "SB3VecEnv",
    "Study",
    "act",
    "allocate",
    "decide",
    "layout_kwargs",
    "load",
    "log_solution",
    "make_vec_env",
    "refine",
    "search",
    "ship",
    "shipped",
    "train",
    "tune",
]
