"""What every id returns for a fixed seed and fixed actions. A difference is a new version of the id, not a new file.

``python tests/test_envs_golden.py`` writes the file anew (only for an id that was never released).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import semcom_gym  # noqa: F401  registers the ids

GOLDEN = Path(__file__).parent / "golden" / "rollouts.json"
PRESETS = {
    "SemCom/CRRA-v0": ("default", "paper", "hard", "general"),  # the floors of select are too high to serve all
    "SemCom/CRRAUS-v0": ("default", "paper", "hard", "select", "general"),
    "SemCom/SFMA-v0": ("default", "paper", "loose", "tight", "pruned", "figures", "measured"),
    "SemCom/ASCC-v0": ("default", "paper", "two_user", "three_user", "hard", "measured"),
    "SemCom/Training-v0": ("default", "paper", "large", "hard", "measured"),
}
SEED, EPISODES = 2024, 4


def rollout(name: str, preset: str) -> dict[str, Any]:
    """Rewards (1e-9) of some episodes, the first observation (float32, so 1e-4) and the first allocation (1e-9)."""
    env = gym.make(name, preset=preset).unwrapped
    generator = np.random.default_rng(7)
    rewards = []
    record: dict[str, Any] = {}
    for k in range(EPISODES):
        observation, _ = env.reset(seed=SEED if k == 0 else None)
        action = generator.uniform(-0.5, 1.0, env.action_space.shape)
        _, reward, _, _, info = env.step(action)
        rewards.append(round(reward, 9))
        if k == 0:
            record = {"observation": [round(float(x), 4) for x in observation], **decision(info["terms"])}
    return {"rewards": rewards, **record}


def decision(terms: dict[str, Any]) -> dict[str, list[float]]:
    """What stands for the allocation in the file."""
    if "received" in terms:
        chosen = {"power_share": terms["power_w"] / terms["power_w"].sum(), "rate_index": terms["rate_index"]}
    else:
        chosen = {"bandwidth_share": terms["bandwidth_hz"] / terms["bandwidth_hz"].sum(), "ratio": terms["ratio"]}
    record = {name: [round(float(x), 9) for x in value] for name, value in chosen.items()}
    return record | ({"pair": terms["pair"].tolist()} if "pair" in terms else {})


def cases() -> list[tuple[str, str]]:
    return [(name, preset) for name, presets in PRESETS.items() for preset in presets]


def test_golden_rollouts(env_and_preset: tuple[str, str]) -> None:
    expected = json.loads(GOLDEN.read_text())[" ".join(env_and_preset)]
    got = rollout(*env_and_preset)
    np.testing.assert_allclose(got["rewards"], expected["rewards"], atol=2e-9, rtol=0)
    np.testing.assert_allclose(got["observation"], expected["observation"], atol=2e-4, rtol=0)
    assert set(got) == set(expected)
    for key in set(got) - {"rewards", "observation", "pair"}:
        np.testing.assert_allclose(got[key], expected[key], atol=2e-9, rtol=0)
    assert got.get("pair") == expected.get("pair")
    assert len(set(expected["rewards"])) == EPISODES, "a golden rollout must not be one of zeros"


def test_every_case_is_in_the_file() -> None:
    assert set(json.loads(GOLDEN.read_text())) == {" ".join(case) for case in cases()}


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(' '.join(case))}: {json.dumps(rollout(*case))}" for case in cases()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
