"""Progress bars on stderr, so that stdout holds results only."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, what: str) -> Any:
    """A tqdm bar of ``total`` steps on stderr: ``update()``, ``set_postfix_str()``, a context manager.

    Silent where stderr is no terminal. Raises ModuleNotFoundError if tqdm, part of every extra, is missing.
    """
    from semcom_gym.baselines.solution import require

    require("tqdm", "a progress bar")
    from tqdm import tqdm

    return tqdm(total=total, desc=what, file=sys.stderr, leave=False, disable=None)
