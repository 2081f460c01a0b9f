"""The names of the interfaces that link-local addresses in the file are of.

An address has the interface's index (RFC 4007), which is another one when the interface is made
anew or the host starts again; its name stays.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

NOWHERE = 0xF0000000
"""Plus its index: of an interface that is not there, while another has its index."""
# Numbers of ADDRESS_RECORD: four bytes behind the IP address.
_RENUMBER = """UPDATE OR REPLACE {table} SET address =
CAST(substr(address, 1, 16) || ?2 || substr(address, 21) AS BLOB) WHERE substr(address, 17, 4) = ?1
"""
_SCOPE = re.compile(r"%(\d+)")


def renumbered(kept: Mapping[int, str], now: Mapping[str, int]) -> dict[int, int]:
    """Of `kept`, the indexes that are to change, where interfaces have those of `now`."""
    taken = set(now.values())
    found = {}
    for number, name in kept.items():
        there = now.get(name)
        if there is None and number in taken:
            there = NOWHERE + number % NOWHERE
        if there is not None and there != number:
            found[number] = there
    return found


def renumber(connection: sqlite3.Connection, changes: Mapping[int, int]) -> None:
    """All addresses of these interfaces, in one transaction."""
    execute = connection.execute
    # By way of numbers that nobody has: two interfaces may have changed theirs with each other.
    steps = {old: NOWHERE // 2 + i for i, old in enumerate(changes)}
    execute("BEGIN IMMEDIATE")
    try:
        for step in (steps, {steps[old]: new for old, new in changes.items()}):
            for old, new in step.items():
                ends = old.to_bytes(4, sys.byteorder), new.to_bytes(4, sys.byteorder)
                for table in ("subscriber", "consent", "delivery"):
                    execute(_RENUMBER.format(table=table), ends)
                execute("UPDATE OR REPLACE interface SET number = ?2 WHERE number = ?1", (old, new))
        _renumber_sources(connection, changes)
        execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def _renumber_sources(connection: sqlite3.Connection, changes: Mapping[int, int]) -> None:
    rows = connection.execute(
        "SELECT sequence, source_text, pinned_source FROM session"
        " WHERE instr(source_text || pinned_source, '%') > 0"
    ).fetchall()
    for sequence, source, pinned in rows:
        values = *(renumbered_text(text, changes) for text in (source, pinned)), sequence
        connection.execute(
            "UPDATE session SET source_text = ?, pinned_source = ? WHERE sequence = ?", values
        )


def renumbered_text(text: str, changes: Mapping[int, int]) -> str:
    """An address as text, with the index that its interface has now."""

    def changed(match: re.Match[str]) -> str:
        number = int(match[1])
        return f"%{changes.get(number, number)}"

    return _SCOPE.sub(changed, text)
