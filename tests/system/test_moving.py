"""A source that signs that it moved, over a real server and real sockets on loopback."""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest
from datagram_support import counted, create, media, outcomes, source_of, token_of
from store_support import session as stored
from support import address_of, eventually, receive, rtp_packet, transfer

from rtpfanout import signed
from rtpfanout.api import session_pb2
from rtpfanout.mover import Mover
from rtpfanout.receiver import Receiver
from rtpfanout.store import Store
from rtpfanout.store.writes import put_session

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from support import ServerProcess

SSRC = 0x0DDBA11
KEY = b"the vehicle's own key, 32 bytes."


def move(counter: int, *, key: bytes = KEY, ssrc: int = SSRC, late_ms: int = 0) -> bytes:
    time_ms = time.time_ns() // 1_000_000 - late_ms
    return signed.build_move(key, ssrc=ssrc, counter=counter, time_ms=time_ms)


def test_bad_moves_are_refused_and_counted_and_the_good_session_loses_nothing(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    source, viewer, attacker, other = udp(), udp(), udp(), udp()
    session = create(server, source, SSRC, move_key=KEY)
    create(server, other, SSRC + 1, move_key=b"another session's key")
    server.add(session, address_of(viewer))
    source.sendto(seen := move(100), server.ingest_target)  # and somebody saw it pass
    assert signed.Answer.parse(source.recv(2048)).is_signed_with(KEY)
    bad = {
        "replayed": [seen, move(100), move(99), move(1)],
        "stale": [move(101, late_ms=31_000), move(101, late_ms=-31_000)],
        "bad_mac": [move(101, key=b"a guessed key...")] * 2 + [move(101, ssrc=SSRC + 1)],
        "unknown": [move(101, ssrc=SSRC + 2)],
    }
    sequence = 0
    for outcome, datagrams in bad.items():
        for data in datagrams:
            attacker.sendto(data, server.ingest_target)
            attacker.sendto(rtp_packet(SSRC, 9999), server.ingest_target)
            some = [rtp_packet(SSRC, sequence + n) for n in range(10)]
            assert transfer(source, server.ingest_target, some, [viewer]) == [some]
            sequence += 10
            time.sleep(0.11)  # an address is listened to ten times a second
        counted(server, "move", outcome, len(datagrams))
    assert source_of(server, session) == address_of(source)
    attacker.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        assert not attacker.recv(2048)
    assert server.settled().dropped()["wrong_source"] == sum(map(len, bad.values()))


def test_what_was_accepted_stays_accepted_over_kill_9(
    start_server: Callable[..., ServerProcess], udp: Callable[..., socket.socket], tmp_path: Path
) -> None:
    with udp() as free:
        bind = address_of(free)
    settings = {"bind_address": bind, "store__path": tmp_path / "rtp.db"}
    server = start_server(**settings)
    source, viewer, new, attacker = udp(), udp(), udp(), udp()
    session = create(server, source, SSRC, move_key=KEY)
    server.add(session, address_of(viewer))
    with closing(Receiver(server.ingest, token_of(server, session))) as member:
        member.join(30)
        new.sendto(seen := move(7), server.ingest_target)
        assert signed.Answer.parse(new.recv(2048)).reason is None
        server.process.kill()
        server.process.wait()
        server = start_server(**settings)
        assert source_of(server, session) == address_of(new)
        attacker.sendto(seen, server.ingest_target)
        counted(server, "move", "replayed", 1)
        some = [rtp_packet(SSRC, n) for n in range(10)]
        assert transfer(new, server.ingest_target, some, [viewer]) == [some]
        assert media(member, 10) == some, "its place is kept"
        member.membership._next = 0.0  # and renewed with the cookie it has
        member.receive(0.5)
        counted(server, "join", "accepted", 1)
        assert ("join", "challenged") not in outcomes(server)
    new.sendto(move(8), server.ingest_target)
    assert signed.Answer.parse(new.recv(2048)).reason is None


def test_a_move_is_accepted_once_whatever_becomes_of_its_session(
    start_server: Callable[..., ServerProcess], udp: Callable[..., socket.socket], tmp_path: Path
) -> None:
    with udp() as free:
        bind = address_of(free)
    settings = {"bind_address": bind, "store__path": tmp_path / "rtp.db"}
    server = start_server(**settings)
    source, moved = udp(), udp()
    session = create(server, source, SSRC, move_key=KEY)
    seen = move((time.time_ns() // 10**9 + 2_208_988_800) << 32)  # an NTP time stamp, above 2^63
    moved.sendto(seen, server.ingest_target)
    assert signed.Answer.parse(moved.recv(2048)).reason is None

    def replay() -> str:
        replayed = outcomes(server).get(("move", "replayed"), 0) + 1
        udp().sendto(seen, server.ingest_target)
        counted(server, "move", "replayed", replayed)
        return source_of(server, session)

    def apply_again() -> None:
        server.stub.UpdateSession(
            session_pb2.UpdateSessionRequest(session_id=session, move_key=KEY)
        )

    assert replay() == address_of(moved)
    apply_again()
    assert replay() == address_of(moved)
    server.delete(session)
    session = create(server, source, SSRC, move_key=KEY)
    assert replay() == address_of(source)
    server.delete(session)
    server.process.kill()
    server.process.wait()
    server = start_server(**settings)
    session = create(server, source, SSRC, move_key=KEY)
    assert replay() == address_of(source)
    apply_again()
    assert replay() == address_of(source)


def test_a_move_that_two_sessions_could_mean_moves_neither(
    start_server: Callable[..., ServerProcess], udp: Callable[..., socket.socket], tmp_path: Path
) -> None:
    """Two cameras of one factory SSRC and one fleet key, in a store of a version that took them."""
    cameras, viewers, moved = [udp(), udp()], [udp(), udp()], udp()
    path = tmp_path / "rtp.db"
    rows = [
        stored(n, ssrc=SSRC, source_text=address_of(camera), move_key=KEY)
        for n, camera in enumerate(cameras, 1)
    ]
    with Store(str(path)) as store:
        store.submit([put_session(row) for row in rows]).result()
    server = start_server(store__path=path)
    for row, viewer in zip(rows, viewers, strict=True):
        server.add(row.session_id, address_of(viewer))
    moved.sendto(move(1), server.ingest_target)
    answer = signed.Answer.parse(moved.recv(2048))
    assert answer.is_signed_with(KEY)
    assert answer.reason is signed.Reason.NO_SESSION
    counted(server, "move", "ambiguous", 1)
    moved.sendto(rtp_packet(SSRC, 99), server.ingest_target)
    for n, camera in enumerate(cameras):
        some = [rtp_packet(SSRC, 10 * n + i) for i in range(5)]
        assert transfer(camera, server.ingest_target, some, [viewers[n]]) == [some]
    refused = server.logged(
        "a signed move was refused: several sessions have its SSRC and move_key; give each its own"
    )
    assert sorted(refused["sessions"]) == [row.session_id for row in rows]
    with pytest.raises(grpc.RpcError) as error:
        create(server, moved, SSRC, move_key=KEY)
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS
    server.stub.UpdateSession(
        session_pb2.UpdateSessionRequest(session_id=rows[0].session_id, move_key=b"o" * 16)
    )
    time.sleep(0.11)  # an address is listened to ten times a second
    moved.sendto(move(2), server.ingest_target)
    assert signed.Answer.parse(moved.recv(2048)).reason is None
    assert source_of(server, rows[0].session_id) == address_of(cameras[0])
    assert source_of(server, rows[1].session_id) == address_of(moved)


def test_under_traffic_the_new_address_is_let_in_at_once(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    """The figures are for whoever runs it with -s."""
    viewer = udp()
    sources = [udp(), udp()]
    session = create(server, sources[0], SSRC, move_key=KEY)
    server.add(session, address_of(viewer))
    stop = threading.Event()
    current, sequence = 0, 0
    took = []

    def send_on() -> None:
        nonlocal sequence
        while not stop.is_set():
            sources[current].sendto(rtp_packet(SSRC, sequence & 0xFFFF), server.ingest_target)
            sequence += 1
            time.sleep(0.001)

    thread = threading.Thread(target=send_on)
    thread.start()
    try:
        for _ in range(20):
            receive(viewer, 20)
            mover = Mover(KEY, SSRC)
            begin = time.monotonic()
            mover.move(begin)
            moved_to = 1 - current
            sources[moved_to].settimeout(0.01)
            while not mover.is_done:
                if (data := mover.poll(time.monotonic())) is not None:
                    sources[moved_to].sendto(data, server.ingest_target)
                try:
                    mover.receive(sources[moved_to].recv(2048))
                except TimeoutError:
                    assert time.monotonic() - begin < 30
            took.append(time.monotonic() - begin)
            assert mover.error is None
            current = moved_to
            time.sleep(0.12)
    finally:
        stop.set()
        thread.join()
    took.sort()
    print(f"\nsigned move to confirmed: p50 {took[10] * 1e3:.1f} ms, worst {took[-1] * 1e3:.1f} ms")
    assert source_of(server, session) == address_of(sources[current])
    gone = sources[1 - current]
    before = server.settled()["rtpfanout_packets_forwarded_total"]
    gone.sendto(rtp_packet(SSRC, 1), server.ingest_target)
    eventually(
        lambda: server.metrics().dropped().get("wrong_source", 0),
        lambda n: n >= 1,
        "the former address is a stranger",
    )
    assert server.settled()["rtpfanout_packets_forwarded_total"] == before
    assert outcomes(server)["move", "accepted"] >= 20


def test_a_move_to_where_another_session_s_source_is_is_denied(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    source, other = udp(), udp()
    session = create(server, source, SSRC, move_key=KEY)
    create(server, other, SSRC)
    other.sendto(move(1), server.ingest_target)
    answer = signed.Answer.parse(other.recv(2048))
    assert answer.is_signed_with(KEY)
    assert answer.reason is signed.Reason.ADDRESS
    assert source_of(server, session) == address_of(source)


def test_a_session_without_a_key_is_moved_by_nobody(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    source, attacker = udp(), udp()
    session = create(server, source, SSRC)
    attacker.sendto(move(1, key=b""), server.ingest_target)
    attacker.sendto(move(1), server.ingest_target)
    counted(server, "move", "unknown", 2)
    assert source_of(server, session) == address_of(source)
