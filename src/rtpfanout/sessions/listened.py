"""A log that others read at their own pace: who is told that there is more to read."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator


class Listened:
    """Thread-safe: its own lock, which is taken last and held for moments."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: set[Callable[[], None]] = set()

    def listen(self, listener: Callable[[], None]) -> None:
        """`listener` is called, from any thread, after something can be read; it may not block."""
        with self._lock:
            self._listeners.add(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """No further calls, but for one that may be under way."""
        with self._lock:
            self._listeners.discard(listener)


@contextlib.contextmanager
def woken_by(log: Listened) -> Iterator[asyncio.Event]:
    """An event of the running loop that is set when something can be read."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        if not woken.is_set():  # at worst it is set once more than needed
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(woken.set)

    log.listen(wake)
    try:
        yield woken
    finally:
        log.unlisten(wake)


async def wait_for(woken: asyncio.Event, stopping: asyncio.Event, seconds: float) -> None:
    """Until one of them is set, or it took too long."""
    tasks = [asyncio.ensure_future(event.wait()) for event in (woken, stopping)]
    try:
        await asyncio.wait(tasks, timeout=max(0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
