"""Subscribers: adding, renewing, removing and listing them, and the limits on their number.

Adding: applied to the engine, then written; undone if the store refuses. Removing: written,
then applied. Both work on the addresses they name, so that what the store has in the end is
what the engine has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout.errors import LimitError, NotFoundError, RtpFanoutError
from rtpfanout.model import (
    RTCP,
    SUBSCRIBER_CLASSES,
    Address,
    Consent,
    EventKind,
    Rtcp,
    SubscriberClass,
    Withheld,
)
from rtpfanout.policy import SUBSCRIBER_FIELD
from rtpfanout.sessions import fields
from rtpfanout.sessions.admission import BATCH_FIELD, address_of, any_at_port, split_records
from rtpfanout.sessions.cursor import CursorKind
from rtpfanout.sessions.feedback import report_of
from rtpfanout.sessions.names import title
from rtpfanout.sessions.reporting import refuse_rtcp, set_back, set_rtcp
from rtpfanout.sessions.source import loop_error
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.views import SubscriberState, SubscriberView
from rtpfanout.sessions.zones import scopes_of

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.overload import HighWater
    from rtpfanout.sessions.admission import Admission
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.deadlines import Deadlines
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.requests import Once
    from rtpfanout.sessions.zones import Zones

    Standing = tuple[int, int, int]
    """Of a subscriber: (lease_until, class, withheld)."""


@dataclass(eq=False, slots=True)
class Subscribers(Part):
    """The calls about subscribers; `leases` are the seconds at which a session has some to end."""

    journal: Journal
    zones: Zones
    high_water: HighWater
    leases: Deadlines[int]
    consents: Consents

    def add(
        self,
        session_id: str,
        records: bytes,
        admission: Admission,
        terms: fields.Subscription,
        once: Once,
        *,
        is_batch: bool = False,
        consent_given: bool = False,
        local: bytes = b"",
    ) -> int:
        """How many are new. All are added, or none. `admission` has admitted them.

        `local`: which of our addresses they spoke to; their copies leave from there.

        Raises InvalidArgumentError, NotFoundError, LimitError, AddressDeniedError (a loop),
        UnavailableError.
        """
        state = self.state
        clock = self.clock
        ttl_secs, kind, rtcp = terms
        refuse_rtcp(records, rtcp)
        each = split_records(records)
        with state.work(session_id, frozenset(each)) as session:
            with state.lock:
                if admission is not self.rules.admission:  # the policy has changed meanwhile
                    self.rules.admission.admitted(records)
                self.refuse_loop(session, each, BATCH_FIELD if is_batch else SUBSCRIBER_FIELD)
                before = self.standings(session, each)
                new = [record for record, standing in before.items() if standing is None]
                self.check_room(session, new)
                now = clock.monotonic_ns()
                lease_until = math.ceil(now / 1e9 + ttl_secs) if ttl_secs else 0
                since = max(clock.wall_ns(now), session.last_since + 1)
                withheld = Withheld.CONSENT if session.terms.consent is Consent.ECHO else 0
                self.zones.note(scopes_of(records))
                self.engine_add(session, records, since, lease_until, kind, withheld, local)
                self._note_added(session, each, new, since, lease_until, local)
                rtcp_before = set_rtcp(self.engine, session, records, rtcp)
                lease_ns = clock.wall_ns(lease_until * 10**9) if lease_until else 0
                asked = b"".join(new) if withheld else b""
                told = once.answer(str(len(new)))
                written = self.journal.save_subscribers(
                    session, records, since, lease_ns, kind.number, told,
                    asked=asked, local=local, rtcp=rtcp,
                )  # fmt: skip
            try:
                written.result()
            except RtpFanoutError:
                self._undo(session, before)
                set_back(self.engine, session, rtcp_before)
                raise
            with state.lock:
                self.show_added(session, new, kind)
            if consent_given and session.terms.consent is Consent.ECHO:
                until = now / 1e9 + ttl_secs if ttl_secs else math.inf
                self.consents.give(session, each, until, local)
        return len(new)

    def remove(
        self, session_id: str, records: Sequence[bytes], once: Once, *, is_batch: bool = False
    ) -> list[bool]:
        """Which of them were subscribers; returns when no further packet will leave to any.

        Only of a batch an answer is kept though none was: the indexes of those that weren't.
        Raises InvalidArgumentError, NotFoundError (session), UnavailableError.
        """
        state = self.state
        with state.work(session_id, frozenset(records)) as session:
            with state.lock:
                standings = self.standings(session, records)
                there = [record for record, standing in standings.items() if standing is not None]
                left = set(there)
                found = []
                for record in records:
                    found.append(record in left)
                    left.discard(record)
                if not there and not (is_batch and once.has_id):
                    return found
                text = ",".join(str(i) for i, was_there in enumerate(found) if not was_there)
                written = self.journal.delete_subscribers(
                    session, b"".join(there), once.answer(text)
                )
            written.result()
            self.drop(session, there)
            if there:
                state.events.tell(EventKind.SUBSCRIBER_LEFT, session, records=there)
        return found

    def drop(self, session: Session, records: Sequence[bytes]) -> None:
        """Subscribers that are written off already; waits for a grace period."""
        state = self.state
        self.engine.remove_subscribers(session.handle, addresses_of(records))
        with state.lock:
            self.count(session, records, -1)
            state.made_room(session)
            self.consents.forget(session.session_id, records)
            self.zones.forget(session.sequence, records)
            state.touch(session)

    def write_off(self, session: Session, records: Sequence[bytes]) -> None:
        """Ends those that a restart would not bring back either, whether or not that is written.

        Nobody is waited for but the packet path: a disk that hangs keeps no packets coming.
        """
        state = self.state
        with state.lock:
            self.journal.delete_subscribers(session, b"".join(records), None)
        self.drop(session, records)

    def expired(self, session: Session, now_secs: int) -> list[bytes]:
        """Those whose lease is over, whether or not a call is about to renew it."""
        try:
            return split_records(self.engine.expired_subscribers(session.handle, now_secs))
        except KeyError:  # deleted meanwhile
            return []

    def page(self, session_id: str, limit: int, cursor: str) -> tuple[list[SubscriberView], str]:
        """See SessionManager.list_subscribers."""
        state = self.state
        size = fields.page_size(limit)
        after = CursorKind.SUBSCRIBERS.read(cursor)
        with state.found(session_id) as session:
            rows = self.engine.subscribers(session.handle, after, size + 1)
        clock = self.clock
        page = rows[:size]
        views = [
            SubscriberView(
                address=address,
                since=clock.moment(since),
                packets_sent=sent,
                send_failures=failures,
                subscriber_class=SUBSCRIBER_CLASSES[number],
                expires_at=clock.moment(clock.wall_ns(lease * 10**9)) if lease else None,
                state=SubscriberState.of(withheld),
                refused_reason=self._refusal(session, address, withheld),
                rtcp=RTCP[report[0]] if report else Rtcp.OFF,
                report=report_of(report, clock.monotonic_ns()),
            )
            for address, since, sent, failures, number, lease, withheld, report in page
        ]
        return views, CursorKind.SUBSCRIBERS.write(page[-1][1]) if len(rows) > size else ""

    def _refusal(self, session: Session, address: Address, withheld: int) -> str:
        """Why one with the bit REFUSED has it."""
        if not withheld & Withheld.REFUSED:
            return ""
        if session.terms.feeder == address:
            return loop_error(address, SUBSCRIBER_FIELD).message
        return self.rules.admission.refusal(address.record) or (
            "is beyond max_fanout_per_session or limits.max_subscribers; raise them, or remove"
            " others"
        )

    def forget_all(self, session: Session) -> None:
        """Of a session that is about to go: what is known by address; the lock is held."""
        self.zones.forget(session.sequence)
        if self.rules.limits.subscribers_per_ip or session.terms.consent is Consent.ECHO:
            records = records_of(self.engine, session)
            self._count_ips(records, -1)
            self.consents.forget(session.session_id, records)

    def count_restored(self, session: Session, count: int, records: bytes) -> None:
        """Those that the store had; `records` where addresses are counted. The lock is held."""
        session.subscribers += count
        self.state.total_subscribers += count
        if self.rules.limits.subscribers_per_ip:
            self._count_ips(split_records(records), 1)

    def count_anew(self) -> None:
        """By address, which is not done without a limit. The lock is held."""
        state = self.state
        state.per_ip.clear()
        for session in state.in_order:
            self._count_ips(records_of(self.engine, session), 1)

    def standings(self, session: Session, records: Sequence[bytes]) -> dict[bytes, Standing | None]:
        """By record, None for those that are no subscribers; each once. The lock is held."""
        distinct = list(dict.fromkeys(records))
        found = self.engine.find_subscribers(session.handle, b"".join(distinct))
        return dict(zip(distinct, found, strict=True))

    def refuse_loop(self, session: Session, records: Sequence[bytes], field: str) -> None:
        """Raises AddressDeniedError: one of them feeds it. The lock is held."""
        for feeder in (session.terms.feeder, session.next_feeder):
            if feeder is None or feeder.record not in records:
                continue
            if field == BATCH_FIELD:
                field = f"{BATCH_FIELD}[{list(records).index(feeder.record)}]"
            raise loop_error(feeder, field)

    def _note_added(
        self,
        session: Session,
        records: Sequence[bytes],
        new: Sequence[bytes],
        since: int,
        lease_until: int,
        local: bytes,
    ) -> None:
        """The engine has them; this is what else is to be known of them. The lock is held."""
        if local:
            self.zones.spoke_to(session.sequence, records, local)
        session.last_since = since + len(records) - 1  # as the store counts
        port = self.rules.policy.ingress.port
        session.at_ingress_port |= any_at_port(b"".join(records), port)
        self.count(session, new, 1)
        if session.terms.consent is Consent.ECHO:
            self.consents.expect(session.session_id, new)
        if lease_until:
            self.leases.add(lease_until, session.handle)

    def show_added(self, session: Session, new: Sequence[bytes], kind: SubscriberClass) -> None:
        """Those who watch see it. The lock is held."""
        self.state.touch(session)
        if new:
            joined = EventKind.SUBSCRIBER_JOINED
            self.state.events.tell(joined, session, records=new, detail=str(kind))

    def check_room(self, session: Session, new: Sequence[bytes]) -> None:
        """Raises LimitError naming the limit; the engine looks after max_fanout_per_session. The
        lock is held."""
        if new:  # who renews a lease is not new
            self.high_water.admit()
        state = self.state
        limits = self.rules.limits
        most = session.terms.max_subscribers
        if new and most and session.subscribers + len(new) > most:
            raise _full(session, f"the {most} of its max_subscribers", "max_subscribers", most)
        if state.total_subscribers + len(new) > limits.subscribers:
            raise LimitError(
                f"there are {state.total_subscribers} subscribers in all, and would be more"
                f" than the {limits.subscribers} of limits.max_subscribers",
                field="limits.max_subscribers",
                limit=limits.subscribers,
            )
        if limits.subscribers_per_ip:
            for ip, count in Counter(map(state.ip_of, new)).items():
                if state.per_ip[ip] + count > limits.subscribers_per_ip:
                    raise LimitError(
                        f"{Address.unpack(ip, 0).ip} has {state.per_ip[ip]} subscriptions, and"
                        f" would have more than the {limits.subscribers_per_ip} of"
                        " limits.max_subscribers_per_ip",
                        field="limits.max_subscribers_per_ip",
                        limit=limits.subscribers_per_ip,
                    )

    def engine_add(
        self,
        session: Session,
        records: bytes,
        since: int,
        lease_until: int,
        kind: SubscriberClass,
        withheld: int,
        local: bytes,
    ) -> None:
        """Raises LimitError. The lock is held."""
        try:
            self.engine.add_subscribers(
                session.handle,
                records,
                since,
                lease_until=lease_until,
                subscriber_class=kind.number,
                withheld=withheld,
                local=local,
            )
        except BlockingIOError:
            most = self.rules.limits.fanout
            name = "max_fanout_per_session"
            raise _full(session, f"the {most} of {name}", name, most) from None

    def _undo(self, session: Session, before: dict[bytes, Standing | None]) -> None:
        """As it was: the new ones are gone, the others have the lease and class they had."""
        engine = self.engine
        self.drop(session, [record for record, standing in before.items() if standing is None])
        for record, standing in before.items():
            if standing is not None:
                lease_until, number, withheld = standing
                engine.add_subscribers(
                    session.handle,
                    record,
                    session.last_since,
                    lease_until=lease_until,
                    subscriber_class=number,
                    withheld=withheld,
                )

    def count(self, session: Session, records: Sequence[bytes], sign: int) -> None:
        """They came (1) or went (-1). The lock is held."""
        state = self.state
        # The count of a session deleted meanwhile left the total as a whole.
        if state.by_id.get(session.session_id) is not session:
            return
        session.subscribers += sign * len(records)
        state.total_subscribers += sign * len(records)
        self._count_ips(records, sign)

    def _count_ips(self, records: Sequence[bytes], sign: int) -> None:
        state = self.state
        if not self.rules.limits.subscribers_per_ip:
            return
        for record in records:
            ip = state.ip_of(record)
            state.per_ip[ip] += sign
            if state.per_ip[ip] <= 0:
                del state.per_ip[ip]


def addresses_of(records: Sequence[bytes]) -> list[Address]:
    """The same of many."""
    return [address_of(record) for record in records]


def records_of(engine: Engine, session: Session) -> list[bytes]:
    """All subscribers of a session."""
    return split_records(engine.subscriber_records(session.handle))


def not_a_subscriber(session_id: str, address: Address) -> NotFoundError:
    """To be raised; the session as a request names it."""
    return NotFoundError(
        f"session {session_id} has no subscriber {address}", field=SUBSCRIBER_FIELD
    )


def _full(session: Session, most: str, field: str, limit: int) -> LimitError:
    return LimitError(
        f"session {title(session)} has {session.subscribers} subscribers, and would have"
        f" more than {most}",
        field=field,
        limit=limit,
    )
