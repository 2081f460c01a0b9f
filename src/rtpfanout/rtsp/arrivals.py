"""Connections before they are any: whether TLS is spoken, and the handshake.

Both on one port: a TLS record begins with a byte that no request does. With a certificate, who does
not speak TLS is told so, unless the configuration is `insecure`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rtpfanout.acceptor import Acceptor
from rtpfanout.crowd import Claim, Crowd, origin_of
from rtpfanout.filestamp import stamp_of
from rtpfanout.rtsp import times
from rtpfanout.rtsp.wire import response

if TYPE_CHECKING:
    from rtpfanout.config import Settings
    from rtpfanout.rtsp.connection import Connection

_HANDSHAKE = b"\x16"  # RFC 8446 section 5.1
_ONLY_TLS = "this server takes rtsps:// only, as it has a certificate"

_log = structlog.stdlib.get_logger(__name__)


class Certificates:
    """A context of the files of `tls`; a new one when they change."""

    def __init__(self, settings: Settings) -> None:
        """Raises OSError, ValueError."""
        self._tls = settings.tls
        names = (settings.tls.certificate, settings.tls.key, settings.tls.client_ca)
        self._paths = [Path(name) for name in names if name]
        self._stamp: object = None
        self._context: ssl.SSLContext = self._load()

    def context(self) -> ssl.SSLContext:
        """For the next connection; files that can't be used leave it as it was."""
        if self._stamps() != self._stamp:
            try:
                self._context = self._load()
            except (OSError, ValueError) as error:
                reason = str(error)
                _log.warning("certificates not reloaded", port="rtsp_bind_address", reason=reason)
        return self._context

    def _load(self) -> ssl.SSLContext:
        self._stamp = self._stamps()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._tls.certificate, self._tls.key)
        if self._tls.client_ca:
            context.load_verify_locations(self._tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _stamps(self) -> object:
        return tuple(map(stamp_of, self._paths))


class Arrival:
    """A connection that has not said yet what it speaks; counted as others are."""

    claim = Claim.NEVER_ASKED

    def __init__(self, sock: socket.socket, task: asyncio.Task[object]) -> None:
        self.origin = origin_of(_peer(sock))
        self._task = task

    def end(self) -> None:
        """See Crowd."""
        self._task.cancel()


class TlsAcceptor(Acceptor):
    """Accepts for those who speak TLS and, if `takes_plain`, for those who don't."""

    def __init__(
        self,
        listener: socket.socket,
        crowd: Crowd,
        make: Callable[[], Connection],
        key: str,
        certificates: Certificates,
        *,
        takes_plain: bool,
    ) -> None:
        super().__init__(listener, crowd, make, key)
        self._arriving = crowd
        self._makes = make
        self._certificates = certificates
        self._takes_plain = takes_plain

    async def connect(self, sock: socket.socket) -> None:
        task = asyncio.current_task()
        assert task
        arrival = Arrival(sock, task)
        self._arriving.came(arrival)
        try:
            async with asyncio.timeout(times.FIRST_SECONDS):
                await self._connect(sock, arrival)
        except (OSError, asyncio.CancelledError):  # a time-out and TLS's faults are of OSError
            sock.close()
        finally:
            self._arriving.gone(arrival)

    async def _connect(self, sock: socket.socket, arrival: Arrival) -> None:
        loop = asyncio.get_running_loop()

        def make() -> Connection:
            connection = self._makes()
            connection.arrival = arrival
            return connection

        if await _first_byte(loop, sock) == _HANDSHAKE:
            context = self._certificates.context()
            await loop.connect_accepted_socket(make, sock, ssl=context)
        elif self._takes_plain:
            await loop.connect_accepted_socket(make, sock)
        else:
            with contextlib.suppress(OSError):
                sock.recv(65_536)  # else closing would take back what is said now
                sock.send(response(403, "1", {}, b"", _ONLY_TLS))
            sock.close()


async def _first_byte(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """It stays in the socket; empty: the other end has closed."""
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)
    return sock.recv(1, socket.MSG_PEEK)


def _peer(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:
        return None
