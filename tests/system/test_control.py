"""The control API of a running server: statuses and their details, limits, pages, health."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from support import ServerProcess, address_of, queued, receive, rtp_packet, transfer

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    MakeSocket = Callable[..., socket.socket]
    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.lent_servers

UNKNOWN = str(uuid.uuid4())
SOURCE = "127.0.0.1:5000"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ServerProcess]:
    """For calls that change nothing."""
    server = ServerProcess()
    yield server
    server.stop()


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str, list[Any]]:
    """Code, message and unpacked details of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    status = rpc_status.from_call(error)
    assert status is not None, f"no google.rpc.Status came with {error}"
    details = []
    for packed in status.details:
        for kind in ("BadRequest", "QuotaFailure", "ErrorInfo"):
            detail = getattr(error_details_pb2, kind)()
            if packed.Unpack(detail):
                details.append(detail)
    return error.code(), status.message, details


@pytest.mark.parametrize(
    ("call", "request_", "field"),
    [
        ("CreateSession", pb.CreateSessionRequest(media_type="video"), "source_address"),
        *(
            (
                "CreateSession",
                pb.CreateSessionRequest(source_address=address, media_type="video"),
                "source_address",
            )
            for address in (
                "127.0.0.1",
                "127.0.0.1:0",
                "127.0.0.1:65536",
                "localhost:5000",
                "[::1:5000",
                "::1:5000",
                "127.0.0.1:5000 ",
                "0.0.0.0:5000",
                "224.0.0.1:5000",
                "x" * 5000,
            )
        ),
        *(
            (
                "CreateSession",
                pb.CreateSessionRequest(source_address=SOURCE, media_type=media_type),
                "media_type",
            )
            for media_type in ("", "Video", "text", "video ")
        ),
        ("GetSession", pb.GetSessionRequest(), "session_id"),
        ("GetSession", pb.GetSessionRequest(session_id="1"), "session_id"),
        ("GetSession", pb.GetSessionRequest(session_id=UNKNOWN.replace("-", "")), "session_id"),
        ("DeleteSession", pb.DeleteSessionRequest(session_id="{" + UNKNOWN + "}"), "session_id"),
        ("GetSessionStats", pb.GetSessionStatsRequest(session_id="é"), "session_id"),
        ("ListSessions", pb.ListSessionsRequest(limit=-1), "limit"),
        ("ListSessions", pb.ListSessionsRequest(cursor="1"), "cursor"),
        (
            "AddSubscriber",
            pb.AddSubscriberRequest(session_id=UNKNOWN, subscriber_address="127.0.0.1:0"),
            "subscriber_address",
        ),
        (
            "AddSubscriber",
            pb.AddSubscriberRequest(session_id=UNKNOWN, subscriber_address="[::1]:5000"),
            "subscriber_address",
        ),
        (
            "RemoveSubscriber",
            pb.RemoveSubscriberRequest(session_id=UNKNOWN, subscriber_address="nowhere"),
            "subscriber_address",
        ),
    ],
)
def test_a_malformed_field_is_named(
    shared_server: ServerProcess, call: str, request_: Any, field: str
) -> None:
    code, message, details = refused(lambda: getattr(shared_server.stub, call)(request_))
    assert code == INVALID
    assert len(message) < 400
    (bad_request,) = details
    (violation,) = bad_request.field_violations
    assert violation.field == field
    assert violation.description == message


def test_unknown_sessions_and_subscribers_are_not_found(server: ServerProcess) -> None:
    stub = server.stub
    known = server.create(SOURCE, 1)
    subscriber = "127.0.0.1:6000"
    for call in (
        lambda: stub.GetSession(pb.GetSessionRequest(session_id=UNKNOWN)),
        lambda: server.delete(UNKNOWN),
        lambda: server.stats(UNKNOWN),
        lambda: server.add(UNKNOWN, subscriber),
        lambda: server.remove(UNKNOWN, subscriber),
        lambda: server.remove(known, subscriber),
    ):
        code, _message, (info,) = refused(call)
        assert code == grpc.StatusCode.NOT_FOUND
        assert (info.domain, info.reason) == ("rtpfanout", "NOT_FOUND")


