"""Solvers of the training paper's problem, and a bound. ``METHODS``, ``ANCHOR`` and ``prove`` feed the registry."""

from semcom_gym.baselines.solution import Method
from semcom_gym.baselines.training import bound, convex, fast, heuristics, paper

METHODS: dict[str, Method] = {
    "random": Method(heuristics.random, "everything at random about the middle", "Section VII-D (i)"),
    "average": Method(heuristics.average, "half of every cap, equal bandwidths", "Section VII-D (ii)"),
    "pb_only_frozen": Method(
        heuristics.pb_only_frozen, "best power and bandwidth within the makespan of average", "Section VII-D (iii), P4"
    ),
    "pb_only": Method(
        heuristics.pb_only, "best power, bandwidth and makespan, the rest as average", "Section VII-D (iii)"
    ),
    "fhrho_only": Method(
        heuristics.fhrho_only, "best frequencies and ratios, the rest as average", "Section VII-D (iv), P3"
    ),
    "equal_bandwidth": Method(
        heuristics.equal_bandwidth, "equal bandwidths, everything else optimal", "no part of the paper"
    ),
    "fast": Method(
        fast.solve, "batched exact solver: one bandwidth price and a makespan", "no part of the paper", torch=True
    ),
    "convex": Method(
        convex.solve, "geometric programme at the least ratio, one by one", "no part of the paper", "cvxpy"
    ),
    "paper": Method(paper.solve, "P3 and P4 in turn from average allocation", "Algorithms 2, 3"),
    "paper_direct": Method(paper.solve_direct, "paper with P4 by one bandwidth price", "Algorithm 3"),
    "paper_random": Method(paper.solve_random, "paper from random allocation", "Algorithms 2, 3"),
    "paper_multistart": Method(paper.solve_multistart, "best end of paper from seventeen starts", "Algorithms 2, 3"),
}
ANCHOR = "equal_bandwidth"
prove = bound.prove
