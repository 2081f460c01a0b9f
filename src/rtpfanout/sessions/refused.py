"""What the store has and today's configuration refuses: kept, without a packet, until it may be.

A subscriber stays in the engine with the bit REFUSED, so its lease runs on and whatever asks for it
finds it. A session can't be there, as it has no source the engine may admit, or no room: it is kept
here with its subscribers. Both are looked at again when what refused them may have changed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import LimitError, RefusedError, RtpFanoutError
from rtpfanout.model import Address, SessionStatus
from rtpfanout.sessions.admission import address_of, split_records
from rtpfanout.sessions.changes import Change, ChangeType
from rtpfanout.sessions.cursor import CursorKind
from rtpfanout.sessions.fields import page_size, session_id_of
from rtpfanout.sessions.source import refuse_loop
from rtpfanout.sessions.views import (
    CLASSES,
    REFUSED,
    SessionStats,
    SessionView,
    SubscriberState,
    SubscriberView,
)
from rtpfanout.store import unpack_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rtpfanout.sessions.clock import Clock
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.registry import Registry
    from rtpfanout.sessions.requests import Once
    from rtpfanout.sessions.restore import Restoring
    from rtpfanout.store import StoredDelivery, StoredSession, SubscriberRun

_log = structlog.stdlib.get_logger(__name__)
_MOST_TOLD = 20
"""Sessions that have a line in the log each, of those that one change concerns."""
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True, eq=False)
class RefusedSession:
    """As the store has it, which may be as no call would have it."""

    row: StoredSession
    runs: list[SubscriberRun]
    reason: str
    deliveries: Sequence[StoredDelivery] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labels = unpack_labels(self.row.labels)

    @property
    def sequence(self) -> int:
        """Its key in the store."""
        return self.row.sequence

    @property
    def session_id(self) -> str:
        """As a call names it."""
        return self.row.session_id

    @property
    def subscribers(self) -> int:
        """How many it has, leases that are over among them."""
        return sum(len(split_records(run.records)) for run in self.runs)

    def error(self) -> RefusedError:
        """For calls that need it served."""
        return RefusedError(
            f"session {self.session_id} is kept but refused: {self.reason}; it is served when the"
            " configuration allows it, and can be deleted",
            field="session_id",
        )

    def view(self, clock: Clock) -> SessionView:
        """What of it can be shown."""
        row = self.row
        return SessionView(
            session_id=row.session_id,
            source=None,
            ssrc=row.ssrc & 0xFFFFFFFF,
            media_type=row.media_type,  # type: ignore[arg-type]
            subscriber_count=self.subscribers,
            created_at=_moment(clock, row.created_ns),
            status=SessionStatus.REFUSED,
            source_policy=row.source_policy,  # type: ignore[arg-type]
            source_text=row.source_text,
            labels=self.labels,
            ingest_limit_bps=max(0, row.ingest_limit_bps),
            max_subscribers=min(max(0, row.max_subscribers), 2**31 - 1),
            consent=row.consent,  # type: ignore[arg-type]
            signed_move=bool(row.move_key),
            revision=max(0, row.revision),
            latch_window_secs=row.latch_window_secs,
            relatch_after_secs=row.relatch_after_secs,
            refused_reason=self.reason,
        )

    def stats(self, clock: Clock) -> SessionStats:
        """Nothing came, nothing left."""
        age = clock.monotonic_ns() - clock.monotonic_of(self.row.created_ns)
        return SessionStats(
            session_id=self.session_id,
            packets_received=0,
            packets_sent=0,
            bytes_received=0,
            bytes_sent=0,
            send_failures=0,
            subscriber_count=self.subscribers,
            uptime_seconds=max(0, age) / 1e9,
            packets_per_second=0.0,
            seconds_since_last_packet=None,
        )

    def page(self, clock: Clock, after: int, size: int) -> list[tuple[int, SubscriberView]]:
        """(since, subscriber) of the next ones after `after`, of those with leases."""
        now = clock.wall_ns()
        found: list[tuple[int, SubscriberView]] = []
        last = 0
        for run in self.runs:
            for record in split_records(run.records):
                last = max(run.since_ns, last + 1)
                if last <= after or (run.lease_ns and run.lease_ns <= now):
                    continue
                view = SubscriberView(
                    address=address_of(record),
                    since=_moment(clock, last),
                    packets_sent=0,
                    send_failures=0,
                    subscriber_class=CLASSES[run.subscriber_class],
                    expires_at=_moment(clock, run.lease_ns) if run.lease_ns else None,
                    state=SubscriberState.REFUSED,
                    refused_reason=self.reason,
                )
                found.append((last, view))
                if len(found) == size:
                    return found
        return found

    def has(self, records: Sequence[bytes]) -> list[bool]:
        """Which of them are subscribers; the second of two alike is none."""
        there = {record for run in self.runs for record in split_records(run.records)}
        found = []
        for record in records:
            found.append(record in there)
            there.discard(record)
        return found

    def remove(self, records: Sequence[bytes]) -> None:
        """They are subscribers no more."""
        gone = set(records)
        left = [
            run._replace(records=b"".join(r for r in split_records(run.records) if r not in gone))
            for run in self.runs
        ]
        self.runs = [run for run in left if run.records]


class RefusedSessions:
    """The calls about sessions that are kept and not served; each answers None for others."""

    def __init__(self, registry: Registry, restoring: Callable[[], Restoring]) -> None:
        """`restoring` makes one that can bring a session back."""
        self._registry = registry
        self._restoring = restoring
        self._at_work = threading.Lock()

    def find(self, session_id: str) -> RefusedSession | None:
        """Raises InvalidArgumentError."""
        canonical = session_id_of(session_id)
        with self._registry.lock:
            return self._registry.find_refused(canonical)

    def delete(self, canonical_id: str, once: Once) -> bool:
        """Whether it was one of them. Raises UnavailableError."""
        registry = self._registry
        with self._at_work:
            with registry.lock:
                found = registry.find_refused(canonical_id)
                if found is None:
                    return False
                slot = registry.changes.begin()
                written = registry.journal.delete_session(found, once.answer(""))
            try:
                written.result()
            except BaseException:
                with registry.lock:
                    registry.changes.settle(slot, None)
                raise
            with registry.lock:
                del registry.refused[canonical_id]
                registry.room_for_sessions = True
                registry.counts["deleted"] += 1
                view = found.view(registry.clock)
                change = Change(slot.revision, ChangeType.DELETED, view, view.labels)
                registry.changes.settle(slot, change)
        return True

    def remove_subscribers(
        self, canonical_id: str, records: Sequence[bytes], once: Once
    ) -> list[bool] | None:
        """Which of them were subscribers. Raises UnavailableError."""
        registry = self._registry
        with self._at_work:
            with registry.lock:
                found = registry.find_refused(canonical_id)
                if found is None:
                    return None
                there = found.has(records)
                text = ",".join(str(i) for i, was_there in enumerate(there) if not was_there)
                gone = b"".join(r for r, was in zip(records, there, strict=True) if was)
                written = registry.journal.delete_subscribers(found, gone, once.answer(text))
            written.result()
            found.remove(records)
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
        page = found.page(self._registry.clock, after, size + 1)
        is_last = len(page) <= size
        views = [view for _, view in page[:size]]
        return views, "" if is_last else CursorKind.SUBSCRIBERS.write(page[size - 1][0])

    def serve_again(self) -> int:
        """Each that today's configuration has nothing against any more; how many."""
        registry = self._registry
        served = 0
        with self._at_work:
            with registry.lock:
                registry.room_for_sessions = False
                waiting = list(in_order(registry.refused, 0))
            for refused in waiting:
                try:
                    session = self._restoring().again(refused)
                except LimitError as error:
                    refused.reason = str(error)
                    break  # nor is there room for the others
                except (RtpFanoutError, ValueError, OverflowError) as error:
                    refused.reason = str(error)
                    continue
                with registry.lock:
                    del registry.refused[refused.session_id]
                    registry.touch(session)
                served += 1
                _log.info("session served again", session_id=session.session_id)
        registry.count("readmitted", served)
        return served


