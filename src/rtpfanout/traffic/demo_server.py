"""The server of `rtpfanout demo`: the real one, as a process of its own on free ports."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Self

from rtpfanout.errors import RtpFanoutError, StartError
from rtpfanout.model import Address

READY_SECONDS = 20.0
_STOP_SECONDS = 5.0

_CONFIG = """\
bind_address = "127.0.0.1:0"
grpc_bind_address = "127.0.0.1:0"
metrics_bind_address = "127.0.0.1:0"
session_timeout_secs = 0
enable_supervisor = false

[log]
format = "json"
"""


class DemoServer:
    """`rtpfanout serve` on loopback; use with `with`, which always ends the process.

    `ingress`, `grpc` and `metrics` are its addresses once it is ready.
    """

    ingress: Address
    grpc: Address
    metrics: Address

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="rtpfanout-demo-")
        self._last_lines: deque[str] = deque(maxlen=20)
        self._ready: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        config = Path(self._directory.name) / "server.toml"
        config.write_text(_CONFIG)
        # A group of its own: Ctrl-C must reach the demo alone, which then counts
        # to the last packet before it ends the server.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rtpfanout", "serve", "--config", str(config)],
            env={k: v for k, v in os.environ.items() if not k.startswith("RTP_FANOUT_")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            self._reader = threading.Thread(target=self._read_log, daemon=True)
            self._reader.start()
            self._wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    def check(self) -> None:
        """Raises RtpFanoutError when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise RtpFanoutError(f"the server ended with code {code}: {self._last_words()}")

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._last_lines.append(line.rstrip())
            if self._ready is None:
                self._ready = _ready_entry(line)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while self._ready is None:
            if self._process.poll() is not None:
                self._reader.join(1.0)
                raise StartError(f"the server did not start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise StartError(f"the server was not ready within {READY_SECONDS:.0f} s")
            time.sleep(0.01)
        self.ingress = Address.parse(self._ready["bind_address"])
        self.grpc = Address.parse(self._ready["grpc_bind_address"])
        self.metrics = Address.parse(self._ready["metrics_bind_address"])

    def _last_words(self) -> str:
        return self._last_lines[-1] if self._last_lines else "it said nothing"

    def _end(self) -> None:
        try:
            self._process.terminate()
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        except BaseException:  # a second Ctrl-C while waiting
            self._process.kill()
            raise
        finally:
            self._directory.cleanup()


def _ready_entry(line: str) -> dict[str, Any] | None:
    """The log entry that says the server is ready, and where; None for any other line."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and entry.get("event") == "ready" else None
