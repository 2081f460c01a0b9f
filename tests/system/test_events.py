"""WatchEvents of a real server: what happens as it does, over a restart, by labels."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cli_support import background, run
from supervisor_scene import kill
from support import ServerProcess, address_of, requires_root, rtp_packet

from rtpfanout.api import session_pb2 as pb
from rtpfanout.client import SessionClient

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cli_support import Background


def kinds(events: list[Any]) -> list[str]:
    return [event.kind for event in events]


def until(watch: Iterator[Any], kind: str) -> list[Any]:
    """The events up to the first of this kind."""
    found = []
    for event in watch:
        found.append(event)
        if event.kind == kind:
            break
    return found


@pytest.mark.lent_servers
def test_what_happens_is_told_as_it_does(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    camera, viewer = udp(), udp()
    with SessionClient(server.calls_target) as client:
        with client.watch_events(heartbeats=True) as watch:
            (begin,) = until(watch, "heartbeat")
            client.create_session(address_of(camera), 7, "video", name="rover/front")
            client.add_subscriber("rover/front", address_of(viewer))
            camera.sendto(rtp_packet(7, 1), server.ingest_target)
            until_flowing = until(watch, "flowing")
            found = until(watch, "silent")
            client.update_session("rover/front", paused=True)
            client.remove_subscriber("rover/front", address_of(viewer))
            client.delete_session("rover/front")
            found += until(watch, "deleted")
            assert kinds([e for e in until_flowing if e.kind != "heartbeat"]) == [
                "created", "subscriber_joined", "flowing",
            ]  # fmt: skip
            assert kinds([e for e in found if e.kind != "heartbeat"]) == [
                "silent", "paused", "subscriber_left", "deleted",
            ]  # fmt: skip
            assert until_flowing[0].session_name == "rover/front"
            assert [e.subscriber_address for e in found if e.kind == "subscriber_left"] == [
                address_of(viewer)
            ]
        with client.watch_events(begin.sequence, kinds=["silent"], heartbeats=True) as watch:
            silent, beat = until(watch, "heartbeat")
        assert silent.kind == "silent"
        assert beat.sequence == found[-1].sequence
        since = found[-1].time
        with client.watch_events(since=since, heartbeats=True) as watch:
            assert kinds(until(watch, "heartbeat")) == ["deleted", "heartbeat"]


@pytest.mark.lent_servers
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.WatchEventsRequest(kinds=["slient"]), "kinds"),
        (pb.WatchEventsRequest(since="yesterday"), "since"),
        (pb.WatchEventsRequest(label_selector="x"), "label_selector"),
        (pb.WatchEventsRequest(session="no name"), "session"),
        (pb.WatchEventsRequest(after_sequence=1, since="2026-01-01T00:00:00Z"), "since"),
    ],
)
def test_what_cannot_be_asked_for(
    server: ServerProcess, request_: pb.WatchEventsRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        next(server.stub.WatchEvents(request_))
    failure: Any = error.value
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(failure.trailing_metadata())["grpc-status-details-bin"]
    assert f"\n{chr(len(field))}{field}".encode() in details


@pytest.mark.lent_servers
def test_a_viewer_that_has_gone_is_told(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    requires_root()  # to hear of it
    camera, viewer = udp(), udp()
    gone = address_of(viewer)
    viewer.close()
    with (
        SessionClient(server.calls_target) as client,
        client.watch_events(0, kinds=["subscriber_unreachable"], heartbeats=True) as watch,
    ):
        until(watch, "heartbeat")
        client.create_session(address_of(camera), 7, "video", name="rover/front")
        client.add_subscriber("rover/front", gone)
        over = threading.Event()

        def feed() -> None:
            number = 0
            while not over.wait(0.05):
                number += 1
                camera.sendto(rtp_packet(7, number), server.ingest_target)

        thread = threading.Thread(target=feed)
        thread.start()
        try:
            *_, event = until(watch, "subscriber_unreachable")
        finally:
            over.set()
            thread.join()
    assert (event.session_name, event.subscriber_address) == ("rover/front", gone)
    assert event.detail.startswith("nobody listens at the port")


def read(command: Background) -> dict[str, Any]:
    assert command.process.stdout is not None
    found: dict[str, Any] = json.loads(command.process.stdout.readline())
    return found


@pytest.mark.usefixtures("runtime_directory")
def test_the_command_goes_on_over_a_crash_and_says_what_it_cannot_know(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = start_server(store__path=str(tmp_path / "store.db"))
    address = server.calls_target
    session_id = server.create("192.0.2.1:5000", 7)
    with background("events", "--since", "0", "-o", "json", "-s", address) as command:
        before = [read(command) for _ in range(2)]
        kill(server)
        gap, started = read(command), read(command)
        with SessionClient(address) as client:
            client.delete_session(session_id)
        deleted = read(command)
        code, _ = command.finish(signal.SIGINT)
    assert code == 0
    assert [each["kind"] for each in before] == ["started", "created"]
    assert (gap["kind"], gap["count"]) == ("gap", 0)
    assert "the server began anew at" in gap["detail"]
    assert (started["kind"], deleted["kind"]) == ("started", "deleted")
    assert deleted["session_id"] == session_id
    numbers = [each["sequence"] for each in (*before, gap, started, deleted)]
    assert numbers == sorted(set(numbers))
    assert started["sequence"] == gap["sequence"] + 1
    assert deleted["sequence"] > started["sequence"]
    again = run("events", "--since", before[-1]["sequence"], "--once", "-o", "json", "-s", address)
    shown = [json.loads(line)["kind"] for line in again.stdout.splitlines()]
    assert shown == ["gap", "started", "deleted"]
