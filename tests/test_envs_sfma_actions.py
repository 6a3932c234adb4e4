"""The action map: what holds whatever the action, its inverse, the symmetry of users; the observation."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from drawn import draw_actions
from hypothesis import given, settings
from hypothesis import strategies as st

from semcom_gym import envs
from semcom_gym.envs.sfma import actions, limits, pairs, physics

SFMA = envs.problem("sfma")
PRESETS = ["default", "paper", "loose", "tight", "pruned", "figures", "measured"]


@st.composite
def cases(draw: st.DrawFn, n: int = 3) -> tuple[Any, Any, np.ndarray]:
    """Parameters, instances and actions of any kind."""
    params = SFMA.preset(
        draw(st.sampled_from(PRESETS)),
        num_users=draw(st.sampled_from([4, 6, 8, 10, 16])),
        max_power_w=draw(st.floats(0.05, 4.0)),
        max_bandwidth_hz=draw(st.floats(1e6, 4e7)),
        max_latency_s=draw(st.floats(0.05, 0.3)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = SFMA.action_layout(params).size
    action = draw_actions(draw, rng, (n, size))
    return params, SFMA.sample(params, rng, n), action


def has_matching(allowed: np.ndarray, users: int) -> bool:
    """Whether the allowed pairs contain a perfect matching, by trying the lowest free user's partners in turn."""
    table = np.zeros((users, users), bool)
    for m, (i, j) in enumerate(itertools.combinations(range(users), 2)):
        table[i, j] = allowed[m]

    def search(free: tuple[int, ...]) -> bool:
        rest = free[1:]
        return not free or any(table[free[0], v] and search(tuple(u for u in rest if u != v)) for v in rest)

    return search(tuple(range(users)))


@settings(max_examples=150)
@given(cases())
def test_what_every_action_meets(case: tuple[Any, Any, np.ndarray]) -> None:
    """(20d)-(20i) always; (20a) wherever the pairs in E_f allow a matching; (20b) wherever equal power shares do."""
    params, instance, action = case
    for dtype in (np.float64, np.float32):
        cells = instance.map(lambda x, dtype=dtype: x.astype(dtype))
        decision = SFMA.decode(params, cells, action.astype(dtype))
        outcome = SFMA.evaluate(params, cells, decision)
        for name in ("power", "ratio", "pairing"):
            assert outcome.violation[name].max() <= 1e-6, name
        assert (decision.power_w.sum(axis=-1) <= params.max_power_w * (1 + 1e-6)).all()
        assert (decision.bandwidth_hz.sum(axis=-1) <= params.max_bandwidth_hz * (1 + 1e-6)).all()
        allowed = physics.feasible_pairs(params, cells)
        for n in range(len(instance)):
            used = allowed[n, decision.pair[n]].all()
            assert used == has_matching(allowed[n], params.num_users), "E_f is left only where it must be"
            assert (decision.ratio[n][allowed[n, decision.pair[n]]] > 0).all()
            if used:
                assert outcome.violation["distortion"][n] <= 1e-6
        link = physics.links(params, cells, decision.pair)
        low = np.minimum(physics.distortion_floor(params, link) * (1 + 1e-5), 1.0)
        equal = np.full_like(low, params.max_power_w / params.num_groups)
        curable = limits.bandwidth_floor(params, link, equal, low).sum(axis=-1) < params.max_bandwidth_hz * (1 - 1e-4)
        assert (outcome.violation["latency"][curable] <= 1e-6).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_energy_is_met_wherever_the_ratios_of_least_energy_meet_it(preset: str) -> None:
    params, instance, action = random(preset, n=300)
    decision = SFMA.decode(params, instance, action)
    p, b = decision.power_w, decision.bandwidth_hz
    link = physics.links(params, instance, decision.pair)
    low = np.minimum(physics.distortion_floor(params, link) * (1 + 1e-12), 1.0)
    high = limits.ratio_ceiling(link, p, b, low, np.ones_like(low))

    def spent(delta: np.ndarray) -> np.ndarray:
        return physics.energy(params, p, physics.delays(link, physics.rates(link, p, b, delta), delta), delta)

    least = np.minimum(spent(low), spent(high)).sum(axis=-1)
    outcome = SFMA.evaluate(params, instance, decision)
    reached = (least < params.max_energy_j * (1 - 1e-6)) & (outcome.violation["latency"] == 0)
    assert reached.mean() > 0.02
    # a ratio on the way to the least energy may be late, and the next lower one that is not costs more energy
    assert (outcome.violation["energy"][reached] <= 1e-6).mean() > 0.95


