"""Figures 4, 5 and 7-9 of the MU-ASCC paper, with the numbers it prints.

Constants: the preset ``paper``, whose channel is the one of Section V-A, so that every point is one instance. Panels
(a)-(c) are figures of their own, and so are the blocklengths. The paper states neither its rate tables nor what BPG
and DJSCC reach: see docs/ascc.md.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from semcom_gym import envs
from semcom_gym.baselines.ascc import schemes
from semcom_gym.benchmarks import table
from semcom_gym.benchmarks.figures.ascc_claims import LENGTHS, Lines, claims
from semcom_gym.benchmarks.figures.sweep import BOUND, Figure, Finished, Line, Point, mean
from semcom_gym.benchmarks.pictures import MEASURED
from semcom_gym.envs import curve
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.ascc import rates
from semcom_gym.envs.ascc.instance import CURVE_PINS

__all__ = ["INSTANCES", "OPTIONS", "about", "appendix", "claims", "figures"]

INSTANCES = 1
TABLES = ("synthetic_data", "synthetic_semantic")
OPTIONS = {"tables": TABLES, "bpg": schemes.BPG_TABLES, "djscc": (*schemes.DJSCC_CURVES, *schemes.MATCHED_CURVES)}

POWERS_DBW = (0, 2, 4, 6, 8, 10, 12)
CHANNEL_USES = (7000, 10000, 14000, 20000, 28000, 40000, 56000)
SYMBOLS = 512 * 512 * 3  # of a source image, padded to a multiple of 64: a ratio of 0.0356 is 28000 channel uses
WEIGHTS = (0.02, *np.linspace(0.05, 0.95, 19).round(2).tolist(), 0.98)
WEIGHT = 0.8  # of the data user, unless it is swept
CODECS_BIT = (2400.0, 6800.0, 59000.0, 93000.0)  # the nearest of the table are drawn in Figures 4 and 5
BIT_ERRORS = np.linspace(-8.0, -1.0, 29)

DISTORTION = "weighted distortion"
MS_SSIM = "MS-SSIM of the data user"
ACCURACY = "accuracy of the semantic user"
PANELS = {"a": (DISTORTION, "objective"), "b": (MS_SSIM, "ms_ssim"), "c": (ACCURACY, "accuracy")}
FOCUS = ("fast", "equal_mmse", "zf_wf_djscc")
"""Lines that set the vertical axis where others fall off a cliff."""


def figures(
    tables: Sequence[str] = TABLES,
    bpg: Sequence[str] = schemes.BPG_TABLES,
    djscc: Sequence[str] = OPTIONS["djscc"],
    quick: bool = False,
) -> list[Figure]:
    """All panels. tables, bpg: curves of data and of semantic users; a second pair of tables makes Figure 5.

    djscc: two curves of DJSCC trained at 10 dB, for Figures 7 and 9, then two trained at the SNR met, for Figure 8.
    quick: the ends of every axis only.
    """
    if len(tables) not in (2, 4):
        raise ValueError(f"tables must be two curves, or four for Figure 5 as well, got {len(tables)}")
    made = _fits("figure_04", tables[:2]) + (_fits("figure_05", tables[2:]) if len(tables) == 4 else [])
    base = envs.problem("ascc").preset("paper", data_table=tables[0], semantic_table=tables[1])
    powers = [(float(x), {"max_power_w": 10.0 ** (x / 10)}) for x in ((0, 8) if quick else POWERS_DBW)]
    uses = [(t / SYMBOLS, {"channel_uses": float(t)}) for t in ((7000, 28000) if quick else CHANNEL_USES)]
    weights = [(w, {"weights": (w, 1.0 - w)}) for w in ((0.2, WEIGHT) if quick else WEIGHTS)]
    for length in LENGTHS:
        there = dataclasses.replace(base, blocklength=length)
        made += _panels("figure_07", length, "power budget [dBW]", _lines(there, powers, bpg, djscc[:2]), FOCUS)
    for length in LENGTHS:
        made.append(_region(length, _lines(dataclasses.replace(base, blocklength=length), weights, bpg, djscc[2:])))
    for length in LENGTHS:
        there = dataclasses.replace(base, blocklength=length)
        made += _panels("figure_09", length, "bandwidth ratio", _lines(there, uses, bpg, djscc[:2]))
    return made


def about(n: int, tables: Sequence[str], bpg: Sequence[str], djscc: Sequence[str]) -> str:
    """What the figures were made with, in words."""
    text = "The channel of Section V-A, 28000 channel uses and weights of 0.8 and 0.2 unless they are swept, 3 W in "
    text += "Figures 8 and 9. What the paper says of its scheme is decided twice, by `jrpb` (its algorithm) and by "
    text += "`fast`, which nearly reaches the optimum. "
    designed = [name for name in (*tables, *bpg, *djscc) if _load(name).kind == "synthetic"]
    if designed:
        text += f"Designed, not measured: {', '.join(f'`{name}`' for name in designed)}. What follows from them says "
        text += "nothing about BPG, DJSCC or any network. "
    if len(tables) == 2:
        text += "Figure 5 is Figure 4 for another data set: `--tables` with a second pair of curves. "
    return f"{text}MSE (panels (b) of Figures 4 and 5) is no part of the problem"


def appendix(found: Finished) -> str:
    """Tables: every scheme in the two settings that the paper's numbers are about."""
    text = ""
    for name, x, title in (("figure_07", 8.0, "8 dBW"), ("figure_09", 28000 / SYMBOLS, "3 W")):
        if all(f"{name}{panel}_L{length}" in found for panel in PANELS for length in LENGTHS):
            text += _beside_bound(found, name, x, title) + _stages(found, name, x)
    return text


