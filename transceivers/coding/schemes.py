"""The modulation and coding schemes: those of 5G's channel quality indicator, up to 256-QAM.

A block is 1024 bits, 16 of them the check sum (CRC) that 5G adds to blocks of this size, which tells the receiver
whether the block arrived. The SNR is that of a complex symbol, as everywhere in the transceivers.
"""

from __future__ import annotations

import dataclasses

BLOCK = 1024
"""Bits of a block, check sum included."""
CHECK = 16
"""Bits of the check sum: 3GPP TS 38.212, Section 7.2.1, for up to 3824 bits."""
MODULATIONS = {2: "QPSK", 4: "16-QAM", 6: "64-QAM", 8: "256-QAM"}


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A scheme. index: the CQI. order: bits of a symbol. rate: the code rate times 1024."""

    index: int
    order: int
    rate: int

    @property
    def symbols(self) -> int:
        """Complex symbols of a block: the fewest with which the code rate is not exceeded."""
        return -(-BLOCK * 1024 // (self.rate * self.order))

    @property
    def coded_bits(self) -> int:
        """Bits of a block after the code."""
        return self.symbols * self.order

    @property
    def efficiency(self) -> float:
        """Bits of a block a symbol, check sum included [bit/s/Hz]."""
        return BLOCK / self.symbols

    @property
    def name(self) -> str:
        """For people."""
        return f"{MODULATIONS[self.order]} {self.rate}/1024"


SCHEMES = tuple(
    Scheme(index, order, rate)
    for index, (order, rate) in enumerate(
        (
            (2, 78), (2, 193), (2, 449), (4, 378), (4, 490), (4, 616), (6, 466), (6, 567), (6, 666), (6, 772), (6, 873),
            (8, 711), (8, 797), (8, 885), (8, 948),
        ),
        start=1,
    )
)  # fmt: skip
"""CQI 1 to 15 of 3GPP TS 38.214, Table 5.2.2.1-3."""