@settings(max_examples=60)
@given(cases(n=9))
def test_rows_do_not_depend_on_what_is_beside_them(case: tuple[Any, Any, np.ndarray]) -> None:
    """To the last bit, where sums have fewer than eight terms: climbs from there would magnify any difference."""
    params, instance, action = case
    together = SFMA.decode(params, instance, action)
    for k in range(len(action)):
        alone = SFMA.decode(params, instance[k : k + 1], action[k : k + 1])
        for name, value in vars(alone).items():
            few = params.num_groups < 8
            np.testing.assert_allclose(value[0], vars(together)[name][k], rtol=0 if few else 1e-13, err_msg=name)


@settings(max_examples=100)
@given(cases())
def test_encode_inverts_decode(case: tuple[Any, Any, np.ndarray]) -> None:
    params, instance, action = case
    first = SFMA.decode(params, instance, action)
    before = SFMA.evaluate(params, instance, first)
    keep = np.flatnonzero(before.feasible)
    if not len(keep):
        return
    code = SFMA.encode(params, instance[keep], first[keep])
    assert code.shape == action[keep].shape
    assert np.abs(code).max() <= 1.0
    second = SFMA.decode(params, instance[keep], code)
    after = SFMA.evaluate(params, instance[keep], second)
    np.testing.assert_array_equal(second.pair, first.pair[keep])
    np.testing.assert_allclose(after.objective, before.objective[keep], rtol=1e-9)
    assert after.feasible.all()


def random(preset: str, seed: int = 0, n: int = 5, **overrides: Any) -> tuple[Any, Any, np.ndarray]:
    params = SFMA.preset(preset, **overrides)
    rng = np.random.default_rng(seed)
    instance = SFMA.sample(params, rng, n)
    return params, instance, rng.uniform(-0.9, 0.9, (n, SFMA.action_layout(params).size))


def test_entries_outside_the_box_are_clipped() -> None:
    params, instance, action = random("default")
    a, b = (SFMA.decode(params, instance, x) for x in (3.0 * action, np.clip(3.0 * action, -1, 1)))
    for field in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def test_equal_entries_are_equal_shares() -> None:
    params, instance, action = random("loose")
    action[:, params.num_pairs :] = 0.0
    decision = SFMA.decode(params, instance, action)
    np.testing.assert_allclose(decision.power_w, params.max_power_w / 5, rtol=1e-12)
    need = limits.bandwidth_floor(
        params, physics.links(params, instance, decision.pair), decision.power_w, floors(params, instance, decision)
    )
    spare = decision.bandwidth_hz - need
    np.testing.assert_allclose(spare, spare[:, :1] * np.ones((1, 5)), rtol=1e-6)
    np.testing.assert_allclose(decision.bandwidth_hz.sum(axis=-1), params.max_bandwidth_hz, rtol=1e-12)


def floors(params: Any, instance: Any, decision: Any) -> np.ndarray:
    return np.minimum(physics.distortion_floor(params, physics.links(params, instance, decision.pair)), 1.0)


def test_ends_of_the_ratio() -> None:
    """-1 is the distortion floor; 1 is the largest ratio in time: a little more would be late, or it is 1 already."""
    params, instance, action = random("loose")
    ratio = slice(params.num_pairs + 20, None)
    action[:, ratio] = -1.0
    decision = SFMA.decode(params, instance, action)
    np.testing.assert_allclose(decision.ratio, floors(params, instance, decision), rtol=1e-9)
    action[:, ratio] = 1.0
    decision = SFMA.decode(params, instance, action)
    full = decision.ratio > 1 - 1e-9
    assert 0 < full.mean() < 1
    more = dataclasses.replace(decision, ratio=np.minimum(decision.ratio * 1.001, 1.0))
    link = physics.links(params, instance, decision.pair)
    rate = physics.rates(link, more.power_w, more.bandwidth_hz, more.ratio)
    late = (physics.delays(link, rate, more.ratio) > link.spare_s).any(axis=-1)
    np.testing.assert_array_equal(late, ~full)


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_group_takes_the_mean_of_its_two_users(block: int) -> None:
    params, instance, action = random("loose", n=1)
    decision = SFMA.decode(params, instance, action)
    i, j = pairs.members(10)[decision.pair[0, 2]]
    start = params.num_pairs + 10 * block
    split, raised = action.copy(), action.copy()
    split[0, start + i] += 0.05
    split[0, start + j] -= 0.05
    raised[0, start + i] += 0.05
    other, more = (SFMA.decode(params, instance, x) for x in (split, raised))
    for field in dataclasses.fields(decision):
        np.testing.assert_allclose(getattr(other, field.name), getattr(decision, field.name), rtol=1e-9)
    name = ("power_w", "bandwidth_hz", "ratio")[block]
    assert getattr(more, name)[0, 2] > getattr(decision, name)[0, 2]
    rest = np.arange(5) != 2
    if name == "ratio":
        np.testing.assert_array_equal(more.ratio[:, rest], decision.ratio[:, rest])
    elif name == "power_w":
        assert (more.power_w[:, rest] < decision.power_w[:, rest]).all()


