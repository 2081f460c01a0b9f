"""Listening TCP sockets, and what to tell of a bind that failed."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from rtpfanout.errors import StartError

if TYPE_CHECKING:
    from rtpfanout.model import Address

LISTEN_BACKLOG = 128


def listener(address: Address, key: str) -> socket.socket:
    """A listening TCP socket. Raises StartError naming the configuration key."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            only_ipv6 = not address.ip.is_unspecified
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
        sock.bind(address.sockaddr)
        sock.listen(LISTEN_BACKLOG)
    except OSError as error:
        sock.close()
        raise bind_error(error, address, key) from None
    return sock


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
