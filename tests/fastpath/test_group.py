"""What the kernel gives to every socket of a port: once, whatever the workers and the lanes."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from engine_support import running_engine
from fastpath.engines import add, engine
from netns import hosts, inside
from support import eventually, queued, receive, requires, requires_root, rtp_packet

from rtpfanout._fastpath import open_sockets, receiving
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    Udp = Callable[..., socket.socket]

GROUP = "239.255.77.1"


def a_port(workers: int, lanes: bool) -> list[int]:
    """Ingress sockets of all addresses; where they grant a small send buffer, lanes are opened."""
    fds = open_sockets(Address.parse("0.0.0.0:0"), workers, 4096)
    for fd in fds if lanes else ():
        with socket.socket(fileno=os.dup(fd)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return fds


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def test_those_that_receive_are_told_from_the_one_that_counts() -> None:
    for workers in (1, 2, 5):
        fds = a_port(workers, lanes=False)
        if receiving(fds) == workers:  # else this kernel doesn't steer
            assert len(fds) == workers + (workers > 1)
        e = engine("0.0.0.0:0", workers=workers, sockets=fds)
        assert e.sockets.receiving_workers == receiving(fds)
        close_all(fds)


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_broadcast_is_forwarded_once(udp: Udp, workers: int, lanes: bool) -> None:
    """Amid unicast of the same source, in order, over engines that take the sockets over."""
    cameras, viewers = [udp() for _ in range(8)], [udp() for _ in range(8)]
    fds = a_port(workers, lanes)
    port = bound_of(fds[0])
    sent = 0
    for life in range(3):
        e = engine("0.0.0.0:0", workers=workers, sockets=fds)
        assert (e.sockets.egress_lanes > 1) == lanes
        for ssrc, (camera, viewer) in enumerate(zip(cameras, viewers, strict=True)):
            camera.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            add(e, camera, ssrc, viewer)
        with running_engine(e, workers):
            for sequence in range(life * 30, life * 30 + 30):
                for ssrc, camera in enumerate(cameras):
                    host = "127.255.255.255" if sequence % 3 else "127.0.0.1"
                    camera.sendto(rtp_packet(ssrc, sequence), (host, port))
                    sent += 1
                if sequence % 5 == 0:
                    e.stats()  # while they come
            for ssrc, viewer in enumerate(viewers):
                expected = [rtp_packet(ssrc, life * 30 + i) for i in range(30)]
                assert receive(viewer, 30) == expected
        stats = e.stats()
        assert stats["packets_received"] == stats["packets_forwarded"] == 30 * 8
        assert (stats["kernel_drops"], stats["kernel_errors"]) == (0, 0)
        del e
    assert [queued(viewer) for viewer in viewers] == [[]] * 8
    close_all(fds)


def bound_of(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_group_that_another_has_joined_comes_once(udp: Udp, workers: int) -> None:
    """A process beside us has joined it, and so the host takes it."""
    camera, viewer = udp(), udp()
    fds = a_port(workers, lanes=True)
    port = bound_of(fds[0])
    loopback = socket.inet_aton("127.0.0.1")
    camera.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
    e = engine("0.0.0.0:0", workers=workers, sockets=fds)
    add(e, camera, 7, viewer)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, running_engine(e, workers):
        member = socket.inet_aton(GROUP) + loopback
        other.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        for sequence in range(20):
            camera.sendto(rtp_packet(7, sequence), (GROUP, port))
        assert receive(viewer, 20) == [rtp_packet(7, sequence) for sequence in range(20)]
        camera.sendto(rtp_packet(7, 20), ("127.0.0.1", port))
        assert receive(viewer, 1) == [rtp_packet(7, 20)]
    assert queued(viewer) == []
    stats = e.stats()
    assert stats["packets_received"] == 21
    assert (stats["kernel_drops"], stats["kernel_errors"]) == (0, 0)
    close_all(fds)


def damaged(port: int, size: int) -> bytes:
    """A UDP datagram with a wrong checksum; the kernel looks late at those above 68 bytes."""
    return struct.pack("!HHHH", 40000, port, 8 + size, 0xDEAD) + rtp_packet(7, 0, bytes(size - 12))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_checksum_is_no_full_queue(udp: Udp, workers: int) -> None:
    """Each has a count of its own, also while both come."""
    requires_root()
    camera, viewer = udp(), udp()
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    e = engine("127.0.0.1:0", workers=workers, receive_queue_packets=64)
    add(e, camera, 7, viewer)

    def damage(count: int) -> None:
        for _ in range(count):
            raw.sendto(damaged(e.bound.port, 100), ("127.0.0.1", 0))

    with raw, running_engine(e, workers):
        damage(40)
        camera.sendto(rtp_packet(7), (str(e.bound.ip), e.bound.port))
        receive(viewer, 1)
        stats = eventually(e.stats, lambda s: s["kernel_errors"] >= 40, "40 are refused")
        assert (stats["kernel_drops"], stats["kernel_errors"]) == (0, 40)
        assert stats["packets_received"] == 1
    assert e.stats()["kernel_drops"] == 0


def test_both_reasons_at_a_time(udp: Udp) -> None:
    """Nobody reads: the queue overflows, and wrong checksums come. Exact on a host of its own."""
    requires_root()
    requires("ip")
    with hosts("h") as names, inside(names["h"]):
        camera = udp()
        e = engine("127.0.0.1:0", workers=2, receive_queue_packets=64)
        add(e, camera, 7)
        to = (str(e.bound.ip), e.bound.port)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            for sequence in range(1000):
                camera.sendto(rtp_packet(7, sequence, bytes(1000)), to)
                if sequence % 20 == 0:
                    raw.sendto(damaged(e.bound.port, 100), ("127.0.0.1", 0))

    def counted() -> int:
        stats = e.stats()
        return stats["packets_received"] + stats["kernel_drops"] + stats["kernel_errors"]

    with running_engine(e, 2):
        eventually(counted, lambda count: count == 1050, "all are counted")
    stats = e.stats()
    assert stats["kernel_errors"] == 50
    assert stats["packets_received"] + stats["kernel_drops"] == 1000
