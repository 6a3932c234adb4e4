"""Draw cell.png: one test instance of the preset ``default``, the fast solver's decision and the certified bound.

python docs/images/cell.py
"""

from pathlib import Path

import gymnasium as gym
import matplotlib.image

from semcom_gym import baselines

env = gym.make("SemCom/CRRA-v0", render_mode="rgb_array").unwrapped
instance = env.problem.sample_split(env.params, "test", 3)[2]
solution = baselines.solve("crra", env.params, instance, "fast")
bound = baselines.bound("crra", env.params, instance)
env.reset(options={"instance": instance, "bound": float(bound.value[0])})
env.step(env.encode(solution.allocation))
matplotlib.image.imsave(Path(__file__).with_name("cell.png"), env.render())
