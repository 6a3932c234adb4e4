"""Figures 3-8 of the training paper, and two of what its Algorithm 3 does: pass by pass (11), by its start (12).

Constants: the preset ``paper``, Table II, unless another is named. The paper prints no number of these figures in its
text, only what they show: see docs/training.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from semcom_gym import baselines, envs
from semcom_gym.baselines.training.paper import LEVELS
from semcom_gym.benchmarks import table
from semcom_gym.benchmarks.figures.sweep import BOUND, SOLVED, Figure, Finished, Line, Point, mean
from semcom_gym.benchmarks.figures.training_claims import claims, loss
from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.training import physics

__all__ = ["INSTANCES", "OPTIONS", "about", "appendix", "claims", "figures"]

INSTANCES = 100
SLOW = 20  # instances of the bound
OPTIONS = {"preset": "paper", "slow": SLOW, "bound": False}

SCHEMES = ("paper", "fast", "equal_bandwidth", "pb_only", "pb_only_frozen", "fhrho_only", "average", "random")
BANDWIDTHS_MHZ = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)
POWERS_DBM = tuple(range(4, 22, 2))
CLOCKS_GHZ = tuple(k / 10 for k in range(1, 11))
WEIGHTS = tuple(k / 10 for k in range(1, 10))
USERS = (10, 20, 30, 40, 50)
PSNRS_DB = tuple(range(20, 31))
PASSES = (1, 2, 3, 5, 10)

COST = "weighted sum of T and E"
TIME, ENERGY = ("makespan_s", "T [s]"), ("energy_j", "E [J]")
SPLIT = (("device_time_s", "mean time on the device [s]"), ("bs_time_s", "mean time on the BS [s]"),
         ("device_energy_j", "E of the devices [J]"), ("bs_energy_j", "E of the BS [J]"))  # fmt: skip
QUALITY = (("psnr_db", "mean PSNR [dB]"), ("least_psnr_db", "least PSNR [dB]"), ("most_psnr_db", "largest PSNR [dB]"))


def figures(preset: str = "paper", slow: int = SLOW, bound: bool = False, quick: bool = False) -> list[Figure]:
    """The eight figures. slow: instances of the bound. bound: draw the certified bound. quick: the axes' ends only."""
    validate.integer("--slow", slow)
    base = envs.problem("training").preset(preset)

    def grid(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return (values[0], values[-1]) if quick else values

    both = (TIME, ENERGY)
    cases: dict[str, tuple[str, str, list[tuple[float, dict[str, Any]]], tuple[tuple[str, str], ...]]] = {
        "figure_03": ("bandwidth", "bandwidth [MHz]",
                      [(x, {"total_bandwidth_hz": x * 1e6}) for x in grid(BANDWIDTHS_MHZ)], both),
        "figure_04": ("transmit power", "largest power [dBm]",
                      [(x, {"max_power_w": 1e-3 * 10.0 ** (x / 10)}) for x in grid(POWERS_DBM)], both),
        "figure_05": ("device clock", "largest frequency [GHz]",
                      [(x, {"device_frequency_range_hz": (x * 1e9, x * 1e9)}) for x in grid(CLOCKS_GHZ)], both),
        "figure_06": ("weights", "weight of time", [(x, {"time_weight": x}) for x in grid(WEIGHTS)], both + SPLIT),
        "figure_07": ("users", "users", [(x, {"num_users": x}) for x in grid(USERS)], both + SPLIT),
        "figure_08": ("PSNR threshold", "threshold of PSNR [dB]",
                      [(x, {"psnr_range_db": (float(x), float(x))}) for x in grid(PSNRS_DB)], both + QUALITY),
    }  # fmt: skip
    made = []
    for name, (what, x_label, changes, panels) in cases.items():
        title = f"Fig. {int(name[-2:])}: {what}, preset {preset}"
        lines = _lines([(float(x), dataclasses.replace(base, **change)) for x, change in changes])
        if bound:
            lines[BOUND] = tuple(Point(p.x, p.params, BOUND, {}, slow) for p in lines["fast"])
        made.append(Figure(name, title, x_label, COST, lines, _same, panels=panels))
    return [*made, _passes(base, preset, grid(PASSES)), _starts(base, preset, grid(LEVELS))]


def about(n: int, preset: str = "paper", slow: int = SLOW, bound: bool = False) -> str:
    """What the figures were made with, in words."""
    least = f" ({min(n, slow)} for `bound`)" if bound else ""
    return (
        f"{n} test instances{least}, preset `{preset}`. Two schemes are compared over the instances that both solve. "
        "What the paper says of its scheme is decided twice, by `paper` (its Algorithm 3 from the average allocation) "
        "and by `fast`, the optimum; optimising p and B only also twice, with T frozen and with T free. The pictures "
        f"leave out points that a scheme solves on less than {100 * SOLVED:g} % of its instances, the CSV files do not"
    )


def measure(point: Point, instance: Any, found: baselines.Solution) -> dict[str, Array]:
    """T and E, their parts, PSNR, which limits bind, and of Algorithm 3 its first two passes; (n,) each."""
    params = point.params
    terms = envs.problem("training").evaluate(params, instance, found.allocation).terms
    bs_s = params.samples * instance.bs_cycles / found.allocation.bs_frequency_hz
    bs_j = params.capacitance * params.samples * instance.bs_cycles * found.allocation.bs_frequency_hz**2
    quality = terms["psnr_db"]
    floor = physics.ratio_floor(params, instance.min_psnr_db)
    made = {
        "makespan_s": terms["time_s"].max(-1),
        "energy_j": terms["energy_j"].sum(-1),
        "device_time_s": (terms["time_s"] - bs_s).mean(-1),
        "bs_time_s": bs_s.mean(-1),
        "device_energy_j": (terms["energy_j"] - bs_j).sum(-1),
        "bs_energy_j": bs_j.sum(-1),
        "upload_time_s": terms["upload_time_s"].mean(-1),
        "upload_energy_j": terms["upload_energy_j"].sum(-1),
        "psnr_db": quality.mean(-1),
        "least_psnr_db": quality.min(-1),
        "most_psnr_db": quality.max(-1),
        "at_power_cap": (terms["power_of_cap"] > 1.0 - 1e-6).mean(-1),
        "at_clock_cap": (terms["device_frequency_of_cap"] > 1.0 - 1e-6).mean(-1),
        "at_psnr": (quality < instance.min_psnr_db * (1.0 + 1e-6)).mean(-1),
        "above_min_ratio": (terms["ratio"] > floor * (1.0 + 1e-6)).mean(-1),
    }
    if point.method.startswith("paper"):
        trace = np.pad(found.trace, ((0, 0), (0, 4)), constant_values=np.nan)
        made |= {name: trace[:, k] for k, name in enumerate(("p3_first", "p4_first", "p3_second", "p4_second"))}
        made["passes"] = np.asarray(found.iterations, float)
    return made


def _same(params: Any, objective: Array) -> Array:
    return objective


def _lines(cases: list[tuple[float, Any]]) -> dict[str, tuple[Point, ...]]:
    return {label: tuple(Point(x, params, label, measure=measure) for x, params in cases) for label in SCHEMES}


def _passes(base: Any, preset: str, passes: tuple[int, ...]) -> Figure:
    """Where Algorithm 3 stands at its start (0), after its first P3 (0.5) and after each pass."""

    def line(method: str, *before: tuple[float, str], **options: Any) -> tuple[Point, ...]:
        steps = [Point(float(k), base, method, options | {"rounds": k}, measure=measure) for k in passes]
        return (*(Point(x, base, name, measure=measure) for x, name in before), *steps)

    def flat(method: str) -> tuple[Point, ...]:
        return tuple(Point(float(x), base, method, measure=measure) for x in (0, passes[-1]))

    lines = {
        "paper": line("paper", (0.0, "average"), (0.5, "fhrho_only")),
        "paper_direct": line("paper_direct", (0.0, "average"), (0.5, "fhrho_only")),
        "paper_random": line("paper_random", (0.0, "random")),
        "paper_multistart": line("paper_multistart", direct=True),
        "equal_bandwidth": flat("equal_bandwidth"),
        "fast": flat("fast"),
    }
    title = f"Not in the paper: Algorithm 3 pass by pass, preset {preset}"
    return Figure("figure_11", title, "passes (0: start, 0.5: after P3)", COST, lines, _same,
                  panels=(TIME, ENERGY))  # fmt: skip


def _starts(base: Any, preset: str, levels: tuple[float, ...]) -> Figure:
    """Where Algorithm 3 ends by the power that it starts from."""
    lines = {"paper": tuple(Point(x, base, "paper", {"level": x}, measure=measure) for x in levels)}
    lines |= {
        name: tuple(Point(x, base, name, measure=measure) for x in levels) for name in ("equal_bandwidth", "fast")
    }
    title = f"Not in the paper: Algorithm 3 by its start, equal bandwidths, preset {preset}"
    return Figure("figure_12", title, "power of the start over its cap", COST, lines, _same, log_x=True,
                  panels=(TIME, ENERGY))  # fmt: skip


# --- behind the claims ---------------------------------------------------------------------------------------------

TRACED = ("figure_03", "figure_04", "figure_08", "figure_12")
HALVES = ("p3_first", "p4_first", "p3_second", "p4_second")

BINDING = ("at_power_cap", "at_clock_cap", "at_psnr", "above_min_ratio")


def appendix(found: Finished) -> str:
    """Tables: every scheme at 20 MHz, Algorithm 3's own trace, which limits bind, and where schemes are infeasible."""
    there = next((name for name in ("figure_03", "figure_04", "figure_05") if name in found), None)
    text = _at_default(found[there]) if there else ""
    for name in TRACED:
        text += _trace(name, found[name]) if name in found else ""
    if "figure_08" in found:
        text += _binding(found["figure_08"]["fast"])
    return text + _infeasible(found)


def _at_default(lines: dict[str, Line]) -> str:
    """The last abscissa of Figures 3 to 5 is Table II itself."""
    header = ["scheme", COST, "T [s]", "E [J]", "of it upload [J]", "above `fast` %, mean", "median", "infeasible %"]
    rows = []
    for label, line in lines.items():
        if "makespan_s" not in line.terms:
            continue
        excess = 100 * loss(line, lines["fast"], line.x[-1])
        middle = float(np.median(excess)) if len(excess) else np.nan
        means = [mean(line.terms[name][-1]) for name in ("makespan_s", "energy_j", "upload_energy_j")]
        rows.append([label, table.number(line.mean[-1], 4), *(table.number(value, 3) for value in means),
                     table.number(mean(excess), 2), table.number(middle, 2),
                     table.number(100 * line.infeasible[-1], 0)])  # fmt: skip
    return f"\n## Every scheme at the preset's own values\n\n{table.markdown_table(header, rows)}\n"


def _trace(name: str, lines: dict[str, Line]) -> str:
    """Objective of ``paper`` after every half of its first two passes, over that after the first."""
    ours = lines["paper"]
    header = [name, "after P3", "P4", "P3", "P4", "largest change after pass 1 %", "passes, most", "end above `fast` %"]
    rows = []
    for k, x in enumerate(ours.x):
        halves = np.stack([ours.terms[half][k] for half in HALVES])
        known = halves[:, np.isfinite(halves[3])]
        shown = [table.number(value, 6) for value in (known / known[0]).mean(-1)] if known.size else ["-"] * 4
        later = _largest(100 * np.abs(ours.value[k] / ours.terms["p4_first"][k] - 1.0))
        excess = mean(100 * loss(ours, lines["fast"], x))
        rows.append([f"{x:g}", *shown, table.number(later, 4), table.number(_largest(ours.terms["passes"][k]), 0),
                     table.number(excess, 1)])  # fmt: skip
    return f"\n## Algorithm 3's own trace, Figure {int(name[-2:])}\n\n{table.markdown_table(header, rows)}\n"


def _largest(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else np.nan


def _binding(line: Line) -> str:
    header = ["threshold of PSNR [dB]", "power cap", "clock cap", "PSNR", "ratio above its least"]
    rows = [
        [f"{x:g}", *(table.number(100 * mean(line.terms[name][k]), 0) for name in BINDING)]
        for k, x in enumerate(line.x)
    ]
    return f"\n## What binds at the optimum, % of the devices\n\n{table.markdown_table(header, rows)}\n"


def _infeasible(found: Finished) -> str:
    rows = [
        [str(int(name[-2:])), label, ", ".join(f"{x:g}: {100 * share:.0f}"
                                               for x, share in zip(line.x, line.infeasible, strict=True) if share)]
        for name, lines in found.items() for label, line in lines.items() if line.infeasible.any()
    ]  # fmt: skip
    if not rows:
        return "\nEvery scheme solves every instance.\n"
    header = ["figure", "scheme", "% of the instances, by abscissa"]
    return f"\n## Instances without a feasible decision\n\n{table.markdown_table(header, rows)}\n"
