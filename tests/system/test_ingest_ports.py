"""Ports of sessions' own, on a whole server: fed, latched on to, kept over crashes and upgrades."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from ports_support import free_range, taken
from supervisor_scene import command, connected, kill, server_pid, state
from support import (
    ServerProcess,
    address_of,
    eventually,
    queued,
    receive,
    rtp_packet,
    send_segmented,
    udp_socket,
)

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rtpfanout.portrange import PortRange

    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.usefixtures("runtime_directory")


@pytest.fixture
def ports() -> PortRange:
    return free_range(4)


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path, ports: PortRange) -> ServerProcess:
    return start_server(store__path=str(tmp_path / "store.db"), ingest_ports=str(ports), workers=2)


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Cameras and viewers."""
    found = [udp_socket() for _ in range(4)]
    yield found
    for sock in found:
        sock.close()


def create(server: ServerProcess, source: str, *viewers: socket.socket, **more: Any) -> Any:
    request = {"source_address": source, "ssrc": 7, "media_type": "video", "ingest_port": "auto"}
    session = server.stub.CreateSession(pb.CreateSessionRequest(**(request | more)))
    for viewer in viewers:
        server.add(session.session_id, address_of(viewer))
    return session


def at(session: Any, host: str = "127.0.0.1") -> tuple[str, int]:
    return host, session.ingest_port


def frame(first: int, ssrc: int = 7, count: int = 14) -> list[bytes]:
    return [rtp_packet(ssrc, first + i, bytes(100)) for i in range(count)]


def test_each_port_feeds_its_session(
    server: ServerProcess, sockets: list[socket.socket], ports: PortRange
) -> None:
    camera, stranger, *viewers = sockets
    sessions = [create(server, address_of(camera), viewer) for viewer in viewers]
    assert [each.ingest_port for each in sessions] == list(ports.numbers())[:2]
    for number, session in enumerate(sessions):
        packets = [*frame(0, 100 + number), *frame(14, 200 + number)]  # another SSRC on the way
        send_segmented(camera, packets[:14], at(session))
        send_segmented(camera, packets[14:], at(session))
        assert receive(viewers[number], len(packets)) == packets
        stranger.sendto(packets[0], at(session))
    camera.sendto(bytes([0x80, 200, 0, 6]) + bytes(24), (at(sessions[0])[0], ports.first + 1))
    dropped = server.settled(59).dropped()
    assert dropped == {"wrong_source": 2, "rtcp": 1}
    assert not queued(viewers[0])


def test_whoever_comes_first_has_it(server: ServerProcess, sockets: list[socket.socket]) -> None:
    """An encoder that nobody knows the address or the SSRC of, as behind a mobile network's NAT."""
    encoder, stranger, viewer, _ = sockets
    session = create(server, "", viewer, source_policy="latch")

    def pinned() -> str:
        encoder.sendto(rtp_packet(0xABCDEF, 1), at(session))
        found = server.stub.GetSession(pb.GetSessionRequest(session_id=session.session_id))
        return str(found.pinned_source)

    eventually(pinned, lambda found: found == address_of(encoder), "pinned")
    server.settled()
    queued(viewer)
    packets = frame(100, 0x123456)
    for packet in packets:
        stranger.sendto(packet, at(session))
        encoder.sendto(packet, at(session))
    assert receive(viewer, len(packets)) == packets
    server.settled()
    assert not queued(viewer)


def test_it_outlives_kills_and_upgrades(
    server: ServerProcess, sockets: list[socket.socket]
) -> None:
    camera, _, viewer, _ = sockets
    session = create(server, address_of(camera), viewer, name="rover-7/front", dscp="copy")
    packets = frame(0, count=60)
    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        for packet in packets[sent : sent + count]:
            camera.sendto(packet, at(session))
        sent += count

    for number in range(2):
        os.kill(server_pid(server), signal.SIGSTOP)
        send(10)  # they wait in the socket
        kill(server)
        send(5)
        assert receive(viewer, 15) == packets[sent - 15 : sent]
        done = command("upgrade", "--pid", str(server.process.pid))
        assert done.returncode == 0, done.stderr
        connected(server)
        send(5)
        assert receive(viewer, 5) == packets[sent - 5 : sent]
        # What comes later is kept, too.
        other = create(server, address_of(camera), name=f"rover-7/{number}")
        kill(server)
        camera.sendto(packets[0], at(other))
        stats = eventually(
            lambda other=other: server.stats(other.session_id).packets_received,  # type: ignore[misc]
            lambda n: n == 1,
            "of one that was made since",
        )
        assert stats == 1
    assert not queued(viewer)
    assert state(server).error == ""


def test_a_port_that_is_given_up_is_free_at_once(
    server: ServerProcess, sockets: list[socket.socket], ports: PortRange
) -> None:
    camera, _, viewer, _ = sockets
    session = create(server, address_of(camera), viewer)

    def update(port: str) -> Any:
        return server.stub.UpdateSession(
            pb.UpdateSessionRequest(session_id=session.session_id, ingest_port=port)
        )

    with pytest.raises(OSError, match="in use"):
        taken(session.ingest_port)
    moved = update(str(ports.last - 1))
    assert moved.ingest_port == ports.last - 1
    for packet in frame(0):
        camera.sendto(packet, at(moved))
    assert receive(viewer, 14) == frame(0)
    assert update("").ingest_port == 0
    camera.sendto(rtp_packet(7, 20), server.ingest_target)
    assert receive(viewer, 1) == [rtp_packet(7, 20)]
    assert update("auto").ingest_port
    server.delete(session.session_id)
    # The supervisor has given it up as well, a moment after.
    for port in range(ports.first, ports.last + 1):
        eventually(lambda port=port: _is_free(port), bool, f"port {port}")  # type: ignore[misc]


