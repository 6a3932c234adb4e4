"""The shells of the Fading ids: checkers, scalar against vector, seeds and goldens, what may be pinned, mistakes."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from semcom_gym import envs
from semcom_gym.envs.arrays import to_numpy

CRRA, CRRAUS = "SemCom/CRRAFading-v0", "SemCom/CRRAUSFading-v0"
GOLDEN = Path(__file__).parent / "golden" / "fading.json"
TOLERANCE = {"float64": 1e-9, "float32": 2e-3}


@pytest.fixture(params=envs.FADING_IDS)
def fading_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(name: str, n: int, backend: str = "numpy", **kwargs: Any) -> Any:
    if backend == "torch":
        pytest.importorskip("torch").set_num_threads(1)
    return gym.make_vec(name, n, "vector_entry_point", backend=backend, **kwargs).unwrapped


def crra(**kwargs: Any) -> Any:
    return gym.make(CRRA, disable_env_checker=True, **kwargs).unwrapped


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_compare_says_what_a_step_would_pay_and_changes_nothing(fading_id: str, backend: str) -> None:
    vector = make(fading_id, 2, backend, dtype="float64", horizon=3)
    vector.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-0.5, 1, (3, *vector.action_space.shape))
    if backend == "torch":
        actions = pytest.importorskip("torch").as_tensor(actions)
    vector.step(actions[0])
    told = to_numpy(vector.compare(actions))
    assert told.shape == (3, 2)
    np.testing.assert_array_equal(told, to_numpy(vector.compare(actions)))
    paid = to_numpy(vector.step(actions[2])[1])
    np.testing.assert_allclose(told[2], paid, rtol=1e-9)
    assert len(set(told.ravel().tolist())) == 6


def test_checkers(fading_id: str) -> None:
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(fading_id, horizon=3).unwrapped)
        checker = pytest.importorskip("stable_baselines3.common.env_checker")
        checker.check_env(gym.make(fading_id, horizon=3).unwrapped)


def test_info_contract(fading_id: str) -> None:
    env = gym.make(fading_id, horizon=2)
    env.reset(seed=1)
    sign = 1.0 if env.unwrapped.problem.maximise else -1.0
    ends = []
    for _ in range(2):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        violations = {key for key in info if key.startswith("violation/")}
        assert set(info) == {"objective", "feasible", "cost", "terms"} | violations
        assert reward == pytest.approx(sign * info["objective"] - env.unwrapped.penalty * info["cost"], rel=1e-9)
        assert info["cost"] == pytest.approx(sum(info[key] for key in violations))
        assert observation in env.observation_space
        ends.append((terminated, truncated))
    assert ends == [(False, False), (False, True)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_vector_is_scalar_environments(fading_id: str, backend: str, dtype: str) -> None:
    n, horizon = 3, 3
    vector = make(fading_id, n, backend, dtype=dtype, horizon=horizon)
    scalars = [gym.make(fading_id, horizon=horizon, disable_env_checker=True).unwrapped for _ in range(n)]
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, _ = vector.reset(seed=11)
    expected = [env.reset(seed=11 + i)[0] for i, env in enumerate(scalars)]
    generator = np.random.default_rng(0)
    for step in range(2 * horizon + 1):
        np.testing.assert_allclose(to_numpy(observation), np.stack(expected), rtol=1e-5, atol=1e-5)
        actions = generator.uniform(-1, 1, vector.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, info = vector.step(actions)
        results = [env.step(action) for env, action in zip(scalars, actions, strict=True)]
        scale = np.maximum(1.0, [abs(result[1]) for result in results])
        got = to_numpy(reward) / scale
        np.testing.assert_allclose(got, [r[1] for r in results] / scale, atol=TOLERANCE[dtype], rtol=0)
        assert not to_numpy(terminated).any()
        last = step % horizon == horizon - 1
        assert to_numpy(truncated).tolist() == [last] * n
        assert ("final_obs" in info) == last
        expected = [result[0] for result in results]
        if last:
            np.testing.assert_allclose(to_numpy(info["final_obs"]), np.stack(expected), rtol=1e-5, atol=1e-5)
            for i, result in enumerate(results):
                for key in ("objective", "cost"):
                    value = float(info["final_info"][key][i])
                    assert value == pytest.approx(result[4][key], abs=TOLERANCE[dtype] * scale[i])
            expected = [env.reset()[0] for env in scalars]


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_staggered_episodes(backend: str) -> None:
    n = 4
    vector = make(CRRA, n, backend, dtype="float64", horizon=3)
    scalars = [crra(horizon=3) for _ in range(n)]
    observation, _ = vector.reset(seed=5)
    expected = [env.reset(seed=5 + i)[0] for i, env in enumerate(scalars)]
    generator = np.random.default_rng(3)
    for _ in range(7):
        mask = generator.random(n) < 0.4
        observation, _ = vector.reset(options={"reset_mask": mask})
        expected = [env.reset()[0] if m else o for env, m, o in zip(scalars, mask, expected, strict=True)]
        np.testing.assert_allclose(to_numpy(observation), np.stack(expected), atol=1e-6)
        kept, copy = observation, to_numpy(observation).copy()
        actions = generator.uniform(-1, 1, vector.action_space.shape)
        observation, reward, _, truncated, _ = vector.step(actions)
        results = [env.step(action) for env, action in zip(scalars, actions, strict=True)]
        np.testing.assert_allclose(to_numpy(reward), [r[1] for r in results], atol=1e-9)
        assert to_numpy(truncated).tolist() == [r[3] for r in results]
        expected = [env.reset()[0] if r[3] else r[0] for env, r in zip(scalars, results, strict=True)]
        np.testing.assert_array_equal(to_numpy(kept), copy)  # what was returned is not overwritten


def rollout(env: Any, seed: int) -> list[float]:
    """First observation entries and all rewards of an episode under fixed actions."""
    generator = np.random.default_rng(7)
    observation, _ = env.reset(seed=seed)
    record = [float(x) for x in observation[:8]]
    truncated = False
    while not truncated:
        _, reward, _, truncated, _ = env.step(generator.uniform(-0.5, 1.0, env.action_space.shape))
        record.append(reward)
    return record


def test_the_seed_decides_everything() -> None:
    first, second = crra(horizon=3), crra(horizon=3)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert rollout(first, 5) == rollout(second, 5) == rollout(first, 5)
    assert rollout(first, 5) != rollout(second, 6)
    copy = pickle.loads(pickle.dumps(first))
    assert np.array_equal(first.reset()[0], copy.reset()[0])
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_golden_rollouts(fading_id: str) -> None:
    """A difference is a new version of the id. This file as a program writes that of a new one."""
    expected = json.loads(GOLDEN.read_text())
    assert set(expected) == set(envs.FADING_IDS)
    got = rollout(gym.make(fading_id, disable_env_checker=True).unwrapped, 2024)
    np.testing.assert_allclose(got, expected[fading_id], rtol=1e-6, atol=1e-6)


def test_pinned_instances_and_episodes() -> None:
    env = crra(horizon=3)
    instance = env.problem.sample_split(env.params, "test", 2)
    env.reset(seed=0, options={"instance": instance[1]})
    np.testing.assert_array_equal(env.episode.start.weight, instance.weight[1:])
    slow = env.episode.belief["gain"][:, 0] / env.episode.fade[:, 0]
    np.testing.assert_allclose(slow, instance.gain[1:], rtol=1e-12)
    episode = env.episodes("validation", 4)
    for part in (env.episodes("validation", 2), episode[:2]):
        np.testing.assert_array_equal(part.truth["gain"], episode.truth["gain"][:2])
    assert not np.isin(env.episodes("test", 4).truth["gain"], episode.truth["gain"]).any()
    first, _ = env.reset(options={"episode": episode[2]})
    again, _ = env.reset(options={"episode": episode[2]})
    np.testing.assert_array_equal(first, again)
    many = make(CRRA, 4, horizon=3)
    np.testing.assert_allclose(many.reset(options={"episode": episode})[0][2], first, atol=1e-6)
    for options, message in (
        ({"episode": episode}, "must hold 1 episode"),
        ({"episode": instance}, "must be an Episode"),
        ({"episode": episode[0], "instance": instance[0]}, "pin one"),
        ({"episode": crra(horizon=4).episodes("test", 1)}, "of 3 blocks"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            env.reset(options=options)
    with pytest.raises(IndexError):
        episode[4]


def test_the_gradient_runs_through_the_energy_that_is_left() -> None:
    torch = pytest.importorskip("torch")
    slopes = []
    for cut in (False, True):
        vector = make(CRRA, 2, "torch", dtype="float64", horizon=3)
        vector.reset(seed=0)
        action = torch.full(vector.action_space.shape, 0.2, dtype=torch.float64, requires_grad=True)
        vector.step(action)
        if cut:
            vector.cut_gradient()
        reward = vector.step(torch.full(vector.action_space.shape, 0.2, dtype=torch.float64))[1]
        assert reward.requires_grad != cut
        slopes.append(0.0 if cut else float(torch.autograd.grad(reward.sum(), action)[0][:, -10:].sum()))
    assert slopes[0] < -1e-4, "what is spent in the first block is missing in the second"


def test_an_episode_that_starts_anew_leaves_the_gradient_of_the_others() -> None:
    torch = pytest.importorskip("torch")
    vector = make(CRRA, 2, "torch", dtype="float64", horizon=3)
    vector.reset(seed=0)
    action = torch.full(vector.action_space.shape, 0.2, dtype=torch.float64, requires_grad=True)
    vector.step(action)
    vector.reset(options={"reset_mask": np.array([True, False])})
    reward = vector.step(torch.full(vector.action_space.shape, 0.2, dtype=torch.float64))[1]
    slope = torch.autograd.grad(reward.sum(), action)[0][:, -10:].sum(dim=1)
    assert slope[0] == 0.0
    assert slope[1] < -1e-4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"scenario": "fly"}, "unknown scenario 'fly'"),
        ({"horizon": 0}, "horizon"),
        ({"block_s": -1.0}, "block_s"),
        ({"speed_range_m_s": (3.0, 1.0)}, "exceeds"),
        ({"speed_range_m_s": 3.0}, "pair"),
        ({"speed_range_m_s": (0.0, 1e6)}, "between the rings"),
        ({"error_share": 1.5}, "error_share"),
        ({"energy_share": 0.0}, "energy_share"),
        ({"energy_share": 0.09, "preset": "hard"}, "least power, as a share, 0.1 exceeds energy_share 0.09"),
        ({"energy_share": 0.04, "power_range_w": (2e-3, 1e-2)}, "0.05 exceeds energy_share"),
        ({"delay_blocks": -1}, "delay_blocks"),
        ({"diversity": 0}, "diversity"),
        ({"colour": 1}, "unknown argument 'colour'; valid: num_users, .*horizon, .*scenario"),
        ({"selection": True}, "fixes selection"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        crra(**kwargs)


def test_other_problems_have_no_budget() -> None:
    for name in set(envs.FADING_IDS) - {CRRA, CRRAUS}:
        with pytest.raises(ValueError, match="has no energy to spend"):
            gym.make(name, energy_share=0.5)


def test_render() -> None:
    pytest.importorskip("matplotlib")
    env = gym.make(CRRA, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=0, options={"bound": 2.0})
    before = env.render()
    env.step(np.full(env.action_space.shape, 0.3, np.float32))
    after = env.render()
    assert before.shape == after.shape == (540, 960, 3)
    assert (before != after).any()


if __name__ == "__main__":
    records = {name: rollout(gym.make(name, disable_env_checker=True).unwrapped, 2024) for name in envs.FADING_IDS}
    GOLDEN.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in records.items()) + "\n}\n")
