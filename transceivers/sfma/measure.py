"""Training loss of the networks for pairs, and their errors over SNR and delta on held-out pairs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from semcom_gym.envs import validate
from semcom_gym.transceivers import channel, metrics, pixels
from semcom_gym.transceivers.sfma.network import USERS, Transceiver, power_ratio

ANCHOR = (10.0, 0.5)
"""SNR [dB] and delta of the figures that are followed during training."""


@dataclasses.dataclass(frozen=True)
class Range:
    """What a network is trained for: SNR uniform in [low_db, high_db], delta in [least_share, 1]."""

    low_db: float = -5.0
    high_db: float = 16.0
    least_share: float = 0.0625

    def __post_init__(self) -> None:
        channel.check_span(self.low_db, self.high_db)
        validate.number("least_share", self.least_share, high=1.0)


def loss(network: Transceiver, pairs: Tensor, generator: torch.Generator, span: Range) -> Tensor:
    """(9), as a mean over values, of pairs (n, 2, 3, H, W), each at a random SNR and a random delta."""
    uniform = torch.rand(2, len(pairs), generator=generator, device=pairs.device)
    snr_db = span.low_db + (span.high_db - span.low_db) * uniform[0]
    share = span.least_share + (1.0 - span.least_share) * uniform[1]
    return (network(pairs, snr_db, share, generator) - pairs).square().mean()


def surface(
    network: Transceiver, pairs: Tensor, snrs_db: Sequence[float], shares: Sequence[float], seed: int = 0
) -> list[dict[str, float]]:
    """Means over pairs, uint8 (n, 2, 3, H, W), at every SNR [dB] and every delta, with standard errors.

    ``psnr_db`` and ``mse`` of both users and, with ``first_`` before, of the first, ``error`` of each with ``_error``
    behind; ``ratio``, complex symbols over source values of an image; ``power_ratio``, see :func:`network.power_ratio`.
    The noise is the same for every SNR and delta, but for its power.
    """
    points = []
    for snr_db in snrs_db:
        for share in shares:
            mse, power = errors(network, pairs, snr_db, share, seed)
            psnr = -10.0 * torch.log10(mse)
            figures = {"psnr_db": psnr.mean(1), "mse": mse.mean(1), "first_psnr_db": psnr[:, 0], "first_mse": mse[:, 0]}
            point = {"snr_db": float(snr_db), "share": float(share), "ratio": network.config.ratio(share)}
            for name, values in figures.items():
                point[name] = float(values.mean())
                point[f"{name}_error"] = float(values.std()) / math.sqrt(len(values))
            points.append({**point, "power_ratio": float(power.mean())})
    return points


@torch.no_grad()
def errors(
    network: Transceiver, pairs: Tensor, snr_db: float, share: float, seed: int = 0
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean squared error of both images of every pair, float64 (n, 2), and the power ratio of the pair, (n,).

    pairs: uint8 (n, 2, 3, H, W). The noise of a pair depends on the seed and its place only. Raises ValueError for
    fewer than 2 pairs, as a mean with an error needs them.
    """
    if len(pairs) < 2:
        raise ValueError(f"a mean with an error needs at least 2 pairs, got {len(pairs)}")
    network.eval()
    where = next(network.parameters()).device
    generator = torch.Generator(where)
    found, powers = [], []
    for k, images in enumerate(pixels.batches(pairs.flatten(0, 1), where)):
        generator.manual_seed(pixels.noise_seed(seed, k))
        both = images.unflatten(0, (-1, USERS))
        link = both.new_full((len(both),), float(snr_db)), both.new_full((len(both),), float(share))
        received, symbols = network.transmit(both, *link, generator)
        decoded = network.decode(received, *link, (both.shape[-2], both.shape[-1]))
        found.append(metrics.mse(decoded.flatten(0, 1), images).double().cpu().unflatten(0, (-1, USERS)))
        powers.append(power_ratio(symbols).double().cpu())
    return torch.cat(found), torch.cat(powers)
