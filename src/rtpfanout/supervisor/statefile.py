"""Where `rtpfanout upgrade`, `reload` and `drain` find a server: a file for each in the runtime
directory."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class State:
    """What the file says. `generation` grows with every hand-over that succeeded."""

    pid: int
    server_pid: int = 0
    bind_address: str = ""
    generation: int = 0
    error: str = ""
    """Why the last upgrade or reload changed nothing; empty if it did."""
    reloads: int = 0
    """Reloads that were looked at, good or bad."""


def directory() -> Path:
    """$RUNTIME_DIRECTORY (systemd), else the user's own place for such files."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        if value := os.environ.get(variable, "").split(":")[0]:
            return Path(value) if variable == "RUNTIME_DIRECTORY" else Path(value, "rtpfanout")
    if os.geteuid() == 0:
        return Path("/run/rtpfanout")
    return Path(tempfile.gettempdir(), f"rtpfanout-{os.getuid()}")


class StateFile:
    """The file of this server: `write` replaces it as a whole."""

    def __init__(self, state: State) -> None:
        self.state = state
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
    """The state of the server with that process id, if it tells one and lives."""
    try:
        state = State(**json.loads((directory() / f"{pid}.json").read_text()))
        os.kill(state.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return state


def running() -> list[State]:
    """All servers that live."""
    try:
        names = sorted(directory().glob("*.json"))
    except OSError:
        return []
    return [state for name in names if name.stem.isdigit() and (state := read(int(name.stem)))]
