"""A watch without gRPC: snapshot, changes, where it goes on, heartbeats, its end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from managers import SOURCE, Clock, engine_of, manager_of

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.model import ChangeKind
from rtpfanout.sessions import ChangeLog, EventType, WatchEvent, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.sessions import SessionManager, SessionView

RESET, SNAPSHOT, SYNCED, CREATED, UPDATED, DELETED, HEARTBEAT = EventType
HARDLY_A_WAIT = 0.01


@pytest.fixture
def manager() -> Iterator[SessionManager]:
    with engine_of() as engine:
        yield manager_of(engine, Clock())


class Watcher:
    """Reads one watch, event by event, in a loop of its own."""

    def __init__(self, manager: SessionManager, page_of: Any = None, **options: Any) -> None:
        self._stopping = asyncio.Event()
        page_of = page_of or manager.list_page
        options = {"heartbeat_seconds": 30.0} | options
        self._events = watch(manager.changes, page_of, self._stopping, **options)

    async def read(self, count: int) -> list[WatchEvent]:
        async with asyncio.timeout(30):
            return [await anext(self._events) for _ in range(count)]

    async def rest(self) -> list[WatchEvent]:
        self._stopping.set()
        async with asyncio.timeout(30):
            return [event async for event in self._events]


def types(events: list[WatchEvent]) -> list[EventType]:
    return [event.type for event in events]


def ssrcs(events: list[WatchEvent]) -> list[int]:
    return [event.view.ssrc for event in events if event.view]


def test_a_snapshot_then_every_change(manager: SessionManager) -> None:
    one, two = (manager.create(SOURCE, ssrc, "video") for ssrc in (1, 2))

    async def run() -> None:
        watcher = Watcher(manager)
        events = await watcher.read(4)
        assert types(events) == [RESET, SNAPSHOT, SNAPSHOT, SYNCED]
        assert [event.view for event in events[1:3]] == [one, two]
        assert [event.revision for event in events] == [0, 0, 0, manager.changes.revision]
        updated = manager.update(one.session_id, paused=True)
        manager.delete(two.session_id)
        created = manager.create(SOURCE, 3, "video")
        events = await watcher.read(3)
        assert types(events) == [UPDATED, DELETED, CREATED]
        assert [events[0].view, events[2].view] == [updated, created]
        assert [events[0].revision, events[2].revision] == [updated.revision, created.revision]
        assert await watcher.rest() == []

    asyncio.run(run())


def test_it_goes_on_after_a_revision(manager: SessionManager) -> None:
    start = manager.create(SOURCE, 1, "video").revision
    for ssrc in (2, 3, 4):
        manager.create(SOURCE, ssrc, "video")

    async def run() -> None:
        events = await Watcher(manager, after_revision=start).read(3)
        assert types(events) == [CREATED] * 3
        assert ssrcs(events) == [2, 3, 4]
        events = await Watcher(manager, after_revision=events[1].revision).read(1)
        assert ssrcs(events) == [4]

    asyncio.run(run())


@pytest.mark.parametrize("after", [1, 2**60])
def test_what_is_not_known_begins_with_a_snapshot(manager: SessionManager, after: int) -> None:
    manager.create(SOURCE, 1, "video")

    async def run() -> None:
        events = await Watcher(manager, after_revision=after).read(3)
        assert types(events) == [RESET, SNAPSHOT, SYNCED]

    asyncio.run(run())


def test_who_is_too_slow_begins_with_a_snapshot(manager: SessionManager) -> None:
    """The log is bounded, and so nobody who doesn't read fills the memory."""
    manager.changes = ChangeLog(manager.changes.revision, kept=2)
    changes = manager.changes
    view = manager.create(SOURCE, 1, "video")

    async def run() -> None:
        watcher = Watcher(manager)
        assert types(await watcher.read(3)) == [RESET, SNAPSHOT, SYNCED]
        for _ in range(3):
            revision = changes.begin()
            changes.show(revision, ChangeKind.UPDATED, view, {})
        events = await watcher.read(3)
        assert types(events) == [RESET, SNAPSHOT, SYNCED]
        assert events[-1].revision == changes.revision

    asyncio.run(run())


def test_what_changes_amid_a_snapshot_follows_it(manager: SessionManager) -> None:
    """The second page is asked for when a session of the first has changed."""
    one, two = (manager.create(SOURCE, ssrc, "video").session_id for ssrc in (1, 2))

    def page_of(_limit: int, cursor: str, selector: str) -> tuple[list[SessionView], str]:
        if cursor:
            manager.delete(one)
        return manager.list_page(1, cursor, selector)

    async def run() -> None:
        events = await Watcher(manager, page_of).read(5)
        assert types(events) == [RESET, SNAPSHOT, SNAPSHOT, SYNCED, DELETED]
        assert [e.view.session_id for e in events if e.view] == [one, two, one]

    asyncio.run(run())


def test_labels_say_which_sessions_there_are(manager: SessionManager) -> None:
    mine = manager.create(SOURCE, 1, "video", labels={"v": "7"}).session_id
    other = manager.create(SOURCE, 2, "video", labels={"v": "8"}).session_id

    async def run() -> None:
        watcher = Watcher(manager, label_selector="v=7")
        assert ssrcs(await watcher.read(3)) == [1]
        manager.update(other, labels={"v": "7"})
        manager.update(mine, labels={"v": "8"})
        manager.update(mine, paused=True)  # nothing that it sees
        manager.delete(other)
        events = await watcher.read(3)
        assert types(events) == [CREATED, DELETED, DELETED]
        assert ssrcs(events) == [2, 1, 2]
        assert events[1].view
        assert events[1].view.labels == {"v": "7"}

    asyncio.run(run())


def test_a_selector_that_is_none_is_refused(manager: SessionManager) -> None:
    async def run() -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            await Watcher(manager, label_selector="x").read(1)
        assert caught.value.field == "label_selector"

    asyncio.run(run())


def test_heartbeats_tell_where_to_go_on(manager: SessionManager) -> None:
    async def run() -> None:
        watcher = Watcher(manager, label_selector="v=7", heartbeat_seconds=HARDLY_A_WAIT)
        synced = (await watcher.read(2))[-1]
        manager.create(SOURCE, 1, "video")
        async with asyncio.timeout(30):
            beat = (await watcher.read(1))[0]
            while beat.revision == synced.revision:  # it came before the session
                beat = (await watcher.read(1))[0]
        assert beat == WatchEvent(HEARTBEAT, manager.changes.revision)

    asyncio.run(run())


def test_it_ends_amid_a_snapshot(manager: SessionManager) -> None:
    for ssrc in range(3):
        manager.create(SOURCE, ssrc, "video")

    async def run() -> None:
        watcher = Watcher(manager)
        await watcher.read(2)
        assert await watcher.rest() == []

    asyncio.run(run())


def test_it_ends_while_nothing_happens(manager: SessionManager) -> None:
    async def run() -> None:
        watcher = Watcher(manager)
        await watcher.read(2)
        waiting = asyncio.create_task(watcher.read(1))
        await asyncio.sleep(0)
        watcher._stopping.set()
        with pytest.raises(StopAsyncIteration):
            await waiting

    asyncio.run(run())


def test_who_goes_leaves_nothing_behind(manager: SessionManager) -> None:
    changes = manager.changes

    async def run() -> None:
        new = watch(changes, manager.list_page, asyncio.Event(), heartbeat_seconds=30)
        async with aclosing(new) as events:
            await anext(events)
            assert changes._listeners
        assert not changes._listeners

    asyncio.run(run())
