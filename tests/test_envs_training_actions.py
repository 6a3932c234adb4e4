"""The action map: feasible whatever the action, invertible, monotone; the observation and its published layout."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from drawn import draw_actions
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import baselines, envs
from semcom_gym.envs.training import actions, physics

TRAINING = envs.problem("training")
FIELDS = ("bandwidth_hz", "power_w", "device_frequency_hz", "bs_frequency_hz", "ratio")  # in the order of the blocks


@st.composite
def cases(draw: st.DrawFn, n: int = 3) -> tuple[Any, Any, np.ndarray]:
    """Parameters, instances and actions of any kind, up to PSNR at the edge of what can be reached."""
    base = TRAINING.preset(
        draw(st.sampled_from(["default", "paper", "hard"])),
        num_users=draw(st.integers(1, 40)),
        total_bandwidth_hz=draw(st.floats(1e5, 1e8)),
        max_power_w=draw(st.floats(1e-4, 1.0)),
        shadowing_db=draw(st.sampled_from([0.0, 8.0])),
        psnr_curve=draw(st.sampled_from(["corrected", "published_printed"])),
        max_ratio=draw(st.sampled_from([0.1, 0.3, 0.8])),
        psnr_range_db=(1.0, 10.0),
    )
    top = base.reachable_psnr_db
    low = draw(st.floats(5.0, top))
    params = dataclasses.replace(base, psnr_range_db=(low, draw(st.sampled_from([low, top]))))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    action = draw_actions(draw, generator, (n, TRAINING.action_layout(params).size))
    return params, TRAINING.sample(params, generator, n), action


@settings(max_examples=300)
@given(cases())
def test_every_action_decodes_to_a_feasible_allocation(case: tuple[Any, Any, np.ndarray]) -> None:
    params, instance, action = case
    for dtype in (np.float64, np.float32):
        cell = instance.map(lambda x, dtype=dtype: x.astype(dtype))
        outcome = TRAINING.evaluate_unchecked(params, cell, TRAINING.decode(params, cell, action.astype(dtype)))
        excess = {key: value.max() for key, value in outcome.violation.items() if key != "unfinished"}
        assert max(excess.values()) <= 1e-6, excess
        assert np.isfinite(outcome.objective).all()
        late = outcome.terms["time_s"].max(axis=-1) >= physics.NEVER_S  # a tiny band with a PSNR at the edge
        np.testing.assert_array_equal(outcome.violation["unfinished"] > 0, late)


@settings(max_examples=200)
@given(cases())
def test_encode_inverts_decode(case: tuple[Any, Any, np.ndarray]) -> None:
    params, instance, action = case
    first = TRAINING.decode(params, instance, action)
    outcome = TRAINING.evaluate(params, instance, first)
    if not outcome.feasible.all():
        with pytest.raises(ValueError, match="cannot encode an infeasible allocation: unfinished of device"):
            TRAINING.encode(params, instance, first)
        return
    code = TRAINING.encode(params, instance, first)
    assert code.shape == action.shape
    assert np.abs(code).max() <= 1.0
    second = TRAINING.decode(params, instance, code)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(second, name), getattr(first, name), rtol=1e-11)
    again = TRAINING.evaluate(params, instance, second)
    np.testing.assert_allclose(again.objective, outcome.objective, rtol=1e-11)


def random(preset: str, seed: int = 0, n: int = 5, **overrides: Any) -> tuple[Any, Any, np.ndarray]:
    params = TRAINING.preset(preset, **overrides)
    generator = np.random.default_rng(seed)
    instance = TRAINING.sample(params, generator, n)
    return params, instance, generator.uniform(-0.9, 0.9, (n, TRAINING.action_layout(params).size))


@pytest.mark.parametrize("preset", ["default", "paper", "large", "hard"])
def test_allocations_that_no_action_made_come_back(preset: str) -> None:
    """Feasible ones drawn here, with bandwidth to spare, excess PSNR and idle power, to 1e-9 of the objective."""
    params, instance, _ = random(preset, n=20)
    users = params.num_users
    generator = np.random.default_rng(1)
    noise = params.noise_psd_w_hz
    snr_limit = 10 ** ((np.exp(instance.min_psnr_db / 18.67) - 3.69 - 1.52 * 0.3) / 0.3)
    widest = params.max_power_w * instance.gain / (noise * snr_limit)
    share = generator.dirichlet(np.full(users, 3.0), 20) * generator.uniform(0.7, 1.0, (20, 1))
    share = np.maximum(share, 0.06 / users)
    bandwidth = params.total_bandwidth_hz * share / np.maximum(share.sum(-1, keepdims=True), 1.0)
    bandwidth = np.minimum(bandwidth, widest * generator.choice([1.0, 0.5], widest.shape))
    least = np.maximum(noise * bandwidth * snr_limit / instance.gain, 0.02 * params.max_power_w)
    power = least * (params.max_power_w / least) ** generator.choice([0.0, 0.4, 1.0], least.shape)
    power = np.minimum(power, params.max_power_w)
    snr_db = 10 * np.log10(power * instance.gain / (noise * bandwidth))
    low = np.clip((np.exp(instance.min_psnr_db / 18.67) - 3.69 - 0.03 * snr_db) / 1.52, 0.1, 0.3)
    decision = physics.Allocation(
        power_w=power,
        bandwidth_hz=bandwidth,
        device_frequency_hz=instance.max_frequency_hz * generator.choice([0.02, 0.5, 1.0], power.shape),
        bs_frequency_hz=params.max_bs_frequency_hz * generator.choice([0.002, 0.5, 1.0], power.shape),
        ratio=low + (0.3 - low) * generator.choice([0.0, 0.5, 1.0], power.shape),
    )
    expected = TRAINING.evaluate(params, instance, decision)
    assert expected.feasible.all()
    got = TRAINING.evaluate(
        params, instance, TRAINING.decode(params, instance, TRAINING.encode(params, instance, decision))
    )
    np.testing.assert_allclose(got.objective, expected.objective, rtol=1e-9)


def test_entries_outside_the_box_are_clipped() -> None:
    params, instance, action = random("hard")
    wild = 3.0 * action
    a, b = (TRAINING.decode(params, instance, x) for x in (wild, np.clip(wild, -1, 1)))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("block", range(5))
def test_each_entry_drives_its_own_quantity(block: int) -> None:
    params, instance, action = random("paper")
    users = params.num_users
    raised = action.copy()
    raised[:, block * users + 4] += 0.1
    before, after = (TRAINING.decode(params, instance, x) for x in (action, raised))
    assert (getattr(after, FIELDS[block])[:, 4] > getattr(before, FIELDS[block])[:, 4]).all()
    rest = np.arange(users) != 4
    for name in FIELDS if block else ():
        np.testing.assert_array_equal(getattr(after, name)[:, rest], getattr(before, name)[:, rest])
    if block == 0:
        assert (after.bandwidth_hz[:, rest] <= before.bandwidth_hz[:, rest]).all()


def test_ends_of_the_scales() -> None:
    params, instance, _ = random("default", n=3)
    users = params.num_users
    top = TRAINING.decode(params, instance, np.ones((3, 5 * users)))
    np.testing.assert_allclose(top.power_w, params.max_power_w)
    np.testing.assert_allclose(top.device_frequency_hz, instance.max_frequency_hz)
    np.testing.assert_allclose(top.bs_frequency_hz, params.max_bs_frequency_hz)
    np.testing.assert_allclose(top.ratio, params.max_ratio)
    low = TRAINING.decode(params, instance, -np.ones((3, 5 * users)))
    np.testing.assert_allclose(low.device_frequency_hz, 1e-3 * instance.max_frequency_hz)
    np.testing.assert_allclose(low.bs_frequency_hz, 1e-4 * params.max_bs_frequency_hz)
    np.testing.assert_allclose(low.bandwidth_hz, 0.05 * params.total_bandwidth_hz / users)
    # the least power meets PSNR exactly, at max_ratio, wherever that is what holds it up
    outcome = TRAINING.evaluate(params, instance, low)
    tight = low.power_w > 0.01 * params.noise_psd_w_hz * low.bandwidth_hz / instance.gain * (1 + 1e-9)
    assert tight.any()
    np.testing.assert_allclose(outcome.terms["psnr_db"][tight], instance.min_psnr_db[tight], rtol=1e-9)
    np.testing.assert_allclose(low.ratio[tight], params.max_ratio, rtol=1e-9)


def test_zero_entries_are_equal_shares_where_psnr_lets_them() -> None:
    params, instance, _ = random("paper", n=3)
    decision = TRAINING.decode(params, instance, np.zeros((3, 250)))
    np.testing.assert_allclose(decision.bandwidth_hz, 0.4e6, rtol=1e-12)


def test_the_lowest_ratio_entry_is_the_least_ratio_that_psnr_allows() -> None:
    params, instance, action = random("hard", n=50)
    action[:, 4 * params.num_users :] = -1.0
    decision = TRAINING.decode(params, instance, action)
    outcome = TRAINING.evaluate(params, instance, decision)
    assert outcome.feasible.all()
    raised = decision.ratio > params.min_ratio
    assert 0.05 < raised.mean() < 0.95
    np.testing.assert_allclose(outcome.terms["psnr_db"][raised], instance.min_psnr_db[raised], rtol=1e-12)
    less = dataclasses.replace(decision, ratio=decision.ratio * 0.99)
    assert not TRAINING.evaluate(params, instance, less).feasible.any()


def test_bandwidth_is_held_where_more_would_cost_psnr() -> None:
    """A device at the ceiling meets its PSNR at full power and max_ratio exactly; wider it cannot."""
    params, instance, _ = random("hard", n=50)
    users = params.num_users
    instance = dataclasses.replace(instance, gain=instance.gain * 0.03)
    action = np.full((50, 5 * users), 1.0)
    decision = TRAINING.decode(params, instance, action)
    held = decision.bandwidth_hz < (1 - 1e-9) * params.total_bandwidth_hz / users
    assert 0.05 < held.mean() < 0.95
    outcome = TRAINING.evaluate(params, instance, decision)
    assert outcome.feasible.all()
    np.testing.assert_allclose(outcome.terms["psnr_db"][held], instance.min_psnr_db[held], rtol=1e-9)
    wider = dataclasses.replace(decision, bandwidth_hz=np.where(held, 1.01, 0.5) * decision.bandwidth_hz)
    broken = TRAINING.evaluate(params, instance, wider)
    assert not broken.feasible[held.any(axis=-1)].any()


def test_devices_are_interchangeable() -> None:
    """Decoding knows no device by number: permuting devices permutes the allocation, and the observation's rows."""
    params, instance, action = random("hard")
    users = params.num_users
    order = np.random.default_rng(1).permutation(users)
    shuffled = instance.map(lambda x: x[:, order])
    blocks = action.reshape(len(action), -1, users)[:, :, order].reshape(action.shape)
    a, b = TRAINING.decode(params, instance, action), TRAINING.decode(params, shuffled, blocks)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(b, name), getattr(a, name)[:, order], rtol=1e-12)
    width = users * len(TRAINING.user_features)
    one, two = TRAINING.observe(params, instance), TRAINING.observe(params, shuffled)
    rows = one[:, :width].reshape(len(one), users, -1)
    np.testing.assert_array_equal(two[:, :width].reshape(rows.shape), rows[:, order])
    np.testing.assert_array_equal(two[:, width:], one[:, width:])


