"""The training paper's statements about Figures 3-9, each decided from our data by a rule that the page prints.

The text prints no number of Figures 3-8, so the statements are about order and trend. Two schemes are compared by
their means over the instances that both solve. A statement about the paper's scheme is decided twice: by ``paper``,
its Algorithm 3, and by ``fast``, the optimum; "optimise p, B only" likewise with T frozen and with T free.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from semcom_gym import envs
from semcom_gym.benchmarks.figures.sweep import Claim, Finished, Line, mean, verdict
from semcom_gym.envs.arrays import Array
from semcom_gym.envs.training import physics

JOINT = ("paper", "fast")
POWER_ONLY = ("pb_only_frozen", "pb_only")
CLOCKS_ONLY = "fhrho_only"
RIVALS = (*POWER_ONLY, CLOCKS_ONLY, "average", "random")
PUBLISHED = ("paper", *RIVALS)
SAME = 1e-3  # relative: what counts as the same
TIME, ENERGY = "makespan_s", "energy_j"
NAMES = {TIME: "T", ENERGY: "E", "": "the weighted sum"}
POINTS_DB = {4.0: (25.70, 25.67), 13.0: (26.79, 26.95)}
"""Section VII-G, rho = 0.1: SNR [dB] -> the threshold that stands for it and the PSNR achieved [dB]."""
Lines = dict[str, Line]


def claims(found: Finished) -> list[Claim]:
    """The paper's statements about the figures at hand, with our verdicts."""
    rules = {
        "figure_03": [_falling_with_bandwidth, _shortest, _power_beats_clocks, _computing_costs_more, _frugal,
                      _least_energy, _best_with_bandwidth],
        "figure_04": [_shorter_with_power, _power_only_is_short, _moderate_rise, _best_with_power],
        "figure_05": [_shorter_with_clock, _dearer_with_clock, _stationary, _best_with_clock],
        "figure_06": [_time_falls_with_its_weight, _energy_rises_with_times_weight, _users_pay_more, _upload_is_main],
        "figure_07": [_time_rises_with_users, _energy_rises_sharper],
        "figure_08": [_psnr_rises, _costs_rise_with_psnr],
    }  # fmt: skip
    made = [rule(found[name]) for name, chosen in rules.items() if name in found for rule in chosen]
    return made + ([_gap(found["figure_03"])] if "figure_03" in found else []) + [_operating_points()]


# --- Figure 3 ------------------------------------------------------------------------------------------------------


def _falling_with_bandwidth(lines: Lines) -> Claim:
    return _trend("3", "T, E and the weighted sum of every scheme fall with bandwidth", lines, (TIME, ENERGY, ""), -1)


def _shortest(lines: Lines) -> Claim:
    return _lowest("3", "the proposed method has the shortest T at every bandwidth", lines, TIME)


def _power_beats_clocks(lines: Lines) -> Claim:
    holds, parts = [], []
    for label in POWER_ONLY:
        ratios = [_ratio(lines, label, CLOCKS_ONLY, TIME, x) for x in lines[label].x]
        holds.append(ratios[-1] < 1.0)
        parts.append(f"T of {label} over {CLOCKS_ONLY}: {_numbers(ratios)}")
    statement = "optimising p, B only gives a shorter T than f, h, rho only once bandwidth is ample"
    return Claim("3", statement, verdict(holds), "; ".join(parts) + " (rule: below 1 at the largest bandwidth)")


def _computing_costs_more(lines: Lines) -> Claim:
    shares = {label: _term(lines[label], "upload_energy_j") / _term(lines[label], ENERGY)
              for label in (*PUBLISHED, "fast")}  # fmt: skip
    holds = [share < 0.5 for row in shares.values() for share in row]
    text = "; ".join(f"{label} {_percent(row[0])} to {_percent(row[-1])}" for label, row in shares.items())
    return Claim("3", "computing takes more energy than transmission", verdict(holds),
                 f"share of the upload in E, from the least to the largest bandwidth: {text}")  # fmt: skip


