"""The equations of the SC-SFMA paper against values worked out here, in plain Python, from their definitions."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sfma_cells import CURVES, between, own_curve

from semcom_gym import envs
from semcom_gym.envs.sfma import physics
from semcom_gym.envs.sfma.physics import Allocation, Links

SFMA = envs.problem("sfma")
PRESETS = ["default", "paper", "loose", "tight", "pruned"]


def table_of(name: str) -> dict[str, Any]:
    return json.loads((CURVES / f"{name}.json").read_text())["parameters"]


def pair_list(users: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(users) for j in range(i + 1, users)]


class Pair:
    """One pair of one instance, equation by equation as the paper prints them."""

    def __init__(self, params: Any, instance: Any, n: int, m: int) -> None:
        self.params, self.x, self.n, self.m = params, instance, n, m
        self.users = pair_list(params.num_users)[m]
        self.noise = 10 ** (params.noise_psd_dbm_hz / 10) / 1000

    def rho(self, p: float, delta: float) -> float:  # (10)
        a, b, d = (float(f[self.n, self.m]) for f in (self.x.power_slope, self.x.ratio_slope, self.x.offset))
        low, high = float(self.x.rho_min[self.n, self.m]), float(self.x.rho_max[self.n, self.m])
        return low + (high - low) / (1 + math.exp(a * p + b * delta + d))

    def sinr(self, u: int, p: float, bw: float, delta: float) -> float:  # (11)
        half = p / 2 * float(self.x.gain[self.n, u])
        return half / (self.rho(p, delta) * half + bw * self.noise)

    def rate(self, u: int, p: float, bw: float, delta: float) -> float:  # (12)
        return bw * math.log2(1 + self.sinr(u, p, bw, delta))

    def delay(self, u: int, p: float, bw: float, delta: float) -> float:  # (14)
        return float(self.x.source_bit[self.n, u]) * delta / self.rate(u, p, bw, delta)

    def latency(self, p: float, bw: float, delta: float) -> float:  # (15)
        ends = [self.delay(u, p, bw, delta) + float(self.x.decode_s[self.n, u]) for u in self.users]
        return float(self.x.encode_s[self.n, self.m]) + max(ends)

    def energy(self, p: float, bw: float, delta: float) -> float:  # (16)
        slowest = max(self.delay(u, p, bw, delta) for u in self.users)
        return p * slowest + self.params.energy_coefficient_j * math.log(1 / delta)

    def spare(self, u: int) -> float:  # (27)
        busy = float(self.x.encode_s[self.n, self.m]) + float(self.x.decode_s[self.n, u])
        return self.params.max_latency_s - busy

    def distortion(self, u: int, delta: float) -> float:  # (17), the envelope between the ratios of the grid
        table = table_of(self.params.curve)
        similarity = float(self.x.similarity[self.n, self.m])
        level = float(self.x.distortion_level[self.n, self.m, self.users.index(u)])
        tilt = float(self.x.distortion_tilt[self.n, u])
        knots = []
        for column, ratio in enumerate(table["ratio_grid"]):
            mean = between(similarity, table["similarity"], [row[column] for row in table["distortion"]])
            knots.append(level * mean * ratio**-tilt)
        return between(delta, table["ratio_grid"], knots)

    def floor(self) -> float:  # (18)-(19), by bisection; infinite where no ratio is enough
        least = self.params.min_ratio
        for u in self.users:
            if self.distortion(u, 1.0) > self.params.max_distortion:
                return math.inf
            low, high = self.params.min_ratio, 1.0
            if self.distortion(u, low) <= self.params.max_distortion:
                continue
            for _ in range(60):
                middle = (low + high) / 2
                if self.distortion(u, middle) <= self.params.max_distortion:
                    high = middle
                else:
                    low = middle
            least = max(least, high)
        return least


def random_case(preset: str, seed: int, n: int = 4, **overrides: Any) -> tuple[Any, Any, Allocation]:
    """Instances and decisions of any kind, many of them outside the limits."""
    params = SFMA.preset(preset, **overrides)
    rng = np.random.default_rng(seed)
    shape = (n, params.num_groups)
    decision = Allocation(
        pair=rng.integers(0, params.num_pairs, shape),
        power_w=rng.uniform(0.2, 2.2, shape) * params.max_power_w / params.num_groups,
        bandwidth_hz=rng.uniform(0.2, 2.2, shape) * params.max_bandwidth_hz / params.num_groups,
        ratio=rng.uniform(params.min_ratio, 1.0, shape),
    )
    return params, SFMA.sample(params, rng, n), decision


@pytest.mark.parametrize("preset", PRESETS)
def test_every_equation_from_its_definition(preset: str) -> None:
    """(10)-(17), (20)-(20j) and (27) of a whole outcome, in loops over instances, groups and users."""
    params, instance, decision = random_case(preset, 3)
    outcome = SFMA.evaluate(params, instance, decision)
    terms = outcome.terms
    for n in range(4):
        rates, images, energy, late, bad, seen = [], [], 0.0, [], [], []
        for k in range(params.num_groups):
            pair = Pair(params, instance, n, int(decision.pair[n, k]))
            p, b, delta = (float(x[n, k]) for x in (decision.power_w, decision.bandwidth_hz, decision.ratio))
            assert terms["rho"][n, k] == pytest.approx(pair.rho(p, delta), rel=1e-12)
            assert terms["energy_j"][n, k] == pytest.approx(pair.energy(p, b, delta), rel=1e-12)
            assert terms["similarity"][n, k] == instance.similarity[n, pair.m]
            for side, u in enumerate(pair.users):
                rate = pair.rate(u, p, b, delta)
                assert terms["rate_mbit_s"][n, k, side] == pytest.approx(rate / 1e6, rel=1e-12)
                assert terms["delay_s"][n, k, side] == pytest.approx(pair.delay(u, p, b, delta), rel=1e-12)
                assert terms["distortion"][n, k, side] == pytest.approx(pair.distortion(u, delta), rel=1e-9)
                rates.append(rate)
                images.append(rate / (float(instance.source_bit[n, u]) * delta))
                bad.append(pair.distortion(u, delta))
            energy += pair.energy(p, b, delta)
            late.append(pair.latency(p, b, delta))
            seen += pair.users
        assert outcome.objective[n] == pytest.approx(sum(rates) / 1e6, rel=1e-12)  # (13), (20)
        assert terms["min_rate_mbit_s"][n] == pytest.approx(min(rates) / 1e6, rel=1e-12)
        assert terms["images_per_s"][n] == pytest.approx(sum(images), rel=1e-12)
        wrong = sum(seen.count(u) != 1 for u in range(params.num_users))
        excess = {
            "distortion": max(bad) / params.max_distortion - 1,
            "latency": max(late) / params.max_latency_s - 1,
            "energy": energy / (params.energy_per_group_j * params.num_users / 2) - 1,
            "power": sum(decision.power_w[n]) / params.max_power_w - 1,
            "bandwidth": sum(decision.bandwidth_hz[n]) / params.max_bandwidth_hz - 1,
            "ratio": 0.0,
            "pairing": wrong / params.num_users,
        }
        assert {key: float(value[n]) for key, value in outcome.violation.items()} == pytest.approx(
            {key: max(value, 0.0) for key, value in excess.items()}, rel=1e-9, abs=1e-9
        )
    assert terms["pair"] is decision.pair


@pytest.mark.parametrize("preset", PRESETS)
def test_every_pair_from_its_definition(preset: str) -> None:
    """(18)-(19), (21), (27) and (28) of all candidate pairs."""
    params = SFMA.preset(preset, num_users=4)
    instance = SFMA.sample(params, np.random.default_rng(1), 12)
    link = physics.links(params, instance)
    floor = physics.distortion_floor(params, link)
    usable = physics.feasible_pairs(params, instance)
    needed = physics.rate_floor(link, np.full(floor.shape, 0.3))
    for n in range(12):
        for m, users in enumerate(pair_list(4)):
            pair = Pair(params, instance, n, m)
            spare = [pair.spare(u) for u in users]
            np.testing.assert_allclose(link.spare_s[n, m], spare, rtol=1e-12)
            for side, u in enumerate(users):
                expected = 0.3 * float(instance.source_bit[n, u]) / spare[side]
                assert needed[n, m, side] == pytest.approx(expected, rel=1e-12)
            assert floor[n, m] == pytest.approx(pair.floor(), rel=1e-9)
            assert usable[n, m] == (pair.floor() <= 1 and min(spare) > 0)
    if preset == "pruned":
        assert 0 < usable.mean() < 1, "the preset must have pairs of both kinds"


def test_slow_coding_rules_a_pair_out() -> None:
    """(21) with (27): pairs whose coding alone takes longer than the limit."""
    params = SFMA.preset("default", decoder_cycles=8.5e7, num_users=6)  # 85 ms of decoding, +-30 %
    instance = SFMA.sample(params, np.random.default_rng(0), 4)
    usable = physics.feasible_pairs(params, instance)
    assert 0 < usable.mean() < 1
    link = physics.links(params, instance)
    for n in range(4):
        for m in range(params.num_pairs):
            pair = Pair(params, instance, n, m)
            assert usable[n, m] == (min(pair.spare(u) for u in pair.users) > 0)
    infinite = np.isinf(physics.rate_floor(link, np.full(usable.shape, 0.5))).any(axis=-1)
    np.testing.assert_array_equal(infinite, ~usable)


def test_distortion_meets_the_limit_at_its_floor_and_not_below() -> None:
    for preset in PRESETS:
        params = SFMA.preset(preset)
        instance = SFMA.sample_split(params, "validation", 20)
        link = physics.links(params, instance)
        floor = physics.distortion_floor(params, link)
        exists = np.isfinite(floor)
        least = np.where(exists, floor, 1.0)
        at_floor = physics.distortion(params, link, least).max(axis=-1)
        assert (at_floor[exists] <= params.max_distortion * (1 + 1e-12)).all()
        below = physics.distortion(params, link, np.maximum(least - 1e-6, params.min_ratio)).max(axis=-1)
        above_minimum = exists & (floor > params.min_ratio + 1e-6)
        assert above_minimum.any()
        assert (below[above_minimum] > params.max_distortion).all()
        worst = physics.distortion(params, link, np.ones_like(floor)).max(axis=-1)
        np.testing.assert_array_equal(exists, worst <= params.max_distortion)
        np.testing.assert_allclose(worst, physics.least_distortion(params, instance).max(-1), rtol=1e-12)


def test_distortion_floor_on_flat_stretches_and_at_the_ends(tmp_path: Path) -> None:
    """A table with a plateau at Dmax: the floor is where the plateau begins (the infimum of (18))."""
    grid = [0.0625, 0.25, 0.5, 0.75, 1.0]
    flat = own_curve(
        tmp_path / "flat.json", ratio_grid=grid, distortion=[[0.009, 0.005, 0.005, 0.005, 0.001]] * 2,
        distortion_level=[1.0, 1.0], distortion_tilt=0.0, distortion_spread=0.0,
    )  # fmt: skip
    for limit, expected in ((0.005, 0.25), (0.003, 0.875), (0.02, 0.0625), (0.0009, math.inf), (0.001, 1.0)):
        params = SFMA.preset("default", num_users=4, curve=flat, max_distortion=limit)
        link = physics.links(params, SFMA.sample(params, np.random.default_rng(0), 1))
        np.testing.assert_allclose(physics.distortion_floor(params, link), expected, rtol=1e-12)


# --- limits, units, monotonicity -------------------------------------------------------------------------------------
def one_link(**changes: float) -> Links:
    values = {
        "rho_min": 0.05, "rho_max": 0.7, "power_slope": 40.0, "ratio_slope": 7.0, "offset": -8.0, "similarity": 0.5,
        "snr": 1e9, "source_bit": 7e5, "spare_s": 0.075, "level": 1.0, "tilt": 0.0,
    } | changes  # fmt: skip
    both = ("snr", "source_bit", "spare_s", "level", "tilt")
    return Links(**{k: np.full((1, 1, 2) if k in both else (1, 1), v) for k, v in values.items()})


def one_rate(link: Links, p: float, b: float, delta: float) -> float:
    return float(physics.rates(link, *(np.full((1, 1), x) for x in (p, b, delta)))[0, 0, 0])


LINK = st.fixed_dictionaries(
    {
        "rho_min": st.floats(0.0, 0.3),
        "rho_max": st.floats(0.3, 1.0),
        "power_slope": st.floats(0.1, 200.0),
        "ratio_slope": st.floats(0.1, 50.0),
        "offset": st.floats(-15.0, 2.0),
        "snr": st.floats(1e5, 1e13),
    }
)


@given(LINK, st.floats(1e-4, 2.0), st.floats(1e3, 2e7), st.floats(0.0625, 1.0), st.floats(1.001, 5.0))
def test_rate_never_falls_with_power_bandwidth_or_ratio(
    link: dict[str, float], p: float, b: float, delta: float, up: float
) -> None:
    pair = one_link(**link)
    base = one_rate(pair, p, b, delta)
    assert base > 0
    for more in ((up * p, b, delta), (p, up * b, delta), (p, b, up * delta)):
        assert one_rate(pair, *more) >= base * (1 - 1e-12)
    rho = [float(physics.interference(pair, np.full((1, 1), x), np.full((1, 1), delta))[0, 0]) for x in (p, up * p)]
    assert link["rho_min"] - 1e-12 <= rho[1] <= rho[0] <= link["rho_max"] + 1e-12


@given(LINK, st.floats(1e-3, 2.0), st.floats(1e4, 1e7), st.floats(0.0625, 1.0))
def test_rate_per_hertz_falls_with_bandwidth(link: dict[str, float], p: float, b: float, delta: float) -> None:
    """So the 4 MHz end of the paper's Fig. 7 cannot be lower per hertz because of the bandwidth itself."""
    pair = one_link(**link)
    assert one_rate(pair, p, 1.5 * b, delta) / 1.5 <= one_rate(pair, p, b, delta) * (1 + 1e-12)


