"""Packets leave as long as the interface takes, without "don't fragment"; ICMP has no say unless it
is asked for. Frames and single packets alike, IPv4 and IPv6."""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from engine_support import engine_identities
from fastpath.engines import add, bound_to, packet_of, running
from netns import hosts, inside, link, run
from support import eventually, requires, requires_root, send_segmented

from rtpfanout._fastpath import open_sockets
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rtpfanout._fastpath import Engine

SSRC = 7
MTU_OF_A_LIAR = 1280
ETH_P_ALL = 3
SERVER = {4: "10.1.0.1", 6: "fd01::1"}
VIEWER = {4: "10.1.0.9", 6: "fd01::9"}
families = pytest.mark.parametrize("version", [4, 6])
binds = pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])


@contextmanager
def scene() -> Iterator[tuple[str, str]]:
    """Namespaces of the server, and of the viewer and the camera."""
    requires("ip")
    requires_root()
    with hosts("sv", "near") as ns:
        link(ns["sv"], "10.1.0.1/24", ns["near"], "10.1.0.9/24")
        for here, there, cidr in (("sv", "near", "fd01::1/64"), ("near", "sv", "fd01::9/64")):
            device = f"to-{ns[there]}"[:15]
            run("ip", "-n", ns[here], "address", "add", cidr, "dev", device, "nodad")
        yield ns["sv"], ns["near"]


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def lie(version: int, ours: Address, theirs: Address) -> None:
    """A router that isn't there says that the path to the viewer is narrow (RFC 792, RFC 4443)."""
    udp_header = struct.pack("!HHHH", ours.port, theirs.port, 1208, 0)
    if version == 4:
        quoted = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 1228, 0, 0x4000, 64, 17, 0, ours.ip.packed, theirs.ip.packed
        )
        body = struct.pack("!BBHHH", 3, 4, 0, 0, MTU_OF_A_LIAR) + quoted + udp_header
        body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    else:
        quoted = struct.pack("!IHBB16s16s", 6 << 28, 1208, 17, 64, ours.ip.packed, theirs.ip.packed)
        body = struct.pack("!BBHI", 2, 0, 0, MTU_OF_A_LIAR) + quoted + udp_header + bytes(64)
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with raw:
        raw.sendto(body, (str(ours.ip), 0))


def route_to(viewer: str) -> str:
    """As the kernel has it for who asks now, in this thread's namespace."""
    return run("ip", "route", "get", viewer)


