"""semcom-gym: reinforcement-learning environments for semantic-communication resource allocation.

Importing the package registers every ``SemCom/...`` id with Gymnasium.
"""

import semcom_gym.envs as envs  # registers the ids

__all__ = ["__version__", "envs"]
__version__ = "0.1.0"
