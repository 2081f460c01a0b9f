"""Sockets that are bound, and what to tell of a bind that failed."""

from __future__ import annotations

import errno
import socket

from rtpfanout.errors import StartError
from rtpfanout.model import Address

LISTEN_BACKLOG = 128
SockAddr = tuple[str, int] | tuple[str, int, int, int]
"""As the socket module has an address."""
NOBODY: SockAddr = ("0.0.0.0", 0)  # noqa: S104  (no sender)
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h


def bound(address: Address, kind: socket.SocketKind) -> socket.socket:
    """A UDP socket, or a TCP one that listens; "[::]" takes IPv4 too. Raises OSError."""
    sock = socket.socket(address.family, kind)
    try:
        if address.family == socket.AF_INET6:
            only_ipv6 = not address.ip.is_unspecified
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address.sockaddr)
        if kind == socket.SOCK_STREAM:
            sock.listen(LISTEN_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def listener(address: Address, key: str) -> socket.socket:
    """A listening TCP socket. Raises StartError naming the configuration key."""
    try:
        return bound(address, socket.SOCK_STREAM)
    except OSError as error:
        raise bind_error(error, address, key) from None


def bound_address(sock: socket.socket) -> Address:
    """Where a socket is bound."""
    return from_sockaddr(sock.getsockname())


def from_sockaddr(sockaddr: SockAddr) -> Address:
    """An address as the socket module gives it, of IPv4 or IPv6."""
    host, port, *rest = sockaddr
    if rest:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        return Address.unpack(packed, port, int(rest[1]))
    return Address.parse(f"{host}:{port}")


def set_receive_buffer(sock: socket.socket, size: int) -> None:
    """As near to `size` bytes as the kernel allows; beyond rmem_max with CAP_NET_ADMIN."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def bind_error(error: OSError, address: Address, key: str) -> StartError:
    """What to tell of a bind that failed; `key` is the configuration's."""
    return StartError(f"cannot bind {address}: {bind_fault(error)}", field=key)


def bind_fault(error: OSError) -> str:
    """Why a bind failed, and what to do."""
    reasons = {
        errno.EADDRINUSE: "the port is in use by another process; stop it or choose another port",
        errno.EACCES: "permission denied; choose a port from 1024 up or grant CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "this host has no such address; choose one of its own, or a wildcard",
    }
    return reasons.get(error.errno or 0, error.strerror or str(error))
