"""Changing what a session is: by a call, by a signed move, by the first packet of a latch.

Written first, then applied. A session is changed by one at a time, and its old source feeds it
until the new one does.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.errors import (
    AbortedError,
    AlreadyExistsError,
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
from rtpfanout.sessions.source import Source, moved, read_source, refuse_loop
from rtpfanout.sessions.subscribers import records_of
from rtpfanout.sessions.zones import in_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rtpfanout.model import Address
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.record import Session, Terms
    from rtpfanout.sessions.registry import Registry
    from rtpfanout.sessions.views import SessionView

LARGEST_LIMIT_BPS = 2**63 - 1  # as the store has it
LARGEST_COUNT = 2**31 - 1

_log = structlog.stdlib.get_logger(__name__)
_NO_ID = Once("", b"", None, 0)
_MOST_REFUSALS, _MOST_PINS = 10, 1000
"""Lines a minute about those who knock at a latch: anybody can."""


class Updating:
    """Whatever replaces a session's Terms."""

    def __init__(self, registry: Registry, consents: Consents) -> None:
        self._registry = registry
        self._consents = consents
        self._refusals, self._pins = Seldom(_MOST_REFUSALS), Seldom(_MOST_PINS)

    def update(
        self, session_id: str, changes: Mapping[str, Any], if_revision: int, once: Once
    ) -> SessionView:
        """`changes` are the arguments of SessionManager.update that are not None."""
        registry = self._registry
        with registry.work(session_id) as session:
            if if_revision and if_revision != session.revision:
                raise AbortedError(
                    f"the session is at revision {session.revision}, not {if_revision}; read it"
                    " again and decide anew",
                    field="if_revision",
                )
            after = self._read(session.terms, changes)
            if after == session.terms and not once.has_id:
                with registry.lock:
                    return registry.view(session)
            return self._change(session, after, once)

    def move(self, session_id: str, address: Address, counter: int, move_key: bytes) -> None:
        """A move that the source signed with that key.

        Raises NotFoundError (the key is another by now), PermissionDeniedError (an old counter).
        """
        registry = self._registry
        registry.policy.check_source(address)
        with registry.work(session_id) as session:
            terms = session.terms
            if not move_key or move_key != terms.move_key:
                raise NotFoundError(
                    "no session of this SSRC has the key that signed", field="move_key"
                )
            with registry.lock:
                reached = registry.move_keys.reached(session.ssrc, terms)
            if counter <= reached:
                raise PermissionDeniedError(
                    f"counter {counter} is not above {reached}, which was accepted"
                    " already; count every move up",
                    field="counter",
                )
            self._change(session, replace(moved(terms, address), move_counter=counter), _NO_ID)
        registry.count("moved")

    def move_zones(self, session_id: str, changed: Mapping[int, int]) -> bool:
        """Interfaces have other indexes now: so has a link-local source; whether it was one.

        Raises as `move`.
        """
        with self._registry.work(session_id) as session:
            terms = session.terms
            address = terms.feeder or terms.source.base
            if address is None or (now := in_zone(address, changed)) == address:
                return False
            self._change(session, moved(terms, now), _NO_ID)
        return True

    def pin(self, handle: int, address: Address) -> bool:
        """The first packet of a latch came from `address`; whether it is pinned now."""
        registry = self._registry
        with registry.lock:
            found = registry.by_handle.get(handle)
        if found is None:
            return False
        try:
            with registry.work(found.session_id) as session:
                if not self._may_pin(session, address):
                    return False
                registry.policy.check_source(address)
                self._change(session, replace(session.terms, pinned=address), _NO_ID)
        except NotFoundError:
            return False  # deleted meanwhile
        except RtpFanoutError as error:
            registry.count("pin_refused")
            self._refusals.write(
                _log.warning,
                "source not pinned",
                session_id=found.session_id,
                reason=error.message,
            )
            return False
        registry.count("pinned")
        self._pins.write(
            _log.info, "source pinned", session_id=found.session_id, source=str(address)
        )
        return True

    def _may_pin(self, session: Session, address: Address) -> bool:
        terms = session.terms
        source = terms.source
        if source.policy is not SourcePolicy.LATCH or not source.admits(address):
            return False
        clock = self._registry.clock
        if terms.pinned is None:
            return clock.wall_secs() <= terms.latch_until
        now = clock.monotonic_ns()
        last = self._registry.engine.session_stats(session.handle, now)["last_packet_ns"]
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
            self._registry.policy,
        )
        if named == ["relatch_after_secs"] and is_latch:
            return {"source": source}  # whoever is pinned stays so
        return {"source": source} | latch_terms(source, self._registry.clock.wall_secs())

    def _change(self, session: Session, after: Terms, once: Once) -> SessionView:
        """Writes `after`, then applies it; nobody else is at work on the session."""
        registry = self._registry
        before = session.terms
        with registry.lock:
            old_key = registry.key_of(session)
            new_key = session.ssrc, after.source.key(after.pinned)
            self._check(session, after, new_key != old_key and new_key in registry.keys)
            if after.move_key != before.move_key:
                counter = registry.move_keys.take(session.session_id, session.ssrc, after)
                after = replace(after, move_counter=counter)
            registry.keys.add(new_key)
            registry.zones.note(after.source_scopes)
            session.next_feeder = after.feeder
            slot = registry.changes.begin()
            new = copy.copy(session)
            new.terms, new.revision = after, slot.revision
            view = registry.view(new)
            written = registry.journal.save_session(new, once.answer(view.to_json()), before)
        try:
            written.result()
            self._apply_or_unwrite(session, before, after)
        except BaseException:
            with registry.lock:
                if new_key != old_key:
                    registry.keys.discard(new_key)
                self._give_back(session, after, before)
                session.next_feeder = None
                registry.changes.settle(slot, None)
            raise
        with registry.lock:
            # Who saw it by the old labels alone is shown nothing of what it is now.
            gone = registry.view(session) if after.labels != before.labels else None
            session.terms, session.revision = after, slot.revision
            self._give_back(session, before, after)
            session.next_feeder = None
            if new_key != old_key:
                registry.keys.discard(old_key)
            if new_key != old_key or before.paused != after.paused:
                session.fed_since_ns = registry.clock.monotonic_ns()
            shown = registry.view(session)
            change = Change(slot.revision, ChangeType.UPDATED, shown, before.labels, gone)
            registry.changes.settle(slot, change)
        return view

    def _give_back(self, session: Session, lost: Terms, kept: Terms) -> None:
        """The move key of `lost`, unless it is that of `kept`. The lock is held."""
        registry = self._registry
        if lost.move_key != kept.move_key:
            forgotten = registry.move_keys.give_back(session.session_id, session.ssrc, lost)
            registry.journal.forget_move_counters(forgotten)

    def _check(self, session: Session, after: Terms, is_taken: bool) -> None:
        """Raises AlreadyExistsError, AddressDeniedError. The lock is held."""
        if is_taken:
            raise source_taken(session.ssrc, after)
        feeder = after.feeder
        if feeder is None or feeder == session.terms.feeder:
            return
        (standing,) = self._registry.engine.find_subscribers(session.handle, feeder.record)
        if standing is not None:
            refuse_loop(feeder, SOURCE_FIELD)

    def _apply_or_unwrite(self, session: Session, before: Terms, after: Terms) -> None:
        """If the engine can't (it has no memory), the store has the old terms again."""
        try:
            self._apply(session, before, after)
        except Exception:
            with self._registry.lock:
                self._registry.journal.save_session(session, None)
            raise

    def _apply(self, session: Session, before: Terms, after: Terms) -> None:
        engine, handle = self._registry.engine, session.handle
        # Paused first and resumed last: nothing comes in by half of a change.
        if after.paused and not before.paused:
            engine.pause_session(handle, True)
        if (after.source, after.pinned) != (before.source, before.pinned):
            address, options = engine_source(after)
            engine.move_session(handle, address, **options)
        if after.ingest_limit_bps != before.ingest_limit_bps:
            engine.limit_session(handle, after.ingest_limit_bps)
        if after.consent is not before.consent:
            change = self._consents.begin if after.consent is Consent.ECHO else self._consents.end
            change(session, records_of(self._registry, session))
        if before.paused and not after.paused:
            engine.pause_session(handle, False)


