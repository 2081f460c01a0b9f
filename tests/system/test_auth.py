"""Who may command a real server: each call with each kind of credentials, over real TLS."""

from __future__ import annotations

import stat
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pki import SECRET, Authority, bearer, token, write_keys, write_server
from secured import (
    DENIED,
    SECONDS,
    SERVICE,
    SUBSCRIBER,
    UNAUTHENTICATED,
    outcome,
    request_for,
    secured,
)
from support import ServerProcess, eventually

from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc
from rtpfanout.auth import OPERATING, SUBSCRIBING, UNCONFINED, Identity, Role

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    StartServer = Callable[..., ServerProcess]
    MakeSocket = Callable[..., socket.socket]
NOT_FOUND = grpc.StatusCode.NOT_FOUND
MOVE_KEY = b"a key that nobody may see"


class Secured:
    """A server with TLS and tokens, and a session of vehicle a with a subscriber."""

    def __init__(self, place: Path, **more: object) -> None:
        self.authority = Authority()
        files = write_server(place, self.authority)
        keys = write_keys(place / "keys.json")
        self.socket = str(place / "socket")
        self.server = ServerProcess(
            auth__jwt_keys=keys, grpc_unix_socket=self.socket, **files, **more
        )
        self.address = str(self.server.grpc)
        self.stack = ExitStack()
        self.stub = self.stack.enter_context(secured(self.address, self.authority))
        created = pb.CreateSessionRequest(
            source_address="127.0.0.1:5000",
            ssrc=1,
            media_type="video",
            move_key=MOVE_KEY,
            labels={"site": "north"},
        )
        a = {"vehicle": "a"}
        self.session = self.stub.CreateSession(
            created, metadata=bearer(role="operator", labels=a, sub="ann")
        )
        self.stub.AddSubscriber(
            pb.AddSubscriberRequest(
                session_id=self.session.session_id, subscriber_address=SUBSCRIBER
            ),
            metadata=bearer(role="subscriber", labels=a),
        )

    def stop(self) -> None:
        self.stack.close()
        self.server.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    running = Secured(tmp_path_factory.mktemp("pki"))
    yield running
    running.server.check_identities()
    running.stop()


METHODS = [method.name for method in SERVICE.methods]
ABOUT_A_SESSION = [
    method.name for method in SERVICE.methods if "session_id" in method.input_type.fields_by_name
]


@pytest.mark.parametrize("method", METHODS)
def test_each_call_with_each_kind_of_credentials(running: Secured, method: str) -> None:
    stub, foreign = running.stub, running.session.session_id
    request = request_for(method, foreign)
    expired = time.time() - 60
    for metadata in (
        None,
        [("authorization", "Basic eDp5")],
        bearer(role="admin", exp=expired),
        bearer(b"x" * 32, role="admin"),
        bearer(role="admin", aud="elsewhere"),
        bearer(role="Admin"),
        bearer(role="admin", labels={"vehicle": "a,site=b"}),
        bearer(role="admin") + bearer(role="admin"),
    ):
        code, _ = outcome(stub, method, request, metadata)
        assert code == UNAUTHENTICATED, metadata
    with secured(running.address, Authority()) as stranger:
        code, _ = outcome(stranger, method, request, bearer(role="admin"))
        assert code == grpc.StatusCode.UNAVAILABLE, "the server isn't who it should be"
    for role in Role:
        if not Identity("", role).may(method):
            for session in (foreign, str(uuid.uuid4()), "no id"):
                found = outcome(stub, method, request_for(method, session), bearer(role=role))
                assert found[0] == DENIED
    if method in ABOUT_A_SESSION:
        for role in Role:
            if Identity("", role).may(method):
                code, _ = outcome(stub, method, request, bearer(role=role, labels={"vehicle": "b"}))
                assert code == NOT_FOUND
    own = dict(request_fields(request))
    mine = {"vehicle": "a"} if method in ABOUT_A_SESSION else {"vehicle": f"of {method}"[3:]}
    if method == "DeleteSession":
        own["session_id"] = make_session(running, 77, mine)
    labels = {} if method in UNCONFINED else mine
    caller = bearer(role="operator", labels=labels)
    code, answer = outcome(stub, method, type(request)(**own), caller)
    if method == "GetSubscriberSdp":  # who may ask is told that no packet has come yet
        assert code == grpc.StatusCode.FAILED_PRECONDITION, answer
        return
    assert code == grpc.StatusCode.OK, answer
    if method == "CreateSession":
        assert dict(answer.labels) == mine
    if method == "RemoveSubscriber":
        again = request_for("AddSubscriber", foreign)
        assert outcome(stub, "AddSubscriber", again, bearer(role="admin"))[0] is grpc.StatusCode.OK


def request_fields(request: Any) -> Iterator[tuple[str, Any]]:
    for field, value in request.ListFields():
        yield field.name, value


def make_session(running: Secured, ssrc: int, labels: dict[str, str]) -> str:
    request = request_for("CreateSession", "")
    request.ssrc = ssrc
    request.labels.update(labels)
    answer = running.stub.CreateSession(request, metadata=bearer(role="admin"))
    return str(answer.session_id)


