"""Sessions page by page."""

from __future__ import annotations

import bisect
import heapq
from itertools import islice
from typing import TYPE_CHECKING

from rtpfanout.sessions import fields
from rtpfanout.sessions.cursor import CursorKind
from rtpfanout.sessions.record import Session
from rtpfanout.sessions.refused import RefusedSession, in_order
from rtpfanout.sessions.registry import BY_SEQUENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rtpfanout.sessions.registry import Registry
    from rtpfanout.sessions.views import SessionView

_Either = Session | RefusedSession


def sessions_page(
    registry: Registry, limit: int, cursor: str, label_selector: str
) -> tuple[list[SessionView], str]:
    """See SessionManager.list_page."""
    size = fields.page_size(limit)
    after = CursorKind.SESSIONS.read(cursor)
    selector = fields.label_selector_of(label_selector)
    page: list[_Either] = []
    with registry.lock:
        start = bisect.bisect_right(registry.in_order, after, key=BY_SEQUENCE)
        served = islice(registry.in_order, start, None)
        found: Iterable[_Either] = served
        if registry.refused:
            found = heapq.merge(served, in_order(registry.refused, after), key=BY_SEQUENCE)
        for session in found:
            if fields.matches(_labels(session), selector):
                page.append(session)
                if len(page) > size:
                    break
        views = [_view(registry, session) for session in page[:size]]
    is_last = len(page) <= size
    return views, "" if is_last else CursorKind.SESSIONS.write(page[size - 1].sequence)


def _labels(session: _Either) -> dict[str, str]:
    return dict(session.labels if isinstance(session, RefusedSession) else session.terms.labels)


def _view(registry: Registry, session: _Either) -> SessionView:
    if isinstance(session, RefusedSession):
        return session.view(registry.clock)
    return registry.view(session)
