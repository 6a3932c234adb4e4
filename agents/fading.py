"""Validation of agents on the ``Fading`` ids: whole episodes of the validation split, measured as in training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm

from semcom_gym import baselines
from semcom_gym.agents.callbacks import Reference, Validation, first_row
from semcom_gym.agents.decisions import act
from semcom_gym.agents.vec_env import SB3VecEnv
from semcom_gym.baselines import fading as genies
from semcom_gym.envs.arrays import Array, to_numpy
from semcom_gym.envs.fading_env import FadingVectorEnv
from semcom_gym.envs.fading_setup import FadingSetup
from semcom_gym.envs.outcome import Outcome


class Player:
    """Plays a model block by block, as ``baselines.fading.play`` asks for it: ``player(env, observation) -> actions``.

    A policy with memory keeps it from block to block, and forgets where an episode starts.
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        self.model = model
        self.state: tuple[Array, ...] | None = None

    def __call__(self, env: FadingSetup, observation: Array) -> Array:
        """Actions (n, d), float32, of the current blocks of ``env``."""
        if not isinstance(self.model.policy, RecurrentActorCriticPolicy):
            return act(self.model, observation)
        observation = to_numpy(observation).astype(np.float32)
        actions, self.state = self.model.policy.predict(
            observation, self.state, episode_start=env.blocks_done == 0, deterministic=True
        )
        return actions


class FadingValidation:
    """Measures a model on fixed episodes of a split.

    scored: blocks with a proven bound, in whole episodes: the first ones get a score, (x - anchor) / (genie - anchor)
    with x the reward over an episode, which is the objective where all blocks are feasible, and less where not; the
    anchor is the problem's, played on what the agent sees.
    """

    def __init__(self, env: FadingVectorEnv, n: int = 100, scored: int = 20, split: str = "validation") -> None:
        self.env = env.alike(n)
        self.episode = self.env.episodes(split, n)
        self.bound = self.anchor = np.empty(0)
        if scored:
            few = self.env.episodes(split, min(n, math.ceil(scored / self.episode.horizon)))
            judge = self.env.alike(len(few))
            self.bound = (1.0 if env.problem.maximise else -1.0) * genies.genie(judge, few)
            equal = genies.SolverPolicy(baselines.anchor(env.problem.name))
            self.anchor = genies.play(judge, few, equal).reward.sum(axis=1)

    def measure(self, model: BaseAlgorithm) -> tuple[dict[str, float], Outcome]:
        """Means over episodes and blocks by TensorBoard tag, and the outcome of the last blocks."""
        played = list(genies.blocks(self.env, self.episode, Player(model)))
        seconds = sum(spent for spent, _, _ in played)
        rewards, infos = [reward for _, reward, _ in played], [info for _, _, info in played]
        names = ["objective", "feasible", *(name for name in infos[0] if name.startswith("violation/"))]
        result = {name: np.mean([info[name] for info in infos]) for name in names}
        result |= {f"terms/{name}": np.mean([i["terms"][name] for i in infos]) for name in infos[0]["terms"]}
        result |= {"reward": np.mean(rewards), "decision_ms": 1e3 * seconds / np.size(rewards)}
        result |= self._scores(np.sum(rewards, axis=0))
        assert self.env.outcome is not None
        return {f"validation/{name}": float(value) for name, value in result.items()}, self.env.outcome

    def _scores(self, total: Array) -> dict[str, float]:
        if not len(self.bound):
            return {}
        x = total[: len(self.bound)]
        score = (x - self.anchor) / (self.bound - self.anchor)
        return {"score": score.mean(), "gap": ((self.bound - x) / np.abs(self.bound)).mean()}

    def picture(self, outcome: Outcome) -> Array:
        """The last block of the first episode and its decision as an image (H, W, 3)."""
        from semcom_gym.envs import render

        env: Any = self.env
        return render.frame(env.problem, env.params, env.met[0], first_row(outcome))


def scores_on_test(
    model: BaseAlgorithm, env: FadingVectorEnv, n: int = 100, scored: int | None = None
) -> dict[str, float]:
    """What a model reaches on the first ``n`` episodes of the test split, for its card.

    scored: blocks with a proven bound, in whole episodes, which score and gap are of; all if None.
    """
    measured = FadingValidation(env, n, n * env.fading.horizon if scored is None else scored, "test")
    found, _ = measured.measure(model)
    names = ("reward", "objective", "feasible", "score", "gap")
    return {name: found[f"validation/{name}"] for name in names} | {"n": n, "proven": len(measured.bound)}


def judge(env: SB3VecEnv, n: int, scored: int, reference: Reference | None = None) -> Validation | FadingValidation:
    """What measures a model of ``env`` on the validation split: on n instances, or on n episodes of a fading id.

    Raises ValueError for a ``reference`` with a fading id, which proves its own.
    """
    venv = env.venv.unwrapped
    if not isinstance(venv, FadingVectorEnv):
        return Validation.on(env, n, scored, reference)
    if reference is not None:
        raise ValueError("reference is for ids of one decision; a fading id proves its own")
    return FadingValidation(venv, n, scored)
