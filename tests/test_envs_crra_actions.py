"""The action map: feasible whatever the action, invertible, monotone; the observation and its published layout."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from drawn import draw_actions
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import envs
from semcom_gym.envs.crra import actions, physics

CRRA = envs.problem("crra")


@st.composite
def cases(draw: st.DrawFn, n: int = 3) -> tuple[Any, Any, np.ndarray]:
    """Parameters, instances and actions of any kind, wherever an allocation exists."""
    users = draw(st.integers(1, 40))
    selection = draw(st.booleans())
    base = CRRA.preset(draw(st.sampled_from(["paper", "default", "hard", "general", "select"])), selection=True)
    lowest = {
        "bandwidth_hz": (base.bandwidth_range_hz or (base.max_bandwidth_hz,))[0],
        "power_w": (base.power_range_w or (base.max_power_w,))[0],
    }
    floors = {}
    for name, budget in lowest.items():  # up to a floor that uses the whole budget up
        fraction = draw(st.one_of(st.just(1.0), st.floats(1e-6, 1.0)))
        served = draw(st.integers(1, users)) if selection else users
        floors[f"min_{name}"] = budget * fraction / served
    params = dataclasses.replace(base, num_users=users, selection=selection, **floors)
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = CRRA.action_layout(params).size
    action = draw_actions(draw, generator, (n, size))
    return params, CRRA.sample(params, generator, n), action


@settings(max_examples=300)
@given(cases())
def test_every_action_decodes_to_a_feasible_allocation(case: tuple[Any, Any, np.ndarray]) -> None:
    params, instance, action = case
    for scale in (np.float64, np.float32):
        outcome = CRRA.evaluate(params, instance, CRRA.decode(params, instance, action.astype(scale)))
        assert outcome.feasible.all(), {key: value.max() for key, value in outcome.violation.items()}
        assert np.isfinite(outcome.objective).all()


@settings(max_examples=200)
@given(cases())
def test_encode_inverts_decode(case: tuple[Any, Any, np.ndarray]) -> None:
    params, instance, action = case
    first = CRRA.decode(params, instance, action)
    code = CRRA.encode(params, instance, first)
    assert code.shape == action.shape
    assert np.abs(code).max() <= 1.0
    second = CRRA.decode(params, instance, code)
    np.testing.assert_array_equal(second.selected, first.selected)
    on = first.selected
    for name, unit in (("bandwidth_hz", instance.bandwidth_hz), ("power_w", instance.power_w), ("ratio", None)):
        scale = 1.0 if unit is None else unit[:, None]
        a, b = (on * getattr(x, name) / scale for x in (first, second))
        np.testing.assert_allclose(b, a, atol=1e-12, rtol=0)


@given(cases())
def test_the_whole_budget_is_used(case: tuple[Any, Any, np.ndarray]) -> None:
    params, instance, action = case
    decision = CRRA.decode(params, instance, np.maximum(action, -0.99))
    served = decision.selected.sum(axis=-1) > 0
    for amount, budget in (
        (decision.bandwidth_hz, instance.bandwidth_hz),
        (decision.power_w, instance.power_w),
    ):
        total = (decision.selected * amount).sum(axis=-1)
        np.testing.assert_allclose(total[served], budget[served], rtol=1e-9)


def random(preset: str, seed: int = 0, n: int = 5, **overrides: Any) -> tuple[Any, Any, np.ndarray]:
    params = CRRA.preset(preset, **overrides)
    generator = np.random.default_rng(seed)
    instance = CRRA.sample(params, generator, n)
    return params, instance, generator.uniform(-0.9, 0.9, (n, CRRA.action_layout(params).size))


def test_entries_outside_the_box_are_clipped() -> None:
    params, instance, action = random("select")
    wild = 3.0 * action
    a, b = (CRRA.decode(params, instance, x) for x in (wild, np.clip(wild, -1, 1)))
    for field in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


@pytest.mark.parametrize("block", [0, 1, 2])
def test_each_entry_drives_its_own_quantity(block: int) -> None:
    params, instance, action = random("default")
    users = params.num_users
    raised = action.copy()
    raised[:, block * users + 4] += 0.1
    name = ("bandwidth_hz", "power_w", "ratio")[block]
    before, after = (CRRA.decode(params, instance, x) for x in (action, raised))
    assert (getattr(after, name)[:, 4] > getattr(before, name)[:, 4]).all()
    others = [f.name for f in dataclasses.fields(before) if f.name != name]
    for other in others:
        np.testing.assert_array_equal(getattr(after, other), getattr(before, other))
    rest = np.arange(users) != 4
    if name == "ratio":
        np.testing.assert_array_equal(after.ratio[:, rest], before.ratio[:, rest])
    else:
        assert (getattr(after, name)[:, rest] <= getattr(before, name)[:, rest]).all()


def test_ends_of_the_ratio() -> None:
    params, instance, _ = random("default", n=1)
    users = params.num_users
    for value, ratio in ((-1.0, 0.0), (1.0, params.max_ratio)):
        decision = CRRA.decode(params, instance, np.full((1, 3 * users), value))
        np.testing.assert_allclose(decision.ratio, ratio, atol=1e-15)


def test_equal_entries_are_equal_shares() -> None:
    params, instance, _ = random("default", n=1)
    decision = CRRA.decode(params, instance, np.zeros((1, 30)))
    np.testing.assert_allclose(decision.bandwidth_hz, 5e5, rtol=1e-12)
    np.testing.assert_allclose(decision.power_w, 1e-3, rtol=1e-12)


def test_users_are_interchangeable() -> None:
    """Decoding knows no user by number: permuting users permutes the allocation, and the observation's rows."""
    params, instance, action = random("select", curves=("resnet_0db", "vgg_0db"))
    users = params.num_users
    order = np.random.default_rng(1).permutation(users)
    shuffled = instance.map(lambda x: x[:, order] if x.ndim == 2 else x)
    blocks = action.reshape(len(action), -1, users)[:, :, order].reshape(action.shape)
    a, b = CRRA.decode(params, instance, action), CRRA.decode(params, shuffled, blocks)
    for field in dataclasses.fields(a):
        np.testing.assert_allclose(getattr(b, field.name), getattr(a, field.name)[:, order], rtol=1e-12)
    width = users * len(CRRA.user_features)
    one, two = CRRA.observe(params, instance), CRRA.observe(params, shuffled)
    rows = one[:, :width].reshape(len(one), users, -1)
    np.testing.assert_array_equal(two[:, :width].reshape(rows.shape), rows[:, order])
    np.testing.assert_array_equal(two[:, width:], one[:, width:])


