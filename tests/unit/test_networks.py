"""Many networks as one value, against the plain way of asking each of them."""

from __future__ import annotations

import ipaddress
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtpfanout.config import Settings
from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import ADDRESS_RECORD, IPV4_PREFIX, Address
from rtpfanout.networks import NetworkSet, canonical_network
from rtpfanout.policy import AddressPolicy
from rtpfanout.sessions.admission import Admission

if TYPE_CHECKING:
    from rtpfanout.model import IPAddress
    from rtpfanout.networks import Network

# Few numbers, so that networks meet: apart, nested, touching, the same.
FOUR = st.tuples(
    st.sampled_from([0, 10 << 24, 127 << 24, 224 << 24, 0xFFFFFF00]), st.integers(0, 255)
)
ipv4 = FOUR.map(lambda pair: pair[0] | pair[1])


@st.composite
def networks(draw: st.DrawFn) -> Network:
    kind = draw(st.sampled_from(["4", "4", "mapped", "6"]))
    if kind == "6":
        number = 0x20010DB8 << 96 | draw(st.integers(0, 255))
        return ipaddress.ip_network((number, draw(st.integers(90, 128))), strict=False)
    number, bits = draw(ipv4), draw(st.integers(20, 32) | st.integers(0, 32))
    if kind == "4":
        return ipaddress.ip_network((number, bits), strict=False)
    six = ipaddress.IPv6Address(0xFFFF << 32 | number)
    return ipaddress.ip_network((six, bits + 96), strict=False)


some = st.lists(networks(), max_size=12)
addresses: st.SearchStrategy[IPAddress] = ipv4.map(ipaddress.IPv4Address) | st.integers(0, 300).map(
    lambda low: ipaddress.IPv6Address(0x20010DB8 << 96 | low)
)


def naive(ip: IPAddress, among: list[Network]) -> set[Network]:
    return {n for n in map(canonical_network, among) if n.version == ip.version and ip in n}


@given(some, addresses)
def test_what_covers_an_address(among: list[Network], ip: IPAddress) -> None:
    found = NetworkSet(among)
    expected = naive(ip, among)
    assert found.covers(ip) is bool(expected)
    assert found.find(ip) == max(expected, key=lambda n: n.prefixlen, default=None)


@given(some, networks().map(canonical_network))
def test_what_meets_a_network_and_what_is_inside(among: list[Network], outer: Network) -> None:
    found = NetworkSet(among)
    same = [n for n in map(canonical_network, among) if n.version == outer.version]
    assert found.meets(outer) is any(n.overlaps(outer) for n in same)  # type: ignore[arg-type]
    inside = [n for n in same if n.subnet_of(outer)]  # type: ignore[arg-type]
    assert list(map(canonical_network, found.inside(outer))) == inside


@given(some)
def test_it_is_the_sequence_it_was_made_of(among: list[Network]) -> None:
    found = NetworkSet(among)
    read = NetworkSet.read(list(map(str, among)), lambda entry: ipaddress.ip_network(str(entry)))
    assert list(found) == among
    assert found == tuple(among) == read
    assert hash(found) == hash(read)
    assert read.texts() == list(map(str, among))


@pytest.mark.parametrize(
    "entry",
    [
        *("10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "010.0.0.0/8", "10.0.0.0/08", "10.0.0.0\0/8", 7),
        *("2001:db8::1/64", "2001:db8::/129", "2001:db8:/32", "fe80::%lo/64", "2001:db8::/032"),
        *("::ffff:10.0.0.0/104", "::10.0.0.0/104", "2001:db8::\0/32", "2001:db8::/"),
    ],
)
def test_what_is_not_plain_is_looked_at(entry: object) -> None:
    with pytest.raises(ValueError, match="refused"):
        NetworkSet.read([entry], _refuse)
    assert NetworkSet.read(["10.0.0.0/8"], _refuse).texts() == ["10.0.0.0/8"]
    assert NetworkSet.read(["10.0.0.7"], _refuse).texts() == ["10.0.0.7/32"]


def test_plain_ipv6_needs_no_look_either() -> None:
    given = ["2001:DB8:0:1::/64", "2001:0db8::7", "fd00:0:1:0:1:0:0:0/80", "2000::/3", "1::/128"]
    expected = ["2001:db8:0:1::/64", "2001:db8::7/128", "fd00:0:1:0:1::/80", "2000::/3", "1::/128"]
    assert NetworkSet.read(given, _refuse).texts() == expected


def _refuse(entry: object) -> Network:
    raise ValueError(f"refused: {entry!r}")


def policy_of(allow: list[Network], deny: list[Network], *, loopback: bool) -> AddressPolicy:
    ingest = Address.parse("198.51.100.1:5004")
    return AddressPolicy(ingest, True, True, allow, deny, loopback, lambda _ip: False)


@given(
    some,
    some,
    st.booleans(),
    st.lists(ipv4, min_size=1, max_size=40),
    st.sampled_from([0, 5004, 6000]),
)
@example(allow=[], deny=[], loopback=False, numbers=[10 << 24], port=0)
def test_the_quick_way_decides_as_one_by_one(
    allow: list[Network], deny: list[Network], loopback: bool, numbers: list[int], port: int
) -> None:
    """The table of ranges, with every edge of every network, against `check_subscriber`."""
    policy = policy_of(allow, deny, loopback=loopback)
    edges = itertools.chain.from_iterable(
        (int(n.network_address) - 1, int(n.network_address), int(n.broadcast_address),
         int(n.broadcast_address) + 1)
        for n in map(canonical_network, [*allow, *deny])
        if n.version == 4
    )  # fmt: skip
    asked = [n for n in dict.fromkeys([*numbers, *edges]) if 0 <= n < 1 << 32]
    records = [ADDRESS_RECORD.pack(IPV4_PREFIX + n.to_bytes(4), 0, port) for n in asked]
    left = Admission(policy).divide(b"".join(records))[0]
    passing = []
    for number, record in zip(asked, records, strict=True):
        try:
            policy.check_subscriber(Address(ipaddress.IPv4Address(number), port))
        except RtpFanoutError:
            continue
        passing.append(record)
    assert left == b"".join(passing)


def test_a_hundred_thousand_entries_are_taken() -> None:
    """Quadratic, as it was, this takes half an hour."""
    texts = [f"100.{64 + i // 65536}.{i // 256 % 256}.{i % 256}/32" for i in range(0, 200_000, 2)]
    settings = Settings.model_validate({"address_policy": {"deny": texts, "allow": texts[::2]}})
    found = settings.address_policy
    assert found.deny.texts() == texts
    policy = policy_of(found.allow, found.deny, loopback=True)  # type: ignore[arg-type]
    starts, verdicts = policy.ipv4_verdicts()
    assert len(starts) == len(verdicts)
    assert not any(verdicts)
    assert "100.64.0.2/32" in Admission(policy).refusal(Address.parse("100.64.0.2:6000").record)
