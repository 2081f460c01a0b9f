"""What a latch is sent before it is pinned: its source's packets leave first, and nobody else's."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from ports_support import free_range
from support import address_of, eventually, queued, receive, rtp_packet

from rtpfanout.client import SessionClient

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import ServerProcess

    Udp = Callable[..., socket.socket]

SSRC = 0x1A7C
FIRST = 30
"""Packets at once, as of a first frame."""
PROMPT = 0.5
"""Seconds, of the one that packets wait."""
PAUSE = 0.005


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SessionClient]:
    with SessionClient(server.calls_target) as client:
        yield client


def latch(client: SessionClient, ssrc: int = SSRC, **options: Any) -> str:
    session = client.create_session("", ssrc, "video", source_policy="latch", **options)
    return str(session.session_id)


def numbered(first: int, count: int, ssrc: int = SSRC) -> list[bytes]:
    return [rtp_packet(ssrc, n, bytes(1000)) for n in range(first, first + count)]


def received(server: ServerProcess) -> int:
    return int(server.metrics()["rtp_packets_received_total"])


def feed(
    client: SessionClient,
    session: str,
    camera: socket.socket,
    to: tuple[str, int],
    viewer: socket.socket,
    first: int = 0,
) -> int:
    """A frame, then a packet at a time until the camera is pinned, and one more.

    All of them come to the viewer, and before them nothing: as many. On a machine so busy that the
    pin takes longer than packets wait, those from then on.
    """
    sent = numbered(first, FIRST)
    began = time.monotonic()
    for packet in sent:
        camera.sendto(packet, to)

    def again() -> str:
        more = numbered(first + len(sent), 1)
        camera.sendto(more[0], to)
        sent.extend(more)
        return client.get_session(session).pinned_source

    eventually(again, address_of(camera).__eq__, "the pin")
    was_prompt = time.monotonic() < began + PROMPT
    sent += numbered(first + len(sent), 1)
    camera.sendto(sent[-1], to)
    got = receive(viewer, 1)
    while got[-1] != sent[-1]:
        got += receive(viewer, 1)
    assert got == (sent if was_prompt else sent[-len(got) :])
    return len(got)


@pytest.mark.lent_servers
@pytest.mark.parametrize("scope", ["address", "ip"])
@pytest.mark.parametrize("policy", ["exact", "follow", "any"])
def test_the_first_frame_is_whole(
    server: ServerProcess, client: SessionClient, udp: Udp, policy: str, scope: str
) -> None:
    camera, viewer = udp(), udp()
    session = latch(client, ssrc_policy=policy, latch_scope=scope)
    client.add_subscriber(session, address_of(viewer))
    came = feed(client, session, camera, server.ingest_target, viewer)
    stats = client.get_session_stats(session)
    assert (stats.packets_received, stats.reception.received) == (came, came)
    assert (stats.reception.lost, stats.reception.duplicates) == (0, 0)
    assert address_of(camera) not in {k.source_address for k in client.list_knocks()}


@pytest.mark.usefixtures("runtime_directory")
def test_the_first_frame_at_a_port_of_its_own(
    start_server: Callable[..., ServerProcess], udp: Udp
) -> None:
    server = start_server(ingest_ports=str(free_range(4)), workers=2)
    camera, viewer = udp(), udp()
    with SessionClient(server.calls_target) as client:
        session = latch(client, ssrc_policy="follow", ingest_port="auto")
        client.add_subscriber(session, address_of(viewer))
        port = client.get_session(session).ingest_port
        came = feed(client, session, camera, (server.ingest_target[0], port), viewer)
        assert client.get_session_stats(session).packets_received == came


@pytest.mark.lent_servers
def test_two_race_for_one_latch(server: ServerProcess, client: SessionClient, udp: Udp) -> None:
    """Whoever wins is seen from his first packet on, and the other not at all."""
    cameras, viewer = [udp("127.0.0.2"), udp("127.0.0.3")], udp()
    session = latch(client)
    client.add_subscriber(session, address_of(viewer))
    sent: list[list[bytes]] = [[], []]
    pinned = threading.Event()

    def play(which: int) -> None:
        number = 0
        while not pinned.wait(PAUSE):
            packet = rtp_packet(SSRC, number, bytes([which]))
            cameras[which].sendto(packet, server.ingest_target)
            sent[which].append(packet)
            number += 1

    threads = [threading.Thread(target=play, args=(which,)) for which in (0, 1)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        winner = eventually(lambda: client.get_session(session).pinned_source, bool, "the pin")
        was_prompt = time.monotonic() < began + PROMPT
        got = receive(viewer, 1)
    finally:
        pinned.set()
        for thread in threads:
            thread.join()
    won = [address_of(camera) for camera in cameras].index(winner)
    while got[-1] != sent[won][-1]:
        got += receive(viewer, 1)
    given_up = len(sent[won]) - len(got)
    assert got == sent[won][given_up:]
    assert given_up == 0 or not was_prompt
    eventually(
        lambda: client.get_session_stats(session),
        lambda s: s.dropped_latching + s.dropped_wrong_source == len(sent[1 - won]) + given_up,
        "what the other sent",
    )
    assert client.get_session_stats(session).packets_received == len(got)


@pytest.mark.lent_servers
def test_the_window_is_over(server: ServerProcess, client: SessionClient, udp: Udp) -> None:
    camera, viewer = udp(), udp()
    session = latch(client, latch_window_secs=0.001)
    client.add_subscriber(session, address_of(viewer))
    for packet in numbered(0, 5):
        camera.sendto(packet, server.ingest_target)
    eventually(
        lambda: client.get_session_stats(session).dropped_latching, (5).__eq__, "what was given up"
    )
    assert client.get_session(session).pinned_source == ""
    (knock,) = [k for k in client.list_knocks() if k.source_address == address_of(camera)]
    assert (knock.session_id, knock.packets, knock.reason) == (session, 5, "latching")
    client.update_session(session, latch_window_secs=60)
    feed(client, session, camera, server.ingest_target, viewer, 100)


@pytest.mark.lent_servers
def test_what_came_before_a_pause(server: ServerProcess, client: SessionClient, udp: Udp) -> None:
    """Nor what came in it; what came after it does."""
    camera, viewer = udp(), udp()
    session = latch(client, latch_window_secs=0.001)
    client.add_subscriber(session, address_of(viewer))
    before = received(server)
    for number in range(5):
        camera.sendto(rtp_packet(SSRC, number), server.ingest_target)
    eventually(lambda: received(server) - before, (5).__eq__, "what is held")
    client.update_session(session, paused=True)
    camera.sendto(rtp_packet(SSRC, 5), server.ingest_target)
    eventually(
        lambda: client.get_session_stats(session).dropped_latching,
        {1, 6}.__contains__,  # on a slow machine with those that have waited for a second
        "what comes in a pause",
    )
    client.update_session(session, paused=False, latch_window_secs=60)
    feed(client, session, camera, server.ingest_target, viewer, 100)


def test_killed_while_some_wait(
    start_server: Callable[..., ServerProcess], udp: Udp, tmp_path: Path
) -> None:
    """They are lost with it; what comes after that is whole, and nothing comes twice."""
    with udp() as free:
        bind = address_of(free)
    settings = {"bind_address": bind, "store__path": tmp_path / "rtp.db"}
    server = start_server(**settings)
    camera, viewer = udp(), udp()
    with SessionClient(server.calls_target) as client:
        session = latch(client, latch_window_secs=0.001)
        client.add_subscriber(session, address_of(viewer))
    for packet in numbered(0, 5):
        camera.sendto(packet, server.ingest_target)
    eventually(lambda: received(server), (5).__eq__, "what is held")
    server.process.kill()
    server.process.wait()
    server = start_server(**settings)
    with SessionClient(server.calls_target) as client:
        client.update_session(session, latch_window_secs=60)
        feed(client, session, camera, server.ingest_target, viewer, 100)
        assert queued(viewer) == []
