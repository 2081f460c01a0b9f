"""What the store has becomes sessions again: for packets first, for calls while those flow.

Every entry is checked against today's policy and limits; what they refuse is kept, withheld (see
`refused`), and told in one line of the log. Leases that ended meanwhile are over. Who has to
consent gets nothing, unless the store has a consent of this boot that isn't over.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from rtpfanout._fastpath import SSRC_POLICIES
from rtpfanout.boot import boot_id
from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import Consent, MediaType, SsrcPolicy, Withheld
from rtpfanout.sessions.admission import PORT, RECORD_BYTES, any_at_port, port_bytes, split_records
from rtpfanout.sessions.entry import Entry, Restored, divided
from rtpfanout.sessions.feeding import source_taken
from rtpfanout.sessions.journal import FOREVER_NS, session_of
from rtpfanout.sessions.life import engine_add
from rtpfanout.sessions.media import set_media
from rtpfanout.sessions.refused import RefusedSession
from rtpfanout.sessions.source import EXACT_PREFIX, plain_source
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.terms import terms_of
from rtpfanout.store import runs_of, writes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.deadlines import Deadlines
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.subscribers import Subscribers
    from rtpfanout.sessions.zones import Zones
    from rtpfanout.store import (
        Store,
        StoredDelivery,
        StoredSession,
        StoredSource,
        SubscriberRow,
        SubscriberRun,
        Write,
    )

_log = structlog.stdlib.get_logger(__name__)
_CHANGES_AT_A_TIME = 1000
_AT_A_TIME = 250
_ECHO = Consent.ECHO.value  # as the store has it
_CONSENTS = {"", *map(str, Consent)}
_HIGHEST_SSRC = _LATEST_LEASE = 2**32 - 1  # seconds, as the engine has them
FAULTS = (RtpFanoutError, ValueError, OverflowError)  # the latter two of what nobody wrote


@dataclass(eq=False, slots=True)
class Restoring(Part):
    """Used once, at the start, by one thread: first `packets`, then `calls`.

    The time until packets flow again is what a killed server costs, so `packets` makes no
    object that only calls need: about 5 us a session instead of 40.
    """

    journal: Journal
    subscribers: Subscribers
    consents: Consents
    zones: Zones
    leases: Deadlines[int]
    _result: Restored = field(default_factory=Restored)
    _drops: list[Write] = field(default_factory=list)
    _refused: list[tuple[StoredSession, Exception]] = field(default_factory=list)
    _entries: dict[int, Entry] = field(default_factory=dict)  # by sequence, as the handles
    _handles: dict[int, int] = field(default_factory=dict)
    # By sequence, of sessions that are refused.
    _undelivered: dict[int, list[StoredDelivery]] = field(default_factory=lambda: defaultdict(list))
    _has_echo: bool = False
    # By sequence and record until when, in seconds of time.monotonic().
    _consented: dict[int, dict[bytes, float]] = field(default_factory=lambda: defaultdict(dict))
    _served: int = 0  # subscribers

    def packets(self, store: Store) -> None:
        """The engine has all that the store has, or what of it is still admitted."""
        self.state.sequence = store.sequence
        self._add_sessions(store)
        self.ports.close_unclaimed()
        if self._has_echo:
            for sequence, record, until in store.consents(boot_id(), self.clock.monotonic_ns()):
                secs = math.inf if until == FOREVER_NS else until / 1e9
                self._consented[sequence][record] = secs
        feeders = {entry.feeder for entry in self._entries.values() if entry.feeder}
        for rows in store.subscribers():
            if not self._add_rows(rows, feeders):
                self._add_runs(list(self._wanted(runs_of(rows))))
        self._deliver(store.deliveries())

    def calls(self, store: Store) -> Restored:
        """Calls find it, and what is refused."""
        state = self.state
        rows = store.sessions()
        with state.lock:
            state.move_keys.restore(store.move_counters(), rows)
        for row in rows:
            entry = self._entries.pop(row.sequence, None)
            if entry is not None:
                self._insert(row, entry)
        with state.lock:
            self.journal.forget_move_counters(state.move_keys.settle())
        for row, error in self._refused:
            runs = list(runs_of(store.subscribers_of(row.sequence)))
            state.refused[row.session_id] = RefusedSession(
                row, runs, str(error), self._undelivered.get(row.sequence, ())
            )
            state.names.take(row.name, row.session_id)
        for start in range(0, len(self._drops), _CHANGES_AT_A_TIME):
            store.submit(self._drops[start : start + _CHANGES_AT_A_TIME])
        self._result.tell()
        state.counts["restore_refused"] += self._result.refused
        return self._result

    # --- for packets ---

    def _add_sessions(self, store: Store) -> None:
        """Those with a plain source, which are most, together; the others one by one."""
        now = self.clock.monotonic_ns()
        others: set[int] = set()
        rows = store.sources()
        while some := list(islice(rows, _AT_A_TIME)):
            others.update(self._add_plain(some, now))
        if others:
            for row in store.sessions():
                if row.sequence in others:
                    self._add_session(row, now)

    def _add_plain(self, rows: list[StoredSource], now: int) -> Iterator[int]:
        """Yields the sequences of those that take more than this."""
        engine = self.engine
        plain, ssrcs, sources, followed = [], [], [], []
        prefixes, policies = bytearray(), bytearray()
        for row in rows:
            source = plain_source(row) if row.consent in _CONSENTS else None
            if source is None or row.ingest_port or row.dscp or row.speaks_rtcp:
                yield row.sequence
                continue
            if not 0 <= row.ssrc <= _HIGHEST_SSRC or row.ingest_limit_bps < 0:
                yield row.sequence
                continue
            plain.append(row)
            ssrcs.append(row.ssrc)
            followed.append(max(0, row.followed))
            sources.append(source[0])
            prefixes.append(source[1])
            policies.append(SSRC_POLICIES[row.ssrc_policy or SsrcPolicy.EXACT])
        handles = engine.add_sessions(
            b"".join(sources), bytes(prefixes), ssrcs, now, bytes(policies), followed
        )
        for row, record, prefix, handle in zip(plain, sources, prefixes, handles, strict=True):
            if handle is None:  # why, the other way will tell
                yield row.sequence
                continue
            feeder = record if prefix == EXACT_PREFIX and any(record[PORT]) else None
            self._enter(row.sequence, Entry(handle, feeder, is_echo=row.consent == _ECHO))
            if row.paused:
                engine.pause_session(handle, True)
            if row.ingest_limit_bps:
                engine.limit_session(handle, row.ingest_limit_bps)

    def _add_session(self, row: StoredSession, now: int, *, is_first: bool = True) -> None:
        try:
            if row.ingest_port and is_first:  # its own as long as it is kept, even refused
                self.ports.claim(row.ingest_port)
            terms = terms_of(row, self.rules.policy)
            if terms.ingest_limit_bps < 0:
                raise ValueError(f"ingest_limit_bps is {terms.ingest_limit_bps}")
            if terms.ingest_port:
                self.ports.open(terms.ingest_port)
            handle = engine_add(self, row.ssrc, terms, now, max(0, row.followed))
        except FAULTS as error:
            self._refuse_session(row, error)
            return
        feeder = terms.feeder.record if terms.feeder else None
        entry = Entry(handle, feeder, is_echo=terms.consent is Consent.ECHO)
        entry.terms = terms
        self._enter(row.sequence, entry)

    def _enter(self, sequence: int, entry: Entry) -> None:
        self._entries[sequence] = entry
        self._handles[sequence] = entry.handle
        self._has_echo |= entry.is_echo

    def _add_rows(self, rows: list[SubscriberRow], feeders: set[bytes]) -> bool:
        """Whether all were added; False where some need a closer look.

        Then it is `_add_runs` that adds, which takes three times as long; some may be there.
        """
        limits = self.rules.limits
        now = self.clock.wall_ns()
        addresses = [row[5] for row in rows]
        records = b"".join(addresses)
        if (
            self._has_echo
            or limits.subscribers_per_ip
            or len(rows) > limits.subscribers - self._served
            or any(row[2] and row[2] <= now for row in rows)  # leases that are over
            or not feeders.isdisjoint(addresses)
        ):
            return False
        try:
            self.rules.admission.admitted(records)
            done, leases = self.engine.add_subscriber_rows(
                self._handles, rows, self.clock.monotonic_of(0)
            )
        except (RtpFanoutError, BlockingIOError, OverflowError):  # policy, limit, damage
            return False
        for sequence, added, last_since in done:
            entry = self._entries[sequence]
            entry.subscribers = added
            entry.last_since = last_since
            self._served += added
        for sequence, until in leases:
            self._entries[sequence].leases |= {until}
        ingress_port = self.rules.policy.ingress.port
        if any_at_port(records, ingress_port):
            port = port_bytes(ingress_port)
            for sequence in {row[0] for row in rows if row[5][PORT] == port}:
                if sequence in self._entries:
                    self._entries[sequence].at_ingress_port = True
        return True

    def _wanted(self, runs: Iterator[SubscriberRun]) -> Iterator[SubscriberRun]:
        """Those of sessions that are there, with leases that aren't over."""
        now = self.clock.wall_ns()
        for run in runs:
            if run.sequence not in self._entries:
                continue
            if run.lease_ns and run.lease_ns <= now:
                self._result.expired_subscribers += len(run.records) // RECORD_BYTES
                self._drops.append(writes.drop_subscribers(run.sequence, run.records))
            else:
                yield run

    def _add_runs(self, runs: list[SubscriberRun]) -> None:
        """Looks at all records at once where it can: one by one costs several times as much."""
        records = b"".join([run.records for run in runs])
        try:
            self.rules.admission.admitted(records)
            looks = False
        except RtpFanoutError:
            looks = True
        port = self.rules.policy.ingress.port
        at_ingress_port = any_at_port(records, port)
        is_counted = bool(self.rules.limits.subscribers_per_ip)
        lifted = []
        for run in runs:
            entry = self._entries[run.sequence]
            if is_counted or entry.is_echo:
                entry.records += run.records
            if at_ingress_port:
                entry.at_ingress_port |= any_at_port(run.records, port)
            lease_until = 0
            if run.lease_ns:  # in seconds of time.monotonic()
                lease_until = round(self.clock.monotonic_of(run.lease_ns) / 1e9)
                lease_until = min(lease_until, _LATEST_LEASE)
                entry.leases |= {lease_until}
            for records, is_refused in self._parts(run, entry, looks=looks):
                added = len(records) // RECORD_BYTES
                since = max(run.since_ns, entry.last_since + 1)
                # Who is refused takes no room from who is served, whatever came first.
                fits = entry.subscribers + added <= self.rules.limits.fanout
                withheld = Withheld.CONSENT if entry.is_echo else 0
                withheld |= 0 if fits else Withheld.REFUSED
                if is_refused:
                    withheld |= Withheld.REFUSED
                    entry.refused += added
                else:
                    self._served += added
                    if not fits:
                        lifted.append((entry.handle, records, Withheld.REFUSED))
                self.engine.add_subscribers(
                    entry.handle,
                    records,
                    since,
                    lease_until=lease_until,
                    subscriber_class=run.subscriber_class,
                    withheld=withheld,
                )
                if run.rtcp:
                    self.engine.set_rtcp(entry.handle, records, run.rtcp)
                entry.last_since = since + added - 1
                entry.subscribers += added
            if entry.is_echo and run.sequence in self._consented:
                there = self._consented[run.sequence].keys() & split_records(run.records)
                lifted.append((entry.handle, b"".join(there), Withheld.CONSENT))
        for handle, records, reason in lifted:
            self.engine.withhold(handle, records, reason, False)

    def _parts(
        self, run: SubscriberRun, entry: Entry, *, looks: bool
    ) -> Iterator[tuple[bytes, bool]]:
        """(records, whether they are refused)."""
        left, refused, reason = divided(run, entry, self.rules, self._served, looks=looks)
        if left:
            yield left, False
        if refused:
            self._result.refused_subscribers += len(refused)
            self._result.first_reason = self._result.first_reason or reason
            yield b"".join(refused), True

    def _refuse_session(self, row: StoredSession, error: Exception) -> None:
        self._result.first_reason = self._result.first_reason or str(error)
        self._result.refused_sessions += 1
        self._refused.append((row, error))

    def _deliver(self, deliveries: Iterable[StoredDelivery]) -> None:
        """Copies leave from the address of ours that each has spoken to, as before."""
        by_address: dict[tuple[int, bytes], list[bytes]] = defaultdict(list)
        for each in deliveries:
            sequence, record, local = each
            self.zones.spoke_to(sequence, [record], local)
            if sequence in self._handles:
                by_address[self._handles[sequence], local].append(record)
            else:
                self._undelivered[sequence].append(each)
        for (handle, local), records in by_address.items():
            self.engine.deliver_from(handle, b"".join(records), local)

    # --- while running ---

    def again(self, refused: RefusedSession) -> Session:
        """One that is kept is served. Raises one of FAULTS: it is refused still."""
        state = self.state
        row = refused.row
        terms = terms_of(row, self.rules.policy)
        MediaType(row.media_type)
        key = terms.key(row.ssrc)
        with state.lock:
            if key in state.keys:
                raise source_taken(row.ssrc, terms)
            state.check_name(row.name, row.session_id)
            state.keys[key] = row.session_id
        try:
            self._add_session(row, self.clock.monotonic_ns(), is_first=False)
            if self._refused:
                raise self._refused[0][1]
            self._served = state.total_subscribers - state.refused_subscribers
            self._add_runs(list(self._wanted(iter(refused.runs))))
            self._deliver(refused.deliveries)
            self._insert(row, self._entries[row.sequence])
        except BaseException:
            with state.lock:
                state.keys.pop(key, None)
                state.lock.notify_all()
            if entry := self._entries.get(row.sequence):
                self.engine.remove_session(entry.handle)
            raise
        if self._drops:
            self.journal.submit(self._drops)
        return state.by_handle[self._handles[row.sequence]]

    # --- for calls ---

    def _insert(self, row: StoredSession, entry: Entry) -> None:
        state = self.state
        try:
            terms = entry.terms or terms_of(row, self.rules.policy)
            media_type = MediaType(row.media_type)
            with state.lock:
                state.check_name(row.name, row.session_id)
        except FAULTS as error:
            self.engine.remove_session(entry.handle)
            self._refuse_session(row, error)
            return
        session = session_of(row, entry.handle, media_type, terms, self.clock)
        set_media(self.engine, entry.handle, terms, media_type)
        session.last_since, session.at_ingress_port = entry.last_since, entry.at_ingress_port
        state.keys[terms.key(row.ssrc)] = row.session_id
        for lease in entry.leases:
            self.leases.add(lease, entry.handle)
        with state.lock:
            counter = state.move_keys.take_again(session.session_id, session.ssrc, terms)
            session.terms = replace(terms, move_counter=counter)
            state.names.take(row.name, row.session_id)
            state.insert(session)
            if row.was_fed:
                state.awaited.add(entry.handle)
            self.subscribers.count_restored(session, entry.subscribers, entry.records)
            if entry.refused:
                state.recount_refused(session)
            if session.terms.consent is Consent.ECHO:
                records = split_records(entry.records)
                self.consents.expect(session.session_id, records)
                until = self._consented.get(row.sequence, {})
                self.consents.restored(session.session_id, records, until)
        self._result.sessions += 1
        self._result.subscribers += entry.subscribers - entry.refused
