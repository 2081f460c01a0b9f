from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateSessionRequest(_message.Message):
    __slots__ = ("source_address", "ssrc", "media_type", "source_policy", "latch_window_secs", "relatch_after_secs", "labels", "ingest_limit_bps", "max_subscribers", "consent", "move_key", "request_id", "name", "if_exists", "idle_timeout_secs", "ssrc_policy", "latch_scope", "srtp", "check_padding", "rtcp_mux", "ingest_port", "dscp", "keyframe_request", "repair_source", "report_class", "encoding", "sdp")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SSRC_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_POLICY_FIELD_NUMBER: _ClassVar[int]
    LATCH_WINDOW_SECS_FIELD_NUMBER: _ClassVar[int]
    RELATCH_AFTER_SECS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INGEST_LIMIT_BPS_FIELD_NUMBER: _ClassVar[int]
    MAX_SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    MOVE_KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_SECS_FIELD_NUMBER: _ClassVar[int]
    SSRC_POLICY_FIELD_NUMBER: _ClassVar[int]
    LATCH_SCOPE_FIELD_NUMBER: _ClassVar[int]
    SRTP_FIELD_NUMBER: _ClassVar[int]
    CHECK_PADDING_FIELD_NUMBER: _ClassVar[int]
    RTCP_MUX_FIELD_NUMBER: _ClassVar[int]
    INGEST_PORT_FIELD_NUMBER: _ClassVar[int]
    DSCP_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_REQUEST_FIELD_NUMBER: _ClassVar[int]
    REPAIR_SOURCE_FIELD_NUMBER: _ClassVar[int]
    REPORT_CLASS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SDP_FIELD_NUMBER: _ClassVar[int]
    source_address: str
    ssrc: int
    media_type: str
    source_policy: str
    latch_window_secs: float
    relatch_after_secs: float
    labels: _containers.ScalarMap[str, str]
    ingest_limit_bps: int
    max_subscribers: int
    consent: str
    move_key: bytes
    request_id: str
    name: str
    if_exists: str
    idle_timeout_secs: float
    ssrc_policy: str
    latch_scope: str
    srtp: bool
    check_padding: bool
    rtcp_mux: bool
    ingest_port: str
    dscp: str
    keyframe_request: str
    repair_source: bool
    report_class: str
    encoding: Encoding
    sdp: str
    def __init__(self, source_address: _Optional[str] = ..., ssrc: _Optional[int] = ..., media_type: _Optional[str] = ..., source_policy: _Optional[str] = ..., latch_window_secs: _Optional[float] = ..., relatch_after_secs: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ..., ingest_limit_bps: _Optional[int] = ..., max_subscribers: _Optional[int] = ..., consent: _Optional[str] = ..., move_key: _Optional[bytes] = ..., request_id: _Optional[str] = ..., name: _Optional[str] = ..., if_exists: _Optional[str] = ..., idle_timeout_secs: _Optional[float] = ..., ssrc_policy: _Optional[str] = ..., latch_scope: _Optional[str] = ..., srtp: bool = ..., check_padding: bool = ..., rtcp_mux: bool = ..., ingest_port: _Optional[str] = ..., dscp: _Optional[str] = ..., keyframe_request: _Optional[str] = ..., repair_source: bool = ..., report_class: _Optional[str] = ..., encoding: _Optional[_Union[Encoding, _Mapping]] = ..., sdp: _Optional[str] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("session_id", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetSessionStatsRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("limit", "cursor", "label_selector", "name_prefix", "id_prefix")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    NAME_PREFIX_FIELD_NUMBER: _ClassVar[int]
    ID_PREFIX_FIELD_NUMBER: _ClassVar[int]
    limit: int
    cursor: str
    label_selector: str
    name_prefix: str
    id_prefix: str
    def __init__(self, limit: _Optional[int] = ..., cursor: _Optional[str] = ..., label_selector: _Optional[str] = ..., name_prefix: _Optional[str] = ..., id_prefix: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_cursor")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionResponse]
    next_cursor: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionResponse, _Mapping]]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class AddSubscriberRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_address", "ttl_secs", "subscriber_class", "request_id", "rtcp")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_CLASS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RTCP_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_address: str
    ttl_secs: float
    subscriber_class: str
    request_id: str
    rtcp: str
    def __init__(self, session_id: _Optional[str] = ..., subscriber_address: _Optional[str] = ..., ttl_secs: _Optional[float] = ..., subscriber_class: _Optional[str] = ..., request_id: _Optional[str] = ..., rtcp: _Optional[str] = ...) -> None: ...

class RemoveSubscriberRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_address", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_address: str
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., subscriber_address: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchAddSubscribersRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_addresses", "ttl_secs", "subscriber_class", "request_id", "rtcp")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_CLASS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RTCP_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_addresses: _containers.RepeatedScalarFieldContainer[str]
    ttl_secs: float
    subscriber_class: str
    request_id: str
    rtcp: str
    def __init__(self, session_id: _Optional[str] = ..., subscriber_addresses: _Optional[_Iterable[str]] = ..., ttl_secs: _Optional[float] = ..., subscriber_class: _Optional[str] = ..., request_id: _Optional[str] = ..., rtcp: _Optional[str] = ...) -> None: ...

class BatchAddSubscribersResponse(_message.Message):
    __slots__ = ("added", "already_present")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    ALREADY_PRESENT_FIELD_NUMBER: _ClassVar[int]
    added: int
    already_present: int
    def __init__(self, added: _Optional[int] = ..., already_present: _Optional[int] = ...) -> None: ...

class BatchRemoveSubscribersRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_addresses", "request_id")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_addresses: _containers.RepeatedScalarFieldContainer[str]
    request_id: str
    def __init__(self, session_id: _Optional[str] = ..., subscriber_addresses: _Optional[_Iterable[str]] = ..., request_id: _Optional[str] = ...) -> None: ...

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

class Encoding(_message.Message):
    __slots__ = ("name", "payload_type", "clock_rate", "channels", "fmtp")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_TYPE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_RATE_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    FMTP_FIELD_NUMBER: _ClassVar[int]
    name: str
    payload_type: int
    clock_rate: int
    channels: int
    fmtp: str
    def __init__(self, name: _Optional[str] = ..., payload_type: _Optional[int] = ..., clock_rate: _Optional[int] = ..., channels: _Optional[int] = ..., fmtp: _Optional[str] = ...) -> None: ...

class GetSubscriberSdpRequest(_message.Message):
    __slots__ = ("session_id", "subscriber_address", "wait_secs", "others")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECS_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_address: str
    wait_secs: float
    others: _containers.RepeatedCompositeFieldContainer[SdpPart]
    def __init__(self, session_id: _Optional[str] = ..., subscriber_address: _Optional[str] = ..., wait_secs: _Optional[float] = ..., others: _Optional[_Iterable[_Union[SdpPart, _Mapping]]] = ...) -> None: ...

class SdpPart(_message.Message):
    __slots__ = ("session_id", "subscriber_address")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subscriber_address: str
    def __init__(self, session_id: _Optional[str] = ..., subscriber_address: _Optional[str] = ...) -> None: ...

class GetSubscriberSdpResponse(_message.Message):
    __slots__ = ("sdp", "notes")
    SDP_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    sdp: str
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sdp: _Optional[str] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class SubscriberResponse(_message.Message):
    __slots__ = ("subscriber_address", "since", "packets_sent", "send_failures", "subscriber_class", "expires_at", "state", "rtcp", "report", "reach", "reach_detail", "reach_since", "refused_reason")
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PACKETS_SENT_FIELD_NUMBER: _ClassVar[int]
    SEND_FAILURES_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_CLASS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RTCP_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    REACH_DETAIL_FIELD_NUMBER: _ClassVar[int]
    REACH_SINCE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REASON_FIELD_NUMBER: _ClassVar[int]
    subscriber_address: str
    since: str
    packets_sent: int
    send_failures: int
    subscriber_class: str
    expires_at: str
    state: str
    rtcp: str
    report: ReceiverReport
    reach: str
    reach_detail: str
    reach_since: str
    refused_reason: str
    def __init__(self, subscriber_address: _Optional[str] = ..., since: _Optional[str] = ..., packets_sent: _Optional[int] = ..., send_failures: _Optional[int] = ..., subscriber_class: _Optional[str] = ..., expires_at: _Optional[str] = ..., state: _Optional[str] = ..., rtcp: _Optional[str] = ..., report: _Optional[_Union[ReceiverReport, _Mapping]] = ..., reach: _Optional[str] = ..., reach_detail: _Optional[str] = ..., reach_since: _Optional[str] = ..., refused_reason: _Optional[str] = ...) -> None: ...

class ReceiverReport(_message.Message):
    __slots__ = ("fraction_lost", "lost", "jitter_seconds", "round_trip_seconds", "age_seconds")
    FRACTION_LOST_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    JITTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    fraction_lost: float
    lost: int
    jitter_seconds: float
    round_trip_seconds: float
    age_seconds: float
    def __init__(self, fraction_lost: _Optional[float] = ..., lost: _Optional[int] = ..., jitter_seconds: _Optional[float] = ..., round_trip_seconds: _Optional[float] = ..., age_seconds: _Optional[float] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("session_id", "source_address", "ssrc", "subscriber_count", "created_at", "status", "media_type", "source_policy", "pinned_source", "labels", "ingest_limit_bps", "max_subscribers", "consent", "signed_move", "revision", "latch_window_secs", "relatch_after_secs", "name", "idle_timeout_secs", "ingest_port", "ssrc_policy", "latch_scope", "encoding", "srtp", "check_padding", "rtcp_mux", "refused_reason", "refused_subscribers", "dscp", "keyframe_request", "repair_source", "report_class", "condition", "condition_since", "ssrcs", "latch_until")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SSRC_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_POLICY_FIELD_NUMBER: _ClassVar[int]
    PINNED_SOURCE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INGEST_LIMIT_BPS_FIELD_NUMBER: _ClassVar[int]
    MAX_SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    SIGNED_MOVE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LATCH_WINDOW_SECS_FIELD_NUMBER: _ClassVar[int]
    RELATCH_AFTER_SECS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_SECS_FIELD_NUMBER: _ClassVar[int]
    INGEST_PORT_FIELD_NUMBER: _ClassVar[int]
    SSRC_POLICY_FIELD_NUMBER: _ClassVar[int]
    LATCH_SCOPE_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SRTP_FIELD_NUMBER: _ClassVar[int]
    CHECK_PADDING_FIELD_NUMBER: _ClassVar[int]
    RTCP_MUX_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REASON_FIELD_NUMBER: _ClassVar[int]
    REFUSED_SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    DSCP_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_REQUEST_FIELD_NUMBER: _ClassVar[int]
    REPAIR_SOURCE_FIELD_NUMBER: _ClassVar[int]
    REPORT_CLASS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    CONDITION_SINCE_FIELD_NUMBER: _ClassVar[int]
    SSRCS_FIELD_NUMBER: _ClassVar[int]
    LATCH_UNTIL_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    source_address: str
    ssrc: int
    subscriber_count: int
    created_at: str
    status: str
    media_type: str
    source_policy: str
    pinned_source: str
    labels: _containers.ScalarMap[str, str]
    ingest_limit_bps: int
    max_subscribers: int
    consent: str
    signed_move: bool
    revision: int
    latch_window_secs: float
    relatch_after_secs: float
    name: str
    idle_timeout_secs: float
    ingest_port: int
    ssrc_policy: str
    latch_scope: str
    encoding: Encoding
    srtp: bool
    check_padding: bool
    rtcp_mux: bool
    refused_reason: str
    refused_subscribers: int
    dscp: str
    keyframe_request: str
    repair_source: bool
    report_class: str
    condition: str
    condition_since: str
    ssrcs: _containers.RepeatedCompositeFieldContainer[SourceSsrc]
    latch_until: str
    def __init__(self, session_id: _Optional[str] = ..., source_address: _Optional[str] = ..., ssrc: _Optional[int] = ..., subscriber_count: _Optional[int] = ..., created_at: _Optional[str] = ..., status: _Optional[str] = ..., media_type: _Optional[str] = ..., source_policy: _Optional[str] = ..., pinned_source: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., ingest_limit_bps: _Optional[int] = ..., max_subscribers: _Optional[int] = ..., consent: _Optional[str] = ..., signed_move: bool = ..., revision: _Optional[int] = ..., latch_window_secs: _Optional[float] = ..., relatch_after_secs: _Optional[float] = ..., name: _Optional[str] = ..., idle_timeout_secs: _Optional[float] = ..., ingest_port: _Optional[int] = ..., ssrc_policy: _Optional[str] = ..., latch_scope: _Optional[str] = ..., encoding: _Optional[_Union[Encoding, _Mapping]] = ..., srtp: bool = ..., check_padding: bool = ..., rtcp_mux: bool = ..., refused_reason: _Optional[str] = ..., refused_subscribers: _Optional[int] = ..., dscp: _Optional[str] = ..., keyframe_request: _Optional[str] = ..., repair_source: bool = ..., report_class: _Optional[str] = ..., condition: _Optional[str] = ..., condition_since: _Optional[str] = ..., ssrcs: _Optional[_Iterable[_Union[SourceSsrc, _Mapping]]] = ..., latch_until: _Optional[str] = ...) -> None: ...

class SourceSsrc(_message.Message):
    __slots__ = ("ssrc", "since", "payload_type")
    SSRC_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_TYPE_FIELD_NUMBER: _ClassVar[int]
    ssrc: int
    since: str
    payload_type: int
    def __init__(self, ssrc: _Optional[int] = ..., since: _Optional[str] = ..., payload_type: _Optional[int] = ...) -> None: ...

class UpdateSessionRequest(_message.Message):
    __slots__ = ("session_id", "source_address", "source_policy", "latch_window_secs", "relatch_after_secs", "paused", "ingest_limit_bps", "max_subscribers", "consent", "move_key", "labels", "request_id", "if_revision", "name", "idle_timeout_secs", "ssrc", "ssrc_policy", "latch_scope", "srtp", "check_padding", "rtcp_mux", "ingest_port", "dscp", "keyframe_request", "repair_source", "report_class", "encoding", "sdp")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_POLICY_FIELD_NUMBER: _ClassVar[int]
    LATCH_WINDOW_SECS_FIELD_NUMBER: _ClassVar[int]
    RELATCH_AFTER_SECS_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    INGEST_LIMIT_BPS_FIELD_NUMBER: _ClassVar[int]
    MAX_SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    MOVE_KEY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IF_REVISION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_SECS_FIELD_NUMBER: _ClassVar[int]
    SSRC_FIELD_NUMBER: _ClassVar[int]
    SSRC_POLICY_FIELD_NUMBER: _ClassVar[int]
    LATCH_SCOPE_FIELD_NUMBER: _ClassVar[int]
    SRTP_FIELD_NUMBER: _ClassVar[int]
    CHECK_PADDING_FIELD_NUMBER: _ClassVar[int]
    RTCP_MUX_FIELD_NUMBER: _ClassVar[int]
    INGEST_PORT_FIELD_NUMBER: _ClassVar[int]
    DSCP_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_REQUEST_FIELD_NUMBER: _ClassVar[int]
    REPAIR_SOURCE_FIELD_NUMBER: _ClassVar[int]
    REPORT_CLASS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SDP_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    source_address: str
    source_policy: str
    latch_window_secs: float
    relatch_after_secs: float
    paused: bool
    ingest_limit_bps: int
    max_subscribers: int
    consent: str
    move_key: bytes
    labels: _containers.ScalarMap[str, str]
    request_id: str
    if_revision: int
    name: str
    idle_timeout_secs: float
    ssrc: int
    ssrc_policy: str
    latch_scope: str
    srtp: bool
    check_padding: bool
    rtcp_mux: bool
    ingest_port: str
    dscp: str
    keyframe_request: str
    repair_source: bool
    report_class: str
    encoding: Encoding
    sdp: str
    def __init__(self, session_id: _Optional[str] = ..., source_address: _Optional[str] = ..., source_policy: _Optional[str] = ..., latch_window_secs: _Optional[float] = ..., relatch_after_secs: _Optional[float] = ..., paused: bool = ..., ingest_limit_bps: _Optional[int] = ..., max_subscribers: _Optional[int] = ..., consent: _Optional[str] = ..., move_key: _Optional[bytes] = ..., labels: _Optional[_Mapping[str, str]] = ..., request_id: _Optional[str] = ..., if_revision: _Optional[int] = ..., name: _Optional[str] = ..., idle_timeout_secs: _Optional[float] = ..., ssrc: _Optional[int] = ..., ssrc_policy: _Optional[str] = ..., latch_scope: _Optional[str] = ..., srtp: bool = ..., check_padding: bool = ..., rtcp_mux: bool = ..., ingest_port: _Optional[str] = ..., dscp: _Optional[str] = ..., keyframe_request: _Optional[str] = ..., repair_source: bool = ..., report_class: _Optional[str] = ..., encoding: _Optional[_Union[Encoding, _Mapping]] = ..., sdp: _Optional[str] = ...) -> None: ...

class WatchSessionsRequest(_message.Message):
    __slots__ = ("after_revision", "label_selector")
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    after_revision: int
    label_selector: str
    def __init__(self, after_revision: _Optional[int] = ..., label_selector: _Optional[str] = ...) -> None: ...

class SessionEvent(_message.Message):
    __slots__ = ("type", "revision", "session", "cause")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[SessionEvent.Type]
        RESET: _ClassVar[SessionEvent.Type]
        SNAPSHOT: _ClassVar[SessionEvent.Type]
        SYNCED: _ClassVar[SessionEvent.Type]
        CREATED: _ClassVar[SessionEvent.Type]
        UPDATED: _ClassVar[SessionEvent.Type]
        DELETED: _ClassVar[SessionEvent.Type]
        HEARTBEAT: _ClassVar[SessionEvent.Type]
    TYPE_UNSPECIFIED: SessionEvent.Type
    RESET: SessionEvent.Type
    SNAPSHOT: SessionEvent.Type
    SYNCED: SessionEvent.Type
    CREATED: SessionEvent.Type
    UPDATED: SessionEvent.Type
    DELETED: SessionEvent.Type
    HEARTBEAT: SessionEvent.Type
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    type: SessionEvent.Type
    revision: int
    session: SessionResponse
    cause: str
    def __init__(self, type: _Optional[_Union[SessionEvent.Type, str]] = ..., revision: _Optional[int] = ..., session: _Optional[_Union[SessionResponse, _Mapping]] = ..., cause: _Optional[str] = ...) -> None: ...

class WatchEventsRequest(_message.Message):
    __slots__ = ("after_sequence", "since", "label_selector", "session", "kinds")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    since: str
    label_selector: str
    session: str
    kinds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, after_sequence: _Optional[int] = ..., since: _Optional[str] = ..., label_selector: _Optional[str] = ..., session: _Optional[str] = ..., kinds: _Optional[_Iterable[str]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("sequence", "kind", "time", "session_id", "session_name", "labels", "subscriber_address", "count", "detail")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    kind: str
    time: str
    session_id: str
    session_name: str
    labels: _containers.ScalarMap[str, str]
    subscriber_address: str
    count: int
    detail: str
    def __init__(self, sequence: _Optional[int] = ..., kind: _Optional[str] = ..., time: _Optional[str] = ..., session_id: _Optional[str] = ..., session_name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., subscriber_address: _Optional[str] = ..., count: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class TopSessionsRequest(_message.Message):
    __slots__ = ("label_selector", "words", "state", "order_by", "reverse", "limit")
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    REVERSE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    label_selector: str
    words: str
    state: str
    order_by: str
    reverse: bool
    limit: int
    def __init__(self, label_selector: _Optional[str] = ..., words: _Optional[str] = ..., state: _Optional[str] = ..., order_by: _Optional[str] = ..., reverse: bool = ..., limit: _Optional[int] = ...) -> None: ...

class TopSessionsResponse(_message.Message):
    __slots__ = ("sessions", "total", "matched", "attention", "bitrate_bps", "subscribers")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    BITRATE_BPS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionFigures]
    total: int
    matched: int
    attention: int
    bitrate_bps: float
    subscribers: int
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionFigures, _Mapping]]] = ..., total: _Optional[int] = ..., matched: _Optional[int] = ..., attention: _Optional[int] = ..., bitrate_bps: _Optional[float] = ..., subscribers: _Optional[int] = ...) -> None: ...

