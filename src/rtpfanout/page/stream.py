"""Events as they happen, for a browser: Server-Sent Events, in pieces of twenty seconds.

A stream ends before the HTTP side would end it, as one that does not take its answer, and whoever
goes on with the number of the last event misses nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import weakref
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.sessions import Begin, EventKind, Wanted, watch_events

if TYPE_CHECKING:
    from rtpfanout.sessions import Event, EventLog

STREAM_SECONDS = 20.0
HEARTBEAT_SECONDS = 10.0
FIRST_EVENTS = 100
"""So many of those that have happened are told to who begins."""
_LONGEST_NUMBER = 20


class Streams:
    """All that are open; `close` ends them."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._open: weakref.WeakSet[asyncio.Event] = weakref.WeakSet()

    def close(self) -> None:
        """At once: who reads goes on with another server."""
        for stopping in self._open:
            stopping.set()

    async def open(self, wanted: Wanted, after: int | None) -> AsyncIterator[bytes]:
        """What is sent; after the event of that number, or the last ones first."""
        stopping = asyncio.Event()
        self._open.add(stopping)
        timer = asyncio.get_running_loop().call_later(STREAM_SECONDS, stopping.set)
        try:
            if after is None:
                first, after = self._last(wanted)
                for event in first:
                    yield _frame(event)
            events = watch_events(
                self._log,
                stopping,
                begin=Begin(after),
                wanted=wanted,
                heartbeat_seconds=HEARTBEAT_SECONDS,
            )
            async for event in events:
                yield _frame(event)
        finally:
            timer.cancel()
            self._open.discard(stopping)

    def _last(self, wanted: Wanted) -> tuple[list[Event], int]:
        """And the number to go on from."""
        kept = self._log.all()
        shown = (told for each in reversed(kept) if (told := each.to(wanted)) is not None)
        return list(itertools.islice(shown, FIRST_EVENTS))[::-1], kept[-1].sequence


def number_of(text: str) -> int | None:
    """Of an event, as a parameter says it; None: it does not. Raises InvalidArgumentError."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise InvalidArgumentError(f"{text[:40]!r} is not the number of an event", field="after")
    return int(text)


def _frame(event: Event) -> bytes:
    told: dict[str, Any] = event.as_dict() if event.kind is not EventKind.HEARTBEAT else {}
    data = json.dumps(told, separators=(",", ":"))
    return f"id: {event.sequence}\nevent: {event.kind}\ndata: {data}\n\n".encode()
