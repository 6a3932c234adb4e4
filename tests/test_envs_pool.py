"""A vector environment on a pool of instances: which it meets, what decides it, and what its step asks of a device."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from semcom_gym.envs.arrays import to_numpy

POOL = 9


def make(name: str, n: int, **kwargs: Any) -> Any:
    if kwargs.get("backend") == "torch":
        pytest.importorskip("torch").set_num_threads(1)
    return gym.make_vec(name, n, "vector_entry_point", **{"pool": POOL, **kwargs}).unwrapped


def rows_met(env: Any, pool: Any) -> np.ndarray:
    """Which instances of the pool the environment holds; all fields must be those of one instance."""
    found = np.full(env.num_envs, -1)
    for k in range(len(pool)):
        same = np.ones(env.num_envs, bool)
        for field in dataclasses.fields(pool):
            value = to_numpy(getattr(env.instance, field.name))
            expected = getattr(pool, field.name)[k].astype(value.dtype)
            same &= (value == expected).reshape(env.num_envs, -1).all(axis=1)
        found[same] = k
    return found


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_all_instances_are_the_first_of_the_train_stream(env_id: str, backend: str) -> None:
    env = make(env_id, 5, backend=backend)
    env._depth = 3
    expected = env.problem.sample_split(env.params, "train", POOL)
    seen = env._observe(expected)
    observation, _ = env.reset(seed=4)
    met = []
    for actions in np.random.default_rng(0).uniform(-1, 1, (12, *env.action_space.shape)).astype(np.float32):
        rows = rows_met(env, expected)
        assert (rows >= 0).all()
        np.testing.assert_array_equal(to_numpy(observation), seen[rows])
        met.append(rows)
        instance = env.instance
        observation, reward, *_ = env.step(actions)
        placed = env._check_actions(actions)
        again = env.problem.play(env.params, instance, placed, env.penalty)[1]
        np.testing.assert_array_equal(to_numpy(reward), to_numpy(again))
    assert len(np.unique(met)) == POOL, "60 picks of 9 instances leave none out"


def test_seeds_decide_and_backends_agree(env_id: str) -> None:
    torch_env, env, other = make(env_id, 4, backend="torch"), make(env_id, 4), make(env_id, 2)
    actions = np.zeros(env.action_space.shape, np.float32)
    a, b = torch_env.reset(seed=7)[0], env.reset(seed=7)[0]
    c = other.reset(seed=[9, 7])[0]
    differ = False
    for _ in range(6):
        np.testing.assert_array_equal(to_numpy(a), b)
        np.testing.assert_array_equal(c, b[[2, 0]])
        differ |= (b[0] != b[1]).any()
        a, b, c = torch_env.step(actions)[0], env.step(actions)[0], other.step(actions[:2])[0]
    assert differ


def test_some_are_reset_and_others_keep_their_instance(env_id: str) -> None:
    env, alone = make(env_id, 3), make(env_id, 1)
    first = env.reset(seed=1)[0].copy()
    alone.reset(seed=2)
    mixed = env.reset(options={"reset_mask": np.array([False, True, False])})[0]
    np.testing.assert_array_equal(mixed[[0, 2]], first[[0, 2]])
    np.testing.assert_array_equal(mixed[1], alone.reset()[0][0])
    instance, actions = env.instance, np.zeros(env.action_space.shape, np.float32)
    np.testing.assert_allclose(env._observe(instance), mixed, rtol=1e-4, atol=1e-4)  # instances are in float32
    expected = env.problem.play(env.params, instance, actions, env.penalty)[1]
    np.testing.assert_array_equal(env.step(actions)[1], expected)


def test_the_whole_pool_is_the_same_whatever_its_size_is_cut_into(monkeypatch: pytest.MonkeyPatch) -> None:
    from semcom_gym.envs import vector

    whole = make("SemCom/CRRA-v0", 2, pool=50)
    whole.reset(seed=0)
    monkeypatch.setattr(vector, "CHUNK", 1)
    parts = make("SemCom/CRRA-v0", 2, pool=50)
    parts.reset(seed=0)
    np.testing.assert_array_equal(whole._observations, parts._observations)
    np.testing.assert_array_equal(whole._pool.gain, parts._pool.gain)


@pytest.mark.parametrize(("pool", "error"), [(0, ValueError), (-3, ValueError), (2.5, TypeError), (True, TypeError)])
def test_bad_sizes(pool: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="pool"):
        make("SemCom/CRRA-v0", 2, pool=pool)


def test_a_fading_environment_takes_none() -> None:
    with pytest.raises(ValueError, match="episodes"):
        make("SemCom/CRRAFading-v0", 2)


def test_a_step_on_a_device_copies_nothing(env_id: str) -> None:
    """No constant goes up, no array comes down, none is made elsewhere (on the default device, which holds nothing);
    the host reads whether the actions are finite, and SFMA which rows are left to search."""
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    env = make(env_id, 128, backend="torch")
    env.reset(seed=0)
    action = torch.as_tensor(np.random.default_rng(0).uniform(-1, 1, env.action_space.shape).astype(np.float32))
    for _ in range(2):
        env.step(action)
    called: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(str(func))
            return func(*args, **(kwargs or {}))

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("an array left the device or came to it")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("numpy", "cpu", "tolist", "__array__"):
            patch.setattr(torch.Tensor, name, forbidden)
        patch.setattr(torch, "from_numpy", forbidden)
        with torch.device("meta"), Watch():
            env.step(action)
    assert not [name for name in called if "lift" in name]
    reads = sum("_local_scalar_dense" in name for name in called)
    assert reads == 1 if env.problem.name != "sfma" else 1 < reads < 60
