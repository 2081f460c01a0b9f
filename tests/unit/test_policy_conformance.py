"""The address policy against the standard library: one verdict for every address in every spelling.

The oracle knows addresses by the properties of `ipaddress` alone. Where the policy decides
otherwise on purpose, or `ipaddress` has no word for it, the oracle says so with the RFC.
"""

from __future__ import annotations

import bisect
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpfanout.errors import AddressDeniedError, InvalidArgumentError
from rtpfanout.model import Address
from rtpfanout.policy import AddressPolicy, Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout.model import IPAddress

IPv4, IPv6 = ipaddress.IPv4Address, ipaddress.IPv6Address
MANY = settings(max_examples=300)

# RFC 6890's registry, as far as it is about ranges; each edge is where a rule may be off by one.
SPECIAL_IPV4 = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
    "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32",
]  # fmt: skip
SPECIAL_IPV6 = [
    "::/128", "::1/128", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96",
    "64:ff9b:1::/48", "100::/64", "2001::/23", "2001::/32", "2001:db8::/32", "2002::/16",
    "2000::/3", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
]  # fmt: skip


# -- the oracle

THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
COMPATIBLE = ipaddress.IPv6Network("::/96")
TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
LOW = 0xFFFF_FFFF


def lacks_zone(address: Address) -> bool:
    """RFC 4007 section 6: without its zone it is no address."""
    ip = address.ip
    return ip.version == 6 and ip.is_link_local and address.scope == 0


@dataclass(frozen=True)
class Rules:
    """What an AddressPolicy is made of, `local` being this host's own addresses."""

    ingress: Address
    allow: tuple[Network, ...]
    deny: tuple[Network, ...]
    loopback_allowed: bool
    local: tuple[Network, ...]
    sends_ipv4: bool = True
    sends_ipv6: bool = True

    @property
    def policy(self) -> AddressPolicy:
        return AddressPolicy(
            ingress=self.ingress,
            sends_ipv4=self.sends_ipv4,
            sends_ipv6=self.sends_ipv6,
            allow=self.allow,
            deny=self.deny,
            loopback_allowed=self.loopback_allowed,
            is_local=lambda ip: any(ip in network for network in self.local),
        )

    def subscriber(self, address: Address) -> str:
        """ "passes", "denied" or "malformed"."""
        if address.port == 0:
            return "malformed"
        if any(self._refuses(ip, address.port) for ip in readings(address.ip)):
            return "denied"
        if lacks_zone(address):
            return "malformed"
        reached = self.sends_ipv4 if address.ip.version == 4 else self.sends_ipv6
        return "passes" if reached else "malformed"

    def source_passes(self, address: Address) -> bool:
        found = readings(address.ip)
        own = any(self._is_own(ip, address.port) for ip in found)
        return (
            address.port != 0
            and not lacks_zone(address)
            and not own
            and not any(map(sends_nothing, found))
        )

    def _refuses(self, ip: IPAddress, port: int) -> bool:
        if is_nobody(ip) or self._is_own(ip, port) or is_in(ip, self.deny):
            return True
        if ip.is_loopback and self.loopback_allowed:
            special = False
        elif ip.version == 4:
            special = ip.is_loopback or ip.is_multicast or ip.is_link_local or ip.is_reserved
        else:
            # RFC 4291 section 2.4: what is reserved in IPv6 has to be treated as global unicast
            # until a specification says more. Site-local ones (RFC 3879) are ordinary, too.
            special = ip.is_loopback or ip.is_multicast or ip.is_link_local
        if not special:
            return bool(self.allow) and not is_in(ip, self.allow)
        return not is_in(ip, tuple(filter(is_special, map(unmapped, self.allow))))

    def _is_own(self, ip: IPAddress, port: int) -> bool:
        if port != self.ingress.port:
            return False
        if self.ingress.ip.is_unspecified:
            return is_in(ip, self.local)
        return (ip.version, int(ip)) == (self.ingress.ip.version, int(self.ingress.ip))


