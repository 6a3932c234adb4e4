"""Pictures of the profile of SC-SFMA: rho with its fit, quality over SNR and CBR, two users' images (Figs. 2 to 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym.benchmarks import pictures

Rows = Sequence[Mapping[str, Any]]
LABELS = {"sc_sfma": "SC-SFMA", "swinjscc_noma": "SwinJSCC+NOMA", "swinjscc_oma": "SwinJSCC+OMA",
          "deepjscc_noma": "DeepJSCC-NOMA"}  # fmt: skip


def interference(rows: Rows, path: Path) -> Path:
    """rho over SNR, a row of panels for each scheme with fits, one for each kind of pairs: measured points with one
    standard error, confined to [0, 1], and the fit as lines, one colour for a ratio.
    """
    rows = [row for row in rows if row["fitted"] is not None and row["kind"] != "identical"]
    schemes, kinds = (list(dict.fromkeys(row[name] for row in rows)) for name in ("scheme", "kind"))
    figure, made = pictures.grid(3.4 * len(kinds), 3.2 * len(schemes), len(schemes), len(kinds))
    panels = [(scheme, kind) for scheme in schemes for kind in kinds]
    top = {kind: max(_confined(row) for row in rows if row["kind"] == kind) for kind in kinds}
    for axes, (scheme, kind) in zip(made, panels, strict=True):
        own = [row for row in rows if (row["scheme"], row["kind"]) == (scheme, kind)]
        for k, share in enumerate(dict.fromkeys(row["share"] for row in own)):
            line = [row for row in own if row["share"] == share]
            x, colour = [row["snr_db"] for row in line], pictures.COLOURS[k]
            axes.plot(x, [row["fitted"] for row in line], color=colour)
            y, error = [_confined(row) for row in line], [row["error"] for row in line]
            style = {"color": colour, "marker": pictures.MARKERS[k], "markersize": 4, "linestyle": "none"}
            axes.errorbar(x, y, error, label=f"{share:g}", elinewidth=0.8, **style)
        axes.set_ylim(-0.05 * top[kind], 1.1 * max(top[kind], 0.01))
        axes.set_title(f"{LABELS[scheme]}, {kind} ({own[0]['similarity']:.2f})", fontsize=9)
        axes.set(xlabel="SNR of the superposed signal [dB]", ylabel=r"$\rho$; lines: fit of (10)")
    made[0].legend(title=r"$\delta$", fontsize=7, frameon=False)
    return pictures.save(figure, path)


def quality(psnr: Rows, ms_ssim: Rows, stated_db: float, share: float, digital: Rows, path: Path) -> Path:
    """Fig. 3 with random pairs: PSNR over CBR, PSNR and MS-SSIM over SNR, and the PSNR of SC-SFMA over both.

    digital: rows with ``scheme``, ``snr_db`` and ``psnr_db`` of a digital chain, drawn with the PSNR over SNR.
    """
    random = [row for row in psnr if row["kind"] == "random"]
    figure, (over_cbr, over_snr, similarity, surface) = pictures.grid(10.0, 8.0, 2, 2)
    _lines(over_cbr, [row for row in random if row["snr_db"] == stated_db], "cbr", "psnr_db", "error_db")
    over_cbr.set(xlabel=f"channel bandwidth ratio (CBR), at {stated_db:g} dB", ylabel="PSNR [dB]")
    _lines(over_snr, [row for row in random if row["share"] == share], "snr_db", "psnr_db", "error_db")
    for k, scheme in enumerate(dict.fromkeys(row["scheme"] for row in digital)):
        line = sorted((float(row["snr_db"]), float(row["psnr_db"])) for row in digital if row["scheme"] == scheme)
        colour, label = pictures.COLOURS[4 + k % 4], f"HEVC, LDPC: {scheme}"
        over_snr.plot(*zip(*line, strict=True), color=colour, linestyle="--", label=label)
    ratio = next(row["cbr"] for row in random if row["share"] == share)
    over_snr.set(xlabel=f"SNR [dB], at CBR {ratio:.3g}", ylabel="PSNR [dB]")
    over_snr.legend(fontsize=8, frameon=False)
    _lines(similarity, ms_ssim, "snr_db", "mean", "error")
    variant = ms_ssim[0]["variant"] if ms_ssim else "MS-SSIM: images too small"
    similarity.set(xlabel=f"SNR [dB], at CBR {ratio:.3g}", ylabel=variant)
    _surface(figure, surface, [row for row in random if row["scheme"] == random[0]["scheme"]])
    return pictures.save(figure, path)


def users(images: Sequence[tuple[str, np.ndarray]], path: Path) -> Path:
    """Fig. 4: two rows of pictures, a user each, one column for (title, uint8 (2, 3, H, W))."""
    figure, made = pictures.grid(2.3 * len(images), 5.0, 2, len(images))
    for user in range(2):
        for axes, (title, shown) in zip(made[user * len(images) :], images, strict=False):
            axes.imshow(shown[user].transpose(1, 2, 0), interpolation="nearest")
            axes.set_title(title.splitlines()[user], fontsize=8)
            axes.axis("off")
    return pictures.save(figure, path)


def _confined(row: Mapping[str, Any]) -> float:
    return float(min(max(row["rho"], 0.0), 1.0))


def _lines(axes: Any, rows: Rows, x: str, y: str, error: str) -> None:
    for k, (scheme, label) in enumerate(LABELS.items()):
        line = [row for row in rows if row["scheme"] == scheme]
        if line:
            style = {"color": pictures.COLOURS[k], "marker": pictures.MARKERS[k], "markersize": 4, "elinewidth": 0.8}
            axes.errorbar([r[x] for r in line], [r[y] for r in line], [r[error] for r in line], label=label, **style)


def _surface(figure: Any, axes: Any, rows: Rows) -> None:
    snrs, ratios = (sorted({row[name] for row in rows}) for name in ("snr_db", "cbr"))
    found = {(row["snr_db"], row["cbr"]): row["psnr_db"] for row in rows}
    table = np.array([[found[snr_db, ratio] for ratio in ratios] for snr_db in snrs])
    drawn = axes.contourf(ratios, snrs, table, levels=16, cmap="viridis")
    figure.colorbar(drawn, ax=axes, label=f"PSNR [dB], {LABELS[rows[0]['scheme']]}")
    axes.set(xlabel="CBR", ylabel="SNR [dB]")
