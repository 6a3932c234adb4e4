"""Figures 4-11 of the CRRA paper, and its statements about them beside our data.

Constants: the preset ``paper`` (20 MHz, 1 W, 10 users, equal weights), with the service levels of Table II in
Figures 10-11. The paper states neither the channel nor how many realisations it averages: see docs/crra.md.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from semcom_gym import envs
from semcom_gym.benchmarks.figures.sweep import BOUND, Claim, Figure, Finished, Line, Point, number, verdict
from semcom_gym.envs.arrays import Array

INSTANCES = 30
OPTIONS = {"success": "exact"}

BASELINES = ("fra", "fcr", "msr")
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
POWERS_W = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
BANDWIDTHS_MHZ = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
USERS = (2, 4, 6, 8, 10, 12, 16, 20)
LEVELS = (0.2, 0.4, 0.6, 0.8)
FCR_RATIO = 0.8
SERVED = 0.5  # of the success at 1 W that "performs well" must keep at 1 mW

AVERAGE = "average success probability"
TOTAL = "total success probability"
WEIGHTED = "weighted success probability"
BANDWIDTH = "maximum bandwidth [MHz]"
POWER = "maximum sum power [W]"


def figures(success: str = "exact", quick: bool = False) -> list[Figure]:
    """The eight figures. success: ``exact`` or ``approximate``; quick: the ends of every grid only."""
    base = envs.problem("crra").preset("paper", success=success)
    weighted = dataclasses.replace(base, service_weights=LEVELS)

    def grid(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return (values[0], values[-1]) if quick else values

    bandwidths = [(b, {"max_bandwidth_hz": b * 1e6}) for b in grid(BANDWIDTHS_MHZ)]
    powers = [(p, {"max_power_w": p}) for p in grid(POWERS_W)]
    users = [(u, {"num_users": u}) for u in grid(USERS)]
    low = dataclasses.replace(base, max_power_w=1e-3)
    ratios = grid(RATIOS)
    return [
        _ratios("figure_04", "Fig. 4: 20 MHz", base, ratios, "W", "max_power_w", (0.01, 0.1, 1.0), 1.0),
        _ratios("figure_05", "Fig. 5: 1 W", base, ratios, "MHz", "max_bandwidth_hz", (5, 10, 20, 30), 1e6),
        Figure("figure_06", "Fig. 6: 1 mW", BANDWIDTH, AVERAGE, _methods(low, bandwidths), _average),
        Figure("figure_07", "Fig. 7: 1 W", BANDWIDTH, AVERAGE, _methods(base, bandwidths), _average),
        Figure("figure_08", "Fig. 8: 20 MHz", POWER, AVERAGE, _methods(base, powers), _average, log_x=True),
        Figure("figure_09", "Fig. 9: 20 MHz, 1 W", "users", TOTAL, _methods(base, users), _total),
        Figure("figure_10", "Fig. 10: 1 W, service levels", BANDWIDTH, WEIGHTED, _users(weighted, bandwidths), _total),
        Figure("figure_11", "Fig. 11: 20 MHz, service levels", POWER, WEIGHTED, _users(weighted, powers), _total, True),
    ]  # fmt: skip


def about(n: int, success: str = "exact") -> str:
    """What the figures were made with, in words."""
    return f"{n} test instances, {success} success model"


def _average(params: Any, objective: Array) -> Array:
    return objective / params.num_users


def _total(params: Any, objective: Array) -> Array:
    return objective


def _ratios(
    name: str, title: str, base: Any, ratios: tuple[float, ...], unit: str, field: str, values: Any, scale: float
) -> Figure:
    """Success versus the fixed ratio of ``fcr``, one line per budget."""
    lines = {}
    for value in values:
        params = dataclasses.replace(base, **{field: value * scale})
        lines[f"{value:g} {unit}"] = tuple(Point(o, params, "fcr", {"ratio": o}) for o in ratios)
    return Figure(name, title, "fixed compression ratio", AVERAGE, lines, _average)


def _methods(base: Any, changes: list[tuple[float, dict[str, Any]]]) -> dict[str, tuple[Point, ...]]:
    """CRRA, its baselines, the fast solver and the bound."""
    cases = [(x, dataclasses.replace(base, **change)) for x, change in changes]
    options = {"fcr": {"ratio": FCR_RATIO}}
    names = ("crra", *BASELINES, "fast", BOUND)
    return {name: tuple(Point(x, params, name, options.get(name, {})) for x, params in cases) for name in names}


def _users(base: Any, changes: list[tuple[float, dict[str, Any]]]) -> dict[str, tuple[Point, ...]]:
    """CRRAUS, the fast solver and the bound choose the users; the baselines serve all, as in the paper."""
    lines = _methods(base, changes)
    cases = [(x, dataclasses.replace(base, selection=True, **change)) for x, change in changes]
    lines |= {name: tuple(Point(x, params, name) for x, params in cases) for name in ("crraus", "fast", BOUND)}
    return {name: lines[name] for name in ("crraus", *BASELINES, "fast", BOUND)}


# --- the paper's statements, each decided from the data by a rule that the page prints -----------------------------


def appendix(found: Finished) -> str:
    """Nothing behind the claims."""
    return ""


def claims(found: Finished) -> list[Claim]:
    """The paper's statements about the figures at hand, with our verdicts."""
    rules = {
        "figure_04": [_rise_and_fall],
        "figure_05": [_rise_and_fall, _best_ratio],
        "figure_06": [_growing, _converging, _best_everywhere, _most_when_tight, _msr],
        "figure_07": [_growing, _converging, _best_everywhere, _most_when_tight, _msr],
        "figure_08": [_growing, _best_everywhere, _msr_flat, _low_power],
        "figure_09": [_best_everywhere, _most_when_crowded, _msr],
        "figure_10": [_growing, _best_everywhere, _most_when_tight],
        "figure_11": [_growing, _best_everywhere],
    }
    made = [rule(name, found[name]) for name, chosen in rules.items() if name in found for rule in chosen]
    for ours, names, gain in (("crra", CRRA_FIGURES, 0.15), ("crraus", CRRAUS_FIGURES, 0.10)):
        there = [found[name] for name in names if name in found]
        made += [_gain(ours, baseline, there, gain) for baseline in BASELINES if there]
    return made


