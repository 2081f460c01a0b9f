"""Between the supervisor and a server process: messages over a socket pair.

A message is one datagram of SOCK_SEQPACKET, JSON, and so are those of every version. One that is
too long for that is in a memfd that goes with the datagram, as other descriptors may.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Self, TypeVar

_Told = TypeVar("_Told")

LARGEST = 1 << 18
"""Bytes of a datagram that is read."""
INLINE = 1 << 14
"""Bytes from which a message has a memfd."""
MOST_DESCRIPTORS = 250
"""That go with one: SCM_MAX_FD is 253 (unix(7)), and there may be a memfd."""
_PATIENCE_SECONDS = 5.0
_PAUSE_SECONDS = 0.001


class Link:
    """One end. A message is a word and its values; `closed` when the other end is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = False
        sock.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """Two ends; neither is inherited by a program that is executed. Raises OSError."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def to_nobody(cls) -> Link:
        """What it is told nobody hears, and nothing comes."""
        link, other = cls.pair()
        link.close()
        other.close()
        return link

    @classmethod
    def adopt(cls, descriptor: int) -> Self:
        """An end that was kept open over an exec."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor))

    def tell(self, word: str, *, descriptors: Sequence[int] = (), **values: Any) -> str:
        """Never blocks. Why it could not be said, or "", also to nobody: that end is news itself.

        `descriptors` come with it, as the message's `descriptors`.
        """
        if self.closed:
            return ""
        message = json.dumps({"word": word, **values}).encode()
        memory = None
        try:
            if len(message) > INLINE:
                memory = os.memfd_create("rtpfanout-message", os.MFD_CLOEXEC)
                with os.fdopen(memory, "wb", closefd=False) as file:
                    file.write(message)
                message = json.dumps({"word": word, "in_memory": True}).encode()
            sent = [*descriptors] if memory is None else [memory, *descriptors]
            socket.send_fds(self.sock, [message], sent)
        except (BrokenPipeError, ConnectionResetError):
            return ""
        except OSError as error:
            return error.strerror or str(error)
        finally:
            if memory is not None:
                os.close(memory)
        return ""

    def tell_in_time(self, word: str, *, descriptors: Sequence[int] = (), **values: Any) -> str:
        """The same, and waits while the other end is behind with reading; not in its own thread."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            reason = self.tell(word, descriptors=descriptors, **values)
            if reason != os.strerror(errno.EAGAIN) or time.monotonic() > deadline:
                return reason
            time.sleep(_PAUSE_SECONDS)

    def heard(self) -> Iterator[dict[str, Any]]:
        """The messages that wait. Whoever gets `descriptors` closes them."""
        while not self.closed:
            try:
                data, descriptors, _flags, _address = socket.recv_fds(
                    self.sock, LARGEST, MOST_DESCRIPTORS + 1
                )
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return
            yield _message(data, descriptors)

    def close(self) -> None:
        """The other end will see it."""
        self.closed = True
        self.sock.close()


def _message(data: bytes, descriptors: list[int]) -> dict[str, Any]:
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    message: dict[str, Any] = json.loads(data)
    if message.pop("in_memory", False):
        with os.fdopen(descriptors.pop(0), "rb") as file:
            file.seek(0)
            message = json.load(file)
    if descriptors:
        message["descriptors"] = descriptors
    return message


def known(kind: type[_Told], values: dict[str, Any]) -> _Told:
    """Of what another version may have told: the fields that this one has."""
    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})


def readable_of(descriptors: Iterable[int], seconds: float) -> list[int]:
    """Those with something to read, as soon as there is one; of any number, as select() can't."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(math.ceil(min(seconds, 3600) * 1000))]


def close_all(descriptors: Sequence[int]) -> None:
    """Those that are not open are no error."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
