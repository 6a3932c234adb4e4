"""Shipped bounds, and what they are bounds of."""

import dataclasses
import json

import numpy as np
import pytest
from cheap_bounds import loose_bound

from semcom_gym import baselines, envs
from semcom_gym.baselines import crra
from semcom_gym.benchmarks import certificates, protocol
from semcom_gym.benchmarks.errors import UserError
from semcom_gym.envs import curve


def test_shipped_bounds_are_used_and_extended(loose, cells, monkeypatch):
    certificates.ship(protocol.task("SemCom/CRRA-v0", n=5), cells)
    proven = []
    monkeypatch.setattr(crra, "prove", lambda p, i: proven.append(len(i)) or loose_bound(p, i))
    short = certificates.certificate(protocol.task("SemCom/CRRA-v0", n=3), cells)
    assert proven == []
    longer = certificates.certificate(protocol.task("SemCom/CRRA-v0", n=8), cells)
    assert proven == [3]
    np.testing.assert_array_equal(longer.bound[:3], short.bound)
    assert len(longer.bound) == len(longer.gap) == 8


@pytest.mark.parametrize("change", [{"overrides": {"num_users": 4}}, {"split": "validation"}])
def test_other_parameters_or_splits_are_proven_afresh(loose, cells, change):
    certificates.ship(protocol.task("SemCom/CRRA-v0", n=5), cells)
    task = protocol.task("SemCom/CRRA-v0", n=5, split=change.get("split", "test"), **change.get("overrides", {}))
    assert certificates.shipped(task) is None
    assert len(certificates.certificate(task, cells).bound) == 5


def test_bounds_of_other_instances_are_refused(loose, cells, task):
    file = certificates.ship(task, cells)
    data = json.loads(file.read_text())
    file.write_text(json.dumps(data | {"data": "0" * 64}))
    with pytest.raises(UserError, match=r"is for other parameters or instances.*--prove --env SemCom/CRRA-v0"):
        certificates.shipped(task)


@pytest.mark.parametrize("change", [{"bound": [1.0]}, {"extra": 1}, {"best": "abc"}, {"n": None}])
def test_corrupt_bounds_are_named(loose, cells, task, change):
    file = certificates.ship(task, cells)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=r"bounds file .*crra_default.json.* is corrupt"):
        certificates.shipped(task)


def test_shipped_files_belong_to_this_code():
    """Every bounds file in the package is for the instances that this version draws."""
    for file in certificates.FOLDER.glob("*.json"):
        data = json.loads(file.read_text())
        env_id = data["command"].split("--env ")[1].split()[0]
        task = protocol.task(env_id, data["preset"], n=10)
        proven = certificates.shipped(task)
        assert proven is not None
        best = baselines.solve(data["problem"], task.params, task.instance, "fast")
        finite = np.isfinite(proven.bound[:10])
        assert (task.sign * (proven.bound[:10] - best.objective)[finite] >= -1e-9).all()
        assert (task.sign * (proven.bound - proven.best)[np.isfinite(proven.bound)] >= -1e-9).all()


def test_fingerprint_ignores_the_last_bit_and_nothing_else(task):
    same = dataclasses.replace(task.instance, gain=task.instance.gain * (1 + 1e-15))
    other = dataclasses.replace(task.instance, gain=task.instance.gain * (1 + 1e-5))
    prints = [protocol.fingerprint(task.params, instance) for instance in (task.instance, same, other)]
    assert prints[0] == prints[1] != prints[2]
    assert protocol.fingerprint(dataclasses.replace(task.params, deadline_s=2e-3), task.instance) != prints[0]


def test_fingerprint_sees_the_numbers_of_a_profile(tmp_path):
    """A user's curve file may change under its name, and where the instances do not show it."""
    problem = envs.problem("sfma")
    file = tmp_path / "own.json"
    prints = []
    for factor in (1.0, 1.01):
        shipped = curve.load("sfma", "synthetic_steep", ())
        grid = [[factor * x for x in row] for row in shipped.parameters["distortion"]]
        dataclasses.replace(shipped, parameters={**shipped.parameters, "distortion": grid}).save(file)
        params = problem.preset("default", num_users=4, curve=str(file))
        prints.append(protocol.fingerprint(params, problem.sample_split(params, "test", 1)))
        problem.evaluate(params, problem.sample_split(params, "test", 1), equal(params))  # fills the profile's caches
        assert protocol.fingerprint(params, problem.sample_split(params, "test", 1)) == prints[-1]
    assert prints[0] != prints[1]


def equal(params):
    """Some allocation of one instance."""
    return baselines.solve("sfma", params, envs.problem("sfma").sample_split(params, "test", 1), "equal").allocation
