"""UDP_GRO in and UDP_SEGMENT out: bytes, order and accounts are those of single packets."""

from __future__ import annotations

import os
import random
import socket
import struct
import time

import pytest
from fastpath_tools import address, receive, rtp, running, send_segmented, settled, udp
from netns import hosts, inside, link

several_workers = pytest.mark.parametrize("workers", [1, 3])
SO_TIMESTAMPNS = 35


def test_a_frame_travels_in_one_receive_and_one_send_per_subscriber() -> None:
    source, subscribers = udp(), [udp() for _ in range(3)]
    with running() as engine:
        if not (engine.gso and engine.gro):
            pytest.skip("this kernel has no UDP_SEGMENT or no UDP_GRO")
        handle = engine.add_session(address(source), 7, time.monotonic_ns())
        engine.add_subscribers(handle, [address(s) for s in subscribers], time.monotonic_ns())
        frame = [rtp(7, i, 1200) for i in range(13)] + [rtp(7, 13, 400)]
        send_segmented(source, frame, ("127.0.0.1", engine.bound.port))
        for subscriber in subscribers:
            assert receive(subscriber, 14) == frame
    stats = engine.stats()
    assert (stats["receives"], stats["packets_received"]) == (1, 14)
    assert (stats["sends"], stats["packets_sent"]) == (3, 42)


@several_workers
def test_segments_of_many_sessions_in_one_buffer_reach_only_their_own_viewers(workers: int) -> None:
    """The kernel puts together packets of one flow whatever their SSRC; leaking one camera to
    another's viewers is the worst there is."""
    rng = random.Random(1)
    source, ssrcs = udp(), [0, 1, 7, 0xFFFFFFFF]
    viewers = {ssrc: udp() for ssrc in ssrcs}
    with running(workers=workers) as engine:
        for ssrc, viewer in viewers.items():
            handle = engine.add_session(address(source), ssrc, time.monotonic_ns())
            engine.add_subscribers(handle, [address(viewer)], time.monotonic_ns())
        unknown = forwarded = 0
        for turn in range(400):
            size, packets = rng.choice([12, 100, 1000]), []
            for i in range(rng.randint(1, 60)):
                packets.append(rtp(rng.choice([*ssrcs, 99]), turn * 64 + i, size))
            send_segmented(source, packets, ("127.0.0.1", engine.bound.port))
            for ssrc, viewer in viewers.items():
                own = [p for p in packets if p[8:12] == ssrc.to_bytes(4, "big")]
                forwarded += len(own)
                assert receive(viewer, len(own)) == own
            unknown += sum(p[8:12] == (99).to_bytes(4, "big") for p in packets)
        for viewer in viewers.values():
            viewer.settimeout(0.05)
            with pytest.raises(TimeoutError):
                viewer.recv(1)
    stats = engine.stats()
    assert stats["dropped_unknown_ssrc"] == unknown
    assert stats["packets_forwarded"] == forwarded
    assert stats["receives"] < stats["packets_received"]


@several_workers
def test_any_mix_of_sizes_keeps_bytes_and_order(workers: int) -> None:
    rng = random.Random(2)
    source, viewers = udp(), [udp() for _ in range(5)]
    with running(workers=workers) as engine:
        handle = engine.add_session(address(source), 7, time.monotonic_ns())
        engine.add_subscribers(handle, [address(v) for v in viewers], time.monotonic_ns())
        sizes = [rng.choice([12, 13, 500, 500, 500, 1200, 1200, 1400, 9000]) for _ in range(3000)]
        packets = [rtp(7, i, size) for i, size in enumerate(sizes)]
        for start in range(0, len(packets), 50):
            for packet in packets[start : start + 50]:
                source.sendto(packet, ("127.0.0.1", engine.bound.port))
            for viewer in viewers:
                assert receive(viewer, 50) == packets[start : start + 50]


