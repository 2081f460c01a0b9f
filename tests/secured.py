"""A real server with TLS and tokens, and calls to it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc

from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from pki import Authority
    from support import ServerProcess

    StartServer = Callable[..., ServerProcess]
    MakeSocket = Callable[..., socket.socket]

SERVICE = pb.DESCRIPTOR.services_by_name["SessionService"]
SECONDS = 30
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
DENIED = grpc.StatusCode.PERMISSION_DENIED
SUBSCRIBER = "127.0.0.1:6000"


@contextmanager
def secured(
    address: str, authority: Authority, certificate: tuple[bytes, bytes] | None = None
) -> Iterator[session_pb2_grpc.SessionServiceStub]:
    """A stub on a connection of its own."""
    chain, key = certificate or (None, None)
    credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    with grpc.secure_channel(address, credentials, options) as channel:
        yield session_pb2_grpc.SessionServiceStub(channel)


def request_for(method: str, session_id: str) -> Any:
    """A good request. A new call that needs more than a session id has to be added here."""
    kind = getattr(pb, SERVICE.methods_by_name[method].input_type.name)
    names = set(kind.DESCRIPTOR.fields_by_name)
    values: dict[str, Any] = {"session_id": session_id}
    values["subscriber_address"] = SUBSCRIBER
    values["subscriber_addresses"] = [SUBSCRIBER]
    if method == "CreateSession":
        values |= {"source_address": "127.0.0.1:5001", "ssrc": 2, "media_type": "video"}
    return kind(**{name: value for name, value in values.items() if name in names})


def outcome(
    stub: Any, method: str, request: Any, metadata: Any = None
) -> tuple[grpc.StatusCode, Any]:
    """Code and answer (of a stream the first event), or code and what came with the error."""
    try:
        answer = getattr(stub, method)(request, metadata=metadata, timeout=SECONDS)
        if SERVICE.methods_by_name[method].server_streaming:
            stream, answer = answer, next(answer)
            stream.cancel()
    except grpc.RpcError as error:
        found: Any = error
        trailing = tuple(sorted((k, v) for k, v in found.trailing_metadata() or ()))
        return found.code(), (found.details(), trailing)
    return grpc.StatusCode.OK, answer
