"""The file as it is changed, and read at a start; `opening` opens it.

A row per subscriber, in the order of its key: a change of one writes one page, whatever the
size of its session. Batches go in as packed bytes; SQLite takes them apart, so no Python object
is made per subscriber and the GIL is free meanwhile.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.errors import StartError
from rtpfanout.store import interfaces, layout
from rtpfanout.store.files import new_file, put_in_place, remove, set_aside, unusable
from rtpfanout.store.migrations import DamagedError, kept_name
from rtpfanout.store.opening import CACHE_BYTES, connect, open_file, tell_of
from rtpfanout.store.records import (
    RECORD_BYTES,
    Change,
    DropMoveCounters,
    DropSession,
    DropSubscribers,
    KeptClock,
    PutAnswer,
    PutConsents,
    PutDeliveries,
    PutInterface,
    PutMoveCounter,
    PutSecret,
    PutSession,
    PutSubscribers,
    StoredAnswer,
    StoredConsent,
    StoredDelivery,
    StoredSession,
    StoredSource,
    SubscriberRow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_log = structlog.stdlib.get_logger(__name__)

_SESSIONS_AT_A_TIME = 100


class Database:
    """A connection to the file. Not thread-safe."""

    def __init__(self, path: str, *, trusts: bool = False, on_trial: bool = False) -> None:
        """Open the file, or make it (0600). A damaged one is set aside first, with a message.

        One of an earlier layout is replaced by one of today's, or when it is on trial by `settle`.
        With `trusts` its pages aren't looked through, which takes about 0.4 us a row.
        Raises StartError: it can't be had, or a later version made it.
        """
        self._path = path
        try:
            opened = open_file(path, trusts=trusts, on_trial=on_trial)
        except DamagedError as error:
            if on_trial:  # the file is still somebody else's, who serves what it has of it
                raise StartError(
                    f"the store {path} is damaged ({error}); the next start without another server "
                    "sets it aside",
                    field="store.path",
                ) from None
            aside = set_aside(Path(path))
            _log.error(
                "the store was damaged and is set aside; the server starts without sessions",
                file=path,
                moved_to=str(aside),
                reason=str(error),
            )
            try:
                opened = open_file(path, trusts=False, on_trial=on_trial)
            except DamagedError as again:
                raise unusable(Path(path), again) from None
        self.connection = opened.connection
        self._copy, self._copied_layout = opened.copy, opened.copied_layout
        self.revision: int
        self.sequence: int
        self.revision, self.sequence, _ = self.connection.execute(layout.STATE).fetchone()
        clock = self.connection.execute(layout.CLOCK).fetchone()
        self.clock = KeptClock._make(clock) if clock else None
        self._was_read = False
        self.clock_now: Callable[[], KeptClock] | None = None
        """What the times in the changes are of, to be kept with each transaction."""

    def read_all(self) -> None:
        """Have all of it in memory if that is not too much, so that `copy_to` needs no file.

        About 0.4 us a row.
        """
        if self._fits():
            self.connection.execute("PRAGMA quick_check(1)").fetchone()
            self._was_read = True

    @property
    def is_in_memory(self) -> bool:
        """All of it, also of what has come since `read_all`."""
        try:
            return self._was_read and self._fits()
        except sqlite3.Error:
            return False

    def _fits(self) -> bool:
        (pages,) = self.connection.execute("PRAGMA page_count").fetchone()
        (size,) = self.connection.execute("PRAGMA page_size").fetchone()
        return bool(pages * size <= CACHE_BYTES * 3 // 4)

    def copy_to(self, path: str) -> None:
        """All that was written, in a file that isn't there yet.

        Raises OSError, sqlite3.Error.
        """
        new_file(path, self._path)
        self.connection.execute("VACUUM INTO ?", (path,))

    @property
    def is_on_trial(self) -> bool:
        """It is a copy of today's layout, beside the file, and goes when it is closed."""
        return bool(self._copy)

    def settle(self) -> None:
        """What was on trial is the file from now on. Raises StartError."""
        if not self._copy:
            return
        kept = kept_name(self._path, self._copied_layout) if self._copied_layout else ""
        try:
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.connection.close()
            put_in_place(self._copy, self._path, kept)
            self._copy = ""
            self.connection = connect(self._path)
        except (OSError, sqlite3.Error) as error:
            raise unusable(Path(self._path), error) from None
        self._was_read = False
        tell_of(self._path, self._copied_layout)

    def close(self) -> None:
        """What the log holds is moved to the file, if that can be done now."""
        self.connection.close()
        if self._copy:
            remove(self._copy)

    # --- reading ---

    def sessions(self) -> list[StoredSession]:
        """By sequence."""
        return list(map(StoredSession._make, self._texts(layout.SESSIONS)))

    def sources(self) -> Iterator[StoredSource]:
        """By sequence; twice as fast as `sessions`, and in little memory."""
        for ends in self._ranges():
            yield from map(StoredSource._make, self._texts(layout.SOURCES, ends))

    def rows(self) -> Iterator[list[SubscriberRow]]:
        """Subscribers by session, within one by time; those of some sessions at a time."""
        for ends in self._ranges():  # so that what is sorted fits into memory
            if rows := self.connection.execute(layout.ROWS, ends).fetchall():
                yield rows

    def rows_of(self, sequence: int) -> list[SubscriberRow]:
        """Of one session."""
        return self.connection.execute(layout.ROWS, (sequence, sequence)).fetchall()

    def answers(self) -> list[StoredAnswer]:
        """Those that expire first, first."""
        return list(map(StoredAnswer._make, self._texts(layout.ANSWERS)))

    def secrets(self) -> dict[str, bytes]:
        """By name."""
        return dict(self._texts(layout.SECRETS))

    def consents(self, boot: bytes, now_ns: int) -> Iterator[StoredConsent]:
        """By session: those of this boot that last beyond `now_ns`."""
        rows = self.connection.execute(layout.CONSENTS, (boot, now_ns))
        yield from map(StoredConsent._make, rows)

    def move_counters(self) -> Iterator[tuple[bytes, int]]:
        """(identity of SSRC and key, counter), the one that was used last at the end."""
        for identity, counter in self.connection.execute(layout.MOVE_COUNTERS):
            yield identity, int.from_bytes(counter)

    def deliveries(self) -> Iterator[StoredDelivery]:
        """By session."""
        yield from map(StoredDelivery._make, self.connection.execute(layout.DELIVERIES))

    def place_interfaces(self, now: Mapping[str, int]) -> dict[int, str]:
        """Link-local addresses get the index that their interface has now; the names by index."""
        kept = interfaces.names(self.connection)
        changes = interfaces.renumbered(kept, now)
        if changes:
            interfaces.renumber(self.connection, changes)
            kept = interfaces.names(self.connection)
        return kept

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """The first and the last of some sessions at a time, by sequence."""
        keys = [
            key for (key,) in self.connection.execute("SELECT sequence FROM session ORDER BY 1")
        ]
        for start in range(0, len(keys), _SESSIONS_AT_A_TIME):
            yield keys[start], keys[start : start + _SESSIONS_AT_A_TIME][-1]

    def _texts(self, query: str, values: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows; bytes that are not UTF-8, which only damage makes, are replaced."""
        try:
            return self.connection.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            self.connection.text_factory = lambda text: text.decode(errors="replace")
            try:
                return self.connection.execute(query, values).fetchall()
            finally:
                self.connection.text_factory = str

    # --- writing ---

    def write(self, changes: Iterable[Change], revision: int) -> None:
        """All changes in one transaction, durable on return; on any exception none of them."""
        clock = self.clock_now() if self.clock_now else None
        execute = self.connection.execute
        sequence = self.sequence
        execute("BEGIN IMMEDIATE")
        try:
            for change in changes:
                self._apply(change)
                if isinstance(change, PutSession):
                    sequence = max(sequence, change.session.sequence)
            revision = max(revision, self.revision)
            execute("UPDATE state SET revision = ?, sequence = ?", (revision, sequence))
            if clock is not None:
                execute(layout.PUT_CLOCK, clock)
            execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.rollback()
            raise
        self.revision = revision
        self.sequence = sequence
        self.clock = clock

    def forget_answers(self, now: float) -> None:
        """Those that expired before `now`, in seconds of the store's time."""
        self.connection.execute("DELETE FROM answer WHERE expires < ?", (now,))

    def bury(self) -> None:
        """Overwrite what a failed commit may have left in the log.

        It can be whole there, only the fsync having failed: the next start would take it for
        a commit. The frame of this one comes to lie on its first, and what follows no longer
        fits the checksums, even if this fsync fails too. A number has to change: SQLite writes
        no page that stays the same.
        """
        self.connection.execute("UPDATE state SET buried = buried + 1")

    def _apply(self, change: Change) -> None:
        execute, many = self.connection.execute, self.connection.executemany
        match change:
            case PutSession(session):
                execute(layout.PUT_SESSION, session)
            case DropSession(sequence):
                execute("DELETE FROM subscriber WHERE session = ?", (sequence,))
                execute("DELETE FROM session WHERE sequence = ?", (sequence,))
            case PutSubscribers(sequence, records, since, lease, number):
                for start, piece, count in _pieces(records):
                    values = (sequence, piece, since + start, lease, number, count)
                    execute(layout.PUT_SUBSCRIBERS, values)
            case DropSubscribers(sequence, records):
                for _, piece, count in _pieces(records):
                    execute(layout.DROP_SUBSCRIBERS, (sequence, piece, count))
            case PutConsents(boot, consents):
                many(layout.PUT_CONSENT, [(*each, boot) for each in consents])
            case PutMoveCounter(identity, counter):
                execute(layout.PUT_MOVE_COUNTER, (identity, counter.to_bytes(8)))
            case DropMoveCounters(identities):
                many(layout.DROP_MOVE_COUNTER, [(identity,) for identity in identities])
            case PutDeliveries(stored):
                many(layout.PUT_DELIVERY, stored)
            case PutInterface(number, name):
                execute(layout.PUT_INTERFACE, (number, name))
            case PutAnswer(answer):
                execute(layout.PUT_ANSWER, answer)
            case PutSecret(name, value):
                execute(layout.PUT_SECRET, (name, value))


def _pieces(records: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(number of the first, records, how many) for at most SLICE at a time."""
    if len(records) % RECORD_BYTES:
        raise ValueError(f"{len(records)} bytes are no whole number of address records")
    step = layout.SLICE * RECORD_BYTES
    for start in range(0, len(records), step):
        piece = records[start : start + step]
        yield start // RECORD_BYTES, piece, len(piece) // RECORD_BYTES
