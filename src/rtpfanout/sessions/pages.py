"""Sessions page by page."""

from __future__ import annotations

import bisect
import heapq
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.sessions import fields
from rtpfanout.sessions.cursor import CursorKind
from rtpfanout.sessions.record import Session
from rtpfanout.sessions.refused import RefusedSession, in_order
from rtpfanout.sessions.state import BY_SEQUENCE
from rtpfanout.sessions.views import stats_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rtpfanout._fastpath import Engine
    from rtpfanout.model import Pairs
    from rtpfanout.sessions.clock import Clock
    from rtpfanout.sessions.state import State
    from rtpfanout.sessions.views import SessionStats, SessionView

_Either = Session | RefusedSession


class Wanted(NamedTuple):
    """Which sessions a page has."""

    selector: Pairs
    name_prefix: str = ""
    id_prefix: str = ""

    def holds(self, session: _Either) -> bool:
        """Whether it is one of them. Asked of each while others wait for the lock."""
        if self.id_prefix and not session.session_id.startswith(self.id_prefix.lower()):
            return False
        if self.name_prefix and not session.name.startswith(self.name_prefix):
            return False
        return not self.selector or fields.matches(session.labels, self.selector)


def sessions_page(
    state: State, clock: Clock, limit: int, cursor: str, wanted: Wanted
) -> tuple[list[SessionView], str]:
    """See SessionManager.list_page."""
    size = fields.page_size(limit)
    after = CursorKind.SESSIONS.read(cursor)
    page: list[_Either] = []
    with state.lock:
        start = bisect.bisect_right(state.in_order, after, key=BY_SEQUENCE)
        served = islice(state.in_order, start, None)
        found: Iterable[_Either] = served
        if state.refused:
            found = heapq.merge(served, in_order(state.refused, after), key=BY_SEQUENCE)
        for session in found:
            if wanted.holds(session):
                page.append(session)
                if len(page) > size:
                    break
        views = [_view(state, clock, session) for session in page[:size]]
    is_last = len(page) <= size
    return views, "" if is_last else CursorKind.SESSIONS.write(page[size - 1].sequence)


def all_stats(
    state: State, engine: Engine, clock: Clock
) -> Iterator[tuple[SessionView, SessionStats]]:
    """See SessionManager.all_stats."""
    with state.lock:
        sessions = list(state.in_order)
    for session in sessions:
        with state.lock:
            if state.by_id.get(session.session_id) is not session:
                continue
            now = clock.monotonic_ns()
            values = engine.session_stats(session.handle, now)
            reception = engine.session_reception(session.handle, now)
        yield state.view_at(session, values, now), stats_of(session, values, reception, now)


def _view(state: State, clock: Clock, session: _Either) -> SessionView:
    if isinstance(session, RefusedSession):
        return session.view(clock)
    return state.view(session)
