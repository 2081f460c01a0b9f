"""Cameras that choose their SSRC, start anew and come from other ports; and who knocks."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import address_of, eventually, queued, receive, rtp_packet, transfer

from rtpfanout.api import session_pb2 as pb
from rtpfanout.client import SessionClient
from rtpfanout.errors import AlreadyExistsError, InvalidArgumentError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import ServerProcess

    Udp = Callable[..., socket.socket]

NAME = "rover-7/front"
FRAME = 14


def frame(ssrc: int, first: int, count: int = FRAME) -> list[bytes]:
    return [rtp_packet(ssrc, first + i, bytes(1000)) for i in range(count)]


def play(server: ServerProcess, camera: socket.socket, packets: list[bytes]) -> None:
    for packet in packets:
        camera.sendto(packet, server.ingest_target)


def whoever_comes(client: SessionClient, **options: Any) -> pb.SessionResponse:
    """As `rtpfanout session create any --name` makes it."""
    return client.create_session(
        "", 0, "video", name=NAME, source_policy="latch", latch_scope="ip", ssrc_policy="follow",
        **options,
    )  # fmt: skip


def pinned(server: ServerProcess, client: SessionClient, camera: socket.socket, ssrc: int) -> None:
    """Packets of the camera until it feeds the session."""

    def again() -> str:
        play(server, camera, frame(ssrc, 0, 1))
        return client.get_session(NAME).pinned_source

    eventually(again, address_of(camera).__eq__, "the pin")


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SessionClient]:
    with SessionClient(server.calls_target) as client:
        yield client


@pytest.mark.lent_servers
def test_a_hundred_restarts_lose_nothing(
    server: ServerProcess, client: SessionClient, udp: Udp
) -> None:
    """Each from another port, with an SSRC and a numbering of its own, right after the last."""
    viewer, camera = udp(), udp("127.0.0.2")
    whoever_comes(client)
    client.add_subscriber(NAME, address_of(viewer))
    pinned(server, client, camera, 1)
    server.settled()
    queued(viewer)
    slowest = 0.0
    for start in range(100):
        ssrc, camera, sent = 1000 + start, udp("127.0.0.2"), []
        began = time.monotonic()
        came = None
        while came is None:
            assert time.monotonic() < began + 20, "nothing comes after a restart"
            packets = frame(ssrc, 7000 * start % 60000 + len(sent), 7)
            play(server, camera, packets)
            sent += packets
            viewer.settimeout(0.02)
            try:
                came = viewer.recv(2048)
            except TimeoutError:
                continue
        slowest = max(slowest, time.monotonic() - began)
        viewer.settimeout(20)
        assert [came, *receive(viewer, len(sent) - 1)] == sent
        camera.close()
    print(f"slowest restart {slowest:.3f} s")
    stats = client.get_session_stats(NAME)
    assert (stats.dropped_probation, stats.dropped_wrong_source) == (0, 0)
    (source,) = client.get_session(NAME).ssrcs
    assert (source.ssrc, source.payload_type) == (1099, 96)


@pytest.mark.lent_servers
def test_strangers_never_get_in_while_the_camera_is_away(
    server: ServerProcess, client: SessionClient, udp: Udp
) -> None:
    viewer, camera, stranger = udp(), udp("127.0.0.2"), udp("127.0.0.3")
    whoever_comes(client)
    client.add_subscriber(NAME, address_of(viewer))
    pinned(server, client, camera, 1)
    server.settled()
    queued(viewer)
    stop = threading.Event()

    def flood() -> None:
        number = 0
        while not stop.is_set():
            play(server, stranger, [rtp_packet(1, number % 65536), rtp_packet(666, number % 65536)])
            number += 1
            time.sleep(0.001)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        time.sleep(0.5)
        again, packets = udp("127.0.0.2"), frame(2, 100)
        play(server, again, packets)
        assert receive(viewer, FRAME) == packets
        time.sleep(0.3)
    finally:
        stop.set()
        thread.join()
    server.settled()
    assert queued(viewer) == []
    knocks = {(k.source_address, k.ssrc): k for k in client.list_knocks()}
    assert {(address_of(stranger), 1), (address_of(stranger), 666)} <= knocks.keys()
    assert knocks[address_of(stranger), 666].packets > 10


@pytest.mark.lent_servers
def test_a_change_of_the_ssrc_is_an_event(
    server: ServerProcess, client: SessionClient, udp: Udp
) -> None:
    camera = udp()
    session = client.create_session(address_of(camera), 0, "video", ssrc_policy="any")
    assert (session.ssrc_policy, list(session.ssrcs)) == ("any", [])
    events = client.watch_sessions()
    for event in events:
        if event.type == pb.SessionEvent.SYNCED:
            break
    play(server, camera, frame(5, 0) + frame(6, 0))
    time.sleep(0.15)  # it is told at most ten times a second, and by a packet
    play(server, camera, frame(5, FRAME))
    for event in events:
        if event.cause == "ssrc" and {s.ssrc for s in event.session.ssrcs} == {5, 6}:
            break
    found = {s.ssrc: s for s in client.get_session(session.session_id).ssrcs}
    assert sorted(found) == [5, 6]
    assert all(s.since.endswith("Z") for s in found.values())


@pytest.mark.lent_servers
def test_terms_that_exclude_each_other_or_are_unknown(client: SessionClient) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"ssrc_policy": "some"}, "ssrc_policy"),
        ({"latch_scope": "host", "source_policy": "latch", "source_address": ""}, "latch_scope"),
        ({"latch_scope": "ip"}, "latch_scope"),
        ({"srtp": True, "check_padding": True}, "check_padding"),
    ]
    for options, field in wrong:
        source = options.pop("source_address", "192.0.2.7:5000")
        with pytest.raises(InvalidArgumentError) as refused:
            client.create_session(source, 1, "video", **options)
        assert refused.value.field == field
    client.create_session("192.0.2.7:5000", 0, "video", ssrc_policy="follow", name="one")
    with pytest.raises(AlreadyExistsError, match="takes other SSRCs"):
        client.create_session("192.0.2.7:5000", 9, "video", ssrc_policy="any")
    exact = client.create_session("192.0.2.7:5000", 9, "video")
    assert exact.ssrc_policy == ""
    with pytest.raises(InvalidArgumentError, match="of which SSRC"):
        client.update_session("one", ssrc_policy="exact")
    with pytest.raises(AlreadyExistsError):
        client.update_session("one", ssrc_policy="exact", ssrc=9)
    changed = client.update_session("one", ssrc_policy="exact", ssrc=8)
    assert (changed.ssrc, changed.ssrc_policy) == (8, "")
    assert client.update_session("one", ssrc=7).ssrc == 7
    client.create_session("192.0.2.7:5000", 8, "video")


def test_all_of_it_survives_kill_9(
    start_server: Callable[..., ServerProcess], udp: Udp, tmp_path: Path
) -> None:
    with udp() as free:
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"bind_address": bind, "store_path": str(tmp_path / "s.db")}
    first = start_server(**settings)
    viewer, camera = udp(), udp("127.0.0.2")
    with SessionClient(first.calls_target) as client:
        whoever_comes(client)
        client.add_subscriber(NAME, address_of(viewer))
        pinned(first, client, camera, 1)
        client.create_session(
            "192.0.2.7", 3, "video", name="b", source_policy="ip", ssrc_policy="any", srtp=True,
            rtcp_mux=False,
        )  # fmt: skip
        client.create_session("192.0.2.8:1", 3, "video", name="c", check_padding=False)
        before = [client.get_session(name) for name in (NAME, "b", "c")]
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    second = start_server(**settings)
    with SessionClient(second.calls_target) as client:
        after = [client.get_session(name) for name in (NAME, "b", "c")]
        for was, now in zip(before, after, strict=True):
            del was.ssrcs[:]
            for field in ("status", "condition", "condition_since"):
                setattr(was, field, getattr(now, field))
            assert was == now
        again, packets = udp("127.0.0.2"), frame(1, 100)
        queued(viewer)
        assert transfer(again, second.ingest_target, packets, [viewer]) == [packets]


def test_the_first_that_comes_after_kill_9_may_be_another_camera(
    start_server: Callable[..., ServerProcess], udp: Udp, tmp_path: Path
) -> None:
    """Of the same address: the viewers get theirs, and not that."""
    with udp() as free:
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {"bind_address": bind, "store_path": str(tmp_path / "s.db")}
    first = start_server(**settings)
    viewer, front, rear = udp(), udp("127.0.0.2"), udp("127.0.0.2")
    with SessionClient(first.calls_target) as client:
        whoever_comes(client)
        client.add_subscriber(NAME, address_of(viewer))
        events = client.watch_sessions()
        for event in events:
            if event.type == pb.SessionEvent.SYNCED:
                break
        pinned(first, client, front, 1)
        play(first, front, frame(1, 1))
        for event in events:
            if event.cause == "ssrc":
                break
        client.update_session(NAME, labels={"a": "b"})  # written behind what was told
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    second = start_server(**settings)
    queued(viewer)
    play(second, rear, frame(2, 0))
    second.settled()
    play(second, front, frame(1, 100))
    assert receive(viewer, FRAME) == frame(1, 100)
    with SessionClient(second.calls_target) as client:
        (source,) = client.get_session(NAME).ssrcs
        assert source.ssrc == 1
        assert queued(viewer) == []


@pytest.mark.lent_servers
def test_srtp_and_types_that_look_like_rtcp(
    server: ServerProcess, client: SessionClient, udp: Udp
) -> None:
    camera, viewer = udp(), udp()
    session = client.create_session(address_of(camera), 7, "video", srtp=True, rtcp_mux=False)
    client.add_subscriber(session.session_id, address_of(viewer))
    padded = bytearray(rtp_packet(7, 1, bytes(40)))
    padded[0] |= 0x20
    padded[-1] = 250
    packets = [bytes(padded), rtp_packet(7, 2, payload_type=72, marker=True)]
    play(server, camera, packets)
    assert receive(viewer, 2) == packets
    client.update_session(session.session_id, srtp=False, rtcp_mux=True)
    play(server, camera, packets)
    server.settled()
    assert queued(viewer) == []


@pytest.mark.lent_servers
def test_who_knocks_and_which_session_he_nearly_had(
    server: ServerProcess, client: SessionClient, udp: Udp
) -> None:
    camera, moved, stranger = udp("127.0.0.2"), udp("127.0.0.2"), udp("127.0.0.3")
    client.create_session(address_of(camera), 7, "video", name="front")
    play(server, moved, frame(7, 0))
    play(server, stranger, frame(8, 0, 3))

    def knocks() -> dict[str, pb.Knock]:
        ours = {address_of(moved), address_of(stranger)}
        return {k.source_address: k for k in client.list_knocks() if k.source_address in ours}

    def is_all(found: dict[str, pb.Knock]) -> bool:
        return sum(knock.packets for knock in found.values()) == FRAME + 3

    found = eventually(knocks, is_all, "all of them")
    knock = found[address_of(moved)]
    assert (knock.ssrc, knock.packets, knock.reason) == (7, FRAME, "wrong_source")
    assert (knock.session_name, knock.payload_type) == ("front", 96)
    assert found[address_of(stranger)].session_id == ""
    assert client.get_session_stats("front").last_wrong_source == address_of(moved)
    assert len(client.list_knocks(1)) == 1
    with pytest.raises(InvalidArgumentError):
        client.list_knocks(-1)
