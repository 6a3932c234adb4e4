"""The curves that the environments read: the fit, its measured points and where the numbers come from."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from semcom_gym.benchmarks.report.markup import DASH, Markup, code, facts, join, slug, table, tag
from semcom_gym.benchmarks.report.plot import Chart, axis, figure, legend, style
from semcom_gym.envs.arrays import falling
from semcom_gym.envs.ascc.rates import PARAMETERS as CODECS
from semcom_gym.envs.crra.physics import task_performance
from semcom_gym.envs.curve import Curve
from semcom_gym.envs.sfma.physics import interference
from semcom_gym.envs.sfma.profile import Profile
from semcom_gym.envs.training.physics import psnr_db

FINE = 80
NEVER_DB = 300.0  # an SNR that no curve ends below
KINDS = {
    "measured": "measured on a network trained here",
    "published": "printed in a paper",
    "synthetic": "designed; nothing here was measured",
}
Panel = tuple[str, str, str, list[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]], dict[str, list[Any]]]
"""Caption, labels of the axes, lines (name, x, y), and points (x, y) by the line they belong to."""


def section(curves: Sequence[tuple[str, Curve]]) -> Markup:
    """A part per problem, an entry per curve."""
    parts = []
    for problem in dict.fromkeys(curve.problem for _, curve in curves):
        parts.append(tag("h3", problem, id=slug(f"curves {problem}")))
        parts += [_entry(name, curve) for name, curve in curves if curve.problem == problem]
    return join(parts, "\n")


def _entry(name: str, curve: Curve) -> Markup:
    measured = f", {len(curve.points)} points" if curve.points else ""
    summary = tag("summary", tag("h4", curve.name), tag("span", f"{curve.kind}: {KINDS[curve.kind]}{measured}"))
    errors = curve.standard_errors or {}
    pairs: list[tuple[object, object]] = [
        ("gives", curve.quantity), ("equation", curve.equation), ("file", code(name)),
        *((f"goodness: {key}", _shown(value)) for key, value in curve.goodness.items()),
        *_flat("", curve.provenance),
    ]  # fmt: skip
    if not curve.points:
        pairs.append(("points", "none: the source prints or measures none"))
    rows = [[key, _shown(value), _error(errors.get(key))] for key, value in curve.parameters.items()]
    values = table(("parameter", "value", "standard error"), rows, left=(0,), caption=f"Parameters of {curve.name}")
    charts = tag("div", *(_chart(curve, panel) for panel in PANELS[curve.problem](curve)), class_="charts")
    return tag(
        "details", summary, tag("div", charts, values, facts(pairs), class_="body"), open=curve.kind == "measured"
    )


def _chart(curve: Curve, panel: Panel) -> Markup:
    caption, x_label, y_label, lines, points = panel
    ys = [float(value) for _, _, y in lines for value in y] + [y for found in points.values() for _, y in found]
    xs = [float(value) for _, x, _ in lines for value in x] + [x for found in points.values() for x, _ in found]
    count = sum(map(len, points.values()))
    chart = Chart(
        axis(x_label, xs, room=0.02), axis(y_label, ys, log=y_label == "distortion"),
        f"{curve.name}: {y_label} against {x_label}; {len(lines)} lines, {count} measured points.",
    )  # fmt: skip
    for place, (label, x, y) in enumerate(lines):
        chart.line(list(zip(x.tolist(), y.tolist(), strict=True)), style(place), label)
        for point in points.get(label, []):
            chart.dot((point[0], point[1]), style(place), f"measured: {point[1]:.4g}", shape="ring")
    entries = [(label, style(place), "line") for place, (label, _, _) in enumerate(lines) if label]
    entries += [("measured", "ink", "ring")] if count else []
    return figure(chart, caption, legend(entries) if entries else "")


def _error(value: Any) -> str:
    """A standard error, or those of a table; a dash where there is none."""
    if value is None:
        return DASH
    return _shown(value) if isinstance(value, list) else f"{value:.3g}"


def _shown(value: Any) -> str:
    """A number with six digits; a table by its size and ends."""
    if isinstance(value, list):
        flat = np.ravel(value)
        size = " by ".join(map(str, np.shape(value)))
        return f"{flat[0]:.4g} to {flat[-1]:.4g} ({size})" if flat.size > 2 else ", ".join(f"{x:.4g}" for x in flat)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _flat(name: str, value: Any) -> list[tuple[object, object]]:
    """Provenance, level by level, as names and values."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flat(f"{name} {key}".strip(), inner)]
    shown = ", ".join(_shown(x) for x in value) if isinstance(value, list) else _shown(value)
    return [(name.replace("_", " "), shown)]


# --- what is drawn of each problem's curves ------------------------------------------------------------------------


