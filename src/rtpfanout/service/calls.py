"""The calls of session.proto: decode, ask the SessionManager, encode."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import structlog
from google.protobuf import empty_pb2
from grpc_status import rpc_status

from rtpfanout import convert
from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.errors import RtpFanoutError

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable

    from google.rpc import status_pb2

    from rtpfanout.sessions import SessionManager

    Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = session_pb2.DESCRIPTOR.services_by_name["SessionService"]

_log = structlog.stdlib.get_logger(__name__)
_Servicer = TypeVar("_Servicer", bound="SessionServicer")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def _call(
    handler: Callable[[_Servicer, _Request], Awaitable[_Response]],
) -> Callable[[_Servicer, _Request, Context], Awaitable[_Response]]:
    """Counts the call by its outcome and turns what the handler raises into a status."""
    method = handler.__name__

    @functools.wraps(handler)
    async def call(self: _Servicer, request: _Request, context: Context) -> _Response:
        try:
            response = await handler(self, request)
        except asyncio.CancelledError:
            self.requests[method, grpc.StatusCode.CANCELLED.name] += 1
            raise
        except RtpFanoutError as error:
            status = convert.error_status(error)
        except Exception:
            _log.exception("call failed", method=method)
            status = convert.internal_status()
        else:
            self.requests[method, grpc.StatusCode.OK.name] += 1
            return response
        self.requests[method, _code_name(status)] += 1
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort_with_status returned")

    return call


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """The calls of session.proto. `requests` counts them by (method, status code)."""

    def __init__(self, manager: SessionManager, requests: Counter[tuple[str, str]]) -> None:
        self.manager = manager
        self.requests = requests
        for method in SERVICE.methods:
            requests[method.name, grpc.StatusCode.OK.name] += 0

    @_call
    async def CreateSession(  # noqa: N802
        self, request: session_pb2.CreateSessionRequest
    ) -> session_pb2.SessionResponse:
        """See session.proto, as for all of them."""
        view = self.manager.create(request.source_address, request.ssrc, request.media_type)
        return convert.session_response(view)

    @_call
    async def GetSession(  # noqa: N802
        self, request: session_pb2.GetSessionRequest
    ) -> session_pb2.SessionResponse:
        return convert.session_response(self.manager.get(request.session_id))

    @_call
    async def DeleteSession(  # noqa: N802
        self, request: session_pb2.DeleteSessionRequest
    ) -> empty_pb2.Empty:
        # In a thread, as RemoveSubscriber: it waits until the packet loop has let go.
        await asyncio.to_thread(self.manager.delete, request.session_id)
        return empty_pb2.Empty()

    @_call
    async def ListSessions(  # noqa: N802
        self, request: session_pb2.ListSessionsRequest
    ) -> session_pb2.ListSessionsResponse:
        views, next_cursor = self.manager.list_page(request.limit, request.cursor)
        return session_pb2.ListSessionsResponse(
            sessions=map(convert.session_response, views), next_cursor=next_cursor
        )

    @_call
    async def AddSubscriber(  # noqa: N802
        self, request: session_pb2.AddSubscriberRequest
    ) -> empty_pb2.Empty:
        self.manager.add_subscriber(request.session_id, request.subscriber_address)
        return empty_pb2.Empty()

    @_call
    async def RemoveSubscriber(  # noqa: N802
        self, request: session_pb2.RemoveSubscriberRequest
    ) -> empty_pb2.Empty:
        await asyncio.to_thread(
            self.manager.remove_subscriber, request.session_id, request.subscriber_address
        )
        return empty_pb2.Empty()

    @_call
    async def GetSessionStats(  # noqa: N802
        self, request: session_pb2.GetSessionStatsRequest
    ) -> session_pb2.SessionStatsResponse:
        stats = self.manager.stats(request.session_id)
        return convert.session_stats_response(stats, self.manager.latency(request.session_id))

    @_call
    async def BatchAddSubscribers(  # noqa: N802
        self, request: session_pb2.BatchAddSubscribersRequest
    ) -> session_pb2.BatchAddSubscribersResponse:
        addresses = request.subscriber_addresses
        added = self.manager.add_subscribers(request.session_id, addresses)
        return session_pb2.BatchAddSubscribersResponse(
            added=added, already_present=len(addresses) - added
        )

    @_call
    async def BatchRemoveSubscribers(  # noqa: N802
        self, request: session_pb2.BatchRemoveSubscribersRequest
    ) -> session_pb2.BatchRemoveSubscribersResponse:
        addresses = request.subscriber_addresses
        not_found = await asyncio.to_thread(
            self.manager.remove_subscribers, request.session_id, addresses
        )
        return session_pb2.BatchRemoveSubscribersResponse(
            removed=len(addresses) - len(not_found), not_found=not_found
        )

    @_call
    async def ListSubscribers(  # noqa: N802
        self, request: session_pb2.ListSubscribersRequest
    ) -> session_pb2.ListSubscribersResponse:
        views, next_cursor = self.manager.list_subscribers(
            request.session_id, request.limit, request.cursor
        )
        return session_pb2.ListSubscribersResponse(
            subscribers=map(convert.subscriber_response, views), next_cursor=next_cursor
        )


def _code_name(status: status_pb2.Status) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == status.code)
