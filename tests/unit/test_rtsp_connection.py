"""What one RTSP connection may cost, and how it is counted among others."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from rtpfanout.crowd import Crowd
from rtpfanout.errors import UnauthenticatedError
from rtpfanout.rtsp import wire
from rtpfanout.rtsp.connection import FRAMES_AT_ONCE, Connection
from rtpfanout.rtsp.door import Door
from rtpfanout.rtsp.playback import Playback, Track
from rtpfanout.rtsp.relay import is_of_receiver
from rtpfanout.rtsp.stage import Stage
from rtpfanout.rtsp.transport import Transport
from rtpfanout.rtsp.wire import Reader
from rtpfanout.sessions import SCOPE

OPTIONS = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"
EMPTY_FRAME = b"$\0\0\0"


def test_a_head_is_read_once_however_its_body_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = wire._head

    def counted(data: bytes) -> Any:
        read.append(data)
        return original(data)

    monkeypatch.setattr(wire, "_head", counted)
    reader = Reader()
    reader.feed(b"OPTIONS * RTSP/1.0\r\nContent-Length: 300\r\n\r\n")
    for number in range(300):
        assert reader.next() is None
        reader.feed(bytes([number % 256]))
    whole = reader.next()
    assert isinstance(whole, wire.Request)
    assert len(whole.body) == 300
    assert len(read) == 1
    reader.feed(OPTIONS)
    assert reader.next() == wire.Request("OPTIONS", "*", {"cseq": "1"})


class FakeTransport(asyncio.Transport):
    """Of a connection from 192.0.2.7."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 4000), "sockname": ("192.0.2.1", 554)})
        sock = socket.socket()
        sock.close()
        self._extra["socket"] = sock  # type: ignore[attr-defined]
        self.is_paused = False
        self.written = b""
        self.is_answered = asyncio.Event()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return not self.is_paused

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def write(self, data: Any) -> None:
        self.written += data
        self.is_answered.set()


def fake_stage() -> Any:
    return SimpleNamespace(requests=Counter(), close=lambda: None)


def test_frames_without_end_wait_their_turn() -> None:
    async def run() -> None:
        connection = Connection(fake_stage(), Crowd(8, lambda: None), lambda _: None)
        transport = FakeTransport()
        connection.connection_made(transport)
        connection.data_received(EMPTY_FRAME * (FRAMES_AT_ONCE + 30) + OPTIONS)
        assert transport.is_paused, "what comes after so many is not read yet"
        await transport.is_answered.wait()
        await asyncio.sleep(0)
        assert transport.written.startswith(b"RTSP/1.0 200 OK\r\n")
        assert not transport.is_paused

    asyncio.run(asyncio.wait_for(run(), 30))


def test_beside_tls_one_network_may_have_more_than_its_share() -> None:
    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        ended: list[str] = []
        certificates: Any = SimpleNamespace()
        door = Door(fake_stage(), listener, 16, ended.append, certificates, takes_plain=True)
        door.start()
        streams = []
        for _ in range(10):  # of which 4 are its share
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            streams.append(writer)
            writer.write(OPTIONS)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"RTSP/1.0 200 OK\r\n")
        assert ended == []
        assert door.connections == 10
        for writer in streams:
            writer.close()
        await door.stop()

    asyncio.run(asyncio.wait_for(run(), 30))


def grant(name: str, scope: tuple[tuple[str, str], ...] = ()) -> Any:
    return SimpleNamespace(identity=SimpleNamespace(name=name, scope=scope))


def track_of(session_id: str, its_grant: Any) -> Track:
    place: Any = session_id
    guest: Any = session_id
    return Track(session_id, its_grant, Transport("RTP/AVP"), place, guest=guest)


class FakeGuests:
    """`seen` are guests, and the labels that they were looked for with."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []
        self.playback: Playback | None = None

    def check(self, place: str) -> None:
        if self.playback:
            self.playback.tracks.pop(place, None)  # as a TEARDOWN meanwhile

    def reported_ns(self, _guest: str) -> int:
        return 0

    def renew(self, guest: str, _left: float) -> bool:
        self.seen.append((guest, SCOPE.get()))
        return True


def stage_with(guests: FakeGuests, *, expired: str = "") -> Stage:
    def recheck(shown: Any) -> None:
        if shown.identity.name == expired:
            raise UnauthenticatedError("the token has expired")

    stage = Stage.__new__(Stage)
    stage.guests = guests  # type: ignore[assignment]
    stage.credentials = SimpleNamespace(recheck=recheck)  # type: ignore[assignment]
    return stage


def playback_of(*grants: Any) -> Playback:
    playback = Playback(grants[0], time.monotonic())
    for number, each in enumerate(grants):
        playback.tracks[str(number)] = track_of(str(number), each)
    return playback


def test_each_track_is_judged_by_what_was_shown_for_it() -> None:
    ours, theirs = grant("ours", (("site", "a"),)), grant("theirs", (("site", "b"),))
    guests = FakeGuests()
    playback = playback_of(ours, theirs)
    assert stage_with(guests).look([playback]) == []
    assert guests.seen == [("0", (("site", "a"),)), ("1", (("site", "b"),))]
    assert stage_with(guests, expired="theirs").look([playback]) == [(playback, "refused")]


def test_tracks_that_end_meanwhile_hold_up_nobody_s_leases() -> None:
    guests = FakeGuests()
    guests.playback = playback = playback_of(grant("one"), grant("one"), grant("one"))
    assert stage_with(guests).look([playback]) == []
    assert guests.seen


def rtcp(kind: int, ssrc: int, rest: bytes = b"") -> bytes:
    return bytes((0x80, kind)) + (1 + len(rest) // 4).to_bytes(2) + ssrc.to_bytes(4) + rest


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        (rtcp(201, 99), True),
        (rtcp(201, 99) + rtcp(206, 99, bytes(4)), True),
        (rtcp(201, 99) + rtcp(202, 99, bytes(8)), True),
        (rtcp(201, 99) + b"\x17 and what is sealed", True),
        (rtcp(200, 99, bytes(20)), False),
        (rtcp(201, 99) + rtcp(200, 7, bytes(20)), False),
        (rtcp(201, 99) + rtcp(203, 99), False),
        (rtcp(201, 99) + b"\x80\xcb\0\0", False),
        (rtcp(201, 7), False),
        (rtcp(202, 7, bytes(8)) + rtcp(201, 99), False),
    ],
)
def test_what_a_client_reports_is_of_one_who_receives(data: bytes, *, passes: bool) -> None:
    assert is_of_receiver(data, lambda ssrc: ssrc == 7) is passes