def test_delete_happens_once(server: ServerProcess) -> None:
    session_id = server.create(SOURCE, 1)
    server.delete(session_id)
    for call in (server.delete, server.stats):
        assert refused(lambda call=call: call(session_id))[0] == grpc.StatusCode.NOT_FOUND
    assert server.create(SOURCE, 1) != session_id  # the key is free again


def test_the_key_is_ssrc_and_source(server: ServerProcess) -> None:
    server.create(SOURCE, 1)
    code, _message, (info,) = refused(lambda: server.create(SOURCE, 1, media_type="audio"))
    assert code == grpc.StatusCode.ALREADY_EXISTS
    assert info.reason == "SESSION_EXISTS"
    code, *_ = refused(lambda: server.create("[::ffff:127.0.0.1]:5000", 1))  # the same endpoint
    assert code == grpc.StatusCode.ALREADY_EXISTS
    server.create(SOURCE, 2)
    server.create("127.0.0.1:5001", 1)


def test_limits(start_server: StartServer) -> None:
    server = start_server(max_sessions=2, max_fanout_per_session=2)
    first = server.create(SOURCE, 1, "127.0.0.1:6000", "127.0.0.1:6001")
    second = server.create(SOURCE, 2)
    for call, subject in (
        (lambda: server.create(SOURCE, 3), "max_sessions"),
        (lambda: server.add(first, "127.0.0.1:6002"), "max_fanout_per_session"),
    ):
        code, message, (quota,) = refused(call)
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert quota.violations[0].subject == subject
        assert "2" in message
    server.add(first, "127.0.0.1:6000")  # there already, so no limit is passed
    server.remove(first, "127.0.0.1:6000")
    server.add(first, "127.0.0.1:6002")
    server.delete(second)
    server.create(SOURCE, 3)


def test_the_address_policy_answers_permission_denied(start_server: StartServer) -> None:
    server = start_server(address_policy__deny="10.0.0.0/8")
    session_id = server.create(SOURCE, 1)
    for host in ("0.0.0.0", "255.255.255.255", "239.1.1.1", "169.254.1.1", "10.1.2.3"):
        code, _message, (info,) = refused(lambda host=host: server.add(session_id, f"{host}:9"))
        assert code == grpc.StatusCode.PERMISSION_DENIED, host
        assert (info.reason, info.metadata["field"]) == ("ADDRESS_DENIED", "subscriber_address")


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"])
def test_the_own_ingest_is_no_subscriber(start_server: StartServer, bind: str) -> None:
    server = start_server(bind_address=bind)
    session_id = server.create(SOURCE, 1)
    spellings = [f"127.0.0.1:{server.ingest.port}", f"[::ffff:127.0.0.1]:{server.ingest.port}"]
    for address in spellings:
        code, *_ = refused(lambda address=address: server.add(session_id, address))
        assert code == grpc.StatusCode.PERMISSION_DENIED


def test_loopback_subscribers_only_while_control_is_on_loopback(start_server: StartServer) -> None:
    server = start_server(grpc_bind_address="0.0.0.0:0", insecure=True)
    session_id = server.create(SOURCE, 1)
    code, *_ = refused(lambda: server.add(session_id, "127.0.0.1:6000"))
    assert code == grpc.StatusCode.PERMISSION_DENIED


def test_adding_twice_makes_no_second_copy(server: ServerProcess, udp: MakeSocket) -> None:
    source, subscriber = udp(), udp()
    address = address_of(subscriber)
    mapped = f"[::ffff:127.0.0.1]:{address.rpartition(':')[2]}"
    session_id = server.create(address_of(source), 1, address, address, mapped)
    assert server.stats(session_id).subscriber_count == 1
    some = [rtp_packet(1, n) for n in range(20)]
    assert transfer(source, server.ingest_target, some, [subscriber]) == [some]
    metrics = server.settled(received=20)
    assert metrics["rtp_packets_sent_total"] == 20
    assert metrics["total_subscribers"] == 1
    assert queued(subscriber) == []
    server.remove(session_id, mapped)
    assert server.stats(session_id).subscriber_count == 0


