"""The profile of the digital chain: block error rates, pictures over one link and over a shared one, rates."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.benchmarks import pictures_digital, profile_common, store
from semcom_gym.benchmarks.profile_jpeg import psnr_db
from semcom_gym.envs.curve import Curve
from semcom_gym.transceivers.coding import amc, hevc, ldpc, link
from semcom_gym.transceivers.coding.schemes import BLOCK, CHECK, SCHEMES, Scheme

if TYPE_CHECKING:
    from semcom_gym.benchmarks.machines import Workers

RATIO, SHARED_RATIO = 0.125, 0.0625
"""Complex symbols for each value of a picture: of one user, and of two together. The latter is the CBR of 0.125 of
Fig. 3 (b) of the SC-SFMA paper, which counts real values: two users have the symbols of the learned schemes."""
SNRS_DB = tuple(float(x) for x in range(-6, 27))
FIXED = (3, 8, 12)
"""Schemes of the cliff, by their index."""
CURVE = "measured_ldpc_qam"
CURVE_STEP_DB = 0.25
STRONGER_DB = 10.0
"""By how much one user's SNR is above the other's where their rates are compared."""
PARTS = 8


@dataclasses.dataclass(frozen=True)
class Size:
    """Pictures sent: their side and their number."""

    side: int
    count: int


SIZES = {"small": Size(128, 24), "full": Size(256, 200)}


@dataclasses.dataclass(frozen=True)
class Profile:
    """What is asked for. sets: names or folders of images. size: called ``size_name``. workers: who codes the
    pictures; this process if None.
    """

    sets: tuple[str, ...]
    size_name: str
    size: Size
    seed: int
    out: Path
    workers: Workers | None = None

    @property
    def command(self) -> str:
        """The command line."""
        parts = f"--size {self.size_name} --seed {self.seed} --images {profile_common.names(self.sets)}"
        return f"semcom-gym profile digital {parts}"

    def kept(self) -> str:
        """One line on what an interruption leaves."""
        return f"finished pictures are kept in {self.out}; the same command goes on from there"


def digital(profile: Profile) -> dict[str, Any]:
    """Measure what is not measured yet; write curve, tables, pictures and report. The report."""
    table = ldpc.load()
    images, origin = _crops(profile)
    source = _source(profile, images, origin)
    rows = {"bler": _bler(table), "psnr": _single(profile, table, source), "users": _shared(profile, table, source),
            "rates": _rates(table)}  # fmt: skip
    files = [profile_common.write_table(profile.out / f"{name}.csv", found) for name, found in rows.items()]
    files.append(profile_common.write_curve(_curve(profile, table), profile.out))
    files += [getattr(pictures_digital, name)(found, profile.out / f"{name}.png") for name, found in rows.items()]
    path = profile.out / "profile.json"
    report = {
        "ratio": RATIO, "shared_ratio": SHARED_RATIO,
        "side": profile.size.side, "pictures": len(images), "data": origin, "seed": profile.seed,
        "command": profile.command, "versions": profile_common.versions(), "table": dict(table.provenance),
        "table_sha256": _table_sha256(), "cliffs": _cliffs(rows["psnr"]), "psnr": rows["psnr"], "users": rows["users"],
        "files": [file.name for file in (*files, path)],
    }  # fmt: skip
    store.write_atomically(path, store.dumps(report, indent=1) + "\n")
    return report


def show(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [
        f"{report['pictures']} pictures of {report['side']} x {report['side']}, CBR {report['ratio']:g}, "
        f"of two users together {report['shared_ratio']:g}"
    ]
    for name, cliff in report["cliffs"].items():
        lines.append(f"{name}: {cliff['all_db']:g} dB and above {cliff['psnr_db']:.2f} dB PSNR, "
                     f"{cliff['none_db']:g} dB and below nothing arrives")  # fmt: skip
    for row in report["users"]:
        if row["snr_db"] in (1.0, 7.0, 13.0):
            lines.append(f"two users, {row['scheme']}, {row['snr_db']:g} dB: {row['psnr_db']:.2f} dB "
                         f"(se over pictures {row['error_db']:.2f}), delivered {row['delivered']:.0%}")  # fmt: skip
    return "\n".join([*lines, f"written: {', '.join(report['files'])}"])


def _crops(profile: Profile) -> tuple[np.ndarray, dict[str, Any]]:
    """Crops of the test split uint8 (n, 3, side, side), in equal parts of the sets, and where they come from."""
    from semcom_gym.transceivers.deepjscc import training  # torch

    crops, origin = training.crops(profile.sets, "test", profile.size.side, profile.size.count, profile.seed)
    return crops.numpy(), origin


def _source(profile: Profile, images: np.ndarray, origin: dict[str, Any]) -> link.Source:
    """The pictures with the bits of their payloads; each part of them is a cell of finished work."""
    same = {
        "data": origin, "side": profile.size.side, "count": len(images), "seed": profile.seed,
        "codec": hevc.SETTINGS, "versions": _codec_versions(),
    }  # fmt: skip
    work = [
        store.Work(f"payloads_{k}", same | {"part": k}, functools.partial(_payloads, part))
        for k, part in enumerate(np.array_split(images, min(PARTS, len(images))))
    ]
    found = store.Store(profile.out / "cells", profile.workers).cells(work, "HEVC")
    return link.Source(images, np.array([bits for cell in found for bits in cell["bits"]]))


def _payloads(images: np.ndarray) -> dict[str, Any]:
    return {"bits": hevc.payload_bits(images)}


def _codec_versions() -> dict[str, Any]:
    import av

    return {"av": av.__version__, "libavcodec": list(av.library_versions["libavcodec"])}


def _bler(table: ldpc.Table) -> list[dict[str, Any]]:
    """Every point of the table, with the least that any code can reach."""
    rows = []
    for scheme in table.schemes:
        found = table.waterfalls[scheme.index]
        for snr_db, blocks, errors in zip(found.snr_db, found.blocks, found.errors, strict=True):
            least = float(ldpc.normal_approximation(snr_db, BLOCK, scheme.symbols))
            rows.append({
                "cqi": scheme.index, "scheme": scheme.name, "bits_per_symbol": scheme.efficiency,
                "snr_db": float(snr_db), "blocks": int(blocks), "errors": int(errors),
                "block_error_rate": float(errors / blocks), "normal_approximation": least,
            })  # fmt: skip
    return rows


def _single(profile: Profile, table: ldpc.Table, source: link.Source) -> list[dict[str, Any]]:
    """One user with all the symbols: fixed schemes and the adaptive one."""
    symbols, rows = _symbols(source, RATIO), []
    fixed = {scheme.name: scheme for scheme in SCHEMES if scheme.index in FIXED}
    for name in (*fixed, "adaptive"):
        for snr_db in SNRS_DB:
            scheme = fixed[name] if name in fixed else link.adapt(table, snr_db, symbols)
            sent = _send(profile, table, source, symbols, scheme, snr_db)
            rows.append(_row(name, snr_db, scheme, [sent], source))
    return rows


def _shared(profile: Profile, table: ldpc.Table, source: link.Source) -> list[dict[str, Any]]:
    """Two users of one SNR that share the symbols, each with the pictures: half of them each, or superposed."""
    symbols, rows = _symbols(source, SHARED_RATIO), []
    for snr_db in SNRS_DB:
        scheme = link.adapt(table, snr_db, symbols // 2)
        sent = _send(profile, table, source, symbols // 2, scheme, snr_db)
        rows.append(_row("OMA", snr_db, scheme, [sent], source))
        rows.append(_row("NOMA", snr_db, *_superposed(profile, table, source, snr_db)))
    return sorted(rows, key=lambda row: str(row["scheme"]), reverse=True)


def _superposed(
    profile: Profile, table: ldpc.Table, source: link.Source, snr_db: float
) -> tuple[Scheme | None, list[Any], link.Source]:
    """Both users' pictures in NOMA. The second is lost with those of its blocks whose overlapping ones are."""
    symbols = _symbols(source, SHARED_RATIO)
    pair = amc.superpose(table, snr_db, snr_db)
    schemes = [link.adapt(table, at, symbols) for at in (pair.weak_db, pair.strong_db)]
    chance = amc.cancelled(table, *schemes, pair.heard_db)
    first = _send(profile, table, source, symbols, schemes[0], pair.weak_db)
    second = _send(profile, table, source, symbols, schemes[1], pair.strong_db, user=1, others=chance)
    return schemes[0], [first, second], source


