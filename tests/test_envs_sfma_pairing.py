"""SFMAPairing-v0: masks against brute force, illegal choices, rewards, seeding, and parity of scalar and vector."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from semcom_gym import envs
from semcom_gym.envs.sfma import pairing_env, pairs, physics, resources

ID = "SemCom/SFMAPairing-v0"
PROBLEM = envs.problem("sfma")


def scalar(**kwargs: Any) -> Any:
    return gym.make(ID, disable_env_checker=True, **({"num_users": 6} | kwargs)).unwrapped


def vector(n: int, **kwargs: Any) -> Any:
    return gym.make_vec(ID, n, "vector_entry_point", **({"num_users": 6} | kwargs)).unwrapped


def matchings(free: tuple[int, ...], users: int) -> Iterator[tuple[int, ...]]:
    """All perfect matchings of the free users, as pairs."""
    if not free:
        yield ()
    for k in range(1, len(free)):
        for rest in matchings(free[1:k] + free[k + 1 :], users):
            yield (int(pairs.index(users)[free[0], free[k]]), *rest)


def brute_force(edges: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The mask of one episode by trying every perfect matching of the free users."""
    everything = list(matchings(tuple(np.flatnonzero(free)), len(free)))
    inside = [m for m in everything if edges[list(m)].all()]
    mask = np.zeros(len(edges), bool)
    mask[[pair for m in inside or everything for pair in m]] = True
    return mask


def random_choice(mask: np.ndarray, rng: np.random.Generator) -> int:
    return int(rng.choice(np.flatnonzero(mask)))


# --- checkers and spaces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["default", "pruned"])
def test_checkers(preset: str) -> None:
    from gymnasium.utils.env_checker import check_env

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(ID, preset=preset, num_users=6).unwrapped)
        stable_baselines = pytest.importorskip("stable_baselines3.common.env_checker")
        stable_baselines.check_env(gym.make(ID, preset=preset, num_users=6).unwrapped)


def test_the_observation_is_that_of_the_joint_id_with_two_features_more() -> None:
    env = scalar()
    observation, info = env.reset(seed=3)
    layout = env.observation_layout
    assert info == {}
    assert layout.user_features[-1] == "free"
    assert layout.pair_features[-1] == "allowed"
    assert env.observation_space.shape == (layout.size,) == observation.shape
    assert env.action_space == gym.spaces.Discrete(15)
    observation = env.step(7)[0]  # users 2 and 5 of 1 to 6
    users, rest = np.split(observation, [6 * len(layout.user_features)])
    of_pairs, cell = np.split(rest, [15 * len(layout.pair_features)])
    users, of_pairs = users.reshape(6, -1), of_pairs.reshape(15, -1)
    assert users[:, -1].tolist() == [1, 0, 1, 1, 0, 1]
    assert of_pairs[:, -1].tolist() == env.action_masks().astype(float).tolist()
    plain = np.concatenate([users[:, :-1].ravel(), of_pairs[:, :-1].ravel(), cell])
    expected = gym.make("SemCom/SFMA-v0", num_users=6).reset(seed=3)[0]
    np.testing.assert_array_equal(plain, expected)


# --- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("users", "taken"), [(4, 0), (6, 0), (6, 2), (8, 2), (16, 10)])
@pytest.mark.parametrize("share", [0.2, 0.4, 0.7, 1.0])
def test_choices_against_brute_force(users: int, taken: int, share: float) -> None:
    rng = np.random.default_rng(users)
    n = 30 if users < 16 else 5
    edges = rng.random((n, pairs.count(users))) < share
    free = np.ones((n, users), bool)
    for row in free:
        row[rng.choice(users, taken, replace=False)] = False
    expected = np.stack([brute_force(*row) for row in zip(edges, free, strict=True)])
    np.testing.assert_array_equal(pairing_env.choices(edges, free), expected)


@pytest.mark.parametrize("strictness", [0.005, 0.0035])
def test_masks_of_episodes_against_brute_force(strictness: float) -> None:
    env = vector(40, preset="pruned", max_distortion=strictness)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    restricted, hopeless = 0, 0
    for _ in range(3):
        edges, free = physics.feasible_pairs(env.params, env.instance), env.progress.free
        masks = env.action_masks()
        expected = np.stack([brute_force(*row) for row in zip(edges, free, strict=True)])
        np.testing.assert_array_equal(masks, expected)
        left, right = pairs.members(6).T
        possible = free[:, left] & free[:, right]
        restricted += (masks != possible).any(axis=1).sum()
        hopeless += (masks & ~edges).any(axis=1).sum()
        env.step(np.array([random_choice(mask, rng) for mask in masks]))
    assert restricted > 0
    assert hopeless > 0


def test_a_masked_pair_of_free_users_is_legal() -> None:
    env = scalar(preset="pruned")
    edges = np.ones((1, 15), bool)
    edges[0, 0] = False  # users 1 and 2
    env.reset(seed=0)
    env.progress.edges = edges
    _, reward, terminated, _, info = env.step(0)
    assert (reward, terminated, info) == (0.0, False, {})
    assert env.action_masks().sum() == 6, "all pairs of the four users left"