def read_limits(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Terms that are read alike by CreateSession and UpdateSession."""
    readers: dict[str, Callable[[Any], object]] = {
        "paused": bool,
        "ingest_limit_bps": lambda v: fields.whole(v, "ingest_limit_bps", LARGEST_LIMIT_BPS),
        "max_subscribers": lambda v: fields.whole(v, "max_subscribers", LARGEST_COUNT),
        "consent": fields.consent_of,
        "move_key": fields.move_key_of,
    }
    return {name: reader(values[name]) for name, reader in readers.items() if name in values}


def latch_terms(source: Source, wall_secs: float) -> dict[str, Any]:
    """Of a source that is new: nobody is pinned, and the window begins."""
    is_latch = source.policy is SourcePolicy.LATCH
    return {
        "pinned": None,
        "latch_until": wall_secs + source.latch_window_secs if is_latch else 0.0,
    }


def engine_source(terms: Terms) -> tuple[Address | None, dict[str, Any]]:
    """The arguments of Engine.move_session."""
    source, pinned = terms.source, terms.pinned
    if source.policy is not SourcePolicy.LATCH:
        return source.base, {"prefix": source.prefix}
    if pinned is None:
        return source.base, {"prefix": source.prefix, "latch": True}
    if not source.relatch_after_ns:
        return pinned, {}
    assert source.prefix is not None
    return pinned, {
        "relatch_after_ns": source.relatch_after_ns,
        "relatch": (source.base, source.prefix),
    }


def source_taken(ssrc: int, terms: Terms) -> AlreadyExistsError:
    """To be raised."""
    source = terms.feeder or terms.source.text or "anybody"
    return AlreadyExistsError(
        f"a session with SSRC {ssrc:#010x} from {source} exists", field="ssrc"
    )
