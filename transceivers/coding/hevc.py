"""Pictures as intra frames of HEVC, the codec inside BPG, by x265 and FFmpeg through PyAV.

The payload of a picture is its slice, a single one. The parameter sets are the same for all pictures of one size, so
they count as known to the receiver, as does the start code. Colours are those of JPEG and BPG: YCbCr of BT.601, full
range. One thread and no text of the encoder in the stream: the same picture always gives the same bytes.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import numpy as np

from semcom_gym.envs import validate
from semcom_gym.transceivers.digital import GREY

CHROMAS = {"4:4:4": "yuv444p", "4:2:0": "yuv420p"}
"""Resolution of the colours: that of the picture, or half each way. FFmpeg's name of the format."""
QPS = range(52)
"""Quantisation parameters: 0 is the finest; 6 more double the step."""
LEAST_SIDE = 16
START, SLICE = b"\0\0\1", 20  # start code; kind of the only unit sent, a slice of a picture that can be decoded alone
ZEROS, BITS = b"\0\0\3", 32
"""What the standard allows after a slice, two bytes of zeros, and how many bits of them follow for each value of the
picture: the decoder does not stop where a damaged slice ends, and would go on to read what lies there in memory."""
SETTINGS = "keyint=1:info=0:log-level=none:pools=none:frame-threads=1:range=full:colormatrix=bt470bg"
TO_YCC = np.array(((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411)))
TO_RGB = np.linalg.inv(TO_YCC)


def encode(image: np.ndarray, qp: int, chroma: str = "4:4:4") -> bytes:
    """The payload of ``image``, uint8 (3, H, W), sides of 16 pixels or more, even ones where chroma is 4:2:0.

    Raises ValueError, TypeError for a bad argument, ModuleNotFoundError without PyAV.
    """
    _check(image, chroma)
    _check_qp(qp)
    return _encode(image, qp, chroma)