def test_limits_of_the_rate() -> None:
    ends = one_link(power_slope=400.0)
    # without noise the interference alone is left; without interference (and unlimited bandwidth) the power alone
    assert one_rate(one_link(snr=1e30), 1.0, 1e6, 1.0) == pytest.approx(1e6 * math.log2(1 + 1 / 0.05), rel=1e-6)
    assert one_rate(ends, 0.5, 1e15, 1.0) == pytest.approx(0.5 * 1e9 / math.log(2), rel=1e-3)
    assert 0 < one_rate(ends, 0.0, 1e6, 1.0) < 1e-3 * one_rate(ends, 1.0, 1e6, 1.0)
    assert 0 < one_rate(ends, 1.0, 0.0, 1.0) < 1e-3 * one_rate(ends, 1.0, 1e6, 1.0)


def test_delay_may_fall_with_the_ratio() -> None:
    """t = Q delta / R(delta) is not increasing: the ratios that meet the latency limit need not be an interval."""
    steep = one_link(rho_min=0.0, rho_max=1.0, power_slope=1e-6, ratio_slope=60.0, offset=-30.0, snr=1e13)
    ratios = np.linspace(0.3, 0.7, 401)
    delay = [7e5 * d / one_rate(steep, 1.0, 1e6, d) for d in ratios]
    assert (np.diff(delay) < 0).any()
    assert (np.diff(delay) > 0).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_allocations_stay_finite(dtype: type) -> None:
    params = SFMA.preset("default", num_users=8)
    instance = SFMA.sample(params, np.random.default_rng(0), 1).map(lambda x: x.astype(dtype))
    extreme = Allocation(
        pair=np.array([[0, 13, 22, 27]]),
        power_w=np.array([[0.0, 1e-20, 1e3, 1.0]], dtype),
        bandwidth_hz=np.array([[0.0, 1e12, 1e-9, 1e7]], dtype),
        ratio=np.array([[1e-6, 1.0, 0.5, 1.0]], dtype),
    )
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        outcome = SFMA.evaluate(params, instance, extreme)
    assert not outcome.feasible[0]
    for value in (outcome.objective, *outcome.violation.values(), *outcome.terms.values()):
        assert np.isfinite(value).all()
    floats = {key: value for key, value in outcome.terms.items() if key != "pair"}
    for value in (outcome.objective, *outcome.violation.values(), *floats.values()):
        assert value.dtype == dtype