def _send(
    profile: Profile, table: ldpc.Table, source: link.Source, symbols: int, scheme: Scheme | None, snr_db: float,
    user: int = 0, others: float = 1.0,
) -> Any:  # fmt: skip
    rate = 1.0 if scheme is None else float(table.error_rate(scheme, snr_db))
    return link.send(source, symbols, scheme, rate, np.random.default_rng([profile.seed, user]), others)


def _row(name: str, snr_db: float, scheme: Scheme | None, sent: Sequence[Any], source: link.Source) -> dict[str, Any]:
    """Means over the pictures of all users."""
    found = np.mean([psnr_db(one.images, source.images) for one in sent], axis=0)
    return {
        "scheme": name, "snr_db": snr_db, "cqi": scheme.index if scheme else 0, "psnr_db": float(found.mean()),
        "error_db": float(found.std(ddof=1) / math.sqrt(len(found))),
        "delivered": float(np.mean([one.delivered for one in sent])),
    }  # fmt: skip


def _symbols(source: link.Source, ratio: float) -> int:
    return int(ratio * math.prod(source.images.shape[1:]))


def _rates(table: ldpc.Table) -> list[dict[str, Any]]:
    """Spectral efficiency of one user over SNR, and of two of which one's SNR is higher, in all."""
    rows = []
    for snr_db in SNRS_DB:
        strong_db = snr_db + STRONGER_DB
        rows.append({
            "snr_db": snr_db, "capacity": math.log2(1.0 + 10.0 ** (snr_db / 10.0)),
            "one_user": float(amc.spectral_efficiency(table, np.array(snr_db))),
            "oma": sum(amc.oma(table, snr_db, strong_db)), "noma": sum(amc.noma(table, snr_db, strong_db)),
        })  # fmt: skip
    return rows