def _is_free(port: int) -> bool:
    try:
        taken(port).close()
    except OSError:
        return False
    return True


def test_a_range_that_is_full_and_one_that_others_use(
    server: ServerProcess, ports: PortRange
) -> None:
    with taken(ports.first + 3):
        numbers = [create(server, "", source_policy="latch").ingest_port for _ in range(3)]
        assert numbers == [ports.first, ports.first + 4, ports.first + 6]
        metrics = server.metrics()
        assert metrics["rtpfanout_ingest_ports"] == len(ports)
        assert metrics["rtpfanout_ingest_ports_used"] == 3
        for port, code in (
            ("auto", grpc.StatusCode.RESOURCE_EXHAUSTED),
            (str(ports.first), grpc.StatusCode.ALREADY_EXISTS),
            (str(ports.first + 2), grpc.StatusCode.UNAVAILABLE),
            (str(ports.first + 1), grpc.StatusCode.INVALID_ARGUMENT),
            (str(ports.last + 1), grpc.StatusCode.INVALID_ARGUMENT),
            ("ten", grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                create(server, "", source_policy="latch", ingest_port=port)
            assert refused.value.code() is code, port


def test_what_is_not_there_is_refused_and_served_later(
    start_server: StartServer, tmp_path: Path, ports: PortRange, sockets: list[socket.socket]
) -> None:
    camera, _, viewer, _ = sockets
    settings = {"store__path": str(tmp_path / "store.db"), "ingest_ports": str(ports)}
    first = start_server(**settings)
    session = create(first, address_of(camera), viewer, name="cam")
    first.stop()
    with taken(session.ingest_port):
        server = start_server(**settings)
        found = server.stub.GetSession(pb.GetSessionRequest(session_id=session.session_id))
        assert found.status == "refused"
        assert f"port {session.ingest_port} can't be opened" in found.refused_reason
    eventually(
        lambda: server.stub.GetSession(pb.GetSessionRequest(session_id="cam")).status,
        lambda status: status == "idle",
        "served again",
    )
    camera.sendto(rtp_packet(9, 1), at(session))
    assert receive(viewer, 1) == [rtp_packet(9, 1)]


def test_an_encoder_needs_to_be_told_an_address_and_a_port(
    server: ServerProcess, sockets: list[socket.socket]
) -> None:
    """By the commands; it restarts with another SSRC, and from another port."""
    encoder, restarted, viewer, _ = sockets
    where = ("--server", str(server.grpc))
    words = ("any", "--name", "rover-7/front", "--ingest-port", "auto", "-o", "json", *where)
    created = command("session", "create", *words)
    assert created.returncode == 0, created.stderr
    port = json.loads(created.stdout)["ingest_port"]
    added = command("subscriber", "add", "rover-7/front", address_of(viewer), *where)
    assert added.returncode == 0, added.stderr

    def is_through(camera: socket.socket, ssrc: int) -> bool:
        for packet in frame(0, ssrc, 6):
            camera.sendto(packet, ("127.0.0.1", port))
        server.settled()
        return any(packet[8:12] == ssrc.to_bytes(4) for packet in queued(viewer))

    for camera, ssrc in ((encoder, 0x11111111), (restarted, 0x22222222)):
        eventually(
            lambda camera=camera, ssrc=ssrc: is_through(camera, ssrc),  # type: ignore[misc]
            bool,
            f"packets of {ssrc:#x}",
        )


def test_another_supervisor_opens_them_again(
    start_server: StartServer, tmp_path: Path, ports: PortRange, sockets: list[socket.socket]
) -> None:
    camera, _, viewer, _ = sockets
    settings = {"store__path": str(tmp_path / "store.db"), "ingest_ports": str(ports)}
    first = start_server(**settings)
    session = create(first, address_of(camera), viewer)
    first.process.kill()  # and with it its server
    first.process.wait()
    eventually(lambda: _is_free(session.ingest_port), bool, "its server's end")
    server = start_server(**settings)
    assert server.stub.ListSessions(pb.ListSessionsRequest()).sessions[0].status == "idle"
    camera.sendto(rtp_packet(9, 1), at(session))
    assert receive(viewer, 1) == [rtp_packet(9, 1)]


@pytest.mark.parametrize("bind", ["[::]:0", "0.0.0.0:0", "[::1]:0"])
def test_addresses_of_both_families(start_server: StartServer, ports: PortRange, bind: str) -> None:
    server = start_server(bind_address=bind, ingest_ports=str(ports), enable_supervisor=False)
    hosts = {"[::]:0": ["127.0.0.1", "::1"], "0.0.0.0:0": ["127.0.0.1"], "[::1]:0": ["::1"]}[bind]
    for host in hosts:
        with udp_socket(host) as camera, udp_socket(host) as viewer:
            session = create(server, address_of(camera), viewer)
            camera.sendto(rtp_packet(9, 1), at(session, host))
            assert receive(viewer, 1) == [rtp_packet(9, 1)]