BROKEN = [
    ("bandwidth_hz", 3e6, "infeasible allocation: bandwidth exceeds its limit by 2"),
    ("power_w", 0.02, "infeasible allocation: power of device 0 exceeds its limit by 1"),
    ("device_frequency_hz", 2e9, "infeasible allocation: device_frequency of device"),
    ("bs_frequency_hz", 6e9, "infeasible allocation: bs_frequency of device 0 exceeds its limit by 0.2"),
    ("ratio", 0.35, "infeasible allocation: ratio of device 0 exceeds its limit by 0.05"),
    ("bandwidth_hz", 1e4, r"bandwidth of device 0 \(instance 0\) is below what an action reaches"),
    ("power_w", 1e-8, r"power of device \d \(instance 0\) is below what an action reaches"),
    ("device_frequency_hz", 1e5, r"device_frequency of device 0 \(instance 0\) is below what an action reaches"),
    ("bs_frequency_hz", 4e5, r"bs_frequency of device 0 \(instance 0\) is below what an action reaches"),
]


@pytest.mark.parametrize(("field", "value", "message"), BROKEN)
def test_encode_refuses_what_is_infeasible_or_out_of_reach(field: str, value: float, message: str) -> None:
    params, instance, action = random("default", psnr_range_db=(1.0, 1.0))
    decision = TRAINING.decode(params, instance, 0.5 * action)
    bad = dataclasses.replace(decision, **{field: np.full((5, 10), value)})
    with pytest.raises(ValueError, match=f"cannot encode.*{message}"):
        TRAINING.encode(params, instance, bad)


