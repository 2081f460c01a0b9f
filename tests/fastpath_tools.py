"""Engines, sockets and packets for the tests of the extension."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rtpfanout._fastpath import DROP_REASONS, SEND_FAILURES, Engine
from rtpfanout.model import Address

UDP_SEGMENT = 103


@contextmanager
def running(
    bind: str = "127.0.0.1:0", workers: int = 1, segmentation: bool = True
) -> Iterator[Engine]:
    engine = Engine(
        Address.parse(bind),
        max_sessions=1000,
        max_subscribers=1000,
        receive_queue_packets=65536,
        workers=workers,
        segmentation=segmentation,
    )
    threads = [threading.Thread(target=engine.run, args=(i,)) for i in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield engine
    finally:
        engine.stop()
        for thread in threads:
            thread.join()
        check_identities(engine.stats())


def check_identities(stats: dict[str, int]) -> None:
    dropped = sum(stats[f"dropped_{reason}"] for reason in DROP_REASONS)
    failed = sum(stats[f"failed_{reason}"] for reason in SEND_FAILURES)
    assert stats["packets_received"] == stats["packets_forwarded"] + dropped
    assert stats["copies_attempted"] == stats["packets_sent"] + failed


def udp(host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind((host, 0))
    sock.settimeout(5)
    return sock


def address(sock: socket.socket) -> Address:
    return Address.parse("{}:{}".format(*sock.getsockname()))


def rtp(ssrc: int, sequence: int, size: int) -> bytes:
    header = b"\x80\x60" + (sequence & 0xFFFF).to_bytes(2, "big") + bytes(4)
    fill = (sequence & 0xFF).to_bytes(1, "big")
    return header + ssrc.to_bytes(4, "big") + fill * (size - 12)


def send_segmented(sock: socket.socket, packets: list[bytes], to: tuple[str, int]) -> None:
    """One send that the kernel hands on as packets: all equal in length but the last."""
    segment = len(packets[0]).to_bytes(2, "little")
    sock.sendmsg([b"".join(packets)], [(socket.IPPROTO_UDP, UDP_SEGMENT, segment)], 0, to)


def receive(sock: socket.socket, count: int) -> list[bytes]:
    return [sock.recv(65536) for _ in range(count)]


def settled(engine: Engine, copies: int) -> dict[str, int]:
    """The engine's counters, once that many copies were attempted."""
    deadline = time.monotonic() + 10
    while (stats := engine.stats())["copies_attempted"] < copies:
        assert time.monotonic() < deadline, stats
        time.sleep(0.001)
    return stats
