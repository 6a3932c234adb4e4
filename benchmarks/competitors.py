"""Who competes: registered solvers, shipped agents, and agents trained by ``semcom-gym train``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from semcom_gym import baselines
from semcom_gym.benchmarks import protocol, store
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array


@dataclasses.dataclass(frozen=True)
class Run:
    """One thing to run on a task: a solver, or one training seed of an agent. ``key`` says what decides its result."""

    key: dict[str, Any]
    decide: Callable[[protocol.Task], protocol.Decisions]


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


def shipped(task: protocol.Task) -> list[str]:
    """The algorithms of the agents that ship for a task's id and preset."""
    from semcom_gym import agents

    return [card["algo"] for card in agents.shipped() if (card["env_id"], card["preset"]) == (task.env_id, task.preset)]


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
    name, equals, folders = spec.rpartition("=")
    validate.integer("refine steps", refine_steps, low=0)
    validate.integer("search rounds", search_rounds, low=0)
    if (refine_steps or search_rounds) and task.stepwise:
        raise ValueError(f"no refinement on {task.env_id}: its decisions are choices")
    if not equals and not Path(spec).exists():
        models = [_shipped_model(task, spec, device)]
        name = spec
    else:
        paths = [Path(folder) for folder in folders.split(",")]
        models = [_trained_model(task, path, device) for path in paths]
        name = name or paths[0].name
    name += f" + {refine_steps} steps" if refine_steps else ""
    name += f" + {search_rounds} rounds" if search_rounds else ""
    after = {"refine_steps": refine_steps} | ({"search_rounds": search_rounds} if search_rounds else {})
    return Competitor(name, "agent", tuple(_run(model, weights, device, after) for model, weights in models))


def _run(model: Any, weights: str, device: str, after: dict[str, int]) -> Run:
    from semcom_gym import agents

    def act(env: Any, observation: Array) -> Array:
        actions = agents.act(model, observation)
        if after["refine_steps"]:
            actions = agents.refine(env.problem, env.params, env.instance, actions, after["refine_steps"])
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
    return Run(key, decide)


def model(task: protocol.Task, spec: str, device: str = "cpu") -> tuple[Any, str]:
    """One model by ``spec``, ``apg`` (the one that ships for the task) or ``FOLDER`` of a training run; its SHA-256.

    Raises ValueError as :func:`agent` does.
    """
    return _trained_model(task, Path(spec), device) if Path(spec).exists() else _shipped_model(task, spec, device)


def _shipped_model(task: protocol.Task, algo: str, device: str) -> tuple[Any, str]:
    from semcom_gym import agents

    model = agents.load(task.env_id, algo, task.preset, num_users=task.params.num_users, device=device)
    cards = {(card["env_id"], card["preset"], card["algo"]): card for card in agents.shipped()}
    return model, cards[task.env_id, task.preset, algo]["sha256"]


def _trained_model(task: protocol.Task, folder: Path, device: str) -> tuple[Any, str]:
    """The best model of a training run, for the task's number of users."""
    from semcom_gym import agents

    file = folder / "model.zip"
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        env_id, algo = record["env_id"].removeprefix("semcom_gym:"), record["algo"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{str(folder)!r} holds no training run: run.json is missing or corrupt") from None
    if env_id != task.env_id:
        raise ValueError(f"the agent in {str(folder)!r} is for {env_id}, not for {task.env_id}")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"agent file {str(file)!r} is missing or corrupt")
    env = task.make(1)
    spaces = {"observation_space": env.single_observation_space, "action_space": env.single_action_space}
    model = agents.ALGORITHMS[algo][0].load(file, device=device, custom_objects=spaces)
    return model, hashlib.sha256(file.read_bytes()).hexdigest()
