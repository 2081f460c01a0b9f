"""`reach` of subscribers, as the API and the command line show it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from cli_support import run
from rtcp_packets import receiver_report
from support import (
    ServerProcess,
    address_of,
    eventually,
    requires,
    requires_root,
    rtp_packet,
)

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

SSRC = 0xBEEF01


class WithoutRawSockets(ServerProcess):
    """As a user without CAP_NET_RAW starts it."""

    command: ClassVar[list[str]] = [
        "setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", *ServerProcess.command,
    ]  # fmt: skip


class Scene:
    """A camera, a viewer, and one that is not there any more."""

    def __init__(self, server: ServerProcess, camera: socket.socket, viewer: socket.socket) -> None:
        self.server, self.viewer = server, viewer
        self._camera = camera
        self._sent = 0
        self.closed = "127.0.0.1:9"  # no test gets that
        self.there = address_of(viewer)
        self.session = server.create(address_of(camera), SSRC, self.closed, self.there)

    def look(self) -> dict[str, Any]:
        """By address, after another packet."""
        self._sent += 1
        self._camera.sendto(rtp_packet(SSRC, self._sent), self.server.ingest_target)
        time.sleep(0.02)
        page = self.server.stub.ListSubscribers(pb.ListSubscribersRequest(session_id=self.session))
        return {each.subscriber_address: each for each in page.subscribers}

    def reach(self) -> dict[str, str]:
        return {address: each.reach for address, each in self.look().items()}


@pytest.fixture
def make(udp: Callable[..., socket.socket]) -> Iterator[Callable[[type[ServerProcess]], Scene]]:
    """A scene with a server of that kind."""
    requires_root()
    servers = []

    def make(kind: type[ServerProcess]) -> Scene:
        servers.append(kind())
        return Scene(servers[-1], udp(), udp())

    yield make
    for server in servers:
        server.stop()


def test_a_closed_port_is_told_from_one_that_is_open(
    make: Callable[[type[ServerProcess]], Scene],
) -> None:
    s = make(ServerProcess)
    expected = {s.closed: "port_closed", s.there: "reachable"}
    eventually(s.reach, lambda found: found == expected, "reach of both")
    found = s.look()
    assert "says by ICMP: nobody listens" in found[s.closed].reach_detail
    assert "whether anybody listens" in found[s.there].reach_detail
    since, added = (
        datetime.fromisoformat(getattr(found[s.closed], name)) for name in ("reach_since", "since")
    )
    assert added <= since <= datetime.now(since.tzinfo)
    done = run("subscriber", "list", s.session, "-s", s.server.grpc)
    listed = done.stdout.splitlines()
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"{s.closed}: port_closed: 127.0.0.1 says by ICMP")
    assert listed[0].split()[-1] == "REACH"
    assert {line.split()[0]: line.split()[-1] for line in listed[1:]} == expected


def test_who_reports_is_reached(make: Callable[[type[ServerProcess]], Scene]) -> None:
    s = make(ServerProcess)
    s.server.stub.AddSubscriber(
        pb.AddSubscriberRequest(session_id=s.session, subscriber_address=s.there, rtcp="mux")
    )
    s.look()

    def detail() -> str:
        s.viewer.sendto(receiver_report(5, SSRC), s.server.ingest_target)
        return str(s.look()[s.there].reach_detail)

    eventually(detail, lambda found: found.startswith("it reported"), "its report")


def test_without_the_capability_it_says_so_and_serves(
    make: Callable[[type[ServerProcess]], Scene],
) -> None:
    requires("setpriv")
    s = make(WithoutRawSockets)
    found = s.look()
    assert {each.reach for each in found.values()} == {"reachable"}
    assert all("has not got CAP_NET_RAW" in each.reach_detail for each in found.values())
    assert "CAP_NET_RAW" in s.server.logged("ICMP errors are not heard")["reason"]
