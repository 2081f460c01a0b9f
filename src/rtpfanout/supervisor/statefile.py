"""Where `rtpfanout upgrade`, `reload` and `drain` find a server: a file for each in the runtime
directory."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass
class State:
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
    def of(cls, values: dict[str, Any]) -> State:
        """From what another version may have written. Raises TypeError."""
        known = {entry.name for entry in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    @property
    def lives(self) -> bool:
        """The process is still that one."""
        return bool(self.started) and start_of(self.pid) == self.started


def start_of(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0: there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    values = text.rpartition(")")[2].split()
    return 0 if values[0] == "Z" else int(values[19])


def directory() -> Path:
    """$RUNTIME_DIRECTORY (systemd), /run/rtpfanout for root, else the user's own place."""
    if value := os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return Path(value)
    if os.geteuid() == 0:
        return Path("/run/rtpfanout")
    if value := os.environ.get("XDG_RUNTIME_DIR", ""):
        return Path(value, "rtpfanout")
    return Path(tempfile.gettempdir(), f"rtpfanout-{os.getuid()}")


class StateFile:
    """The file of this server: `write` replaces it as a whole."""

    def __init__(self, state: State) -> None:
        self.state = state
        state.started = start_of(state.pid)
        self._path = directory() / f"{state.pid}.json"

    def write(self) -> None:
        """Best effort: the server does without."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = self._path.with_suffix(".tmp")
            draft.write_text(json.dumps(asdict(self.state)))
            draft.replace(self._path)

    def remove(self) -> None:
        """At the end."""
        with contextlib.suppress(OSError):
            self._path.unlink()


def read(pid: int) -> State | None:
    """The state of the supervisor with that process id, if it lives."""
    path = directory() / f"{pid}.json"
    try:
        if path.stat().st_uid not in (0, os.geteuid()):
            return None  # anybody may make files in a place such as /tmp
        state = State.of(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return state if state.pid == pid and state.lives else None


def running() -> list[State]:
    """All supervisors that live. What those left behind that were killed is removed."""
    try:
        names = sorted(name for name in directory().glob("*.json") if name.stem.isdigit())
    except OSError:
        return []
    states = []
    for name in names:
        if state := read(int(name.stem)):
            states.append(state)
        elif not start_of(int(name.stem)):
            with contextlib.suppress(OSError):
                name.unlink()
    return states
