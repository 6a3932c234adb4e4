"""Deep JSCC against JPEG over an ideal link with the same symbols, and a picture sent both ways."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.benchmarks import pictures, progress, store
from semcom_gym.benchmarks.profile_common import Profile
from semcom_gym.transceivers import digital, pixels
from semcom_gym.transceivers.data.pictures import decode
from semcom_gym.transceivers.deepjscc.network import MAPS_PER_RATIO, SIDE, DeepJSCC, ratio

if TYPE_CHECKING:
    import torch

MAPS = (4, 10, 16, 32)
"""Feature maps of the comparison, rho = maps / 96."""
SHOWN_MAPS, SHOWN_SNRS_DB = 10, (4.0, 13.0)
"""Of the example: rho = 0.104, the nearest to the 0.1 of Figs. 9 and 10 of the training paper."""
SHOWN_SIDE = 512
EXACT_DB = 10.0 * math.log10(12.0 * 255.0**2)
"""PSNR where every value of 8 bits is right: the error of rounding to them is then all there is."""
PARTS = 20


def psnr_db(images: np.ndarray, references: np.ndarray) -> np.ndarray:
    """PSNR [dB] of pictures uint8 (n, 3, H, W), (n,), at most 58.9."""
    error = np.mean((images.astype(float) - references) ** 2, axis=(1, 2, 3))
    return 10.0 * np.log10(255.0**2 / np.maximum(error, 1.0 / 12.0))


def compare(profile: Profile, crops: torch.Tensor, points: list[dict[str, float]], same: dict[str, Any]) -> list[Any]:
    """A row for every point of a surface at the ratios of ``MAPS``: both PSNRs on the same crops, the share delivered.

    same: what decides the crops; the measurement of JPEG is a cell of finished work.
    """
    chosen = [point for point in points if round(point["ratio"] * MAPS_PER_RATIO) in MAPS]
    source_values = math.prod(crops.shape[1:])
    links = [(round(point["ratio"] * source_values), point["snr_db"]) for point in chosen]
    cells = store.Store(profile.out / "cells")
    found = cells.cell("jpeg", same | {"links": links}, lambda: {"rows": _measured(crops.numpy(), links)})["rows"]
    names = {"psnr_db": "deepjscc_db", "error": "deepjscc_error_db"}
    return [
        {names.get(key, key): value for key, value in p.items()} | row for p, row in zip(chosen, found, strict=True)
    ]


def _measured(crops: np.ndarray, links: list[tuple[int, float]]) -> list[dict[str, float]]:
    """JPEG over each link (symbols, SNR in dB)."""
    with progress.bar(PARTS + len(links), "JPEG") as bar:
        sizes = []
        for part in np.array_split(crops, min(PARTS, len(crops))):
            sizes.append(digital.payload_bits(part))
            bar.update()
        bits, rows = np.concatenate(sizes), []
        for symbols, snr_db in links:
            sent = digital.send_ideal(crops, symbols, snr_db, bits)
            psnr = psnr_db(sent.images, crops)
            error = float(psnr.std(ddof=1)) / math.sqrt(len(psnr))
            found = {"symbols": symbols, "jpeg_db": float(psnr.mean()), "jpeg_error_db": error}
            rows.append(found | {"delivered": float(sent.delivered.mean())})
            bar.update()
    return rows


def summary(rows: list[dict[str, float]]) -> list[str]:
    """Where deep JSCC is ahead, a line for each ratio."""
    lines = []
    for value in sorted({row["ratio"] for row in rows}):
        ahead = [f"{row['snr_db']:g}" for row in rows if row["ratio"] == value and row["deepjscc_db"] > row["jpeg_db"]]
        where = f"ahead at {', '.join(ahead)} dB" if ahead else "nowhere ahead"
        lines.append(f"deep JSCC against JPEG over an ideal link at rho = {value:.3f}: {where}")
    return lines


def picture(rows: list[dict[str, float]], path: Path) -> Path:
    """PSNR of both over SNR, one colour for a ratio."""
    figure, axes = pictures.new(6.5, 4.5)
    for k, value in enumerate(sorted({row["ratio"] for row in rows})):
        part = [row for row in rows if row["ratio"] == value]
        snrs, style = [row["snr_db"] for row in part], {"color": pictures.COLOURS[k], "marker": pictures.MARKERS[k]}
        axes.plot(snrs, [row["deepjscc_db"] for row in part], label=rf"$\rho$ = {value:.3f}", **style)
        axes.plot(snrs, [row["jpeg_db"] for row in part], linestyle="--", markerfacecolor="none", **style)
    axes.plot([], [], color="black", label="deep JSCC")
    axes.plot([], [], color="black", linestyle="--", label="JPEG, ideal link")
    axes.set(xlabel="SNR [dB]", ylabel="PSNR [dB], mean over crops")
    axes.legend(fontsize=8, frameon=False)
    return pictures.save(figure, path)


def picture_to_show(path: Path) -> np.ndarray:
    """The picture in a file, uint8 (3, H, W), short side up to 512, sides cut to multiples of 8. Raises ValueError."""
    found = decode(path, SHOWN_SIDE)
    height, width = (side - side % SIDE for side in found.shape[1:])
    if not height or not width:
        raise ValueError(f"{str(path)!r} is {found.shape[2]}x{found.shape[1]}, smaller than {SIDE}x{SIDE}")
    return np.ascontiguousarray(found[:, :height, :width])


def example(network: DeepJSCC, image: np.ndarray, path: Path, seed: int) -> list[dict[str, float]]:
    """Send a picture by deep JSCC and by JPEG over an ideal link, draw both beside it; the PSNRs."""
    maps = min(SHOWN_MAPS, network.config.maps)
    symbols = round(ratio(maps) * image.size)
    panels, rows = [("original", image)], []
    for snr_db in SHOWN_SNRS_DB:
        both = {
            "deep JSCC": received(network, image, maps, snr_db, seed),
            "JPEG": digital.send_ideal(image[None], symbols, snr_db).images[0],
        }
        found = {name: float(psnr_db(arrived[None], image[None])[0]) for name, arrived in both.items()}
        panels += [(f"{name}, {snr_db:g} dB: {found[name]:.2f} dB", arrived) for name, arrived in both.items()]
        rows.append({"ratio": ratio(maps), "snr_db": snr_db, "symbols": symbols,
                     "deepjscc_db": found["deep JSCC"], "jpeg_db": found["JPEG"]})  # fmt: skip
    figure, made = pictures.grid(2.6 * len(panels), 2.6 * image.shape[1] / image.shape[2] + 0.4, 1, len(panels))
    for axes, (title, shown) in zip(made, panels, strict=True):
        axes.imshow(shown.transpose(1, 2, 0), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    pictures.save(figure, path)
    return rows


def received(network: DeepJSCC, image: np.ndarray, maps: int, snr_db: float, seed: int) -> np.ndarray:
    """A picture uint8 (3, H, W) as it arrives by deep JSCC, rounded to 8 bits."""
    import torch

    where = next(network.parameters()).device
    link = (torch.tensor([snr_db], device=where), torch.tensor([maps], device=where))
    batch = pixels.scaled(torch.from_numpy(image[None]), where)
    with torch.no_grad():
        found = network.eval()(batch, *link, generator=torch.Generator(where).manual_seed(seed))
    return (255.0 * found[0]).round().byte().cpu().numpy()
