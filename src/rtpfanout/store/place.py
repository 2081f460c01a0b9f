"""Whether the store's files are still the ones that were opened; if not it is written anew, whole,
where it was.

An open file that is removed, replaced or moved away takes whatever is written to it, and keeps
nothing. So who writes looks first, by name: a few system calls, and no file is opened.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import structlog

from rtpfanout.store.database import Database
from rtpfanout.store.files import SUFFIXES, FileLock, aside_name, put_in_place, remove

_log = structlog.stdlib.get_logger(__name__)
_Identity = tuple[int, int]
"""Device and inode."""
_HEAD_BYTES = 65536
"""Of the file, by which another content is told: its first pages have what each change changes."""
_ABANDONED: list[Database] = []
"""Never closed: SQLite would remove the log by its name, which is another one's by now."""


class LostError(Exception):
    """The store can't be written anew where it was, for a reason that others have to mend."""


class Place:
    """The file, its log and its lock as they were when they were opened."""

    def __init__(self, path: str, lock: FileLock) -> None:
        """All of them have to be there."""
        self._path = Path(path)
        self._lock = lock
        self._device = self._path.parent.stat().st_dev
        self._file = _identity(self._path)
        self._log: _Identity | None = None
        self._content: tuple[int, int] | None = None
        self._head = b""
        # Held, for to close a descriptor of a file gives up SQLite's locks of it.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.note()

    def note(self) -> None:
        """What was just written was written by us; before anybody is told that it was."""
        if _identity(self._path) != self._file:
            return
        if self._log is None:
            self._log = _identity(self._name("-wal"))
        if (content := self._content_now()) != self._content:
            self._content = content
            self._head = self._head_now()

    def release(self) -> None:
        """After the file is closed, or given up."""
        os.close(self._descriptor)

    def forgive_touch(self) -> bool:
        """What looks overwritten may have another time of change and the same bytes: it is ours."""
        now = self._content_now()
        if not (self.is_overwritten and now and self._content and now[0] == self._content[0]):
            return False
        if self._head_now() != self._head:
            return False
        self._content = now
        return True

    @property
    def is_overwritten(self) -> bool:
        """It is the file that was opened, with other bytes in it."""
        return _identity(self._path) == self._file and self._content_now() != self._content

    def fault(self) -> str:
        """What has become of it, as the end of a sentence; "" if nothing."""
        found = _identity(self._path)
        if found is None:
            return "was removed, or its directory is not there"
        if found != self._file:
            return "was replaced by another file"
        if self.is_overwritten:
            return "was overwritten by another program"
        if self._log is not None and _identity(self._name("-wal")) != self._log:
            return "has lost its log, which was removed or replaced"
        if not self.has_lock:
            return "has lost its lock, which was removed or replaced"
        return ""

    @property
    def has_lock(self) -> bool:
        """The lock is the one by its name."""
        return _identity(self._name(".lock")) == self._lock.identity

    def check_volume(self) -> None:
        """Raises LostError: it lay on another one, which others have to bring back."""
        there = self._path.parent
        while not there.exists():
            there = there.parent
        if there.stat().st_dev != self._device:
            raise LostError(
                f"its volume is not mounted at {self._path.parent}; mount it, or start the server"
                " anew to begin another store there"
            )

    def clear(self) -> Path | None:
        """Nothing has its name any more; what others put there gets another one. Raises OSError."""
        ours = {self._file, self._log}
        foreign = [
            suffix for suffix in SUFFIXES if _identity(self._name(suffix)) not in {None, *ours}
        ]
        aside = None
        if foreign or self.is_overwritten:
            aside = aside_name(self._path, "replaced")
        for suffix in SUFFIXES:
            name = self._name(suffix)
            is_kept = suffix in foreign or (suffix == "" and self.is_overwritten)
            with contextlib.suppress(FileNotFoundError):
                if aside is not None and is_kept:
                    name.rename(f"{aside}{suffix}")
                elif suffix:  # the file itself is replaced in one step
                    name.unlink()
        return aside

    def put_log_aside(self) -> Path | None:
        """What it holds must not be played over the bytes of others, and may be all there is of it;
        its new name."""
        log = self._name("-wal")
        if self._log is None or _identity(log) != self._log:
            return None
        aside = Path(f"{aside_name(self._path, 'lost')}-wal")
        log.rename(aside)
        return aside

    def _head_now(self) -> bytes:
        return os.pread(self._descriptor, _HEAD_BYTES, 0)

    def _name(self, suffix: str) -> Path:
        return Path(f"{self._path}{suffix}")

    def _content_now(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
