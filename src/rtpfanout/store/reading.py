"""What of the file is read at a start, before anything is written."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rtpfanout.errors import UnavailableError
from rtpfanout.store import interfaces
from rtpfanout.store.records import (
    StoredAnswer,
    StoredConsent,
    StoredDelivery,
    StoredSession,
    StoredSource,
)

if TYPE_CHECKING:
    from rtpfanout.store.records import SubscriberRow

_SESSIONS_AT_A_TIME = 100

_SESSIONS = f"SELECT {', '.join(StoredSession._fields)} FROM session ORDER BY sequence"  # noqa: S608
_SOURCES = (
    f"SELECT {', '.join(StoredSource._fields)} FROM session"  # noqa: S608
    " WHERE sequence BETWEEN ? AND ? ORDER BY sequence"
)
_ROWS = """
SELECT session, since_ns / 1000000000, lease_ns, class, since_ns, address, rtcp FROM subscriber
WHERE session BETWEEN ? AND ?
ORDER BY session, since_ns / 1000000000, lease_ns, class, rtcp, since_ns
"""
_CONSENTS = """
SELECT session, address, until_ns FROM consent WHERE boot = ? AND until_ns > ? ORDER BY session
"""
_DELIVERIES = "SELECT session, address, local FROM delivery ORDER BY session"
_MOVE_COUNTERS = "SELECT key, counter FROM move_counter ORDER BY number"
_INTERFACES = "SELECT number, name FROM interface"
_ANSWERS = "SELECT request_id, digest, text, expires FROM answer ORDER BY expires"
_SECRETS = "SELECT name, value FROM secret"
CLOCK = "SELECT boot, offset_ns, shown_ns, written_ns FROM clock"
STATE = "SELECT revision, sequence, buried FROM state"
READS = (
    _SESSIONS, _ROWS, _CONSENTS, _DELIVERIES, _MOVE_COUNTERS, _INTERFACES, _ANSWERS, _SECRETS,
    CLOCK,
)  # fmt: skip
"""Where each of them can be prepared, the tables are those that we use."""


class Reading(ABC):
    """To be called by one thread, before anything is submitted."""

    @property
    @abstractmethod
    def _connection(self) -> sqlite3.Connection: ...

    def sessions(self) -> list[StoredSession]:
        """By sequence."""
        return list(map(StoredSession._make, self._texts(_SESSIONS)))

    def sources(self) -> Iterator[StoredSource]:
        """By sequence: what of `sessions` the packet path needs, twice as fast."""
        for ends in self._ranges():
            yield from map(StoredSource._make, self._texts(_SOURCES, ends))

    def subscribers(self) -> Iterator[list[SubscriberRow]]:
        """Some sessions at a time, each in one piece, within it by when they came in."""
        for ends in self._ranges():  # so that what is sorted fits into memory
            if rows := self._connection.execute(_ROWS, ends).fetchall():
                yield rows

    def subscribers_of(self, sequence: int) -> list[SubscriberRow]:
        """Of one session, by when they came in."""
        return self._connection.execute(_ROWS, (sequence, sequence)).fetchall()

    def answers(self) -> list[StoredAnswer]:
        """Those that expire first, first; some may have expired."""
        return list(map(StoredAnswer._make, self._texts(_ANSWERS)))

    def secrets(self) -> dict[str, bytes]:
        """By name."""
        return dict(self._texts(_SECRETS))

    def consents(self, boot: bytes, now_ns: int) -> Iterator[StoredConsent]:
        """Those of this boot that last beyond `now_ns`, by session."""
        yield from map(StoredConsent._make, self._connection.execute(_CONSENTS, (boot, now_ns)))

    def move_counters(self) -> Iterator[tuple[bytes, int]]:
        """(identity of SSRC and key, counter), the one that was used last at the end."""
        for identity, counter in self._connection.execute(_MOVE_COUNTERS):
            yield identity, int.from_bytes(counter)

    def deliveries(self) -> Iterator[StoredDelivery]:
        """By session."""
        yield from map(StoredDelivery._make, self._connection.execute(_DELIVERIES))

    def place_interfaces(self, now: Mapping[str, int]) -> dict[int, str]:
        """Before anything else is read: `now` has the index of each interface by its name.

        Link-local addresses of those that have another one since get it; the names by index.
        Raises UnavailableError.
        """
        try:
            changes = interfaces.renumbered(self._interfaces(), now)
            if changes:
                interfaces.renumber(self._connection, changes)
            return self._interfaces()
        except sqlite3.Error as error:
            raise UnavailableError(
                f"the store can't be written: {error}; nothing was changed, try again"
            ) from None

    def _interfaces(self) -> dict[int, str]:
        """By index, as it was when an address of it was last given."""
        return dict(self._connection.execute(_INTERFACES))

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """The first and the last of some sessions at a time, by sequence."""
        rows = self._connection.execute("SELECT sequence FROM session ORDER BY 1").fetchall()
        for start in range(0, len(rows), _SESSIONS_AT_A_TIME):
            some = rows[start : start + _SESSIONS_AT_A_TIME]
            yield some[0][0], some[-1][0]

    def _texts(self, query: str, values: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows; bytes that are not UTF-8, which only damage makes, are replaced."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            self._connection.text_factory = lambda text: text.decode(errors="replace")
            try:
                return self._connection.execute(query, values).fetchall()
            finally:
                self._connection.text_factory = str
