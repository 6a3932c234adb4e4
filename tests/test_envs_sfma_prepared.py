"""Decisions on prepared instances: what they are worked out from, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semcom_gym.envs.arrays import to_numpy
from semcom_gym.envs.problems import problem
from semcom_gym.envs.sfma import limits, physics
from semcom_gym.envs.sfma.prepared import Prepared

SFMA = problem("sfma")


def case(preset: str, backend: str, dtype: str, n: int = 150) -> tuple[Any, Any, np.ndarray, Any]:
    """Parameters, ten instances, which of them n actions are for, and the actions."""
    rng = np.random.default_rng(4)
    params = SFMA.preset(preset)
    instance = SFMA.sample_split(params, "train", 10).map(lambda x: x.astype(dtype))
    rows = rng.integers(10, size=n)
    action = rng.uniform(-1, 1, (n, SFMA.action_layout(params).size)).astype(dtype)
    if backend == "numpy":
        return params, instance, rows, action
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return params, instance.to_torch(), torch.as_tensor(rows), torch.as_tensor(action)


@pytest.mark.parametrize("preset", ["default", "tight", "pruned", "measured"])
@pytest.mark.parametrize(("backend", "dtype"), [("numpy", "float64"), ("numpy", "float32"), ("torch", "float32")])
def test_actions_achieve_what_they_do_on_the_instances(preset: str, backend: str, dtype: str) -> None:
    params, instance, rows, action = case(preset, backend, dtype)
    expected = SFMA.outcome_of(params, instance[rows], action)
    found = SFMA.outcome_at(params, SFMA.prepare(params, instance), rows, action)
    for group in ("violation", "terms"):
        assert getattr(found, group).keys() == getattr(expected, group).keys()
        for name, value in getattr(expected, group).items():
            np.testing.assert_array_equal(to_numpy(getattr(found, group)[name]), to_numpy(value), err_msg=name)
    np.testing.assert_array_equal(to_numpy(found.objective), to_numpy(expected.objective))


def test_pairs_outside_the_edge_set_are_left_out() -> None:
    params, instance, _, action = case("pruned", "numpy", "float64", n=10)
    prepared, rows = Prepared.of(params, instance), np.arange(10)
    edges = physics.feasible_pairs(params, instance)
    assert 0 < (~edges).sum() < edges.size
    action[:, : params.num_pairs] = np.where(edges, -1.0, 1.0)  # an action that wants no other
    pair = SFMA.outcome_at(params, prepared, rows, action).terms["pair"]
    free = np.take_along_axis(edges, pair, axis=1).all(axis=1)
    assert free.any(), "some cell has a perfect matching within E_f"
    np.testing.assert_array_equal(pair, SFMA.decode(params, instance, action).pair)


def test_links_and_ratios_of_chosen_pairs() -> None:
    params, instance, rows, _ = case("default", "numpy", "float64", n=40)
    pair = np.random.default_rng(1).integers(params.num_pairs, size=(40, 3))
    link, low = Prepared.of(params, instance).chosen(rows, pair)
    expected = physics.links(params, instance[rows], pair)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(link, name), value, err_msg=name)
        assert getattr(link, name).T.flags.c_contiguous, "elementwise operations run along the instances"
    np.testing.assert_array_equal(low, limits.ratio_floor(params, expected))


def test_gradients_are_the_same() -> None:
    torch = pytest.importorskip("torch")
    params, instance, rows, action = case("default", "torch", "float64")
    slopes = []
    prepared = SFMA.prepare(params, instance)
    for known in (False, True):
        a = action.clone().requires_grad_()
        outcome = SFMA.outcome_at(params, prepared, rows, a) if known else SFMA.outcome_of(params, instance[rows], a)
        slopes.append(torch.autograd.grad(SFMA.reward(outcome, 100.0).sum(), a)[0])
    assert bool((slopes[0] != 0).any())
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-9, atol=1e-9)