@pytest.mark.parametrize("method", ABOUT_A_SESSION)
def test_a_foreign_session_answers_as_none(running: Secured, method: str) -> None:
    """Byte by byte but for the id, whatever else is wrong with the request."""
    foreign, none = running.session.session_id, str(uuid.uuid4())
    b = bearer(role="admin", labels={"vehicle": "b"})
    spoilt: list[dict[str, Any]] = [
        {},
        {"request_id": "spaces are bad"},
        {"request_id": "again"},
        {"ttl_secs": -1.0},
        {"lease_secs": -1.0},
        {"subscriber_class": "nobody"},
        {"subscriber_address": "nonsense"},
        {"subscriber_addresses": ["nonsense"]},
        {"cursor": "nonsense"},
        {"limit": -1},
        {"source_address": "nonsense"},
        {"if_revision": 1},
        {"labels": {"vehicle": ""}},
        {"labels": {"bad key": "x"}},
    ]
    for change in spoilt:
        answers = []
        for session_id in (foreign, none, foreign.upper(), none.upper()):
            request = request_for(method, session_id)
            if not change.keys() <= set(request.DESCRIPTOR.fields_by_name):
                continue
            fields = dict(request_fields(request)) | change
            code, told = outcome(running.stub, method, type(request)(**fields), b)
            assert code is not grpc.StatusCode.OK
            hidden = repr((code, told))
            for text in (foreign, none):
                hidden = hidden.replace(text, "ID").replace(text.upper(), "ID")
            answers.append(hidden)
        assert len(set(answers)) <= 1, change


def test_nothing_of_a_foreign_session_is_listed(running: Secured) -> None:
    b = bearer(role="admin", labels={"vehicle": "b"})
    for selector in ("", "site=north", "vehicle=a", "vehicle=b", "vehicle=a,vehicle=b"):
        request = pb.ListSessionsRequest(label_selector=selector, limit=1)
        answer = running.stub.ListSessions(request, metadata=b)
        assert answer == pb.ListSessionsResponse()
    for selector in ("vehicle=b,", ",", "vehicle!=b", "*"):
        request = pb.ListSessionsRequest(label_selector=selector)
        code, _ = outcome(running.stub, "ListSessions", request, b)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
    # A page of mine begins where one of all sessions ended: it is a place, not a permission.
    make_session(running, 100, {})
    page = running.stub.ListSessions(pb.ListSessionsRequest(limit=1), metadata=bearer(role="admin"))
    request = pb.ListSessionsRequest(cursor=page.next_cursor)
    assert running.stub.ListSessions(request, metadata=b) == pb.ListSessionsResponse()


def events_of_its_own_alone(running: Secured, watcher: Any, mine: tuple[str, str]) -> None:
    """All that are kept: of the server and of other sessions none is among them."""
    found = []
    for event in running.stub.WatchEvents(
        pb.WatchEventsRequest(after_sequence=0), metadata=watcher
    ):
        if event.kind == "heartbeat":
            break
        found.append((event.kind, event.session_id, dict(event.labels)))
    labels = {"vehicle": "watched"}
    first, last = mine
    assert found == [
        ("created", first, labels), ("deleted", first, labels), ("created", last, labels),
    ]  # fmt: skip


def test_a_watch_sees_its_own_alone_and_ends_with_its_token(running: Secured) -> None:
    admin = bearer(role="admin")
    labels = {"vehicle": "watched"}
    watcher = bearer(role="viewer", labels=labels, exp=time.time() + 600)
    watch = running.stub.WatchSessions(pb.WatchSessionsRequest(), metadata=watcher)
    kinds = pb.SessionEvent
    assert [next(watch).type for _ in range(2)] == [kinds.RESET, kinds.SYNCED]
    make_session(running, 201, {"vehicle": "other"})
    mine = make_session(running, 202, labels)
    created = next(watch)
    assert (created.type, created.session.session_id) == (kinds.CREATED, mine)
    running.stub.UpdateSession(
        pb.UpdateSessionRequest(
            session_id=mine, labels={"vehicle": "other"}, source_address="127.0.0.1:5999"
        ),
        metadata=admin,
    )
    gone = next(watch)
    assert (gone.type, gone.session.session_id) == (kinds.DELETED, mine)
    assert dict(gone.session.labels) == labels
    assert gone.session.source_address == "127.0.0.1:5001", "nothing of what it became"
    running.stub.DeleteSession(pb.DeleteSessionRequest(session_id=mine), metadata=admin)
    last = make_session(running, 203, labels)
    assert next(watch).session.session_id == last, "and no event of what is foreign now"
    watch.cancel()
    events_of_its_own_alone(running, watcher, (mine, last))
    leeway = 10
    short = bearer(role="viewer", labels=labels, exp=int(time.time()) + 2 - leeway)
    watch = running.stub.WatchSessions(pb.WatchSessionsRequest(), metadata=short, timeout=SECONDS)
    eventually(
        lambda: outcome(running.stub, "ListSessions", pb.ListSessionsRequest(), short)[0],
        lambda code: code is UNAUTHENTICATED,
        "the token has expired",
    )
    make_session(running, 204, labels)  # with the next event, or heartbeat, the watch ends
    with pytest.raises(grpc.RpcError) as caught:
        list(watch)
    error: Any = caught.value
    assert error.code() == UNAUTHENTICATED


