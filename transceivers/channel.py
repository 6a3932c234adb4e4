"""Complex baseband channels: power normalisation, white noise and Rayleigh block fading.

Conventions of all transceivers here. A signal is a complex tensor (n, k): n images of k symbols. A sent signal has a
mean power per symbol of 1: each image by itself in deep JSCC, in the mean over images in the classifier. The noise is
CN(0, 1/snr), that is, a variance of 1 / (2 snr) in each of the real and imaginary parts; snr is linear, a number or a
tensor (n,), one per image. The compression ratio rho is k complex symbols over the n = 3 H W values of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semcom_gym.envs import validate

CHANNELS = ("awgn", "rayleigh")


def to_symbols(values: Tensor) -> Tensor:
    """Real values (..., 2 k) as k complex symbols: neighbours become real and imaginary part. Raises ValueError."""
    if values.shape[-1] % 2:
        raise ValueError(f"complex symbols need an even number of values, got {values.shape[-1]}")
    return torch.view_as_complex(values.reshape(*values.shape[:-1], -1, 2).contiguous())


def to_values(symbols: Tensor) -> Tensor:
    """The inverse of :func:`to_symbols`."""
    return torch.view_as_real(symbols).flatten(-2)


def normalise_power(symbols: Tensor, sent: Tensor | None = None) -> Tensor:
    """``symbols`` (n, k), scaled so that the sent ones of each image have a mean power of 1.

    sent: boolean (n, k), which symbols are sent; the others become 0. All, if None. An image whose signal is zero
    everywhere stays zero.
    """
    if sent is None:
        sent = torch.ones_like(symbols, dtype=torch.bool)
    symbols = symbols * sent
    energy = torch.view_as_real(symbols).square().sum((-2, -1), keepdim=True)[..., 0]
    tiny = torch.finfo(energy.dtype).tiny * symbols.shape[-1]  # keeps the gradient of a zero signal finite
    return symbols * (sent.sum(-1, keepdim=True) / energy.clamp(min=tiny)).sqrt()


def noise(like: Tensor, snr: Tensor | float, generator: torch.Generator | None = None) -> Tensor:
    """White noise CN(0, 1/snr) of the shape of ``like`` (n, k). Raises ValueError for an SNR that is not positive."""
    return (
        torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator) / _column(snr, like).sqrt()
    )


def awgn(symbols: Tensor, snr: Tensor | float, generator: torch.Generator | None = None) -> Tensor:
    """``symbols`` (n, k) with white noise: y = x + CN(0, 1/snr)."""
    return symbols + noise(symbols, snr, generator)


def rayleigh(symbols: Tensor, snr: Tensor | float, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Rayleigh block fading: y = h x + CN(0, 1/snr), one h ~ CN(0, 1) per image. Returns y (n, k) and h (n,)."""
    gain = torch.randn(symbols.shape[0], dtype=symbols.dtype, device=symbols.device, generator=generator)
    return gain[:, None] * symbols + noise(symbols, snr, generator), gain


def equalise(received: Tensor, gain: Tensor, snr: Tensor | float) -> Tensor:
    """Linear MMSE estimate of symbols of power 1 from y = h x + n, where the receiver knows h (n,) and the SNR."""
    snr = _column(snr, received)
    gain = gain[:, None]
    return received * gain.conj() / (gain.abs().square() + 1.0 / snr)


def transmit(
    symbols: Tensor, snr: Tensor | float, channel: str = "awgn", generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Symbols (n, k) as the receiver has them, equalised, and the SNR (n,) that it sees.

    channel: ``awgn`` or ``rayleigh``. Raises ValueError for another one.
    """
    validate.choice("channel", channel, CHANNELS)
    snr = _column(snr, symbols)[:, 0].expand(symbols.shape[0])
    if channel == "awgn":
        return awgn(symbols, snr, generator), snr
    received, gain = rayleigh(symbols, snr, generator)
    return equalise(received, gain, snr), snr * gain.abs().square()


def check_span(low_db: float, high_db: float) -> None:
    """Raise ValueError or TypeError unless the two are the ends of SNRs [dB] to train for, within -30 and 40."""
    for name, value in (("low_db", low_db), ("high_db", high_db)):
        validate.number(name, value, low=-30.0, high=40.0, open_low=False)
    validate.not_above("low_db", low_db, "high_db", high_db)


def db_to_linear(value_db: Tensor | float) -> Tensor:
    """A power ratio from dB."""
    return 10.0 ** (torch.as_tensor(value_db) / 10.0)


def linear_to_db(value: Tensor) -> Tensor:
    """A power ratio in dB."""
    return 10.0 * torch.log10(value)


def _column(snr: Tensor | float, symbols: Tensor) -> Tensor:
    """snr as real (n, 1) or (1, 1), on the device of the symbols."""
    column = torch.as_tensor(snr, device=symbols.device).to(symbols.real.dtype).reshape(-1, 1)
    if column.shape[0] not in (1, symbols.shape[0]):
        raise ValueError(f"snr must be one number or one per image ({symbols.shape[0]}), got {column.shape[0]}")
    if not bool((column > 0).all()):
        raise ValueError("snr must be positive (linear, not in dB)")
    return column
