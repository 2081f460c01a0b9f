"""Between the supervisor and a server process: short messages over a socket pair."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = 1 << 18


class Link:
    """One end. A message is a word and its values; `closed` when the other end is gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = False
        sock.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """Two ends; neither is inherited by a program that is executed."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def adopt(cls, descriptor: int) -> Self:
        """An end that was kept open over an exec."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor))

    def tell(self, word: str, **values: Any) -> None:
        """Never blocks for long, and is no error when nobody is there to hear it."""
        with contextlib.suppress(OSError):
            self.sock.send(json.dumps({"word": word, **values}).encode())

    def heard(self) -> Iterator[dict[str, Any]]:
        """The messages that wait."""
        while not self.closed:
            try:
                data = self.sock.recv(LARGEST)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return
            yield json.loads(data)

    def close(self) -> None:
        """The other end will see it."""
        self.closed = True
        self.sock.close()
