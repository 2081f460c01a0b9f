"""The door for what has its time: what a running server does again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import NotFoundError
from rtpfanout.model import Address, ChangeKind, EventKind
from rtpfanout.sessions.changes import UNWRITTEN
from rtpfanout.sessions.latches import Latches
from rtpfanout.sessions.state import BusyError, Part

if TYPE_CHECKING:
    from rtpfanout.model import IPAddress
    from rtpfanout.overload import HighWater, Sample
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.conditions import Conditions
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.deadlines import Deadlines
    from rtpfanout.sessions.judge import Judge
    from rtpfanout.sessions.kept import RefusedSessions
    from rtpfanout.sessions.life import Life
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.renumbering import Renumbering
    from rtpfanout.sessions.shedding import Shedding
    from rtpfanout.sessions.subscribers import Subscribers
    from rtpfanout.store import Store

_log = structlog.stdlib.get_logger(__name__)
_PORT_LOOKS = 10  # seconds between two tries to open a port
_SHOWN_AT_A_TIME = 256  # so that the lock is held for moments


@dataclass(eq=False)
class Housekeeping(Part):
    """Each about once a second, unless it says something else. Thread-safe; all of them wait, for
    the store or a grace period.
    """

    store: Store
    changes: ChangeLog
    renumbering: Renumbering
    high_water: HighWater
    consents: Consents
    shedding: Shedding
    life: Life
    subscribers: Subscribers
    due: Deadlines[int]
    """The seconds at which a session, by its handle, has leases to end."""
    judge: Judge
    refused: RefusedSessions
    conditions: Conditions

    def __post_init__(self) -> None:
        self.expire_idle = self.life.expire_idle
        self.tell_conditions = self.conditions.look
        core = self.state, self.engine, self.clock, self.rules, self.ports
        self.tell_latches = Latches(*core, self.changes).look
        self.keep_consents = self.consents.keep
        """And once when no more can be given."""
        self.on_interfaces = self.renumbering.on_interfaces
        self.follow_sources = self.engine.follow_sources
        """Once, some time after the start: for whom it matters from which of our addresses packets
        leave, because an interface has several. Changes of the addresses do it again."""
        self._looks = 0
        self._begun = self.changes.given
        self._local: tuple[dict[IPAddress, int], int] | None = None

    def expire_subscribers(self) -> int:
        """Housekeeping, about once a second: ends leases that are over; how many.

        It also withholds from those whose consent is over, and shows watchers the sessions
        whose subscribers changed. It never waits for the store.
        """
        self.consents.lapse(self.clock.monotonic_ns() / 1e9)
        ended = self._end_leases()
        self._show_touched()
        return ended

    def _end_leases(self) -> int:
        """Their deadlines are in the store, so a restart does not bring them back."""
        state = self.state
        now = self.clock.monotonic_ns() // 10**9
        ended = 0
        with state.lock:
            due = [state.by_handle.get(handle) for handle in self.due.take(now)]
        for session in filter(None, due):
            try:
                ended += self._end_leases_of(session, now)
            except NotFoundError:
                continue
            except BusyError:  # perhaps a renewal
                with state.lock:
                    self.due.add(now + 1, session.handle)
        state.count("leases_expired", ended)
        return ended

    def _end_leases_of(self, session: Session, now: int) -> int:
        expired = self.subscribers.expired(session, now)
        if not expired:
            return 0
        with self.state.work(session.session_id, frozenset(expired), wait=False):
            # Those that were renewed since we looked stay.
            still = set(self.subscribers.expired(session, now))
            gone = [record for record in expired if record in still]
            self.subscribers.write_off(session, gone)
            if gone:
                self.state.events.tell(EventKind.SUBSCRIBER_EXPIRED, session, records=gone)
            return len(gone)

    def _show_touched(self) -> None:
        """Notes an UPDATED for each session whose subscribers changed, however often."""
        more = True
        while more:
            with self.state.lock:
                sessions = self.state.take_touched(_SHOWN_AT_A_TIME)
                more = bool(sessions)
                for session in sessions:
                    revision = self.changes.begin()
                    view = self.state.view(session)
                    self.changes.show(
                        revision, ChangeKind.UPDATED, view, view.labels, cause="subscribers"
                    )

    def keep_clock(self) -> None:
        """Housekeeping: the store learns at once that the host started anew, or its clock was
        set; and before too long which revisions were shown. Waits for nobody.
        """
        given = self.changes.given
        is_behind = given - max(self.store.revision, self._begun) > UNWRITTEN // 2
        is_kept = self.clock.is_kept(self.store.kept_clock)
        if not self.store.failing and (is_behind or not is_kept):
            self.store.submit([], given)

    def on_sample(self, sample: Sample) -> None:
        """Housekeeping, about once a second, with what was measured since: opens and closes
        the door for newcomers, and sheds subscribers of sessions that had to drop packets.
        """
        for mark in self.high_water.observe(sample):
            what = EventKind.OVERLOAD if mark.is_passed else EventKind.OVERLOAD_OVER
            self.state.events.tell(what, detail=mark.name)
            _log.warning(
                "overload: nobody new is taken" if mark.is_passed else "overload is over",
                mark=mark.name,
                sample=asdict(sample),
            )
        if self.rules.limits.shed:
            self.shedding.step(sample)
        else:
            self.shedding.release()

    @property
    def overload_marks(self) -> Mapping[str, bool]:
        """Each high-water mark, and whether it is passed."""
        return {mark.name: mark.is_passed for mark in self.high_water.marks}

    @property
    def overload_refused_total(self) -> int:
        """Calls that were refused because a mark was passed."""
        return self.high_water.refused_total

    def on_local_addresses(self, addresses: Mapping[IPAddress, int], changes: int = 0) -> int:
        """This host has these addresses, each on the interface of that index.

        That matters where we are bound to all of them. The packet path drops what comes from them
        and our port: our own copies, as a loop. When they change, or what else is local (`changes`
        counts that), subscribers that are our own ingress because of it get nothing; returns how
        many. Raises OSError.
        """
        own = dict(addresses)
        ingress = self.rules.policy.ingress.ip
        if not ingress.is_unspecified:
            own = {ingress: 0}
        before, now = self._local, (own, changes)
        if now == before:
            return 0
        if before is None or own != before[0]:
            ips = sorted(own, key=str)
            interfaces = [own[ip] for ip in ips]
            self.engine.set_local_addresses([Address(ip, 0) for ip in ips], interfaces)
            if before is not None:
                self.engine.follow_sources()
        self._local = now
        return 0 if before is None else self.judge_ingress()

    def judge_ingress(self) -> int:
        """What is local may have changed: subscribers that are our own ingress get nothing, those
        that aren't any more do; how many are refused now.
        """
        state = self.state
        with state.lock:
            candidates = [session for session in state.in_order if session.at_ingress_port]
            state.room_for_sessions = True  # a source may not be ours any more
        refused, _ = self.judge.some(candidates)
        state.count("loops_withheld", refused)
        return refused

    def judge_policy(self) -> int:
        """The policy or the limits are others: what they refuse gets nothing, and what they don't
        any more is served; how many subscribers are refused that weren't.

        About 0.4 us for each that there is; it never waits for the store.
        """
        state = self.state
        refused, _ = self.judge.all()
        state.count("policy_withheld", refused)
        self.refused.serve_again()
        return refused

    def serve_again(self) -> None:
        """Housekeeping, about once a second: what is refused may be served, since others went."""
        state = self.state
        self._looks += 1
        may_have_port = self._looks % _PORT_LOOKS == 0 and self.refused.wait_for_ports
        if (state.room_for_sessions and state.refused) or may_have_port:
            self.refused.serve_again()
        if state.has_room:
            state.has_room = False
            if state.refused_subscribers:
                self.judge.all(only_refused=True)
