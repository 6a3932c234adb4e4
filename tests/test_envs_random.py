"""Every id under random parameters and actions: nothing that is not finite, no crash, no budget broken.

A seed decides a case; the message of a failure has it and its keyword arguments.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from drawn import random_action
from random_params import creator, garbage, keywords

from semcom_gym import envs
from semcom_gym.envs.arrays import to_numpy

ALL = [*envs.IDS, *envs.FADING_IDS]
MET = {
    "crra": {"bandwidth", "min_bandwidth", "power", "min_power", "ratio", "selection", "energy"},
    "sfma": {"power", "bandwidth", "ratio", "pairing"},
    "ascc": {"power", "rate", "beam_norm"},
    "training": {"bandwidth", "power", "device_frequency", "bs_frequency", "ratio"},
}
"""What every action meets. Random parameters may have other limits, such as latencies, that nothing meets."""
HAS_TORCH = importlib.util.find_spec("torch") is not None
OF_VECTOR = 3
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers far out overflow on their way


def check(env_id: str, seed: int) -> bool:
    """Play a random case; whether its parameters go together. Where they do not, it must be said in one line."""
    rng = np.random.default_rng([len(env_id), seed])
    given = keywords(rng, env_id)
    shell = rng.choice(["scalar", "scalar", "numpy", "torch"] if HAS_TORCH else ["scalar", "scalar", "numpy"])
    message = refusal(env_id, given)
    if message is not None:
        assert "\n" not in message
        return False
    try:
        play_scalar(env_id, given, rng) if shell == "scalar" else play_vector(env_id, given, rng, str(shell))
    except Exception as error:
        raise AssertionError(f"{env_id}, seed {seed}, {shell}, {given}: {error!r}") from error
    return True


def refusal(env_id: str, given: dict[str, Any]) -> str | None:
    """What an id says of keyword arguments that it does not take."""
    try:
        creator(env_id)(**given)
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def play_scalar(env_id: str, given: dict[str, Any], rng: np.random.Generator) -> None:
    env = creator(env_id)(**given)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    assert observation in env.observation_space
    over = False
    while not over:
        mask = env.action_masks() if isinstance(env.action_space, gym.spaces.Discrete) else None
        observation, reward, terminated, truncated, info = env.step(random_action(rng, env.action_space.shape, mask))
        over = terminated or truncated
        assert observation in env.observation_space
        assert np.isfinite(reward)
        if info:
            check_outcome(env, info, 1e-6)


def play_vector(env_id: str, given: dict[str, Any], rng: np.random.Generator, backend: str) -> None:
    """An episode in three sub-environments, in float32 where the id has it."""
    pairing = env_id == "SemCom/SFMAPairing-v0"
    own = {} if pairing else {"backend": backend, "dtype": str(rng.choice(["float32", "float64"]))}
    env = creator(env_id, vector=True)(OF_VECTOR, **given, **own)
    observation, _ = env.reset(seed=int(rng.integers(2**31)))
    ended = np.zeros(OF_VECTOR, bool)
    while not ended.any():
        masks = env.action_masks() if pairing else [None] * OF_VECTOR
        action = np.stack([random_action(rng, env.single_action_space.shape, mask) for mask in masks])
        observation, reward, terminated, truncated, info = env.step(action)
        ended = to_numpy(terminated) | to_numpy(truncated)
        assert np.isfinite(to_numpy(observation)).all()
        assert np.isfinite(to_numpy(reward)).all()
        if "final_info" in info:
            check_outcome(env, info["final_info"], 1e-6 if env.dtype == np.float64 else 1e-5)


def check_outcome(env: Any, info: dict[str, Any], tolerance: float) -> None:
    """Everything finite, and every budget kept."""
    for name, value in {**info, **info["terms"]}.items():
        if name != "terms":
            assert np.isfinite(to_numpy(value)).all(), name
    violations = {name.removeprefix("violation/"): value for name, value in info.items() if "/" in name}
    for name in MET[env.problem.name] & set(violations):
        assert np.max(to_numpy(violations[name])) <= tolerance or is_short(env.params), name


def is_short(params: Any) -> bool:
    """Whether an instance of CRRA may have less than its users are guaranteed."""
    if not hasattr(params, "bandwidth_range_hz"):
        return False
    served = 1 if params.selection else params.num_users
    least = {params.bandwidth_range_hz: params.min_bandwidth_hz, params.power_range_w: params.min_power_w}
    return any(budget is not None and served * floor > budget[0] for budget, floor in least.items())


@pytest.mark.parametrize("env_id", ALL)
def test_random_parameters_and_actions(env_id: str) -> None:
    assert sum(check(env_id, seed) for seed in range(20)) >= 10, "most parameters go together"


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ALL)
def test_ten_thousand_random_parameters_and_actions(env_id: str) -> None:
    assert sum(check(env_id, seed) for seed in range(10_000)) >= 5_000


@pytest.mark.parametrize("env_id", ALL)
def test_garbage_is_refused_in_one_line_or_played(env_id: str) -> None:
    refused, cases = 0, garbage(env_id)
    short = {"horizon": 1} if env_id in envs.FADING_IDS else {}
    for name, value in cases:
        given = short | {name: value}
        message = refusal(env_id, given)
        if message is None:
            play_scalar(env_id, given, np.random.default_rng(0))
        else:
            assert "\n" not in message, given
            refused += 1
    assert refused > 0.8 * len(cases)