def readings(ip: IPAddress) -> set[IPAddress]:
    """The address and each one that it reaches by a translator or a tunnel."""
    if isinstance(ip, IPv4):
        return {ip}
    if ip.ipv4_mapped is not None:  # no such address is on any wire (RFC 4291 2.5.5.2)
        return {ip.ipv4_mapped}
    found: set[IPAddress] = {ip, *(ip.teredo or ())}
    if ip.sixtofour is not None:
        found.add(ip.sixtofour)
    # ipaddress has no word for the others.
    number = int(ip)
    compatible = ip in COMPATIBLE and not ip.is_unspecified and not ip.is_loopback
    isatap = number >> 32 & 0xFDFF_FFFF == 0x5EFE  # RFC 5214 6.1; the bit is "universal"
    if compatible or ip in TRANSLATED or ip in NAT64 or isatap:
        found.add(IPv4(number & LOW))
    if ip in LOCAL_NAT64:
        # RFC 8215: the prefix is the user's to choose, 48, 56, 64 or 96 bits long, and RFC 6052
        # 2.2 says where the IPv4 address stands then. What reads as "this network" is none.
        layouts = {
            IPv4((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF),
            IPv4((number >> 64 & 0xFF) << 24 | number >> 32 & 0xFF_FFFF),
            IPv4(number >> 24 & LOW),
            IPv4(number & LOW),
        }
        found |= {four for four in layouts if four not in THIS_NETWORK} or layouts
    return found


def is_nobody(ip: IPAddress) -> bool:
    """RFC 1122 3.2.1.3: all of 0.0.0.0/8 is "this network", and never a destination; the
    limited broadcast is none of one host. is_unspecified knows the first address only."""
    return ip.is_unspecified or is_in(ip, (THIS_NETWORK,)) or (ip.version, int(ip)) == (4, LOW)


def sends_nothing(ip: IPAddress) -> bool:
    return is_nobody(ip) or ip.is_multicast


def unmapped(network: Network) -> Network:
    """RFC 4291 2.5.5.2: the same IPv4 nodes, written otherwise."""
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        first = network.network_address.ipv4_mapped
        if first is not None:
            return ipaddress.IPv4Network((first, network.prefixlen - 96))
    return network


def is_special(network: Network) -> bool:
    """All of it."""
    always = network.is_loopback or network.is_multicast or network.is_link_local
    return always or (network.version == 4 and network.is_reserved)


def is_in(ip: IPAddress, networks: tuple[Network, ...]) -> bool:
    return any(ip in network for network in map(unmapped, networks))


# -- what is asked

MAPPED, LOCAL = 0xFFFF << 32, int(LOCAL_NAT64.network_address)
# The address, 64 bits of anything for the rest -> the IPv6 address.
ENCODINGS: dict[str, Callable[[int, int], int]] = {
    "mapped": lambda four, _: MAPPED | four,
    "compatible": lambda four, _: four,
    "translated": lambda four, _: 0xFFFF << 48 | four,
    "nat64": lambda four, _: int(NAT64.network_address) | four,
    "local nat64 /48": lambda four, _: LOCAL | four >> 16 << 64 | (four & 0xFFFF) << 40,
    "local nat64 /56": lambda four, _: LOCAL | four >> 24 << 64 | (four & 0xFF_FFFF) << 32,
    "local nat64 /64": lambda four, _: LOCAL | four << 24,
    "local nat64 /96": lambda four, _: LOCAL | four,
    "local nat64 with a suffix": lambda four, rest: LOCAL | four << 24 | rest & 0xFF_FFFF,
    "local nat64 in a subnet": lambda four, rest: LOCAL | (rest & 0xFFFF) << 64 | four,
    "6to4": lambda four, rest: 0x2002 << 112 | four << 80 | rest,
    "teredo server": lambda four, rest: 0x2001 << 112 | four << 64 | rest,
    "teredo client": lambda four, rest: 0x2001 << 112 | rest >> 32 << 64 | (four ^ LOW),
    "isatap": lambda four, rest: rest << 64 | 0x5EFE << 32 | four,
    "isatap, universal": lambda four, rest: rest << 64 | 0x200_5EFE << 32 | four,
    "isatap, link-local": lambda four, _: 0xFE80 << 112 | 0x5EFE << 32 | four,
    "isatap in 6to4": lambda four, rest: 0x2002 << 112 | (rest & LOW) << 80 | 0x5EFE << 32 | four,
}


def edges(texts: list[str]) -> list[int]:
    """The first and last of each network, and their neighbours outside."""
    found = set()
    for network in map(ipaddress.ip_network, texts):
        first, last = int(network.network_address), int(network.broadcast_address)
        found |= {first - 1, first, last, last + 1}
        bits = network.max_prefixlen
    return sorted(number for number in found if 0 <= number < 2**bits)


def inside(texts: list[str]) -> st.SearchStrategy[int]:
    return st.sampled_from(list(map(ipaddress.ip_network, texts))).flatmap(
        lambda net: st.integers(int(net.network_address), int(net.broadcast_address))
    )


ipv4 = st.one_of(
    st.integers(0, LOW), st.sampled_from(edges(SPECIAL_IPV4)), inside(SPECIAL_IPV4)
).map(IPv4)
ipv6 = st.one_of(
    st.integers(0, 2**128 - 1), st.sampled_from(edges(SPECIAL_IPV6)), inside(SPECIAL_IPV6)
).map(IPv6)
hidden = st.builds(
    lambda encoding, four, rest: IPv6(ENCODINGS[encoding](int(four), rest)),
    st.sampled_from(sorted(ENCODINGS)),
    ipv4,
    st.one_of(st.just(0), st.integers(0, 2**64 - 1), ipv4.map(int)),
)
addresses = st.one_of(ipv4, ipv6, hidden)


@st.composite
def networks(draw: st.DrawFn, ip: IPAddress) -> tuple[Network, ...]:
    """A few; often around one of the readings of `ip`, or next to it, or mapped."""
    found: list[Network] = []
    for _ in range(draw(st.integers(0, 2))):
        near: IPAddress = draw(
            st.one_of(st.sampled_from(sorted(readings(ip), key=lambda ip: (ip.version, ip))), ipv4)
        )
        length = draw(st.integers(0, near.max_prefixlen))
        beside = 1 << near.max_prefixlen - length if length else 0
        number = int(near) ^ draw(st.sampled_from([0, 0, beside]))
        if near.version == 4 and draw(st.booleans()):
            found.append(ipaddress.IPv6Network((MAPPED | number, 96 + length), strict=False))
        else:
            found.append(ipaddress.ip_network((type(near)(number), length), strict=False))
    chosen = draw(st.lists(st.sampled_from([*SPECIAL_IPV4, *SPECIAL_IPV6]), max_size=2))
    return (*found, *map(ipaddress.ip_network, chosen))


@st.composite
def rules_for(draw: st.DrawFn, ip: IPAddress) -> Rules:
    """A server's, whose parts often have to do with `ip`."""
    ingress = draw(st.sampled_from(["0.0.0.0:5004", "[::]:5004", "192.0.2.1:5004", "own"]))
    if ingress == "own":
        own = draw(st.sampled_from(sorted(readings(ip), key=lambda ip: (ip.version, ip))))
        ingress = str(Address(own, 5004))
    return Rules(
        ingress=Address.parse(ingress),
        allow=draw(networks(ip)),
        deny=draw(st.one_of(st.just(()), networks(ip))),
        loopback_allowed=draw(st.booleans()),
        local=tuple(map(unmapped, draw(networks(ip)))),
        sends_ipv4=draw(st.sampled_from([True, True, False])),
        sends_ipv6=draw(st.sampled_from([True, True, False])),
    )


def spellings(ip: IPAddress) -> list[str]:
    """Every way of writing it down that the API reads."""
    if ip.version == 4:
        return [str(ip)]
    groups = ip.exploded.split(":")
    dotted = f"{':'.join(groups[:6])}:{IPv4(int(ip) & LOW)}"
    short = ":".join(group.lstrip("0") or "0" for group in groups)
    texts = [str(ip), ip.exploded, short, str(ip).upper(), dotted]
    return [f"[{text}]" for text in (*texts, f"{ip}%7", f"{dotted}%4294967295")]


def verdict(policy: AddressPolicy, address: Address) -> str:
    try:
        policy.check_subscriber(address)
    except AddressDeniedError:
        return "denied"
    except InvalidArgumentError:
        return "malformed"
    return "passes"


ports = st.sampled_from([5004, 6000, 6000, 0])


@MANY
@given(data=st.data(), ip=addresses, port=ports)
def test_one_verdict_for_every_spelling(data: st.DataObject, ip: IPAddress, port: int) -> None:
    rules = data.draw(rules_for(ip))
    expected: dict[bool, str] = {}  # a link-local address is another with a zone
    for text in spellings(ip):
        address = Address.parse(f"{text}:{port}")
        wanted = expected.setdefault(lacks_zone(address), rules.subscriber(address))
        assert verdict(rules.policy, address) == wanted, text


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None)
@given(four=ipv4, rest=st.integers(0, 2**64 - 1), local=st.booleans())
def test_an_encoding_hides_the_address_it_holds(
    encoding: str, four: ipaddress.IPv4Address, rest: int, local: bool
) -> None:
    """The oracle finds it, and with no rules of one's own nothing else decides than what it is."""
    six = IPv6(ENCODINGS[encoding](int(four), rest))
    none = encoding == "compatible" and int(four) <= 1  # :: and ::1 are addresses of their own
    other_layout = encoding.startswith("local") and four in THIS_NETWORK
    assert none or other_layout or four in readings(six)
    rules = Rules(Address.parse("[::]:5004"), (), (), local, ())
    assert verdict(rules.policy, Address(six, 6000)) == rules.subscriber(Address(six, 6000))


