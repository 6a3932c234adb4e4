"""Solvers of the MU-ASCC paper's problem, and a bound. ``METHODS``, ``ANCHOR`` and ``prove`` feed the registry."""

from semcom_gym.baselines.ascc import bound, fast, heuristics, paper, schemes
from semcom_gym.baselines.solution import Method

METHODS: dict[str, Method] = {
    "equal_mmse": Method(heuristics.equal_mmse, "equal dual powers, MMSE beams, best codecs", "no part of the paper"),
    "mrt": Method(heuristics.mrt, "matched beams, equal powers, best codecs", "no part of the paper"),
    "zf_equal": Method(heuristics.zf_equal, "zero forcing, equal powers, best codecs", "no part of the paper"),
    "zf_wf_adaptive": Method(
        heuristics.zf_wf_adaptive, "zero forcing, water-filling, best codecs", "no part of the paper"
    ),
    "zf_wf_fixed": Method(
        heuristics.zf_wf_fixed,
        "zero forcing, water-filling, fixed code rates",
        "ZF-WF-BPG of Section V-A, its codecs ours",
    ),
    "jrpb": Method(paper.solve, "rates, then powers and beams, in turn", "Algorithms 1-3, Fig. 6", "cvxpy"),
    "fast": Method(
        fast.solve, "batched: a lattice of dual powers, then random moves", "no part of the paper", torch=True
    ),
    "zf_wf_bpg": Method(
        schemes.zf_wf_bpg, "zero forcing, water-filling, BPG at fixed code rates", "Section V-A", transceiver="BPG"
    ),
    "zf_wf_djscc": Method(
        schemes.zf_wf_djscc, "zero forcing, water-filling, analog DJSCC", "Section V-A", transceiver="DJSCC"
    ),
}
ANCHOR = "equal_mmse"
prove = bound.prove
