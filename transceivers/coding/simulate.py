"""Block errors of the 5G LDPC code with QAM over white noise, by simulation with the code of Sionna.

Base graph, lifting, encoder, rate matching, interleaver, constellations and the exact likelihoods of bits are Sionna's;
the decoder is :mod:`.decoder`, sum-product. It stops as soon as a block is right, as receivers do when the check sum
holds. Rates below 1/5 repeat the bits of the code at 1/5 from the start, as 5G's circular buffer does.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import math

import numpy as np
import torch
from torch import Tensor

from semcom_gym.envs import validate
from semcom_gym.transceivers import channel
from semcom_gym.transceivers.coding.decoder import KNOWN, Decoder
from semcom_gym.transceivers.coding.schemes import BLOCK, Scheme

ITERATIONS = 10
"""Of the layered decoder, at most; about 20 of one that floods."""
BATCH = 64
LEAST_RATE = 5  # 1 / the least rate of the code itself


def versions() -> dict[str, str]:
    """What decides the numbers beside our code. Raises ModuleNotFoundError without Sionna."""
    _require()
    return {name: importlib.metadata.version(name) for name in ("sionna-no-rt", "torch")}


@dataclasses.dataclass(frozen=True)
class Count:
    """Blocks sent and blocks in error."""

    blocks: int
    errors: int


class Link:
    """One scheme, ready to simulate. block: bits of a block."""

    def __init__(self, scheme: Scheme, block: int = BLOCK) -> None:
        _require()
        from sionna.phy.fec.ldpc import LDPC5GEncoder
        from sionna.phy.mapping import Constellation, Demapper, Mapper

        validate.integer("block", block, low=12)
        self.block = block
        self.sent = scheme.order * math.ceil(block * 1024 / (scheme.rate * scheme.order))
        longest = LEAST_RATE * block
        order = {"num_bits_per_symbol": scheme.order} if self.sent <= longest else {}  # the repeated bits mix enough
        self._encoder = code = LDPC5GEncoder(block, min(self.sent, longest), device="cpu", **order)
        constellation = Constellation("qam", scheme.order, device="cpu")
        self._mapper = Mapper(constellation=constellation, device="cpu")
        self._demapper = Demapper("app", constellation=constellation, device="cpu")
        places = np.r_[2 * code.z : block, code.k_ldpc : code.n_ldpc][: code.n]  # TS 38.212, Section 5.4.2.1
        if order:
            places = places[code.out_int.numpy()]
        self._places = torch.from_numpy(places[np.arange(self.sent) % code.n])  # of the sent bits in the code
        self._order = torch.arange(self.sent) % code.n
        self._decoder = Decoder(code.pcm, code.z, np.isin(np.arange(code.n_ldpc), places))

    def errors(self, snr_db: float, blocks: int, generator: torch.Generator) -> int:
        """Blocks in error of so many random ones. snr_db: of a complex symbol."""
        bits = torch.randint(2, (blocks, self.block), generator=generator)
        symbols = self._mapper(self._encoder(bits.float())[:, self._order])
        return self._decoder.wrong(self._heard(symbols, snr_db, generator), bits.T.bool().contiguous(), ITERATIONS)

    def _heard(self, symbols: Tensor, snr_db: float, generator: torch.Generator) -> Tensor:
        """Log-likelihood ratios of the bits of the code (n, blocks)."""
        snr = 10.0 ** (snr_db / 10.0)
        heard = self._demapper(channel.awgn(symbols, snr, generator), torch.tensor(1.0 / snr))
        ratios = torch.zeros(self._encoder.n_ldpc, len(symbols))
        ratios[self.block : self._encoder.k_ldpc] = KNOWN  # filler bits
        return ratios.index_add_(0, self._places, -heard.T)


def count(link: Link, snr_db: float, seed: int, *, errors: int = 100, blocks: int = 1000) -> Count:
    """Simulate until so many errors or so many blocks, whichever comes first; whole batches."""
    validate.number("snr_db", snr_db, low=-100.0, high=100.0)
    validate.integer("errors", errors)
    validate.integer("blocks", blocks)
    generator = torch.Generator().manual_seed(seed)
    sent = wrong = 0
    with torch.no_grad():
        while sent < blocks and wrong < errors:
            wrong += link.errors(snr_db, BATCH, generator)
            sent += BATCH
    return Count(sent, wrong)


def _require() -> None:
    if importlib.util.find_spec("sionna") is None:
        raise ModuleNotFoundError("simulating block errors needs Sionna: pip install 'semcom-gym[codes]'")