def _crra(curve: Curve) -> list[Panel]:
    zeta = tuple(curve.parameters[f"zeta{k}"] for k in (1, 2, 3, 4))
    ratio = np.linspace(0.0, 1.0, FINE)
    lines = [("fit", ratio, task_performance(ratio, zeta))]
    points = {"fit": [(point[0], point[-1]) for point in curve.points]}
    return [("Success of the task", "compression ratio", "success", lines, points)]


def _training(curve: Curve) -> list[Panel]:
    fitted = tuple(curve.parameters[key] for key in ("scale", "ratio_slope", "snr_slope", "offset"))
    params = types.SimpleNamespace(
        psnr_parameters=fitted, max_snr_db=min(curve.parameters.get("max_snr_db", NEVER_DB), NEVER_DB)
    )
    ratios = sorted({point[0] for point in curve.points}) or [0.1, 0.3, 0.5, 1.0]
    chosen = [ratios[k] for k in np.unique(np.linspace(0, len(ratios) - 1, 5).round().astype(int))]
    snrs = [point[1] for point in curve.points] or [0.0, 20.0]
    snr_db = np.linspace(min(snrs), max(snrs), FINE)
    names = {ratio: f"rho = {ratio:.3g}" for ratio in chosen}
    lines = [(names[r], snr_db, psnr_db(params, np.full(FINE, r), 10.0 ** (0.1 * snr_db))) for r in chosen]
    points = {names[r]: [(point[1], point[2]) for point in curve.points if point[0] == r] for r in chosen}
    return [("Quality of the images", "SNR [dB]", "PSNR [dB]", lines, points)]


def _ascc(curve: Curve) -> list[Panel]:
    p = curve.parameters
    if "snr_db" in p:
        x = np.asarray(p["snr_db"], float)
        lines = [
            (f"{uses:g} uses", x, np.asarray(row)) for uses, row in zip(p["channel_uses"], p["distortion"], strict=True)
        ]
        return [("Distortion by channel uses", "SNR [dB]", "distortion", lines, {})]
    columns = np.stack([np.asarray(p[key], float) for key in CODECS])
    error = np.linspace(-8.0, 0.0, FINE)
    lines = []
    for k in np.unique(np.linspace(0, columns.shape[1] - 1, 5).round().astype(int)):
        rate, source, channel, slope, midpoint = columns[:, k]
        lines.append((f"{rate:g} bit", error, source + channel * falling(slope * (midpoint - error))))
    points = {
        f"{rate:g} bit": [(x, y) for at, x, y in (point for point in curve.points if len(point) == 3) if at == rate]
        for rate in columns[0]
    }
    return [("Distortion by bit error rate", "log10 of the bit error rate", "distortion", lines, points)]


def _sfma(curve: Curve) -> list[Panel]:
    if "spectral_efficiency" in curve.parameters:
        x, y = (np.asarray(curve.parameters[key], float) for key in ("snr_db", "spectral_efficiency"))
        return [("Rate of a user", "SNR [dB]", "bit/s/Hz", [("", x, y)], {})]
    profile = Profile(curve.name, curve.parameters)
    power = np.linspace(0.0, 2.5 * float(profile.midpoint_power_w.max()), FINE)
    rho = []
    for similarity in (profile.similarity[0], profile.similarity[-1]):
        pair = types.SimpleNamespace(**profile.interference(np.full(FINE, similarity), np.ones((5, FINE))))
        for ratio in (0.2, 0.8):
            name = f"similarity {similarity:g}, ratio = {ratio:g}"
            rho.append((name, power, interference(pair, power, np.full(FINE, ratio))))
    distortion = [
        (f"similarity {similarity:g}", profile.ratio_grid, row)
        for similarity, row in zip(profile.similarity, profile.distortion, strict=True)
    ]
    return [
        ("Semantic interference of a pair", "power [W]", "interference factor", rho, {}),
        ("Distortion of a user, at level 1", "compression ratio", "distortion", distortion, {}),
        *_measured_interference(curve),
    ]


def _measured_interference(curve: Curve) -> list[Panel]:
    """What the fit went through, points of similarity, SNR, ratio and rho, at the ratio in the middle."""
    if not curve.points:
        return []
    ratios = sorted({point[2] for point in curve.points})
    ratio = ratios[len(ratios) // 2]
    points = {
        f"similarity {similarity:.3g}": [(p[1], p[3]) for p in curve.points if (p[0], p[2]) == (similarity, ratio)]
        for similarity in sorted({point[0] for point in curve.points})
    }
    lines = [(name, *(np.array(values) for values in zip(*found, strict=True))) for name, found in points.items()]
    caption = f"Measured interference at the ratio {ratio:g}, not confined to [0, 1]"
    return [(caption, "SNR [dB]", "interference factor", lines, points)]


PANELS: dict[str, Callable[[Curve], list[Panel]]] = {
    "crra": _crra, "training": _training, "ascc": _ascc, "sfma": _sfma,
}  # fmt: skip
