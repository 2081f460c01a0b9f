"""The calls about sessions that are kept and not served, and how those are served again."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import LimitError, RtpFanoutError
from rtpfanout.model import ChangeKind, EventKind
from rtpfanout.sessions.admission import split_records
from rtpfanout.sessions.cursor import CursorKind
from rtpfanout.sessions.fields import page_size
from rtpfanout.sessions.names import which
from rtpfanout.sessions.refused import in_order
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.zones import record_in_zone, scopes_of
from rtpfanout.store import renumbered_text, writes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.refused import RefusedSession
    from rtpfanout.sessions.requests import Once
    from rtpfanout.sessions.restore import Restoring
    from rtpfanout.sessions.views import SubscriberView
    from rtpfanout.store import Write

_log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False, slots=True)
class RefusedSessions(Part):
    """The calls about sessions that are kept and not served; each answers None for others."""

    journal: Journal
    changes: ChangeLog
    restoring: Callable[[], Restoring]
    """Makes one that can bring a session back."""
    _at_work: threading.Lock = field(default_factory=threading.Lock)

    def find(self, session_id: str) -> RefusedSession | None:
        """Raises InvalidArgumentError."""
        canonical = self.state.id_of(session_id)
        with self.state.lock:
            return self.state.find_refused(canonical)

    def delete(self, canonical_id: str, once: Once) -> bool:
        """Whether it was one of them. Raises UnavailableError."""
        state = self.state
        with self._at_work:
            with state.lock:
                found = state.find_refused(canonical_id)
                if found is None:
                    return False
                revision = self.changes.begin()
                written = self.journal.delete_session(found, once.answer(""))
            self.journal.wait(written, revision)
            self.ports.free(found.row.ingest_port)
            with state.lock:
                del state.refused[canonical_id]
                state.names.give_back(found.name, canonical_id)
                state.lock.notify_all()
                state.room_for_sessions = True
                state.counts["deleted"] += 1
                view = found.view(self.clock)
                self.changes.show(revision, ChangeKind.DELETED, view, view.labels)
                state.events.tell(EventKind.DELETED, view)
        return True

    def remove_subscribers(
        self, canonical_id: str, records: Sequence[bytes], once: Once
    ) -> list[bool] | None:
        """Which of them were subscribers. Raises UnavailableError."""
        state = self.state
        with self._at_work:
            with state.lock:
                found = state.find_refused(canonical_id)
                if found is None:
                    return None
                there = found.has(records)
                text = ",".join(str(i) for i, was_there in enumerate(there) if not was_there)
                gone = b"".join(r for r, was in zip(records, there, strict=True) if was)
                written = self.journal.delete_subscribers(found, gone, once.answer(text))
            written.result()
            found.remove(records)
            left = split_records(gone)
            if left:
                state.events.tell(EventKind.SUBSCRIBER_LEFT, found, records=left)
        return there

    def page(
        self, session_id: str, limit: int, cursor: str
    ) -> tuple[list[SubscriberView], str] | None:
        """See SessionManager.list_subscribers."""
        size = page_size(limit)
        after = CursorKind.SUBSCRIBERS.read(cursor)
        found = self.find(session_id)
        if found is None:
            return None
        page = found.page(self.clock, after, size + 1)
        is_last = len(page) <= size
        views = [view for _, view in page[:size]]
        return views, "" if is_last else CursorKind.SUBSCRIBERS.write(page[size - 1][0])

    def move_zones(self, changed: Mapping[int, int]) -> int:
        """Interfaces have other indexes now: so have the link-local addresses of these; how many
        sessions have some.
        """
        count = 0
        with self._at_work, self.state.lock:
            for refused in self.state.refused.values():
                if changes := _renumbered(refused, changed):
                    self.journal.submit(changes)
                    count += 1
        return count

    @property
    def wait_for_ports(self) -> bool:
        """Some have a port of their own, which another program may have, and may give up."""
        with self.state.lock:
            return any(refused.row.ingest_port for refused in self.state.refused.values())

    def serve_again(self) -> int:
        """Each that today's configuration has nothing against any more; how many."""
        state = self.state
        served = 0
        with self._at_work:
            with state.lock:
                state.room_for_sessions = False
                waiting = list(in_order(state.refused, 0))
            for refused in waiting:
                try:
                    session = self.restoring().again(refused)
                except LimitError as error:
                    refused.reason = str(error)
                    break  # nor is there room for the others
                except (RtpFanoutError, ValueError, OverflowError) as error:
                    refused.reason = str(error)
                    continue
                with state.lock:
                    del state.refused[refused.session_id]
                    state.touch(session)
                    state.events.tell(EventKind.SERVED, session)
                served += 1
                _log.info("session served again", **which(session))
        state.count("readmitted", served)
        return served


def _renumbered(refused: RefusedSession, changed: Mapping[int, int]) -> list[Write]:
    """What the store has to change, too."""
    changes: list[Write] = []
    row = refused.row
    refused.row = row._replace(
        source_text=renumbered_text(row.source_text, changed),
        pinned_source=renumbered_text(row.pinned_source, changed),
    )
    if refused.row != row:
        changes.append(writes.put_session(refused.row))
    for at, run in enumerate(refused.runs):
        if not scopes_of(run.records) & changed.keys():
            continue
        new = b"".join(record_in_zone(record, changed) for record in split_records(run.records))
        refused.runs[at] = run._replace(records=new)
        changes.append(writes.drop_subscribers(run.sequence, run.records))
        changes.append(
            writes.put_subscribers(
                run.sequence, new, run.since_ns, run.lease_ns, run.subscriber_class, run.rtcp
            )
        )
    deliveries = [
        each._replace(record=record_in_zone(each.record, changed)) for each in refused.deliveries
    ]
    if changes and deliveries:
        refused.deliveries = deliveries
        changes.append(writes.put_deliveries(deliveries))
    return changes
