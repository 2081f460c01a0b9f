"""Where the store's file lies, who may have it, and how a damaged one is set aside."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rtpfanout.errors import StartError

if TYPE_CHECKING:
    from rtpfanout.model import Address

MEMORY = ":memory:"
"""A store that lives as long as its process."""
SUFFIXES = ("", "-wal", "-shm")
_SYSTEM_DIRECTORY = Path("/var/lib/rtpfanout")
_LOOK_AGAIN_SECS = 0.005
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems say that have no hard links: a FAT, some of the network's and of FUSE's."""


def default_path(bind_address: Address) -> str:
    """Where the store of the server at `bind_address` lies: the port is part of the name.

    In $STATE_DIRECTORY (systemd's StateDirectory=) if it is set; for root in
    /var/lib/rtpfanout; else in $XDG_STATE_HOME/rtpfanout or ~/.local/state/rtpfanout. A server
    at port 0 has another port each time, so its store is MEMORY. Raises StartError.
    """
    if bind_address.port == 0:
        return MEMORY
    return str(state_directory() / f"sessions-{bind_address.port}.db")


def state_directory() -> Path:
    """What is kept beyond a restart lies here. Raises StartError: the user has no home."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if os.geteuid() == 0 and _can_have(_SYSTEM_DIRECTORY):
        return _SYSTEM_DIRECTORY
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification says to ignore a relative one.
    if Path(state).is_absolute():
        return Path(state, "rtpfanout")
    try:
        return Path.home() / ".local/state/rtpfanout"
    except RuntimeError:  # neither $HOME nor an entry in passwd(5)
        raise StartError(
            f"user {os.geteuid()} has no home directory to keep sessions in; set store.path"
            f' ("{MEMORY}" keeps nothing over a restart), STATE_DIRECTORY or HOME',
            field="store.path",
        ) from None


def _can_have(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK)


class FileLock:
    """One process at a time has the file: an flock on a file beside it.

    The kernel releases it when its process ends, however it ends. The lock file stays, and
    has the id of the process that holds it or held it last.
    """

    def __init__(self, path: Path, wait_secs: float) -> None:
        """Makes the directory (0700) if need be. Raises StartError."""
        lock = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(path, error) from None
        try:
            self._take(path, time.monotonic() + wait_secs)
            with contextlib.suppress(OSError):  # a full disk: it is there for people only
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(self._fd)
            raise

    def _take(self, path: Path, deadline: float) -> None:
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = os.pread(self._fd, 20, 0).decode(errors="replace").strip()
                    raise StartError(
                        f"the store {path} is in use by process {holder or 'unknown'}; stop that"
                        " server or give this one another store.path",
                        field="store.path",
                    ) from None
                time.sleep(_LOOK_AGAIN_SECS)
            except OSError as error:
                raise unusable(path, error) from None
            else:
                return

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the lock's file."""
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def release(self) -> None:
        """The next process may have the file."""
        os.close(self._fd)


def reason_of(error: Exception) -> str:
    """What people understand of it."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def unusable(path: Path, error: Exception) -> StartError:
    """The file can't be had, for a reason that is no damage."""
    return StartError(
        f"the store {path} cannot be used: {reason_of(error)}; make its directory writable for this"
        f' user, or set store.path (":memory:" keeps nothing over a restart)',
        field="store.path",
    )


def new_file(path: str, like: str) -> None:
    """An empty one (0600), of the owner and group of the file `like` if there is that.

    Raises OSError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(FileNotFoundError, PermissionError):  # only root may give it away
            owner = Path(like).stat()
            os.fchown(fd, owner.st_uid, owner.st_gid)
    finally:
        os.close(fd)


def sync(path: str | Path) -> None:
    """What is in the file, or the names in the directory, is durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """The file and what SQLite puts beside it, if they are there. Raises OSError."""
    for suffix in (*SUFFIXES, "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def put_in_place(copy: str, path: str, kept: str = "") -> None:
    """In one step the file `copy` has the name `path` and is durable; the one before is `kept`
    under that name, where the file system can do it. Neither may be open. Raises OSError.
    """
    sync(copy)
    if kept:
        Path(kept).unlink(missing_ok=True)
        try:
            os.link(path, kept)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
    Path(copy).replace(path)
    sync(Path(path).parent)


def aside_name(path: Path, why: str) -> Path:
    """Another name for the file, that neither it nor its log and index have yet."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 0
    while True:
        tail = f".{why}-{stamp}" + (f"-{number}" if number else "")
        aside = path.with_name(path.name + tail)
        if not any(os.path.lexists(f"{aside}{suffix}") for suffix in SUFFIXES):
            return aside
        number += 1


def set_aside(path: Path) -> Path:
    """Give the file, its log and its index another name; the new one. Raises StartError."""
    aside = aside_name(path, "damaged")
    try:
        for suffix in SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    except OSError as error:
        raise unusable(path, error) from None
    return aside
