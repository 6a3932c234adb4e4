"""Solvers of the SC-SFMA paper's problem, and a bound. ``METHODS``, ``ANCHOR`` and ``prove`` feed the registry."""

from semcom_gym.baselines.solution import Method

METHODS: dict[str, Method] = {}
ANCHOR = "equal"
