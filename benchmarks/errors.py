"""Telling a user's mistake from a fault of this package."""

from __future__ import annotations

import contextlib
import dis
from collections.abc import Iterator
from types import TracebackType


class UserError(Exception):
    """A mistake of the user, in one line; the command line prints it without a traceback and exits with 2."""


@contextlib.contextmanager
def user_input() -> Iterator[None]:
    """Work that only reads and checks what the user handed in: errors that this package words are the user's.

    A ValueError, TypeError or ModuleNotFoundError counts as worded by this package if a ``raise`` statement of
    semcom_gym raised it. The same types out of other code (``None + 1``, a bad index in NumPy) are faults of the
    package and pass through, as does everything that is raised outside this block.
    """
    try:
        yield
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        if _raised_on_purpose(error.__traceback__):
            raise UserError(" ".join(str(error).split())) from error
        raise


def _raised_on_purpose(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is one of this package, stopped at a ``raise`` statement."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "")
    at_raise = trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return module.startswith("semcom_gym.") and at_raise
