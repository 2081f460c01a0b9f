"""How the file is opened and checked, and one of an earlier layout replaced."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

import structlog

from rtpfanout.store.files import MEMORY, SUFFIXES, put_in_place, remove, unusable
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

_log = structlog.stdlib.get_logger(__name__)

CACHE_BYTES = 32_768_000


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