# --- constraints one by one ------------------------------------------------------------------------------------------
def feasible_case(**overrides: Any) -> tuple[Any, Any, dict[str, np.ndarray]]:
    params = SFMA.preset("loose", num_users=4, **overrides)
    instance = SFMA.sample_split(params, "validation", 1)
    fields = {
        "pair": np.array([[0, 5]]),  # (1, 2) and (3, 4)
        "power_w": np.full((1, 2), 0.5),
        "bandwidth_hz": np.full((1, 2), 5e6),
        "ratio": np.full((1, 2), 0.5),
    }
    return params, instance, fields


CASES: list[tuple[str, dict[str, Any], dict[str, Any], float | None]] = [
    ("distortion", {"ratio": [[0.5, 0.07]]}, {}, None),
    ("latency", {"bandwidth_hz": [[9e6, 1e4]]}, {"energy_per_group_j": 10.0}, None),
    ("energy", {"ratio": [[0.4, 0.4]]}, {"energy_per_group_j": 1e-3}, None),
    ("power", {"power_w": [[0.6, 0.65]]}, {}, 0.25),
    ("bandwidth", {"bandwidth_hz": [[6e6, 7e6]]}, {}, 0.3),
    ("ratio", {"ratio": [[0.5, 0.05]]}, {"max_distortion": 1.0}, 0.0125),
    ("ratio", {"ratio": [[1.04, 0.5]]}, {}, 0.04),
    ("pairing", {"pair": [[0, 0]]}, {}, 1.0),
    ("pairing", {"pair": [[0, 1]]}, {}, 0.5),
]


