"""A small synchronous client of the SessionService (layer 4).

    with SessionClient("127.0.0.1:50051") as client:
        session = client.create_session("192.0.2.7:5000", 0x1234, "video")
        client.add_subscriber(session.session_id, "192.0.2.9:6000")

Every call has a deadline and raises one of `errors.py`; none is retried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
    PermissionDeniedError,
    RtpFanoutError,
    UnimplementedError,
    UnreachableError,
    Violation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

PAGE_SIZE = 1000
BATCH_SIZE = 1000
"""The most addresses that one call takes."""

_ERRORS: dict[grpc.StatusCode, type[RtpFanoutError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgumentError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.UNAUTHENTICATED: PermissionDeniedError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.UNAVAILABLE: UnreachableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnreachableError,
}


class SessionClient:
    """Calls one server. Safe to share between threads; close it, or use `with`.

    `target` is the server's gRPC address, "host:port"; `timeout` is the deadline
    of each call in seconds.
    """

    def __init__(self, target: str, *, timeout: float = 5.0) -> None:
        self.target = target
        self.timeout = timeout
        # The control API is reached directly: a proxy from the environment would
        # be asked for 127.0.0.1 too.
        self._channel = grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)])
        self._stub = session_pb2_grpc.SessionServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all calls and close the connection."""
        self._channel.close()

    def create_session(
        self, source_address: str, ssrc: int, media_type: str
    ) -> session_pb2.SessionResponse:
        """Let `source_address` ("ip:port") feed SSRC `ssrc`, 0 to 2**32 - 1.

        Raises InvalidArgumentError, AlreadyExistsError, LimitError.
        """
        if not 0 <= ssrc < 2**32:  # does not fit the message, so the server cannot judge it
            raise InvalidArgumentError(f"{ssrc} is not 0 to {2**32 - 1}", field="ssrc")
        request = session_pb2.CreateSessionRequest(
            source_address=source_address, ssrc=ssrc, media_type=media_type
        )
        response: session_pb2.SessionResponse = self._call(self._stub.CreateSession, request)
        return response

    def get_session(self, session_id: str) -> session_pb2.SessionResponse:
        """Raises InvalidArgumentError (not a UUID), NotFoundError."""
        request = session_pb2.GetSessionRequest(session_id=session_id)
        response: session_pb2.SessionResponse = self._call(self._stub.GetSession, request)
        return response

    def delete_session(self, session_id: str) -> None:
        """Returns once no further packet of the session leaves. Raises NotFoundError."""
        self._call(
            self._stub.DeleteSession, session_pb2.DeleteSessionRequest(session_id=session_id)
        )

    def list_sessions(self, limit: int = 0, cursor: str = "") -> session_pb2.ListSessionsResponse:
        """One page, oldest first; limit 0 means the server's 100. Raises InvalidArgumentError."""
        request = session_pb2.ListSessionsRequest(limit=limit, cursor=cursor)
        response: session_pb2.ListSessionsResponse = self._call(self._stub.ListSessions, request)
        return response

    def iter_sessions(self, page_size: int = PAGE_SIZE) -> Iterator[session_pb2.SessionResponse]:
        """All sessions, oldest first, one request per page."""
        cursor = ""
        while True:
            page = self.list_sessions(page_size, cursor)
            yield from page.sessions
            cursor = page.next_cursor
            if not cursor:
                return

    def add_subscriber(self, session_id: str, subscriber_address: str) -> None:
        """Copy the session to "ip:port" too; adding it twice is no error.

        Raises InvalidArgumentError, NotFoundError, PermissionDeniedError, LimitError.
        """
        request = session_pb2.AddSubscriberRequest(
            session_id=session_id, subscriber_address=subscriber_address
        )
        self._call(self._stub.AddSubscriber, request)

    def remove_subscriber(self, session_id: str, subscriber_address: str) -> None:
        """Returns once no further packet leaves to "ip:port". Raises NotFoundError."""
        request = session_pb2.RemoveSubscriberRequest(
            session_id=session_id, subscriber_address=subscriber_address
        )
        self._call(self._stub.RemoveSubscriber, request)

    def add_subscribers(
        self, session_id: str, subscriber_addresses: Sequence[str]
    ) -> session_pb2.BatchAddSubscribersResponse:
        """Copy the session to 1 to BATCH_SIZE addresses too: to all of them, or to none.

        The error's `violations` name each address at fault, as ``subscriber_addresses[17]``.
        Raises what add_subscriber does, and UnimplementedError (an older server).
        """
        request = session_pb2.BatchAddSubscribersRequest(
            session_id=session_id, subscriber_addresses=subscriber_addresses
        )
        response: session_pb2.BatchAddSubscribersResponse = self._call(
            self._stub.BatchAddSubscribers, request
        )
        return response

    def remove_subscribers(
        self, session_id: str, subscriber_addresses: Sequence[str]
    ) -> session_pb2.BatchRemoveSubscribersResponse:
        """Returns once no further packet leaves to any of 1 to BATCH_SIZE addresses.

        The response names those that were no subscribers. Raises InvalidArgumentError,
        NotFoundError (no such session), UnimplementedError (an older server).
        """
        request = session_pb2.BatchRemoveSubscribersRequest(
            session_id=session_id, subscriber_addresses=subscriber_addresses
        )
        response: session_pb2.BatchRemoveSubscribersResponse = self._call(
            self._stub.BatchRemoveSubscribers, request
        )
        return response

    def list_subscribers(
        self, session_id: str, limit: int = 0, cursor: str = ""
    ) -> session_pb2.ListSubscribersResponse:
        """One page, oldest first; limit 0 means the server's 100.

        Raises InvalidArgumentError, NotFoundError, UnimplementedError (an older server).
        """
        request = session_pb2.ListSubscribersRequest(
            session_id=session_id, limit=limit, cursor=cursor
        )
        response: session_pb2.ListSubscribersResponse = self._call(
            self._stub.ListSubscribers, request
        )
        return response

    def iter_subscribers(
        self, session_id: str, page_size: int = PAGE_SIZE
    ) -> Iterator[session_pb2.SubscriberResponse]:
        """All subscribers of a session, oldest first, one request per page."""
        cursor = ""
        while True:
            page = self.list_subscribers(session_id, page_size, cursor)
            yield from page.subscribers
            cursor = page.next_cursor
            if not cursor:
                return

    def get_session_stats(self, session_id: str) -> session_pb2.SessionStatsResponse:
        """The session's counters. Raises InvalidArgumentError, NotFoundError."""
        request = session_pb2.GetSessionStatsRequest(session_id=session_id)
        response: session_pb2.SessionStatsResponse = self._call(self._stub.GetSessionStats, request)
        return response

    def _call(self, method: Callable[..., Any], request: object) -> Any:
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._translated(error) from None

    def _translated(self, error: grpc.RpcError) -> RtpFanoutError:
        """The error of `errors.py` that stands for a failed call."""
        assert isinstance(error, grpc.Call)  # what a call raises is the call itself
        kind = _ERRORS.get(error.code(), RtpFanoutError)
        if kind is UnreachableError:
            return UnreachableError(
                f"no answer from {self.target} ({_reason(error.details())}); "
                "check that the server runs and that this is its gRPC address"
            )
        if kind is UnimplementedError:
            return UnimplementedError(
                f"the server at {self.target} is older and does not know this call; upgrade it"
            )
        message = error.details() or ""
        if kind is RtpFanoutError:
            message = f"{error.code().name}: {message}"
        violations = _violations(error, message)
        if len(violations) == 1:
            (violation,) = violations
            return kind(violation.message, field=violation.field or None)
        field = violations[0].field if violations else None
        return kind(message, field=field, violations=violations)


def _violations(call: grpc.Call, message: str) -> tuple[Violation, ...]:
    """The fields at fault, from the details of a failed call's status (google.rpc).

    A BadRequest has its own words about each; else they are `message`.
    """
    try:
        status = rpc_status.from_call(call)
    except ValueError:  # the trailer contradicts the status: do not trust it
        status = None
    bad_request = error_details_pb2.BadRequest()
    quota = error_details_pb2.QuotaFailure()
    info = error_details_pb2.ErrorInfo()
    found: tuple[Violation, ...] = ()
    for detail in status.details if status is not None else ():
        if detail.Unpack(bad_request) and bad_request.field_violations:
            return tuple(
                Violation(violation.field, violation.description or message)
                for violation in bad_request.field_violations
            )
        if detail.Unpack(quota) and quota.violations:
            found = (Violation(quota.violations[0].subject, message),)
        elif detail.Unpack(info) and "field" in info.metadata:
            found = (Violation(info.metadata["field"], message),)
    return found


def _reason(details: str | None) -> str:
    """The system's own words at the end of gRPC's, such as "Connection refused"."""
    return details.splitlines()[0].rpartition(": ")[2] if details else "no reason given"
