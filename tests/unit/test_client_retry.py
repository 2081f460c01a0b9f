"""Which failures both clients retry, when, and with what; against a real gRPC server."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from client_support import Script, failure, refusing, serving, unavailable
from google.protobuf import empty_pb2

from rtpfanout import errors
from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.client import NO_RETRIES, AsyncSessionClient, RetryPolicy, SessionClient
from rtpfanout.client.retry import Attempts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUICK = RetryPolicy(attempts=4, first_delay=0.01, longest_delay=0.05)

CALLS: dict[str, Callable[[Any], Any]] = {
    "CreateSession": lambda c: c.create_session("192.0.2.1:5000", 1, "video"),
    "GetSession": lambda c: c.get_session("id"),
    "UpdateSession": lambda c: c.update_session("id", paused=True),
    "DeleteSession": lambda c: c.delete_session("id"),
    "ListSessions": lambda c: c.list_sessions(5, "cursor", label_selector="a=b"),
    "AddSubscriber": lambda c: c.add_subscriber("id", "a", ttl_secs=5, subscriber_class="pilot"),
    "RemoveSubscriber": lambda c: c.remove_subscriber("id", "a"),
    "BatchAddSubscribers": lambda c: c.add_subscribers("id", ["a"], ttl_secs=5),
    "BatchRemoveSubscribers": lambda c: c.remove_subscribers("id", ["a"]),
    "ListSubscribers": lambda c: c.list_subscribers("id"),
    "GetSubscriberSdp": lambda c: c.get_subscriber_sdp("id", "a", wait_secs=1, others=[("b", "c")]),
    "GetSessionStats": lambda c: c.get_session_stats("id"),
    "TopSessions": lambda c: c.top_sessions(),
    "ListKnocks": lambda c: c.list_knocks(7),
    "RequestKeyframe": lambda c: c.request_keyframe("id"),
    "IssueJoinToken": lambda c: c.issue_join_token("id", ttl_secs=60, lease_secs=9),
}
MUTATING = {
    "CreateSession": lambda c, i: c.create_session("192.0.2.1:5000", 1, "video", request_id=i),
    "UpdateSession": lambda c, i: c.update_session("id", paused=True, request_id=i),
    "DeleteSession": lambda c, i: c.delete_session("id", request_id=i),
    "AddSubscriber": lambda c, i: c.add_subscriber("id", "a", request_id=i),
    "RemoveSubscriber": lambda c, i: c.remove_subscriber("id", "a", request_id=i),
    "BatchAddSubscribers": lambda c, i: c.add_subscribers("id", ["a"], request_id=i),
    "BatchRemoveSubscribers": lambda c, i: c.remove_subscribers("id", ["a"], request_id=i),
}


def blocking(target: str, call: Callable[[Any], Any], **options: Any) -> Any:
    with SessionClient(target, **options) as client:
        return call(client)


def asynchronous(target: str, call: Callable[[Any], Any], **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncSessionClient(target, **options) as client:
            return await call(client)

    return asyncio.run(run())


both_clients = pytest.mark.parametrize("perform", [blocking, asynchronous])


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def target(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def test_no_call_of_the_contract_is_missing() -> None:
    (service,) = session_pb2.DESCRIPTOR.services_by_name.values()
    assert {method.name for method in service.methods} == {*CALLS, "WatchSessions", "WatchEvents"}
    with_id = {m.name for m in service.methods if "request_id" in m.input_type.fields_by_name}
    assert with_id == set(MUTATING)


def test_both_clients_have_the_same_calls() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(SessionClient) == public(AsyncSessionClient)


@both_clients
@pytest.mark.parametrize("method", CALLS)
def test_each_call_is_made_again_alike_until_the_server_is_there(
    perform: Callable[..., Any], script: Script, target: str, method: str
) -> None:
    script.failures = [unavailable(), unavailable(0.01)]
    perform(target, CALLS[method], retries=QUICK)
    assert script.names == [method] * 3
    first, *again = script.requests
    assert again == [first, first]  # with the same request id, where there is one
    assert (method in MUTATING) == bool(getattr(first, "request_id", ""))


@both_clients
@pytest.mark.parametrize("method", MUTATING)
def test_without_a_request_id_a_change_is_asked_for_once(
    perform: Callable[..., Any], script: Script, target: str, method: str
) -> None:
    script.failures = [unavailable()]
    with pytest.raises(errors.UnreachableError):
        perform(target, lambda client: MUTATING[method](client, ""), retries=QUICK)
    perform(target, lambda client: MUTATING[method](client, "mine"))
    assert [request.request_id for request in script.requests] == ["", "mine"]


@both_clients
@pytest.mark.parametrize(
    "code",
    [code for code in grpc.StatusCode if code.name not in {"OK", "UNAVAILABLE", "CANCELLED"}],
)
def test_no_other_failure_is_retried(
    perform: Callable[..., Any], script: Script, target: str, code: grpc.StatusCode
) -> None:
    script.failures = [failure(code, "no")]
    with pytest.raises(errors.RtpFanoutError):
        perform(target, CALLS["GetSession"], retries=QUICK)
    assert len(script.requests) == 1


@both_clients
def test_attempts_end_and_the_error_tells_what_was_asked(
    perform: Callable[..., Any], script: Script, target: str
) -> None:
    script.failures = [unavailable(0.02)] * 9
    with pytest.raises(errors.UnavailableError, match="too busy") as caught:
        perform(target, CALLS["CreateSession"], retries=QUICK)
    assert caught.value.retry_after == pytest.approx(0.02)
    assert len(script.requests) == QUICK.attempts
    with pytest.raises(errors.UnavailableError):
        perform(target, CALLS["CreateSession"], retries=NO_RETRIES)
    assert len(script.requests) == QUICK.attempts + 1


@both_clients
def test_a_server_that_asks_for_patience_gets_it(
    perform: Callable[..., Any], script: Script, target: str
) -> None:
    script.failures = [unavailable(0.5)] * 1000
    threading.Timer(0.4, script.failures.clear).start()
    perform(target, CALLS["GetSession"], retries=QUICK)  # all its attempts without, in 0.1 s


@both_clients
def test_a_delay_beyond_the_overall_deadline_is_not_waited_for(
    perform: Callable[..., Any], script: Script, target: str
) -> None:
    script.failures = [unavailable(3600.0)]
    with pytest.raises(errors.UnavailableError):
        perform(target, CALLS["GetSession"], overall_timeout=5.0)
    assert len(script.requests) == 1


@both_clients
def test_within_bounds_a_call_with_all_its_retries(
    perform: Callable[..., Any], script: Script, target: str
) -> None:
    script.failures = [unavailable(0.3)] * 100
    with pytest.raises(errors.UnavailableError):
        perform(
            target,
            lambda client: CALLS["GetSession"](client.within(1.0)),
            retries=RetryPolicy(attempts=1000),
        )
    assert len(script.requests) <= 4


def test_closing_a_client_ends_its_patience(script: Script, target: str) -> None:
    script.failures = [unavailable(3600.0)]
    client = SessionClient(target, overall_timeout=7200.0)
    threading.Timer(0.2, client.close).start()
    with pytest.raises(errors.UnavailableError):  # and not after the timeout of this test
        client.get_session("id")


def test_only_what_is_given_is_sent_by_update(script: Script, target: str) -> None:
    with SessionClient(target) as client:
        client.update_session("id")
        client.update_session("id", paused=False, source_address=None)
        client.update_session(
            "id", ingest_limit_bps=0, move_key=b"", labels={"a": "", "b": "c"}, if_revision=7
        )
    shown = [
        {field.name for field, _ in request.ListFields()} - {"session_id", "request_id"}
        for request in script.requests
    ]
    assert shown == [
        set(),
        {"paused"},
        {"ingest_limit_bps", "move_key", "labels", "if_revision"},
    ]
    assert script.requests[1].paused is False


def test_every_field_of_a_new_session_arrives(script: Script, target: str) -> None:
    options: dict[str, Any] = {
        "source_policy": "latch",
        "latch_window_secs": 10.0,
        "relatch_after_secs": 5.0,
        "labels": {"vehicle": "rover-7"},
        "ingest_limit_bps": 8_000_000,
        "max_subscribers": 4,
        "consent": "echo",
        "move_key": b"k" * 16,
        "request_id": "r1",
    }
    with SessionClient(target) as client:
        client.create_session("192.0.2.0/24", 1, "video", **options)
    assert script.requests == [
        session_pb2.CreateSessionRequest(
            source_address="192.0.2.0/24", ssrc=1, media_type="video", **options
        )
    ]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ingest_limit_bps": -1}, "ingest_limit_bps"),
        ({"max_subscribers": 2**31}, "max_subscribers"),
    ],
)
def test_what_no_message_can_hold_names_its_field(
    target: str, change: dict[str, Any], field: str
) -> None:
    with SessionClient(target) as client, pytest.raises(errors.InvalidArgumentError) as caught:
        client.update_session("id", **change)
    assert caught.value.field == field


def test_delays_grow_up_to_the_longest_and_jitter() -> None:
    policy = RetryPolicy(first_delay=0.1, factor=2.0, longest_delay=1.0)
    for retry, full in [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.0), (10_000, 1.0)]:
        drawn = {policy.delay(retry) for _ in range(50)}
        assert len(drawn) > 1
        assert all(full / 2 <= delay <= full for delay in drawn)
    assert 7.05 <= policy.delay(1, asked=7.0) <= 7.1


def test_an_attempt_never_outlasts_the_overall_deadline() -> None:
    attempts = Attempts(RetryPolicy(), repeatable=True, timeout=5.0, overall=2.0)
    assert attempts.timeout() <= 2.0


def test_what_timed_out_is_not_retried() -> None:
    attempts = Attempts(RetryPolicy(), repeatable=True, timeout=1.0, overall=9.0)
    attempts.timeout()
    assert attempts.delay_after(errors.UnreachableError("late", timed_out=True)) is None
    assert attempts.delay_after(errors.UnreachableError("gone")) is not None


AT_A_TIME = 3
ALL_AT_ONCE = 60


class Slow(session_pb2_grpc.SessionServiceServicer):
    """Counts the calls that it looks at."""

    def __init__(self) -> None:
        self.seen = 0

    async def AddSubscriber(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        self.seen += 1
        await asyncio.sleep(0.005)
        return empty_pb2.Empty()


def at_once_blocking(target: str, options: dict[str, Any], arguments: dict[str, Any]) -> list[Any]:
    with SessionClient(target, **options) as client, ThreadPoolExecutor(ALL_AT_ONCE) as pool:

        def add(n: int) -> Any:
            try:
                client.add_subscriber("id", str(n), **arguments)
            except errors.RtpFanoutError as error:
                return error
            return None

        return list(pool.map(add, range(ALL_AT_ONCE)))


def at_once_asynchronous(
    target: str, options: dict[str, Any], arguments: dict[str, Any]
) -> list[Any]:
    async def run() -> list[Any]:
        async with AsyncSessionClient(target, **options) as client:
            calls = (client.add_subscriber("id", str(n), **arguments) for n in range(ALL_AT_ONCE))
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(run())


both_at_once = pytest.mark.parametrize("at_once", [at_once_blocking, at_once_asynchronous])


@both_at_once
@pytest.mark.parametrize("arguments", [{}, {"request_id": ""}], ids=["with an id", "without"])
def test_what_was_refused_unread_is_repeated_whatever_the_call(
    at_once: Callable[..., list[Any]], arguments: dict[str, Any]
) -> None:
    slow = Slow()
    with refusing(slow, AT_A_TIME) as target:
        outcomes = at_once(target, {"retries": QUICK, "overall_timeout": 60}, arguments)
    assert outcomes == [None] * ALL_AT_ONCE
    assert slow.seen == ALL_AT_ONCE, "each once"


@both_at_once
def test_without_retries_it_is_an_error_that_says_so(at_once: Callable[..., list[Any]]) -> None:
    slow = Slow()
    with refusing(slow, AT_A_TIME) as target:
        outcomes = at_once(target, {"retries": NO_RETRIES, "timeout": 60}, {})
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert refused, "the server refuses"
    assert slow.seen == ALL_AT_ONCE - len(refused)
    for error in refused:
        assert isinstance(error, errors.StreamRefusedError)
        assert "at a time" in error.message


@both_clients
def test_a_server_that_only_uses_the_words_has_looked_at_the_call(
    perform: Callable[..., Any], script: Script, target: str
) -> None:
    words = "Received RST_STREAM with error code 7"
    script.failures = [failure(grpc.StatusCode.UNAVAILABLE, words)]
    with pytest.raises(errors.UnreachableError):
        perform(target, lambda c: c.delete_session("id", request_id=""), retries=QUICK)
    assert len(script.requests) == 1


@pytest.mark.parametrize("client", [blocking, asynchronous])
def test_a_name_that_an_older_server_does_not_give_is_told(client: Callable[..., Any]) -> None:
    with serving(Script()) as target, pytest.raises(errors.UnimplementedError) as error:
        client(target, lambda c: c.ensure_session("192.0.2.1:5000", 1, "video", name="rover-7"))
    assert "it has made session created without 'rover-7'" in error.value.message
    assert error.value.field == "name"