@pytest.mark.parametrize(("broken", "change", "overrides", "amount"), CASES)
def test_each_constraint_is_reported_alone(
    broken: str, change: dict[str, Any], overrides: dict[str, Any], amount: float | None
) -> None:
    params, instance, fields = feasible_case(**{k: v for k, v in overrides.items() if k != "energy_per_group_j"})
    assert bool(SFMA.evaluate(params, instance, Allocation(**fields)).feasible[0])
    params = dataclasses.replace(params, **overrides)
    outcome = SFMA.evaluate(params, instance, Allocation(**(fields | {k: np.array(v) for k, v in change.items()})))
    excess = {key: float(value[0]) for key, value in outcome.violation.items()}
    if amount is None:
        assert excess.pop(broken) > 1e-3
    else:
        assert excess.pop(broken) == pytest.approx(amount, rel=1e-9)
    assert excess == dict.fromkeys(excess, 0.0)
    assert not outcome.feasible[0]


def test_negative_power_and_bandwidth_are_refused() -> None:
    """(20j) is no violation to be traded against the others: such an allocation is an error."""
    params, instance, fields = feasible_case()
    for name in ("power_w", "bandwidth_hz"):
        with pytest.raises(ValueError, match=f"allocation.{name} has a negative value"):
            SFMA.evaluate(params, instance, Allocation(**(fields | {name: -fields[name]})))


