"""What leaves by an interface, in the order it leaves: an AF_PACKET socket. Needs root."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from netns import inside

if TYPE_CHECKING:
    from collections.abc import Callable

ETH_P_ALL = 3
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
IP, UDP = 14, 34


@dataclass(frozen=True)
class Datagram:
    """An outgoing IPv4 UDP datagram, or several that the kernel has not taken apart yet."""

    port: int
    payload: bytes  # the first bytes of it


class Wire:
    """Calls `sees` with each datagram to a port from `first_port` up, in a thread of its own."""

    def __init__(
        self, namespace: str, device: str, first_port: int, sees: Callable[[Datagram], None]
    ) -> None:
        self._sees = sees
        self._stop = threading.Event()
        with inside(namespace):
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
            self._filter(first_port)
            self._sock.bind((device, ETH_P_ALL))
        self._sock.settimeout(0.1)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """What is captured by now is seen before."""
        self._stop.set()
        self._thread.join()
        self._sock.close()

    def missed(self) -> int:
        """Datagrams that the capture had no room for."""
        _, dropped = struct.unpack("=II", self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        return int(dropped)

    def _filter(self, first_port: int) -> None:
        """Classic BPF: IPv4 without options, UDP, destination port from `first_port` up."""
        program = [
            (0x28, 0, 0, 12),  # ldh: EtherType
            (0x15, 0, 5, 0x0800),
            (0x30, 0, 0, IP + 9),  # ldb: protocol
            (0x15, 0, 3, socket.IPPROTO_UDP),
            (0x28, 0, 0, UDP + 2),  # ldh: destination port
            (0x35, 0, 1, first_port),
            (0x06, 0, 0, 128),  # take the first bytes
            (0x06, 0, 0, 0),
        ]
        code = b"".join(struct.pack("=HBBI", *step) for step in program)
        kept = ctypes.create_string_buffer(code)
        described = struct.pack("@HP", len(program), ctypes.addressof(kept))
        self._sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)

    def _run(self) -> None:
        while True:
            try:
                frame = self._sock.recv(256)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            self._sees(Datagram(int.from_bytes(frame[UDP + 2 : UDP + 4], "big"), frame[UDP + 8 :]))
