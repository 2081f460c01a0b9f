"""The file: how it is opened and checked, changed, and read at a start; `layout` has its tables.

A row per subscriber, in the order of its key: a change of one writes one page, whatever the
size of its session. Batches go in as packed bytes; SQLite takes them apart, so no Python object
is made per subscriber and the GIL is free meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.errors import StartError
from rtpfanout.store import counters, deliveries, interfaces
from rtpfanout.store.files import MEMORY, SUFFIXES, set_aside, unusable
from rtpfanout.store.layout import (
    APPLICATION_ID,
    CLOCK,
    CLOCK_SCHEMA,
    CONSENT_SCHEMA,
    CONSENTS,
    DROP_SUBSCRIBERS,
    HAS_CLOCK,
    HAS_CONSENTS,
    PUT_CLOCK,
    PUT_CONSENT,
    PUT_SESSION,
    PUT_SUBSCRIBERS,
    ROWS,
    SCHEMA,
    SCHEMA_VERSION,
    SESSION_COLUMNS,
    SLICE,
    SOURCE_COLUMNS,
)
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

_MOST_VERSIONS = 1000  # a greater one was not written by any version of us
_SESSIONS_AT_A_TIME = 100
_CACHE_BYTES = 32_768_000


class DamagedError(Exception):
    """The file is not one that we wrote."""


class Database:
    """A connection to the file. Not thread-safe."""

    def __init__(self, path: str, *, trusts: bool = False) -> None:
        """Open the file, or make it (0600). A damaged one is set aside first, with a message.

        With `trusts` its pages aren't looked through, which takes about 0.4 us a row.
        Raises StartError: it can't be had, or a later version made it.
        """
        self._path = path
        try:
            self.connection = _open(path, trusts=trusts)
        except DamagedError as error:
            aside = set_aside(Path(path))
            _log.error(
                "the store was damaged and is set aside; the server starts without sessions",
                file=path,
                moved_to=str(aside),
                reason=str(error),
            )
            try:
                self.connection = _open(path, trusts=False)
            except DamagedError as again:
                raise unusable(Path(path), again) from None
        state = self.connection.execute("SELECT revision, sequence FROM state").fetchone()
        self.revision: int = state[0]
        self.sequence: int = state[1]
        self.clock = self._kept_clock()
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
        return bool(pages * size <= _CACHE_BYTES * 3 // 4)

    def copy_to(self, path: str) -> None:
        """All that was written, durable in a file that isn't there yet.

        Raises OSError, sqlite3.Error.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.connection.execute("VACUUM INTO ?", (path,))
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """What the log holds is moved to the file, if that can be done now."""
        self.connection.close()

    # --- reading ---

    def sessions(self) -> list[StoredSession]:
        """By sequence."""
        query = f"SELECT {SESSION_COLUMNS} FROM session ORDER BY sequence"  # noqa: S608
        return list(map(StoredSession._make, self._texts(query)))

    def sources(self) -> Iterator[StoredSource]:
        """By sequence; twice as fast as `sessions`, and in little memory."""
        query = (
            f"SELECT {SOURCE_COLUMNS} FROM session"  # noqa: S608
            " WHERE sequence BETWEEN ? AND ? ORDER BY sequence"
        )
        for ends in self._ranges():
            yield from map(StoredSource._make, self._texts(query, ends))

    def rows(self) -> Iterator[list[SubscriberRow]]:
        """Subscribers by session, within one by time; those of some sessions at a time."""
        for ends in self._ranges():  # so that what is sorted fits into memory
            if rows := self.connection.execute(ROWS, ends).fetchall():
                yield rows

    def rows_of(self, sequence: int) -> list[SubscriberRow]:
        """Of one session."""
        return self.connection.execute(ROWS, (sequence, sequence)).fetchall()

    def answers(self) -> list[StoredAnswer]:
        """Those that expire first, first."""
        query = "SELECT request_id, digest, text, expires FROM answer ORDER BY expires"
        return list(map(StoredAnswer._make, self._texts(query)))

    def secrets(self) -> dict[str, bytes]:
        """By name."""
        return dict(self._texts("SELECT name, value FROM secret"))

    def consents(self, boot: bytes, now_ns: int) -> Iterator[StoredConsent]:
        """By session: those of this boot that last beyond `now_ns`."""
        if self.connection.execute(HAS_CONSENTS).fetchone():
            yield from map(StoredConsent._make, self.connection.execute(CONSENTS, (boot, now_ns)))

    def _kept_clock(self) -> KeptClock | None:
        if not self.connection.execute(HAS_CLOCK).fetchone():
            return None
        row = self.connection.execute(CLOCK).fetchone()
        return KeptClock._make(row) if row else None

    def move_counters(self) -> Iterator[tuple[bytes, int]]:
        """(identity of SSRC and key, counter), the one that was used last at the end."""
        return counters.read(self.connection)

    def deliveries(self) -> Iterator[StoredDelivery]:
        """By session."""
        if self.connection.execute(deliveries.IS_THERE).fetchone():
            yield from map(StoredDelivery._make, self.connection.execute(deliveries.ALL))

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
                self._put_clock(clock)
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

    def _put_clock(self, clock: KeptClock) -> None:
        if self.clock is None:
            for statement in CLOCK_SCHEMA:
                self.connection.execute(statement)
        self.connection.execute(PUT_CLOCK, clock)

    def _apply(self, change: Change) -> None:
        execute = self.connection.execute
        match change:
            case PutSession(session):
                execute(PUT_SESSION, session)
            case DropSession(sequence):
                execute("DELETE FROM subscriber WHERE session = ?", (sequence,))
                execute("DELETE FROM session WHERE sequence = ?", (sequence,))
            case PutSubscribers(sequence, records, since, lease, number):
                for start, piece, count in _pieces(records):
                    values = (sequence, piece, since + start, lease, number, count)
                    execute(PUT_SUBSCRIBERS, values)
            case DropSubscribers(sequence, records):
                for _, piece, count in _pieces(records):
                    execute(DROP_SUBSCRIBERS, (sequence, piece, count))
            case PutConsents(boot, consents):
                for statement in CONSENT_SCHEMA:
                    execute(statement)
                self.connection.executemany(PUT_CONSENT, [(*each, boot) for each in consents])
            case PutMoveCounter(identity, counter):
                counters.put(self.connection, identity, counter)
            case DropMoveCounters(identities):
                counters.drop(self.connection, identities)
            case PutDeliveries(stored):
                for statement in deliveries.SCHEMA:
                    execute(statement)
                self.connection.executemany(deliveries.PUT, stored)
            case PutInterface(number, name):
                execute(interfaces.SCHEMA)
                execute(interfaces.PUT, (number, name))
            case PutAnswer(answer):
                execute("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?)", answer)
            case PutSecret(name, value):
                execute("INSERT OR IGNORE INTO secret VALUES (?, ?)", (name, value))


