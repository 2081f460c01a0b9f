"""A watch: a snapshot of the sessions, then every change, for as long as somebody listens.

It yields plain values, so that whatever tells of sessions (a stream of calls, a page, a log)
can use the same one. The log of changes is bounded, and each watcher reads it at its own pace:
one that doesn't keep up costs nothing. What it missed is not known any more, and it begins again
with a snapshot.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout.model import ChangeKind
from rtpfanout.sessions.fields import LARGEST_PAGE, label_selector_of
from rtpfanout.sessions.listened import wait_for, woken_by

if TYPE_CHECKING:
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.views import SessionView

    PageOf = Callable[[int, str, str], tuple[list[SessionView], str]]


class EventType(enum.Enum):
    """What an event says; the names are those of SessionEvent in session.proto."""

    RESET = "reset"
    """A snapshot begins: forget all sessions."""
    SNAPSHOT = "snapshot"
    """A session that there is."""
    SYNCED = "synced"
    """The snapshot is whole."""
    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    HEARTBEAT = "heartbeat"
    """Nothing has been said for a while, and nothing has been missed."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """What a watcher is told; `view` is there for SNAPSHOT, CREATED, UPDATED and DELETED.

    A later watch goes on after `revision`; it is 0 until a snapshot is whole.
    """

    type: EventType
    revision: int = 0
    view: SessionView | None = None
    cause: str = ""
    """Of UPDATED, as `Change` has it."""


_OF_CHANGE = {kind: EventType[kind.name] for kind in ChangeKind}


async def watch(
    changes: ChangeLog,
    page_of: PageOf,
    stopping: asyncio.Event,
    *,
    after_revision: int = 0,
    label_selector: str = "",
    heartbeat_seconds: float,
) -> AsyncIterator[WatchEvent]:
    """The events after `after_revision` until `stopping` is set; after 0 a snapshot comes first.

    `page_of` is SessionManager.list_page. `label_selector` says which sessions exist for the
    watcher, its scope included. Something is yielded every `heartbeat_seconds`. Raises
    InvalidArgumentError.
    """
    selector = label_selector_of(label_selector)
    revision = after_revision
    needs_snapshot = revision == 0
    now = asyncio.get_running_loop().time
    last = now()
    with woken_by(changes) as woken:
        while not stopping.is_set():
            woken.clear()
            read = None if needs_snapshot else changes.after(revision)
            if read is None:
                revision = changes.revision
                for event in _snapshot(page_of, label_selector, revision):
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
                    is_gone = kind is ChangeKind.DELETED
                    view = (change.view_before if is_gone else None) or change.view
                    cause = change.cause if kind is ChangeKind.UPDATED else ""
                    yield WatchEvent(_OF_CHANGE[kind], change.revision, view, cause)
                    last = now()
            if found:
                continue
            await wait_for(woken, stopping, last + heartbeat_seconds - now())
            if now() - last >= heartbeat_seconds and not woken.is_set():
                yield WatchEvent(EventType.HEARTBEAT, revision)
                last = now()


def _snapshot(page_of: PageOf, label_selector: str, revision: int) -> Iterator[WatchEvent]:
    """Page by page, so that nobody waits for it. What changes meanwhile follows as a change.

    Whoever is cut off in the middle has to begin again: revision 0 until SYNCED.
    """
    yield WatchEvent(EventType.RESET)
    cursor = ""
    while True:
        views, cursor = page_of(LARGEST_PAGE, cursor, label_selector)
        for view in views:
            yield WatchEvent(EventType.SNAPSHOT, view=view)
        if not cursor:
            break
    yield WatchEvent(EventType.SYNCED, revision)
