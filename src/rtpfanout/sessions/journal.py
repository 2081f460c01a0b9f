"""The use of the store: sessions and subscribers as it keeps them.

Everything is submitted under the state's lock, so that the order of the store is the order
in which things happened, and awaited without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtpfanout.boot import boot_id
from rtpfanout.model import Condition
from rtpfanout.sessions.admission import split_records
from rtpfanout.sessions.movekeys import identity_of
from rtpfanout.sessions.record import Session
from rtpfanout.sessions.refused import RefusedSession
from rtpfanout.sessions.terms import LARGEST_STORED, Terms, stored_terms
from rtpfanout.store import StoredConsent, StoredDelivery, StoredSession, writes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from concurrent.futures import Future

    from rtpfanout.model import MediaType, Rtcp
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.clock import Clock
    from rtpfanout.store import Store, StoredAnswer, Write

FOREVER_NS = LARGEST_STORED
"""Of a consent that is not over until its subscriber goes."""


class Journal:
    """What calls write. Each result is there once it is durable, or is UnavailableError."""

    def __init__(self, store: Store, changes: ChangeLog) -> None:
        self._store = store
        self._changes = changes

    def save_session(
        self, session: Session, answer: StoredAnswer | None, before: Session | None = None
    ) -> Future[int]:
        """A session that is new or has other terms than `before`.

        The counter of its move key is kept with that, also when it has another key now.
        """
        changes: list[Write] = [writes.put_session(stored(session))]
        terms = session.terms
        if before is not None and _mover(before) != _mover(session):
            changes += _counter(before.ssrc, before.terms)
        if before is None or before.terms.move_counter != terms.move_counter:
            changes += _counter(session.ssrc, terms)
        return self.submit(changes, answer)

    def note_fed(self, sequences: Sequence[int]) -> None:
        """These have had a packet. Not waited for: else a restart takes them for never fed."""
        if sequences:
            self.submit([writes.note_fed(sequences)])

    def note_followed(self, sequence: int, followed: int) -> None:
        """What its source sends now. Not waited for: else a restart follows what it did before."""
        self.submit([writes.note_followed(sequence, followed)])

    def delete_session(
        self, session: Session | RefusedSession, answer: StoredAnswer | None
    ) -> Future[int]:
        """With its subscribers; the counter of its move key stays."""
        changes: list[Write] = [writes.drop_session(session.sequence)]
        if isinstance(session, RefusedSession):
            changes += _counter(session.row.ssrc, session.row)
        else:
            changes += _counter(session.ssrc, session.terms)
        return self.submit(changes, answer)

    def forget_move_counters(self, identities: Sequence[bytes]) -> None:
        """Not waited for: what the next start finds too many of it forgets again."""
        if identities:
            self.submit([writes.drop_move_counters(identities)])

    def save_subscribers(
        self,
        session: Session,
        records: bytes,
        since: int,
        lease_ns: int,
        class_number: int,
        answer: StoredAnswer | None,
        *,
        asked: bytes = b"",
        local: bytes = b"",
        rtcp: Rtcp | None = None,
    ) -> Future[int]:
        """Those that are new or have other terms; times are nanoseconds since the epoch.

        Of `asked`, who have to consent, nothing from before counts: a `delete_subscribers` that
        nobody waited for may have failed. `local`: which of our addresses they spoke to.
        """
        changes: list[Write] = [writes.drop_subscribers(session.sequence, asked)] if asked else []
        changes.append(
            writes.put_subscribers(
                session.sequence,
                records,
                since,
                lease_ns,
                class_number,
                None if rtcp is None else rtcp.number,
            )
        )
        if local:
            each = split_records(records)
            stored = [StoredDelivery(session.sequence, record, local) for record in each]
            changes.append(writes.put_deliveries(stored))
        return self.submit(changes, answer)

    def delete_subscribers(
        self, session: Session | RefusedSession, records: bytes, answer: StoredAnswer | None
    ) -> Future[int]:
        """Those that are there."""
        changes = [writes.drop_subscribers(session.sequence, records)] if records else []
        return self.submit(changes, answer)

    def save_consents(
        self, until: Iterable[tuple[Session, bytes, float]], locals_: Sequence[StoredDelivery] = ()
    ) -> Future[int]:
        """Until when subscribers have consented, in seconds of time.monotonic().

        `locals_`: which of our addresses some of them spoke to.
        """
        consents = [
            StoredConsent(session.sequence, record, int(min(secs * 1e9, FOREVER_NS)))
            for session, record, secs in until
        ]
        changes: list[Write] = [writes.put_consents(boot_id(), consents)]
        if locals_:
            changes.append(writes.put_deliveries(locals_))
        return self.submit(changes)

    def save_interface(self, number: int, name: str) -> Future[int]:
        """Of link-local addresses that what is submitted next may have."""
        return self.submit([writes.put_interface(number, name)])

    def wait(self, written: Future[int], revision: int) -> None:
        """Until it is durable; if it fails, the change of `revision` has not happened."""
        try:
            written.result()
        except BaseException:
            self._changes.give_up(revision)
            raise

    def submit(self, changes: Sequence[Write], answer: StoredAnswer | None = None) -> Future[int]:
        """These, with the answer of the call that makes them."""
        if answer is not None:
            changes = [*changes, writes.put_answer(answer)]
        return self._store.submit(changes, self._changes.given)


def _mover(session: Session) -> tuple[int, bytes]:
    return session.ssrc, session.terms.move_key


def _counter(ssrc: int, terms: Terms | StoredSession) -> list[Write]:
    if not (terms.move_key and terms.move_counter):
        return []
    return [writes.put_move_counter(identity_of(ssrc, terms.move_key), terms.move_counter)]


def stored(session: Session) -> StoredSession:
    """As the store has it."""
    return StoredSession(
        sequence=session.sequence,
        session_id=session.session_id,
        ssrc=session.ssrc,
        media_type=session.media_type.value,
        created_ns=session.created_wall_ns,
        revision=session.revision,
        was_fed=int(session.condition is not Condition.NEVER_FED),
        followed=session.followed,
        **stored_terms(session.terms),
    )


def session_of(
    row: StoredSession, handle: int, media_type: MediaType, terms: Terms, clock: Clock
) -> Session:
    """What `stored` stored, with what was read of it."""
    now = clock.monotonic_ns()
    return Session(
        session_id=row.session_id,
        sequence=row.sequence,
        handle=handle,
        ssrc=row.ssrc,
        media_type=media_type,
        created_at=clock.moment(row.created_ns),
        created_ns=clock.monotonic_of(row.created_ns),
        created_wall_ns=row.created_ns,
        fed_since_ns=now,
        condition=Condition.FLOWING if row.was_fed else Condition.NEVER_FED,
        condition_since_ns=now if row.was_fed else clock.monotonic_of(row.created_ns),
        terms=terms,
        followed=row.followed,
        revision=row.revision,
    )
