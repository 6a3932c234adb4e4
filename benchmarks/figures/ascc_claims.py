"""The MU-ASCC paper's statements about Figures 4 and 7-9, each decided from our data by a rule that the page prints.

A statement about MU-ASCC is decided twice: by ``jrpb``, its algorithm, and by ``fast``, which nearly reaches the
optimum. The benchmarks are the paper's two, ZF-WF-BPG and ZF-WF-DJSCC.
"""

from __future__ import annotations

import numpy as np

from semcom_gym.benchmarks.figures.sweep import Claim, Finished, Line, mean, number, verdict
from semcom_gym.benchmarks.pictures import MEASURED
from semcom_gym.envs.arrays import Array

LENGTHS = (256, 4096)
JOINT = ("jrpb", "fast")
BENCHMARKS = ("zf_wf_bpg", "zf_wf_djscc")
REDUCTIONS = {
    256: {"zf_wf_bpg": 0.3985, "zf_wf_djscc": 0.2963},
    4096: {"zf_wf_bpg": 0.3789, "zf_wf_djscc": 0.3367},
}
"""Blocklength -> benchmark -> how far the weighted distortion lies below it at 8 dBW."""
POINTS = {"zf_wf_bpg": (0.0143, 0.2120), "zf_wf_djscc": (0.0140, 0.1723)}
"""Benchmark -> gains of MS-SSIM and of accuracy over it at L = 256, 3 W."""
THRESHOLDS = {5.9e4: -6.0, 6.8e3: -5.0}  # source rate [bit] -> log10 of the bit error rate where distortion sets in
NEAR = 0.06  # how near a gain counts as the printed one, and the same of MS-SSIM
NEAR_MS_SSIM = 0.005
NEAR_DECADES = 0.3
ONSET = 0.05  # share of the channel distortion that counts as its onset
CLIFF = 2.0  # factor of distortion between neighbouring points that counts as a cliff
Lines = dict[str, Line]


def claims(found: Finished) -> list[Claim]:
    """The paper's statements about the figures at hand, with our verdicts."""
    made = []
    for name in ("figure_04a", "figure_04c", "figure_05a", "figure_05c"):
        if name in found:
            made += [_robust(name, found[name])]
    if "figure_04c" in found:
        made += [_thresholds(found["figure_04c"])]
    for name in ("figure_07", "figure_09"):
        panels = {key: lines for key, lines in found.items() if key.startswith(name)}
        for length in LENGTHS:
            if name == "figure_07" and f"{name}a_L{length}" in panels:
                made.append(_reductions(panels[f"{name}a_L{length}"], length))
        if panels:
            made += [_lowest(name, panels), _qualities(name, panels)]
            made += [_no_cliff(panels)] if name == "figure_07" else [_less_bandwidth(panels)]
    if "figure_08_L256" in found:
        made += [_gains(found["figure_08_L256"], rival) for rival in BENCHMARKS]
    regions = {key: lines for key, lines in found.items() if key.startswith("figure_08")}
    if regions:
        made += [_region(regions), _longer_blocks(regions)]
    return made


# --- Figures 4 and 5 -----------------------------------------------------------------------------------------------


def _robust(name: str, lines: Lines) -> Claim:
    fits = [line for label, line in sorted(_by_rate(lines).items())]
    onset, floor = [_onset(line) for line in fits], [float(line.mean[0]) for line in fits]
    holds = [*(np.diff(onset) <= 0), *(np.diff(floor) <= 0)]
    text = f"by rate, distortion sets in at 10^ {_join(onset, 2)} and starts from {_join(floor, 3)}"
    text += f" (rule: at {100 * ONSET:.0f} % of the channel distortion)"
    statement = "models of lower rate stand more bit errors and have more source distortion"
    return Claim(number(name), statement, verdict(holds), text)


def _thresholds(lines: Lines) -> Claim:
    rates = _by_rate(lines)
    ours = {rate: _onset(rates[min(rates, key=lambda x, r=rate: abs(x - r))]) for rate in THRESHOLDS}
    holds = [abs(ours[rate] - printed) <= NEAR_DECADES for rate, printed in THRESHOLDS.items()]
    text = f"10^{ours[5.9e4]:.2f} and 10^{ours[6.8e3]:.2f} at the nearest rates (rule: within {NEAR_DECADES:g} decades)"
    statement = "the distortion threshold goes from 10^-6 to 10^-5 as the rate falls from 59000 to 6800 bit"
    return Claim("4c", statement, verdict(holds), text)


