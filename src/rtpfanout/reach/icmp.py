"""What routers and receivers say by ICMP of copies that they did not take (RFC 792, RFC 4443).

Heard on raw sockets of their own (raw(7)): IP_RECVERR on a socket of the packet path would make the
next send to somebody else fail. Whoever can guess a subscriber can forge such a message, so all it
ever does is inform.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import socket
import struct
from array import array
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.model import Address

if TYPE_CHECKING:
    from rtpfanout.model import IPAddress

MOST_AT_ONCE = 256
"""Messages that one look takes; what finds no room in the queue meanwhile is lost."""
_QUEUE_BYTES = 128 << 10
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_ICMP6_FILTER = 1  # linux/icmpv6.h
_UDP, _FRAGMENT = 17, 44
_UNREACHABLE4, _UNREACHABLE6 = 3, 1
_BPF = struct.Struct("=HBBI")  # sock_filter
_LD_B_ABS, _LD_B_IND, _LDX_B_MSH, _JEQ, _RET = 0x30, 0x50, 0xB1, 0x15, 0x06


class Told(enum.Enum):
    """What such a message says."""

    PORT = "nobody listens at the port, or a firewall rejects what comes there"
    HOST = "its host does not answer there"
    ROUTE = "there is no way to its network"
    FIREWALL = "a firewall forbids it"


class IcmpError(NamedTuple):
    """Of a datagram that left from our `port` to `destination`; `by` says it."""

    told: Told
    by: IPAddress
    destination: Address
    port: int


# RFC 792, RFC 1812 section 5.2.7.1; those that say nothing of this destination are left out.
_IPV4_CODES = {
    0: Told.ROUTE, 1: Told.HOST, 2: Told.PORT, 3: Told.PORT, 6: Told.ROUTE, 7: Told.HOST,
    9: Told.FIREWALL, 10: Told.FIREWALL, 13: Told.FIREWALL,
}  # fmt: skip
# RFC 4443 section 3.1
_IPV6_CODES = {
    0: Told.ROUTE, 1: Told.FIREWALL, 2: Told.ROUTE, 3: Told.HOST, 4: Told.PORT, 5: Told.FIREWALL,
    6: Told.ROUTE,
}  # fmt: skip


def parse_ipv4(packet: bytes) -> IcmpError | None:
    """Of a raw socket, IP header included. None: nothing that is of use here."""
    at = 4 * (packet[0] & 0xF) if packet else 0
    if len(packet) < at + 8 + 20 or packet[at] != _UNREACHABLE4:
        return None
    told = _IPV4_CODES.get(packet[at + 1])
    quoted = packet[at + 8 :]
    # What we sent: the message came to the address that it had left from.
    if told is None or quoted[0] >> 4 != 4 or quoted[9] != _UDP or quoted[12:16] != packet[16:20]:
        return None
    if int.from_bytes(quoted[6:8]) & 0x1FFF:  # not the first fragment: no ports
        return None
    ports = quoted[4 * (quoted[0] & 0xF) :]
    if len(ports) < 4:
        return None
    own, port = struct.unpack_from("!HH", ports)
    by, to = ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(quoted[16:20])
    return IcmpError(told, by, Address(to, port), own)


def parse_ipv6(packet: bytes, by: IPAddress, scope: int = 0) -> IcmpError | None:
    """Of a raw socket, from the ICMPv6 header on; `scope` is of the interface that it came by."""
    if len(packet) < 8 + 40 or packet[0] != _UNREACHABLE6:
        return None
    told = _IPV6_CODES.get(packet[1])
    quoted, ports = packet[8:48], packet[48:]
    if told is None or quoted[0] >> 4 != 6:
        return None
    following = quoted[6]
    if following == _FRAGMENT and len(ports) >= 8:
        if int.from_bytes(ports[2:4]) >> 3:
            return None
        following, ports = ports[0], ports[8:]
    if following != _UDP or len(ports) < 4:
        return None
    own, port = struct.unpack_from("!HH", ports)
    to = quoted[24:40]
    is_scoped = to[0] == 0xFE and to[1] & 0xC0 == 0x80
    return IcmpError(told, by, Address.unpack(to, port, scope if is_scoped else 0), own)


class Listener:
    """Raw sockets of the network namespace of this thread; `fault` says why there are none."""

    def __init__(self) -> None:
        self.fault = ""
        self._sockets: list[socket.socket] = []
        try:
            self._sockets.append(_open_ipv4())
        except OSError as error:
            denied = isinstance(error, PermissionError)
            self.fault = "the server has not got CAP_NET_RAW" if denied else str(error.strerror)
            return
        with contextlib.suppress(OSError):  # a host without IPv6
            self._sockets.append(_open_ipv6())

    def take(self) -> list[IcmpError]:
        """What has come, the oldest first; never waits."""
        found = []
        for sock in self._sockets:
            for _ in range(MOST_AT_ONCE):
                try:
                    packet, sender = sock.recvfrom(2048)
                except OSError:
                    break
                if sock.family == socket.AF_INET:
                    error = parse_ipv4(packet)
                else:
                    by = ipaddress.IPv6Address(sender[0].partition("%")[0])
                    error = parse_ipv6(packet, by, sender[3])
                if error:
                    found.append(error)
        return found

    def close(self) -> None:
        """Nothing comes any more."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()


def _open_ipv4() -> socket.socket:
    """The filter sees the IP header first."""
    return _opened(
        socket.AF_INET,
        socket.IPPROTO_ICMP,
        [
            (_LDX_B_MSH, 0, 0, 0),  # where ICMP begins
            (_LD_B_IND, 0, 0, 0),
            (_JEQ, 0, 3, _UNREACHABLE4),
            (_LD_B_IND, 0, 0, 8 + 9),  # the protocol of what is quoted
            (_JEQ, 0, 1, _UDP),
            (_RET, 0, 0, 0xFFFF),
            (_RET, 0, 0, 0),
        ],
    )


def _open_ipv6() -> socket.socket:
    """The filter sees the ICMPv6 header first."""
    sock = _opened(
        socket.AF_INET6,
        socket.IPPROTO_ICMPV6,
        [
            (_LD_B_ABS, 0, 0, 0),
            (_JEQ, 0, 4, _UNREACHABLE6),
            (_LD_B_ABS, 0, 0, 8 + 6),
            (_JEQ, 1, 0, _UDP),
            (_JEQ, 0, 1, _FRAGMENT),
            (_RET, 0, 0, 0xFFFF),
            (_RET, 0, 0, 0),
        ],
    )
    blocked = (1 << 256) - 1 ^ 1 << _UNREACHABLE6
    words = struct.pack("=8I", *(blocked >> 32 * i & 0xFFFFFFFF for i in range(8)))
    with contextlib.suppress(OSError):  # then the filter alone tells
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, words)
    return sock


def _opened(family: int, protocol: int, code: list[tuple[int, int, int, int]]) -> socket.socket:
    """Raises OSError."""
    sock = socket.socket(family, socket.SOCK_RAW, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        _attach(sock, code)
    except OSError:
        sock.close()
        raise
    return sock


def _attach(sock: socket.socket, code: list[tuple[int, int, int, int]]) -> None:
    program = array("B", b"".join(_BPF.pack(*line) for line in code))
    told = struct.pack("@HP", len(code), program.buffer_info()[0])  # sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)
