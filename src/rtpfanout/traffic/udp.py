"""A UDP socket that receives as a measuring instrument should.

Large buffer, arrival times taken by the kernel, and a count of what the kernel
had to drop because the buffer was full.
"""

import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from rtpfanout.closing import Closing
from rtpfanout.errors import StartError
from rtpfanout.listening import bind_fault
from rtpfanout.model import Address

# <asm-generic/socket.h>; the socket module does not export these.
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40

_RECEIVE_BUFFER = 32 << 20
_MAX_DATAGRAM = 65_535
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(4)


class Datagram(NamedTuple):
    """One received datagram; `arrival_ns` is CLOCK_REALTIME, as the kernel saw it."""

    data: bytes
    arrival_ns: int


class ReceiveSocket(Closing):
    """A bound UDP socket; `receive` waits at most 0.1 s."""

    def __init__(self, bind: Address) -> None:
        """Raises StartError when the address cannot be bound."""
        self.kernel_drops = 0
        self._socket = open_socket(bind)
        enlarge_receive_buffer(self._socket, _RECEIVE_BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        # A time-out of the kernel's: settimeout would cost a poll per datagram.
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 100_000)
        )
        self.address = bound_address(self._socket)

    def receive(self, *, wait: bool = True) -> Datagram | None:
        """The next datagram, or None when none came within 0.1 s, or at once."""
        flags = 0 if wait else socket.MSG_DONTWAIT
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_MAX_DATAGRAM, _ANCILLARY, flags)
        except BlockingIOError:
            return None
        arrival_ns = 0
        for _, kind, value in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                arrival_ns = seconds * 1_000_000_000 + nanoseconds
            elif kind == _SO_RXQ_OVFL:
                self.kernel_drops = struct.unpack("@I", value)[0]
        return Datagram(data, arrival_ns)

    def send(self, data: bytes, to: Address) -> None:
        """From the port that is received on. Raises OSError."""
        self._socket.sendto(data, to.sockaddr)

    def close(self) -> None:
        self._socket.close()


def open_socket(bind: Address) -> socket.socket:
    """A UDP socket bound to `bind`; "[::]" takes IPv4 too. Raises StartError."""
    udp = socket.socket(bind.family, socket.SOCK_DGRAM)
    try:
        if bind.family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        udp.bind(bind.sockaddr)
    except OSError as error:
        udp.close()
        raise StartError(f"cannot bind {bind}: {bind_fault(error)}") from None
    return udp


def source_for(target: Address) -> Address:
    """The local address the kernel would send to `target` from, port 0. Raises StartError."""
    with socket.socket(target.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(target.sockaddr)
        except OSError as error:
            raise StartError(f"no way to {target}: {error.strerror}; check the route") from None
        return Address(bound_address(probe).ip, 0)


def bound_address(udp: socket.socket) -> Address:
    """Where a socket is bound."""
    host, port, *rest = udp.getsockname()
    scope = rest[1] if rest else 0
    host = host.partition("%")[0]
    if udp.family == socket.AF_INET6:
        return Address.unpack(socket.inet_pton(socket.AF_INET6, host), port, scope)
    return Address.parse(f"{host}:{port}")


def enlarge_receive_buffer(udp: socket.socket, size: int) -> None:
    """As near to `size` bytes as the kernel allows; beyond rmem_max for root."""
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    with suppress(PermissionError):
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