# --- Figures 4 and 5 -----------------------------------------------------------------------------------------------


def _fits(name: str, names: Sequence[str]) -> list[Figure]:
    """Distortion of some codecs of both tables against the bit error rate, with the points they were fitted to.

    A point in the curve file of a table is [source rate, log10 of the bit error rate, distortion].
    """
    made = []
    for panel, label, what in (("a", names[0], "1 - MS-SSIM"), ("c", names[1], "classification error")):
        title = f"Fig. {int(name[-2:])}({panel}): {label}"
        made.append(
            Figure(f"{name}{panel}", title, "log10 of the bit error rate", what, {}, _same, ready=_logistic(label))
        )
    return made


def _logistic(name: str) -> dict[str, Line]:
    columns = rates.RateTable(name, _load(name).parameters).columns
    points = _load(name).points
    if any(len(point) != 3 for point in points):
        raise ValueError(f"curve {name!r}: a point must be [rate_bit, log10 of the bit error rate, distortion]")
    lines = {}
    for k in dict.fromkeys(int(np.argmin(np.abs(np.log(columns[:, 0] / rate)))) for rate in CODECS_BIT):
        rate, source, channel, slope, midpoint = columns[k]
        label = f"R_s = {rate:g} bit"
        lines[label] = Line(BIT_ERRORS, (source + channel * rates.falling(slope * (midpoint - BIT_ERRORS)))[:, None])
        own = np.array([point[1:] for point in points if point[0] == rate])
        if len(own):
            lines[MEASURED + label] = Line(own[:, 0], own[:, 1:])
    return lines


# --- Figures 7-9 ---------------------------------------------------------------------------------------------------


def _lines(
    base: Any, changes: list[tuple[float, dict[str, Any]]], bpg: Sequence[str], djscc: Sequence[str]
) -> dict[str, tuple[Point, ...]]:
    """All schemes, and the bound."""
    schemes.bpg(base, bpg)  # a bad name is the user's error, before anything runs
    covered = [schemes.Quality(name) for name in djscc]
    cases = [(x, dataclasses.replace(base, **change)) for x, change in changes]
    cases_of_djscc = [(x, p) for x, p in cases if all(quality.covers(p.channel_uses) for quality in covered)]
    if not cases_of_djscc:
        raise ValueError(f"curves {', '.join(djscc)} cover none of the channel uses of the figures")
    options: dict[str, dict[str, Any]] = {"zf_wf_bpg": {"tables": tuple(bpg)}, "zf_wf_djscc": {"curves": tuple(djscc)}}
    inputs = {
        name: [_load(x).parameters for value in chosen.values() for x in value] for name, chosen in options.items()
    }
    lines = {
        name: tuple(
            Point(x, params, name, options.get(name, {}), measure=users, inputs=inputs.get(name))
            for x, params in (cases_of_djscc if name == "zf_wf_djscc" else cases)
        )
        for name in ("jrpb", "fast", "equal_mmse", "zf_wf_adaptive", "zf_wf_fixed", "zf_wf_bpg", "zf_wf_djscc")
    }
    return lines | {BOUND: tuple(Point(x, params, BOUND) for x, params in cases)}