def _frugal(lines: Lines) -> Claim:
    ours = (*JOINT, CLOCKS_ONLY)
    others = (*POWER_ONLY, "average", "random")
    ratios = {label: max(_ratio(lines, label, other, ENERGY, x) for other in others for x in lines[label].x)
              for label in ours}  # fmt: skip
    text = ", ".join(f"{label} {ratio:.2f}" for label, ratio in ratios.items())
    statement = "the proposed method and f, h, rho only need far less energy than the other schemes"
    return Claim("3", statement, verdict([ratio < 0.5 for ratio in ratios.values()]),
                 f"largest ratio of E to another's at any bandwidth: {text} (rule: below a half)")  # fmt: skip


def _least_energy(lines: Lines) -> Claim:
    return _lowest("3", "the proposed method needs the least E", lines, ENERGY)


def _best_with_bandwidth(lines: Lines) -> Claim:
    return _lowest("3", "the proposed method has the lowest weighted sum at every bandwidth", lines, "")


# --- Figures 4 and 5 -----------------------------------------------------------------------------------------------


def _shorter_with_power(lines: Lines) -> Claim:
    return _trend("4", "T of every scheme falls with the largest power", lines, (TIME,), -1)


def _power_only_is_short(lines: Lines) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        for label in POWER_ONLY:
            times = [_ratio(lines, label, joint, TIME, x) for x in lines[label].x]
            energies = [_ratio(lines, label, joint, ENERGY, x) for x in lines[label].x]
            below = [(t, e) for t, e in zip(times, energies, strict=True) if t < 1.0]
            holds.append(bool(below) and all(1.0 - t < e - 1.0 for t, e in below))
            parts.append(f"{label} to {joint}: T {min(times):.2f} to {max(times):.2f}, E {_range(energies)}")
    statement = "optimising p, B only is sometimes shorter than the proposed method, by less than its energy is above"
    return Claim("4", statement, verdict(holds), "; ".join(parts))


def _moderate_rise(lines: Lines) -> Claim:
    growth = {label: _growth(_term(lines[label], ENERGY)) for label in (*PUBLISHED, "fast")}
    holds = [0.0 < growth[joint] < 1.0 for joint in JOINT]
    text = ", ".join(f"{label} {_percent(g)}" for label, g in growth.items())
    return Claim("4", "E of the proposed method rises moderately with the largest power", verdict(holds),
                 f"from 4 to 20 dBm: {text} (rule: more than 0, less than 100 %)")  # fmt: skip


def _best_with_power(lines: Lines) -> Claim:
    return _lowest("4", "the proposed method has the lowest weighted sum at every power", lines, "")


def _shorter_with_clock(lines: Lines) -> Claim:
    return _trend("5", "T of every scheme falls with the largest device frequency", lines, (TIME,), -1)


def _dearer_with_clock(lines: Lines) -> Claim:
    return _trend("5", "E of every scheme rises with the largest device frequency", lines, (ENERGY,), 1)


def _stationary(lines: Lines) -> Claim:
    holds, parts = [], []
    for label in (*JOINT, CLOCKS_ONLY):
        steps = [abs(row[-1] / row[-2] - 1.0) for row in (_term(lines[label], TIME), _term(lines[label], ENERGY))]
        holds.append(max(steps) < 0.01)
        parts.append(f"{label}: T {_percent(steps[0])}, E {_percent(steps[1])}")
    statement = "the proposed method and f, h, rho only become stationary as the frequency rises"
    return Claim("5", statement, verdict(holds), f"change over the last step: {'; '.join(parts)} (rule: below 1 %)")


def _best_with_clock(lines: Lines) -> Claim:
    return _lowest("5", "the proposed method has the lowest weighted sum at every frequency", lines, "")


# --- Figures 6 to 8 ------------------------------------------------------------------------------------------------


def _time_falls_with_its_weight(lines: Lines) -> Claim:
    return _trend("6", "T of the proposed method falls with its weight", lines, (TIME,), -1, JOINT)


def _energy_rises_with_times_weight(lines: Lines) -> Claim:
    return _trend("6", "E of the proposed method rises with the weight of T", lines, (ENERGY,), 1, JOINT)


