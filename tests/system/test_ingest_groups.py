"""Multicast by configuration: joined on real interfaces, once, over crash, upgrade and reload."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, ClassVar

import pytest
from netns import hosts, inside, link, run
from support import (
    SETTLE_SECONDS,
    ServerProcess,
    address_of,
    eventually,
    receive,
    requires,
    requires_root,
    rtp_packet,
    udp_socket,
)

from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IPV4, IPV6 = "239.7.7.7", "ff15::77:7"
SOURCED = "232.7.7.7"
ALWAYS = 'rtpfanout_ingest_group_joined{group="%s"}'


class ConfiguredServer(ServerProcess):
    """With the configuration file of the test."""

    command: ClassVar[list[str]] = []


class Lan:
    """A server's host, and one with cameras and a viewer; the server reads `config`."""

    def __init__(self, names: dict[str, str], tmp_path: Path) -> None:
        self.here, self.there = names["s"], names["c"]
        self.config = tmp_path / "server.toml"
        ConfiguredServer.command = [*ServerProcess.command, "--config", str(self.config)]
        self.store = tmp_path / "store.db"
        self.device = f"to-{self.there}"[:15]
        self.connect()

    def connect(self) -> None:
        link(self.here, "10.77.0.1/24", self.there, "10.77.0.2/24")
        for namespace, device, ip in (
            (self.here, self.device, "fd77::1"),
            (self.there, self.there_device, "fd77::2"),
        ):
            run("ip", "-n", namespace, "address", "add", f"{ip}/64", "dev", device, "nodad")
        run("ip", "-n", self.there, "address", "add", "10.77.0.3/24", "dev", self.there_device)

    @property
    def there_device(self) -> str:
        return f"to-{self.here}"[:15]

    def disconnect(self) -> None:
        run("ip", "-n", self.here, "link", "delete", self.device)

    def start(self, *groups: str) -> ServerProcess:
        self.configure(*groups)
        with inside(self.here):
            self.server = ConfiguredServer(bind_address="[::]:0", workers=3, store__path=self.store)
        return self.server

    def configure(self, *groups: str) -> None:
        self.config.write_text(f"ingest_groups = {json.dumps(groups)}\n")

    def camera(self, ip: str) -> socket.socket:
        with inside(self.there):
            sock = udp_socket(ip)
            index = socket.if_nametoindex(self.there_device)
        if ":" in ip:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ip))
        return sock

    def viewer(self) -> socket.socket:
        with inside(self.there):
            return udp_socket("10.77.0.2")

    def cli(self, *words: str) -> str:
        command = [sys.executable, "-m", "rtpfanout", *words]
        environment = os.environ | {"RTP_FANOUT_SERVER": str(self.server.grpc)}
        with inside(self.here):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
        return done.stdout.strip()

    def session(self, camera: socket.socket, viewer: socket.socket, ssrc: int) -> None:
        session = self.cli("session", "create", address_of(camera), "--ssrc", str(ssrc), "--quiet")
        self.cli("subscriber", "add", session, address_of(viewer))

    def metric(self, name: str) -> float:
        with inside(self.here):
            return self.server.metrics()[name]

    def joined(self, group: str, wanted: int = 1) -> None:
        eventually(
            lambda: self.metric(ALWAYS % group), lambda now: now == wanted, f"{group}: {wanted}"
        )

    def ready(self, count: int) -> None:
        eventually(
            lambda: [entry["event"] for entry in list(self.server.log)].count("ready"),
            lambda now: now >= count,
            "another server is ready",
        )


@pytest.fixture
def lan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lan]:
    requires_root()
    requires("ip")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    with hosts("s", "c") as names:
        lan = Lan(names, tmp_path)
        yield lan
        try:
            with inside(lan.here):
                lan.server.check_identities()
        finally:
            lan.server.stop()


def through(camera: socket.socket, viewer: socket.socket, to: tuple[str, int], first: int) -> None:
    """Twenty packets of SSRC 1 come once each, in order."""
    packets = [rtp_packet(1, first + i) for i in range(20)]
    for packet in packets:
        camera.sendto(packet, to)
    assert receive(viewer, 20) == packets


