"""Pictures of the digital chain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semcom_gym.benchmarks import pictures
from semcom_gym.transceivers.coding import ldpc
from semcom_gym.transceivers.coding.schemes import BLOCK

Rows = Sequence[dict[str, Any]]
LEAST_RATE = 1e-3  # bottom of the axis of block error rates


def bler(rows: Rows, path: Path) -> Path:
    """Block error rates of all schemes over SNR, and what no code can beat, dashed."""
    figure, axes = pictures.new(8.0, 4.5)
    for k, cqi in enumerate(dict.fromkeys(row["cqi"] for row in rows)):
        part = [row for row in rows if row["cqi"] == cqi]
        colour, start = pictures.COLOURS[k % len(pictures.COLOURS)], part[0]["snr_db"]
        seen = [row for row in part if row["errors"]]
        style = {"marker": pictures.MARKERS[k % len(pictures.MARKERS)], "markersize": 4, "label": part[0]["scheme"]}
        axes.plot(*zip(*[(row["snr_db"], row["block_error_rate"]) for row in seen], strict=True), color=colour, **style)
        grid = np.linspace(start - 2.0, start + 2.0, 81)
        least = ldpc.normal_approximation(grid, BLOCK, round(BLOCK / part[0]["bits_per_symbol"]))
        axes.plot(grid, least, color=colour, linestyle="--", linewidth=0.8)
    axes.plot([], [], color="black", linestyle="--", linewidth=0.8, label="normal approximation")
    axes.set_yscale("log")
    axes.set_ylim(LEAST_RATE, 1.2)
    axes.set(xlabel="SNR of a complex symbol [dB]", ylabel="block error rate")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return pictures.save(figure, path)


def psnr(rows: Rows, path: Path) -> Path:
    """PSNR over SNR of one user: fixed schemes and the adaptive one."""
    return _quality(rows, "one user, all symbols", path)


def users(rows: Rows, path: Path) -> Path:
    """PSNR over SNR of two users that share the symbols."""
    return _quality(rows, "two users of one SNR that share the symbols", path)


def rates(rows: Rows, path: Path) -> Path:
    """Spectral efficiency over SNR, and of two users of whom one is stronger, both in all."""
    figure, axes = pictures.new(6.5, 4.5)
    snr_db = [row["snr_db"] for row in rows]
    axes.plot(snr_db, [row["capacity"] for row in rows], color="black", linestyle="--", label="capacity, one user")
    names = {"one_user": "one user", "oma": "two users, OMA: sum", "noma": "two users, NOMA: sum"}
    for k, (name, label) in enumerate(names.items()):
        style = {"color": pictures.COLOURS[k], "marker": pictures.MARKERS[k], "markersize": 4}
        axes.plot(snr_db, [row[name] for row in rows], label=label, **style)
    axes.set(xlabel="SNR [dB], of two users that of the weaker", ylabel="payload [bit/symbol]")
    axes.legend(fontsize=8, frameon=False)
    return pictures.save(figure, path)


def _quality(rows: Rows, title: str, path: Path) -> Path:
    series = []
    for name in dict.fromkeys(row["scheme"] for row in rows):
        part = [row for row in rows if row["scheme"] == name]
        spread = [(row["psnr_db"] - row["error_db"], row["psnr_db"] + row["error_db"]) for row in part]
        series.append((name, [row["snr_db"] for row in part], [row["psnr_db"] for row in part], spread))
    return pictures.lines(path, title, "SNR [dB]", "PSNR [dB], mean and standard error over pictures", series)
