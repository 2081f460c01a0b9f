"""The part of SessionManager that packets and time call, not a client: signals and housekeeping."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import LimitError, RtpFanoutError
from rtpfanout.model import Address
from rtpfanout.sessions import fields
from rtpfanout.sessions.changes import Change, ChangeType
from rtpfanout.sessions.requests import Once

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtpfanout._fastpath import Engine
    from rtpfanout.model import IPAddress
    from rtpfanout.overload import HighWater, Sample
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.clock import Clock
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.judge import Judge
    from rtpfanout.sessions.kept import RefusedSessions
    from rtpfanout.sessions.life import Life
    from rtpfanout.sessions.rules import Rules
    from rtpfanout.sessions.shedding import Shedding
    from rtpfanout.sessions.state import State
    from rtpfanout.sessions.subscribers import Subscribers
    from rtpfanout.sessions.updating import Updating
    from rtpfanout.sessions.views import SessionView
    from rtpfanout.sessions.zones import Zones
    from rtpfanout.store import Store

_log = structlog.stdlib.get_logger(__name__)
_NO_ID = Once("", b"", None, 0)
_SHOWN_AT_A_TIME = 256  # so that the lock is held for moments


@dataclass(frozen=True, slots=True)
class MoveTarget:
    """A session whose source can sign that it moved; `counter` is the last one accepted."""

    session_id: str
    move_key: bytes
    counter: int


class PacketSide:
    """What datagrams and notices of the packet path lead to, and what has its time.

    Thread-safe. Those that wait, for the store or a grace period: `move_source`, `join`,
    `on_source_notice` and all of housekeeping.
    """

    _state: State
    _engine: Engine
    _clock: Clock
    _rules: Rules
    _zones: Zones
    _high_water: HighWater
    changes: ChangeLog
    _store: Store
    _consents: Consents
    _subscribers: Subscribers
    _updating: Updating
    _life: Life
    _shedding: Shedding
    _judge: Judge
    _refused: RefusedSessions
    _local: tuple[dict[IPAddress, int], int] | None = None

    def secret(self, name: str) -> bytes:
        """32 random bytes of that name, the same as long as the store lives.

        Raises UnavailableError.
        """
        return self._store.secret(name)

    def session_for_move(self, ssrc: int) -> Sequence[MoveTarget]:
        """The sessions of `ssrc` whose source can sign a move."""
        with self._state.lock:
            return [
                MoveTarget(session.session_id, session.terms.move_key, session.terms.move_counter)
                for session in self._state.by_ssrc.get(ssrc, ())
                if session.terms.move_key
            ]

    def move_source(self, session_id: str, source: Address, counter: int, move_key: bytes) -> None:
        """The source of a session signed, with `move_key`, that it is now at `source`.

        An exact source becomes this one, one of policy ip any port of its address; a latch is
        pinned to it; a network has to contain it. Raises InvalidArgumentError, NotFoundError (also
        where it has another key by now), PermissionDeniedError (counter not above the last,
        outside the network), AddressDeniedError, AlreadyExistsError, UnavailableError.
        """
        self._updating.move(session_id, source, counter, move_key)

    def join(
        self,
        session_id: str,
        address: Address,
        *,
        lease_secs: float,
        subscriber_class: str,
        previous: Address | None = None,
    ) -> None:
        """A subscriber that showed that it is at `address`, whose lease begins anew.

        So it has consented until the lease is over, and copies leave from the address of ours that
        it has spoken to. It takes the place of `previous`, even where
        there is no room for another. Raises as `add_subscriber`.
        """
        kind = fields.subscriber_class_of(subscriber_class)
        lease = fields.seconds(lease_secs, "lease_secs")
        admission = self._rules.admission
        admission.admitted(address.record)
        before = previous.record if previous and previous != address else None

        def add() -> None:
            self._subscribers.add(
                session_id,
                address.record,
                admission,
                lease,
                kind,
                _NO_ID,
                consent_given=True,
                local=address.spoken_to,
            )

        try:
            add()
        except LimitError:
            if before is None or not any(self._subscribers.remove(session_id, [before], _NO_ID)):
                raise
            add()
        else:
            if before is not None:
                self._subscribers.remove(session_id, [before], _NO_ID)

    def consent_targets(self, address: Address) -> Sequence[str]:
        """The sessions in which `address` has to consent, whether it has or not."""
        return self._consents.targets(address)

    def consent_given(self, session_id: str, address: Address, until_monotonic: float) -> None:
        """`address` gets the session's packets until then, in seconds of time.monotonic().

        They leave from the address of ours that it has spoken to. Nothing happens if it need not
        consent. Raises InvalidArgumentError, NotFoundError.
        """
        with self._state.found(session_id) as session:
            record = address.record
            self._consents.give(session, [record], until_monotonic, address.spoken_to)

    def on_source_notice(self, handle: int, source: Address) -> bool:
        """A packet from `source` could pin a latch; True if it did."""
        return self._updating.pin(handle, source)

    def expire_idle(self) -> list[SessionView]:
        """Housekeeping, about once a second: ends sessions past the idle timeout.

        Waits for a grace period per session. Returns them as they were.
        """
        return self._life.expire_idle()

    def expire_subscribers(self) -> int:
        """Housekeeping, about once a second: ends leases that are over; how many.

        It also withholds from those whose consent is over, and shows watchers the sessions
        whose subscribers changed. It never waits for the store.
        """
        self._consents.lapse(self._clock.monotonic_ns() / 1e9)
        ended = self._life.expire_leases()
        self._show_touched()
        return ended

    def _show_touched(self) -> None:
        """Notes an UPDATED for each session whose subscribers changed, however often."""
        more = True
        while more:
            with self._state.lock:
                sessions = self._state.take_touched(_SHOWN_AT_A_TIME)
                more = bool(sessions)
                for session in sessions:
                    slot = self.changes.begin()
                    view = self._state.view(session)
                    change = Change(slot.revision, ChangeType.UPDATED, view, view.labels)
                    self.changes.settle(slot, change)

    def keep_clock(self) -> None:
        """Housekeeping: the store learns at once that the host started anew, or its clock was
        set. Waits for nobody.
        """
        if not self._store.failing and not self._clock.is_kept(self._store.kept_clock):
            self._store.submit([])

    def keep_consents(self) -> int:
        """Housekeeping, about once a second, and once when no more can be given: the store gets
        the consents that were; how many. Waits for it, and raises nothing where it can't.
        """
        return self._consents.keep()

    def on_sample(self, sample: Sample) -> None:
        """Housekeeping, about once a second, with what was measured since: opens and closes
        the door for newcomers, and sheds subscribers of sessions that had to drop packets.
        """
        for mark in self._high_water.observe(sample):
            _log.warning(
                "overload: nobody new is taken" if mark.is_passed else "overload is over",
                mark=mark.name,
                sample=asdict(sample),
            )
        if self._rules.limits.shed:
            self._shedding.step(sample)
        else:
            self._shedding.release()

    @property
    def overload_marks(self) -> Mapping[str, bool]:
        """Each high-water mark, and whether it is passed."""
        return {mark.name: mark.is_passed for mark in self._high_water.marks}

    @property
    def overload_refused_total(self) -> int:
        """Calls that were refused because a mark was passed."""
        return self._high_water.refused_total

    def on_local_addresses(self, addresses: Mapping[IPAddress, int], changes: int = 0) -> int:
        """This host has these addresses, each on the interface of that index.

        That matters where we are bound to all of them. The packet path drops what comes from them
        and our port: our own copies, as a loop. When they change, or what else is local (`changes`
        counts that), subscribers that are our own ingest because of it get nothing; returns how
        many. Raises OSError.
        """
        own = dict(addresses)
        ingest = self._rules.policy.ingest.ip
        if not ingest.is_unspecified:
            own = {ingest: 0}
        before, now = self._local, (own, changes)
        if now == before:
            return 0
        if before is None or own != before[0]:
            ips = sorted(own, key=str)
            interfaces = [own[ip] for ip in ips]
            self._engine.set_local_addresses([Address(ip, 0) for ip in ips], interfaces)
            if before is not None:
                self._engine.follow_sources()
        self._local = now
        return 0 if before is None else self.judge_ingest()

    def on_interfaces(self, now: Mapping[str, int]) -> int:
        """Housekeeping: `now` has the index of each interface by its name.

        Link-local sources and subscribers of one that was removed and made anew get its new index;
        how many.
        """
        state = self._state
        with state.lock:
            changed = self._zones.moved(now)
            sessions = list(state.in_order) if changed else []
        count = 0
        for session in sessions:
            try:
                count += self._subscribers.move_zones(session.session_id, changed)
                count += self._updating.move_zones(session.session_id, changed)
            except RtpFanoutError as error:  # deleted meanwhile; its place is taken
                _log.warning(
                    "a session is not moved to the new index of its interface",
                    session_id=session.session_id,
                    reason=error.message,
                )
        if changed:
            _log.info("interfaces have other indexes", indexes=changed, moved=count)
        return count

    def follow_sources(self) -> None:
        """Once, some time after the start: for whom it matters from which of our addresses packets
        leave, because an interface has several. Changes of the addresses do it again.
        """
        self._engine.follow_sources()

    def judge_ingest(self) -> int:
        """What is local may have changed: subscribers that are our own ingest get nothing, those
        that aren't any more do; how many are refused now.
        """
        state = self._state
        with state.lock:
            candidates = [session for session in state.in_order if session.at_ingest_port]
            state.room_for_sessions = True  # a source may not be ours any more
        refused, _ = self._judge.some(candidates)
        state.count("loops_withheld", refused)
        return refused

    def judge_policy(self) -> int:
        """The policy or the limits are others: what they refuse gets nothing, and what they don't
        any more is served; how many subscribers are refused that weren't.

        About 0.4 us for each that there is; it never waits for the store.
        """
        state = self._state
        refused, _ = self._judge.all()
        state.count("policy_withheld", refused)
        self._refused.serve_again()
        return refused

    def serve_again(self) -> None:
        """Housekeeping, about once a second: what is refused may be served, since others went."""
        state = self._state
        if state.room_for_sessions and state.refused:
            self._refused.serve_again()
        if state.has_room:
            state.has_room = False
            if state.refused_subscribers:
                self._judge.all(only_refused=True)
