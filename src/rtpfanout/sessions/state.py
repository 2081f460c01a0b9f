"""What there is: the sessions and their indexes, the totals, and who is at work on which."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from rtpfanout.errors import AlreadyExistsError, NotFoundError, UnknownNameError
from rtpfanout.model import SESSION_ID, Withheld, shown
from rtpfanout.sessions.admission import RECORD_BYTES
from rtpfanout.sessions.events import EventLog
from rtpfanout.sessions.fields import matches, session_of
from rtpfanout.sessions.movekeys import MoveKeys
from rtpfanout.sessions.names import Names
from rtpfanout.sessions.views import SourceSsrc, view_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set

    from rtpfanout._fastpath import Engine
    from rtpfanout.ingest_ports import IngestPorts
    from rtpfanout.model import Pairs
    from rtpfanout.sessions.clock import Clock
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.refused import RefusedSession
    from rtpfanout.sessions.rules import Limits, Rules
    from rtpfanout.sessions.terms import SessionKey
    from rtpfanout.sessions.views import SessionView

BY_SEQUENCE = attrgetter("sequence")
_IP_BYTES = 16


SCOPE: ContextVar[Pairs] = ContextVar("rtpfanout_scope", default=())
"""Labels that a session must have to exist for the call that is being carried out; none where the
server itself is at work.