@pytest.mark.parametrize("allow", [[], [*SPECIAL_IPV4, *SPECIAL_IPV6], ["0.0.0.0/0", "::/0"]])
def test_the_edges_of_every_range(allow: list[str]) -> None:
    own = Address.parse("[::]:5004")
    rules = Rules(own, tuple(map(ipaddress.ip_network, allow)), (), False, ())
    policy = rules.policy
    asked: list[IPAddress] = list(map(IPv6, edges(SPECIAL_IPV6)))
    for four in edges(SPECIAL_IPV4):
        asked += [IPv4(four), *(IPv6(encode(four, 0)) for encode in ENCODINGS.values())]
    for ip in asked:
        address = Address.parse(f"{spellings(ip)[0]}:6000")
        assert verdict(policy, address) == rules.subscriber(address), address


@MANY
@given(data=st.data(), ip=ipv4)
def test_the_ranges_of_the_fast_way_agree(data: st.DataObject, ip: ipaddress.IPv4Address) -> None:
    """Batches are judged by `ipv4_verdicts` instead, see sessions/admission.py."""
    rules = data.draw(rules_for(ip))
    starts, admitted = rules.policy.ipv4_verdicts()
    assert starts[0] == bytes(4)
    assert starts == sorted(set(starts))
    found = admitted[bisect.bisect_right(starts, ip.packed) - 1]
    assert found == (rules.subscriber(Address(ip, 6000)) == "passes")


