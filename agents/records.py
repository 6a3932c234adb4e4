"""The record of a training run: what decides its result, the command that repeats it, where it is kept."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semcom_gym import __version__
from semcom_gym.agents.store import VARIED, check_identity, file_name, make_folder, read_json

PACKAGES = ("numpy", "gymnasium", "torch", "stable-baselines3", "sb3-contrib")
IDENTITY = ("env_id", "preset", "overrides", "vary", "algo", "seed", "hyperparams")  # what a resumed run must share


def name_of_run(env_id: str, algo: str, preset: str | None, seed: int, vary: Any = None) -> str:
    """What the folder of a run is called if nothing else is said."""
    return f"{file_name(env_id, algo + (VARIED if vary else ''), preset)}_seed{seed}"


def open_record(folder: Path, identity: dict[str, Any], resume: bool) -> dict[str, Any]:
    """The record of the run in ``folder``: that of the run to resume, or a new one."""
    make_folder(folder)
    if not (folder / "run.json").exists():
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        versions = {"semcom-gym": __version__, "python": platform.python_version(), **versions}
        progress = {"finished": False, "ended": None, "timesteps": 0, "seconds": 0.0, "best": None, "curve": []}
        return {**identity, "command": command(identity), "versions": versions, **progress}
    if not resume:
        raise ValueError(f"{str(folder)!r} holds a training run: resume it, or name another folder")
    record = read_json(folder / "run.json", "training run")
    check_identity(record, identity, f"run in {str(folder)!r}")
    return record


def command(identity: dict[str, Any]) -> str:
    """The command that trains the same agent, but for ``hyperparams`` handed to ``train``."""
    settings = identity["hyperparams"]
    names = {"env": identity["env_id"], "algo": identity["algo"], "preset": identity["preset"]}
    names |= {"timesteps": settings["n_timesteps"], "num-envs": settings["n_envs"], "seed": identity["seed"]}
    names |= {name: settings[name] for name in ("expert", "dataset", "patience") if settings.get(name) is not None}
    changed = (f"--set {name}={value}" for name, value in identity["overrides"].items())
    vary = (identity["vary"] or {}).items()
    lists = (f"--vary {shlex.quote(f'{name}={_values(values)}')}" for name, values in vary)
    return " ".join(["semcom-gym train", *(f"--{name} {value}" for name, value in names.items()), *changed, *lists])


def _values(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values)
