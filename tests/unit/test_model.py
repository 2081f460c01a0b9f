"""Addresses: one endpoint, one value, whatever its spelling."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.model import Address, MediaType, SessionStatus, parse_ip, unmapped

if TYPE_CHECKING:
    import ipaddress

ports = st.integers(0, 65535)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.7:5000", "192.0.2.7:5000"),
        ("192.0.2.7:0", "192.0.2.7:0"),
        ("192.0.2.7:65535", "192.0.2.7:65535"),
        ("192.0.2.7:05004", "192.0.2.7:5004"),
        ("[2001:DB8::7]:5000", "[2001:db8::7]:5000"),
        ("[2001:0db8:0:0:0:0:0:7]:5000", "[2001:db8::7]:5000"),
        ("[::]:5004", "[::]:5004"),
        ("[fe80::1%2]:5000", "[fe80::1%2]:5000"),
        ("[::ffff:192.0.2.7]:5000", "192.0.2.7:5000"),
        ("[::ffff:c000:207]:5000", "192.0.2.7:5000"),
    ],
)
def test_parse_and_text(text: str, canonical: str) -> None:
    assert str(Address.parse(text)) == canonical
    assert Address.parse(canonical) == Address.parse(text)


@pytest.mark.parametrize(
    ("text", "sockaddr"),
    [
        ("192.0.2.7:5000", ("192.0.2.7", 5000)),
        ("[::ffff:192.0.2.7]:5000", ("192.0.2.7", 5000)),
        ("[2001:db8::7]:5000", ("2001:db8::7", 5000, 0, 0)),
        ("[fe80::1%2]:0", ("fe80::1", 0, 0, 2)),
    ],
)
def test_as_the_socket_module_wants_it(text: str, sockaddr: tuple[object, ...]) -> None:
    address = Address.parse(text)
    assert address.sockaddr == sockaddr
    assert address.family == (socket.AF_INET if len(sockaddr) == 2 else socket.AF_INET6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.7",
        "192.0.2.7:",
        ":5000",
        "5000",
        "192.0.2.7:65536",
        "192.0.2.7:-1",
        "192.0.2.7:+1",
        "192.0.2.7: 1",
        "192.0.2.7:1 ",
        " 192.0.2.7:1",
        "192.0.2.7:1\n",
        "192.0.2.7:0x10",
        "192.0.2.7:000001",
        "192.0.2.7:٣",  # digits, but not ASCII ones
        "192.0.2.07:1",
        "192.0.2:1",
        "3221225991:1",
        "[192.0.2.7]:5000",
        "2001:db8::7:5000",
        "2001:db8::7",
        "[2001:db8::7]",
        "[2001:db8::7]5000",
        "[[2001:db8::7]]:5000",
        "[2001:db8::7%]:5000",
        "[fe80::1%eth0]:5000",
        "[fe80::1%0]:5000",
        "[fe80::1%4294967296]:5000",
        "localhost:5000",
        "example.com:5000",
        "udp://192.0.2.7:5000",
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r" is not "):
        Address.parse(text)


def test_a_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="is not") as caught:
        Address.parse("x" * 10_000)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=40))
def test_parse_raises_nothing_but_value_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


@given(st.ip_addresses(v=4), ports)
def test_ipv4_round_trips(ip: ipaddress.IPv4Address, port: int) -> None:
    address = Address(ip, port)
    assert Address.parse(str(address)) == address
    assert address.packed == bytes(10) + b"\xff\xff" + ip.packed
    assert Address.unpack(address.packed, port) == address


@given(st.ip_addresses(v=6), ports, st.integers(0, 2**32 - 1))
def test_ipv6_round_trips(ip: ipaddress.IPv6Address, port: int, scope: int) -> None:
    address = Address.unpack(ip.packed, port, scope)
    assert Address.parse(str(address)) == address
    assert address.packed == ip.packed
    if ip.ipv4_mapped is None:
        assert Address.unpack(address.packed, port, address.scope) == address
        assert address.scope == scope


def test_equal_endpoints_are_one_key() -> None:
    spellings = ["192.0.2.7:5000", "[::ffff:192.0.2.7]:5000", "[::FFFF:C000:207]:5000"]
    assert len({Address.parse(text) for text in spellings}) == 1


def test_unmapped_touches_only_mapped_addresses() -> None:
    assert unmapped(parse_ip("::ffff:10.0.0.1")) == parse_ip("10.0.0.1")
    for text in ("::10.0.0.1", "64:ff9b::10.0.0.1", "2001:db8::1", "10.0.0.1"):
        assert unmapped(parse_ip(text)) == parse_ip(text)


def test_words_of_the_api() -> None:
    assert [str(media) for media in MediaType] == ["audio", "video", "data"]
    assert [str(status) for status in SessionStatus] == ["active", "idle", "paused", "refused"]