@pytest.mark.parametrize("preset", ["default", "pruned"])
def test_every_legal_episode_is_a_perfect_matching_inside_the_edges_where_there_is_one(preset: str) -> None:
    env = vector(30, preset=preset, num_users=8)
    env.reset(seed=1)
    rng = np.random.default_rng(1)
    edges = physics.feasible_pairs(env.params, env.instance)
    whole = pairing_env.choices(edges, np.ones((30, 8), bool))
    for _ in range(4):
        info = env.step(np.array([random_choice(mask, rng) for mask in env.action_masks()]))[-1]
    chosen = info["final_info"]["terms"]["pair"]
    np.testing.assert_array_equal(pairs.uses(chosen, 8), 1)
    possible = (whole <= edges).all(axis=1)
    assert possible.any()
    assert np.take_along_axis(edges, chosen, 1)[possible].all()
    assert (info["final_info"]["violation/pairing"] == 0).all()


# --- rewards -------------------------------------------------------------------------------------------------------


def test_the_reward_is_that_of_the_solved_resources() -> None:
    env = scalar(penalty=7.0)
    rng = np.random.default_rng(0)
    for k in range(5):
        env.reset(seed=k)
        rewards = []
        terminated = False
        while not terminated:
            _, reward, terminated, truncated, info = env.step(random_choice(env.action_masks(), rng))
            assert not truncated
            rewards.append(reward)
        assert rewards[:2] == [0.0, 0.0]
        allocation = resources.allocate(env.params, env.instance, np.sort(env.progress.pair))
        outcome = PROBLEM.evaluate(env.params, env.instance, allocation)
        assert rewards[2] == pytest.approx(PROBLEM.reward(outcome, 7.0)[0], rel=1e-12)
        assert info["objective"] == pytest.approx(outcome.objective[0], rel=1e-12)
        assert info["feasible"] == outcome.feasible[0]
        assert info["cost"] == sum(value for name, value in info.items() if name.startswith("violation/"))
        assert set(info["terms"]) == set(outcome.terms)
        np.testing.assert_array_equal(env.allocation.power_w, allocation.power_w)
        assert not env.action_masks().any()


def test_the_order_of_the_pairs_does_not_matter() -> None:
    env = scalar()
    env.reset(seed=4)
    pair = env.encode(some_allocation(env.params, 1))
    rewards = []
    for order in ([0, 1, 2], [2, 0, 1]):
        env.reset(seed=4)
        rewards.append([env.step(pair[k])[1] for k in order][-1])
        np.testing.assert_array_equal(env.allocation.pair, np.sort(pair)[None])
    assert rewards[0] == rewards[1]


def some_allocation(params: Any, n: int) -> physics.Allocation:
    """Some allocation of n perfect matchings."""
    pair = pairs.best_matching(np.random.default_rng(0).random((n, params.num_pairs)), params.num_users)
    return physics.Allocation(pair, *(np.ones(pair.shape) for _ in range(3)))


def test_encode_leads_to_the_pairing_of_an_allocation() -> None:
    env = vector(3)
    env.reset(seed=0)
    allocation = some_allocation(env.params, 3)
    for actions in env.encode(allocation).T:
        env.step(actions)
    np.testing.assert_array_equal(env.allocation.pair, allocation.pair)
    allocation.pair[1, 0] = allocation.pair[1, 1]
    with pytest.raises(ValueError, match="must hold every user once"):
        env.encode(allocation)


def test_an_illegal_choice_ends_the_episode() -> None:
    env = scalar(penalty=9.0)
    env.reset(seed=0)
    env.step(0)
    observation, reward, terminated, truncated, info = env.step(1)  # user 1 is taken
    assert observation in env.observation_space
    assert (reward, terminated, truncated) == (-9.0, True, False)
    assert info == {"objective": 0.0, "feasible": False, "cost": 1.0, "terms": {}, "violation/pairing": 1.0}
    with pytest.raises(gym.error.ResetNeeded):
        env.step(14)
    assert env.allocation is None


# --- seeds, instances, and the vector environment ------------------------------------------------------------------


def test_seeds_decide_everything() -> None:
    def rollout(seed: int) -> list[Any]:
        env, rng, record = scalar(), np.random.default_rng(5), []
        observation, _ = env.reset(seed=seed)
        for _ in range(6):
            record.append(observation)
            observation, reward, terminated, _, _ = env.step(random_choice(env.action_masks(), rng))
            record.append(reward)
            if terminated:
                observation, _ = env.reset()
        return record

    first, second, other = rollout(1), rollout(1), rollout(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], first[6]), "the next episode has the next instance"


def test_pickle_continues_in_the_middle_of_an_episode() -> None:
    env = scalar()
    env.reset(seed=0)
    env.step(0)
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(2):
        pair = int(np.flatnonzero(env.action_masks())[0])
        one, other = env.step(pair), copy.step(pair)
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1] == other[1]
    np.testing.assert_array_equal(env.reset()[0], copy.reset()[0])


