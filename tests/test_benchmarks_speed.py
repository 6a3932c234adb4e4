"""The speed table: rows, ratios and what it ran on. No timing decides a test."""

import importlib
import json
import signal
import sys
import time
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines import sfma
from semcom_gym.baselines.crra import fast
from semcom_gym.baselines.solution import Method
from semcom_gym.benchmarks import hotspots, limits, protocol, speed, speed_rows

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_measure_counts_units_and_compares_to_the_named_row():
    counts = {"a": 0, "b": 0}

    def work(name):
        def once():
            counts[name] += 1
            return 10

        return once

    items = [speed.Item("g", "a", "steps", work("a")), speed.Item("g", "b", "steps", work("b"), against="a")]
    first, second = speed.measure(items, repeats=3, seconds=0.001)
    assert counts["a"] >= 4
    assert first["ratio"] is None
    assert second["ratio"] == pytest.approx(second["per_second"] / first["per_second"])
    assert first["slowest"] <= first["per_second"] <= first["fastest"]


def test_every_environment_is_measured_beside_cartpole():
    items = speed_rows.scalar_items() + speed_rows.vector_items(batches=(4,))
    names = [item.name for item in items]
    assert names[0] == "gym.make CartPole-v1"
    for env_id in envs.IDS:
        assert f"gym.make {env_id}" in names
        assert f"vector {env_id} numpy x4" in names
        for kind in ("torch", "numpy pool", "torch pool"):
            assert (f"vector {env_id} {kind} x4" in names) == (env_id != "SemCom/SFMAPairing-v0")
    assert all(item.against in names for item in items if item.against)
    scalar = len(envs.IDS) + 1
    assert [item.work() for item in items[:scalar]] == [speed_rows.DRAWN] * scalar
    assert {item.work() for item in items[scalar:]} == {4 * speed_rows.VECTOR_DRAWN}


def test_what_takes_long_is_timed_less_often(monkeypatch):
    monkeypatch.setattr(speed, "LONGEST", 0.05)
    calls = []

    def long():
        calls.append("long")
        time.sleep(0.03)
        return 1

    rows = speed.measure(
        [speed.Item("g", "long", "n", long), speed.Item("g", "short", "n", lambda: 1)], repeats=4, seconds=0.001
    )
    assert [row["times"] for row in rows] == [1, 4]
    assert len(calls) == 2


def test_environments_of_others_only_where_they_are(monkeypatch, tmp_path):
    monkeypatch.setattr(speed_rows, "OTHERS", {"nobody_has_this": "No-v0", "stand_in_for_another": "StandIn-v0"})
    assert speed_rows.other_items() == []
    register = "import gymnasium\ngymnasium.register('StandIn-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    (tmp_path / "stand_in_for_another.py").write_text(register)
    monkeypatch.syspath_prepend(str(tmp_path))
    (item,) = speed_rows.other_items()
    assert (item.name, item.against) == ("gym.make StandIn-v0", "gym.make CartPole-v1")
    assert item.work() == speed_rows.DRAWN
    (tmp_path / "nobody_has_this.py").write_text("import nobody_has_that\n")
    importlib.invalidate_caches()
    with pytest.raises(ImportError, match="nobody_has_that"):
        speed_rows.other_items()


def test_operations_are_counted():
    counter = limits._counter()
    x = torch.ones(6, 5)
    with counter:
        y = torch.exp(x)  # 30 read, 30 written
        y[2]  # a view
        z = x.take(torch.tensor([1, 2]))  # 2 indices of 8 bytes, 2 values read and written
    assert (counter.operations, counter.functions) == (2, 30)
    assert counter.bytes == 4 * 60 + 8 * 2 + 4 * 2 * 2
    assert z.shape == (2,)
    assert y.shape == (6, 5)