def _pieces(records: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(number of the first, records, how many) for at most SLICE at a time."""
    if len(records) % RECORD_BYTES:
        raise ValueError(f"{len(records)} bytes are no whole number of address records")
    step = SLICE * RECORD_BYTES
    for start in range(0, len(records), step):
        piece = records[start : start + step]
        yield start // RECORD_BYTES, piece, len(piece) // RECORD_BYTES


def _open(path: str, *, trusts: bool) -> sqlite3.Connection:
    """Raises DamagedError, StartError."""
    file = Path(path)
    try:
        if path != MEMORY:
            file.touch(mode=0o600)
            for suffix in SUFFIXES:
                if Path(path + suffix).exists():
                    Path(path + suffix).chmod(0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise unusable(file, error) from None
    try:
        _prepare(connection, file, trusts=trusts)
    except UnicodeDecodeError as error:  # of a message that names a part of the schema
        connection.close()
        raise DamagedError(str(error)) from None
    except sqlite3.Error as error:
        connection.close()
        if _is_damage(error, file):
            raise DamagedError(str(error)) from None
        raise unusable(file, error) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _is_damage(error: sqlite3.Error, file: Path) -> bool:
    """Rather than a disk or an account that won't have it."""
    code = error.sqlite_errorcode & 0xFF
    if code == sqlite3.SQLITE_READONLY:  # by the bytes of its header, if the system allows it
        return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def _prepare(connection: sqlite3.Connection, file: Path, *, trusts: bool) -> None:
    execute = connection.execute
    # We have the file alone: the log's index is in our memory, not in a file that a full
    # disk could take from under us.
    execute("PRAGMA locking_mode = EXCLUSIVE")
    execute("PRAGMA journal_mode = WAL")
    execute("PRAGMA synchronous = FULL")
    execute(f"PRAGMA cache_size = -{_CACHE_BYTES // 1024}")
    execute("PRAGMA temp_store = MEMORY")  # there may be no directory for temporary files
    execute("PRAGMA journal_size_limit = 16000000")
    (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = execute("PRAGMA application_id").fetchone()
    (version,) = execute("PRAGMA user_version").fetchone()
    if tables == 0 and application == 0 and version == 0:
        connection.executescript(
            f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
        return
    if application != APPLICATION_ID or not 0 < version < _MOST_VERSIONS:
        raise DamagedError("it is not a store of rtpfanout")
    if version > SCHEMA_VERSION:
        raise StartError(
            f"the store {file} was made by a later version of rtpfanout (layout {version}, this"
            f" one knows {SCHEMA_VERSION}); start that version, or move the file away",
            field="store.path",
        )
    found = ("ok",) if trusts else execute("PRAGMA quick_check(1)").fetchone()
    if found != ("ok",):
        raise DamagedError(str(found[0]).replace("\n", " "))
    _check_layout(connection)


def _check_layout(connection: sqlite3.Connection) -> None:
    """Each statement that reads can be prepared, and the single row is there."""
    connection.execute(f"EXPLAIN SELECT {SESSION_COLUMNS} FROM session")  # noqa: S608
    connection.execute(f"EXPLAIN {ROWS}", (0, 0))
    connection.execute("EXPLAIN SELECT request_id, digest, text, expires FROM answer")
    connection.execute("EXPLAIN SELECT name, value FROM secret")
    if connection.execute(HAS_CONSENTS).fetchone():
        connection.execute(f"EXPLAIN {CONSENTS}", (b"", 0))
    if connection.execute(HAS_CLOCK).fetchone():
        connection.execute(f"EXPLAIN {CLOCK}")
    counters.check(connection)
    if connection.execute(deliveries.IS_THERE).fetchone():
        connection.execute(f"EXPLAIN {deliveries.ALL}")
    (count,) = connection.execute("SELECT count(*) FROM number").fetchone()
    state = connection.execute("SELECT revision, sequence, buried FROM state").fetchone()
    if count != SLICE or state is None or not all(isinstance(value, int) for value in state):
        raise DamagedError("rows that every store has are missing")
