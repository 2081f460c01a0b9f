"""A store whose file was taken from under it is written anew, whole, where it was."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import structlog

from rtpfanout.store.database import Database
from rtpfanout.store.files import FileLock, put_in_place, remove
from rtpfanout.store.place import LostError, Place

_log = structlog.stdlib.get_logger(__name__)
_ABANDONED: list[Database] = []
"""Never closed: SQLite would remove the log by its name, which is another one's by now."""


def abandon(database: Database) -> None:
    """What it writes goes nowhere, and nothing it does may touch what lies there now."""
    _ABANDONED.append(database)


def write_anew(
    path: str, place: Place, lock: FileLock, database: Database
) -> tuple[Database, FileLock, Path | None]:
    """The store as it is from now on, and where that is what others put in its place.

    What was open is given up, but only when the new one is there. Raises LostError, OSError,
    sqlite3.Error, StartError (another process has the new file).
    """
    place.check_volume()
    if place.is_overwritten and not database.is_in_memory:
        if log := place.put_log_aside():
            _log.error("what its log held is kept, for who can use it", moved_to=str(log))
        raise LostError(
            "it is too large to have been kept in memory; start the server anew to take it as it"
            " is, or after you have put the right one there"
        )
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new_lock = lock if place.has_lock else FileLock(Path(path), 0.0)
    try:
        temporary = f"{path}.new"
        remove(temporary)
        database.copy_to(temporary)
        _check(temporary)
        aside = place.clear()
        put_in_place(temporary, path)
        new = Database(path, trusts=True)
    except BaseException:
        if new_lock is not lock:
            new_lock.release()
        raise
    if new_lock is not lock:
        lock.release()
    new.clock_now = database.clock_now
    abandon(database)
    place.release()
    return new, new_lock, aside


def _check(path: str) -> None:
    """Raises LostError, sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise LostError(f"what is left of it is damaged ({found})")
