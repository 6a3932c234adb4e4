"""The pair policy (equivariance, any number of users) and MaskablePPO on the pairing environment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks

from semcom_gym import agents, envs
from semcom_gym.agents import training
from semcom_gym.agents.pair_network import PairNetwork, mirror
from semcom_gym.agents.pair_policy import SetMaskablePolicy
from semcom_gym.agents.policies import layout_kwargs
from semcom_gym.envs.sfma import pairing_env, pairs, resources

torch.set_num_threads(1)
ID = "SemCom/SFMAPairing-v0"
PROBLEM = envs.problem("sfma")
PARAMS = PROBLEM.preset("default", num_users=6)
PER_USER = ("distance_m", "angle_rad", "gain", "source_bit", "decode_s", "distortion_tilt")
SMALL = {"width": 32, "depth": 1, "value_scale": 30.0}


def make_policy(users: int) -> SetMaskablePolicy:
    """A policy with weights far from the start, where all pairs are alike."""
    env = gym.make(ID, num_users=users).unwrapped
    torch.manual_seed(0)
    sizes = layout_kwargs(env.observation_layout) | {"width": 16, "depth": 2}
    policy = SetMaskablePolicy(env.observation_space, env.action_space, lambda _: 1e-3, **sizes)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return policy


def observe(instance: Any, first: int | None = None) -> torch.Tensor:
    """The observations at the start, or after a first pair."""
    params = PROBLEM.preset("default", num_users=instance.gain.shape[1])
    progress = pairing_env.Progress(params, instance)
    if first is not None:
        progress.choose(np.full(len(instance), first))
    return torch.as_tensor(progress.observation(PROBLEM.observe(params, instance)))


def logits_and_value(policy: SetMaskablePolicy, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return policy.get_distribution(observation).distribution.logits, policy.predict_values(observation)


def renumber(instance: Any, order: np.ndarray) -> tuple[Any, np.ndarray]:
    """The instance whose user k is user ``order[k]``, and (M,) the old pair of each new one."""
    users = len(order)
    new = order[pairs.members(users)]  # (M, 2) the old users of the new pairs
    old = pairs.index(users)[new[:, 0], new[:, 1]]
    fields = {name: value[:, order if name in PER_USER else old] for name, value in vars(instance).items()}
    turned = (new[:, 0] > new[:, 1])[None, :, None]
    level = fields["distortion_level"]
    fields["distortion_level"] = np.where(turned, level[..., ::-1], level)
    return type(instance)(**fields), old


# --- the policy ----------------------------------------------------------------------------------------------------


def test_logits_follow_their_pairs_and_the_value_does_not_depend_on_the_order_of_users() -> None:
    policy, instance = make_policy(6), PROBLEM.sample_split(PARAMS, "train", 5)
    logits, value = logits_and_value(policy, observe(instance, first=7))
    renumbered, old = renumber(instance, np.array([3, 0, 5, 1, 4, 2]))
    again, same_value = logits_and_value(policy, observe(renumbered, first=int(np.flatnonzero(old == 7)[0])))
    torch.testing.assert_close(again, logits[:, old], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same_value, value, rtol=1e-4, atol=1e-5)
    assert logits.std(dim=1).min() > 1e-2, "pairs do differ"
    assert value.std() > 1e-4


def test_the_policy_sees_which_user_has_which_distortion() -> None:
    policy, instance = make_policy(6), PROBLEM.sample_split(PARAMS, "train", 5)
    swapped = dataclasses.replace(instance, distortion_level=instance.distortion_level[..., ::-1].copy())
    first, second = (logits_and_value(policy, observe(x))[0] for x in (instance, swapped))
    assert (first - second).abs().max() > 1e-3


def test_mirror() -> None:
    assert mirror(("a", "x_left", "b", "y_right", "x_right", "y_left")) == [0, 4, 2, 5, 1, 3]


def test_the_same_weights_serve_any_number_of_users() -> None:
    small, large = make_policy(4), make_policy(10)
    large.load_state_dict(small.state_dict())
    instance = PROBLEM.sample_split(PROBLEM.preset("default", num_users=10), "train", 3)
    for policy in (small, large):
        assert logits_and_value(policy, observe(instance))[0].shape == (3, 45)
    torch.testing.assert_close(
        logits_and_value(small, observe(instance))[0], logits_and_value(large, observe(instance))[0]
    )


def test_observations_of_a_wrong_length() -> None:
    network = PairNetwork(4, 9, 5, width=8, depth=1)
    assert [network.users(4 * n + 9 * n * (n - 1) // 2 + 5) for n in (2, 4, 10, 100)] == [2, 4, 10, 100]
    with pytest.raises(ValueError, match=r"the length of a row must be N \* 4 \+ N \* \(N - 1\) / 2 \* 9 \+ 5, got 76"):
        network(torch.zeros(2, 76))


# --- SB3's vector environment --------------------------------------------------------------------------------------


def test_masks_and_episodes_that_end_apart() -> None:
    env = agents.make_vec_env(ID, 3, seed=0, num_users=6)
    env.reset()
    np.testing.assert_array_equal(get_action_masks(env), np.ones((3, 15), bool))
    _, reward, done, infos = env.step(np.array([0, 0, 0]))
    assert (reward.tolist(), done.tolist(), infos) == ([0.0] * 3, [False] * 3, [{}] * 3)
    np.testing.assert_array_equal(get_action_masks(env), env.venv.unwrapped.action_masks())
    _, reward, done, infos = env.step(np.array([9, 0, 9]))  # the second is taken
    assert done.tolist() == [False, True, False]
    assert (infos[0], infos[2]) == ({}, {})
    assert infos[1]["episode"]["l"] == 2
    assert infos[1]["episode"]["r"] == reward[1] == -100.0
    assert (infos[1]["cost"], infos[1]["feasible"]) == (1.0, False)
    assert env.final_info["cost"].tolist() == [1.0]
    _, reward, done, infos = env.step(np.array([14, 5, 14]))
    assert done.tolist() == [True, False, True]
    assert [info.get("episode", {}).get("l") for info in infos] == [3, None, 3]
    assert infos[2]["episode"]["r"] == reward[2]
    assert infos[2]["objective"] == env.final_info["objective"][1]
    assert env.final_info["terms"]["pair"].tolist() == [[0, 9, 14]] * 2


# --- learning and deciding -----------------------------------------------------------------------------------------


def train(folder: Path, **kwargs: Any) -> agents.Run:
    defaults = {"num_users": 6, "timesteps": 3840, "evaluations": 1, "validation": 50, "scored": 0, "progress": False}
    settings = {"policy_kwargs": SMALL} | kwargs.pop("hyperparams", {})
    return agents.train(ID, "maskable_ppo", out=folder, hyperparams=settings, **(defaults | kwargs))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> agents.Run:
    return train(tmp_path_factory.mktemp("run") / "run")


def random_rewards(n: int) -> np.ndarray:
    """Rewards of random legal pairings of the validation instances."""
    rng = np.random.default_rng(0)
    instance = PROBLEM.sample_split(PARAMS, "validation", n)
    progress = pairing_env.Progress(PARAMS, instance)
    for _ in range(PARAMS.num_groups):
        progress.choose(np.array([rng.choice(np.flatnonzero(mask)) for mask in progress.allowed]))
    allocation = resources.allocate(PARAMS, instance, np.sort(progress.pair))
    return PROBLEM.reward(PROBLEM.evaluate(PARAMS, instance, allocation), 100.0)


def test_learns_to_pair(run: agents.Run) -> None:
    start, end = run.record["curve"][0], run.record["curve"][-1]
    assert end["reward"] > start["reward"] + 5.0
    assert end["reward"] > random_rewards(50).mean() + 8.0
    assert end["feasible"] == 1.0
    assert run.record["finished"]


def test_an_allocation_is_what_the_environment_gives_the_likeliest_choices(
    run: agents.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = PROBLEM.sample_split(PARAMS, "validation", 5)
    whole = agents.allocate(run.model, PROBLEM, PARAMS, instance)
    env = gym.make(ID, num_users=6).unwrapped
    for i in range(5):
        observation, _ = env.reset(options={"instance": instance[i]})
        terminated = False
        while not terminated:
            pair, _ = run.model.predict(observation, deterministic=True, action_masks=env.action_masks())
            observation, _, terminated, _, _ = env.step(pair)
        np.testing.assert_array_equal(env.allocation.pair[0], whole.pair[i])
        np.testing.assert_allclose(env.allocation.power_w[0], whole.power_w[i], rtol=1e-6)
    monkeypatch.setattr("semcom_gym.agents.decisions.CHUNK", 2)
    np.testing.assert_array_equal(agents.allocate(run.model, PROBLEM, PARAMS, instance).pair, whole.pair)


def test_the_record_says_what_the_model_reaches(run: agents.Run) -> None:
    instance = PROBLEM.sample_split(PARAMS, "validation", 50)
    outcome = PROBLEM.evaluate(PARAMS, instance, agents.allocate(run.model, PROBLEM, PARAMS, instance))
    assert run.record["best"]["objective"] == pytest.approx(outcome.objective.mean(), rel=1e-9)


def test_a_model_that_pairs_has_no_flat_action(run: agents.Run) -> None:
    with pytest.raises(TypeError, match=r"decides in several steps: use agents\.allocate"):
        agents.decide(run.model, PROBLEM, PARAMS, PROBLEM.sample_split(PARAMS, "validation", 2))
    with pytest.raises(TypeError, match="instance must be a sfma Instance"):
        agents.allocate(run.model, PROBLEM, PARAMS, np.zeros(3))


def test_allocations_of_flat_actions_are_decoded() -> None:
    crra = envs.problem("crra")
    params = crra.preset("default")
    instance = crra.sample_split(params, "validation", 4)
    env = agents.make_vec_env("SemCom/CRRA-v0", 2, backend="torch")
    model = agents.APG("SetPolicy", env, seed=0, device="cpu")
    expected = crra.decode(params, instance, agents.decide(model, crra, params, instance).astype(float))
    found = agents.allocate(model, crra, params, instance)
    np.testing.assert_array_equal(found.power_w, expected.power_w)


def test_save_and_load_for_another_number_of_users(run: agents.Run, tmp_path: Path) -> None:
    run.model.save(tmp_path / "model.zip")
    env = agents.make_vec_env(ID, 2, num_users=8)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    loaded = MaskablePPO.load(tmp_path / "model.zip", device="cpu", custom_objects=spaces)
    instance = PROBLEM.sample_split(PARAMS, "validation", 4)
    one, other = (agents.allocate(model, PROBLEM, PARAMS, instance) for model in (run.model, loaded))
    np.testing.assert_array_equal(one.pair, other.pair)
    params = PROBLEM.preset("pruned", num_users=8)
    more = agents.allocate(loaded, PROBLEM, params, PROBLEM.sample_split(params, "validation", 4))
    np.testing.assert_array_equal(pairs.uses(more.pair, 8), 1)


def test_a_stopped_run_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {"timesteps": 192, "num_envs": 8, "evaluations": 3, "validation": 5}
    quick["hyperparams"] = {"n_steps": 4, "batch_size": 32}  # episodes of three steps are cut by a rollout's end
    unbroken = train(tmp_path / "a", **quick)

    def on_step(self: Any) -> bool:
        if self.num_timesteps >= 150:
            raise KeyboardInterrupt
        return True

    with monkeypatch.context() as patch:
        patch.setattr(training._Keeper, "_on_step", on_step)
        assert not train(tmp_path / "b", **quick).record["finished"]
    resumed = train(tmp_path / "b", **quick, resume=True)
    assert resumed.record["finished"]
    weights = [torch.nn.utils.parameters_to_vector(x.model.policy.parameters()) for x in (resumed, unbroken)]
    assert torch.equal(*weights)
