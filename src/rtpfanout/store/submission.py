"""What waits to be written, and what became of what did."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtpfanout.store.records import (
    RECORD_BYTES,
    Change,
    DropSubscribers,
    PutConsents,
    PutDeliveries,
    PutSubscribers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class StoreCounts:
    """Since the start."""

    committed: int = 0
    """Submissions that are durable."""
    failed: int = 0
    """Submissions that were refused: queue full, disk full, failing sync."""
    transactions: int = 0
    """Of those that were committed, each with one fsync."""
    lost: int = 0
    """How often the file was removed, replaced, or taken away with its directory."""
    healed: int = 0
    """How often it was written anew."""


@dataclass(slots=True, eq=False)
class Submission:
    """Changes that are written together or not at all."""

    changes: Sequence[Change]
    revision: int
    done: Future[int] = field(default_factory=Future)

    def weight(self) -> int:
        """How many rows it writes, more or less."""
        return sum(map(_weight, self.changes))


def _weight(change: Change) -> int:
    match change:
        case PutSubscribers() | DropSubscribers():
            return len(change.records) // RECORD_BYTES
        case PutConsents():
            return len(change.consents)
        case PutDeliveries():
            return len(change.deliveries)
        case _:
            return 1
