"""Reads a queue of the engine's notices in the event loop, without ever holding it up for long."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

SLICE = 64
"""Notices handled before calls get their turn."""
BUSY_BATCH = 128
"""Of those who are known: so many at once are more than renewals."""
REST = 2.0
"""After a batch the queue rests for so many times what it took.

A flood of notices thus gets a third of a core at most; what comes meanwhile fills the queue
and then is dropped and counted by the engine. Other queues, with readers of their own, go on.
"""


class Reader:
    """Calls `handle` with every notice, from construction until `close`."""

    def __init__(
        self,
        fd: int,
        notices: Callable[[], list[Any]],
        handle: Callable[[Any], None],
        loop: asyncio.AbstractEventLoop,
        *,
        rests_after: int = 1,
    ) -> None:
        """`fd` is readable while `notices` has some to give; after fewer it does not rest."""
        self._fd = fd
        self._notices = notices
        self._handle = handle
        self._loop = loop
        self._rests_after = rests_after
        self._pending: deque[Any] = deque()
        self._batch = 0
        self._spent = 0.0
        self._closed = False
        self._listen()

    def close(self) -> None:
        """Nothing is handled from here on."""
        self._closed = True
        self._loop.remove_reader(self._fd)

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._fd, self._take)

    def _take(self) -> None:
        self._pending.extend(self._notices())
        self._batch = len(self._pending)
        self._spent = 0.0
        self._loop.remove_reader(self._fd)
        self._go_on()

    def _go_on(self) -> None:
        if self._closed:
            return
        begin = time.perf_counter()
        for _ in range(min(SLICE, len(self._pending))):
            self._handle(self._pending.popleft())
        self._spent += time.perf_counter() - begin
        if self._pending:
            self._loop.call_soon(self._go_on)
        elif self._batch >= self._rests_after:
            self._loop.call_later(REST * self._spent, self._listen)
        else:
            self._listen()
