"""Interfaces that were removed and made anew: link-local addresses get the index they have now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import RTCP, SUBSCRIBER_CLASSES, Consent
from rtpfanout.sessions.admission import split_records
from rtpfanout.sessions.names import which
from rtpfanout.sessions.requests import NO_ID
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.subscribers import records_of
from rtpfanout.sessions.terms import moved
from rtpfanout.sessions.zones import in_zone, record_in_zone, scopes_of

if TYPE_CHECKING:
    from rtpfanout.model import Rtcp
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.kept import RefusedSessions
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.subscribers import Standing, Subscribers
    from rtpfanout.sessions.updating import Updating
    from rtpfanout.sessions.zones import Zones

_log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Renumbering(Part):
    """Of sources and subscribers, of sessions that are served and of those that are refused."""

    journal: Journal
    zones: Zones
    consents: Consents
    subscribers: Subscribers
    updating: Updating
    refused: RefusedSessions

    def on_interfaces(self, now: Mapping[str, int]) -> int:
        """`now` has the index of each interface by its name; how many addresses got another."""
        with self.state.lock:
            changed = self.zones.moved(now)
            sessions = list(self.state.in_order) if changed else []
        count = 0
        for session in sessions:
            try:
                count += self._move_subscribers(session.session_id, changed)
                count += self._move_source(session.session_id, changed)
            except RtpFanoutError as error:  # deleted meanwhile; its place is taken
                _log.warning(
                    "a session is not moved to the new index of its interface",
                    **which(session),
                    reason=error.message,
                )
        if changed:
            count += self.refused.move_zones(changed)
            _log.info("interfaces have other indexes", indexes=changed, moved=count)
        return count

    def _move_source(self, session_id: str, changed: Mapping[int, int]) -> bool:
        with self.state.work(session_id) as session:
            terms = session.terms
            address = terms.feeder or terms.source.base
            if address is None or (now := in_zone(address, changed)) == address:
                return False
            self.updating.change(session, moved(terms, now), NO_ID)
        return True

    def _move_subscribers(self, session_id: str, changed: Mapping[int, int]) -> int:
        """Nobody misses a packet by it: while there is no interface none leaves."""
        with self.state.work(session_id) as session:
            records = b"".join(records_of(self.engine, session))
            if not scopes_of(records) & changed.keys():
                return 0
            there = {old: record_in_zone(old, changed) for old in split_records(records)}
            renamed = {old: new for old, new in there.items() if new != old}
            with self.state.lock:
                standings = self.subscribers.standings(session, list(renamed))
                numbers = self.engine.find_rtcp(session.handle, b"".join(renamed))
                rtcp = dict(zip(renamed, numbers, strict=True))
                lasting = self.consents.lasting(session.session_id, renamed)
                spoken = {old: self.zones.spoken_to(session.sequence, old) for old in renamed}
            self.subscribers.write_off(session, list(renamed))
            with self.state.lock:
                for old, new in renamed.items():
                    self._add_again(session, new, standings[old], spoken[old], RTCP[rtcp[old]])
                for old, until in lasting.items():
                    self.consents.give(session, [renamed[old]], until, spoken[old])
                if session.refused:
                    self.state.recount_refused(session)
        return len(renamed)

    def _add_again(
        self,
        session: Session,
        record: bytes,
        standing: Standing | None,
        local: bytes,
        rtcp: Rtcp,
    ) -> None:
        """With the lease, class, consent, RTCP and the address of ours that it had elsewhere.

        The lock is held.
        """
        clock, subscribers = self.clock, self.subscribers
        if standing is None or any(subscribers.standings(session, [record]).values()):
            return
        lease_until, number, withheld = standing
        since = max(clock.wall_ns(), session.last_since + 1)
        kind = SUBSCRIBER_CLASSES[number]
        subscribers.engine_add(session, record, since, lease_until, kind, withheld, local)
        self.engine.set_rtcp(session.handle, record, rtcp.number)
        session.last_since = since
        subscribers.count(session, [record], 1)
        if local:
            self.zones.spoke_to(session.sequence, [record], local)
        if session.terms.consent is Consent.ECHO:
            self.consents.expect(session.session_id, [record])
        lease_ns = clock.wall_ns(lease_until * 10**9) if lease_until else 0
        self.journal.save_subscribers(
            session, record, since, lease_ns, number, None, local=local, rtcp=rtcp
        )