class SessionFigures(_message.Message):
    __slots__ = ("session_id", "name", "labels", "media_type", "source_address", "status", "condition", "condition_since", "subscriber_count", "bitrate_bps", "loss", "jitter_seconds", "frame_rate")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    CONDITION_SINCE_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_COUNT_FIELD_NUMBER: _ClassVar[int]
    BITRATE_BPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    JITTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FRAME_RATE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    name: str
    labels: _containers.ScalarMap[str, str]
    media_type: str
    source_address: str
    status: str
    condition: str
    condition_since: str
    subscriber_count: int
    bitrate_bps: float
    loss: float
    jitter_seconds: float
    frame_rate: float
    def __init__(self, session_id: _Optional[str] = ..., name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., media_type: _Optional[str] = ..., source_address: _Optional[str] = ..., status: _Optional[str] = ..., condition: _Optional[str] = ..., condition_since: _Optional[str] = ..., subscriber_count: _Optional[int] = ..., bitrate_bps: _Optional[float] = ..., loss: _Optional[float] = ..., jitter_seconds: _Optional[float] = ..., frame_rate: _Optional[float] = ...) -> None: ...

class IssueJoinTokenRequest(_message.Message):
    __slots__ = ("session_id", "ttl_secs", "lease_secs", "subscriber_class")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_SECS_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBER_CLASS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    ttl_secs: float
    lease_secs: float
    subscriber_class: str
    def __init__(self, session_id: _Optional[str] = ..., ttl_secs: _Optional[float] = ..., lease_secs: _Optional[float] = ..., subscriber_class: _Optional[str] = ...) -> None: ...

