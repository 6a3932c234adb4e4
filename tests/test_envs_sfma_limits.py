"""What the limits leave a group, against bisection and brute force written here, and gradients against differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.envs.sfma import limits, physics
from semcom_gym.envs.sfma.physics import Links

SFMA = envs.problem("sfma")
PRESETS = ["default", "paper", "loose", "tight", "pruned", "figures", "measured"]


def cell(preset: str, seed: int = 0, n: int = 60, **overrides: Any) -> tuple[Any, Links, np.random.Generator]:
    """Parameters and the links of random groups."""
    params = SFMA.preset(preset, **overrides)
    rng = np.random.default_rng(seed)
    instance = SFMA.sample(params, rng, n)
    pair = rng.integers(0, params.num_pairs, (n, params.num_groups))
    return params, physics.links(params, instance, pair), rng


def shares(rng: np.random.Generator, total: float, n: int, groups: int, spread: float = 1.0) -> np.ndarray:
    return total * rng.dirichlet(np.full(groups, spread), n)


def rate(link: Links, p: np.ndarray, b: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """(10)-(12) once more, (n, P, 2)."""
    fall = 1.0 / (1.0 + np.exp(np.minimum(link.power_slope * p + link.ratio_slope * delta + link.offset, 700.0)))
    rho = link.rho_min + (link.rho_max - link.rho_min) * fall
    p, b = np.maximum(p, 1e-12)[..., None], b[..., None]
    return b * np.log2(1.0 + 1.0 / (rho[..., None] + b / (p * link.snr)))


def time_used(link: Links, p: np.ndarray, b: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Transmission delay (14) over what (27) leaves, of the slower user: at most 1 where (28) holds."""
    return (link.source_bit * delta[..., None] / rate(link, p, b, delta) / link.spare_s).max(axis=-1)


