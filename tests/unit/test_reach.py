"""Do copies get to somebody? By the kernel's tables, by ICMP, and by what receivers say."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netns import hosts, inside, link, run
from support import eventually, requires, requires_root

from rtpfanout.model import Address
from rtpfanout.reach import Asked, Reach, State, heard, icmp, ways
from rtpfanout.reach.heard import Heard, HeardErrors
from rtpfanout.reach.icmp import IcmpError, Told
from rtpfanout.reach.judging import judge
from rtpfanout.reach.ways import Way

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS, THEIRS, ROUTER = (ipaddress.ip_address(f"10.0.0.{i}") for i in (1, 2, 9))
TO = Address(THEIRS, 6000)


def icmp4(kind: int = 3, code: int = 3, *, source: str = "10.0.0.1", offset: int = 0) -> bytes:
    """From 10.0.0.9, of a datagram from 10.0.0.1:5004 to 10.0.0.2:6000."""
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 1228, 1, offset, 64, 17, 0)
    quoted += ipaddress.IPv4Address(source).packed + THEIRS.packed
    quoted += struct.pack("!HHHH", 5004, 6000, 1208, 0)
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 56, 1, 0, 64, 1, 0) + ROUTER.packed + OURS.packed
    return outer + struct.pack("!BBHI", kind, code, 0, 0) + quoted


def icmp6(code: int = 4, *, fragment: int | None = None) -> bytes:
    to = ipaddress.IPv6Address("fe80::2").packed
    following = 17 if fragment is None else 44
    quoted = struct.pack("!IHBB", 0x60000000, 8, following, 64) + bytes(16) + to
    if fragment is not None:
        quoted += struct.pack("!BBHI", 17, 0, fragment << 3, 7)
    return struct.pack("!BBHI", 1, code, 0, 0) + quoted + struct.pack("!HHHH", 5004, 6000, 8, 0)


def test_an_error_says_of_which_datagram_it_is() -> None:
    assert icmp.parse_ipv4(icmp4()) == IcmpError(Told.PORT, ROUTER, TO, 5004)
    by = ipaddress.ip_address("fe80::2")
    expected = IcmpError(Told.PORT, by, Address.parse("[fe80::2%3]:6000"), 5004)
    assert icmp.parse_ipv6(icmp6(), by, 3) == expected
    assert icmp.parse_ipv6(icmp6(fragment=0), by, 3) == expected


def test_what_is_no_such_error() -> None:
    by = ipaddress.ip_address("fe80::2")
    assert icmp.parse_ipv4(icmp4(kind=11)) is None
    assert icmp.parse_ipv4(icmp4(code=4)) is None, "fragmentation needed"
    assert icmp.parse_ipv4(icmp4(offset=7)) is None, "no ports in a later fragment"
    assert icmp.parse_ipv4(icmp4(source="10.0.0.77")) is None, "of somebody else's datagram"
    assert icmp.parse_ipv6(icmp6(fragment=5), by) is None
    assert icmp.parse_ipv6(b"\x02" + icmp6()[1:], by) is None


@given(st.binary(max_size=120), st.integers(0, 120))
def test_no_bytes_whatever_confuse_the_parsers(noise: bytes, cut: int) -> None:
    by = ipaddress.ip_address("fe80::2")
    for packet in (noise, icmp4()[:cut], icmp4()[:cut] + noise):
        assert icmp.parse_ipv4(packet) in (None, icmp.parse_ipv4(icmp4())) or noise
    for packet in (noise, icmp6()[:cut], icmp6()[:cut] + noise):
        assert icmp.parse_ipv6(packet, by) in (None, icmp.parse_ipv6(icmp6(), by)) or noise


def error_of(number: int) -> IcmpError:
    return IcmpError(Told.PORT, THEIRS, Address(THEIRS, number), 5004)


def test_who_invents_addresses_pushes_out_nobody_that_is_heard_again() -> None:
    table = HeardErrors()
    for now in (1.0, 2.0):
        table.note(error_of(1), now)
    for number in range(3 * heard.MOST_ONCE):
        table.note(error_of(2 + number), 3.0)
    found = table.find(Address(THEIRS, 1))
    assert found
    assert (found.first, found.last) == (1.0, 2.0)
    assert len(table) == heard.MOST_ONCE + 1
    for number in range(2 * heard.MOST_AGAIN):
        for _ in range(2):
            table.note(error_of(2 + number), 4.0)
    assert len(table) <= heard.MOST_ONCE + heard.MOST_AGAIN


def test_an_error_after_a_long_pause_is_another() -> None:
    table = HeardErrors()
    table.note(error_of(1), 1.0)
    table.note(error_of(1), 2.0 + heard.STALE_SECS)
    found = table.find(Address(THEIRS, 1))
    assert found
    assert found.first == 2.0 + heard.STALE_SECS


ON_LINK = Way(interface="eth0", next_hop=THEIRS, own=OURS)
ROUTED = Way(interface="eth0", next_hop=ROUTER, own=OURS)


def closed(last: float = 99.0, told: Told = Told.PORT, by: ipaddress.IPv4Address = THEIRS) -> Heard:
    return Heard(told, by, 90.0, last)


@pytest.mark.parametrize(
    ("asked", "way", "error", "state", "words"),
    [
        (Asked(TO), ON_LINK._replace(answers=True), None, "reachable", "its host answers on eth0"),
        (Asked(TO), ON_LINK, None, "unknown", "eth0"),
        (Asked(TO), ROUTED._replace(answers=True), None, "unknown", "the gateway 10.0.0.9"),
        (Asked(TO), Way(is_local=True), None, "reachable", "an address of this host"),
        (Asked(TO), Way(), None, "unknown", "nothing tells"),
        (Asked(TO), ON_LINK._replace(answers=False), None, "no_arp", "10.0.0.2 does not answer"),
        (Asked(TO), ROUTED._replace(answers=False), None, "no_arp", "10.0.0.9 does not answer"),
        (Asked(TO), Way(refusal=errno.ENETUNREACH), None, "no_route", "no route"),
        (Asked(TO), Way(refusal=errno.EINVAL), None, "no_route", "black hole"),
        (Asked(TO, is_taken=True), Way(refusal=errno.ENETUNREACH), None, "unknown", ""),
        (Asked(TO), ON_LINK._replace(answers=True), closed(), "port_closed", "10.0.0.2 says"),
        (Asked(TO), ROUTED, closed(by=ROUTER), "port_closed", "10.0.0.9, on the way, says"),
        (Asked(TO), ROUTED, closed(told=Told.FIREWALL), "port_closed", "a firewall forbids it"),
        (Asked(TO), ROUTED, closed(told=Told.ROUTE, by=ROUTER), "no_route", "no way to its"),
        (Asked(TO), ROUTED, closed(told=Told.HOST, by=ROUTER), "no_arp", "does not answer there"),
        (
            Asked(TO),
            ON_LINK._replace(answers=True),
            closed(told=Told.HOST, by=OURS),
            "reachable",
            "",
        ),
        (Asked(TO), ON_LINK, closed(last=60.0), "unknown", ""),
        (Asked(TO, idle_secs=60), ON_LINK, closed(last=60.0), "port_closed", "last 40 s ago"),
        (Asked(TO, report_secs=3), ROUTED, None, "reachable", "reported 3 s ago"),
        (Asked(TO, report_secs=3), ROUTED, closed(last=95.0), "reachable", "reported 3 s ago"),
        (Asked(TO, report_secs=3), ROUTED, closed(last=99.0), "port_closed", ""),
        (Asked(TO, report_secs=40), ROUTED, None, "silent_receiver", "40 s ago"),
        (Asked(TO, report_secs=40), ROUTED, closed(), "port_closed", ""),
        (Asked(TO, echoes=True), ROUTED, None, "reachable", "echoes"),
    ],
)
def test_what_is_said_of_what_is_known(
    asked: Asked, way: Way, error: Heard | None, state: str, words: str
) -> None:
    found = judge(asked, way, error, "", 100.0)
    assert found.state == state, found
    assert words in found.detail


def test_who_hears_no_errors_says_so() -> None:
    found = judge(Asked(TO), Way(), None, "the server has not got CAP_NET_RAW", 100.0)
    assert "CAP_NET_RAW" in found.detail


def test_without_the_capability_nothing_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> socket.socket:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(icmp, "_opened", denied)
    reach = Reach([5004])
    assert "CAP_NET_RAW" in reach.deafness
    reach.listen()
    (found,) = reach.of([Asked(Address.parse("127.0.0.1:9"))])
    assert found.state is State.REACHABLE
    assert "CAP_NET_RAW" in found.detail
    reach.close()


@pytest.fixture
def ours() -> Iterator[str]:
    """A host with a neighbour and routes of all kinds."""
    requires_root()
    requires("ip")
    with hosts("rca", "rcb") as ns:
        ours, theirs = ns["rca"], ns["rcb"]
        link(ours, "10.3.0.1/24", theirs, "10.3.0.2/24")
        for name, other, address in ((ours, theirs, "fd03::1/64"), (theirs, ours, "fd03::2/64")):
            device = f"to-{other}"[:15]
            run("ip", "-n", name, "address", "add", address, "dev", device, "nodad")
        for route in (
            ("blackhole", "10.9.0.0/24"),
            ("10.11.0.0/24", "via", "10.3.0.2"),
            ("10.12.0.0/24", "via", "10.3.0.77"),
        ):
            run("ip", "-n", ours, "route", "add", *route)
        yield ours


EXPECTED = {
    "10.3.0.2:6000": State.PORT_CLOSED,
    "[fd03::2]:6000": State.PORT_CLOSED,
    "127.0.0.1:9": State.PORT_CLOSED,
    "10.3.0.99:6000": State.NO_ARP,
    "[fd03::99]:6000": State.NO_ARP,
    "10.12.0.1:6000": State.NO_ARP,
    "10.9.0.1:6000": State.NO_ROUTE,
    "10.99.0.1:6000": State.NO_ROUTE,
    "[fd99::1]:6000": State.NO_ROUTE,
    "10.11.0.1:6000": State.UNKNOWN,
}


def test_the_kernel_and_icmp_tell_of_both_families(ours: str) -> None:
    addresses = [Address.parse(text) for text in EXPECTED]
    with inside(ours):
        reach = Reach([5004])
        by_version = {
            4: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            6: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        }
        by_version[6].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        by_version[4].bind(("0.0.0.0", 5004))
        by_version[6].bind(("::", 5004))

        def look() -> dict[str, State]:
            for address in addresses:
                try:
                    by_version[address.ip.version].sendto(b"copy", address.sockaddr)
                except OSError:  # those without a route
                    continue
            found = reach.of([Asked(address) for address in addresses])
            return dict(zip(EXPECTED, (each.state for each in found), strict=True))

        eventually(look, lambda found: found == EXPECTED, "what is known of each")
        for sock in by_version.values():
            sock.close()
        reach.close()


def test_of_other_ports_than_ours_nothing_is_noted(ours: str) -> None:
    to = Address.parse("10.3.0.2:6000")
    with inside(ours), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 5006))
        hears, ignores = Reach([5006]), Reach([5004])

        def look() -> State:
            sock.sendto(b"copy", to.sockaddr)
            return hears.of([Asked(to)])[0].state

        eventually(look, lambda state: state is State.PORT_CLOSED, "an error")
        eventually(
            lambda: ignores.of([Asked(to)])[0].state,
            lambda state: state is State.REACHABLE,
            "its host answers",
        )


def test_an_address_of_ours_that_this_host_has_not_got_is_no_reason(ours: str) -> None:
    with inside(ours):
        to, foreign = ipaddress.ip_address("10.3.0.2"), ipaddress.ip_address("10.77.0.1")
        own = ipaddress.ip_address("10.3.0.1")
        found = ways.find_ways([(to, foreign), (to, own), (to, None)])
    assert [way.refusal for way in found] == [0, 0, 0]
    assert {str(way.next_hop) for way in found} == {"10.3.0.2"}


def test_an_interface_that_has_gone_leaves_no_route() -> None:
    (way,) = ways.find_ways([(ipaddress.ip_address(f"fe80::1%{2**32 - 1}"), None)])
    assert way.refusal
