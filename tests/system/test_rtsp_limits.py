"""What an RTSP client may not do, or not for long, and what that costs others: nothing."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from rtsp_client import RtspClient
from rtsp_scene import Scene, Source, ports, scene_of
from serving import limited, serve_with
from support import ServerProcess, eventually

from rtpfanout.rtsp.wire import MOST_HEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

SSRCS = count(1)
TCP = "RTP/AVP/TCP;unicast;interleaved=0-1"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with scene_of() as scene:
        yield scene


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"x" * (MOST_HEAD_BYTES + 1), b"400"),
        (b"OPTIONS * RTSP/1.0\r\nContent-Length: 100000\r\n\r\n", b"413"),
    ],
)
def test_what_is_no_request_ends_the_connection(scene: Scene, data: bytes, status: bytes) -> None:
    with RtspClient(scene.door) as client:
        client.sock.sendall(data)
        assert client.sock.recv(64).startswith(b"RTSP/1.0 " + status)
        assert client.is_closed()


def test_requests_that_are_no_good_here(scene: Scene) -> None:
    client = RtspClient(scene.door)
    for text, status in (
        ("OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n", 505),
        ("OPTIONS * RTSP/1.0\r\n\r\n", 400),
        ("OPTIONS * RTSP/1.0\r\nCSeq: x\r\n\r\n", 400),
        ("DESCRIBE * RTSP/1.0\r\nCSeq: 1\r\n\r\n", 400),
    ):
        client.sock.sendall(text.encode())
        assert client.response().status == status
    client.close()


@pytest.mark.slow("waits for time-outs of seconds, one after the other")
def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    command = serve_with(
        "rtpfanout.rtsp.times",
        FIRST_SECONDS=0.5, IDLE_SECONDS=0.5, TIMEOUT_SECONDS=2, LATE_SECONDS=0, RENEW_SECONDS=0.5,
    )  # fmt: skip
    monkeypatch.setattr(ServerProcess, "command", command)
    with scene_of() as scene:
        source = Source(scene, "quiet/mic", next(SSRCS))
        with RtspClient(scene.door) as silent, RtspClient(scene.door) as idle:
            silent.sock.sendall(b"OPTIONS * RTSP/1.0\r\n")
            assert idle.ask("OPTIONS", "*").status == 200
            assert silent.is_closed()
            assert idle.is_closed()
        eventually(
            lambda: scene.value('rtpfanout_connections_ended_total{reason="rtsp_late"}'),
            lambda value: value >= 2,
            "both are counted",
        )
        with RtspClient(scene.door) as client, ports() as here:
            client.set_up(source.session_id, here.transport)
            client.ask("PLAY", source.session_id)
            first = scene.subscribers(source.session_id)[0].expires_at
            # A sign of life prolongs it,
            while scene.subscribers(source.session_id)[0].expires_at == first:
                assert client.ask("GET_PARAMETER", source.session_id).status == 200
            # and without any it ends.
            assert client.is_closed()
            scene.await_subscribers(source.session_id, 0)
        ends = [
            scene.value(f'rtpfanout_rtsp_ended_total{{reason="{reason}"}}')
            for reason in ("timeout", "removed")  # by the door, or by the lease itself
        ]
        assert sum(ends) == 1


def test_reports_are_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    command = serve_with(
        "rtpfanout.rtsp.times", TIMEOUT_SECONDS=3, LATE_SECONDS=0, RENEW_SECONDS=0.2
    )
    monkeypatch.setattr(ServerProcess, "command", command)
    with scene_of() as scene, RtspClient(scene.door) as client, ports() as here:
        source = Source(scene, "reported/mic", next(SSRCS))
        source.feed()
        client.set_up(source.session_id, here.transport)
        client.ask("PLAY", source.session_id)
        began = scene.subscribers(source.session_id)[0].expires_at
        block = source.ssrc.to_bytes(4) + bytes(4) + (3).to_bytes(4) + bytes(12)
        report = (0x81C90007).to_bytes(4) + (99).to_bytes(4) + block
        ingest = scene.server.ingest_target

        def expires() -> str:
            here.rtcp.sendto(report, (ingest[0], ingest[1] + 1))
            return str(scene.subscribers(source.session_id)[0].expires_at)

        eventually(expires, lambda expires_at: expires_at > began, "it is prolonged")


def test_a_client_that_does_not_read_costs_nobody_anything(scene: Scene) -> None:
    source = Source(scene, "slow/mic", next(SSRCS))
    source.feed()
    with (
        RtspClient(scene.door) as reader,
        RtspClient(scene.door, buffer=4096) as other,
        ports() as here,
    ):
        for client, transport in ((reader, TCP), (other, TCP)):
            assert client.set_up(source.session_id, transport).status == 200
            assert client.ask("PLAY", source.session_id).status == 200
        pilot = RtspClient(scene.door)
        pilot.set_up(source.session_id, here.transport)
        pilot.ask("PLAY", source.session_id)
        sent = 0
        while not scene.value("rtpfanout_rtsp_frames_dropped_total"):
            for _ in range(20):
                some = source.send(20, size=1200)
                assert here.take(20) == some
                assert [reader.frame()[1] for _ in some] == some
                sent += 20
            assert sent < 40_000, "what is kept for it has a bound"
        # It reads again: whole frames, in order, and then answers.
        assert other.ask("OPTIONS", "*").status == 200
        numbers = [packet[2:4] for _, packet in other.frames]
        assert numbers == sorted(numbers)
        assert 0 < len(numbers) < sent
        pilot.close()


def test_many_requests_at_once_wait_their_turn(scene: Scene) -> None:
    client = RtspClient(scene.door)
    for number in range(60):
        client.sock.sendall(f"OPTIONS * RTSP/1.0\r\nCSeq: {number}\r\n\r\n".encode())
    assert [client.response().headers["cseq"] for _ in range(60)] == list(map(str, range(60)))
    client.close()


def test_who_opens_many_connections_ends_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerProcess, "command", limited(250, ServerProcess.command))
    with scene_of() as scene, RtspClient(scene.door) as viewer:
        source = Source(scene, "crowd/mic", next(SSRCS))
        source.feed()
        viewer.set_up(source.session_id, TCP)
        assert viewer.ask("PLAY", source.session_id).status == 200
        silent = [RtspClient(scene.door) for _ in range(40)]
        with RtspClient(scene.door) as newcomer:
            assert newcomer.ask("OPTIONS", "*").status == 200
            # What is left for relays is not one client's either.
            more = [Source(scene, f"many/{n}", next(SSRCS)) for n in range(20)]
            answers = [newcomer.set_up(each.session_id, "RTP/AVP/TCP") for each in more]
            assert {answer.status for answer in answers} == {200, 503}
            assert "no socket is to be had" in answers[-1].reason
            newcomer.ask("TEARDOWN", "many")
            newcomer.session = ""
            assert newcomer.set_up(more[0].session_id, TCP).status == 200
        sent = source.send(3)
        assert [viewer.frame()[1] for _ in sent] == sent
        assert scene.value('rtpfanout_connections_ended_total{reason="rtsp_crowded"}') > 20
        for each in silent:
            each.close()
