"""Baselines: heuristics, the papers' algorithms, fast batched solvers and certified bounds."""

from semcom_gym.baselines.solution import Bound, Method, Solution, anchor, bound, methods, on_torch, solve

__all__ = ["Bound", "Method", "Solution", "anchor", "bound", "methods", "on_torch", "solve"]
