"""Changing what a session is: by a call, by a signed move, by the first packet of a latch.

Written first, then applied. A session is changed by one at a time, and its old source feeds it
until the new one does.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout._fastpath import KEYFRAME_FORMATS
from rtpfanout.errors import AbortedError, InvalidArgumentError
from rtpfanout.model import ChangeKind, Consent
from rtpfanout.policy import SOURCE_FIELD
from rtpfanout.portrange import AUTO
from rtpfanout.sessions import fields
from rtpfanout.sessions.asked import changed_terms
from rtpfanout.sessions.describing import with_sdp
from rtpfanout.sessions.feeding import (
    engine_class,
    engine_dscp,
    engine_judges,
    engine_reading,
    engine_source,
    source_taken,
)
from rtpfanout.sessions.media import set_media
from rtpfanout.sessions.source import loop_error
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.subscribers import records_of
from rtpfanout.sessions.telling import tell_update

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.requests import Once
    from rtpfanout.sessions.terms import Terms
    from rtpfanout.sessions.views import SessionView
    from rtpfanout.sessions.zones import Zones

_log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Updating(Part):
    """Whatever replaces a session's Terms."""

    journal: Journal
    changes: ChangeLog
    zones: Zones
    consents: Consents

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
            now = self.clock.wall_secs()
            _, changes = with_sdp(changes, session.media_type)
            terms = {name: value for name, value in changes.items() if name != "ssrc"}
            ssrc = fields.ssrc_of(changes.get("ssrc", session.ssrc))
            after = changed_terms(session.terms, terms, self.rules.policy, now)
            if after.ingest_port == AUTO and session.terms.ingest_port:
                after = replace(after, ingest_port=session.terms.ingest_port)
            if ssrc == 0 and "ssrc" not in changes and session.terms.any_ssrc > after.any_ssrc:
                raise InvalidArgumentError(
                    "exact, but of which SSRC? give ssrc as well", field="ssrc_policy"
                )
            if after == session.terms and ssrc == session.ssrc and not once.has_id:
                with state.lock:
                    return state.view(session)
            return self.change(session, after, once, ssrc)

    def change(
        self, session: Session, after: Terms, once: Once, ssrc: int | None = None
    ) -> SessionView:
        """Writes `after`, then applies it; nobody else is at work on the session.

        `ssrc`: None is the one that it has.
        """
        before, opened = session.terms.ingest_port, 0
        if after.ingest_port not in (0, before):
            opened = self.ports.claim_new(after.ingest_port)
            after = replace(after, ingest_port=opened)
        try:
            view = self._change(session, after, once, session.ssrc if ssrc is None else ssrc)
        except BaseException:
            self.ports.free(opened)
            raise
        if before != after.ingest_port:
            self.ports.free(before)
        return view

    def _change(self, session: Session, after: Terms, once: Once, ssrc: int) -> SessionView:
        state = self.state
        before, old = session.terms, session.ssrc
        with state.lock:
            old_key = before.key(old)
            new_key = after.key(ssrc)
            if new_key != old_key and new_key in state.keys:
                raise source_taken(ssrc, after, state.holder_of(new_key))
            self._check(session, after)
            if after.move_key != before.move_key or (after.move_key and ssrc != old):
                counter = state.move_keys.take(session.session_id, ssrc, after)
                after = replace(after, move_counter=counter)
            state.keys[new_key] = session.session_id
            state.names.take(after.name, session.session_id)
            self.zones.note(after.source_scopes)
            session.next_feeder = after.feeder
            revision = self.changes.begin()
            new = copy.copy(session)
            new.terms, new.ssrc, new.revision = after, ssrc, revision
            if _begins_anew((old, before), (ssrc, after)):
                new.followed = 0
            view = state.view(new)
            written = self.journal.save_session(new, once.answer(view.to_json()), session)
        try:
            written.result()
            self._apply_or_unwrite(session, after, ssrc)
        except BaseException:
            with state.lock:
                if new_key != old_key:
                    del state.keys[new_key]
                self._give_back(session, (ssrc, after), (old, before))
                session.next_feeder = None
                self.changes.give_up(revision)
            raise
        with state.lock:
            # Who saw it by the old labels alone is shown nothing of what it is now.
            gone = state.view(session) if after.labels != before.labels else None
            session.terms, session.revision = after, revision
            if _begins_anew((old, before), (ssrc, after)):
                session.followed = 0
            state.renumber(session, ssrc)
            state.note_latch(session)
            self._give_back(session, (old, before), (ssrc, after))
            session.next_feeder = None
            now = self.clock.monotonic_ns()
            if new_key != old_key:
                del state.keys[old_key]
            if new_key != old_key or before.paused != after.paused:
                session.fed_since_ns = now
            if before.idle_timeout_ns != after.idle_timeout_ns:
                session.timed_since_ns = now
            shown = state.view(session)
            self.changes.show(
                revision, ChangeKind.UPDATED, shown, before.labels, gone, _cause(before, after)
            )
            tell_update(state.events, (old, before), shown)
        return view

    def _give_back(
        self, session: Session, lost: tuple[int, Terms], kept: tuple[int, Terms]
    ) -> None:
        """Name and move key of `lost`, unless they are those of `kept`. The lock is held."""
        state = self.state
        (ssrc, terms), (other, others) = lost, kept
        if terms.name != others.name:
            state.names.give_back(terms.name, session.session_id)
        if (ssrc, terms.move_key) != (other, others.move_key):
            forgotten = state.move_keys.give_back(session.session_id, ssrc, terms)
            self.journal.forget_move_counters(forgotten)

    def _check(self, session: Session, after: Terms) -> None:
        """Raises AlreadyExistsError, AddressDeniedError. The lock is held."""
        self.state.check_name(after.name, session.session_id)
        feeder = after.feeder
        if feeder is None or feeder == session.terms.feeder:
            return
        (standing,) = self.engine.find_subscribers(session.handle, feeder.record)
        if standing is not None:
            raise loop_error(feeder, SOURCE_FIELD)

    def _apply_or_unwrite(self, session: Session, after: Terms, ssrc: int) -> None:
        """If the engine can't (it has no memory), the store has the old terms again."""
        try:
            self._apply(session, after, ssrc)
        except Exception:
            with self.state.lock:
                self.journal.save_session(session, None)
            raise

    def _apply(self, session: Session, after: Terms, ssrc: int) -> None:
        engine, handle, before = self.engine, session.handle, session.terms
        # Paused first and resumed last: nothing comes in by half of a change.
        if after.paused and not before.paused:
            engine.pause_session(handle, True)
        if ssrc != session.ssrc or engine_source(after) != engine_source(before):
            self._move(handle, after, ssrc, pins=_pins(before, after))
        if engine_reading(after) != engine_reading(before):
            engine.read_session(handle, engine_reading(after))
        if after.ingest_port not in (0, before.ingest_port):
            try:
                self.ports.give(handle, after.ingest_port)
            except BaseException:
                self._move(handle, before, session.ssrc)
                if before.ingest_port:
                    self.ports.give(handle, before.ingest_port)
                raise
        if after.keyframe_request != before.keyframe_request:
            engine.set_keyframe_format(handle, KEYFRAME_FORMATS[after.keyframe_request or "pli"])
        if after.report_class != before.report_class:
            engine.set_report_class(handle, engine_class(after.report_class))
        if after.repair_source != before.repair_source:
            engine.repair_source(handle, after.repair_source)
        if after.dscp != before.dscp:
            engine.mark_session(handle, engine_dscp(after.dscp))
        if after.ingest_limit_bps != before.ingest_limit_bps:
            engine.limit_session(handle, after.ingest_limit_bps)
        if (after.encoding, after.srtp) != (before.encoding, before.srtp):
            set_media(engine, handle, after, session.media_type)
        if after.idle_timeout_ns != before.idle_timeout_ns:
            engine.set_idle_timeout(handle, after.idle_timeout_ns)
        if after.consent is not before.consent:
            change = self.consents.begin if after.consent is Consent.ECHO else self.consents.end
            change(session, records_of(engine, session))
        if before.paused and not after.paused:
            engine.pause_session(handle, False)

    def _move(self, handle: int, to: Terms, ssrc: int, *, pins: bool = False) -> None:
        address, options = engine_source(to)
        with engine_judges(ssrc, to):
            self.engine.move_session(handle, address, ssrc=ssrc, pins=pins, **options)


def _pins(before: Terms, after: Terms) -> bool:
    """Whether a latch takes who knocked, and nothing else of its source changes."""
    return after.pinned not in (None, before.pinned) and after.source == before.source


def _begins_anew(before: tuple[int, Terms], after: tuple[int, Terms]) -> bool:
    """Whether what it followed is of interest no more."""
    (old, was), (ssrc, now) = before, after
    asked = (old, was.source, was.pinned, was.ssrc_policy, was.ingest_port)
    return asked != (ssrc, now.source, now.pinned, now.ssrc_policy, now.ingest_port)


def _cause(before: Terms, after: Terms) -> str:
    """See `changes.Change`."""
    if (before.source, before.pinned) != (after.source, after.pinned):
        return "source"
    return "status" if before.paused is not after.paused else ""
