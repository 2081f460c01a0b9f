"""The signals that a supervisor acts on, one at a time and where it waits for them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Those that the supervisor acts on."""
_ONLY_OURS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


class OwnSignals:
    """Of this process. `descriptors` wake who waits for the first of them, and are ours alone."""

    def __init__(self) -> None:
        self.descriptors = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._came: list[int] = []

    def listen(self) -> None:
        """From here on."""
        signal.set_wakeup_fd(self.descriptors[1], warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, _frame: self._came.append(number))

    def came(self) -> Iterator[int]:
        """In the order they came, once each."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptors[0], 4096)
        while self._came:
            yield self._came.pop(0)


def block() -> None:
    """Those that come meanwhile wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock() -> None:
    """And are heard."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def leave_to_supervisor() -> None:
    """In a server: what a terminal sends to all is for the supervisor to tell us."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in _ONLY_OURS:
        signal.signal(number, signal.SIG_IGN)
