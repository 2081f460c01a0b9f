"""Protobuf messages from the model, and gRPC statuses from errors."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from rtpfanout.api import session_pb2
from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    RtpFanoutError,
    UnavailableError,
    UnknownNameError,
    Violation,
    codes_of,
)
from rtpfanout.sessions import shown_terms

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from rtpfanout.sessions import (
        Event,
        Glance,
        Knock,
        SessionStats,
        SessionView,
        SubscriberView,
        WatchEvent,
    )

ERROR_DOMAIN = "rtpfanout"
"""`domain` of every google.rpc.ErrorInfo the server sends."""


def session_response(view: SessionView) -> session_pb2.SessionResponse:
    """The session as the API shows it."""
    return session_pb2.SessionResponse(
        session_id=view.session_id,
        ssrc=view.ssrc,
        subscriber_count=view.subscriber_count,
        created_at=rfc3339(view.created_at),
        status=view.status,
        media_type=view.media_type,
        revision=view.revision,
        refused_reason=view.refused_reason,
        refused_subscribers=view.refused_subscribers,
        condition=view.condition,
        condition_since=rfc3339(view.condition_since) if view.condition_since else "",
        ssrcs=[
            session_pb2.SourceSsrc(
                ssrc=each.ssrc, since=rfc3339(each.since), payload_type=each.payload_type
            )
            for each in view.ssrcs
        ],
        **shown_terms(view.terms),
    )


def session_event(event: WatchEvent) -> session_pb2.SessionEvent:
    """An event of WatchSessions."""
    return session_pb2.SessionEvent(
        type=event.type.name,
        revision=event.revision,
        session=session_response(event.view) if event.view else None,
        cause=event.cause,
    )


def event_message(event: Event) -> session_pb2.Event:
    """An event of WatchEvents, by the same names."""
    return session_pb2.Event(**event.as_dict())


def figures_message(glance: Glance) -> session_pb2.SessionFigures:
    """A session at a glance, as TopSessions has it."""
    figures = glance.figures
    since = datetime.fromtimestamp(glance.condition_since_ms / 1000, UTC)
    return session_pb2.SessionFigures(
        session_id=glance.session_id,
        name=glance.name,
        labels=glance.labels,
        media_type=glance.media_type,
        source_address=glance.source,
        status=glance.status,
        condition=glance.condition,
        condition_since=rfc3339(since) if glance.condition else "",
        subscriber_count=glance.subscribers,
        bitrate_bps=figures and figures.bitrate_bps,
        loss=glance.lost_lately,
        jitter_seconds=figures and figures.jitter_seconds,
        frame_rate=figures and figures.frame_rate,
    )


def session_stats_response(stats: SessionStats) -> session_pb2.SessionStatsResponse:
    """The session's counters as the API shows them, by the same names."""
    return session_pb2.SessionStatsResponse(**asdict(stats))


def subscriber_response(view: SubscriberView) -> session_pb2.SubscriberResponse:
    """The subscriber as the API shows it."""
    return session_pb2.SubscriberResponse(
        subscriber_address=str(view.address),
        since=rfc3339(view.since),
        packets_sent=view.packets_sent,
        send_failures=view.send_failures,
        subscriber_class=view.subscriber_class,
        expires_at=rfc3339(view.expires_at) if view.expires_at else "",
        state=view.state,
        refused_reason=view.refused_reason,
        rtcp=view.rtcp,
        report=asdict(view.report) if view.report else None,
        reach=view.reach,
        reach_detail=view.reach_detail,
        reach_since=rfc3339(view.reach_since) if view.reach_since else "",
    )


def knock_message(knock: Knock) -> session_pb2.Knock:
    """The stranger as the API shows it."""
    return session_pb2.Knock(
        source_address=str(knock.source),
        ssrc=knock.ssrc,
        payload_type=knock.payload_type,
        packets=knock.packets,
        first_seen=rfc3339(knock.first_seen),
        last_seen=rfc3339(knock.last_seen),
        reason=knock.reason,
        session_id=knock.session_id,
        session_name=knock.session_name,
        from_feeder=knock.from_feeder,
    )


def rfc3339(moment: datetime) -> str:
    """``2026-03-01T12:00:00.000000Z``: always six decimals, so that texts sort like times."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def error_status(error: RtpFanoutError) -> status_pb2.Status:
    """What a caller gets to know of `error`: code, message and detail (google.rpc).

    Of a request with many entries, a BadRequest names each that is at fault.
    """
    codes = codes_of(error)
    code = grpc.StatusCode[codes.status]
    if code is grpc.StatusCode.INTERNAL:
        return internal_status()
    details = [_detail(error, codes.reason)]
    if error.violations and not isinstance(error, InvalidArgumentError):
        details.append(_bad_request(error))
    return _status(code, error.message, *details)


def internal_status() -> status_pb2.Status:
    """For a fault of the server's own, whose text is for the log only."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN)
    return _status(grpc.StatusCode.INTERNAL, "internal error; the server's log has more", info)


def _status(code: grpc.StatusCode, message: str, *details: Message) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _detail(error: RtpFanoutError, reason: str) -> Any:
    """A message of google.rpc."""
    field = error.field or ""
    if isinstance(error, UnknownNameError):
        return _bad_request(error, reason)
    if isinstance(error, InvalidArgumentError):
        return _bad_request(error)
    if isinstance(error, LimitError):
        violation = {"subject": field, "description": error.message}
        return error_details_pb2.QuotaFailure(violations=[violation])
    if isinstance(error, UnavailableError):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        return error_details_pb2.RetryInfo(retry_delay=delay)
    return _error_info(error, reason)


def _error_info(error: RtpFanoutError, reason: str) -> Any:
    session_id = error.session_id if isinstance(error, AlreadyExistsError) else ""
    metadata = {"field": error.field or "", "session_id": session_id}
    metadata = {key: value for key, value in metadata.items() if value}
    return error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN, metadata=metadata)


def _bad_request(error: RtpFanoutError, reason: str = "") -> Any:
    violations = error.violations or (Violation(error.field or "", error.message),)
    return error_details_pb2.BadRequest(
        field_violations=[
            {"field": v.field, "description": v.message, "reason": reason} for v in violations
        ]
    )