def energy(params: Any, link: Links, p: np.ndarray, b: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """(16) summed over the groups, (n,)."""
    delay = (link.source_bit * delta[..., None] / rate(link, p, b, delta)).max(axis=-1)
    return (p * delay - params.energy_coefficient_j * np.log(delta)).sum(axis=-1)


def lowest(params: Any, link: Links) -> np.ndarray:
    return np.minimum(physics.distortion_floor(params, link), 1.0)


# --- bandwidth floor -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", PRESETS)
def test_bandwidth_floor_solves_28_with_equality(preset: str) -> None:
    params, link, rng = cell(preset, n=200)
    p = shares(rng, params.max_power_w, 200, params.num_groups)
    delta = rng.uniform(params.min_ratio, 1.0, p.shape)
    floor = limits.bandwidth_floor(params, link, p, delta)
    reachable = time_used(link, p, np.full_like(p, params.max_bandwidth_hz), delta) <= 1.0
    assert reachable.any()
    np.testing.assert_array_equal(floor <= params.max_bandwidth_hz, reachable)
    used = time_used(link, p, floor, delta)[reachable]
    assert used.max() <= 1.0 + 1e-12
    assert used.min() >= 1.0 - 1e-9
    assert (time_used(link, p, floor * (1 - 1e-8), delta)[reachable] > 1.0).all(), "less would be too little"
    assert floor.max() <= 100 * params.max_bandwidth_hz


def test_bandwidth_floor_without_time_or_power() -> None:
    params, link, _ = cell("default", n=2)
    link = dataclasses.replace(link, spare_s=np.where(np.arange(2) == 1, -0.01, link.spare_s))
    p = np.full((2, params.num_groups), 0.2)
    for power in (p, 0.0 * p):
        np.testing.assert_allclose(
            limits.bandwidth_floor(params, link, power, np.full_like(p, 0.5)), 100 * params.max_bandwidth_hz
        )


# --- ratio ceiling ---------------------------------------------------------------------------------------------------
GRID = np.linspace(0.0, 1.0, 2001)


def largest_on_grid(link: Links, p: np.ndarray, b: np.ndarray, floor: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The largest of 2001 ratios in [floor, start] in time; NaN where none is."""
    best = np.full_like(floor, np.nan)
    for share in GRID:
        delta = floor + share * (start - floor)
        best = np.where(time_used(link, p, b, delta) <= 1.0, delta, best)
    return best


@pytest.mark.parametrize("preset", PRESETS)
def test_ratio_ceiling_against_a_grid(preset: str) -> None:
    params, link, rng = cell(preset)
    p, b = (shares(rng, x, 60, params.num_groups) for x in (params.max_power_w, params.max_bandwidth_hz))
    low = lowest(params, link)
    for start in (np.ones_like(low), low + rng.uniform(0, 1, low.shape) * (1 - low)):
        best = largest_on_grid(link, p, b, low, start)
        got = limits.ratio_ceiling(link, p, b, low, start)
        assert (got >= low).all()
        assert (got <= start).all()
        exists = ~np.isnan(best)
        assert 0.2 < exists.mean() < 1.0
        np.testing.assert_array_equal(got[~exists], low[~exists])
        assert (time_used(link, p, b, got)[exists] <= 1.0 + 1e-9).all(), "in time wherever some ratio is"
        assert (got <= best + (start - low) / 2000 + 1e-9)[exists].all()
        # where the time used is flat, the search may stop early, or below a higher stretch
        assert (got < best - 1e-9)[exists].mean() <= 0.02


def two_stretches() -> tuple[Links, np.ndarray, np.ndarray]:
    """A pair whose ratios in time are (0, 0.3) and (0.51, 0.76): interference falls steeply at 0.5."""
    values = {
        "rho_min": 0.0, "rho_max": 1.0, "power_slope": 1e-9, "ratio_slope": 60.0, "offset": -30.0, "similarity": 0.5,
        "snr": 1e6 / 0.3, "source_bit": 1e6 / 0.36, "spare_s": 1.0, "level": 1.0, "tilt": 0.0,
    }  # fmt: skip
    both = ("snr", "source_bit", "spare_s", "level", "tilt")
    link = Links(**{k: np.full((1, 1, 2) if k in both else (1, 1), v) for k, v in values.items()})
    return link, np.ones((1, 1)), np.full((1, 1), 1e6)


@pytest.mark.parametrize("start", [1.0, 0.8, 0.7, 0.5, 0.45, 0.31, 0.25])
def test_ratio_ceiling_where_the_ratios_in_time_are_no_interval(start: float) -> None:
    link, p, b = two_stretches()
    in_time = time_used(link, p, b, np.linspace(0.01, 1.0, 1000)[:, None, None] * np.ones((1, 1)))[..., 0] <= 1.0
    assert (np.diff(in_time[:, 0].astype(int)) != 0).sum() == 3, "two stretches"
    floor, begin = np.full((1, 1), 0.0625), np.full((1, 1), start)
    got = limits.ratio_ceiling(link, p, b, floor, begin)
    best = largest_on_grid(link, p, b, floor, begin)
    assert float(time_used(link, p, b, got)[0, 0]) <= 1.0 + 1e-9
    assert float(got[0, 0]) == pytest.approx(float(best[0, 0]), abs=1e-3)


def test_ratio_ceiling_of_a_pair_that_is_always_late() -> None:
    link, p, b = two_stretches()
    floor = np.full((1, 1), 0.8)
    np.testing.assert_array_equal(limits.ratio_ceiling(link, p, b, floor, np.ones((1, 1))), floor)


# --- power -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["default", "paper", "tight", "pruned"])
def test_share_power_moves_what_it_must(preset: str) -> None:
    params, link, rng = cell(preset, n=200)
    low = lowest(params, link)
    wish = shares(rng, params.max_power_w, 200, params.num_groups, spread=0.5)
    equal = np.full_like(wish, params.max_power_w / params.num_groups)
    power, need = limits.share_power(params, link, wish, low)
    before, at_equal, after = (
        limits.bandwidth_floor(params, link, x, low).sum(axis=-1) / params.max_bandwidth_hz
        for x in (wish, equal, power)
    )
    np.testing.assert_allclose(need.sum(axis=-1) / params.max_bandwidth_hz, after, rtol=1e-12)
    np.testing.assert_allclose(power.sum(axis=-1), params.max_power_w, rtol=1e-12)
    fits, curable = before <= 1.0, at_equal <= 1.0
    assert fits.any()
    assert (~fits & curable).any()
    np.testing.assert_array_equal(power[fits], wish[fits])
    assert (after[curable] <= 1.0).all(), "equal shares would meet it"
    np.testing.assert_allclose(power[after > 1.0], equal[after > 1.0], rtol=1e-12)
    for row in np.flatnonzero(~fits & curable):
        group = np.abs(equal - wish)[row].argmax()
        share = ((power - wish) / (equal - wish))[row, group]
        np.testing.assert_allclose(power[row], wish[row] + share * (equal - wish)[row], rtol=1e-9)
        path = np.linspace(0.0, 1.0, 201)[:, None]
        every = link[np.full(201, row)]
        floors = limits.bandwidth_floor(params, every, wish[row] + path * (equal - wish)[row], low[[row] * 201])
        needed = path[np.flatnonzero(floors.sum(axis=-1) > params.max_bandwidth_hz)[-1], 0]
        assert share <= needed + 0.26, "no further towards equal shares than the next quarter"


# --- energy ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["default", "paper", "tight", "pruned"])
def test_spare_energy_moves_what_it_must(preset: str) -> None:
    params, link, _ = cell(preset, n=200)
    low = lowest(params, link)
    p = np.full(low.shape, params.max_power_w / params.num_groups)
    b = np.full(low.shape, params.max_bandwidth_hz / params.num_groups)
    high = limits.ratio_ceiling(link, p, b, low, np.ones_like(low))
    for wish in (high, low):
        power, got = limits.spare_energy(params, link, p, b, wish, low, high)
        before = energy(params, link, p, b, wish) / params.max_energy_j
        after = energy(params, link, power, b, got) / params.max_energy_j
        fits = before <= 1.0
        np.testing.assert_array_equal(got[fits], wish[fits])
        np.testing.assert_array_equal(power[fits], p[fits])
        assert (power <= p).all()
        delay = link.source_bit * got[..., None] / rate(link, power, b, got)
        intime = link.source_bit * wish[..., None] / rate(link, p, b, wish) <= link.spare_s * (1 + 1e-9)
        assert (delay <= link.spare_s * (1 + 1e-9))[intime & (got > low)[..., None]].all(), "nobody gets late"
        assert (got >= low * (1 - 1e-12)).all()
        assert (got <= high * (1 + 1e-12)).all()
        candidates = np.stack([wish, low, high, np.sqrt(low * high)])
        each = np.stack([p * (link.source_bit * x[..., None] / rate(link, p, b, x)).max(-1)
                         - params.energy_coefficient_j * np.log(x) for x in candidates])  # fmt: skip
        curable = each.min(axis=0).sum(axis=-1) <= params.max_energy_j * (1 - 1e-9)
        assert (~fits & curable).any()
        assert (after[curable] <= 1.0).all(), "the ratios of least energy would meet it"
        assert (power[curable] == p[curable]).all(axis=-1).mean() > 0.9, "then power is left alone"
        assert (after <= 1.0)[~curable].any(), "less power helps where ratios do not"
        assert (after[~fits & curable] > 0.97).all(), "no further than the budget asks"
        assert (after <= before + 1e-12).all()


@pytest.mark.parametrize("copies", [1, 40, 400])
def test_least_move(copies: int) -> None:
    """The least t with excess <= 0 of functions whose root is known, whether rungs are tried at once or in turn."""
    roots = np.repeat([0.013, 0.3, 0.77, 0.999, 1.3, -0.1], copies)

    def excess(rows: np.ndarray | None) -> Callable[[np.ndarray], np.ndarray]:
        mine = roots if rows is None else roots[rows]
        return lambda t: (mine - t) * np.exp(-3 * t)

    start = excess(None)(np.zeros_like(roots))
    found = limits.least_move(start, excess).reshape(6, copies)
    assert (found[:4].ravel() >= roots[: 4 * copies]).all()
    np.testing.assert_allclose(found[:4].ravel(), roots[: 4 * copies], atol=0.02)
    assert (found[4] == 1.0).all(), "as far as it goes where nothing helps"
    assert (found[5] == 0.0).all(), "and not where nothing has to"
    hopeless = np.repeat([False, True, False, True, False, False], copies)
    told = limits.least_move(start, excess, hopeless).reshape(6, copies)
    np.testing.assert_array_equal(told[[0, 2, 4, 5]], found[[0, 2, 4, 5]])
    assert (told[[1, 3]] == 1.0).all()


# --- gradients -------------------------------------------------------------------------------------------------------
def compare(
    function: Callable[..., Any], inputs: list[np.ndarray], smooth: np.ndarray, rtol: float = 1e-5, step: float = 1e-6
) -> None:
    """Autograd of the sum over ``smooth`` entries against central differences, one input at a time.

    Every output entry depends on the inputs of its own entry only, so one shift of all entries is enough.
    """
    torch = pytest.importorskip("torch")
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    (function(*leaves) * torch.tensor(smooth)).sum().backward()
    for k, leaf in enumerate(leaves):
        shifted = [[x * (1 + s * step) if i == k else x for i, x in enumerate(inputs)] for s in (-1, 1)]
        slope = (function(*shifted[1]) - function(*shifted[0])) / (2 * step * inputs[k])
        gradient = leaf.grad.numpy()
        assert (np.abs(gradient[smooth]) > 0).any(), "the check must not compare zeros"
        unit = np.abs(slope[smooth]).max()
        np.testing.assert_allclose(gradient[smooth] / unit, slope[smooth] / unit, rtol=rtol, atol=1e-6)
        assert np.isfinite(gradient).all()


def of_both(function: Callable[..., Any], link: Links) -> Callable[..., Any]:
    """``function(link, ...)`` for NumPy arrays and torch tensors."""
    return lambda *x: function(link if isinstance(x[0], np.ndarray) else link.to_torch(), *x)


def test_gradient_of_the_bandwidth_floor() -> None:
    params, link, rng = cell("default")
    p = shares(rng, params.max_power_w, 60, params.num_groups, spread=5.0)
    delta = rng.uniform(0.2, 0.9, p.shape)
    both = limits.bandwidth_floor(params, link, p, delta)
    smooth = both < params.max_bandwidth_hz
    compare(of_both(lambda link, p, delta: limits.bandwidth_floor(params, link, p, delta), link), [p, delta], smooth)


def test_gradient_of_the_ratio_ceiling() -> None:
    params, link, rng = cell("default")
    p, b = (shares(rng, x, 60, params.num_groups, 5.0) for x in (params.max_power_w, params.max_bandwidth_hz))
    low = lowest(params, link)

    def ceiling(link: Links, p: Any, b: Any) -> Any:
        least = low if isinstance(p, np.ndarray) else of_torch(low)
        return limits.ratio_ceiling(link, p, b, least, least * 0.0 + 1.0)

    top = ceiling(link, p, b)
    # away from the ends, and where the time used rises so fast that a small change moves the ceiling a little only
    rise = (time_used(link, p, b, top * (1 + 1e-4)) - 1.0) / 1e-4
    smooth = (top > low + 1e-3) & (top < 1.0 - 1e-3) & (rise > 0.2)
    solved = np.abs(time_used(link, p, b, top) - 1.0) < 1e-9
    assert solved[smooth].mean() > 0.9, "the search stops after a fixed number of steps, nearly always at the root"
    assert smooth.mean() > 0.1
    compare(of_both(ceiling, link), [p, b], smooth & solved, rtol=1e-3)


def of_torch(x: np.ndarray) -> Any:
    import torch

    return torch.tensor(x)


def test_gradient_of_the_power_where_nothing_has_to_move() -> None:
    torch = pytest.importorskip("torch")
    params, link, rng = cell("loose", n=10)
    wish = torch.tensor(shares(rng, params.max_power_w, 10, params.num_groups, 5.0), requires_grad=True)
    power, _ = limits.share_power(params, link.to_torch(), wish, of_torch(lowest(params, link)))
    weight = torch.arange(params.num_groups, dtype=torch.float64)
    (power * weight).sum().backward()
    np.testing.assert_array_equal(wish.grad.numpy(), np.broadcast_to(weight.numpy(), wish.shape))


def test_energy_of_moved_ratios_has_no_gradient() -> None:
    """Where the budget binds, the spent energy stays at the budget: its derivative in the wish is zero."""
    torch = pytest.importorskip("torch")
    params, link, _ = cell("tight", n=100)
    low = lowest(params, link)
    p = np.full(low.shape, params.max_power_w / params.num_groups)
    b = np.full(low.shape, params.max_bandwidth_hz / params.num_groups)
    high = limits.ratio_ceiling(link, p, b, low, np.ones_like(low))
    wish = low + 0.7 * (high - low)
    power, got = limits.spare_energy(params, link, p, b, wish, low, high)
    leaf = of_torch(wish).requires_grad_(True)
    resources, ends = map(of_torch, (p, b)), map(of_torch, (low, high))
    left, moved = limits.spare_energy(params, link.to_torch(), *resources, leaf, *ends)
    np.testing.assert_allclose(moved.detach().numpy(), got, rtol=1e-9)
    np.testing.assert_allclose(left.detach().numpy(), power, rtol=1e-9)
    delay = physics.delays(link.to_torch(), physics.rates(link.to_torch(), left, of_torch(b), moved), moved)
    spent = physics.energy(params, left, delay, moved).sum(dim=-1)
    spent.sum().backward()
    used = energy(params, link, power, b, got) / params.max_energy_j
    bound = (energy(params, link, p, b, wish) > params.max_energy_j) & (used < 1.0) & (used > 0.97)
    free = energy(params, link, p, b, wish) <= params.max_energy_j
    assert bound.sum() > 5
    unit = np.abs(leaf.grad.numpy()[free]).max()
    assert unit > 0
    assert np.abs(leaf.grad.numpy()[bound]).max() < 0.02 * unit
    assert torch.isfinite(leaf.grad).all()
