"""Solvers of the CRRA paper's problem, and a bound. ``METHODS``, ``ANCHOR`` and ``prove`` feed the registry."""

from semcom_gym.baselines.crra import bound, fast, heuristics, lines, paper
from semcom_gym.baselines.solution import Method

METHODS: dict[str, Method] = {
    "equal": Method(heuristics.equal, "equal shares, compression ratio 0.8", "no part of the paper"),
    "fra": Method(heuristics.fra, "equal shares, best compression ratio", "Section VI, FRA"),
    "fcr": Method(heuristics.fcr, "compression ratio 0.8, best shares", "Section VI, FCR"),
    "msr": Method(heuristics.msr, "shares of the largest sum rate, best compression ratio", "Section VI, MSR"),
    "crra": Method(paper.crra, "ratio and shares in turn, shares by convex approximation", "Algorithms 2-4", "cvxpy"),
    "crra_printed": Method(paper.crra_printed, "crra with (31) as printed, sign corrected", "(31)", "cvxpy"),
    "crraus": Method(paper.crraus, "crra with user selection by branch and bound", "Algorithms 5-6", "cvxpy"),
    "fast": Method(
        fast.solve, "ascent on the marginal values of shares, then Newton, batched", "no part of the paper", torch=True
    ),
}
ANCHOR = "fra"
prove = bound.prove
power_lines = lines.power_lines
