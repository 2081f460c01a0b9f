"""An Engine for a test, what its control calls take, and packets for it."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import support
from engine_support import running_engine
from support import rtp_packet, target

from rtpfanout._fastpath import Engine
from rtpfanout.model import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence


def engine(bind: str = "127.0.0.1:0", **limits: Any) -> Engine:
    """An engine on a free port; `limits` as in Engine."""
    defaults = {"max_sessions": 100, "max_subscribers": 1000, "receive_queue_packets": 4096}
    return Engine(Address.parse(bind), **(defaults | limits))


@contextmanager
def running(bind: str = "127.0.0.1:0", workers: int = 1, **limits: Any) -> Iterator[Engine]:
    """An engine with all its workers at work."""
    with running_engine(engine(bind, workers=workers, **limits), workers) as e:
        yield e


def local(port: int) -> Address:
    """An address of 127.0.0.1."""
    return Address.parse(f"127.0.0.1:{port}")


def records_of(*addresses: Address) -> bytes:
    """As the engine takes them."""
    return b"".join(address.record for address in addresses)


def bound_to(sock: socket.socket) -> Address:
    """Where a test's socket is."""
    host, port, *_ = sock.getsockname()
    return Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def subscribe(to: Engine, handle: int, *subscribers: socket.socket | Address) -> int:
    """Adds them now; how many of them are new."""
    addresses = [s if isinstance(s, Address) else bound_to(s) for s in subscribers]
    return to.add_subscribers(handle, records_of(*addresses), time.monotonic_ns())


def add(to: Engine, source: socket.socket | Address, ssrc: int, *subscribers: socket.socket) -> int:
    """A session and its subscribers; the handle."""
    address = source if isinstance(source, Address) else bound_to(source)
    handle = to.add_session(address, ssrc, time.monotonic_ns())
    subscribe(to, handle, *subscribers)
    return handle


def subscribers_of(e: Engine, handle: int) -> list[Address]:
    """All of them, oldest first."""
    return [address for address, *_ in e.subscribers(handle, 0, 1000)]


def packet_of(size: int, ssrc: int, sequence: int) -> bytes:
    """An RTP packet of so many bytes in all, no two alike."""
    payload = random.Random(size << 16 | sequence).randbytes(size - 12)
    return rtp_packet(ssrc, sequence, payload)


def send_segmented(sock: socket.socket, packets: Sequence[bytes], to: Engine) -> None:
    """As `support.send_segmented`, to an engine."""
    support.send_segmented(sock, packets, target(to.bound))
