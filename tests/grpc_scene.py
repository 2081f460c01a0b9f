"""A server whose gRPC limits are a test's, and calls on connections of their own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import http2
from support import SETTLE_SECONDS, ServerProcess

from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc
from rtpfanout.service.server import SERVER_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = dict(SERVER_OPTIONS)
WATCH = "/rtpfanout.SessionService/WatchSessions"
Event = pb.SessionEvent
LONELY = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
"""A channel has a connection of its own."""


@contextmanager
def connection(server: ServerProcess) -> Iterator[session_pb2_grpc.SessionServiceStub]:
    """A stub on a connection of its own."""
    with grpc.insecure_channel(str(server.grpc), LONELY) as channel:
        yield session_pb2_grpc.SessionServiceStub(channel)


def peer(server: ServerProcess, **how: bool) -> http2.Peer:
    return http2.Peer(str(server.grpc.ip), server.grpc.port, SETTLE_SECONDS, **how)


def answers(server: ServerProcess) -> None:
    """Who has another connection gets an answer."""
    server.stub.ListSessions(pb.ListSessionsRequest(), timeout=SETTLE_SECONDS)


def create(stub: Any, ssrc: int, **more: Any) -> Any:
    request = pb.CreateSessionRequest(
        source_address="192.0.2.1:5000", ssrc=ssrc, media_type="video", **more
    )
    return stub.CreateSession(request, timeout=SETTLE_SECONDS)


def session_watch(stub: Any) -> Any:
    return stub.WatchSessions(pb.WatchSessionsRequest())
