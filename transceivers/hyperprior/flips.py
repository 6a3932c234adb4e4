"""Bit errors in coded pictures: what is left of a picture when every bit of its stream is wrong by chance.

The channel of Section III-A of the ASCC paper: each coded bit is flipped with the probability BER, by itself. Nothing
tells the receiver which ones, so an entropy decoder goes astray from the first of them on.

At a low BER nearly every stream arrives whole, and what happens then is known. So a stream of B bits is looked at only
as it is with one error or more, and the expectation is put together from both,

    E[D] = P0 D_clean + (1 - P0) E[D | one error or more],  P0 = (1 - BER)^B,

which needs no more draws at 1e-7 than at 1e-3. Draws of one stream share the order in which its bits go wrong: errors
at a BER are among those at any higher one, so that differences along a curve are not those of the draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats

from semcom_gym.envs import validate
from semcom_gym.envs.arrays import Array

Payload = tuple[bytes, ...]
"""The stream of a picture, in parts that follow one another."""
Judge = Callable[[int, Sequence[Payload]], tuple[Array, Array]]
"""From the number of a picture and m streams as they arrived: figures (m, names), and which a decoder gave up (m,)."""

LOG10_BERS = tuple(np.arange(-7.0, -1.75, 0.5).tolist())
"""Bit error rates of a curve, as log10. With B coded bits a picture is hurt from about 1/B on."""


def measure(
    sent: Sequence[Payload],
    judge: Judge,
    names: Sequence[str],
    log10_bers: Sequence[float] = LOG10_BERS,
    *,
    draws: int = 1,
    seed: int = 0,
    protected: int = 0,
) -> dict[str, Any]:
    """Figures of pictures against the bit error rate of their streams.

    sent: streams of n pictures, two or more. judge: what becomes of a picture. names: of its figures.
    log10_bers: rising, below 0. draws: of errors, for each picture. protected: parts at the start of every stream that
    arrive without an error. Returns

    * ``bits``, the mean length of a stream with all its parts, and ``protected_bits``, that of the protected ones;
    * ``clean``, the figures without an error;
    * ``points``, for every rate ``log10_ber``, the figures, ``hit``, the share of streams with an error, and
      ``gave_up``, the share that a decoder gave up.

    Figures are means over pictures, and the standard error of each has its name with ``_error``: over pictures, so it
    holds the difference between them too.
    Raises ValueError for a bad value and for a stream that cannot be decoded though it is whole.
    """
    rates = _check(sent, log10_bers, draws, protected)
    clean, expected, hit, lost = [], [], [], []
    for k, payload in enumerate(sent):
        whole, damaged, chance, gave_up = _picture(k, payload, judge, rates, draws, seed, protected)
        clean.append(whole)
        expected.append((1.0 - chance)[:, None] * whole + chance[:, None] * damaged)
        hit.append(chance)
        lost.append(chance * gave_up)
    values = np.stack(expected)  # (n, rates, names)
    points = [
        {"log10_ber": float(log10_bers[b]), "hit": float(np.mean(hit, 0)[b]), "gave_up": float(np.mean(lost, 0)[b])}
        | _figures(names, values[:, b])
        for b in range(len(rates))
    ]
    lengths = np.array([[8 * sum(map(len, parts)) for parts in (payload, payload[:protected])] for payload in sent])
    bits, protected_bits = lengths.mean(0).tolist()
    figures = _figures(names, np.stack(clean))
    return {"bits": bits, "protected_bits": protected_bits, "clean": figures, "points": points}


def flipped(payload: Payload, places: Array) -> Payload:
    """The stream with the bits at ``places`` wrong, counted from its start, the most significant of a byte first."""
    data = np.frombuffer(b"".join(payload), np.uint8).copy()
    np.bitwise_xor.at(data, places // 8, (128 >> (places % 8)).astype(np.uint8))
    whole, ends = data.tobytes(), np.cumsum([len(part) for part in payload])
    return tuple(whole[end - len(part) : end] for part, end in zip(payload, ends, strict=True))


def counts_of_errors(bits: int, rates: Array, uniform: float) -> tuple[Array, Array]:
    """Chance of one error or more among ``bits``, (r,), and the number of errors if there is one, (r,).

    rates: bit error rates (r,). uniform: in [0, 1), where in the distribution the number lies.
    """
    chance = -np.expm1(bits * np.log1p(-rates))
    number = scipy.stats.binom.ppf(1.0 - chance + uniform * chance, bits, rates)
    return chance, np.clip(number, 1, max(bits, 1)).astype(int)


def _picture(
    k: int, payload: Payload, judge: Judge, rates: Array, draws: int, seed: int, protected: int
) -> tuple[Array, Array, Array, Array]:
    """Of picture k: figures without an error (names,); with one or more, the mean over draws, (rates, names); chance
    of an error (rates,); share of those streams that a decoder gave up (rates,).
    """
    rng = np.random.default_rng([seed, k])
    start = 8 * sum(len(part) for part in payload[:protected])
    bits = 8 * sum(map(len, payload)) - start
    received, row_of = [payload], np.zeros((draws, len(rates)), int)
    chance = np.zeros(len(rates))
    for draw in range(draws if bits else 0):
        chance, number = counts_of_errors(bits, rates, rng.random())
        order = start + rng.permutation(bits)
        for count in np.unique(number):
            row_of[draw, number == count] = len(received)
            received.append(flipped(payload, order[:count]))
    figures, gave_up = judge(k, received)
    if gave_up[0]:
        raise ValueError(f"the stream of picture {k} cannot be decoded though no bit of it is wrong")
    return figures[0], figures[row_of].mean(0), chance, gave_up[row_of].mean(0)


def _figures(names: Sequence[str], values: Array) -> dict[str, float]:
    """Mean over pictures of values (n, names), and its standard error."""
    mean, error = values.mean(0), values.std(0, ddof=1) / len(values) ** 0.5
    found = dict(zip(names, mean.tolist(), strict=True))
    return found | {f"{name}_error": value for name, value in zip(names, error.tolist(), strict=True)}


def _check(sent: Sequence[Payload], log10_bers: Sequence[float], draws: int, protected: int) -> Array:
    """The bit error rates."""
    validate.integer("draws", draws)
    validate.integer("protected", protected, low=0)
    if len(sent) < 2:
        raise ValueError(f"a mean with an error needs at least 2 pictures, got {len(sent)}")
    if protected >= min(len(payload) for payload in sent):
        raise ValueError(f"protected must leave a part of the stream to errors, got {protected}")
    levels = np.asarray(log10_bers, float)
    if levels.ndim != 1 or not len(levels) or not np.all(levels < 0) or not np.all(np.diff(levels) > 0):
        raise ValueError("log10_bers must rise and be below 0")
    return np.asarray(10.0**levels)
