"""A headless Chromium that is told what to do through a pair of pipes (its DevTools protocol), without a library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

BINARIES = ("chromium", "chromium-browser", "google-chrome")


class Chromium:
    """One browser with one page. ``events`` are all messages that no command asked for."""

    def __init__(self, profile: Path) -> None:
        binary = next(filter(None, map(shutil.which, BINARIES)), None)
        if binary is None:
            raise FileNotFoundError(f"no browser, looked for: {', '.join(BINARIES)}")
        hears, self._says = (_high(fd) for fd in os.pipe())
        self._hears, says = (_high(fd) for fd in os.pipe())
        self._log = (profile / "chromium.log").open("wb")
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        self._process = subprocess.Popen(
            [binary, *arguments, f"--user-data-dir={profile}", "--remote-debugging-pipe"],
            preexec_fn=lambda: (os.dup2(hears, 3), os.dup2(says, 4)), pass_fds=(3, 4),
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        os.close(hears)
        os.close(says)
        self._buffer, self._count, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command. Raises RuntimeError where the browser refuses it."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._says, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                break
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def open(self, url: str, width: int, height: int, scheme: str = "light") -> None:
        """Load a page in a window of this size and a colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression. Raises RuntimeError where it throws."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"])
        return found["result"].get("value")

    def picture(self, path: Path, top: int = 0) -> None:
        """What the window shows, scrolled down by ``top``, as PNG."""
        self.evaluate(f"window.scrollTo({{top: {top}, behavior: 'instant'}})")
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._says)
            os.close(self._hears)
            self._log.close()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._hears, 1 << 20)
            if not part:
                raise RuntimeError(f"the browser ended: {Path(self._log.name).read_text()[-2000:]}")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))


def _high(fd: int) -> int:
    """The same pipe under a number that does not collide with the browser's 3 and 4."""
    found = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return found
