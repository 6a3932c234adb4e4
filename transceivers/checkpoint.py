"""Checkpoints: written at once or not at all, read without running code from them, and never mistaken for others."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semcom_gym.envs.files import write_atomically

FORMAT = "semcom-gym transceiver 1"


def save(path: str | Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write ``content`` (tensors, numbers, text, lists and dictionaries of them) as a checkpoint of a ``kind``.

    Raises ValueError, in one line, if the file cannot be written.
    """
    stream = io.BytesIO()
    torch.save({"format": FORMAT, "kind": kind, **content}, stream)
    try:
        write_atomically(Path(path), stream.getvalue())
    except OSError as error:
        raise ValueError(f"checkpoint {str(path)!r} cannot be written: {error.strerror}") from None


def load(path: str | Path, kind: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. keys: what it must hold.

    Raises ValueError, in one line, for a file that is missing, corrupt, of another program or of another kind.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"checkpoint {str(path)!r} cannot be read: {error.strerror or 'corrupt'}") from None
    except (RuntimeError, ValueError, KeyError, EOFError, IndexError, AttributeError, pickle.UnpicklingError):
        raise ValueError(f"checkpoint {str(path)!r} is corrupt or not a file of tensors") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"checkpoint {str(path)!r} was not written by this package (format {FORMAT!r})")
    if content.get("kind") != kind:
        raise ValueError(f"checkpoint {str(path)!r} is of a {content.get('kind')!r}, not of a {kind!r}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise ValueError(f"checkpoint {str(path)!r} lacks {', '.join(missing)}")
    return content


def load_weights(network: torch.nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Put weights into a network. Raises ValueError, in one line, if they are of another one."""
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if found != expected:
        name = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise ValueError(f"checkpoint {str(path)!r} is of another network: {name} does not fit")
    network.load_state_dict(weights)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes, types and values."""
    total = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        total.update(value.numpy().tobytes())
    return total.hexdigest()
