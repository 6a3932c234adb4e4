"""Solvers on the Fading ids, and the genie's bound: never beaten, tight where it can be known, proven line by line."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semcom_gym import baselines, envs
from semcom_gym.baselines import fading
from semcom_gym.baselines.crra import lines

CRRA = "SemCom/CRRAFading-v0"
SMALL = {"num_users": 4, "horizon": 3}


def make(name: str = CRRA, n: int = 3, **kwargs: Any) -> Any:
    return gym.make_vec(name, n, "vector_entry_point", dtype="float64", **(SMALL | kwargs)).unwrapped


@pytest.mark.parametrize("share", [None, 0.5, 0.2])
@pytest.mark.parametrize("preset", ["default", "hard"])
def test_nobody_beats_the_genie(preset: str, share: float | None) -> None:
    env = make(preset=preset, energy_share=share)
    episode = env.episodes("validation", 3)
    bound = fading.genie(env, episode)
    seeing = fading.play(env, episode, fading.SolverPolicy("fast", sees="truth")).objective.sum(axis=1)
    assert (seeing <= bound * (1 + 1e-9)).all()
    assert (seeing >= 0.85 * bound).all(), "the bound must say something"
    for sees in ("belief", "prediction"):
        played = fading.play(env, episode, fading.SolverPolicy("fast", 0.8, sees))
        assert played.feasible.all()
        assert (played.objective.sum(axis=1) <= bound * (1 + 1e-9)).all()


@pytest.mark.parametrize(("preset", "share"), [("default", 0.5), ("hard", 0.2)])
def test_the_genie_is_close_to_the_best_way_to_spend(preset: str, share: float) -> None:
    """All ways to spend on a grid of shares, each block decided by the solver that sees the truth."""
    env = make(preset=preset, energy_share=share)
    episode = env.episodes("validation", 3)
    blocks = episode.blocks(true=True)  # nine, episode by episode
    shares = np.linspace(0.05, 1.0, 20)
    each = [
        baselines.solve("crra", env.params, dataclasses.replace(blocks, power_w=u * blocks.power_w), "fast").objective
        for u in shares
    ]
    value = np.stack(each, axis=-1).reshape(3, 3, 20)
    a, b, c = value.transpose(1, 0, 2)
    total = a[:, :, None, None] + b[:, None, :, None] + c[:, None, None, :]
    spent = shares[:, None, None] + shares[:, None] + shares
    best = np.where(spent <= 3 * share + 1e-12, total, -np.inf).max(axis=(1, 2, 3))
    bound = fading.genie(env, episode)
    assert (best <= bound * (1 + 1e-9)).all()
    assert (best >= 0.97 * bound).all()


def test_no_random_actions_beat_the_genie() -> None:
    env = make(n=250, energy_share=0.3)
    one = env.episodes("validation", 4)
    bound = fading.genie(make(n=4, energy_share=0.3), one)
    generator = np.random.default_rng(0)
    for k in range(4):  # 1000 random episodes
        actions = generator.uniform(-1, 1, (3, *env.action_space.shape))
        actions[..., 2 * 4 : 3 * 4] = generator.uniform(0, 1, (3, 250, 4))  # ratios that are not hopeless
        steps = iter(actions)
        played = fading.play(env, one[np.full(250, k)], lambda *_, steps=steps: next(steps))
        assert played.feasible.all()
        assert (played.objective.sum(axis=1) <= bound[k]).all()


def test_without_a_budget_the_genie_is_the_sum_of_the_blocks() -> None:
    env = make(n=2, energy_share=None, horizon=2)
    episode = env.episodes("validation", 2)
    expected = [
        sum(
            float(baselines.bound("crra", env.params, episode[i].instance(np.array([t]), true=True)).value[0])
            for t in range(2)
        )
        for i in range(2)
    ]
    assert fading.genie(env, episode) == pytest.approx(expected, rel=1e-4)  # a proof stops within its tolerance


def test_lines_lie_above_the_value_at_every_power() -> None:
    problem = envs.problem("crra")
    params = problem.preset("default", num_users=4)
    instance = problem.sample_split(params, "validation", 6)
    intercept, slope = lines.power_lines(params, instance)
    assert intercept.shape == slope.shape == (6, len(lines.SHARES))
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        less = dataclasses.replace(instance, power_w=share * instance.power_w)
        value = baselines.solve("crra", params, less, "fast").objective
        top = (intercept + slope * share).min(axis=-1)
        assert (value <= top * (1 + 1e-9)).all()
        if share >= 0.25:
            assert (value >= 0.97 * top).all()


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_best_spending_against_a_grid(seed: int, share: float) -> None:
    """Three blocks, three lines each: the bound is the maximum over all ways to spend, found here by a grid."""
    generator = np.random.default_rng(seed)
    intercept, slope = generator.uniform(0, 1, (3, 3)), generator.uniform(0, 2, (3, 3))
    found = fading.best_spending(intercept, slope, 3 * share)
    grid = np.linspace(0, 1, 41)
    value = np.min(intercept[:, None] + slope[:, None] * grid[:, None], axis=-1)
    spent = grid[:, None, None] + grid[:, None] + grid
    total = value[0][:, None, None] + value[1][:, None] + value[2]
    reached = total[spent <= 3 * share + 1e-12].max()
    assert reached <= found + 1e-12
    assert found <= reached + 3 * 2.0 / 40  # a grid cell of each block, at the largest slope


def test_seeing_late_costs_and_predicting_helps() -> None:
    env = make(n=40, horizon=2, num_users=6, speed_range_m_s=(4.0, 6.0))
    episode = env.episodes("validation", 40)
    reached = [fading.play(env, episode, fading.SolverPolicy("fast", sees=sees)).reward.mean() for sees in fading.SEES]
    belief, prediction, truth = reached
    assert belief < prediction < truth


def test_in_time_and_without_error_all_see_the_same() -> None:
    env = make(delay_blocks=0, error_share=0.0)
    episode = env.episodes("validation", 3)
    reached = [fading.play(env, episode, fading.SolverPolicy("fast", sees=sees)).objective for sees in fading.SEES]
    np.testing.assert_allclose(reached[0], reached[2], rtol=1e-12)
    np.testing.assert_allclose(reached[1], reached[2], rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in envs.FADING_IDS if name != CRRA])
def test_a_solver_that_sees_the_truth_meets_the_bound_of_every_problem(name: str) -> None:
    size = {} if "ASCC" in name else {"num_users": 4}
    env = gym.make_vec(name, 2, "vector_entry_point", dtype="float64", horizon=2, **size).unwrapped
    episode = env.episodes("validation", 2)
    bound = fading.genie(env, episode)
    played = fading.play(env, episode, fading.SolverPolicy("fast", sees="truth"))
    rows = played.feasible.all(axis=1)
    assert rows.any()
    gap = (bound - played.objective.sum(axis=1))[rows] / np.abs(bound[rows]) * (1 if env.problem.maximise else -1)
    assert (gap >= -1e-9).all()
    assert (gap <= 0.05).all()


@pytest.mark.parametrize("name", ["SemCom/SFMAFading-v0", "SemCom/TrainingFading-v0"])
def test_a_limit_that_is_missed_is_no_bargain(name: str) -> None:
    """Whoever knows the truth and meets the limits earns more than a solver that stands on them and misses."""
    env = gym.make_vec(name, 4, "vector_entry_point", dtype="float64", horizon=3).unwrapped
    episode = env.episodes("validation", 4)
    truth, bold, careful = (
        fading.play(env, episode, fading.SolverPolicy("fast", margin, sees))
        for sees, margin in (("truth", 1.0), ("prediction", 1.0), ("prediction", 0.4))
    )
    assert truth.feasible.all()
    assert truth.reward.mean() > careful.reward.mean() > bold.reward.mean()
    assert careful.feasible.mean() > 0.5 > bold.feasible.mean()


def test_the_margin_is_chosen_by_the_reward() -> None:
    env = make(n=10)
    episode = env.episodes("validation", 10)
    chosen = fading.choose_margin(env, episode, "fast", margins=(0.2, 0.9, 4.0))
    rewards = {m: fading.play(env, episode, fading.SolverPolicy("fast", m)).reward.mean() for m in (0.2, 0.9, 4.0)}
    assert chosen.margin == max(rewards, key=lambda m: rewards[m]) == 0.9


def test_solver_on_the_scalar_environment() -> None:
    env = gym.make(CRRA, disable_env_checker=True, **SMALL).unwrapped
    episode = env.episodes("validation", 1)
    expected = fading.play(make(n=1), episode, fading.SolverPolicy("fast")).reward[0]
    env.reset(options={"episode": episode})
    got = [env.step_allocation(fading.SolverPolicy("fast")(env))[1] for _ in range(3)]
    assert got == pytest.approx(expected.tolist(), rel=1e-9)


def test_errors() -> None:
    with pytest.raises(ValueError, match="margin"):
        fading.SolverPolicy("fast", margin=0.0)
    with pytest.raises(ValueError, match="unknown sees 'all'"):
        fading.SolverPolicy("fast", sees="all")
    env = make()
    with pytest.raises(ValueError, match="unknown crra method 'best'"):
        fading.play(env, env.episodes("train", 3), fading.SolverPolicy("best"))
    with pytest.raises(ValueError, match="margins"):
        fading.choose_margin(env, env.episodes("train", 3), "fast", margins=())
    with pytest.raises(TypeError, match="must be a crra Allocation"):
        env.step_allocation(np.zeros(3))
