"""SessionClient against a real gRPC server that answers as told."""

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf import any_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rtpfanout import errors
from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.client import SessionClient


class ScriptedService(session_pb2_grpc.SessionServiceServicer):
    """Fails with `status` if there is one; else remembers the request and answers."""

    def __init__(self):
        self.status = None
        self.requests = []
        self.pages = []

    def _answer(self, request, context, response):
        self.requests.append(request)
        if self.status is not None:
            context.abort_with_status(rpc_status.to_status(self.status))
        return response

    def CreateSession(self, request, context):  # noqa: N802
        return self._answer(request, context, session_pb2.SessionResponse(session_id="a"))

    def GetSession(self, request, context):  # noqa: N802
        return self._answer(request, context, session_pb2.SessionResponse(session_id="b"))

    def DeleteSession(self, request, context):  # noqa: N802
        return self._answer(request, context, empty_pb2.Empty())

    def ListSessions(self, request, context):  # noqa: N802
        return self._answer(request, context, self.pages.pop(0))

    def AddSubscriber(self, request, context):  # noqa: N802
        return self._answer(request, context, empty_pb2.Empty())

    def RemoveSubscriber(self, request, context):  # noqa: N802
        return self._answer(request, context, empty_pb2.Empty())

    def BatchAddSubscribers(self, request, context):  # noqa: N802
        response = session_pb2.BatchAddSubscribersResponse(added=1, already_present=1)
        return self._answer(request, context, response)

    def BatchRemoveSubscribers(self, request, context):  # noqa: N802
        response = session_pb2.BatchRemoveSubscribersResponse(removed=1, not_found=["x"])
        return self._answer(request, context, response)

    def ListSubscribers(self, request, context):  # noqa: N802
        return self._answer(request, context, self.pages.pop(0))

    def GetSessionStats(self, request, context):  # noqa: N802
        stats = session_pb2.SessionStatsResponse(packets_received=2**63)
        return self._answer(request, context, stats)


@pytest.fixture
def service():
    return ScriptedService()


@pytest.fixture
def client(service):
    server = grpc.server(ThreadPoolExecutor(2))
    session_pb2_grpc.add_SessionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with SessionClient(f"127.0.0.1:{port}") as client:
        yield client
    server.stop(None).wait()


def failure(code, message, *details):
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)


def bad_request(field, description):
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
    return error_details_pb2.BadRequest(field_violations=[violation])


def test_each_call_sends_its_request(client, service):
    assert client.create_session("192.0.2.1:5000", 0xFFFFFFFF, "video").session_id == "a"
    assert client.get_session("id").session_id == "b"
    client.delete_session("id")
    client.add_subscriber("id", "192.0.2.2:6000")
    client.remove_subscriber("id", "192.0.2.2:6000")
    assert client.get_session_stats("id").packets_received == 2**63
    assert client.add_subscribers("id", ["a", "b"]).already_present == 1
    assert client.remove_subscribers("id", ["a", "b"]).not_found == ["x"]
    request_ids = [r.request_id for r in service.requests if hasattr(r, "request_id")]
    assert len(set(request_ids)) == len(request_ids) == 6
    assert all(1 <= len(request_id) <= 64 for request_id in request_ids)
    for request in service.requests:
        request.ClearField("request_id") if hasattr(request, "request_id") else None
    assert service.requests == [
        session_pb2.CreateSessionRequest(
            source_address="192.0.2.1:5000", ssrc=0xFFFFFFFF, media_type="video"
        ),
        session_pb2.GetSessionRequest(session_id="id"),
        session_pb2.DeleteSessionRequest(session_id="id"),
        session_pb2.AddSubscriberRequest(session_id="id", subscriber_address="192.0.2.2:6000"),
        session_pb2.RemoveSubscriberRequest(session_id="id", subscriber_address="192.0.2.2:6000"),
        session_pb2.GetSessionStatsRequest(session_id="id"),
        session_pb2.BatchAddSubscribersRequest(session_id="id", subscriber_addresses=["a", "b"]),
        session_pb2.BatchRemoveSubscribersRequest(session_id="id", subscriber_addresses=["a", "b"]),
    ]


def test_iter_sessions_walks_the_pages(client, service):
    def page(ids, cursor):
        sessions = [session_pb2.SessionResponse(session_id=id_) for id_ in ids]
        return session_pb2.ListSessionsResponse(sessions=sessions, next_cursor=cursor)

    service.pages = [page("ab", "1"), page("", "2"), page("c", "")]
    assert [session.session_id for session in client.iter_sessions(2)] == ["a", "b", "c"]
    assert [(request.limit, request.cursor) for request in service.requests] == [
        (2, ""),
        (2, "1"),
        (2, "2"),
    ]


