"""Several workers: flows stay with one, wide sessions are served by all, nothing changes order."""

from __future__ import annotations

import errno
import socket
import threading
import time
from itertools import pairwise

import pytest
from fastpath_tools import address, receive, rtp, running, send_segmented, settled, udp

from rtpfanout._fastpath import Engine
from rtpfanout.model import Address

WORKERS = 3


def test_flows_are_spread_and_each_stays_in_order() -> None:
    """60 sources with one session each: steering is by source address, so every flow is
    received by one worker and none is dropped as misrouted."""
    with running(workers=WORKERS) as engine:
        if engine.receiving_workers == 1:
            pytest.skip("this kernel can't steer by source address")
        viewer = udp()
        sources = [udp() for _ in range(60)]
        for i, source in enumerate(sources):
            handle = engine.add_session(address(source), i, time.monotonic_ns())
            engine.add_subscribers(handle, [address(viewer)], time.monotonic_ns())
        for sequence in range(50):
            for i, source in enumerate(sources):
                source.sendto(rtp(i, sequence, 100), ("127.0.0.1", engine.bound.port))
            got: dict[int, list[int]] = {}
            for packet in receive(viewer, len(sources)):
                got.setdefault(packet[11], []).append(packet[3])
            assert got == {i: [sequence] for i in range(60)}
    assert engine.stats()["dropped_misrouted"] == 0


def test_a_wide_session_is_served_by_all_and_in_order_for_everyone() -> None:
    """400 subscribers on 40 sockets' addresses can't be told apart by socket alone, so every
    subscriber has a socket of its own; frames come faster than they are fanned out."""
    subscribers, frames, size = 400, 20, 14
    source, viewers = udp(), [udp() for _ in range(subscribers)]
    with running(workers=WORKERS) as engine:
        handle = engine.add_session(address(source), 7, time.monotonic_ns())
        engine.add_subscribers(handle, [address(v) for v in viewers], time.monotonic_ns())
        for frame in range(frames):
            packets = [rtp(7, frame * size + i, 100) for i in range(size)]
            send_segmented(source, packets, ("127.0.0.1", engine.bound.port))
        for viewer in viewers:
            sequences = [int.from_bytes(p[2:4], "big") for p in receive(viewer, frames * size)]
            assert all(b == a + 1 for a, b in pairwise(sequences)), sequences
        stats = settled(engine, subscribers * frames * size)
        session = engine.session_stats(handle, time.monotonic_ns())
        first, last = engine.session_latency(handle)
    assert stats["tasks_shared"] > 0
    assert session["packets_sent"] == stats["packets_sent"] == subscribers * frames * size
    assert session["copies_attempted"] == stats["copies_attempted"]
    assert session["bytes_sent"] == stats["bytes_sent"] == subscribers * frames * size * 100
    assert sum(first[0]) == sum(last[0]) == frames * size
    assert first[1] <= last[1]


def test_ipv6_and_mapped_ipv4_flows_are_steered_too() -> None:
    with running("[::]:0", workers=WORKERS) as engine:
        viewer = udp()
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            sources = []
            for i in range(20):
                source = socket.socket(family, socket.SOCK_DGRAM)
                source.bind((host, 0))
                sources.append(source)
                literal = f"[{host}]" if ":" in host else host
                own = Address.parse(f"{literal}:{source.getsockname()[1]}")
                handle = engine.add_session(own, i, time.monotonic_ns())
                engine.add_subscribers(handle, [address(viewer)], time.monotonic_ns())
            for sequence in range(5):
                for i, source in enumerate(sources):
                    source.sendto(rtp(i, sequence, 100), (host, engine.bound.port))
                assert {p[3] for p in receive(viewer, 20)} == {sequence}
            for source in sources:
                source.close()
    assert engine.stats()["dropped_misrouted"] == 0


def test_a_second_server_finds_the_port_in_use() -> None:
    with running(workers=WORKERS) as engine, pytest.raises(OSError, match="in use"):
        Engine(
            engine.bound,
            max_sessions=1,
            max_subscribers=1,
            receive_queue_packets=64,
            workers=WORKERS,
        )


def test_each_worker_runs_once_and_only_those_that_exist() -> None:
    engine = Engine(
        Address.parse("127.0.0.1:0"), max_sessions=1, max_subscribers=1, receive_queue_packets=64
    )
    with pytest.raises(OSError, match="Invalid"):
        engine.run(1)
    refused = threading.Event()

    def run() -> None:
        try:
            engine.run(0)
        except OSError as error:
            assert error.errno == errno.EBUSY  # noqa: PT017
            refused.set()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert refused.wait(10)
    engine.stop()
    for thread in threads:
        thread.join()


def test_removal_waits_for_every_worker_that_serves_the_session() -> None:
    """A subscriber of a split session: after remove_subscriber has returned nothing comes."""
    source, others, leaver = udp(), [udp() for _ in range(300)], udp()
    stop = threading.Event()
    with running(workers=WORKERS) as engine:
        handle = engine.add_session(address(source), 7, time.monotonic_ns())
        engine.add_subscribers(handle, [address(v) for v in others], time.monotonic_ns())

        def traffic() -> None:
            sequence = 0
            while not stop.is_set():
                packets = [rtp(7, sequence + i, 100) for i in range(14)]
                send_segmented(source, packets, ("127.0.0.1", engine.bound.port))
                sequence += 14
                time.sleep(0.003)

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            for _ in range(100):
                engine.add_subscribers(handle, [address(leaver)], time.monotonic_ns())
                leaver.settimeout(5)
                leaver.recv(2000)
                engine.remove_subscribers(handle, [address(leaver)])
                leaver.settimeout(0)
                with pytest.raises(BlockingIOError):
                    while True:
                        leaver.recv(2000)
                leaver.settimeout(0.002)
                with pytest.raises(TimeoutError):
                    leaver.recv(2000)
        finally:
            stop.set()
            thread.join()
