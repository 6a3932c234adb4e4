"""Real bit streams of the codec, by asymmetric numeral systems (the package ``constriction``).

A picture is two streams: `hyper`, the hyper-latents by the table of the factorised prior, and `main`, the latents, each
normal with one of the 89 scales of the scale table. The decoder makes means and scales from the hyper-latents alone, to
the last bit as the encoder did (:meth:`network.Hyperprior.exact_parameters`). Size and rate of a picture are known to
both and not counted. A stream is a whole number of words of 32 bits, and one that was read to its end leaves the coder
as it began; so a decoder knows, but for one damaged stream in billions, whether what it read is what was sent.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semcom_gym.transceivers import pixels
from semcom_gym.transceivers.hyperprior import priors
from semcom_gym.transceivers.hyperprior.network import BLOCK, LARGEST_HYPER, LARGEST_LATENT, SIDE, Hyperprior

WORD = np.dtype("<u4")


class Status(enum.Enum):
    """Of a decoded picture: whether both streams are as they were sent."""

    INTACT = "intact"
    DAMAGED = "damaged"


@dataclasses.dataclass(frozen=True)
class Stream:
    """A coded picture. hyper, main: the two streams. size: H, W of the picture; rate: its rate index."""

    hyper: bytes
    main: bytes
    size: tuple[int, int]
    rate: float

    @property
    def hyper_bits(self) -> int:
        """Bits of the hyper-latents."""
        return 8 * len(self.hyper)

    @property
    def main_bits(self) -> int:
        """Bits of the latents."""
        return 8 * len(self.main)

    @property
    def bits(self) -> int:
        """Bits of both."""
        return self.hyper_bits + self.main_bits


@torch.no_grad()
def encode(network: Hyperprior, image: Tensor, rate: float) -> Stream:
    """The streams of an image (3, H, W), uint8 or in [0, 1], sides multiples of 64, at a rate index from 0 to R - 1.

    Raises ValueError for an image or a rate that does not fit.
    """
    where = next(network.parameters()).device
    batch = pixels.scaled(image, where) if image.dtype == torch.uint8 else image.to(where, torch.float32)
    batch, index = batch[None], torch.tensor([rate], device=where)
    network.check(batch, index)
    values, hyper = (part[0].cpu().numpy() for part in network.latents(batch, index))
    whole, whole_hyper = _whole(values, LARGEST_LATENT), _whole(hyper, LARGEST_HYPER)
    main = _write(whole, _normal(), *_parameters(network, whole_hyper, rate))
    return Stream(_write_hyper(network, whole_hyper), main, (image.shape[1], image.shape[2]), float(rate))


@torch.no_grad()
def decode(network: Hyperprior, stream: Stream) -> tuple[Tensor, Status]:
    """The image (3, H, W) in [0, 1] of streams that may be damaged, and whether they were.

    Bits that differ from those sent give other latents from there on, and the picture is that of what was read. Of
    `hyper` nothing is used if it is damaged, for then nothing of `main` can be read; where a stream gives nothing, its
    latents are 0. Raises ValueError only for a size or a rate that no picture has.
    """
    latents, status = decode_latents(network, stream)
    return network.reconstruct(latents[None])[0].clamp(0.0, 1.0), status


@torch.no_grad()
def decode_latents(network: Hyperprior, stream: Stream) -> tuple[Tensor, Status]:
    """What :meth:`network.Hyperprior.reconstruct` takes, (M, H/16, W/16), of streams that may be damaged."""
    _check(network, stream)
    values, status = read(network, stream)
    where = next(network.parameters()).device
    rounded = torch.from_numpy(values).to(where, torch.float32)[None]
    return network.dequantised(rounded, torch.tensor([stream.rate], device=where))[0], status


def read(network: Hyperprior, stream: Stream) -> tuple[np.ndarray, Status]:
    """The whole numbers (M, H/16, W/16), int32, in streams that may be damaged."""
    height, width = stream.size
    shape = (network.config.latents, height // BLOCK, width // BLOCK)
    hyper, intact = _read_hyper(network, stream.hyper, (height // SIDE, width // SIDE))
    if not intact:
        return np.zeros(shape, np.int32), Status.DAMAGED
    parameters = _parameters(network, hyper, stream.rate)
    values, intact = _read(stream.main, LARGEST_LATENT, _normal(), *parameters)
    return values.reshape(shape), Status.INTACT if intact else Status.DAMAGED


def _write_hyper(network: Hyperprior, hyper: np.ndarray) -> bytes:
    return _write(hyper + LARGEST_HYPER + 1, _categorical(), _tables(network, hyper[0].size))


def _read_hyper(network: Hyperprior, data: bytes, size: tuple[int, int]) -> tuple[np.ndarray, bool]:
    values, intact = _read(data, LARGEST_HYPER, _categorical(), _tables(network, size[0] * size[1]))
    return values.reshape(-1, *size), intact


def _parameters(network: Hyperprior, hyper: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the latents, as the coder takes them."""
    means, log2_scale = network.exact_parameters(hyper, rate)
    return means.ravel(), priors.scale_table()[priors.levels(log2_scale.ravel())]


def _tables(network: Hyperprior, places: int) -> np.ndarray:
    """Probabilities of every hyper-latent of a picture, map by map; first that of the number that is never sent."""
    table = np.pad(network.prior.table(LARGEST_HYPER), ((0, 0), (1, 0)))
    return np.repeat(table, places, axis=0)


def _whole(values: np.ndarray, largest: int) -> np.ndarray:
    return np.clip(np.rint(values), -largest, largest).astype(np.int32)


def _write(symbols: np.ndarray, model: Any, *parameters: np.ndarray) -> bytes:
    """Whole numbers as a stream."""
    coder = _package().stream.stack.AnsCoder()
    coder.encode_reverse(np.ascontiguousarray(symbols.ravel(), np.int32), model, *parameters)
    return coder.get_compressed().astype(WORD).tobytes()


def _read(data: bytes, largest: int, model: Any, *parameters: np.ndarray) -> tuple[np.ndarray, bool]:
    """As many numbers from -largest to largest as there are parameters, int32, and whether that is what was sent.

    The least number that the model knows is never sent. A stream that runs out gives nothing else from there on, which
    is how that is seen; it counts as 0.
    """
    try:
        coder = _package().stream.stack.AnsCoder(np.frombuffer(data, WORD).astype(np.uint32))
    except ValueError:  # part of a word, or a last word of 0
        return np.zeros(len(parameters[0]), np.int32), False
    values = coder.decode(model, *parameters)
    if isinstance(model, _package().stream.model.Categorical):
        values = values - (largest + 1)
    missing = values < -largest
    return np.where(missing, np.int32(0), values), coder.is_empty() and not missing.any()


def _normal() -> Any:
    return _package().stream.model.QuantizedGaussian(-LARGEST_LATENT - 1, LARGEST_LATENT)


def _categorical() -> Any:
    return _package().stream.model.Categorical(perfect=False)


def _package() -> Any:
    """The module ``constriction``."""
    try:
        import constriction
    except ModuleNotFoundError:
        raise ModuleNotFoundError("bit streams need constriction: pip install 'semcom-gym[codecs]'") from None
    return constriction


def _check(network: Hyperprior, stream: Stream) -> None:
    """Raise ValueError for a size or a rate that no picture has."""
    pixels.check_shape(torch.empty(1, 3, *stream.size, device="meta"), SIDE)
    top = network.config.rates - 1
    if not 0 <= stream.rate <= top:
        raise ValueError(f"rate must be from 0 to {top}, got {stream.rate:g}")