def test_selection_takes_the_largest_entries_that_fit() -> None:
    params, instance, action = random("select", n=1)
    users = params.num_users
    assert float(actions.capacity(params, instance)[0]) == 8.0
    wish = np.array([0.9, 0.1, 0.2, -0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    action[:, 3 * users :] = wish
    assert CRRA.decode(params, instance, action).selected[0].tolist() == [1, 0, 1, 0, 1, 1, 1, 1, 1, 1]
    action[:, 3 * users :] = -0.2
    nobody = CRRA.evaluate(params, instance, CRRA.decode(params, instance, action))
    assert nobody.feasible.all()
    assert nobody.objective[0] == 0.0
    action[:, 3 * users :] = 0.5  # all tied: the first ones
    assert CRRA.decode(params, instance, action).selected[0].tolist() == [1] * 8 + [0] * 2


def test_an_infeasible_instance_is_reported_not_hidden() -> None:
    params, instance, action = random("default")
    poor = dataclasses.replace(instance, bandwidth_hz=np.full(5, 5e4))
    outcome = CRRA.evaluate(params, poor, CRRA.decode(params, poor, action))
    assert not outcome.feasible.any()
    np.testing.assert_allclose(outcome.violation["bandwidth"], 1.0)  # ten floors of 10 kHz on 50 kHz


BROKEN = [
    ("bandwidth", {"bandwidth_hz": 1e6}),
    ("min_bandwidth", {"bandwidth_hz": 100.0}),
    ("power", {"power_w": 2e-3}),
    ("min_power", {"power_w": 1e-6}),
    ("ratio", {"ratio": 0.995}),
    ("selection", {"selected": 0.0}),
]


@pytest.mark.parametrize(("name", "change"), BROKEN)
def test_encode_refuses_what_breaks_a_constraint(name: str, change: dict[str, float]) -> None:
    params, instance, action = random("default")
    decision = CRRA.decode(params, instance, action)
    bad = dataclasses.replace(decision, **{k: np.full((5, 10), v) for k, v in change.items()})
    with pytest.raises(ValueError, match=f"breaks '{name}' by .* of its limit"):
        CRRA.encode(params, instance, bad)


def test_an_unused_budget_is_handed_out_and_never_costs() -> None:
    params, instance, action = random("default")
    decision = CRRA.decode(params, instance, action)
    floor_b, floor_p = params.min_bandwidth_hz, params.min_power_w
    thrifty = dataclasses.replace(
        decision,
        bandwidth_hz=floor_b + 0.7 * (decision.bandwidth_hz - floor_b),
        power_w=floor_p + 0.5 * (decision.power_w - floor_p),
    )
    before = CRRA.evaluate(params, instance, thrifty)
    assert before.feasible.all()
    after = CRRA.evaluate(params, instance, CRRA.decode(params, instance, CRRA.encode(params, instance, thrifty)))
    assert (after.objective > before.objective).all()


def test_encode_of_equal_floors_and_of_a_single_user() -> None:
    params, instance, _ = random("default", n=1, num_users=1)
    whole = physics.Allocation(*[np.array([[x]]) for x in (5e6, 1e-2, 0.3, 1.0)])
    again = CRRA.decode(params, instance, CRRA.encode(params, instance, whole))
    assert again.bandwidth_hz[0, 0] == pytest.approx(5e6, rel=1e-12)
    assert again.ratio[0, 0] == pytest.approx(0.3, abs=1e-12)
    params, instance, _ = random("default", n=1, num_users=2, min_bandwidth_hz=2.5e6)
    floors = physics.Allocation(*[np.array([[x, x]]) for x in (2.5e6, 5e-3, 0.3, 1.0)])
    again = CRRA.decode(params, instance, CRRA.encode(params, instance, floors))
    np.testing.assert_allclose(again.bandwidth_hz, 2.5e6, rtol=1e-12)


def test_observation_against_its_description() -> None:
    params, instance, _ = random("general", n=3, curves=("resnet_0db", "vgg_m5db"))
    layout = CRRA.observation_layout(params)
    observation = CRRA.observe(params, instance)
    assert observation.shape == (3, layout.size)
    width = layout.users * len(layout.user_features)
    rows = observation[:, :width].reshape(3, layout.users, -1)
    columns = {name: rows[..., k] for k, name in enumerate(layout.user_features)}
    cell = {name: observation[:, width + k] for k, name in enumerate(layout.global_features)}
    gain_db = 10 * np.log10(instance.gain)
    np.testing.assert_allclose(columns["gain"], (gain_db + 110) / 20)
    noise = 10 ** (params.noise_psd_dbm_hz / 10) / 1000
    snr = instance.power_w[:, None] * instance.gain / (noise * instance.bandwidth_hz[:, None])
    np.testing.assert_allclose(columns["snr"], 10 * np.log10(snr) / 20)
    np.testing.assert_array_equal(columns["weight"], instance.weight)
    z = params.curve_table[instance.curve]
    for o in (0.0, 0.8, 0.9, 0.97):
        eta = z[..., 0] * np.exp(z[..., 1] * o) + z[..., 2] * np.exp(z[..., 3] * o)
        np.testing.assert_allclose(columns[f"task_performance@{o:g}"], np.clip(eta, 0, 1))
    np.testing.assert_allclose(cell["bandwidth"], np.log10(instance.bandwidth_hz * 1e-3 / 24.5e3))
    np.testing.assert_allclose(cell["power"], (10 * np.log10(instance.power_w) + 30) / 20)
    np.testing.assert_allclose(cell["bandwidth_floor"], 10 * 1e4 / instance.bandwidth_hz)
    np.testing.assert_allclose(cell["power_floor"], 10 * 1e-5 / instance.power_w)
    np.testing.assert_allclose(cell["users"], 1.0)
    assert set(columns) == {"gain", "snr", "weight", *(f"task_performance@{o:g}" for o in (0.0, 0.8, 0.9, 0.97))}
    assert set(cell) == {"bandwidth", "power", "bandwidth_floor", "power_floor", "users"}
