"""What the tests of the store share: sessions, address records, and what a store holds."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from rtpfanout.model import ADDRESS_RECORD, Address
from rtpfanout.store import StoredSession, runs_of
from rtpfanout.store.migrations import LAYOUTS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from rtpfanout.store import Store

Terms = tuple[int, int]
"""Lease and class."""


def session(sequence: int, **changes: object) -> StoredSession:
    made = StoredSession(
        sequence=sequence,
        session_id=f"00000000-0000-4000-8000-{sequence:012d}",
        ssrc=sequence,
        media_type="video",
        source_policy="exact",
        source_text="192.0.2.1:5000",
        created_ns=1_700_000_000_000_000_000 + sequence,
        revision=sequence,
    )
    return made._replace(**changes)  # type: ignore[arg-type]


def record(number: int) -> bytes:
    return Address(ipaddress.ip_address(0x0A000000 + number), 6000).record


def records(numbers: Iterable[int]) -> bytes:
    return b"".join(map(record, numbers))


def split(packed: bytes) -> list[bytes]:
    size = ADDRESS_RECORD.size
    return [packed[i : i + size] for i in range(0, len(packed), size)]


def back_to_layout_1(connection: sqlite3.Connection) -> None:
    """Without the columns that were added since; its further tables are of layout 1 or more."""
    for table, column in re.findall(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", "".join(LAYOUTS)):
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute("PRAGMA user_version = 1")


def contents(store: Store) -> dict[StoredSession, dict[bytes, Terms]]:
    """Everything about sessions and subscribers, by session."""
    subscribers: dict[int, dict[bytes, Terms]] = {s.sequence: {} for s in store.sessions()}
    for run in (run for rows in store.subscribers() for run in runs_of(rows)):
        of_session = subscribers[run.sequence]
        for one in split(run.records):
            assert one not in of_session
            of_session[one] = (run.lease_ns, run.subscriber_class)
    return {s: subscribers[s.sequence] for s in store.sessions()}
