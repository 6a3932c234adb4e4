"""Shipped agents: cards, hashes, another number of users."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from semcom_gym import agents, envs
from semcom_gym.agents.fading import FadingValidation
from semcom_gym.benchmarks import competitors, protocol, store
from semcom_gym.benchmarks.leaderboard import leaderboard

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    small = {"policy_kwargs": {"width": 16, "depth": 1, "start": [0.0, 0.0, 0.6]}}
    settings = {"timesteps": 64, "num_envs": 32, "evaluations": 1, "validation": 5, "scored": 0}
    agents.train("SemCom/CRRA-v0", "apg", out=folder, hyperparams=small, progress=False, **settings)
    return folder


@pytest.fixture
def shelf(run_folder: Path, tmp_path: Path) -> Path:
    agents.ship(run_folder, {"test": {"score": 0.5}}, folder=tmp_path)
    return tmp_path


def test_ship_and_load(shelf: Path, run_folder: Path) -> None:
    card = json.loads((shelf / "CRRA-v0_default_apg.json").read_text())
    assert agents.shipped(shelf) == [card]
    record = json.loads((run_folder / "run.json").read_text())
    assert card["scores"] == {"validation": record["best"], "test": {"score": 0.5}}
    assert card["command"] == record["command"]
    model = agents.load("SemCom/CRRA-v0", folder=shelf)
    original = agents.APG.load(run_folder / "model.zip", device="cpu")
    env = agents.make_vec_env("SemCom/CRRA-v0", 4, seed=0)
    observation = env.reset()
    np.testing.assert_array_equal(model.predict(observation)[0], original.predict(observation)[0])
    assert not model.policy.optimizer.state_dict()["state"]  # half of the size would be the optimiser's


def test_loads_for_another_number_of_users(shelf: Path) -> None:
    model = agents.load("SemCom/CRRA-v0", num_users=6, folder=shelf)
    env = agents.make_vec_env("SemCom/CRRA-v0", 4, num_users=6, backend="torch")
    assert model.predict(env.reset())[0].shape == (4, 18)
    tuned = agents.APG.load(shelf / "CRRA-v0_default_apg.zip", device="cpu", custom_objects={
        "observation_space": env.observation_space, "action_space": env.action_space}, env=env)  # fmt: skip
    tuned.learn(8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "'CRRA-v0_default_apg.zip' is corrupt"),
        (lambda path: path.unlink(), "'CRRA-v0_default_apg.zip' is missing"),
        (lambda path: path.with_suffix(".json").write_text("{}"), "'CRRA-v0_default_apg.json' is corrupt"),
        (lambda path: path.with_suffix(".json").write_text("{"), "agent card .*missing or corrupt"),
        (lambda path: path.with_suffix(".json").unlink(), "no shipped agent 'CRRA-v0_default_apg'; shipped: none"),
    ],
)
def test_damaged_files(shelf: Path, damage: object, message: str) -> None:
    damage(shelf / "CRRA-v0_default_apg.zip")  # type: ignore[operator]
    with pytest.raises(ValueError, match=message) as error:
        agents.load("SemCom/CRRA-v0", folder=shelf)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"algo": "dqn"}, "unknown algorithm 'dqn'"),
        ({"preset": "esy"}, "unknown crra preset 'esy'"),
        ({"preset": "paper"}, "no shipped agent 'CRRA-v0_paper_apg'; shipped: CRRA-v0_default_apg"),
        ({"env_id": "SemCom/CRRB-v0"}, "unknown environment id"),
    ],
)
def test_unknown_agents(shelf: Path, kwargs: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agents.load(**({"env_id": "SemCom/CRRA-v0"} | kwargs), folder=shelf)


def test_only_finished_runs_are_shipped(run_folder: Path, tmp_path: Path) -> None:
    record = json.loads((run_folder / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"finished": False}))
    with pytest.raises(ValueError, match="is not finished"):
        agents.ship(tmp_path, folder=tmp_path)
    with pytest.raises(ValueError, match="is missing or corrupt"):
        agents.ship(tmp_path / "none", folder=tmp_path)


def test_agents_in_the_package_are_what_their_cards_say() -> None:
    for card in agents.shipped():
        if card["env_id"] in envs.FADING_IDS or card["algo"] not in agents.ALGORITHMS:
            continue  # on drawn problems validation is over all of them; the test split says what holds of the preset
        model = agents.load(card["env_id"], card["algo"], card["preset"])
        venv = agents.make_vec_env(card["env_id"], 1, preset=card["preset"]).venv.unwrapped
        problem, params = venv.problem, venv.params
        instance = problem.sample_split(params, "validation", 100)
        outcome = problem.evaluate(params, instance, agents.allocate(model, problem, params, instance))
        promised = card["scores"]["validation"]
        assert outcome.feasible.mean() == pytest.approx(promised["feasible"], abs=0.011)
        assert outcome.objective.mean() == pytest.approx(promised["objective"], rel=1e-3)
        assert len(card["sha256"]) == 64


def test_without_a_name_the_agent_that_ships() -> None:
    cards = agents.shipped()
    for card in cards:
        if card["algo"] in agents.ALGORITHMS:  # those on drawn problems are beside one of the preset
            found = agents.load(card["env_id"], preset=card["preset"])
            assert type(found) is agents.ALGORITHMS[card["algo"]][0]
        else:
            assert any(
                c["algo"] == "apg" and (c["env_id"], c["preset"]) == (card["env_id"], card["preset"]) for c in cards
            )
    with pytest.raises(ValueError, match="no shipped agent 'SFMAPairing-v0_tight_apg'"):
        agents.load("SemCom/SFMAPairing-v0", preset="tight")


def test_scores_on_cards_are_those_of_the_test_split(tmp_path: Path) -> None:
    """Against the bounds that ship: what ``semcom-gym ship`` wrote is what the agent reaches with this code."""
    cells = store.Store(tmp_path)
    for card in agents.shipped():
        if card["env_id"] not in envs.IDS:
            continue
        promised = card["scores"]["test"]
        task = protocol.task(card["env_id"], card["preset"], n=promised["n"])
        [row] = leaderboard(task, [competitors.agent(task, card["algo"])], cells, single=0).rows
        assert row.feasible == pytest.approx(promised["feasible"], abs=0.011)
        assert row.loss == pytest.approx(promised["loss"], rel=0.01)
        assert row.mean_score.value == pytest.approx(promised["mean_score"], abs=2e-3)


def test_fading_agents_in_the_package_are_what_their_cards_say() -> None:
    cards = [card for card in agents.shipped() if card["env_id"] in envs.FADING_IDS]
    assert cards
    for card in cards:
        model = agents.load(card["env_id"], card["algo"], card["preset"])
        env = agents.make_vec_env(card["env_id"], 1, preset=card["preset"]).venv.unwrapped
        found = FadingValidation(env, 100, scored=0).measure(model)[0]
        promised = card["scores"]["validation"]
        assert found["validation/reward"] == pytest.approx(promised["reward"], rel=2e-3), card["env_id"]
        assert found["validation/feasible"] == pytest.approx(promised["feasible"], abs=0.01)
        assert card["scores"]["test"]["gap"] > 0.0
