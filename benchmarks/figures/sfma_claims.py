"""The SC-SFMA paper's statements about Figures 5-8, each decided from our data by a rule that the page prints.

Ratios of two schemes are of their means over the instances that both solve. A statement about the joint scheme is
decided twice: by ``paper``, its Algorithm 4, and by ``fast``, which nearly reaches the optimum; NOMA and channel-based
pairing likewise.
"""

from __future__ import annotations

import itertools

import numpy as np

from semcom_gym.benchmarks import table
from semcom_gym.benchmarks.figures.sweep import Claim, Finished, Line, gain, mean, number, verdict
from semcom_gym.envs.arrays import Array

NOMA_FAST, CHANNEL_FAST = "noma by fast", "channel_pairing by fast"
BY_FAST = {"paper": "fast", "noma": NOMA_FAST, "channel_pairing": CHANNEL_FAST}
JOINT = ("paper", "fast")
RIVALS = ("equal", "fdma", "channel_pairing", "noma")
SCHEMES = ("paper", *RIVALS)
PRINTED: dict[str, dict[str, dict[float, float]]] = {
    "figure_05": {"paper": {30: 90.3}, "equal": {30: 80.7}, "fdma": {30: 76.0}, "channel_pairing": {30: 68.3},
                  "noma": {30: 65.1}},
    "figure_06": {"paper": {6: 91.1, 16: 80.6}, "noma": {6: 78.0, 16: 37.7}},
    "figure_07": {"paper": {4: 33.3, 16: 135.4}, "fdma": {4: 36.0, 16: 109.9}, "noma": {16: 114.0}},
    "figure_08": {"paper": {10: 90.5}, "equal": {10: 80.9}, "fdma": {10: 77.0}, "channel_pairing": {10: 68.9},
                  "noma": {10: 65.6}},
}  # fmt: skip
"""Figure -> line -> {abscissa: Mbit/s}, as the text of Section IV-C has them."""
NEAR = 0.06  # relative: how near a printed rate counts as the same, and in points a printed gain
Lines = dict[str, Line]


def claims(found: Finished) -> list[Claim]:
    """The paper's statements about the figures at hand, with our verdicts."""
    rules = {
        "figure_05": [_best_everywhere, _levels_of_power, _order, _gains_at_30_dbm, _over_fdma_at_20_dbm,
                      _over_equal, _shrinking, _channel_below_fdma],
        "figure_06": [_decline, _decline_of_noma, _slowest, _constant, _over_fdma_by_users, _crossover_of_users],
        "figure_07": [_linear, _levels_of_bandwidth, _fdma_ahead, _crossover_of_bandwidth, _widening,
                      _gains_at_16_mhz, _noma_over_fdma],
        "figure_08": [_levels_of_pairings, _over_equal_by_users, _deviation, _channel_last],
    }  # fmt: skip
    return [rule(found[name]) for name, chosen in rules.items() if name in found for rule in chosen]


# --- Figure 5 ------------------------------------------------------------------------------------------------------


def _best_everywhere(lines: Lines) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        gains = [(_gain(lines, joint, rival, x), rival, x) for x in lines[joint].x for rival in RIVALS]
        known = [entry for entry in gains if np.isfinite(entry[0])]
        holds += [margin > 0 for margin, _, _ in known]
        margin, rival, x = min(known, default=(np.nan, "any", np.nan))
        parts.append(f"{joint}: least gain {_percent(margin)}, over {rival} at {x:g} dBm")
    return Claim("5", "SC-SFMA is above all other schemes at every power", verdict(holds), "; ".join(parts))


def _levels_of_power(lines: Lines) -> Claim:
    return _levels("figure_05", lines, {30: "30 dBm"})


def _order(lines: Lines) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        solved = {label: lines[_rival(joint, label) if label in RIVALS else joint] for label in SCHEMES}
        n = min(line.value.shape[1] for line in solved.values())
        rates = {label: mean(line.value[line.index(30), :n]) for label, line in solved.items()}
        holds += [above > below for above, below in itertools.pairwise(rates.values())]
        ranked = sorted(rates.items(), key=lambda entry: -entry[1])
        parts.append(f"by {joint}: " + " > ".join(f"{label} {rate:.1f}" for label, rate in ranked))
    return Claim("5", f"the order at 30 dBm is {' > '.join(SCHEMES)}", verdict(holds), "; ".join(parts))


