"""Room for many calls at a time: who works next, and how much of a connection streams may hold.

No call is refused because others are under way. HTTP/2 keeps each connection to a few calls at a
time (SETTINGS_MAX_CONCURRENT_STREAMS), so its next ones wait in its client; of those that are
here, each connection gets its turn. So what waits is bounded, and who calls much delays himself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator

from rtpfanout.errors import LimitError

CALLS_PER_CONNECTION = 32
"""At a time. What came and is not yet at work waits in gRPC in the order of arrival, others' calls
behind it: 8 connections with 256 each, and a call of a ninth took 0.8 s; with 32, 0.1 s."""
STREAMS_PER_CONNECTION = 24
"""Of these, streams without an end: the others always find room."""


class Turns:
    """A number of turns; whoever has none waits, and connections are served one after the other.

    For one event loop.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, connection: str) -> None:
        """Returns when there is a turn for `connection`; `give` it back."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(connection, deque())
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():  # nothing may stay behind of who gives up
                self._forget(connection, turn)
            else:
                self.give()
            raise

    def give(self) -> None:
        """To the connection that had none for the longest time."""
        while self._waiting:
            connection, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[connection] = queue
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _forget(self, connection: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(connection)
        if queue is not None:
            with contextlib.suppress(ValueError):
                queue.remove(turn)
            if not queue:
                del self._waiting[connection]


class Streams:
    """Calls without an end, by connection: WatchSessions, and those of health and reflection."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def one_more(self, connection: str) -> Iterator[None]:
        """For as long as it lasts. Raises LimitError."""
        # All that come by the Unix socket look alike.
        is_known = not connection.startswith("unix:")
        if is_known and self._open[connection] >= STREAMS_PER_CONNECTION:
            raise LimitError(
                f"this connection has {STREAMS_PER_CONNECTION} streams; end one, or open "
                "another connection",
                limit=STREAMS_PER_CONNECTION,
            )
        self._open[connection] += 1
        try:
            yield
        finally:
            self._open[connection] -= 1
            if not self._open[connection]:
                del self._open[connection]
