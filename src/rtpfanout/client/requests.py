"""Each call of session.proto as a value: method, request, and whether it may be repeated."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from rtpfanout.api import session_pb2
from rtpfanout.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf import empty_pb2
    from google.protobuf.message import Message

PAGE_SIZE = 1000
BATCH_SIZE = 1000
"""The most addresses that one call takes."""

_M = TypeVar("_M", bound="Message")
ResponseT = TypeVar("ResponseT")


class CreateOptions(TypedDict, total=False):
    """What CreateSession takes besides source, SSRC and media type; see session.proto.

    `labels`: at most 16. `ingest_limit_bps`: bits per second. `move_key`: 16 to 64 bytes.
    `request_id`: None makes one; "" sends none, and then the call is not repeated.
    """

    source_policy: str
    latch_window_secs: float
    relatch_after_secs: float
    labels: Mapping[str, str]
    ingest_limit_bps: int
    max_subscribers: int
    consent: str
    move_key: bytes
    request_id: str | None


class UpdateOptions(CreateOptions, total=False):
    """What UpdateSession can change: only what is given is sent, and None is not given.

    A label with an empty value is removed. `if_revision`: AbortedError unless that is
    the session's revision.
    """

    source_address: str | None
    paused: bool | None
    if_revision: int


@dataclass(frozen=True, slots=True)
class Call(Generic[ResponseT]):
    """A request on its way. `repeatable`: carried out twice, it does what once does."""

    method: str
    request: Message
    repeatable: bool = True


def create_session(
    source_address: str, ssrc: int, media_type: str, options: CreateOptions
) -> Call[session_pb2.SessionResponse]:
    if not 0 <= ssrc < 2**32:
        raise InvalidArgumentError(f"{ssrc} is not 0 to {2**32 - 1}", field="ssrc")
    fields: dict[str, Any] = {
        "source_address": source_address,
        "ssrc": ssrc,
        "media_type": media_type,
        **options,
    }
    return _mutating("CreateSession", session_pb2.CreateSessionRequest, fields)


def update_session(session_id: str, options: UpdateOptions) -> Call[session_pb2.SessionResponse]:
    fields: dict[str, Any] = {"session_id": session_id, **options}
    return _mutating("UpdateSession", session_pb2.UpdateSessionRequest, fields)


def get_session(session_id: str) -> Call[session_pb2.SessionResponse]:
    return Call("GetSession", session_pb2.GetSessionRequest(session_id=session_id))


def delete_session(session_id: str, request_id: str | None) -> Call[empty_pb2.Empty]:
    fields = {"session_id": session_id, "request_id": request_id}
    return _mutating("DeleteSession", session_pb2.DeleteSessionRequest, fields)


def list_sessions(
    limit: int, cursor: str, label_selector: str
) -> Call[session_pb2.ListSessionsResponse]:
    fields = {"limit": limit, "cursor": cursor, "label_selector": label_selector}
    return Call("ListSessions", _message(session_pb2.ListSessionsRequest, fields))


def add_subscriber(
    session_id: str,
    address: str,
    ttl_secs: float,
    subscriber_class: str,
    request_id: str | None,
) -> Call[empty_pb2.Empty]:
    fields = {
        "session_id": session_id,
        "subscriber_address": address,
        "ttl_secs": ttl_secs,
        "subscriber_class": subscriber_class,
        "request_id": request_id,
    }
    return _mutating("AddSubscriber", session_pb2.AddSubscriberRequest, fields)


def remove_subscriber(
    session_id: str, address: str, request_id: str | None
) -> Call[empty_pb2.Empty]:
    fields = {"session_id": session_id, "subscriber_address": address, "request_id": request_id}
    return _mutating("RemoveSubscriber", session_pb2.RemoveSubscriberRequest, fields)


def add_subscribers(
    session_id: str,
    addresses: Sequence[str],
    ttl_secs: float,
    subscriber_class: str,
    request_id: str | None,
) -> Call[session_pb2.BatchAddSubscribersResponse]:
    fields = {
        "session_id": session_id,
        "subscriber_addresses": addresses,
        "ttl_secs": ttl_secs,
        "subscriber_class": subscriber_class,
        "request_id": request_id,
    }
    return _mutating("BatchAddSubscribers", session_pb2.BatchAddSubscribersRequest, fields)


def remove_subscribers(
    session_id: str, addresses: Sequence[str], request_id: str | None
) -> Call[session_pb2.BatchRemoveSubscribersResponse]:
    fields = {
        "session_id": session_id,
        "subscriber_addresses": addresses,
        "request_id": request_id,
    }
    return _mutating("BatchRemoveSubscribers", session_pb2.BatchRemoveSubscribersRequest, fields)


def list_subscribers(
    session_id: str, limit: int, cursor: str
) -> Call[session_pb2.ListSubscribersResponse]:
    fields = {"session_id": session_id, "limit": limit, "cursor": cursor}
    return Call("ListSubscribers", _message(session_pb2.ListSubscribersRequest, fields))


def get_session_stats(session_id: str) -> Call[session_pb2.SessionStatsResponse]:
    return Call("GetSessionStats", session_pb2.GetSessionStatsRequest(session_id=session_id))


def issue_join_token(
    session_id: str, ttl_secs: float, lease_secs: float, subscriber_class: str
) -> Call[session_pb2.JoinTokenResponse]:
    # A token that got lost on its way to us harms nobody: issuing is repeatable.
    fields = {
        "session_id": session_id,
        "ttl_secs": ttl_secs,
        "lease_secs": lease_secs,
        "subscriber_class": subscriber_class,
    }
    return Call("IssueJoinToken", _message(session_pb2.IssueJoinTokenRequest, fields))


def _mutating(method: str, kind: type[Message], fields: dict[str, Any]) -> Call[Any]:
    """With a request id the server carries the call out once, however often it comes."""
    request_id = fields.get("request_id")
    if request_id is None:
        request_id = uuid.uuid4().hex
    request = _message(kind, {**fields, "request_id": request_id})
    return Call(method, request, repeatable=bool(request_id))


def _message(kind: type[_M], fields: dict[str, Any]) -> _M:
    """The message; what no message can hold, the server cannot judge: it is refused here."""
    try:
        return kind(**fields)
    except ValueError:
        for name, value in fields.items():
            try:
                kind(**{name: value})
            except ValueError:
                raise InvalidArgumentError(
                    f"{value!r} does not fit this field (see session.proto)", field=name
                ) from None
        raise
