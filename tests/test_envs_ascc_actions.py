"""The action map of MU-ASCC: what holds whatever the action, its inverse, the symmetry of users; the observation."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import ascc_plain as plain
import gymnasium as gym
import numpy as np
import pytest
from ascc_plain import ASCC, PRESETS
from drawn import draw_actions
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym.envs.ascc import actions, physics
from semcom_gym.envs.ascc.instance import BEAMFORMING, RATE_ACTIONS

MODES = list(itertools.product(BEAMFORMING, RATE_ACTIONS))


@st.composite
def cases(draw: st.DrawFn, n: int = 3) -> tuple[Any, Any, np.ndarray]:
    """Parameters, instances and actions of any kind."""
    users = draw(st.integers(1, 6))
    params = ASCC.preset(
        "default",
        num_users=users,
        num_data_users=draw(st.integers(0, users)),
        num_antennas=draw(st.integers(1, 6)),
        max_power_w=draw(st.floats(1e-3, 1e3)),
        channel_correlation=draw(st.sampled_from([0.0, 0.3, 1.0])),
        beamforming=draw(st.sampled_from(BEAMFORMING)),
        rate_action=draw(st.sampled_from(RATE_ACTIONS)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    action = draw_actions(draw, rng, (n, ASCC.action_layout(params).size))
    return params, ASCC.sample(params, rng, n), action


@settings(max_examples=150)
@given(cases())
def test_every_action_is_feasible(case: tuple[Any, Any, np.ndarray]) -> None:
    params, instance, action = case
    for dtype in (np.float64, np.float32):
        cells = instance.map(lambda x, dtype=dtype: x.astype(dtype))
        decision = ASCC.decode(params, cells, action.astype(dtype))
        assert {getattr(decision, f.name).dtype for f in dataclasses.fields(decision)} == {np.dtype(dtype)}
        outcome = ASCC.evaluate(params, cells, decision)
        assert outcome.feasible.all()
        assert np.isfinite(outcome.objective).all()
        assert (decision.power_w >= 0).all()
        spent = decision.power_w.sum(axis=-1) / params.max_power_w
        assert (spent <= 1 + 1e-6).all()
        assert params.beamforming == "explicit" or (spent >= 1 - 1e-6).all()
        np.testing.assert_array_equal(decision.rate_index, np.round(decision.rate_index))
        assert ((decision.rate_index >= 0) & (decision.rate_index < params.rate_counts)).all()


@settings(max_examples=80)
@given(cases())
def test_encode_inverts_decode(case: tuple[Any, Any, np.ndarray]) -> None:
    params, instance, action = case
    first = ASCC.decode(params, instance, action)
    code = ASCC.encode(params, instance, first)
    assert code.dtype == np.float64
    assert code.shape == action.shape
    assert np.abs(code).max() <= 1.0 + 1e-12
    second = ASCC.decode(params, instance, code)
    before, after = (ASCC.evaluate(params, instance, x) for x in (first, second))
    assert after.feasible.all()
    np.testing.assert_allclose(after.objective, before.objective, rtol=1e-9)


@pytest.mark.parametrize(("beamforming", "rate_action"), MODES)
@pytest.mark.parametrize("preset", PRESETS)
def test_environment_reproduces_the_objective_of_an_encoded_allocation(
    preset: str, beamforming: str, rate_action: str
) -> None:
    modes = {"beamforming": beamforming, "rate_action": rate_action}
    params, instance, action = plain.case(preset, n=3, **modes)
    decision = ASCC.decode(params, instance, action)
    expected = ASCC.evaluate(params, instance, decision).objective
    env = gym.make("SemCom/ASCC-v0", preset=preset, **modes)
    for n in range(3):
        env.reset(options={"instance": instance[n]})
        code = env.unwrapped.encode(decision[n])
        _, reward, _, _, info = env.unwrapped.step(code)
        assert info["feasible"]
        assert info["objective"] == pytest.approx(expected[n], rel=1e-9)
        assert reward == pytest.approx(-expected[n], rel=1e-9)


# --- encode ----------------------------------------------------------------------------------------------------------
def matched(channel: np.ndarray) -> np.ndarray:
    return channel / np.linalg.norm(channel, axis=-1, keepdims=True)


def zero_forcing(channel: np.ndarray) -> np.ndarray:
    """Beams that the other users do not hear."""
    return matched(np.linalg.inv(channel.conj()).swapaxes(-1, -2))


def spread(channel: np.ndarray) -> np.ndarray:
    """Beams that have nothing to do with the channel."""
    rng = np.random.default_rng(0)
    return matched(rng.standard_normal((*channel.shape, 2)).view(complex)[..., 0])


@pytest.mark.parametrize("scheme", [matched, zero_forcing, spread])
@pytest.mark.parametrize("rate_action", RATE_ACTIONS)
@pytest.mark.parametrize("preset", ["default", "three_user", "paper"])
def test_other_beams_keep_or_gain_by_encoding(preset: str, rate_action: str, scheme: Any) -> None:
    """``duality`` cannot hold such beams; their dual powers with MMSE beams are as good or better for every user.

    ``explicit`` holds them as they are.
    """
    gains = []
    for beamforming in BEAMFORMING:
        params, instance, _ = plain.case(preset, n=30, beamforming=beamforming, rate_action=rate_action)
        beam = scheme(instance.channel_re + 1j * instance.channel_im)
        rng = np.random.default_rng(1)
        power = 0.8 * params.max_power_w * rng.dirichlet(np.ones(params.num_users), 30)
        gamma = physics.sinr(instance, power, beam)
        index = np.clip(physics.best_index(params, gamma) - rng.integers(0, 2, gamma.shape), 0, 22)
        decision = ASCC.Allocation(power, beam.real.copy(), beam.imag.copy(), index)
        second = ASCC.decode(params, instance, ASCC.encode(params, instance, decision))
        np.testing.assert_array_equal(second.rate_index, index)
        before, after = (ASCC.evaluate(params, instance, x) for x in (decision, second))
        if beamforming == "explicit":
            np.testing.assert_allclose(after.objective, before.objective, rtol=1e-9)
        else:
            worse = after.terms["distortion"] - before.terms["distortion"]
            assert worse.max() <= 1e-9
            gains.append(float((before.objective - after.objective).mean()))
    assert gains[0] > 1e-4, "power was left over, and these beams are not the best"


def test_a_user_without_power_survives_encoding() -> None:
    for beamforming in BEAMFORMING:
        params, instance, _ = plain.case("default", beamforming=beamforming)
        beam = matched(instance.channel_re + 1j * instance.channel_im)
        power = np.tile([3.0, 0.0, 3.0, 0.0], (4, 1))
        decision = ASCC.Allocation(power, beam.real.copy(), beam.imag.copy(), np.full((4, 4), 5.0))
        second = ASCC.decode(params, instance, ASCC.encode(params, instance, decision))
        np.testing.assert_allclose(second.power_w[:, [1, 3]], 0.0, atol=1e-12)
        before, after = (ASCC.evaluate(params, instance, x).objective for x in (decision, second))
        assert (after <= before + 1e-9).all()


BROKEN = [("power", {"power_w": 2.0}), ("beam_norm", {"beam_re": 0.9}), ("rate", {"rate_index": 3.5})]


@pytest.mark.parametrize("beamforming", BEAMFORMING)
@pytest.mark.parametrize(("name", "change"), BROKEN)
def test_encode_refuses_what_breaks_a_constraint(name: str, change: dict[str, float], beamforming: str) -> None:
    params, instance, action = plain.case("default", beamforming=beamforming)
    decision = ASCC.decode(params, instance, action)
    bad = dataclasses.replace(decision, **{k: np.full_like(getattr(decision, k), v) for k, v in change.items()})
    with pytest.raises(ValueError, match=f"breaks '{name}' by .* of its limit"):
        ASCC.encode(params, instance, bad)


# --- what the entries mean -------------------------------------------------------------------------------------------
def test_entries_outside_the_box_are_clipped() -> None:
    for beamforming, rate_action in MODES:
        params, instance, action = plain.case("default", beamforming=beamforming, rate_action=rate_action)
        a, b = (ASCC.decode(params, instance, x) for x in (3.0 * action, np.clip(3.0 * action, -1, 1)))
        for field in dataclasses.fields(a):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


@pytest.mark.parametrize("preset", PRESETS)
def test_zeros_are_the_anchor(preset: str) -> None:
    """Equal dual powers, the best codec for the SINRs they give."""
    params, instance, action = plain.case(preset)
    decision = ASCC.decode(params, instance, 0.0 * action)
    users = params.num_users
    power, beam, gamma = actions.realise(instance, np.full((4, users), params.max_power_w / users))
    np.testing.assert_allclose(decision.power_w, power, rtol=1e-12)
    np.testing.assert_allclose(decision.beam_re + 1j * decision.beam_im, beam, rtol=1e-12)
    for n, i in np.ndindex(4, users):
        rows = plain.tables(params)[i]
        assert decision.rate_index[n, i] == plain.best(rows, float(gamma[n, i]), params.channel_uses, 256)[0]


def test_shares_of_dual_power() -> None:
    params, instance, action = plain.case("default")
    decision = ASCC.decode(params, instance, action)
    weight = ((action[:, :4] + 1) / 2) ** 4
    dual = 6.0 * weight / weight.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(decision.power_w, actions.realise(instance, dual)[0], rtol=1e-10)


def test_shares_of_downlink_power() -> None:
    """``explicit``: entries of 0 use up the budget in equal parts, smaller ones leave some, one user may have all."""
    params, instance, action = plain.case("default", beamforming="explicit")
    action[:, :4] = 0.0
    np.testing.assert_allclose(ASCC.decode(params, instance, action).power_w, 1.5, rtol=1e-12)
    action[:, :4] = -0.5
    np.testing.assert_allclose(ASCC.decode(params, instance, action).power_w, 1.5 / 16, rtol=1e-12)
    action[:, :4] = [1.0, -1.0, -1.0, -1.0]
    np.testing.assert_allclose(ASCC.decode(params, instance, action).power_w, [[6.0, 0, 0, 0]] * 4, atol=1e-20)


def test_beam_entries() -> None:
    """``explicit``: the blocks are the antennas' real parts, then their imaginary parts; only the direction counts."""
    params, instance, action = plain.case("three_user", beamforming="explicit")
    blocks = ASCC.action_layout(params).blocks
    assert blocks == ("power", "rate", *(f"beam_{part}_{k}" for part in ("re", "im") for k in range(3)))
    decision = ASCC.decode(params, instance, action)
    entries = action.reshape(4, 8, 3)
    for n, user in np.ndindex(4, 3):
        wish = entries[n, 2:5, user] + 1j * entries[n, 5:, user]
        expected = wish / math.sqrt(sum(abs(x) ** 2 for x in wish))
        got = decision.beam_re[n, user] + 1j * decision.beam_im[n, user]
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    shorter = action.copy()
    shorter.reshape(4, 8, 3)[:, 2:] *= 0.01
    again = ASCC.decode(params, instance, shorter)
    np.testing.assert_allclose(again.beam_re, decision.beam_re, rtol=1e-9)


