"""A real gRPC server that answers the calls of session.proto as a test tells it to."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import any_pb2, duration_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rtpfanout.api import session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

Event = session_pb2.SessionEvent


def failure(code: grpc.StatusCode, message: str, *details: Any) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def unavailable(retry_after: float | None = None) -> status_pb2.Status:
    if retry_after is None:
        return failure(grpc.StatusCode.UNAVAILABLE, "on the way")
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(round(retry_after * 1e9))
    info = error_details_pb2.RetryInfo(retry_delay=delay)
    return failure(grpc.StatusCode.UNAVAILABLE, "too busy", info)


class Script(session_pb2_grpc.SessionServiceServicer):
    """Each call fails with the next of `failures` while there are some, else is answered.

    Each watch gets the next of `streams`: events, then the end, or the failure
    that stands last; None: silence until the call is over. `release` ends the silence.
    """

    def __init__(self) -> None:
        self.failures: list[status_pb2.Status] = []
        self.streams: list[list[Any]] = []
        self.requests: list[Any] = []
        self.names: list[str] = []
        self.release = threading.Event()

    def _note(self, name: str, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.names.append(name)
        if self.failures:
            context.abort_with_status(rpc_status.to_status(self.failures.pop(0)))

    def WatchSessions(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        return self._watch("WatchSessions", request, context)

    def WatchEvents(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        return self._watch("WatchEvents", request, context)

    def _watch(self, name: str, request: Any, context: Any) -> Iterator[Any]:
        self._note(name, request, context)
        for step in self.streams.pop(0):
            if isinstance(step, status_pb2.Status):
                context.abort_with_status(rpc_status.to_status(step))
            elif step is None:
                while context.is_active() and not self.release.wait(0.02):
                    pass
            else:
                yield step


def _answering(name: str, response: Any) -> Any:
    def call(self: Script, request: Any, context: Any) -> Any:
        self._note(name, request, context)
        return response

    return call


for _name, _response in {
    "CreateSession": session_pb2.SessionResponse(session_id="created"),
    "GetSession": session_pb2.SessionResponse(session_id="got"),
    "UpdateSession": session_pb2.SessionResponse(session_id="updated"),
    "DeleteSession": empty_pb2.Empty(),
    "ListSessions": session_pb2.ListSessionsResponse(
        sessions=[session_pb2.SessionResponse(session_id="listed")]
    ),
    "AddSubscriber": empty_pb2.Empty(),
    "RemoveSubscriber": empty_pb2.Empty(),
    "BatchAddSubscribers": session_pb2.BatchAddSubscribersResponse(added=1),
    "BatchRemoveSubscribers": session_pb2.BatchRemoveSubscribersResponse(removed=1),
    "GetSubscriberSdp": session_pb2.GetSubscriberSdpResponse(sdp="v=0"),
    "ListSubscribers": session_pb2.ListSubscribersResponse(
        subscribers=[session_pb2.SubscriberResponse(subscriber_address="listed")]
    ),
    "GetSessionStats": session_pb2.SessionStatsResponse(packets_received=2**63),
    "TopSessions": session_pb2.TopSessionsResponse(total=7),
    "ListKnocks": session_pb2.ListKnocksResponse(knocks=[session_pb2.Knock(ssrc=7)]),
    "RequestKeyframe": empty_pb2.Empty(),
    "IssueJoinToken": session_pb2.JoinTokenResponse(token="a.b"),  # noqa: S106
}.items():
    setattr(Script, _name, _answering(_name, _response))


@contextmanager
def serving(
    script: session_pb2_grpc.SessionServiceServicer, address: str = "127.0.0.1:0"
) -> Iterator[str]:
    """The address of a server of `script`; `address`: where it is to listen."""
    server = grpc.server(ThreadPoolExecutor(4))
    session_pb2_grpc.add_SessionServiceServicer_to_server(script, server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        if isinstance(script, Script):
            script.release.set()
        server.stop(None).wait()


@contextmanager
def refusing(servicer: session_pb2_grpc.SessionServiceServicer, streams: int) -> Iterator[str]:
    """The address of an asyncio server that refuses more than so many calls of a connection,
    as gRPC's do by default."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=[("grpc.max_concurrent_streams", streams)])
        session_pb2_grpc.add_SessionServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def session_event(
    kind: Event.Type, session_id: str = "", revision: int = 0, **fields: Any
) -> session_pb2.SessionEvent:
    """An event about a session, or about none."""
    session = session_pb2.SessionResponse(session_id=session_id, **fields) if session_id else None
    return Event(type=kind, revision=revision, session=session)