def test_iter_subscribers_walks_the_pages(client, service):
    def page(addresses, cursor):
        found = [session_pb2.SubscriberResponse(subscriber_address=a) for a in addresses]
        return session_pb2.ListSubscribersResponse(subscribers=found, next_cursor=cursor)

    service.pages = [page("ab", "1"), page("", "2"), page("c", "")]
    found = [subscriber.subscriber_address for subscriber in client.iter_subscribers("id", 2)]
    assert found == ["a", "b", "c"]
    assert [(r.session_id, r.limit, r.cursor) for r in service.requests] == [
        ("id", 2, ""),
        ("id", 2, "1"),
        ("id", 2, "2"),
    ]


def test_an_older_server_is_told_apart(client, service):
    service.status = failure(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
    with pytest.raises(errors.UnimplementedError, match=client.target):
        client.add_subscribers("id", ["a"])


def test_each_violation_of_a_batch_is_kept(client, service):
    detail = error_details_pb2.BadRequest(
        field_violations=[
            {"field": "subscriber_addresses[1]", "description": "odd"},
            {"field": "subscriber_addresses[4]", "description": "port 0"},
        ]
    )
    info = error_details_pb2.ErrorInfo(reason="DENIED", metadata={"field": "something"})
    for code, kind, details in [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgumentError, [detail]),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDeniedError, [info, detail]),
    ]:
        service.status = failure(code, "2 of 5 are refused", *details)
        with pytest.raises(kind) as caught:
            client.add_subscribers("id", ["a"])
        assert caught.value.field == "subscriber_addresses[1]"
        assert caught.value.violations == (
            errors.Violation("subscriber_addresses[1]", "odd"),
            errors.Violation("subscriber_addresses[4]", "port 0"),
        )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgumentError),
        (grpc.StatusCode.ALREADY_EXISTS, errors.AlreadyExistsError),
        (grpc.StatusCode.NOT_FOUND, errors.NotFoundError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.LimitError),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDeniedError),
        (grpc.StatusCode.UNAUTHENTICATED, errors.UnauthenticatedError),
        (grpc.StatusCode.ABORTED, errors.AbortedError),
        (grpc.StatusCode.UNAVAILABLE, errors.UnreachableError),
        (grpc.StatusCode.INTERNAL, errors.RtpFanoutError),
    ],
)
def test_status_codes_become_errors(client, service, code, kind):
    service.status = failure(code, "the reason")
    with pytest.raises(errors.RtpFanoutError, match="the reason") as caught:
        client.get_session("id")
    assert type(caught.value) is kind
    assert caught.value.field is None


def test_the_bad_request_names_the_field(client, service):
    service.status = failure(
        grpc.StatusCode.INVALID_ARGUMENT,
        "source_address: port 0",
        error_details_pb2.ErrorInfo(reason="OTHER"),
        bad_request("source_address", "port 0 cannot send"),
    )
    with pytest.raises(errors.InvalidArgumentError) as caught:
        client.create_session("192.0.2.1:0", 1, "video")
    assert caught.value.field == "source_address"
    assert caught.value.message == "port 0 cannot send"


def test_quotas_and_error_infos_name_their_field_too(client, service):
    quota = error_details_pb2.QuotaFailure(violations=[{"subject": "max_sessions"}])
    info = error_details_pb2.ErrorInfo(reason="DENIED", metadata={"field": "subscriber_address"})
    for code, detail, field in [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, quota, "max_sessions"),
        (grpc.StatusCode.PERMISSION_DENIED, info, "subscriber_address"),
    ]:
        service.status = failure(code, "the reason", detail)
        with pytest.raises(errors.RtpFanoutError, match="the reason") as caught:
            client.get_session("id")
        assert caught.value.field == field


@pytest.mark.parametrize("ssrc", [-1, 2**32])
def test_an_ssrc_that_no_message_can_hold_is_invalid(client, ssrc):
    with pytest.raises(errors.InvalidArgumentError) as caught:
        client.create_session("192.0.2.1:1", ssrc, "video")
    assert caught.value.field == "ssrc"


def test_no_server_is_unreachable_and_names_the_target(unused_port):
    with (
        SessionClient(f"127.0.0.1:{unused_port}") as client,
        pytest.raises(
            errors.UnreachableError, match=f"127.0.0.1:{unused_port}.*Connection refused"
        ),
    ):
        client.get_session("id")


def test_a_server_that_never_answers_is_unreachable_at_the_deadline(silent_port):
    with (
        SessionClient(f"127.0.0.1:{silent_port}", timeout=0.3) as client,
        pytest.raises(errors.UnreachableError, match=f"127.0.0.1:{silent_port}"),
    ):
        client.get_session("id")


def test_a_proxy_in_the_environment_is_not_asked(client, monkeypatch, unused_port):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port}")
    with SessionClient(client.target) as second:
        assert second.get_session("id").session_id == "b"


@pytest.fixture
def silent_port():
    """A TCP port that takes connections and never says a word."""
    with socket_on_free_port() as listener:
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def unused_port():
    """A TCP port that nobody listens on: bound, so that nobody else takes it."""
    with socket_on_free_port() as bound:
        yield bound.getsockname()[1]


def socket_on_free_port():
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    return bound
