"""Where a benchmark runs: three network namespaces joined by veth pairs, or plain loopback.

    generator --veth-- server --veth-- subscribers

The subscribers' namespace counts every copy in an nft counter at the interface (netdev ingress
hook) and, unless `deliver`, drops it there, so that no receiver takes CPU from the contender.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = Literal["generator", "server", "subscribers"]

SUBSCRIBER_PORT = 20000
SOURCE_PORT = 40000
UDP_IPV4_HEADERS = 28


class LabError(Exception):
    """The place to measure in could not be set up."""


def run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def confined(argv: Sequence[str], cpus: str | None, nice: int) -> list[str]:
    """`argv` on those CPUs at that niceness, ended with the process that starts it."""
    pinned = ["taskset", "-c", cpus] if cpus is not None else []
    ranked = ["nice", "-n", str(nice)] if nice != 0 else []
    return [*ranked, *pinned, "setpriv", "--pdeathsig", "TERM", *argv]


def listed(cpus: str) -> list[int]:
    """The CPUs of a list like "0,2-3"."""
    ranges = [part.split("-") for part in cpus.split(",")]
    return [cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)]


@dataclass(frozen=True)
class Addresses:
    source: str
    ingress: str
    first_subscriber: str
    by_address: bool

    def subscribers(self, count: int) -> list[str]:
        """The `count` subscriber addresses, as ip:port."""
        ip, port = self.first_subscriber.rsplit(":", 1)
        if not self.by_address:
            return [f"{ip}:{int(port) + i}" for i in range(count)]
        prefix, last = ip.rsplit(".", 2)[0], ip.rsplit(".", 2)[1:]
        start = int(last[0]) * 256 + int(last[1])
        return [f"{prefix}.{(start + i) >> 8}.{(start + i) & 255}:{port}" for i in range(count)]


class NamespaceLab:
    """Three namespaces named after this process; needs root."""

    label = "network namespaces over veth"
    counts_copies = True

    def __init__(
        self,
        *,
        deliver: bool,
        segmentation_offload: bool,
        by_address: bool,
        receiver_cpus: str,
        nice: int = 0,
    ) -> None:
        """`segmentation_offload`: veth passes GSO packets on whole, like a NIC with USO.
        `receiver_cpus` (a list like taskset's) deliver to the subscribers' sockets."""
        self._receiver_cpus = receiver_cpus
        self._nice = nice
        pid = os.getpid()
        self._names: dict[Place, str] = {
            "generator": f"rtpbench{pid}g",
            "server": f"rtpbench{pid}s",
            "subscribers": f"rtpbench{pid}r",
        }
        self._deliver = deliver
        self._offload = segmentation_offload
        first = "10.202.0.1" if by_address else "10.201.2.2"
        self.addresses = Addresses(
            source=f"10.201.1.1:{SOURCE_PORT}",
            ingress="10.201.1.2",
            first_subscriber=f"{first}:{SUBSCRIBER_PORT}",
            by_address=by_address,
        )

    def open(self) -> None:
        for name in self._names.values():
            run("ip", "netns", "add", name)
            self._sysctl(name, "net.ipv6.conf.all.disable_ipv6", "1")
            self._sysctl(name, "net.ipv6.conf.default.disable_ipv6", "1")
            run("ip", "-n", name, "link", "set", "lo", "up")
        self._connect(("generator", "eth0", "10.201.1.1"), ("server", "ingress", "10.201.1.2"))
        self._connect(("server", "egress", "10.201.2.1"), ("subscribers", "eth0", "10.201.2.2"))
        server, subscribers = self._names["server"], self._names["subscribers"]
        run("ip", "-n", server, "route", "add", "10.202.0.0/16", "via", "10.201.2.2")
        run("ip", "-n", subscribers, "route", "add", "local", "10.202.0.0/16", "dev", "lo")
        if self._deliver:
            self._deliver_elsewhere()
        verdict = "accept" if self._deliver else "drop"
        rules = f"""table netdev bench {{
            counter copies {{ }}
            chain arriving {{
                type filter hook ingress device "eth0" priority 0; policy accept;
                ip protocol udp udp dport {SUBSCRIBER_PORT}-65535 counter name copies {verdict}
            }}
        }}"""
        run(*self.command("subscribers", ["nft", "-f", "-"]), stdin=rules)

    def _deliver_elsewhere(self) -> None:
        """Receive packet steering: copies are received on the receiver's CPUs, as if on a host of
        their own, and not within the contender's send. The kernel stamps them before."""
        mask = sum(1 << cpu for cpu in listed(self._receiver_cpus))
        steering = "/sys/class/net/eth0/queues/rx-0/rps_cpus"
        command = ["ip", "netns", "exec", self._names["subscribers"]]
        run(*command, "tee", steering, stdin=f"{mask:x}")

    def close(self) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def command(self, place: Place, argv: Sequence[str], cpus: str | None = None) -> list[str]:
        """`argv` so that it runs in that namespace, on those CPUs."""
        return [
            "nsenter",
            f"--net=/run/netns/{self._names[place]}",
            "--",
            *confined(argv, cpus, self._nice),
        ]

    def copies(self, packet_size: int) -> int:
        """Copies that reached the subscribers' interface so far; a GSO packet is many."""
        listing = ["nft", "-j", "list", "counter", "netdev", "bench", "copies"]
        answer = json.loads(run(*self.command("subscribers", listing)))
        counter = next(item["counter"] for item in answer["nftables"] if "counter" in item)
        payload = counter["bytes"] - UDP_IPV4_HEADERS * counter["packets"]
        return int(payload) // packet_size

    egress_address = "10.201.2.1"  # of the server

    def add_ingress(self, link: str, number: int) -> str:
        """One more link from the generator to the server, `link` at both ends; the server's
        address on it."""
        prefix = f"10.201.{100 + number}"
        self._connect(("generator", link, f"{prefix}.1"), ("server", link, f"{prefix}.2"))
        run(*self.command("generator", ["ethtool", "-K", link, "tx-udp-segmentation", "on"]))
        return f"{prefix}.2"

    def remove_ingress(self, link: str) -> None:
        """Take it away with all rules on it; it may be gone."""
        delete = ["ip", "link", "del", link]
        subprocess.run(self.command("server", delete), capture_output=True, check=False)

    def write_sysfs(self, place: Place, path: str, value: str) -> None:
        """Below /sys as that namespace has it."""
        tee = ["ip", "netns", "exec", self._names[place], "tee", f"/sys/{path}"]
        run(*tee, stdin=value)

    def _sysctl(self, name: str, key: str, value: str) -> None:
        run("ip", "netns", "exec", name, "sysctl", "-qw", f"{key}={value}")

    def _connect(self, left: tuple[Place, str, str], right: tuple[Place, str, str]) -> None:
        """A veth pair; each end is (place, interface, address)."""
        ends = (left, right)
        run(
            *("ip", "link", "add", left[1], "netns", self._names[left[0]], "type", "veth"),
            *("peer", "name", right[1], "netns", self._names[right[0]]),
        )
        macs = []
        for place, link, ip in ends:
            name = self._names[place]
            run("ip", "-n", name, "addr", "add", f"{ip}/24", "dev", link)
            run("ip", "-n", name, "link", "set", link, "up")
            self._set_offload(place, link)
            described = json.loads(run("ip", "-n", name, "-j", "link", "show", link))
            macs.append(described[0]["address"])
        # Permanent neighbours: no ARP within a measurement.
        for (place, link, _), (_, _, peer_ip), mac in zip(
            ends, reversed(ends), reversed(macs), strict=True
        ):
            run(
                *("ip", "-n", self._names[place], "neigh", "replace", peer_ip),
                *("lladdr", mac, "dev", link, "nud", "permanent"),
            )

    def _set_offload(self, place: Place, link: str) -> None:
        state = "on" if self._offload or link in ("ingress", "eth0") else "off"
        setting = ["ethtool", "-K", link, "tx-udp-segmentation", state]
        run(*self.command(place, setting))


class LoopbackLab:
    """Everything on 127.0.0.1: no root needed, but copies are delivered on the same stack."""

    label = "LOOPBACK (not root): delivery to the receiver is billed to the contender"
    counts_copies = False

    def __init__(self, nice: int = 0) -> None:
        self._nice = nice
        self.addresses = Addresses(
            source=f"127.0.0.1:{SOURCE_PORT}",
            ingress="127.0.0.1",
            first_subscriber=f"127.0.0.1:{SUBSCRIBER_PORT}",
            by_address=False,
        )

    def open(self) -> None:
        return

    def close(self) -> None:
        return

    def command(self, place: Place, argv: Sequence[str], cpus: str | None = None) -> list[str]:  # noqa: ARG002
        return confined(argv, cpus, self._nice)

    def copies(self, packet_size: int) -> int:
        raise NotImplementedError("loopback has no interface of its own to count at")


Lab = NamespaceLab | LoopbackLab


def free_port() -> int:
    """A UDP and TCP port that nobody uses on 127.0.0.1 right now."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(("127.0.0.1", udp.getsockname()[1]))
            except OSError:
                continue
            return int(udp.getsockname()[1])
    raise LabError("no free port on 127.0.0.1")