def nothing_comes(camera: socket.socket, viewer: socket.socket, to: tuple[str, int]) -> None:
    """What is sent after it by another way comes, and it doesn't."""
    camera.sendto(rtp_packet(1, 9000), to)
    viewer.setblocking(False)
    time.sleep(0.2)
    with pytest.raises(BlockingIOError):
        viewer.recv(2048)
    viewer.settimeout(SETTLE_SECONDS)


@pytest.mark.parametrize(
    ("group", "ip"), [(IPV4, "10.77.0.2"), (IPV6, "fd77::2"), (f"10.77.0.2@{SOURCED}", "10.77.0.2")]
)
def test_a_group_comes_once_over_crash_and_upgrade(lan: Lan, group: str, ip: str) -> None:
    """Also while another process has joined it, and others that nobody asked for."""
    entry = f"{group}%{lan.device}"
    server = lan.start(entry)
    address = group.rpartition("@")[2]
    camera, viewer = lan.camera(ip), lan.viewer()
    lan.session(camera, viewer, 1)
    lan.joined(entry)
    to = (address, server.ingest.port)
    with inside(lan.here), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        index = socket.if_nametoindex(lan.device)
        for joined in (IPV4, SOURCED, "239.7.7.8"):
            member = socket.inet_aton(joined) + bytes(4) + index.to_bytes(4, sys.byteorder)
            other.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        through(camera, viewer, to, 0)
        if ":" not in ip:
            nothing_comes(camera, viewer, ("239.7.7.8", server.ingest.port))
    time.sleep(0.2)  # what is in hand when a server dies may come twice
    state = statefile.read(server.process.pid)
    assert state is not None
    os.kill(state.server_pid, signal.SIGKILL)
    packets = [rtp_packet(1, 20 + i) for i in range(20)]
    for packet in packets:
        camera.sendto(packet, to)
    assert receive(viewer, 20) == packets
    lan.ready(2)
    lan.cli("upgrade", "--pid", str(server.process.pid))
    through(camera, viewer, to, 40)
    assert lan.metric("rtpfanout_kernel_receive_drops_total") == 0
    assert lan.metric("rtpfanout_kernel_receive_errors_total") == 0


def test_other_sources_of_a_sourced_group_stay_out(lan: Lan) -> None:
    entry = f"10.77.0.2@{SOURCED}%{lan.device}"
    server = lan.start(entry)
    wanted, other, viewer = lan.camera("10.77.0.2"), lan.camera("10.77.0.3"), lan.viewer()
    lan.session(wanted, viewer, 1)
    lan.session(other, viewer, 1)
    lan.joined(entry)
    to = (SOURCED, server.ingest.port)
    nothing_comes(other, viewer, to)
    through(wanted, viewer, to, 0)
    assert lan.metric("rtp_packets_received_total") == 20


def test_an_interface_that_goes_and_comes_back(lan: Lan) -> None:
    """By name, and by the routing table."""
    lan.disconnect()
    entry = f"{IPV4}%{lan.device}"
    server = lan.start(entry, "239.7.7.9")
    lan.joined(entry, 0)
    lan.joined("239.7.7.9", 0)
    told = [item for item in server.log if item["event"] == "ingest group can't be joined yet"]
    assert {item["group"] for item in told} == {entry, "239.7.7.9"}
    for first in (0, 20):
        lan.connect()
        run("ip", "-n", lan.here, "route", "add", "239.0.0.0/8", "dev", lan.device)
        lan.joined(entry)
        lan.joined("239.7.7.9")
        camera, viewer = lan.camera("10.77.0.2"), lan.viewer()
        lan.session(camera, viewer, 1)
        through(camera, viewer, (IPV4, server.ingest.port), first)
        through(camera, viewer, ("239.7.7.9", server.ingest.port), first + 40)
        lan.disconnect()
        lan.joined(entry, 0)
        camera.close()


def test_a_reload_joins_and_leaves(lan: Lan) -> None:
    first, second = f"{IPV4}%{lan.device}", f"239.7.7.8%{lan.device}"
    server = lan.start(first)
    camera, viewer = lan.camera("10.77.0.2"), lan.viewer()
    lan.session(camera, viewer, 1)
    through(camera, viewer, (IPV4, server.ingest.port), 0)
    lan.configure(second)
    lan.cli("reload", "--pid", str(server.process.pid))
    lan.joined(second)
    nothing_comes(camera, viewer, (IPV4, server.ingest.port))
    through(camera, viewer, ("239.7.7.8", server.ingest.port), 20)