class JoinTokenResponse(_message.Message):
    __slots__ = ("token", "expires_at")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    token: str
    expires_at: str
    def __init__(self, token: _Optional[str] = ..., expires_at: _Optional[str] = ...) -> None: ...

class ListKnocksRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListKnocksResponse(_message.Message):
    __slots__ = ("knocks",)
    KNOCKS_FIELD_NUMBER: _ClassVar[int]
    knocks: _containers.RepeatedCompositeFieldContainer[Knock]
    def __init__(self, knocks: _Optional[_Iterable[_Union[Knock, _Mapping]]] = ...) -> None: ...

class Knock(_message.Message):
    __slots__ = ("source_address", "ssrc", "payload_type", "packets", "first_seen", "last_seen", "reason", "session_id", "session_name", "from_feeder")
    SOURCE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SSRC_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_TYPE_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEEN_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_NAME_FIELD_NUMBER: _ClassVar[int]
    FROM_FEEDER_FIELD_NUMBER: _ClassVar[int]
    source_address: str
    ssrc: int
    payload_type: int
    packets: int
    first_seen: str
    last_seen: str
    reason: str
    session_id: str
    session_name: str
    from_feeder: bool
    def __init__(self, source_address: _Optional[str] = ..., ssrc: _Optional[int] = ..., payload_type: _Optional[int] = ..., packets: _Optional[int] = ..., first_seen: _Optional[str] = ..., last_seen: _Optional[str] = ..., reason: _Optional[str] = ..., session_id: _Optional[str] = ..., session_name: _Optional[str] = ..., from_feeder: bool = ...) -> None: ...

