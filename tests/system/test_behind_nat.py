"""A receiver behind a NAT that masquerades, in network namespaces: joins, and is found again."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from cli_support import run_json
from netns import hosts, inside, link
from netns import run as command
from support import ServerProcess, requires, requires_root, rtp_packet, udp_socket

from rtpfanout.model import Address
from rtpfanout.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

SSRC = 0xA11CE
PER_SECOND = 200

pytestmark = pytest.mark.slow("a receiver redials when it has heard nothing for seconds")


class Home:
    """A server, a router and a receiver's host behind it; a camera on the server's host."""

    def __init__(self, stack: ExitStack) -> None:
        self.ns = stack.enter_context(hosts("sv", "nat", "home"))
        self.sv, self.nat, self.home = (self.ns[name] for name in ("sv", "nat", "home"))
        link(self.sv, "10.1.0.1/24", self.nat, "10.1.0.2/24")
        link(self.nat, "192.168.9.1/24", self.home, "192.168.9.2/24")
        command("ip", "-n", self.home, "route", "add", "default", "via", "192.168.9.1")
        self._inside_nat("sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.uplink = f"to-{self.sv}"[:15]
        self._inside_nat("nft", "add table ip nat")
        chain = "{ type nat hook postrouting priority 100; }"
        self._inside_nat("nft", f"add chain ip nat post {chain}")
        rule = f'add rule ip nat post oifname "{self.uplink}" masquerade fully-random'
        self._inside_nat("nft", rule)
        with inside(self.sv):
            self.server = ServerProcess(bind_address="0.0.0.0:0")
            stack.callback(self.server.stop)
            self.source = stack.enter_context(udp_socket())
        with inside(self.sv):
            to = ("--server", self.server.grpc)
            source = f"127.0.0.1:{self.source.getsockname()[1]}"
            created = run_json("session", "create", source, "--ssrc", SSRC, *to)
            self.session = created["session_id"]
            self.token = run_json("session", "token", self.session, *to)["token"]

    def redial(self) -> None:
        """The router's uplink goes down and up: the kernel forgets what it masqueraded."""
        command("ip", "-n", self.nat, "link", "set", self.uplink, "down")
        command("ip", "-n", self.nat, "link", "set", self.uplink, "up")

    def subscribers(self) -> list[str]:
        with inside(self.sv):
            to = ("--server", self.server.grpc)
            found = run_json("subscriber", "list", self.session, *to)
        return [subscriber["subscriber_address"] for subscriber in found]

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Packets at an even pace, meanwhile."""
        stop = threading.Event()

        def send() -> None:
            sequence = 0
            while not stop.wait(1 / PER_SECOND):
                packet = rtp_packet(SSRC, sequence & 0xFFFF)
                self.source.sendto(packet, ("127.0.0.1", self.server.ingest.port))
                sequence += 1

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _inside_nat(self, *words: str) -> None:
        subprocess.run(
            ["ip", "netns", "exec", self.nat, *words], check=True, capture_output=True, text=True
        )


def test_a_receiver_behind_nat_joins_and_follows_its_port() -> None:
    """How long media was away is for whoever runs it with -s."""
    requires_root()
    requires("ip", "nft", "sysctl")
    with ExitStack() as stack:
        home = Home(stack)
        with inside(home.home):
            receiver = Receiver(Address.parse(f"10.1.0.1:{home.server.ingest.port}"), home.token)
        stack.callback(receiver.close)
        receiver.join(30)
        (first,) = home.subscribers()
        assert first.startswith("10.1.0.2:")
        assert first != f"10.1.0.2:{receiver.local_port}", "the router has given it another port"
        seen = {first}
        with home.traffic():
            for _ in range(3):
                for _ in range(50):
                    assert receiver.receive(10) is not None
                home.redial()
                away = time.monotonic()
                while receiver.receive(0.05) is not None:  # what was on its way
                    pass
                while receiver.receive(0.05) is None:
                    assert time.monotonic() - away < 30
                print(f"\nafter the redial media was away for {time.monotonic() - away:.2f} s")
                (now,) = home.subscribers()
                assert now not in seen, "and the former place is given up"
                seen.add(now)
        assert receiver.leave(30)
        assert home.subscribers() == []
        with inside(home.sv):
            home.server.check_identities()