@MANY
@given(data=st.data(), ip=addresses, port=ports)
def test_one_verdict_for_every_source(data: st.DataObject, ip: IPAddress, port: int) -> None:
    rules = data.draw(rules_for(ip))
    for text in spellings(ip):
        address = Address.parse(f"{text}:{port}")
        try:
            rules.policy.check_source(address)
        except (AddressDeniedError, InvalidArgumentError):
            passes = False
        else:
            passes = True
        assert passes == rules.source_passes(address), text
        own = any(rules._is_own(ip, port) for ip in readings(address.ip))
        assert rules.policy.is_own_ingress(address) == own, text


@MANY
@given(ip=st.one_of(ipv4, ipv6), length=st.integers(0, 128))
def test_networks_that_send_nothing_are_no_sources(ip: IPAddress, length: int) -> None:
    network = ipaddress.ip_network((ip, min(length, ip.max_prefixlen)), strict=False)
    first, last = network.network_address, network.broadcast_address
    if first == last:
        nothing = any(map(sends_nothing, readings(first)))
    elif network.version == 4:
        nothing = network.is_multicast or network.subnet_of(THIS_NETWORK)
    else:
        nothing = network.is_multicast
    policy = Rules(Address.parse("[::]:5004"), (), (), False, ()).policy
    try:
        policy.check_source_network(network)
    except InvalidArgumentError:
        assert nothing
    else:
        assert not nothing
