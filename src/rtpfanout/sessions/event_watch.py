"""A watch of events: what is kept of them, then each as it happens, as long as somebody listens.

For whatever tells of events: a call, a page, a hook. For a page (SSE), with `manager.events`:

    wanted = Wanted.of(label_selector, session, kinds)  # and the selector of who may see less
    begin = Begin(after=last_event_id)
    async for event in watch_events(manager.events, stopping, begin=begin, wanted=wanted,
                                    heartbeat_seconds=10):
        send(f"id: {event.sequence}")  # also of a HEARTBEAT: it is where to go on from
        send(f"event: {event.kind}")
        send(f"data: {json.dumps(event.as_dict())}")

`last_event_id` is the number that the browser brings in Last-Event-ID, None where it has none.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.model import EventKind, shown
from rtpfanout.sessions.events import Event, Wanted
from rtpfanout.sessions.listened import wait_for, woken_by

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rtpfanout.sessions.events import EventLog

_EVERYTHING = Wanted()


class Begin(NamedTuple):
    """Which event is the first: after the number `after`, of which 0 means all that are kept; or
    from the moment `since` on; or only what is to come.
    """

    after: int | None = None
    since: datetime | None = None

    @classmethod
    def of(cls, after: int | None, since: str) -> Begin:
        """Of WatchEventsRequest. Raises InvalidArgumentError."""
        if not since:
            return cls(after)
        if after is not None:
            raise InvalidArgumentError("give after_sequence or since, not both", field="since")
        try:
            moment = datetime.fromisoformat(since)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise InvalidArgumentError(
                f"{shown(since)} is no moment of RFC 3339, such as 2026-03-01T12:00:00Z",
                field="since",
            )
        return cls(None, moment)

    def position(self, log: EventLog) -> int:
        """Which number comes before."""
        if self.after is not None:
            return self.after
        return log.since(self.since) if self.since else log.position


_TO_COME = Begin()


async def watch_events(
    log: EventLog,
    stopping: asyncio.Event,
    *,
    begin: Begin = _TO_COME,
    wanted: Wanted = _EVERYTHING,
    heartbeat_seconds: float,
) -> AsyncIterator[Event]:
    """The events from `begin` on, until `stopping` is set.

    A HEARTBEAT, whose number is where to go on from, comes when all that is kept has been told, and
    then after `heartbeat_seconds` without an event. What was missed is told as a GAP.
    """
    position = begin.position(log)
    now = asyncio.get_running_loop().time
    last = now()
    is_up_to_date = False
    with woken_by(log) as woken:
        while not stopping.is_set():
            woken.clear()
            found, position, gap = log.after(position)
            for event in (gap, *found):
                if event is not None and (told := event.to(wanted)) is not None:
                    yield told
                    last = now()
            if found:
                await asyncio.sleep(0)  # where none is wanted nobody waits otherwise
                continue
            if not is_up_to_date or now() - last >= heartbeat_seconds:
                is_up_to_date = True
                yield Event(position, EventKind.HEARTBEAT, log.now())
                last = now()
            await wait_for(woken, stopping, last + heartbeat_seconds - now())