def _users_pay_more(lines: Lines) -> Claim:
    holds, text = _shares(lines, ("device_time_s", "bs_time_s"), ("device_energy_j", "bs_energy_j"), 1.0)
    return Claim("6", "the users' overhead is greater than that of the base station", verdict(holds),
                 f"users over base station: {text}")  # fmt: skip


def _upload_is_main(lines: Lines) -> Claim:
    holds, text = _shares(lines, ("upload_time_s", "device_time_s"), ("upload_energy_j", "device_energy_j"), 0.5)
    return Claim("6", "the upload is the main part of the users' overhead", verdict(holds),
                 f"share of the upload: {text} (rule: above a half)")  # fmt: skip


def _shares(lines: Lines, times: tuple[str, str], energies: tuple[str, str], least: float) -> tuple[list[bool], str]:
    """Whether a time and an energy are more than ``least`` of another, at every point, and by how much."""
    holds, parts = [], []
    for joint in JOINT:
        time, energy = (_term(lines[joint], part) / _term(lines[joint], whole) for part, whole in (times, energies))
        holds += [bool(ratio > least) for ratio in (*time, *energy)]
        parts.append(f"{joint}: time {_range(time)}, energy {_range(energy)}")
    return holds, "; ".join(parts)


def _time_rises_with_users(lines: Lines) -> Claim:
    holds, parts = [], []
    for joint in JOINT:
        grown = [_growth(_term(lines[joint], name)) for name in (TIME, "device_time_s", "bs_time_s")]
        holds += [grown[0] > 0.0, grown[1] > grown[2]]
        parts.append(f"{joint}: T {_percent(grown[0])}, device {_percent(grown[1])}, BS {_percent(grown[2])}")
    return Claim("7", "T rises with the users, above all on the devices", verdict(holds),
                 f"from the fewest to the most users: {'; '.join(parts)}")  # fmt: skip


def _energy_rises_sharper(lines: Lines) -> Claim:
    grown = {joint: [_growth(_term(lines[joint], name)) for name in (ENERGY, TIME)] for joint in JOINT}
    text = "; ".join(f"{joint}: E {_percent(e)}, T {_percent(t)}" for joint, (e, t) in grown.items())
    return Claim("7", "E rises more sharply than T", verdict([e > t for e, t in grown.values()]),
                 f"from the fewest to the most users: {text}")  # fmt: skip


def _psnr_rises(lines: Lines) -> Claim:
    return _trend("8", "the mean PSNR rises with its threshold", lines, ("psnr_db",), 1, JOINT)


def _costs_rise_with_psnr(lines: Lines) -> Claim:
    return _trend("8", "T and E rise with the PSNR threshold", lines, (TIME, ENERGY), 1, JOINT)


# --- what the paper does not say -----------------------------------------------------------------------------------


def _gap(lines: Lines) -> Claim:
    """How far Algorithm 3 ends above the optimum."""
    excess = [mean(loss(lines["paper"], lines["fast"], x)) for x in lines["paper"].x]
    equal = [mean(loss(lines["equal_bandwidth"], lines["fast"], x)) for x in lines["paper"].x]
    over = [_ratio(lines, "paper", CLOCKS_ONLY, "", x) for x in lines["paper"].x]
    text = f"paper ends {_percent(min(excess))} to {_percent(max(excess))} above the optimum and reaches "
    text += f"{min(over):.4f} to {max(over):.4f} of {CLOCKS_ONLY}, its own first half step; equal bandwidths with the "
    text += f"rest optimal end {_percent(min(equal))} to {_percent(max(equal))} above"
    statement = 'optima of P2 "progressively converge" through solving P3 and P4 in turn (Section IV-B)'
    return Claim("3", statement, verdict([value < 0.01 for value in excess]), text + " (rule: within 1 %)")


