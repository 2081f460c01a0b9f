"""Questions to the kernel by rtnetlink(7), and its answers: messages and their attributes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# linux/netlink.h
_NLM_F_REQUEST, _NLM_F_REQUEST_DUMP = 1, 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_DUMP_INTR = 0x10
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # rtattr
_TIMEOUT_SECS = 5
_TRIES = 5
_AT_ONCE = 16
"""Questions on their way: each answer takes up to 8 KiB of the socket's 208 KiB."""


class Message(NamedTuple):
    """One of the kernel's: what it is (RTM_...), its flags, what it answers, and the rest of it."""

    kind: int
    flags: int
    sequence: int
    body: bytes

    @property
    def errno(self) -> int:
        """Why the kernel refused; 0: it did not."""
        return -int(struct.unpack_from("=i", self.body)[0]) if self.kind == _NLMSG_ERROR else 0


def open_netlink() -> socket.socket:
    """Of the network namespace of this thread. Raises OSError."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)


def ask(netlink: socket.socket, kind: int, bodies: Sequence[bytes]) -> list[Message]:
    """The first message of each answer, in the order of the questions. Raises OSError."""
    answers: list[Message] = []
    for start in range(0, len(bodies), _AT_ONCE):
        some = bodies[start : start + _AT_ONCE]
        netlink.send(
            b"".join(_request(kind, _NLM_F_REQUEST, body, i) for i, body in enumerate(some))
        )
        found: dict[int, Message] = {}
        while len(found) < len(some):
            for message in messages(netlink.recv(1 << 18)):
                found.setdefault(message.sequence, message)
        answers += (found[i] for i in range(len(some)))
    return answers


def dump(kind: int, body: bytes) -> list[Message]:
    """The whole of a table; read again where something changed meanwhile. Raises OSError."""
    for _ in range(_TRIES):
        found = _dump_once(kind, body)
        if not any(message.flags & _NLM_F_DUMP_INTR for message in found):
            break
    return found


def _dump_once(kind: int, body: bytes) -> list[Message]:
    """With the last one, which says that it is."""
    found: list[Message] = []
    with open_netlink() as netlink:
        netlink.settimeout(_TIMEOUT_SECS)
        with contextlib.suppress(OSError):  # then the kernel picks the table: Linux 4.20
            netlink.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        netlink.send(_request(kind, _NLM_F_REQUEST_DUMP, body, 1))
        while not found or found[-1].kind != _NLMSG_DONE:
            found += messages(netlink.recv(1 << 18))
            if errno := found[-1].errno:
                raise OSError(errno, f"netlink refused: {os.strerror(errno)}")
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """To be put behind a question, which it pads."""
    text = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return text + bytes(-len(text) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """By their kind; of two alike the last."""
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def messages(data: bytes) -> Iterator[Message]:
    """Of what was received at once."""
    while len(data) >= _HEADER.size:
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            break
        yield Message(kind, flags, sequence, data[_HEADER.size : length])
        data = data[(length + 3) & ~3 :]


def _request(kind: int, flags: int, body: bytes, sequence: int) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body
