"""Hyper-parameters as data: ``hyperparams/<algorithm>.yml``, keyed by environment id as in rl-zoo3.

A file that holds nothing but a name has the entries of that algorithm's file.
"""

from __future__ import annotations

import math
from importlib import resources
from typing import Any

import numpy as np
import yaml
from sb3_contrib import TQC, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import BasePolicy

from semcom_gym.agents.apg import APG
from semcom_gym.agents.choice_policy import ChoicePolicy
from semcom_gym.agents.imitation import BC, DAgger
from semcom_gym.agents.matching_policy import MatchingPolicy
from semcom_gym.agents.memory import SetRecurrentPolicy
from semcom_gym.agents.pair_policy import SetMaskablePolicy
from semcom_gym.agents.policies import (
    SetActorCriticPolicy,
    SetPolicy,
    SetSACPolicy,
    SetTD3Policy,
    SetTQCPolicy,
    space_kwargs,
)
from semcom_gym.agents.vec_env import make_vec_env
from semcom_gym.envs import FADING_IDS, IDS, validate

ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], type[BasePolicy]]] = {
    "apg": (APG, SetPolicy),
    "bc": (BC, SetPolicy),
    "dagger": (DAgger, SetPolicy),
    "ppo": (PPO, SetActorCriticPolicy),
    "a2c": (A2C, SetActorCriticPolicy),
    "sac": (SAC, SetSACPolicy),
    "tqc": (TQC, SetTQCPolicy),
    "td3": (TD3, SetTD3Policy),
    "maskable_ppo": (MaskablePPO, SetMaskablePolicy),
    "recurrent_ppo": (RecurrentPPO, SetRecurrentPolicy),
}
"""Name -> algorithm and the set policy that ``policy: SetPolicy`` stands for."""

OWN = ("apg", "bc", "dagger")
"""Those of this package: the first needs the gradient of the reward, the others a solver."""

POLICIES: dict[str, type[BasePolicy]] = {
    "MatchingPolicy": MatchingPolicy,
    "ChoicePolicy": ChoicePolicy,
    "SetMaskablePolicy": SetMaskablePolicy,
}
"""Other policies that a file may name."""


OF_THE_RUN = ("n_timesteps", "n_envs", "policy", "patience", "penalty")
"""Entries that are no arguments of an algorithm."""


class Linear:
    """Schedule that falls linearly from ``start`` to zero (``lin_<start>`` in the files)."""

    def __init__(self, start: float) -> None:
        self.start = start

    def __call__(self, remaining: float) -> float:
        """Value at a remaining progress of 1 (begin) to 0 (end)."""
        return self.start * remaining


class Cosine(Linear):
    """Schedule that falls along half a cosine from ``start`` to zero (``cos_<start>`` in the files)."""

    def __call__(self, remaining: float) -> float:
        """Value at a remaining progress of 1 (begin) to 0 (end)."""
        return self.start * 0.5 * (1.0 - math.cos(math.pi * min(max(remaining, 0.0), 1.0)))


SCHEDULES = {"lin": Linear, "cos": Cosine}


def load(
    env_id: str, algo: str, overrides: dict[str, Any] | None = None, *, varied: bool = False, **sizes: int | None
) -> dict[str, Any]:
    """The hyper-parameters of an algorithm on an id, as the file spells them, with some replaced.

    varied: with what ``<algo>_varied.yml`` changes of them, if there is one, for problems that are drawn from many.
    sizes: n_timesteps and n_envs, where not None. Raises ValueError for an unknown algorithm, an id without an entry
    or a bad size.
    """
    validate.choice("environment id", env_id, IDS | FADING_IDS)
    validate.choice("algorithm", algo, ALGORITHMS)
    table = read(algo)
    validate.choice(f"environment id for {algo}", env_id, table)
    many = read(f"{algo}_varied").get(env_id, {}) if varied and algo == "apg" else {}
    settings = {**table[env_id], **many, **(overrides or {}), **{name: x for name, x in sizes.items() if x is not None}}
    for name in ("n_timesteps", "n_envs"):
        settings[name] = int(settings[name]) if isinstance(settings[name], float) else settings[name]
        validate.integer(name, settings[name])
    if settings.get("patience") is not None:
        validate.integer("patience", settings["patience"])
    validate.choice("policy", settings["policy"], ("SetPolicy", *POLICIES))
    return settings


def arguments(settings: dict[str, Any], num_actions: int) -> dict[str, Any]:
    """The arguments of the algorithm's constructor among hyper-parameters, with schedules and action noise made."""
    rest = {name: value for name, value in settings.items() if name not in OF_THE_RUN}
    for name in ("learning_rate", "exploration_std", "clip_range", "softness"):
        if isinstance(rest.get(name), str):
            rest[name] = _schedule(name, rest[name])
    if "noise_std" in rest:
        rest["action_noise"] = NormalActionNoise(np.zeros(num_actions), np.full(num_actions, rest.pop("noise_std")))
    return rest


def for_zoo(env_id: str, algo: str, preset: str | None = None) -> dict[str, Any]:
    """The same hyper-parameters as rl-zoo3 reads them: the policy by its full name, with the sizes of the environment.

    For algorithms of SB3 and sb3-contrib only. Write ``{env_id: for_zoo(...)}`` to a YAML file and hand it to
    ``rl_zoo3.train`` as ``--conf-file``, with ``--gym-packages semcom_gym``.
    """
    validate.choice("algorithm of rl-zoo3", algo, [name for name in ALGORITHMS if name not in OWN])
    settings = load(env_id, algo)
    policy = POLICIES.get(settings["policy"], ALGORITHMS[algo][1])
    venv = make_vec_env(env_id, 1, preset=preset).venv.unwrapped
    settings["policy"] = f"{policy.__module__}.{policy.__qualname__}"
    settings["policy_kwargs"] = space_kwargs(venv) | settings.get("policy_kwargs", {})
    if preset is not None:
        settings["env_kwargs"] = {"preset": preset}
    return settings | ({"noise_type": "normal"} if "noise_std" in settings else {})


def read(algo: str, folder: str = "hyperparams") -> dict[str, Any]:
    """The file of an algorithm in a folder of this package, or the one that it names."""
    found = yaml.safe_load((resources.files("semcom_gym.agents") / folder / f"{algo}.yml").read_text())
    return read(found, folder) if isinstance(found, str) else dict(found)


def _schedule(name: str, text: str) -> Linear:
    kind, _, start = text.partition("_")
    validate.choice(f"schedule of {name}", kind, SCHEDULES)
    return SCHEDULES[kind](float(start))
