"""What other people's code and scripts rely on, by name: parameters of public callables, options of commands.

A name that is gone breaks somebody's code: say so in the changelog. ``python tests/test_public_names.py`` writes the
file anew.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("stable_baselines3")
from semcom_gym import agents, baselines, envs
from semcom_gym.benchmarks import cli

GOLDEN = Path(__file__).parent / "golden" / "public_names.json"


def found() -> dict[str, Any]:
    """Names of parameters of every public callable, and options of every command."""
    modules = {module.__name__: module for module in (envs, baselines, agents)}
    names = {home: {name: _parameters(getattr(module, name)) for name in sorted(module.__all__)}
             for home, module in modules.items()}  # fmt: skip
    ids = {env_id: _parameters(_entry(entry)) for env_id, entry in (envs.IDS | envs.FADING_IDS).items()}
    return {**names, "ids": ids, "commands": _commands()}


def _parameters(thing: Any) -> list[str] | str:
    if not callable(thing):
        return type(thing).__name__
    names = (str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
             for parameter in inspect.signature(thing).parameters.values())  # fmt: skip
    return [name for name in names if not name.startswith("_")]


def _entry(entry: str) -> Any:
    module, name = entry.split(":")
    return getattr(importlib.import_module(module), f"{name}Env")


def _commands() -> dict[str, list[str]]:
    [subparsers] = [action for action in cli.parser()._actions if hasattr(action, "choices") and action.choices]
    return {
        name: sorted(option for action in parser._actions for option in (action.option_strings or [action.dest]))
        for name, parser in subparsers.choices.items()
    }


def test_public_names() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    now = found()
    assert list(now) == list(golden)
    for part, names in now.items():
        assert names == golden[part], part


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(found(), indent=1) + "\n", encoding="utf-8")
