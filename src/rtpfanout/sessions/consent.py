"""Consent (RFC 7675): who of the sessions with consent = "echo" may get packets, until when.

The echoes themselves are datagrams; here is what follows from one. Nobody waits for the store
to have it: `keep` brings it there about once a second. So what was given in the second before a
crash is asked for anew, and all of it after the host has started again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from rtpfanout.errors import UnavailableError
from rtpfanout.model import Consent, EventKind, Withheld
from rtpfanout.sessions.deadlines import Deadlines
from rtpfanout.store import StoredDelivery

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.model import Address
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.state import State
    from rtpfanout.sessions.zones import Zones

_AWAITED = 0.0
_KEPT_AT_A_TIME = 1000  # so that the lock is held for moments, and no call waits for many


class Consents:
    """By subscriber and session until when it has consented, in seconds of time.monotonic().

    Guarded by the state's lock.
    """

    def __init__(self, state: State, engine: Engine, journal: Journal, zones: Zones) -> None:
        self.state = state
        self.engine = engine
        self.journal = journal
        self.zones = zones
        self._until: dict[bytes, dict[str, float]] = {}
        self._due: Deadlines[tuple[bytes, str]] = Deadlines()
        self._unkept: set[tuple[bytes, str]] = set()
        self._local: dict[tuple[bytes, str], bytes] = {}
        self._lapsed: set[tuple[bytes, str]] = set()

    def expect(self, session_id: str, records: Iterable[bytes]) -> None:
        """They get nothing until they consent. The lock is held."""
        new = []
        for record in records:
            if record not in self._until:
                new.append(record)
                self._until[record] = {}
            self._until[record][session_id] = _AWAITED
        self.engine.await_consent(b"".join(new), True)

    def restored(
        self, session_id: str, records: Iterable[bytes], until: Mapping[bytes, float]
    ) -> None:
        """Of those expected, who has consented already, as the store has it. The lock is held."""
        for record in records:
            if record in until:
                self._prolong(session_id, record, until[record])

    def forget(self, session_id: str, records: Iterable[bytes]) -> None:
        """They are subscribers no more, or needn't consent. The lock is held."""
        gone = []
        for record in records:
            sessions = self._until.get(record)
            if sessions is None:
                continue
            sessions.pop(session_id, None)
            self._local.pop((record, session_id), None)
            self._lapsed.discard((record, session_id))
            if not sessions:
                del self._until[record]
                gone.append(record)
        self.engine.await_consent(b"".join(gone), False)

    def lasting(self, session_id: str, records: Iterable[bytes]) -> dict[bytes, float]:
        """Of those, who has consented, and until when. The lock is held."""
        until = {record: self._until.get(record, {}).get(session_id) for record in records}
        return {record: secs for record, secs in until.items() if secs}

    def targets(self, address: Address) -> list[str]:
        """The sessions in which `address` is asked for its consent, or has given it."""
        with self.state.lock:
            return list(self._until.get(address.record, ()))

    def give(
        self, session: Session, records: Iterable[bytes], until: float, local: bytes = b""
    ) -> None:
        """They get packets until then, in seconds of time.monotonic().

        Not empty, `local` is which of our addresses they spoke to: the packets leave from there.
        """
        with self.state.lock:
            if session.terms.consent is not Consent.ECHO:
                return
            lifted = []
            for record in records:
                sessions = self._until.get(record)
                if sessions is None or session.session_id not in sessions:
                    continue
                if local:
                    self._deliver(session, record, local)
                before = sessions[session.session_id]
                if before == _AWAITED:
                    lifted.append(record)
                self._prolong(session.session_id, record, until)
                self._unkept.add((record, session.session_id))
            if lifted:
                self._withhold(session, lifted, on=False)
                self._tell_back(session, lifted)

    def lapse(self, now: float) -> int:
        """Housekeeping: withholds from those whose consent is over; how many."""
        state = self.state
        by_session: dict[Session, list[bytes]] = {}
        with state.lock:
            for record, session_id in self._due.take(int(now)):
                until = self._until.get(record, {}).get(session_id, _AWAITED)
                session = state.by_id.get(session_id)
                if session is None or until == _AWAITED or until > now:
                    continue
                self._until[record][session_id] = _AWAITED
                by_session.setdefault(session, []).append(record)
        for session, records in by_session.items():
            self._withhold(session, records, on=True)  # waits for a grace period
            with state.lock:
                state.events.tell(EventKind.SUBSCRIBER_LAPSED, session, records=records)
                self._lapsed.update((record, session.session_id) for record in records)
                state.counts["consents_lapsed"] += len(records)
                again = [
                    record
                    for record in records
                    if self._until.get(record, {}).get(session.session_id, _AWAITED) > now
                ]
                if again:  # it consented meanwhile
                    self._withhold(session, again, on=False)
                    self._tell_back(session, again)
        return sum(map(len, by_session.values()))

    def keep(self) -> int:
        """Housekeeping: the store gets what was given since; how many. Waits for it.

        What it can't take now is tried again the next time.
        """
        state = self.state
        kept = 0
        for _ in range(0, len(self._unkept), _KEPT_AT_A_TIME):
            with state.lock:
                some = list(islice(self._unkept, _KEPT_AT_A_TIME))
                self._unkept.difference_update(some)
                given = list(self._given(some))
                if not given:
                    continue
                spoken_to = list(self._spoken_to(given))
                written = self.journal.save_consents(given, spoken_to)
            try:
                written.result()
            except UnavailableError:  # the store has told of it
                with state.lock:
                    self._unkept.update(some)
                break
            kept += len(given)
        return kept

    def begin(self, session: Session, records: Sequence[bytes]) -> None:
        """All subscribers of a session have to consent from now on; waits for a grace period."""
        with self.state.lock:
            self.expect(session.session_id, records)
        self._withhold(session, records, on=True)

    def end(self, session: Session, records: Sequence[bytes]) -> None:
        """None of them has to any more."""
        with self.state.lock:
            self.forget(session.session_id, records)
        self._withhold(session, records, on=False)

    def _prolong(self, session_id: str, record: bytes, until: float) -> None:
        sessions = self._until[record]
        sessions[session_id] = max(until, sessions[session_id])
        if math.isfinite(until):
            self._due.add(math.ceil(until), (record, session_id))

    def _given(self, keys: Iterable[tuple[bytes, str]]) -> Iterator[tuple[Session, bytes, float]]:
        """What there is of them still: neither gone nor over. The lock is held."""
        for record, session_id in keys:
            session = self.state.by_id.get(session_id)
            until = self._until.get(record, {}).get(session_id, _AWAITED)
            if session is not None and until != _AWAITED:
                yield session, record, until

    def _deliver(self, session: Session, record: bytes, local: bytes) -> None:
        """Kept with the consent."""
        if self._local.get((record, session.session_id)) == local:
            return
        with contextlib.suppress(KeyError):  # deleted meanwhile
            self.engine.deliver_from(session.handle, record, local)
        self._local[record, session.session_id] = local
        self.zones.spoke_to(session.sequence, [record], local)

    def _spoken_to(self, given: Iterable[tuple[Session, bytes, float]]) -> Iterator[StoredDelivery]:
        """Of those, by the address they last spoke to. The lock is held."""
        for session, record, _until in given:
            local = self._local.get((record, session.session_id))
            if local is not None:
                yield StoredDelivery(session.sequence, record, local)

    def _tell_back(self, session: Session, records: Iterable[bytes]) -> None:
        """Those of them whose consent was over; for others it is the first. The lock is held."""
        back = [record for record in records if (record, session.session_id) in self._lapsed]
        self._lapsed.difference_update((record, session.session_id) for record in back)
        if back:
            self.state.events.tell(EventKind.SUBSCRIBER_BACK, session, records=back)

    def _withhold(self, session: Session, records: Sequence[bytes], *, on: bool) -> None:
        with contextlib.suppress(KeyError):  # deleted meanwhile
            self.engine.withhold(session.handle, b"".join(records), Withheld.CONSENT, on)
