"""The table from errors to statuses, and model to protobuf."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta, timezone

import grpc
import pytest
from google.rpc import error_details_pb2

from rtpfanout import convert, errors
from rtpfanout.api import session_pb2
from rtpfanout.model import Address, MediaType, SessionStatus, SourcePolicy
from rtpfanout.sessions import (
    LatencySummary,
    SessionStats,
    SessionView,
    SubscriberView,
)
from rtpfanout.sessions.source import Source
from rtpfanout.sessions.terms import Terms

CAMERA = Address.parse("[2001:db8::1]:5000")

# Raised before there is a server, or by the client.
NOT_THE_SERVERS = {
    errors.RtpFanoutError,
    errors.ConfigError,
    errors.StartError,
    errors.UnreachableError,
    errors.UnimplementedError,
    errors.PermissionDeniedError,
}
SERVERS = [
    kind
    for _name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.RtpFanoutError) and kind not in NOT_THE_SERVERS
]


@pytest.mark.parametrize("kind", SERVERS)
def test_every_error_of_the_server_has_a_status(kind: type[errors.RtpFanoutError]) -> None:
    status = convert.error_status(kind("what to do", field="a_field"))
    assert status.code not in (grpc.StatusCode.OK.value[0], grpc.StatusCode.INTERNAL.value[0])
    assert status.message == "what to do"
    assert len(status.details) == 1


@pytest.mark.parametrize("kind", [errors.RtpFanoutError, errors.StartError])
def test_other_errors_are_internal_and_say_nothing(kind: type[errors.RtpFanoutError]) -> None:
    status = convert.error_status(kind("a secret"))
    assert status == convert.internal_status()
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in str(status)


def test_details_name_the_field_the_limit_and_the_reason() -> None:
    bad_request = error_details_pb2.BadRequest()
    status = convert.error_status(errors.InvalidArgumentError("wrong", field="limit"))
    assert status.details[0].Unpack(bad_request)
    (violation,) = bad_request.field_violations
    assert (violation.field, violation.description) == ("limit", "wrong")

    quota = error_details_pb2.QuotaFailure()
    status = convert.error_status(errors.LimitError("full", field="max_sessions", limit=2))
    assert status.details[0].Unpack(quota)
    assert quota.violations[0].subject == "max_sessions"

    info = error_details_pb2.ErrorInfo()
    status = convert.error_status(errors.NotFoundError("gone", field="session_id"))
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("rtpfanout", "NOT_FOUND")
    assert info.metadata == {"field": "session_id"}


def test_a_session_as_the_api_shows_it() -> None:
    response = convert.session_response(
        SessionView(
            session_id="id",
            terms=Terms(Source(SourcePolicy.EXACT, str(CAMERA), CAMERA)),
            ssrc=2**32 - 1,
            media_type=MediaType.DATA,
            subscriber_count=3,
            created_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
            status=SessionStatus.ACTIVE,
        )
    )
    assert response.source_address == "[2001:db8::1]:5000"
    assert response.ssrc == 2**32 - 1
    assert response.created_at == "2026-03-01T12:00:00.000000Z"
    assert (response.media_type, response.status) == ("data", "active")
    assert response.subscriber_count == 3


@pytest.mark.parametrize("since", [None, 0.0, 1.5])
def test_stats_as_the_api_shows_them(since: float | None) -> None:
    values: dict[str, int | float] = {
        "packets_received": 2**63,
        "packets_sent": 2,
        "bytes_received": 3,
        "bytes_sent": 2**64 - 1,
        "send_failures": 5,
        "subscriber_count": 6,
        "uptime_seconds": 7.5,
        "packets_per_second": 8.5,
    }
    stats = SessionStats(session_id="id", seconds_since_last_packet=since, **values)  # type: ignore[arg-type]
    response = convert.session_stats_response(stats)
    assert {name: getattr(response, name) for name in values} == values
    assert response.HasField("seconds_since_last_packet") == (since is not None)


def test_latencies_as_the_api_shows_them() -> None:
    first = LatencySummary(0.001, 0.002, 0.003, 0.004, 5)
    stats = SessionStats("id", 1, 1.0, first_copy_latency=first)
    response = convert.session_stats_response(stats)
    assert response.first_copy_latency == session_pb2.LatencySummary(
        p50_seconds=0.001, p99_seconds=0.002, p999_seconds=0.003, max_seconds=0.004, count=5
    )
    assert not response.HasField("last_copy_latency")


def test_a_subscriber_as_the_api_shows_it() -> None:
    since = datetime(2026, 3, 1, 12, tzinfo=UTC)
    view = SubscriberView(Address.parse("[2001:db8::1]:6000"), since, 2**63, 3)
    assert convert.subscriber_response(view) == session_pb2.SubscriberResponse(
        subscriber_address="[2001:db8::1]:6000",
        since="2026-03-01T12:00:00.000000Z",
        packets_sent=2**63,
        send_failures=3,
        subscriber_class="monitor",
        state="sending",
        rtcp="off",
    )


@pytest.mark.parametrize("kind", [errors.InvalidArgumentError, errors.AddressDeniedError])
def test_each_entry_at_fault_is_named(kind: type[errors.RtpFanoutError]) -> None:
    violations = (errors.Violation("a[3]", "odd"), errors.Violation("a[7]", "also odd"))
    status = convert.error_status(kind("two", field="a[3]", violations=violations))
    bad_request = error_details_pb2.BadRequest()
    assert status.details[-1].Unpack(bad_request)
    named = [(each.field, each.description) for each in bad_request.field_violations]
    assert named == [("a[3]", "odd"), ("a[7]", "also odd")]
    assert len(status.details) == (1 if kind is errors.InvalidArgumentError else 2)


def test_times_are_rfc_3339_in_utc() -> None:
    assert convert.rfc3339(datetime(2026, 1, 2, 3, 4, 5, 6, UTC)) == "2026-01-02T03:04:05.000006Z"
    east = timezone(timedelta(hours=2))
    assert convert.rfc3339(datetime(2026, 1, 2, 3, tzinfo=east)) == "2026-01-02T01:00:00.000000Z"
