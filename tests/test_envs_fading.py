"""The Fading ids: the channel over time, what the agent sees of it, the energy budget."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import envs
from semcom_gym.envs import channel, fading, spending

CRRA, CRRAUS = "SemCom/CRRAFading-v0", "SemCom/CRRAUSFading-v0"


@pytest.fixture(params=envs.FADING_IDS)
def fading_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def crra(**kwargs: Any) -> Any:
    return gym.make(CRRA, disable_env_checker=True, **kwargs).unwrapped


# --- the channel over time -----------------------------------------------------------------------------------------
def bessel_j0(x: float) -> float:
    """J0 by its power series."""
    return sum((-1) ** k * (x / 2) ** (2 * k) / math.factorial(k) ** 2 for k in range(40))


@pytest.mark.parametrize("speed", [0.0, 1.0, 3.0, 12.0])
def test_fading_is_correlated_by_j0_and_keeps_its_power(speed: float) -> None:
    env = crra(speed_range_m_s=(speed, speed), horizon=4, num_users=20, delay_blocks=0, error_share=0.0)
    expected = bessel_j0(2 * math.pi * (speed * 2e9 / 299_792_458.0) * 5e-3)
    assert fading.jakes(env.fading, np.array(speed)) == pytest.approx(expected, abs=1e-12)
    power = env.episodes("train", 1000).fade.transpose(1, 0, 2).reshape(5, -1)  # 20000 users of Rayleigh fading
    np.testing.assert_allclose(power.mean(axis=1), 1.0, atol=5 / math.sqrt(20000))
    # the powers of complex Gaussian taps are correlated by the square of the taps' correlation
    assert np.corrcoef(power[1], power[2])[0, 1] == pytest.approx(expected**2, abs=5 / math.sqrt(20000))
    assert np.corrcoef(power[1], power[3])[0, 1] == pytest.approx(expected**4, abs=5 / math.sqrt(20000))


def test_gauss_markov_by_hand() -> None:
    states = fading.gauss_markov(np.array([[2.0]]), np.array([[0.6]]), np.array([[[1.0], [-1.0], [9.0]]]))
    assert states.ravel() == pytest.approx([2.0, 0.6 * 2 + 0.8, 0.6 * (0.6 * 2 + 0.8) - 0.8])


def test_diversity_averages_taps() -> None:
    power = crra(diversity=4, horizon=1, num_users=20).episodes("train", 500).fade.ravel()
    assert power.var() == pytest.approx(0.25, rel=0.1)  # of the mean of four exponential variates
    assert power.mean() == pytest.approx(1.0, abs=0.02)


def test_users_walk_inside_the_ring_and_stay_uniform() -> None:
    env = crra(scenario="roam", speed_range_m_s=(15.0, 15.0), horizon=40, num_users=20)
    distance = env.episodes("train", 200).truth["distance_m"]
    low, high = env.params.min_distance_m, env.params.cell_radius_m
    assert distance.min() >= low
    assert distance.max() <= high
    assert (np.abs(np.diff(distance, axis=1)) <= 15.0 + 1e-9).all()
    assert np.abs(distance[:, -1] - distance[:, 0]).mean() > 50.0
    square = (distance**2).mean(axis=(0, 2))  # of a uniform place: the mean of the two squared radii
    np.testing.assert_allclose(square, (low**2 + high**2) / 2, rtol=0.03)


def test_a_step_across_the_outer_ring_is_reflected_by_hand() -> None:
    places = fading.walk(*np.array([[[9.0]], [[0.0]], [[0.0]]]), np.array([[3.0]]), np.zeros((1, 3, 1)), 1.0, 10.0)
    assert places[0].ravel() == pytest.approx([9.0, 8.0, 5.0])  # 12 is 2 beyond, then back inwards
    assert places[1].ravel() == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_shadowing_forgets_over_the_path_and_keeps_its_spread() -> None:
    kwargs = {"scenario": "roam", "speed_range_m_s": (10.0, 10.0), "horizon": 6, "num_users": 20, "delay_blocks": 0}
    env = crra(**kwargs)
    episode = env.episodes("train", 500)
    slow = episode.belief["gain"] / episode.fade
    shadow = 10 * np.log10(slow) + channel.path_loss_db(episode.belief["distance_m"])
    rows = shadow.transpose(1, 0, 2).reshape(7, -1)
    np.testing.assert_allclose(rows.std(axis=1), env.params.shadowing_db, rtol=0.03)
    for blocks in (1, 5):  # Gudmundson: exp(-d / d_corr) after d = 10 m a block
        expected = math.exp(-10.0 * blocks / 50.0)
        assert np.corrcoef(rows[0], rows[blocks])[0, 1] == pytest.approx(expected, abs=0.05)


def test_without_speed_nothing_moves(fading_id: str) -> None:
    env = gym.make(fading_id, speed_range_m_s=(0.0, 0.0), horizon=5, error_share=0.0).unwrapped
    episode = env.episodes("train", 3)
    for part in (episode.truth, episode.belief):
        for name, value in part.items():
            np.testing.assert_allclose(value, np.repeat(value[:, :1], 6, axis=1), rtol=1e-12, err_msg=name)
    for name in episode.truth:
        np.testing.assert_allclose(episode.truth[name], episode.belief[name], rtol=1e-12)


# --- what the agent sees -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_the_belief_is_the_truth_of_earlier_blocks(fading_id: str, delay: int) -> None:
    episode = gym.make(fading_id, delay_blocks=delay, error_share=0.0, horizon=5).unwrapped.episodes("train", 4)
    for name, truth in episode.truth.items():
        np.testing.assert_allclose(episode.belief[name][:, delay:], truth[:, : 6 - delay], rtol=1e-12)
        if delay:
            assert not np.allclose(episode.belief[name], truth, rtol=1e-6, atol=0.0)


def test_estimation_error_has_the_correlation_that_is_observed() -> None:
    env = crra(error_share=0.3, speed_range_m_s=(2.0, 2.0), num_users=20, horizon=1)
    episode = env.episodes("train", 1000)
    c = 0.7 * bessel_j0(2 * math.pi * (2.0 * 2e9 / 299_792_458.0) * 5e-3) ** 2
    np.testing.assert_allclose(episode.correlation, c, rtol=1e-12)
    slow = episode.belief["gain"] / episode.fade  # walking 1 cm hardly changes it
    true = (episode.truth["gain"] / slow)[:, 0].ravel()
    seen = episode.fade[:, 0].ravel()
    assert np.corrcoef(true, seen)[0, 1] == pytest.approx(c, abs=0.04)
    # the prediction leaves an error that what is seen says nothing more about
    error = true - (1.0 + c * (seen - 1.0))
    assert np.corrcoef(error, seen)[0, 1] == pytest.approx(0.0, abs=0.04)


def test_observation_is_of_the_belief(fading_id: str) -> None:
    env = gym.make(fading_id, horizon=3).unwrapped
    observation, _ = env.reset(seed=4)
    layout, plain = env.observation_layout, env.problem.observation_layout(env.params)
    for t in range(3):
        base = env.problem.observe(env.params, env.instance)[0]
        rows = observation[: layout.users * len(layout.user_features)].reshape(layout.users, -1)
        users = layout.users * len(plain.user_features)
        np.testing.assert_allclose(rows[:, :-2].ravel(), base[:users], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(rows[:, -2], np.log10(env.episode.fade[0, t]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows[:, -1], env.episode.correlation[0], rtol=1e-6)
        cell = observation[layout.users * len(layout.user_features) :]
        np.testing.assert_allclose(cell[: plain.size - users], base[users:], rtol=1e-5, atol=1e-5)
        assert cell[plain.size - users] == pytest.approx((3 - t) / 3)
        observation = env.step(env.action_space.sample())[0]
    assert layout.user_features[-2:] == ("fade", "correlation")
    assert layout.global_features[len(plain.global_features)] == "time_left"


def test_seen_in_time_and_without_error_a_block_is_the_one_decision_environment() -> None:
    env = crra(delay_blocks=0, error_share=0.0, energy_share=None, horizon=6)
    single = gym.make("SemCom/CRRA-v0", disable_env_checker=True).unwrapped
    generator = np.random.default_rng(0)
    env.reset(seed=1)
    for _ in range(6):
        action = generator.uniform(-1, 1, env.action_space.shape)
        single.reset(options={"instance": env.instance})
        assert env.step(action)[1] == pytest.approx(single.step(action)[1], abs=1e-12)


# --- the energy budget ---------------------------------------------------------------------------------------------
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from(["default", "hard"]))
@settings(max_examples=30)
def test_whatever_is_spent_stays_within_the_budget(seed: int, share: float, preset: str) -> None:
    env = crra(energy_share=share, horizon=5, preset=preset)
    env.reset(seed=3)
    generator = np.random.default_rng(seed)
    left = 5 * share
    for t in range(5):
        limits = [float(x[0]) for x in env.spending_limits()]
        floor = env.params.num_users * env.params.min_power_w / env.params.max_power_w
        assert limits[0] == pytest.approx(floor)
        assert limits[1] == pytest.approx(min(left / (5 - t), limits[2]))
        assert limits[2] == pytest.approx(min(1.0, left - floor * (4 - t)))
        action = generator.uniform(-1, 1, env.action_space.shape)
        action[-10:] = generator.uniform(-1.3, 1.3)
        observation, _, _, truncated, info = env.step(action)
        left -= info["terms"]["power_w"].sum() / env.params.max_power_w
        assert info["feasible"]
        assert info["violation/energy"] <= 1e-12
        assert info["terms"]["energy_left"] == pytest.approx(max(left, 0.0) / (5 * share), abs=1e-12)
        assert observation[-2] == pytest.approx(left / (5 * share), abs=1e-6)
        assert truncated == (t == 4)
    assert left >= -1e-9


def test_spend_reaches_floor_pace_and_cap() -> None:
    for entry, column in ((-1.0, 0), (0.0, 1), (1.0, 2)):
        env = crra()
        env.reset(seed=0)
        env.step(np.full(env.action_space.shape, -0.5))  # so that the pace is not the share of the budget
        expected = float(env.spending_limits()[column][0])
        action = np.zeros(env.action_space.shape)
        action[-10:] = entry
        used = env.step(action)[4]["terms"]["power_w"].sum() / env.params.max_power_w
        assert used == pytest.approx(expected, rel=1e-9)


@given(st.floats(-1, 1), st.floats(0.01, 0.2), st.floats(0, 1), st.floats(0, 1))
def test_spend_has_an_inverse(entry: float, floor: float, a: float, b: float) -> None:
    pace = floor + 0.3 * a
    limits = [np.array([x]) for x in (floor, pace, pace + 0.3 * b)]
    share = spending.spend(np.array([entry]), *limits)
    assert limits[0][0] - 1e-12 <= share[0] <= limits[2][0] + 1e-12
    again = spending.spend(spending.spend_entry(share, *limits), *limits)
    assert again[0] == pytest.approx(share[0], abs=1e-9)


def test_spending_more_than_there_is_is_a_violation() -> None:
    env = crra(energy_share=0.5, horizon=4)
    env.reset(seed=0)
    full = env.problem.decode(env.params, env.instance, np.zeros((1, 30)))  # all of the power, in every block
    found = []
    for _ in range(4):
        _, reward, _, _, info = env.step_allocation(full)
        assert reward == pytest.approx(info["objective"] - info["cost"])
        found.append((info["violation/energy"], info["terms"]["energy_left"]))
    assert np.array(found) == pytest.approx(np.array([[0, 0.5], [0, 0], [0.5, 0], [0.5, 0]]), abs=1e-12)


def test_no_budget_no_spending() -> None:
    env = crra(energy_share=None)
    assert env.action_layout.blocks == ("bandwidth", "power", "ratio")
    assert env.observation_layout.global_features[-1] == "time_left"
    env.reset(seed=0)
    assert "violation/energy" not in env.step(np.zeros(30))[4]
    with pytest.raises(ValueError, match="no energy budget"):
        env.spending_limits()


def test_with_selection_the_floor_is_that_of_one_user() -> None:
    env = gym.make(CRRAUS, horizon=4, disable_env_checker=True).unwrapped
    env.reset(seed=1)
    floor = env.params.min_power_w / env.params.max_power_w
    for entry, most in ((-1.0, 1), (1.0, 8)):  # 5 MHz hold eight floors of 0.6 MHz
        assert float(env.spending_limits()[0][0]) == pytest.approx(floor)
        action = np.full(env.action_space.shape, 0.5)
        action[-10:] = entry
        _, _, _, _, info = env.step(action)
        assert info["feasible"]
        assert info["terms"]["selected"].sum() == most
    with pytest.raises(ValueError, match=r"0\.03 exceeds energy_share 0\.02"):
        gym.make(CRRAUS, energy_share=0.02)


def test_encode_stands_for_a_decision_on_the_prediction() -> None:
    env = crra(horizon=4)
    env.reset(seed=2)
    for entry in (-0.4, 0.3, 0.0, 0.9):
        action = np.random.default_rng(1).uniform(-1, 1, env.action_space.shape)
        action[-10:] = entry
        allocation = env._decide(action[None])
        again = env._decide(env.encode(allocation)[None])
        for field in dataclasses.fields(allocation):
            np.testing.assert_allclose(getattr(again, field.name), getattr(allocation, field.name), rtol=1e-9)
        env.step(action)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(action)
    env.reset(seed=2)
    full = env.problem.decode(env.params, env.instance, np.zeros((1, 30)))
    env._left = np.array([0.3])
    with pytest.raises(ValueError, match="energy"):
        env.encode(full)


def test_actions_are_decoded_on_the_prediction(fading_id: str) -> None:
    env = gym.make(fading_id, horizon=2, energy_share=None, disable_env_checker=True).unwrapped
    env.reset(seed=2)
    action = np.random.default_rng(1).uniform(-1, 1, (1, *env.action_space.shape))
    got = env._decide(action)
    expected, other = (
        env.problem.decode(env.params, seen, action) for seen in (env.predicted_instance(), env.instance)
    )
    for field in dataclasses.fields(got):
        np.testing.assert_array_equal(getattr(got, field.name), getattr(expected, field.name))
    if env.problem.name in ("ascc", "training"):  # the map of CRRA asks for budgets only, that of SFMA where it must
        assert any(
            not np.allclose(getattr(got, field.name), getattr(other, field.name), rtol=1e-3)
            for field in dataclasses.fields(got)
        )
