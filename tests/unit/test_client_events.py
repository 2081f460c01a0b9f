"""watch_events of both clients over lost connections, against a real gRPC server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from client_support import Script, failure, serving, unavailable

from rtpfanout import errors
from rtpfanout.api import session_pb2 as pb
from rtpfanout.client import AsyncSessionClient, RetryPolicy, SessionClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUICK = RetryPolicy(attempts=3, first_delay=0.01, longest_delay=0.02)


def take_blocking(target: str, count: int, *args: Any, **options: Any) -> Any:
    with (
        SessionClient(target, retries=QUICK) as client,
        client.watch_events(*args, **options) as watch,
    ):
        return [next(watch) for _ in range(count)], watch.sequence


def take_asynchronous(target: str, count: int, *args: Any, **options: Any) -> Any:
    async def run() -> Any:
        async with (
            AsyncSessionClient(target, retries=QUICK) as client,
            client.watch_events(*args, **options) as watch,
        ):
            return [await anext(watch) for _ in range(count)], watch.sequence

    return asyncio.run(run())


both_clients = pytest.mark.parametrize("take", [take_blocking, take_asynchronous])


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def target(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def event(sequence: int, kind: str = "silent") -> pb.Event:
    return pb.Event(sequence=sequence, kind=kind)


def beat(sequence: int) -> pb.Event:
    return event(sequence, "heartbeat")


def asked(script: Script) -> list[int | None]:
    return [
        request.after_sequence if request.HasField("after_sequence") else None
        for request in script.requests
    ]


@both_clients
@pytest.mark.parametrize("end", [[], [unavailable()], [unavailable(0.01)]])
def test_a_lost_watch_goes_on_after_the_last_event(
    take: Callable[..., Any], script: Script, target: str, end: list[Any]
) -> None:
    script.streams = [end, [beat(5), *end], end, [event(6), *end], [event(7), None]]
    if not end:
        script.streams[0] = [unavailable()]
    found, last = take(target, 2, label_selector="x=y", session="a/b", kinds=["silent"])
    assert found == [event(6), event(7)]
    assert asked(script) == [None, None, 5, 5, 6]
    assert last == 7
    for request in script.requests:
        assert (request.label_selector, request.session) == ("x=y", "a/b")
        assert list(request.kinds) == ["silent"]


@both_clients
def test_where_to_begin(take: Callable[..., Any], script: Script, target: str) -> None:
    script.streams = [[event(6), unavailable()], [beat(6), None]]
    since = "2026-03-01T12:00:00Z"
    assert take(target, 2, since=since, heartbeats=True)[0] == [event(6), beat(6)]
    assert [request.since for request in script.requests] == [since, ""]
    script.streams = [[event(1), None]]
    take(target, 1, 0)
    assert asked(script) == [None, 6, 0]


@both_clients
def test_what_no_new_connection_mends_is_raised(
    take: Callable[..., Any], script: Script, target: str
) -> None:
    for code, kind in (
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgumentError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.UnimplementedError),
    ):
        script.streams = [[event(1), failure(code, "no")]]
        with pytest.raises(kind):
            take(target, 2)
    with pytest.raises(errors.InvalidArgumentError) as error:
        take(target, 1, -1)
    assert error.value.field == "after_sequence"