def test_bounds_of_a_step():
    counted = limits.count("SemCom/CRRA-v0", batch=16)
    assert counted["bytes"] > counted["least_bytes"] > 4 * 10  # at least a number for every user
    assert counted["functions"] >= 20  # Shannon's logarithm and the task's exponential, of ten users
    assert counted["operations_alone"] == pytest.approx(counted["operations"], rel=0.1), "nothing depends on values"
    core = {"copy_bytes_per_second": 1e9, "cached_bytes_per_second": 4e9, "exp_per_second": 1e9, "call_seconds": 1e-6}
    found = limits.bounds(counted, core, batch=16)
    assert found["fused"] > found["as_written"] > found["single"]
    assert found["single"] == pytest.approx(1e6 / counted["operations_alone"])
    faster = limits.bounds(
        counted, {name: value * 2 for name, value in core.items()} | {"call_seconds": 5e-7}, batch=16
    )
    assert {name: faster[name] / found[name] for name in found} == pytest.approx(dict.fromkeys(found, 2.0))


def test_hotspots_are_functions_of_ours():
    task = protocol.task("SemCom/CRRA-v0", n=64)
    met = []

    def look(x):
        met.append(hotspots._owner(sys._getframe()))
        return x

    task.instance[:1].map(look)
    assert set(met) == {"envs.arrays.map"}, "the comprehension in it has no name"
    assert hotspots._owner(sys._getframe()) == "elsewhere"
    before = signal.getsignal(signal.SIGPROF)
    work = speed.Item("g", "fast", "instances", lambda: len(fast.solve(task.params, task.instance).objective), None, 64)
    (row,) = hotspots.table_of([work], seconds=0.2)
    assert (row["name"], row["batch"]) == ("fast", 64)
    assert row["samples"] > 0
    assert {part["function"].partition(".")[0] for part in row["parts"]} <= {"baselines", "envs", "elsewhere"}
    assert 0 < sum(part["share"] for part in row["parts"]) <= 1 + 1e-12
    assert signal.getsignal(signal.SIGPROF) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
    assert row["parts"][0]["function"] in hotspots.text([row])


def test_choices_are_those_allowed():
    env = gym.make("SemCom/SFMAPairing-v0", num_users=6)
    action = speed_rows._drawn(env, 12)
    for k in range(12):
        chosen = action(k)
        assert env.unwrapped.action_masks()[chosen]
        if env.step(chosen)[2]:
            env.reset()
    batch = protocol.make_vector("SemCom/SFMAPairing-v0", 3, num_users=6)
    action = speed_rows._drawn(batch, 1)
    assert batch.unwrapped.action_masks()[np.arange(3), action(0)].all()


def test_solvers_are_measured_on_batches_of_their_own(monkeypatch):
    calls = []

    def solver(name):
        def run(params, instance):
            calls.append((name, type(instance.gain).__module__, len(instance)))
            return SimpleNamespace(objective=instance.gain)

        return run

    for name, takes_tensors in (("paper", False), ("fast", True)):
        monkeypatch.setitem(sfma.METHODS, name, Method(solver(name), "test", "none", torch=takes_tensors))
    prove = solver("bound")
    monkeypatch.setattr(sfma, "prove", lambda params, some: SimpleNamespace(value=prove(params, some).objective))
    rows = speed_rows.solver_items("SemCom/SFMA-v0", None, "paper")
    slow = rows[0].name
    assert [row.name for row in rows[1:]] == [f"{what}, SFMA-v0 default" for what in ("fast", "fast torch", "bound")]
    assert [row.against for row in rows] == [None, slow, slow, slow]
    whole = speed_rows.BATCHES["sfma"]
    sizes = [speed_rows.SLOW_BATCH, whole, whole, speed_rows.BOUND_BATCH]
    assert [row.batch for row in rows] == sizes
    assert [row.work() for row in rows] == sizes
    names, libraries = ("paper", "fast", "fast", "bound"), ("numpy", "numpy", "torch", "numpy")
    assert calls == list(zip(names, libraries, sizes, strict=True))


def test_result_is_written_with_the_machine(tmp_path):
    rows = speed.measure(speed_rows.vector_items(batches=(2,))[:2], repeats=1, seconds=0.001)
    found = {"machine": speed.machine(1), "rows": rows}
    file = speed.write(found, tmp_path / "deep" / "speed.json")
    data = json.loads(file.read_text())
    assert data["machine"]["versions"]["gymnasium"]
    assert data["machine"]["cores"] >= 1
    assert len(data["rows"]) == 2
    assert "vector CartPole-v1 x2" in speed.text(found)
