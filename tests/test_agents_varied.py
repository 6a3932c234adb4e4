"""Training on drawn problems: whose turn it is, in which units, what is kept, and what cannot be varied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semcom_gym import agents, baselines, envs
from semcom_gym.agents import training, varied
from semcom_gym.benchmarks import cli, commands, competitors, protocol

torch.set_num_threads(1)
CRRA, SFMA = "SemCom/CRRA-v0", "SemCom/SFMA-v0"
SMALL = {"policy_kwargs": {"width": 16, "depth": 1, "start": [0.0, 0.0, 0.6]}}
VARY = {"num_users": [3, 5], "max_bandwidth_hz": [2e6, 8e6]}


def make(env_id: str = CRRA, vary: Any = VARY, n: int = 4, **options: Any) -> varied.VariedVecEnv:
    options |= {"backend": "torch"}
    return varied.make_varied_env(agents.make_vec_env(env_id, n, **options), env_id, vary, **options)


def run(folder: Path, **kwargs: Any) -> agents.Run:
    defaults: dict[str, Any] = {"timesteps": 640, "num_envs": 16, "evaluations": 4, "validation": 10, "scored": 0}
    return agents.train(CRRA, out=folder, progress=False, **({"hyperparams": SMALL, "vary": VARY} | defaults | kwargs))


def weights(model: Any) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def test_every_setting_has_its_turn() -> None:
    """In each round once, in an order and with instances that the seed decides."""
    env, again, other = make(), make(), make()
    for made, seed in ((env, 7), (again, 7), (other, 8)):
        made.seed(seed)
    shown = [made.reset() for made in (env, again, other)]
    np.testing.assert_array_equal(shown[0], shown[1])
    assert shown[0].shape != shown[2].shape or not np.array_equal(shown[0], shown[2])
    met = []
    for _ in range(8):
        params = env.venv.unwrapped.params
        met.append({"num_users": params.num_users, "max_bandwidth_hz": params.max_bandwidth_hz})
        action = torch.zeros(4, 3 * params.num_users)
        seen, same = env.step_batch(action)[0], again.step_batch(action)[0]
        np.testing.assert_array_equal(seen, same)
        assert seen.shape == (4, env.venv.unwrapped.observation_layout.size)
    for half in (met[:4], met[4:]):
        assert all(one in half for one in varied.settings(VARY))


@pytest.mark.parametrize(("env_id", "vary"), [(CRRA, VARY), (SFMA, {"max_bandwidth_hz": [5e6], "num_users": [4]})])
def test_a_percent_is_worth_the_same_everywhere(env_id: str, vary: dict[str, Any]) -> None:
    """Rewards and comparisons are in units of the preset's: divided by the solver's objective, relative to its own."""
    env = make(env_id, vary, penalty=30.0)
    env.seed(0)
    env.reset()
    own = envs.problem("crra" if env_id == CRRA else "sfma")
    sizes = []
    for params in (env.base.venv.unwrapped.params, env.venv.unwrapped.params):
        instance = own.sample_split(params, "train", varied.SCALED_BY)
        sizes.append(np.abs(baselines.solve(own.name, params, instance, "fast").objective).mean())
    generator = torch.Generator().manual_seed(0)
    action = 2.0 * torch.rand(4, env.venv.unwrapped.action_layout.size, generator=generator) - 1.0
    action.requires_grad_()
    outcome, _ = own.play(params, env.venv.unwrapped.instance, action)
    scale = sizes[1] / sizes[0]
    expected = outcome.objective / scale - 30.0 * outcome.cost
    compared = env.compare(action[None])[0]
    _, reward, done = env.step_batch(action)
    for value in (compared, reward):
        np.testing.assert_allclose(value.detach(), expected.detach(), rtol=1e-4)
    assert torch.autograd.grad(reward.sum(), action)[0].abs().max() > 0
    assert done.all()
    assert [episode["r"] for episode in env.finished_episodes()] == pytest.approx(reward.tolist())


def test_validation_is_the_mean_over_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make()
    model = agents.APG("SetPolicy", env, seed=0, device="cpu")
    found, _ = varied.VariedValidation(env, 48).measure(model)
    problem, rewards, gaps, scores = envs.problem("crra"), [], [], []
    for one, scale in zip(varied.settings(VARY), env.scale, strict=True):
        params = problem.preset("default", **one)
        instance = problem.sample_split(params, "validation", 12)
        x = problem.evaluate(params, instance, agents.allocate(model, problem, params, instance)).objective
        fast, anchor = (baselines.solve("crra", params, instance, name).objective for name in ("fast", "fra"))
        rewards.append(x.mean() / scale)
        gaps.append(((fast - x) / fast).mean())
        scores.append(((x - anchor) / (fast - anchor)).mean())
    assert found["validation/reward"] == pytest.approx(np.mean(rewards), rel=1e-9)
    assert found["validation/gap_to_solver"] == pytest.approx(np.mean(gaps), rel=1e-6)
    assert found["validation/worst_gap_to_solver"] == pytest.approx(np.max(gaps), rel=1e-6)
    assert found["validation/score_to_solver"] == pytest.approx(np.mean(scores), rel=1e-6)
    assert found["validation/feasible"] == 1.0
    assert not any("score" in name for name in varied.VariedValidation(env, 4, scored=False).measure(model)[0])


def test_learns_every_setting(tmp_path: Path) -> None:
    quick = SMALL | {"learning_rate": "cos_1e-2"}
    record = run(tmp_path, timesteps=20_000, num_envs=32, evaluations=1, scored=1, hyperparams=quick).record
    start, end = record["curve"][0], record["curve"][-1]
    assert end["worst_gap_to_solver"] < 0.5 * start["worst_gap_to_solver"]
    assert end["feasible"] == 1.0
    assert record["hyperparams"]["n_steps"] == 4
    assert record["vary"] == VARY
    assert record["command"].endswith("--vary num_users=3,5 --vary max_bandwidth_hz=2000000.0,8000000.0")


def test_a_stopped_run_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unbroken = run(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(training._Keeper, "_on_step", lambda self: _stop(self.num_timesteps >= 500))
        assert not run(tmp_path / "b").record["finished"]
    resumed = run(tmp_path / "b", resume=True)
    assert torch.equal(weights(resumed.model), weights(unbroken.model))
    assert [p["reward"] for p in resumed.record["curve"]] == [p["reward"] for p in unbroken.record["curve"]]
    for vary in ({"num_users": [3, 4]}, None):
        with pytest.raises(ValueError, match="was made with vary"):
            run(tmp_path / "b", resume=True, vary=vary)


def _stop(now: bool) -> bool:
    if now:
        raise KeyboardInterrupt
    return True


def test_ships_beside_the_agent_of_the_preset(tmp_path: Path) -> None:
    few = {"timesteps": 64, "evaluations": 1}
    (tmp_path / "shelf").mkdir()
    for name, vary in (("own", None), ("varied", VARY)):
        run(tmp_path / name, vary=vary, **few)
        agents.ship(tmp_path / name, folder=tmp_path / "shelf")
    own, many = agents.shipped(tmp_path / "shelf")
    assert (own["algo"], many["algo"], many["vary"]) == ("apg", "apg_varied", VARY)
    assert "vary" not in own
    trained = agents.APG.load(tmp_path / "varied" / "model.zip", device="cpu")
    loaded = agents.load(CRRA, "apg_varied", num_users=7, folder=tmp_path / "shelf")
    assert torch.equal(weights(loaded), weights(trained))
    assert not torch.equal(weights(agents.load(CRRA, folder=tmp_path / "shelf")), weights(trained))
    with pytest.raises(ValueError, match="no shipped agent 'CRRA-v0_hard_apg_varied'"):
        agents.load(CRRA, "apg_varied", "hard", folder=tmp_path / "shelf")
    task = protocol.task(CRRA, n=3, num_users=6)
    run_ = competitors.agent(task, f"many={tmp_path / 'varied'}").runs[0]
    assert run_.decide(task).feasible.all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"vary": [3, 4]}, "vary must be a dict of lists"),
        ({"vary": {"num_users": 3}}, "vary num_users must be a list of values, got 3"),
        ({"vary": {"num_users": []}}, "vary num_users must be a list of values"),
        ({"vary": {"num_users": [3, 3]}}, "vary num_users names a value twice"),
        ({"vary": {"num_user": [3]}}, "vary: unknown argument 'num_user'; valid: num_users"),
        ({"vary": {"num_users": [3, -1]}}, "num_users must be >= 1, got -1"),
        ({"num_users": 3}, "num_users is varied and set: leave one of them out"),
        ({"vary": {"num_users": list(range(1, 18)), "max_power_w": [0.001 * x for x in range(1, 18)]}}, "289 settings"),
        ({"algo": "ppo", "hyperparams": {}}, "vary is for apg: ppo holds to the spaces of one number of users"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as error:
        run(tmp_path, **kwargs)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run.json").exists()


def test_not_for_blocks_of_a_fading_channel(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vary is for ids of one decision, not for the blocks of SemCom/CRRAFading-v0"):
        agents.train("SemCom/CRRAFading-v0", vary=VARY, out=tmp_path)


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="fast finds nothing feasible with num_users=6, energy_per_group_j=1e-05"):
        make(SFMA, {"num_users": [6], "energy_per_group_j": [1e-5]})
    with pytest.raises(ValueError, match="vary changes what an action holds: "):
        make("SemCom/ASCC-v0", {"beamforming": ["duality", "explicit"]})


def test_values_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    given = ["num_users=4,8", "power=1e-3", "curve=a,b", "psnr_range_db=(26.5, 28),(33, 35)"]
    expected = {"num_users": [4, 8], "power": [1e-3], "curve": ["a", "b"], "psnr_range_db": [(26.5, 28), (33, 35)]}
    assert commands.parse_varied(given) == expected
    train = ["train", "--env", CRRA, "--out", str(tmp_path / "run"), "--timesteps", "64"]
    for bad, message in (
        (["num_users"], "--vary needs FIELD=VALUE,VALUE,..., got 'num_users'"),
        (["num_users="], "--vary needs FIELD=VALUE,VALUE,..., got 'num_users='"),
        (["num_users=3", "num_users=4"], "--vary names num_users twice"),
        (["num_user=3"], "vary: unknown argument 'num_user'"),
        (["num_users=many"], "num_users must be an integer, got 'many'"),
    ):
        assert cli.main([*train, *(text for entry in bad for text in ("--vary", entry))]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
