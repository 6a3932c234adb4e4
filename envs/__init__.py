"""Environments: instances, physics, action maps and the Gymnasium ids. Importing this registers the ids."""

from __future__ import annotations

import gymnasium as gym

from semcom_gym.envs.problems import NAMES, Problem, problem

__all__ = ["IDS", "NAMES", "Problem", "problem"]

IDS = {
    "SemCom/CRRA-v0": "semcom_gym.envs.crra.env:CRRA",
    "SemCom/CRRAUS-v0": "semcom_gym.envs.crra.env:CRRAUS",
}
"""Registered id -> entry point without its ``Env`` or ``VectorEnv`` ending."""

for _id, _entry in IDS.items():
    if _id not in gym.registry:
        gym.register(id=_id, entry_point=f"{_entry}Env", vector_entry_point=f"{_entry}VectorEnv")
