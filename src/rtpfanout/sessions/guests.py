"""Guests: subscribers that come by a connection and are gone with it.

The store never has them, for a restart ends their connections too. Each has a lease, and whoever
holds the connection prolongs it; so they end by themselves where he can't end them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout.errors import AlreadyExistsError, LimitError, NotFoundError, RtpFanoutError
from rtpfanout.model import SESSION_ID, Address, EventKind, MediaType, Rtcp, SubscriberClass, shown
from rtpfanout.policy import SUBSCRIBER_FIELD
from rtpfanout.sessions.admission import any_at_port
from rtpfanout.sessions.describing import MOST_PARTS
from rtpfanout.sessions.fields import matches
from rtpfanout.sessions.reporting import set_rtcp
from rtpfanout.sessions.state import SCOPE, Part

if TYPE_CHECKING:
    from rtpfanout.model import IPAddress
    from rtpfanout.sessions.describing import Describing
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.subscribers import Subscribers

_DISCARD = 9
"""A port that is nobody's, where only the IP address matters."""


@dataclass(frozen=True, slots=True)
class Guest:
    """One of a session. `since` is nanoseconds, as the engine lists it."""

    session_id: str
    record: bytes
    since: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a guest's copies go, and on which terms.

    `local` are 16 bytes, which of our addresses they leave from; empty: as for everybody.
    `relayed_to`: `address` is a socket of ours, that hands them on to there.
    """

    address: Address
    subscriber_class: SubscriberClass = SubscriberClass.MONITOR
    rtcp: Rtcp = Rtcp.OFF
    local: bytes = b""
    relayed_to: IPAddress | None = None


@dataclass(eq=False, slots=True)
class Guests(Part):
    """Thread-safe. `add`, `renew` and `remove` wait: for a grace period, or a call under way."""

    subscribers: Subscribers
    describing: Describing

    def sessions_at(self, path: str) -> list[str]:
        """Ids of the session of that name or id, or else of all whose names begin with it and a
        "/", by name; of the caller's SCOPE. `path` has no "/" at its ends.

        Raises NotFoundError; LimitError (more than MOST_PARTS); RefusedError.
        """
        state = self.state
        with state.lock:
            exact = path.lower() if SESSION_ID.fullmatch(path) else ""
            if (named := state.named(path)) and matches(named.labels, SCOPE.get()):
                exact = named.session_id
            if exact:
                return [state.find(exact).session_id]
            below = sorted(self._below(path), key=lambda session: session.terms.name)
        if not below:
            raise NotFoundError(
                f"no session has the name {shown(path)}, nor one that begins with it and a /"
                if path
                else "name a session, as in rtsp://HOST/NAME",
                field="session_id",
            )
        if len(below) > MOST_PARTS:
            raise LimitError(
                f"{len(below)} sessions are below {shown(path)}, more than {MOST_PARTS}; ask for"
                " one of them",
                field="session_id",
                limit=MOST_PARTS,
            )
        return [session.session_id for session in below]

    def _below(self, path: str) -> Iterator[Session]:
        """The lock is held. Of data only what a description can be made of."""
        if not path:
            return
        prefix, scope = f"{path}/", SCOPE.get()
        for session in self.state.in_order:
            terms = session.terms
            if not terms.name.startswith(prefix) or not matches(terms.labels, scope):
                continue
            if session.media_type is not MediaType.DATA or terms.encoding:
                yield session

    def has_source(self, ssrc: int) -> bool:
        """Whether some session, of whoever, is told by that SSRC."""
        return ssrc in self.state.by_ssrc

    def add(self, session_id: str, place: Place, lease_secs: float) -> Guest:
        """Raises as SessionManager.add_subscriber; AlreadyExistsError: the address is somebody's
        in this session, whose lease nobody else ends or prolongs."""
        state, subscribers, address = self.state, self.subscribers, place.address
        record = address.record
        with state.work(session_id, frozenset([record])) as session, state.lock:
            self.check(place)
            subscribers.refuse_loop(session, [record], SUBSCRIBER_FIELD)
            if subscribers.standings(session, [record])[record] is not None:
                raise AlreadyExistsError(
                    f"{address} is a subscriber already; listen at another port",
                    field=SUBSCRIBER_FIELD,
                )
            if place.relayed_to:
                state.relays[record] = Address(place.relayed_to, 0).packed
            try:
                return self._add(session, record, place, lease_secs)
            except RtpFanoutError:
                state.relays.pop(record, None)
                raise

    def check(self, place: Place) -> None:
        """That the address policy admits it. Raises AddressDeniedError, InvalidArgumentError."""
        to = Address(place.relayed_to, _DISCARD) if place.relayed_to else place.address
        if not (place.relayed_to and to.ip.is_loopback):  # who connected from here is no victim
            self.rules.policy.check_subscriber(to)

    def _add(self, session: Session, record: bytes, place: Place, lease_secs: float) -> Guest:
        """The lock is held. Raises LimitError, UnavailableError."""
        clock, subscribers = self.clock, self.subscribers
        subscribers.check_room(session, [record])
        now = clock.monotonic_ns()
        lease_until = math.ceil(now / 1e9 + lease_secs)
        since = max(clock.wall_ns(now), session.last_since + 1)
        # Who connected has consented (RFC 7675), for as long as he is connected.
        subscribers.engine_add(
            session, record, since, lease_until, place.subscriber_class, 0, place.local
        )
        session.last_since = since
        session.at_ingress_port |= any_at_port(record, self.rules.policy.ingress.port)
        subscribers.count(session, [record], 1)
        subscribers.leases.add(lease_until, session.handle)
        set_rtcp(self.engine, session, record, place.rtcp)
        subscribers.show_added(session, [record], place.subscriber_class)
        return Guest(session.session_id, record, since)

    def renew(self, guest: Guest, lease_secs: float) -> bool:
        """Its lease ends that many seconds from now. False: it is a subscriber no more.

        Where somebody has added the address for good since, it stays so.
        """
        state, record = self.state, guest.record
        try:
            with state.work(guest.session_id, frozenset([record])) as session, state.lock:
                standing = self.subscribers.standings(session, [record])[record]
                if standing is None:
                    return False
                before, number, withheld = standing
                until = math.ceil(self.clock.monotonic_ns() / 1e9 + lease_secs)
                if before:
                    self.engine.add_subscribers(
                        session.handle,
                        record,
                        session.last_since,
                        lease_until=until,
                        subscriber_class=number,
                        withheld=withheld,
                    )
                    self.subscribers.leases.add(until, session.handle)
        except RtpFanoutError:
            return False
        return True

    def remove(self, guests: Iterable[Guest]) -> None:
        """Returns when no further packet leaves to them, also where the sessions have become
        others' than the caller's."""
        token = SCOPE.set(())
        try:
            for guest in guests:
                self._remove(guest)
        finally:
            SCOPE.reset(token)

    def _remove(self, guest: Guest) -> None:
        record = guest.record
        with (
            contextlib.suppress(RtpFanoutError),  # deleted meanwhile
            self.state.work(guest.session_id, frozenset([record])) as session,
        ):
            with self.state.lock:
                standing = self.subscribers.standings(session, [record])[record]
            if standing and standing[0]:  # else it is another's by now
                self.subscribers.drop(session, [record])
                self.state.events.tell(EventKind.SUBSCRIBER_LEFT, session, records=[record])
        with self.state.lock:
            self.state.relays.pop(record, None)

    def reported_ns(self, guest: Guest) -> int:
        """When its last receiver report came, of time.monotonic_ns(); 0: none yet."""
        with contextlib.suppress(RtpFanoutError, KeyError):
            with self.state.found(guest.session_id) as session:
                rows = self.engine.subscribers(session.handle, guest.since - 1, 1)
            for address, *_, report in rows:
                if report and address.record == guest.record:
                    return report[1]
        return 0
