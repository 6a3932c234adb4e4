"""Environments: instances, physics, action maps and the Gymnasium ids. Importing this registers the ids."""

from __future__ import annotations

import inspect

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from semcom_gym.envs import validate
from semcom_gym.envs.problems import NAMES, Problem, problem

__all__ = ["FADING_IDS", "IDS", "NAMES", "Problem", "default_preset", "problem"]

IDS = {
    "SemCom/CRRA-v0": "semcom_gym.envs.crra.env:CRRA",
    "SemCom/CRRAUS-v0": "semcom_gym.envs.crra.env:CRRAUS",
    "SemCom/SFMA-v0": "semcom_gym.envs.sfma.env:SFMA",
    "SemCom/SFMAPairing-v0": "semcom_gym.envs.sfma.pairing_env:SFMAPairing",
    "SemCom/ASCC-v0": "semcom_gym.envs.ascc.env:ASCC",
    "SemCom/Training-v0": "semcom_gym.envs.training.env:Training",
}
"""Registered id of one decision on one instance -> entry point without its ``Env`` or ``VectorEnv`` ending."""

FADING_IDS = {
    "SemCom/CRRAFading-v0": "semcom_gym.envs.crra.env:CRRAFading",
    "SemCom/CRRAUSFading-v0": "semcom_gym.envs.crra.env:CRRAUSFading",
    "SemCom/SFMAFading-v0": "semcom_gym.envs.sfma.env:SFMAFading",
    "SemCom/ASCCFading-v0": "semcom_gym.envs.ascc.env:ASCCFading",
    "SemCom/TrainingFading-v0": "semcom_gym.envs.training.env:TrainingFading",
}
"""The same of the ids whose episodes are blocks of a fading channel."""

for _id, _entry in (IDS | FADING_IDS).items():
    if _id not in gym.registry:
        gym.register(id=_id, entry_point=f"{_entry}Env", vector_entry_point=f"{_entry}VectorEnv")


def default_preset(env_id: str) -> str:
    """The preset that an id stands for when none is named. Raises ValueError for an unknown id."""
    validate.choice("environment id", env_id, IDS | FADING_IDS)
    creator = load_env_creator(str(gym.spec(env_id).entry_point))
    return str(inspect.signature(creator).parameters["preset"].default)
