"""Keeps strangers from taking all connections of the API.

gRPC accepts them, bounds their number and asks nobody; then whoever opens the most keeps the
others out. So its connections are looked for among this process's descriptors, and where there are
too many those that `Crowd` chooses are shut down, which gRPC takes for a peer that has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rtpfanout.crowd import Claim, Crowd, origin_of

LOOK_SECONDS = 0.25


@dataclass(eq=False, slots=True)
class ApiConnection:
    """One of gRPC's; `peer` is the kernel's name of the other end."""

    descriptor: int
    peer: object
    origin: str
    name: str
    callers: set[str]

    @property
    def claim(self) -> Claim:
        """To stay when others come."""
        return Claim.IDLE if self.name in self.callers else Claim.NEVER_ASKED

    def end(self) -> None:
        """Both directions, at once."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.descriptor)) as sock:
            if sock.getpeername() == self.peer:  # and not another that has its number now
                sock.shutdown(socket.SHUT_RDWR)


class Warden:
    """Looks after the connections to `port` from `start` to `stop`."""

    port = 0

    def __init__(self, crowd: Crowd) -> None:
        self._callers: set[str] = set()
        self._crowd = crowd
        self._known: dict[int, tuple[int, ApiConnection | None]] = {}  # and the inode
        self._task: asyncio.Task[None] | None = None
        self._directory: int | None = None

    def called(self, name: str) -> None:
        """A call was let in from the connection that gRPC names so."""
        if self._task:
            self._callers.add(name)

    def start(self) -> None:
        """In the running event loop."""
        with contextlib.suppress(OSError):  # without /proc there is only gRPC's own bound
            self._directory = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._task = asyncio.create_task(self._watch(self._directory))

    def stop(self) -> None:
        """For good."""
        if self._task:
            self._task.cancel()
            self._task = None
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    async def _watch(self, directory: int) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(OSError):  # not a descriptor is left, for the moment
                self._look(map(int, os.listdir(directory)))

    def _look(self, descriptors: Iterable[int]) -> None:
        before, self._known = self._known, {}
        newcomers = []
        for descriptor, inode in _sockets(descriptors):
            known = before.get(descriptor)
            if known and known[0] == inode:
                self._known[descriptor] = before.pop(descriptor)
            else:
                newcomer = self._connection(descriptor)
                self._known[descriptor] = inode, newcomer
                newcomers.append(newcomer)
        for _, connection in before.values():  # first: they take no room any more
            if connection:
                self._crowd.gone(connection)
        for newcomer in filter(None, newcomers):
            self._crowd.came(newcomer)
        self._callers &= {found.name for _, found in self._known.values() if found}

    def _connection(self, descriptor: int) -> ApiConnection | None:
        """None for any other socket."""
        try:
            with _borrowed(descriptor) as sock:
                if sock.family not in (socket.AF_INET, socket.AF_INET6):
                    return None
                if sock.type != socket.SOCK_STREAM or sock.getsockname()[1] != self.port:
                    return None
                peer = sock.getpeername()
        except OSError:  # it listens, or has gone
            return None
        return ApiConnection(descriptor, peer, origin_of(peer), _name(peer), self._callers)


def _sockets(descriptors: Iterable[int]) -> Iterator[tuple[int, int]]:
    """With their inodes."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # that of the directory's reading
            status = os.fstat(descriptor)
            if stat.S_ISSOCK(status.st_mode):
                yield descriptor, status.st_ino


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """Raises OSError."""
    sock = socket.socket(fileno=descriptor)
    try:
        yield sock
    finally:
        sock.detach()


def _name(peer: tuple[str, int]) -> str:
    """As gRPC does."""
    ip = ipaddress.ip_address(peer[0])
    if isinstance(ip, ipaddress.IPv6Address) and not ip.ipv4_mapped:
        return f"ipv6:%5B{peer[0]}%5D:{peer[1]}"
    return f"ipv4:{peer[0].rpartition(':')[2]}:{peer[1]}"
