"""A UDP socket that receives as a measuring instrument should.

Large buffer, arrival times taken by the kernel, and a count of what the kernel
had to drop because the buffer was full.
"""

import socket
import struct
from typing import NamedTuple

from rtpfanout.closing import Closing
from rtpfanout.errors import StartError
from rtpfanout.listening import (
    NOBODY,
    SockAddr,
    bind_fault,
    bound,
    bound_address,
    set_receive_buffer,
)
from rtpfanout.model import Address

# <asm-generic/socket.h>; the socket module does not export these.
_SO_TIMESTAMPNS = 35
_SO_RXQ_OVFL = 40

_RECEIVE_BUFFER = 32 << 20
_MAX_DATAGRAM = 65_535
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(4)


class Datagram(NamedTuple):
    """One received datagram; `arrival_ns` is CLOCK_REALTIME, as the kernel saw it.

    `source` is who sent it, see listening.from_sockaddr.
    """

    data: bytes
    arrival_ns: int
    source: SockAddr = NOBODY


class ReceiveSocket(Closing):
    """A bound UDP socket; `receive` waits at most 0.1 s."""

    def __init__(self, bind: Address) -> None:
        """Raises StartError when the address cannot be bound."""
        self.kernel_drops = 0
        self._socket = open_socket(bind)
        set_receive_buffer(self._socket, _RECEIVE_BUFFER)
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
            data, ancillary, _, source = self._socket.recvmsg(_MAX_DATAGRAM, _ANCILLARY, flags)
        except BlockingIOError:
            return None
        arrival_ns = 0
        for _, kind, value in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(value)
                arrival_ns = seconds * 1_000_000_000 + nanoseconds
            elif kind == _SO_RXQ_OVFL:
                self.kernel_drops = struct.unpack("@I", value)[0]
        return Datagram(data, arrival_ns, source)

    def send(self, data: bytes, to: Address) -> None:
        """From the port that is received on. Raises OSError."""
        self._socket.sendto(data, to.sockaddr)

    def close(self) -> None:
        self._socket.close()


def open_socket(bind: Address) -> socket.socket:
    """A UDP socket bound to `bind`; "[::]" takes IPv4 too. Raises StartError."""
    try:
        return bound(bind, socket.SOCK_DGRAM)
    except OSError as error:
        raise StartError(f"cannot bind {bind}: {bind_fault(error)}") from None


def source_for(target: Address) -> Address:
    """The local address the kernel would send to `target` from, port 0. Raises StartError."""
    with socket.socket(target.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(target.sockaddr)
        except OSError as error:
            raise StartError(f"no way to {target}: {error.strerror}; check the route") from None
        return Address(bound_address(probe).ip, 0)