def _gains_at_30_dbm(lines: Lines) -> Claim:
    return _gains("5", lines, 30, "30 dBm", {"channel_pairing": 0.32, "noma": 0.39, "fdma": 0.19, "equal": 0.12})


def _over_fdma_at_20_dbm(lines: Lines) -> Claim:
    return _gains("5", lines, 20, "20 dBm", {"fdma": 0.03})


def _over_equal(lines: Lines) -> Claim:
    holds, text = _ends(lines, "equal", {20: 0.52, 34: 0.02})
    text += f" ({_left_out(lines, 'equal', 20)} at 20 dBm)"
    return Claim("5", "the gain over equal allocation falls from 52 % at 20 dBm to 2 % at 34 dBm", verdict(holds), text)


def _shrinking(lines: Lines) -> Claim:
    gains = {joint: [_gain(lines, joint, "equal", x) for x in lines[joint].x] for joint in JOINT}
    holds = [gain[0] > gain[-1] for gain in gains.values()]
    text = "; ".join(f"{joint}: {', '.join(map(_percent, gain))}" for joint, gain in gains.items())
    return Claim("5", "joint optimisation gains most over equal allocation where power is short", verdict(holds), text)


def _channel_below_fdma(lines: Lines) -> Claim:
    gains = [_gain(lines, "channel_pairing", "fdma", x) for x in lines["fdma"].x]
    text = f"channel_pairing to fdma: {', '.join(map(_percent, gains))} ({_left_out(lines, 'channel_pairing', 20)} "
    text += "at 20 dBm)"
    return Claim("5", "channel-based pairing stays below FDMA at every power", verdict([g < 0 for g in gains]), text)


# --- Figure 6 ------------------------------------------------------------------------------------------------------


def _decline(lines: Lines) -> Claim:
    return _falling(lines, JOINT, "SC-SFMA falls from 91.1 at 6 users to 80.6 at 16 (-12 %)", -0.12)


def _decline_of_noma(lines: Lines) -> Claim:
    return _falling(lines, ("noma", NOMA_FAST), "NOMA falls from 78.0 at 6 users to 37.7 at 16 (-52 %)", -0.52)


def _falling(lines: Lines, labels: tuple[str, ...], statement: str, printed: float) -> Claim:
    falls = {label: _fall(lines[label]) for label in labels}
    text = "; ".join(
        f"{label}: {lines[label].mean[0]:.1f} to {lines[label].mean[-1]:.1f} ({_percent(fall)})"
        for label, fall in falls.items()
    )
    holds = [_same_gain(fall, printed) for fall in falls.values()]
    return Claim("6", statement, verdict(holds), f"{text} (rule: within 6 points)")


def _slowest(lines: Lines) -> Claim:
    rivals = [rival for rival in RIVALS if rival != "fdma"]
    falls = {label: _fall(lines[label]) for label in ("paper", *rivals, "fast", *(_rival("fast", x) for x in rivals))}
    holds = [falls[joint] > falls[_rival(joint, rival)] for joint in JOINT for rival in rivals]
    text = ", ".join(f"{label} {_percent(fall)}" for label, fall in falls.items())
    statement = "of the schemes that share a group's resources, SC-SFMA falls least with the users"
    return Claim("6", statement, verdict(holds), text + "; channel_pairing over its feasible instances only")


def _constant(lines: Lines) -> Claim:
    mean = lines["fdma"].mean
    holds = [float(np.ptp(mean) / mean.mean()) <= 0.03]
    text = f"{mean.min():.1f} to {mean.max():.1f} (rule: within 3 %)"
    return Claim("6", "FDMA is about constant in the users (75-77)", verdict(holds), text)


def _over_fdma_by_users(lines: Lines) -> Claim:
    holds, text = _ends(lines, "fdma", {6: 0.22, 16: 0.05})
    return Claim("6", "the gain over FDMA is 22 % at 6 users and 5 % at 16", verdict(holds), text)


def _crossover_of_users(lines: Lines) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        x = lines[joint].x
        slope, level = _trend(x, np.array([_gain(lines, joint, "fdma", users) for users in x]))
        users = -level / slope if slope < 0 else np.inf
        holds.append(16 <= users <= 20)
        parts.append(f"{joint}: " + (f"N = {users:.0f}" if np.isfinite(users) else "nowhere"))
    text = f"where a line through the gains reaches 0: {'; '.join(parts)} (rule: 16 to 20)"
    return Claim("6", "FDMA overtakes SC-SFMA near 18 users", verdict(holds), text)


