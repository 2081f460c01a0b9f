"""How often what strangers can cause is done, such as a line of the log."""

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


class Bucket:
    """A token bucket that may go into debt: `per_second` on average, `burst` at once."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def take(self, now: float, cost: float = 1.0) -> bool:
        """False while there is nothing left. What is taken may cost more than is left."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= cost
        return True
