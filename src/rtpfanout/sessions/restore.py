"""What the store has becomes sessions again, before the first packet is looked at.

Every entry is checked against today's policy and limits; what they refuse is dropped, from the
store too, and told in one line of the log. Leases that ended meanwhile are over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import Consent, MediaType
from rtpfanout.sessions.journal import terms_of
from rtpfanout.sessions.life import engine_add
from rtpfanout.sessions.record import Session
from rtpfanout.sessions.subscribers import RECORD_BYTES, split_records
from rtpfanout.sessions.views import CONSENT
from rtpfanout.store import DropSession, DropSubscribers

if TYPE_CHECKING:
    from rtpfanout.sessions.admission import Admission
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.deadlines import Deadlines
    from rtpfanout.sessions.registry import Registry
    from rtpfanout.sessions.subscribers import Subscribers
    from rtpfanout.store import Change, Store, StoredSession, SubscriberRun

_log = structlog.stdlib.get_logger(__name__)
_CHANGES_AT_A_TIME = 1000


@dataclass(slots=True)
class Restored:
    """How many came back, were refused, and were over."""

    sessions: int = 0
    subscribers: int = 0
    refused_sessions: int = 0
    refused_subscribers: int = 0
    expired_subscribers: int = 0
    first_reason: str = ""


class Restoring:
    """Used once, at the start, by one thread."""

    def __init__(
        self,
        registry: Registry,
        admission: Admission,
        subscribers: Subscribers,
        consents: Consents,
        leases: Deadlines[int],
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._subscribers = subscribers
        self._consents = consents
        self._leases = leases
        self._result = Restored()
        self._drops: list[Change] = []
        self._since: dict[int, int] = {}

    def run(self, store: Store) -> Restored:
        """All that the store has. Waits until what was dropped is dropped there too."""
        registry = self._registry
        registry.sequence = store.sequence
        sessions = {}
        for row in store.sessions():
            session = self._session(row)
            if session is not None:
                sessions[row.sequence] = session
        for run in store.subscribers():
            if run.sequence in sessions:
                self._run(sessions[run.sequence], run)
        for start in range(0, len(self._drops), _CHANGES_AT_A_TIME):
            store.submit(self._drops[start : start + _CHANGES_AT_A_TIME])
        result = self._result
        if result.refused_sessions or result.refused_subscribers:
            _log.warning(
                "stored sessions or subscribers are refused now, and dropped",
                sessions=result.refused_sessions,
                subscribers=result.refused_subscribers,
                first_reason=result.first_reason,
            )
        registry.counts["restore_refused"] += result.refused_sessions + result.refused_subscribers
        return result

    def _session(self, row: StoredSession) -> Session | None:
        registry = self._registry
        clock = registry.clock
        now = clock.monotonic_ns()
        try:
            terms = terms_of(row, registry.policy)
            handle = engine_add(registry, row.ssrc, terms, now)
        except (RtpFanoutError, ValueError) as error:
            self._refuse(error)
            self._result.refused_sessions += 1
            self._drops.append(DropSession(row.sequence))
            return None
        session = Session(
            session_id=row.session_id,
            sequence=row.sequence,
            handle=handle,
            ssrc=row.ssrc,
            media_type=MediaType(row.media_type),
            created_at=clock.moment(row.created_ns),
            created_ns=clock.monotonic_of(row.created_ns),
            fed_since_ns=now,
            terms=terms,
            revision=row.revision,
        )
        registry.keys.add(registry.key_of(session))
        with registry.lock:
            registry.insert(session)
        self._result.sessions += 1
        return session

    def _run(self, session: Session, run: SubscriberRun) -> None:
        registry = self._registry
        count = len(run.records) // RECORD_BYTES
        if run.lease_ns and run.lease_ns <= registry.clock.wall_ns():
            self._result.expired_subscribers += count
            self._drops.append(DropSubscribers(run.sequence, run.records))
            return
        records = self._admitted(session, run.records)
        if not records:
            return
        since = max(run.since_ns, session.last_since + 1)
        lease_ns = registry.clock.monotonic_of(run.lease_ns) if run.lease_ns else 0
        lease_until = round(lease_ns / 1e9)
        is_echo = session.terms.consent is Consent.ECHO
        registry.engine.add_packed_subscribers(
            session.handle,
            records,
            since,
            lease_until=lease_until,
            subscriber_class=run.subscriber_class,
            withheld=CONSENT if is_echo else 0,
        )
        added = len(records) // RECORD_BYTES
        session.last_since = since + added - 1
        if lease_until:
            self._leases.add(lease_until + 1, session.handle)
        with registry.lock:
            self._subscribers.count_restored(session, records)
            if is_echo:
                self._consents.expect(session.session_id, split_records(records))
        self._result.subscribers += added

    def _admitted(self, session: Session, records: bytes) -> bytes:
        """Those that today's policy, limits and the session's source leave."""
        registry = self._registry
        try:
            left = self._admission.admitted(records)
        except RtpFanoutError as error:
            self._refuse(error)
            left = b"".join(
                record for record in split_records(records) if self._admission.admits(record)
            )
        feeder = session.terms.feeder
        if feeder is not None and feeder.record in left:
            left = b"".join(r for r in split_records(left) if r != feeder.record)
        room = min(
            registry.limits.fanout - session.subscribers,
            registry.limits.subscribers - registry.total_subscribers,
        )
        left = left[: max(0, room) * RECORD_BYTES]
        if len(left) < len(records):
            kept = set(split_records(left))
            refused = [record for record in split_records(records) if record not in kept]
            self._result.refused_subscribers += len(refused)
            self._result.first_reason = self._result.first_reason or "limits"
            self._drops.append(DropSubscribers(session.sequence, b"".join(refused)))
        return left

    def _refuse(self, error: Exception) -> None:
        self._result.first_reason = self._result.first_reason or str(error)
