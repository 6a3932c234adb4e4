"""Solvers of the SC-SFMA paper's problem, and a bound. ``METHODS``, ``ANCHOR`` and ``prove`` feed the registry."""

from semcom_gym.baselines.sfma import bound, fast, heuristics, paper, schemes
from semcom_gym.baselines.solution import Method

METHODS: dict[str, Method] = {
    "equal": Method(heuristics.equal, "best pairing at equal shares, best ratios", "Section IV, scheme 6"),
    "channel_pairing": Method(
        heuristics.channel_pairing, "strongest with weakest channel, Algorithms 1, 2", "Section IV, scheme 5", "cvxpy"
    ),
    "random_pairing": Method(
        heuristics.random_pairing, "pairs at random, Algorithms 1, 2", "no part of the paper", "cvxpy"
    ),
    "paper": Method(paper.solve, "ratios, power and bandwidth, pairing in turn", "Algorithms 1-4", "cvxpy"),
    "paper_printed": Method(paper.solve_printed, "paper with its energy constraint as printed", "(29c)", "cvxpy"),
    "fast": Method(
        fast.solve, "batched: matching at prices, then an interior-point climb", "no part of the paper", torch=True
    ),
    "price_matching": Method(
        fast.at_prices, "fast with the one matching at the prices", "no part of the paper", torch=True
    ),
    "noma": Method(
        schemes.noma, "paper for a transceiver blind to similarity", "Section IV, scheme 1", "cvxpy", "SwinJSCC+NOMA"
    ),
    "fdma": Method(
        schemes.fdma, "a band for every user, no limits", "Section IV, scheme 2", transceiver="SwinJSCC+OMA"
    ),
    "deepjscc_noma": Method(
        schemes.deepjscc_noma, "power-domain superposition, no limits", "Section IV, scheme 3",
        transceiver="DeepJSCC-NOMA",
    ),
    "bpg_ldpc_qam": Method(
        schemes.bpg_ldpc_qam, "adaptive modulation and coding, no limits", "Section IV, scheme 4",
        transceiver="BPG+LDPC+QAM",
    ),
}  # fmt: skip
ANCHOR = "equal"
prove = bound.prove
