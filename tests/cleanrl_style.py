"""PPO for continuous actions in one file, in the manner of CleanRL: other people's training code, on our ids.

It knows Gymnasium and nothing of this package: environments by ``gym.make`` under the usual wrappers, in a
``gym.vector.SyncVectorEnv``. ``python tests/cleanrl_style.py SemCom/CRRA-v0`` trains and prints.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal


@dataclasses.dataclass
class Args:
    """What can be set."""

    env_id: str
    env_kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 1
    total_timesteps: int = 100_000
    num_envs: int = 16
    num_steps: int = 64
    learning_rate: float = 1e-3
    gamma: float = 0.99
    gae_lambda: float = 0.95
    num_minibatches: int = 4
    update_epochs: int = 5
    clip_coef: float = 0.2
    ent_coef: float = 0.0
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5
    first_logstd: float = -1.0


def make_env(args: Args) -> Callable[[], gym.Env]:
    def thunk() -> gym.Env:
        env = gym.make(f"semcom_gym:{args.env_id}", **args.env_kwargs)
        env = gym.wrappers.FlattenObservation(env)
        env = gym.wrappers.RecordEpisodeStatistics(env)
        env = gym.wrappers.ClipAction(env)
        env = gym.wrappers.NormalizeObservation(env)
        env = gym.wrappers.TransformObservation(env, lambda seen: np.clip(seen, -10, 10), env.observation_space)
        env = gym.wrappers.NormalizeReward(env, gamma=args.gamma)
        return gym.wrappers.TransformReward(env, lambda reward: float(np.clip(reward, -10, 10)))

    return thunk


def layer(inputs: int, outputs: int, scale: float = np.sqrt(2)) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, scale)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    def __init__(self, envs: gym.vector.VectorEnv, first_logstd: float) -> None:
        super().__init__()
        seen = int(np.prod(envs.single_observation_space.shape))
        acts = int(np.prod(envs.single_action_space.shape))
        self.critic = nn.Sequential(layer(seen, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
        self.mean = nn.Sequential(layer(seen, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, acts, 0.01))
        self.logstd = nn.Parameter(torch.full((1, acts), first_logstd))

    def forward(self, seen: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Action, its log-probability, the entropy, the value."""
        mean = self.mean(seen)
        found = Normal(mean, self.logstd.exp().expand_as(mean))
        action = found.sample() if action is None else action
        return action, found.log_prob(action).sum(1), found.entropy().sum(1), self.critic(seen)[:, 0]


def advantages(rewards: Tensor, values: Tensor, ended: Tensor, last: Tensor, args: Args) -> Tensor:
    """Generalised advantage estimates (T, n); ``ended`` (T, n): the episode ended in that step."""
    found, running = torch.zeros_like(rewards), torch.zeros_like(last)
    for t in reversed(range(len(rewards))):
        going = 1.0 - ended[t]
        after = last if t == len(rewards) - 1 else values[t + 1]
        running = rewards[t] + args.gamma * going * after - values[t] + args.gamma * args.gae_lambda * going * running
        found[t] = running
    return found


def update(agent: Agent, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor], args: Args) -> None:
    size = len(batch["action"])
    for _ in range(args.update_epochs):
        for rows in torch.randperm(size).chunk(args.num_minibatches):
            _, logprob, entropy, value = agent(batch["seen"][rows], batch["action"][rows])
            ratio = (logprob - batch["logprob"][rows]).exp()
            gain = batch["advantage"][rows]
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            loss = -torch.minimum(gain * ratio, gain * clipped).mean() - args.ent_coef * entropy.mean()
            loss = loss + args.vf_coef * 0.5 * (value - batch["return"][rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()


def train(args: Args) -> list[float]:
    """The return of every episode, in the order in which they ended."""
    torch.manual_seed(args.seed)
    envs = gym.vector.SyncVectorEnv(
        [make_env(args) for _ in range(args.num_envs)], autoreset_mode=gym.vector.AutoresetMode.SAME_STEP
    )
    agent = Agent(envs, args.first_logstd)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    seen = torch.as_tensor(envs.reset(seed=args.seed)[0], dtype=torch.float32)
    returns: list[float] = []
    updates = args.total_timesteps // (args.num_envs * args.num_steps)
    for k in range(updates):
        optimizer.param_groups[0]["lr"] = args.learning_rate * (1.0 - k / updates)
        rows: dict[str, list[Tensor]] = {n: [] for n in ("seen", "action", "logprob", "value", "reward", "ended")}
        for _ in range(args.num_steps):
            with torch.no_grad():
                action, logprob, _, value = agent(seen)
            after, reward, terminated, truncated, infos = envs.step(action.numpy())
            step = (seen, action, logprob, value, reward, terminated | truncated)
            for name, x in zip(rows, step, strict=True):
                rows[name].append(torch.as_tensor(x, dtype=torch.float32))
            seen = torch.as_tensor(after, dtype=torch.float32)
            if "final_info" in infos:
                returns += infos["final_info"]["episode"]["r"][infos["_final_info"]].tolist()
        held = {name: torch.stack(x) for name, x in rows.items()}
        with torch.no_grad():
            gain = advantages(held["reward"], held["value"], held["ended"], agent(seen)[3], args)
        held |= {"advantage": gain, "return": gain + held["value"]}
        update(agent, optimizer, {name: x.flatten(0, 1) for name, x in held.items()}, args)
    envs.close()
    return returns


if __name__ == "__main__":
    found = train(Args(sys.argv[1] if len(sys.argv) > 1 else "SemCom/CRRA-v0"))
    tenth = max(1, len(found) // 10)
    print(f"mean return of the first tenth {np.mean(found[:tenth]):.4f}, of the last {np.mean(found[-tenth:]):.4f}")
