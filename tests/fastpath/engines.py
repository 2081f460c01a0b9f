"""An Engine for a test, and what its control calls take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rtpfanout._fastpath import Engine
from rtpfanout.model import Address

if TYPE_CHECKING:
    import socket


def engine(bind: str = "127.0.0.1:0", **limits: Any) -> Engine:
    """An engine on a free port; `limits` as in Engine."""
    defaults = {"max_sessions": 100, "max_subscribers": 1000, "receive_queue_packets": 4096}
    return Engine(Address.parse(bind), **(defaults | limits))


def local(port: int) -> Address:
    """An address of 127.0.0.1."""
    return Address.parse(f"127.0.0.1:{port}")


def bound_to(sock: socket.socket) -> Address:
    """Where a test's socket is."""
    host, port, *_ = sock.getsockname()
    return Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def add(to: Engine, source: socket.socket | Address, ssrc: int, *subscribers: socket.socket) -> int:
    """A session and its subscribers; the handle."""
    address = source if isinstance(source, Address) else bound_to(source)
    handle = to.add_session(address, ssrc, time.monotonic_ns())
    to.add_subscribers(handle, [bound_to(sock) for sock in subscribers])
    return handle
