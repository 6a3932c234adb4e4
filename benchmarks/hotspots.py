"""Where the time of a piece of work goes: the shares of our functions, sampled by CPU time.

A signal asks every millisecond of CPU time which function is at work. What NumPy, SciPy or torch does counts for the
function of this package that called it.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from semcom_gym.benchmarks import table
from semcom_gym.benchmarks.progress import bar

if TYPE_CHECKING:
    from semcom_gym.benchmarks.speed import Item

EVERY = 1e-3  # seconds of CPU time between two looks
SHOWN = 6  # functions of a row
PACKAGE = "semcom_gym."


def table_of(items: list[Item], seconds: float = 2.0) -> list[dict[str, Any]]:
    """Of every item its name and batch, how often was looked, and the functions with the largest shares.

    Raises RuntimeError where the system has no timer of CPU time (Windows).
    """
    if not hasattr(signal, "setitimer"):
        raise RuntimeError("hotspots: this system has no timer of CPU time")
    rows = []
    with bar(len(items), "hotspots") as progress:
        for item in items:
            item.work()  # warm-up
            counts = sample(item.work, seconds)
            looks = sum(counts.values())
            parts = [{"function": name, "share": count / looks} for name, count in counts.most_common(SHOWN)]
            rows.append({"name": item.name, "batch": item.batch, "samples": looks, "parts": parts})
            progress.update()
    return rows


def sample(work: Callable[[], Any], seconds: float) -> Counter[str]:
    """How often each function was found at work in ``seconds`` of CPU time, at least one call of ``work``."""
    counts: Counter[str] = Counter()
    end = time.process_time() + seconds
    with _asking(lambda frame: counts.update([_owner(frame)])):
        while time.process_time() < end:
            work()
    return counts


@contextmanager
def _asking(look: Callable[[FrameType | None], None]) -> Iterator[None]:
    """Call ``look`` with the frame at work every ``EVERY`` seconds of CPU time. Main thread only."""
    before = signal.signal(signal.SIGPROF, lambda _, frame: look(frame))
    signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def _owner(frame: FrameType | None) -> str:
    """The innermost function of this package with a name, which a comprehension has not, behind its module's."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        name = frame.f_code.co_name
        if module.startswith(PACKAGE) and module != __name__ and not name.startswith("<"):
            return f"{module.removeprefix(PACKAGE)}.{name}"
        frame = frame.f_back
    return "elsewhere"


def text(rows: list[dict[str, Any]]) -> str:
    """A line per function."""
    lines = [
        [row["name"] if k == 0 else "", f"{part['share']:.0%}", part["function"]]
        for row in rows for k, part in enumerate(row["parts"])
    ]  # fmt: skip
    return table.aligned(("where the time goes", "share", "function"), lines, left=(0, 2))
