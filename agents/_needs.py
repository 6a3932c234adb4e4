"""Imported first by ``semcom_gym.agents``: one clear line where an optional package is missing."""

from semcom_gym.baselines.solution import require

for _module in ("torch", "stable_baselines3", "sb3_contrib", "tensorboard", "yaml", "tqdm"):
    require(_module, "semcom_gym.agents")
