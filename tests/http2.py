"""A gRPC peer that breaks the rules: HTTP/2 frames by hand (RFC 9113), as no client library sends
them."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
MAX_CONCURRENT_STREAMS = 3
REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True)
class Frame:
    """As it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error(self) -> int:
        """The code of a RST_STREAM or GOAWAY."""
        return int.from_bytes(self.payload[4:8] if self.kind == GOAWAY else self.payload[:4])


class Peer:
    """A connection that has sent its preface. It acknowledges settings, and pings if told to."""

    def __init__(self, host: str, port: int, seconds: float, *, answers_pings: bool = True) -> None:
        self.settings: dict[int, int] = {}
        """Of the server, as far as they have been read."""
        self._answers_pings = answers_pings
        self._sock = socket.create_connection((host, port), seconds)
        self._sock.sendall(_PREFACE)
        self.send(SETTINGS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def hang_up(self) -> None:
        """Whoever waits for a frame gets None."""
        self._sock.shutdown(socket.SHUT_RDWR)

    def send(self, kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> None:
        """One frame."""
        head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream)
        self._sock.sendall(head + payload)

    def call(self, method: str, stream: int, message: bytes) -> None:
        """A call with one message, on an odd `stream` above all before."""
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        # Literal without indexing, both parts as they are (RFC 7541 section 6.2.2).
        block = b"".join(
            b"\0" + b"".join(bytes([len(part)]) + part.encode() for part in field)
            for field in fields.items()
        )
        self.send(HEADERS, block, END_HEADERS, stream)
        self.send(DATA, struct.pack(">BI", 0, len(message)) + message, END_STREAM, stream)

    def frame(self) -> Frame | None:
        """The next one; None when the server has closed. Raises TimeoutError."""
        head = self._exactly(9)
        if head is None:
            return None
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        payload = self._exactly(int.from_bytes(head[:3]))
        if payload is None:
            return None
        if kind == SETTINGS and not flags & ACK:
            self.settings |= dict(struct.iter_unpack(">HI", payload))
            self.send(SETTINGS, flags=ACK)
        if kind == PING and not flags & ACK and self._answers_pings:
            self.send(PING, payload, ACK)
        return Frame(kind, flags, stream, payload)

    def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            try:
                some = self._sock.recv(count - len(data))
            except ConnectionError:
                return None
            if not some:
                return None
            data += some
        return data
