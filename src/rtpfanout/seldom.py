"""Lines of the log that strangers can cause: so many a minute, and how many were left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Seldom:
    """Writes at most `most` lines in any `per_secs` seconds; for several threads."""

    def __init__(
        self, most: int, per_secs: float = 60.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._per_secs = per_secs
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._began = float("-inf")
        self._written = 0
        self._left_out = 0

    def write(self, log: Callable[..., object], event: str, **entry: object) -> None:
        """`log(event, **entry)`, or nothing; `left_out` is how often it was nothing since."""
        with self._lock:
            now = self._monotonic()
            if now - self._began >= self._per_secs:
                self._began, self._written = now, 0
            if self._written == self._most:
                self._left_out += 1
                return
            self._written += 1
            if self._left_out:
                entry["left_out"], self._left_out = self._left_out, 0
        log(event, **entry)
