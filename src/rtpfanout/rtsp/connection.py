"""One TCP connection: what it may send and how fast, and what it has to read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from rtpfanout.crowd import Claim, origin_of
from rtpfanout.listening import from_sockaddr
from rtpfanout.rtsp import times
from rtpfanout.rtsp.conversation import Client, Conversation
from rtpfanout.rtsp.credentials import names_of
from rtpfanout.rtsp.outlet import MOST_QUEUES, QUEUE_BYTES
from rtpfanout.rtsp.wire import MOST_AHEAD_BYTES, Frame, Reader, RefusedRequest, Request, response
from rtpfanout.seldom import Bucket

if TYPE_CHECKING:
    from rtpfanout.crowd import Connection as Newcomer
    from rtpfanout.crowd import Crowd
    from rtpfanout.rtsp.playback import Track
    from rtpfanout.rtsp.stage import Stage

REQUESTS_PER_SECOND = 10
REQUESTS_AT_ONCE = 20
"""More than that wait, and what is behind them is not read."""
REPORTS_PER_SECOND = 20
FRAMES_PER_SECOND = 200
FRAMES_AT_ONCE = 400
"""The same of interleaved frames, whatever is in them: each takes the event loop's time."""
_REST_SECONDS = 0.1
UNSENT_BYTES = 256 * 1024
"""That the kernel takes beyond what is on its way: what is older than that helps no viewer."""
_TCP_USER_TIMEOUT_MS = 30_000


class Connection(asyncio.Protocol):
    """Told apart from others by `origin`, its network; see Crowd."""

    def __init__(self, stage: Stage, crowd: Crowd, gone: Callable[[Connection], None]) -> None:
        """`gone` is called when it has ended, and its guests are about to be removed."""
        self.origin = ""
        self.conversation: Conversation | None = None
        self.arrival: Newcomer | None = None
        """What was counted in its place until now, if something was."""
        self._stage = stage
        self._crowd = crowd
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._reader = Reader()
        self._task: asyncio.Task[None] | None = None
        self._requests = Bucket(REQUESTS_PER_SECOND, REQUESTS_AT_ONCE)
        self._reports = Bucket(REPORTS_PER_SECOND, REPORTS_PER_SECOND)
        self._frames = Bucket(FRAMES_PER_SECOND, FRAMES_AT_ONCE)
        self._is_resting = False
        self._has_asked = False
        self._deadline = self._loop.time() + times.FIRST_SECONDS
        self._transport: asyncio.Transport | None = None

    @property
    def claim(self) -> Claim:
        """To stay when others come."""
        if not self._has_asked:
            return Claim.NEVER_ASKED
        return Claim.BEING_ANSWERED if self._plays else Claim.IDLE

    @property
    def is_late(self) -> bool:
        """It asks for nothing, and plays nothing."""
        return self._loop.time() > self._deadline and not self._plays and self._task is None

    @property
    def _plays(self) -> bool:
        playback = self.conversation and self.conversation.playback
        return bool(playback and playback.is_playing)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol, as for all of them."""
        self._transport = transport
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.origin = origin_of(peer)
        if self.arrival:
            self._crowd.gone(self.arrival)  # else it would have to make room for itself
        self._crowd.came(self)
        if not peer or transport.is_closing():  # it has gone, or had to make room
            transport.abort()
            return
        _set_options(transport.get_extra_info("socket"))
        transport.set_write_buffer_limits(high=QUEUE_BYTES, low=QUEUE_BYTES // 2)
        names = names_of(transport.get_extra_info("peercert"))
        client = Client(from_sockaddr(peer), from_sockaddr(local), names, self._take)
        self.conversation = Conversation(self._stage, client)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._crowd.gone(self)
        self._transport = None
        self._gone(self)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._pump()

    def pause_writing(self) -> None:
        """It does not read: its requests have no answers either."""

    def resume_writing(self) -> None:
        self._pump()

    def end(self) -> None:
        """At once, and without a word."""
        if self._transport:
            self._transport.abort()

    def _pump(self) -> None:
        """On with what came, up to the next request."""
        transport = self._transport
        while transport and self._task is None and self.conversation and not self._is_resting:
            if transport.get_write_buffer_size() >= MOST_QUEUES * QUEUE_BYTES:
                break
            try:
                found = self._reader.next()
            except RefusedRequest as error:
                self._refuse(error)
                return
            if found is None:
                break
            if isinstance(found, Frame):
                self._report(found)
                self._rest_after_frames()
            else:
                self._has_asked = True
                self._task = self._loop.create_task(self._answer(found, self.conversation))
        self._read_on()

    def _rest_after_frames(self) -> None:
        """Where there were too many of late."""
        if not self._frames.take(self._loop.time()):
            self._is_resting = True
            self._loop.call_later(_REST_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._is_resting = False
        self._pump()

    def _read_on(self) -> None:
        """Or not, while more is there than has to be kept."""
        transport = self._transport
        if transport and not transport.is_closing():
            if self._is_resting or len(self._reader) > MOST_AHEAD_BYTES:
                transport.pause_reading()
            elif not transport.is_reading():
                transport.resume_reading()

    async def _answer(self, request: Request, conversation: Conversation) -> None:
        try:
            if not self._requests.take(self._loop.time()):
                await asyncio.sleep(1 / REQUESTS_PER_SECOND)
            answer = await conversation.answer(request)
            if self._transport:
                self._transport.write(answer)
        finally:
            self._task = None
            self._deadline = self._loop.time() + times.IDLE_SECONDS
            self._pump()

    def _refuse(self, error: RefusedRequest) -> None:
        """What came is no request, so nobody knows where the next one would begin."""
        self._stage.requests["other", str(error.status)] += 1
        if self._transport:
            self._transport.write(response(error.status, "0", {}, b"", error.sentence))
            self._transport.close()

    def _report(self, frame: Frame) -> None:
        """RTCP of a client that has its packets by this connection."""
        playback = self.conversation.playback if self.conversation else None
        track = playback.by_channel(frame.channel) if playback else None
        if playback and track and track.relay and self._reports.take(self._loop.time()):
            playback.alive_at = self._loop.time()
            track.relay.send_rtcp(frame.data)

    def _take(self, track: Track, packets: list[bytes]) -> None:
        """Packets for the client, as far as it reads."""
        playback = self.conversation.playback if self.conversation else None
        transport = self._transport
        if not (playback and playback.is_playing and transport and track.outlet):
            return
        queued = transport.get_write_buffer_size()
        if queued == 0:  # it has taken, or has room for, what came before
            playback.alive_at = self._loop.time()
        if data := track.outlet.write(packets, queued):
            transport.write(data)


def _set_options(sock: socket.socket) -> None:
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
