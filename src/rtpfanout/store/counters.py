"""The table of move counters: the highest one that each key has signed a move with.

Made when the first move is kept: other versions neither need nor mind it. The counter has 64 bits
without a sign, so it is kept as 8 bytes in network order, which compare as it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

IDENTITY_BYTES = 16

_SCHEMA = f"""CREATE TABLE IF NOT EXISTS move_counter (
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, counter BLOB NOT NULL,
    CHECK (typeof(key) = 'blob' AND length(key) = {IDENTITY_BYTES}
        AND typeof(counter) = 'blob' AND length(counter) = 8))"""
_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'move_counter'"
_ALL = "SELECT key, counter FROM move_counter ORDER BY number"
# What is replaced gets the highest number again: the order is that of use.
_PUT = """
INSERT OR REPLACE INTO move_counter (key, counter) SELECT ?1, ?2
WHERE NOT EXISTS (SELECT 1 FROM move_counter WHERE key = ?1 AND counter >= ?2)
"""


def put(connection: sqlite3.Connection, identity: bytes, counter: int) -> None:
    """Unless there is a higher one."""
    connection.execute(_SCHEMA)
    connection.execute(_PUT, (identity, counter.to_bytes(8)))


def drop(connection: sqlite3.Connection, identities: Sequence[bytes]) -> None:
    """Those that are there."""
    connection.execute(_SCHEMA)
    connection.executemany(
        "DELETE FROM move_counter WHERE key = ?", [(identity,) for identity in identities]
    )


def read(connection: sqlite3.Connection) -> Iterator[tuple[bytes, int]]:
    """(identity, counter), the one that was used last at the end."""
    if connection.execute(_HAS_TABLE).fetchone():
        for identity, counter in connection.execute(_ALL):
            yield identity, int.from_bytes(counter)


def check(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.Error: there is another table of the name."""
    if connection.execute(_HAS_TABLE).fetchone():
        connection.execute(f"EXPLAIN {_ALL}")
