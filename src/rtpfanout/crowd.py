"""Connections of strangers: how many there may be, and which one goes when there are too many.

The newcomer is always let in. What makes room is one that never asked for anything, of a network
that has its share; where all are taken, one of the network that has the most. So whoever opens
thousands ends his own, and a health check, which connects and asks at once, gets its answer even
from the same address.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable
from typing import Protocol

SHARE = 4
"""One network has at most this part of all connections with those that never asked."""


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
    """All connections of a port, in the order they came."""

    def __init__(self, most: int, ended: Callable[[], None]) -> None:
        """`ended` is called for each that has to make room."""
        self._ended = ended
        self._most = most
        self._share = max(1, most // SHARE)
        self._by_origin: dict[str, dict[Connection, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def came(self, connection: Connection) -> None:
        """Ends another where there are too many.

        One that has asked for something stays while there is room, so a gateway that has
        callers behind it can have more than its share.
        """
        others = self._by_origin.get(connection.origin, {})
        if len(others) >= self._share and _first(others).claim is Claim.NEVER_ASKED:
            self._end(_first(others))
        elif self._count >= self._most:
            self.make_room()
        self._by_origin.setdefault(connection.origin, {})[connection] = None
        self._count += 1

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
            self._end(_first(max(self._by_origin.values(), key=len)))

    def _end(self, connection: Connection) -> None:
        self._ended()
        self.gone(connection)
        connection.end()


def _first(some: dict[Connection, None]) -> Connection:
    """Who has to go: the oldest of those with the least claim."""
    return min(some, key=lambda one: one.claim)


def origin_of(peer: object) -> str:
    """The network of a socket's peer: its address, or an IPv6 one's /64, as one host has."""
    try:
        ip = ipaddress.ip_address(str(peer[0]).partition("%")[0])  # type: ignore[index]
    except (TypeError, ValueError, IndexError):
        return ""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)
