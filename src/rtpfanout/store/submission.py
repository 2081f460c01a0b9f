"""What waits to be written, and what became of what did."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.store.writes import Write


MOST_RECORDS = 100_000
"""Subscribers in one transaction, so that none lasts long; a submission may have more."""
LOOK_SECS = 1.0
"""After so long without a submission the file is looked for all the same."""


STORE_COUNTERS = {
    "commits": "Changes that became durable.",
    "failures": "Changes that were refused because they could not be written.",
    "transactions": "Transactions, each with one sync for all changes in it.",
    "lost": "How often the store's file was removed, replaced or moved away while it was open.",
    "healed": "How often the store was written anew after that.",
}
"""What `Store.counts` counts since the start."""


@dataclass(slots=True, eq=False)
class Submission:
    """Changes that are written together or not at all."""

    changes: Sequence[Write]
    revision: int
    done: Future[int] = field(default_factory=Future)

    def weight(self) -> int:
        """How many rows it writes, more or less."""
        return sum(change.weight for change in self.changes)


class Waiting:
    """Submissions in their order, from any thread to the one that writes."""

    def __init__(self, most: int) -> None:
        """`most` may wait."""
        self._most = most
        self._queue: deque[Submission] = deque()
        self._changed = threading.Condition()
        self._is_ended = True

    def begin(self) -> None:
        """They are taken from now on."""
        self._is_ended = False

    def end(self) -> None:
        """None is taken any more; those that wait are written still."""
        with self._changed:
            self._is_ended = True
            self._changed.notify()

    def put(self, submission: Submission) -> str:
        """Why it isn't taken; empty if it is."""
        with self._changed:
            if self._is_ended:
                return "the store is closed"
            if len(self._queue) >= self._most:
                return "the store does not keep up with the changes"
            self._queue.append(submission)
            self._changed.notify()
        return ""

    def next_group(self) -> list[Submission] | None:
        """All that wait, up to MOST_RECORDS; empty after LOOK_SECS without any, None at the end."""
        group: list[Submission] = []
        weight = 0
        with self._changed:
            while not self._queue:
                if self._is_ended:
                    return None
                if not self._changed.wait(LOOK_SECS):
                    return []
            while self._queue:
                weight += self._queue[0].weight()
                if group and weight > MOST_RECORDS:
                    break
                group.append(self._queue.popleft())
        return group
