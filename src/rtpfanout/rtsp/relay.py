"""A UDP socket of ours that is a subscriber for somebody who has no port of his own.

The packet path sends to it as to any other, so that nothing on its way is different.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from rtpfanout.listening import bound, bound_address, set_receive_buffer
from rtpfanout.model import Address, parse_ip
from rtpfanout.rtsp.outlet import is_rtcp_packet, split

if TYPE_CHECKING:
    from rtpfanout.model import IPAddress

RECEIVE_BUFFER_BYTES = 1 << 20
"""For a keyframe while the event loop is busy elsewhere."""
MOST_AT_A_TIME = 16
"""Datagrams, before others of the event loop have their turn."""
LONGEST_RTCP_BYTES = 1500
_OF_RECEIVERS = frozenset((201, 202, 204, 205, 206, 207))
"""RR, SDES, APP, RTPFB, PSFB, XR: not SR and BYE, which a source says."""

_UDP_GRO = 104  # linux/udp.h
_SOL_UDP = 17
_INT = struct.Struct("@i")
_ANCILLARY = socket.CMSG_SPACE(_INT.size)
DATAGRAM_BYTES = 65_536


def relay_ip(main: Address, *, sends_ipv4: bool) -> IPAddress:
    """Where relays are: the address that the packet path is bound to, or loopback."""
    if not main.ip.is_unspecified:
        return main.ip
    return parse_ip("127.0.0.1" if sends_ipv4 else "::1")


class Relay:
    """Open until `close`. Takes datagrams from `main` alone, the address that copies leave from."""

    def __init__(
        self,
        main: Address,
        rtcp_port: int,
        take: Callable[[list[bytes]], None],
        buffer: memoryview,
        closed: Callable[[], None],
        is_source: Callable[[int], bool],
    ) -> None:
        """`main.ip` is this host's. `rtcp_port`: where RTCP goes up to; 0: nowhere. `buffer` of
        DATAGRAM_BYTES is used in moments, so relays can share one. `is_source`: whether a session
        has that SSRC. Raises OSError."""
        self._sock = bound(Address(main.ip, 0), socket.SOCK_DGRAM)
        self._take = take
        self._closed = closed
        self._is_source = is_source
        self._buffer = buffer
        self._rtcp_to = Address(main.ip, rtcp_port).sockaddr if rtcp_port else None
        self.address = bound_address(self._sock)
        try:
            self._sock.connect(main.sockaddr)
            self._sock.setblocking(False)
            set_receive_buffer(self._sock, RECEIVE_BUFFER_BYTES)
            with contextlib.suppress(OSError):  # one by one, before Linux 5.0
                self._sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:
            self._sock.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock, self._read)

    def send_rtcp(self, data: bytes) -> None:
        """What a client reports. Nothing but that, so that nobody feeds a session this way, or
        speaks for a camera that is on this host, too."""
        if not self._rtcp_to or len(data) > LONGEST_RTCP_BYTES:
            return
        if is_rtcp_packet(data) and is_of_receiver(data, self._is_source):
            with contextlib.suppress(OSError):
                self._sock.sendto(data, self._rtcp_to)

    def close(self) -> None:
        """Twice does no harm."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._closed()

    def _read(self) -> None:
        packets: list[bytes] = []
        for _ in range(MOST_AT_A_TIME):
            try:
                length, ancillary, _, _ = self._sock.recvmsg_into([self._buffer], _ANCILLARY)
            except OSError:  # nothing more, or what ICMP said of RTCP
                break
            sizes = [_INT.unpack(value)[0] for _, kind, value in ancillary if kind == _UDP_GRO]
            packets += split(self._buffer[:length], sizes[0] if sizes else 0)
        if packets:
            self._take(packets)


def is_of_receiver(data: bytes, is_source: Callable[[int], bool]) -> bool:
    """Whether compound RTCP (RFC 3550 section 6.1) is of one who only receives, under an SSRC that
    is no source's. What is malformed or sealed is read as far as it goes.

    ffmpeg reports under the SSRC behind the one that it plays, so where two cameras have such, it
    would be taken for the other one.
    """
    while len(data) >= 4 and data[0] >> 6 == 2:
        if data[1] not in _OF_RECEIVERS or is_source(int.from_bytes(data[4:8])):
            return False
        data = data[4 * (1 + int.from_bytes(data[2:4])) :]
    return True
