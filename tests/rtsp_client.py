"""An RTSP client that says exactly what a test wants said."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Self

from support import SETTLE_SECONDS

if TYPE_CHECKING:
    import ssl

    from rtpfanout.model import Address

DOLLAR = 0x24


@dataclass
class Response:
    """`headers` by their names in lower case."""

    status: int
    reason: str
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


class RtspClient:
    """Connected until `close`. `frames` are (channel, packet) that came between responses."""

    def __init__(
        self, door: Address, tls: ssl.SSLContext | None = None, *, host: str = "", buffer: int = 0
    ) -> None:
        """`host` is where it connects from, `buffer` what its socket may hold in bytes."""
        self.url = f"rtsp{'s' if tls else ''}://{door}/"
        sock = socket.socket(door.family)
        sock.settimeout(SETTLE_SECONDS)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        if host:
            sock.bind((host, 0))
        sock.connect(door.sockaddr)
        self.sock = tls.wrap_socket(sock, server_hostname="127.0.0.1") if tls else sock
        self.session = ""
        self.frames: list[tuple[int, bytes]] = []
        self._numbers = count(1)
        self._came = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def ask(self, method: str, name: str = "", body: str = "", **headers: str) -> Response:
        """A request about a URL below the door's, and its response."""
        url = name if "://" in name or name == "*" else self.url + name
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {next(self._numbers)}"]
        if self.session and method not in ("OPTIONS", "DESCRIBE"):
            headers = {"Session": self.session, **headers}
        if body:
            headers["Content-Length"] = str(len(body))
        lines += [f"{key.replace('_', '-')}: {value}" for key, value in headers.items()]
        self.sock.sendall("\r\n".join([*lines, "", body]).encode())
        return self.response()

    def set_up(self, name: str, transport: str) -> Response:
        """SETUP; its session is that of what is asked later."""
        response = self.ask("SETUP", name, Transport=transport)
        if "session" in response.headers:
            self.session = response.headers["session"].partition(";")[0]
        return response

    def response(self) -> Response:
        """The next one; frames before it are kept."""
        while self._next() == DOLLAR:
            self.frame()
        head, self._came = self._until(b"\r\n\r\n")
        line, *others = head.decode().split("\r\n")
        _, status, reason = line.split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in others)}
        length = int(headers.get("content-length", "0"))
        self._need(length)
        body, self._came = self._came[:length], self._came[length:]
        return Response(int(status), reason, headers, body.decode())

    def frame(self) -> tuple[int, bytes]:
        """The next one; nothing else may come before it."""
        assert self._next() == DOLLAR
        self._need(4)
        length = int.from_bytes(self._came[2:4])
        self._need(4 + length)
        found = self._came[1], self._came[4 : 4 + length]
        self._came = self._came[4 + length :]
        self.frames.append(found)
        return found

    def send_frame(self, channel: int, data: bytes) -> None:
        """One packet of ours."""
        self.sock.sendall(bytes((DOLLAR, channel)) + len(data).to_bytes(2) + data)

    def is_closed(self) -> bool:
        """The other end has closed; what it said before is passed over."""
        try:
            while self.sock.recv(65_536):
                pass
        except ConnectionError:
            pass
        return True

    def _next(self) -> int:
        self._need(1)
        return self._came[0]

    def _need(self, length: int) -> None:
        while len(self._came) < length:
            data = self.sock.recv(65_536)
            assert data, f"it closed after {self._came!r}"
            self._came += data

    def _until(self, end: bytes) -> tuple[bytes, bytes]:
        while end not in self._came:
            self._need(len(self._came) + 1)
        head, _, rest = self._came.partition(end)
        return head, rest
