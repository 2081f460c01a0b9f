"""What the kernel says of this host's addresses."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from netns import hosts, inside, link, run
from support import requires, requires_root

from rtpfanout import netif
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN, OTHER = ipaddress.ip_address("10.214.0.1"), ipaddress.ip_address("10.214.0.2")


@pytest.fixture
def host() -> Iterator[str]:
    """A namespace with 10.214.0.1/24, whose neighbour is 10.214.0.2."""
    requires("ip")
    requires_root()
    with hosts("nif", "nio") as names:
        link(names["nif"], "10.214.0.1/24", names["nio"], "10.214.0.2/24")
        yield names["nif"]


def test_the_addresses_of_this_host() -> None:
    found = netif.local_addresses()
    assert Address.parse("127.0.0.1:1").ip in found
    assert all(netif.address_is_local(ip) for ip in found)
    assert Address.parse("192.0.2.251:1").ip not in found


def test_what_can_be_bound_is_not_therefore_local(host: str) -> None:
    with inside(host):
        Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1")
        assert netif.address_is_local(OWN)
        assert not netif.address_is_local(OTHER)
        known = netif.LocalAddresses()
        assert known.is_local(OWN)
        assert not known.is_local(OTHER)


def test_an_address_that_comes_or_goes_is_known_at_once(host: str) -> None:
    with inside(host):
        known = netif.LocalAddresses()
    late = ipaddress.ip_address("10.214.0.77")
    for _ in range(3):
        assert not known.is_local(late)
        run("ip", "-n", host, "address", "add", f"{late}/24", "dev", "lo")
        with inside(host):
            assert known.is_local(late)
            assert late in known.addresses()
        run("ip", "-n", host, "address", "del", f"{late}/24", "dev", "lo")
        with inside(host):
            assert not known.is_local(late)


def test_whole_networks_and_broadcasts_that_are_routed_here(host: str) -> None:
    run("ip", "-n", host, "route", "add", "local", "198.51.100.0/24", "dev", "lo")
    run("ip", "-n", host, "route", "add", "local", "default", "dev", "lo", "table", "100")
    with inside(host):
        for text, is_local in (
            ("198.51.100.7", True),  # "any IP"
            ("198.51.101.7", False),  # TPROXY's table is for marked packets
            ("10.214.0.255", True),  # the subnet's broadcast
            ("127.9.9.9", True),
            ("::1", True),
            ("224.0.0.1", False),
            ("ff02::1", False),
        ):
            assert netif.address_is_local(ipaddress.ip_address(text)) is is_local, text


def test_what_a_route_makes_local_is_found_too(host: str) -> None:
    with inside(host):
        known = netif.LocalAddresses()
    far = ipaddress.ip_address("198.51.100.7")
    assert not known.is_local(far)
    changes = known.changes
    run("ip", "-n", host, "route", "add", "local", "198.51.100.0/24", "dev", "lo")
    known._read_again = 0.0
    with inside(host):
        known.addresses()
        assert known.is_local(far)
        assert known.changes == changes + 1
        known._read_again = 0.0
        known.addresses()
        assert known.changes == changes + 1


def test_a_link_local_address_is_that_of_its_interface(host: str) -> None:
    run("ip", "-n", host, "address", "add", "fe80::77/64", "dev", "lo")
    with inside(host):
        index = socket.if_nametoindex("lo")
        for text, is_local in (
            (f"fe80::77%{index}", True),
            ("fe80::77%lo", True),
            ("fe80::77", True),
            (f"fe80::77%{index + 1}", False),
            ("fe80::77%nowhere", False),
            (f"fe80::78%{index}", False),
        ):
            assert netif.address_is_local(ipaddress.ip_address(text)) is is_local, text
