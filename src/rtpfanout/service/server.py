"""The gRPC server around the calls: where it listens, its limits, health and reflection."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from rtpfanout.api import session_pb2_grpc
from rtpfanout.crowd import Crowd
from rtpfanout.descriptors import shares
from rtpfanout.service.calls import SERVICE, SessionServicer
from rtpfanout.service.standard import HealthServicer, ReflectionServicer
from rtpfanout.service.turns import CALLS_PER_CONNECTION, Streams
from rtpfanout.service.warden import Warden

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from rtpfanout.auth import Access
    from rtpfanout.sessions import SessionManager

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # Two servers on one port would each get some of the calls.
    ("grpc.so_reuseport", 0),
    # The largest request, a batch of 1000 addresses, is 66 KB; room for being told of the limit.
    # The largest answer is a page of 1000 sessions.
    ("grpc.max_receive_message_length", 256 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
    ("grpc.max_metadata_size", 16 * 1024),
    # What is told to clients, who keep their other calls back. To refuse what is sent all the
    # same, because here a stream still counts that there has ended, makes calls fail: the server
    # does so unless told not to.
    ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION),
    ("grpc.http.overload_protection", 0),
    # By default calls fail at random when 1,000 wait. Connections and their streams are bounded.
    ("grpc.server.max_pending_requests", 1_000_000),
    ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
    # Who connects and says nothing, or never ends its TLS handshake.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Who has no call for so long is let go; its channel connects again for the next one.
    ("grpc.max_connection_idle_ms", 600_000),
    # A peer that vanished without a word is noticed within 80 seconds, even between calls. The
    # first time-out is TCP's; one that hangs while its kernel lives would have a minute more.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Who was let in has to show its credentials again after an hour.
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)


class ControlServer:
    """The gRPC server: SessionService, health checking (grpc.health.v1) and reflection.

    Health is SERVING, for "" and for the service, from `start` until `drain`. There is no
    reflection where callers have to show who they are, since it couldn't ask them.
    """

    def __init__(
        self,
        manager: SessionManager,
        requests: Counter[tuple[str, str]],
        access: Access,
        ended: Counter[str],
    ) -> None:
        """`ended` counts connections that had to make room."""
        connections = shares().api
        most = ("grpc.max_allowed_incoming_connections", connections)
        self._server = grpc.aio.server(options=(*SERVER_OPTIONS, most))
        self._local: tuple[Path, tuple[int, int]] | None = None
        streams = Streams()
        self._health = HealthServicer(streams)
        self._warden = Warden(Crowd(connections * 3 // 4, lambda: ended.update(["api_crowded"])))
        self._servicer = SessionServicer(manager, requests, access, streams, self._warden.called)
        session_pb2_grpc.add_SessionServiceServicer_to_server(  # type: ignore[no-untyped-call]
            self._servicer, self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if access.is_open:
            names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]
                ReflectionServicer(names, streams), self._server
            )

    def listen(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Binds "ip:port", with TLS if there are credentials; the port. Raises RuntimeError."""
        if credentials is None:
            port = int(self._server.add_insecure_port(address))
        else:
            port = int(self._server.add_secure_port(address, credentials))
        self._warden.port = port
        return port

    def listen_local(self, path: Path) -> None:
        """Binds a Unix socket that its owner and group can open, in place of one that a server
        left behind; nothing else that is there is touched. Raises RuntimeError, OSError."""
        _make_room(path)
        # Not by chmod afterwards: nobody else may get in before it.
        umask = os.umask(0o117)
        try:
            self._server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(umask)
        self._local = path, _identity(path)

    async def start(self) -> None:
        """Answers calls from here on."""
        await self._server.start()
        self._warden.start()
        serving = health_pb2.HealthCheckResponse.SERVING
        await self._health.set("", serving)
        await self._health.set(SERVICE.full_name, serving)

    async def drain(self) -> None:
        """Tells those who watch our health that we are about to go; other watches end."""
        await self._health.enter_graceful_shutdown()
        self._servicer.end_watches()

    async def stop(self, grace: float) -> None:
        """Takes no new call, and ends those that run after `grace` seconds."""
        self._warden.stop()
        await self._server.stop(grace)
        if self._local:
            path, identity = self._local
            with contextlib.suppress(OSError):
                if _identity(path) == identity:  # and not that of a server that came after us
                    path.unlink()


def _make_room(path: Path) -> None:
    """Removes a Unix socket that nobody listens on. Raises OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "there is something else than a socket; move it away")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(str(path))
    if code != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, "another server listens on this socket; stop it first")
    path.unlink()


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
