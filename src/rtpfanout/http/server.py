"""uvicorn as a guest of our event loop, with connections that can't last for nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rtpfanout.acceptor import Acceptor
from rtpfanout.crowd import Claim, Crowd, origin_of

if TYPE_CHECKING:
    import asyncio
    import socket

    from starlette.types import ASGIApp

REQUEST_SECONDS = 5.0
"""From the connection, or from the answer before, until a request is whole."""
ANSWER_SECONDS = 30.0
"""Until the answer is with who asked."""
MOST_BYTES_AHEAD = 16 * 1024
"""Of a request, and of further ones that are sent before its answer."""
_TICKS = 10
"""uvicorn's, in a second."""


class HttpServer(uvicorn.Server):
    """Signals and logging are the host's business."""

    def __init__(
        self,
        app: ASGIApp,
        connections: int,
        ended: Callable[[str], None],
        closing: Callable[[], None] = lambda: None,
    ) -> None:
        """`connections`: as many there may be. `ended` is told why one was: crowded, or late.
        `closing` ends answers that would go on, before the others are waited for."""
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",  # the one that leaves requests that are sent ahead where they are
                ws="none",
                log_config=None,
                # Its warnings are about what strangers send, a line or two for each request.
                log_level="error",
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=1,
                h11_max_incomplete_event_size=MOST_BYTES_AHEAD,
            )
        )
        self._ended = ended
        self._closing = closing
        self._crowd = Crowd(connections, lambda: ended("crowded"))
        self._acceptor: Acceptor | None = None

    async def serve_on(self, listener: socket.socket) -> None:
        """Serves until `should_exit` is set, then closes `listener`."""
        await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """In place of uvicorn's, which has asyncio accept the connections."""
        (listener,) = sockets or []
        self.servers = []
        self._acceptor = Acceptor(listener, self._crowd, self._connection, "metrics_bind_address")
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        if self._acceptor:
            self._acceptor.close()
        self._closing()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; once, who is over his time is sent away."""
        if counter % _TICKS == 0:
            if self._acceptor:
                self._acceptor.keep_spare()
            for connection in list(self.server_state.connections):
                if isinstance(connection, HttpConnection):
                    self._end_if_late(connection)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves SIGTERM and SIGINT alone."""
        yield

    def _end_if_late(self, connection: HttpConnection) -> None:
        if connection.is_late:
            self._ended("late")
            connection.end()

    def _connection(self) -> HttpConnection:
        return HttpConnection(self.config, self.server_state, {}, self._crowd)


class HttpConnection(H11Protocol):
    """One with a deadline for whatever comes next."""

    def __init__(
        self, config: uvicorn.Config, state: Any, app_state: dict[str, Any], crowd: Crowd
    ) -> None:
        super().__init__(config, state, app_state)
        self.origin = ""
        self._crowd = crowd
        self._deadline = self.loop.time() + REQUEST_SECONDS

    @property
    def claim(self) -> Claim:
        """To stay when others come."""
        if self.cycle is None:
            return Claim.NEVER_ASKED
        return Claim.IDLE if self.cycle.response_complete else Claim.BEING_ANSWERED

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol, as for all of them."""
        super().connection_made(transport)
        self.origin = origin_of(transport.get_extra_info("peername"))
        self._crowd.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.gone(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        self._note_request(before)
        if len(self.conn.trailing_data[0]) > MOST_BYTES_AHEAD:
            self.end()

    def on_response_complete(self) -> None:
        """And on with what was sent ahead."""
        before = self.cycle
        self._deadline = self.loop.time() + REQUEST_SECONDS
        super().on_response_complete()
        self._note_request(before)

    def end(self) -> None:
        """At once, and without a word."""
        self.transport.abort()

    @property
    def is_late(self) -> bool:
        """It neither asks nor takes its answer."""
        return self.loop.time() > self._deadline

    def _note_request(self, before: object) -> None:
        if self.cycle is not before:
            self._deadline = self.loop.time() + ANSWER_SECONDS
