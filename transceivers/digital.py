"""The separation-based link that transceivers are compared with: baseline JPEG over QPSK or over an ideal code.

What is sent of a picture is its payload, the entropy-coded data of the scan. Headers, quantisation and Huffman tables
(the standard ones, never adapted to the picture) and the quality count as known to the receiver: at 32 x 32 pixels they
would be most of the file. The zero bytes that a file has after every 0xFF of the scan are of the file format and not
sent either. Chroma has half the resolution each way (4:2:0), as in most JPEG files: at 32 x 32 the smallest payload is
40 % below that at full resolution, so that more arrives over a poor link; over a good one it costs up to 2 dB.
"""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import scipy.special

from semcom_gym.envs import validate
from semcom_gym.transceivers.data import pictures

HIGHEST = 95
"""Qualities are 1 to 95; above, JPEG files grow with next to no gain."""
GREY = 128
CHROMA = "4:2:0"
SCAN, END = b"\xff\xda", b"\xff\xd9"  # markers: start of the scan, end of the picture


@dataclasses.dataclass(frozen=True, eq=False)
class Sent:
    """Pictures as they arrive.

    images: uint8 (n, 3, H, W), mid grey where nothing arrived
    delivered: bool (n,), whether a picture could be decoded
    symbols: int (n,), complex symbols used
    """

    images: np.ndarray
    delivered: np.ndarray
    symbols: np.ndarray


def jpeg_bits(image: np.ndarray, quality: int) -> bytes:
    """The payload of ``image``, uint8 (3, H, W), as a JPEG of a quality from 1 to 95. Raises ValueError, TypeError."""
    _check(image, quality, "image", "3, H, W")
    return _encode(image, quality)[1]


def bit_error_rate(snr_db: float) -> float:
    """Of uncoded QPSK with Gray labels: Q(sqrt(snr)), snr per complex symbol. Each bit has half the symbol's power."""
    _check_snr(snr_db)
    return float(0.5 * scipy.special.erfc(math.sqrt(10.0 ** (snr_db / 10.0) / 2.0)))


def send_uncoded(images: np.ndarray, quality: int, snr_db: float, generator: np.random.Generator) -> Sent:
    """JPEG of one quality, payload over uncoded QPSK and white noise: each bit is flipped by chance.

    images: uint8 (n, 3, H, W). generator: the only source of chance. A damaged payload is decoded as far as a decoder
    can, which is to the end, as the markers around it are intact; an error shifts or recolours what follows. Raises
    ValueError, TypeError for a bad argument.
    """
    _check(images, quality)
    if not isinstance(generator, np.random.Generator):
        raise TypeError(f"generator must be a numpy.random.Generator, got {generator!r}")
    rate = bit_error_rate(snr_db)
    received, symbols = [], []
    for image in images:
        header, payload = _encode(image, quality)
        bits = np.unpackbits(np.frombuffer(payload, np.uint8))
        flipped = bits ^ (generator.random(len(bits)) < rate)
        received.append(_decode(header, np.packbits(flipped).tobytes()))
        symbols.append(math.ceil(len(bits) / 2))
    return _sent(images, received, np.array(symbols))


def payload_bits(images: np.ndarray) -> np.ndarray:
    """Bits of the payload of every picture at every quality, int (n, 95). Raises ValueError, TypeError."""
    _check(images, HIGHEST)
    return np.array([[8 * len(_encode(image, q)[1]) for q in range(1, HIGHEST + 1)] for image in images])


def send_ideal(images: np.ndarray, symbols: int, snr_db: float, bits: np.ndarray | None = None) -> Sent:
    """JPEG over a code that reaches capacity: symbols log2(1 + snr) bits arrive for each picture, without an error.

    images: uint8 (n, 3, H, W). symbols: complex symbols for each. A picture has the largest quality whose payload fits;
    where none does, nothing arrives. bits: `payload_bits` of the images, where they are sent more than once. All
    qualities are looked at, as the payload may shrink by a few bits from one to the next. Raises ValueError, TypeError.
    """
    _check(images, HIGHEST)
    validate.integer("symbols", symbols)
    _check_snr(snr_db)
    bits = payload_bits(images) if bits is None else np.asarray(bits)
    if bits.shape != (len(images), HIGHEST):
        raise ValueError(f"bits must be payload_bits of the images, {(len(images), HIGHEST)}, got {bits.shape}")
    fits = bits <= capacity_bits(symbols, snr_db)
    best = np.where(fits.any(1), HIGHEST - np.argmax(fits[:, ::-1], axis=1), 0)
    received = [_decode(*_encode(image, int(q))) if q else None for image, q in zip(images, best, strict=True)]
    return _sent(images, received, np.full(len(images), symbols))


def capacity_bits(symbols: int, snr_db: float) -> int:
    """Whole bits that ``symbols`` complex symbols carry over white noise at most."""
    return math.floor(symbols * math.log2(1.0 + 10.0 ** (snr_db / 10.0)))


def _encode(image: np.ndarray, quality: int) -> tuple[bytes, bytes]:
    """Header and payload of the JPEG of ``image``."""
    stream = io.BytesIO()
    picture = pictures.pillow().Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.save(stream, "JPEG", quality=quality, subsampling=CHROMA, optimize=False, progressive=False)
    file = stream.getvalue()
    start = _scan(file)
    return file[:start], file[start : -len(END)].replace(b"\xff\x00", b"\xff")


def _scan(file: bytes) -> int:
    """Where the data of the scan begin: after the segment that announces it."""
    place = 2
    while True:
        marker, length = file[place : place + 2], int.from_bytes(file[place + 2 : place + 4], "big")
        place += 2 + length
        if marker == SCAN:
            return place


def _decode(header: bytes, payload: bytes) -> np.ndarray | None:
    """The picture uint8 (3, H, W) of an intact header and a payload, None if the decoder gives up."""
    file = header + payload.replace(b"\xff", b"\xff\x00") + END
    try:
        with pictures.pillow().Image.open(io.BytesIO(file)) as picture:
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    except OSError:
        return None


def _sent(images: np.ndarray, received: list[np.ndarray | None], symbols: np.ndarray) -> Sent:
    arrived = np.full_like(images, GREY)
    for k, picture in enumerate(received):
        if picture is not None:
            arrived[k] = picture
    return Sent(arrived, np.array([picture is not None for picture in received]), symbols)


def _check(images: np.ndarray, quality: int, name: str = "images", shape: str = "n, 3, H, W") -> None:
    found = getattr(images, "shape", ())
    sized = len(found) == shape.count(",") + 1 and found[-3] == 3 and 0 not in found
    if getattr(images, "dtype", None) != np.uint8 or not sized:
        raise ValueError(f"{name} must be uint8 ({shape}), got {getattr(images, 'dtype', type(images))} {found}")
    validate.integer("quality", quality)
    if quality > HIGHEST:
        raise ValueError(f"quality must be from 1 to {HIGHEST}, got {quality}")


def _check_snr(snr_db: float) -> None:
    validate.number("snr_db", snr_db, low=-100.0, high=100.0)
