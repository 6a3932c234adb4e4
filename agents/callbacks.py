"""What training writes to TensorBoard, and solvers beside it: rewards, scores, violations, terms, times, pictures."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam, Image, Logger

from semcom_gym import baselines
from semcom_gym.agents.apg import APG
from semcom_gym.agents.decisions import allocate
from semcom_gym.agents.vec_env import PER_USER, SB3VecEnv
from semcom_gym.envs.arrays import Array, to_numpy
from semcom_gym.envs.problems import Problem

NEAR = 1e-3  # instances whose anchor is nearer to the bound than this share of it have no score
ONLY_TENSORBOARD = ("stdout", "log", "json", "csv")


@dataclasses.dataclass(frozen=True)
class Reference:
    """What validation scores are measured by: the objective of the anchor and a proven bound, each (n,)."""

    anchor: Array
    bound: Array

    @classmethod
    def prove(cls, problem: Problem, params: Any, instance: Any) -> Reference:
        """Solve the anchor and prove the bound of every instance."""
        anchor = baselines.solve(problem.name, params, instance, baselines.anchor(problem.name))
        bound = baselines.bound(problem.name, params, instance)
        return cls(np.where(anchor.feasible, anchor.objective, np.nan), np.asarray(bound.value))

    def score(self, objective: Array, feasible: Array) -> Array:
        """(x - anchor) / (bound - anchor), (n,): -1 where infeasible, NaN for an instance that has no score."""
        room = self.bound - self.anchor
        scored = np.isfinite(room) & (np.abs(room) >= NEAR * np.abs(self.bound))
        value = (objective - self.anchor) / np.where(scored, room, 1.0)
        return np.where(scored, np.where(feasible, value, -1.0), np.nan)


class Validation:
    """Measures a model on fixed instances of the validation split.

    reference: of the same instances, or of the first few of them, or None for no scores.
    """

    def __init__(
        self, problem: Problem, params: Any, n: int = 100, *, penalty: float = 1.0, reference: Reference | None = None
    ) -> None:
        self.problem, self.params, self.penalty, self.reference = problem, params, penalty, reference
        self.instance = problem.sample_split(params, "validation", n)

    @classmethod
    def on(cls, env: SB3VecEnv, n: int, scored: int, reference: Reference | None) -> Validation:
        """On the parameters of ``env``, where no ``reference`` is given with one that is proven for ``scored``."""
        venv = env.venv.unwrapped
        validation = cls(venv.problem, venv.params, n, penalty=venv.penalty, reference=reference)
        if scored and reference is None:
            first = validation.instance[: min(n, scored)]
            validation.reference = Reference.prove(venv.problem, venv.params, first)
        return validation

    def measure(self, model: BaseAlgorithm) -> tuple[dict[str, float], Any]:
        """Means over the instances by TensorBoard tag, and the outcome of all decisions."""
        started = time.perf_counter()
        allocation = allocate(model, self.problem, self.params, self.instance)
        seconds = time.perf_counter() - started
        outcome = self.problem.evaluate_unchecked(self.params, self.instance, allocation)
        reward = self.problem.reward(outcome, self.penalty)
        result = {
            "validation/reward": reward.mean(),
            "validation/objective": outcome.objective.mean(),
            "validation/feasible": outcome.feasible.mean(),
            "validation/decision_ms": 1e3 * seconds / len(reward),
        }
        result |= self._scores(outcome)
        result |= {f"validation/violation/{name}": value.mean() for name, value in outcome.violation.items()}
        result |= {f"validation/terms/{name}": value.mean() for name, value in outcome.terms.items()}
        return {name: float(value) for name, value in result.items()}, outcome

    def _scores(self, outcome: Any) -> dict[str, float]:
        if self.reference is None:
            return {}
        n, bound = len(self.reference.bound), self.reference.bound
        objective, feasible = outcome.objective[:n], outcome.feasible[:n]
        gap = np.abs(bound - objective) / np.abs(bound)
        return {
            "validation/score": np.nanmean(self.reference.score(objective, feasible)),
            "validation/gap": np.nanmean(np.where(np.isfinite(gap), gap, np.nan)),
        }

    def picture(self, outcome: Any) -> Array:
        """The first instance and its decision as an image (H, W, 3)."""
        from semcom_gym.envs import render

        bound = None if self.reference is None else float(self.reference.bound[0])
        return render.frame(self.problem, self.params, self.instance[0], first_row(outcome), bound)


def first_row(outcome: Any) -> Any:
    """The outcome of the first instance alone."""
    return dataclasses.replace(
        outcome,
        objective=outcome.objective[:1],
        violation={name: value[:1] for name, value in outcome.violation.items()},
        terms={name: value[:1] for name, value in outcome.terms.items()},
    )


class TrainingLog(BaseCallback):
    """Means over the environments of what the last step gave, every ``every`` rollouts, and the gradient's norm."""

    def __init__(self, every: int = 10) -> None:
        super().__init__()
        self.every = every
        self._rollouts = 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._rollouts += 1
        env = self.training_env.unwrapped
        if self._rollouts % self.every or not isinstance(env, SB3VecEnv):
            return
        for name, value in env.final_info.items():
            if name == PER_USER:
                for term, rows in value.items():
                    self.logger.record(f"terms/{term}", to_numpy(rows).mean().item())
            else:
                tag = name if name.startswith("violation/") else f"rollout/{name}"
                self.logger.record(tag, to_numpy(value).mean().item())
        if not isinstance(self.model, APG):  # which records it itself, before clipping
            self.logger.record("train/grad_norm", gradient_norm(self.model))


