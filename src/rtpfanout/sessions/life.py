"""Beginning and end of sessions: by calls, and by deadlines that housekeeping looks after."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from rtpfanout._fastpath import KEYFRAME_FORMATS
from rtpfanout.errors import LimitError, NotFoundError, RtpFanoutError
from rtpfanout.model import ChangeKind, EventKind
from rtpfanout.portrange import AUTO
from rtpfanout.sessions.feeding import (
    engine_class,
    engine_dscp,
    engine_judges,
    engine_reading,
    engine_source,
    source_taken,
)
from rtpfanout.sessions.media import set_media
from rtpfanout.sessions.names import which
from rtpfanout.sessions.record import Session
from rtpfanout.sessions.standing import same_session
from rtpfanout.sessions.state import Part

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rtpfanout.model import MediaType
    from rtpfanout.overload import HighWater
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.requests import Once
    from rtpfanout.sessions.subscribers import Subscribers
    from rtpfanout.sessions.terms import Terms
    from rtpfanout.sessions.views import SessionView
    from rtpfanout.sessions.zones import Zones

_log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Life(Part):
    """Creates and ends sessions."""

    journal: Journal
    changes: ChangeLog
    zones: Zones
    high_water: HighWater
    subscribers: Subscribers

    def create(
        self, ssrc: int, kind: MediaType, terms: Terms, once: Once, *, or_find: bool = False
    ) -> SessionView:
        """Applied, then written; undone if the store refuses. Nobody sees it before.

        With `or_find` it is the session that is there, if that is the same.
        """
        state = self.state
        clock = self.clock
        session_id = str(uuid.uuid4())
        with state.lock:
            there = same_session(state, ssrc, kind, terms) if or_find else None
            if there is None:
                terms = self._claim(session_id, ssrc, terms)
        if there is not None:
            if answer := once.answer(there.to_json()):
                self.journal.submit([], answer).result()
            return there
        now = clock.monotonic_ns()
        try:  # without the lock: the engine waits for a move that is under way
            terms = self._with_port(session_id, ssrc, terms)
            handle = self._engine_add(ssrc, terms, now)
            set_media(self.engine, handle, terms, kind)
        except BaseException:
            with state.lock:
                self._give_up(session_id, ssrc, terms)
            raise
        with state.lock:
            self.zones.note(terms.source_scopes)
            state.sequence += 1
            revision = self.changes.begin()
            session = Session(
                session_id=session_id,
                sequence=state.sequence,
                handle=handle,
                ssrc=ssrc,
                media_type=kind,
                created_at=clock.moment(clock.wall_ns(now)),
                created_ns=now,
                created_wall_ns=clock.wall_ns(now),
                fed_since_ns=now,
                condition_since_ns=now,
                terms=terms,
                revision=revision,
            )
            view = state.view(session)
            written = self.journal.save_session(session, once.answer(view.to_json()))
        try:
            written.result()
        except BaseException:
            self._remove(handle, terms)
            with state.lock:
                self._give_up(session_id, ssrc, terms)
                self.changes.give_up(revision)
            raise
        with state.lock:
            state.insert(session)
            state.counts["created"] += 1
            self._show_created(revision, view)
        return view

    def _show_created(self, revision: int, view: SessionView) -> None:
        self.changes.show(revision, ChangeKind.CREATED, view, {})
        source = view.terms.source.text or "any"
        self.state.events.tell(EventKind.CREATED, view, detail=source)

    def _claim(self, session_id: str, ssrc: int, terms: Terms) -> Terms:
        """What no other session may have; `terms` with the counter of its move key.

        Raises AlreadyExistsError, LimitError, UnavailableError. The lock is held.
        """
        state = self.state
        self.high_water.admit()
        if state.refused and len(state.by_id) + len(state.refused) >= self.rules.limits.sessions:
            raise no_room(self)
        key = terms.key(ssrc)
        state.check_name(terms.name, session_id)
        if terms.ingest_port != AUTO and key in state.keys:
            raise source_taken(ssrc, terms, state.holder_of(key))
        counter = state.move_keys.take(session_id, ssrc, terms)
        if terms.ingest_port != AUTO:
            state.keys[key] = session_id
        state.names.take(terms.name, session_id)
        return replace(terms, move_counter=counter)

    def _with_port(self, session_id: str, ssrc: int, terms: Terms) -> Terms:
        """With the number of a port that is open, if it is to have one; the lock is not held."""
        if not terms.ingest_port:
            return terms
        terms = replace(terms, ingest_port=self.ports.claim_new(terms.ingest_port))
        with self.state.lock:
            self.state.keys[terms.key(ssrc)] = session_id
        return terms

    def _engine_add(self, ssrc: int, terms: Terms, now: int) -> int:
        try:
            return engine_add(self, ssrc, terms, now)
        except BaseException:
            self.ports.free(terms.ingest_port)
            raise

    def _remove(self, handle: int, terms: Terms) -> None:
        """Returns when no further packet of it will leave, and its port is free."""
        self.engine.remove_session(handle)
        self.ports.free(terms.ingest_port)

    def _give_up(self, session_id: str, ssrc: int, terms: Terms) -> None:
        """Another session may have it. The lock is held."""
        state = self.state
        state.keys.pop(terms.key(ssrc), None)
        state.names.give_back(terms.name, session_id)
        forgotten = state.move_keys.give_back(session_id, ssrc, terms)
        self.journal.forget_move_counters(forgotten)
        state.lock.notify_all()

    def delete(self, session_id: str, once: Once) -> None:
        """Returns when no further packet of the session will leave."""
        state = self.state
        with state.work(session_id) as session:
            with state.lock:
                revision = self.changes.begin()
                written = self.journal.delete_session(session, once.answer(""))
            self._end(session, revision, written, EventKind.DELETED)

    def expire_idle(self) -> list[SessionView]:
        """Ends sessions past the idle timeout; they are written off together."""
        timeout = self.rules.limits.session_timeout_ns
        ended: list[SessionView] = []
        idle = self.engine.tick(self.clock.monotonic_ns(), timeout)
        for start in range(0, len(idle), 1000):
            ended += self._end_together(idle[start : start + 1000])
        return ended

    def _end_together(self, handles: list[int]) -> list[SessionView]:
        state = self.state
        ended = []
        with ExitStack() as stack:
            going = []
            for handle in handles:
                with state.lock:
                    session = state.by_handle.get(handle)
                    is_idle = session is not None and self._is_idle(session)
                if session is None or not is_idle:
                    continue  # deleted by a call meanwhile, not yet created, paused
                try:
                    stack.enter_context(state.work(session.session_id))
                except NotFoundError:
                    continue
                with state.lock:
                    revision = self.changes.begin()
                    written = self.journal.delete_session(session, None)
                going.append((session, revision, written))
            for session, revision, written in going:
                try:
                    ended.append(self._end(session, revision, written, EventKind.EXPIRED))
                except RtpFanoutError as error:  # tried again in a second
                    _log.warning("session can't expire", **which(session), reason=error.message)
        return ended

    def _is_idle(self, session: Session) -> bool:
        """A pause is no silence of the source. A new source, or timeout, has all of the time."""
        terms = session.terms
        timeout = terms.idle_timeout_ns
        if timeout is None:
            timeout = self.rules.limits.session_timeout_ns
        age = self.clock.monotonic_ns() - max(session.fed_since_ns, session.timed_since_ns)
        return not terms.paused and 0 < timeout <= age

    def _end(
        self, session: Session, revision: int, written: Future[int], how: EventKind
    ) -> SessionView:
        state = self.state
        self.journal.wait(written, revision)
        with state.lock:
            view = state.view(session)
            self.subscribers.forget_all(session)
            state.forget(session)
            state.counts[how] += 1
            self.changes.show(revision, ChangeKind.DELETED, view, view.labels)
            state.events.tell(how, view, detail=_left_without(view))
        self._remove(session.handle, session.terms)
        with state.lock:
            self._give_up(session.session_id, session.ssrc, session.terms)
        return view


def _left_without(view: SessionView) -> str:
    """Of one that ended."""
    number = view.subscriber_count
    return f"{number} subscriber{'s' if number > 1 else ''}" if number else ""


def no_room(part: Part) -> LimitError:
    """To be raised. Sessions that are kept and refused hold their places."""
    most, refused = part.rules.limits.sessions, len(part.state.refused)
    count = f"{most} sessions, as many as max_sessions allows"
    if refused:
        there = len(part.state.by_id)
        count = f"{there} sessions and {refused} refused ones; max_sessions is {most}"
    return LimitError(f"there are {count}", field="max_sessions", limit=most)


def engine_add(part: Part, ssrc: int, terms: Terms, now_ns: int, followed: int = 0) -> int:
    """The handle of a session in the engine that has all of `terms`.

    `followed` is what it had before a restart, as `engine_followed` makes it. May wait for a grace
    period. Raises AlreadyExistsError, LimitError.
    """
    engine = part.engine
    address, options = engine_source(terms)
    try:
        with engine_judges(ssrc, terms):
            handle = engine.add_session(address, ssrc, now_ns, followed=followed, **options)
    except BlockingIOError:
        raise no_room(part) from None
    if reading := engine_reading(terms):
        engine.read_session(handle, reading)
    if terms.paused:
        engine.pause_session(handle, True)
    if terms.ingest_limit_bps:
        engine.limit_session(handle, terms.ingest_limit_bps)
    if terms.keyframe_request:
        engine.set_keyframe_format(handle, KEYFRAME_FORMATS[terms.keyframe_request])
    if terms.report_class:
        engine.set_report_class(handle, engine_class(terms.report_class))
    if terms.repair_source:
        engine.repair_source(handle, True)
    if terms.dscp:
        engine.mark_session(handle, engine_dscp(terms.dscp))
    if terms.ingest_port:
        try:
            part.ports.give(handle, terms.ingest_port)
        except BaseException:
            engine.remove_session(handle)
            raise
    return handle
