"""Figures 5-8 of the SC-SFMA paper, with the numbers it prints.

Constants: the preset ``default`` of the environment, unless another is named. The paper states neither source sizes
nor the energy budget nor the profiles: see docs/sfma.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from semcom_gym import envs
from semcom_gym.benchmarks import table
from semcom_gym.benchmarks.figures.sfma_claims import CHANNEL_FAST, NOMA_FAST, PRINTED, Lines, claims
from semcom_gym.benchmarks.figures.sweep import BOUND, Figure, Finished, Point, mean, number
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array

__all__ = ["INSTANCES", "OPTIONS", "about", "appendix", "claims", "figures"]

INSTANCES = 100
SLOW = 50  # instances of the methods that take up to a second each
OPTIONS = {"preset": "default", "slow": SLOW, "bound": False}

POWERS_DBM = tuple(range(20, 36, 2))
BANDWIDTHS_MHZ = tuple(range(4, 18, 2))
USERS = tuple(range(6, 18, 2))

RATE = "sum rate [Mbit/s]"


def figures(preset: str = "default", slow: int = SLOW, bound: bool = False, quick: bool = False) -> list[Figure]:
    """The four figures. slow: instances of the methods that solve one at a time, and of the bound.

    bound: draw the certified bound in all figures, not only in Figure 8. quick: few points of every axis only.
    """
    validate.integer("--slow", slow)
    base = envs.problem("sfma").preset(preset)
    powers = [(x, {"max_power_w": 1e-3 * 10.0 ** (x / 10)}) for x in ((20, 30, 34) if quick else POWERS_DBM)]
    users = [(x, {"num_users": x}) for x in ((6, 16) if quick else USERS)]
    bandwidths = [(x, {"max_bandwidth_hz": x * 1e6}) for x in ((4, 10, 16) if quick else BANDWIDTHS_MHZ)]
    pairings = [(x, {"num_users": x}) for x in (8, 10)]
    cases = {
        "figure_05": ("Fig. 5: 10 users, 10 MHz", "power [dBm]", powers),
        "figure_06": ("Fig. 6: 30 dBm, 10 MHz", "users", users),
        "figure_07": ("Fig. 7: 10 users, 30 dBm", "bandwidth [MHz]", bandwidths),
        "figure_08": ("Fig. 8: 30 dBm, 10 MHz", "users", pairings),
    }
    made = []
    for name, (title, x_label, changes) in cases.items():
        lines = _lines(base, changes, slow, name == "figure_08", bound or name == "figure_08")
        title = f"{title}, preset {preset}"
        made.append(Figure(name, title, x_label, RATE, lines, _same, printed=PRINTED[name], bars=name == "figure_08"))
    return made


def about(n: int, preset: str = "default", slow: int = SLOW, bound: bool = False) -> str:
    """What the figures were made with, in words."""
    return (
        f"{n} test instances ({min(n, slow)} for `paper`, `noma`, `channel_pairing`, `random_pairing` and `bound`), "
        f"preset `{preset}`. Ratios of two schemes are over the instances that both solve. What the paper says of its "
        "scheme is decided twice, by `paper` (its Algorithm 4) and by `fast`, which nearly reaches the optimum"
    )


def _same(params: Any, objective: Array) -> Array:
    return objective


def _lines(
    base: Any, changes: list[tuple[int, dict[str, Any]]], slow: int, random: bool, bound: bool
) -> dict[str, tuple[Point, ...]]:
    """``paper`` is Algorithm 4, ``fast`` what can nearly be reached; noma and channel pairing likewise."""
    chosen: dict[str, tuple[str, dict[str, Any], int | None]] = {
        "paper": ("paper", {}, slow),
        "fast": ("fast", {}, None),
        "equal": ("equal", {}, None),
        "channel_pairing": ("channel_pairing", {}, slow),
        CHANNEL_FAST: ("channel_pairing", {"solver": "fast"}, None),
        "noma": ("noma", {}, slow),
        NOMA_FAST: ("noma", {"solver": "fast"}, None),
        "fdma": ("fdma", {}, None),
    }
    chosen |= {"random_pairing": ("random_pairing", {}, slow)} if random else {}
    chosen |= {BOUND: (BOUND, {}, slow)} if bound else {}
    cases = [(float(x), dataclasses.replace(base, **change)) for x, change in changes]
    return {
        label: tuple(Point(x, params, method, options, most) for x, params in cases)
        for label, (method, options, most) in chosen.items()
    }


# --- what the sum rate hides, and who fails ------------------------------------------------------------------------

TERMS = ("min_rate_mbit_s", "images_per_s")
DEFAULT = {"figure_08": 10, "figure_05": 30, "figure_07": 10, "figure_06": 10}  # where each figure has the same cell


def appendix(found: Finished) -> str:
    """Tables: every scheme at 10 users, 10 MHz and 30 dBm, and where schemes are infeasible."""
    there = [name for name, x in DEFAULT.items() if name in found and x in found[name]["fdma"].x]
    return (_at_default(there[0], found[there[0]]) if there else "") + _infeasible(found)


def _at_default(name: str, lines: Lines) -> str:
    header = ["scheme", "sum rate [Mbit/s]", "standard deviation", "printed", "lowest user rate [Mbit/s]", "images/s",
              "infeasible %", "instances"]  # fmt: skip
    rows = []
    for label, line in lines.items():
        k = line.index(DEFAULT[name])
        values, printed = line.value[k], PRINTED[name].get(label, {}).get(DEFAULT[name])
        terms = [table.number(mean(line.terms[term][k]), 2) if term in line.terms else "-" for term in TERMS]
        rows.append([label, table.number(line.mean[k], 1), table.number(line.std[k], 1),
                     "-" if printed is None else f"{printed:.1f}", *terms,
                     table.number(100 * line.infeasible[k], 0), str(len(values))])  # fmt: skip
    text = "Means over the instances that a scheme solves. A sum rate rewards serving one pair and starving the others."
    return f"\n## 10 users, 10 MHz, 30 dBm\n\n{text}\n\n{table.markdown_table(header, rows)}\n"


def _infeasible(found: Finished) -> str:
    rows = [
        [number(name), label, ", ".join(f"{x:g}: {100 * share:.0f}" for x, share in zip(line.x, line.infeasible,
                                                                                        strict=True) if share)]
        for name, lines in found.items()
        for label, line in lines.items()
        if line.infeasible.any()
    ]  # fmt: skip
    if not rows:
        return "\nEvery scheme solves every instance.\n"
    header = ["figure", "scheme", "% of the instances, by abscissa"]
    return f"\n## Instances without a feasible decision\n\n{table.markdown_table(header, rows)}\n"
