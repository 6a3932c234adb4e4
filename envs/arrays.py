"""Arrays of NumPy or torch behind one namespace, and batches of them.

Everything above this file is written once and runs on both libraries.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.special
from array_api_compat import array_namespace

Array = Any
"""A NumPy array or a torch tensor; shapes are in comments and docstrings."""

BatchT = TypeVar("BatchT", bound="Batch")


def namespace(x: Array) -> Any:
    """The array-API namespace of ``x``: NumPy itself, or the wrapper of array-api-compat."""
    return np if isinstance(x, np.ndarray) else array_namespace(x)


def is_torch(x: Array) -> bool:
    """Whether ``x`` is a torch tensor; never imports torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def rounding(x: Array) -> float:
    """Relative rounding of the floating-point numbers of ``x``."""
    return _eps(namespace(x), x.dtype)


@functools.cache
def _eps(xp: Any, dtype: Any) -> float:
    return float(xp.finfo(dtype).eps)


def erfc(x: Array) -> Array:
    """Complementary error function, elementwise (the array-API standard lacks it)."""
    return sys.modules["torch"].special.erfc(x) if is_torch(x) else scipy.special.erfc(x)


def log_ndtr(x: Array) -> Array:
    """Logarithm of the standard normal distribution function, elementwise, exact in both tails."""
    return sys.modules["torch"].special.log_ndtr(x) if is_torch(x) else scipy.special.log_ndtr(x)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)), elementwise, exact in both tails."""
    return sys.modules["torch"].special.expit(x) if is_torch(x) else scipy.special.expit(x)


def falling(x: Array) -> Array:
    """The logistic function that falls, 1 / (1 + exp(x)), by tanh, which does not overflow."""
    return 0.5 - 0.5 * namespace(x).tanh(0.5 * x)


def total(x: Array) -> Array:
    """Sum over the last axis (the method: half the time of the function on small arrays)."""
    return x.sum(-1)


def largest(x: Array, axis: Any = -1) -> Array:
    """Maximum over the last axis, or another or several (the method, as in :func:`total`)."""
    return x.max(axis) if isinstance(x, np.ndarray) else x.amax(axis)


def smallest(x: Array, axis: Any = -1) -> Array:
    """Minimum over the last axis, or another or several."""
    return x.min(axis) if isinstance(x, np.ndarray) else x.amin(axis)


def larger(x: Array) -> Array:
    """Maximum over a last axis of two (several times faster than a reduction over it)."""
    return namespace(x).maximum(x[..., 0], x[..., 1])


def at_least(x: Array, low: float) -> Array:
    """max(x, low), elementwise with a scalar (several times faster than NumPy's clip on small arrays)."""
    return np.maximum(x, low) if isinstance(x, np.ndarray) else namespace(x).clip(x, low, None)


def at_most(x: Array, high: float) -> Array:
    """min(x, high), elementwise with a scalar."""
    return np.minimum(x, high) if isinstance(x, np.ndarray) else namespace(x).clip(x, None, high)


def turned(x: Array) -> Array:
    """``x`` with its axes in reverse order, as a view."""
    return x.T if isinstance(x, np.ndarray) else x.permute(*range(x.ndim - 1, -1, -1))


def in_order(x: Array) -> Array:
    """``x`` stored with its last axis running fastest."""
    return np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x.contiguous()


def few(mask: Array) -> Array | None:
    """The rows where ``mask`` (n,) holds; None for most of them in NumPy, where all cost less than a copy."""
    rows = namespace(mask).nonzero(mask)[0]
    return None if isinstance(mask, np.ndarray) and 4 * len(rows) > 3 * len(mask) else rows


def at_rows(x: Array, rows: Array | None) -> Array:
    """``x[..., rows]``; None for all."""
    if rows is None:
        return x
    return x.take(rows, -1) if isinstance(x, np.ndarray) else x[..., rows]


def with_rows(x: Array, mask: Array, rows: Array | None, part: Array) -> Array:
    """``x`` with ``part`` where ``mask`` holds on its last axis; rows: those that ``part`` is of, by :func:`few`."""
    if rows is None:
        return namespace(x).where(mask, part, x)
    changed = copied(x)
    changed[..., rows] = part
    return changed


def copied(x: Array) -> Array:
    """A copy that may be written to."""
    return x.clone() if is_torch(x) else x.copy()


def frozen(x: Array) -> Array:
    """``x`` outside the gradient graph (torch); ``x`` itself in NumPy."""
    return x if isinstance(x, np.ndarray) else x.detach()


def rows_where(mask: Array) -> Array:
    """The indices at which ``mask`` (n,) holds; a GPU waits for their number."""
    return np.flatnonzero(mask) if isinstance(mask, np.ndarray) else namespace(mask).nonzero(mask)[0]


def chunk(x: Array, on_cpu: int, elsewhere: int) -> int:
    """How many rows of a batch like ``x`` to take at a time: as fit a CPU's cache, or as fill a GPU."""
    return elsewhere if is_torch(x) and x.device.type != "cpu" else on_cpu


def lower_at(x: Array, places: Array, values: Array) -> None:
    """Lower ``x`` (n,) in place, at each of ``places`` (k,), to the least of the ``values`` (k,) that go there."""
    if isinstance(x, np.ndarray):
        np.minimum.at(x, places, values)
    else:
        x.scatter_reduce_(0, places, values, "amin")


@functools.cache
def keep_memory() -> None:
    """Make glibc keep the memory of freed arrays, once for the process: it gives that back only above the largest
    block ever freed. Otherwise a chain of operations on arrays of 100 kB may spend its time on page faults."""
    np.empty(1 << 21)  # 16 MiB that nobody touches


def where_smallest(x: Array, count: int) -> Array:
    """Where on the last axis the ``count`` smallest numbers are, in no order."""
    if isinstance(x, np.ndarray):
        return np.argpartition(x, count - 1, axis=-1)[..., :count]
    return x.topk(count, dim=-1, largest=False, sorted=False).indices


class _Same:
    """A table as the key of a cache: itself, whatever it holds. Tables are constants."""

    def __init__(self, table: np.ndarray[Any, Any]) -> None:
        self.table = table

    def __hash__(self) -> int:
        return id(self.table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.table is other.table


@functools.lru_cache(512)
def _placed(key: _Same, dtype: Any, device: Any) -> Array:
    """The table as a tensor, once: every copy from the host makes a GPU wait."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(key.table, dtype=dtype, device=device)


def like(table: np.ndarray[Any, Any], x: Array) -> Array:
    """A constant table in the library and on the device of ``x``, in its type if the table holds fractions.

    Neither the table nor the answer may be written to.
    """
    fractions = table.dtype.kind == "f"
    if isinstance(x, np.ndarray):
        return table.astype(x.dtype, copy=False) if fractions else table
    return _placed(_Same(table), x.dtype if fractions else None, x.device)


def flat(blocks: Sequence[Array], cell: Sequence[float]) -> Array:
    """Blocks of rows (n, ...) unrolled one after another, then numbers that all n have in common: (n, d)."""
    first = blocks[0]
    xp, n = namespace(first), first.shape[0]
    last = xp.broadcast_to(xp.asarray(cell, dtype=first.dtype, device=first.device), (n, len(cell)))
    return xp.concat([*(xp.reshape(block, (n, -1)) for block in blocks), last], axis=-1)


def straight_through(hard: Array, soft: Array) -> Array:
    """The value of ``hard`` with the gradient of ``soft`` (torch); ``hard`` itself in NumPy."""
    return hard + (soft - soft.detach()) if is_torch(soft) else hard


def usable_device(name: str) -> Any:
    """The torch device of that name. Raises ValueError, in one line, if it cannot be used."""
    import torch

    try:
        found = torch.device(name)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return found


def to_numpy(x: Array) -> np.ndarray[Any, Any]:
    """``x`` as a NumPy array on the CPU, outside any gradient graph."""
    return x.detach().cpu().numpy() if is_torch(x) else np.asarray(x)


@dataclasses.dataclass(frozen=True)
class Batch:
    """A dataclass whose fields are arrays that share their first axis."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def map(self: BatchT, function: Callable[[Array], Array]) -> BatchT:
        """The batch with ``function`` applied to every field."""
        found = object.__new__(type(self))
        vars(found).update({name: function(value) for name, value in vars(self).items()})  # half the time of __init__
        return found

    def __getitem__(self: BatchT, index: Any) -> BatchT:
        """The instances at ``index``: a slice, an integer array or a mask; an integer keeps the batch axis."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"instance {index} of a batch of {len(self)}")
            index = slice(index, index + 1 or None)
        return self.map(lambda x: x[index])

    def replaced(self: BatchT, rows: Array, part: BatchT) -> BatchT:
        """A copy with the instances at ``rows`` (an index array or a mask) replaced by those of ``part``."""
        fields = {f.name: copied(getattr(self, f.name)) for f in dataclasses.fields(self)}
        for name, value in fields.items():
            value[rows] = getattr(part, name)
        return type(self)(**fields)

    def to_torch(self: BatchT, device: Any = "cpu", dtype: Any = None) -> BatchT:
        """The batch as torch tensors on ``device``; floating-point fields in ``dtype``."""
        import torch

        def convert(x: Array) -> Array:
            tensor = torch.as_tensor(x)
            floating = tensor.is_floating_point()
            return tensor.to(device=device, dtype=dtype if floating and dtype is not None else tensor.dtype)

        return self.map(convert)


def concatenate(batches: list[BatchT]) -> BatchT:
    """One batch of several of the same kind."""
    first = batches[0]
    xp = namespace(getattr(first, dataclasses.fields(first)[0].name))
    joined = {f.name: xp.concat([getattr(b, f.name) for b in batches]) for f in dataclasses.fields(first)}
    return type(first)(**joined)
