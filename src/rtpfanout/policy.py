"""Which addresses traffic may be aimed at, and which may be a source. Pure functions.

An IPv6 address can carry an IPv4 one that a translator or tunnel on the way unpacks.
A decision is therefore taken over every view of an address, and one refusal refuses it.
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rtpfanout.errors import AddressDeniedError, InvalidArgumentError
from rtpfanout.model import Address, IPAddress, unmapped
from rtpfanout.networks import Network, NetworkSet, canonical_network

__all__ = ["AddressPolicy", "Network", "canonical_network", "embedded_ipv4", "views"]

_THIS_HOST = (ipaddress.IPv4Network("0.0.0.0/8"), ipaddress.IPv6Network("::/128"))
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_LOOPBACK = "loopback"
# Refused unless an allow entry inside the range opens it. RFC 6890 has the registry.
_SPECIAL: tuple[tuple[str, tuple[Network, ...]], ...] = (
    (_LOOPBACK, (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))),
    ("multicast", (ipaddress.IPv4Network("224.0.0.0/4"), ipaddress.IPv6Network("ff00::/8"))),
    ("link-local", (ipaddress.IPv4Network("169.254.0.0/16"), ipaddress.IPv6Network("fe80::/10"))),
    ("reserved", (ipaddress.IPv4Network("240.0.0.0/4"),)),
)

SUBSCRIBER_FIELD = "subscriber_address"
SOURCE_FIELD = "source_address"


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The rules of one server.

    `ingress` is the bound address with its real port; `sends_ipv4` and `sends_ipv6` say what
    the egress sockets reach. `allow` and `deny` are the configured networks (deny wins, an
    empty allow admits all ordinary addresses). `is_local` tells this host's own addresses,
    normally `netif.address_is_local`; it is asked only about ports of ours.
    """

    ingress: Address
    sends_ipv4: bool
    sends_ipv6: bool
    allow: Sequence[Network]
    deny: Sequence[Network]
    loopback_allowed: bool
    is_local: Callable[[IPAddress], bool]
    side_ports: frozenset[int] = frozenset()
    """That this server has beside the one of `ingress`, or may come to have."""

    _allowed: NetworkSet = field(init=False, repr=False, compare=False)
    _denied: NetworkSet = field(init=False, repr=False, compare=False)
    _opened: dict[Network, NetworkSet] = field(init=False, repr=False, compare=False)
    """By special network what opens a part of it."""

    def __post_init__(self) -> None:
        allowed, denied = _set_of(self.allow), _set_of(self.deny)
        special = [network for _kind, networks in _SPECIAL for network in networks]
        object.__setattr__(self, "_allowed", allowed)
        object.__setattr__(self, "_denied", denied)
        object.__setattr__(self, "_opened", {net: allowed.inside(net) for net in special})

    def check_subscriber(self, address: Address) -> None:
        """Return if copies may be sent to `address`.

        Raises InvalidArgumentError (port 0, a family the socket cannot send to) or
        AddressDeniedError with field ``subscriber_address``, saying which rule and what to do.
        """
        if address.port == 0:
            raise InvalidArgumentError(
                f"{address} has port 0; give the port the subscriber listens on",
                field=SUBSCRIBER_FIELD,
            )
        for view in views(address.ip):
            reason = self._never(view, address.port) or self._refusal(view)
            if reason:
                raise AddressDeniedError(_sentence(address, view, reason), field=SUBSCRIBER_FIELD)
        _check_scope(address, SUBSCRIBER_FIELD)
        if not (self.sends_ipv4 if address.ip.version == 4 else self.sends_ipv6):
            raise InvalidArgumentError(
                f"{address} is IPv{address.ip.version}, which bind_address = {self.ingress} cannot "
                f"send to; set bind_address = [::]:{self.ingress.port} for both IPv4 and IPv6",
                field=SUBSCRIBER_FIELD,
            )

    def ipv4_verdicts(self) -> tuple[list[bytes], list[bool]]:
        """Which IPv4 subscribers `check_subscriber` lets pass, on other ports than 0 and ingress's.

        Ranges of addresses decided alike: the first of each (4 bytes, network order,
        ascending from 0.0.0.0), and whether that range passes.
        """
        starts: list[bytes] = []
        verdicts: list[bool] = []
        if not self.sends_ipv4:
            return [bytes(4)], [False]
        for first, last, passing in self._ipv4_kinds():
            ends = first.to_bytes(4), last.to_bytes(4)
            _add_ranges(starts, verdicts, ends, passing, self._denied)
        return starts, verdicts

    def _ipv4_kinds(self) -> Iterator[tuple[int, int, NetworkSet | bool]]:
        """(first, last, whether or in which networks they pass), before anything is denied."""
        ordinary: NetworkSet | bool = self._allowed if len(self._allowed) else True
        kinds: list[tuple[ipaddress.IPv4Network, NetworkSet | bool]] = [
            (network, False) for network in _THIS_HOST if network.version == 4
        ]
        for kind, networks in _SPECIAL:
            is_ordinary = kind == _LOOPBACK and self.loopback_allowed
            kinds += [
                (network, ordinary if is_ordinary else self._opened[network])
                for network in networks
                if network.version == 4
            ]
        at = 0
        broadcast = int(_BROADCAST)
        for network, passing in sorted(kinds, key=lambda pair: pair[0]):
            first, last = int(network.network_address), int(network.broadcast_address)
            if at < first:
                yield at, first - 1, ordinary
            yield first, min(last, broadcast - 1), passing
            at = last + 1
        yield broadcast, broadcast, False

    def check_source(self, address: Address) -> None:
        """Return if packets can come from `address` (loopback and link-local can).

        Raises InvalidArgumentError or, for this server's own address, AddressDeniedError,
        with field ``source_address``.
        """
        if address.port == 0:
            raise InvalidArgumentError(
                f"{address} has port 0; give the port the source sends from", field=SOURCE_FIELD
            )
        for view in views(address.ip):
            if reason := self._own_ingress(view, address.port):
                raise AddressDeniedError(_sentence(address, view, reason), field=SOURCE_FIELD)
            kind = _no_sender(view)
            if kind:
                reason = f"is {kind}, which nothing sends from; give the source's own address"
                raise InvalidArgumentError(_sentence(address, view, reason), field=SOURCE_FIELD)
        _check_scope(address, SOURCE_FIELD)

    def check_source_network(self, network: Network) -> None:
        """Return if packets can come from some address of `network`, whatever the port.

        Raises InvalidArgumentError with field ``source_address``. This server's own ingress
        may be inside: the packet path drops what comes from it as a loop.
        """
        single = network.num_addresses == 1
        for view in views(network.network_address) if single else [network.network_address]:
            kind = _no_sender(view)
            if kind and (single or _inside_special(network)):
                shown = network.network_address if single else network
                raise InvalidArgumentError(
                    f"{shown} is {kind}, which nothing sends from; give the source's own"
                    " address or network",
                    field=SOURCE_FIELD,
                )

    def is_own_ingress(self, address: Address) -> bool:
        """Whether a datagram to `address` would come in here, in whatever spelling."""
        return any(self._own_ingress(view, address.port) for view in views(address.ip))

    def is_own_ingress_ipv4(self, packed: bytes) -> bool:
        """The same for the ingress port of an IPv4 address of 4 bytes."""
        return self._own_ingress(ipaddress.IPv4Address(packed), self.ingress.port) is not None

    def _never(self, view: IPAddress, port: int) -> str | None:
        """Why a view is refused whatever is configured."""
        if _in(view, _THIS_HOST):
            return "is an unspecified address; give the subscriber's own"
        if view == _BROADCAST:
            return "is the broadcast address; add each subscriber by its own"
        return self._own_ingress(view, port)

    def _own_ingress(self, view: IPAddress, port: int) -> str | None:
        if port != self.ingress.port and port not in self.side_ports:
            return None
        if self.ingress.ip.is_unspecified:
            own = self.is_local(view)
        else:
            # Compared as numbers: fe80::1%2 and fe80::1 may be the same place.
            own = view.packed == self.ingress.ip.packed
        return "is this server's own ingest, which would loop; use another address" if own else None

    def _refusal(self, view: IPAddress) -> str | None:
        """Why the configuration refuses a view."""
        if denied := self._denied.find(view):
            return f"is in {denied} of address_policy.deny; remove that entry to permit it"
        for kind, networks in _SPECIAL:
            network = _in(view, networks)
            if network is None or (kind == _LOOPBACK and self.loopback_allowed):
                continue
            if self._opened[network].covers(view):
                return None
            next_step = f"add a network inside {network} to address_policy.allow to permit it"
            if kind == _LOOPBACK:
                next_step = f"bind gRPC to loopback, or {next_step}"
            return f"is {kind}; {next_step}"
        if len(self._allowed) and not self._allowed.covers(view):
            return "is not in address_policy.allow; add its network there to permit it"
        return None