def test_more_than_64_equal_packets_and_65000_bytes_are_cut_into_groups() -> None:
    source, viewer = udp(), udp()
    with running() as engine:
        handle = engine.add_session(address(source), 7, time.monotonic_ns())
        engine.add_subscribers(handle, [address(viewer)], time.monotonic_ns())
        for size, count in ((12, 200), (1400, 200), (40000, 2), (65507, 1)):
            packets = [rtp(7, i, size) for i in range(count)]
            for start in range(0, count, 100):
                for packet in packets[start : start + 100]:
                    source.sendto(packet, ("127.0.0.1", engine.bound.port))
                assert (
                    receive(viewer, len(packets[start : start + 100]))
                    == packets[start : start + 100]
                )


def test_who_is_served_first_rotates() -> None:
    source, viewers = udp(), [udp() for _ in range(3)]
    firsts = set()
    with running() as engine:
        handle = engine.add_session(address(source), 7, time.monotonic_ns())
        engine.add_subscribers(handle, [address(v) for v in viewers], time.monotonic_ns())
        for viewer in viewers:
            viewer.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        for i in range(9):
            source.sendto(rtp(7, i, 100), ("127.0.0.1", engine.bound.port))
            arrivals = []
            for viewer in viewers:
                _, control, _, _ = viewer.recvmsg(2000, 200)
                arrivals.append(struct.unpack("qq", control[0][2]))
            firsts.add(arrivals.index(min(arrivals)))
    assert firsts == {0, 1, 2}


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_segments_longer_than_the_path_go_singly_to_that_destination_only() -> None:
    """2000-byte packets in bursts: the path with MTU 1500 can't take them segmented (EINVAL or
    EMSGSIZE), the one with MTU 9000 can. Both get everything, and shorter segments still
    go by UDP_SEGMENT to the first."""
    with hosts("sv", "a", "b") as ns:
        link(ns["sv"], "10.1.0.1/24", ns["a"], "10.1.0.2/24", mtu=1500)
        link(ns["sv"], "10.2.0.1/24", ns["b"], "10.2.0.2/24", mtu=9000)
        with inside(ns["a"]):
            narrow = udp("10.1.0.2")
        with inside(ns["b"]):
            wide = udp("10.2.0.2")
        with inside(ns["sv"]), running("0.0.0.0:0") as engine:
            source = udp()
            handle = engine.add_session(address(source), 7, time.monotonic_ns())
            engine.add_subscribers(handle, [address(narrow), address(wide)], time.monotonic_ns())

            def burst(first: int, size: int) -> None:
                packets = [rtp(7, first + i, size) for i in range(10)]
                send_segmented(source, packets, ("127.0.0.1", engine.bound.port))
                for viewer in (narrow, wide):
                    assert receive(viewer, 10) == packets

            def accounts(copies: int) -> tuple[int, int]:
                """Send entries and fallbacks, once that many copies are counted."""
                stats = settled(engine, copies)
                return stats["sends"], sum(n for k, n in stats.items() if "gso_fallback" in k)

            burst(0, 2000)
            assert accounts(20) == (10 + 1, 1)
            burst(10, 2000)
            assert accounts(40) == (2 * (10 + 1), 1), "decided for 60 s, by destination"
            burst(20, 1400)
            assert accounts(60) == (2 * (10 + 1) + 2, 1), "only for segments that long"


def test_without_segmentation_each_copy_is_a_send_of_its_own() -> None:
    source, viewer = udp(), udp()
    with running(segmentation=False) as engine:
        assert not engine.gso
        handle = engine.add_session(address(source), 7, time.monotonic_ns())
        engine.add_subscribers(handle, [address(viewer)], time.monotonic_ns())
        frame = [rtp(7, i, 1200) for i in range(14)]
        send_segmented(source, frame, ("127.0.0.1", engine.bound.port))
        assert receive(viewer, 14) == frame
    stats = engine.stats()
    assert stats["sends"] == stats["packets_sent"] == 14
