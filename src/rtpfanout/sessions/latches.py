"""Latches that nobody met in time: they wait no longer, and somebody has to hear of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from rtpfanout.model import ChangeKind, EventKind
from rtpfanout.seldom import Seldom
from rtpfanout.sessions.names import title, which
from rtpfanout.sessions.state import Part

if TYPE_CHECKING:
    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.record import Session

_log = structlog.stdlib.get_logger(__name__)
_MOST_LINES = 1000
"""Of the log in a minute."""


@dataclass(eq=False)
class Latches(Part):
    """`look` belongs to one thread, and waits for nobody."""

    changes: ChangeLog

    def __post_init__(self) -> None:
        self._lines = Seldom(_MOST_LINES)

    def look(self) -> int:
        """Housekeeping, about once a second; how many windows ended."""
        state = self.state
        if not state.latches:
            return 0
        now = self.clock.wall_secs()
        with state.lock:
            over = [handle for handle, until in state.latches.items() if until < now]
            for handle in over:
                del state.latches[handle]
                self._tell(state.by_handle[handle])
        return len(over)

    def _tell(self, session: Session) -> None:
        """The lock is held."""
        revision = self.changes.begin()
        view = self.state.view(session)
        self.changes.show(revision, ChangeKind.UPDATED, view, view.labels, cause="latch")
        self.state.counts["latch_over"] += 1
        again = f"rtpfanout session update {title(session)} --latch-window 60"
        self.state.events.tell(EventKind.LATCH_OVER, view, detail=again)
        self._lines.write(
            _log.warning,
            "a latch waits no longer: its source did not come in time",
            **which(session),
            source=session.terms.source.text or "any",
            next_step=again,
        )
