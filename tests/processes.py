"""The command in processes of its own: to be interrupted, killed, or run where files cannot grow."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "semcom_gym.benchmarks.cli")


def start(
    folder: Path, *arguments: str, program: tuple[str, ...] = COMMAND, file_size: int | None = None
) -> subprocess.Popen[str]:
    """The command in ``folder``, in a process group of its own. file_size: bytes beyond which no file may grow."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where tests run in the background
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*program, *arguments], cwd=folder, text=True, start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=os.environ | {"NO_COLOR": "1"}, preexec_fn=prepare,
    )  # fmt: skip


def finish(folder: Path, *arguments: str, **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    process = start(folder, *arguments, **options)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def kill(process: subprocess.Popen[str], when: Callable[[], bool]) -> None:
    """Kill the process, and no other, as soon as ``when()``."""
    wait(process, when)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was over before"


def wait(process: subprocess.Popen[str], until: Callable[[], bool], seconds: float = 300) -> None:
    """Until ``until()``, while the process runs."""
    end = time.monotonic() + seconds
    while not until():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(group: int, seconds: float = 60) -> None:
    """Wait until a process group has no process."""
    end = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.killpg(group, 0)
            assert time.monotonic() < end
            time.sleep(0.1)


def cells(folder: Path) -> dict[str, Any]:
    """The cells of a folder by name, but for what time it was."""
    found = {}
    for path in folder.glob("*.json"):
        cell = json.loads(path.read_text())
        cell["value"].pop("seconds", None)
        cell["value"].pop("jobs", None)
        found[path.name] = cell
    return found


def timeless(value: Any) -> Any:
    """A JSON value without what depends on the clock."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in TIMES}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


TIMES = ("seconds", "training_seconds", "images_per_second", "flop_per_second", "jobs")
