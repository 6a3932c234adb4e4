"""Decisions of a trained model for batches of instances, and their improvement by gradient steps or random moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from semcom_gym.agents.choice_policy import ChoicePolicy
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, to_numpy
from semcom_gym.envs.problems import Problem
from semcom_gym.envs.sfma import pairing_env, resources

CHUNK = 2048  # instances at once: where the temporaries still fit the cache
SEEN = 1 << 16  # numbers of observations that a network takes at once, for the same reason
STEP = 0.02  # of refinement, in action units, falling linearly to zero
SPREAD, SHRINK = 0.08, 0.8  # of random moves, in action units: in the first round, and relative to the round before


def allocate(model: BaseAlgorithm, problem: Problem, params: Any, instance: Any) -> Any:
    """The allocation that a model makes of a batch of instances (NumPy), whatever its actions are.

    Of a model with ``Discrete`` actions, which pairs users one step at a time: its pairing, with the resources that
    its environment would solve for.
    """
    if not isinstance(model.action_space, spaces.Discrete):
        return problem.decode(params, instance, decide(model, problem, params, instance).astype(np.float64))
    problem.check(params, instance)
    chosen = [_pair_up(model, problem, params, instance[i : i + CHUNK]) for i in range(0, len(instance), CHUNK)]
    return resources.allocate(params, instance, np.sort(np.concatenate(chosen), axis=-1))


def _pair_up(model: BaseAlgorithm, problem: Problem, params: Any, instance: Any) -> np.ndarray[Any, Any]:
    """(n, K) the pairs that a model chooses, each the likeliest of those allowed."""
    progress = pairing_env.Progress(params, instance)
    plain = problem.observe(params, instance)
    model.policy.set_training_mode(False)
    for _ in range(params.num_groups):
        observation = torch.as_tensor(progress.observation(plain), device=model.device)
        with torch.no_grad():
            pair = model.policy._predict(observation, deterministic=True, action_masks=progress.allowed)
        progress.choose(to_numpy(pair))
    return progress.pair


def act(model: BaseAlgorithm, observation: Array) -> np.ndarray[Any, Any]:
    """Deterministic actions (n, blocks U), float32 in [-1, 1], of observations (n, d).

    Unlike ``model.predict`` it works in chunks and for any number of users. Of a policy with several ``choices`` it is
    the likeliest, as the instance is not seen. Raises ValueError for a wrong shape.
    """
    observation = torch.as_tensor(to_numpy(observation), dtype=torch.float32)
    if observation.ndim != 2:
        raise ValueError(f"observations must have shape (n, d), got {tuple(observation.shape)}")
    model.policy.set_training_mode(False)
    rows = max(1, min(CHUNK, SEEN // observation.shape[1])) if model.device.type == "cpu" else CHUNK
    with torch.no_grad():
        parts = [
            model.policy._predict(part.to(model.device), deterministic=True).cpu() for part in observation.split(rows)
        ]
    return torch.cat(parts).clamp(-1.0, 1.0).numpy()


def decide(
    model: BaseAlgorithm, problem: Problem, params: Any, instance: Any, *, refine_steps: int = 0,
    observation: Array | None = None,
) -> np.ndarray[Any, Any]:  # fmt: skip
    """Actions (n, blocks U) of a model for a batch of instances (NumPy), refined by ``refine_steps`` gradient steps.

    Of a policy with several ``choices``: the one that earns most on the instance, by playing them all. observation
    (n, d): of the instances, where it is known. Raises TypeError for a model that pairs users one step at a time: see
    :func:`allocate`.
    """
    if isinstance(model.action_space, spaces.Discrete):
        raise TypeError("this model decides in several steps: use agents.allocate")
    problem.check(params, instance)
    validate.integer("refine_steps", refine_steps, low=0)
    observation = problem.observe(params, instance) if observation is None else observation
    if isinstance(model.policy, ChoicePolicy):
        actions = _choose(model.policy, problem, params, instance, observation)
    else:
        actions = act(model, observation)
    return refine(problem, params, instance, actions, refine_steps) if refine_steps else actions


def _choose(
    policy: ChoicePolicy, problem: Problem, params: Any, instance: Any, observation: Array
) -> np.ndarray[Any, Any]:
    """The best action (n, d) of all choices of a policy, on each instance's own objective in float64."""
    policy.set_training_mode(False)
    seen = torch.as_tensor(to_numpy(observation), dtype=torch.float32)
    count = policy.choices
    size = max(1, CHUNK // count)
    best = []
    for start in range(0, len(instance), size):
        rows = np.arange(start, min(start + size, len(instance)))
        with torch.no_grad():
            actions = policy.propose(seen[rows].to(policy.device), count, 0.0)[0].cpu().numpy()
        played = actions.reshape(-1, actions.shape[-1]).astype(np.float64)
        value = problem.play(params, instance[np.tile(rows, count)], played)[1].reshape(count, -1)
        best.append(actions[value.argmax(axis=0), np.arange(len(rows))])
    return np.concatenate(best)


def refine(
    problem: Problem, params: Any, instance: Any, actions: Array, steps: int = 20, *, step: float = STEP
) -> np.ndarray[Any, Any]:
    """Improve actions (n, blocks U) by ``steps`` of Adam on each instance's own objective, in float64 on the CPU.

    The best action met is kept, so no instance ends worse than it began.
    """
    validate.integer("steps", steps)
    validate.number("step", step)
    actions = np.asarray(to_numpy(actions), np.float64)
    parts = [
        _refine_chunk(problem, params, instance[i : i + CHUNK], actions[i : i + CHUNK], steps, step)
        for i in range(0, len(actions), CHUNK)
    ]
    return np.concatenate(parts)


def _refine_chunk(problem: Problem, params: Any, instance: Any, actions: Array, steps: int, step: float) -> Array:
    instance = instance.to_torch(dtype=torch.float64)
    action = torch.as_tensor(actions).clamp(-1.0, 1.0).requires_grad_()
    best = action.detach().clone()
    best_value = torch.full((len(best),), -torch.inf, dtype=torch.float64)
    optimizer = torch.optim.Adam([action], lr=step, betas=(0.8, 0.99))
    for k in range(steps + 1):
        value = problem.play(params, instance, action)[1]
        with torch.no_grad():
            better = value > best_value
            best_value = torch.where(better, value, best_value)
            best = torch.where(better[:, None], action, best)
        if k < steps:
            optimizer.param_groups[0]["lr"] = step * (1.0 - k / steps)
            optimizer.zero_grad()
            (-value.sum()).backward()
            optimizer.step()
            with torch.no_grad():
                action.clamp_(-1.0, 1.0)
    return best.numpy()


def search(
    problem: Problem, params: Any, instance: Any, actions: Array, rounds: int = 10, *, moves: int = 8,
    spread: float = SPREAD,
) -> np.ndarray[Any, Any]:  # fmt: skip
    """Improve actions (n, d) by ``rounds`` of ``moves`` random moves on each instance's own objective, in float64.

    Unlike :func:`refine` it needs no slope, as where the objective falls in stairs. The moves are the same for all
    instances and calls; the best action met is kept, so no instance ends worse than it began.
    """
    for name, value in (("rounds", rounds), ("moves", moves)):
        validate.integer(name, value)
    validate.number("spread", spread)
    actions = np.clip(np.asarray(to_numpy(actions), np.float64), -1.0, 1.0)
    move = np.random.default_rng(0).standard_normal((rounds, moves, actions.shape[1]))
    move *= (spread * SHRINK ** np.arange(rounds))[:, None, None]
    size = max(1, CHUNK // moves)
    parts = [
        _search_chunk(problem, params, instance[i : i + size], actions[i : i + size], move)
        for i in range(0, len(actions), size)
    ]
    return np.concatenate(parts)


def _search_chunk(problem: Problem, params: Any, instance: Any, best: Array, move: Array) -> Array:
    n, moves = len(best), move.shape[1]
    value = problem.play(params, instance, best)[1]
    many = instance[np.repeat(np.arange(n), moves)]
    for step in move:
        trial = np.clip(best[:, None] + step, -1.0, 1.0)
        found = problem.play(params, many, trial.reshape(n * moves, -1))[1].reshape(n, moves)
        first = found.argmax(axis=1)
        rows = np.flatnonzero(found[np.arange(n), first] > value)
        best, value = best.copy(), value.copy()
        best[rows], value[rows] = trial[rows, first[rows]], found[rows, first[rows]]
    return best
