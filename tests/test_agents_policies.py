"""Set policies: equivariance, any number of users, save and load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from semcom_gym.agents.policies import (
    SetActorCriticPolicy,
    SetPolicy,
    SetSACPolicy,
    SetTD3Policy,
    SetTQCPolicy,
)

FEATURES, GLOBALS, BLOCKS = 7, 5, 3
POLICIES = (SetPolicy, SetActorCriticPolicy, SetSACPolicy, SetTQCPolicy, SetTD3Policy)
torch.set_num_threads(1)


def make(policy: type, users: int, seed: int = 0, **kwargs: Any) -> Any:
    torch.manual_seed(seed)
    observation = spaces.Box(-np.inf, np.inf, (users * FEATURES + GLOBALS,), np.float32)
    action = spaces.Box(-1, 1, (users * BLOCKS,), np.float32)
    sizes = {"user_features": FEATURES, "global_features": GLOBALS, "blocks": BLOCKS, "width": 16, "depth": 2}
    made = policy(observation, action, lambda _: 1e-3, **(sizes | kwargs))
    with torch.no_grad():
        for parameter in made.parameters():  # far from the start, where all users are alike
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def batch(users: int, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, users, FEATURES, generator=generator), torch.randn(n, GLOBALS, generator=generator)


def flat(rows: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows.flatten(1), cell], dim=1)


def by_user(action: torch.Tensor) -> torch.Tensor:
    return action.view(len(action), BLOCKS, -1)


@pytest.mark.parametrize("policy", POLICIES)
def test_actions_follow_their_users(policy: type) -> None:
    made, (rows, cell) = make(policy, 6), batch(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        action = by_user(made._predict(flat(rows, cell), deterministic=True))
        permuted = by_user(made._predict(flat(rows[:, order], cell), deterministic=True))
    torch.testing.assert_close(permuted, action[:, :, order])
    assert action.std(dim=-1).min() > 1e-3  # users do differ


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_weights_serve_any_number_of_users(policy: type) -> None:
    small, large, (rows, cell) = make(policy, 4), make(policy, 8, seed=9), batch(4)
    large.load_state_dict(small.state_dict())
    with torch.no_grad():
        action = by_user(small._predict(flat(rows, cell), deterministic=True))
        doubled = by_user(large._predict(flat(rows.repeat(1, 2, 1), cell), deterministic=True))
    torch.testing.assert_close(doubled, action.repeat(1, 1, 2))  # mean and maximum do not change by doubling


@pytest.mark.parametrize("policy", [SetSACPolicy, SetTQCPolicy, SetTD3Policy])
def test_critics_do_not_depend_on_the_order_of_users(policy: type) -> None:
    made, (rows, cell) = make(policy, 6), batch(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    action = torch.rand(5, BLOCKS, 6)
    with torch.no_grad():
        value = made.critic(flat(rows, cell), action.flatten(1))
        permuted = made.critic(flat(rows[:, order], cell), action[:, :, order].flatten(1))
        paired_wrongly = made.critic(flat(rows[:, order], cell), action.flatten(1))
    first, second, third = (x[0] if isinstance(x, tuple) else x for x in (value, permuted, paired_wrongly))
    torch.testing.assert_close(first, second)
    assert (first - third).abs().max() > 1e-4


def test_values_do_not_depend_on_the_order_of_users() -> None:
    made, (rows, cell) = make(SetActorCriticPolicy, 6), batch(6)
    with torch.no_grad():
        value = made.predict_values(flat(rows, cell))
        permuted = made.predict_values(flat(rows[:, [3, 0, 5, 1, 4, 2]], cell))
    torch.testing.assert_close(value, permuted)


@pytest.mark.parametrize("policy", POLICIES)
def test_save_and_load(policy: type, tmp_path: Path) -> None:
    made, (rows, cell) = make(policy, 5), batch(5)
    made.save(str(tmp_path / "policy.zip"))
    loaded = policy.load(str(tmp_path / "policy.zip"), device="cpu")
    with torch.no_grad():
        expected = made._predict(flat(rows, cell), deterministic=True)
        torch.testing.assert_close(loaded._predict(flat(rows, cell), deterministic=True), expected, rtol=0, atol=0)


def test_the_start_is_the_action_before_training() -> None:
    torch.manual_seed(0)
    made = SetPolicy(
        spaces.Box(-np.inf, np.inf, (4 * FEATURES + GLOBALS,)),
        spaces.Box(-1, 1, (12,)),
        lambda _: 1e-3,
        user_features=FEATURES,
        global_features=GLOBALS,
        blocks=BLOCKS,
        start=(0.0, -0.5, 0.6),
    )
    action = by_user(made(flat(*batch(4))).detach())
    assert np.allclose(action, torch.tensor([0.0, -0.5, 0.6])[None, :, None], atol=0.15)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"start": (0.0, 0.0)}, r"start must hold 3 numbers in \(-1, 1\)"),
        ({"start": (0.0, 0.0, 1.0)}, r"start must hold 3 numbers in \(-1, 1\)"),
    ],
)
def test_bad_start(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(SetPolicy, 4, **kwargs)


def test_missing_layout() -> None:
    with pytest.raises(ValueError, match="a set policy needs policy_kwargs user_features, global_features, blocks"):
        SetPolicy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (3,)), lambda _: 1e-3)


@pytest.mark.parametrize("policy", [SetPolicy, SetActorCriticPolicy, SetSACPolicy])
def test_rows_need_not_see_the_cell(policy: type) -> None:
    (rows, cell), seeing = batch(4), make(policy, 4)
    blind = make(policy, 4, cell=False)
    for made, differs in ((seeing, True), (blind, False)):
        with torch.no_grad():
            actions = [made._predict(flat(rows, x), deterministic=True) for x in (cell, cell + 1.0)]
        assert ((actions[0] - actions[1]).abs().max() > 1e-3) == differs


# --- with features of pairs ----------------------------------------------------------------------------------------

PAIRED = {"pair_features": 2, "mirror": [1, 0]}  # left and right change places with the users


def make_paired(policy: type, users: int, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    pairs = users * (users - 1) // 2
    observation = spaces.Box(-np.inf, np.inf, (users * FEATURES + 2 * pairs + GLOBALS,), np.float32)
    sizes = {"user_features": FEATURES, "global_features": GLOBALS, "blocks": BLOCKS, "width": 16, "depth": 2}
    action = spaces.Box(-1, 1, (users * BLOCKS,), np.float32)
    made = policy(observation, action, lambda _: 1e-3, **sizes, **PAIRED, **kwargs)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def flat_paired(rows: torch.Tensor, cell: torch.Tensor, order: list[int]) -> torch.Tensor:
    """Users in an order, with the features (f(i, j), f(j, i)) of every pair i < j."""
    seen = torch.randn(len(rows), *[rows.shape[1]] * 2, generator=torch.Generator().manual_seed(2))
    left, right = np.triu_indices(rows.shape[1], 1)
    first, second = torch.tensor(order)[left], torch.tensor(order)[right]
    pairs = torch.stack([seen[:, first, second], seen[:, second, first]], dim=-1)
    return torch.cat([rows[:, order].flatten(1), pairs.flatten(1), cell], dim=1)


@pytest.mark.parametrize("policy", POLICIES)
def test_actions_follow_their_users_and_pairs(policy: type, tmp_path: Path) -> None:
    made, (rows, cell) = make_paired(policy, 5), batch(5)
    order = [3, 0, 4, 1, 2]
    plain, turned = flat_paired(rows, cell, list(range(5))), flat_paired(rows, cell, order)
    wrong = torch.cat([turned[:, : 5 * FEATURES], plain[:, 5 * FEATURES :]], dim=1)  # pairs left where they were
    with torch.no_grad():
        action, permuted, mixed = (by_user(made._predict(x, deterministic=True)) for x in (plain, turned, wrong))
    torch.testing.assert_close(permuted, action[:, :, order])
    assert (mixed - permuted).abs().max() > 1e-3  # pairs count
    made.save(str(tmp_path / "policy.zip"))
    loaded = policy.load(str(tmp_path / "policy.zip"), device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(by_user(loaded._predict(plain, deterministic=True)), action, rtol=0, atol=0)


@pytest.mark.parametrize("policy", [SetSACPolicy, SetTQCPolicy, SetTD3Policy])
def test_critics_with_pairs_do_not_depend_on_the_order(policy: type) -> None:
    made, (rows, cell) = make_paired(policy, 5), batch(5)
    order = [3, 0, 4, 1, 2]
    action = torch.rand(5, BLOCKS, 5)
    plain, turned = flat_paired(rows, cell, list(range(5))), flat_paired(rows, cell, order)
    with torch.no_grad():
        found = made.critic(plain, action.flatten(1))
        permuted = made.critic(turned, action[:, :, order].flatten(1))
        paired_wrongly = made.critic(turned, action.flatten(1))
    first, second, third = (x[0] if isinstance(x, tuple) else x for x in (found, permuted, paired_wrongly))
    torch.testing.assert_close(first, second)
    assert (first - third).abs().max() > 1e-4


def test_the_same_weights_serve_any_number_of_users_in_pairs() -> None:
    small, large = make_paired(SetPolicy, 4), make_paired(SetPolicy, 7)
    large.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert by_user(large(flat_paired(*batch(7), list(range(7))))).shape == (5, BLOCKS, 7)


def test_rows_in_pairs_need_not_see_the_cell() -> None:
    rows, cell = batch(5)
    for cell_is_seen in (True, False):
        made = make_paired(SetPolicy, 5, cell=cell_is_seen)
        with torch.no_grad():
            first, second = (made(flat_paired(rows, x, list(range(5)))) for x in (cell, cell + 1.0))
        assert ((first - second).abs().max() > 1e-3) == cell_is_seen


# --- with entries of pairs in the action ---------------------------------------------------------------------------


def make_scored(policy: type, users: int) -> Any:
    """As :func:`make_paired`, with a score for every pair ahead of the entries per user."""
    torch.manual_seed(0)
    pairs = users * (users - 1) // 2
    observation = spaces.Box(-np.inf, np.inf, (users * FEATURES + 2 * pairs + GLOBALS,), np.float32)
    sizes = {"user_features": FEATURES, "global_features": GLOBALS, "blocks": BLOCKS, "width": 16, "depth": 2}
    action = spaces.Box(-1, 1, (pairs + users * BLOCKS,), np.float32)
    made = policy(observation, action, lambda _: 1e-3, **sizes, **PAIRED, pair_blocks=1, value_scale=30.0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def turned_action(action: torch.Tensor, order: list[int]) -> torch.Tensor:
    """The same scores and entries once user k is user ``order[k]``."""
    users = len(order)
    table = torch.zeros(users, users, dtype=torch.long)
    left, right = np.triu_indices(users, 1)
    table[left, right] = table[right, left] = torch.arange(len(left))
    pair = table[torch.tensor(order)[left], torch.tensor(order)[right]]
    scores, entries = action[:, : len(left)], action[:, len(left) :].view(len(action), BLOCKS, users)
    return torch.cat([scores[:, pair], entries[:, :, order].flatten(1)], dim=1)


@pytest.mark.parametrize("policy", POLICIES)
def test_scores_follow_their_pairs(policy: type, tmp_path: Path) -> None:
    made, (rows, cell), order = make_scored(policy, 5), batch(5), [3, 0, 4, 1, 2]
    plain, turned = flat_paired(rows, cell, list(range(5))), flat_paired(rows, cell, order)
    with torch.no_grad():
        action, permuted = (made._predict(x, deterministic=True) for x in (plain, turned))
    assert action.shape == (5, 10 + BLOCKS * 5)
    torch.testing.assert_close(permuted, turned_action(action, order), rtol=1e-4, atol=1e-5)
    assert action[:, :10].std(dim=1).min() > 1e-3  # pairs do differ
    made.save(str(tmp_path / "policy.zip"))
    loaded = policy.load(str(tmp_path / "policy.zip"), device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded._predict(plain, deterministic=True), action, rtol=0, atol=0)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_weights_score_any_number_of_users(policy: type) -> None:
    small, large = make_scored(policy, 4), make_scored(policy, 7)
    large.load_state_dict(small.state_dict())
    observation = flat_paired(*batch(7), list(range(7)))
    with torch.no_grad():
        found = [made._predict(observation, deterministic=True) for made in (small, large)]
    assert found[0].shape == (5, 21 + BLOCKS * 7)
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("policy", [SetSACPolicy, SetTQCPolicy, SetTD3Policy])
def test_critics_of_scores_do_not_depend_on_the_order(policy: type) -> None:
    made, (rows, cell), order = make_scored(policy, 5), batch(5), [3, 0, 4, 1, 2]
    plain, turned = flat_paired(rows, cell, list(range(5))), flat_paired(rows, cell, order)
    action = torch.rand(5, 10 + BLOCKS * 5)
    with torch.no_grad():
        found = [made.critic(*x) for x in ((plain, action), (turned, turned_action(action, order)), (turned, action))]
    first, second, third = (x[0] if isinstance(x, tuple) else x for x in found)
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-3)
    assert (first - third).abs().max() > 1e-2  # a critic sees the scores


def test_values_and_spreads_of_scores() -> None:
    made, (rows, cell) = make_scored(SetActorCriticPolicy, 5), batch(5)
    order = [3, 0, 4, 1, 2]
    with torch.no_grad():
        made.log_std.copy_(torch.tensor([-1.0, -2.0, -3.0, -4.0]))
        values = [made.predict_values(flat_paired(rows, cell, x)) for x in (list(range(5)), order)]
        spread = made.get_distribution(flat_paired(rows, cell, order)).distribution.stddev
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-3)
    expected = torch.repeat_interleave(torch.tensor([-1.0, -2.0, -3.0, -4.0]), torch.tensor([10, 5, 5, 5])).exp()
    torch.testing.assert_close(spread, expected.expand(5, -1))
