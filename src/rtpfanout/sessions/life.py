"""Beginning and end of sessions: by calls, and by deadlines that housekeeping looks after."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.errors import LimitError, NotFoundError, RtpFanoutError
from rtpfanout.sessions import fields
from rtpfanout.sessions.changes import Change, ChangeType
from rtpfanout.sessions.record import Session, Terms
from rtpfanout.sessions.registry import BusyError
from rtpfanout.sessions.source import read_source
from rtpfanout.sessions.updating import (
    engine_source,
    latch_terms,
    read_limits,
    source_taken,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from rtpfanout.sessions.deadlines import Deadlines
    from rtpfanout.sessions.registry import Registry
    from rtpfanout.sessions.requests import Once
    from rtpfanout.sessions.subscribers import Subscribers
    from rtpfanout.sessions.views import SessionView

_log = structlog.stdlib.get_logger(__name__)


class Life:
    """Creates and ends sessions."""

    def __init__(
        self, registry: Registry, subscribers: Subscribers, leases: Deadlines[int]
    ) -> None:
        self._registry = registry
        self._subscribers = subscribers
        self._leases = leases

    def read(self, source: tuple[str, str, float, float], values: Mapping[str, Any]) -> Terms:
        """The terms of a session to be; `source` as `read_source` takes it."""
        read = read_source(*source, self._registry.policy)
        return Terms(
            source=read,
            labels=fields.labels_of(values["labels"]),
            **latch_terms(read, self._registry.clock.wall_secs()),
            **read_limits(values),
        )

    def create(self, ssrc: int, media_type: str, terms: Terms, once: Once) -> SessionView:
        """Applied, then written; undone if the store refuses. Nobody sees it before."""
        registry = self._registry
        registry.high_water.admit()
        clock = registry.clock
        kind = fields.media_type_of(media_type)
        session_id = str(uuid.uuid4())
        if (
            registry.refused
            and len(registry.by_id) + len(registry.refused) >= registry.limits.sessions
        ):
            raise no_room(registry)
        now = clock.monotonic_ns()
        with registry.lock:
            terms = self._claim(session_id, ssrc, terms)
        try:  # without the lock: the engine waits for a move that is under way
            handle = engine_add(registry, ssrc, terms, now)
        except BaseException:
            with registry.lock:
                self._give_up(session_id, ssrc, terms)
            raise
        with registry.lock:
            registry.zones.note(terms.source_scopes)
            registry.sequence += 1
            slot = registry.changes.begin()
            session = Session(
                session_id=session_id,
                sequence=registry.sequence,
                handle=handle,
                ssrc=ssrc,
                media_type=kind,
                created_at=clock.moment(clock.wall_ns(now)),
                created_ns=now,
                created_wall_ns=clock.wall_ns(now),
                fed_since_ns=now,
                terms=terms,
                revision=slot.revision,
            )
            view = registry.view(session)
            written = registry.journal.save_session(session, once.answer(view.to_json()))
        try:
            written.result()
        except BaseException:
            registry.engine.remove_session(handle)
            with registry.lock:
                self._give_up(session_id, ssrc, terms)
                registry.changes.settle(slot, None)
            raise
        with registry.lock:
            registry.insert(session)
            registry.counts["created"] += 1
            change = Change(slot.revision, ChangeType.CREATED, view, {})
            registry.changes.settle(slot, change)
        return view

    def _claim(self, session_id: str, ssrc: int, terms: Terms) -> Terms:
        """What no other session may have; `terms` with the counter of its move key.

        Raises AlreadyExistsError. The lock is held.
        """
        registry = self._registry
        key = ssrc, terms.source.key(terms.pinned)
        if key in registry.keys:
            raise source_taken(ssrc, terms)
        counter = registry.move_keys.take(session_id, ssrc, terms)
        registry.keys.add(key)
        return replace(terms, move_counter=counter)

    def _give_up(self, session_id: str, ssrc: int, terms: Terms) -> None:
        """Another session may have it. The lock is held."""
        registry = self._registry
        registry.keys.discard((ssrc, terms.source.key(terms.pinned)))
        forgotten = registry.move_keys.give_back(session_id, ssrc, terms)
        registry.journal.forget_move_counters(forgotten)

    def delete(self, session_id: str, once: Once) -> None:
        """Returns when no further packet of the session will leave."""
        registry = self._registry
        with registry.work(session_id) as session:
            with registry.lock:
                slot = registry.changes.begin()
                written = registry.journal.delete_session(session, once.answer(""))
            self._end(session, slot, written, "deleted")

    def expire_idle(self) -> list[SessionView]:
        """Ends sessions past the idle timeout; they are written off together."""
        registry = self._registry
        timeout = registry.limits.session_timeout_ns
        ended: list[SessionView] = []
        idle = registry.engine.tick(registry.clock.monotonic_ns(), timeout)
        for start in range(0, len(idle), 1000):
            ended += self._end_together(idle[start : start + 1000])
        return ended

    def _end_together(self, handles: list[int]) -> list[SessionView]:
        registry = self._registry
        ended = []
        with ExitStack() as stack:
            going = []
            for handle in handles:
                with registry.lock:
                    session = registry.by_handle.get(handle)
                    is_idle = session is not None and self._is_idle(session)
                if session is None or not is_idle:
                    continue  # deleted by a call meanwhile, not yet created, paused
                try:
                    stack.enter_context(registry.work(session.session_id))
                except NotFoundError:
                    continue
                with registry.lock:
                    slot = registry.changes.begin()
                    written = registry.journal.delete_session(session, None)
                going.append((session, slot, written))
            for session, slot, written in going:
                try:
                    ended.append(self._end(session, slot, written, "expired"))
                except RtpFanoutError as error:  # tried again in a second
                    _log.warning("session can't expire", reason=error.message)
        return ended

    def _is_idle(self, session: Session) -> bool:
        """A pause is no silence of the source, and a new source has all of the timeout."""
        registry = self._registry
        age = registry.clock.monotonic_ns() - session.fed_since_ns
        return not session.terms.paused and age >= registry.limits.session_timeout_ns

    def expire_leases(self) -> int:
        """Ends subscribers whose lease is over; how many.

        Their deadlines are in the store, so a restart does not bring them back.
        """
        registry = self._registry
        now = registry.clock.monotonic_ns() // 10**9
        ended = 0
        with registry.lock:
            due = [registry.by_handle.get(handle) for handle in self._leases.take(now)]
        for session in due:
            if session is None:
                continue
            try:
                ended += self._expire_leases_of(session, now)
            except NotFoundError:
                continue
            except BusyError:  # perhaps a renewal
                with registry.lock:
                    self._leases.add(now + 1, session.handle)
        registry.count("leases_expired", ended)
        return ended

    def _expire_leases_of(self, session: Session, now: int) -> int:
        registry = self._registry
        expired = self._subscribers.expired(session, now)
        if not expired:
            return 0
        with registry.work(session.session_id, frozenset(expired), wait=False):
            # Those that were renewed since we looked stay.
            still = set(self._subscribers.expired(session, now))
            gone = [record for record in expired if record in still]
            self._subscribers.write_off(session, gone)
            return len(gone)

    def _end(self, session: Session, slot: Any, written: Future[int], how: str) -> SessionView:
        registry = self._registry
        try:
            written.result()
        except BaseException:
            with registry.lock:
                registry.changes.settle(slot, None)
            raise
        with registry.lock:
            view = registry.view(session)
            self._subscribers.forget_all(session)
            registry.forget(session)
            registry.counts[how] += 1
            change = Change(slot.revision, ChangeType.DELETED, view, view.labels)
            registry.changes.settle(slot, change)
        registry.engine.remove_session(session.handle)
        with registry.lock:
            self._give_up(session.session_id, session.ssrc, session.terms)
        return view


def no_room(registry: Registry) -> LimitError:
    """To be raised. Sessions that are kept and refused hold their places."""
    most, refused = registry.limits.sessions, len(registry.refused)
    count = f"{most} sessions, as many as max_sessions allows"
    if refused:
        count = f"{len(registry.by_id)} sessions and {refused} refused ones; max_sessions is {most}"
    return LimitError(f"there are {count}", field="max_sessions", limit=most)


def engine_add(registry: Registry, ssrc: int, terms: Terms, now_ns: int) -> int:
    """The handle of a session in the engine that has all of `terms`.

    May wait for a grace period. Raises AlreadyExistsError, LimitError.
    """
    engine = registry.engine
    address, options = engine_source(terms)
    try:
        handle = engine.add_session(address, ssrc, now_ns, **options)
    except FileExistsError:
        raise source_taken(ssrc, terms) from None
    except BlockingIOError:
        raise no_room(registry) from None
    if terms.paused:
        engine.pause_session(handle, True)
    if terms.ingest_limit_bps:
        engine.limit_session(handle, terms.ingest_limit_bps)
    return handle