def gradient_norm(model: BaseAlgorithm) -> float:
    """Norm of the gradient that the last update left on the policy's parameters (clipped where SB3 clips)."""
    gradients = [p.grad for p in model.policy.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


def is_finite(model: BaseAlgorithm) -> bool:
    """Whether all weights, and what the last update left of their gradients, are finite."""
    found = [x for p in model.policy.parameters() for x in (p, p.grad) if x is not None]
    return all(bool(torch.isfinite(x).all()) for x in found)


def log_validation(logger: Logger, result: dict[str, float], picture: Array | None, step: int) -> None:
    """Write a validation result, and a picture if there is one, at ``step`` timesteps."""
    for name, value in result.items():
        logger.record(name, value)
    if picture is not None:
        logger.record("figures/allocation", Image(picture, "HWC"), exclude=ONLY_TENSORBOARD)
    logger.dump(step)


def log_hyperparameters(logger: Logger, hyperparams: dict[str, Any], metrics: list[str]) -> None:
    """Write the HParams page: numbers and text as they are, anything else as its text."""
    flat = {name: x if isinstance(x, (bool, int, float, str)) else repr(x) for name, x in hyperparams.items()}
    logger.record("hparams", HParam(flat, dict.fromkeys(metrics, 0.0)), exclude=ONLY_TENSORBOARD)


def log_solution(
    folder: str | Path, problem: str, method: str, solution: Any, reference: Reference | None = None
) -> None:
    """Write a solver's result to a TensorBoard log, to be read beside an agent's.

    folder: of the log; the solver gets its own run ``<problem>-<method>`` in it. reference: of the same instances.
    Tags: ``solver/objective`` after each iteration (mean over instances, each carried on after it stopped),
    ``solver/iterations``, and of the result the means that agents log, under the same names: ``validation/objective``,
    ``feasible``, ``decision_ms`` and, with a reference, ``score``.
    """
    from torch.utils.tensorboard import SummaryWriter

    result = {"objective": solution.objective, "feasible": solution.feasible, "decision_ms": 1e3 * solution.seconds}
    if reference is not None:
        result["score"] = reference.score(solution.objective, solution.feasible)
    with SummaryWriter(str(Path(folder) / f"{problem}-{method}")) as writer:
        for iteration, value in enumerate(_carried(solution.trace)):
            writer.add_scalar("solver/objective", value, iteration)
        for name, value in result.items():
            writer.add_scalar(f"validation/{name}", float(np.nanmean(value)), 0)
        writer.add_histogram("solver/iterations", np.asarray(solution.iterations), 0)


def _carried(trace: Array) -> Array:
    """Mean over instances of traces (n, k) with each instance's last value carried on over its NaNs."""
    trace = np.array(trace, float)
    for k in range(1, trace.shape[1]):
        trace[:, k] = np.where(np.isnan(trace[:, k]), trace[:, k - 1], trace[:, k])
    return np.nanmean(trace, axis=0) if trace.size else trace[0]