CRRA_FIGURES = ("figure_06", "figure_07", "figure_08", "figure_09")
CRRAUS_FIGURES = ("figure_10", "figure_11")
Lines = dict[str, Line]


def _ours(lines: Lines) -> str:
    return "crraus" if "crraus" in lines else "crra"


def _rise_and_fall(name: str, lines: Lines) -> Claim:
    inside = [0 < int(np.argmax(line.mean)) < len(line.x) - 1 for line in lines.values()]
    best = ", ".join(f"{label}: {line.x[np.argmax(line.mean)]:g}" for label, line in lines.items())
    text = f"best ratio inside the grid for {sum(inside)} of {len(inside)} lines ({best})"
    return Claim(number(name), "success first rises, then falls with the ratio", verdict(inside), text)


def _best_ratio(name: str, lines: Lines) -> Claim:
    best = {label: float(line.x[np.argmax(line.mean)]) for label, line in lines.items()}
    printed = {"10 MHz": 0.7, "20 MHz": 0.8}
    holds = [abs(best[label] - o) < 1e-9 for label, o in printed.items()]
    text = f"{best['10 MHz']:g} at 10 MHz, {best['20 MHz']:g} at 20 MHz"
    if best["20 MHz"] < best["10 MHz"]:
        text += ": the best ratio falls with the bandwidth, the printed one rises"
    return Claim(number(name), "the best fixed ratio is 0.7 at 10 MHz and 0.8 at 20 MHz", verdict(holds), text)


def _growing(name: str, lines: Lines) -> Claim:
    schemes = [label for label in lines if label not in ("fast", BOUND)]
    holds = [bool(np.all(np.diff(lines[label].mean) >= -1e-3 * np.max(lines[label].mean))) for label in schemes]
    falls = [label for label, grows in zip(schemes, holds, strict=True) if not grows]
    text = "every scheme grows (to 0.1 %)" if not falls else f"falls somewhere: {', '.join(falls)}"
    return Claim(number(name), "success grows with the budget for all schemes", verdict(holds), text)


