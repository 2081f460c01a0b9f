"""A server that is killed and started again has everything it acknowledged."""

from __future__ import annotations

import signal
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from support import ServerProcess, address_of, rtp_packet

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path


def subscribers(server: ServerProcess, session_id: str) -> list[pb.SubscriberResponse]:
    request = pb.ListSubscribersRequest(session_id=session_id, limit=1000)
    return list(server.stub.ListSubscribers(request).subscribers)


def test_kill_9_and_start_again(
    start_server: Callable[..., ServerProcess],
    udp: Callable[..., socket.socket],
    tmp_path: Path,
) -> None:
    source, receiver = udp(), udp()
    path = tmp_path / "state" / "sessions.db"
    path.parent.mkdir()
    server = start_server(store__path=path)
    request = pb.CreateSessionRequest(
        source_address=address_of(source),
        ssrc=7,
        media_type="video",
        labels={"vehicle": "rover-7"},
        request_id="once",
    )
    created = server.stub.CreateSession(request)
    gone = server.create("192.0.2.1:5000", 8)
    server.delete(gone)
    server.add(created.session_id, address_of(receiver))
    server.stub.AddSubscriber(
        pb.AddSubscriberRequest(
            session_id=created.session_id,
            subscriber_address="127.0.0.1:9",
            ttl_secs=1000,
            subscriber_class="recorder",
        )
    )
    before = subscribers(server, created.session_id)
    server.stop(signal.SIGKILL)

    server = start_server(store__path=path)
    restored = server.logged("restored")
    assert (restored["sessions"], restored["subscribers"]) == (1, 2)
    (session,) = server.stub.ListSessions(pb.ListSessionsRequest()).sessions
    assert session.subscriber_count == 2
    assert (session.session_id, session.created_at, dict(session.labels), session.revision) == (
        created.session_id,
        created.created_at,
        {"vehicle": "rover-7"},
        created.revision,
    )
    after = subscribers(server, created.session_id)
    for was, now in zip(sorted(before, key=str), sorted(after, key=str), strict=True):
        assert now.subscriber_address == was.subscriber_address
        assert now.subscriber_class == was.subscriber_class
        assert bool(now.expires_at) == bool(was.expires_at)
        if was.expires_at:
            one, two = map(datetime.fromisoformat, (was.expires_at, now.expires_at))
            assert abs((two - one).total_seconds()) <= 1
    source.sendto(rtp_packet(7), server.ingest_target)
    assert receiver.recv(2048) == rtp_packet(7)
    assert server.stub.CreateSession(request) == created
    assert server.create("192.0.2.1:5000", 8) != gone
    assert server.stop() == 0


def test_what_was_acknowledged_survives_a_kill_in_the_middle(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Many callers at once; the server dies under them."""
    path = tmp_path / "sessions.db"
    server = start_server(store__path=path)
    session_id = server.create("192.0.2.1:5000", 1)
    acknowledged: dict[str, bool] = {}  # address: is a subscriber
    unsure: set[str] = set()
    lock = threading.Lock()

    def call(caller: int) -> None:
        for n in range(1000):
            address = f"192.0.2.{caller + 10}:{1000 + n % 7}"
            is_there = acknowledged.get(address, False)
            with lock:
                unsure.add(address)
            try:
                (server.remove if is_there else server.add)(session_id, address)
            except grpc.RpcError:
                return
            with lock:
                acknowledged[address] = not is_there
                unsure.discard(address)

    callers = [threading.Thread(target=call, args=[n]) for n in range(12)]
    for caller in callers:
        caller.start()
    threading.Event().wait(1.0)
    server.process.kill()
    for caller in callers:
        caller.join(60)
    assert len(acknowledged) > 12
    server = start_server(store__path=path)
    there = {s.subscriber_address for s in subscribers(server, session_id)}
    sure = set(acknowledged) - unsure
    assert {address for address in sure if acknowledged[address]} == there & sure
    assert server.stub.GetSession(
        pb.GetSessionRequest(session_id=session_id)
    ).subscriber_count == len(there)


@pytest.mark.usefixtures("start_server")
def test_two_servers_do_not_share_a_store(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    path = tmp_path / "sessions.db"
    start_server(store__path=path)
    with pytest.raises(pytest.fail.Exception, match=r"store\.path"):
        ServerProcess(store__path=path)


def test_a_refusal_names_the_limit(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(limits__max_subscribers=1, limits__max_subscribers_per_ip=1)
    session_id = server.create("192.0.2.1:5000", 1, "192.0.2.9:1")

    def refused(call: Any, request: Any) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as error:
            call(request)
        caught: grpc.RpcError = error.value
        return caught

    add = pb.AddSubscriberRequest(session_id=session_id, subscriber_address="192.0.2.9:2")
    error = refused(server.stub.AddSubscriber, add)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "limits.max_subscribers" in error.details()
    update = pb.UpdateSessionRequest(session_id=session_id, if_revision=1)
    assert refused(server.stub.UpdateSession, update).code() is grpc.StatusCode.ABORTED
    update = pb.UpdateSessionRequest(session_id=session_id, source_address="192.0.2.9:1")
    assert refused(server.stub.UpdateSession, update).code() is grpc.StatusCode.PERMISSION_DENIED
