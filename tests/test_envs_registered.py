"""Every registered id: both checkers, pickling, seeding, workers, pictures."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import semcom_gym
from semcom_gym import envs


def rollout(env: gym.Env, seed: int, steps: int = 5) -> list[np.ndarray]:
    """Observations and rewards of some episodes under fixed actions."""
    actions = np.random.default_rng(99).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)
    record = []
    for k, action in enumerate(actions):
        observation, _ = env.reset(seed=seed if k == 0 else None)
        _, reward, terminated, truncated, _ = env.step(action)
        assert terminated
        assert not truncated
        record += [observation, np.array(reward)]
    return record


def sign(env: gym.Env) -> float:
    return 1.0 if env.unwrapped.problem.maximise else -1.0


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_ids_are_registered(env_id: str) -> None:
    assert set(envs.IDS | envs.FADING_IDS) == {spec for spec in gym.registry if spec.startswith("SemCom/")}
    assert env_id in envs.IDS
    assert gym.make(env_id).unwrapped.spec.id == env_id


def test_importing_again_registers_nothing_twice() -> None:
    import importlib

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(semcom_gym.envs)


def test_gymnasium_checker(env_and_preset: tuple[str, str]) -> None:
    from gymnasium.utils.env_checker import check_env

    name, preset = env_and_preset
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(name, preset=preset).unwrapped)


def test_stable_baselines_checker(env_and_preset: tuple[str, str]) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    name, preset = env_and_preset
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gym.make(name, preset=preset).unwrapped)


def test_wrapped_episodes_stay_in_the_spaces(env_id: str) -> None:
    env = gym.make(env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.action_space.seed(0)
        for k in range(50):
            observation, info = env.reset(seed=0 if k == 0 else None)
            assert observation in env.observation_space
            assert info == {}
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            assert observation in env.observation_space
            assert type(reward) is float
            assert (terminated, truncated) == (True, False)
            assert reward == pytest.approx(
                sign(env) * info["objective"] - env.unwrapped.penalty * info["cost"], abs=1e-6
            )
            assert info["feasible"] is (max(v for k, v in info.items() if k.startswith("violation/")) <= 1e-6)
            if env.unwrapped.problem.name != "sfma":  # whose action map meets some constraints where it can only
                assert info["feasible"]


def test_info_contract(env_id: str) -> None:
    env = gym.make(env_id)
    env.reset(seed=1)
    info = env.step(np.full(env.action_space.shape, 0.3, np.float32))[4]
    violations = {key for key in info if key.startswith("violation/")}
    assert set(info) == {"objective", "feasible", "cost", "terms"} | violations
    assert violations == {f"violation/{k}" for k in env.unwrapped.outcome.violation}
    assert info["cost"] == pytest.approx(sum(info[key] for key in violations))
    users = env.unwrapped.params.num_users
    shapes = {"sfma": {(users // 2,), (users // 2, 2), ()}, "ascc": {(users,), (users, users)}}
    found = {value.shape for value in info["terms"].values()}
    assert found == shapes.get(env.unwrapped.problem.name, {(users,)})


def test_pickle_continues_the_same_stream(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    rollout(env, seed=3)
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(300):  # past the end of a block of instances drawn ahead
        assert np.array_equal(env.reset()[0], copy.reset()[0])


def test_same_seed_same_rollout_and_others_differ(env_and_preset: tuple[str, str]) -> None:
    name, preset = env_and_preset
    first, second = (gym.make(name, preset=preset) for _ in range(2))
    assert same(rollout(first, 5), rollout(second, 5))
    assert same(rollout(first, 5), rollout(second, 5)), "a second reset with the same seed must start again"
    if getattr(first.unwrapped.params, "channel_matrix", None) is None:  # or there is one instance only
        assert not same(rollout(first, 5), rollout(second, 6))


def test_interleaved_environments_do_not_touch_each_other(env_id: str) -> None:
    alone = gym.make(env_id)
    alone.reset(seed=8)
    expected = [alone.reset()[0] for _ in range(10)]
    one, other = gym.make(env_id), gym.make(env_id)
    one.reset(seed=8)
    other.reset(seed=9)
    for observation in expected:
        other.reset()
        assert np.array_equal(one.reset()[0], observation)


def test_global_generators_are_left_alone(env_id: str) -> None:
    import random

    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    rollout(gym.make(env_id), 1)
    vector = gym.make_vec(env_id, num_envs=3, vectorization_mode="vector_entry_point")
    vector.reset(seed=1)
    vector.step(np.zeros(vector.action_space.shape, np.float32))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002


def test_no_seed_gives_fresh_instances(env_id: str) -> None:
    first, second = gym.make(env_id), gym.make(env_id)
    assert not np.array_equal(first.reset()[0], second.reset()[0])


def test_pinned_instance(env_id: str) -> None:
    env = gym.make(env_id)
    problem, params = env.unwrapped.problem, env.unwrapped.params
    batch = problem.sample_split(params, "test", 3)
    a, _ = env.reset(options={"instance": batch[1]})
    b, _ = env.reset(options={"instance": batch[1]})
    other, _ = env.reset(options={"instance": batch[2]})
    assert np.array_equal(a, b)
    assert not np.array_equal(a, other)
    for field in dataclasses.fields(batch):
        assert np.array_equal(getattr(env.unwrapped.instance, field.name), getattr(batch, field.name)[2:3])


def test_overrides_reach_the_parameters(env_id: str) -> None:
    problem = gym.make(env_id).unwrapped.problem
    preset, name, value = {
        "crra": ("paper", "deadline_s", 2e-3),
        "sfma": ("paper", "max_latency_s", 2e-3),
        "ascc": ("two_user", "channel_uses", 9000.0),
        "training": ("paper", "time_weight", 2e-3),
    }[problem.name]
    env = gym.make(env_id, preset=preset, num_users=4, **{name: value})
    assert env.unwrapped.params.num_users == 4
    assert getattr(env.unwrapped.params, name) == value
    assert env.unwrapped.params.max_power_w == problem.PRESETS[preset].max_power_w
    seen, done = env.unwrapped.observation_layout, env.unwrapped.action_layout
    assert seen.users == done.users == 4
    of_pairs = 6 * len(seen.pair_features)  # four users are six pairs
    assert env.observation_space.shape == (4 * len(seen.user_features) + of_pairs + len(seen.global_features),)
    assert env.action_space.shape == (4 * len(done.blocks) + 6 * len(done.pair_blocks),)


def test_penalty_prices_the_violation(env_id: str) -> None:
    rewards = []
    for penalty in (1.0, 3.0):
        env = gym.make(env_id, penalty=penalty)
        problem, params = env.unwrapped.problem, env.unwrapped.params
        always_feasible = getattr(params, "selection", False) or problem.name == "ascc"
        instance = problem.sample_split(params, "test", 1)
        if problem.name in ("sfma", "training"):  # far too weak to finish
            instance = dataclasses.replace(
                instance, gain={"sfma": 1e-3, "training": 1e-9}[problem.name] * instance.gain
            )
        elif not always_feasible:  # with selection an empty cell is feasible whatever the budget
            instance = dataclasses.replace(instance, bandwidth_hz=np.array([1e4]))
        env.reset(options={"instance": instance})
        _, reward, _, _, info = env.step(np.full(env.action_space.shape, 0.5, np.float32))
        assert reward == pytest.approx(sign(env) * info["objective"] - penalty * info["cost"], rel=1e-5)
        rewards.append(reward)
    assert (rewards[0] == pytest.approx(rewards[1], rel=1e-9)) == always_feasible


SPAWNED = """
import sys
import gymnasium as gym
import numpy as np

