"""Where `rtpfanout upgrade`, `reload` and `drain` find a server: a file for each, in a directory
that is the server's or its user's own."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog

from rtpfanout.errors import StartError
from rtpfanout.store import state_directory
from rtpfanout.supervisor.link import known

_SHARED = Path("/tmp")  # noqa: S108 (looked into with care, never written to)

_log = structlog.stdlib.get_logger(__name__)


@dataclass
class ServerState:
    """What the file says of a supervisor, its last upgrade and its last reload."""

    pid: int
    started: int = 0
    """Of the process, in clock ticks since boot (proc_pid_stat(5)): a pid alone may be reused."""
    server_pid: int = 0
    bind_address: str = ""
    upgrades: int = 0
    """That came to an end, good or bad."""
    reloads: int = 0
    """That were looked at, good or bad."""
    error: str = ""
    """Why the last upgrade or reload changed nothing; empty if it did."""
    needs_restart: list[str] = field(default_factory=list)
    """Keys that the last reload could not apply."""

    @classmethod
    def of(cls, values: Any) -> ServerState:
        """From what another version may have written. Raises TypeError."""
        if not isinstance(values, dict):
            raise TypeError("it is no object")
        return known(cls, values)

    @property
    def lives(self) -> bool:
        """The process is still that one."""
        return bool(self.started) and start_of(self.pid) == self.started


def start_of(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0: there is none.

    Where /proc isn't mounted all that is known is that it lives: 1.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0 if Path("/proc/self").exists() else int(_exists(pid))
    values = text.rpartition(")")[2].split()
    return 0 if values[0] == "Z" else int(values[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def places() -> list[Path]:
    """Where the files may be: a server takes the first that it can have.

    $RUNTIME_DIRECTORY (systemd) is the one place where it is set. Else /run/rtpfanout for root, the
    user's own runtime directory, or beside the store: nothing of ours is in a directory that
    others can write to, unless the environment names it.
    """
    uid = os.geteuid()
    if value := os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return [Path(value)]
    found = []
    if uid == 0:
        found.append(Path("/run/rtpfanout"))
    if value := os.environ.get("XDG_RUNTIME_DIR", ""):
        found.append(Path(value, "rtpfanout"))
    if _is_own(user := Path(f"/run/user/{uid}")):
        found.append(user / "rtpfanout")
    with contextlib.suppress(StartError):  # neither that nor a store
        found.append(state_directory() / "run")
    return list(dict.fromkeys(found))


def _readable_places() -> list[Path]:
    """Also where a version before this one, which may still run, has told of itself."""
    if os.environ.get("RUNTIME_DIRECTORY"):
        return places()
    before = _SHARED / f"rtpfanout-{os.geteuid()}"
    return [*places(), *([before] if _is_own(before) else [])]


def _is_own(directory: Path) -> bool:
    """It is a directory and no link to one, ours, and nobody else can write to it."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & 0o022
    )


class StateFile:
    """The file of this server: `write` replaces it as a whole."""

    def __init__(self, state: ServerState) -> None:
        self.state = state
        state.started = start_of(state.pid)
        self._name = f"{state.pid}.json"
        self._directory: Path | None = None
        self._was_told = False

    def upgraded(self, error: str) -> None:
        """Or not, for the reason `error`."""
        self.state.upgrades += 1
        self.state.error = error
        self.write()

    def reloaded(self, error: str, needs_restart: Sequence[str]) -> None:
        """Or not, for the reason `error`; the keys that it could not apply."""
        self.state.reloads += 1
        self.state.error = error
        self.state.needs_restart = list(needs_restart)
        self.write()

    def write(self) -> None:
        """Best effort: the server does without, after a line of the log that says so."""
        if self._directory is None:
            self._directory = next(filter(_can_have, places()), None)
        try:
            if self._directory is None:
                raise OSError("no directory can be had")
            _replace(self._directory / self._name, json.dumps(asdict(self.state)))
        except OSError as error:
            if not self._was_told:
                self._was_told = True
                _log.warning(
                    "rtpfanout upgrade, reload and drain won't find this server; name a directory"
                    " of its own by RUNTIME_DIRECTORY",
                    tried=[str(place) for place in places()],
                    reason=error.strerror or str(error),
                )

    def remove(self) -> None:
        """At the end."""
        if self._directory is not None:
            with contextlib.suppress(OSError):
                (self._directory / self._name).unlink()


def _can_have(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)


def _replace(path: Path, text: str) -> None:
    """By a new file, which no link leads elsewhere."""
    draft = path.with_suffix(".tmp")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def read(pid: int) -> ServerState | None:
    """The state of the supervisor with that process id, if it lives."""
    for place in _readable_places():
        state = _read(place / f"{pid}.json")
        if state and state.pid == pid and state.lives:
            return state
    return None


def _read(path: Path) -> ServerState | None:
    """Only a file of ours, or of root's, is believed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
                return None
            return ServerState.of(json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None


def running() -> list[ServerState]:
    """All supervisors that live. What those left behind that were killed is removed."""
    states = {}
    for place in _readable_places():
        with contextlib.suppress(OSError):
            for name in sorted(place.glob("*.json")):
                if not name.stem.isdigit():
                    continue
                if state := read(int(name.stem)):
                    states[state.pid] = state
                elif not start_of(int(name.stem)):
                    with contextlib.suppress(OSError):
                        name.unlink()
    return list(states.values())