def test_beam_entries_of_zero_are_matched_filters() -> None:
    params, instance, action = plain.case("three_user", beamforming="explicit")
    action.reshape(4, 8, 3)[:, 2:, 1] = 0.0
    decision = ASCC.decode(params, instance, action)
    expected = matched(instance.channel_re + 1j * instance.channel_im)
    got = decision.beam_re + 1j * decision.beam_im
    np.testing.assert_allclose(got[:, 1], expected[:, 1], rtol=1e-12)
    assert (np.abs(got[:, [0, 2]] - expected[:, [0, 2]]).max(axis=-1) > 0.01).all()


def test_relative_rates_count_from_the_best() -> None:
    params, instance, action = plain.case("default")
    action[:, 4:] = 0.0
    best = ASCC.decode(params, instance, action).rate_index
    for entry, places in ((0.1, 0), (0.2, 1), (-0.2, -1), (0.52, 6), (-0.7, -11), (1.0, 22), (-1.0, -22)):
        action[:, 4:] = entry
        got = ASCC.decode(params, instance, action).rate_index
        np.testing.assert_array_equal(got, np.clip(best + places, 0, 22))
        assert places == round(22 * entry * abs(entry))


def test_absolute_rates_do_not_know_the_sinr() -> None:
    params, instance, action = plain.case("default", rate_action="absolute")
    for entry, index in ((-1.0, 0), (-0.96, 0), (-0.9, 1), (0.0, 11), (0.5, 16), (1.0, 22)):
        action[:, 4:] = entry
        np.testing.assert_array_equal(ASCC.decode(params, instance, action).rate_index, index)


