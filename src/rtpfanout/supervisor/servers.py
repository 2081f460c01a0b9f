"""The server processes of a supervisor: who reads the sockets, and who waits to take its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rtpfanout.supervisor.succession import Successor

if TYPE_CHECKING:
    import signal

    from rtpfanout.config import Settings
    from rtpfanout.supervisor.process import ServerProcess


class Servers:
    """`current` reads the sockets, or is about to; `successor` waits. None: there is none."""

    def __init__(self) -> None:
        self.current: ServerProcess | None = None
        self.successor: Successor | None = None

    def __iter__(self) -> Iterator[ServerProcess]:
        return (process for process in (self.current, self.successor) if process)

    def __bool__(self) -> bool:
        return any(self)

    def by_link(self) -> dict[int, ServerProcess]:
        """Whose link is open, by its descriptor."""
        return {server.link.sock.fileno(): server for server in self if not server.link.closed}

    def of(self, pid: int) -> ServerProcess | None:
        """The one with that process id."""
        return next((server for server in self if server.pid == pid), None)

    def signal(self, number: signal.Signals) -> None:
        """To all."""
        for server in self:
            server.signal(number)

    def start_successor(self, sockets: Sequence[int], settings: Settings) -> str:
        """Tries the version that is installed now, while everything goes on; why it can't be."""
        try:
            self.successor = Successor(sockets, settings)
        except OSError as error:
            return f"the new version can't be started: {error.strerror}; try again"
        return ""

    def promote(self) -> ServerProcess | None:
        """The successor takes the place; the one before has stopped, and its end is no news."""
        if not self.current or not self.successor:
            return None
        self.current.link.close()
        self.current, self.successor = self.successor, None
        return self.current
