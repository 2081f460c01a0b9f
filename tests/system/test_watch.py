"""WatchSessions over gRPC: snapshot, changes in order, going on from a revision, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from serving import serve_with
from support import ServerProcess, eventually
from watches import Watch

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.lent_servers

Event = pb.SessionEvent


def kinds(events: list[pb.SessionEvent]) -> list[int]:
    return [event.type for event in events]


def create(server: ServerProcess, ssrc: int, **labels: str) -> Any:
    return server.stub.CreateSession(
        pb.CreateSessionRequest(
            source_address="192.0.2.1:5000", ssrc=ssrc, media_type="video", labels=labels
        )
    )


def mirror(events: list[pb.SessionEvent]) -> dict[str, pb.SessionResponse]:
    """What a client knows that applies each event as session.proto says."""
    known: dict[str, pb.SessionResponse] = {}
    for event in events:
        if event.type == Event.RESET:
            known.clear()
        elif event.type == Event.DELETED:
            known.pop(event.session.session_id, None)
        elif event.HasField("session"):
            known[event.session.session_id] = event.session
    return known


def test_a_snapshot_then_every_change(server: ServerProcess) -> None:
    ids = [create(server, n).session_id for n in range(3)]
    watch = Watch(server)
    events = watch.until(lambda e: Event.SYNCED in kinds(e))
    assert kinds(events) == [Event.RESET, *[Event.SNAPSHOT] * 3, Event.SYNCED]
    assert [event.session.session_id for event in events[1:4]] == ids
    updated = server.stub.UpdateSession(
        pb.UpdateSessionRequest(session_id=ids[0], paused=True, labels={"a": "b"})
    )
    server.delete(ids[1])
    new = create(server, 9)
    server.add(ids[2], "127.0.0.1:6000")
    server.add(ids[2], "127.0.0.1:6001")
    events = watch.until(lambda e: len(e) >= 9)[5:]
    assert kinds(events) == [Event.UPDATED, Event.DELETED, Event.CREATED, Event.UPDATED]
    assert events[0].session == updated
    assert (updated.status, dict(updated.labels)) == ("paused", {"a": "b"})
    assert events[1].session.session_id == ids[1]
    assert events[2].session == new
    assert events[3].session.subscriber_count == 2
    revisions = [event.revision for event in events]
    assert revisions == sorted(set(revisions))
    assert [event.session.revision for event in events[::2]] == revisions[::2]
    watch.cancel()


def test_going_on_from_a_revision_misses_nothing(server: ServerProcess) -> None:
    create(server, 1)
    first = Watch(server)
    synced = first.until(lambda e: Event.SYNCED in kinds(e))[-1]
    first.cancel()
    for ssrc in range(2, 6):
        create(server, ssrc)
    second = Watch(server, synced.revision)
    events = second.until(lambda e: len(e) >= 4)
    assert kinds(events) == [Event.CREATED] * 4
    assert [event.session.ssrc for event in events] == [2, 3, 4, 5]
    second.cancel()
    third = Watch(server, events[1].revision)
    assert [e.session.ssrc for e in third.until(lambda e: len(e) >= 2)] == [4, 5]
    third.cancel()
    unknown = Watch(server, 2**60)
    assert kinds(unknown.until(lambda e: len(e) >= 7)) == [
        Event.RESET,
        *[Event.SNAPSHOT] * 5,
        Event.SYNCED,
    ]
    unknown.cancel()


def test_a_watch_by_labels(server: ServerProcess) -> None:
    mine = create(server, 1, vehicle="rover-7").session_id
    create(server, 2, vehicle="rover-8")
    watch = Watch(server, selector="vehicle=rover-7")
    assert [e.session.ssrc for e in watch.until(lambda e: len(e) >= 3)] == [0, 1, 0]
    other = create(server, 3, vehicle="rover-8").session_id
    for session_id, vehicle in ((other, "rover-7"), (mine, "rover-8")):
        server.stub.UpdateSession(
            pb.UpdateSessionRequest(session_id=session_id, labels={"vehicle": vehicle})
        )
    server.delete(mine)
    server.delete(other)
    events = watch.until(lambda e: len(e) >= 6)[3:]
    assert kinds(events) == [Event.CREATED, Event.DELETED, Event.DELETED]
    assert [event.session.session_id for event in events] == [other, mine, other]
    watch.cancel()
    with pytest.raises(grpc.RpcError) as error:
        next(server.stub.WatchSessions(pb.WatchSessionsRequest(label_selector="x")))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_heartbeats_tell_where_to_go_on(
    start_server: Callable[..., ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = serve_with("rtpfanout.service.calls", HEARTBEAT_SECONDS=1)
    monkeypatch.setattr(ServerProcess, "command", command)
    server = start_server(enable_supervisor=False)
    watch = Watch(server, selector="nobody=here")
    watch.until(lambda e: len(e) >= 2)
    create(server, 1)
    # One may have come before the session.
    events = watch.until(lambda e: len(e) >= 3 and e[-1].revision != e[1].revision)
    assert kinds(events)[:2] == [Event.RESET, Event.SYNCED]
    assert set(kinds(events)[2:]) == {Event.HEARTBEAT}
    assert events[-1].revision > events[1].revision
    watch.cancel()


def test_a_mirror_is_right_in_the_end(server: ServerProcess) -> None:
    """While sessions come, change and go, and a watcher begins in the middle."""
    ids = [create(server, n).session_id for n in range(40)]
    watches = [Watch(server)]
    for n, session_id in enumerate(ids):
        if n % 3 == 0:
            server.delete(session_id)
        elif n % 3 == 1:
            server.add(session_id, "127.0.0.1:6000")
        if n % 10 == 0:
            watches.append(Watch(server))
            create(server, 100 + n)
    there = {s.session_id: s for s in server.stub.ListSessions(pb.ListSessionsRequest()).sessions}
    for watch in watches:
        eventually(lambda: mirror(list(watch.events)), lambda m: m == there, "the same")  # noqa: B023
        watch.cancel()


def test_watches_end_when_the_server_drains(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server()
    watch = Watch(server)
    watch.until(lambda e: len(e) >= 2)
    server.send_signal(15)
    assert watch.ended() is grpc.StatusCode.OK
    assert server.stop() == 0
