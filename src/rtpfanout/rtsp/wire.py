"""RTSP/1.0 as bytes (RFC 2326): requests and interleaved frames come in, responses go out.

No sockets here. What comes is strangers': every length has a bound, and what has not the shape of a
request ends the connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_HEAD_BYTES = 16 * 1024
MOST_HEADERS = 64
MOST_BODY_BYTES = 64 * 1024
MOST_AHEAD_BYTES = MOST_HEAD_BYTES + MOST_BODY_BYTES
"""What is kept of a connection before more of it is read."""
LONGEST_REASON = 240
"""ffmpeg shows 255 characters of it."""

DOLLAR = 0x24
"""How an interleaved frame begins (section 10.12)."""
_FRAME_HEAD_BYTES = 4
_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(r"([A-Z][A-Z_]{0,31}) ([\x21-\x7e]{1,4096}) RTSP/(\d)\.(\d)")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):[ \t]*(.*?)[ \t]*")
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_ONCE = frozenset(("cseq", "content-length", "session", "transport", "authorization"))

REASONS: Mapping[int, str] = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    413: "Request Entity Too Large",
    451: "Parameter Not Understood",
    453: "Not Enough Bandwidth",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "RTSP Version Not Supported",
    551: "Option not supported",
}
"""All that are sent (section 7.1.1)."""


class RefusedRequest(Exception):  # noqa: N818  (no fault of ours)
    """Answered by `status`, with a sentence as its reason phrase."""

    def __init__(self, status: int, sentence: str = "", **headers: str) -> None:
        super().__init__(sentence or REASONS[status])
        self.status = status
        self.sentence = sentence or REASONS[status]
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` by their names in lower case; of one that comes several times, all with commas."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    version: tuple[int, int] = (1, 0)

    @property
    def cseq(self) -> str:
        """As it came; "" if it has none."""
        return self.headers.get("cseq", "")


@dataclass(frozen=True, slots=True)
class Frame:
    """One packet on a channel of the connection."""

    channel: int
    data: bytes


class Reader:
    """What a connection brings, one by one; `feed` it, then take with `next` until None."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._head: Request | None = None
        """Whose body has not come yet: read once, in however many pieces that comes."""
        self._body = slice(0)

    def __len__(self) -> int:
        """Bytes that have not been taken."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """What came."""
        self._buffer += data

    def next(self) -> Request | Frame | None:
        """Raises RefusedRequest; nothing can be read after that."""
        self._skip_empty_lines()
        if not self._buffer:
            return None
        return self._frame() if self._buffer[0] == DOLLAR else self._request()

    def _skip_empty_lines(self) -> None:
        """Before a request (section 4.1 of RFC 2616)."""
        if self._searched == 0 and self._buffer.startswith((b"\r", b"\n")):
            kept = self._buffer.lstrip(b"\r\n")
            del self._buffer[: len(self._buffer) - len(kept)]

    def _frame(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < _FRAME_HEAD_BYTES:
            return None
        end = _FRAME_HEAD_BYTES + int.from_bytes(buffer[2:4])
        if len(buffer) < end:
            return None
        frame = Frame(buffer[1], bytes(buffer[_FRAME_HEAD_BYTES:end]))
        del buffer[:end]
        return frame

    def _request(self) -> Request | None:
        head = self._head = self._head or self._next_head()
        buffer, body = self._buffer, self._body
        if head is None or len(buffer) < body.stop:
            return None
        content = bytes(buffer[body])
        del buffer[: body.stop]
        self._head, self._searched = None, 0
        return Request(head.method, head.url, head.headers, content, head.version)

    def _next_head(self) -> Request | None:
        """And where its body is going to be."""
        buffer = self._buffer
        end = buffer.find(_END, max(0, self._searched - len(_END)))
        if max(end, 0) > MOST_HEAD_BYTES or (end < 0 and len(buffer) > MOST_HEAD_BYTES):
            raise RefusedRequest(400, f"a request's head has more than {MOST_HEAD_BYTES} bytes")
        if end < 0:
            self._searched = len(buffer)
            return None
        head = _head(bytes(buffer[:end]))
        begin = end + len(_END)
        self._body = slice(begin, begin + _length(head.headers.get("content-length", "0")))
        return head


def response(
    status: int, cseq: str, headers: Mapping[str, str], body: bytes = b"", reason: str = ""
) -> bytes:
    """As bytes; what is no printable ASCII becomes "?"."""
    phrase = _printable(reason or REASONS[status])[:LONGEST_REASON]
    lines = [f"RTSP/1.0 {status} {phrase}", f"CSeq: {_printable(cseq)}", "Server: rtpfanout"]
    lines += [f"{name}: {_printable(value)}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def frame_head(channel: int, length: int) -> bytes:
    """Before a packet of `length` bytes, 65,535 at the most."""
    return bytes((DOLLAR, channel)) + length.to_bytes(2)


def _head(data: bytes) -> Request:
    line, *others = data.decode("latin-1").split("\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise RefusedRequest(400, "the first line is not METHOD URL RTSP/1.0")
    if len(others) > MOST_HEADERS:
        raise RefusedRequest(400, f"a request has more than {MOST_HEADERS} headers")
    headers: dict[str, str] = {}
    for other in others:
        found = _HEADER.fullmatch(other)
        if found is None:
            raise RefusedRequest(400, "a header is not NAME: VALUE")
        name, value = found[1].lower(), found[2]
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise RefusedRequest(400, f"the header {found[1]} is there twice")
        else:
            headers[name] = f"{headers[name]}, {value}"
    return Request(match[1], match[2], headers, version=(int(match[3]), int(match[4])))


def _length(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise RefusedRequest(400, "Content-Length is no number")
    if int(text) > MOST_BODY_BYTES:
        raise RefusedRequest(413, f"the body of a request has more than {MOST_BODY_BYTES} bytes")
    return int(text)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("?", text)
