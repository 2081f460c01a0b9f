"""Each call of session.proto as a value: method, request, and whether it may be repeated."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, cast

from rtpfanout.api import session_pb2 as pb
from rtpfanout.errors import InvalidArgumentError, UnimplementedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf import empty_pb2
    from google.protobuf.message import Message

PAGE_SIZE = 1000
BATCH_SIZE = 1000
"""The most addresses that one call takes."""

ResponseT = TypeVar("ResponseT")


class TermOptions(TypedDict, total=False):
    """What a session can be told to be, besides source, SSRC and media type; see session.proto.

    `name`: with one it stays until it is deleted. `idle_timeout_secs`: or without packets; 0: ever.
    `encoding`: the fields of Encoding, or `sdp`, a text that says it; see session.proto.
    `ssrc_policy`: "exact", "follow" or "any"; `latch_scope`: "address" or "ip".
    `labels`: at most 16. `ingest_limit_bps`: bits per second. `move_key`: 16 to 64 bytes.
    `request_id`: None makes one; "" sends none, and then the call is not repeated.
    """

    name: str
    idle_timeout_secs: float | None
    ingest_port: str
    dscp: str
    keyframe_request: str
    repair_source: bool
    report_class: str
    encoding: Mapping[str, Any]
    sdp: str
    source_policy: str
    latch_window_secs: float
    relatch_after_secs: float
    labels: Mapping[str, str]
    ingest_limit_bps: int
    max_subscribers: int
    consent: str
    move_key: bytes
    ssrc_policy: str
    latch_scope: str
    srtp: bool
    check_padding: bool | None
    rtcp_mux: bool | None
    request_id: str | None


class CreateOptions(TermOptions, total=False):
    """What CreateSession takes besides source, SSRC and media type.

    `if_exists`: "return" answers the session that is there, if it is the same.
    """

    if_exists: str


class ListOptions(TypedDict, total=False):
    """Which sessions ListSessions tells; see session.proto."""

    label_selector: str
    name_prefix: str
    id_prefix: str


class TopOptions(TypedDict, total=False):
    """Which sessions TopSessions tells, in which order; see session.proto."""

    label_selector: str
    words: str
    state: str
    order_by: str
    reverse: bool


class EventOptions(TypedDict, total=False):
    """Which events WatchEvents tells; see session.proto.

    `since`: a moment of RFC 3339, where there is no `after_sequence`. `kinds`: such as
    ["silent", "back"]; none: all.
    """

    since: str
    label_selector: str
    session: str
    kinds: Sequence[str]


class UpdateOptions(TermOptions, total=False):
    """What UpdateSession can change: only what is given is sent, and None is not given.

    A label with an empty value is removed. `if_revision`: AbortedError unless that is
    the session's revision.
    """

    source_address: str | None
    ssrc: int | None
    paused: bool | None
    if_revision: int


class SubscribeOptions(TypedDict, total=False):
    """What AddSubscriber and BatchAddSubscribers take besides addresses; see session.proto.

    `ttl_secs`: the subscription ends after so long unless it is added again; 0: never.
    `subscriber_class`: "pilot", "recorder" or "monitor". `rtcp`: "off", "mux" or "next_port".
    `request_id`: as CreateOptions.
    """

    ttl_secs: float
    subscriber_class: str
    rtcp: str
    request_id: str | None


class TokenOptions(TypedDict, total=False):
    """What IssueJoinToken takes besides the session; see session.proto.

    `ttl_secs`: how long the token is good; 0: an hour. `lease_secs`: how long a subscription
    outlives its last sign of life; 0: 30 s.
    """

    ttl_secs: float
    lease_secs: float
    subscriber_class: str


@dataclass(frozen=True, slots=True)
class Call(Generic[ResponseT]):
    """A request on its way. `repeatable`: carried out twice, it does what once does."""

    method: str
    request: Message
    repeatable: bool = True


def create_session(
    source_address: str, ssrc: int, media_type: str, options: CreateOptions
) -> Call[pb.SessionResponse]:
    if not 0 <= ssrc < 2**32:
        raise InvalidArgumentError(f"{ssrc} is not 0 to {2**32 - 1}", field="ssrc")
    named = {"source_address": source_address, "ssrc": ssrc, "media_type": media_type}
    return _mutating("CreateSession", **named, **options)


def named_as_asked(
    session: pb.SessionResponse, options: CreateOptions | TermOptions
) -> pb.SessionResponse:
    """Raises UnimplementedError: a server that knew no names has made one without."""
    name = options.get("name") or ""
    if session.name != name:
        raise UnimplementedError(
            f"the server is older and gives no names: it has made session {session.session_id}"
            f" without {name!r}; delete that, and upgrade the server",
            field="name",
        )
    return session


def update_session(session_id: str, options: UpdateOptions) -> Call[pb.SessionResponse]:
    return _mutating("UpdateSession", session_id=session_id, **options)


def get_session(session_id: str) -> Call[pb.SessionResponse]:
    return _reading("GetSession", session_id=session_id)


def delete_session(session_id: str, request_id: str | None) -> Call[empty_pb2.Empty]:
    return _mutating("DeleteSession", session_id=session_id, request_id=request_id)


def list_sessions(limit: int, cursor: str, options: ListOptions) -> Call[pb.ListSessionsResponse]:
    return _reading("ListSessions", limit=limit, cursor=cursor, **options)


def add_subscriber(
    session_id: str, address: str, options: SubscribeOptions
) -> Call[empty_pb2.Empty]:
    named = {"session_id": session_id, "subscriber_address": address}
    return _mutating("AddSubscriber", **named, **options)


def remove_subscriber(
    session_id: str, address: str, request_id: str | None
) -> Call[empty_pb2.Empty]:
    named = {"session_id": session_id, "subscriber_address": address}
    return _mutating("RemoveSubscriber", **named, request_id=request_id)


def add_subscribers(
    session_id: str, addresses: Sequence[str], options: SubscribeOptions
) -> Call[pb.BatchAddSubscribersResponse]:
    named = {"session_id": session_id, "subscriber_addresses": addresses}
    return _mutating("BatchAddSubscribers", **named, **options)


def remove_subscribers(
    session_id: str, addresses: Sequence[str], request_id: str | None
) -> Call[pb.BatchRemoveSubscribersResponse]:
    named = {"session_id": session_id, "subscriber_addresses": addresses}
    return _mutating("BatchRemoveSubscribers", **named, request_id=request_id)


def get_subscriber_sdp(
    session_id: str, address: str, wait_secs: float, others: Sequence[tuple[str, str]]
) -> Call[pb.GetSubscriberSdpResponse]:
    parts = [pb.SdpPart(session_id=who, subscriber_address=where) for who, where in others]
    named = {"session_id": session_id, "subscriber_address": address}
    return _reading("GetSubscriberSdp", **named, wait_secs=wait_secs, others=parts)


def list_subscribers(session_id: str, limit: int, cursor: str) -> Call[pb.ListSubscribersResponse]:
    return _reading("ListSubscribers", session_id=session_id, limit=limit, cursor=cursor)


def get_session_stats(session_id: str) -> Call[pb.SessionStatsResponse]:
    return _reading("GetSessionStats", session_id=session_id)


def list_knocks(limit: int) -> Call[pb.ListKnocksResponse]:
    return _reading("ListKnocks", limit=limit)


def issue_join_token(session_id: str, options: TokenOptions) -> Call[pb.JoinTokenResponse]:
    # A token that got lost on its way to us harms nobody: issuing is repeatable.
    return _reading("IssueJoinToken", session_id=session_id, **options)


def request_keyframe(session_id: str) -> Call[empty_pb2.Empty]:
    # Asked for twice it is sent once: the server takes what comes soon after for the same.
    return _reading("RequestKeyframe", session_id=session_id)


def top_sessions(limit: int, options: TopOptions) -> Call[pb.TopSessionsResponse]:
    return _reading("TopSessions", limit=limit, **options)


def watch_events(fields: dict[str, Any]) -> pb.WatchEventsRequest:
    return cast("pb.WatchEventsRequest", _request("WatchEvents", fields))


def _mutating(method: str, *, request_id: str | None = None, **fields: Any) -> Call[Any]:
    """With a request id the server carries the call out once, however often it comes."""
    if request_id is None:
        request_id = uuid.uuid4().hex
    request = _request(method, {**fields, "request_id": request_id})
    return Call(method, request, repeatable=bool(request_id))


def _reading(method: str, **fields: Any) -> Call[Any]:
    return Call(method, _request(method, fields))


def _request(method: str, fields: dict[str, Any]) -> Message:
    """The message; what no message can hold, the server cannot judge: it is refused here."""
    kind: type[Message] = getattr(pb, f"{method}Request")
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
