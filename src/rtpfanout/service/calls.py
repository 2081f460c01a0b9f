"""The calls of session.proto: decode, ask the SessionManager, encode."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import structlog
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from grpc_status import rpc_status

from rtpfanout import convert
from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc
from rtpfanout.auth import Access, Caller, confine
from rtpfanout.errors import RtpFanoutError
from rtpfanout.service.audit import Audit, AuditLog
from rtpfanout.service.top import Top
from rtpfanout.service.turns import Turns
from rtpfanout.sessions import SCOPE, Begin, Wanted, description, watch, watch_events

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from google.rpc import status_pb2

    from rtpfanout.auth import Identity
    from rtpfanout.service.turns import Streams
    from rtpfanout.sessions import SessionManager

    Context = grpc.aio.ServicerContext[Any, Any]

HEARTBEAT_SECONDS = 10.0
"""Of a watch, at the latest."""
CHANGING_THREADS = 16
"""Calls that wait for the store at a time: it writes together what comes together. More of them
gain nothing (8 clients, 6,400 AddSubscriber in 10.5 s with 8, 16 and 32), and all wake when it has
written: then the event loop waits for the interpreter."""
SERVICE = pb.DESCRIPTOR.services_by_name["SessionService"]

_log = structlog.stdlib.get_logger(__name__)
_CONNECTION = contextvars.ContextVar("_CONNECTION", default="")
"""Of this call, as gRPC names it."""
_Servicer = TypeVar("_Servicer", bound="SessionServicer")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Result = TypeVar("_Result")


def _call(
    handler: Callable[[_Servicer, _Request], Awaitable[_Response]],
) -> Callable[[_Servicer, _Request, Context], Awaitable[_Response]]:
    """Lets in who may call, counts the call by its outcome, and turns errors into a status."""
    method = handler.__name__

    @functools.wraps(handler)
    async def call(self: _Servicer, request: _Request, context: Context) -> _Response:
        audit = self.audits.begin(method, context.peer(), request)
        _CONNECTION.set(context.peer())
        try:
            self.admit(method, request, context, audit)
            response = await handler(self, request)
        except asyncio.CancelledError:
            self.ended(method, grpc.StatusCode.CANCELLED.name, audit)
            raise
        except Exception as error:
            await self.abort(method, error, context, audit)
            raise AssertionError("abort_with_status returned") from None
        self.ended(method, grpc.StatusCode.OK.name, audit, response)
        return response

    return call


def _stream(
    handler: Callable[[_Servicer, _Request], AsyncGenerator[_Response]],
) -> Callable[[_Servicer, _Request, Context], AsyncIterator[_Response]]:
    """The same for a call that answers with a stream, counted when it ends."""
    method = handler.__name__

    @functools.wraps(handler)
    async def call(
        self: _Servicer, request: _Request, context: Context
    ) -> AsyncIterator[_Response]:
        try:
            identity = self.admit(method, request, context)
            with self.streams.one_more(context.peer()):
                async with contextlib.aclosing(handler(self, request)) as responses:
                    async for response in responses:
                        self.access.recheck(identity)
                        yield response
        except (asyncio.CancelledError, GeneratorExit):
            self.ended(method, grpc.StatusCode.CANCELLED.name)
            raise
        except Exception as error:
            await self.abort(method, error, context)
        else:
            self.ended(method, grpc.StatusCode.OK.name)

    return call


class SessionServicer(session_pb2_grpc.SessionServiceServicer):
    """The calls of session.proto. `requests` counts them by (method, status code).

    Calls that change something wait for the store and for the packet path, so they are made
    in threads; the others answer at once.
    """

    def __init__(
        self,
        manager: SessionManager,
        requests: Counter[tuple[str, str]],
        access: Access,
        streams: Streams,
        called: Callable[[str], None],
    ) -> None:
        """`called` is told the connection, as gRPC names it, of a call that is let in."""
        self.manager = manager
        self.access = access
        self.requests = requests
        self.streams = streams
        self.called = called
        self.audits = AuditLog()
        self._stopping = asyncio.Event()
        self._changing = ThreadPoolExecutor(CHANGING_THREADS, "control")
        # Apart, so that whoever lists without end keeps no other thread busy.
        self._looking = ThreadPoolExecutor(1, "reach")
        self._turns = Turns(CHANGING_THREADS)
        for method in SERVICE.methods:
            requests[method.name, grpc.StatusCode.OK.name] += 0

    @functools.cached_property
    def _top(self) -> Top:
        """Who takes no such call needs none."""
        return Top(self.manager.overview)

    def admit(
        self, method: str, request: Any, context: Context, audit: Audit | None = None
    ) -> Identity:
        """Raises UnauthenticatedError, PermissionDeniedError; see `auth.confine` and SCOPE."""
        identity = self.access.identify(_caller(context))
        if audit:
            audit.identity = identity
        self.called(context.peer())
        confine(identity, method, request)
        SCOPE.set(identity.scope)  # of this call alone: each has a task of its own
        return identity

    def ended(
        self, method: str, outcome: str, audit: Audit | None = None, response: Any = None
    ) -> None:
        """`outcome` is the name of the status code."""
        self.requests[method, outcome] += 1
        if audit:
            audit.write(outcome, response)

    async def abort(
        self, method: str, error: Exception, context: Context, audit: Audit | None = None
    ) -> None:
        """Tells the caller; what is no error of ours is logged and not told."""
        if isinstance(error, RtpFanoutError):
            status = convert.error_status(error)
        else:
            _log.error("call failed", method=method, exc_info=error)
            status = convert.internal_status()
        self.ended(method, _code_name(status), audit)
        await context.abort_with_status(rpc_status.to_status(status))

    def end_watches(self) -> None:
        """Streams end, as they should before the server stops."""
        self._stopping.set()

    async def _change(self, call: Callable[..., _Result], *args: Any, **options: Any) -> _Result:
        """In a thread, when it is this connection's turn.

        Who gives up meanwhile leaves a thread that goes on: the turn is over when that is done.
        """
        loop = asyncio.get_running_loop()
        await self._turns.take(_CONNECTION.get())

        def over(_future: Future[_Result]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._turns.give)

        bound = functools.partial(contextvars.copy_context().run, call, *args, **options)
        future = self._changing.submit(bound)
        future.add_done_callback(over)
        return await asyncio.wrap_future(future)

    async def _change_subscribers(
        self, call: Callable[..., _Result], request: Any, addresses: str | list[str], **options: Any
    ) -> _Result:
        return await self._change(
            call, request.session_id, addresses, **options, request_id=request.request_id
        )

    @_call
    async def CreateSession(self, request: pb.CreateSessionRequest) -> pb.SessionResponse:
        """See session.proto, as for all of them."""
        view = await self._change(self.manager.create, **_said(request))
        return convert.session_response(view)

    @_call
    async def GetSession(self, request: pb.GetSessionRequest) -> pb.SessionResponse:
        return convert.session_response(self.manager.get(request.session_id))

    @_call
    async def DeleteSession(self, request: pb.DeleteSessionRequest) -> empty_pb2.Empty:
        await self._change(self.manager.delete, request.session_id, request_id=request.request_id)
        return empty_pb2.Empty()

    @_call
    async def UpdateSession(self, request: pb.UpdateSessionRequest) -> pb.SessionResponse:
        view = await self._change(self.manager.update, **_said(request))
        return convert.session_response(view)

    @_call
    async def ListSessions(self, request: pb.ListSessionsRequest) -> pb.ListSessionsResponse:
        views, next_cursor = self.manager.list_page(
            request.limit,
            request.cursor,
            request.label_selector,
            name_prefix=request.name_prefix,
            id_prefix=request.id_prefix,
        )
        return pb.ListSessionsResponse(
            sessions=map(convert.session_response, views), next_cursor=next_cursor
        )

    @_stream
    async def WatchSessions(
        self, request: pb.WatchSessionsRequest
    ) -> AsyncGenerator[pb.SessionEvent]:
        events = watch(
            self.manager.changes,
            self.manager.list_page,
            self._stopping,
            after_revision=request.after_revision,
            label_selector=request.label_selector,
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )
        async for event in events:
            yield convert.session_event(event)

    @_call
    async def TopSessions(self, request: pb.TopSessionsRequest) -> pb.TopSessionsResponse:
        return await self._top.answer(request)

    @_stream
    async def WatchEvents(self, request: pb.WatchEventsRequest) -> AsyncGenerator[pb.Event]:
        after = request.after_sequence if request.HasField("after_sequence") else None
        events = watch_events(
            self.manager.events,
            self._stopping,
            begin=Begin.of(after, request.since),
            wanted=Wanted.of(request.label_selector, request.session, request.kinds),
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )
        async for event in events:
            yield convert.event_message(event)

    @_call
    async def ListKnocks(self, request: pb.ListKnocksRequest) -> pb.ListKnocksResponse:
        found = self.manager.knocks(request.limit)
        return pb.ListKnocksResponse(knocks=[convert.knock_message(knock) for knock in found])

    @_call
    async def IssueJoinToken(self, request: pb.IssueJoinTokenRequest) -> pb.JoinTokenResponse:
        token, expires_at = await self._change(
            self.manager.issue_join_token,
            request.session_id,
            ttl_secs=request.ttl_secs,
            lease_secs=request.lease_secs,
            subscriber_class=request.subscriber_class,
        )
        return pb.JoinTokenResponse(token=token, expires_at=convert.rfc3339(expires_at))

    @_call
    async def AddSubscriber(self, request: pb.AddSubscriberRequest) -> empty_pb2.Empty:
        await self._change_subscribers(
            self.manager.add_subscriber, request, request.subscriber_address, **_terms(request)
        )
        return empty_pb2.Empty()

    @_call
    async def RemoveSubscriber(self, request: pb.RemoveSubscriberRequest) -> empty_pb2.Empty:
        await self._change_subscribers(
            self.manager.remove_subscriber, request, request.subscriber_address
        )
        return empty_pb2.Empty()

    @_call
    async def GetSessionStats(self, request: pb.GetSessionStatsRequest) -> pb.SessionStatsResponse:
        return convert.session_stats_response(self.manager.stats(request.session_id))

    @_call
    async def GetSubscriberSdp(
        self, request: pb.GetSubscriberSdpRequest
    ) -> pb.GetSubscriberSdpResponse:
        parts = [(request.session_id, request.subscriber_address)]
        parts += [(part.session_id, part.subscriber_address) for part in request.others]
        found = await description(
            lambda: self.manager.describing.describe(parts), request.wait_secs
        )
        return pb.GetSubscriberSdpResponse(sdp=found.text, notes=found.notes)

    @_call
    async def RequestKeyframe(self, request: pb.RequestKeyframeRequest) -> empty_pb2.Empty:
        self.manager.request_keyframe(request.session_id)
        return empty_pb2.Empty()

    @_call
    async def BatchAddSubscribers(
        self, request: pb.BatchAddSubscribersRequest
    ) -> pb.BatchAddSubscribersResponse:
        addresses = list(request.subscriber_addresses)
        added = await self._change_subscribers(
            self.manager.add_subscribers, request, addresses, **_terms(request)
        )
        return pb.BatchAddSubscribersResponse(added=added, already_present=len(addresses) - added)

    @_call
    async def BatchRemoveSubscribers(
        self, request: pb.BatchRemoveSubscribersRequest
    ) -> pb.BatchRemoveSubscribersResponse:
        addresses = list(request.subscriber_addresses)
        not_found = await self._change_subscribers(
            self.manager.remove_subscribers, request, addresses
        )
        return pb.BatchRemoveSubscribersResponse(
            removed=len(addresses) - len(not_found), not_found=not_found
        )

    @_call
    async def ListSubscribers(
        self, request: pb.ListSubscribersRequest
    ) -> pb.ListSubscribersResponse:
        views, next_cursor = self.manager.list_subscribers(
            request.session_id, request.limit, request.cursor
        )
        look = functools.partial(
            contextvars.copy_context().run, self.manager.reaching.of, request.session_id, views
        )
        views = await asyncio.get_running_loop().run_in_executor(self._looking, look)
        return pb.ListSubscribersResponse(
            subscribers=map(convert.subscriber_response, views), next_cursor=next_cursor
        )


def _caller(context: Context) -> Caller:
    metadata = context.invocation_metadata() or ()
    shown = context.auth_context()
    names = (*shown.get("x509_common_name", ()), *shown.get("x509_subject_alternative_name", ()))
    has_certificate = "x509_pem_cert" in shown
    return Caller(
        peer=context.peer(),
        # Given twice they are joined, and so no token.
        authorization=", ".join(str(text) for key, text in metadata if key == "authorization"),
        certificate_names=(
            tuple(name.decode(errors="replace") for name in names) if has_certificate else None
        ),
    )


def _said(request: pb.CreateSessionRequest | pb.UpdateSessionRequest) -> dict[str, Any]:
    """By name; of what is `optional` only what is there."""
    return _plain(request) | {"labels": dict(request.labels)}


def _plain(message: Any) -> dict[str, Any]:
    said = {}
    for field in message.DESCRIPTOR.fields:
        if not field.has_presence or message.HasField(field.name):
            value = getattr(message, field.name)
            said[field.name] = _plain(value) if isinstance(value, Message) else value
    return said


def _terms(request: pb.AddSubscriberRequest | pb.BatchAddSubscribersRequest) -> dict[str, Any]:
    """On which an address gets copies."""
    return {
        "ttl_secs": request.ttl_secs,
        "subscriber_class": request.subscriber_class,
        "rtcp": request.rtcp,
    }


def _code_name(status: status_pb2.Status) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == status.code)