@pytest.mark.parametrize("preset", ["default", "pruned"])
@pytest.mark.parametrize("legal", [True, False])
def test_parity_with_scalar_environments(preset: str, legal: bool) -> None:
    n = 5
    many, ones = vector(n, preset=preset), [scalar(preset=preset) for _ in range(n)]
    many._depth = 2  # so that a few episodes cross the end of the instances drawn ahead
    assert many.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, _ = many.reset(seed=20)
    expected = np.stack([env.reset(seed=20 + i)[0] for i, env in enumerate(ones)])
    rng = np.random.default_rng(0)
    ended_apart, illegal = 0, 0
    for _ in range(14):
        np.testing.assert_array_equal(observation, expected)
        masks = many.action_masks()
        np.testing.assert_array_equal(masks, [env.action_masks() for env in ones])
        pick = masks if legal else np.ones_like(masks)
        actions = np.array([random_choice(mask, rng) for mask in pick])
        observation, reward, terminated, truncated, info = many.step(actions)
        results = [env.step(action) for env, action in zip(ones, actions, strict=True)]
        np.testing.assert_allclose(reward, [r[1] for r in results], rtol=1e-9)
        assert terminated.tolist() == [r[2] for r in results]
        assert not truncated.any()
        ended_apart += terminated.any() and not terminated.all()
        assert ("final_info" in info) == terminated.any()
        for i in np.flatnonzero(terminated):
            final, result = info["final_info"], results[i]
            illegal += result[4]["cost"] == 1.0
            np.testing.assert_array_equal(info["final_obs"][i], result[0])
            for name in set(final) - {"terms"}:
                assert final[name][i] == pytest.approx(result[4].get(name, 0.0), rel=1e-9, abs=1e-12)
            for name, value in result[4]["terms"].items():
                np.testing.assert_allclose(final["terms"][name][i], value, rtol=1e-6)
        if terminated.any():
            assert info["_final_info"].tolist() == info["_final_obs"].tolist() == terminated.tolist()
        expected = np.stack([env.reset()[0] if r[2] else r[0] for env, r in zip(ones, results, strict=True)])
    assert (ended_apart > 0) == (illegal > 0) == (not legal)


def test_what_step_returned_is_not_overwritten() -> None:
    env = vector(3)
    kept = [env.reset(seed=0)[0], env.action_masks()]
    copies = [x.copy() for x in kept]
    for _ in range(7):
        kept += [env.step(np.argmax(env.action_masks(), axis=1))[0], env.action_masks()]
        copies += [x.copy() for x in kept[-2:]]
    for x, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_pinned_instances() -> None:
    batch = PROBLEM.sample_split(PROBLEM.preset("default", num_users=6), "test", 3)
    many, one = vector(3), scalar()
    many.reset(seed=0)
    many.step(np.zeros(3, int))
    observation, _ = many.reset(options={"instance": batch})
    for i in range(3):
        np.testing.assert_array_equal(observation[i], one.reset(options={"instance": batch[i]})[0])
    assert many.action_masks().all()
    for action in (0, 9, 14):
        many_reward, one_reward = many.step(np.full(3, action))[1], one.step(action)[1]
    assert many_reward[2] == pytest.approx(one_reward, rel=1e-9)


def test_reset_of_some() -> None:
    env = vector(3)
    env.reset(seed=0)
    before = env.step(np.zeros(3, int))[0]
    after, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert env.action_masks().sum(axis=1).tolist() == [6, 15, 6]


# --- pictures and mistakes -----------------------------------------------------------------------------------------


def test_render_a_pairing_and_an_illegal_choice() -> None:
    pytest.importorskip("matplotlib")
    env = scalar(render_mode="rgb_array")
    pictures = []
    for actions in ((0, 9, 14), (0, 1)):
        env.reset(seed=0)
        for action in actions:
            env.step(action)
        pictures.append(env.render())
    assert {image.shape for image in pictures} == {(540, 960, 3)}
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"backend": "torch"}, "SFMAPairing solves on backend 'numpy' in 'float64', got 'torch' and 'float64'"),
        ({"dtype": "float32"}, "got 'numpy' and 'float32'"),
        ({"preset": "esy"}, "unknown sfma preset 'esy'"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vector(2, **kwargs)


def test_bad_actions() -> None:
    one, many = scalar(), vector(2)
    for env in (one, many):
        with pytest.raises(gym.error.ResetNeeded):
            env.step(0)
        with pytest.raises(gym.error.ResetNeeded):
            env.action_masks()
        env.reset(seed=0)
    for action in (15, -1, 0.5, np.zeros(3)):
        with pytest.raises(ValueError, match="action must be a pair, an integer from 0 to 14"):
            one.step(action)
    with pytest.raises(ValueError, match=r"actions must have shape \(2,\), got \(3,\)"):
        many.step(np.zeros(3, int))
    with pytest.raises(ValueError, match="actions must be pairs, from 0 to 14, got 15"):
        many.step(np.array([0, 15]))
    with pytest.raises(TypeError, match="actions must be integers, got float64"):
        many.step(np.zeros(2))
