"""Accepts connections, also where there is hardly a descriptor left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    import socket

    from rtpfanout.crowd import Crowd

BACKLOG = 1024
ACCEPTS_AT_A_TIME = 16
SPARE_DESCRIPTORS = 4
"""Kept for health checks when something else has taken all others."""
RETRY_SECONDS = 0.1
TELL_SECONDS = 60.0

_log = structlog.stdlib.get_logger(__name__)


class Acceptor:
    """Accepts on `listener` until `close`; what asyncio's own does, but for what goes wrong.

    That one goes on failing for as long as there is no descriptor, with a traceback each time.
    """

    def __init__(
        self,
        listener: socket.socket,
        crowd: Crowd,
        make: Callable[[], asyncio.BaseProtocol],
        key: str,
    ) -> None:
        """`make` makes the protocol of a connection; `key` is the configuration's of its port."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._crowd = crowd
        self._make = make
        self._key = key
        self._spare: list[int] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._failures = 0
        self._told = -TELL_SECONDS
        self._retry: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self.keep_spare()
        self._begin()

    def keep_spare(self) -> None:
        """As far as there are any; to be called now and then."""
        with contextlib.suppress(OSError):
            while len(self._spare) < SPARE_DESCRIPTORS:
                self._spare.append(os.dup(self._listener.fileno()))

    def close(self) -> None:
        """Takes no more; the listener is the caller's."""
        self._loop.remove_reader(self._listener)
        if self._retry:
            self._retry.cancel()
        while self._spare:
            os.close(self._spare.pop())

    def _begin(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_A_TIME):
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._fail(error)
                return
            sock.setblocking(False)
            task = self._loop.create_task(self.connect(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def connect(self, sock: socket.socket) -> None:
        """One that came."""
        try:
            await self._loop.connect_accepted_socket(self._make, sock)
        except OSError:  # it has gone already
            sock.close()

    def _fail(self, error: OSError) -> None:
        """A spare one at once for who waits; else when somebody has made room."""
        self._failures += 1
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            _log.error(
                "connections can't be accepted",
                port=self._key,
                reason=error.strerror,
                times=self._failures,
                connections=len(self._crowd),
            )
            self._told, self._failures = now, 0
        if self._spare:
            os.close(self._spare.pop())
            return
        self._crowd.make_room()
        self._loop.remove_reader(self._listener)
        self._retry = self._loop.call_later(RETRY_SECONDS, self._begin)
