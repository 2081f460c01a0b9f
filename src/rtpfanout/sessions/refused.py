"""A session that the store has and today's configuration refuses: kept, without a packet.

It can't be in the engine, as it has no source that may be admitted, or no room: here it is with its
subscribers. `kept` has the calls about it; `judge` is about subscribers that are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rtpfanout.errors import RefusedError
from rtpfanout.model import SUBSCRIBER_CLASSES, SessionStatus
from rtpfanout.sessions.admission import address_of, split_records
from rtpfanout.sessions.names import title
from rtpfanout.sessions.terms import unread_terms
from rtpfanout.sessions.views import SessionStats, SessionView, SubscriberState, SubscriberView
from rtpfanout.store import unpack_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rtpfanout.sessions.clock import Clock
    from rtpfanout.store import StoredDelivery, StoredSession, SubscriberRun

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
    def name(self) -> str:
        """As a call may name it, too."""
        return self.row.name

    @property
    def subscribers(self) -> int:
        """How many it has, leases that are over among them."""
        return sum(len(split_records(run.records)) for run in self.runs)

    def error(self) -> RefusedError:
        """For calls that need it served."""
        return RefusedError(
            f"session {title(self)} is kept but refused: {self.reason}; it is served when the"
            " configuration allows it, and can be deleted",
            field="session_id",
        )

    def view(self, clock: Clock) -> SessionView:
        """What of it can be shown."""
        row = self.row
        return SessionView(
            session_id=row.session_id,
            ssrc=row.ssrc & 0xFFFFFFFF,
            media_type=row.media_type,  # type: ignore[arg-type]
            subscriber_count=self.subscribers,
            created_at=_moment(clock, row.created_ns),
            status=SessionStatus.REFUSED,
            terms=unread_terms(row),
            revision=max(0, row.revision),
            refused_reason=self.reason,
        )

    def stats(self, clock: Clock) -> SessionStats:
        """Nothing came, nothing left."""
        age = clock.monotonic_ns() - clock.monotonic_of(self.row.created_ns)
        return SessionStats(self.session_id, self.subscribers, max(0, age) / 1e9)

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
                    subscriber_class=SUBSCRIBER_CLASSES[run.subscriber_class],
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


def _moment(clock: Clock, wall_ns: int) -> datetime:
    try:
        return clock.moment(wall_ns)
    except OverflowError:
        return _NEVER


def in_order(found: Mapping[str, RefusedSession], after: int) -> Iterator[RefusedSession]:
    """By sequence, those after one."""
    yield from sorted((r for r in found.values() if r.sequence > after), key=lambda r: r.sequence)
