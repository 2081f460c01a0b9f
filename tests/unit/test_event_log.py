"""The log of events and a watch of it: numbers, what is not kept, where to go on."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from managers import MOMENT, SECOND, Clock

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.sessions import Begin, Event, EventKind, EventLog, Wanted, watch_events
from rtpfanout.sessions.clock import Clock as ManagersClock

HEARTBEAT_SECONDS = 0.05
TO_COME, ALL = Begin(), Wanted()


def log_of(kept: int = 5, now: int = 0) -> EventLog:
    return EventLog(
        ManagersClock(lambda: now, lambda: MOMENT + timedelta(microseconds=now // 1000)), kept
    )


def taken(log: EventLog, count: int, begin: Begin = TO_COME, wanted: Wanted = ALL) -> list[Event]:
    async def take() -> list[Event]:
        found = []
        async for event in watch_events(
            log, asyncio.Event(), begin=begin, wanted=wanted, heartbeat_seconds=HEARTBEAT_SECONDS
        ):
            found.append(event)
            if len(found) == count:
                break
        return found

    return asyncio.run(take())


@pytest.mark.parametrize("since", ["yesterday", "2026-01-02T03:04:05", "12"])
def test_a_moment_has_a_time_zone(since: str) -> None:
    with pytest.raises(InvalidArgumentError, match="RFC 3339"):
        Begin.of(None, since)
    with pytest.raises(InvalidArgumentError, match="not both"):
        Begin.of(7, "2026-01-02T03:04:05Z")


def test_numbers_begin_with_the_time() -> None:
    log = log_of()
    assert log.position == int(MOMENT.timestamp() * 1e6)
    assert [e.kind for e in log.after(0).events] == ["started"]


def test_what_is_not_kept_is_told() -> None:
    log = log_of(kept=5)
    first = log.position
    for _ in range(10):
        log.tell(EventKind.OVERLOAD)
    found, position, gap = log.after(first + 2)
    assert [e.sequence for e in found] == list(range(first + 6, first + 11))
    assert position == first + 10
    assert gap is not None
    assert (gap.kind, gap.count, gap.sequence) == ("gap", 3, first + 5)
    assert log.after(gap.sequence)[0::2] == (found, None), "from there on all are known"
    assert log.after(first + 5).gap is None
    assert log.after(0).gap is not None
    assert log.after(position) == ([], position, None)
    assert [e.sequence for e in log.after(first + 5, limit=2).events] == [first + 6, first + 7]
    assert log.after(first + 5, limit=2).position == first + 7


def test_another_run_says_so() -> None:
    before = log_of()
    before.tell(EventKind.OVERLOAD)
    later = log_of(now=60 * SECOND)
    later.tell(EventKind.OVERLOAD_OVER)
    found, position, gap = later.after(before.position)
    assert gap is not None
    assert (gap.kind, gap.count) == ("gap", 0)
    assert "began anew at 2026-01-02T03:05:05Z" in gap.detail
    assert [e.kind for e in found] == ["started", "overload_over"]
    assert position == later.position
    # The clock was set back meanwhile.
    unknown = before.after(later.position).gap
    assert unknown is not None
    assert unknown.count == 0
    assert later.after(0).gap is None


def test_from_a_moment_on() -> None:
    clock = Clock()
    log = EventLog(
        ManagersClock(clock, lambda: MOMENT + timedelta(microseconds=clock.now // 1000)), 3
    )
    began = log.now()
    kinds = [EventKind.OVERLOAD, EventKind.OVERLOAD_OVER]
    for kind in kinds:
        clock.now += 10 * SECOND
        log.tell(kind)
    for seconds, expected in ((0, 3), (1, 2), (10, 2), (11, 1), (20, 1), (21, 0)):
        position = log.since(began + timedelta(seconds=seconds))
        found, _, gap = log.after(position)
        assert len(found) == expected
        assert gap is None
    gap = log.after(log.since(began - timedelta(seconds=1))).gap
    assert gap is not None
    assert gap.count == 0
    log.tell(EventKind.OVERLOAD)
    gap = log.after(log.since(began)).gap
    assert gap is not None
    assert gap.count == 1
    assert log.after(log.since(began + timedelta(seconds=1))).gap is None


def test_a_watch_begins_with_where_it_is() -> None:
    log = log_of()
    (only,) = taken(log, 1)
    assert (only.kind, only.sequence) == ("heartbeat", log.position)
    assert [e.kind for e in taken(log, 3, Begin(0))] == ["started", "heartbeat", "heartbeat"]
    assert taken(log, 3)[0].kind == "heartbeat"
    log.tell(EventKind.OVERLOAD)
    nobodys = Wanted.of("v=a", "", ())
    (only,) = taken(log, 1, Begin(0), nobodys)
    assert (only.kind, only.sequence) == ("heartbeat", log.position)


def test_a_watch_is_woken_and_ends() -> None:
    log = log_of(kept=100)

    async def run() -> list[str]:
        stopping = asyncio.Event()
        found = []
        async for event in watch_events(log, stopping, heartbeat_seconds=1000):
            found.append(str(event.kind))
            if len(found) == 1:
                asyncio.get_running_loop().run_in_executor(None, log.tell, EventKind.OVERLOAD)
            elif len(found) == 2:
                stopping.set()
        assert not log._listeners
        return found

    assert asyncio.run(asyncio.wait_for(run(), 30)) == ["heartbeat", "overload"]


def test_who_does_not_keep_up_is_told() -> None:
    log = log_of(kept=5)

    async def run() -> list[tuple[str, int]]:
        found = []
        async for event in watch_events(log, asyncio.Event(), heartbeat_seconds=1000):
            found.append((str(event.kind), event.count))
            if len(found) == 1:
                for _ in range(8):
                    log.tell(EventKind.OVERLOAD)
            if len(found) == 7:
                break
        return found

    found = asyncio.run(run())
    assert found == [("heartbeat", 1), ("gap", 3), *[("overload", 1)] * 5]
