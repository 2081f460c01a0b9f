"""How copies are marked: as the session is told, or as its packets came; ECN bits never travel."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest
from fastpath.engines import add, packet_of, running, subscribe
from support import send_segmented, udp_socket

from rtpfanout.model import Address, parse_ip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rtpfanout._fastpath import Engine

SSRC = 7
COPY, NONE = 64, -1
AF41, EF = 34, 46
ECN = 0b11


@pytest.fixture
def sockets() -> Iterator[dict[str, socket.socket]]:
    """A camera and viewers that are told how what they get is marked."""
    found = {name: udp_socket() for name in ("camera", "viewer")}
    found["viewer"].setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    yield found
    for sock in found.values():
        sock.close()


def marks(viewer: socket.socket, packets: Sequence[bytes]) -> set[int]:
    """TOS or traffic class of exactly these packets."""
    found = set()
    for packet in packets:
        data, control, _flags, _source = viewer.recvmsg(65536, 256)
        assert data == packet
        kinds = {(socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}
        found |= {value[0] for level, kind, value in control if (level, kind) in kinds}
    return found


def frame(first: int, count: int = 14) -> list[bytes]:
    return [packet_of(1200, SSRC, first + i) for i in range(count)]


def sent(camera: socket.socket, packets: Sequence[bytes], to: Engine, tos: int = 0) -> None:
    camera.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
    send_segmented(camera, packets, ("127.0.0.1", to.bound.port))


@pytest.mark.parametrize("segmentation", [True, False])
@pytest.mark.parametrize("bind", ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"])
@pytest.mark.parametrize("count", [1, 14])
def test_as_the_session_is_told(
    sockets: dict[str, socket.socket], bind: str, count: int, *, segmentation: bool
) -> None:
    camera, viewer = sockets["camera"], sockets["viewer"]
    with running(bind, segmentation=segmentation) as e:
        session = add(e, camera, SSRC, viewer)
        number = 0
        for dscp, came, leaves in (
            (NONE, 0, 0),
            (NONE, AF41 << 2, 0),
            (EF, AF41 << 2 | ECN, EF << 2),
            (0, AF41 << 2, 0),
            (63, 0, 63 << 2),
            (COPY, AF41 << 2 | ECN, AF41 << 2),
            (COPY, 0, 0),
            (NONE, EF << 2, 0),
        ):
            e.mark_session(session, dscp)
            packets = frame(number, count)
            sent(camera, packets, e, came)
            assert marks(viewer, packets) == {leaves}
            number += count


def test_an_address_to_leave_from_goes_beside_it(sockets: dict[str, socket.socket]) -> None:
    camera, viewer = sockets["camera"], sockets["viewer"]
    egress = parse_ip("127.0.0.2")
    with running("0.0.0.0:0", egress_address=egress) as e:
        e.set_local_addresses([Address.parse(f"127.0.0.{i}:0") for i in (1, 2)])
        e.mark_session(add(e, camera, SSRC, viewer), EF)
        for packets in (frame(0), frame(14, 1)):
            sent(camera, packets, e)
            assert marks(viewer, packets) == {EF << 2}
        sent(camera, frame(15, 1), e)
        assert viewer.recvfrom(65536)[1][0] == str(egress)


@pytest.mark.usefixtures("ipv6")
def test_ipv6(sockets: dict[str, socket.socket]) -> None:
    camera, viewer = udp_socket("::1"), udp_socket("::1")
    viewer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    with camera, viewer, running("[::]:0") as e:
        session = add(e, camera, SSRC, viewer)
        subscribe(e, session, sockets["viewer"])  # IPv4, by the same send
        for number, (dscp, came, leaves) in enumerate(
            ((EF, 0, EF << 2), (COPY, AF41 << 2 | ECN, AF41 << 2), (NONE, AF41 << 2, 0))
        ):
            e.mark_session(session, dscp)
            packets = frame(14 * number)
            camera.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, came)
            send_segmented(camera, packets, ("::1", e.bound.port))
            assert marks(viewer, packets) == {leaves}
            assert marks(sockets["viewer"], packets) == {leaves}


def test_packets_that_came_marked_otherwise_are_no_group(
    sockets: dict[str, socket.socket],
) -> None:
    camera, viewer = sockets["camera"], sockets["viewer"]
    with running() as e:
        e.mark_session(add(e, camera, SSRC, viewer), COPY)
        packets = frame(0, 40)
        for i in range(0, 40, 4):  # queued together
            sent(camera, packets[i : i + 4], e, (i // 4 % 3) << 2)
        for i in range(0, 40, 4):
            assert marks(viewer, packets[i : i + 4]) == {(i // 4 % 3) << 2}


def test_what_is_no_dscp(sockets: dict[str, socket.socket]) -> None:
    with running() as e:
        session = add(e, sockets["camera"], SSRC)
        for wrong in (-2, 65, 1000):
            with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                e.mark_session(session, wrong)
        with pytest.raises(KeyError):
            e.mark_session(session + 1, 0)


def test_a_session_that_ends_takes_its_wish_along(sockets: dict[str, socket.socket]) -> None:
    camera, viewer = sockets["camera"], sockets["viewer"]
    with running() as e:
        for _ in range(3):
            session = add(e, camera, SSRC, viewer)
            e.mark_session(session, COPY)
            e.mark_session(session, COPY)
            packets = frame(0)
            sent(camera, packets, e, EF << 2)
            assert marks(viewer, packets) == {EF << 2}
            e.remove_session(session)
        session = add(e, camera, SSRC, viewer)
        packets = frame(0)
        sent(camera, packets, e, EF << 2)
        assert marks(viewer, packets) == {0}
