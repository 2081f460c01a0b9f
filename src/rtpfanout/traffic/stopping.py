"""How what goes on ends: on SIGINT, SIGTERM and SIGHUP, at a place of the program's choosing."""

import signal
import time
from types import FrameType
from typing import Any, Self

_LONGEST_SLEEP = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopFlag:
    """True once SIGINT, SIGTERM or SIGHUP came; a second one interrupts what goes on.

    Sleeps are short, not on a threading.Event: an Event set by a signal handler
    can deadlock with the thread that waits on it.
    """

    def __init__(self) -> None:
        self._stopped = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self._stopped

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """As if a signal had come."""
        self._stopped = True

    def sleep(self, seconds: float) -> bool:
        """Sleep, or less when stopped. True while not stopped."""
        return self.sleep_until(time.monotonic() + seconds)

    def sleep_until(self, deadline: float) -> bool:
        """Sleep until `time.monotonic()` is `deadline`. True while not stopped."""
        while not self._stopped:
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, _LONGEST_SLEEP))
        return False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopped:
            raise KeyboardInterrupt
        self._stopped = True