def decode(payload: bytes, height: int, width: int, chroma: str = "4:4:4") -> tuple[np.ndarray, bool]:
    """The picture uint8 (3, height, width) of a payload, damaged or not, and whether there is one.

    A damaged payload gives what the decoder makes of it; what it does not reach stays black or green. Where it gives
    no picture of that size, the picture is mid grey. Nothing that arrives raises an error; bad arguments do.
    """
    if not isinstance(payload, bytes):
        raise TypeError(f"payload must be bytes, got {type(payload).__name__}")
    _check_size(height, width, chroma)
    slice_ = payload.split(START)[0]  # inside a unit these bytes do not occur: from there on it is damaged
    planes = None
    if (
        len(slice_) > 2 and slice_[0] >> 1 == SLICE
    ):  # any other kind is damaged, and might ask for a picture of any size
        stream = START + START.join((*_parameter_sets(height, width, chroma), slice_))
        planes = _planes(stream + ZEROS * (BITS // 16 * 3 * height * width), height, width)
    if planes is None:
        return np.full((3, height, width), GREY, np.uint8), False
    return _rgb(planes, chroma), True


def payload_bits(images: np.ndarray, qps: Any = QPS, chroma: str = "4:4:4") -> np.ndarray:
    """Bits of the payload of every picture uint8 (n, 3, H, W) at every qp, int (n, len(qps)). Raises as `encode`."""
    if getattr(images, "ndim", 0) != 4 or not len(images):
        raise ValueError(f"images must be uint8 (n, 3, H, W), got {getattr(images, 'shape', type(images).__name__)}")
    return np.array([[8 * len(encode(image, int(qp), chroma)) for qp in qps] for image in images])


def finest(bits: np.ndarray, budget: np.ndarray | float) -> np.ndarray:
    """The first qp of every row of ``payload_bits`` (n, q), q from the finest on, that fits; -1 where none does.

    budget: bits, one number or one for each picture. All are looked at: a coarser qp may take more bits.
    """
    fits = bits <= np.reshape(budget, (-1, 1))
    return np.where(fits.any(1), np.argmax(fits, axis=1), -1)


def _encode(image: np.ndarray, qp: int, chroma: str) -> bytes:
    units = _units(image, qp, chroma)
    if units[-1][0] >> 1 != SLICE:
        raise RuntimeError(f"the encoder gave a unit of kind {units[-1][0] >> 1}, not a slice")
    return units[-1]


@functools.lru_cache(maxsize=32)
def _parameter_sets(height: int, width: int, chroma: str) -> tuple[bytes, ...]:
    """What the receiver knows: of any picture of that size."""
    return tuple(_units(np.full((3, height, width), GREY, np.uint8), QPS[-1], chroma)[:-1])


def _units(image: np.ndarray, qp: int, chroma: str) -> list[bytes]:
    """The units of the stream of one picture, without start codes; the slice is the last."""
    av, name = _av(), CHROMAS[chroma]
    encoder = av.CodecContext.create("libx265", "w")
    encoder.height, encoder.width = image.shape[1:]
    encoder.pix_fmt, encoder.time_base, encoder.thread_count = name, Fraction(1, 1), 1
    encoder.options = {"x265-params": f"qp={qp}:{SETTINGS}"}
    packets = encoder.encode(av.VideoFrame.from_ndarray(_ycc(image, chroma), name)) + encoder.encode(None)
    return [unit.rstrip(b"\0") for unit in b"".join(map(bytes, packets)).split(START)[1:]]


def _planes(stream: bytes, height: int, width: int) -> np.ndarray | None:
    """What the decoder makes of a stream, as FFmpeg lays it out; None if that is no picture of the size."""
    av = _av()
    decoder = av.CodecContext.create("hevc", "r")
    decoder.thread_count = 1
    try:
        frames = decoder.decode(av.Packet(stream)) + decoder.decode(None)
    except av.FFmpegError:
        return None
    if not frames or (frames[0].height, frames[0].width) != (height, width):
        return None
    return np.asarray(frames[0].to_ndarray())


def _ycc(image: np.ndarray, chroma: str) -> np.ndarray:
    """uint8 (3, H, W) as FFmpeg lays it out: three planes, or one above the two small ones."""
    values = np.tensordot(TO_YCC, image.astype(float), 1)
    values[1:] += 128.0
    if chroma == "4:4:4":
        return _rounded(values)
    _, height, width = values.shape
    small = values[1:].reshape(2, height // 2, 2, width // 2, 2).mean((2, 4))
    return np.concatenate([_rounded(values[0]), _rounded(small).reshape(-1, width)])


def _rgb(planes: np.ndarray, chroma: str) -> np.ndarray:
    """The inverse; small planes are repeated."""
    if chroma == "4:2:0":
        height, width = planes.shape[0] * 2 // 3, planes.shape[1]
        small = planes[height:].reshape(2, height // 2, width // 2).repeat(2, 1).repeat(2, 2)
        planes = np.concatenate([planes[None, :height], small])
    values = planes.astype(float)
    values[1:] -= 128.0
    return _rounded(np.tensordot(TO_RGB, values, 1))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0.0, 255.0).astype(np.uint8)


def _check(image: np.ndarray, chroma: str) -> None:
    found = getattr(image, "shape", ())
    if getattr(image, "dtype", None) != np.uint8 or len(found) != 3 or found[0] != 3:
        raise ValueError(f"image must be uint8 (3, H, W), got {getattr(image, 'dtype', type(image).__name__)} {found}")
    _check_size(found[1], found[2], chroma)


def _check_size(height: int, width: int, chroma: str) -> None:
    validate.choice("chroma", chroma, CHROMAS)
    for name, side in (("height", height), ("width", width)):
        validate.integer(name, side, low=LEAST_SIDE)
        if chroma == "4:2:0" and side % 2:
            raise ValueError(f"{name} must be even with chroma 4:2:0, got {side}")


def _check_qp(qp: int) -> None:
    validate.integer("qp", qp, low=0)
    if qp not in QPS:
        raise ValueError(f"qp must be from 0 to {QPS[-1]}, got {qp}")


def _av() -> Any:
    """The module ``av``, which writes nothing to the terminal. Raises ModuleNotFoundError if it is missing."""
    try:
        import av
    except ModuleNotFoundError:
        raise ModuleNotFoundError("HEVC needs PyAV: pip install 'semcom-gym[codecs]'") from None
    av.logging.set_level(None)
    return av
