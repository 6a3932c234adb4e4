"""The equations of the CRRA paper against values worked out here from their definitions."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from scipy.stats import norm

from semcom_gym import envs
from semcom_gym.envs import channel, curve
from semcom_gym.envs.crra import physics

CRRA = envs.problem("crra")
# Table IV of the paper, typed again: zeta1, zeta2, zeta3, zeta4, RMSE
TABLE_IV = {
    "vgg_m5db": (-9.503e-17, 36.77, 0.9044, -0.01869, 0.0449),
    "vgg_0db": (-2.202e-16, 35.94, 0.9137, -0.02349, 0.0488),
    "vgg_5db": (-2.76e-18, 40.33, 0.9205, -0.02257, 0.0510),
    "resnet_m5db": (-6.205e-08, 16.45, 0.9228, -0.06917, 0.0272),
    "resnet_0db": (-2.893e-16, 35.68, 0.9482, -0.04151, 0.0282),
    "resnet_5db": (-8.875e-16, 34.54, 0.9458, 0.007934, 0.0491),
}


def eta(name: str, ratio: float) -> float:
    z1, z2, z3, z4, _ = TABLE_IV[name]
    return min(1.0, max(0.0, z1 * math.exp(z2 * ratio) + z3 * math.exp(z4 * ratio)))


def transmission(params: Any, bandwidth: float, power: float, ratio: float, gain: float) -> float:
    """P(t <= t0) for |h| = gain * |normal|: the gain at which (7) meets the deadline, found by a root search on (6)."""
    noise = 10 ** (params.noise_psd_dbm_hz / 10) / 1000

    def lateness(h: float) -> float:
        rate = bandwidth * math.log1p(h * power / (noise * bandwidth)) / math.log(2)
        return math.log(params.payload_bit * (1 - ratio) / rate / params.deadline_s)

    if lateness(1.0) > 0:  # late even at a gain of 0 dB, ten orders of magnitude above the cell's
        return 0.0
    needed = math.exp(optimize.brentq(lambda u: lateness(math.exp(u)), -90, 0, xtol=1e-14, rtol=1e-14))
    return float(2 * norm.sf(needed / gain))


def allocation(bandwidth: Any, power: Any, ratio: Any, selected: Any = None) -> physics.Allocation:
    rows = [np.atleast_2d(np.asarray(x, float)) for x in (bandwidth, power, ratio)]
    chosen = np.ones_like(rows[0]) if selected is None else np.atleast_2d(np.asarray(selected, float))
    return physics.Allocation(*rows, selected=chosen)


def random_case(preset: str, seed: int, **overrides: Any) -> tuple[Any, Any, physics.Allocation]:
    params = CRRA.preset(preset, **overrides)
    generator = np.random.default_rng(seed)
    instance = CRRA.sample(params, generator, 4)
    action = generator.uniform(-0.7, 0.7, (4, CRRA.action_layout(params).size))
    return params, instance, CRRA.decode(params, instance, action)


@pytest.mark.parametrize("preset", ["paper", "default", "hard", "select", "general"])
def test_success_and_objective_from_the_definitions(preset: str) -> None:
    """(6)-(8), (11)-(13): the deadline probability by a root search, the sum in plain Python."""
    params, instance, decision = random_case(preset, 3, curves=tuple(TABLE_IV))
    outcome = CRRA.evaluate(params, instance, decision)
    for n in range(4):
        total = 0.0
        for i in range(params.num_users):
            b, p, o = (float(x[n, i]) for x in (decision.bandwidth_hz, decision.power_w, decision.ratio))
            sent = transmission(params, b, p, o, float(instance.gain[n, i]))
            task = eta(params.curves[int(instance.curve[n, i])], o)
            assert outcome.terms["transmission"][n, i] == pytest.approx(sent, rel=1e-8, abs=1e-12)
            assert outcome.terms["task"][n, i] == pytest.approx(task, rel=1e-12)
            total += decision.selected[n, i] * instance.weight[n, i] * task * sent
        assert outcome.objective[n] == pytest.approx(total, rel=1e-8, abs=1e-12)


def test_lemma_1_by_simulation() -> None:
    """(8) with |h|, h ~ N(0, delta^2): the share of draws that meet the deadline."""
    params = CRRA.preset("paper")
    gain, b, p, o = 1e-11, 2e6, 0.1, 0.8
    h = gain * np.abs(np.random.default_rng(0).standard_normal(400_000))
    rate = b * np.log2(1 + h * p / (params.noise_psd_w_hz * b))
    share = np.mean(params.payload_bit * (1 - o) / rate <= params.deadline_s)
    x = physics.outage_argument(params, np.array(b), np.array(p), np.array(o), np.array(gain))
    assert 0.2 < share < 0.99
    assert float(physics.transmission_success(params, x)) == pytest.approx(share, abs=4e-3)


def test_approximation_is_equation_20() -> None:
    params = CRRA.preset("default", success="approximate")
    b, p, o, delta = 5e5, 1e-3, 0.9, 1e-10
    noise = 10 ** (-17.4) / 1000
    inner = noise * b * (2 ** (24.5e3 * (1 - o) / (b * 1e-3)) - 1) / (delta * p)
    x = physics.outage_argument(params, np.array(b), np.array(p), np.array(o), np.array(delta))
    assert float(x) == pytest.approx(inner, rel=1e-12)
    assert float(physics.transmission_success(params, x)) == pytest.approx(math.exp(-(inner**2) / 2), rel=1e-12)


@given(st.floats(0, 30))
def test_approximation_is_an_upper_bound_that_is_right_at_zero(x: float) -> None:
    exact, loose = (
        float(physics.transmission_success(CRRA.preset("paper", success=s), np.array(x)))
        for s in ("exact", "approximate")
    )
    assert exact == pytest.approx(2 * norm.sf(x), rel=1e-10)
    assert exact <= loose * (1 + 1e-12)
    if x == 0:
        assert exact == loose == 1.0


@pytest.mark.parametrize("name", TABLE_IV)
def test_published_curves_are_table_iv(name: str) -> None:
    params = CRRA.preset("paper", curves=(name,))
    for o in (0.0, 0.5, 0.8, 0.95, 0.99):
        zeta = tuple(params.curve_table[0])
        assert float(physics.task_performance(np.array(o), zeta)) == pytest.approx(eta(name, o), rel=1e-12)
    loaded = curve.load("crra", name, ("zeta1",))
    assert loaded.kind == "published"
    assert loaded.goodness["rmse"] == TABLE_IV[name][4]


def test_task_performance_stays_a_probability() -> None:
    ratio = np.linspace(0, 1, 1001)
    for name in TABLE_IV:
        zeta = tuple(CRRA.preset("paper", curves=(name,)).curve_table[0])
        values = physics.task_performance(ratio, zeta)
        assert values.min() >= 0
        assert values.max() <= 1


def test_limits() -> None:
    params = CRRA.preset("paper", num_users=1)
    gain = np.array(1e-11)

    def success(b: float, p: float, o: float) -> float:
        x = physics.outage_argument(params, np.array(b), np.array(p), np.array(o), gain)
        return float(physics.transmission_success(params, x))

    assert success(1e6, 0.0, 0.8) == 0.0
    assert success(0.0, 1.0, 0.8) == 0.0
    assert success(1e6, 1e12, 0.8) == pytest.approx(1.0, abs=1e-9)
    # unlimited bandwidth: B (2**(r/B) - 1) -> r ln 2, so the power alone decides
    rate = params.payload_bit / params.deadline_s
    wide = 2 * norm.sf(params.noise_psd_w_hz * 0.2 * rate * math.log(2) / (1e-3 * 1e-11))
    assert success(1e15, 1e-3, 0.8) == pytest.approx(wide, rel=1e-6)
    # a ratio close to one needs next to nothing
    assert success(1e6, 1.0, 0.99) > success(1e6, 1.0, 0.9) > success(1e6, 1.0, 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_allocations_stay_finite(dtype: type) -> None:
    params = CRRA.preset("default", num_users=6)
    instance = CRRA.sample(params, np.random.default_rng(0), 1).map(
        lambda x: x.astype(dtype) if x.dtype.kind == "f" else x
    )
    extreme = physics.Allocation(
        bandwidth_hz=np.array([[0.0, 1e-9, 1.0, 1e3, 1e12, 5e6]], dtype),
        power_w=np.array([[0.0, 1e-20, 1e-3, 1e3, 0.0, 1e-2]], dtype),
        ratio=np.array([[0.0, 0.0, 0.99, 0.5, 0.0, 0.0]], dtype),
        selected=np.ones((1, 6), dtype),
    )
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        outcome = CRRA.evaluate(params, instance, extreme)
    for value in (outcome.objective, *outcome.violation.values(), *outcome.terms.values()):
        assert np.isfinite(value).all()
        assert value.dtype == dtype


POSITIVE = {
    "b": st.floats(1e4, 2e7),
    "p": st.floats(1e-5, 1.0),
    "o": st.floats(0.0, 0.99),
    "gain_db": st.floats(-150, -70),
    "up": st.floats(1.0001, 10.0),
}


@given(**POSITIVE)
def test_value_rises_with_bandwidth_power_and_gain(b: float, p: float, o: float, gain_db: float, up: float) -> None:
    for model in ("exact", "approximate"):
        params = CRRA.preset("paper", success=model)

        def success(b: float, p: float, gain: float, params: Any = params) -> float:
            x = physics.outage_argument(params, np.array(b), np.array(p), np.array(o), np.array(gain))
            return float(physics.transmission_success(params, x))

        gain = 10 ** (gain_db / 10)
        base = success(b, p, gain)
        for better in (success(up * b, p, gain), success(b, up * p, gain), success(b, p, up * gain)):
            assert better >= base - 1e-13
        # power and gain enter through their product only
        assert success(b, up * p, gain) == pytest.approx(success(b, p, up * gain), rel=1e-9, abs=1e-300)


@given(st.floats(1e4, 2e7), st.floats(1e-5, 1.0), st.floats(-130, -70))
def test_success_rises_with_the_ratio_and_task_falls(b: float, p: float, gain_db: float) -> None:
    params = CRRA.preset("paper")
    ratio = np.linspace(0, 0.99, 50)
    x = physics.outage_argument(params, np.array(b), np.array(p), ratio, np.array(10 ** (gain_db / 10)))
    assert (np.diff(physics.transmission_success(params, x)) >= -1e-15).all()
    assert (np.diff(physics.task_performance(ratio, tuple(params.curve_table[0]))) <= 0).all()


def feasible_case(selection: bool) -> tuple[Any, Any, dict[str, np.ndarray]]:
    params = CRRA.preset("select" if selection else "default", num_users=4)
    instance = CRRA.sample(params, np.random.default_rng(1), 1)
    budget_b, budget_p = float(instance.bandwidth_hz[0]), float(instance.power_w[0])
    return (
        params,
        instance,
        {
            "bandwidth_hz": np.full((1, 4), budget_b / 5),
            "power_w": np.full((1, 4), budget_p / 5),
            "ratio": np.full((1, 4), 0.9),
            "selected": np.ones((1, 4)),
        },
    )


CASES = [
    ("bandwidth", {"bandwidth_hz": [3.5e6, 1e6, 1e6, 1e6]}, 0.3),
    ("min_bandwidth", {"bandwidth_hz": [0.75, 1e6, 1e6, 1e6]}, None),
    ("power", {"power_w": [5e-3, 3e-3, 2e-3, 2e-3]}, 0.2),
    ("min_power", {"power_w": [0.0, 2e-3, 2e-3, 2e-3]}, 1.0),
    ("ratio", {"ratio": [0.9, 0.9, 0.9, 0.997]}, 0.007),
    ("ratio", {"ratio": [0.9, -0.25, 0.9, 0.9]}, 0.25),
]


@pytest.mark.parametrize("selection", [False, True])
@pytest.mark.parametrize(("broken", "change", "amount"), CASES)
def test_each_constraint_is_reported_alone(broken: str, change: dict, amount: float | None, selection: bool) -> None:
    params, instance, fields = feasible_case(selection)
    assert bool(CRRA.evaluate(params, instance, physics.Allocation(**fields)).feasible[0])
    fields |= {key: np.array([value]) for key, value in change.items()}
    outcome = CRRA.evaluate_unchecked(params, instance, physics.Allocation(**fields))
    excess = {key: float(value[0]) for key, value in outcome.violation.items()}
    amount = 1 - 0.75 / params.min_bandwidth_hz if amount is None else amount
    assert excess.pop(broken) == pytest.approx(amount, rel=1e-9)
    assert excess == dict.fromkeys(excess, 0.0)
    assert not outcome.feasible[0]
    assert float(outcome.cost[0]) == pytest.approx(amount, rel=1e-9)


def test_selection_is_a_constraint_of_both_problems() -> None:
    params, instance, fields = feasible_case(selection=False)
    fields["selected"] = np.array([[1.0, 1.0, 0.0, 1.0]])
    outcome = CRRA.evaluate(params, instance, physics.Allocation(**fields))
    assert outcome.violation["selection"].tolist() == [1.0]
    params, instance, fields = feasible_case(selection=True)
    fields["selected"] = np.array([[1.0, 1.0, 0.0, 1.0]])
    assert bool(CRRA.evaluate(params, instance, physics.Allocation(**fields)).feasible[0])
    fields["selected"] = np.array([[1.0, 1.0, 0.5, 1.0]])
    outcome = CRRA.evaluate(params, instance, physics.Allocation(**fields))
    assert outcome.violation["selection"].tolist() == [0.25]


def test_an_unselected_user_costs_and_earns_nothing() -> None:
    params, instance, fields = feasible_case(selection=True)
    fields["selected"] = np.array([[1.0, 1.0, 0.0, 1.0]])
    base = CRRA.evaluate(params, instance, physics.Allocation(**fields))
    for key, value in (("bandwidth_hz", 1e9), ("power_w", 1e3), ("ratio", 2.0)):
        changed = {name: array.copy() for name, array in fields.items()}
        changed[key][0, 2] = value
        other = CRRA.evaluate(params, instance, physics.Allocation(**changed))
        assert other.objective[0] == base.objective[0]
        assert float(other.cost[0]) == 0.0


def test_rows_of_a_batch_do_not_mix() -> None:
    params, instance, decision = random_case("general", 9)
    whole = CRRA.evaluate(params, instance, decision)
    for i in range(4):
        row = CRRA.evaluate(params, instance[i], decision[i])
        assert row.objective[0] == pytest.approx(whole.objective[i], rel=1e-14)


def test_numpy_and_torch_agree() -> None:
    torch = pytest.importorskip("torch")
    params, instance, decision = random_case("select", 5, curves=("resnet_0db", "vgg_0db"))
    expected = CRRA.evaluate(params, instance, decision)
    got = CRRA.evaluate(params, instance.to_torch(), decision.to_torch())
    assert torch.is_tensor(got.objective)
    np.testing.assert_allclose(got.objective.numpy(), expected.objective, rtol=1e-12)
    for key, value in expected.terms.items():
        np.testing.assert_allclose(got.terms[key].numpy(), value, rtol=1e-9, atol=1e-300)


def test_channel() -> None:
    """Path loss at two distances by hand; users uniform over the ring; shadowing of the stated spread."""
    assert float(channel.path_loss_db(np.array(1000.0))) == pytest.approx(128.1)
    assert float(channel.path_loss_db(np.array(100.0))) == pytest.approx(128.1 - 37.6)
    params = CRRA.preset("default", num_users=20)
    cells = CRRA.sample(params, np.random.default_rng(0), 4000)
    distance = cells.distance_m
    assert distance.min() >= params.min_distance_m
    assert distance.max() <= params.cell_radius_m
    middle = (params.min_distance_m**2 + params.cell_radius_m**2) ** 0.5 / 2**0.5  # half of the area lies inside
    assert (distance < middle).mean() == pytest.approx(0.5, abs=0.01)
    shadow = 10 * np.log10(cells.gain) + channel.path_loss_db(distance)
    assert shadow.std() == pytest.approx(8.0, rel=0.02)
    assert shadow.mean() == pytest.approx(0.0, abs=0.1)
    assert set(np.unique(cells.weight)) == set(params.service_weights)
    no_shadow = dataclasses.replace(params, shadowing_db=0.0)
    flat = CRRA.sample(no_shadow, np.random.default_rng(0), 10)
    np.testing.assert_allclose(10 * np.log10(flat.gain), -channel.path_loss_db(flat.distance_m))


def test_general_preset_draws_its_budgets() -> None:
    params = CRRA.preset("general")
    cells = CRRA.sample(params, np.random.default_rng(0), 4000)
    for values, (low, high) in (
        (cells.bandwidth_hz, params.bandwidth_range_hz),
        (cells.power_w, params.power_range_w),
    ):
        assert values.min() >= low
        assert values.max() <= high
        assert (values < math.sqrt(low * high)).mean() == pytest.approx(0.5, abs=0.03)  # log-uniform