def _by_rate(lines: Lines) -> dict[float, Line]:
    """Source rate [bit] -> the line of its codec."""
    return {float(label.split()[2]): line for label, line in lines.items() if not label.startswith(MEASURED)}


def _onset(line: Line) -> float:
    y = line.mean
    return float(np.interp(y[0] + ONSET * (y[-1] - y[0]), y, line.x))


# --- Figure 7 ------------------------------------------------------------------------------------------------------


def _reductions(lines: Lines, length: int) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        ours = {rival: 1.0 - lines[joint].at(8) / lines[rival].at(8) for rival in BENCHMARKS}
        holds += [abs(ours[rival] - printed) <= NEAR for rival, printed in REDUCTIONS[length].items()]
        parts.append(f"{joint}: " + ", ".join(f"{_percent(ours[rival])} below {rival}" for rival in BENCHMARKS))
    printed = " and ".join(f"{100 * gain:.2f} % below {rival}" for rival, gain in REDUCTIONS[length].items())
    text = "; ".join(parts) + " (rule: within 6 points)"
    return Claim("7a", f"at 8 dBW and L = {length} the weighted distortion is {printed}", verdict(holds), text)


def _no_cliff(panels: Finished) -> Claim:
    steps = {
        f"{label}, L = {length}": _largest_step(panels[f"figure_07a_L{length}"][label])
        for length in LENGTHS
        if f"figure_07a_L{length}" in panels
        for label in (*JOINT, "zf_wf_bpg")
    }
    holds = [(step >= CLIFF) == key.startswith("zf_wf_bpg") for key, step in steps.items()]
    text = "largest factor from one power to the next: " + "; ".join(
        f"{key}: {step:.2g}" for key, step in steps.items()
    )
    statement = "MU-ASCC avoids the cliff that fixed code rates have"
    return Claim("7a", statement, verdict(holds), f"{text} (rule: below {CLIFF:g} for it, above for zf_wf_bpg)")


def _largest_step(line: Line) -> float:
    return float(np.max(line.mean[:-1] / line.mean[1:]))


# --- Figures 7 and 9 -----------------------------------------------------------------------------------------------


def _lowest(name: str, panels: Finished) -> Claim:
    holds, least = [], {}
    for joint in JOINT:
        margins = [
            margin for length in LENGTHS if f"{name}a_L{length}" in panels
            for rival in BENCHMARKS for margin in _below(panels[f"{name}a_L{length}"], joint, rival)
        ]  # fmt: skip
        holds += [margin > 0 for margin in margins]
        least[joint] = min(margins)
    text = "; ".join(f"{joint}: at least {_percent(margin)} below both" for joint, margin in least.items())
    what = {"figure_07": "at every power", "figure_09": "at every bandwidth ratio"}[name]
    statement = f"the weighted distortion is below both benchmarks {what}"
    return Claim(f"{number(name)}a", statement, verdict(holds), text)


def _below(lines: Lines, joint: str, rival: str) -> Array:
    """How far the joint scheme lies below a benchmark, as a share, where both are known."""
    return np.array([1.0 - lines[joint].at(x) / lines[rival].at(x) for x in lines[rival].x])


def _qualities(name: str, panels: Finished) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        above = [
            lines[joint].at(x) > lines[rival].at(x)
            for key, lines in panels.items() if key[len(name)] in "bc"
            for rival in BENCHMARKS for x in lines[rival].x
        ]  # fmt: skip
        holds.append(np.mean(above) >= 0.9 if above else False)
        parts.append(f"{joint}: at {sum(above)} of {len(above)} points")
    text = "; ".join(parts) + " of both panels, both blocklengths and both benchmarks (rule: 90 %)"
    what = {"figure_07": "nearly all powers", "figure_09": "nearly all bandwidth ratios"}[name]
    statement = f"MS-SSIM and accuracy are above both benchmarks at {what}"
    return Claim(f"{number(name)}b, c", statement, verdict(holds), text)