def _moment(clock: Clock, wall_ns: int) -> datetime:
    try:
        return clock.moment(wall_ns)
    except OverflowError:
        return _NEVER


class Judge:
    """Which subscribers are refused, when that may have changed. Any thread may use it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def all(self, *, only_refused: bool = False) -> tuple[int, int]:
        """How many are refused now, and how many aren't any more; about 0.4 us for each there is.

        When it returns no more packets leave to those that are refused.
        """
        registry = self._registry
        with registry.lock:
            sessions = [s for s in registry.in_order if s.refused or not only_refused]
        return self.some(sessions)

    def some(self, sessions: Sequence[Session]) -> tuple[int, int]:
        """The same of these."""
        withheld = served = told = 0
        for session in sessions:
            try:
                on, off, reason = self._one(session)
            except KeyError:  # deleted meanwhile
                continue
            withheld += on
            served += off
            if (on or off) and told < _MOST_TOLD:
                told += 1
                self._tell(session, on, off, reason)
        if told == _MOST_TOLD:
            _log.warning(
                "subscribers are refused, or not any more, in many sessions",
                withheld=withheld,
                served_again=served,
            )
        self._registry.count("refused", withheld)
        self._registry.count("readmitted", served)
        return withheld, served

    def _one(self, session: Session) -> tuple[int, int, str]:
        registry = self._registry
        engine, handle = registry.engine, session.handle
        records = engine.subscriber_records(handle)
        left, reason = registry.admission.divide(records)
        before = engine.withheld_records(handle, REFUSED) if session.refused else b""
        if not reason and not before:
            return 0, 0, ""
        feeder = session.terms.feeder
        denied = set() if not reason else set(split_records(records)) - set(split_records(left))
        if feeder is not None and feeder.record in split_records(before):
            denied.add(feeder.record)
        known = split_records(before)
        on = sorted(denied.difference(known))
        if on:
            engine.withhold(handle, b"".join(on), REFUSED, True)  # waits for a grace period
        with registry.lock:
            registry.recount_refused(session)
            off = [record for record in known if record not in denied]
            off = off[: registry.room_to_serve(session)]
            if off:
                engine.withhold(handle, b"".join(off), REFUSED, False)
                registry.recount_refused(session)
            if on or off:
                registry.touch(session)
        return len(on), len(off), reason

    def _tell(self, session: Session, on: int, off: int, reason: str) -> None:
        if on:
            _log.warning(
                "subscribers withheld: they are refused now, and kept",
                session_id=session.session_id,
                count=on,
                first_reason=reason,
            )
        if off:
            _log.info(
                "subscribers served again: they are not refused any more",
                session_id=session.session_id,
                count=off,
            )


def refusal_of(registry: Registry, session: Session, address: Address) -> str:
    """Why a subscriber with the bit REFUSED has it."""
    if session.terms.feeder == address:
        try:
            refuse_loop(address, "")
        except Exception as error:
            return str(error)
    return registry.admission.refusal(address.record) or (
        "is beyond max_fanout_per_session or limits.max_subscribers; raise them, or remove others"
    )


def in_order(found: Mapping[str, RefusedSession], after: int) -> Iterator[RefusedSession]:
    """By sequence, those after one."""
    yield from sorted((r for r in found.values() if r.sequence > after), key=lambda r: r.sequence)
