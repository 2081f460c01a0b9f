"""Do copies get to those who are asked about? What the sessions know of that, for `reach`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import ACTIVE_WINDOW_NS, Condition, Consent, EventKind
from rtpfanout.reach import Asked, Reach
from rtpfanout.reach.heard import STALE_SECS
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.views import SubscriberState, SubscriberView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.model import Address, IPAddress
    from rtpfanout.sessions.record import Session

_AT_A_TIME = 64  # so that the lock is held for moments
_LOOKED_AT = 20_000
"""Sessions in a second that are looked through for who is unreachable."""
_MOST_TOLD = 4096


@dataclass(eq=False, slots=True)
class Reaching(Part):
    """`reach` is None while nobody listens and looks; `source`: where copies leave from, if set."""

    reach: Reach | None = None
    source: IPAddress | None = None
    _told: dict[Address, list[Session]] = field(default_factory=dict)
    """Who is told to be unreachable, and the subscriber of which sessions it was then."""

    def look(self) -> None:
        """Housekeeping, about once a second: what is heard by ICMP of subscribers is an event when
        it begins, and when it is over: when copies have left for long enough, and nothing came.

        A session whose copies do not leave tells nothing.
        """
        reach = self.reach
        if reach is None:
            return
        reach.listen()
        refused = reach.refused()
        # Who forges such messages keeps us busy for a share of the time.
        most = max(1, _LOOKED_AT // max(1, len(self.state.in_order)))
        new = [address for address in refused if address not in self._told]
        for address in new[: min(most, _MOST_TOLD - len(self._told))]:
            self._told[address] = found = self._subscribed(address.record)
            for session in found:
                self._tell(EventKind.SUBSCRIBER_UNREACHABLE, session, address, refused[address])
        for address, sessions in list(self._told.items()):
            if address not in refused:
                left = [s for s in sessions if not self._is_over(s, address)]
            else:
                left = [s for s in sessions if self._is_there(s, address.record)]
            # Of nobody's address nothing is looked up again as long as it is heard of.
            if not left and (sessions or address not in refused):
                del self._told[address]
            else:
                self._told[address] = left

    def _subscribed(self, record: bytes) -> list[Session]:
        """The sessions that it is a subscriber of."""
        state = self.state
        with state.lock:
            sessions = list(state.in_order)
        found = []
        for start in range(0, len(sessions), _AT_A_TIME):
            with state.lock:
                found += [s for s in sessions[start : start + _AT_A_TIME] if self._has(s, record)]
        return found

    def _is_there(self, session: Session, record: bytes) -> bool:
        with self.state.lock:
            return self._has(session, record)

    def _has(self, session: Session, record: bytes) -> bool:
        """The lock is held."""
        if self.state.by_handle.get(session.handle) is not session:
            return False
        return self.engine.find_subscribers(session.handle, record) != [None]

    def _is_over(self, session: Session, address: Address) -> bool:
        """It is gone, or has been sent to for so long that something would have been heard."""
        with self.state.lock:
            if not self._has(session, address.record):
                return True
            flows = session.condition is Condition.FLOWING and not session.terms.paused
            since = max(session.condition_since_ns, session.fed_since_ns)
            if not flows or self.clock.monotonic_ns() - since < STALE_SECS * 1e9:
                return False
        self._tell(EventKind.SUBSCRIBER_BACK, session, address, "")
        return True

    def _tell(self, kind: EventKind, session: Session, address: Address, detail: str) -> None:
        self.state.events.tell(kind, session, records=[address.record], detail=detail)

    def of(self, session_id: str, views: Sequence[SubscriberView]) -> list[SubscriberView]:
        """The same subscribers with what is known of their reach; of a session that is gone as they
        were. Asks the kernel, so it is no business of an event loop."""
        reach, clock = self.reach, self.clock
        served = [view for view in views if view.state is not SubscriberState.REFUSED]
        if reach is None or not served:
            return list(views)
        try:
            with self.state.found(session_id) as session:
                asked = self._asked(session, served)
        except RtpFanoutError:
            return list(views)
        found = dict(zip((view.address for view in served), reach.of(asked), strict=True))
        now = clock.wall_ns()
        told = []
        for view in views:
            reached = found.get(view.address)
            if reached is None:
                told.append(view)
                continue
            since = reached.since_secs
            moment = None if since is None else clock.moment(now - round(since * 1e9))
            told.append(
                replace(
                    view,
                    reach=reached.state,
                    reach_detail=reached.detail,
                    reach_since=moment and max(moment, view.since),
                )
            )
        return told

    def _asked(self, session: Session, views: Sequence[SubscriberView]) -> list[Asked]:
        now = self.clock.monotonic_ns()
        last = int(self.engine.session_stats(session.handle, now)["last_packet_ns"])
        idle_ns = max(0, now - last)
        flows = last > 0 and idle_ns <= ACTIVE_WINDOW_NS
        has_to_echo = session.terms.consent is Consent.ECHO
        return [
            Asked(
                address=view.address,
                source=self.source,
                report_secs=view.report.age_seconds if view.report else None,
                echoes=has_to_echo and view.state is SubscriberState.SENDING,
                idle_secs=idle_ns / 1e9,
                is_taken=flows and view.packets_sent > 0 and view.send_failures == 0,
            )
            for view in views
        ]
