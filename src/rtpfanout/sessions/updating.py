"""Changing what a session is: by a call, by a signed move, by the first packet of a latch.

Written first, then applied. A session is changed by one at a time, and its old source feeds it
until the new one does.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.errors import (
    AbortedError,
    NotFoundError,
    PermissionDeniedError,
    RtpFanoutError,
)
from rtpfanout.model import Consent, SourcePolicy
from rtpfanout.policy import SOURCE_FIELD
from rtpfanout.seldom import Seldom
from rtpfanout.sessions import fields
from rtpfanout.sessions.changes import Change, ChangeType
from rtpfanout.sessions.requests import Once
from rtpfanout.sessions.source import loop_error, read_source
from rtpfanout.sessions.subscribers import records_of
from rtpfanout.sessions.terms import (
    Terms,
    engine_source,
    latch_terms,
    moved,
    read_limits,
    source_taken,
)
from rtpfanout.sessions.zones import in_zone

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtpfanout._fastpath import Engine
    from rtpfanout.model import Address
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.clock import Clock
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.rules import Rules
    from rtpfanout.sessions.state import State
    from rtpfanout.sessions.views import SessionView
    from rtpfanout.sessions.zones import Zones

_log = structlog.stdlib.get_logger(__name__)
_NO_ID = Once("", b"", None, 0)
_MOST_REFUSALS, _MOST_PINS = 10, 1000
"""Lines a minute about those who knock at a latch: anybody can."""


@dataclass(eq=False, slots=True)
class Updating:
    """Whatever replaces a session's Terms."""

    state: State
    engine: Engine
    clock: Clock
    rules: Rules
    journal: Journal
    changes: ChangeLog
    zones: Zones
    consents: Consents
    _refusals: Seldom = field(default_factory=lambda: Seldom(_MOST_REFUSALS))
    _pins: Seldom = field(default_factory=lambda: Seldom(_MOST_PINS))

    def update(
        self, session_id: str, changes: Mapping[str, Any], if_revision: int, once: Once
    ) -> SessionView:
        """`changes` are the arguments of SessionManager.update that are not None."""
        state = self.state
        with state.work(session_id) as session:
            if if_revision and if_revision != session.revision:
                raise AbortedError(
                    f"the session is at revision {session.revision}, not {if_revision}; read it"
                    " again and decide anew",
                    field="if_revision",
                )
            after = self._read(session.terms, changes)
            if after == session.terms and not once.has_id:
                with state.lock:
                    return state.view(session)
            return self._change(session, after, once)

    def move(self, session_id: str, address: Address, counter: int, move_key: bytes) -> None:
        """A move that the source signed with that key.

        Raises NotFoundError (the key is another by now), PermissionDeniedError (an old counter).
        """
        state = self.state
        self.rules.policy.check_source(address)
        with state.work(session_id) as session:
            terms = session.terms
            if not move_key or move_key != terms.move_key:
                raise NotFoundError(
                    "no session of this SSRC has the key that signed", field="move_key"
                )
            with state.lock:
                reached = state.move_keys.reached(session.ssrc, terms)
            if counter <= reached:
                raise PermissionDeniedError(
                    f"counter {counter} is not above {reached}, which was accepted"
                    " already; count every move up",
                    field="counter",
                )
            self._change(session, replace(moved(terms, address), move_counter=counter), _NO_ID)
        state.count("moved")

    def move_zones(self, session_id: str, changed: Mapping[int, int]) -> bool:
        """Interfaces have other indexes now: so has a link-local source; whether it was one.

        Raises as `move`.
        """
        with self.state.work(session_id) as session:
            terms = session.terms
            address = terms.feeder or terms.source.base
            if address is None or (now := in_zone(address, changed)) == address:
                return False
            self._change(session, moved(terms, now), _NO_ID)
        return True

    def pin(self, handle: int, address: Address) -> bool:
        """The first packet of a latch came from `address`; whether it is pinned now."""
        state = self.state
        with state.lock:
            found = state.by_handle.get(handle)
        if found is None:
            return False
        try:
            with state.work(found.session_id) as session:
                if not self._may_pin(session, address):
                    return False
                self.rules.policy.check_source(address)
                self._change(session, replace(session.terms, pinned=address), _NO_ID)
        except NotFoundError:
            return False  # deleted meanwhile
        except RtpFanoutError as error:
            state.count("pin_refused")
            self._refusals.write(
                _log.warning,
                "source not pinned",
                session_id=found.session_id,
                reason=error.message,
            )
            return False
        state.count("pinned")
        self._pins.write(
            _log.info, "source pinned", session_id=found.session_id, source=str(address)
        )
        return True

    def _may_pin(self, session: Session, address: Address) -> bool:
        terms = session.terms
        source = terms.source
        if source.policy is not SourcePolicy.LATCH or not source.admits(address):
            return False
        clock = self.clock
        if terms.pinned is None:
            return clock.wall_secs() <= terms.latch_until
        now = clock.monotonic_ns()
        last = self.engine.session_stats(session.handle, now)["last_packet_ns"]
        silence = now - max(int(last), session.fed_since_ns)
        return (
            terms.pinned != address
            and source.relatch_after_ns > 0
            and silence >= source.relatch_after_ns
        )

    def _read(self, terms: Terms, changes: Mapping[str, Any]) -> Terms:
        """`terms` with the changes, each checked."""
        read = read_limits(changes) | self._read_source(terms, changes)
        if changes.get("labels"):
            read["labels"] = fields.changed_labels(terms.labels, changes["labels"])
        return replace(terms, **read)

    def _read_source(self, terms: Terms, changes: Mapping[str, Any]) -> dict[str, Any]:
        names = ("source_policy", "source_address", "latch_window_secs", "relatch_after_secs")
        named = [name for name in names if name in changes]
        if not named:
            return {}
        before = terms.source
        policy = changes.get("source_policy", before.policy.value) or SourcePolicy.EXACT.value
        is_latch = policy == SourcePolicy.LATCH
        source = read_source(
            policy,
            changes.get("source_address", before.text),
            changes.get("latch_window_secs", before.latch_window_secs if is_latch else 0),
            changes.get("relatch_after_secs", before.relatch_after_secs if is_latch else 0),
            self.rules.policy,
        )
        if named == ["relatch_after_secs"] and is_latch:
            return {"source": source}  # whoever is pinned stays so
        return {"source": source} | latch_terms(source, self.clock.wall_secs())

    def _change(self, session: Session, after: Terms, once: Once) -> SessionView:
        """Writes `after`, then applies it; nobody else is at work on the session."""
        state = self.state
        before = session.terms
        with state.lock:
            old_key = before.key(session.ssrc)
            new_key = after.key(session.ssrc)
            self._check(session, after, new_key != old_key and new_key in state.keys)
            if after.move_key != before.move_key:
                counter = state.move_keys.take(session.session_id, session.ssrc, after)
                after = replace(after, move_counter=counter)
            state.keys.add(new_key)
            self.zones.note(after.source_scopes)
            session.next_feeder = after.feeder
            slot = self.changes.begin()
            new = copy.copy(session)
            new.terms, new.revision = after, slot.revision
            view = state.view(new)
            written = self.journal.save_session(new, once.answer(view.to_json()), before)
        try:
            written.result()
            self._apply_or_unwrite(session, before, after)
        except BaseException:
            with state.lock:
                if new_key != old_key:
                    state.keys.discard(new_key)
                self._give_back(session, after, before)
                session.next_feeder = None
                self.changes.settle(slot, None)
            raise
        with state.lock:
            # Who saw it by the old labels alone is shown nothing of what it is now.
            gone = state.view(session) if after.labels != before.labels else None
            session.terms, session.revision = after, slot.revision
            self._give_back(session, before, after)
            session.next_feeder = None
            if new_key != old_key:
                state.keys.discard(old_key)
            if new_key != old_key or before.paused != after.paused:
                session.fed_since_ns = self.clock.monotonic_ns()
            shown = state.view(session)
            change = Change(slot.revision, ChangeType.UPDATED, shown, before.labels, gone)
            self.changes.settle(slot, change)
        return view

    def _give_back(self, session: Session, lost: Terms, kept: Terms) -> None:
        """The move key of `lost`, unless it is that of `kept`. The lock is held."""
        state = self.state
        if lost.move_key != kept.move_key:
            forgotten = state.move_keys.give_back(session.session_id, session.ssrc, lost)
            self.journal.forget_move_counters(forgotten)

    def _check(self, session: Session, after: Terms, is_taken: bool) -> None:
        """Raises AlreadyExistsError, AddressDeniedError. The lock is held."""
        if is_taken:
            raise source_taken(session.ssrc, after)
        feeder = after.feeder
        if feeder is None or feeder == session.terms.feeder:
            return
        (standing,) = self.engine.find_subscribers(session.handle, feeder.record)
        if standing is not None:
            raise loop_error(feeder, SOURCE_FIELD)

    def _apply_or_unwrite(self, session: Session, before: Terms, after: Terms) -> None:
        """If the engine can't (it has no memory), the store has the old terms again."""
        try:
            self._apply(session, before, after)
        except Exception:
            with self.state.lock:
                self.journal.save_session(session, None)
            raise

    def _apply(self, session: Session, before: Terms, after: Terms) -> None:
        engine, handle = self.engine, session.handle
        # Paused first and resumed last: nothing comes in by half of a change.
        if after.paused and not before.paused:
            engine.pause_session(handle, True)
        if (after.source, after.pinned) != (before.source, before.pinned):
            address, options = engine_source(after)
            engine.move_session(handle, address, **options)
        if after.ingest_limit_bps != before.ingest_limit_bps:
            engine.limit_session(handle, after.ingest_limit_bps)
        if after.consent is not before.consent:
            change = self.consents.begin if after.consent is Consent.ECHO else self.consents.end
            change(session, records_of(engine, session))
        if before.paused and not after.paused:
            engine.pause_session(handle, False)
