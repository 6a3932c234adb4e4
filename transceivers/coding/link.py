"""Pictures over the digital chain: HEVC intra, 5G LDPC, QAM, white noise.

A picture has the finest quality whose payload fits into the whole blocks that its symbols hold. It arrives if all of
its blocks do, by the error rates of the table; the check sums tell. Otherwise, and where nothing fits, the receiver
shows mid grey: half a slice is no picture. Headers are free, as they are for JPEG in :mod:`..digital`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from semcom_gym.envs import validate
from semcom_gym.transceivers.coding import amc, hevc
from semcom_gym.transceivers.coding.ldpc import Table
from semcom_gym.transceivers.coding.schemes import Scheme
from semcom_gym.transceivers.digital import GREY, Sent

LOSS = 0.01
"""Share of pictures that the adaptive scheme may lose. A picture is many blocks, so their own target is too lax."""


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Pictures uint8 (n, 3, H, W), and the bits of their payload at every qp, int (n, 52)."""

    images: np.ndarray
    bits: np.ndarray
    chroma: str = "4:4:4"
    _decoded: dict[tuple[int, int], np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    def decoded(self, k: int, qp: int) -> np.ndarray:
        """Picture k, uint8 (3, H, W), as its intact payload at a qp gives it; kept, as links send the same again."""
        if (k, qp) not in self._decoded:
            payload = hevc.encode(self.images[k], qp, self.chroma)
            self._decoded[k, qp], _ = hevc.decode(payload, *self.images.shape[2:], self.chroma)
        return self._decoded[k, qp]

    def __post_init__(self) -> None:
        validate.choice("chroma", self.chroma, hevc.CHROMAS)
        if self.bits.shape != (len(self.images), len(hevc.QPS)):
            raise ValueError(f"bits must be payload_bits of the images at all qps, got shape {self.bits.shape}")


def source(images: np.ndarray, chroma: str = "4:4:4") -> Source:
    """Pictures uint8 (n, 3, H, W) and their payloads' bits. Raises as `hevc.encode`."""
    return Source(images, hevc.payload_bits(images, chroma=chroma), chroma)


def blocks(scheme: Scheme, symbols: int) -> int:
    """Whole blocks that so many symbols hold."""
    validate.integer("symbols", symbols)
    return symbols // scheme.symbols


def adapt(table: Table, snr_db: float, symbols: int, loss: float = LOSS) -> Scheme | None:
    """The scheme that holds the most blocks, of those where all of them arrive but for a share ``loss`` of pictures.

    Where there is none, the one whose blocks are the likeliest to arrive all; None where they never do. Raises
    ValueError, TypeError.
    """
    validate.number("loss", loss, high=1.0)
    validate.number("snr_db", snr_db, low=-100.0, high=100.0)
    held = {scheme: blocks(scheme, symbols) for scheme in table.schemes if blocks(scheme, symbols)}
    chance = {scheme: (1.0 - float(table.error_rate(scheme, snr_db))) ** count for scheme, count in held.items()}
    safe = [scheme for scheme in held if 1.0 - chance[scheme] <= loss]
    if safe:
        return max(safe, key=lambda scheme: held[scheme])
    best = max(held, key=lambda scheme: chance[scheme], default=None)
    return best if best is not None and chance[best] > 0.0 else None


def send(
    pictures: Source,
    symbols: int,
    scheme: Scheme | None,
    error_rate: float,
    generator: np.random.Generator,
    others: float = 1.0,
) -> Sent:
    """Pictures as they arrive over ``symbols`` complex symbols each.

    scheme: None sends nothing. error_rate: of a block, `Table.error_rate` at the SNR. generator: the only source of
    chance, of the same draws whatever the link. others: for each block, the chance that nothing else spoils it, in
    NOMA that what overlaps it is cancelled. Raises ValueError, TypeError.
    """
    validate.integer("symbols", symbols)
    for name, value in (("error_rate", error_rate), ("others", others)):
        validate.number(name, value, high=1.0, open_low=False)
    if not isinstance(generator, np.random.Generator):
        raise TypeError(f"generator must be a numpy.random.Generator, got {generator!r}")
    n = len(pictures.images)
    luck = generator.random(n)
    held = blocks(scheme, symbols) if scheme else 0
    qp = hevc.finest(pictures.bits, held * amc.PAYLOAD)
    used = -(-pictures.bits[np.arange(n), qp] // amc.PAYLOAD)
    delivered = (qp >= 0) & (luck < ((1.0 - error_rate) * others) ** used)
    images = np.full_like(pictures.images, GREY)
    for k in np.flatnonzero(delivered):
        images[k] = pictures.decoded(int(k), int(qp[k]))
    return Sent(images, delivered, np.full(n, symbols))
