"""The RTSP door: takes connections, looks after them, ends them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import structlog

from rtpfanout.acceptor import Acceptor
from rtpfanout.crowd import Crowd
from rtpfanout.rtsp import times
from rtpfanout.rtsp.arrivals import Certificates, TlsAcceptor
from rtpfanout.rtsp.connection import Connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rtpfanout.rtsp.conversation import Conversation
    from rtpfanout.rtsp.playback import Playback
    from rtpfanout.rtsp.stage import Stage

_log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS = 1.0
STOP_SECONDS = 0.25
"""Until what has to be removed is; its leases end in any case."""


class Door:
    """From `start` to `stop`, in the running event loop."""

    def __init__(
        self,
        stage: Stage,
        listener: socket.socket,
        most: int,
        ended: Callable[[str], None],
        certificates: Certificates | None = None,
        *,
        takes_plain: bool = True,
    ) -> None:
        """`most` connections. `ended` is told why one was: crowded, or late. `listener` is ours.
        `takes_plain`: without TLS, too, where there are `certificates`."""
        self.stage = stage
        self._listener = listener
        self._ended = ended
        self._certificates = certificates
        self._takes_plain = takes_plain
        self._crowd = Crowd(most, lambda: ended("crowded"))
        self._connections: set[Connection] = set()
        self._acceptor: Acceptor | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """That are open."""
        return len(self._connections)

    @property
    def dropped(self) -> tuple[int, int]:
        """Frames and packets that slow clients were not sent."""
        now = [playback.dropped for playback in self._playbacks()]
        frames = self.stage.ended_dropped_frames + sum(each.frames for each in now)
        packets = self.stage.ended_dropped_packets + sum(each.packets for each in now)
        return frames, packets

    def start(self) -> None:
        """Takes connections from here on."""
        what = self._listener, self._crowd, self._connection, "rtsp_bind_address"
        if self._certificates:
            certificates, plain = self._certificates, self._takes_plain
            self._acceptor = TlsAcceptor(*what, certificates, takes_plain=plain)
        else:
            self._acceptor = Acceptor(*what)
        self._looking = asyncio.create_task(self._look_again_and_again())

    async def stop(self) -> None:
        """For good; twice does no harm."""
        if self._acceptor:
            self._acceptor.close()
        self._listener.close()
        if self._looking:
            self._looking.cancel()
        self._end(list(self._connections), "stopping")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        self.stage.close()

    async def look(self) -> None:
        """At all playbacks: the rules may be others."""
        await self._look_at([p for p in self._playbacks() if p.is_playing])

    def _connection(self) -> Connection:
        connection = Connection(self.stage, self._crowd, self._gone)
        self._connections.add(connection)
        return connection

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection.conversation:
            self._begin(connection.conversation, "connection")

    def _begin(self, conversation: Conversation, reason: str) -> None:
        task = asyncio.create_task(conversation.end(reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self, connections: list[Connection], reason: str) -> None:
        for connection in connections:
            if connection.conversation:
                self._begin(connection.conversation, reason)
            connection.end()

    def _playbacks(self) -> list[Playback]:
        found = (connection.conversation for connection in self._connections)
        return [each.playback for each in found if each and each.playback]

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._acceptor:
                self._acceptor.keep_spare()
            for connection in list(self._connections):
                if connection.is_late:
                    self._ended("late")
                    connection.end()
            try:
                await self._look_at(self._due())
            except Exception:  # leases would end that should not
                _log.exception("playing is not looked after")

    def _due(self) -> list[Playback]:
        now = time.monotonic()
        return [
            playback
            for playback in self._playbacks()
            if playback.is_playing and now - playback.looked_at >= times.RENEW_SECONDS
        ]

    async def _look_at(self, playbacks: list[Playback]) -> None:
        for playback in playbacks:
            playback.looked_at = time.monotonic()
        if not playbacks:
            return
        over = dict(await self.stage.work(self.stage.look, playbacks))
        for connection in list(self._connections):
            found = connection.conversation and connection.conversation.playback
            if found and (reason := over.get(found)):
                self._end([connection], reason)
