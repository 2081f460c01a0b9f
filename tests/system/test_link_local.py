"""Link-local sources and subscribers: with an interface, and through its being made anew."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import grpc
import pytest
from datagram_support import replaced, source_of, subscribers
from netns import hosts, inside, run, server_in
from support import (
    SETTLE_SECONDS,
    ServerProcess,
    eventually,
    requires,
    requires_root,
    rtp_packet,
)

from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

SSRC = 0x11CA1
PORT = 5004
OURS, THEIRS = "fe80::1", "fe80::9"
DEVICE = "media0"


class Link:
    """Between a server's host and another one; whenever it is made the index is another."""

    def __init__(self, server: str, other: str) -> None:
        self.server, self.other = server, other
        self.index = 100
        self.made = 0

    def make(self) -> None:
        self.index += 1
        run("ip", "-n", self.server, "link", "add", DEVICE, "index", str(self.index),
            "type", "veth", "peer", "name", "far0", "netns", self.other)  # fmt: skip
        for namespace, name, ip in ((self.server, DEVICE, OURS), (self.other, "far0", THEIRS)):
            run("ip", "-n", namespace, "link", "set", name, "addrgenmode", "none", "up")
            run("ip", "-n", namespace, "address", "add", f"{ip}/64", "dev", name, "nodad")

    def remove(self) -> None:
        run("ip", "-n", self.server, "link", "del", DEVICE)

    def take_index(self) -> None:
        """Another interface gets the index that the link had."""
        run("ip", "-n", self.server, "link", "add", "other0", "index", str(self.index),
            "type", "veth", "peer", "name", "other1")  # fmt: skip
        run("ip", "-n", self.server, "link", "set", "other0", "up")


@pytest.fixture
def link() -> Iterator[Link]:
    requires("ip")
    requires_root()
    with hosts("sv", "far") as ns:
        made = Link(ns["sv"], ns["far"])
        made.make()
        yield made


@pytest.fixture
def server(link: Link, tmp_path: Path) -> Iterator[ServerProcess]:
    with inside(link.server):
        server = server_in(link.server, tmp_path)(
            bind_address=f"[::]:{PORT}",
            store__path=str(tmp_path / "store.db"),
            address_policy__allow='["fe80::/10", "::/0", "0.0.0.0/0"]',
        )
        yield server
        server.stop()


@pytest.fixture
def far(link: Link, udp: Callable[..., socket.socket]) -> tuple[socket.socket, socket.socket]:
    """A camera and a viewer on the other host."""
    with inside(link.other):
        return udp("::"), udp("::")


def told(link: Link, sock: socket.socket) -> str:
    return f"[{THEIRS}%{link.index}]:{sock.getsockname()[1]}"


def passes(link: Link, camera: socket.socket, viewer: socket.socket, sequence: int) -> bool:
    """A packet from the camera by way of the server to the viewer, within half a second."""
    packet = rtp_packet(SSRC, sequence)
    with inside(link.other):
        index = socket.if_nametoindex("far0")
    try:
        camera.sendto(packet, (OURS, PORT, 0, index))
        viewer.settimeout(0.5)
        while viewer.recv(2048) != packet:
            pass
    except OSError:
        return False
    return True


def held_up(link: Link, camera: socket.socket, viewer: socket.socket) -> None:
    """Until packets pass again."""
    sequence = iter(range(100, 10_000))
    eventually(lambda: passes(link, camera, viewer, next(sequence)), bool, "it is found again")


def test_both_are_found_again_when_their_interface_is_made_anew(
    link: Link, server: ServerProcess, far: tuple[socket.socket, socket.socket]
) -> None:
    camera, viewer = far
    session = server.create(told(link, camera), SSRC, told(link, viewer))
    assert passes(link, camera, viewer, 1)
    for _ in range(2):
        link.remove()
        link.make()
        held_up(link, camera, viewer)
        assert list(subscribers(server, session)) == [told(link, viewer)]
        assert source_of(server, session) == told(link, camera)
    replaced(server, "killed")
    assert passes(link, camera, viewer, 2)
    server.remove(session, told(link, viewer))
    server.check_identities()


def test_the_interface_is_another_when_a_server_starts(
    link: Link, server: ServerProcess, far: tuple[socket.socket, socket.socket]
) -> None:
    """Its index is another interface's now, and it comes back only later."""
    camera, viewer = far
    session = server.create(told(link, camera), SSRC, told(link, viewer))
    assert passes(link, camera, viewer, 1)
    os.kill(server.process.pid, signal.SIGSTOP)  # the supervisor: nobody follows yet
    (child,) = [entry["pid"] for entry in server.log if entry["event"] == "ready"]
    os.kill(child, signal.SIGKILL)
    link.remove()
    link.take_index()
    os.kill(server.process.pid, signal.SIGCONT)
    eventually(
        lambda: [entry["pid"] for entry in list(server.log) if entry["event"] == "ready"],
        lambda pids: len(pids) == 2,
        "ready again",
    )
    grpc.channel_ready_future(server.channel).result(SETTLE_SECONDS)
    assert told(link, viewer) not in subscribers(server, session), "that is another's now"
    link.make()
    held_up(link, camera, viewer)
    assert list(subscribers(server, session)) == [told(link, viewer)]
    assert source_of(server, session) == told(link, camera)
    server.check_identities()


@pytest.mark.lent_servers
@pytest.mark.parametrize(
    "call", ["CreateSession", "UpdateSession", "AddSubscriber", "BatchAddSubscribers"]
)
def test_without_an_interface_it_is_refused_by_the_name_of_the_field(
    call: str, start_server: StartServer
) -> None:
    server = start_server(
        bind_address="[::1]:0", address_policy__allow='["fe80::/10", "::/0", "0.0.0.0/0"]'
    )
    session = server.create("[::1]:5000", SSRC)
    nowhere = f"[{THEIRS}]:5000"
    requests = {
        "CreateSession": session_pb2.CreateSessionRequest(
            source_address=nowhere, ssrc=1, media_type="video"
        ),
        "UpdateSession": session_pb2.UpdateSessionRequest(
            session_id=session, source_address=nowhere
        ),
        "AddSubscriber": session_pb2.AddSubscriberRequest(
            session_id=session, subscriber_address=nowhere
        ),
        "BatchAddSubscribers": session_pb2.BatchAddSubscribersRequest(
            session_id=session, subscriber_addresses=["[::1]:5001", nowhere]
        ),
    }
    with pytest.raises(grpc.RpcError) as error:
        getattr(server.stub, call)(requests[call])
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "%2" in error.value.details(), "what to write"
    field = "subscriber_address" if "Subscriber" in call else "source_address"
    metadata = dict(error.value.trailing_metadata())
    assert field.encode() in metadata["grpc-status-details-bin"]