def test_scores_decide_the_pairing() -> None:
    params, instance, action = random("default")
    wanted = np.array([pairs.index(10)[i, j] for i, j in ((0, 9), (1, 8), (2, 7), (3, 6), (4, 5))])
    action[:, : params.num_pairs] = -0.5
    action[:, wanted] = 0.1
    decision = SFMA.decode(params, instance, action)
    np.testing.assert_array_equal(decision.pair, np.broadcast_to(np.sort(wanted), (5, 5)))


def test_pairs_outside_the_edge_set_are_avoided_whatever_the_scores() -> None:
    params, instance, action = random("pruned", n=60)
    allowed = physics.feasible_pairs(params, instance)
    action[:, : params.num_pairs] = np.where(allowed, -1.0, 1.0)
    used = np.take_along_axis(allowed, SFMA.decode(params, instance, action).pair, axis=-1).all(axis=-1)
    np.testing.assert_array_equal(used, [has_matching(row, 10) for row in allowed])
    assert used.mean() > 0.9


def test_users_are_interchangeable() -> None:
    """Numbering the users differently renumbers the decision and the rows of the observation, and nothing else."""
    params, instance, action = random("default", n=8)
    order = np.random.default_rng(1).permutation(10)  # new user k is old user order[k]
    old = pairs.index(10)[order[pairs.members(10)[:, 0]], order[pairs.members(10)[:, 1]]]  # of every new pair
    turned = order[pairs.members(10)[:, 0]] > order[pairs.members(10)[:, 1]]
    fields = {}
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        fields[field.name] = value[:, order] if value.shape[1] == 10 else value[:, old]
    level = fields["distortion_level"]
    fields["distortion_level"] = np.where(turned[:, None], level[..., ::-1], level)
    shuffled = type(instance)(**fields)
    blocks = action[:, params.num_pairs :].reshape(8, 3, 10)[:, :, order].reshape(8, -1)
    a = SFMA.decode(params, instance, action)
    b = SFMA.decode(params, shuffled, np.concatenate([action[:, : params.num_pairs][:, old], blocks], axis=-1))
    for n in range(8):
        groups = {int(old[b.pair[n, k]]): k for k in range(5)}
        assert sorted(groups) == a.pair[n].tolist()
        same = [groups[int(m)] for m in a.pair[n]]
        for name in ("power_w", "bandwidth_hz", "ratio"):
            np.testing.assert_allclose(getattr(b, name)[n, same], getattr(a, name)[n], rtol=1e-9)
    np.testing.assert_allclose(
        SFMA.evaluate(params, shuffled, b).objective, SFMA.evaluate(params, instance, a).objective, rtol=1e-9
    )
    one, two = SFMA.observe(params, instance), SFMA.observe(params, shuffled)
    np.testing.assert_array_equal(two[:, :40].reshape(8, 10, 4), one[:, :40].reshape(8, 10, 4)[:, order])
    rows = one[:, 40:-5].reshape(8, 45, 9)[:, old]
    rows[:, turned, 7:] = rows[:, turned, 8:6:-1]
    np.testing.assert_allclose(two[:, 40:-5].reshape(8, 45, 9), rows, rtol=1e-12)
    np.testing.assert_array_equal(two[:, -5:], one[:, -5:])


# --- encode ----------------------------------------------------------------------------------------------------------
def feasible(preset: str, n: int = 5, **overrides: Any) -> tuple[Any, Any, Any]:
    """Feasible decisions: similar users together, shares not far from equal."""
    params, instance, action = random(preset, n=100, **overrides)
    action = 0.3 + 0.5 * np.abs(action)
    action[:, : params.num_pairs] = instance.similarity
    decision = SFMA.decode(params, instance, action)
    keep = np.flatnonzero(SFMA.evaluate(params, instance, decision).feasible)[:n]
    assert len(keep) == n
    return params, instance[keep], decision[keep]


