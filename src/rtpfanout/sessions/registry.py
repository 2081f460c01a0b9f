"""What all calls share: the sessions, the totals, who is at work on which, and the clock."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING

from rtpfanout.errors import NotFoundError
from rtpfanout.overload import HighWater
from rtpfanout.overload import Limits as OverloadLimits
from rtpfanout.sessions.admission import Admission
from rtpfanout.sessions.changes import Change, ChangeType
from rtpfanout.sessions.fields import matches, session_id_of
from rtpfanout.sessions.scope import SCOPE
from rtpfanout.sessions.views import view_of
from rtpfanout.sessions.zones import Zones

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Set

    from rtpfanout._fastpath import Engine
    from rtpfanout.policy import AddressPolicy
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.source import Key
    from rtpfanout.sessions.views import SessionView

BY_SEQUENCE = attrgetter("sequence")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many there may be. `sessions` and `fanout` are the engine's too."""

    sessions: int
    fanout: int
    """Subscribers of one session."""
    subscribers: int = 10_000_000
    subscribers_per_ip: int = 0
    """Subscriptions of one IP address, in all sessions; 0: any number."""
    session_timeout_ns: int = 0
    """0: never."""
    overload: OverloadLimits = field(default_factory=OverloadLimits)
    """While one of its marks is passed nobody new is taken."""
    shed: bool = True
    """Whether subscribers are shed where packets of their session had to be dropped."""


class BusyError(Exception):
    """Somebody is at work, perhaps waiting for a disk that hangs."""


class Clock:
    """Monotonic time, and the wall clock's as it was at the start plus what passed since.

    So a stepped wall clock moves no deadline, and two looks never tell two times.
    """

    def __init__(self, monotonic_ns: Callable[[], int], utc_now: Callable[[], datetime]) -> None:
        self.monotonic_ns = monotonic_ns
        self.utc_now = utc_now
        self._offset_ns = (utc_now() - _EPOCH) // timedelta(microseconds=1) * 1000 - monotonic_ns()

    def wall_ns(self, monotonic_ns: int | None = None) -> int:
        """Nanoseconds since the epoch, now or at a monotonic time."""
        return self._offset_ns + (self.monotonic_ns() if monotonic_ns is None else monotonic_ns)

    def wall_secs(self) -> float:
        """Seconds since the epoch."""
        return self.wall_ns() / 1e9

    def monotonic_of(self, wall_ns: int) -> int:
        """The monotonic time of a wall clock's; may be negative, before the host's start."""
        return wall_ns - self._offset_ns

    def moment(self, wall_ns: int) -> datetime:
        """As a datetime in UTC."""
        return _EPOCH + timedelta(microseconds=wall_ns // 1000)


class Registry:
    """The sessions and their indexes. `lock` guards all of it and is held for moments only:

    never while the store or a grace period is awaited. Whoever needs a session to stay as it
    is meanwhile does its `work` on it.
    """

    def __init__(
        self,
        engine: Engine,
        policy: AddressPolicy,
        limits: Limits,
        clock: Clock,
        journal: Journal,
        changes: ChangeLog,
    ) -> None:
        self.engine = engine
        self.policy = policy
        self.admission = Admission(policy)
        self.limits = limits
        self.clock = clock
        self.journal = journal
        self.changes = changes
        self.zones = Zones(journal)
        self.lock = threading.Condition()
        self.by_id: dict[str, Session] = {}
        self.by_handle: dict[int, Session] = {}
        self.by_ssrc: dict[int, set[Session]] = {}
        self.in_order: list[Session] = []  # by sequence, which only grows
        self.keys: set[tuple[int, Key]] = set()
        self.sequence = 0
        self.total_subscribers = 0
        self.per_ip: Counter[bytes] = Counter()  # only with limits.subscribers_per_ip
        self.counts: Counter[str] = Counter()
        self.high_water = HighWater(limits.overload)
        self._touched: dict[Session, None] = {}

    @contextmanager
    def found(self, session_id: str) -> Iterator[Session]:
        """The session under the lock. Raises InvalidArgumentError, NotFoundError."""
        canonical = session_id_of(session_id)
        with self.lock:
            yield self.find(canonical)

    def find(self, canonical_id: str) -> Session:
        """The lock is held. Raises NotFoundError: also for what is not in the caller's SCOPE."""
        session = self.by_id.get(canonical_id)
        if session is None or not matches(session.terms.labels, SCOPE.get()):
            raise NotFoundError(f"no session {canonical_id}", field="session_id")
        return session

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
        canonical = session_id_of(session_id)
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
        self.by_id[session.session_id] = session
        self.by_handle[session.handle] = session
        self.by_ssrc.setdefault(session.ssrc, set()).add(session)
        bisect.insort(self.in_order, session, key=BY_SEQUENCE)

    def forget(self, session: Session) -> None:
        """No call finds it from here on, but its key is taken still. The lock is held."""
        del self.by_id[session.session_id]
        del self.by_handle[session.handle]
        same_ssrc = self.by_ssrc[session.ssrc]
        same_ssrc.remove(session)
        if not same_ssrc:
            del self.by_ssrc[session.ssrc]
        del self.in_order[bisect.bisect_left(self.in_order, session.sequence, key=BY_SEQUENCE)]
        self.total_subscribers -= session.subscribers
        self._touched.pop(session, None)

    def key_of(self, session: Session) -> tuple[int, Key]:
        """What no other session may have at this moment."""
        return session.ssrc, session.terms.source.key(session.terms.pinned)

    def view(self, session: Session) -> SessionView:
        """As it is now. The lock is held, or nobody else has the session yet."""
        now = self.clock.monotonic_ns()
        return view_of(session, self.engine.session_stats(session.handle, now), now)

    def count(self, what: str, number: int = 1) -> None:
        """Adds to `counts`; the lock is not held."""
        with self.lock:
            self.counts[what] += number

    def touch(self, session: Session) -> None:
        """Its subscribers changed; the lock is held."""
        if self.by_id.get(session.session_id) is session:
            self._touched[session] = None

    def show_touched(self, at_a_time: int = 256) -> None:
        """Notes an UPDATED for each session whose subscribers changed, however often."""
        while True:
            with self.lock:
                for _ in range(min(at_a_time, len(self._touched))):
                    session = next(iter(self._touched))
                    del self._touched[session]
                    slot = self.changes.begin()
                    view = self.view(session)
                    change = Change(slot.revision, ChangeType.UPDATED, view, view.labels)
                    self.changes.settle(slot, change)
                if not self._touched:
                    return
