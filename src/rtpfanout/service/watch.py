"""WatchSessions: a snapshot, then every change, for as long as the caller listens.

The log of changes is bounded and each watcher reads it at its own pace, so one that doesn't keep
up costs nothing: what it missed is not known any more, and it begins again with a snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from rtpfanout import convert
from rtpfanout.api.session_pb2 import SessionEvent
from rtpfanout.sessions import LARGEST_PAGE, ChangeType, label_selector_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from rtpfanout.sessions import ChangeLog, SessionManager

HEARTBEAT_SECONDS = 10.0

_TYPES = {
    ChangeType.CREATED: SessionEvent.CREATED,
    ChangeType.UPDATED: SessionEvent.UPDATED,
    ChangeType.DELETED: SessionEvent.DELETED,
}


async def session_events(
    manager: SessionManager, after_revision: int, label_selector: str, stopping: asyncio.Event
) -> AsyncIterator[SessionEvent]:
    """The events of a watcher, until `stopping` is set. Raises InvalidArgumentError."""
    selector = label_selector_of(label_selector)
    changes = manager.changes
    revision = after_revision
    needs_snapshot = revision == 0
    now = asyncio.get_running_loop().time
    last = now()
    with _woken(changes) as woken:
        while not stopping.is_set():
            woken.clear()
            read = None if needs_snapshot else changes.after(revision)
            if read is None:
                revision = changes.revision
                for event in _snapshot(manager, label_selector, revision):
                    yield event
                    if stopping.is_set():
                        return
                last = now()
                needs_snapshot = False
                continue
            found, revision = read
            for change in found:
                kind = change.seen_by(selector)
                if kind is not None:
                    is_gone = kind is ChangeType.DELETED
                    view = (change.view_before if is_gone else None) or change.view
                    yield convert.session_event(_TYPES[kind], change.revision, view)
                    last = now()
            if found:
                continue
            await _wait(woken, stopping, last + HEARTBEAT_SECONDS - now())
            if now() - last >= HEARTBEAT_SECONDS and not woken.is_set():
                yield convert.session_event(SessionEvent.HEARTBEAT, revision)
                last = now()


def _snapshot(
    manager: SessionManager, label_selector: str, revision: int
) -> Iterator[SessionEvent]:
    """Page by page, so that nobody waits for it. What changes meanwhile follows as a change.

    Whoever is cut off in the middle has to begin again: revision 0 until SYNCED.
    """
    yield convert.session_event(SessionEvent.RESET, 0)
    cursor = ""
    while True:
        views, cursor = manager.list_page(LARGEST_PAGE, cursor, label_selector)
        for view in views:
            yield convert.session_event(SessionEvent.SNAPSHOT, 0, view)
        if not cursor:
            break
    yield convert.session_event(SessionEvent.SYNCED, revision)


@contextlib.contextmanager
def _woken(changes: ChangeLog) -> Iterator[asyncio.Event]:
    """An event that is set when something can be read."""
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        if not woken.is_set():  # at worst it is set once more than needed
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(woken.set)

    changes.listen(wake)
    try:
        yield woken
    finally:
        changes.unlisten(wake)


async def _wait(woken: asyncio.Event, stopping: asyncio.Event, seconds: float) -> None:
    """Until one of them is set, or it took too long."""
    tasks = [asyncio.ensure_future(event.wait()) for event in (woken, stopping)]
    try:
        await asyncio.wait(tasks, timeout=max(0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
