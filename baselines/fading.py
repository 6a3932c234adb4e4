"""Solvers that play the ``Fading`` ids, and the genie: a proven bound for whoever sees everything."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from semcom_gym.baselines.solution import bound, solve
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array, to_numpy
from semcom_gym.envs.fading import Episode
from semcom_gym.envs.fading_env import FadingVectorEnv
from semcom_gym.envs.fading_setup import FadingSetup

SEES = ("belief", "prediction", "truth")
MARGINS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)


@dataclasses.dataclass(frozen=True)
class SolverPolicy:
    """Plays a solver of one-decision instances, certainty-equivalent: what it is shown is taken for the truth.

    method: registered for the problem. margin: factor on every channel power that it is shown; below 1 is cautious.
    sees: ``belief`` (late and with error, as the agent), ``prediction`` (the mean of the channel power, given what is
    seen and the mean over the fading) or ``truth`` (which no agent has). An energy budget is spread evenly over the
    blocks that are left. A decision for a channel that is not the true one may turn out infeasible.
    """

    method: str
    margin: float = 1.0
    sees: str = "belief"

    def __post_init__(self) -> None:
        validate.number("margin", self.margin)
        validate.choice("sees", self.sees, SEES)

    def __call__(self, env: FadingSetup) -> Any:
        """The allocations of the current blocks, for ``env.step_allocation``.

        Raises ValueError for a method that the problem lacks.
        """
        if self.sees == "prediction":
            shown = env.predicted_instance()
        else:
            shown = env.instance if self.sees == "belief" else env.true_instance
        shown = env.channel.scaled(_float64(shown), self.margin)
        if env.fading.energy_share is not None:
            shown = env.with_power(shown, to_numpy(env.spending_limits()[1]).astype(float))
        return solve(env.problem.name, env.params, shown, self.method).allocation


def _float64(instance: Any) -> Any:
    """The instance on NumPy, its fractions in float64."""
    return instance.map(to_numpy).map(lambda x: x.astype(float) if x.dtype.kind == "f" else x)


# --- playing -----------------------------------------------------------------------------------------------------
@dataclasses.dataclass(frozen=True)
class Played:
    """What a policy reached: objective, reward, feasible, each (n, T); seconds of deciding, per decision."""

    objective: Array
    reward: Array
    feasible: Array
    seconds: float


def blocks(
    env: FadingVectorEnv, episode: Episode, policy: SolverPolicy | Callable[[Any, Array], Array]
) -> Iterator[tuple[float, Array, dict[str, Any]]]:
    """Play as :func:`play` does: seconds of deciding, reward and info of one block after the other."""
    observation, _ = env.reset(options={"episode": episode})
    step = env.step_allocation if isinstance(policy, SolverPolicy) else env.step
    for _ in range(episode.horizon):
        started = time.perf_counter()
        decision = policy(env) if isinstance(policy, SolverPolicy) else policy(env, observation)
        seconds = time.perf_counter() - started
        observation, reward, _, _, info = step(decision)
        yield seconds, reward, info


def play(env: FadingVectorEnv, episode: Episode, policy: SolverPolicy | Callable[[Any, Array], Array]) -> Played:
    """Play a solver, or ``policy(env, observation) -> actions``, on episodes, one per sub-environment of ``env``."""
    rows, seconds = [], 0.0
    for spent, reward, info in blocks(env, episode, policy):
        seconds += spent
        rows.append([to_numpy(x) for x in (info["objective"], reward, info["feasible"])])
    objective, reward, feasible = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
    return Played(objective, reward, feasible, seconds / objective.size)


def choose_margin(
    env: FadingVectorEnv, episode: Episode, method: str, *, sees: str = "belief", margins: Sequence[float] = MARGINS
) -> SolverPolicy:
    """The margin with the largest mean reward on ``episode``, which should be of the train or validation split."""
    if not margins:
        raise ValueError("margins must not be empty")
    policies = [SolverPolicy(method, margin, sees) for margin in margins]
    return max(policies, key=lambda policy: float(play(env, episode, policy).reward.mean()))


# --- the genie ---------------------------------------------------------------------------------------------------
def genie(env: FadingVectorEnv, episode: Episode) -> Array:
    """A proven bound (n,) on the sum of objectives over the blocks of an episode, whatever is known in advance.

    Of decisions that are feasible in every block: an upper bound, or a lower one where the problem minimises.

    Without an energy budget the blocks do not touch each other, and the sum of the bounds of all blocks is one.
    With it, let V_t(u) be the largest objective of block t with the share u of its power. The budget relaxed with a
    multiplier nu >= 0, any episode that meets it has

        sum_t V_t(u_t) <= sum_t [V_t(u_t) - nu u_t] + nu E <= sum_t max_u [L_t(u) - nu u] + nu E,

    E the budget in blocks of full power, L_t >= V_t the least of the lines of the problem's ``power_lines``. L_t is
    concave and piecewise linear, so the maximum over 0 <= u <= 1 is at an end or where two lines cross, and the right
    side is convex and piecewise linear in nu, with its corners at the slopes of the lines: all are tried.
    """
    if env.fading.energy_share is None:
        value = np.asarray(bound(env.problem.name, env.params, episode.blocks(true=True)).value)
        return np.asarray(value.reshape(len(episode), episode.horizon).sum(axis=1))
    lines = importlib.import_module(f"semcom_gym.baselines.{env.problem.name}").power_lines
    intercept, slope = lines(env.params, episode.blocks(true=True))
    shape = (len(episode), episode.horizon, -1)
    budget = env.fading.energy_share * episode.horizon
    pairs = zip(intercept.reshape(shape), slope.reshape(shape), strict=True)
    return np.array([best_spending(a, b, budget) for a, b in pairs])


def best_spending(intercept: Array, slope: Array, budget: float) -> float:
    """The least bound over nu >= 0 on max sum_t min_k (a_tk + b_tk u_t), 0 <= u_t <= 1, sum_t u_t <= budget.

    intercept a, slope b (T, k). Every nu gives a valid bound.
    """
    i, j = np.triu_indices(intercept.shape[1], 1)
    rise = slope[:, i] - slope[:, j]
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(rise == 0, 0.0, (intercept[:, j] - intercept[:, i]) / rise)
    ends = np.broadcast_to([0.0, 1.0], (len(slope), 2))
    u = np.concatenate([ends, np.clip(cross, 0.0, 1.0)], axis=1)  # (T, c)
    value = np.min(intercept[:, None] + slope[:, None] * u[..., None], axis=-1)
    nu = np.concatenate([[0.0], np.maximum(slope.ravel(), 0.0)])
    net = np.max(value[None] - nu[:, None, None] * u[None], axis=-1)  # (nu, T)
    return float(np.min(net.sum(axis=1) + nu * budget))