def test_encode_moves_up_what_is_a_rounding_error_out_of_reach() -> None:
    params, instance, action = random("default")
    decision = TRAINING.decode(params, instance, -np.abs(action))
    low = dataclasses.replace(decision, device_frequency_hz=(1 - 1e-7) * 1e-3 * instance.max_frequency_hz)
    again = TRAINING.decode(params, instance, TRAINING.encode(params, instance, low))
    np.testing.assert_allclose(again.device_frequency_hz, 1e-3 * instance.max_frequency_hz, rtol=1e-12)


def test_observation_against_its_description() -> None:
    params, instance, _ = random("hard", n=3, num_users=7, time_weight=0.3, max_power_w=0.02)
    layout = TRAINING.observation_layout(params)
    observation = TRAINING.observe(params, instance)
    assert observation.shape == (3, layout.size)
    width = layout.users * len(layout.user_features)
    rows = observation[:, :width].reshape(3, layout.users, -1)
    columns = {name: rows[..., k] for k, name in enumerate(layout.user_features)}
    cell = {name: observation[:, width + k] for k, name in enumerate(layout.global_features)}
    gain_db = 10 * np.log10(instance.gain)
    expected = {
        "gain": (gain_db + 110) / 20,
        "snr": 10 * np.log10(0.02 * instance.gain / (10**-20.4 * 5e6 / 7)) / 20,
        "least_snr": (np.exp(instance.min_psnr_db / 18.67) - 3.69 - 1.52 * 0.3) / 0.03 / 20,
        "device_frequency": np.log10(instance.max_frequency_hz / 1e9),
        "device_cycles": instance.device_cycles / 3e6,
        "bs_cycles": instance.bs_cycles / 5e6,
    }
    assert set(columns) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(columns[name], value, rtol=1e-9, err_msg=name)
    of_cell = {
        "bandwidth": np.log10(5 / 7), "power": (10 * np.log10(0.02) + 30) / 20, "bs_frequency": np.log10(5.0),
        "payload": np.log10(0.1 * 32e6 / (5e6 / 7)), "ratio_range": np.log10(3.0),
        "ratio_worth": 1.52 * 0.2 / 0.03 / 20, "time_weight": 0.3, "users": 10 / 7,
    }  # fmt: skip
    assert set(cell) == set(of_cell)
    for name, value in of_cell.items():
        np.testing.assert_allclose(cell[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("preset", ["default", "paper", "large", "hard"])
def test_observations_are_of_order_one(preset: str) -> None:
    params = TRAINING.preset(preset)
    observation = TRAINING.observe(params, TRAINING.sample_split(params, "validation", 500))
    assert np.abs(observation).max() < 6.0
    assert TRAINING.action_blocks(params) == actions.BLOCKS


@pytest.mark.parametrize("preset", ["default", "paper", "hard"])
def test_the_best_known_allocations_are_within_reach(preset: str) -> None:
    """The floors of the action map lie below every optimum, so that an agent could score what a solver scores."""
    params = TRAINING.preset(preset)
    instance = TRAINING.sample_split(params, "validation", 40)
    solution = baselines.solve("training", params, instance, "fast")
    assert solution.feasible.all()
    action = TRAINING.encode(params, instance, solution.allocation)
    got = TRAINING.evaluate(params, instance, TRAINING.decode(params, instance, action))
    assert got.feasible.all()
    np.testing.assert_allclose(got.objective, solution.objective, rtol=1e-9)
