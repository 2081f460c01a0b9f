"""The log of changes that WatchSessions reads: the last 65,536 of them, in order of revision.

A change gets its revision when it is asked of the store and is shown when it is durable;
none is shown before those with a lower revision are shown or have failed. Subscribers come and
go far more often than sessions change: a session that they changed is noted and gets one
event when the log is read or the next second begins.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter
from typing import TYPE_CHECKING

from rtpfanout.model import ChangeKind
from rtpfanout.sessions.fields import matches
from rtpfanout.sessions.listened import Listened

if TYPE_CHECKING:
    from types import EllipsisType

    from rtpfanout.model import Pairs
    from rtpfanout.sessions.views import SessionView

KEPT = 65_536
UNWRITTEN = 2**20
"""More revisions than may be shown and not be in the store: one for each session that was changed
by subscribers or by its source; housekeeping writes the last one in time. A start leaves so many
out, so that none is ever given twice."""


@dataclass(frozen=True, slots=True)
class Change:
    """One event: the session afterwards (or, of DELETED, as it was at last)."""

    revision: int
    kind: ChangeKind
    view: SessionView
    labels_before: Mapping[str, str]
    view_before: SessionView | None = None
    """Where the labels changed: what is shown to those for whom the session is gone."""
    cause: str = ""
    """Of UPDATED, what changed: condition, status, source, ssrc, latch, subscribers; else empty."""

    def seen_by(self, selector: Pairs) -> ChangeKind | None:
        """What it is to one who sees only what `selector` matches; None: nothing."""
        before = matches(self.labels_before, selector)
        after = matches(self.view.labels, selector)
        if self.kind is ChangeKind.CREATED:
            return self.kind if after else None
        if self.kind is ChangeKind.DELETED:
            return self.kind if before else None
        if before and after:
            return ChangeKind.UPDATED
        if before:
            return ChangeKind.DELETED
        return ChangeKind.CREATED if after else None


class ChangeLog(Listened):
    """Thread-safe."""

    def __init__(self, revision: int = 0, kept: int = KEPT) -> None:
        """`revision` is the last one there was before; what led there is not known."""
        super().__init__()
        self._entries: deque[Change] = deque(maxlen=kept)
        self._pending: dict[int, Change | EllipsisType | None] = {}  # `...`: under way
        self._given = revision
        self._shown = revision
        self._oldest = revision

    @property
    def revision(self) -> int:
        """Of the last change that can be read."""
        return self._shown

    @property
    def given(self) -> int:
        """The last one that was given to a change, whether it happened or not."""
        return self._given

    def begin(self) -> int:
        """The next revision, kept free for a change that is under way."""
        with self._lock:
            self._given += 1
            self._pending[self._given] = ...
            return self._given

    def show(
        self,
        revision: int,
        kind: ChangeKind,
        view: SessionView,
        labels_before: Mapping[str, str],
        view_before: SessionView | None = None,
        cause: str = "",
    ) -> None:
        """The change of this revision happened."""
        self._settle(revision, Change(revision, kind, view, labels_before, view_before, cause))

    def give_up(self, revision: int) -> None:
        """It did not."""
        self._settle(revision, None)

    def _settle(self, revision: int, change: Change | None) -> None:
        with self._lock:
            self._pending[revision] = change
            listeners = list(self._listeners) if self._show() else []
        for listener in listeners:
            listener()

    def after(self, revision: int, limit: int = 256) -> tuple[list[Change], int] | None:
        """Up to `limit` changes after `revision`, and the revision that was read up to.

        None if they are not all known any more.
        """
        with self._lock:
            if not self._oldest <= revision <= self._shown:
                return None
            if revision == self._shown:
                return [], revision
            # Revisions have gaps, where a change failed.
            low = bisect.bisect_right(self._entries, revision, key=attrgetter("revision"))
            found = [self._entries[i] for i in range(low, min(low + limit, len(self._entries)))]
            is_all = low + limit >= len(self._entries)
            return found, self._shown if is_all else found[-1].revision

    def _show(self) -> bool:
        grew = False
        for revision in list(takewhile(lambda r: self._pending[r] is not ..., self._pending)):
            change = self._pending.pop(revision)
            if isinstance(change, Change):
                if len(self._entries) == self._entries.maxlen:
                    self._oldest = self._entries[0].revision
                self._entries.append(change)
                grew = True
            self._shown = revision
        return grew