def _set_of(networks: Sequence[Network]) -> NetworkSet:
    return networks if isinstance(networks, NetworkSet) else NetworkSet(networks)


def _add_ranges(
    starts: list[bytes],
    verdicts: list[bool],
    ends: tuple[bytes, bytes],
    passing: NetworkSet | bool,
    denied: NetworkSet,
) -> None:
    """Those from the first to the last end, behind those there are; by slices, as many may be."""
    first, last = ends
    if passing is False:
        starts.append(first)
        verdicts.append(False)
        return
    refused, is_refused = _part(denied, first, last)
    if passing is True:
        starts += [first, *refused]
        verdicts += _alternating(not is_refused, len(refused) + 1)
        return
    allowed, is_allowed = _part(passing, first, last)
    if not refused:
        starts += [first, *allowed]
        passes = [False] * (len(allowed) + 1)
        verdicts += passes if is_refused else _alternating(is_allowed, len(allowed) + 1)
        return
    both = sorted({first, *refused, *allowed})
    starts += both
    for start in both:
        goes = bisect.bisect_right(allowed, start) % 2 != is_allowed
        verdicts.append(goes and bisect.bisect_right(refused, start) % 2 == is_refused)


def _part(networks: NetworkSet, first: bytes, last: bytes) -> tuple[list[bytes], bool]:
    """The edges above `first` and up to `last`, and whether `first` is in."""
    edges = networks.ipv4_edges
    low = bisect.bisect_right(edges, first)
    return edges[low : bisect.bisect_right(edges, last, low)], low % 2 == 1