def _curve(profile: Profile, table: ldpc.Table) -> Curve:
    """The chain's spectral efficiency over SINR, as the rate models of `sfma` read it."""
    low, high = (table.waterfalls[table.schemes[k].index].snr_db[k] for k in (0, -1))
    grid = np.arange(math.floor(low) - 1.0, math.ceil(high) + 3.0, CURVE_STEP_DB)
    return Curve(
        name=CURVE, problem="sfma", kind="measured",
        quantity=f"payload that arrives [bit/symbol] over the SINR [dB] of 5G LDPC and QAM, blocks of {BLOCK} bits of "
        f"which {CHECK} are check sum, white noise, scheme with the most of those at a block error rate of at most "
        f"{amc.TARGET:g}",
        equation="none: linear between points",
        parameters={"snr_db": grid.tolist(), "spectral_efficiency": amc.spectral_efficiency(table, grid).tolist()},
        standard_errors=None, points=[], goodness={},
        provenance={"table": dict(table.provenance), "table_sha256": _table_sha256(), "command": profile.command,
                    "versions": profile_common.versions()},
    )  # fmt: skip


def _cliffs(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """For each fixed scheme: from where on all pictures arrive, their PSNR there, and up to where none does."""
    found = {}
    for scheme in SCHEMES:
        part = [row for row in rows if row["scheme"] == scheme.name]
        every = [row for row in part if row["delivered"] == 1.0]
        none = [row["snr_db"] for row in part if row["delivered"] == 0.0]
        if every and none:
            found[scheme.name] = {"all_db": every[0]["snr_db"], "psnr_db": every[0]["psnr_db"], "none_db": max(none)}
    return found


def _table_sha256() -> str:
    return hashlib.sha256(ldpc.SHIPPED.read_bytes()).hexdigest()
