"""Leases of subscribers that are over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout.errors import NotFoundError
from rtpfanout.sessions.state import BusyError

if TYPE_CHECKING:
    from rtpfanout.sessions.clock import Clock
    from rtpfanout.sessions.deadlines import Deadlines
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.state import State
    from rtpfanout.sessions.subscribers import Subscribers


@dataclass(frozen=True, eq=False, slots=True)
class Leases:
    """`due` has the seconds at which a session, by its handle, has some to end."""

    state: State
    clock: Clock
    due: Deadlines[int]
    subscribers: Subscribers

    def expire(self) -> int:
        """Ends subscribers whose lease is over; how many.

        Their deadlines are in the store, so a restart does not bring them back.
        """
        state = self.state
        now = self.clock.monotonic_ns() // 10**9
        ended = 0
        with state.lock:
            due = [state.by_handle.get(handle) for handle in self.due.take(now)]
        for session in due:
            if session is None:
                continue
            try:
                ended += self._expire_of(session, now)
            except NotFoundError:
                continue
            except BusyError:  # perhaps a renewal
                with state.lock:
                    self.due.add(now + 1, session.handle)
        state.count("leases_expired", ended)
        return ended

    def _expire_of(self, session: Session, now: int) -> int:
        state = self.state
        expired = self.subscribers.expired(session, now)
        if not expired:
            return 0
        with state.work(session.session_id, frozenset(expired), wait=False):
            # Those that were renewed since we looked stay.
            still = set(self.subscribers.expired(session, now))
            gone = [record for record in expired if record in still]
            self.subscribers.write_off(session, gone)
            return len(gone)