# --- Figure 7 ------------------------------------------------------------------------------------------------------


def _linear(lines: Lines) -> Claim:
    fits = {label: _straightness(lines[label]) for label in (*SCHEMES, "fast")}
    text = ", ".join(f"{label} {table.number(fit, 3)}" for label, fit in fits.items())
    statement = "all schemes grow nearly linearly with bandwidth"
    return Claim("7", statement, verdict([fit >= 0.98 for fit in fits.values()]), f"R^2 of a line: {text} (rule: 0.98)")


def _levels_of_bandwidth(lines: Lines) -> Claim:
    return _levels("figure_07", lines, {4: "4 MHz", 16: "16 MHz"})


def _fdma_ahead(lines: Lines) -> Claim:
    gains = [_gain(lines, joint, "fdma", 4) for joint in JOINT]
    text = "; ".join(f"{joint} to fdma: {_percent(gain)}" for joint, gain in zip(JOINT, gains, strict=True))
    return Claim("7", "FDMA is ahead of SC-SFMA at 4 MHz (36.0 to 33.3)", verdict([g < 0 for g in gains]), text)


def _crossover_of_bandwidth(lines: Lines) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        place = _crossing(lines[joint].x, [_gain(lines, joint, "fdma", x) for x in lines[joint].x])
        holds.append(5 <= place <= 7)
        parts.append(f"{joint}: " + (f"{place:.1f} MHz" if np.isfinite(place) else "not between the ends of the axis"))
    return Claim("7", "SC-SFMA overtakes FDMA near 6 MHz", verdict(holds), "; ".join(parts) + " (rule: 5 to 7 MHz)")


def _widening(lines: Lines) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        gains = [_gain(lines, joint, "fdma", x) for x in lines[joint].x if x >= 6]
        holds += [wider > narrower for narrower, wider in itertools.pairwise(gains)] or [gains[-1] > 0]
        parts.append(f"{joint}: {', '.join(map(_percent, gains))}")
    return Claim("7", "from 6 MHz on the gain over FDMA grows", verdict(holds), "; ".join(parts))


def _gains_at_16_mhz(lines: Lines) -> Claim:
    return _gains("7", lines, 16, "16 MHz", {"fdma": 0.23, "channel_pairing": 0.28, "noma": 0.19})


def _noma_over_fdma(lines: Lines) -> Claim:
    gains = {label: _gain(lines, label, "fdma", 16) for label in ("noma", NOMA_FAST)}
    text = "; ".join(f"{label}: {_percent(gain)}" for label, gain in gains.items())
    return Claim("7", "NOMA is above FDMA at 16 MHz (114.0 to 109.9)", verdict([g > 0 for g in gains.values()]), text)


# --- Figure 8 ------------------------------------------------------------------------------------------------------


def _levels_of_pairings(lines: Lines) -> Claim:
    return _levels("figure_08", lines, {10: "10 users"})


def _over_equal_by_users(lines: Lines) -> Claim:
    holds, text = _ends(lines, "equal", {8: 0.05, 10: 0.12})
    return Claim("8", "the gain over equal allocation is 5 % at 8 users and 12 % at 10", verdict(holds), text)


def _deviation(lines: Lines) -> Claim:
    spread = {label: float(lines[label].std[lines[label].index(10)]) for label in (*JOINT, "equal")}
    holds = [0.4 <= spread[joint] / spread["equal"] <= 0.65 for joint in JOINT]
    text = ", ".join(f"{label} {value:.1f}" for label, value in spread.items()) + " (rule: 0.4 to 0.65 of equal's)"
    statement = "at 10 users the standard deviation of SC-SFMA (7.6) is about half that of equal allocation (14.4)"
    return Claim("8", statement, verdict(holds), text)


def _channel_last(lines: Lines) -> Claim:
    rates = {label: lines[label].at(10) for label in SCHEMES}
    below = [rates["channel_pairing"] < rates[label] for label in SCHEMES if label != "channel_pairing"]
    text = ", ".join(f"{label} {rate:.1f}" for label, rate in rates.items())
    text += f" ({_left_out(lines, 'channel_pairing', 10)}). The paper's own numbers put NOMA (65.6) below it (68.9)"
    return Claim("8", "channel-based pairing is last at 10 users, below NOMA and FDMA", verdict(below), text)


# --- what the rules are made of ------------------------------------------------------------------------------------