def users(point: Point, instance: Any, found: Any) -> dict[str, Array]:
    """Mean MS-SSIM of the data users and mean accuracy of the semantic users, (n,) each, of a scheme's decision."""
    params = point.params
    if point.method == "zf_wf_djscc":
        harm = schemes.djscc_distortion(params, instance, **point.options)
    else:
        own = schemes.bpg(params, **point.options) if point.method == "zf_wf_bpg" else params
        harm = envs.problem("ascc").evaluate(own, instance, found.allocation).terms["distortion"]
    semantic = params.semantic
    return {"ms_ssim": 1.0 - harm[:, ~semantic].mean(-1), "accuracy": 1.0 - harm[:, semantic].mean(-1)}


def _panels(
    name: str, length: int, x_label: str, lines: dict[str, tuple[Point, ...]], focus: tuple[str, ...] = ()
) -> list[Figure]:
    made = []
    for panel, (label, term) in PANELS.items():
        title = f"Fig. {int(name[-2:])}({panel}): L = {length}"
        shown = lines if panel == "a" else {scheme: points for scheme, points in lines.items() if scheme != BOUND}
        full = f"{name}{panel}_L{length}"
        made.append(Figure(full, title, x_label, label, shown, _same, term=term, focus=focus))
    return made


def _region(length: int, lines: dict[str, tuple[Point, ...]]) -> Figure:
    """Accuracy against MS-SSIM; schemes that do not look at the weights are a point."""
    shown = {
        name: points if name in ("jrpb", "fast") else points[-1:] for name, points in lines.items() if name != BOUND
    }
    title = f"Fig. 8: L = {length}, 3 W, the weight of the data user swept"
    against = ("ms_ssim", MS_SSIM)
    return Figure(
        f"figure_08_L{length}", title, "weight of the data user", ACCURACY, shown, _same, term="accuracy",
        against=against,
    )  # fmt: skip


def _same(params: Any, value: Array) -> Array:
    return value


@functools.cache
def _load(name: str) -> curve.Curve:
    return curve.load("ascc", name, (), CURVE_PINS)


def _beside_bound(found: Finished, name: str, x: float, title: str) -> str:
    header = ["scheme"]
    for length in LENGTHS:
        header += [f"L = {length}: distortion", "over the bound %", "MS-SSIM", "accuracy"]
    rows = [[label] for label in found[f"{name}a_L{LENGTHS[0]}"] if label != BOUND]
    for length in LENGTHS:
        panels = {panel: found[f"{name}{panel}_L{length}"] for panel in PANELS}
        for row in rows:
            row += _cells(panels, row[0], x)
    text = "At 0 % over the bound a decision is optimal; the bound does not cover BPG and DJSCC. Accuracy is a share."
    return f"\n## Every scheme at {title}\n\n{text}\n\n{table.markdown_table(header, rows)}\n"


def _stages(found: Finished, name: str, x: float) -> str:
    """What each stage takes off the distortion of BPG at fixed code rates, in % of it."""
    header = ["", "its codecs by ours", "best codecs", "powers and beams by `fast`", "together"]
    rows = []
    for length in LENGTHS:
        lines = found[f"{name}a_L{length}"]
        level = [lines[label].at(x) for label in ("zf_wf_bpg", "zf_wf_fixed", "zf_wf_adaptive", "fast")]
        saved = [*-np.diff(level), level[0] - level[-1]]
        rows.append([f"L = {length}", *(table.number(100 * part / level[0], 1) for part in saved)])
    return f"\nTaken off `zf_wf_bpg`, in % of its distortion:\n\n{table.markdown_table(header, rows)}\n"


def _cells(panels: dict[str, Lines], label: str, x: float) -> list[str]:
    value, bound = panels["a"][label].at(x), panels["a"][BOUND].at(x)
    quality = [panels[panel][label] for panel in "bc"]
    over = 100 * (value / bound - 1)
    return [table.number(value, 4), table.number(over, 2),
            *(table.number(mean(line.value[line.index(x)]), 4) for line in quality)]  # fmt: skip