Set by whoever takes calls, once it knows the caller, and looked at under the lock. So each call
answers for a foreign session as for none, in the same words and at the same point of its checks,
also when labels change meanwhile."""


class BusyError(Exception):
    """Somebody is at work, perhaps waiting for a disk that hangs."""


class State:
    """The sessions and their indexes. `lock` guards all of it and is held for moments only:

    never while the store or a grace period is awaited. Whoever needs a session to stay as it
    is meanwhile does its `work` on it.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self.events = EventLog(clock)
        self.lock = threading.Condition()
        self.by_id: dict[str, Session] = {}
        self.by_handle: dict[int, Session] = {}
        self.by_ssrc: dict[int, set[Session]] = {}
        self.in_order: list[Session] = []  # by sequence, which only grows
        self.keys: dict[SessionKey, str] = {}
        """Of which session each is, or is about to be, or is not quite free of."""
        self.names = Names()
        self.move_keys = MoveKeys()
        self.sequence = 0
        self.total_subscribers = 0
        self.per_ip: Counter[bytes] = Counter()  # only with limits.subscribers_per_ip
        self.relays: dict[bytes, bytes] = {}
        """Records of sockets of ours that hand copies on, and the IP address of who gets them. The
        address policy does not judge them."""
        self.counts: Counter[str] = Counter()
        self._touched: dict[Session, None] = {}
        self.awaited: set[int] = set()
        """Handles of sessions that were fed before a restart, and not since."""
        self.latches: dict[int, float] = {}
        """Handles of those that wait for a first packet, and until when; seconds of wall_secs."""
        self.refused: dict[str, RefusedSession] = {}
        self.refused_subscribers = 0
        """In the engine, but without a packet."""
        self.has_room = False
        """Whether a subscriber who is refused may be served since that was looked at."""
        self.room_for_sessions = False

    def id_of(self, session_id: str) -> str:
        """Of the session that a request names so, by its id or its name.

        Raises InvalidArgumentError; UnknownNameError: also for what is not in the caller's SCOPE.
        """
        said = session_of(session_id)
        if SESSION_ID.fullmatch(said):
            return said
        with self.lock:
            found = self.named(said)
            if found is None or not matches(found.labels, SCOPE.get()):
                raise UnknownNameError(
                    f"{shown(said)} is not a UUID, nor the name of a session", field="session_id"
                )
            return found.session_id

    def named(self, name: str) -> Session | RefusedSession | None:
        """The session that has this name by now. The lock is held."""
        holder = self.names.holder(name) or ""
        found = self.by_id.get(holder) or self.refused.get(holder)
        return found if found and found.name == name else None

    def check_name(self, name: str, session_id: str) -> None:
        """That this session may take it. Raises AlreadyExistsError. The lock is held."""
        if self.names.holder(name) not in (None, session_id):
            raise self.name_taken(name)

    def name_taken(self, name: str) -> AlreadyExistsError:
        """To be raised. Which session has it learns who may know. The lock is held."""
        holder = self.named(name)
        if holder is None or not matches(holder.labels, SCOPE.get()):
            message = f"the name {shown(name)} is taken; give another"
            return AlreadyExistsError(message, field="name")
        return AlreadyExistsError(
            f"session {holder.session_id} has the name {shown(name)}; give another, or ask for the"
            ' one that is there by if_exists "return" (--if-exists return)',
            field="name",
            session_id=holder.session_id,
        )

    def holder_of(self, key: SessionKey) -> str:
        """Which session has it, for who may know, else "". The lock is held."""
        holder = self.by_id.get(self.keys.get(key, ""))
        if holder is None or not matches(holder.labels, SCOPE.get()):
            return ""
        return f"session {holder.session_id}" + (f" ({holder.name})" if holder.name else "")

    @contextmanager
    def found(self, session_id: str) -> Iterator[Session]:
        """The session under the lock. Raises as `id_of`, NotFoundError, RefusedError."""
        canonical = self.id_of(session_id)
        with self.lock:
            yield self.find(canonical)

    def find(self, canonical_id: str) -> Session:
        """The lock is held. Raises NotFoundError: also for what is not in the caller's SCOPE;
        RefusedError.
        """
        session = self.by_id.get(canonical_id)
        if refused := self.find_refused(canonical_id):
            raise refused.error()
        if session is None or not matches(session.terms.labels, SCOPE.get()):
            raise NotFoundError(f"no session {canonical_id}", field="session_id")
        return session

    def find_refused(self, canonical_id: str) -> RefusedSession | None:
        """A session that is kept and not served. The lock is held."""
        refused = self.refused.get(canonical_id)
        return refused if refused and matches(refused.labels, SCOPE.get()) else None

    @contextmanager
    def work(
        self, session_id: str, records: Set[bytes] | None = None, *, wait: bool = True
    ) -> Iterator[Session]:
        """The session, for a call that changes it, without the lock.

        With the `records` of subscribers, other calls may change other subscribers meanwhile;
        without, nobody else changes anything. Waits for those who are at work and are in
        the way, or without `wait` raises BusyError; a call that wants the session for itself
        goes before those that came after.
        Raises InvalidArgumentError, NotFoundError (also when it was deleted meanwhile).
        """
        canonical = self.id_of(session_id)
        with self.lock:
            session = self._enter(canonical, records, wait=wait)
        try:
            yield session
        finally:
            with self.lock:
                if records is None:
                    session.exclusive = False
                else:
                    session.shared -= 1
                    session.claimed -= records
                self.lock.notify_all()

    def _enter(self, canonical_id: str, records: Set[bytes] | None, *, wait: bool) -> Session:
        if records is None:
            session = self.find(canonical_id)
            if not wait and (session.exclusive or session.shared):
                raise BusyError
            session.waiting += 1
            try:
                while session.exclusive or session.shared:
                    self.lock.wait()
                session = self.find(canonical_id)
            finally:
                session.waiting -= 1
            session.exclusive = True
            return session
        while True:
            session = self.find(canonical_id)
            if not (session.exclusive or session.waiting or session.claimed & records):
                session.shared += 1
                session.claimed |= records
                return session
            if not wait:
                raise BusyError
            self.lock.wait()

    def insert(self, session: Session) -> None:
        """Calls find it from here on. The lock is held."""
        if (timeout := session.terms.idle_timeout_ns) is not None:
            self._engine.set_idle_timeout(session.handle, timeout)
        self.by_id[session.session_id] = session
        self.by_handle[session.handle] = session
        self.by_ssrc.setdefault(session.ssrc, set()).add(session)
        bisect.insort(self.in_order, session, key=BY_SEQUENCE)
        self.note_latch(session)
        self.lock.notify_all()

    def note_latch(self, session: Session) -> None:
        """It is new, or has other terms. The lock is held."""
        until = session.terms.waits_until
        if until > self._clock.wall_secs():
            self.latches[session.handle] = until
        else:
            self.latches.pop(session.handle, None)

    def _leave_ssrc(self, session: Session) -> None:
        same_ssrc = self.by_ssrc[session.ssrc]
        same_ssrc.remove(session)
        if not same_ssrc:
            del self.by_ssrc[session.ssrc]

    def renumber(self, session: Session, ssrc: int) -> None:
        """Its SSRC is that. The lock is held."""
        self._leave_ssrc(session)
        session.ssrc = ssrc
        self.by_ssrc.setdefault(ssrc, set()).add(session)

    def forget(self, session: Session) -> None:
        """No call finds it from here on, but its key is taken still. The lock is held."""
        del self.by_id[session.session_id]
        del self.by_handle[session.handle]
        self._leave_ssrc(session)
        del self.in_order[bisect.bisect_left(self.in_order, session.sequence, key=BY_SEQUENCE)]
        self.total_subscribers -= session.subscribers
        self.refused_subscribers -= session.refused
        session.refused = 0
        self.has_room = self.room_for_sessions = True
        self._touched.pop(session, None)
        self.awaited.discard(session.handle)
        self.latches.pop(session.handle, None)

    def recount_refused(self, session: Session) -> None:
        """After a change. The lock is held."""
        if self.by_id.get(session.session_id) is session:
            records = self._engine.withheld_records(session.handle, Withheld.REFUSED)
            number = len(records) // RECORD_BYTES
            self.refused_subscribers += number - session.refused
            session.refused = number

    def made_room(self, session: Session) -> None:
        """Some of its subscribers have gone, perhaps refused ones. The lock is held."""
        self.has_room = True
        if session.refused:
            self.recount_refused(session)

    def room_to_serve(self, session: Session, limits: Limits) -> int:
        """How many of its refused subscribers fit into the limits. The lock is held."""
        served = session.subscribers - session.refused
        served_in_all = self.total_subscribers - self.refused_subscribers
        return max(0, min(limits.fanout - served, limits.subscribers - served_in_all))

    def view(self, session: Session) -> SessionView:
        """As it is now. The lock is held, or nobody else has the session yet."""
        now = self._clock.monotonic_ns()
        return self.view_at(session, self._engine.session_stats(session.handle, now), now)

    def view_at(self, session: Session, values: Mapping[str, float], now_ns: int) -> SessionView:
        """`values` are the engine's session_stats at `now_ns`."""
        clock = self._clock
        since = clock.moment(clock.wall_ns(session.condition_since_ns))
        return view_of(session, values, now_ns, since, self.ssrcs(session))

    def ssrcs(self, session: Session) -> tuple[SourceSsrc, ...]:
        """What its source sends, where that is not fixed. The lock is held."""
        if not session.terms.any_ssrc:
            return ()
        clock = self._clock
        return tuple(
            SourceSsrc(ssrc, clock.moment(clock.wall_ns(since)), payload_type)
            for ssrc, payload_type, since, _ in self._engine.session_ssrcs(session.handle)
        )

    def count(self, what: str, number: int = 1) -> None:
        """Adds to `counts`; the lock is not held."""
        with self.lock:
            self.counts[what] += number

    def touch(self, session: Session) -> None:
        """Its subscribers changed; the lock is held."""
        if self.by_id.get(session.session_id) is session:
            self._touched[session] = None

    def ip_of(self, record: bytes) -> bytes:
        """Of who gets the copies of a subscriber."""
        return self.relays.get(record) or record[:_IP_BYTES]

    def take_touched(self, most: int) -> list[Session]:
        """Some of those whose subscribers changed, however often; the lock is held."""
        some = list(islice(self._touched, most))
        for session in some:
            del self._touched[session]
        return some


@dataclass(eq=False, slots=True)
class Part:
    """What each part of the sessions' management works on."""

    state: State
    engine: Engine
    clock: Clock
    rules: Rules
    ports: IngestPorts
