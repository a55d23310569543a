"""A headless Chromium, spoken to through a pipe by its DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
)
_PATIENCE = 60.0


def find_chromium() -> str | None:
    """Path of a Chromium, where there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One page of a Chromium that is closed with the context."""

    def __init__(self, profile: Path):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = f'exec "$0" {_FLAGS} "--user-data-dir=$1" about:blank 3<&{to_read} 4>&{to_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, find_chromium(), str(profile)],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._number, self._buffer, self.events = 0, b"", []
        target = self._call("Target.createTarget", {"url": "about:blank"}, session=None)
        attached = self._call("Target.attachToTarget", {**target, "flatten": True}, session=None)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=_PATIENCE)
        os.close(self._write)
        os.close(self._read)

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Show a file in a window of this size, until it has loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)
        self.events.clear()
        self.call("Page.navigate", {"url": path.as_uri()})
        deadline = time.monotonic() + _PATIENCE
        while "Page.loadEventFired" not in [event["method"] for event in self.events]:
            self._receive(deadline)

    def value(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page."""
        asked = {"expression": expression, "returnByValue": True}
        return self.call("Runtime.evaluate", asked)["result"].get("value")

    def screenshot(self) -> bytes:
        """PNG file of the whole page."""
        asked = {"captureBeyondViewport": True}
        return base64.b64decode(self.call("Page.captureScreenshot", asked)["data"])

    def pdf(self) -> bytes:
        """PDF file of the printed page."""
        return base64.b64decode(self.call("Page.printToPDF")["data"])

    def requests(self) -> list[str]:
        """Addresses that the page asked for, but for what it holds itself."""
        asked = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in asked]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[dict[str, Any]]:
        """Console messages, exceptions and entries of the browser's log."""
        kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event["method"] in kinds]

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """Result of a DevTools method in the page."""
        return self._call(method, parameters or {}, self._session)

    def _call(self, method: str, parameters: dict[str, Any], session: str | None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _PATIENCE
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0.0 or not select.select([self._read], [], [], left)[0]:
                raise TimeoutError("Chromium does not answer")
            chunk = os.read(self._read, 2**20)
            if not chunk:
                raise ConnectionError("Chromium has ended")
            self._buffer += chunk
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message