class Wire:
    """What arrives at the viewer's host, as it was on the wire."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind((device, ETH_P_ALL))

    def flags(self, port: int) -> set[str]:
        """Of all datagrams from `port`, and fragments of datagrams, so far."""
        found = set()
        self._socket.setblocking(False)
        try:
            while True:
                frame = self._socket.recv(65536)
                found |= set(self._flags_of(frame[12:14], frame[14:], port))
        except BlockingIOError:
            return found

    def _flags_of(self, kind: bytes, packet: bytes, port: int) -> Iterator[str]:
        if kind == b"\x08\x00" and packet[9] == 17:
            (fragment,) = struct.unpack_from("!H", packet, 6)
            (source,) = struct.unpack_from("!H", packet, 20)
            if fragment & 0x3FFF:
                yield "fragment"
            elif source == port:
                yield "don't fragment" if fragment & 0x4000 else "whole"
        if kind == b"\x86\xdd" and packet[6] == 44:
            yield "fragment"
        elif kind == b"\x86\xdd" and packet[6] == 17 and packet[40:42] == port.to_bytes(2):
            yield "whole"

    def close(self) -> None:
        self._socket.close()


def pass_frames(e: Engine, camera: socket.socket, to: str, viewer: socket.socket) -> int:
    """A frame of 14 packets of 1300 bytes and one more; how many sends it took."""
    before = e.stats()
    sequence = before["packets_received"]
    for count in (14, 1):
        packets = [packet_of(1300, SSRC, sequence + i) for i in range(count)]
        sequence += count
        send_segmented(camera, packets, (to, e.bound.port))
        assert [viewer.recv(2000) for _ in packets] == packets
    stats = eventually(
        e.stats, lambda s: s["packets_sent"] == before["packets_sent"] + 15, "all are counted"
    )
    return stats["sends"] - before["sends"]


@families
@pytest.mark.parametrize("discovery", [False, True])
def test_a_forged_icmp_message_changes_nothing_unless_it_is_to_be_believed(
    discovery: bool, version: int, udp: Callable[..., socket.socket]
) -> None:
    with scene() as (sv, near):
        with inside(near):
            viewer, camera = udp(VIEWER[version]), udp(VIEWER[version])
            wire = Wire(f"to-{sv}"[:15])
        options: dict[str, Any] = {"path_mtu_discovery": discovery}
        with inside(sv), running("[::]:0", **options) as e:
            if not e.sockets.gso:
                pytest.skip("this kernel has no UDP_SEGMENT")
            add(e, camera, SSRC, viewer)
            ours = Address(Address.parse(f"[{SERVER[6]}]:1").ip, e.bound.port)
            if version == 4:
                ours = Address(Address.parse(f"{SERVER[4]}:1").ip, e.bound.port)
            assert pass_frames(e, camera, SERVER[version], viewer) == 2
            assert "fragment" not in wire.flags(e.bound.port)
            with inside(near):
                lie(version, ours, bound_to(viewer))
            if discovery:
                eventually(
                    lambda: route_to(VIEWER[version]), lambda r: "mtu" in r, "it is believed"
                )
            sends = pass_frames(e, camera, SERVER[version], viewer)
            if discovery:
                assert sends == 15, "each packet by itself, in fragments"
                assert "fragment" in wire.flags(e.bound.port)
            else:
                assert sends == 2
                assert wire.flags(e.bound.port) == {"whole"}
            engine_identities(e)
        wire.close()


@binds
def test_frames_and_single_packets_may_be_cut_on_the_way(
    bind: str, udp: Callable[..., socket.socket]
) -> None:
    """Else single ones would vanish in a path that swallows ICMP, while frames pass."""
    with scene() as (sv, near):
        with inside(near):
            viewer, camera = udp(VIEWER[4]), udp(VIEWER[4])
            wire = Wire(f"to-{sv}"[:15])
        with inside(sv), running(bind) as e:
            add(e, camera, SSRC, viewer)
            pass_frames(e, camera, SERVER[4], viewer)
            assert wire.flags(e.bound.port) == {"whole"}
        wire.close()


@families
def test_what_is_longer_than_the_interface_takes_leaves_in_fragments(
    version: int, udp: Callable[..., socket.socket]
) -> None:
    with scene() as (sv, near):
        with inside(near):
            viewer, camera = udp(VIEWER[version]), udp(VIEWER[version])
        with inside(sv), running("[::]:0") as e:
            add(e, camera, SSRC, viewer)
            packets = [packet_of(2000, SSRC, i) for i in range(10)]
            with inside(near):
                for packet in packets:
                    camera.sendto(packet, (SERVER[version], e.bound.port))
            assert [viewer.recv(3000) for _ in packets] == packets
            engine_identities(e)


def test_sockets_that_are_adopted_are_set_too() -> None:
    fds = open_sockets(Address.parse("[::]:0"), 1, 64)
    kept = socket.socket(fileno=fds[0])
    with kept:
        for discovery, v4, v6 in ((True, 1, 1), (False, 5, 5)):
            with running("[::]:0", sockets=fds, path_mtu_discovery=discovery):
                assert kept.getsockopt(socket.IPPROTO_IP, 10) == v4  # IP_MTU_DISCOVER
                assert kept.getsockopt(socket.IPPROTO_IPV6, 23) == v6  # IPV6_MTU_DISCOVER
