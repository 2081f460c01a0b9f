"""The file, opened, and replaced where it is of an earlier layout, and as it is changed.

A row per subscriber, in the order of its key: a change of one writes one page, whatever the
size of its session. Batches go in as packed bytes; SQLite takes them apart, so no Python object
is made per subscriber and the GIL is free meanwhile.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from rtpfanout.errors import StartError
from rtpfanout.store.files import (
    MEMORY,
    SUFFIXES,
    new_file,
    put_in_place,
    remove,
    set_aside,
    unusable,
)
from rtpfanout.store.migrations import (
    LAYOUT,
    DamagedError,
    bring_up,
    check_tables,
    copy_brought_up,
    kept_name,
    layout_of,
    refuse_later,
)
from rtpfanout.store.reading import CLOCK, STATE
from rtpfanout.store.records import KeptClock
from rtpfanout.store.writes import put_revision

if TYPE_CHECKING:
    from rtpfanout.store.writes import Write

_log = structlog.stdlib.get_logger(__name__)

CACHE_BYTES = 32_768_000


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
        self.revision: int = self.connection.execute(STATE).fetchone()[0]
        clock = self.connection.execute(CLOCK).fetchone()
        self.clock = KeptClock._make(clock) if clock else None
        self._was_read = False
        self.clock_now: Callable[[], KeptClock] | None = None
        """What the times in the changes are of, to be kept with each transaction."""

    @property
    def sequence(self) -> int:
        """The highest one a session ever had."""
        return int(self.connection.execute(STATE).fetchone()[1])

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

    def write(self, changes: Iterable[Write], revision: int) -> None:
        """All changes in one transaction, durable on return; on any exception none of them."""
        clock = self.clock_now() if self.clock_now else None
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            for change in (*changes, put_revision(revision, clock)):
                for statement, rows in change.steps:
                    self.connection.executemany(statement, rows)
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.rollback()
            raise
        self.revision = max(revision, self.revision)
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


class Opened(NamedTuple):
    """A file of today's layout."""

    connection: sqlite3.Connection
    copy: str = ""
    """Its name, if it is one that was made on trial and has not taken the file's place."""
    copied_layout: int = 0
    """Of the file."""


def open_file(path: str, *, trusts: bool, on_trial: bool) -> Opened:
    """The file, which is made if need be. Raises DamagedError, StartError."""
    file = Path(path)
    try:
        if path == MEMORY:
            connection = connect(path)
            bring_up(connection, 0)
            return Opened(connection)
        refuse_later(path)
        remove(f"{path}.new")  # which somebody did not come to the end of
        file.touch(mode=0o600)
        for suffix in SUFFIXES:
            if Path(path + suffix).exists():
                Path(path + suffix).chmod(0o600)
        return _open(path, trusts=trusts, on_trial=on_trial)
    except UnicodeDecodeError as error:  # of a message that names a part of the schema
        raise DamagedError(str(error)) from None
    except sqlite3.Error as error:
        if _is_damage(error, file):
            raise DamagedError(str(error)) from None
        raise unusable(file, error) from None
    except OSError as error:
        raise unusable(file, error) from None


def connect(path: str) -> sqlite3.Connection:
    """Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        execute = connection.execute
        # We have the file alone: the log's index is in our memory, not in a file that a full
        # disk could take from under us.
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute(f"PRAGMA cache_size = -{CACHE_BYTES // 1024}")
        execute("PRAGMA temp_store = MEMORY")  # there may be no directory for temporary files
        execute("PRAGMA journal_size_limit = 16000000")
    except BaseException:
        connection.close()
        raise
    return connection


def _open(path: str, *, trusts: bool, on_trial: bool) -> Opened:
    connection = connect(path)
    try:
        layout = layout_of(connection)
        if layout == LAYOUT:
            found = ("ok",) if trusts else connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise DamagedError(str(found[0]).replace("\n", " "))
            check_tables(connection)
            return Opened(connection)
        copy = f"{path}.new"
        # A file has all that it needs when another one takes its place: no log is left of it.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy_brought_up(connection, path, layout, copy)
    except BaseException:
        connection.close()
        raise
    connection.close()
    if on_trial:
        return Opened(connect(copy), copy, layout)
    try:
        put_in_place(copy, path, kept_name(path, layout) if layout else "")
    except OSError:
        remove(copy)
        raise
    tell_of(path, layout)
    return Opened(connect(path))


def tell_of(path: str, layout: int) -> None:
    """That it was of that layout, and is of today's; nothing of a new file."""
    if layout:
        _log.info("the store was brought up to date", file=path, layout=LAYOUT, was=layout)


def _is_damage(error: sqlite3.Error, file: Path) -> bool:
    """Rather than a disk or an account that won't have it."""
    code = error.sqlite_errorcode & 0xFF
    if code == sqlite3.SQLITE_READONLY:  # by the bytes of its header, if the system allows it
        return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
