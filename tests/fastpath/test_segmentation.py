"""UDP_GRO in and UDP_SEGMENT out: bytes, order and accounts are those of single packets."""

from __future__ import annotations

import random
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from fastpath.engines import add, packet_of, running, send_segmented
from netns import hosts, inside, link
from support import (
    eventually,
    queued,
    receive,
    requires,
    requires_root,
    rtp_packet,
    target,
    transfer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine

    Udp = Callable[..., socket.socket]

several_workers = pytest.mark.parametrize("workers", [1, 3])
SO_TIMESTAMPNS = 35


def settled(e: Engine, copies: int) -> dict[str, int]:
    """The counters once that many copies were attempted."""
    return eventually(e.stats, lambda s: s["copies_attempted"] == copies, f"{copies} copies")


def test_a_frame_travels_in_one_receive_and_one_send_per_subscriber(udp: Udp) -> None:
    camera, viewers = udp(), [udp() for _ in range(3)]
    with running() as e:
        if not (e.sockets.gso and e.sockets.gro):
            pytest.skip("this kernel has no UDP_SEGMENT or no UDP_GRO")
        add(e, camera, 7, *viewers)
        frame = [packet_of(1200, 7, i) for i in range(13)] + [packet_of(400, 7, 13)]
        send_segmented(camera, frame, e)
        for viewer in viewers:
            assert receive(viewer, 14) == frame
    stats = e.stats()
    assert (stats["receives"], stats["packets_received"]) == (1, 14)
    assert (stats["sends"], stats["packets_sent"]) == (3, 42)


@several_workers
def test_segments_of_many_sessions_in_one_buffer_reach_only_their_own_viewers(
    workers: int, udp: Udp
) -> None:
    """The kernel puts together packets of one flow whatever their SSRC; leaking one camera to
    another's viewers is the worst there is."""
    rng = random.Random(1)
    camera, ssrcs, stranger = udp(), [0, 1, 7, 0xFFFFFFFF], 99
    viewers = {ssrc: udp() for ssrc in ssrcs}
    with running(workers=workers) as e:
        for ssrc, viewer in viewers.items():
            add(e, camera, ssrc, viewer)
        unknown = forwarded = 0
        for turn in range(400):
            size, packets = rng.choice([12, 100, 1000]), []
            for i in range(rng.randint(1, 60)):
                packets.append(packet_of(size, rng.choice([*ssrcs, stranger]), turn * 64 + i))
            send_segmented(camera, packets, e)
            for ssrc, viewer in viewers.items():
                own = [p for p in packets if p[8:12] == ssrc.to_bytes(4, "big")]
                forwarded += len(own)
                assert receive(viewer, len(own)) == own
            unknown += sum(p[8:12] == stranger.to_bytes(4, "big") for p in packets)
    assert [queued(viewer) for viewer in viewers.values()] == [[]] * 4
    stats = e.stats()
    assert stats["dropped_unknown_ssrc"] == unknown
    assert stats["packets_forwarded"] == forwarded
    assert stats["receives"] < stats["packets_received"]


@several_workers
def test_any_mix_of_sizes_keeps_bytes_and_order(workers: int, udp: Udp) -> None:
    rng = random.Random(2)
    camera, viewers = udp(), [udp() for _ in range(5)]
    sizes = [rng.choice([12, 13, 500, 500, 500, 1200, 1200, 1400, 9000]) for _ in range(3000)]
    packets = [packet_of(size, 7, i) for i, size in enumerate(sizes)]
    with running(workers=workers) as e:
        add(e, camera, 7, *viewers)
        assert transfer(camera, target(e.bound), packets, viewers, window=50) == [packets] * 5


def test_more_than_64_equal_packets_and_65000_bytes_are_cut_into_groups(udp: Udp) -> None:
    camera, viewer = udp(), udp()
    with running() as e:
        add(e, camera, 7, viewer)
        for size, count in ((12, 200), (1400, 200), (40000, 2), (65507, 1)):
            packets = [packet_of(size, 7, i) for i in range(count)]
            got = transfer(camera, target(e.bound), packets, [viewer], window=100)
            assert got == [packets]


def test_who_is_served_first_rotates(udp: Udp) -> None:
    camera, viewers = udp(), [udp() for _ in range(3)]
    firsts = set()
    for viewer in viewers:
        viewer.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    with running() as e:
        add(e, camera, 7, *viewers)
        for i in range(9):
            camera.sendto(rtp_packet(7, i), target(e.bound))
            arrivals = []
            for viewer in viewers:
                _, control, _, _ = viewer.recvmsg(2000, 200)
                arrivals.append(struct.unpack("qq", control[0][2]))
            firsts.add(arrivals.index(min(arrivals)))
    assert firsts == {0, 1, 2}


def test_segments_longer_than_the_path_go_singly_to_that_destination_only(udp: Udp) -> None:
    """2000-byte packets in bursts: the path with MTU 1500 can't take them segmented (EINVAL or
    EMSGSIZE), the one with MTU 9000 can. Both get everything, and shorter segments still
    go by UDP_SEGMENT to the first."""
    requires("ip")
    requires_root()
    with hosts("sv", "a", "b") as ns:
        link(ns["sv"], "10.1.0.1/24", ns["a"], "10.1.0.2/24", mtu=1500)
        link(ns["sv"], "10.2.0.1/24", ns["b"], "10.2.0.2/24", mtu=9000)
        with inside(ns["a"]):
            narrow = udp("10.1.0.2")
        with inside(ns["b"]):
            wide = udp("10.2.0.2")
        with inside(ns["sv"]), running("0.0.0.0:0") as e:
            camera = udp()
            add(e, camera, 7, narrow, wide)

            def burst(first: int, size: int) -> None:
                packets = [packet_of(size, 7, first + i) for i in range(10)]
                send_segmented(camera, packets, e)
                for viewer in (narrow, wide):
                    assert receive(viewer, 10) == packets

            def accounts(copies: int) -> tuple[int, int]:
                """Send entries and fallbacks, once that many copies are counted."""
                stats = settled(e, copies)
                return stats["sends"], sum(n for k, n in stats.items() if "gso_fallback" in k)

            burst(0, 2000)
            assert accounts(20) == (10 + 1, 1)
            burst(10, 2000)
            assert accounts(40) == (2 * (10 + 1), 1), "decided for 60 s, by destination"
            burst(20, 1400)
            assert accounts(60) == (2 * (10 + 1) + 2, 1), "only for segments that long"


def test_without_segmentation_each_copy_is_a_send_of_its_own(udp: Udp) -> None:
    camera, viewer = udp(), udp()
    with running(segmentation=False) as e:
        assert not e.sockets.gso
        add(e, camera, 7, viewer)
        frame = [packet_of(1200, 7, i) for i in range(14)]
        send_segmented(camera, frame, e)
        assert receive(viewer, 14) == frame
    stats = e.stats()
    assert stats["sends"] == stats["packets_sent"] == 14