@pytest.mark.parametrize("rate_action", RATE_ACTIONS)
def test_every_codec_can_be_reached(rate_action: str) -> None:
    params, instance, action = plain.case("default", rate_action=rate_action)
    base = ASCC.decode(params, instance, action)
    for index in range(23):
        wanted = dataclasses.replace(base, rate_index=np.full((4, 4), float(index)))
        got = ASCC.decode(params, instance, ASCC.encode(params, instance, wanted))
        np.testing.assert_array_equal(got.rate_index, index)


# --- symmetry --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("beamforming", "rate_action"), MODES)
def test_users_of_a_kind_are_interchangeable(beamforming: str, rate_action: str) -> None:
    modes = {"beamforming": beamforming, "rate_action": rate_action}
    params, instance, action = plain.case("default", num_users=6, **modes)
    order = np.array([2, 0, 1, 5, 3, 4])  # three data users, three semantic ones
    moved = instance.map(lambda x: x[:, order])
    turned = action.reshape(4, -1, 6)[..., order].reshape(4, -1)
    a, b = ASCC.decode(params, instance, action), ASCC.decode(params, moved, turned)
    for field in dataclasses.fields(a):
        np.testing.assert_allclose(getattr(b, field.name), getattr(a, field.name)[:, order], rtol=1e-9, atol=1e-12)
    one, two = (ASCC.evaluate(params, x, y).objective for x, y in ((instance, a), (moved, b)))
    np.testing.assert_allclose(one, two, rtol=1e-10)
    seen, again = ASCC.observe(params, instance), ASCC.observe(params, moved)
    rows = 6 * len(actions.USER_FEATURES)
    np.testing.assert_allclose(
        again[:, :rows].reshape(4, 6, -1), seen[:, :rows].reshape(4, 6, -1)[:, order], rtol=1e-9, atol=1e-12
    )
    pairs = list(itertools.combinations(range(6), 2))
    old = [pairs.index(tuple(sorted((order[i], order[j])))) for i, j in pairs]
    np.testing.assert_allclose(
        again[:, rows:-4].reshape(4, 15, 2), seen[:, rows:-4].reshape(4, 15, 2)[:, old], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_array_equal(again[:, -4:], seen[:, -4:])


def test_users_of_different_kinds_are_not() -> None:
    params, instance, action = plain.case("two_user")
    swapped = ASCC.play(params, instance.map(lambda x: x[:, ::-1]), action.reshape(4, 2, 2)[..., ::-1].reshape(4, 4))
    assert (np.abs(swapped[0].objective - ASCC.play(params, instance, action)[0].objective) > 1e-3).any()


def test_a_turned_phase_changes_nothing() -> None:
    params, instance, action = plain.case("default")
    channel = (instance.channel_re + 1j * instance.channel_im) * np.exp(1j * np.arange(4))[:, None]
    turned = type(instance)(channel.real.copy(), channel.imag.copy())
    one, two = (ASCC.play(params, x, action)[0].objective for x in (instance, turned))
    np.testing.assert_allclose(two, one, rtol=1e-10)
    np.testing.assert_allclose(ASCC.observe(params, turned), ASCC.observe(params, instance), rtol=1e-9, atol=1e-12)


# --- observation -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", PRESETS)
def test_observation_from_the_definitions(preset: str) -> None:
    params, instance, _ = plain.case(preset, n=2)
    users = params.num_users
    seen = ASCC.observe(params, instance)
    assert seen.shape == (2, ASCC.observation_layout(params).size)
    share = params.max_power_w / users
    for n in range(2):
        h = plain.vectors(instance.channel_re[n], instance.channel_im[n])
        gram = np.array([[plain.inner(a, b) for b in h] for a in h])
        seen_through = gram @ np.linalg.inv(np.eye(users) + share * gram)
        expected: list[float] = []
        for i, rows in enumerate(plain.tables(params)):
            gamma = share * seen_through[i, i].real / (1 - share * seen_through[i, i].real)
            expected += [
                0.5 * math.log10(params.max_power_w * gram[i, i].real),
                0.5 * math.log10(gamma),
                users * float(params.weight[i]),
                float(i >= (users + 1) // 2),
                *(plain.best(rows, x * gamma, params.channel_uses, 256)[1] for x in (0.5, 1.0, 2.0)),
            ]
        for i, j in itertools.combinations(range(users), 2):
            expected += [abs(m[i, j]) ** 2 / (m[i, i] * m[j, j]).real for m in (gram, seen_through)]
        expected += [
            math.log10(params.max_power_w),
            math.log10(params.channel_uses / 1e4),
            math.log10(params.blocklength / 1e3),
            10 / users,
        ]
        np.testing.assert_allclose(seen[n], expected, rtol=1e-8, atol=1e-10)


def test_observation_of_extreme_cells_stays_in_the_space() -> None:
    for overrides in (
        {"max_power_w": 1e-9, "gain_range_db": (-150.0, -100.0)},
        {"max_power_w": 1e6},
        {"num_antennas": 1, "channel_correlation": 1.0},
        {"num_users": 1},
    ):
        env = gym.make("SemCom/ASCC-v0", disable_env_checker=True, **overrides)
        observation, _ = env.reset(seed=0)
        assert observation in env.observation_space


# --- torch -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("beamforming", "rate_action"), MODES)
def test_torch_gives_the_same_reward(beamforming: str, rate_action: str) -> None:
    torch = pytest.importorskip("torch")
    modes = {"beamforming": beamforming, "rate_action": rate_action}
    params, instance, action = plain.case("default", n=50, **modes)
    expected = ASCC.play(params, instance, action)[1]
    reward = ASCC.play(params, instance.to_torch(), torch.tensor(action))[1]
    np.testing.assert_allclose(reward.numpy(), expected, rtol=1e-9)
    seen = ASCC.observe(params, instance.to_torch()).numpy()
    np.testing.assert_allclose(seen, ASCC.observe(params, instance), rtol=1e-9, atol=1e-12)
    small = ASCC.play(params, instance.to_torch(dtype=torch.float32), torch.tensor(action, dtype=torch.float32))[1]
    assert small.dtype == torch.float32
    np.testing.assert_allclose(small.numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("beamforming", BEAMFORMING)
def test_gradient_of_the_reward(beamforming: str) -> None:
    """Autograd against central differences of NumPy, in every entry but the rates; at entries that are edges of a
    codec neither exists, and random ones are none.
    """
    torch = pytest.importorskip("torch")
    params, instance, action = plain.case("default", n=8, beamforming=beamforming)
    action[:, 4:8] = 0.0
    leaf = torch.tensor(action, requires_grad=True)
    ASCC.play(params, instance.to_torch(), leaf)[1].sum().backward()
    gradient = leaf.grad.numpy()
    assert (np.abs(gradient) > 1e-4).mean() > 0.3, "the check must not compare zeros"
    smooth = [k for k in range(action.shape[1]) if not 4 <= k < 8]
    for k in smooth:
        shift = 1e-6 * np.eye(action.shape[1])[k]
        ends = [ASCC.play(params, instance, action + s * shift)[1] for s in (-1, 1)]
        np.testing.assert_allclose(gradient[:, k], (ends[1] - ends[0]) / 2e-6, rtol=1e-3, atol=1e-6)


def test_rate_entries_have_the_slope_of_the_interpolated_tables() -> None:
    """The value is that of the rounded index, the gradient goes straight through the rounding."""
    torch = pytest.importorskip("torch")
    params, instance, action = plain.case("default", n=5, rate_action="absolute")
    leaf = torch.tensor(action, requires_grad=True)
    ASCC.play(params, instance.to_torch(), leaf, penalty=0.0)[1].sum().backward()
    decision = ASCC.decode(params, instance, action)
    inside = decision.rate_index < 22
    nudged = dataclasses.replace(decision, rate_index=decision.rate_index + np.where(inside, 1e-6, 0.0))
    before, after = (ASCC.evaluate(params, instance, x).terms["distortion"] for x in (decision, nudged))
    slope = -0.25 * (after - before) / 1e-6 * 11.0  # of -sum beta D in the index, times (N - 1) / 2
    np.testing.assert_allclose(leaf.grad.numpy()[:, 4:][inside], slope[inside], rtol=1e-3, atol=1e-6)
    assert (np.abs(slope[inside]) > 1e-3).mean() > 0.2


@pytest.mark.parametrize(("beamforming", "rate_action"), MODES)
def test_gradient_is_finite_everywhere(beamforming: str, rate_action: str) -> None:
    torch = pytest.importorskip("torch")
    modes = {"beamforming": beamforming, "rate_action": rate_action}
    params, instance, action = plain.case("hard", n=40, **modes)
    rng = np.random.default_rng(0)
    for dtype in (torch.float32, torch.float64):
        for corner in (0.0 * action, rng.choice([-1.0, 1.0], action.shape), 0.0 * action - 1.0, action):
            leaf = torch.tensor(corner, dtype=dtype, requires_grad=True)
            ASCC.play(params, instance.to_torch(dtype=dtype), leaf)[1].sum().backward()
            assert torch.isfinite(leaf.grad).all()
