"""Solvers on torch tensors: the same decisions as on NumPy arrays, made where the tensors are."""

import dataclasses
import importlib

import numpy as np
import pytest

from semcom_gym import baselines, envs

torch = pytest.importorskip("torch")

MOST_USERS = 14  # beyond them SFMA's matching is a blossom algorithm on the CPU
TOLERANCE = {"sfma": 2e-5}  # its climb magnifies rounding (docs/sfma.md); others agree to 1e-9
CASES = [
    (name, method, preset)
    for name in envs.NAMES
    for method in baselines.on_torch(name)
    for preset, params in envs.problem(name).PRESETS.items()
    if params.num_users <= MOST_USERS
]


def drawn(name, preset, n):
    problem = envs.problem(name)
    params = problem.preset(preset)
    return problem, params, problem.sample_split(params, "validation", n)


@pytest.mark.parametrize(("name", "method", "preset"), CASES)
def test_tensors_are_solved_as_arrays_are(name, method, preset):
    problem, params, instance = drawn(name, preset, 16)
    ours = baselines.solve(name, params, instance, method)
    found = baselines.solve(name, params, instance.to_torch(), method)
    assert all(isinstance(value, torch.Tensor) for value in vars(found.allocation).values())
    np.testing.assert_array_equal(found.feasible.numpy(), ours.feasible)
    np.testing.assert_allclose(found.objective.numpy(), ours.objective, rtol=TOLERANCE.get(name, 1e-9), atol=1e-12)
    again = problem.evaluate(params, instance, found.allocation.map(lambda x: x.numpy()))
    np.testing.assert_allclose(again.objective, ours.objective, rtol=TOLERANCE.get(name, 1e-9), atol=1e-12)
    assert found.status == ours.status


METHODS = sorted({case[:2] for case in CASES})


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_solving_on_a_device_brings_no_array_down(name, method, monkeypatch):
    """Between the check at the door and the evaluation of what was decided; nor is any made on the default device,
    which holds nothing here.
    """
    _, params, instance = drawn(name, "default", 32)
    run = importlib.import_module(f"semcom_gym.baselines.{name}").METHODS[method].run
    run(params, instance.to_torch())  # constants go up once
    placed = instance.to_torch()

    class Reached(Exception):
        pass

    def stop(*args, **fields):
        raise Reached

    def forbidden(*args, **kwargs):
        raise AssertionError("an array left the device or came to it")

    monkeypatch.setitem(run.__globals__, "package", stop)
    for word in ("numpy", "cpu", "__array__"):
        monkeypatch.setattr(torch.Tensor, word, forbidden)
    monkeypatch.setattr(torch, "from_numpy", forbidden)
    with torch.device("meta"), pytest.raises(Reached):
        run(params, placed)


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_no_gradient_goes_through_a_solver(name, method):
    _, params, instance = drawn(name, "default", 2)
    placed = instance.to_torch().map(lambda x: x.requires_grad_() if x.is_floating_point() else x)
    found = baselines.solve(name, params, placed, method)
    assert not found.objective.requires_grad
    assert not any(value.requires_grad for value in vars(found.allocation).values())


def test_tensors_are_refused_in_one_line_by_what_does_not_take_them():
    _, params, instance = drawn("crra", "default", 2)
    with pytest.raises(ValueError, match="'fra' of crra takes NumPy instances"):
        baselines.solve("crra", params, instance.to_torch(), "fra")
    with pytest.raises(ValueError, match="bound of crra takes NumPy instances"):
        baselines.bound("crra", params, instance.to_torch())
    assert "fra" not in baselines.on_torch("crra")


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_tensors_are_checked(name, method):
    _, params, instance = drawn(name, "default", 2)
    with pytest.raises(ValueError, match="float64"):
        baselines.solve(name, params, instance.to_torch(dtype=torch.float32), method)
    field = next(f.name for f in dataclasses.fields(instance) if getattr(instance, f.name).dtype.kind == "f")
    placed = instance.to_torch()
    broken = dataclasses.replace(placed, **{field: torch.full_like(getattr(placed, field), torch.nan)})
    with pytest.raises(ValueError, match=field):
        baselines.solve(name, params, broken, method)