class SessionStatsResponse(_message.Message):
    __slots__ = ("session_id", "packets_received", "packets_sent", "bytes_received", "bytes_sent", "subscriber_count", "uptime_seconds", "packets_per_second", "send_failures", "seconds_since_last_packet", "first_copy_latency", "last_copy_latency", "dropped_overload", "dropped_rate_limit", "dropped_paused", "copies_withheld", "dropped_wrong_source", "dropped_latching", "dropped_no_port", "dropped_loop", "dropped_misrouted", "reception", "last_wrong_source", "feedback", "dropped_probation", "server")
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
    DROPPED_OVERLOAD_FIELD_NUMBER: _ClassVar[int]
    DROPPED_RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_PAUSED_FIELD_NUMBER: _ClassVar[int]
    COPIES_WITHHELD_FIELD_NUMBER: _ClassVar[int]
    DROPPED_WRONG_SOURCE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_LATCHING_FIELD_NUMBER: _ClassVar[int]
    DROPPED_NO_PORT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_LOOP_FIELD_NUMBER: _ClassVar[int]
    DROPPED_MISROUTED_FIELD_NUMBER: _ClassVar[int]
    RECEPTION_FIELD_NUMBER: _ClassVar[int]
    LAST_WRONG_SOURCE_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    DROPPED_PROBATION_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
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
    dropped_overload: int
    dropped_rate_limit: int
    dropped_paused: int
    copies_withheld: int
    dropped_wrong_source: int
    dropped_latching: int
    dropped_no_port: int
    dropped_loop: int
    dropped_misrouted: int
    reception: Reception
    last_wrong_source: str
    feedback: Feedback
    dropped_probation: int
    server: ServerHealth
    def __init__(self, session_id: _Optional[str] = ..., packets_received: _Optional[int] = ..., packets_sent: _Optional[int] = ..., bytes_received: _Optional[int] = ..., bytes_sent: _Optional[int] = ..., subscriber_count: _Optional[int] = ..., uptime_seconds: _Optional[float] = ..., packets_per_second: _Optional[float] = ..., send_failures: _Optional[int] = ..., seconds_since_last_packet: _Optional[float] = ..., first_copy_latency: _Optional[_Union[LatencySummary, _Mapping]] = ..., last_copy_latency: _Optional[_Union[LatencySummary, _Mapping]] = ..., dropped_overload: _Optional[int] = ..., dropped_rate_limit: _Optional[int] = ..., dropped_paused: _Optional[int] = ..., copies_withheld: _Optional[int] = ..., dropped_wrong_source: _Optional[int] = ..., dropped_latching: _Optional[int] = ..., dropped_no_port: _Optional[int] = ..., dropped_loop: _Optional[int] = ..., dropped_misrouted: _Optional[int] = ..., reception: _Optional[_Union[Reception, _Mapping]] = ..., last_wrong_source: _Optional[str] = ..., feedback: _Optional[_Union[Feedback, _Mapping]] = ..., dropped_probation: _Optional[int] = ..., server: _Optional[_Union[ServerHealth, _Mapping]] = ...) -> None: ...