# --- Figure 8 ------------------------------------------------------------------------------------------------------


def _gains(lines: Lines, rival: str) -> Claim:
    wanted = np.array(POINTS[rival])
    holds, parts = [], []
    for joint in JOINT:
        gains = _quality(lines[joint]) - _quality(lines[rival])[:1]
        enough = gains[:, 0] >= wanted[0] - NEAR_MS_SSIM
        k = int(np.argmax(np.where(enough, gains[:, 1], -np.inf))) if enough.any() else int(np.argmax(gains[:, 0]))
        holds.append(bool(np.all(gains[k] >= wanted - (NEAR_MS_SSIM, NEAR))))
        parts.append(f"{joint}: {gains[k, 0]:+.4f} and {100 * gains[k, 1]:+.1f} points at weight {lines[joint].x[k]:g}")
    statement = f"at L = 256 MS-SSIM gains {wanted[0]:.4f} and accuracy {100 * wanted[1]:.2f} % over {rival}"
    text = "; ".join(parts) + f" (the weight of most accuracy among those with the MS-SSIM; rule: {NEAR_MS_SSIM:g} and "
    return Claim("8", statement, verdict(holds), text + "6 points less count)")


def _region(regions: Finished) -> Claim:
    holds, parts = [], []
    for key, lines in regions.items():
        for joint in JOINT:
            inside = {rival: _covers(lines[joint], lines[rival]) for rival in BENCHMARKS}
            holds += list(inside.values())
            missed = ", ".join(rival for rival, there in inside.items() if not there) or "neither"
            parts.append(f"{joint}, {key.partition('_L')[2]}: {missed} out of reach")
    statement = "the region of MU-ASCC is broader than all benchmarks: both users gain at once"
    return Claim("8", statement, verdict(holds), "; ".join(parts) + " (rule: some weight is better in both qualities)")


def _longer_blocks(regions: Finished) -> Claim:
    if len(regions) < len(LENGTHS):
        return Claim("8", LONGER, "no", "one blocklength only")
    holds, parts = [], []
    for joint in JOINT:
        short, long = (regions[f"figure_08_L{length}"][joint] for length in LENGTHS)
        weights = np.stack([short.x, 1.0 - short.x], axis=1)
        gain = np.sum(weights * (_quality(long) - _quality(short)), axis=1)
        holds.append(bool(np.all(gain >= 0) and np.any(gain > 0)))
        parts.append(f"{joint}: {gain.min():+.4f} to {gain.max():+.4f}")
    text = "change of the weighted quality from L = 256 to 4096 over the weights: " + "; ".join(parts)
    return Claim("8", LONGER, verdict(holds), text)


LONGER = "performance improves further with L = 4096"


def _quality(line: Line) -> Array:
    """(k, 2) mean MS-SSIM and accuracy of every point."""
    return np.array([[mean(line.terms[term][k]) for term in ("ms_ssim", "accuracy")] for k in range(len(line.x))])


def _covers(line: Line, rival: Line) -> bool:
    """Whether some point of the line is better than the rival's one in both qualities."""
    return bool(np.any(np.all(_quality(line) > _quality(rival)[:1], axis=1)))


# --- Figure 9 ------------------------------------------------------------------------------------------------------


def _less_bandwidth(panels: Finished) -> Claim:
    holds, parts = [], []
    for key, lines in panels.items():
        if key[len("figure_09")] not in "bc":
            continue
        for joint in JOINT:
            best = max(float(np.max(lines[rival].mean)) for rival in BENCHMARKS)
            enough = lines[joint].x[lines[joint].mean >= best]
            last = max(float(lines[rival].x.max()) for rival in BENCHMARKS)
            holds.append(bool(len(enough)) and float(enough.min()) < last)
            there = f"{enough.min():.3g}" if len(enough) else "none"
            parts.append(f"{joint}, {number(key)}, {key.partition('_L')[2]}: {there} of {last:.3g}")
    text = "least ratio at which it reaches the best of both benchmarks at any ratio: " + "; ".join(parts)
    return Claim("9b, c", "higher quality and accuracy with less bandwidth", verdict(holds), text)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _join(values: list[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
