"""File descriptors: how many there may be, and what strangers' connections may take of them.

A process without a free one can't answer its health check, nor take a connection of the operator
who comes to see why. So each listening port has a share, and the rest is kept back for whatever
else needs one: the store, certificates, sockets of the packet path.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

MOST_HTTP_CONNECTIONS = 512
MOST_API_CONNECTIONS = 4096
"""Of one listener; there can be two, TCP and a Unix socket."""
MOST_RTSP_CONNECTIONS = 1024
_LEAST = 8
_RESERVE = 64
_SHARES = 4
"""HTTP, the API on TCP, the API on a Unix socket, and everybody else."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Connections that may be open at a time."""

    http: int
    api: int
    """Of each of its listeners."""
    rtsp: int
    """Each of them has a socket or two besides."""


def raise_limit() -> None:
    """As many as this user may have; the soft limit of 1,024 is for programs with select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def shares() -> Shares:
    """Of what is free now, when the packet path and the store have theirs."""
    each = max(_LEAST, left() // _SHARES)
    return Shares(
        min(MOST_HTTP_CONNECTIONS, each),
        min(MOST_API_CONNECTIONS, each),
        min(MOST_RTSP_CONNECTIONS, max(_LEAST, each // 4)),
    )


def left() -> int:
    """How many may be opened, without those that are kept back."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit - _in_use() - _RESERVE


def _in_use() -> int:
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:  # no /proc: as many as there are with 64 egress lanes
        return 128
