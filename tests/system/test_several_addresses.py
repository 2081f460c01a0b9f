"""What was spoken to answers: on a host with several addresses, and over the end of the server."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from datagram_support import create, replaced, source_of, subscribers, token_of
from netns import hosts, inside, link, run, server_in
from support import (
    SETTLE_SECONDS,
    ServerProcess,
    address_of,
    eventually,
    requires,
    requires_root,
    rtp_packet,
)

from rtpfanout.model import Address
from rtpfanout.mover import Mover
from rtpfanout.receiver import Receiver
from rtpfanout.store import Store

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

SSRC = 0xADD2E55
SECOND = "127.0.0.2"
KEY = b"0123456789abcdef"


def consents(path: Path) -> int:
    """That the store has, by a copy of it: the server keeps the store itself to itself."""
    copy = path / "copy"
    copy.mkdir(exist_ok=True)
    for file in path.glob("store.db*"):
        shutil.copy(file, copy)
    with closing(sqlite3.connect(copy / "store.db")) as store:
        return int(store.execute("SELECT count(*) FROM consent").fetchone()[0])


def joined(receiver: Receiver) -> Receiver:
    """It only takes what comes from where it speaks to, as a NAT or a firewall would have it."""
    receiver._socket.connect(receiver._server.sockaddr)
    receiver.join(SETTLE_SECONDS)
    return receiver


def media(receiver: Receiver, count: int, before: Sequence[bytes] = ()) -> list[bytes]:
    """Read without a word to the server; what was under way at a kill may come again."""
    receiver._socket.settimeout(SETTLE_SECONDS)
    found: list[bytes] = []
    while len(found) < count:
        data = receiver._socket.recv(2048)
        if data[0] >> 6 == 2 and data not in before:
            found.append(data)
    return found


@pytest.mark.parametrize("kind", ["joined", "consented"])
@pytest.mark.parametrize("how", ["killed", "upgraded"])
def test_who_spoke_to_the_second_address_is_served_from_there_by_the_next_server_too(
    how: str,
    kind: str,
    start_server: StartServer,
    udp: Callable[..., socket.socket],
    tmp_path: Path,
) -> None:
    server = start_server(bind_address="0.0.0.0:0", store__path=str(tmp_path / "store.db"))
    source = udp()
    there = Address.parse(f"{SECOND}:{server.ingest.port}")
    bind = Address.parse("127.0.0.1:0")
    session = create(server, source, SSRC, consent="echo" if kind == "consented" else "")
    token = token_of(server, session) if kind == "joined" else None
    receiver = Receiver(there, token, bind=bind)
    if kind == "consented":
        server.add(session, f"127.0.0.1:{receiver.local_port}")
    joined(receiver)
    sent = [rtp_packet(SSRC, number) for number in range(20)]
    for packet in sent[:10]:
        source.sendto(packet, server.ingest_target)
    assert media(receiver, 10) == sent[:10]
    if kind == "consented" and how == "killed":  # kept about once a second
        eventually(lambda: consents(tmp_path), lambda kept: kept == 1, "kept")
    replaced(server, how)
    for packet in sent[10:]:
        source.sendto(packet, server.ingest_target)
    assert media(receiver, 10, sent[:10] if how == "killed" else ()) == sent[10:]
    assert list(subscribers(server, session).values()) == ["sending"]
    receiver.close()
    server.settled(10)
    assert server.metrics()["rtpfanout_egress_address_missing_total"] == 0


def test_a_move_is_answered_from_where_it_was_sent_to(
    start_server: StartServer, udp: Callable[..., socket.socket]
) -> None:
    server = start_server(bind_address="[::]:0")
    camera, elsewhere = udp(), udp()
    session = create(server, camera, SSRC, move_key=KEY)
    elsewhere.connect((SECOND, server.ingest.port))
    mover = Mover(KEY, SSRC)
    mover.move(0.0)
    request = mover.poll(0.0)
    assert request
    elsewhere.send(request)
    assert mover.receive(elsewhere.recv(2048))
    assert mover.is_done
    assert mover.error is None
    assert source_of(server, session) == address_of(elsewhere)


def test_the_file_forgets_with_the_subscriber(
    start_server: StartServer, udp: Callable[..., socket.socket], tmp_path: Path
) -> None:
    path = str(tmp_path / "store.db")
    server = start_server(bind_address="0.0.0.0:0", store__path=path)
    session = create(server, udp(), SSRC)
    there = Address.parse(f"{SECOND}:{server.ingest.port}")
    receivers = [
        joined(Receiver(there, token_of(server, session), bind=Address.parse("127.0.0.1:0")))
        for _ in range(2)
    ]
    assert receivers[0].leave(SETTLE_SECONDS)
    server.stop()
    with Store(path) as store:
        (left,) = store.deliveries()
    assert left.record == Address.parse(f"127.0.0.1:{receivers[1].local_port}").record
    assert left.local == Address.parse(f"{SECOND}:0").packed
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """Of a server with three addresses, and of a host beside it."""
    requires("ip")
    requires_root()
    with hosts("sv", "near") as ns:
        link(ns["sv"], "10.1.0.1/24", ns["near"], "10.1.0.9/24")
        for other in ("10.1.0.50/24", "10.1.0.100/24"):
            run("ip", "-n", ns["sv"], "address", "add", other, "dev", towards(ns["near"]))
        yield ns["sv"], ns["near"]


def towards(namespace: str) -> str:
    return f"to-{namespace}"[:15]


@pytest.mark.parametrize(
    ("configured", "expected"), [("", "10.1.0.100"), ("10.1.0.50", "10.1.0.50")]
)
def test_who_was_added_by_a_call_is_served_from_where_the_source_speaks_to_or_as_configured(
    configured: str,
    expected: str,
    namespaces: tuple[str, str],
    udp: Callable[..., socket.socket],
    tmp_path: Path,
) -> None:
    sv, near = namespaces
    with inside(near):
        camera, viewer = udp("10.1.0.9"), udp("10.1.0.9")

    with inside(sv):
        server = server_in(sv, tmp_path)(
            bind_address="0.0.0.0:0", store__path=":memory:", egress_address=configured
        )
        try:
            created = server.create(
                address_of(camera),
                SSRC,
                address_of(viewer),
            )
            for number in range(3):
                camera.sendto(rtp_packet(SSRC, number), ("10.1.0.100", server.ingest.port))
                assert viewer.recvfrom(2048)[1][0] == expected
            run("ip", "-n", sv, "address", "del", "10.1.0.100/24", "dev", towards(near))
            run("ip", "-n", sv, "address", "add", "10.1.0.7/24", "dev", towards(near))
            camera.sendto(rtp_packet(SSRC, 4), ("10.1.0.1", server.ingest.port))
            assert viewer.recvfrom(2048)[1][0] == (configured or "10.1.0.1")
            server.settled(4)
            assert server.stats(created).packets_sent == 4
            server.check_identities()
        finally:
            server.stop()
