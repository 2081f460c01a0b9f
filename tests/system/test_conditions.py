"""A camera that falls silent, or freezes, on a real server: as everybody gets to know of it."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import ServerProcess, address_of, eventually, rtp_packet, udp_socket
from watches import Watch

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.lent_servers

FRAME = 90_000 // 50
Told = tuple[str, str, str]
"""Cause, status, condition."""


class Camera:
    """Fifty frames a second, until the test has seen what it waits for."""

    def __init__(self, sock: socket.socket, server: ServerProcess, ssrc: int) -> None:
        self._sock = sock
        self._server = server
        self._ssrc = ssrc
        self._number = self._timestamp = 0
        self.is_frozen = False

    def frame(self) -> None:
        self._number += 1
        self._timestamp += 0 if self.is_frozen else FRAME
        packet = rtp_packet(self._ssrc, self._number, timestamp=self._timestamp)
        self._sock.sendto(packet, self._server.ingest_target)
        time.sleep(0.02)

    def until(self, watch: Watch, wanted: Told) -> None:
        """Frames, until the watch has told that."""

        def seen() -> list[Told]:
            self.frame()
            return told(watch)

        eventually(seen, lambda found: wanted in found, f"{wanted}")


def told(watch: Watch) -> list[Told]:
    events = [event for event in list(watch.events) if event.type == pb.SessionEvent.UPDATED]
    return [(e.cause, e.session.status, e.session.condition) for e in events]


@pytest.fixture
def source() -> Iterator[socket.socket]:
    with udp_socket() as sock:
        yield sock


@pytest.fixture
def watch(server: ServerProcess) -> Iterator[Watch]:
    watch = Watch(server)
    watch.until(lambda events: any(event.type == pb.SessionEvent.SYNCED for event in events))
    yield watch
    watch.cancel()


def get(server: ServerProcess, session_id: str) -> Any:
    return server.stub.GetSession(pb.GetSessionRequest(session_id=session_id))


def test_one_that_falls_silent(server: ServerProcess, source: socket.socket, watch: Watch) -> None:
    session_id = server.create(address_of(source), 7)
    assert get(server, session_id).condition == "never_fed"
    Camera(source, server, 7).until(watch, ("condition", "active", "flowing"))
    flowing = get(server, session_id)
    for wanted in (("condition", "active", "silent"), ("status", "idle", "silent")):
        eventually(lambda: told(watch), lambda found, wanted=wanted: wanted in found, str(wanted))
    assert told(watch) == [
        ("condition", "active", "flowing"),
        ("condition", "active", "silent"),
        ("status", "idle", "silent"),
    ]
    silent = get(server, session_id)
    assert silent.created_at < flowing.condition_since < silent.condition_since
    metrics = server.metrics()
    assert metrics['rtpfanout_sessions{condition="silent"}'] == 1
    assert metrics['rtpfanout_sessions{condition="flowing"}'] == 0
    assert metrics['rtpfanout_session_statuses{status="idle"}'] == 1
    assert metrics['rtpfanout_condition_changes_total{condition="silent"}'] == 1
    assert metrics['rtpfanout_status_changes_total{status="idle"}'] == 1
    lines = [
        (entry["level"], entry["condition"])
        for entry in server.log
        if entry.get("session_id") == session_id and "condition_was" in entry
    ]
    assert lines == [("info", "flowing"), ("warning", "silent")]
    each = server.metrics("/metrics/sessions")
    assert [key for key in each if 'condition="silent"' in key and session_id in key]


def test_one_that_freezes(server: ServerProcess, source: socket.socket, watch: Watch) -> None:
    """Packets come, and seem to be fine; only the picture is always the same."""
    session_id = server.create(address_of(source), 7)
    camera = Camera(source, server, 7)
    for _ in range(10):
        camera.frame()
    camera.until(watch, ("condition", "active", "flowing"))
    camera.is_frozen = True
    camera.until(watch, ("condition", "active", "frozen"))
    camera.is_frozen = False
    eventually(
        lambda: (camera.frame(), told(watch))[1][-1],
        lambda last: last == ("condition", "active", "flowing"),
        "a picture that moves",
    )
    assert server.stats(session_id).dropped_wrong_source == 0


@pytest.mark.parametrize("comes_back", [True, False])
def test_after_a_kill(
    start_server: Callable[..., ServerProcess],
    source: socket.socket,
    tmp_path: Path,
    comes_back: bool,
) -> None:
    """Who was fed before is given the time to come back, and is silent else; not "never fed"."""
    path = tmp_path / "sessions.db"
    server = start_server(store__path=path)
    session_id, other = server.create(address_of(source), 7), server.create("192.0.2.1:5", 8)
    camera = Camera(source, server, 7)
    eventually(
        lambda: (camera.frame(), get(server, session_id))[1].condition,
        lambda condition: condition == "flowing",
        "packets",
    )
    server.stop(signal.SIGKILL)
    server = start_server(store__path=path)
    assert get(server, session_id).condition == "flowing"
    camera = Camera(source, server, 7)
    if comes_back:
        eventually(
            lambda: (camera.frame(), server.metrics())[1],
            lambda metrics: metrics['rtpfanout_status_changes_total{status="active"}'] == 1,
            "packets again",
        )
        assert server.metrics()['rtpfanout_condition_changes_total{condition="silent"}'] == 0
    else:
        eventually(
            lambda: get(server, session_id).condition, lambda found: found == "silent", "silence"
        )
    assert get(server, other).condition == "never_fed"


def test_reception_in_the_stats(server: ServerProcess, source: socket.socket) -> None:
    """One packet lost, one twice, two in the wrong order."""
    session_id = server.create(address_of(source), 7)
    assert not server.stats(session_id).reception.HasField("ssrc")
    lost = server.metrics()["rtpfanout_reception_lost"]  # of sessions of other tests, too
    numbers = [0, 1, 2, 4, 5, 5, 7, 6, 8, 9]
    for number in numbers:
        packet = rtp_packet(7, number, timestamp=number * FRAME, payload_type=26)
        source.sendto(packet, server.ingest_target)
    server.settled(len(numbers))
    reception = server.stats(session_id).reception
    assert (reception.received, reception.expected, reception.lost) == (10, 10, 1)
    assert (reception.duplicates, reception.reordered, reception.missing_now) == (1, 1, 1)
    assert (reception.ssrc, reception.payload_type) == (7, 26)
    assert list(reception.payload_types) == [26]
    assert (reception.encoding, reception.encoding_from) == ("JPEG", "static")
    assert (reception.clock_rate, reception.restarts) == (90_000, 0)
    metrics = server.metrics()
    assert metrics["rtpfanout_reception_expected_total"] == 10
    assert metrics["rtpfanout_reception_lost"] == lost + 1
    server.delete(session_id)
    assert server.metrics()["rtpfanout_reception_expected_total"] == 10
