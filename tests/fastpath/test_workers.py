"""Several workers: flows stay with one, wide sessions are served by all, nothing changes order."""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING

import pytest
from engine_support import requires_steering
from fastpath.engines import add, bound_to, engine, packet_of, running, send_segmented, subscribe
from support import eventually, queued, receive, rtp_packet, target

from rtpfanout.model import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Udp = Callable[..., socket.socket]

WORKERS = 3


def test_flows_are_spread_and_each_stays_in_order(udp: Udp) -> None:
    """60 sources with one session each: steering is by source address, so every flow is
    received by one worker and none is dropped as misrouted."""
    viewer, cameras = udp(), [udp() for _ in range(60)]
    with running(workers=WORKERS) as e:
        requires_steering(e)
        for ssrc, camera in enumerate(cameras):
            add(e, camera, ssrc, viewer)
        for sequence in range(50):
            packets = [rtp_packet(ssrc, sequence) for ssrc in range(60)]
            for camera, packet in zip(cameras, packets, strict=True):
                camera.sendto(packet, target(e.bound))
            assert sorted(receive(viewer, 60)) == sorted(packets)
    assert e.stats()["dropped_misrouted"] == 0


def test_a_wide_session_is_served_by_all_and_in_order_for_everyone(udp: Udp) -> None:
    """Every subscriber has a socket of its own; frames come faster than they are fanned out."""
    subscribers, frames, size = 400, 20, 14
    packets = [packet_of(100, 7, i) for i in range(frames * size)]
    camera, viewers = udp(), [udp() for _ in range(subscribers)]
    copies = subscribers * len(packets)
    with running(workers=WORKERS) as e:
        handle = add(e, camera, 7, *viewers)
        for start in range(0, len(packets), size):
            send_segmented(camera, packets[start : start + size], e)
        for viewer in viewers:
            assert receive(viewer, len(packets)) == packets
        stats = eventually(e.stats, lambda s: s["copies_attempted"] == copies, "all copies")
    session = e.session_stats(handle, time.monotonic_ns())
    first, last = e.session_latency(handle)
    assert stats["tasks_shared"] > 0
    assert session["packets_sent"] == stats["packets_sent"] == copies
    assert session["copies_attempted"] == stats["copies_attempted"]
    assert session["bytes_sent"] == stats["bytes_sent"] == copies * 100
    assert sum(first[0]) == sum(last[0]) == len(packets)
    each = {(sent, failed) for _, _, sent, failed, *_ in e.subscribers(handle, 0, subscribers)}
    assert each == {(len(packets), 0)}


def test_ipv6_and_mapped_ipv4_flows_are_steered_too(udp: Udp, ipv6: None) -> None:  # noqa: ARG001
    viewer = udp()
    with running("[::]:0", workers=WORKERS) as e:
        for host in ("127.0.0.1", "::1"):
            cameras = [udp(host) for _ in range(20)]
            for ssrc, camera in enumerate(cameras):
                add(e, camera, ssrc, viewer)
            for sequence in range(5):
                packets = [rtp_packet(ssrc, sequence) for ssrc in range(20)]
                for camera, packet in zip(cameras, packets, strict=True):
                    camera.sendto(packet, (host, e.bound.port))
                assert sorted(receive(viewer, 20)) == sorted(packets)
    assert e.stats()["dropped_misrouted"] == 0


def test_sources_of_a_network_on_several_workers_lose_nothing(udp: Udp) -> None:
    """16 live sources of one session: the workers that do not own it hand over what they get."""
    viewer, cameras, rounds = udp(), [udp() for _ in range(16)], 200
    with running(workers=WORKERS) as e:
        requires_steering(e)
        handle = e.add_session(Address.parse("127.0.0.0:0"), 7, time.monotonic_ns(), prefix=8)
        subscribe(e, handle, viewer)
        for number in range(rounds):
            lengths = [9000 if number % 16 == i else number for i in range(len(cameras))]
            packets = [rtp_packet(7, number, bytes([i] * n)) for i, n in enumerate(lengths)]
            for camera, packet in zip(cameras, packets, strict=True):
                camera.sendto(packet, target(e.bound))
            assert sorted(receive(viewer, len(cameras))) == sorted(packets)
    stats = e.stats()
    assert stats["packets_received"] == stats["packets_forwarded"] == rounds * len(cameras)
    assert stats["handed_over"] > 0
    assert stats["handed_over"] % rounds == 0, "each source comes by one worker"
    assert e.session_stats(handle, time.monotonic_ns())["packets_sent"] == rounds * len(cameras)


def test_a_second_server_finds_the_port_in_use() -> None:
    with running(workers=WORKERS) as e, pytest.raises(OSError, match="in use"):
        engine(str(e.bound), workers=WORKERS)


def test_each_worker_runs_once_and_only_those_that_exist() -> None:
    e = engine()
    with pytest.raises(OSError, match="Invalid"):
        e.run(1)
    refused = threading.Event()

    def run() -> None:
        try:
            e.run(0)
        except OSError as error:
            assert error.errno == errno.EBUSY  # noqa: PT017
            refused.set()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert refused.wait(10)
    e.stop()
    for thread in threads:
        thread.join()


def test_removal_waits_for_every_worker_that_serves_the_session(udp: Udp) -> None:
    """A subscriber of a split session: once remove_subscribers has returned nothing comes."""
    camera, leaver = udp(), udp()
    others = [udp(receive_buffer=4096) for _ in range(300)]  # they need not hear it all
    stop = threading.Event()
    with running(workers=WORKERS) as e:
        handle = add(e, camera, 7, *others)

        def traffic() -> None:
            packets = [packet_of(100, 7, i) for i in range(14)]
            while not stop.is_set():
                send_segmented(camera, packets, e)
                time.sleep(0.003)

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            for _ in range(100):
                assert subscribe(e, handle, leaver) == 1
                receive(leaver, 1)
                assert e.remove_subscribers(handle, [bound_to(leaver)]) == [True]
                queued(leaver)
                time.sleep(0.002)
                assert queued(leaver) == []
        finally:
            stop.set()
            thread.join()
    assert e.stats()["tasks_shared"] > 0