def _operating_points() -> Claim:
    """(58) at the paper's two operating points, by both curves."""
    holds, parts = [], []
    for curve in ("published_printed", "corrected"):
        params = envs.problem("training").preset("paper", psnr_curve=curve)
        made = [float(physics.psnr_db(params, np.array(0.1), np.array(10.0 ** (snr / 10)))) for snr in POINTS_DB]
        holds += [min(abs(ours - x) for x in pair) < 0.1 for ours, pair in zip(made, POINTS_DB.values(), strict=True)]
        parts.append(f"{curve}: {' and '.join(f'{value:.2f}' for value in made)} dB")
    printed = "; ".join(f"{snr:g} dB: {at[0]:.2f} asked for, {at[1]:.2f} reached" for snr, at in POINTS_DB.items())
    return Claim("9", f"PSNR at rho = 0.1 and an SNR of {printed}", verdict(holds),
                 f"(58) at these SNRs, {'; '.join(parts)} (rule: within 0.1 dB of either)")  # fmt: skip


# --- what the rules are made of ------------------------------------------------------------------------------------


def loss(line: Line, best: Line, x: float) -> Array:
    """Relative excess of one scheme over another at an abscissa, on each instance that both solve."""
    ours, theirs = line.value[line.index(x)], best.value[best.index(x)]
    both = np.isfinite(ours) & np.isfinite(theirs)
    return np.asarray(ours[both] / theirs[both] - 1.0)


def _ratio(lines: Lines, label: str, other: str, term: str, x: float) -> float:
    """Mean of a term (the weighted sum where "") over another scheme's, on the instances that both solve."""
    ours, theirs = ((line.of(term) if term else line) for line in (lines[label], lines[other]))
    a, b = ours.value[ours.index(x)], theirs.value[theirs.index(x)]
    both = np.isfinite(a) & np.isfinite(b)
    return mean(a[both]) / mean(b[both])


def _term(line: Line, term: str) -> Array:
    """(k,) means of a term, over the instances that are feasible at every abscissa where any is; NaN elsewhere."""
    values = line.of(term).value
    some = np.isfinite(values).any(-1)
    always = np.isfinite(values[some]).all(0)
    return np.where(some, np.array([mean(row[always]) for row in values]), np.nan)


def _trend(
    figure: str, statement: str, lines: Lines, terms: tuple[str, ...], sign: int, labels: tuple[str, ...] | None = None
) -> Claim:
    """Whether quantities of schemes rise (sign 1) or fall: nowhere the other way by more than SAME, and in all."""
    holds, broken, parts = [], [], []
    for term in terms:
        for label in labels or (*PUBLISHED, "fast"):
            line = lines[label]
            row = line.mean if not term else _term(line, term)
            row = sign * row[np.isfinite(row)]
            steps = np.diff(row)
            good = len(row) > 1 and row[-1] > row[0] and bool(np.all(steps >= -SAME * np.abs(row[:-1])))
            holds.append(bool(good))
            name = NAMES.get(term, term)
            broken += [] if good else [f"{name} of {label}"]
            if label in JOINT and len(row):
                parts.append(f"{name} of {label} {_size(sign * row[0])} to {_size(sign * row[-1])}")
    text = "; ".join(parts) + (f"; not so: {', '.join(broken)}" if broken else "")
    return Claim(figure, statement, verdict(holds), f"{text} (rule: no step the other way by over 0.1 %)")


def _lowest(figure: str, statement: str, lines: Lines, term: str) -> Claim:
    """Whether a quantity of the proposed scheme is the lowest of the published ones, ties counted as lowest."""
    holds, parts = [], []
    for joint in JOINT:
        ratios = {other: [_ratio(lines, other, joint, term, x) for x in lines[joint].x] for other in RIVALS}
        least = {other: min((r for r in row if np.isfinite(r)), default=np.nan) for other, row in ratios.items()}
        holds += [r >= 1.0 - SAME for row in ratios.values() for r in row if np.isfinite(r)]
        parts.append(f"{joint}: " + ", ".join(f"{other} {value:.4f}" for other, value in least.items()))
    text = f"least ratio of another's to it, {'; '.join(parts)} (rule: 0.999 everywhere)"
    return Claim(figure, statement, verdict(holds), text)


def _growth(row: Array) -> float:
    return float(row[-1] / row[0] - 1.0)


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _range(values: Iterable[float]) -> str:
    known = [value for value in values if np.isfinite(value)]
    return f"{min(known):.2f} to {max(known):.2f}" if known else "no instance"


def _size(value: float) -> str:
    return f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if np.isfinite(share) else "no instance that both solve"
