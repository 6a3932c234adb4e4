"""Draw cell.png and pairs.png: a test instance of the preset ``default``, the fast solver's decision and the bound.

python docs/images/cell.py
"""

from pathlib import Path

import gymnasium as gym
import matplotlib.image

from semcom_gym import baselines

for env_id, number, name in (("SemCom/CRRA-v0", 2, "cell"), ("SemCom/SFMA-v0", 0, "pairs")):
    env = gym.make(env_id, render_mode="rgb_array").unwrapped
    problem = env.problem
    instance = problem.sample_split(env.params, "test", number + 1)[number]
    solution = baselines.solve(problem.name, env.params, instance, "fast")
    bound = baselines.bound(problem.name, env.params, instance)
    env.reset(options={"instance": instance, "bound": float(bound.value[0])})
    env.step(env.encode(solution.allocation))
    matplotlib.image.imsave(Path(__file__).with_name(f"{name}.png"), env.render())