# --- libraries and precision -----------------------------------------------------------------------------------------
def functions(params: Any, instance: Any, decision: Allocation) -> dict[str, Any]:
    """What every function of the physics gives."""
    link = physics.links(params, instance, decision.pair)
    p, b, delta = decision.power_w, decision.bandwidth_hz, decision.ratio
    rate = physics.rates(link, p, b, delta)
    delay = physics.delays(link, rate, delta)
    outcome = SFMA.evaluate_unchecked(params, instance, decision)
    found = {
        "interference": physics.interference(link, p, delta),
        "sinr": physics.sinr(link, p, b, delta),
        "rates": rate,
        "delays": delay,
        "energy": physics.energy(params, p, delay, delta),
        "rate_floor": physics.rate_floor(link, delta),
        "distortion": physics.distortion(params, link, delta),
        "distortion_floor": physics.distortion_floor(params, link),
        "least_distortion": physics.least_distortion(params, instance),
        "objective": outcome.objective,
    }
    found |= {f"links.{key}": value for key, value in vars(link).items()}
    found |= {f"violation.{key}": value for key, value in outcome.violation.items()}
    return found | {f"terms.{key}": value for key, value in outcome.terms.items() if key != "pair"}


@pytest.mark.parametrize("preset", ["default", "pruned"])
def test_numpy_and_torch_agree(preset: str) -> None:
    torch = pytest.importorskip("torch")
    params, instance, decision = random_case(preset, 5)
    expected = functions(params, instance, decision)
    got = functions(params, instance.to_torch(), decision.to_torch())
    for key, value in expected.items():
        assert torch.is_tensor(got[key])
        assert got[key].dtype == torch.float64, key
        np.testing.assert_allclose(got[key].numpy(), value, rtol=1e-12, atol=1e-14, err_msg=key)
    mask = physics.feasible_pairs(params, instance.to_torch())
    np.testing.assert_array_equal(mask.numpy(), physics.feasible_pairs(params, instance))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_float32_stays_float32(library: str) -> None:
    params, instance, decision = random_case("default", 5)
    wide = functions(params, instance, decision)
    if library == "torch":
        torch = pytest.importorskip("torch")
        instance, decision = (x.to_torch(dtype=torch.float32) for x in (instance, decision))
        dtype: Any = torch.float32
    else:
        instance, decision = (
            x.map(lambda y: y.astype(np.float32) if y.dtype.kind == "f" else y) for x in (instance, decision)
        )
        dtype = np.float32
    for key, value in functions(params, instance, decision).items():
        assert value.dtype == dtype, key
        np.testing.assert_allclose(np.asarray(value), wide[key], rtol=2e-4, atol=2e-5, err_msg=key)


def test_rows_of_a_batch_do_not_mix() -> None:
    params, instance, decision = random_case("default", 9)
    whole = functions(params, instance, decision)
    for i in range(4):
        for key, value in functions(params, instance[i], decision[i]).items():
            np.testing.assert_allclose(value[0], whole[key][i], rtol=1e-13, atol=1e-15, err_msg=key)
