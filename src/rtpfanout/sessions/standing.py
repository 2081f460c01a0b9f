"""The session that is there already where one is to be made: of that name, or SSRC and source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rtpfanout.errors import AlreadyExistsError
from rtpfanout.portrange import AUTO
from rtpfanout.sessions.feeding import source_taken
from rtpfanout.sessions.fields import matches
from rtpfanout.sessions.state import SCOPE
from rtpfanout.sessions.terms import shown_terms

if TYPE_CHECKING:
    from rtpfanout.model import MediaType
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.state import State
    from rtpfanout.sessions.terms import Terms
    from rtpfanout.sessions.views import SessionView


def same_session(
    state: State, ssrc: int, media_type: MediaType, terms: Terms
) -> SessionView | None:
    """None: there is none. Waits while one is being made, renamed or ended.

    Raises AlreadyExistsError: it has other terms, or is refused, or not the caller's. The lock is
    held, and given back while waiting.
    """
    key = terms.key(ssrc)
    while True:
        by_name = state.names.holder(terms.name) if terms.name else None
        holder = by_name or state.keys.get(key)
        if holder is None:
            return None
        session = state.by_id.get(holder)
        if session and (
            session.name == terms.name if by_name else session.terms.key(session.ssrc) == key
        ):
            break
        if by_name and holder in state.refused:
            raise state.name_taken(terms.name)
        state.lock.wait()
    if not matches(session.labels, SCOPE.get()):
        raise state.name_taken(terms.name) if by_name else source_taken(ssrc, terms)
    if difference := _difference(session, ssrc, media_type, terms):
        name, is_, asked = difference
        of = f" ({session.name})" if session.name else ""
        values = f"{name} {is_} and not {asked}" if name != "move_key" else "another move_key"
        raise AlreadyExistsError(
            f"session {session.session_id}{of} is there with {values}; ask for that, or change it",
            field=name,
            session_id=session.session_id,
        )
    return state.view(session)


def _difference(
    session: Session, ssrc: int, media_type: MediaType, terms: Terms
) -> tuple[str, Any, Any] | None:
    """(the first field that is another, what it is, what is asked for)."""
    before = _described(session.ssrc, session.media_type, session.terms)
    if terms.ingest_port == AUTO and session.terms.ingest_port:
        terms = replace(terms, ingest_port=session.terms.ingest_port)
    asked = _described(ssrc, media_type, terms)
    # What came of it; and how long it waited, or waits again, for that.
    for name in ("pinned_source", "latch_window_secs", "latch_until"):
        del before[name]
    if session.terms.move_counter and session.terms.move_key == terms.move_key:
        del before["source_address"]  # it has signed where it is now
    for name, value in before.items():
        if value != asked[name]:
            return "move_key" if name == "signed_move" else name, value, asked[name]
    if session.terms.move_key != terms.move_key:
        return "move_key", None, None
    return None


def _described(ssrc: int, media_type: MediaType, terms: Terms) -> dict[str, Any]:
    first = {"ssrc": ssrc, "media_type": media_type, "source_policy": terms.source.policy}
    return first | shown_terms(terms)
