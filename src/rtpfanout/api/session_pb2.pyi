from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateSessionRequest(_message.Message):
    __slots__ = ("source_address", "ssrc", "media_type")
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SSRC_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    source_address: str
    ssrc: int
    media_type: str
    def __init__(self, source_address: _Optional[str] = ..., ssrc: _Optional[int] = ..., media_type: _Optional[str] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class GetSessionStatsRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("limit", "cursor")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    limit: int
    cursor: str
    def __init__(self, limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_cursor")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionResponse]
    next_cursor: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionResponse, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class AddSubscriberRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_address")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_address: str
    def __init__(self, session_id: _Optional[str] = ..., subscriber_address: _Optional[str] = ...) -> None: ...

class RemoveSubscriberRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_address")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_address: str
    def __init__(self, session_id: _Optional[str] = ..., subscriber_address: _Optional[str] = ...) -> None: ...

class BatchAddSubscribersRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_addresses")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., subscriber_addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchAddSubscribersResponse(_message.Message):
    __slots__ = ("added", "already_present")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    ALREADY_PRESENT_FIELD_NUMBER: _ClassVar[int]
    added: int
    already_present: int
    def __init__(self, added: _Optional[int] = ..., already_present: _Optional[int] = ...) -> None: ...

class BatchRemoveSubscribersRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_addresses")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session_id: _Optional[str] = ..., subscriber_addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchRemoveSubscribersResponse(_message.Message):
    __slots__ = ("removed", "not_found")
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    NOT_FOUND_FIELD_NUMBER: _ClassVar[int]
    removed: int
    not_found: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, removed: _Optional[int] = ..., not_found: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSubscribersRequest(_message.Message):
    __slots__ = ("session_id", "limit", "cursor")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    limit: int
    cursor: str
    def __init__(self, session_id: _Optional[str] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListSubscribersResponse(_message.Message):
    __slots__ = ("subscribers", "next_cursor")
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    subscribers: _containers.RepeatedCompositeFieldContainer[SubscriberResponse]
    next_cursor: str
    def __init__(self, subscribers: _Optional[_Iterable[_Union[SubscriberResponse, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class SubscriberResponse(_message.Message):
    __slots__ = ("subscriber_address", "since", "packets_sent", "send_failures")
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PACKETS_SENT_FIELD_NUMBER: _ClassVar[int]
    SEND_FAILURES_FIELD_NUMBER: _ClassVar[int]
    subscriber_address: str
    since: str
    packets_sent: int
    send_failures: int
    def __init__(self, subscriber_address: _Optional[str] = ..., since: _Optional[str] = ..., packets_sent: _Optional[int] = ..., send_failures: _Optional[int] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("session_id", "source_address", "ssrc", "subscriber_count", "created_at", "status", "media_type")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SSRC_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    source_address: str
    ssrc: int
    subscriber_count: int
    created_at: str
    status: str
    media_type: str
    def __init__(self, session_id: _Optional[str] = ..., source_address: _Optional[str] = ..., ssrc: _Optional[int] = ..., subscriber_count: _Optional[int] = ..., created_at: _Optional[str] = ..., status: _Optional[str] = ..., media_type: _Optional[str] = ...) -> None: ...

class SessionStatsResponse(_message.Message):
    __slots__ = ("session_id", "packets_received", "packets_sent", "bytes_received", "bytes_sent", "subscriber_count", "uptime_seconds", "packets_per_second", "send_failures", "seconds_since_last_packet", "first_copy_latency", "last_copy_latency")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PACKETS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    PACKETS_SENT_FIELD_NUMBER: _ClassVar[int]
    BYTES_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_SENT_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_COUNT_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PACKETS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SEND_FAILURES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_LAST_PACKET_FIELD_NUMBER: _ClassVar[int]
    FIRST_COPY_LATENCY_FIELD_NUMBER: _ClassVar[int]
    LAST_COPY_LATENCY_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    packets_received: int
    packets_sent: int
    bytes_received: int
    bytes_sent: int
    subscriber_count: int
    uptime_seconds: float
    packets_per_second: float
    send_failures: int
    seconds_since_last_packet: float
    first_copy_latency: LatencySummary
    last_copy_latency: LatencySummary
    def __init__(self, session_id: _Optional[str] = ..., packets_received: _Optional[int] = ..., packets_sent: _Optional[int] = ..., bytes_received: _Optional[int] = ..., bytes_sent: _Optional[int] = ..., subscriber_count: _Optional[int] = ..., uptime_seconds: _Optional[float] = ..., packets_per_second: _Optional[float] = ..., send_failures: _Optional[int] = ..., seconds_since_last_packet: _Optional[float] = ..., first_copy_latency: _Optional[_Union[LatencySummary, _Mapping]] = ..., last_copy_latency: _Optional[_Union[LatencySummary, _Mapping]] = ...) -> None: ...

class LatencySummary(_message.Message):
    __slots__ = ("p50_seconds", "p99_seconds", "p999_seconds", "max_seconds", "count")
    P50_SECONDS_FIELD_NUMBER: _ClassVar[int]
    P99_SECONDS_FIELD_NUMBER: _ClassVar[int]
    P999_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    p50_seconds: float
    p99_seconds: float
    p999_seconds: float
    max_seconds: float
    count: int
    def __init__(self, p50_seconds: _Optional[float] = ..., p99_seconds: _Optional[float] = ..., p999_seconds: _Optional[float] = ..., max_seconds: _Optional[float] = ..., count: _Optional[int] = ...) -> None: ...