def main(name):
    envs = gym.make_vec("semcom_gym:" + name, num_envs=2, vectorization_mode="async",
                        vector_kwargs={"context": "spawn"})
    observation, _ = envs.reset(seed=4)
    reward = envs.step(np.full(envs.action_space.shape, 0.4, np.float32))[1]
    envs.close()
    single = gym.make("semcom_gym:" + name)
    expected, _ = single.reset(seed=5)
    assert np.array_equal(observation[1], expected)
    assert np.isclose(reward[1], single.step(np.full(single.action_space.shape, 0.4, np.float32))[1])
    assert name in gym.registry

if __name__ == "__main__":
    main(sys.argv[1])
"""


def test_prefixed_id_in_spawned_workers(env_id: str, tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    done = subprocess.run([sys.executable, str(script), env_id], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_render_before_and_after_a_step(env_id: str) -> None:
    pytest.importorskip("matplotlib")
    env = gym.make(env_id, render_mode="rgb_array", disable_env_checker=True)
    env.reset(seed=0, options={"bound": 5.0})
    before = env.render()
    env.step(np.full(env.action_space.shape, 0.5, np.float32))
    after = env.render()
    for image in (before, after):
        assert image.shape == (540, 960, 3)
        assert image.dtype == np.uint8
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert (before != after).any()
    env.unwrapped.bound = 2.0
    assert (env.render() != after).any(), "the bound must be visible"
    env.reset(seed=1)
    assert (env.render() != before).any(), "another instance is another picture"


@pytest.mark.parametrize("users", [1, 40])
def test_render_few_and_many_users_and_an_infeasible_decision(users: int) -> None:
    pytest.importorskip("matplotlib")
    from semcom_gym.envs import render

    problem = envs.problem("crra")
    params = problem.preset("paper", num_users=users)
    instance = problem.sample_split(params, "test", 1)
    poor = dataclasses.replace(instance, bandwidth_hz=np.array([1.0]))
    pictures = []
    for case in (instance, poor):
        outcome = problem.evaluate(params, case, problem.decode(params, case, np.zeros((1, 3 * users))))
        pictures.append(render.frame(problem, params, case, outcome))
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("users", [4, 40])
def test_render_pairs(users: int) -> None:
    pytest.importorskip("matplotlib")
    from semcom_gym.envs import render

    problem = envs.problem("sfma")
    params = problem.preset("loose", num_users=users)
    instance = problem.sample_split(params, "test", 1)
    action = np.full((1, problem.action_layout(params).size), 0.5)
    action[:, : params.num_pairs] = instance.similarity
    decision = problem.decode(params, instance, action)
    partners = dataclasses.replace(decision, pair=decision.pair[:, ::-1].copy())
    far = problem.decode(params, instance, -action)
    pictures = [
        render.frame(problem, params, instance, problem.evaluate(params, instance, x))
        for x in (decision, partners, far)
    ]
    assert (pictures[0] != pictures[2]).any(), "another pairing is another picture"
    assert (pictures[0] != pictures[1]).any(), "so is another share for the same pairs"


@pytest.mark.parametrize("users", [1, 4, 12, 40])
def test_render_channels(users: int) -> None:
    """The matrix of received powers shows the instance before a decision and the decision after one."""
    pytest.importorskip("matplotlib")
    from semcom_gym.envs import render

    problem = envs.problem("ascc")
    params = problem.preset("default", num_users=users)
    instance = problem.sample_split(params, "test", 2)
    equal = problem.decode(params, instance, np.zeros((2, 2 * users)))
    lower = dataclasses.replace(equal, rate_index=np.maximum(equal.rate_index - 3, 0))
    turned = dataclasses.replace(equal, beam_re=-equal.beam_im, beam_im=equal.beam_re)
    crossed = dataclasses.replace(equal, beam_re=equal.beam_re[..., ::-1], beam_im=equal.beam_im[..., ::-1])
    pictures = [
        render.frame(problem, params, instance, problem.evaluate(params, instance, x))
        for x in (equal, lower, crossed, turned)
    ]
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[0] != pictures[2]).any()
    assert (pictures[0] == pictures[3]).all(), "the phase of a beam is nothing to see"
    before = [render.frame(problem, params, instance[k]) for k in (0, 1)]
    assert (before[0] != before[1]).any()


def test_render_leaves_no_global_state() -> None:
    code = (
        "import gymnasium as gym, numpy as np, sys, semcom_gym\n"
        "env = gym.make('SemCom/CRRA-v0', render_mode='rgb_array'); env.reset(seed=0)\n"
        "assert 'matplotlib' not in sys.modules\n"
        "env.step(np.zeros(env.action_space.shape, np.float32)); env.render()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    pytest.importorskip("matplotlib")
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr


def test_record_video(env_id: str, tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    pytest.importorskip("matplotlib")
    env = gym.make(env_id, render_mode="rgb_array")
    env = gym.wrappers.RecordVideo(env, str(tmp_path), episode_trigger=lambda _: True)
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape, np.float32))
    env.close()
    assert [path.stat().st_size > 0 for path in tmp_path.glob("*.mp4")] == [True]


def test_render_without_render_mode_warns(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert env.render() is None