def test_pages_are_stable_while_sessions_come_and_go(server: ServerProcess) -> None:
    ids = [server.create(SOURCE, n) for n in range(30)]
    seen: list[str] = []
    cursor, turn = "", 0
    while True:
        page = server.stub.ListSessions(pb.ListSessionsRequest(limit=4, cursor=cursor))
        seen += [session.session_id for session in page.sessions]
        cursor = page.next_cursor
        if not cursor:
            break
        server.delete(seen[-1])  # the cursor's own session
        server.delete(ids[-1 - turn])  # one still to come
        if turn < 3:
            server.create(SOURCE, 1000 + turn)
        turn += 1
    assert len(seen) == len(set(seen))
    survivors = [i for i in ids if i not in ids[30 - turn :]]
    assert seen[: len(survivors)] == survivors
    assert len(seen) == len(survivors) + 3


def test_page_sizes(server: ServerProcess) -> None:
    for n in range(1001):
        server.create(SOURCE, n)
    for limit, expected in ((0, 100), (1, 1), (1000, 1000), (2**31 - 1, 1000)):
        page = server.stub.ListSessions(pb.ListSessionsRequest(limit=limit))
        assert len(page.sessions) == expected
        assert page.next_cursor
    rest = server.stub.ListSessions(pb.ListSessionsRequest(cursor=page.next_cursor))
    assert ([s.ssrc for s in rest.sessions], rest.next_cursor) == ([1000], "")


def test_calls_are_counted_by_method_and_code(server: ServerProcess) -> None:
    server.create(SOURCE, 1)
    refused(lambda: server.create(SOURCE, 1))
    refused(lambda: server.delete(UNKNOWN))
    unknown = server.channel.unary_unary("/rtpfanout.SessionService/Nothing")
    with pytest.raises(grpc.RpcError) as error:
        unknown(b"")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    counted = {
        key: value
        for key, value in server.metrics().items()
        if key.startswith("rtpfanout_control_requests_total") and value
    }
    assert counted == {
        'rtpfanout_control_requests_total{code="OK",method="CreateSession"}': 1,
        'rtpfanout_control_requests_total{code="ALREADY_EXISTS",method="CreateSession"}': 1,
        'rtpfanout_control_requests_total{code="NOT_FOUND",method="DeleteSession"}': 1,
    }


def test_an_oversized_or_broken_request_hurts_nobody(server: ServerProcess) -> None:
    call = server.channel.unary_unary("/rtpfanout.SessionService/GetSession")
    for request, code in (
        (b"\x0a\xff\xff\xff\x7f", grpc.StatusCode.UNKNOWN),  # gRPC's own answer
        (b"\x0a\xe8\x07" + b"x" * 300_000, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call(request)
        assert error.value.code() == code
        assert "Traceback" not in str(error.value.details())
    server.create(SOURCE, 1)


def test_health_and_reflection(server: ServerProcess) -> None:
    health = health_pb2_grpc.HealthStub(server.channel)
    for service in ("", "rtpfanout.SessionService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection.ServerReflectionInfo(iter([request]))
    names = {service.name for service in answer.list_services_response.service}
    assert {"rtpfanout.SessionService", "grpc.health.v1.Health"} <= names


def test_status_is_active_while_packets_arrive(server: ServerProcess, udp: MakeSocket) -> None:
    source, subscriber = udp(), udp()
    session_id = server.create(address_of(source), 1, address_of(subscriber))
    get = pb.GetSessionRequest(session_id=session_id)
    assert server.stub.GetSession(get).status == "idle"
    assert not server.stats(session_id).HasField("seconds_since_last_packet")
    source.sendto(rtp_packet(1), server.ingest_target)
    receive(subscriber, 1)
    assert server.stub.GetSession(get).status == "active"
    assert 0 <= server.stats(session_id).seconds_since_last_packet < 60
