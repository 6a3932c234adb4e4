"""The tables of source codecs that a data or semantic user chooses from, and the best choice at every SINR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semcom_gym.envs.arrays import Array, at_least, falling, is_torch, like, log_ndtr, namespace

PARAMETERS = ("rate_bit", "source_distortion", "channel_distortion", "slope", "midpoint")
LN2 = 0.6931471805599453
LN10 = 2.302585092994046
TINY_SINR = 1e-9  # below it no packet gets through at any rate, and the equations would divide zero by zero
TOP_EFFICIENCY = 40.0  # log2(1 + SINR) [bit] up to which the best choice is tabulated, 120 dB
GRID = 4096


def log10_packet_error(sinr: Array, code_rate: Array, blocklength: float) -> Array:
    """log10 of the packet error probability (8) at code rate R_c [bit per channel use] and blocklength L.

    log2 e stands outside the root, where (47), (63) and the normal approximation have it; (8) prints it inside.
    """
    xp = namespace(sinr)
    capacity = xp.log1p(at_least(sinr, TINY_SINR))
    dispersion = -xp.expm1(-2.0 * capacity)
    argument = blocklength**0.5 * (capacity - LN2 * code_rate) / dispersion**0.5
    return log_ndtr(-argument) * (1.0 / LN10)


def log10_bit_error(sinr: Array, code_rate: Array, blocklength: float) -> Array:
    """log10 of the bit error rate (14): one bit error in a lost packet of R_c L bits."""
    packet = log10_packet_error(sinr, code_rate, blocklength)
    return packet - namespace(sinr).log10(code_rate * blocklength)


class RateTable:
    """The lookup table M_d or M_s of one kind of user, checked.

    rate_bit (N,) [R_s^n]: source bits of the N codecs, ascending. source_distortion [d_s], channel_distortion [d_c],
    slope [a_1], midpoint [a_0, log10 of a bit error rate] (N,): of the logistic distortion (12), (13).
    Raises ValueError, in one line, for columns that do not fit together, are out of range or do not ascend.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        columns = []
        for key in PARAMETERS:
            column = np.asarray(parameters[key], float)
            if column.ndim != 1 or len(column) < 2 or len(column) != np.size(parameters["rate_bit"]):
                raise ValueError(f"curve {name!r}: {key} must be a list of two numbers or more, as long as rate_bit")
            columns.append(column)
        rate, source, channel, slope, _ = columns
        rules = {
            "rate_bit must be positive and ascend": bool(rate[0] > 0 and np.all(np.diff(rate) > 0)),
            "source_distortion must be positive": bool(np.all(source > 0)),
            "channel_distortion must not be negative": bool(np.all(channel >= 0)),
            "slope must be positive": bool(np.all(slope > 0)),
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"curve {name!r}: {rule}")
        self.name = name
        self.columns = np.stack(columns, axis=-1)  # (N, 5) in the order of PARAMETERS

    def __len__(self) -> int:
        return len(self.columns)

    def distortions(self, sinr: Array, channel_uses: float, blocklength: float) -> Array:
        """Distortion (12), (13) of every codec at SINRs (...): (..., N), NumPy float64."""
        return distortion(self.columns.T, np.asarray(sinr)[..., None], channel_uses, blocklength)


def distortion(columns: Any, sinr: Array, channel_uses: float, blocklength: float) -> Array:
    """Distortion (12), (13) of codecs with the given columns (in the order of PARAMETERS) at R_c = R_s / T."""
    rate, source, channel, slope, midpoint = columns
    bit_error = log10_bit_error(sinr, rate * (1.0 / channel_uses), blocklength)
    return source + channel * falling(slope * (midpoint - bit_error))


class BestRate:
    """The codec of least distortion at every SINR, for one table, deadline T and blocklength L.

    edges (E,): values of log2(1 + SINR) [bit] where the best codec changes; index (E + 1,): the codec between them.
    """

    def __init__(self, table: RateTable, channel_uses: float, blocklength: float) -> None:
        def best(efficiency: Array) -> Array:
            sinr = np.expm1(LN2 * efficiency)
            return np.argmin(table.distortions(sinr, channel_uses, blocklength), axis=-1)

        grid = np.linspace(0.0, TOP_EFFICIENCY, GRID)
        cell = np.flatnonzero(np.diff(best(grid)))
        edges: list[float] = []
        index = [int(best(grid[:1])[0])]
        low, high = grid[cell], grid[cell + 1]
        while len(low):  # one pass finds the first change of every cell; few have another
            here, far = low.copy(), high.copy()
            start = best(low)
            for _ in range(60):
                middle = 0.5 * (here + far)
                same = best(middle) == start
                here, far = np.where(same, middle, here), np.where(same, far, middle)
            edges += far.tolist()
            index += best(far).tolist()
            more = best(far) != best(high)
            low, high = far[more], high[more]
        order = np.argsort(edges)
        self.edges = np.asarray(edges)[order]
        self.index = np.asarray([index[0], *np.asarray(index[1:], int)[order]])

    def at(self, sinr: Array) -> Array:
        """Index of the best codec at SINRs (...), as integers."""
        xp = namespace(sinr)
        efficiency = xp.log1p(sinr) * (1.0 / LN2)
        if not is_torch(sinr):
            return self.index[np.searchsorted(self.edges, efficiency)]
        place = xp.searchsorted(like(self.edges, efficiency), efficiency.detach().contiguous())
        return like(self.index, efficiency)[place]
