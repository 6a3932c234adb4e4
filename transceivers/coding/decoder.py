"""A layered sum-product decoder of quasi-cyclic LDPC codes, for simulations: many blocks at once.

The checks of one row of the base graph share no bit, so they are updated together, and the rows one after the other.
That takes about half of the iterations of flooding (Hocevar 2004), and, with the structure known, a quarter of
the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST, MOST = 1e-7, 16.0
"""Magnitudes of messages are kept in this range, in which single precision knows phi."""
LOOK = 2  # iterations between two looks at the blocks
KNOWN = 100.0
"""Log-likelihood ratio of a bit that the receiver knows."""


class Decoder:
    """Of a parity-check matrix, scipy sparse (m, n), whose rows come in layers of ``lifting`` without a common bit.

    heard: bool (n,), which bits of the code are sent. Layers that end in a bit of no other layer, not sent, say nothing
    and are left out. Raises ValueError if the rows are not so.
    """

    def __init__(self, checks: Any, lifting: int, heard: np.ndarray) -> None:
        matrix = checks.tocsr()
        matrix.sort_indices()
        single = np.asarray(matrix.sum(0)).ravel() == 1
        self._layers = []
        for start in range(0, matrix.shape[0], lifting):
            bits = matrix.indices[matrix.indptr[start] : matrix.indptr[start + lifting]]
            degree = len(bits) // lifting
            if len(np.unique(bits)) != len(bits) or len(bits) != degree * lifting:
                raise ValueError(f"rows {start} to {start + lifting - 1} of the checks are no layer")
            places = bits.reshape(lifting, degree).T
            if not (single[places].all(1) & ~heard[places].any(1)).any():
                self._layers.append((torch.from_numpy(places.reshape(-1).astype(np.int64)), degree))

    def wrong(self, ratios: Tensor, bits: Tensor, iterations: int) -> int:
        """Blocks whose first bits are never right after an iteration, as a check sum would tell.

        ratios: log-likelihood ratios (n, blocks), log p(0) - log p(1), KNOWN for known bits, 0 for those not sent.
        bits: what was sent, bool (k, blocks).
        """
        total = ratios.clone()
        messages = [total.new_zeros(len(places), total.shape[1]) for places, _ in self._layers]
        for iteration in range(iterations):
            for k, (places, degree) in enumerate(self._layers):
                extrinsic = total.index_select(0, places) - messages[k]
                messages[k] = _check(extrinsic.view(degree, -1, total.shape[1])).view_as(extrinsic)
                total.index_copy_(0, places, extrinsic + messages[k])
            if (iteration + 1) % LOOK == 0 or iteration + 1 == iterations:
                left = ((total[: len(bits)] < 0) != bits).any(0)
                total, bits, messages = total[:, left], bits[:, left], [part[:, left] for part in messages]
                if not left.any():
                    break
        return total.shape[1]


def _check(incoming: Tensor) -> Tensor:
    """What a check tells each of its bits, (degree, ...), of what the others told it."""
    negative = incoming < 0
    magnitude = _phi(incoming.abs())
    outgoing = _phi(magnitude.sum(0) - magnitude)
    return torch.where(negative ^ (negative.sum(0) % 2 == 1), -outgoing, outgoing)


def _phi(value: Tensor) -> Tensor:
    """-log tanh(x / 2), its own inverse."""
    return value.clamp(LEAST, MOST).mul_(0.5).tanh_().log_().neg_()
