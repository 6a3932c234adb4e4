"""Recorded decisions: what an algorithm learns from a Minari data set of ``semcom-gym dataset``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from semcom_gym.agents.experts import Labels
from semcom_gym.baselines.solution import require
from semcom_gym.envs.arrays import Array


@dataclasses.dataclass(frozen=True)
class Recorded:
    """N steps of recorded episodes, in their order.

    observation, next_observation (N, d); action (N, ...); reward (N,); terminated (N,) bool: nothing follows.
    left (N,): steps to the end of the episode, the current one included.
    """

    observation: Array
    action: Array
    reward: Array
    next_observation: Array
    terminated: Array
    left: Array

    def __len__(self) -> int:
        return len(self.reward)


def read(dataset: str | Path, env: Any = None) -> Recorded:
    """All steps of a data set.

    dataset: a Minari name in ``MINARI_DATASETS_PATH`` (``~/.minari/datasets`` if unset), or the folder of one.
    env: an environment of this package that the decisions must be of, with the same parameters.
    Raises ValueError, in one line, where there is no such data set or it is of another environment.
    """
    episodes = list(opened(dataset, env).iterate_episodes())
    return Recorded(
        observation=np.concatenate([e.observations[:-1] for e in episodes]),
        action=np.concatenate([e.actions for e in episodes]),
        reward=np.concatenate([e.rewards for e in episodes]),
        next_observation=np.concatenate([e.observations[1:] for e in episodes]),
        terminated=np.concatenate([e.terminations for e in episodes]),
        left=np.concatenate([np.arange(len(e), 0, -1) for e in episodes]),
    )


def opened(dataset: str | Path, env: Any = None) -> Any:
    """The ``MinariDataset``, checked as :func:`read` says."""
    require("minari", "a data set")
    require("h5py", "a data set")
    from minari import MinariDataset

    found = MinariDataset(_data_folder(dataset))
    if env is not None:
        _check(str(dataset), found, env)
    return found


def labels(recorded: Recorded, env: Any) -> Labels:
    """The recorded actions as an expert's labels. A choice that the episode makes later is as good now."""
    n = len(recorded)
    if not isinstance(env.single_action_space, spaces.Discrete):
        return Labels(recorded.action, np.ones_like(recorded.action), np.ones(n, bool))
    layout = env.observation_layout
    start, features = layout.users * len(layout.user_features), layout.pair_features
    rows = recorded.observation[:, start : -len(layout.global_features)].reshape(n, -1, len(features))
    target = np.where(rows[..., features.index("allowed")] > 0, 0.0, -1.0)
    for ahead in range(int(recorded.left.max())):
        which = np.flatnonzero(recorded.left > ahead)
        target[which, recorded.action[which + ahead]] = 1.0
    return Labels(target, np.ones_like(target), np.ones(n, bool))


def _data_folder(dataset: str | Path) -> Path:
    from minari.storage import get_dataset_path

    for folder in (Path(dataset), Path(get_dataset_path(str(dataset)))):
        if (folder / "data" / "metadata.json").is_file():
            return folder / "data"
    raise ValueError(f"no data set {str(dataset)!r}: neither a folder of one nor a name in {get_dataset_path()}")


def _check(name: str, found: Any, env: Any) -> None:
    """Raise ValueError unless the data set is of the environment's problem, spaces and parameters."""
    identity = found.storage.metadata.get("semcom_gym", {}).get("identity")
    if identity is None:
        raise ValueError(f"data set {name!r} was not written by semcom-gym dataset")
    made = found.recover_environment().unwrapped
    if made.problem.name != env.problem.name or made.params != env.params:
        raise ValueError(f"data set {name!r} is of {identity['env']} {identity['preset']} with other parameters")
    if (made.observation_space, made.action_space) != (env.single_observation_space, env.single_action_space):
        raise ValueError(f"data set {name!r} is of {identity['env']}, whose observations or actions are others")
