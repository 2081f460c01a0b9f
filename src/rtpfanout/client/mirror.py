"""The current state of the sessions, made from the events of WatchSessions."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rtpfanout.api import session_pb2
from rtpfanout.model import ChangeKind

_Event = session_pb2.SessionEvent
_Sessions = dict[str, session_pb2.SessionResponse]


@dataclass(frozen=True, slots=True)
class SessionChange:
    """One session's change. `session` is as it is now or, DELETED, as it was at last;
    `previous` as the mirror knew it, None for CREATED."""

    kind: ChangeKind
    session: session_pb2.SessionResponse
    previous: session_pb2.SessionResponse | None


class SessionMirror:
    """All sessions as they are, by id, kept up to date from a watch.

        mirror = SessionMirror()
        with client.watch_sessions() as watch:
            for change in mirror.follow(watch):
                print(change.kind, change.session.session_id, len(mirror.sessions))

    A snapshot is taken aside and shown once it is whole, as the changes that it makes: the
    first as a CREATED for each session, one after a lost connection as what was missed.
    Not for use by several threads at once.
    """

    def __init__(self) -> None:
        self.synced = False
        """Whether a whole snapshot has come: before, `sessions` is empty."""
        self.revision = 0
        """Of the last event that `sessions` has in it; what to resume a watch from."""
        self._sessions: _Sessions = {}
        self._aside: _Sessions | None = None

    @property
    def sessions(self) -> Mapping[str, session_pb2.SessionResponse]:
        """A view that changes with the mirror. Its messages are not to be altered."""
        return MappingProxyType(self._sessions)

    def apply(self, event: session_pb2.SessionEvent) -> list[SessionChange]:
        """Take in one event, in the order they come; what it changed."""
        if event.type == _Event.RESET:
            self._aside = {}
            return []
        changes = self._taken_in(event)
        if self._aside is None and (event.revision or event.type == _Event.SYNCED):
            self.revision = event.revision
        return changes

    def follow(self, events: Iterable[session_pb2.SessionEvent]) -> Iterator[SessionChange]:
        """Each change, as soon as it is in `sessions`; ends with `events`."""
        for event in events:
            yield from self.apply(event)

    async def follow_async(
        self, events: AsyncIterable[session_pb2.SessionEvent]
    ) -> AsyncIterator[SessionChange]:
        """`follow` for a watch of AsyncSessionClient."""
        async for event in events:
            for change in self.apply(event):
                yield change

    def _taken_in(self, event: session_pb2.SessionEvent) -> list[SessionChange]:
        if event.type == _Event.SYNCED:
            return self._synced()
        shown = self._sessions if self._aside is None else self._aside
        id_ = event.session.session_id
        before = shown.get(id_)
        stale = before is not None and before.revision > event.session.revision
        if stale and event.type != _Event.DELETED:
            return []  # the snapshot had it later than the change that comes after it
        if event.type in (_Event.SNAPSHOT, _Event.CREATED, _Event.UPDATED):
            shown[id_] = event.session
            changes = _differences({id_: before} if before else {}, {id_: event.session})
        elif event.type == _Event.DELETED and before is not None:
            del shown[id_]
            changes = [SessionChange(ChangeKind.DELETED, event.session, before)]
        else:
            return []
        return changes if self._aside is None else []

    def _synced(self) -> list[SessionChange]:
        self.synced = True
        if self._aside is None:
            return []
        changes = _differences(self._sessions, self._aside)
        # The dictionary stays the same, so that views of it do.
        self._sessions.clear()
        self._sessions.update(self._aside)
        self._aside = None
        return changes


def _differences(before: _Sessions, after: _Sessions) -> list[SessionChange]:
    gone = [
        SessionChange(ChangeKind.DELETED, session, session)
        for id_, session in before.items()
        if id_ not in after
    ]
    new = [
        SessionChange(
            ChangeKind.UPDATED if id_ in before else ChangeKind.CREATED, session, before.get(id_)
        )
        for id_, session in after.items()
        if before.get(id_) != session
    ]
    return gone + new
