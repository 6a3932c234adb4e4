"""What the profile of SC-SFMA measures on held-out pairs; each part is a cell of finished work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from semcom_gym.benchmarks import profile_common, store
from semcom_gym.transceivers import data, metrics
from semcom_gym.transceivers.sfma import interference, measure, pairs, training

if TYPE_CHECKING:
    import torch

    from semcom_gym.envs.arrays import Array

SNRS_DB = (-5.0, -2.0, 1.0, 4.0, 7.0, 10.0, 13.0, 16.0)
SHARES = (0.0625, 0.125, 0.1875, 0.25, 0.5, 1.0)
"""The grid: SNR and compression ratio delta."""
STATED_DB, CBR = 13.0, 0.125
"""Of Figs. 3 and 4 of the paper; (17) is measured at that SNR."""
KINDS = {
    "sc_sfma": pairs.KINDS,
    "swinjscc_noma": pairs.KINDS,
    "swinjscc_oma": ("random",),  # the partner has no part in it
    "deepjscc_noma": ("random", "identical"),
}
"""Kinds of pairs that a scheme is measured on."""
REFERENCE = "identical"
CROPS = 10  # held-out crops for each pair of a kind
CODE = ("transceivers",)

Rows = list[dict[str, Any]]


class Measurement:
    """Trained networks, by scheme, on held-out pairs; finished parts are cells."""

    def __init__(self, profile: profile_common.Profile, trained: Mapping[str, training.Trained]) -> None:
        self.profile, self.trained = profile, trained
        size = profile.size
        pool = pairs.scenes(profile.sets, "test", size.side, CROPS * size.tested, profile.seed)
        self.sources = pool.sources
        self.pairs = {
            kind: pairs.sample(pool, kind, np.random.default_rng([profile.seed, data.STREAMS["test"]]), size.tested,
                               size.side)
            for kind in pairs.KINDS
        }  # fmt: skip
        self.share = nearest_share(size.config)
        self.same = {
            "data": data.identity(pool.sources), "side": size.side, "crops": CROPS, "tested": size.tested,
            "seed": profile.seed, "device": profile.device, "code": store.code_version(*CODE),
        }  # fmt: skip

    def all(self) -> dict[str, Any]:
        """``errors`` (S, D, n, 2), ``powers`` (S, D) and ``similarity`` (n,) by scheme and kind; rows of ``ms_ssim``
        and of ``leakage``.
        """
        work = {}
        for scheme in self.trained:
            for kind, snr_db in itertools.product(KINDS[scheme], SNRS_DB):
                key, compute = {"shares": SHARES, "kind": kind}, partial(self._errors, scheme, kind, snr_db)
                work[scheme, kind, snr_db] = self._work(scheme, f"{kind}_{snr_db:g}dB", key, compute)
            work[scheme, "similarity"] = self._work(scheme, "similarity", {}, partial(self._similarity, scheme))
            for snr_db in SNRS_DB:
                key, compute = {"share": self.share}, partial(self._quality, scheme, snr_db)
                work[scheme, "quality", snr_db] = self._work(scheme, f"quality_{snr_db:g}dB", key, compute)
        cells = self.profile.cells.cells(list(work.values()), "measuring")
        return self._sorted(dict(zip(work, cells, strict=True)))

    def _sorted(self, found: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
        """The cells as :meth:`all` hands them out."""
        errors, powers, similarity = {}, {}, {}
        for scheme in self.trained:
            for kind in KINDS[scheme]:
                grid = [found[scheme, kind, snr_db] for snr_db in SNRS_DB]
                errors[scheme, kind], powers[scheme, kind] = (
                    np.array([row[name] for row in grid]) for name in ("mse", "power")
                )
            for kind, values in found[scheme, "similarity"].items():
                similarity[scheme, kind] = np.array(values)
        quality = [found[scheme, "quality", snr_db] for scheme in self.trained for snr_db in SNRS_DB]
        return {
            "errors": errors, "powers": powers, "similarity": similarity,
            "ms_ssim": [row["ms_ssim"] for row in quality if row["ms_ssim"]],
            "leakage": [row["leakage"] for row in quality if row["leakage"]],
        }  # fmt: skip

    def _errors(self, scheme: str, kind: str, snr_db: float) -> dict[str, Any]:
        """Mean squared error (D, n, 2) and power before normalising (D,) of one scheme with one kind of pairs."""
        network = self.trained[scheme].network
        both = [measure.errors(network, self.pairs[kind], snr_db, x, self.profile.seed) for x in SHARES]
        return {"mse": [mse.numpy() for mse, _ in both], "power": [float(power.mean()) for _, power in both]}

    def _similarity(self, scheme: str) -> dict[str, Any]:
        network = self.trained[scheme].network
        return {kind: pairs.similarity(network, found).numpy() for kind, found in self.pairs.items()}

    def _quality(self, scheme: str, snr_db: float) -> dict[str, Any]:
        """MS-SSIM and leakage of random pairs at the ratio of ``CBR``."""
        network, drawn = self.trained[scheme].network, self.pairs["random"]
        link = {"scheme": scheme, "snr_db": snr_db, "share": self.share}
        again = drawn.clone()
        again[:, 1] = drawn[:, 1].roll(1, 0)
        leaked = interference.leakage(network, drawn, again, snr_db, self.share, self.profile.seed)
        variant = variant_of(self.profile.size.side)
        values = self._ms_ssim(network, drawn, snr_db, variant) if variant else None
        return {
            "leakage": link | {"leakage": leaked},
            "ms_ssim": None if values is None else link | {"variant": variant, **_mean(values)},
        }

    def _ms_ssim(self, network: Any, drawn: torch.Tensor, snr_db: float, variant: str) -> Array:
        found = [
            metrics.ms_ssim(received[:, 0], sent[:, 0], variant).cpu().numpy()
            for received, sent in interference.deliver(network, drawn, snr_db, self.share, self.profile.seed)
        ]
        return np.concatenate(found).astype(float)

    def _work(self, scheme: str, name: str, key: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> store.Work:
        whole = self.same | {"scheme": scheme, "weights": self.trained[scheme].weights_sha256, "cell": name} | key
        return store.Work(f"{scheme}_{name}", whole, compute)


def cbr(config: Any, share: float) -> float:
    """Channel bandwidth ratio as the paper counts it: real channel values over source values of one image."""
    return float(2.0 * config.ratio(share))


def nearest_share(config: Any) -> float:
    """The ratio of the grid whose CBR is nearest to ``CBR``."""
    return min(SHARES, key=lambda share: abs(cbr(config, share) - CBR))


def variant_of(side: int) -> str | None:
    """The variant of MS-SSIM with the most scales that images of ``side`` pixels are large enough for."""
    fits = [name for name, (scales, window) in metrics.VARIANTS.items() if window * 2 ** (scales - 1) <= side]
    return fits[0] if fits else None


def psnr_rows(measured: dict[str, Any], config: Any) -> Rows:
    """A row for every scheme, kind and point of the grid: the first user's PSNR and error, the power of the sum."""
    rows = []
    for (scheme, kind), errors in measured["errors"].items():
        for i, snr_db in enumerate(SNRS_DB):
            for k, share in enumerate(SHARES):
                first = errors[i, k, :, 0]
                found = {f"psnr_{name}": value for name, value in _mean(-10.0 * np.log10(first)).items()}
                rows.append({
                    "scheme": scheme, "kind": kind, "snr_db": snr_db, "share": share, "cbr": cbr(config, share),
                    "psnr_db": found["psnr_mean"], "error_db": found["psnr_error"], "mse": float(first.mean()),
                    "second_psnr_db": float(-10.0 * np.log10(errors[i, k, :, 1]).mean()),
                    "power": float(measured["powers"][scheme, kind][i, k]),
                })  # fmt: skip
    return rows


def _mean(values: Array) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "error": profile_common.standard_error(values) or 0.0}
