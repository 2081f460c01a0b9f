"""How many connections a server keeps, which it closes, and how their ends are noticed."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import http2
import pytest
from grpc_scene import LIMITS, WATCH, Event, answers, connection, create, peer, session_watch
from serving import limited, serve_with
from support import SETTLE_SECONDS, ServerProcess, eventually, target

from rtpfanout.api import session_pb2 as pb
from rtpfanout.client import AsyncSessionClient, SessionClient

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def start_with(
    start_server: Callable[..., ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ServerProcess]:
    """Starts a server with options such as {"keepalive_time_ms": 1000}."""

    def start(changed: dict[str, int], files: int = 0) -> ServerProcess:
        options = {f"grpc.{name}": value for name, value in changed.items()}
        assert options.keys() <= LIMITS.keys(), "the server sets no such limit"
        command = serve_with(
            "rtpfanout.service.server", SERVER_OPTIONS=list((LIMITS | options).items())
        )
        if files:
            command = limited(files, command)
        monkeypatch.setattr(ServerProcess, "command", command)
        return start_server(enable_supervisor=False)

    return start


def watch_calls(server: ServerProcess) -> float:
    """How many have ended."""
    name = "rtpfanout_control_requests_total{code="
    counts = server.metrics().items()
    return sum(n for key, n in counts if key.startswith(name) and '"WatchSessions"' in key)


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
    """Every connection ends early, and who creates sessions notices nothing of it."""
    server = start_with({"max_connection_age_ms": 400, "max_connection_age_grace_ms": 100})
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
