"""A headless Chromium, driven through its debugging pipe: no network, no driver, nothing but the standard library."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)


def chromium() -> str | None:
    """The path of a Chromium on this machine, if it has one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page of one browser, in a profile of its own that goes with it.

    ``errors`` are the messages that the page wrote to the console as errors or warnings, and its exceptions.
    """

    def __enter__(self) -> Browser:
        # its children may write on for a moment after it has ended
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs, self.out = os.pipe()
        self.into, back = os.pipe()
        words = [str(chromium()), *FLAGS, f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe"]
        # the browser reads descriptor 3 and writes descriptor 4
        line = f'exec "$@" 3<&{theirs} 4>&{back}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, "bash", *words],
            pass_fds=(theirs, back),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(back)
        self.numbers, self.rest, self.session = itertools.count(1), b"", ""
        self.errors: list[str] = []
        self.events: list[str] = []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.do(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.out)
        os.close(self.into)
        self.profile.cleanup()

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        number = next(self.numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            told = self._read()
            if told.get("id") == number:
                assert "error" not in told, told
                return dict(told["result"])

    def open(self, page: Path | str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file or an address in a window of that many pixels; below 500 it is a phone's."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.do("Emulation.setEmulatedMedia", features=scheme)
        self.events.clear()
        self.do("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        while "Page.loadEventFired" not in self.events:
            self._read()

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        told = self.do("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key, as a keyboard does."""
        for kind in ("rawKeyDown", "keyUp"):
            self.do("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, file: Path, *, whole: bool = False, clip: dict[str, float] | None = None) -> None:
        """Write what the window shows, or the whole page, or a part of it, as a PNG."""
        options: dict[str, Any] = {"captureBeyondViewport": whole or clip is not None}
        if clip:
            options["clip"] = clip | {"scale": 1}
        data = self.do("Page.captureScreenshot", format="png", **options)["data"]
        file.write_bytes(base64.b64decode(data))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            data = os.read(self.into, 1 << 20)
            assert data, "the browser has gone"
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\0")
        told: dict[str, Any] = json.loads(line)
        method, params = told.get("method", ""), told.get("params", {})
        self.events.append(method)
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str(params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("text")))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        return told
