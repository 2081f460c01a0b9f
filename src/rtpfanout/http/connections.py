"""Connections of strangers: how many there may be, and which one goes when there are too many.

The newcomer is always let in. What makes room is one of the network that has the most: the oldest
that never asked for anything, else the oldest. So whoever opens thousands ends his own, and a
health check, which connects and asks at once, gets its answer even from the same address.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ipaddress
import os
import time
from typing import TYPE_CHECKING, Protocol

import structlog

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

BACKLOG = 1024
ACCEPTS_AT_A_TIME = 16
SHARE = 4
"""One network has at most this part of all connections."""
SPARE_DESCRIPTORS = 4
"""Kept for health checks when something else has taken all others."""
RETRY_SECONDS = 0.1
TELL_SECONDS = 60.0

_log = structlog.stdlib.get_logger(__name__)


class Claim(enum.IntEnum):
    """Who goes first where somebody has to."""

    NEVER_ASKED = 0
    IDLE = 1
    BEING_ANSWERED = 2


class Connection(Protocol):
    """What Crowd knows of one."""

    origin: str

    @property
    def claim(self) -> Claim:
        """To stay."""

    def end(self) -> None:
        """At once, and without a word."""


class Crowd:
    """All connections, in the order they came. `ended` counts, by reason, whom we sent away."""

    def __init__(self, most: int) -> None:
        self.ended = {"room": 0, "late": 0}
        self._most = most
        self._share = max(1, most // SHARE)
        self._by_origin: dict[str, dict[Connection, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def came(self, connection: Connection) -> None:
        """Ends another where it is one too many."""
        others = self._by_origin.setdefault(connection.origin, {})
        others[connection] = None
        self._count += 1
        if len(others) > self._share:
            self._end_one(others)
        elif self._count > self._most:
            self.make_room()

    def gone(self, connection: Connection) -> None:
        """Also of one that made room."""
        others = self._by_origin.get(connection.origin, {})
        if connection in others:
            del others[connection]
            self._count -= 1
            if not others:
                del self._by_origin[connection.origin]

    def make_room(self) -> None:
        """Ends one, if there is any."""
        if self._by_origin:
            self._end_one(max(self._by_origin.values(), key=len))

    def _end_one(self, some: dict[Connection, None]) -> None:
        victim = min(some, key=lambda one: one.claim)  # the oldest of these
        self.ended["room"] += 1
        self.gone(victim)
        victim.end()


class Acceptor:
    """Accepts on `listener` until `close`; what asyncio's own does, but for what goes wrong.

    That one goes on failing for as long as there is no descriptor, with a traceback each time.
    """

    def __init__(
        self, listener: socket.socket, crowd: Crowd, make: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """`make` makes the protocol of a connection."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._crowd = crowd
        self._make = make
        self._spare: list[int] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._failures = 0
        self._told = -TELL_SECONDS
        self._retry: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self.keep_spare()
        self._begin()

    def keep_spare(self) -> None:
        """As far as there are any; to be called now and then."""
        with contextlib.suppress(OSError):
            while len(self._spare) < SPARE_DESCRIPTORS:
                self._spare.append(os.dup(self._listener.fileno()))

    def close(self) -> None:
        """Takes no more; the listener is the caller's."""
        self._loop.remove_reader(self._listener)
        if self._retry:
            self._retry.cancel()
        while self._spare:
            os.close(self._spare.pop())

    def _begin(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_A_TIME):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._fail(error)
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._connect(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, sock)
        except OSError:  # it has gone already
            sock.close()

    def _fail(self, error: OSError) -> None:
        """A spare one at once for who waits; else when somebody has made room."""
        self._failures += 1
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            _log.error(
                "connections can't be accepted",
                port="metrics_bind_address",
                reason=error.strerror,
                times=self._failures,
                connections=len(self._crowd),
            )
            self._told, self._failures = now, 0
        if self._spare:
            os.close(self._spare.pop())
            return
        self._crowd.make_room()
        self._loop.remove_reader(self._listener)
        self._retry = self._loop.call_later(RETRY_SECONDS, self._begin)


def origin_of(peer: object) -> str:
    """The address, or the /64 of an IPv6 one: who has one has all of them."""
    try:
        ip = ipaddress.ip_address(str(peer[0]).partition("%")[0])  # type: ignore[index]
    except (TypeError, ValueError, IndexError):
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)
