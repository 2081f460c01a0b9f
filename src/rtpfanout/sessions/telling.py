"""What is told as events of a change to a session, and of how its source fares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtpfanout.model import Condition, EventKind
from rtpfanout.sessions.events import Seen
from rtpfanout.sessions.terms import shown_terms

if TYPE_CHECKING:
    from rtpfanout.sessions.events import EventLog
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.terms import Terms
    from rtpfanout.sessions.views import SessionView

_OWN_EVENT = {"source_address", "source_policy", "pinned_source"}
"""Terms whose change is told as PINNED or MOVED."""


def tell_update(events: EventLog, before: tuple[int, Terms], view: SessionView) -> None:
    """A line for each of: another source, a pause or its end, and whatever else changed.

    `before` is the SSRC and the terms that it had.
    """
    ssrc, terms = before
    after = view.terms
    was, now = shown_terms(terms), shown_terms(after)
    if after.pinned:
        was["latch_until"] = now["latch_until"]  # it waits no longer, as PINNED says
    others = [name for name, value in now.items() if value != was[name] and name not in _OWN_EVENT]
    if ssrc != view.ssrc:
        others.append("ssrc")
    if others:
        relabelled = Seen(terms.name, terms.labels) if terms.labels != after.labels else None
        events.tell(EventKind.UPDATED, view, detail=", ".join(sorted(others)), before=relabelled)
    if (terms.source, terms.pinned) != (after.source, after.pinned):
        source, old = _source(after), _source(terms)
        if terms.source == after.source and terms.pinned is None:
            events.tell(EventKind.PINNED, view, detail=source)
        elif source != old:
            # Who sees it by its new labels alone is not told where it was before.
            is_known = terms.labels == after.labels
            events.tell(EventKind.MOVED, view, detail=f"{old} -> {source}" if is_known else source)
    if terms.paused is not after.paused:
        events.tell(EventKind.PAUSED if after.paused else EventKind.RESUMED, view)


def _source(terms: Terms) -> str:
    return str(terms.pinned) if terms.pinned else terms.source.text or "any"


def tell_condition(
    events: EventLog, session: Session, was: Condition, since_ns: int, now_ns: int
) -> None:
    """It has another condition now than `was`, which it had since then; monotonic."""
    condition = session.condition
    if condition is not Condition.FLOWING:
        events.tell(EventKind(condition), session)
    elif was is Condition.NEVER_FED:
        events.tell(EventKind.FLOWING, session, detail="the first packet")
    else:
        seconds = max(0, now_ns - since_ns) / 1e9
        events.tell(EventKind.BACK, session, detail=f"{was} for {seconds:.1f} s")
