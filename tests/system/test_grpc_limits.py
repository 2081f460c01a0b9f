"""The limits of service/server.py: what one connection may ask for, and that others pay nothing.

Those that take an hour, or minutes, are shortened for the test by the server's own options.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import http2
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import SETTLE_SECONDS, ServerProcess, eventually, target

from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc
from rtpfanout.client import AsyncSessionClient, SessionClient
from rtpfanout.service.server import SERVER_OPTIONS
from rtpfanout.service.turns import STREAMS_PER_CONNECTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMITS = dict(SERVER_OPTIONS)
STREAMS = LIMITS["grpc.max_concurrent_streams"]
WATCH = "/rtpfanout.SessionService/WatchSessions"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
Event = pb.SessionEvent
LONELY = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
"""A channel has a connection of its own."""

# `rtpfanout serve` with other gRPC options.
SERVE_WITH = """
import json, sys
from rtpfanout.service import server
options = json.loads(sys.argv.pop(1))
server.SERVER_OPTIONS = tuple((dict(server.SERVER_OPTIONS) | options).items())
from rtpfanout.cli.app import main
sys.argv[:] = ["rtpfanout", "serve"]
main()
"""


@pytest.fixture
def start_with(
    start_server: Callable[..., ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ServerProcess]:
    """Starts a server with options such as {"keepalive_time_ms": 1000}."""

    def start(changed: dict[str, int], files: int = 0) -> ServerProcess:
        options = {f"grpc.{name}": value for name, value in changed.items()}
        assert options.keys() <= LIMITS.keys(), "the server sets no such limit"
        command = [sys.executable, "-c", SERVE_WITH, json.dumps(options)]
        if files:
            command = limited(files, command)
        monkeypatch.setattr(ServerProcess, "command", command)
        return start_server(enable_supervisor=False)

    return start


def limited(files: int, command: list[str]) -> list[str]:
    """`command`, which may have so many open files."""
    return ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]


@contextmanager
def connection(server: ServerProcess) -> Iterator[session_pb2_grpc.SessionServiceStub]:
    """A stub on a connection of its own."""
    with grpc.insecure_channel(str(server.grpc), LONELY) as channel:
        yield session_pb2_grpc.SessionServiceStub(channel)


def peer(server: ServerProcess, **how: bool) -> http2.Peer:
    return http2.Peer(str(server.grpc.ip), server.grpc.port, SETTLE_SECONDS, **how)


def answers(server: ServerProcess) -> None:
    """Who has another connection gets an answer."""
    server.stub.ListSessions(pb.ListSessionsRequest(), timeout=SETTLE_SECONDS)


def create(stub: Any, ssrc: int, **more: Any) -> Any:
    request = pb.CreateSessionRequest(
        source_address="192.0.2.1:5000", ssrc=ssrc, media_type="video", **more
    )
    return stub.CreateSession(request, timeout=SETTLE_SECONDS)


def watch_calls(server: ServerProcess) -> float:
    """How many have ended."""
    name = "rtpfanout_control_requests_total{code="
    counts = server.metrics().items()
    return sum(n for key, n in counts if key.startswith(name) and '"WatchSessions"' in key)


def health_watch(stub: Any) -> Any:
    return stub.Watch(health_pb2.HealthCheckRequest())


def session_watch(stub: Any) -> Any:
    return stub.WatchSessions(pb.WatchSessionsRequest())


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


@pytest.mark.parametrize("says", [b"", b"PRI * HTTP/2.0\r\n"], ids=["nothing", "half a preface"])
def test_who_connects_and_says_nothing_is_sent_away(
    start_with: Callable[..., ServerProcess], says: bytes
) -> None:
    server = start_with({"server_handshake_timeout_ms": 500})
    with socket.create_connection(target(server.grpc), SETTLE_SECONDS) as silent:
        silent.sendall(says)
        while silent.recv(65536):
            pass
    answers(server)


def open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


@pytest.mark.usefixtures("many_files")
def test_connections_beyond_its_share_are_closed_and_leave_descriptors(
    start_server: Callable[..., ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 400
    monkeypatch.setattr(ServerProcess, "command", limited(limit, ServerProcess.command))
    server = start_server(enable_supervisor=False)
    held = open_files(server)
    with ExitStack() as stack:
        for _ in range(limit):
            silent = stack.enter_context(socket.socket())
            silent.setblocking(False)
            silent.connect_ex(target(server.grpc))
        eventually(lambda: open_files(server), lambda n: n > held + 50, "they came")
        assert server.http("/healthz").status_code == 200
        assert open_files(server) < limit - 100, "some are kept back"
    eventually(lambda: reached(server), bool, "and who has a call is let in again")
    assert not server.other_lines


def test_who_opens_many_connections_does_not_keep_others_out(
    start_with: Callable[..., ServerProcess],
) -> None:
    """Also not those at the same address, nor ends what they have."""
    server = start_with({"server_handshake_timeout_ms": 600_000}, files=300)
    with ExitStack() as stack:
        stub = stack.enter_context(connection(server))
        watch = session_watch(stub)
        assert [next(watch).type for _ in range(2)] == [Event.RESET, Event.SYNCED]
        for _ in range(300):
            silent = stack.enter_context(socket.socket())
            silent.setblocking(False)
            silent.connect_ex(target(server.grpc))
        for _ in range(3):
            eventually(lambda: reached(server), bool, "there is room for who has a call")
        created = create(stub, 1)
        assert next(watch).session == created
        watch.cancel()
    name = 'rtpfanout_connections_ended_total{reason="api_crowded"}'
    assert server.metrics()[name] > 0


def reached(server: ServerProcess) -> bool:
    with connection(server) as stub:
        try:
            stub.ListSessions(pb.ListSessionsRequest(), timeout=5)
        except grpc.RpcError:
            return False
    return True


def test_who_pings_without_end_is_sent_away(server: ServerProcess) -> None:
    with connection(server) as stub, peer(server) as rude:
        watch = stub.WatchSessions(pb.WatchSessionsRequest())
        assert [next(watch).type for _ in range(2)] == [Event.RESET, Event.SYNCED]
        frame: http2.Frame | None = None
        for n in range(100):
            rude.send(http2.PING, n.to_bytes(8))
            frame = rude.frame()
            while frame and frame.kind not in (http2.PING, http2.GOAWAY):
                frame = rude.frame()
            if frame is None or frame.kind == http2.GOAWAY:
                break
        assert frame is not None, "closed without a word"
        assert (frame.kind, frame.error) == (http2.GOAWAY, http2.ENHANCE_YOUR_CALM)
        while rude.frame():
            pass
        answers(server)
        created = create(server.stub, 1)
        assert next(watch).session == created, "nor was the watch of another disturbed"
        watch.cancel()


def test_a_peer_that_is_gone_without_a_word_is_noticed(
    start_with: Callable[..., ServerProcess],
) -> None:
    server = start_with(
        {
            "keepalive_time_ms": 500,
            "keepalive_timeout_ms": 3000,
            "http2.ping_timeout_ms": 3000,
        }
    )
    with peer(server, answers_pings=False) as gone, peer(server) as there:
        asked = []

        def answer() -> None:
            while frame := there.frame():
                asked.append(frame.kind == http2.PING)

        gone.call(WATCH, 1, b"")
        there.call(WATCH, 1, b"")
        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        seen = []
        while frame := gone.frame():
            seen.append(frame.kind)
        assert http2.PING in seen, "it was asked first"
        before = sum(asked)
        eventually(lambda: sum(asked), lambda n: n > before, "who answers stays, and is asked on")
        eventually(lambda: watch_calls(server), lambda n: n == 1, "the watch has ended")
        answers(server)
        there.hang_up()
        answering.join()


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


CONNECTIONS = 4


LAST_SSRC = 2**32 - 1


def follow_blocking(target: str, events: list[pb.SessionEvent]) -> None:
    with SessionClient(target) as client, client.watch_sessions() as watch:
        for event in watch:
            events.append(event)
            if event.session.ssrc == LAST_SSRC:
                return


def follow_asynchronous(target: str, events: list[pb.SessionEvent]) -> None:
    async def run() -> None:
        async with AsyncSessionClient(target) as client, client.watch_sessions() as watch:
            async for event in watch:
                events.append(event)
                if event.session.ssrc == LAST_SSRC:
                    return

    asyncio.run(run())


@pytest.mark.parametrize("follow", [follow_blocking, follow_asynchronous])
def test_a_watch_outlives_its_connection(
    start_with: Callable[..., ServerProcess], follow: Callable[..., None]
) -> None:
    """Every connection ends after a second, and who creates sessions notices nothing of it."""
    server = start_with({"max_connection_age_ms": 1000, "max_connection_age_grace_ms": 300})
    events: list[pb.SessionEvent] = []
    following = threading.Thread(target=follow, args=(str(server.grpc), events), daemon=True)
    following.start()
    eventually(lambda: len(events), lambda n: n == 2, "a snapshot")
    created: list[str] = []
    deadline = time.monotonic() + SETTLE_SECONDS
    for ssrc in itertools.count(1):
        created.append(create(server.stub, ssrc).session_id)
        time.sleep(0.01)
        if ssrc % 50 == 0 and (watch_calls(server) >= CONNECTIONS or time.monotonic() > deadline):
            break
    assert watch_calls(server) >= CONNECTIONS, "its connection was never closed"
    created.append(create(server.stub, LAST_SSRC).session_id)
    following.join(SETTLE_SECONDS)
    assert [event.type for event in events[:2]] == [Event.RESET, Event.SYNCED]
    assert {event.type for event in events[2:]} == {Event.CREATED}, "no snapshot but the first"
    assert [event.session.session_id for event in events[2:]] == created