def test_the_answer_to_a_request_id_is_its_callers(running: Secured) -> None:
    request = request_for("CreateSession", "")
    request.ssrc, request.request_id = 300, "1"
    ann = bearer(role="operator", labels={"vehicle": "ann"}, sub="ann")
    bob = bearer(role="operator", labels={"vehicle": "bob"}, sub="bob")
    created = running.stub.CreateSession(request, metadata=ann)
    assert running.stub.CreateSession(request, metadata=ann) == created
    assert outcome(running.stub, "CreateSession", request, bob)[0] is (
        grpc.StatusCode.ALREADY_EXISTS
    )
    delete = pb.DeleteSessionRequest(session_id=created.session_id, request_id="2")
    running.stub.DeleteSession(delete, metadata=ann)
    running.stub.DeleteSession(delete, metadata=ann)
    assert outcome(running.stub, "DeleteSession", delete, bob)[0] == NOT_FOUND


def test_labels_of_the_scope_cannot_be_left(running: Secured) -> None:
    a = bearer(role="operator", labels={"vehicle": "a"})
    for labels in ({"vehicle": ""}, {"vehicle": "b"}):
        request = pb.UpdateSessionRequest(session_id=running.session.session_id, labels=labels)
        assert outcome(running.stub, "UpdateSession", request, a)[0] == DENIED
    request = pb.UpdateSessionRequest(session_id=running.session.session_id, labels={"site": ""})
    assert dict(running.stub.UpdateSession(request, metadata=a).labels) == {"vehicle": "a"}


def test_the_unix_socket_is_for_owner_and_group_and_asks_for_nothing(running: Secured) -> None:
    mode = Path(running.socket).lstat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    with grpc.insecure_channel(f"unix:{running.socket}") as channel:
        stub = session_pb2_grpc.SessionServiceStub(channel)
        request = pb.GetSessionRequest(session_id=running.session.session_id)
        assert stub.GetSession(request).session_id == running.session.session_id


def test_health_needs_no_credentials_and_reflection_is_not_there(running: Secured) -> None:
    credentials = grpc.ssl_channel_credentials(running.authority.pem)
    with grpc.secure_channel(running.address, credentials) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        assert health.Check(health_pb2.HealthCheckRequest()).status == 1
        listing = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/X")
        with pytest.raises(grpc.RpcError) as caught:
            list(listing(iter(())))
        error: Any = caught.value
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_audit_tells_of_success_and_refusal_and_no_secret(running: Secured) -> None:
    shown = token(role="viewer", sub="eve")
    metadata = [("authorization", f"Bearer {shown}")]
    request = pb.DeleteSessionRequest(session_id=running.session.session_id)
    assert outcome(running.stub, "DeleteSession", request, metadata)[0] == DENIED
    lines = eventually(
        lambda: [e for e in list(running.server.log) if e["event"] == "audit"],
        lambda found: any(e["who"] == "eve" for e in found),
        "the line about eve",
    )
    (created,) = (
        e
        for e in lines
        if e["who"] == "ann"
        and e["call"] == "CreateSession"
        and e["session_id"] == running.session.session_id
    )
    assert (created["outcome"], created["role"]) == ("OK", "operator")
    assert (created["scope"], created["ssrc"]) == ("vehicle=a", 1)
    (denied,) = (e for e in lines if e["who"] == "eve")
    assert (denied["outcome"], denied["call"]) == ("PERMISSION_DENIED", "DeleteSession")
    assert {e["call"] for e in lines} <= OPERATING | SUBSCRIBING
    everything = repr((running.server.log, running.server.other_lines))
    for secret in (MOVE_KEY.decode(), shown, shown.split(".")[1], SECRET.decode()):
        assert secret not in everything


def test_failures_are_counted_by_reason(running: Secured) -> None:
    def count() -> float:
        return running.server.metrics()['rtpfanout_authentication_failures_total{reason="expired"}']

    before = count()
    late = bearer(role="admin", exp=time.time() - 60)
    outcome(running.stub, "ListSessions", pb.ListSessionsRequest(), late)
    assert count() == before + 1


def test_limits_of_a_call(running: Secured) -> None:
    admin = bearer(role="admin")
    large = pb.GetSessionRequest(session_id="x" * 300_000)
    assert outcome(running.stub, "GetSession", large, admin)[0] is (
        grpc.StatusCode.RESOURCE_EXHAUSTED
    )
    long = [("authorization", "Bearer " + "x" * 9000)]
    assert outcome(running.stub, "GetSession", pb.GetSessionRequest(), long)[0] == UNAUTHENTICATED
    deep = [("authorization", "Bearer " + "W1tbW1tb" * 1000 + ".e30.")]
    assert outcome(running.stub, "GetSession", pb.GetSessionRequest(), deep)[0] == UNAUTHENTICATED
    assert not [e for e in running.server.log if e["event"] == "call failed"]
