"""The store as the server uses it: submissions, one writer thread, group commit."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rtpfanout.closing import Closing
from rtpfanout.errors import StartError, UnavailableError
from rtpfanout.store.database import Database
from rtpfanout.store.files import MEMORY, FileLock
from rtpfanout.store.place import LostError, Place, abandon, write_anew
from rtpfanout.store.reading import Reading
from rtpfanout.store.submission import STORE_COUNTERS, Submission, Waiting
from rtpfanout.store.writes import put_secret

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rtpfanout.store.records import KeptClock
    from rtpfanout.store.writes import Write

_log = structlog.stdlib.get_logger(__name__)

MOST_QUEUED = 10_000
"""Submissions that wait; one more is refused."""
FORGET_EVERY_SECS = 60.0
_READ_ALL_AFTER_SECS = 5.0
SECRET_BYTES = 32


class Store(Reading, Closing):
    """A store that is open. Thread-safe, but for the reading, which belongs to the start.

    One process has a file at a time. A process that takes over from another (an upgrade)
    opens it with `wait_secs`, and gets it when the other calls `close` or ends.
    """

    def __init__(
        self,
        path: str,
        *,
        wait_secs: float = 0.0,
        most_queued: int = MOST_QUEUED,
        trusts: bool = False,
        on_trial: bool = False,
    ) -> None:
        """Open or make the file `path`, or MEMORY; a damaged one is set aside.

        One of an earlier layout is brought up to date. `on_trial` that is a copy, and the file is
        as it was, until `settle`: another version may have to go on with it.
        `trusts` it where it was read without a fault before, since this host's start.
        Raises StartError: in use by another process after `wait_secs`, not accessible, no room to
        bring it up to date, or made by a later version.
        """
        # What is behind a link is replaced, and not the link.
        self.path = os.path.realpath(path) if path != MEMORY and Path(path).is_symlink() else path
        self._secrets: dict[str, bytes] = {}
        self._secrets_lock = threading.Lock()
        self._waiting = Waiting(most_queued)
        self._close_lock = threading.Lock()
        self._counting = threading.Lock()
        self._counts = Counter(dict.fromkeys(STORE_COUNTERS, 0))
        self._failing = ""
        self._is_dirty = False
        self._clock: Callable[[], KeptClock] | None = None
        self._next_forget = time.monotonic() + FORGET_EVERY_SECS
        self._open(wait_secs, trusts=trusts, on_trial=on_trial)

    def _open(self, wait_secs: float, *, trusts: bool, on_trial: bool = False) -> None:
        self._lock = FileLock(Path(self.path), wait_secs) if self.path != MEMORY else None
        try:
            self._database = Database(self.path, trusts=trusts, on_trial=on_trial)
            self._database.clock_now = self._clock
            self._secrets = self.secrets()
        except BaseException:
            if self._lock is not None:
                self._lock.release()
            raise
        self._closed = threading.Event()
        self._begin()

    def _begin(self) -> None:
        lock = None if self._database.is_on_trial else self._lock
        self._place = Place(self.path, lock) if lock else None
        self._lost = ""
        self._read_all_at = time.monotonic() + _READ_ALL_AFTER_SECS
        self._waiting.begin()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """What was opened on trial, and written since, is the store from now on.

        To be called before anybody is promised anything. Raises StartError.
        """
        with self._close_lock:
            if self._database.is_on_trial:
                self._end()
                self._database.settle()
                self._begin()

    def reopen(self, wait_secs: float = 0.0) -> None:
        """After `close`: the file as it is now. Raises StartError as the constructor does."""
        with self._close_lock:
            if self._closed.is_set() and self.path != MEMORY:
                self._open(wait_secs, trusts=True)

    @property
    def _connection(self) -> sqlite3.Connection:
        return self._database.connection

    @property
    def revision(self) -> int:
        """The highest one that was written."""
        return self._database.revision

    @property
    def sequence(self) -> int:
        """The highest one a session ever had."""
        return self._database.sequence

    @property
    def failing(self) -> str:
        """Why the last write failed; empty if it didn't."""
        return self._failing

    @property
    def kept_clock(self) -> KeptClock | None:
        """What the times in it are of; None where nobody kept that."""
        return self._database.clock

    def keep_clock(self, clock: Callable[[], KeptClock]) -> None:
        """From now on each transaction has it: what is submitted has times of this clock."""
        self._clock = self._database.clock_now = clock

    def counts(self) -> dict[str, int]:
        """A copy; by the names of STORE_COUNTERS."""
        with self._counting:
            return dict(self._counts)

    def submit(self, changes: Sequence[Write], revision: int = 0) -> Future[int]:
        """Write all of `changes`, or none. Submissions are carried out in order.

        The result, once it is durable, is the highest revision that was submitted so far. It
        fails with UnavailableError, nothing being written: disk full, failing sync, a change
        that can't be written, queue full, store closed.
        """
        submission = Submission(changes, revision)
        if fault := self._waiting.put(submission):
            self._refuse(submission, fault)
        return submission.done

    def secret(self, name: str) -> bytes:
        """32 random bytes of that name, the same as long as the file lives.

        Waits until they are durable. Raises UnavailableError.
        """
        with self._secrets_lock:
            found = self._secrets.get(name)
            if found is None:
                found = secrets.token_bytes(SECRET_BYTES)
                self.submit([put_secret(name, found)]).result()
                self._secrets[name] = found
        return found

    def close(self) -> None:
        """Writes what was submitted, then lets the next process have the file."""
        with self._close_lock:
            self._end()
            if not self._closed.is_set():
                self._closed.set()
                if self._look():
                    abandon(self._database)
                else:
                    self._database.close()
                if self._place is not None:
                    self._place.release()
                if self._lock is not None:
                    self._lock.release()

    def _end(self) -> None:
        self._waiting.end()
        self._thread.join()

    def _refuse(self, submission: Submission, reason: str) -> None:
        with self._counting:
            self._counts["failures"] += 1
        submission.done.set_exception(_unavailable(reason))

    # --- the writer thread ---

    def _run(self) -> None:
        while (group := self._waiting.next_group()) is not None:
            lost = self._look()
            if not group:
                self._read_all()
                continue
            if lost:
                for submission in group:
                    self._refuse(submission, lost)
                continue
            self._write_group(group)
            if time.monotonic() >= self._next_forget:
                self._next_forget = time.monotonic() + FORGET_EVERY_SECS
                self._forget()

    def _look(self) -> str:
        """Why nothing can be written, as the file isn't there; it is written anew if possible."""
        fault = self._place.fault() if self._place else ""
        if (
            fault
            and self._place
            and not self._database.is_in_memory
            and self._place.forgive_touch()
        ):
            fault = self._place.fault()
        if not fault:
            if self._lost:
                _log.info("the store is there again", file=self.path)
                self._lost = self._failing = ""
            return ""
        assert self._place
        assert self._lock
        if not self._lost:
            self._counts["lost"] += 1
            _log.error(f"the store's file {fault}; it is written anew", file=self.path)
        try:
            self._database, self._lock, aside = write_anew(
                self.path, self._place, self._lock, self._database
            )
        except (OSError, sqlite3.Error, StartError, LostError) as error:
            lost = f"the store's file {fault}, and it can't be written anew: {error}"
            if lost != self._lost:
                _log.error("the store can't be written anew", file=self.path, reason=str(error))
            self._lost = self._failing = lost
            return lost
        self._place = Place(self.path, self._lock)
        self._read_all_at = 0.0
        self._lost = self._failing = ""
        self._counts["healed"] += 1
        _log.warning(
            "the store was written anew", file=self.path, moved_to=str(aside) if aside else None
        )
        return ""

    def _note(self) -> None:
        if self._place:
            self._place.note()

    def _read_all(self) -> None:
        if self._place and not self._lost and time.monotonic() >= self._read_all_at:
            self._read_all_at = math.inf
            with contextlib.suppress(sqlite3.Error):
                self._database.read_all()

    def _write_group(self, group: list[Submission]) -> None:
        error = self._try(group)
        if error is None:
            return
        if len(group) == 1:
            self._fail(group[0], error)
            return
        # One of them may be to blame, or fewer may fit on the disk.
        for submission in group:
            single = self._try([submission])
            if single is not None:
                self._fail(submission, single)

    def _try(self, group: list[Submission]) -> Exception | None:
        changes = (change for submission in group for change in submission.changes)
        revision = max(submission.revision for submission in group)
        try:
            self._bury()
            self._database.write(changes, revision)
            self._note()
        except Exception as error:
            if isinstance(error, sqlite3.Error):
                self._is_dirty = True
                with contextlib.suppress(sqlite3.Error):  # else before the next write
                    self._bury()
            self._note()
            return error
        if self._failing:
            _log.info("the store can be written again")
            self._failing = ""
        with self._counting:
            self._counts["transactions"] += 1
            self._counts["commits"] += len(group)
        for submission in group:
            submission.done.set_result(self._database.revision)
        return None

    def _bury(self) -> None:
        if self._is_dirty:
            self._database.bury()
            self._is_dirty = False

    def _fail(self, submission: Submission, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        if isinstance(error, sqlite3.Error) and not self._failing:
            _log.error("the store can't be written", file=self.path, reason=reason)
        self._failing = reason
        self._refuse(submission, f"the store can't be written: {reason}")

    def _forget(self) -> None:
        now = self._clock().written_ns / 1e9 if self._clock else time.time()
        try:
            self._database.forget_answers(now)
        except sqlite3.Error as error:
            self._is_dirty = True
            _log.debug("old answers can't be forgotten", reason=str(error))
        self._note()


def _unavailable(reason: str) -> UnavailableError:
    return UnavailableError(f"{reason}; nothing was changed, try again", field=None)
