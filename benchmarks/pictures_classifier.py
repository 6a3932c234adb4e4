"""Pictures of a classifier's profile: eta(o) with its fits, accuracy over SNR (Fig. 3 of the paper), rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym.benchmarks import pictures

Rows = Sequence[Mapping[str, Any]]
RATIO = "share of features dropped, o"


def eta(rows: Rows, fits: Mapping[tuple[str, float], Sequence[float]], path: Path) -> Path:
    """One panel for each set of images: measured points with one standard error, lines fitted.

    fits: zeta1 to zeta4 by set and SNR.
    """
    sets = list(dict.fromkeys(where for where, _ in fits))
    figure, panels = pictures.grid(5.0 * len(sets), 4.0, 1, len(sets))
    fine = np.linspace(0.0, 0.99, 300)
    for axes, where in zip(panels, sets, strict=True):
        for k, snr_db in enumerate(snr_db for place, snr_db in fits if place == where):
            zeta = fits[where, snr_db]
            curve = zeta[0] * np.exp(zeta[1] * fine) + zeta[2] * np.exp(zeta[3] * fine)
            axes.plot(fine, np.clip(curve, 0.0, 1.0), color=pictures.COLOURS[k])
            points = [row for row in rows if (row["set"], row["snr_db"]) == (where, snr_db)]
            _points(axes, points, "ratio", k, f"{snr_db:g} dB", linestyle="none")
        axes.set(xlabel=RATIO, ylabel="accuracy; lines: fit of eta(o)", ylim=(0.0, 1.0), title=where)
        axes.legend(frameon=False, loc="lower left")
    return pictures.save(figure, path)


def over_snr(rows: Rows, path: Path) -> Path:
    """Accuracy over SNR, one line for each scheme; those that send a JPEG dashed."""
    figure, axes = pictures.new(8.0, 4.2)
    for k, scheme in enumerate(dict.fromkeys(row["scheme"] for row in rows)):
        points = [row for row in rows if row["scheme"] == scheme]
        label = f"{scheme}: {points[0]['symbols']:.0f} symbols"
        _points(axes, points, "snr_db", k, label, linestyle="--" if scheme.startswith("JPEG") else "-")
    axes.set(xlabel="SNR [dB]", ylabel="accuracy", ylim=(0.0, 1.0))
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return pictures.save(figure, path)


def rankings(rows: Rows, path: Path) -> Path:
    """eta(o) at one SNR, one line for each rule by which features are dropped."""
    figure, axes = pictures.new(6.0, 4.2)
    for k, rule in enumerate(dict.fromkeys(row["rule"] for row in rows)):
        _points(axes, [row for row in rows if row["rule"] == rule], "ratio", k, rule, linestyle="-")
    axes.set(xlabel=RATIO, ylabel=f"accuracy at {rows[0]['snr_db']:g} dB", ylim=(0.0, 1.0))
    axes.legend(title="most important by", frameon=False, loc="lower left")
    return pictures.save(figure, path)


def _points(axes: Any, points: Rows, x: str, k: int, label: str, linestyle: str) -> None:
    style = {"color": pictures.COLOURS[k], "marker": pictures.MARKERS[k], "markersize": 5, "linestyle": linestyle}
    values, errors = [row["accuracy"] for row in points], [row["error"] for row in points]
    axes.errorbar([row[x] for row in points], values, errors, label=label, elinewidth=1.0, **style)
