"""Who competes: registered solvers, shipped agents, and agents trained by ``semcom-gym train``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semcom_gym import baselines, envs
from semcom_gym.benchmarks import protocol, store
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array


@dataclasses.dataclass(frozen=True)
class Run:
    """One thing to run on a task: a solver, or one training seed of an agent. ``key`` says what decides its result.

    decide: the task's decisions; on the episodes of a Fading id, the policy that plays them.
    training_s, training_decisions: seconds that an agent was trained for, and decisions that it took or asked for
    meanwhile; NaN of a solver.
    """

    key: dict[str, Any]
    decide: Callable[[Any], Any]
    training_s: float = math.nan
    training_decisions: float = math.nan


@dataclasses.dataclass(frozen=True)
class Competitor:
    """One row of a leaderboard: a solver (one run), or an agent (one run per training seed). kind: solver or agent."""

    name: str
    kind: str
    runs: tuple[Run, ...]


def solver(problem: str, method: str, **options: Any) -> Competitor:
    """A registered method. Raises ValueError for an unknown one, and for one that the bound says nothing about."""
    other = baselines.solution.transceiver(problem, method)
    if other is not None:
        raise ValueError(
            f"{problem} method {method!r} is not scored: it stands for another transceiver, {other}, which the bound "
            "does not cover; see: semcom-gym solve"
        )
    key = {"method": method, "options": options, "code": store.code_version("envs", "baselines")}
    return Competitor(method, "solver", (Run(key, lambda task: protocol.decide_by_method(task, method, **options)),))


def shipped(task: Any) -> list[str]:
    """The algorithms of the agents that ship for a task's id and preset; not those trained on drawn problems."""
    from semcom_gym import agents

    cards = [card for card in agents.shipped() if (card["env_id"], card["preset"]) == (task.env_id, task.preset)]
    return [card["algo"] for card in cards if not card.get("vary")]


def agent(
    task: protocol.Task, spec: str, device: str = "cpu", refine_steps: int = 0, search_rounds: int = 0
) -> Competitor:
    """An agent by ``spec``: ``apg`` (the one that ships for the task), ``FOLDER`` of a training run, or
    ``NAME=FOLDER,FOLDER,...``, the training seeds of one agent.

    refine_steps, search_rounds: of the gradient, or of random moves, on every instance's own objective, after the
    policy's decision.
    Raises ValueError for an unknown name, a missing or corrupt file or an agent of another environment, and for
    refinement of decisions that are made of choices.
    """
    validate.integer("refine steps", refine_steps, low=0)
    validate.integer("search rounds", search_rounds, low=0)
    if (refine_steps or search_rounds) and task.stepwise:
        raise ValueError(f"no refinement on {task.env_id}: its decisions are choices")
    name, found = models(task, spec, device)
    name += f" + {refine_steps} steps" if refine_steps else ""
    name += f" + {search_rounds} rounds" if search_rounds else ""
    after = {"refine_steps": refine_steps} | ({"search_rounds": search_rounds} if search_rounds else {})
    return Competitor(name, "agent", tuple(_run(*model, device, after) for model in found))


def models(task: Any, spec: str, device: str) -> tuple[str, list[tuple[Any, str, dict[str, Any]]]]:
    """The name of an agent, and of each of its training seeds the model, the hash of its file and its record.

    task: a :class:`protocol.Task`, or anything else with its ``env_id``, ``preset``, ``params`` and ``make``.
    """
    name, equals, folders = spec.rpartition("=")
    if not equals and not Path(spec).exists():
        return spec, [_shipped_model(task, spec, device)]
    paths = [Path(folder) for folder in folders.split(",")]
    return name or paths[0].name, [_trained_model(task, path, device) for path in paths]


def _run(model: Any, weights: str, record: dict[str, Any], device: str, after: dict[str, int]) -> Run:
    """record: the card of a shipped agent, or the run.json of a trained one."""
    from semcom_gym import agents

    def act(env: Any, observation: Array) -> Array:
        actions = agents.decide(
            model, env.problem, env.params, env.instance, refine_steps=after["refine_steps"], observation=observation
        )
        if after.get("search_rounds"):
            actions = agents.search(env.problem, env.params, env.instance, actions, after["search_rounds"])
        return actions

    def decide(task: protocol.Task) -> protocol.Decisions:
        if not task.stepwise:
            return protocol.decide_by_agent(task, act)
        return protocol.decide_by_allocation(
            task, lambda: agents.allocate(model, task.problem, task.params, task.instance)
        )

    key = {"agent": weights, "device": device, **after}
    key["code"] = store.code_version("envs", "agents")
    return Run(key, decide, float(record["seconds"]), float(record["timesteps"]))


def _shipped_model(task: Any, algo: str, device: str) -> tuple[Any, str, dict[str, Any]]:
    from semcom_gym import agents

    model = agents.load(task.env_id, algo, task.preset, num_users=task.params.num_users, device=device)
    cards = {(card["env_id"], card["preset"], card["algo"]): card for card in agents.shipped()}
    card = cards[task.env_id, task.preset, algo]
    return model, card["sha256"], card


def trained_for(spec: str) -> list[str]:
    """The ids that an agent was trained for: one by ``FOLDER`` or ``NAME=FOLDER,FOLDER``, or all of a shipped one.

    Raises ValueError where it is neither shipped nor in folders that hold training runs of one id.
    """
    ids = [record["env_id"] for record in _records(spec)]
    if "," in spec and len(set(ids)) > 1:
        raise ValueError(f"the training runs of {spec!r} are of several environments: {', '.join(dict.fromkeys(ids))}")
    return list(dict.fromkeys(ids))


def varied_by(spec: str) -> dict[str, dict[str, Any]]:
    """Id -> what was varied in training, of an agent as in :func:`trained_for` that was trained on drawn problems."""
    return {record["env_id"]: record["vary"] for record in _records(spec) if record.get("vary")}


def _records(spec: str) -> list[dict[str, Any]]:
    """The cards of a shipped agent of the ids' own presets, or the run.json of every training run."""
    from semcom_gym import agents

    cards = [card for card in agents.shipped() if card["algo"] == spec and not Path(spec).exists()]
    cards = [card for card in cards if card["preset"] == envs.default_preset(card["env_id"])]
    return cards or [_record(Path(folder)) for folder in spec.rpartition("=")[2].split(",")]


def _record(folder: Path) -> dict[str, Any]:
    """The run.json of a training run."""
    try:
        record = dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
        record["env_id"] = record["env_id"].removeprefix("semcom_gym:")
        _ = record["algo"], float(record["seconds"]), float(record["timesteps"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{str(folder)!r} holds no training run: run.json is missing or corrupt") from None
    return record


def _trained_model(task: Any, folder: Path, device: str) -> tuple[Any, str, dict[str, Any]]:
    """The best model of a training run, for the task's number of users."""
    from semcom_gym import agents

    file, record = folder / "model.zip", _record(folder)
    env_id, algo = record["env_id"], record["algo"]
    if env_id != task.env_id:
        raise ValueError(f"the agent in {str(folder)!r} is for {env_id}, not for {task.env_id}")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"agent file {str(file)!r} is missing or corrupt")
    env = task.make(1)
    spaces = {"observation_space": env.single_observation_space, "action_space": env.single_action_space}
    model = agents.ALGORITHMS[algo][0].load(file, device=device, custom_objects=spaces)
    return model, hashlib.sha256(file.read_bytes()).hexdigest(), record
