"""The limits of service/server.py: what one connection may ask for, and that others pay nothing.

Those that take an hour, or minutes, are shortened for the test by the server's own options.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import http2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_scene import (
    LIMITS,
    LONELY,
    WATCH,
    Event,
    answers,
    connection,
    create,
    peer,
    session_watch,
)
from support import SETTLE_SECONDS, ServerProcess, eventually

from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc
from rtpfanout.service.turns import STREAMS_PER_CONNECTION

if TYPE_CHECKING:
    from collections.abc import Callable
STREAMS = LIMITS["grpc.max_concurrent_streams"]
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def health_watch(stub: Any) -> Any:
    return stub.Watch(health_pb2.HealthCheckRequest())


@pytest.mark.parametrize(
    ("make", "watch"),
    [
        (session_pb2_grpc.SessionServiceStub, session_watch),
        (health_pb2_grpc.HealthStub, health_watch),
    ],
    ids=["sessions", "health"],
)
def test_calls_find_room_beside_all_the_streams_of_a_connection(
    server: ServerProcess, make: Callable[..., Any], watch: Callable[[Any], Any]
) -> None:
    with grpc.insecure_channel(str(server.grpc), LONELY) as channel:
        watcher, caller = make(channel), session_pb2_grpc.SessionServiceStub(channel)
        watches = [watch(watcher) for _ in range(STREAMS_PER_CONNECTION)]
        for one in watches:
            next(one)
        with pytest.raises(grpc.RpcError) as error:
            next(watch(watcher))
        assert error.value.code() == EXHAUSTED
        assert "another connection" in error.value.details()
        many = [caller.ListSessions.future(pb.ListSessionsRequest()) for _ in range(3 * STREAMS)]
        for call in many:
            call.result(timeout=SETTLE_SECONDS)
        with connection(server) as other:
            assert next(session_watch(other)).type == Event.RESET
        watches.pop().cancel()
        eventually(lambda: starts(watch(watcher)), bool, "one has ended, there is room")
        for one in watches:
            one.cancel()


def starts(watch: Any) -> bool:
    try:
        next(watch)
    except grpc.RpcError:
        return False
    return True


def test_streams_beyond_those_are_refused_to_who_does_not_wait(server: ServerProcess) -> None:
    beyond = 20
    with peer(server) as rude:
        for n in range(STREAMS + beyond):
            rude.call(WATCH, 2 * n + 1, b"")
        refused, answered = set(), set()
        while len(refused) < beyond or len(answered) < STREAMS_PER_CONNECTION:
            frame = rude.frame()
            assert frame is not None, "the connection is gone"
            if frame.kind == http2.RST_STREAM:
                assert frame.error in (http2.REFUSED_STREAM, http2.ENHANCE_YOUR_CALM)
                refused.add(frame.stream)
            elif frame.kind == http2.DATA:
                answered.add(frame.stream)
        assert rude.settings[http2.MAX_CONCURRENT_STREAMS] == STREAMS
        assert len(refused) == beyond
        assert not refused & answered
        answers(server)


CLIENT = """
import asyncio, sys
import grpc
from rtpfanout.api import session_pb2 as pb, session_pb2_grpc

async def main(target, session_id, port, calls):
    async with grpc.aio.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        add = session_pb2_grpc.SessionServiceStub(channel).AddSubscriber
        await asyncio.gather(*(
            add(pb.AddSubscriberRequest(
                session_id=session_id, subscriber_address=f"127.1.{n >> 8}.{n & 255}:{port}"))
            for n in range(calls)
        ))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""
CLIENTS = 3
PARALLEL_CALLS = 600


def test_calls_at_a_time_wait_for_each_other_and_none_fails(
    start_server: Callable[..., ServerProcess],
) -> None:
    """By plain clients, which repeat nothing."""
    server = start_server(max_fanout_per_session=CLIENTS * PARALLEL_CALLS)
    session_id = server.create("192.0.2.1:5000", 1)
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(server.grpc), session_id, str(port), str(count)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for port, count in zip(range(6000, 6000 + CLIENTS), [PARALLEL_CALLS] * CLIENTS, strict=True)
    ]
    try:
        for client in clients:
            _, said = client.communicate(timeout=2 * SETTLE_SECONDS)
            assert client.returncode == 0, said
    finally:
        for client in clients:
            client.kill()
    assert server.stats(session_id).subscriber_count == CLIENTS * PARALLEL_CALLS


def test_the_largest_page_of_the_largest_sessions_is_sent(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(max_sessions=1000)
    labels = {f"{n:063}": "v" * 63 for n in range(16)}
    created = [create(server.stub, n, labels=labels).session_id for n in range(1000)]
    page = server.stub.ListSessions(pb.ListSessionsRequest(limit=1000))
    assert [session.session_id for session in page.sessions] == created
    assert dict(page.sessions[-1].labels) == labels
    assert page.ByteSize() > LIMITS["grpc.max_send_message_length"] / 2, "as large as it gets"


def test_metadata_without_end_is_refused(server: ServerProcess) -> None:
    with connection(server) as stub:
        with pytest.raises(grpc.RpcError) as error:
            stub.ListSessions(pb.ListSessionsRequest(), metadata=[("x-long", "x" * 40_000)])
        assert error.value.code() == EXHAUSTED
        stub.ListSessions(pb.ListSessionsRequest())
    answers(server)
