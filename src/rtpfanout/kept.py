"""UDP sockets of ports beside the main one, which outlive the process where somebody keeps them.

Each name has its descriptors: `RTCP` one, a session's own port ("7000") one for RTP and one for
RTCP. Who keeps them, a supervisor, is told of each before anybody is told that the port is there:
so there is no moment at which a port is promised, and would be lost with this process.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from rtpfanout import _fastpath
from rtpfanout.errors import StartError
from rtpfanout.listening import bind_fault
from rtpfanout.model import Address

if TYPE_CHECKING:
    from rtpfanout.config import Settings

Tell = Callable[[str, Sequence[int]], str]
"""(name, its descriptors, none if it is given up); why it can't be told, or ""."""

RTCP = "rtcp"
_Main = TypeVar("_Main")
_TRIES = 100


class KeptSockets:
    """Those that this process has, by name; whoever `attach`es has duplicates. Thread-safe."""

    def __init__(self, sockets: Mapping[str, Sequence[int]] | None = None) -> None:
        self._sockets = {name: list(found) for name, found in (sockets or {}).items()}
        self._tell: Tell | None = None
        self._lock = threading.Lock()

    def attach(self, tell: Tell, *, knows: bool) -> None:
        """Somebody keeps them from here on; `knows`: he has those that there are."""
        with self._lock:
            self._tell = tell
            for name, sockets in self._sockets.items():
                if not knows:
                    tell(name, sockets)

    def names(self) -> set[str]:
        """Of those that there are."""
        with self._lock:
            return set(self._sockets)

    def find(self, name: str) -> list[int] | None:
        """They stay ours."""
        with self._lock:
            return self._sockets.get(name)

    def add(self, name: str, sockets: Sequence[int]) -> None:
        """They are kept when it returns. Raises OSError: they can't be; they are the caller's."""
        with self._lock:
            reason = self._tell(name, sockets) if self._tell else ""
            if reason:
                raise OSError(errno.EAGAIN, f"the supervisor can't be told: {reason}")
            self._sockets[name] = list(sockets)

    def give_up(self, names: Iterable[str]) -> None:
        """Nobody has them any more."""
        with self._lock:
            for name in names:
                if name not in self._sockets:
                    continue
                for descriptor in self._sockets.pop(name):
                    os.close(descriptor)
                if self._tell:
                    self._tell(name, ())

    def take(self, sockets: Mapping[str, Sequence[int]]) -> None:
        """What another process had."""
        with self._lock:
            self._sockets |= {name: list(found) for name, found in sockets.items()}


def open_rtcp(settings: Settings, bound: Address) -> int:
    """The socket of the port behind the main one, which is `bound`. Raises StartError."""
    behind = Address(bound.ip, min(bound.port + 1, 65535))
    try:
        return _fastpath.open_socket(behind, settings.buffer_size)
    except OSError as error:
        raise StartError(
            f"cannot bind {behind} for RTCP, the port behind bind_address: {bind_fault(error)};"
            " or set enable_rtcp_port = false",
            field="enable_rtcp_port",
        ) from None


def opened_with_rtcp(
    settings: Settings,
    open_main: Callable[[], _Main],
    address_of: Callable[[_Main], Address],
    close: Callable[[_Main], object],
) -> tuple[_Main, int | None]:
    """(the main port, the socket of the one behind it, if RTCP is wanted).

    Where any free port is good `open_main` is called until the one behind it is free, too. Raises
    StartError.
    """
    for tries_left in reversed(range(_TRIES)):
        main = open_main()
        if not settings.enable_rtcp_port:
            break
        try:
            return main, open_rtcp(settings, address_of(main))
        except StartError:
            close(main)
            if settings.bind_address.port != 0 or tries_left == 0:
                raise
    return main, None
