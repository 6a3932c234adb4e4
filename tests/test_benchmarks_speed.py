"""The speed table: rows, ratios and what it ran on. No timing decides a test."""

import json

import gymnasium as gym
import numpy as np
import pytest

from semcom_gym import envs
from semcom_gym.baselines import sfma
from semcom_gym.baselines.solution import Method
from semcom_gym.benchmarks import protocol, speed

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
    items = speed.scalar_items() + speed.vector_items(batches=(4,))
    names = [item.name for item in items]
    assert names[0] == "gym.make CartPole-v1"
    for env_id in envs.IDS:
        assert f"gym.make {env_id}" in names
        assert f"vector {env_id} numpy x4" in names
        assert (f"vector {env_id} torch x4" in names) == (env_id != "SemCom/SFMAPairing-v0")
    assert all(item.against in names for item in items if item.against)
    scalar = len(envs.IDS) + 1
    assert [item.work() for item in items[:scalar]] == [speed.DRAWN] * scalar
    assert {item.work() for item in items[scalar:]} == {4 * speed.VECTOR_DRAWN}


def test_choices_are_those_allowed():
    env = gym.make("SemCom/SFMAPairing-v0", num_users=6)
    action = speed._drawn(env, 12)
    for k in range(12):
        chosen = action(k)
        assert env.unwrapped.action_masks()[chosen]
        if env.step(chosen)[2]:
            env.reset()
    batch = protocol.make_vector("SemCom/SFMAPairing-v0", 3, num_users=6)
    action = speed._drawn(batch, 1)
    assert batch.unwrapped.action_masks()[np.arange(3), action(0)].all()


def test_solvers_are_measured_on_batches_of_their_own(monkeypatch):
    calls = []
    for name in ("paper", "fast"):
        stand_in = Method(lambda params, instance, name=name: calls.append((name, len(instance))), "test", "none")
        monkeypatch.setitem(sfma.METHODS, name, stand_in)
    monkeypatch.setattr(sfma, "prove", lambda params, instance: calls.append(("bound", len(instance))))
    slow, fast, proof = speed.solver_items("SemCom/SFMA-v0", None, "paper")
    assert (slow.against, fast.against, proof.against) == (None, slow.name, slow.name)
    sizes = [speed.SLOW_BATCH, speed.SOLVER_BATCHES["sfma"], speed.SLOW_BATCH]
    assert [item.work() for item in (slow, fast, proof)] == sizes
    assert calls == list(zip(("paper", "fast", "bound"), sizes, strict=True))


def test_result_is_written_with_the_machine(tmp_path):
    rows = speed.measure(speed.vector_items(batches=(2,))[:2], repeats=1, seconds=0.001)
    found = {"machine": speed.machine(1), "rows": rows}
    file = speed.write(found, tmp_path / "deep" / "speed.json")
    data = json.loads(file.read_text())
    assert data["machine"]["versions"]["gymnasium"]
    assert data["machine"]["cores"] >= 1
    assert len(data["rows"]) == 2
    assert "vector CartPole-v1 x2" in speed.text(found)