BROKEN = [
    ("power", {"power_w": 0.5}, {}),
    ("bandwidth", {"bandwidth_hz": 4e6}, {}),
    ("ratio", {"ratio": 1.5}, {"max_latency_s": 1.0, "energy_per_group_j": 1.0}),
    ("distortion", {"ratio": 0.0625}, {}),
    ("latency", {"bandwidth_hz": 1e4}, {"energy_per_group_j": 1e4}),
    ("energy", {"bandwidth_hz": 1e4}, {"max_latency_s": 1e3}),
    ("pairing", {"pair": 3}, {"max_distortion": 1.0, "max_latency_s": 1e3, "energy_per_group_j": 1e4}),
]


@pytest.mark.parametrize(("name", "change", "overrides"), BROKEN)
def test_encode_refuses_what_breaks_a_constraint(
    name: str, change: dict[str, float], overrides: dict[str, float]
) -> None:
    params, instance, decision = feasible("loose", **overrides)
    bad = dataclasses.replace(decision, **{k: np.full_like(getattr(decision, k), v) for k, v in change.items()})
    with pytest.raises(ValueError, match=f"breaks '{name}' by .* of its limit"):
        SFMA.encode(params, instance, bad)


@pytest.mark.parametrize("preset", PRESETS)
def test_environment_reproduces_the_objective_of_an_encoded_allocation(preset: str) -> None:
    params, instance, decision = feasible(preset, n=3)
    expected = SFMA.evaluate(params, instance, decision).objective
    env = gym.make("SemCom/SFMA-v0", preset=preset)
    for n in range(3):
        env.reset(options={"instance": instance[n]})
        action = env.unwrapped.encode(decision[n])
        assert action.dtype == np.float64
        _, reward, _, _, info = env.unwrapped.step(action)
        assert info["feasible"]
        assert info["objective"] == pytest.approx(expected[n], rel=1e-9)
        assert reward == pytest.approx(expected[n], rel=1e-9)


def test_an_unused_budget_is_handed_out_and_never_costs() -> None:
    params, instance, decision = feasible("loose")
    thrifty = dataclasses.replace(decision, power_w=0.9 * decision.power_w, bandwidth_hz=0.95 * decision.bandwidth_hz)
    low = floors(params, instance, decision)
    thrifty = dataclasses.replace(thrifty, ratio=low + 0.5 * (decision.ratio - low))
    before = SFMA.evaluate(params, instance, thrifty)
    keep = np.flatnonzero(before.feasible)
    assert len(keep)
    code = SFMA.encode(params, instance[keep], thrifty[keep])
    after = SFMA.evaluate(params, instance[keep], SFMA.decode(params, instance[keep], code))
    assert (after.objective > before.objective[keep]).all()
    assert after.feasible.all()


def test_the_order_of_the_groups_does_not_matter() -> None:
    params, instance, decision = feasible("default")
    turned = decision.map(lambda x: x[:, ::-1])
    a, b = (SFMA.decode(params, instance, SFMA.encode(params, instance, x)) for x in (decision, turned))
    for field in dataclasses.fields(a):
        np.testing.assert_allclose(getattr(a, field.name), getattr(b, field.name), rtol=1e-12)


