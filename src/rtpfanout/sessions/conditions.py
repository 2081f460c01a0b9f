"""How sources fare: each change of a session's condition or status is shown to watchers, told in
the log and counted, soon after it happened.

The packet path's tick finds out which sessions changed. Of the others nothing is asked, so ten
thousand that flow cost nothing here.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from rtpfanout.model import ACTIVE_WINDOW_NS, ChangeKind, Condition, EventKind, SessionStatus
from rtpfanout.seldom import Seldom
from rtpfanout.sessions.names import which
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.telling import tell_condition

if TYPE_CHECKING:
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.journal import Journal
    from rtpfanout.sessions.record import Session

_log = structlog.stdlib.get_logger(__name__)
_AT_A_TIME = 64  # so that the lock is held for moments
_MOST_LINES = 1000
"""Of the log in a minute: where a network fails all cameras fall silent at once."""
_COME_BACK_NS = 5_000_000_000
"""After a start: so long a source that fed a session before is not said to be silent."""

Told = tuple[int, str, bool, int]
"""(handle, condition, whether it is active, restarts), as Engine.conditions has them."""


@dataclass(eq=False)
class Conditions(Part):
    """`look` belongs to one thread, and waits for nobody."""

    changes: ChangeLog
    journal: Journal
    _early: list[Told] = field(default_factory=list)
    """Of sessions that the engine has and calls don't know yet."""
    _fed: list[int] = field(default_factory=list)
    """Sequences of those that had their first packet."""
    _began_ns: int = 0
    """The first look: packets come from then on, at the latest."""

    def __post_init__(self) -> None:
        self._lines = Seldom(_MOST_LINES)

    def look(self) -> int:
        """Housekeeping, about twice a second; how many sessions changed."""
        now = self.clock.monotonic_ns()
        self._began_ns = self._began_ns or now
        changes = [*self._early, *self.engine.conditions(now, ACTIVE_WINDOW_NS)]
        self._early = []
        changes += self._missing(now, {handle for handle, *_ in changes})
        changed = 0
        for start in range(0, len(changes), _AT_A_TIME):
            with self.state.lock:
                for each in changes[start : start + _AT_A_TIME]:
                    changed += self._take(each, now)
                self.journal.note_fed(self._fed)
                self._fed = []
        return changed

    def _missing(self, now: int, come: set[int]) -> Iterable[Told]:
        """Those that were fed before a restart, and have not been since; once."""
        state = self.state
        with state.lock:
            state.awaited -= come
            if not state.awaited or now - self._began_ns < _COME_BACK_NS:
                return ()
            missing, state.awaited = state.awaited, set()
        return [(handle, Condition.SILENT, False, 0) for handle in missing]

    def _take(self, change: Told, now: int) -> bool:
        """The lock is held."""
        state = self.state
        handle, condition_text, is_active, restarts = change
        condition = Condition(condition_text)
        session = state.by_handle.get(handle)
        if session is None:
            with contextlib.suppress(KeyError):  # it is gone
                self.engine.session_stats(handle, now)
                self._early.append(change)
            return False
        if restarts:
            state.events.tell(EventKind.RESTARTED, session, count=restarts)
        was, was_active = session.condition, session.is_active
        session.is_active = is_active
        # A pause is a status of its own.
        has_other_status = is_active is not was_active and not session.terms.paused
        if condition is was and not has_other_status:
            return False
        if condition is not was:
            if was is Condition.NEVER_FED:
                self._fed.append(session.sequence)
            since, session.condition_since_ns = session.condition_since_ns, now
            session.condition = condition
            tell_condition(state.events, session, was, since, now)
            state.counts[f"condition_{condition}"] += 1
        if has_other_status:
            state.counts[f"status_{_status_of(session)}"] += 1
        revision = self.changes.begin()
        view = state.view(session)
        cause = "condition" if condition is not was else "status"
        self.changes.show(revision, ChangeKind.UPDATED, view, view.labels, cause=cause)
        self._tell(session, was, view.ssrc_text)
        return True

    def _tell(self, session: Session, was: Condition, ssrc: str) -> None:
        is_wrong = session.condition not in (Condition.FLOWING, was)
        fares = {"condition": str(session.condition), "status": str(_status_of(session))}
        if session.condition is not was:
            fares["condition_was"] = str(was)
        event = "the source of a session fares otherwise"
        if session.condition is was:
            event = "a session is active" if session.is_active else "a session is idle"
        self._lines.write(
            _log.warning if is_wrong else _log.info,
            event,
            **which(session),
            ssrc=ssrc,
            **fares,
        )

    def receptions(self) -> Mapping[str, float]:
        """RECEPTION_FIELDS, those that count, over all sessions there are and were."""
        return self.engine.receptions_sum(self.clock.monotonic_ns())

    def standings(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """How many sessions have each condition, those that are paused aside, and each status."""
        state = self.state
        with state.lock:
            sessions = list(state.in_order)
        conditions = Counter(dict.fromkeys(map(str, Condition), 0))
        statuses = Counter(dict.fromkeys(map(str, SessionStatus), 0))
        alike = Counter((s.condition, s.is_active, s.terms.paused) for s in sessions)
        for (condition, is_active, is_paused), number in alike.items():
            statuses[_status(is_active=is_active, is_paused=is_paused)] += number
            if not is_paused:
                conditions[condition] += number
        statuses[SessionStatus.REFUSED] = len(state.refused)
        return conditions, statuses


def _status_of(session: Session) -> SessionStatus:
    return _status(is_active=session.is_active, is_paused=session.terms.paused)


def _status(*, is_active: bool, is_paused: bool) -> SessionStatus:
    if is_paused:
        return SessionStatus.PAUSED
    return SessionStatus.ACTIVE if is_active else SessionStatus.IDLE
