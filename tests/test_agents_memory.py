"""The set policy with memory: a row for every user, the past of that user, any number of users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from semcom_gym.agents.memory import RowMemory, SetRecurrentPolicy

FEATURES, GLOBALS, BLOCKS, MEMORY = 3, 2, 2, 4
torch.set_num_threads(1)


def make(users: int, **kwargs: Any) -> SetRecurrentPolicy:
    torch.manual_seed(0)
    observation = spaces.Box(-np.inf, np.inf, (users * FEATURES + GLOBALS,), np.float32)
    action = spaces.Box(-1, 1, (users * BLOCKS,), np.float32)
    sizes = {"user_features": FEATURES, "global_features": GLOBALS, "blocks": BLOCKS, "width": 8, "depth": 1}
    made = SetRecurrentPolicy(observation, action, lambda _: 1e-3, memory=MEMORY, **(sizes | kwargs))
    with torch.no_grad():
        for parameter in made.parameters():  # far from the start, where all users are alike
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def play(policy: SetRecurrentPolicy, past: np.ndarray, order: list[int]) -> np.ndarray:
    """The last actions (n, BLOCKS, U) after observations (t, n, U, FEATURES) with users in an order."""
    state = None
    for rows in past[:, :, order]:
        cell = np.ones((len(rows), GLOBALS))
        flat = np.concatenate([rows.reshape(len(rows), -1), cell], axis=1).astype(np.float32)
        actions, state = policy.predict(flat, state, deterministic=True)
    return actions.reshape(len(actions), BLOCKS, -1)


def test_actions_follow_their_users_and_what_was_seen_of_them() -> None:
    policy = make(4)
    past = np.random.default_rng(0).standard_normal((3, 5, 4, FEATURES))
    order = [2, 0, 3, 1]
    actions = play(policy, past, [0, 1, 2, 3])
    np.testing.assert_allclose(play(policy, past, order), actions[..., order], rtol=1e-4, atol=1e-5)
    other = past.copy()
    other[0] += 1.0  # another past, the same present
    assert np.abs(play(policy, other, [0, 1, 2, 3]) - actions).max() > 1e-3


def test_the_weights_serve_any_number_of_users() -> None:
    few, many = make(3), make(7)
    many.load_state_dict(few.state_dict())
    past = np.random.default_rng(1).standard_normal((2, 4, 3, FEATURES))
    assert play(few, past, [0, 1, 2]).shape == (4, BLOCKS, 3)
    assert play(many, past, [0, 1, 2, 0, 1, 2, 0]).shape == (4, BLOCKS, 7)


def test_a_row_remembers_by_itself() -> None:
    memory = RowMemory(3 * FEATURES + GLOBALS, 3, FEATURES, MEMORY)
    flat = torch.randn(5, 2, 3 * FEATURES + GLOBALS)
    zeros = torch.zeros(1, 2, 3 * MEMORY)
    out, (hidden, cell) = memory(flat, (zeros, zeros))
    assert out.shape == (5, 2, 3 * (FEATURES + MEMORY) + GLOBALS)
    assert hidden.shape == cell.shape == zeros.shape
    torch.testing.assert_close(out[..., -GLOBALS:], flat[..., -GLOBALS:])
    changed = flat.clone()
    changed[0, 0, :FEATURES] += 1.0  # of the first user
    moved = (memory(changed, (zeros, zeros))[1][0] - hidden).reshape(2, 3, MEMORY).abs().amax(-1)
    assert (moved > 1e-4).tolist() == [[True, False, False], [False, False, False]]
    half, states = memory(flat[:2], (zeros, zeros))
    rest, _ = memory(flat[2:], states)
    torch.testing.assert_close(torch.cat([half, rest]), out)


def test_it_needs_the_sizes_of_its_environment() -> None:
    with pytest.raises(ValueError, match="user_features, global_features, blocks"):
        SetRecurrentPolicy(spaces.Box(-1, 1, (8,), np.float32), spaces.Box(-1, 1, (4,), np.float32), lambda _: 1e-3)