def _alternating(begin: bool, count: int) -> list[bool]:
    return ([begin, not begin] * (count // 2 + 1))[:count]


def views(ip: IPAddress) -> list[IPAddress]:
    """`ip` itself and every IPv4 address hidden in it; a mapped address is its IPv4 one."""
    if ip.version == 4:
        return [ip]
    return list(dict.fromkeys((unmapped(ip), *embedded_ipv4(ip))))


def embedded_ipv4(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Every IPv4 address that a standard way of writing one into IPv6 finds in `ip`.

    Mapped and compatible (RFC 4291 2.5.5), translated (RFC 2765), NAT64 (RFC 6052, RFC 8215),
    6to4 (RFC 3056), Teredo server and client (RFC 4380), ISATAP (RFC 5214).
    """
    return [ipaddress.IPv4Address(four) for four in dict.fromkeys(_embedded(ip.packed))]


def _embedded(packed: bytes) -> Iterator[bytes]:
    last = packed[12:]
    if packed[:12] in _LAST_FOUR_PREFIXES and int.from_bytes(packed) > 1:
        yield last
    if packed[:6] == _LOCAL_NAT64:
        yield from _local_nat64(packed)
    if packed[:2] == b"\x20\x02":
        yield packed[2:6]
    if packed[:4] == b"\x20\x01\x00\x00":
        yield packed[4:8]
        yield bytes(byte ^ 0xFF for byte in last)
    if packed[8:12] in (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"):
        yield last


_LAST_FOUR_PREFIXES = (
    bytes(12),  # ::a.b.c.d
    bytes(10) + b"\xff\xff",  # ::ffff:a.b.c.d
    bytes(8) + b"\xff\xff\x00\x00",  # ::ffff:0:a.b.c.d
    b"\x00\x64\xff\x9b" + bytes(8),  # 64:ff9b::a.b.c.d
)
_LOCAL_NAT64 = b"\x00\x64\xff\x9b\x00\x01"


def _local_nat64(packed: bytes) -> list[bytes]:
    """The readings of an address in 64:ff9b:1::/48 (RFC 8215).

    The network that uses it chooses a prefix of 48, 56, 64 or 96 bits, and with that where
    the IPv4 address stands (RFC 6052 section 2.2; byte 8 is skipped). A reading in 0.0.0.0/8
    is no destination and only shows that this was not the layout, unless all say so.
    """
    layouts = [
        packed[6:8] + packed[9:11],
        packed[7:8] + packed[9:12],
        packed[9:13],
        packed[12:16],
    ]
    return [four for four in layouts if four[0] != 0] or layouts


def _check_scope(address: Address, field: str) -> None:
    """Raises InvalidArgumentError: no packet has a link-local address without an interface."""
    if address.ip.version == 6 and address.ip.is_link_local and not address.scope:
        raise InvalidArgumentError(
            f"{address} is link-local, which is an address only together with an interface; add"
            f" the interface's index, as in [{address.ip}%2]:{address.port} (ip link shows it)",
            field=field,
        )


def _no_sender(view: IPAddress) -> str | None:
    if _in(view, _THIS_HOST):
        return "unspecified"
    if view == _BROADCAST:
        return "broadcast"
    return "multicast" if view.is_multicast else None


def _inside_special(network: Network) -> bool:
    """Whether no address of `network` sends anything."""
    multicast = next(networks for kind, networks in _SPECIAL if kind == "multicast")
    return any(
        outer.version == network.version and _inside(network, outer)
        for outer in (*multicast, *_THIS_HOST)
    )


def _in(ip: IPAddress, networks: Iterable[Network]) -> Network | None:
    """The first of `networks` that contains `ip`; a network of the other family never does."""
    return next((net for net in networks if net.version == ip.version and ip in net), None)


def _inside(entry: Network, network: Network) -> bool:
    return (
        entry.version == network.version
        and entry.prefixlen >= network.prefixlen
        and entry.network_address in network
    )


def _sentence(address: Address, view: IPAddress, reason: str) -> str:
    seen = "" if view == address.ip else f" (it reaches {view})"
    return f"{address}{seen} {reason}"
