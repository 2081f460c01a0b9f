"""Headless Chromium, driven by the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest
from support import START_SECONDS, eventually, requires
from websockets.sync.client import connect

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowDown": 40}
LARGEST_MESSAGE = 64 << 20


class Browser:
    """One window; it ends with its `with` block. What it complained of is in `complaints`."""

    def __init__(self, width: int = 1360, height: int = 900) -> None:
        requires("chromium")
        self.complaints: list[str] = []
        self._stack = contextlib.ExitStack()
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [
                "chromium",
                "--headless=new",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._home.name}",
                f"--window-size={width},{height}",
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--no-proxy-server",
                "--force-color-profile=srgb",
                "--font-render-hinting=none",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._socket = self._stack.enter_context(self._connected())
            self._number = 0
            for domain in ("Page", "Runtime", "Log", "Performance"):
                self.call(f"{domain}.enable")
            self.call("Emulation.setScrollbarsHidden", hidden=True)
            self.resize(width, height)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._stack.close()
        self._process.kill()
        self._process.wait()
        self._home.cleanup()

    def _connected(self) -> ClientConnection:
        file = Path(self._home.name) / "DevToolsActivePort"
        deadline = time.monotonic() + START_SECONDS
        while not (file.exists() and file.read_text().count("\n") >= 1):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("chromium has not started")
            time.sleep(0.05)
        port = file.read_text().split()[0]
        with httpx.Client(trust_env=False) as client:
            targets = client.get(f"http://127.0.0.1:{port}/json/list").json()
        (page,) = [each for each in targets if each["type"] == "page"]
        return connect(page["webSocketDebuggerUrl"], max_size=LARGEST_MESSAGE, proxy=None)

    def call(self, method: str, **parameters: Any) -> Any:
        """One of the protocol's methods; its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=START_SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.complaints.append(details.get("exception", details).get("description", ""))
        elif event.get("method") == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")

    def goto(self, url: str) -> None:
        """Open it, and wait until it has loaded."""
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({url!r})")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Until the expression is true."""
        tried = f"(() => {{ try {{ return !!({script}) }} catch {{ return false }} }})()"
        eventually(lambda: self.run(tried), bool, script)

    def text(self, selector: str) -> str:
        """Of the first element that it selects, as it is shown."""
        self.wait(f"document.querySelector({selector!r})")
        return str(self.run(f"document.querySelector({selector!r}).innerText"))

    def click(self, selector: str) -> None:
        """As a pointer would."""
        self.wait(f"document.querySelector({selector!r})")
        self.run(f"document.querySelector({selector!r}).click()")

    def press(self, key: str) -> None:
        """A key of KEYS, down and up."""
        told = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        """The window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, **features: str) -> None:
        """Media features, by names with _ for -: prefers_color_scheme="dark"."""
        named = [{"name": n.replace("_", "-"), "value": v} for n, v in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def task_seconds(self) -> float:
        """The main thread's work since the page was opened."""
        found = {m["name"]: m["value"] for m in self.call("Performance.getMetrics")["metrics"]}
        return float(found["TaskDuration"])

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        data = self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"]
        path.write_bytes(base64.b64decode(data))
