"""What the kernel says of this host's addresses."""

from __future__ import annotations

from rtpfanout import netif
from rtpfanout.model import Address


def test_the_addresses_of_this_host() -> None:
    found = netif.local_addresses()
    assert Address.parse("127.0.0.1:1").ip in found
    assert all(netif.address_is_local(ip) for ip in found)
    assert Address.parse("192.0.2.251:1").ip not in found
