"""Offline reinforcement learning on a data set of ``semcom-gym dataset``: TD3 + BC (Fujimoto and Gu, 2021).

The critics learn the value of recorded actions. The actor climbs the critic, held back by the distance to what was
recorded: where the data says nothing, a critic is only confident. No environment is stepped in training; the score on
the validation split is measured at the end. Policy and critics are the set networks of the package.

    semcom-gym dataset SemCom/CRRA-v0 --expert fra --noise 0.3 -n 5000 --out crra/fra_noisy-v0
    python docs/examples/offline_rl.py SemCom/CRRA-v0 crra/fra_noisy-v0 --steps 4000
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from semcom_gym import agents
from semcom_gym.agents import offline
from semcom_gym.agents.fading import judge
from semcom_gym.agents.policies import SetTD3Policy, space_kwargs

BATCH, GAMMA, TAU, NOISE, NOISE_CLIP, DELAY = 128, 0.99, 0.005, 0.1, 0.2, 2


class Learner:
    """TD3 + BC on fixed transitions. pull: weight of the critic's slope beside the distance to the recorded action."""

    def __init__(self, steps: offline.Recorded, policy: SetTD3Policy, pull: float) -> None:
        scale = steps.reward.std() + 1e-9  # rewards of one in size, about zero: a shift changes no decision here
        reward = (steps.reward - steps.reward.mean()) / scale
        columns = (steps.observation, steps.action, reward, steps.next_observation, ~steps.terminated)
        self.data = [torch.as_tensor(np.asarray(column, np.float32)) for column in columns]
        self.policy, self.pull = policy, pull
        policy.set_training_mode(True)

    def step(self, number: int) -> float:
        """One minibatch; the critics' loss."""
        rows = torch.randint(len(self.data[0]), (BATCH,))
        observation, action, reward, following, goes_on = (column[rows] for column in self.data)
        target = self._target(reward, following, goes_on)
        loss = sum(mse_loss(value, target) for value in self.policy.critic(observation, action))
        _descend(self.policy.critic.optimizer, loss)
        if number % DELAY == 0:
            self._improve(observation, action)
        return loss.item()

    def _target(self, reward: Tensor, following: Tensor, goes_on: Tensor) -> Tensor:
        if not goes_on.any():  # episodes of one decision: the reward is all there is
            return reward[:, None]
        with torch.no_grad():
            action = self.policy.actor_target(following)
            noise = (NOISE * torch.randn_like(action)).clamp(-NOISE_CLIP, NOISE_CLIP)
            values = self.policy.critic_target(following, (action + noise).clamp(-1.0, 1.0))
            return reward[:, None] + GAMMA * goes_on[:, None] * torch.minimum(*values)

    def _improve(self, observation: Tensor, action: Tensor) -> None:
        policy = self.policy
        chosen = policy.actor(observation)
        value = policy.critic.q1_forward(observation, chosen)
        weight = self.pull / value.detach().abs().mean()
        _descend(policy.actor.optimizer, mse_loss(chosen, action) - weight * value.mean())
        with torch.no_grad():
            for net, slow in ((policy.critic, policy.critic_target), (policy.actor, policy.actor_target)):
                for new, old in zip(net.parameters(), slow.parameters(), strict=True):
                    old.lerp_(new, TAU)


def _descend(optimizer: Any, loss: Any) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def train(
    env_id: str, dataset: str, *, steps: int = 4000, pull: float = 2.5, seed: int = 0, scored: int = 20,
    width: int = 32, **overrides: Any,
) -> dict[str, float]:  # fmt: skip
    """Train on ``dataset`` and measure on the validation split; TensorBoard tags -> means over 100 instances."""
    torch.manual_seed(seed)
    env = agents.make_vec_env(env_id, 1, **overrides)
    recorded = offline.read(dataset, env.venv.unwrapped)
    model = agents.ALGORITHMS["td3"][0](
        SetTD3Policy, env, learning_rate=1e-3, seed=seed, device="cpu", buffer_size=1,
        policy_kwargs=space_kwargs(env.venv.unwrapped) | {"width": width, "depth": 1},
    )  # fmt: skip
    learner = Learner(recorded, model.policy, pull)
    for number in range(1, steps + 1):
        loss = learner.step(number)
        if number % 500 == 0:
            print(f"step {number}: loss of the critics {loss:.4f}", flush=True)
    return judge(env, 100, scored).measure(model)[0]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("env", help="environment id")
    parser.add_argument("dataset", help="name or folder of the data set")
    parser.add_argument("--steps", type=int, default=4000, help="minibatches (default: %(default)s)")
    parser.add_argument("--pull", type=float, default=2.5, help="0 is behaviour cloning (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = train(args.env, args.dataset, steps=args.steps, pull=args.pull, seed=args.seed)
    for name in ("reward", "feasible", "score", "gap"):
        print(f"{name:>10} {found[f'validation/{name}']:.4f}")


if __name__ == "__main__":
    main()
