"""Pictures of the ASCC profile: distortion over the bit error rate (Figs. 4 and 5 of the paper), rate-distortion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from semcom_gym.benchmarks import pictures
from semcom_gym.benchmarks.measured_ascc import ALL, MAIN, TABLED

Rows = Sequence[Mapping[str, Any]]
SHOWN = 4  # settings of a panel
PANELS = (
    ("data", "distortion", "1 - MS-SSIM"), ("data", "mse", "mean squared error"),
    ("semantic", "distortion", "classification error"),
)  # fmt: skip
BIT_ERRORS = "log10 of the bit error rate"


def all_of(tables: Mapping[str, Rows], out: Path) -> list[Path]:
    """All pictures of a profile's tables, in its folder."""
    points, fits = tables["errors"], tables["fits"]
    made = [errors(points, fits, codec, out / f"errors_{codec}.png") for codec in TABLED]
    made.append(protection(points, fits, out / "protection.png"))
    made.append(rate_distortion(tables["rate_distortion"], out / "rate_distortion.png"))
    if "analog" in tables:
        made.append(analog(tables["analog"], out / "analog.png"))
    return made


def errors(points: Rows, fits: Rows, codec: str, path: Path) -> Path:
    """As Figs. 4 and 5: the measured points of some rates with one standard error, and the fits."""
    figure, panels = pictures.grid(14.0, 4.2, 1, 3)
    for axes, (user, name, label) in zip(panels, PANELS, strict=True):
        _logistics(axes, points, fits, {"codec": codec, "user": user, "errors": TABLED[codec], "figure": name})
        axes.set(xlabel=BIT_ERRORS, ylabel=f"{label}; lines: fit")
        axes.legend(title="coded bits", fontsize=8, frameon=False, loc="upper left")
    return pictures.save(figure, path)


def protection(points: Rows, fits: Rows, path: Path) -> Path:
    """The data user's distortion where every bit may be wrong, and where the hyper-latents are protected."""
    figure, panels = pictures.grid(9.5, 4.2, 1, 2)
    for axes, kind in zip(panels, (ALL, MAIN), strict=True):
        _logistics(axes, points, fits, {"codec": "hyperprior", "user": "data", "errors": kind, "figure": "distortion"})
        title = "errors in every bit" if kind == ALL else "hyper-latents protected"
        axes.set(xlabel=BIT_ERRORS, ylabel="1 - MS-SSIM; lines: fit", title=title)
        axes.legend(title="coded bits", fontsize=8, frameon=False, loc="upper left")
    return pictures.save(figure, path)


def rate_distortion(rows: Rows, path: Path) -> Path:
    """PSNR and MS-SSIM over bits per pixel, one line for each codec."""
    figure, panels = pictures.grid(9.5, 4.2, 1, 2)
    for axes, name, label in zip(panels, ("psnr_db", "ms_ssim"), ("PSNR [dB]", "MS-SSIM"), strict=True):
        for k, codec in enumerate(dict.fromkeys(row["codec"] for row in rows)):
            own = [row for row in rows if row["codec"] == codec]
            style = {"color": pictures.COLOURS[k], "marker": pictures.MARKERS[k], "markersize": 5}
            axes.plot([row["bpp"] for row in own], [row[name] for row in own], label=codec, **style)
        axes.set(xlabel="coded bits per pixel", ylabel=label)
        axes.legend(frameon=False, loc="lower right")
    return pictures.save(figure, path)


def analog(rows: Rows, path: Path) -> Path:
    """Distortion of deep JSCC over the SNR: told the SNR solid, told 10 dB dashed."""
    figure, panels = pictures.grid(9.5, 4.2, 1, 2)
    for axes, user, label in zip(panels, ("data", "semantic"), ("1 - MS-SSIM", "classification error"), strict=True):
        own = [row for row in rows if row["user"] == user]
        for k, uses in enumerate(sorted({row["channel_uses"] for row in own})):
            for told, line in (("matched", "-"), ("10db", "--")):
                part = [row for row in own if (row["told"], row["channel_uses"]) == (told, uses)]
                axes.plot(
                    [row["snr_db"] for row in part], [row["distortion"] for row in part], linestyle=line,
                    color=pictures.COLOURS[k], label=f"{uses}, {told}",
                )  # fmt: skip
        axes.set(xlabel="SNR [dB]", ylabel=label)
        axes.legend(title="channel uses, trained at", fontsize=7, frameon=False)
    return pictures.save(figure, path)


def _logistics(axes: Any, points: Rows, fits: Rows, what: Mapping[str, str]) -> None:
    """Points and fits of up to ``SHOWN`` settings, spread over all."""
    chosen = [fit for fit in fits if all(fit[key] == value for key, value in what.items())]
    places = np.unique(np.linspace(0, len(chosen) - 1, min(SHOWN, len(chosen))).round().astype(int))
    name = what["figure"]
    for k, row in enumerate(chosen[place] for place in places):
        own = [
            point
            for point in points
            if all(point[key] == row[key] for key in ("codec", "user", "errors", "setting"))
            and np.isfinite(point["log10_ber"])
        ]
        x = np.array([point["log10_ber"] for point in own])
        colour = pictures.COLOURS[k]
        axes.errorbar(
            x, [point[name] for point in own], [point[f"{name}_error"] for point in own], color=colour,
            linestyle="none", marker=pictures.MARKERS[k], markersize=5, elinewidth=1.0, label=f"{row['rate_bit']:.0f}",
        )  # fmt: skip
        fine = np.linspace(x[0], x[-1], 300)
        axes.plot(fine, row["d_s"] + row["d_c"] * expit(row["a_1"] * (fine - row["a_0"])), color=colour)
