"""The vector environment is n scalar ones: parity of NumPy and torch, autoreset, seeding, dtype, gradients."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from semcom_gym.envs.arrays import to_numpy

TOLERANCE = {
    ("crra", "float64"): 1e-12,
    ("crra", "float32"): 1e-5,
    ("training", "float64"): 1e-12,
    ("training", "float32"): 1e-5,
    ("sfma", "float64"): 1e-9,  # budgets are met by root searches, which magnify rounding
    ("sfma", "float32"): 0.1,  # and a hundredfold penalty magnifies a violation's rounding
    ("ascc", "float64"): 1e-9,
    ("ascc", "float32"): 1e-3,  # bit errors fall by decades within a fraction of a dB
}
SMOOTH_BLOCKS = {
    "crra": 3,
    "sfma": 3,
    "ascc": 1,
    "training": 5,
}  # blocks of an action, from the first, without a choice
FEASIBLE_PRESET = {"SemCom/SFMA-v0": "loose"}  # where every action is feasible; elsewhere every preset
BACKENDS = ["numpy", "torch"]


def make(name: str, n: int, backend: str = "numpy", **kwargs: Any) -> Any:
    if backend == "torch":
        pytest.importorskip("torch").set_num_threads(1)
    return gym.make_vec(name, n, "vector_entry_point", backend=backend, **kwargs).unwrapped


def actions_for(env: Any, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "seed"), [(1, 0), (7, 123)])
def test_parity_with_scalar_environments(
    env_and_preset: tuple[str, str], backend: str, dtype: str, n: int, seed: int
) -> None:
    name, preset = env_and_preset
    vector = make(name, n, backend, preset=preset, dtype=dtype)
    vector._depth = 3  # so that a few steps cross the end of the instances drawn ahead
    scalars = [gym.make(name, preset=preset, disable_env_checker=True).unwrapped for _ in range(n)]
    observation, _ = vector.reset(seed=seed)
    expected = [env.reset(seed=seed + i)[0] for i, env in enumerate(scalars)]
    tolerance = TOLERANCE[vector.problem.name, dtype]
    for actions in actions_for(vector, 8, seed):
        np.testing.assert_array_equal(to_numpy(observation), np.stack(expected))
        previous = observation
        observation, reward, terminated, truncated, info = vector.step(actions)
        results = [env.step(action) for env, action in zip(scalars, actions, strict=True)]
        scale = np.maximum(1.0, [abs(result[1]) for result in results])
        np.testing.assert_allclose(to_numpy(reward) / scale, [r[1] for r in results] / scale, atol=tolerance, rtol=0)
        assert to_numpy(terminated).all()
        assert not to_numpy(truncated).any()
        np.testing.assert_array_equal(to_numpy(info["final_obs"]), to_numpy(previous))
        final = info["final_info"]
        for i, result in enumerate(results):
            for key, value in result[4].items():
                if key != "terms":
                    assert float(final[key][i]) == pytest.approx(float(value), abs=max(tolerance, 1e-12) * scale[i])
            for key, value in result[4]["terms"].items():
                unit = (value.max() or 1.0) if key == "power_w" else max(value.max(), 1.0)
                got = to_numpy(final["terms"][key][i]).astype(float)
                if key == "sinr_db":  # of a user without power to speak of, rounding decides
                    got, value = np.maximum(got, -30.0), np.maximum(value, -30.0)
                np.testing.assert_allclose(got / unit, value / unit, atol=tolerance, rtol=0)
        expected = [env.reset()[0] for env in scalars]


@pytest.mark.parametrize("backend", BACKENDS)
def test_same_step_autoreset(env_id: str, backend: str) -> None:
    vector = make(env_id, 4, backend)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    first, _ = vector.reset(seed=0)
    first = to_numpy(first).copy()
    after, _, _, _, info = vector.step(np.zeros(vector.action_space.shape, np.float32))
    np.testing.assert_array_equal(to_numpy(info["final_obs"]), first)
    assert to_numpy(info["_final_obs"]).tolist() == [True] * 4
    assert to_numpy(info["_final_info"]).tolist() == [True] * 4
    assert (to_numpy(after) != first).any(axis=1).all(), "every sub-environment starts its next instance"
    problem, params = vector.problem, vector.params
    np.testing.assert_allclose(
        to_numpy(after), problem.observe(params, vector.instance.map(to_numpy)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_step_returned_is_not_overwritten(env_id: str, backend: str) -> None:
    vector = make(env_id, 3, backend)
    kept = [vector.reset(seed=0)[0]]
    copies = [to_numpy(kept[0]).copy()]
    for k, actions in enumerate(actions_for(vector, 6)):
        observation = vector.step(actions)[0]
        if k % 2:
            observation, _ = vector.reset(options={"reset_mask": np.array([True, False, True])})
        kept.append(observation)
        copies.append(to_numpy(observation).copy())
    for observation, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(to_numpy(observation), copy)


@pytest.mark.parametrize("backend", BACKENDS)
def test_staggered_resets(env_id: str, backend: str) -> None:
    n = 5
    vector = make(env_id, n, backend, dtype="float64")
    vector._depth = 4
    scalars = [gym.make(env_id, disable_env_checker=True).unwrapped for _ in range(n)]
    observation, _ = vector.reset(seed=40)
    expected = [env.reset(seed=40 + i)[0] for i, env in enumerate(scalars)]
    generator = np.random.default_rng(3)
    for actions in actions_for(vector, 12):
        mask = generator.random(n) < 0.5
        observation, info = vector.reset(options={"reset_mask": mask})
        assert info == {}
        expected = [env.reset()[0] if m else o for env, m, o in zip(scalars, mask, expected, strict=True)]
        np.testing.assert_array_equal(to_numpy(observation), np.stack(expected))
        observation, reward, *_ = vector.step(actions)
        scores = [env.step(action)[1] for env, action in zip(scalars, actions, strict=True)]
        np.testing.assert_allclose(to_numpy(reward), scores, atol=1e-12, rtol=1e-12)
        expected = [env.reset()[0] for env in scalars]


@pytest.mark.parametrize("backend", BACKENDS)
def test_mask_after_a_pinned_batch(env_id: str, backend: str) -> None:
    vector = make(env_id, 3, backend)
    batch = vector.problem.sample_split(vector.params, "test", 3)
    pinned, _ = vector.reset(seed=0, options={"instance": batch})
    mixed, _ = vector.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(to_numpy(mixed)[[0, 2]], to_numpy(pinned)[[0, 2]])
    scalar = gym.make(env_id)
    np.testing.assert_array_equal(to_numpy(mixed)[1], scalar.reset(seed=1)[0])


def test_seeds_per_environment(env_id: str) -> None:
    vector = make(env_id, 3)
    by_integer, _ = vector.reset(seed=10)
    by_list, _ = vector.reset(seed=[10, 11, 12])
    np.testing.assert_array_equal(by_integer, by_list)
    by_numpy, _ = vector.reset(seed=np.int64(10))
    np.testing.assert_array_equal(by_integer, by_numpy)
    other, _ = vector.reset(seed=[10, 99, 12])
    assert (other[0] == by_list[0]).all()
    assert (other[1] != by_list[1]).any()
    second, _ = vector.reset(seed=[None, 11, None])
    np.testing.assert_array_equal(second[1], by_list[1])
    assert (second[0] != other[0]).any(), "an unseeded sub-environment goes on to its next instance"


@pytest.mark.parametrize("depth", [1, 2, 5, 64])
def test_block_size_decides_nothing(env_id: str, depth: int) -> None:
    reference, vector = make(env_id, 3), make(env_id, 3)
    vector._depth = depth
    a, b = reference.reset(seed=1)[0], vector.reset(seed=1)[0]
    for actions in actions_for(vector, 12):
        np.testing.assert_array_equal(a, b)
        (a, reward_a, *_), (b, reward_b, *_) = reference.step(actions), vector.step(actions)
        np.testing.assert_array_equal(reward_a, reward_b)


@pytest.mark.parametrize(("backend", "dtype"), list(itertools.product(BACKENDS, ["float32", "float64"])))
def test_every_output_has_the_dtype_asked_for(env_and_preset: tuple[str, str], backend: str, dtype: str) -> None:
    name, preset = env_and_preset
    curves = {"curves": ("resnet_0db", "vgg_5db")} if "CRRA" in name else {}
    vector = make(name, 4, backend, preset=preset, dtype=dtype, **curves)
    observation, _ = vector.reset(seed=0)
    for _ in range(2):
        observation, reward, terminated, truncated, info = vector.step(np.full(vector.action_space.shape, 0.2))
        final = info["final_info"]
        assert np.dtype(to_numpy(observation).dtype) == np.float32
        assert to_numpy(info["final_obs"]).dtype == np.float32
        for value in (terminated, truncated, info["_final_obs"], info["_final_info"], final["feasible"]):
            assert to_numpy(value).dtype == np.bool_
        floats = {"reward": reward, **{k: v for k, v in final.items() if k not in ("feasible", "terms")}}
        for key, value in {**floats, **final["terms"]}.items():
            assert to_numpy(value).dtype == (np.int64 if key == "pair" else np.dtype(dtype)), key
        for field in dataclasses.fields(vector.instance):
            value = to_numpy(getattr(vector.instance, field.name))
            assert value.dtype == (np.int64 if field.name == "curve" else np.dtype(dtype)), field.name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("users", [1, 10, 40])
def test_float32_decisions_count_as_feasible(env_and_preset: tuple[str, str], backend: str, users: int) -> None:
    name, preset = env_and_preset
    if name == "SemCom/SFMA-v0":
        users = {1: 4, 10: 10, 40: 16}[users]
    size = {} if (name, preset) == ("SemCom/ASCC-v0", "paper") else {"num_users": users}  # its channel is a fixed one
    single, double = (make(name, 256, backend, preset=preset, dtype=d, **size) for d in ("float32", "float64"))
    for vector in (single, double):
        vector._depth = 4
        vector.reset(seed=0)
    for actions in actions_for(single, 2):
        feasible, expected = (to_numpy(v.step(actions)[4]["final_info"]["feasible"]) for v in (single, double))
        # a budget search of SFMA may end on either side of a jump: rare, and never more than one in a hundred
        assert (feasible != expected).mean() <= (0.01 if name == "SemCom/SFMA-v0" else 0.0)
        assert name in FEASIBLE_PRESET or feasible.all()


def test_large_batches_agree_with_small_ones(env_id: str) -> None:
    """A batch that goes through in chunks gives the rows of its parts."""
    n = 3000
    vector = make(env_id, n, dtype="float64")
    vector._depth = 2
    vector.reset(seed=5)
    instance = vector.instance
    action = actions_for(vector, 1)[0]
    reward = vector.step(action)[1]
    part = make(env_id, 10, dtype="float64")
    for start in (0, 1020, 2048, n - 10):
        rows = slice(start, start + 10)
        part.reset(options={"instance": instance[rows]})
        np.testing.assert_allclose(part.step(action[rows])[1], reward[rows], rtol=1e-12, atol=1e-12)


def test_torch_reward_has_the_gradient_of_the_objective(env_id: str) -> None:
    """Autograd against central differences of the NumPy physics, in every entry but those of the discrete choices."""
    torch = pytest.importorskip("torch")
    n = 6
    kwargs = {"preset": FEASIBLE_PRESET[env_id]} if env_id in FEASIBLE_PRESET else {}
    vector = make(env_id, n, "torch", dtype="float64", **kwargs)
    vector.reset(seed=2)
    problem, params = vector.problem, vector.params
    instance = vector.instance.map(to_numpy)
    users = params.num_users
    start = vector.action_layout.size - len(vector.action_layout.blocks) * users  # past the scores of pairs
    smooth = range(start, start + SMOOTH_BLOCKS[problem.name] * users)
    action = np.random.default_rng(0).uniform(-0.9, 0.9, vector.action_space.shape)
    action[:, start + 2 * users : smooth.stop] = np.abs(action[:, start + 2 * users : smooth.stop])  # not hopeless
    action[:, smooth.stop :] *= 1.0 if problem.name == "crra" else 0.0  # nor rates that nobody would choose
    leaf = torch.tensor(action, requires_grad=True)
    vector.step(leaf)[1].sum().backward()
    gradient = leaf.grad.numpy()
    assert np.isfinite(leaf.grad.numpy()).all()
    assert (np.abs(gradient[:, smooth]) > 1e-4).mean() > 0.1, "the check must not compare zeros"

    def score(x: np.ndarray) -> np.ndarray:
        return problem.reward(problem.evaluate(params, instance, problem.decode(params, instance, x)), 0.0)

    step = 1e-6
    for k in smooth:
        shift = np.zeros_like(action)
        shift[:, k] = step
        slope = (score(action + shift) - score(action - shift)) / (2 * step)
        np.testing.assert_allclose(gradient[:, k], slope, rtol=1e-4 if problem.name == "crra" else 1e-3, atol=1e-6)


def test_torch_selection_gate_has_a_useful_gradient() -> None:
    torch = pytest.importorskip("torch")
    vector = make("SemCom/CRRAUS-v0", 8, "torch", dtype="float64", preset="default")
    vector.reset(seed=2)
    users = vector.params.num_users
    action = torch.full(vector.action_space.shape, 0.6, dtype=torch.float64)
    action[:, 3 * users :] = torch.linspace(-0.5, 0.5, users)
    leaf = action.clone().requires_grad_(True)
    vector.step(leaf)[1].sum().backward()
    gate = leaf.grad[:, 3 * users :]
    assert torch.isfinite(gate).all()
    assert (gate != 0).any(dim=1).all()


def test_torch_backend_stays_in_torch(env_id: str) -> None:
    torch = pytest.importorskip("torch")
    vector = make(env_id, 2, "torch")
    observation, _ = vector.reset(seed=0)
    _, reward, terminated, _, info = vector.step(torch.zeros(vector.action_space.shape))
    assert all(torch.is_tensor(x) for x in (observation, reward, terminated, info["final_obs"]))
    assert all(torch.is_tensor(x) for x in info["final_info"]["terms"].values())


def test_encode_of_a_batch(env_id: str) -> None:
    kwargs = {"preset": FEASIBLE_PRESET[env_id]} if env_id in FEASIBLE_PRESET else {}
    vector = make(env_id, 5, dtype="float64", **kwargs)
    vector.reset(seed=3)
    problem, params, instance = vector.problem, vector.params, vector.instance
    allocation = problem.decode(params, instance, actions_for(vector, 1)[0].astype(float))
    expected = problem.reward(problem.evaluate(params, instance, allocation), 0.0)
    np.testing.assert_allclose(vector.step(vector.encode(allocation))[1], expected, rtol=1e-9, atol=1e-12)
    scalar = gym.make(env_id, **kwargs)
    scalar.reset(options={"instance": instance[2]})
    action = scalar.unwrapped.encode(allocation[2])
    assert action.dtype == np.float64
    assert scalar.unwrapped.step(action)[1] == pytest.approx(expected[2], rel=1e-9)


def test_split_streams_are_disjoint_and_prefixes(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    params, problem = env.params, env.problem
    splits = {name: problem.sample_split(params, name, 200) for name in ("train", "validation", "test")}
    name = "channel_re" if problem.name == "ascc" else "gain"
    gains = np.concatenate([getattr(batch, name).ravel() for batch in splits.values()])
    assert len(np.unique(gains)) == gains.size, "no user of one split appears in another"
    for name, batch in splits.items():
        short = problem.sample_split(params, name, 7)
        for field in dataclasses.fields(batch):
            np.testing.assert_array_equal(getattr(short, field.name), getattr(batch, field.name)[:7])


def test_sample_is_a_prefix_of_a_longer_sample(env_and_preset: tuple[str, str]) -> None:
    name, preset = env_and_preset
    env = gym.make(name, preset=preset).unwrapped
    params, problem = env.params, env.problem
    short, long = (problem.sample(params, np.random.default_rng(4), n) for n in (3, 50))
    pieces = np.random.default_rng(4)
    parts = [problem.sample(params, pieces, n) for n in (1, 2, 47)]
    for field in dataclasses.fields(long):
        whole = getattr(long, field.name)
        np.testing.assert_array_equal(getattr(short, field.name), whole[:3])
        np.testing.assert_array_equal(np.concatenate([getattr(part, field.name) for part in parts]), whole)
