"""Sources that nobody knows beforehand: a latch takes who comes first, of either family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from datagram_support import Forger, outcomes
from support import address_of, eventually, receive, requires_root, rtp_packet, transfer

from rtpfanout import signed
from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from support import ServerProcess

    MakeSocket = Callable[..., socket.socket]
    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.lent_servers

SSRC = 0x1A7C


def latch(server: ServerProcess, source: str = "", **fields: Any) -> str:
    """A session with that policy; its id."""
    request = session_pb2.CreateSessionRequest(
        source_address=source, ssrc=SSRC, media_type="video", source_policy="latch", **fields
    )
    return str(server.stub.CreateSession(request).session_id)


def pinned(server: ServerProcess, session_id: str) -> str:
    """pinned_source."""
    request = session_pb2.GetSessionRequest(session_id=session_id)
    return str(server.stub.GetSession(request).pinned_source)


def knock(
    server: ServerProcess, session_id: str, source: socket.socket, to: tuple[str, int]
) -> None:
    """Packets of `source` until it is pinned."""

    def again() -> str:
        source.sendto(rtp_packet(SSRC, 0), to)
        return pinned(server, session_id)

    eventually(again, address_of(source).__eq__, "pinned")


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "127.0.0.1:0"])
def test_an_empty_latch_takes_an_ipv4_source(
    start_server: StartServer, udp: MakeSocket, bind: str
) -> None:
    server = start_server(bind_address=bind)
    camera, viewer, to = udp(), udp(), ("127.0.0.1", server.ingest.port)
    session = latch(server)
    server.add(session, address_of(viewer))
    knock(server, session, camera, to)
    some = [rtp_packet(SSRC, n) for n in range(1, 20)]
    server.settled()
    viewer.setblocking(False)
    for _ in range(1000):  # what came between two looks
        try:
            viewer.recv(2048)
        except BlockingIOError:
            break
    viewer.settimeout(30)
    assert transfer(camera, to, some, [viewer]) == [some]


def test_relatching_crosses_families_and_survives_kill_9(
    start_server: StartServer, udp: MakeSocket, tmp_path: Path
) -> None:
    with udp("::") as free:
        bind = f"[::]:{free.getsockname()[1]}"
    settings = {"bind_address": bind, "store__path": tmp_path / "rtp.db"}
    server = start_server(**settings)
    port = server.ingest.port
    session = latch(server, relatch_after_secs=0.2)
    cameras = [(udp("::1"), "::1"), (udp(), "127.0.0.1"), (udp("::1"), "::1")]
    for camera, host in cameras:
        knock(server, session, camera, (host, port))
    server.process.kill()
    server.process.wait()
    server = start_server(**settings)
    assert pinned(server, session) == address_of(cameras[-1][0])
    for camera, host in reversed(cameras):
        knock(server, session, camera, (host, port))


def test_an_open_latch_is_open_to_both_families_after_kill_9(
    start_server: StartServer, udp: MakeSocket, tmp_path: Path
) -> None:
    with udp() as free:
        bind = address_of(free)
    settings = {"bind_address": bind, "store__path": tmp_path / "rtp.db"}
    server = start_server(**settings)
    session = latch(server)
    server.process.kill()
    server.process.wait()
    server = start_server(**settings)
    knock(server, session, udp(), server.ingest_target)


def test_networks_stay_of_one_family(start_server: StartServer, udp: MakeSocket) -> None:
    server = start_server(bind_address="[::]:0")
    four, six, viewer = udp(), udp("::1"), udp()
    at = {four: ("127.0.0.1", server.ingest.port), six: ("::1", server.ingest.port)}
    session = latch(server)
    server.add(session, address_of(viewer))
    for policy, text, good, stranger in (
        ("cidr", "::/0", six, four),
        ("cidr", "0.0.0.0/0", four, six),
    ):
        server.stub.UpdateSession(
            session_pb2.UpdateSessionRequest(
                session_id=session, source_policy=policy, source_address=text
            )
        )
        before = server.metrics().dropped().get("wrong_source", 0)
        stranger.sendto(rtp_packet(SSRC, 9), at[stranger])
        eventually(
            lambda: server.metrics().dropped().get("wrong_source", 0),
            lambda n, before=before: n == before + 1,
            "refused",
        )
        good.sendto(rtp_packet(SSRC, 1), at[good])
        assert receive(viewer, 1) == [rtp_packet(SSRC, 1)]
    server.stub.UpdateSession(
        session_pb2.UpdateSessionRequest(
            session_id=session, source_policy="latch", source_address=""
        )
    )
    anew = session_pb2.UpdateSessionRequest(session_id=session, latch_window_secs=60)
    for source, to in at.items():

        def pin(source: socket.socket = source, to: tuple[str, int] = to) -> str:
            source.sendto(rtp_packet(SSRC, 0), to)
            got = pinned(server, session)
            if got not in ("", address_of(source)):  # a late packet of the one before
                server.stub.UpdateSession(anew)
            return got

        eventually(pin, address_of(source).__eq__, "pinned")
        server.stub.UpdateSession(anew)


def test_port_0_pins_nothing_is_answered_nothing_and_costs_no_line(server: ServerProcess) -> None:
    requires_root()
    session, open_to_all = latch(server, "127.0.0.0/8"), SSRC + 1
    server.stub.CreateSession(
        session_pb2.CreateSessionRequest(
            source_address="127.0.0.0/8",
            ssrc=open_to_all,
            media_type="video",
            source_policy="cidr",
        )
    )
    forger = Forger(server.ingest)
    try:
        for n in range(200):
            forger.send(("127.0.0.9", 0), rtp_packet(SSRC, n))
            if n % 20 == 19:
                server.settled(received=n + 1)
        forger.send(("127.0.0.9", 0), signed.build_hello(bytes(8)))
        # A port that is not used (RFC 768) says nothing against who is known by his address.
        forger.send(("127.0.0.9", 0), rtp_packet(open_to_all, 1))
    finally:
        forger.close()
    metrics = server.settled(received=202)
    assert metrics.dropped() == {"no_port": 201}
    assert metrics["rtpfanout_packets_forwarded_total"] == 1
    assert pinned(server, session) == ""
    assert outcomes(server) == {}
    assert [entry for entry in server.log if "pin" in entry["event"]] == []


@pytest.mark.lent_servers(False)  # so few that another test may have used them up
def test_who_may_not_be_pinned_costs_few_lines(server: ServerProcess, udp: MakeSocket) -> None:
    stranger = udp()
    session = latch(server)
    server.add(session, address_of(stranger))  # whose packets would come back to it
    for n in range(40):
        stranger.sendto(rtp_packet(SSRC, n), server.ingest_target)
        eventually(
            lambda: outcomes(server).get(("source", "accepted"), 0),
            lambda seen, n=n: seen == n + 1,
            "the notice to be looked at",
        )
    refused = [entry for entry in server.log if entry["event"] == "source not pinned"]
    assert len(refused) == 10
    assert pinned(server, session) == ""