class ServerHealth(_message.Message):
    __slots__ = ("packets_received", "kernel_receive_drops", "receive_queue_bytes", "requested_receive_queue_bytes", "overload_marks", "send_failures")
    class SendFailuresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PACKETS_RECEIVED_FIELD_NUMBER: _ClassVar[int]
    KERNEL_RECEIVE_DROPS_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_QUEUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_RECEIVE_QUEUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OVERLOAD_MARKS_FIELD_NUMBER: _ClassVar[int]
    SEND_FAILURES_FIELD_NUMBER: _ClassVar[int]
    packets_received: int
    kernel_receive_drops: int
    receive_queue_bytes: int
    requested_receive_queue_bytes: int
    overload_marks: _containers.RepeatedScalarFieldContainer[str]
    send_failures: _containers.ScalarMap[str, int]
    def __init__(self, packets_received: _Optional[int] = ..., kernel_receive_drops: _Optional[int] = ..., receive_queue_bytes: _Optional[int] = ..., requested_receive_queue_bytes: _Optional[int] = ..., overload_marks: _Optional[_Iterable[str]] = ..., send_failures: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("sender_reports", "seconds_since_sender_report", "sender_reports_missing", "receiver_reports", "keyframe_requests", "packets_nacked", "keyframe_requests_sent", "reports_sent", "copies_rtcp", "reporters", "bitrates_sent", "packets_asked", "packets_repaired")
    SENDER_REPORTS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_SENDER_REPORT_FIELD_NUMBER: _ClassVar[int]
    SENDER_REPORTS_MISSING_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_REPORTS_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    PACKETS_NACKED_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_REQUESTS_SENT_FIELD_NUMBER: _ClassVar[int]
    REPORTS_SENT_FIELD_NUMBER: _ClassVar[int]
    COPIES_RTCP_FIELD_NUMBER: _ClassVar[int]
    REPORTERS_FIELD_NUMBER: _ClassVar[int]
    BITRATES_SENT_FIELD_NUMBER: _ClassVar[int]
    PACKETS_ASKED_FIELD_NUMBER: _ClassVar[int]
    PACKETS_REPAIRED_FIELD_NUMBER: _ClassVar[int]
    sender_reports: int
    seconds_since_sender_report: float
    sender_reports_missing: bool
    receiver_reports: int
    keyframe_requests: int
    packets_nacked: int
    keyframe_requests_sent: int
    reports_sent: int
    copies_rtcp: int
    reporters: int
    bitrates_sent: int
    packets_asked: int
    packets_repaired: int
    def __init__(self, sender_reports: _Optional[int] = ..., seconds_since_sender_report: _Optional[float] = ..., sender_reports_missing: bool = ..., receiver_reports: _Optional[int] = ..., keyframe_requests: _Optional[int] = ..., packets_nacked: _Optional[int] = ..., keyframe_requests_sent: _Optional[int] = ..., reports_sent: _Optional[int] = ..., copies_rtcp: _Optional[int] = ..., reporters: _Optional[int] = ..., bitrates_sent: _Optional[int] = ..., packets_asked: _Optional[int] = ..., packets_repaired: _Optional[int] = ...) -> None: ...

class RequestKeyframeRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class Reception(_message.Message):
    __slots__ = ("received", "expected", "lost", "cumulative_lost", "missing_now", "duplicates", "reordered", "late", "restarts", "timestamp_jumps", "out_of_sequence", "highest_sequence", "jitter_seconds", "jitter_units", "bitrate_bps", "frames", "frame_rate", "longest_frame_gap_seconds", "seconds_since_frame", "keyframes", "keyframe_interval_seconds", "seconds_since_keyframe", "seconds_since_parameter_sets", "ssrc", "payload_type", "payload_types", "encoding", "encoding_from", "encoding_sureness", "clock_rate", "clock_from")
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    CUMULATIVE_LOST_FIELD_NUMBER: _ClassVar[int]
    MISSING_NOW_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    REORDERED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_JUMPS_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    JITTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    JITTER_UNITS_FIELD_NUMBER: _ClassVar[int]
    BITRATE_BPS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAME_RATE_FIELD_NUMBER: _ClassVar[int]
    LONGEST_FRAME_GAP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_FRAME_FIELD_NUMBER: _ClassVar[int]
    KEYFRAMES_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_INTERVAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_KEYFRAME_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_PARAMETER_SETS_FIELD_NUMBER: _ClassVar[int]
    SSRC_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_TYPES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FROM_FIELD_NUMBER: _ClassVar[int]
    ENCODING_SURENESS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_RATE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FROM_FIELD_NUMBER: _ClassVar[int]
    received: int
    expected: int
    lost: int
    cumulative_lost: int
    missing_now: int
    duplicates: int
    reordered: int
    late: int
    restarts: int
    timestamp_jumps: int
    out_of_sequence: int
    highest_sequence: int
    jitter_seconds: float
    jitter_units: int
    bitrate_bps: float
    frames: int
    frame_rate: float
    longest_frame_gap_seconds: float
    seconds_since_frame: float
    keyframes: int
    keyframe_interval_seconds: float
    seconds_since_keyframe: float
    seconds_since_parameter_sets: float
    ssrc: int
    payload_type: int
    payload_types: _containers.RepeatedScalarFieldContainer[int]
    encoding: str
    encoding_from: str
    encoding_sureness: int
    clock_rate: int
    clock_from: str
    def __init__(self, received: _Optional[int] = ..., expected: _Optional[int] = ..., lost: _Optional[int] = ..., cumulative_lost: _Optional[int] = ..., missing_now: _Optional[int] = ..., duplicates: _Optional[int] = ..., reordered: _Optional[int] = ..., late: _Optional[int] = ..., restarts: _Optional[int] = ..., timestamp_jumps: _Optional[int] = ..., out_of_sequence: _Optional[int] = ..., highest_sequence: _Optional[int] = ..., jitter_seconds: _Optional[float] = ..., jitter_units: _Optional[int] = ..., bitrate_bps: _Optional[float] = ..., frames: _Optional[int] = ..., frame_rate: _Optional[float] = ..., longest_frame_gap_seconds: _Optional[float] = ..., seconds_since_frame: _Optional[float] = ..., keyframes: _Optional[int] = ..., keyframe_interval_seconds: _Optional[float] = ..., seconds_since_keyframe: _Optional[float] = ..., seconds_since_parameter_sets: _Optional[float] = ..., ssrc: _Optional[int] = ..., payload_type: _Optional[int] = ..., payload_types: _Optional[_Iterable[int]] = ..., encoding: _Optional[str] = ..., encoding_from: _Optional[str] = ..., encoding_sureness: _Optional[int] = ..., clock_rate: _Optional[int] = ..., clock_from: _Optional[str] = ...) -> None: ...

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
