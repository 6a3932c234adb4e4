"""Traditional communication (TCM): the picture is sent as a JPEG, and the receiver classifies what arrives.

The receiver's classifier is the network itself, both of its parts, on the decoded picture: without noise and told the
SNR at the top of its range. It was trained on undamaged pictures only, as the paper's presumably was. A picture that
does not arrive is mid grey, for which the network has some answer, right as often as a guess.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from semcom_gym.envs.arrays import Array
from semcom_gym.transceivers import digital, pixels
from semcom_gym.transceivers.classifier import measure
from semcom_gym.transceivers.classifier.network import Classifier

CLEAR_DB = 15.0
QUALITY = 50
"""Of the JPEG without a code, which has to be fixed before the channel is known."""


@torch.no_grad()
def clear(network: Classifier, images: Tensor, snr_db: float = CLEAR_DB) -> Tensor:
    """Answers (n,) for images uint8 (n, 3, H, W) that need not be sent: all features, no noise."""
    network.eval()
    where = next(network.parameters()).device
    answers = []
    for part in pixels.batches(images, where):
        told = torch.full((len(part),), float(snr_db), device=where)
        answers.append(network.decode(network.encode(part), told).argmax(1).cpu())
    return torch.cat(answers)


def uncoded(
    network: Classifier, images: Array, labels: Array, snr_db: float, *, quality: int = QUALITY, seed: int = 0
) -> dict[str, float]:
    """JPEG of one quality over uncoded QPSK: ``accuracy``, its ``error``, share ``delivered``, mean ``symbols``."""
    generator = np.random.default_rng(seed)  # the same bits are at risk at every SNR
    return _point(network, digital.send_uncoded(images, quality, snr_db, generator), labels)


def ideal(
    network: Classifier, images: Array, labels: Array, snr_db: float, *, symbols: int, bits: Array
) -> dict[str, float]:
    """JPEG over a code that reaches capacity, ``symbols`` for each picture; bits: ``digital.payload_bits``."""
    return _point(network, digital.send_ideal(images, symbols, snr_db, bits), labels)


def _point(network: Classifier, arrived: digital.Sent, labels: Array) -> dict[str, float]:
    right = clear(network, torch.from_numpy(arrived.images)) == torch.from_numpy(labels)
    counts = {"delivered": float(arrived.delivered.mean()), "symbols": float(arrived.symbols.mean())}
    return {**measure.share(right), **counts}