def _rival(joint: str, rival: str) -> str:
    """The line that a joint one is compared to: the rival solved in the same way."""
    return BY_FAST.get(rival, rival) if joint == "fast" else rival


def _gain(lines: Lines, label: str, rival: str, x: float) -> float:
    return gain(lines[label], lines[_rival(label, rival)], x)


def _same_gain(ours: float, printed: float) -> bool:
    return abs(ours - printed) <= NEAR


def _ends(lines: Lines, rival: str, printed: dict[float, float]) -> tuple[list[bool], str]:
    """Gains of the joint scheme over one other at some abscissas, against the printed ones."""
    holds, parts = [], []
    for joint in JOINT:
        gains = [_gain(lines, joint, rival, x) for x in printed]
        holds += [_same_gain(ours, theirs) for ours, theirs in zip(gains, printed.values(), strict=True)]
        parts.append(f"{joint}: {' and '.join(map(_percent, gains))}")
    return holds, "; ".join(parts) + " (rule: within 6 points)"


def _gains(figure: str, lines: Lines, x: float, place: str, printed: dict[str, float]) -> Claim:
    """Gains of the joint scheme over others at one abscissa."""
    holds, parts = [], []
    for joint in JOINT:
        gains = {rival: _gain(lines, joint, rival, x) for rival in printed}
        holds += [_same_gain(gain, printed[rival]) for rival, gain in gains.items()]
        parts.append(f"{joint}: " + ", ".join(f"{_percent(gain)} over {rival}" for rival, gain in gains.items()))
    statement = f"at {place} SC-SFMA gains " + ", ".join(f"{_percent(g)} over {rival}" for rival, g in printed.items())
    return Claim(figure, statement, verdict(holds), "; ".join(parts) + " (rule: within 6 points)")


def _levels(figure: str, lines: Lines, places: dict[float, str]) -> Claim:
    """The mean rates that the paper prints at some abscissas, beside ours and what the fast solver finds."""
    own, best, statement, ours = [], [], [], []
    for x, place in places.items():
        printed = {label: rates[x] for label, rates in PRINTED[figure].items() if x in rates}
        own += [_near(lines[label].at(x), rate) for label, rate in printed.items()]
        best += [_near(lines[BY_FAST.get(label, label)].at(x), rate) for label, rate in printed.items()]
        statement.append(f"{place}: " + ", ".join(f"{label} {rate:.1f}" for label, rate in printed.items()))
        ours.append(f"{place}: " + ", ".join(_beside_fast(lines, label, x) for label in printed))
    text = f"{'; '.join(ours)}; within 6 %: {sum(own)} of {len(own)}, by fast {sum(best)}"
    return Claim(number(figure), "; ".join(statement), verdict(own + best), text)


def _near(ours: float, printed: float) -> bool:
    return abs(ours / printed - 1.0) <= NEAR


def _beside_fast(lines: Lines, label: str, x: float) -> str:
    text = f"{label} {lines[label].at(x):.1f}"
    return f"{text} (by fast {lines[BY_FAST[label]].at(x):.1f})" if label in BY_FAST else text


def _fall(line: Line) -> float:
    """Relative change of the mean from the first to the last point."""
    return float(line.mean[-1] / line.mean[0] - 1.0)


def _trend(x: Array, y: Array) -> Array:
    """Slope and level of a line through the points that have a value; NaN where there are fewer than two."""
    known = np.isfinite(y)
    return np.polyfit(x[known], y[known], 1) if known.sum() > 1 else np.full(2, np.nan)


def _straightness(line: Line) -> float:
    """R^2 of a line through the means; NaN where fewer than three points have one."""
    y = line.mean
    rest = y - np.polyval(_trend(line.x, y), line.x)
    known = np.isfinite(rest)
    return float(1.0 - np.var(rest[known]) / np.var(y[known])) if known.sum() > 2 else np.nan


def _crossing(x: Array, gains: list[float]) -> float:
    """Where the gain first turns positive, linear between points; inf if it does not."""
    for k in range(1, len(x)):
        if gains[k - 1] < 0 <= gains[k]:
            return float(x[k - 1] + (x[k] - x[k - 1]) * gains[k - 1] / (gains[k - 1] - gains[k]))
    return np.inf


def _left_out(lines: Lines, label: str, x: float) -> str:
    return f"{label} infeasible on {_percent(float(lines[label].infeasible[lines[label].index(x)]))}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if np.isfinite(share) else "no instance that both solve"
