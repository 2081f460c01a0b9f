"""Multicast groups by configuration: what an entry means, and what is joined and left when."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import resource
import socket
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from rtpfanout._fastpath import Engine
from rtpfanout.groups import Kernel, Memberships, kernel
from rtpfanout.model import Address
from rtpfanout.multicast import IngestGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.multicast import IPAddress

IGMP = """\
Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t010000E0     1 0:00000000\t\t0
12\teth0.7    :     2      V3
\t\t\t\t0302 01EF
"""
IGMP6 = """\
1    lo              ff020000000000000000000000000001     1 0000000C 0
7    eth0            ff150000000000000000000000000007     2 00000004 0
"""


@pytest.mark.parametrize(
    ("text", "group", "source", "interface"),
    [
        ("239.1.2.3", "239.1.2.3", None, ""),
        ("239.1.2.3%eth0", "239.1.2.3", None, "eth0"),
        ("192.0.2.7@232.1.2.3%br-lan.7", "232.1.2.3", "192.0.2.7", "br-lan.7"),
        ("ff15::7", "ff15::7", None, ""),
        ("ff02::7%eth0", "ff02::7", None, "eth0"),
        ("2001:db8::1@ff3e::7%eth0", "ff3e::7", "2001:db8::1", "eth0"),
    ],
)
def test_entries(text: str, group: str, source: str | None, interface: str) -> None:
    entry = IngestGroup.parse(text)
    assert (str(entry.group), entry.interface) == (group, interface)
    assert (entry.source and str(entry.source)) == source
    assert str(entry) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%eth0",
        "10.0.0.1",
        "::1",
        "239.1.2.3%",
        "239.1.2.3%a b",
        "239.1.2.3%sixteen-letters-x",
        "@239.1.2.3",
        "239.1.2.4@239.1.2.3",
        "::1@232.1.1.1",
        "0.0.0.0@232.1.1.1",
        "ff02::1",
        "ff01::1",
        "camera.local",
        "239.1.2.3:5004",
        "239.1.2.0/24",
    ],
)
def test_what_is_no_entry_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        IngestGroup.parse(text)


def test_what_the_host_has_joined() -> None:
    text = IGMP.replace("0302 01EF", f"{socket.inet_aton('239.1.2.3')[::-1].hex().upper()} 1 0")
    assert kernel.parse_igmp(text) == {
        (ipaddress.IPv4Address("224.0.0.1"), 1),
        (ipaddress.IPv4Address("239.1.2.3"), 12),
    }
    assert kernel.parse_igmp6(IGMP6) == {
        (ipaddress.IPv6Address("ff02::1"), 1),
        (ipaddress.IPv6Address("ff15::7"), 7),
    }
    host = Kernel()
    for _time in range(2):
        assert (ipaddress.IPv4Address("224.0.0.1"), host.interface_index("lo")) in (
            host.joined() or set()
        )


def test_interfaces_and_routes() -> None:
    host = Kernel()
    lo = host.interface_index("lo")
    assert lo == socket.if_nametoindex("lo")
    assert host.interface_index(str(lo)) == lo
    for name in ("no-such-one", "4000000000", "2000000000", "9" * 15):
        assert host.interface_index(name) is None
    assert host.route_interface(ipaddress.ip_address("127.0.0.1")) == lo


def test_looking_needs_no_descriptor() -> None:
    """A process that has used up its own goes on looking."""
    host = Kernel()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
    try:
        assert host.interface_index("lo") is not None
        assert host.route_interface(ipaddress.ip_address("127.0.0.1")) is not None
        assert host.joined()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Host:
    """Interfaces and routes that come and go, and an engine that joins on them."""

    def __init__(self) -> None:
        self.interfaces = {"eth0": 2}
        self.route: int | None = None
        self.members: dict[tuple[IPAddress, int], set[str]] = {}
        self.others: set[tuple[IPAddress, int]] = set()
        self.takes_others = True
        self.error: OSError | None = None
        self.is_blind = False
        self.calls = 0

    def join_group(self, group: Address, sources: Sequence[Address], interface: int) -> None:
        self.calls += 1
        if self.error:
            raise self.error
        assert not self.takes_others, "a group would come twice"
        self.members[group.ip, interface] = {str(source.ip) for source in sources}

    def leave_group(self, group: Address, interface: int) -> bool:
        return self.members.pop((group.ip, interface), None) is not None

    def take_groups_of_others(self, taken: bool) -> None:
        self.takes_others = taken
        assert not (taken and self.members), "a group would come twice"

    def interface_index(self, name: str) -> int | None:
        if self.is_blind:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self.interfaces.get(name)

    def route_interface(self, _group: IPAddress) -> int | None:
        return self.route

    def joined(self) -> set[tuple[IPAddress, int]]:
        return set(self.members) | self.others


@pytest.fixture
def host() -> Host:
    return Host()


def memberships(host: Host, *entries: str) -> Memberships:
    groups = [IngestGroup.parse(entry) for entry in entries]
    return Memberships(host, groups, host)  # type: ignore[arg-type]


def joined(host: Host) -> dict[tuple[str, int], set[str]]:
    return {(str(group), index): sources for (group, index), sources in host.members.items()}


def test_joined_once_and_told_once(host: Host) -> None:
    wanted = memberships(host, "239.1.1.1%eth0", "239.1.1.2%eth0")
    with capture_logs() as logs:
        for _look in range(3):
            wanted.look()
    assert joined(host) == {("239.1.1.1", 2): set(), ("239.1.1.2", 2): set()}
    assert host.calls == 2
    assert [entry["event"] for entry in logs] == ["ingest group joined"] * 2
    assert wanted.joined == {"239.1.1.1%eth0": True, "239.1.1.2%eth0": True}


def test_an_interface_that_comes_later_goes_and_comes_back(host: Host) -> None:
    wanted = memberships(host, "239.1.1.1%eth1")
    with capture_logs() as logs:
        wanted.look()
        wanted.look()
        assert wanted.joined == {"239.1.1.1%eth1": False}
        host.interfaces["eth1"] = 5
        wanted.look()
        assert joined(host) == {("239.1.1.1", 5): set()}
        host.interfaces.pop("eth1")
        wanted.look()
        assert joined(host) == {}
        host.interfaces["eth1"] = 6
        wanted.look()
    assert joined(host) == {("239.1.1.1", 6): set()}
    assert [entry["event"] for entry in logs if "left" not in entry["event"]] == [
        "ingest group can't be joined yet",
        "ingest group joined",
    ] * 2


def test_an_interface_that_came_back_with_its_number(host: Host) -> None:
    """The socket still has what nobody has joined any more."""
    wanted = memberships(host, "239.1.1.1%eth0")
    wanted.look()
    host.members.clear()
    wanted.look()
    assert joined(host) == {("239.1.1.1", 2): set()}
    assert host.calls == 2


def test_an_interface_that_cannot_be_looked_for_is_as_before(host: Host) -> None:
    wanted = memberships(host, "239.1.1.1%eth0")
    wanted.look()
    host.is_blind = True
    wanted.look()
    assert joined(host) == {("239.1.1.1", 2): set()}
    assert wanted.joined == {"239.1.1.1%eth0": True}


def test_the_route_decides_and_may_change(host: Host) -> None:
    wanted = memberships(host, "239.1.1.1")
    with capture_logs() as logs:
        wanted.look()
    assert "name the interface, as in 239.1.1.1%eth0" in logs[0]["reason"]
    host.route = 3
    wanted.look()
    host.route = 4
    wanted.look()
    assert joined(host) == {("239.1.1.1", 4): set()}


def test_sources_of_a_group_are_one_membership(host: Host) -> None:
    wanted = memberships(host, "10.0.0.1@232.1.1.1%eth0", "10.0.0.2@232.1.1.1%eth0")
    wanted.look()
    assert joined(host) == {("232.1.1.1", 2): {"10.0.0.1", "10.0.0.2"}}
    wanted.reconfigure([IngestGroup.parse("10.0.0.3@232.1.1.1%eth0")])
    assert joined(host) == {("232.1.1.1", 2): {"10.0.0.3"}}
    wanted.reconfigure(map(IngestGroup.parse, ["10.0.0.3@232.1.1.1%eth0", "232.1.1.1%eth0"]))
    assert joined(host) == {("232.1.1.1", 2): set()}
    assert wanted.joined == {"10.0.0.3@232.1.1.1%eth0": True, "232.1.1.1%eth0": True}


def test_what_a_server_before_had_joined_is_left(host: Host) -> None:
    """By sockets that outlived it; what others of the host have joined is theirs."""
    memberships(host, "239.1.1.1%eth0", "239.1.1.2%eth0").look()
    host.others = {(ipaddress.ip_address("239.9.9.9"), 2)}
    memberships(host, "239.1.1.2%eth0").look()
    assert joined(host) == {("239.1.1.2", 2): set()}
    memberships(host).look()
    assert joined(host) == {}
    assert host.takes_others


def test_what_the_kernel_refuses_is_told_with_a_remedy(host: Host) -> None:
    host.error = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    wanted = memberships(host, "239.1.1.1%eth0")
    with capture_logs() as logs:
        wanted.look()
    assert logs[0]["group"] == "239.1.1.1%eth0"
    assert "net.ipv4.igmp_max_memberships" in logs[0]["reason"]
    host.error = None
    wanted.look()
    assert wanted.joined == {"239.1.1.1%eth0": True}


def test_an_engine_joins_and_leaves() -> None:
    """On loopback, by real sockets, of both families."""
    host = Kernel()
    lo = host.interface_index("lo")
    assert lo is not None
    engine = Engine(
        Address.parse("[::]:0"), max_sessions=1, max_subscribers=1, receive_queue_packets=64,
        workers=3,
    )  # fmt: skip
    for text in ("239.255.77.7", "ff15::77:7"):
        ip = ipaddress.ip_address(text)
        group = Address(ip, 0)
        sources = [
            Address.parse("127.0.0.9:0" if ip.version == 4 else "[2001:db8::9]:0"),
            Address.parse("127.0.0.8:0" if ip.version == 4 else "[2001:db8::8]:0"),
        ]
        assert not engine.leave_group(group, lo)
        for chosen in ([], sources, sources[:1], [], sources[1:], []):
            engine.join_group(group, chosen, lo)
            assert (ip, lo) in (host.joined() or {(ip, lo)})
        assert engine.leave_group(group, lo)
        assert not engine.leave_group(group, lo)
        with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
            engine.join_group(group, [], 4_000_000)
    for wrong in (Address.parse("10.0.0.1:0"), Address.parse("[2001:db8::1]:0")):
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            engine.join_group(wrong, [], lo)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        engine.join_group(Address.parse("239.1.1.1:0"), [Address.parse("10.0.0.1:0")] * 65, lo)
