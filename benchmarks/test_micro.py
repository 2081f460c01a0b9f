"""The parts of the Engine, one by one, through its Python seam.

    pytest benchmarks/test_micro.py

Each operation at 10 and at 10,000 sessions: the second should cost what the first does. Packets
move over loopback only to time classify and lookup, as a whole turn each.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from rtpfanout._fastpath import Engine
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
SOURCE = Address(ipaddress.IPv4Address("192.0.2.1"), 5000)
SESSION_COUNTS = (10, 10_000)
PACKETS = 2_000


def new_engine(max_sessions: int = 20_000) -> Engine:
    return Engine(
        Address(LOOPBACK, 0),
        max_sessions=max_sessions,
        max_subscribers=1_000,
        receive_queue_packets=4_096,
    )


def subscriber_addresses(count: int) -> list[Address]:
    first = int(ipaddress.IPv4Address("198.18.0.1"))
    return [Address(ipaddress.IPv4Address(first + i), 6000) for i in range(count)]


def records_of(addresses: list[Address]) -> bytes:
    return b"".join(address.record for address in addresses)


def fill(engine: Engine, sessions: int, source: Address = SOURCE) -> list[int]:
    return [engine.add_session(source, ssrc, time.monotonic_ns()) for ssrc in range(sessions)]


@pytest.fixture
def engine() -> Engine:
    return new_engine()


@pytest.fixture
def running(engine: Engine) -> Iterator[Engine]:
    loop = threading.Thread(target=engine.run)
    loop.start()
    yield engine
    engine.stop()
    loop.join(10)
    assert not loop.is_alive()


@pytest.mark.parametrize("sessions", SESSION_COUNTS)
def test_add_and_remove_session(benchmark: Any, running: Engine, sessions: int) -> None:
    """Publication in the table and one grace period of a running worker."""
    fill(running, sessions)
    ssrcs = itertools.count(1_000_000)

    def add_and_remove() -> None:
        running.remove_session(running.add_session(SOURCE, next(ssrcs), 1))

    benchmark(add_and_remove)


@pytest.mark.parametrize("subscribers", [1, 100, 999])
@pytest.mark.parametrize("sessions", SESSION_COUNTS)
def test_publish_subscriber_list(
    benchmark: Any, running: Engine, sessions: int, subscribers: int
) -> None:
    """One more subscriber on a list of that length, and off it again."""
    handle = fill(running, sessions)[sessions // 2]
    *present, extra = subscriber_addresses(subscribers + 1)
    running.add_subscribers(handle, records_of(present), 1)

    def add_and_remove() -> None:
        running.add_subscribers(handle, extra.record, 1)
        running.remove_subscribers(handle, [extra])

    benchmark(add_and_remove)


def test_add_a_thousand_subscribers_at_once(benchmark: Any, engine: Engine) -> None:
    records = records_of(subscriber_addresses(1_000))
    ssrcs = itertools.count()

    def new_session() -> tuple[tuple[int, bytes, int], dict[str, Any]]:
        return (engine.add_session(SOURCE, next(ssrcs), 1), records, 1), {}

    benchmark.pedantic(engine.add_subscribers, setup=new_session, rounds=50)


@pytest.mark.parametrize("sessions", SESSION_COUNTS)
def test_stats_of_all_sessions(benchmark: Any, engine: Engine, sessions: int) -> None:
    fill(engine, sessions)
    answer = benchmark(engine.all_session_stats, time.monotonic_ns())
    assert len(answer) == sessions


@pytest.mark.parametrize("sessions", SESSION_COUNTS)
def test_stats_of_one_session(benchmark: Any, engine: Engine, sessions: int) -> None:
    handle = fill(engine, sessions)[0]
    benchmark(engine.session_stats, handle, time.monotonic_ns())


@pytest.mark.parametrize("sessions", SESSION_COUNTS)
def test_tick(benchmark: Any, engine: Engine, sessions: int) -> None:
    fill(engine, sessions)
    benchmark(engine.tick, time.monotonic_ns(), 0)


def rtp_packet(ssrc: int, sequence: int) -> bytes:
    return struct.pack("!BBHII", 0x80, 96, sequence & 0xFFFF, 0, ssrc) + bytes(160)


@pytest.mark.parametrize("kind", ["malformed", "unknown_ssrc", "forwarded"])
@pytest.mark.parametrize("sessions", SESSION_COUNTS)
def test_drain_a_queue(benchmark: Any, sessions: int, kind: str) -> None:
    """PACKETS queued packets, received and judged by `run`, from start to stop.

    `malformed` ends at the parser, `unknown_ssrc` after the lookup, `forwarded` is a hit
    without subscribers: their differences are the cost of lookup and of bookkeeping.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(LOOPBACK), 0))
        source = Address(LOOPBACK, sender.getsockname()[1])
        packets = {
            "malformed": [b"\x80\x60\x00"] * PACKETS,
            "unknown_ssrc": [rtp_packet(500_000 + i, i) for i in range(PACKETS)],
            "forwarded": [rtp_packet(i * 7919 % sessions, i) for i in range(PACKETS)],
        }[kind]

        def queue() -> tuple[tuple[Engine], dict[str, Any]]:
            engine = new_engine()
            fill(engine, sessions, source)
            for packet in packets:
                sender.sendto(packet, (str(LOOPBACK), engine.bound.port))
            engine.stop()  # run() still forwards what is queued
            return (engine,), {}

        def drain(engine: Engine) -> Engine:
            engine.run()
            return engine

        drained = benchmark.pedantic(drain, setup=queue, rounds=20)
    assert drained.stats()["packets_received"] == PACKETS