# --- libraries, precision, observation -------------------------------------------------------------------------------
def test_numpy_and_torch_agree() -> None:
    torch = pytest.importorskip("torch")
    for preset in PRESETS:
        params, instance, action = random(preset, n=20)
        expected = SFMA.decode(params, instance, action)
        got = SFMA.decode(params, instance.to_torch(), torch.tensor(action))
        np.testing.assert_array_equal(got.pair.numpy(), expected.pair)
        for name in ("power_w", "bandwidth_hz", "ratio"):
            np.testing.assert_allclose(getattr(got, name).numpy(), getattr(expected, name), rtol=1e-12)
        seen = SFMA.observe(params, instance.to_torch()).numpy()
        np.testing.assert_allclose(seen, SFMA.observe(params, instance), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_float32_stays_float32(library: str) -> None:
    params, instance, action = random("default", n=20)
    if library == "torch":
        torch = pytest.importorskip("torch")
        instance, score, dtype = instance.to_torch(dtype=torch.float32), torch.tensor(action).float(), torch.float32
    else:
        instance, score, dtype = instance.map(lambda x: x.astype(np.float32)), action.astype(np.float32), np.float32
    decision = SFMA.decode(params, instance, score)
    for name in ("power_w", "bandwidth_hz", "ratio"):
        assert getattr(decision, name).dtype == dtype, name
    assert SFMA.observe(params, instance).dtype == dtype
    link = physics.links(params, instance, decision.pair)
    p, b, delta = decision.power_w, decision.bandwidth_hz, decision.ratio
    for value in (
        limits.bandwidth_floor(params, link, p, delta),
        limits.ratio_ceiling(link, p, b, delta, delta),
        *limits.share_power(params, link, p, delta),
        *limits.spare_energy(params, link, p, b, delta, delta, delta),
    ):
        assert value.dtype == dtype


def test_observation_against_its_description() -> None:
    params, instance, _ = random("pruned", n=3, max_power_w=2.0, max_latency_s=0.15, num_users=6)
    layout = SFMA.observation_layout(params)
    observation = SFMA.observe(params, instance)
    assert observation.shape == (3, layout.size) == (3, 4 * 6 + 9 * 15 + 5)
    users = dict(zip(layout.user_features, np.moveaxis(observation[:, :24].reshape(3, 6, 4), -1, 0), strict=True))
    rows = dict(zip(layout.pair_features, np.moveaxis(observation[:, 24:-5].reshape(3, 15, 9), -1, 0), strict=True))
    cell = dict(zip(layout.global_features, observation[0, -5:], strict=True))
    noise = 10 ** (-174 / 10) / 1000
    np.testing.assert_allclose(users["gain"], np.log10(2.0 * instance.gain / (2 * noise * 10e6)))
    np.testing.assert_allclose(users["source"], instance.source_bit / 0.7e6)
    np.testing.assert_allclose(users["decoding"], instance.decode_s / 0.15)
    np.testing.assert_allclose(users["tilt"], 10 * instance.distortion_tilt)
    a, b, d = instance.power_slope, instance.ratio_slope, instance.offset
    np.testing.assert_allclose(rows["similarity"], instance.similarity)
    np.testing.assert_allclose(rows["rho_min"], np.log10(instance.rho_min), atol=1e-4)
    np.testing.assert_allclose(rows["rho_max"], instance.rho_max)
    np.testing.assert_allclose(rows["midpoint"], -d / a / (2.0 / 3))
    np.testing.assert_allclose(rows["power_slope"], np.log10(a * 2.0 / 3))
    np.testing.assert_allclose(rows["ratio_slope"], np.log10(b))
    np.testing.assert_allclose(rows["encoding"], instance.encode_s / 0.15)
    for side, name in enumerate(("distortion_left", "distortion_right")):
        table = np.interp(instance.similarity, params.profile.similarity, params.profile.distortion[:, -1])
        np.testing.assert_allclose(rows[name], np.log10(instance.distortion_level[..., side] * table / 0.005))
    assert cell == pytest.approx({
        "power": np.log10(2.0),
        "bandwidth": 0.0,
        "energy": np.log10(0.017 / (2.0 * 0.15)),
        "latency": np.log10(0.7e6 * 3 / (0.15 * 10e6)),
        "users": 10 / 6,
    })  # fmt: skip
    assert len(actions.USER_FEATURES) == len(users) == 4
    assert len(actions.PAIR_FEATURES) == len(rows) == 9


# --- one step --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["default", "pruned", "measured"])
def test_playing_is_evaluating_the_decoded_action(preset: str) -> None:
    """What a step shares between the two changes no bit of either."""
    params = SFMA.preset(preset)
    rng = np.random.default_rng(3)
    instance = SFMA.sample(params, rng, 100)
    action = rng.uniform(-1.0, 1.0, (100, SFMA.action_layout(params).size))
    played, reward = SFMA.play(params, instance, action, 100.0)
    expected = SFMA.evaluate(params, instance, SFMA.decode(params, instance, action))
    np.testing.assert_array_equal(reward, SFMA.reward(expected, 100.0))
    for name in ("violation", "terms"):
        for key, value in getattr(expected, name).items():
            np.testing.assert_array_equal(getattr(played, name)[key], value, err_msg=key)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_surely_feasible_only_where_every_pair_is(dtype: type) -> None:
    answers = []
    for preset in SFMA.PRESETS:
        params = SFMA.preset(preset)
        instance = SFMA.sample_split(params, "validation", 50).map(lambda x: x.astype(dtype))
        surely = physics.surely_feasible(params, instance)
        answers.append(surely)
        assert bool(physics.feasible_pairs(params, instance).all()) >= surely
        tight = dataclasses.replace(params, max_latency_s=float(instance.encode_s.max()))
        assert not physics.surely_feasible(tight, instance)
    assert set(answers) == {True, False}, "both answers are met"
