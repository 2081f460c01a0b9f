"""What the kernel knows by netlink: which addresses are this host's own, and when that changes.

Asking by trying to bind is no way: with net.ipv4.ip_nonlocal_bind, which hosts with a floating
address set, any address can be bound.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.model import Address
from rtpfanout.netlink import ask, attribute, attributes, dump, open_netlink
from rtpfanout.networks import Ranges

if TYPE_CHECKING:
    from rtpfanout.model import IPAddress

# rtnetlink(7), linux/if_addr.h, linux/rtnetlink.h
_RTM_NEWADDR, _RTM_GETADDR, _RTM_NEWROUTE, _RTM_GETROUTE = 20, 22, 24, 26
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
_TABLE_LOCAL = 255
_RTN_LOCAL, _RTN_BROADCAST, _RTN_ANYCAST = 2, 3, 4
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_ADDRESS = struct.Struct("=BBBBi")  # ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg
_READ_AGAIN_SECS = 10.0


class _Range(NamedTuple):
    """Addresses that are local, as numbers; `scope` is the interface of link-local ones, else 0."""

    first: int
    last: int
    scope: int = 0


_LOOPBACK = {4: _Range(127 << 24, (128 << 24) - 1), 6: _Range(1, 1)}
"""Ours whether or not the interface is up."""


def address_is_local(ip: IPAddress) -> bool:
    """True if a datagram to `ip` stays on this host (or is broadcast by it), as it is now.

    Multicast groups are nobody's own: False. Raises OSError.
    """
    return _Table(local_addresses(), _local_routes()).has(ip)


def local_addresses() -> dict[IPAddress, int]:
    """The addresses of this host's interfaces, link-local ones with their scope, and its index.

    Of 127.0.0.0/8, which is local as a whole, only those that are written down. Raises OSError.
    """
    body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    found: dict[IPAddress, int] = {}
    for message in dump(_RTM_GETADDR, body):
        if message.kind == _RTM_NEWADDR:
            found.update(_addresses(message.body))
    return found


class LocalAddresses:
    """The same, asked often: read again only after the kernel has told of a change.

    It tells before whoever made the change gets his answer, so no answer here is an old one. Of
    routes it isn't asked to tell, as a router's change all the time: what is local by a route alone
    is known 10 s later, to whoever calls `addresses` now and then.
    Thread-safe. What could not be read is taken as it was before; where nothing ever could
    (`fault` says why), binding has to tell after all.
    """

    def __init__(self) -> None:
        """Of the network namespace of this thread."""
        self._lock = threading.Lock()
        self._addresses: dict[IPAddress, int] = {}
        self._table: _Table | None = None
        self._is_old = False
        self._read_again = 0.0
        self.changes = 0
        """How often something has become local, or ceased to be."""
        self.interfaces: dict[str, int] = {}
        """The index of each by its name."""
        self._news: socket.socket | None = None
        self.fault = ""
        try:
            self._news = _listen()
            self._read()
        except OSError as error:
            self.fault = error.strerror or str(error)
            self.close()

    def _read(self) -> None:
        self._read_again = time.monotonic() + _READ_AGAIN_SECS
        self._addresses = local_addresses()
        self.interfaces = interfaces()
        table = _Table(self._addresses, _local_routes())
        if self._table is None or vars(table) != vars(self._table):
            self.changes += 1
            self._table = table
        self._is_old = False

    def is_local(self, ip: IPAddress) -> bool:
        """True if a datagram to `ip` stays on this host (or is broadcast by it)."""
        table = self._current()
        return table.has(ip) if table else _can_be_bound(ip)

    def addresses(self) -> dict[IPAddress, int]:
        """As `local_addresses`."""
        with self._lock:
            self._is_old |= time.monotonic() >= self._read_again
        self._current()
        return self._addresses

    def close(self) -> None:
        """What was known last is known still."""
        with self._lock:
            if self._news:
                self._news.close()
            self._news = None

    def _current(self) -> _Table | None:
        with self._lock:
            if self._news and (_has_come(self._news) or self._is_old):
                self._is_old = True
                with contextlib.suppress(OSError):
                    self._read()
            return self._table


def _listen() -> socket.socket:
    """To be told of changes. Raises OSError."""
    news = open_netlink()
    try:
        news.setblocking(False)
        news.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    except OSError:
        news.close()
        raise
    return news


def _has_come(news: socket.socket) -> bool:
    has_come = False
    while True:
        try:
            news.recv(65536)
        except BlockingIOError:
            return has_come
        except OSError:  # ENOBUFS: more than there was room for
            return True
        has_come = True


def _can_be_bound(ip: IPAddress) -> bool:
    if ip.is_multicast:
        return False
    address = Address(ip, 0)
    try:
        with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
            probe.bind(address.sockaddr)
    except OSError:
        return False
    return True


class _Table:
    """Addresses and routes, so that one is found by a bisection."""

    def __init__(self, addresses: Iterable[IPAddress], routes: list[tuple[int, _Range]]) -> None:
        self._scoped: dict[int, set[int]] = {}
        ranges = {version: [span] for version, span in _LOOPBACK.items()}
        for ip in addresses:
            if ip.is_link_local and ip.version == 6:
                self._scoped.setdefault(int(ip), set()).add(_scope_of(ip))
            else:
                ranges[ip.version].append(_Range(int(ip), int(ip)))
        for version, span in routes:
            if span.scope:
                self._scoped.setdefault(span.first, set()).add(span.scope)
            else:
                ranges[version].append(span)
        self._merged = {
            version: Ranges([span.first << bits | span.last for span in ranges[version]], bits)
            for version, bits in ((4, 32), (6, 128))
        }

    def has(self, ip: IPAddress) -> bool:
        """A link-local address without its scope may be that of any interface."""
        if ip.is_multicast:
            return False
        if ip.version == 6 and (scopes := self._scoped.get(int(ip))):
            return not (scope := _scope_of(ip)) or scope in scopes
        return int(ip) in self._merged[ip.version]


def _scope_of(ip: IPAddress) -> int:
    """The interface's index; 0: none is named, or one that is not there."""
    scope = ip.scope_id if isinstance(ip, ipaddress.IPv6Address) else None
    if not scope:
        return 0
    if scope.isdigit():
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError:
        return -1