def _converging(name: str, lines: Lines) -> Claim:
    steps = np.diff(lines["crra"].mean)
    text = f"the first step of the grid adds {steps[0]:.4f} to crra, the last {steps[-1]:.4f} (rule: less than a tenth)"
    return Claim(number(name), "success converges as the bandwidth grows", verdict([steps[-1] < 0.1 * steps[0]]), text)


def _best_everywhere(name: str, lines: Lines) -> Claim:
    ours = _ours(lines)
    rivals = np.stack([lines[label].mean for label in BASELINES])
    margin = lines[ours].mean / np.max(rivals, axis=0) - 1.0
    text = f"{ours} over the best of fra, fcr, msr: {_percent(margin.min())} to {_percent(margin.max())}"
    return Claim(number(name), f"{ours} is above FCR, FRA and MSR everywhere", verdict(list(margin > 0)), text)


def _most_when_tight(name: str, lines: Lines) -> Claim:
    ours = _ours(lines)
    margin = lines[ours].mean / np.maximum(lines["fra"].mean, lines["fcr"].mean) - 1.0
    text = f"gain of {ours} over the better of fra and fcr: {_percent(margin[0])} at the smallest bandwidth, "
    text += f"{_percent(margin[-1])} at the largest"
    return Claim(
        number(name), "the gain is largest at low bandwidth", verdict([margin[0] > max(margin[-1], 0.0)]), text
    )


def _most_when_crowded(name: str, lines: Lines) -> Claim:
    margin = lines["crra"].mean / np.maximum(lines["fra"].mean, lines["fcr"].mean) - 1.0
    few, many = lines["crra"].x[[0, -1]]
    text = f"gain over the better of fra and fcr: {_percent(margin[0])} with {few:g} users, "
    text += f"{_percent(margin[-1])} with {many:g}"
    return Claim(number(name), "the gain is largest with many users", verdict([margin[-1] > max(margin[0], 0.0)]), text)


def _msr(name: str, lines: Lines) -> Claim:
    msr = lines["msr"].mean
    last = list(msr < np.minimum(lines["fra"].mean, lines["fcr"].mean))
    text = f"msr is below fra and fcr at {sum(last)} of {len(last)} points; it reaches "
    text += f"{_percent((msr / lines['crra'].mean).min())} to {_percent((msr / lines['crra'].mean).max())} of crra"
    return Claim(number(name), "MSR is the worst and no longer suitable", verdict(last), text)


def _msr_flat(name: str, lines: Lines) -> Claim:
    msr, crra = np.ptp(lines["msr"].mean), np.ptp(lines["crra"].mean)
    text = f"over the range of power msr moves by {msr:.3f}, crra by {crra:.3f} (rule: less than a fifth)"
    return Claim(number(name), "MSR gains little from power", verdict([msr < 0.2 * crra]), text)


def _low_power(name: str, lines: Lines) -> Claim:
    share = lines["crra"].mean[0] / lines["crra"].mean[-1]
    text = f"crra keeps {_percent(share)} of its success at 1 W when it has 1 mW (rule: at least {_percent(SERVED)})"
    return Claim(number(name), "CRRA performs well at very low power", verdict([share >= SERVED]), text)


def _gain(ours: str, baseline: str, there: list[Lines], gain: float) -> Claim:
    margin = np.concat([lines[ours].mean / lines[baseline].mean - 1.0 for lines in there])
    text = f"{_percent(margin.min())} to {_percent(margin.max())}; at least {_percent(gain)} at "
    text += f"{int(np.sum(margin >= gain))} of {len(margin)} points"
    statement = f"{ours} gains at least {_percent(gain)} over {baseline}"
    return Claim("abstract", statement, verdict(list(margin >= gain)), text)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share < 10 else "more than 1000 %"
