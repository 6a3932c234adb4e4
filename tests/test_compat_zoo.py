"""rl-zoo3 trains from the same hyper-parameters as ``semcom-gym train``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml

from semcom_gym import agents, envs
from semcom_gym.agents import hyperparams

torch.set_num_threads(1)
CASES = [
    (algo, env_id)
    for algo in agents.ALGORITHMS
    if algo not in hyperparams.OWN
    for env_id in yaml.safe_load((Path(hyperparams.__file__).parent / "hyperparams" / f"{algo}.yml").read_text())
]


@pytest.mark.parametrize(("algo", "env_id"), CASES)
def test_an_entry_says_all_that_the_algorithm_needs(algo: str, env_id: str) -> None:
    entry: dict[str, Any] = yaml.safe_load(yaml.safe_dump(hyperparams.for_zoo(env_id, algo)))
    module, _, name = entry["policy"].rpartition(".")
    env = gym.make(env_id)
    policy = getattr(sys.modules[module], name)(
        env.observation_space, env.action_space, lambda _: 1e-3, **entry["policy_kwargs"]
    )
    found = policy.predict(env.reset(seed=0)[0], deterministic=True)[0]
    assert env.action_space.contains(np.asarray(found, env.action_space.dtype)[()])
    ours = hyperparams.load(env_id, algo)
    same = set(ours) - {"policy", "policy_kwargs"}
    assert {key: entry[key] for key in same} == {key: ours[key] for key in same}
    assert ("noise_type" in entry) == ("noise_std" in entry)


@pytest.mark.parametrize("algo", hyperparams.OWN)
def test_our_own_algorithms_are_not_in_the_zoo(algo: str) -> None:
    with pytest.raises(ValueError, match=f"unknown algorithm of rl-zoo3 '{algo}'"):
        hyperparams.for_zoo("SemCom/CRRA-v0", algo)


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "td3"])
def test_the_zoo_trains(algo: str, tmp_path: Path) -> None:
    pytest.importorskip("rl_zoo3", reason="not installed: pip install rl-zoo3")
    env_id = "SemCom/CRRA-v0"
    entry = hyperparams.for_zoo(env_id, algo, "hard")
    entry |= {"n_envs": 8} | ({"batch_size": 128, "n_steps": 64} if algo == "ppo" else {"learning_starts": 100})
    (tmp_path / "zoo.yml").write_text(yaml.safe_dump({env_id: entry}))
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", algo, "--env", env_id, "--conf-file", "zoo.yml"]
    command += ["--gym-packages", "semcom_gym", "-n", "4096" if algo == "ppo" else "400", "-f", "logs", "--seed", "1"]
    command += ["--eval-freq", "-1", "--num-threads", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "logs" / algo).glob("*/SemCom-CRRA-v0.zip")
    model = agents.ALGORITHMS[algo][0].load(file, device="cpu")
    problem = envs.problem("crra")
    params = problem.preset("hard")
    instance = problem.sample_split(params, "validation", 20)
    allocation = agents.allocate(model, problem, params, instance)
    assert problem.evaluate(params, instance, allocation).feasible.all()