def _local_routes() -> list[tuple[int, _Range]]:
    """What the table `local` has, by version: addresses, broadcast, and whole networks
    (`ip route add local`). Multicast is nobody's. Raises OSError."""
    found = []
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        body = _ROUTE.pack(family, 0, 0, 0, _TABLE_LOCAL, 0, 0, 0, 0)
        for message in dump(_RTM_GETROUTE, body):
            if message.kind == _RTM_NEWROUTE and (span := _local_range(message.body)):
                found.append((version, span))
    return found


def _local_range(message: bytes) -> _Range | None:
    family, bits, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(message)
    if kind not in (_RTN_LOCAL, _RTN_BROADCAST, _RTN_ANYCAST):
        return None
    told = attributes(message[_ROUTE.size :])
    if _RTA_TABLE in told:
        (table,) = struct.unpack_from("=I", told[_RTA_TABLE])
    if table != _TABLE_LOCAL:  # of another one only what a rule marks, such as TPROXY's
        return None
    size = 4 if family == socket.AF_INET else 16
    first = int.from_bytes(told.get(_RTA_DST, bytes(size)))
    index = 0
    if family == socket.AF_INET6 and first >> 118 == 0xFE80 >> 6:
        (index,) = struct.unpack_from("=i", told.get(_RTA_OIF, bytes(4)))
    return _Range(first, first | (1 << (size * 8 - bits)) - 1, index)


def route_interface(netlink: socket.socket, group: IPAddress) -> int | None:
    """Index of the interface that the routing table says for `group`; None: it says none.

    Raises OSError.
    """
    family = socket.AF_INET if group.version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, group.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_RTA_DST, group.packed)
    (answer,) = ask(netlink, _RTM_GETROUTE, [body])
    found = attributes(answer.body[_ROUTE.size :]) if answer.kind == _RTM_NEWROUTE else {}
    return struct.unpack_from("=i", found[_RTA_OIF])[0] if _RTA_OIF in found else None


def interfaces() -> dict[str, int]:
    """The index of each interface by its name. Raises OSError."""
    return {name: index for index, name in socket.if_nameindex()}


def _addresses(message: bytes) -> Iterator[tuple[IPAddress, int]]:
    family, _, _, _, index = _ADDRESS.unpack_from(message)
    told = attributes(message[_ADDRESS.size :])
    # Of a point-to-point link IFA_ADDRESS is the other end.
    packed = told.get(_IFA_LOCAL) or told.get(_IFA_ADDRESS)
    if packed and family == socket.AF_INET:
        yield ipaddress.IPv4Address(packed), index
    elif packed and family == socket.AF_INET6:
        ip = ipaddress.IPv6Address(packed)
        yield ipaddress.IPv6Address(f"{ip}%{index}") if ip.is_link_local else ip, index
