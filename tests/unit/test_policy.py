"""The address policy over every spelling: what is refused in IPv4 stays refused inside IPv6."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.errors import AddressDeniedError, InvalidArgumentError
from rtpfanout.model import Address
from rtpfanout.netif import address_is_local
from rtpfanout.policy import AddressPolicy, canonical_network, embedded_ipv4, views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rtpfanout.model import IPAddress

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address
INGEST_PORT = 5004


def nobody(_ip: IPAddress) -> bool:
    return False


def policy(
    ingress: str = "[::]:5004", allow: Iterable[str] = (), deny: Iterable[str] = (), **changed: Any
) -> AddressPolicy:
    arguments: dict[str, Any] = {
        "ingress": Address.parse(ingress),
        "sends_ipv4": True,
        "sends_ipv6": True,
        "allow": tuple(map(ipaddress.ip_network, allow)),
        "deny": tuple(map(ipaddress.ip_network, deny)),
        "loopback_allowed": False,
        "is_local": nobody,
    }
    return AddressPolicy(**(arguments | changed))


def denied(rules: AddressPolicy, text: str | Address) -> bool:
    address = text if isinstance(text, Address) else Address.parse(text)
    try:
        rules.check_subscriber(address)
    except AddressDeniedError:
        return True
    return False


def _six(prefix: str, *parts: tuple[int, bytes]) -> IPv6:
    """`prefix` with bytes written over it at positions."""
    packed = bytearray(IPv6(prefix).packed)
    for at, data in parts:
        packed[at : at + len(data)] = data
    return IPv6(bytes(packed))


def _inverted(packed: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in packed)


# Encodings that hold every IPv4 address. Compatible lacks 0.0.0.0 and 0.0.0.1 (:: and ::1).
ENCODINGS: dict[str, Callable[[bytes], IPv6]] = {
    "mapped": lambda v4: _six("::ffff:0:0", (12, v4)),
    "compatible": lambda v4: _six("::", (12, v4)),
    "translated": lambda v4: _six("::ffff:0:0:0", (12, v4)),
    "nat64": lambda v4: _six("64:ff9b::", (12, v4)),
    "6to4": lambda v4: _six("2002::", (2, v4)),
    "6to4 host": lambda v4: _six("2002::1", (2, v4)),
    "teredo server": lambda v4: _six("2001::7777:7777", (4, v4)),
    "teredo client": lambda v4: _six("2001:0:4136:e378::", (12, _inverted(v4))),
    "isatap": lambda v4: _six("2001:db8::5efe:0:0", (12, v4)),
    "isatap universal": lambda v4: _six("2001:db8::200:5efe:0:0", (12, v4)),
}
# A reading in 0.0.0.0/8 is taken for another layout here, see policy._local_nat64.
LOCAL_NAT64: dict[str, Callable[[bytes], IPv6]] = {
    "/48": lambda v4: _six("64:ff9b:1::", (6, v4[:2]), (9, v4[2:])),
    "/56": lambda v4: _six("64:ff9b:1::", (7, v4[:1]), (9, v4[1:])),
    "/64": lambda v4: _six("64:ff9b:1::", (9, v4)),
    "/96": lambda v4: _six("64:ff9b:1::", (12, v4)),
}

ipv4_packed = st.one_of(
    st.binary(min_size=4, max_size=4),
    # Half of them where the rules are.
    st.tuples(
        st.sampled_from([0, 10, 127, 169, 224, 239, 240, 255]), st.binary(min_size=3, max_size=3)
    ).map(lambda pair: bytes([pair[0]]) + pair[1]),
    st.binary(min_size=2, max_size=2).map(lambda tail: b"\xa9\xfe" + tail),
    st.sampled_from([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\x00\x00\x01"]),
)
POLICIES = [
    policy(),
    policy(deny=["10.0.0.0/8", "198.51.100.0/24"], loopback_allowed=True),
    policy(allow=["10.0.0.0/8", "239.0.0.0/8", "::/0"]),
    policy(is_local=lambda ip: ip.version == 4 and ip.packed[3] % 2 == 0),
]


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(v4=ipv4_packed, port=st.sampled_from([INGEST_PORT, 6000]))
def test_hiding_ipv4_in_ipv6_opens_nothing(encoding: str, v4: bytes, port: int) -> None:
    six = ENCODINGS[encoding](v4)
    for rules in POLICIES:
        if denied(rules, Address(IPv4(v4), port)):
            assert denied(rules, Address(six, port)), six


@pytest.mark.parametrize("encoding", LOCAL_NAT64)
@given(v4=ipv4_packed.filter(lambda v4: v4[0] != 0), port=st.sampled_from([INGEST_PORT, 6000]))
def test_hiding_ipv4_behind_a_local_translator_opens_nothing(
    encoding: str, v4: bytes, port: int
) -> None:
    six = LOCAL_NAT64[encoding](v4)
    assert IPv4(v4) in embedded_ipv4(six)
    for rules in POLICIES:
        if denied(rules, Address(IPv4(v4), port)):
            assert denied(rules, Address(six, port)), six


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("::ffff:192.0.2.1", ["192.0.2.1"]),
        ("::192.0.2.1", ["192.0.2.1"]),
        ("::2", ["0.0.0.2"]),
        ("::", []),
        ("::1", []),
        ("::ffff:0:192.0.2.1", ["192.0.2.1"]),
        ("64:ff9b::192.0.2.1", ["192.0.2.1"]),
        ("64:ff9b:1::192.0.2.1", ["192.0.2.1"]),
        ("64:ff9b:1:c000:2:100::", ["192.0.2.1", "2.1.0.0"]),
        ("64:ff9b:1::", ["0.0.0.0"]),
        ("2002:c000:201::1", ["192.0.2.1"]),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", ["65.54.227.120", "192.0.2.45"]),
        ("fe80::5efe:192.0.2.1", ["192.0.2.1"]),
        ("2001:db8::200:5efe:192.0.2.1", ["192.0.2.1"]),
        ("2002:c000:201::5efe:198.51.100.1", ["192.0.2.1", "198.51.100.1"]),
        ("2001:db8::192.0.2.1", []),
        ("64:ff9b:2::192.0.2.1", []),
    ],
)
def test_embedded_ipv4(text: str, hidden: list[str]) -> None:
    assert sorted(map(str, embedded_ipv4(IPv6(text)))) == sorted(hidden)


def test_a_mapped_address_is_only_its_ipv4_view() -> None:
    assert views(IPv6("::ffff:192.0.2.1")) == [IPv4("192.0.2.1")]


ORDINARY = [
    "192.0.2.1:5000",
    "10.1.2.3:1",
    "223.255.255.255:65535",
    "1.0.0.0:5000",
    "128.0.0.1:5000",
    "[2001:db8::1]:5000",
    "[fd00::1]:5000",  # unique local
    "[fec0::1]:5000",  # site-local, deprecated
    "[64:ff9b:1::192.0.2.1]:5000",
    "[64:ff9b:1:5::192.0.2.1]:5000",
    "[::192.0.2.1]:5000",
]
REFUSED = [
    ("0.0.0.0:5000", "unspecified"),
    ("0.1.2.3:5000", "unspecified"),
    ("[::]:5000", "unspecified"),
    ("255.255.255.255:5000", "broadcast"),
    ("127.0.0.1:5000", "loopback"),
    ("127.255.0.9:5000", "loopback"),
    ("[::1]:5000", "loopback"),
    ("224.0.0.1:5000", "multicast"),
    ("239.255.255.255:5000", "multicast"),
    ("[ff02::1]:5000", "multicast"),
    ("169.254.1.1:5000", "link-local"),
    ("[fe80::1]:5000", "link-local"),
    ("[fe80::1%2]:5000", "link-local"),
    ("[febf::1]:5000", "link-local"),
    ("240.0.0.1:5000", "reserved"),
    ("255.255.255.254:5000", "reserved"),
    ("[::ffff:127.0.0.1]:5000", "loopback"),
    ("[::127.0.0.1]:5000", "loopback"),
    ("[2002:7f00:1::]:5000", "loopback"),
    ("[64:ff9b::169.254.169.254]:5000", "link-local"),
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_addresses_are_admitted(text: str) -> None:
    policy().check_subscriber(Address.parse(text))


@pytest.mark.parametrize(("text", "kind"), REFUSED)
def test_special_addresses_are_refused(text: str, kind: str) -> None:
    with pytest.raises(AddressDeniedError, match=f" is .*{kind}") as caught:
        policy().check_subscriber(Address.parse(text))
    assert caught.value.field == "subscriber_address"
    assert caught.value.message.startswith(str(Address.parse(text)))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_classification_is_that_of_the_standard_library(ip: IPAddress) -> None:
    special = ip.is_multicast or ip.is_link_local or ip.is_loopback or ip.is_unspecified
    if special:
        assert denied(policy(), Address(ip, 5000))
    elif ip.version == 4:
        reserved = ip.is_reserved or ip in ipaddress.ip_network("0.0.0.0/8")
        assert denied(policy(), Address(ip, 5000)) == reserved
    elif not embedded_ipv4(ip):
        assert not denied(policy(), Address(ip, 5000))


@given(st.data())
def test_classification_agrees_inside_and_around_each_special_range(data: st.DataObject) -> None:
    network = ipaddress.ip_network(
        data.draw(st.sampled_from(["127.0.0.0/8", "224.0.0.0/4", "169.254.0.0/16", "ff00::/8"]))
    )
    first, last = int(network.network_address), int(network.broadcast_address)
    number = data.draw(st.one_of(st.integers(first, last), st.sampled_from([first - 1, last])))
    ip = (IPv4 if network.version == 4 else IPv6)(number)
    expected = ip.is_multicast or ip.is_link_local or ip.is_loopback
    assert denied(policy(), Address(ip, 5000)) == expected


def test_loopback_is_admitted_when_allowed() -> None:
    rules = policy(loopback_allowed=True)
    for text in ("127.0.0.1:5000", "[::1]:5000", "[::ffff:127.9.9.9]:5000"):
        rules.check_subscriber(Address.parse(text))
    assert denied(policy(loopback_allowed=True, allow=["10.0.0.0/8"]), "127.0.0.1:5000")


def test_the_loopback_message_names_both_ways_out() -> None:
    with pytest.raises(AddressDeniedError, match=r"bind gRPC to loopback.*address_policy\.allow"):
        policy().check_subscriber(Address.parse("127.0.0.1:5000"))


@pytest.mark.parametrize(
    ("allow", "opened", "closed"),
    [
        (["239.1.0.0/16"], ["239.1.2.3:1"], ["239.2.0.1:1", "224.0.0.1:1", "192.0.2.1:1"]),
        (["0.0.0.0/0"], ["192.0.2.1:1"], ["239.1.2.3:1", "127.0.0.1:1", "169.254.0.1:1"]),
        (["192.0.0.0/2"], ["192.0.2.1:1"], ["224.0.0.1:1", "240.0.0.1:1"]),
        (["239.0.0.0/8", "0.0.0.0/0"], ["239.1.2.3:1", "192.0.2.1:1"], ["[2001:db8::1]:1"]),
        (["224.0.0.0/4"], ["224.0.0.1:1"], ["192.0.2.1:1"]),
        (["169.254.7.0/24"], ["169.254.7.1:1"], ["169.254.8.1:1"]),
        (["fe80::/10"], ["[fe80::1%3]:1"], ["[2001:db8::1]:1"]),
        (["127.0.0.0/8", "::1"], ["127.0.0.1:1", "[::1]:1"], ["192.0.2.1:1"]),
        (["240.0.0.0/4"], ["250.0.0.1:1"], ["255.255.255.255:1"]),
        (["::/0"], ["[2001:db8::1]:1"], ["192.0.2.1:1", "[ff02::1]:1", "[::1]:1"]),
        (["::ffff:10.0.0.0/104"], ["10.1.2.3:1"], ["11.0.0.1:1"]),
        # An IPv6 spelling needs its IPv4 view allowed as well.
        (["2002::/16"], [], ["[2002:a00:1::]:1"]),
        (["2002::/16", "10.0.0.0/8"], ["[2002:a00:1::]:1"], ["[2002:b00:1::]:1"]),
    ],
)
def test_allow(allow: list[str], opened: list[str], closed: list[str]) -> None:
    rules = policy(allow=allow)
    assert [text for text in opened if denied(rules, text)] == []
    assert [text for text in closed if not denied(rules, text)] == []


@pytest.mark.parametrize(
    ("deny", "text"),
    [
        (["10.0.0.0/8"], "10.1.2.3:1"),
        (["10.0.0.0/8"], "[::ffff:10.1.2.3]:1"),
        (["10.0.0.0/8"], "[64:ff9b::10.1.2.3]:1"),
        (["::ffff:10.0.0.0/104"], "10.1.2.3:1"),
        (["2001:db8::/32"], "[2001:db8::1]:1"),
        (["64:ff9b::/96"], "[64:ff9b::192.0.2.1]:1"),
        (["224.0.0.5"], "224.0.0.5:1"),
    ],
)
def test_deny_wins_over_allow(deny: list[str], text: str) -> None:
    rules = policy(allow=["0.0.0.0/0", "::/0", "224.0.0.0/4"], deny=deny)
    with pytest.raises(AddressDeniedError, match=r"address_policy\.deny"):
        rules.check_subscriber(Address.parse(text))


def test_canonical_network_leaves_others_alone() -> None:
    for text in ("10.0.0.0/8", "2001:db8::/32", "::/0", "::ffff:0:0/95", "64:ff9b::/96"):
        network = ipaddress.ip_network(text, strict=False)
        assert canonical_network(network) == network
    assert str(canonical_network(ipaddress.ip_network("::ffff:0:0/96"))) == "0.0.0.0/0"


def test_port_0_is_malformed() -> None:
    with pytest.raises(InvalidArgumentError, match="port 0") as caught:
        policy().check_subscriber(Address.parse("192.0.2.1:0"))
    assert caught.value.field == "subscriber_address"


@pytest.mark.parametrize(
    ("ingress", "sends", "text"),
    [
        ("0.0.0.0:5004", {"sends_ipv6": False}, "[2001:db8::1]:5000"),
        ("[2001:db8::9]:5004", {"sends_ipv4": False}, "192.0.2.1:5000"),
    ],
)
def test_a_family_the_socket_lacks(ingress: str, sends: dict[str, bool], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"bind_address = \[::\]:5004") as caught:
        policy(ingress, **sends).check_subscriber(Address.parse(text))
    assert caught.value.field == "subscriber_address"


def test_own_ingress_when_bound_to_one_address() -> None:
    rules = policy("192.0.2.1:5004", allow=["0.0.0.0/0", "::/0"], is_local=lambda _ip: True)
    for text in ("192.0.2.1:5004", "[::ffff:192.0.2.1]:5004", "[::192.0.2.1]:5004"):
        assert denied(rules, text), text
    for text in ("192.0.2.1:5005", "192.0.2.2:5004"):
        assert not denied(rules, text), text


def test_own_ingress_is_recognised_without_its_scope() -> None:
    rules = policy("[fe80::1%2]:5004", allow=["fe80::/10"])
    assert denied(rules, "[fe80::1]:5004")
    assert denied(rules, "[fe80::1%2]:5004")
    assert not denied(rules, "[fe80::2%2]:5004")


@pytest.mark.parametrize("ingress", ["0.0.0.0:5004", "[::]:5004"])
def test_own_ingress_when_bound_to_a_wildcard(ingress: str) -> None:
    """Real local addresses, loopback opened by every means there is."""
    rules = policy(
        ingress,
        allow=["0.0.0.0/0", "::/0", "127.0.0.0/8", "::1/128"],
        loopback_allowed=True,
        is_local=address_is_local,
    )
    for text in ("127.0.0.1", "127.8.8.8", "[::ffff:127.0.0.1]", "[2002:7f00:1::1]", "0.0.0.0"):
        assert denied(rules, f"{text}:5004"), text
    assert not denied(rules, "127.0.0.1:5005")
    assert not denied(rules, "192.0.2.1:5004")
    with pytest.raises(AddressDeniedError, match="own ingest"):
        rules.check_subscriber(Address.parse("127.0.0.1:5004"))


def test_address_is_local() -> None:
    assert address_is_local(IPv4("127.0.0.1"))
    assert not address_is_local(IPv4("192.0.2.1"))
    assert not address_is_local(IPv6("2001:db8::1"))
    assert not address_is_local(IPv6("fe80::1%4000000000"))
    assert not address_is_local(IPv4("224.0.0.1"))


def test_a_link_local_address_is_local_with_its_scope() -> None:
    rows = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    rows = [row for row in rows if row[0].startswith("fe8") and not int(row[4], 16) & 0x40]
    own = [(IPv6(bytes.fromhex(row[0])), int(row[1], 16)) for row in rows]  # 0x40: tentative
    if not own:
        pytest.skip("no interface has a link-local address")
    ip, index = own[0]
    assert address_is_local(IPv6(f"{ip}%{index}"))


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:6000", "[::1]:6000", "169.254.3.4:6000", "[fe80::1%2]:6000", "192.0.2.1:5004"],
)
def test_sources_may_be_loopback_or_link_local(text: str) -> None:
    policy(deny=["192.0.2.0/24"]).check_source(Address.parse(text))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("192.0.2.1:0", "port 0"),
        ("0.0.0.0:6000", "unspecified"),
        ("[::]:6000", "unspecified"),
        ("255.255.255.255:6000", "broadcast"),
        ("239.1.2.3:6000", "multicast"),
        ("[ff02::1]:6000", "multicast"),
        ("[::ffff:239.1.2.3]:6000", "multicast"),
    ],
)
def test_sources_that_cannot_send(text: str, what: str) -> None:
    with pytest.raises(InvalidArgumentError, match=what) as caught:
        policy().check_source(Address.parse(text))
    assert caught.value.field == "source_address"


def test_a_source_is_not_our_own_ingress() -> None:
    rules = policy(is_local=address_is_local)
    for text in ("127.0.0.1:5004", "[::ffff:127.0.0.1]:5004"):
        with pytest.raises(AddressDeniedError, match="own ingest") as caught:
            rules.check_source(Address.parse(text))
        assert caught.value.field == "source_address"
